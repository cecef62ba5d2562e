//! What goes wrong, when, and for how long; and whether it had an effect.

use super::machine::{StoreFolder, StoreLoss};
use super::network::Link;
use super::options::{Options, Span};
use super::world::{End, Event, World};
use crate::rng::Rng;
use mechi_proto::mechipb::command::Request;
use mechi_replica::command::decode;
use mechi_replica::effect::EntryKind;
use mechi_replica::limits::READ_ROUND_RETRY_MS;
use mechi_replica::member::Input;
use mechi_replica::types::MemberId;
use mechi_replica::wal::record::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FaultKind {
    /// A process ends and comes back; its store as some earlier state.
    Kill,
    /// A machine loses power.
    PowerCut,
    /// All machines lose power, one after the other.
    PowerCutAll,
    /// A process ends, and its store is lost, emptied or damaged.
    StoreLost,
    /// A process ends in good order and comes back.
    Restart,
    /// A process is stopped for a while.
    Pause,
    /// A member is cut off, both ways or one.
    Isolate,
    /// The cluster is split.
    Split,
    /// Some links are cut, one way each.
    Holes,
    /// Links lose and delay much.
    BadLinks,
    /// A disk takes long.
    SlowDisk,
    /// A clock runs at another rate, or the wall clock jumps.
    Clock,
    /// The leader hands over.
    Transfer,
    /// A member is cut off until it lags beyond the others' logs.
    Lag,
    /// What is sent to a member comes late, and in order: later than a read waits before it asks again.
    Late,
    /// A leader is cut off at the moment when it wishes a lease's end.
    Ambush,
}

impl FaultKind {
    /// All of them.
    pub(super) const ALL: [Self; 16] = [
        Self::Kill,
        Self::PowerCut,
        Self::PowerCutAll,
        Self::StoreLost,
        Self::Restart,
        Self::Pause,
        Self::Isolate,
        Self::Split,
        Self::Holes,
        Self::BadLinks,
        Self::SlowDisk,
        Self::Clock,
        Self::Transfer,
        Self::Lag,
        Self::Late,
        Self::Ambush,
    ];

    /// Whether it takes more than one member.
    fn needs_peers(self) -> bool {
        matches!(
            self,
            Self::Isolate
                | Self::Split
                | Self::Holes
                | Self::BadLinks
                | Self::Transfer
                | Self::Lag
                | Self::Late
                | Self::Ambush
        )
    }
}

/// The faults of a run.
#[derive(Debug)]
pub(super) struct Chaos {
    rng: Rng,
    kinds: Vec<FaultKind>,
    left: u64,
    next: u64,
    open: BTreeMap<u64, (FaultKind, Vec<u64>)>,
    effects: BTreeSet<u64>,
    /// How many of each kind had an effect.
    pub(super) counts: BTreeMap<FaultKind, u64>,
    kind_of: BTreeMap<u64, FaultKind>,
    /// The fault that waits for a lease's end.
    ambush: Option<u64>,
}

impl Chaos {
    /// Plans nothing yet.
    pub(super) fn new(options: &Options, rng: Rng) -> Self {
        let mut kinds = Vec::new();
        for (kind, weight) in FaultKind::ALL.into_iter().zip(&options.weights) {
            if options.members > 1 || !kind.needs_peers() {
                kinds.extend(std::iter::repeat_n(kind, *weight as usize));
            }
        }
        if kinds.is_empty() {
            kinds.push(FaultKind::Kill);
        }
        Self {
            rng,
            kinds,
            left: options.faults,
            next: 1,
            open: BTreeMap::new(),
            effects: BTreeSet::new(),
            counts: BTreeMap::new(),
            kind_of: BTreeMap::new(),
            ambush: None,
        }
    }

    /// Takes note that a fault did something.
    pub(super) fn had_effect(&mut self, fault: u64) {
        if self.effects.insert(fault)
            && let Some(kind) = self.kind_of.get(&fault)
        {
            *self.counts.entry(*kind).or_default() += 1;
        }
    }

    /// Faults that had an effect.
    pub(super) fn effects(&self) -> u64 {
        self.effects.len() as u64
    }

    /// Whether all faults are over.
    pub(super) fn is_over(&self) -> bool {
        self.is_enough() && self.open.is_empty()
    }

    /// Whether no more faults shall begin: some have no effect, as a crash of what is down.
    fn is_enough(&self) -> bool {
        self.left == 0 && (self.effects() >= EFFECTS_WANTED || self.next > FAULTS_MAX)
    }
}

/// Faults with an effect after which a run has seen enough.
const EFFECTS_WANTED: u64 = 22;

/// Faults after which a run ends, however few of them had an effect. Those that were spared because too few voters were left
/// count too, and with few voters those are most.
const FAULTS_MAX: u64 = 140;

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (kind, count) in &self.counts {
            write!(f, "{}{kind:?}:{count}", if first { "" } else { " " })?;
            first = false;
        }
        Ok(())
    }
}

