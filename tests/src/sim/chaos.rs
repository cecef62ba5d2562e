//! What goes wrong, when, and for how long; and whether it had an effect.

mod begin;
mod disk;
mod end;

use super::options::Options;
use super::plan::Plan;
use crate::rng::Rng;
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
    /// What is sent to a member comes late, and in order: later than a read waits before it asks again.
    Late,
    /// A member is cut off until it lags beyond the others' logs.
    Lag,
    /// The leader hands over.
    Transfer,
    /// A leader is cut off at the moment when it wishes a lease's end.
    Ambush,
    /// A clock runs at another rate.
    Clock,
    /// A wall clock jumps, forward or back, and jumps back in the end.
    WallClock,
    /// A disk takes long.
    SlowDisk,
    /// A disk takes longer than several election timeouts.
    Stall,
    /// An fsync fails once; what it should have written is gone, or only looks as if it were written.
    SyncError,
    /// A disk is full.
    DiskFull,
    /// A bit of a file turns over.
    BitFlip,
    /// A sector holds what it held before: its last write never reached the medium, although its fsync said so.
    StaleBlock,
    /// A sector holds what was meant for another place.
    Misdirected,
}

impl FaultKind {
    /// All of them.
    pub(super) const ALL: [Self; 23] = [
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
        Self::Late,
        Self::Lag,
        Self::Transfer,
        Self::Ambush,
        Self::Clock,
        Self::WallClock,
        Self::SlowDisk,
        Self::Stall,
        Self::SyncError,
        Self::DiskFull,
        Self::BitFlip,
        Self::StaleBlock,
        Self::Misdirected,
    ];

    /// As it is written on the command line and in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "Kill",
            Self::PowerCut => "PowerCut",
            Self::PowerCutAll => "PowerCutAll",
            Self::StoreLost => "StoreLost",
            Self::Restart => "Restart",
            Self::Pause => "Pause",
            Self::Isolate => "Isolate",
            Self::Split => "Split",
            Self::Holes => "Holes",
            Self::BadLinks => "BadLinks",
            Self::Late => "Late",
            Self::Lag => "Lag",
            Self::Transfer => "Transfer",
            Self::Ambush => "Ambush",
            Self::Clock => "Clock",
            Self::WallClock => "WallClock",
            Self::SlowDisk => "SlowDisk",
            Self::Stall => "Stall",
            Self::SyncError => "SyncError",
            Self::DiskFull => "DiskFull",
            Self::BitFlip => "BitFlip",
            Self::StaleBlock => "StaleBlock",
            Self::Misdirected => "Misdirected",
        }
    }

    /// Whether it takes more than one member.
    pub(super) fn needs_peers(self) -> bool {
        matches!(
            self,
            Self::Isolate
                | Self::Split
                | Self::Holes
                | Self::BadLinks
                | Self::Late
                | Self::Lag
                | Self::Transfer
                | Self::Ambush
        )
    }

    /// Whether it may leave a process ended, to be started when it is over.
    fn ends_processes(self) -> bool {
        matches!(
            self,
            Self::Lag
                | Self::Kill
                | Self::PowerCut
                | Self::PowerCutAll
                | Self::StoreLost
                | Self::Restart
                | Self::BitFlip
                | Self::StaleBlock
                | Self::Misdirected
        )
    }
}

/// A fault that has begun.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Counted in the run, from 1 on.
    pub number: u64,
    /// Its kind's name.
    pub kind: &'static str,
    /// When it began, in microseconds.
    pub at: u64,
}

/// The faults of a run.
#[derive(Debug)]
pub(super) struct Chaos {
    rng: Rng,
    kinds: Vec<FaultKind>,
    plan: Plan,
    left: u64,
    next: u64,
    open: BTreeMap<u64, (FaultKind, Vec<u64>)>,
    effects: BTreeSet<u64>,
    /// How many of each kind had an effect.
    pub(super) counts: BTreeMap<FaultKind, u64>,
    /// All that have begun.
    pub(super) begun: Vec<Fault>,
    kind_of: BTreeMap<u64, FaultKind>,
    /// The fault that waits for a lease's end.
    ambush: Option<u64>,
}

impl Chaos {
    /// Plans nothing yet.
    pub(super) fn new(options: &Options, plan: &Plan, rng: Rng) -> Self {
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
            plan: plan.clone(),
            left: options.faults,
            next: 1,
            open: BTreeMap::new(),
            effects: BTreeSet::new(),
            counts: BTreeMap::new(),
            begun: Vec::new(),
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
        // Where most are left out their effects say nothing.
        self.left == 0 && (self.effects() >= EFFECTS_WANTED || self.next > FAULTS_MAX || !self.plan.is_whole())
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
            write!(f, "{}{}:{count}", if first { "" } else { " " }, kind.name())?;
            first = false;
        }
        Ok(())
    }
}
