//! The course of a run: trouble, healing, and what everybody must be able to do afterwards.

use super::process::Process;
use super::work::{Ask, Outcome};
use super::world::World;
use super::{TOO_QUIET, judge, stats};
use mechi_proto::etcdserverpb::PutRequest;
use mechi_proto::mechipb::command::Request;
use mechi_replica::conf::Step;
use mechi_replica::effect::RoleKind;

/// Election timeouts within which the healed cluster must agree.
const HEAL_ELECTIONS: u64 = 50;

/// Client operations in a run, at the least.
const OPERATIONS_MIN: u64 = 1_000;

/// Of them, how many in a hundred must get what they asked for.
const OK_PERCENT_MIN: u64 = 60;

/// Faults with an effect, at the least.
const FAULTS_MIN: u64 = 20;

/// Runs a world to its end.
///
/// - Errors: what was broken, or that too little happened.
pub(super) fn live(world: &mut World) -> Result<(), String> {
    let election = world.options.election_us();
    let limit = world.options.faults * election * 8;
    let busy = |world: &World| (world.ops.len() as u64) < world.options.operations || !world.chaos.is_over();
    while busy(world) && !world.plan.is_over(world.now) {
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
    if !world.plan.is_whole() {
        return Ok(());
    }
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
    let last = world.nodes[&leader].process.as_ref().map_or(0, Process::last_index);
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
        let put = PutRequest { lease: 0, ..put };
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
                let put = PutRequest { lease: 0, ..world.work.put(number) };
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
