//! The keeper: one thread that makes snapshots, sweeps, flushes, removes and evicts, a slice at a time.
//!
//! One thread does all of it, because their order is what a crash is survived by: nothing is swept while a flush is on
//! its way, nothing is removed from the store while a snapshot reads it, and a value is evicted only after its flush.

mod flushing;
mod rest;
mod slice;
mod snapshots;
mod sweeping;
mod work;

use super::budget::MemoryBudget;
use super::sled::SledStore;
use crate::disk::RealDisk;
use crate::limits::KEEPER_ASKS_MAX;
use mechi_replica::apply::state::State;
use mechi_replica::outcome::Fatal;
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::store::flush::Flusher;
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use work::Work;

/// What the keeper asks of the rest of the member.
pub trait Hooks: Send + 'static {
    /// The oldest revision that an open view reads at; `i64::MAX` without one.
    fn floor(&self) -> i64;
    /// Bytes of log since this index.
    fn log_bytes_since(&self, index: u64) -> u64;
    /// Whether the disk has room for a flush of this many bytes, which begins then: the store does not survive a full
    /// disk.
    fn may_flush(&self, bytes: u64) -> bool;
    /// The flush that began last is in the store.
    fn flushed(&self);
    /// All data fits into memory: no change waits for a flush.
    fn nothing_to_flush(&self);
    /// Whether the disk is so full that growth is refused and space is worth an early snapshot.
    fn is_tight(&self) -> bool;
    /// No snapshot that is kept needs the log below this index any more.
    fn log_is_superfluous(&self, below: u64);
    /// A snapshot is durable and verified: the log below `trim` may go. It is the older snapshot's index while that
    /// one is kept.
    fn snapshot_made(&self, manifest: &Manifest, trim: u64);
    /// Whether this file of the snapshots' folder must stay although no snapshot that is kept needs it: another member
    /// fetches it, or it is being fetched.
    fn is_pinned(&self, _name: &str) -> bool {
        false
    }
    /// Something failed that this member cannot go on from.
    fn fatal(&self, error: Fatal);
    /// A batch went into the store; for the metrics.
    fn committed(&self, _took: Duration) {}
    /// A snapshot was built; for the metrics.
    fn snapshot_took(&self, _took: Duration) {}
    /// Old revisions left the memory; for the metrics.
    fn swept(&self, _revisions: usize, _took: Duration) {}
}

/// Where the keeper works.
pub struct KeeperConfig {
    /// The data directory's disk.
    pub disk: RealDisk,
    /// The snapshots' directory on it.
    pub snapshots: String,
    /// This member.
    pub member: u64,
    /// The bound of values in memory.
    pub budget: MemoryBudget,
    /// How long a change may wait for its flush; zero if the store is only for what does not fit into memory.
    pub flush_age: Duration,
    /// Bytes of log below which no snapshot is made.
    pub snapshot_log_bytes: u64,
}

enum Ask {
    Wake,
    Flush(SyncSender<()>),
    Snapshot(SyncSender<()>),
    Sweep(SyncSender<()>),
    Stop(SyncSender<Flusher>),
}

/// A handle to the keeper's thread; dropping it stops the thread without a last flush.
pub struct Keeper {
    asks: SyncSender<Ask>,
    state: Arc<RwLock<State>>,
    room: Arc<Room>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Room {
    gate: Mutex<Gate>,
    changed: Condvar,
}

/// When apply has to wait.
struct Gate {
    /// Bytes of resident records above which it waits.
    ceiling: u64,
    /// The keeper can do nothing about it now.
    helpless: bool,
}

impl Keeper {
    /// Starts the thread; `snapshots` are the verified ones, oldest first.
    ///
    /// - Errors: the operating system's, if no thread can be made.
    pub fn start(
        config: KeeperConfig,
        state: Arc<RwLock<State>>,
        store: Arc<SledStore>,
        flusher: Flusher,
        snapshots: Vec<Manifest>,
        hooks: impl Hooks,
    ) -> std::io::Result<Self> {
        let (asks, queue) = sync_channel(KEEPER_ASKS_MAX);
        let gate = Gate { ceiling: config.budget.ceiling(), helpless: false };
        let room = Arc::new(Room { gate: Mutex::new(gate), changed: Condvar::new() });
        let (seen, work_room) = (state.clone(), room.clone());
        let work = Work::new(config, state, store, flusher, snapshots, Box::new(hooks), work_room);
        let thread = thread::Builder::new().name("keeper".into()).spawn(move || work.run(&queue))?;
        Ok(Self { asks, state: seen, room, thread: Mutex::new(Some(thread)) })
    }

    /// Waits while values in memory are far above the budget and the keeper can still do something about it; apply
    /// calls it before each batch of entries. One batch always passes: the wait ends after `timeout`.
    pub fn wait_for_room(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut gate = self.room.gate.lock();
        // Looked at here and not by the keeper alone, who may be busy with a snapshot while memory fills.
        while !gate.helpless && self.state.read().mvcc.resident_bytes() > gate.ceiling {
            let _ = self.asks.try_send(Ask::Wake);
            if self.room.changed.wait_until(&mut gate, deadline).timed_out() {
                return;
            }
        }
    }

    /// Wakes the keeper, as after a compaction; costs nothing if it is awake.
    pub fn wake(&self) {
        let _ = self.asks.try_send(Ask::Wake);
    }

    /// Flushes what is applied now; returns once it is in the store.
    pub fn flush(&self) {
        self.ask(Ask::Flush);
    }

    /// Makes a snapshot of what is applied now; returns once it is durable, or has failed for lack of space.
    pub fn snapshot(&self) {
        self.ask(Ask::Snapshot);
    }

    /// Asks for a snapshot of what is applied now, and does not wait; a keeper with too much to do is not asked.
    pub fn want_snapshot(&self) {
        let (done, _) = sync_channel(1);
        let _ = self.asks.try_send(Ask::Snapshot(done));
    }

    /// Returns once everything that compaction has freed is gone from memory and store, as far as open views let it.
    pub fn sweep(&self) {
        self.ask(Ask::Sweep);
    }

    /// Ends the thread after a last flush; `None` if it had failed. The flusher says how far the store is.
    pub fn stop(&self) -> Option<Flusher> {
        let (done, result) = sync_channel(1);
        let sent = self.asks.send(Ask::Stop(done)).is_ok();
        let flusher = if sent { result.recv().ok() } else { None };
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        flusher
    }

    fn ask(&self, ask: impl FnOnce(SyncSender<()>) -> Ask) {
        let (done, result) = sync_channel(1);
        if self.asks.send(ask(done)).is_ok() {
            // A dropped sender means that the keeper failed and has said so.
            let _ = result.recv();
        }
    }
}

#[cfg(test)]
mod tests;
