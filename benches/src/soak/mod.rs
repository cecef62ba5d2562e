//! A long run at half load: many kinds of work at once, samples of memory, disk and latency, and a verdict.

mod load;
mod page;
mod verdict;

pub use page::write;
pub use verdict::{Verdict, judge};

use crate::load::drive::{Extent, Shape, closed, open};
use crate::process::Memory;
use crate::servers::{Fleet, Programs};
use anyhow::{Context, Result, ensure};
use load::{Sides, SpreadTxns};
use mechi_tests::process::Kind;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Connections of the guarded writes.
const CONNECTIONS: usize = 16;

/// How long the maximum is measured: with the compactions and snapshots that it brings about, or half of it would be more
/// than what can be kept up.
const MAXIMUM: Duration = Duration::from_secs(60);

/// What is soaked, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which server.
    pub kind: Kind,
    /// How many members.
    pub members: usize,
    /// Keys that live all the time.
    pub keys: u64,
    /// How long the same load runs before memory is judged: what filling the store and finding the maximum took comes back.
    pub settling: Duration,
    /// How long memory is judged.
    pub time: Duration,
    /// Time between two samples.
    pub interval: Duration,
    /// Guarded writes in a second; half of a measured maximum, if it is not given.
    pub rate: Option<f64>,
    /// What the servers are given besides the quota: auto-compaction.
    pub flags: Vec<String>,
}

/// The servers and the load between two samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the soak began.
    pub at: f64,
    /// Bytes of all members that no file backs.
    pub anonymous: u64,
    /// Bytes of all members that files back.
    pub file: u64,
    /// Bytes of each member, both kinds, in the members' order.
    pub members: Vec<u64>,
    /// Bytes of all members on disk.
    pub disk: u64,
    /// Of that, by what it is for.
    pub disk_parts: BTreeMap<String, u64>,
    /// Guarded writes in a second.
    pub writes: f64,
    /// Their latencies in milliseconds, from the time at which each was due.
    pub p50: f64,
    /// See `p50`.
    pub p99: f64,
    /// See `p50`.
    pub most: f64,
    /// CPU of all members as a share of one core.
    pub cores: f64,
    /// The machine's load average.
    pub load_average: f64,
}

/// Everything that a soak has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The command.
    pub command: String,
    /// When it began.
    pub date: String,
    /// Where.
    pub machine: String,
    /// What the server says of itself.
    pub server: String,
    /// How many members.
    pub members: usize,
    /// Guarded writes offered in a second.
    pub rate: f64,
    /// The greatest rate, if it was measured.
    pub maximum: Option<f64>,
    /// Bytes of all live keys and values, once.
    pub live_bytes: u64,
    /// Seconds before memory is judged.
    pub settling: f64,
    /// In the order of time.
    pub samples: Vec<Sample>,
    /// What the other work did: gets, pages, events, keep-alives.
    pub sides: Vec<(String, u64)>,
    /// The first error; the soak ends with it.
    pub error: Option<String>,
}

/// Runs a plan; `each` sees the record after every sample.
///
/// - Errors: only what kept it from beginning; what fails later is the record's `error`.
pub fn run(programs: &Programs, plan: &Plan, mut each: impl FnMut(&Record) -> Result<()>) -> Result<Record> {
    let flags: Vec<&str> = plan.flags.iter().map(String::as_str).collect();
    let fleet = Fleet::start(programs, plan.kind, plan.members, &flags)?;
    let to = fleet.leader();
    let work = Rc::new(RefCell::new(SpreadTxns::new(plan.keys)));
    closed(&to, Shape::MANY, Extent::Count(plan.keys), work.clone(), &|| fleet.cpu()).context("write the keys")?;
    work.borrow_mut().spread();
    // The maximum is that beside all other work, or half of it would be most of what the machine can do.
    let sides = Sides::start(&fleet.endpoints(), plan.keys)?;
    let mut maximum = None;
    let rate = match plan.rate {
        Some(rate) => rate,
        None => {
            let extent = Extent::Time(Duration::from_secs(5), MAXIMUM);
            let report = closed(&to, Shape::MANY, extent, work.clone(), &|| fleet.cpu()).context("find the maximum")?;
            maximum = Some(report.per_second());
            report.per_second() / 2.0
        }
    };
    let mut record = Record {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        date: crate::machine::date(),
        machine: crate::machine::describe(),
        server: match plan.kind {
            Kind::Etcd => programs.etcd_version.clone(),
            Kind::Mechi => programs.mechi_version.clone(),
        },
        members: plan.members,
        rate,
        maximum,
        live_bytes: SpreadTxns::live_bytes(plan.keys),
        settling: plan.settling.as_secs_f64(),
        samples: Vec::new(),
        sides: Vec::new(),
        error: None,
    };
    let begun = Instant::now();
    while begun.elapsed() < plan.settling + plan.time && record.error.is_none() {
        let time = (Duration::ZERO, plan.interval);
        match open(&to, CONNECTIONS, rate, time, work.clone(), &|| fleet.cpu()) {
            Ok(report) => {
                let memory = fleet.memory_of_each();
                record.error = memory.as_ref().err().map(|error| format!("{error:#}"));
                let members = memory.unwrap_or_default();
                let memory = members.iter().copied().fold(Memory::default(), Memory::sum);
                record.samples.push(Sample {
                    at: begun.elapsed().as_secs_f64(),
                    anonymous: memory.anonymous,
                    file: memory.file,
                    members: members.iter().map(|member| member.anonymous + member.file).collect(),
                    disk: fleet.disk(),
                    disk_parts: fleet.disk_parts(),
                    writes: report.per_second(),
                    p50: report.ms(0.5),
                    p99: report.ms(0.99),
                    most: report.ms(1.0),
                    cores: report.server_cpu.as_secs_f64() / report.elapsed.as_secs_f64(),
                    load_average: crate::process::load_average()[0],
                });
            }
            Err(error) => record.error = Some(format!("{error:#}")),
        }
        record.error = record.error.or_else(|| sides.failed());
        each(&record)?;
    }
    record.sides = sides.stop(&mut record.error);
    each(&record)?;
    ensure!(record.samples.len() > 1, "too short to say anything: {:?}", record.error);
    Ok(record)
}
