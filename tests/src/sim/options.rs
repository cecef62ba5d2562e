//! Everything that a run varies, derived from its seed and printed, so that a failure can be read before it is repeated.

use super::chaos::FaultKind;
use crate::rng::Rng;
use std::fmt;

/// A span from which a delay is drawn, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The shortest.
    pub min: u64,
    /// The longest.
    pub max: u64,
}

impl Span {
    /// Draws from it; short delays are likelier than long ones, as on real networks and disks.
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        let width = self.max.saturating_sub(self.min);
        self.min + rng.below(width + 1).min(rng.below(width + 1))
    }
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed that all of this comes from.
    pub seed: u64,
    /// Replicas: 1, 3 or 5.
    pub members: u64,
    /// Milliseconds per raft tick.
    pub tick_ms: u64,
    /// Ticks of an election timeout.
    pub election_ticks: u64,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Entries after which a member makes a snapshot.
    pub snapshot_entries: u64,
    /// Bytes of applied entries that a member keeps in memory for others.
    pub log_memory_bytes: usize,
    /// Snapshots that a member keeps.
    pub snapshots_kept: usize,
    /// Entries after which a member flushes into its store.
    pub flush_entries: u64,
    /// Index from which on members use their stores; before, all data is in memory alone.
    pub store_from: u64,
    /// How long a message takes.
    pub latency: Span,
    /// Messages lost, in a thousand, while nothing is wrong.
    pub loss: u64,
    /// Messages delivered twice, in a thousand.
    pub duplicates: u64,
    /// Messages that overtake others, in a thousand; the others keep their order.
    pub reordered: u64,
    /// How long an fsync takes.
    pub fsync: Span,
    /// How long committed entries wait for apply.
    pub apply: Span,
    /// How far a member's clock may run fast or slow, in millionths.
    pub skew: u64,
    /// Keys that the clients write.
    pub keys: u64,
    /// The longest value, in bytes.
    pub value_bytes: u64,
    /// Clients, each with one operation at a time.
    pub clients: u64,
    /// Clients that watch.
    pub watchers: u64,
    /// Client operations before the faults end.
    pub operations: u64,
    /// Faults before they end.
    pub faults: u64,
    /// Milliseconds between two notes of a lease's remaining time.
    pub checkpoint_ms: u64,
    /// The longest time to live that a client asks for, in seconds.
    pub ttl_max: u64,
    /// Election timeouts between two changes of the membership, on the average; 0 for no such changes.
    pub operator: u64,
    /// How many of the classes of faults are on, in a hundred.
    pub density: u64,
    /// How likely each kind of fault is, in the order of `FaultKind::ALL`; 0 for a class that is off.
    pub weights: Vec<u64>,
}

impl Options {
    /// Derives a run's options.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x006f_7074_696f_6e73);
        let members = *rng.pick(&[1, 3, 3, 3, 3, 3, 5, 5]);
        let tick_ms = *rng.pick(&[10, 20, 50, 100]);
        let tick_us = tick_ms * 1_000;
        // From generators of their own, so that what they draw reshuffles nothing else.
        let mut operator = Rng::new(seed ^ 0x6f70_6572_6174_6f72);
        let operator = if members == 1 { 0 } else { *operator.pick(&[0, 0, 2, 4, 4, 8]) };
        let mut store = Rng::new(seed ^ 0x7374_6f72_655f_7573);
        let (density, weights) = swarm(&mut Rng::new(seed ^ 0x0000_7377_6172_6d73));
        Self {
            seed,
            members,
            operator,
            density,
            weights,
            store_from: *store.pick(&[0, 0, 150, u64::MAX, u64::MAX]),
            tick_ms,
            election_ticks: *rng.pick(&[8, 10, 10]),
            segment_bytes: *rng.pick(&[4 << 10, 8 << 10, 16 << 10, 64 << 10]),
            snapshot_entries: *rng.pick(&[15, 40, 100, 300]),
            log_memory_bytes: *rng.pick(&[512, 4 << 10, 64 << 10]),
            snapshots_kept: *rng.pick(&[1, 2]),
            flush_entries: *rng.pick(&[5, 20, 60]),
            latency: Span { min: 50 + rng.below(200), max: tick_us / *rng.pick(&[4, 10, 20]) },
            loss: *rng.pick(&[0, 0, 5, 20]),
            duplicates: *rng.pick(&[0, 5, 30]),
            reordered: *rng.pick(&[0, 10, 200]),
            fsync: Span { min: 100 + rng.below(400), max: tick_us / *rng.pick(&[3, 8, 20]) },
            apply: Span { min: 10, max: tick_us / *rng.pick(&[5, 20, 100]) },
            skew: *rng.pick(&[0, 1_000, 30_000]),
            keys: *rng.pick(&[4, 10, 24]),
            value_bytes: *rng.pick(&[16, 200, 1_500]),
            clients: *rng.pick(&[4, 6, 10]),
            watchers: *rng.pick(&[2, 3, 5]),
            // The longer ones reach the entries at which members compare their digests.
            operations: *rng.pick(&[1_250, 1_250, 1_250, 2_200]),
            faults: 26,
            checkpoint_ms: *rng.pick(&[700, 2_000, 300_000]),
            ttl_max: *rng.pick(&[1, 2, 4]),
        }
    }

    /// Microseconds of an election timeout at the least; the longest is below twice that.
    pub fn election_us(&self) -> u64 {
        self.tick_ms * self.election_ticks * 1_000
    }

    /// The classes of faults that are on, by name, each with its weight.
    pub fn classes(&self) -> Vec<(&'static str, u64)> {
        let kinds = FaultKind::ALL.into_iter().zip(self.weights.iter().copied());
        let on = kinds.filter(|(kind, weight)| *weight > 0 && (self.members > 1 || !kind.needs_peers()));
        on.map(|(kind, weight)| (kind.name(), weight)).collect()
    }

    /// The same in the names that can be left out (`--without`), the common troubles of network and clocks among them.
    pub fn troubles(&self) -> Vec<&'static str> {
        let common = [
            ("Operator", self.operator),
            ("Loss", self.loss),
            ("Duplicates", self.duplicates),
            ("Reordering", self.reordered),
            ("Skew", self.skew),
        ];
        let common = common.into_iter().filter(|(_, amount)| *amount > 0).map(|(name, _)| name);
        self.classes().into_iter().map(|(name, _)| name).chain(common).collect()
    }
}

