//! The simulator: a whole cluster, its disks, network, clocks, clients and troubles in one thread, from one seed.
//!
//! A run has two parts. In the first anything may go wrong and nothing that was promised may be broken: it is checked
//! after every step. In the second all troubles end, and within bounds everybody must agree, serve and have forgotten
//! nothing. The same seed gives the same run, byte for byte.
//!
//! Read `world`, `process` and `chaos`, then what checks them: `ledger`, `shadow` and `judge`. What is done with many runs
//! is in `campaign` and `mutants`; with one that failed, in `shrink` and `page`.

pub mod campaign;
mod chaos;
mod clock;
mod course;
mod damage;
mod judge;
mod ledger;
mod log;
mod machine;
#[cfg(feature = "mutants")]
pub mod mutants;
mod network;
mod options;
pub mod page;
mod plan;
mod process;
mod raft_peek;
mod shadow;
pub mod shrink;
mod trace;
mod transfer;
mod watcher;
mod work;
mod world;

pub use chaos::Fault;
pub use log::Keep;
pub use options::Options;
pub use plan::{Numbers, Plan};
pub use trace::Trace;

use log::EventLog;
use mechi_proto::mechipb::command::Request;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use work::{Ask, Outcome};
use world::World;

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Equal for equal runs.
    pub hash: u64,
    /// Steps.
    pub events: u64,
    /// Microseconds of simulated time.
    pub time: u64,
    /// Client operations.
    pub operations: u64,
    /// Of them, those that got what they asked for.
    pub ok: u64,
    /// Of them, those whose outcome nobody knows.
    pub unknown: u64,
    /// Faults with an effect.
    pub faults: u64,
    /// The same by kind, in words.
    pub kinds: String,
    /// The same by kind.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// Terms in which somebody led.
    pub leaders: usize,
    /// Committed entries.
    pub entries: u64,
    /// Snapshots installed from another member.
    pub installs: u64,
    /// Stores rebuilt at open.
    pub rebuilds: u64,
    /// Events that watchers got.
    pub watched: u64,
    /// Leases that were granted.
    pub leases: u64,
    /// Membership changes that were committed; a joint configuration's end counts too.
    pub moves: u64,
    /// Microseconds from the end of all faults until everybody agreed.
    pub healed: u64,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "hash={:016x} events={} time={}ms operations={} ok={} unknown={} faults={} [{}] leaders={} entries={} \
             installs={} rebuilds={} watched={} leases={} moves={} healed={}ms",
            self.hash,
            self.events,
            self.time / 1_000,
            self.operations,
            self.ok,
            self.unknown,
            self.faults,
            self.kinds,
            self.leaders,
            self.entries,
            self.installs,
            self.rebuilds,
            self.watched,
            self.leases,
            self.moves,
            self.healed / 1_000,
        )
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it was made of.
    pub options: Options,
    /// What it did, as far as it came.
    pub stats: Stats,
    /// What was broken, and when, in microseconds.
    pub broken: Option<(u64, String)>,
    /// The last events before that, if they were kept.
    pub last: Vec<String>,
    /// The faults that began, in order.
    pub faults: Vec<Fault>,
    /// What is needed to draw it, if that was asked for.
    pub trace: Option<Box<Trace>>,
}

impl Report {
    /// What was broken, unless the run was only too quiet to count.
    pub fn finding(&self) -> Option<&str> {
        self.broken.as_ref().map(|(_, text)| text.as_str()).filter(|text| !text.starts_with(TOO_QUIET))
    }
}

/// How the complaint about a run with too little in it begins.
const TOO_QUIET: &str = "statistics";

/// Runs a seed.
pub fn run(seed: u64, keep: Keep) -> Report {
    run_by(seed, &Plan::default(), keep, false)
}

/// Runs what a plan leaves of a seed; on request with all that is needed to draw it.
pub fn run_by(seed: u64, plan: &Plan, keep: Keep, traced: bool) -> Report {
    let options = Options::new(seed);
    let mut world = World::new(options.clone(), plan, EventLog::new(keep), traced);
    // A panic is raft's or our own last line of defence, and as bad as any other finding.
    let result = catch_unwind(AssertUnwindSafe(|| course::live(&mut world))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
        Err(format!("panic: {text}"))
    });
    let broken = result.err().map(|error| (world.now, error));
    let mut trace = world.trace.take();
    if let Some(trace) = &mut trace {
        trace.ops = world.ops.iter().zip(1..).map(|(op, number)| op.drawn(number)).collect();
    }
    let (stats, faults) = (stats(&world), std::mem::take(&mut world.chaos.begun));
    Report { stats, broken, last: world.log.take_last(), options, faults, trace }
}

fn stats(world: &World) -> Stats {
    let count = |test: &dyn Fn(&Outcome) -> bool| {
        world.ops.iter().filter(|op| op.outcome.as_ref().is_some_and(test)).count() as u64
    };
    Stats {
        hash: world.log.hash(),
        events: world.log.events(),
        time: world.now,
        healed: world.healed,
        moves: world.ledger.moves(),
        operations: world.ops.len() as u64,
        ok: count(&Outcome::is_ok),
        unknown: count(&|outcome| *outcome == Outcome::Unknown),
        faults: world.chaos.effects(),
        kinds: world.chaos.to_string(),
        by_kind: world.chaos.counts.iter().map(|(kind, count)| (kind.name(), *count)).collect(),
        leaders: world.ledger.leaders(),
        entries: world.ledger.last(),
        installs: world.installs,
        rebuilds: world.rebuilds,
        watched: world.watchers.iter().flat_map(|watcher| &watcher.stretches).map(|s| s.events.len() as u64).sum(),
        leases: world
            .ops
            .iter()
            .filter(|op| matches!(&op.ask, Ask::Write(Request::LeaseGrant(_))))
            .filter(|op| op.outcome.as_ref().is_some_and(Outcome::is_ok))
            .count() as u64,
    }
}
