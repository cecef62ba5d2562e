//! How long three members acknowledge nothing after their leader was killed.

use super::{Sample, Setting};
use crate::results::median;
use anyhow::{Context, Result};
use mechi_tests::failover::{End, measure};
use mechi_tests::process::Kind;

pub(super) fn failover(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let program = Some(setting.programs.of(kind));
    let times = runtime.block_on(measure(kind, program, End::Kill, setting.scale.failovers, |_, _| {}))?;
    let middle = median(times.iter().map(|time| time.as_secs_f64() * 1e3)).context("it was measured")?;
    Ok(vec![Sample::new("failover", middle)])
}
