//! The keeper's rests: between two slices, others get the state's lock and the processor.

use std::time::{Duration, Instant};

/// A rest of one kind of work; none is on at first.
#[derive(Debug, Default)]
pub(super) struct Rest {
    until: Option<Instant>,
}

impl Rest {
    /// Begins a rest.
    pub(super) fn begin(&mut self, time: Duration) {
        self.until = Some(Instant::now() + time);
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        self.until = None;
    }

    /// Whether it is still on.
    pub(super) fn is_on(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// How long until there may be something to do although nothing is due: its end, or for ever if there was none.
    pub(super) fn left(&self) -> Duration {
        self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
    }
}
