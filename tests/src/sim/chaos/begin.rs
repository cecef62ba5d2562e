//! The next fault begins: which, where, and what it does at once.

use super::*;
use crate::sim::machine::{StoreFolder, StoreLoss};
use crate::sim::network::Link;
use crate::sim::options::Span;
use crate::sim::world::{End, Event, World};
use mechi_proto::mechipb::command::Request;
use mechi_replica::command::decode;
use mechi_replica::effect::EntryKind;
use mechi_replica::limits::READ_ROUND_RETRY_MS;
use mechi_replica::member::Input;
use mechi_replica::types::MemberId;
use mechi_replica::wal::record::Record;

impl World {
    /// The next fault begins.
    pub(in crate::sim) fn fault(&mut self) -> Result<(), String> {
        if self.chaos.is_enough() || self.chaos.plan.is_over(self.now) {
            return Ok(());
        }
        let election = self.options.election_us();
        let members: Vec<u64> = self.nodes.keys().copied().collect();
        let rng = &mut self.chaos.rng;
        let next = election + rng.below(2 * election);
        let duration = election / 4 + rng.below(3 * election);
        let kind = *rng.pick(&self.chaos.kinds);
        let [aim, choice, detail] = [0; 3].map(|_| rng.next_u64());
        let fault = self.chaos.next;
        self.chaos.next += 1;
        self.chaos.kind_of.insert(fault, kind);
        // Half of them aim at the leader, who has most to lose.
        let target = match self.leader() {
            Some(leader) if aim.is_multiple_of(2) => leader,
            _ => members[(choice % members.len() as u64) as usize],
        };
        // While others are down, most faults spare those that are left: a cluster without a quorum shows little.
        let mut hit: BTreeSet<u64> = self.chaos.open.values().flat_map(|(_, hit)| hit).copied().collect();
        hit.insert(target);
        let quorum_left = self.ledger.conf().has_quorum(|member| !hit.contains(&member.0));
        if !quorum_left && members.len() > 1 && detail % 4 != 0 {
            self.after(election / 2, Event::Fault);
            return Ok(());
        }
        self.chaos.left = self.chaos.left.saturating_sub(1);
        self.after(next, Event::Fault);
        if !self.chaos.plan.has_fault(fault, kind, self.now) {
            return Ok(());
        }
        self.chaos.begun.push(Fault { number: fault, kind: kind.name(), at: self.now });
        self.log.event(self.now, &[50, fault, kind as u64, target], || {
            format!("  fault {fault}: {kind:?} at {target} for about {} ms", duration / 1_000)
        });
        let (duration, hit) = self.strike(Strike { fault, kind, target, duration, detail })?;
        if let Some(trace) = &mut self.trace {
            trace.fault(self.now, fault, kind.name(), &hit, target);
        }
        self.chaos.open.insert(fault, (kind, hit));
        self.after(duration, Event::FaultEnds { fault });
        Ok(())
    }

    /// Does what a fault does at once; returns how long it lasts and whom it hits.
    fn strike(&mut self, strike: Strike) -> Result<(u64, Vec<u64>), String> {
        let Strike { fault, kind, target, mut duration, detail } = strike;
        let election = self.options.election_us();
        let members: Vec<u64> = self.nodes.keys().copied().collect();
        let loss = *Rng::new(detail).pick(&[StoreLoss::Gone, StoreLoss::Empty, StoreLoss::Damaged, StoreLoss::Foreign]);
        let mut hit = vec![target];
        match kind {
            FaultKind::Kill => self.end(target, fault, End::Kill(StoreLoss::Older))?,
            FaultKind::PowerCut => self.end(target, fault, End::PowerCut(StoreLoss::Older))?,
            FaultKind::StoreLost => self.end(target, fault, End::Kill(loss))?,
            FaultKind::Restart => {
                duration /= 4;
                self.end(target, fault, End::Close)?;
            }
            FaultKind::PowerCutAll => {
                duration /= 2;
                for member in &members {
                    self.end(*member, fault, End::PowerCut(StoreLoss::Older))?;
                }
                hit = members;
            }
            FaultKind::Pause => {
                if self.nodes[&target].process.is_some() {
                    self.chaos.had_effect(fault);
                }
                self.pause(target);
            }
            FaultKind::Isolate | FaultKind::Lag => {
                if kind == FaultKind::Lag {
                    duration = 4 * election + duration * 2;
                }
                self.cut_off(target, fault, detail % 4);
            }
            FaultKind::Split => {
                let side = |member: u64| (detail >> member & 1) as u8;
                for from in &members {
                    for to in members.iter().filter(|to| side(**to) != side(*from)) {
                        self.network.cut(Link { from: *from, to: *to }, fault);
                    }
                }
                hit = members.iter().copied().filter(|member| side(*member) == side(target)).collect();
            }
            FaultKind::Holes => {
                let mut rng = Rng::new(detail);
                for link in links(&members) {
                    if rng.chance(30) {
                        self.network.cut(link, fault);
                    }
                }
            }
            FaultKind::BadLinks => {
                let mut rng = Rng::new(detail);
                let (loss, max) = (rng.below(500), rng.below(election));
                for link in links(&members) {
                    if rng.chance(60) {
                        self.network.spoil(link, fault, loss, Span { min: 0, max });
                    }
                }
            }
            FaultKind::Late => {
                duration = 4 * election + duration * 2;
                let late = (READ_ROUND_RETRY_MS * 1_000).max(election / 2) + detail % (election / 2);
                for other in members.iter().copied().filter(|other| *other != target) {
                    let extra = Span { min: late, max: late };
                    self.network.spoil(Link { from: other, to: target }, fault, 0, extra);
                }
            }
            FaultKind::Ambush => {
                duration += 4 * election;
                self.chaos.ambush = Some(fault);
                hit.clear();
            }
            FaultKind::Clock => {
                let now = self.now;
                let skew = self.options.skew.max(1_000);
                self.node(target).clock.set_rate(now, 1_000_000 - skew + detail % (2 * skew + 1));
                self.chaos.had_effect(fault);
                hit.clear();
            }
            FaultKind::WallClock => {
                let by = Rng::new(detail).below(2 * WALL_JUMP_MS_MAX) as i64 - WALL_JUMP_MS_MAX as i64;
                self.jump_wall_clock(target, fault, by);
                hit.clear();
            }
            FaultKind::Transfer => {
                duration /= 4;
                let now = self.now;
                let node = self.node(target);
                let clock = node.clock.mono(now);
                if let Some(process) = node.process.as_mut().filter(|_| node.stopped.is_none()) {
                    process.feed(clock, Input::Transfer(MemberId(0)));
                    self.chaos.had_effect(fault);
                }
                hit.clear();
            }
            FaultKind::SlowDisk
            | FaultKind::Stall
            | FaultKind::SyncError
            | FaultKind::DiskFull
            | FaultKind::BitFlip
            | FaultKind::StaleBlock
            | FaultKind::Misdirected => duration = self.strike_disk(strike)?,
        }
        Ok((duration, hit))
    }