/// Names of the troubles that are no faults with a beginning and an end.
pub(super) const COMMON: [&str; 5] = ["Operator", "Loss", "Duplicates", "Reordering", "Skew"];

/// Swarm: in each run some classes of faults are frequent and many do not happen, so that one does not hide another. How
/// many are on is drawn too: few of them show what many would drown.
fn swarm(rng: &mut Rng) -> (u64, Vec<u64>) {
    let density = *rng.pick(&[25, 50, 50, 75]);
    let weight = |rng: &mut Rng| {
        let (on, weight) = (rng.chance(density), *rng.pick(&[1, 2, 4]));
        if on { weight } else { 0 }
    };
    (density, FaultKind::ALL.iter().map(|_| weight(rng)).collect())
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1_000.0;
        let span = |span: &Span| format!("{:.2} to {:.2} ms", ms(span.min), ms(span.max));
        let election = ms(self.election_us());
        let store = match self.store_from {
            0 => "from the beginning".to_owned(),
            u64::MAX => "never: all data is in memory".to_owned(),
            index => format!("from index {index} on"),
        };
        let operator = match self.operator {
            0 => "nobody".to_owned(),
            pause => format!("somebody, every {:.0} ms on the average", pause as f64 * election),
        };
        let classes: Vec<_> = self.classes().iter().map(|(name, weight)| format!("{name} x{weight}")).collect();
        writeln!(f, "seed {}", self.seed)?;
        writeln!(
            f,
            "  members     {}; a tick takes {} ms, an election timeout {election:.0} to {:.0} ms; clocks off by up to {} ppm",
            self.members,
            self.tick_ms,
            2.0 * election,
            self.skew
        )?;
        writeln!(
            f,
            "  log         segments of {} bytes; {} bytes of entries in memory for others",
            self.segment_bytes, self.log_memory_bytes
        )?;
        writeln!(f, "  snapshots   every {} entries, {} kept", self.snapshot_entries, self.snapshots_kept)?;
        writeln!(f, "  store       {store}; flushed every {} entries", self.flush_entries)?;
        writeln!(
            f,
            "  network     {}; of 1000 messages {} lost, {} repeated, {} overtake others",
            span(&self.latency),
            self.loss,
            self.duplicates,
            self.reordered
        )?;
        writeln!(
            f,
            "  disk        an fsync takes {}; entries wait {} for apply",
            span(&self.fsync),
            span(&self.apply)
        )?;
        writeln!(
            f,
            "  clients     {} with {} operations in all on {} keys, values up to {} bytes; {} watch",
            self.clients, self.operations, self.keys, self.value_bytes, self.watchers
        )?;
        writeln!(f, "  leases      up to {} s; noted every {} ms", self.ttl_max, self.checkpoint_ms)?;
        writeln!(f, "  membership  is changed by {operator}")?;
        write!(f, "  faults      {} and more; {} of 100 classes on: {}", self.faults, self.density, classes.join(", "))
    }
}
