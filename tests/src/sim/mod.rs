//! The simulator: a whole cluster, its disks, network, clocks, clients and troubles in one thread, from one seed.
//!
//! A run has two parts. In the first anything may go wrong and nothing that was promised may be broken: it is checked
//! after every step. In the second all troubles end, and within bounds everybody must agree, serve and have forgotten
//! nothing. The same seed gives the same run, byte for byte.
//!
//! Read `world`, `process` and `chaos`, then what checks them: `ledger`, `shadow` and `judge`.

mod chaos;
mod clock;
mod judge;
mod ledger;
mod log;
mod machine;
mod network;
mod options;
mod process;
mod raft_peek;
mod shadow;
mod transfer;
mod watcher;
mod work;
mod world;

pub use log::Keep;
pub use options::Options;

use chaos::FaultKind;
use log::EventLog;
use mechi_proto::mechipb::command::Request;
use mechi_replica::conf::Step;
use mechi_replica::effect::RoleKind;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use work::{Ask, Outcome};
use world::World;

/// Election timeouts within which the healed cluster must agree.
const HEAL_ELECTIONS: u64 = 50;

/// Client operations in a run, at the least.
const OPERATIONS_MIN: u64 = 1_000;

/// Of them, how many in a hundred must get what they asked for.
const OK_PERCENT_MIN: u64 = 60;

/// Faults with an effect, at the least.
const FAULTS_MIN: u64 = 20;

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
}

impl Report {
    /// What was broken, unless the run was only too quiet to count.
    pub fn finding(&self) -> Option<&str> {
        self.broken.as_ref().map(|(_, text)| text.as_str()).filter(|text| !text.starts_with(TOO_QUIET))
    }
}

/// How the complaint about a run with too little in it begins.
const TOO_QUIET: &str = "statistics";

