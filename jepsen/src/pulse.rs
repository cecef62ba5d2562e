//! Whether this machine had time for the run: a thread that sleeps shortly, again and again, and notes how late it wakes.
//!
//! What must happen within some seconds can be asked only of processes that got their turns. Where the runner itself
//! was kept waiting, its members were too, and what came late is not held against them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long it sleeps.
const BEAT: Duration = Duration::from_millis(20);

/// Lateness that every machine has.
const USUAL: Duration = Duration::from_millis(20);

/// The thread; it ends when this is dropped.
pub(crate) struct Pulse {
    late_ns: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    pub(crate) fn start() -> Self {
        let (late_ns, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (late, stop) = (late_ns.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(BEAT);
                let more = began.elapsed().saturating_sub(BEAT + USUAL);
                late.fetch_add(u64::try_from(more.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Self { late_ns, stopped, thread: Some(thread) }
    }

    /// How long it was kept waiting so far, in all.
    pub(crate) fn late_ns(&self) -> u64 {
        self.late_ns.load(Ordering::Relaxed)
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
