//! Lists and pages of many keys, and what a million keys cost in memory, on disk and at a restart.

use super::throughput::fill;
use super::{Sample, Setting};
use crate::load::connection::{Connection, Method, frame};
use crate::load::list::{lists, pages};
use crate::load::pool::on_this_thread;
use crate::load::work::key;
use crate::process::{self, Memory};
use crate::servers::Fleet;
use anyhow::{Context, Result, ensure};
use mechi_proto::etcdserverpb as pb;
use mechi_tests::process::Kind;
use std::time::{Duration, Instant};

/// How often everything is listed.
const LISTS: usize = 3;

/// How long a restart may take.
const RESTART_MAX: Duration = Duration::from_secs(120);

/// The pause between two attempts to read while a server starts.
const RESTART_PAUSE: Duration = Duration::from_millis(5);

const MB: f64 = 1e6;

pub(super) fn list_300k(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let fleet = Fleet::start(&setting.programs, kind, 1, &[])?;
    let keys = setting.scale.some_keys;
    fill(&fleet, keys)?;
    listed(setting, &fleet, keys, "300k")
}

fn listed(setting: &Setting, fleet: &Fleet, keys: u64, name: &str) -> Result<Vec<Sample>> {
    let leader = &fleet.leader()[0];
    let paged = pages(leader, keys, setting.scale.measure, &|| fleet.cpu())?;
    let listed = lists(leader, keys, LISTS, &|| fleet.cpu())?;
    let list = Sample::new(&format!("list_{name}"), listed.ms(0.5));
    let cpu = Sample::new(&format!("list_{name}_cpu"), listed.server_us());
    let page = Sample { value: paged.ms(0.5), ..Sample::rate(&format!("page_{name}_p50"), &paged) };
    Ok(vec![list, cpu, page])
}

pub(super) fn million(setting: &Setting, kind: Kind) -> Result<Vec<Sample>> {
    let mut fleet = Fleet::start(&setting.programs, kind, 1, &[])?;
    let keys = setting.scale.many_keys;
    fill(&fleet, keys)?;
    std::thread::sleep(setting.scale.settle);
    let live = fleet.memory()?;
    let mut samples = memory("rss_1m", live);
    samples.push(Sample::new("disk_1m", fleet.disk() as f64 / MB));
    fleet.reset_peak()?;
    samples.extend(listed(setting, &fleet, keys, "1m")?);
    let extra = fleet.memory()?.peak.saturating_sub(live.rss());
    samples.push(Sample::new("list_1m_extra", extra as f64 / MB));

    fleet.cluster.stop(0)?;
    let (took, cpu) = restart(&mut fleet)?;
    samples.push(Sample::new("restart_1m", took.as_secs_f64() * 1e3));
    samples.push(Sample::new("restart_1m_cpu", cpu.as_secs_f64() * 1e3));
    std::thread::sleep(setting.scale.settle);
    samples.extend(memory("rss_1m_restarted", fleet.memory()?));

    fleet.cluster.kill(0)?;
    samples.push(Sample::new("restart_1m_killed", restart(&mut fleet)?.0.as_secs_f64() * 1e3));
    let whole = lists(&fleet.leader()[0], keys, 1, &|| Duration::ZERO);
    whole.context("after the restarts")?;
    Ok(samples)
}

fn memory(name: &str, memory: Memory) -> Vec<Sample> {
    vec![
        Sample::new(name, memory.rss() as f64 / MB),
        Sample::new(&format!("{name}_anonymous"), memory.anonymous as f64 / MB),
        Sample::new(&format!("{name}_file"), memory.file as f64 / MB),
    ]
}

/// Starts the only member again; returns the time and CPU from the start of the process to the first linearizable read.
fn restart(fleet: &mut Fleet) -> Result<(Duration, Duration)> {
    let began = Instant::now();
    fleet.cluster.spawn_only(0)?;
    let member = &fleet.cluster.members[0];
    let request = frame(&pb::RangeRequest { key: key(0).into(), ..Default::default() });
    let took = on_this_thread(async {
        let read = async || {
            let mut connection = Connection::open(&member.endpoint()).await?;
            let count = |answer: &[u8]| crate::load::wire::number(answer, 4);
            connection.unary(Method::Range, request.clone(), count).await
        };
        loop {
            if let Ok(count) = tokio::time::timeout(RESTART_MAX, read()).await? {
                ensure!(count == 1, "the key is gone after a restart");
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < RESTART_MAX, "no read after {RESTART_MAX:?}; the log:\n{}", member.log());
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    })?;
    let cpu = process::cpu(member.pid().context("it runs")?)?;
    Ok((took, cpu))
}
