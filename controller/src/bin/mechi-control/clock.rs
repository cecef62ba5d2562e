//! The one place where a clock is read.

use mechi_controller::control::Now;
use mechi_controller::types::time::Time;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What time it is, for those who may not look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    begun: Instant,
}

impl Clock {
    /// Begins at zero milliseconds.
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now() }
    }

    /// Now, on both clocks.
    pub(crate) fn now(&self) -> Now {
        Now { ms: self.begun.elapsed().as_millis() as u64, time: today() }
    }

    /// When the clock shows so many milliseconds.
    pub(crate) fn at_ms(&self, ms: u64) -> tokio::time::Instant {
        (self.begun + std::time::Duration::from_millis(ms)).into()
    }
}

/// The wall clock's time.
pub(crate) fn today() -> Time {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Time(i64::try_from(seconds).unwrap_or(0))
}