/// Calls `body` with each seed, on `threads` threads, until it returns false; each seed stays on one thread.
pub fn across(seeds: Range<u64>, threads: usize, body: impl Fn(u64) -> bool + Sync) {
    let (next, ended) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || !body(seed) {
                        ended.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// Runs a seed.
pub fn run(seed: u64, keep: Keep) -> Report {
    let options = Options::new(seed, FaultKind::ALL.len());
    let mut world = World::new(options.clone(), EventLog::new(keep));
    // A panic is raft's or our own last line of defence, and as bad as any other finding.
    let result = catch_unwind(AssertUnwindSafe(|| live(&mut world))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
        Err(format!("panic: {text}"))
    });
    let broken = result.err().map(|error| (world.now, error));
    Report { stats: stats(&world), broken, last: world.log.take_last(), options }
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

fn live(world: &mut World) -> Result<(), String> {
    let election = world.options.election_us();
    let limit = world.options.faults * election * 8;
    while (world.ops.len() as u64) < world.options.operations || !world.chaos.is_over() {
        let until = world.now + election;
        world.run(until)?;
        if world.now > limit {
            return Err(format!("the work is not done after {} ms", limit / 1_000));
        }
    }
    world.busy = false;
    world.heal()?;
    let begun = world.now;
    while let Err(why) = agree(world) {
        if world.now > begun + HEAL_ELECTIONS * election {
            return Err(format!("V1: not healed: {why}"));
        }
        world.run(world.now + election / 4)?;
    }
    world.healed = world.now - begun;
    // Also what the clients still wait for comes to an end.
    world.run(world.now + election * 5)?;
    serve(world)?;
    reconfigure(world)?;
    quiet(world)?;
    let begun = world.now;
    while let Err(why) = agree(world).and_then(|()| watched(world)) {
        if world.now > begun + HEAL_ELECTIONS * election {
            return Err(format!("W13: {why}"));
        }
        world.run(world.now + election / 2)?;
    }
    judge::judge(world)?;
    let stats = stats(world);
    if stats.operations < OPERATIONS_MIN
        || stats.ok * 100 < stats.operations * OK_PERCENT_MIN
        || stats.faults < FAULTS_MIN
    {
        return Err(format!("{TOO_QUIET}: {stats}"));
    }
    Ok(())
}

/// Whether there is one leader that all follow, and everybody has applied the same.
fn agree(world: &World) -> Result<(), String> {
    let leaders: Vec<u64> = world
        .nodes
        .iter()
        .filter(|(_, node)| node.role.kind == RoleKind::Leader && node.role.settled)
        .map(|(id, _)| *id)
        .collect();
    let [leader] = leaders[..] else { return Err(format!("the leaders are {leaders:?}")) };
    let last = world.nodes[&leader].process.as_ref().map_or(0, process::Process::last_index);
    let mut digest = None;
    for (id, node) in &world.nodes {
        let Some(process) = &node.process else { return Err(format!("{id} is down")) };
        if node.role.leader.map(|leader| leader.0) != Some(leader) {
            return Err(format!("{id} does not follow {leader}: {:?}", node.role));
        }
        let state = &process.state;
        if state.applied_index != last || last != world.ledger.last() {
            return Err(format!("{id} has applied {} of {last}", state.applied_index));
        }
        if *digest.get_or_insert(state.chain_digest) != state.chain_digest {
            return Err(format!("the digest of {id} differs"));
        }
        if process.conf().is_joint() {
            return Err(format!("{id} is still joint: {:?}", process.conf()));
        }
    }
    Ok(())
}

/// Every member serves a write.
fn serve(world: &mut World) -> Result<(), String> {
    let members: Vec<u64> = world.nodes.keys().copied().collect();
    let election = world.options.election_us();
    let mut asked = Vec::new();
    for member in members {
        let number = world.ops.len() as u64 + 1;
        let put = world.work.put(number);
        let put = mechi_proto::etcdserverpb::PutRequest { lease: 0, ..put };
        asked.push(world.issue(u64::MAX, member, Ask::Write(Request::Put(put))));
    }
    world.run(world.now + election * 5)?;
    for op in asked {
        let found = &world.ops[op as usize - 1];
        if !found.outcome.as_ref().is_some_and(Outcome::is_ok) {
            return Err(format!("V2: {} does not serve after healing: {:?}", found.member, found.outcome));
        }
    }
    Ok(())
}

/// Membership changes succeed: those without a vote get one, or if all have one, some lose it; amid writes, so that the
/// change is not applied alone. Several at once are joint, and that ends in time.
fn reconfigure(world: &mut World) -> Result<(), String> {
    let election = world.options.election_us();
    for round in 0..3 {
        let leader = world.leader().ok_or("V2: nobody leads after healing")?;
        let conf = world.ledger.conf().clone();
        let others = conf.voters.iter().copied().filter(|voter| voter.0 != leader);
        let steps: Vec<Step> = match conf.learners.is_empty() {
            false => conf.learners.iter().copied().map(Step::Promote).collect(),
            // One or two, so that both ways are gone.
            true => others.take(1 + (world.options.seed + round) as usize % 2).map(Step::Demote).collect(),
        };
        if steps.is_empty() {
            return Ok(());
        }
        let asked = world.issue(u64::MAX, leader, Ask::Configure(steps));
        for _ in 0..8 {
            for member in 1..=world.options.members {
                let number = world.ops.len() as u64 + 1;
                let put = mechi_proto::etcdserverpb::PutRequest { lease: 0, ..world.work.put(number) };
                world.issue(u64::MAX, member, Ask::Write(Request::Put(put)));
            }
            world.run(world.now + world.options.latency.max)?;
        }
        let begun = world.now;
        while let Err(why) = agree(world) {
            if world.now > begun + HEAL_ELECTIONS * election {
                return Err(format!("V3: not settled after a membership change: {why}"));
            }
            world.run(world.now + election / 4)?;
        }
        let found = &world.ops[asked as usize - 1];
        if !found.outcome.as_ref().is_some_and(Outcome::is_ok) {
            return Err(format!("V3: {:?} after healing: {:?}", found.ask, found.outcome));
        }
    }
    Ok(())
}

/// L2: with nobody to renew them, all leases end in time.
fn quiet(world: &mut World) -> Result<(), String> {
    let skew = 1_000_000 + 2 * world.options.skew.max(1_000);
    let ttl = world.options.ttl_max * skew;
    // The longest election timeout is below twice the shortest.
    world.run(world.now + ttl + 2 * world.options.election_us() + 2_000_000)?;
    for (id, node) in &world.nodes {
        let Some(process) = &node.process else { continue };
        if let Some((lease, _)) = process.state.leases.iter().next() {
            return Err(format!("L2: lease {lease} still lives on {id} when all must have ended"));
        }
    }
    Ok(())
}

/// Whether every watcher was told everything.
fn watched(world: &World) -> Result<(), String> {
    let revision = world.nodes.values().filter_map(|node| node.process.as_ref()).map(|p| p.state.mvcc.revision()).max();
    for (number, watcher) in world.watchers.iter().enumerate() {
        if Some(watcher.through()) < revision {
            return Err(format!("watcher {number} is at {} of {revision:?}", watcher.through()));
        }
    }
    Ok(())
}