impl World {
    /// The next fault begins.
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if self.chaos.is_enough() {
            return Ok(());
        }
        let election = self.options.election_us();
        let members: Vec<u64> = self.nodes.keys().copied().collect();
        let rng = &mut self.chaos.rng;
        let next = election + rng.below(2 * election);
        let mut duration = election / 4 + rng.below(3 * election);
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
        let loss = *Rng::new(detail).pick(&[StoreLoss::Gone, StoreLoss::Empty, StoreLoss::Damaged, StoreLoss::Foreign]);
        let mut hit = vec![target];
        self.log.event(self.now, &[50, fault, kind as u64, target], || {
            format!("  fault {fault}: {kind:?} at {target} for {} ms", duration / 1_000)
        });
        let one_way = Rng::new(detail).below(4);
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
                for other in members.iter().copied().filter(|other| *other != target) {
                    if one_way != 0 {
                        self.network.cut(Link { from: target, to: other }, fault);
                    }
                    if one_way != 1 {
                        self.network.cut(Link { from: other, to: target }, fault);
                    }
                }
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
                for from in &members {
                    for to in members.iter().filter(|to| *to != from) {
                        if rng.chance(30) {
                            self.network.cut(Link { from: *from, to: *to }, fault);
                        }
                    }
                }
            }
            FaultKind::BadLinks => {
                let mut rng = Rng::new(detail);
                let (loss, max) = (rng.below(500), rng.below(election));
                for from in &members {
                    for to in members.iter().filter(|to| *to != from) {
                        if rng.chance(60) {
                            self.network.spoil(Link { from: *from, to: *to }, fault, loss, Span { min: 0, max });
                        }
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
            FaultKind::SlowDisk => {
                let max = Rng::new(detail).below(2 * election);
                self.node(target).slow.insert(fault, Span { min: 0, max });
            }
            FaultKind::Clock => {
                let now = self.now;
                let skew = self.options.skew.max(1_000);
                let clock = &mut self.node(target).clock;
                clock.set_rate(now, 1_000_000 - skew + detail % (2 * skew + 1));
                clock.jump(detail as i64 % 100_000_000);
                self.chaos.had_effect(fault);
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
        }
        self.chaos.open.insert(fault, (kind, hit));
        self.after(duration, Event::FaultEnds { fault });
        self.after(next, Event::Fault);
        Ok(())
    }

    fn end(&mut self, member: u64, fault: u64, how: End) -> Result<(), String> {
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
    pub(super) fn spring(&mut self, member: u64, records: &[Record]) {
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
        let others: Vec<u64> = self.nodes.keys().copied().filter(|other| *other != member).collect();
        for other in others {
            self.network.cut(Link { from: member, to: other }, fault);
            self.network.cut(Link { from: other, to: member }, fault);
        }
        self.drop_sent(member);
        self.work.favour(lease);
    }

    /// A fault is over.
    pub(super) fn fault_ends(&mut self, fault: u64) -> Result<(), String> {
        let Some((kind, hit)) = self.chaos.open.remove(&fault) else { return Ok(()) };
        self.log.event(self.now, &[51, fault], || format!("  fault {fault} ends: {kind:?}"));
        if kind == FaultKind::Lag && fault.is_multiple_of(2) {
            // Who lagged comes back with the store of somebody who did not: it is ahead of the log.
            for member in &hit {
                self.end(*member, fault, End::Kill(StoreLoss::Foreign))?;
            }
        }
        self.network.mend(fault);
        self.chaos.ambush.take_if(|waiting| *waiting == fault);
        for member in hit {
            let paused = self.chaos.open.values().any(|(kind, hit)| *kind == FaultKind::Pause && hit.contains(&member));
            if !paused {
                self.resume(member);
            }
            let down = matches!(
                kind,
                FaultKind::Lag
                    | FaultKind::Kill
                    | FaultKind::PowerCut
                    | FaultKind::PowerCutAll
                    | FaultKind::StoreLost
                    | FaultKind::Restart
            );
            if down && self.nodes[&member].process.is_none() {
                let life = self.nodes[&member].life;
                let delay = self.network.delay() * 4;
                self.after(delay, Event::Start { member, life });
            }
        }
        for node in self.nodes.values_mut() {
            node.slow.remove(&fault);
        }
        Ok(())
    }

    /// Ends all faults at once, and brings everyone back.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        (self.chaos.left, self.chaos.next) = (0, FAULTS_MAX + 1);
        let open: Vec<u64> = self.chaos.open.keys().copied().collect();
        for fault in open {
            self.fault_ends(fault)?;
        }
        self.network.heal();
        let members: Vec<u64> = self.nodes.keys().copied().collect();
        for member in members {
            self.resume(member);
            let node = self.node(member);
            node.slow.clear();
            if node.process.is_none() {
                let life = node.life;
                self.after(0, Event::Start { member, life });
            }
        }
        Ok(())
    }
}
