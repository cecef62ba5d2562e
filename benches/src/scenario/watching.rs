//! Watchers: how fast events reach many, and what many cost that are idle. Lease keep-alives, whose streams are alike.

use super::{Sample, Setting};
use crate::load::fanout::{Watchers, fan_out, idle};
use crate::load::lease::keep_alives;
use crate::load::work::VALUE_BYTES;
use crate::servers::Fleet;
use anyhow::Result;
use mechi_tests::process::Kind;
use std::time::Duration;

/// Connections of watchers and of keep-alives.
const CONNECTIONS: usize = 10;

/// How long memory may settle after the last watcher was created.
const SETTLE: Duration = Duration::from_secs(3);

fn watched(setting: &Setting, kind: Kind, watchers: Watchers, metric: &str) -> Result<Vec<Sample>> {
    let fleet = Fleet::start(&setting.programs, kind, 1, &[])?;
    let time = (setting.scale.warm, setting.scale.measure);
    let report = fan_out(&fleet.leader()[0], watchers, time, VALUE_BYTES, &|| fleet.cpu())?;
    Ok(vec![Sample::rate(metric, &report)])
}

pub(super) fn watch(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let streams = setting.scale.watchers / CONNECTIONS;
    watched(setting, kind, Watchers { connections: CONNECTIONS, streams, watches: 1 }, "watch")
}

pub(super) fn watch_shared(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let watches = setting.scale.watchers / CONNECTIONS;
    watched(setting, kind, Watchers { connections: CONNECTIONS, streams: 1, watches }, "watch_shared")
}

pub(super) fn keep_alive(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let fleet = Fleet::start(&setting.programs, kind, 1, &[])?;
    let time = (setting.scale.warm, setting.scale.measure);
    let report = keep_alives(&fleet.leader()[0], (16, 16), time, &|| fleet.cpu())?;
    Ok(vec![Sample::rate("keep_alive", &report)])
}

/// What so many idle watchers add to the memory, in bytes.
fn added(setting: &Setting, kind: Kind, watchers: Watchers) -> Result<f64> {
    let fleet = Fleet::start(&setting.programs, kind, 1, &[])?;
    let before = fleet.memory()?.rss();
    let after = idle(&fleet.leader()[0], watchers, || {
        std::thread::sleep(SETTLE.min(setting.scale.settle));
        Ok(fleet.memory()?.rss())
    })?;
    Ok(after.saturating_sub(before) as f64)
}

pub(super) fn streams(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let watchers = Watchers { connections: 100, streams: setting.scale.idle_streams / 100, watches: 1 };
    Ok(vec![Sample::new("stream_bytes", added(setting, kind, watchers)? / 1e3 / watchers.total() as f64)])
}

pub(super) fn watches(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let watches = setting.scale.idle_watches / CONNECTIONS;
    let watchers = Watchers { connections: CONNECTIONS, streams: 1, watches };
    let added = added(setting, kind, watchers)? / 1e6 * 1e5 / watchers.total() as f64;
    Ok(vec![Sample::new("watch_bytes", added)])
}
