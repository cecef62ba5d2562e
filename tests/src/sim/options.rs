//! Everything that a run varies, derived from its seed and printed, so that a failure can be read before it is repeated.

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
    /// How likely each kind of fault is, in the order of `FaultKind::ALL`.
    pub weights: Vec<u64>,
}

impl Options {
    /// Derives a run's options.
    pub fn new(seed: u64, kinds: usize) -> Self {
        let mut rng = Rng::new(seed ^ 0x006f_7074_696f_6e73);
        let members = *rng.pick(&[1, 3, 3, 3, 3, 3, 5, 5]);
        let tick_ms = *rng.pick(&[10, 20, 50, 100]);
        let tick_us = tick_ms * 1_000;
        // Swarm: in each run some faults are frequent and some do not happen, so that one does not hide another.
        let weights = (0..kinds).map(|_| *rng.pick(&[0, 1, 2, 4])).collect();
        // From a generator of its own, so that what it draws reshuffles nothing else.
        let mut operator = Rng::new(seed ^ 0x6f70_6572_6174_6f72);
        let operator = if members == 1 { 0 } else { *operator.pick(&[0, 0, 2, 4, 4, 8]) };
        let mut store = Rng::new(seed ^ 0x7374_6f72_655f_7573);
        Self {
            seed,
            members,
            operator,
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
            weights,
        }
    }

    /// Microseconds of an election timeout at the least; the longest is below twice that.
    pub fn election_us(&self) -> u64 {
        self.tick_ms * self.election_ticks * 1_000
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed={} members={} tick={}ms election={} segment={} snapshot={} kept={} memory={} flush={} store={} latency={}..{}us \
             loss={}/1000 duplicates={}/1000 reordered={}/1000 fsync={}..{}us apply={}..{}us skew={}ppm keys={} \
             values<={}B clients={} watchers={} checkpoint={}ms ttl<={}s operator={} faults={:?}",
            self.seed,
            self.members,
            self.tick_ms,
            self.election_ticks,
            self.segment_bytes,
            self.snapshot_entries,
            self.snapshots_kept,
            self.log_memory_bytes,
            self.flush_entries,
            self.store_from as i64,
            self.latency.min,
            self.latency.max,
            self.loss,
            self.duplicates,
            self.reordered,
            self.fsync.min,
            self.fsync.max,
            self.apply.min,
            self.apply.max,
            self.skew,
            self.keys,
            self.value_bytes,
            self.clients,
            self.watchers,
            self.checkpoint_ms,
            self.ttl_max,
            self.operator,
            self.weights,
        )
    }
}
