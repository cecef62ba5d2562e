//! A member's clocks: a monotonic one that may run fast or slow, and a wall clock that may jump.

use mechi_replica::types::MonoMillis;

/// The clocks of one machine; the process sees the monotonic one from its own start.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// True time and own time at the last change of rate, in microseconds.
    since: u64,
    own: u64,
    /// Own microseconds in a million true ones.
    rate: u64,
    /// Own time at the process's start.
    started: u64,
    /// What the wall clock shows above own time, in milliseconds.
    wall_ms: i64,
}

impl Clock {
    /// A clock that runs at `rate` millionths of true time.
    pub(super) fn new(rate: u64) -> Self {
        Self { since: 0, own: 0, rate, started: 0, wall_ms: 1_700_000_000_000 }
    }

    fn own(&self, now: u64) -> u64 {
        self.own + (now - self.since) * self.rate / 1_000_000
    }

    /// The process starts now.
    pub(super) fn start(&mut self, now: u64) {
        self.started = self.own(now);
    }

    /// What the process's monotonic clock shows.
    pub(super) fn mono(&self, now: u64) -> MonoMillis {
        MonoMillis((self.own(now) - self.started) / 1_000)
    }

    /// What the wall clock shows, in milliseconds since 1970.
    pub(super) fn wall_ms(&self, now: u64) -> i64 {
        self.wall_ms + (self.own(now) / 1_000) as i64
    }

    /// Changes the rate from now on.
    pub(super) fn set_rate(&mut self, now: u64, rate: u64) {
        (self.own, self.since, self.rate) = (self.own(now), now, rate);
    }

    /// Sets the wall clock forward or back.
    pub(super) fn jump(&mut self, by_ms: i64) {
        self.wall_ms += by_ms;
    }

    /// True microseconds until own time has gone on by `own_us`.
    pub(super) fn true_us(&self, own_us: u64) -> u64 {
        own_us * 1_000_000 / self.rate
    }
}