    /// Cuts a member off from all others: both ways, or only what it sends (1) or what it is sent (0).
    fn cut_off(&mut self, target: u64, fault: u64, one_way: u64) {
        for other in self.nodes.keys().copied().filter(|other| *other != target) {
            if one_way != 0 {
                self.network.cut(Link { from: target, to: other }, fault);
            }
            if one_way != 1 {
                self.network.cut(Link { from: other, to: target }, fault);
            }
        }
    }

    fn jump_wall_clock(&mut self, target: u64, fault: u64, by: i64) {
        let node = self.node(target);
        node.clock.jump(by);
        node.jumped.insert(fault, by);
        if node.process.is_some() {
            self.chaos.had_effect(fault);
        }
    }

    /// A process ends by a fault.
    pub(super) fn end(&mut self, member: u64, fault: u64, how: End) -> Result<(), String> {
        if self.nodes[&member].process.is_none() {
            return Ok(());
        }
        // A stopped process cannot close in good order.
        let how =
            if self.nodes[&member].stopped.is_some() && how == End::Close { End::Kill(StoreLoss::Older) } else { how };
        self.stop(member, how)?;
        if how == End::Kill(StoreLoss::Foreign) {
            // The one that is furthest shows most.
            let others = self.nodes.values().filter_map(|node| node.process.as_ref());
            let other = others.max_by_key(|process| process.in_store());
            let store = other.map(|process| process.values().0.closed());
            let machine = &mut self.node(member).machine;
            if let (Some(store), false) = (store, machine.closed) {
                let made_in = machine.boot_name();
                machine.folder = Some(StoreFolder { store, made_in });
            }
        }
        self.chaos.had_effect(fault);
        Ok(())
    }

    /// A member asked its log to hold these: if one is the end of a lease that is waited for, it is cut off before
    /// anybody hears of it.
    pub(in crate::sim) fn spring(&mut self, member: u64, records: &[Record]) {
        let Some(fault) = self.chaos.ambush else { return };
        let lease = records.iter().find_map(|record| match record {
            Record::Entry(entry) if entry.kind == EntryKind::Normal && !entry.data.is_empty() => {
                let batch = decode(&entry.data).ok().filter(|batch| batch.member == member)?;
                batch.commands.iter().find_map(|command| match &command.request {
                    Some(Request::LeaseExpire(wish)) => Some(wish.id),
                    _ => None,
                })
            }
            _ => None,
        });
        let Some(lease) = lease else { return };
        self.chaos.ambush = None;
        self.chaos.had_effect(fault);
        self.log.event(self.now, &[52, fault, member], || format!("  fault {fault} cuts {member} off: lease {lease}"));
        self.cut_off(member, fault, 2);
        self.drop_sent(member);
        self.work.favour(lease);
    }
}

/// What is about to happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strike {
    pub(super) fault: u64,
    pub(super) kind: FaultKind,
    pub(super) target: u64,
    /// How long it lasts if its kind does not say otherwise, in microseconds.
    pub(super) duration: u64,
    /// Whatever else is drawn comes from this.
    pub(super) detail: u64,
}

/// How far a wall clock jumps at the most: some 28 hours, either way.
const WALL_JUMP_MS_MAX: u64 = 100_000_000;

fn links(members: &[u64]) -> impl Iterator<Item = Link> + '_ {
    members
        .iter()
        .flat_map(|from| members.iter().filter(move |to| *to != from).map(move |to| Link { from: *from, to: *to }))
}
