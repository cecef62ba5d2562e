//! What the keeper's thread knows, and the order in which it does what is due.

use super::rest::Rest;
use super::slice::Slice;
use super::{Ask, Hooks, KeeperConfig, Room};
use crate::disk::RealDisk;
use crate::store::budget::MemoryBudget;
use crate::store::sled::SledStore;
use mechi_replica::apply::state::State;
use mechi_replica::mvcc::{Export, HashJob};
use mechi_replica::outcome::Fatal;
use mechi_replica::snapshot;
use mechi_replica::snapshot::build::Builder;
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::store::flush::{Flush, Flusher};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

/// How long a change may wait for its flush while the store is in use and nothing else is said.
const FLUSH_AGE: Duration = Duration::from_secs(60);

/// How often the keeper looks around when nothing wakes it.
const LOOK: Duration = Duration::from_millis(200);

/// Slices of a flush in one step while memory is above its ceiling; one otherwise.
const PRESSED_SLICES: usize = 16;

/// What somebody waits for, and how far it must be.
pub(super) struct Waiting {
    pub(super) what: What,
    pub(super) done: SyncSender<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The store at this index.
    Flush(u64),
    /// A snapshot at this index.
    Snapshot(u64),
    /// The sweep done and nothing waiting for its removal under this compaction.
    Sweep(i64),
}

#[derive(Default)]
pub(super) struct Wanted {
    pub(super) flush: bool,
    pub(super) snapshot: bool,
}

/// What a step begins with.
pub(super) struct Look {
    pub(super) applied: u64,
    /// Bytes of records in memory, of live data, and of what compactions freed and no sweep has reached.
    pub(super) resident: u64,
    pub(super) live: u64,
    pub(super) unreclaimed: u64,
    /// Bytes of log since the newest snapshot.
    pub(super) log_since: u64,
}

pub(super) struct Work {
    pub(super) config: KeeperConfig,
    pub(super) state: Arc<RwLock<State>>,
    pub(super) store: Arc<SledStore>,
    pub(super) flusher: Flusher,
    pub(super) snapshots: Vec<Manifest>,
    pub(super) hooks: Box<dyn Hooks>,
    pub(super) room: Arc<Room>,
    /// Bytes that the last full round of eviction could not take out of memory; 0 if it reached its target.
    pub(super) floor: u64,
    /// What was flushed then.
    pub(super) floor_at: i64,
    pub(super) dirty_since: Option<Instant>,
    pub(super) flush: Option<Flush>,
    pub(super) builder: Option<Builder<RealDisk>>,
    /// Where `builder` gets its records if the store is not used.
    pub(super) export: Option<Export>,
    /// When `builder` began.
    pub(super) building_since: Instant,
    pub(super) snapshot_rest: Rest,
    pub(super) sweep_rest: Rest,
    /// The compaction whose sweep has ended last.
    #[cfg(feature = "failpoints")]
    pub(super) swept_for: i64,
    pub(super) hash: Option<HashJob>,
    pub(super) sweep_size: Slice,
    pub(super) evict_size: Slice,
    pub(super) retry_after: Option<Instant>,
    /// The last flush that was wanted did not begin for lack of disk space.
    pub(super) no_room: bool,
    pub(super) waiting: Vec<Waiting>,
    pub(super) wanted: Wanted,
}

impl Work {
    pub(super) fn new(
        config: KeeperConfig,
        state: Arc<RwLock<State>>,
        store: Arc<SledStore>,
        flusher: Flusher,
        snapshots: Vec<Manifest>,
        hooks: Box<dyn Hooks>,
        room: Arc<Room>,
    ) -> Self {
        Self {
            config,
            state,
            store,
            flusher,
            snapshots,
            hooks,
            room,
            floor: 0,
            floor_at: 0,
            dirty_since: None,
            flush: None,
            builder: None,
            export: None,
            building_since: Instant::now(),
            snapshot_rest: Rest::default(),
            sweep_rest: Rest::default(),
            #[cfg(feature = "failpoints")]
            swept_for: -1,
            hash: None,
            sweep_size: Slice::new(),
            evict_size: Slice::new(),
            retry_after: None,
            no_room: false,
            waiting: Vec::new(),
            wanted: Wanted::default(),
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<Ask>) {
        let mut busy = false;
        loop {
            let ask = match busy {
                true => queue.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
                false => queue.recv_timeout(LOOK.min(self.snapshot_rest.left()).min(self.sweep_rest.left())),
            };
            match ask {
                Ok(Ask::Stop(done)) => {
                    match self.last_flush() {
                        Ok(()) => drop(done.send(std::mem::take(&mut self.flusher))),
                        Err(error) => self.hooks.fatal(error),
                    }
                    break;
                }
                Ok(ask) => self.note(ask),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            match self.step() {
                Ok(more) => busy = more,
                Err(error) => {
                    self.hooks.fatal(error);
                    break;
                }
            }
        }
        self.room.gate.lock().helpless = true;
        self.room.changed.notify_all();
    }

    fn note(&mut self, ask: Ask) {
        let (applied, compacted) = {
            let state = self.state.read();
            (state.applied_index, state.mvcc.compact_revision())
        };
        let (what, done) = match ask {
            Ask::Flush(done) => (What::Flush(applied), done),
            Ask::Snapshot(done) => (What::Snapshot(applied), done),
            Ask::Sweep(done) => (What::Sweep(compacted), done),
            Ask::Wake | Ask::Stop(_) => return,
        };
        self.waiting.push(Waiting { what, done });
    }

    /// Does one slice of everything that is due; returns whether there is more to do at once.
    pub(super) fn step(&mut self) -> Result<bool, Fatal> {
        let look = self.look();
        let Look { applied, resident, live, log_since, .. } = look;
        let in_store = self.flusher.applied().map_or(0, |applied| applied.index);
        let dirty = applied > in_store;
        self.dirty_since = if dirty { self.dirty_since.or_else(|| Some(Instant::now())) } else { None };
        let over = match self.is_store_idle() {
            true => resident > self.budget().near(),
            false => resident > self.budget().limit,
        };
        if self.is_store_idle() && !over {
            self.hooks.nothing_to_flush();
        }
        // What is on its way is not wanted once more: it may be enough, and is judged when it has ended.
        let (may_flush, may_build) = (self.flush.is_none(), self.builder.is_none());
        self.wanted.flush |= may_flush
            && dirty
            && (over || self.dirty_since.is_some_and(|since| self.is_old(since)) || self.flusher.waiting() > 0);
        let newest = self.snapshots.last().map_or(0, Manifest::index);
        self.wanted.snapshot |= may_build
            && applied > newest
            && (snapshot::is_due(log_since, live, self.config.snapshot_log_bytes) || self.frees_space(log_since, live));
        for waiting in &self.waiting {
            match waiting.what {
                What::Flush(at) => self.wanted.flush |= may_flush && at > in_store,
                What::Snapshot(at) => self.wanted.snapshot |= may_build && at > newest,
                // A removal needs an applied record that knows of the compaction.
                What::Sweep(_) => self.wanted.flush |= may_flush && dirty && self.flusher.waiting() > 0,
            }
        }
        self.wanted.snapshot &= self.retry_after.is_none_or(|after| Instant::now() >= after);
        let mut more = self.step_flush()?;
        // Apply waits: what makes room goes before the snapshot that may be on its way.
        let pressed = resident > self.budget().ceiling();
        for _ in 0..if pressed { PRESSED_SLICES } else { 0 } {
            if self.flush.is_some() {
                more |= self.step_flush()?;
            }
        }
        more |= self.step_snapshot(&look)?;
        let swept = self.step_sweep(&look)?;
        more |= !swept.finished;
        let evicted = self.step_evict()?;
        more |= !evicted;
        // While anything can still be done about it, apply waits above the ceiling.
        {
            let mut gate = self.room.gate.lock();
            gate.ceiling = self.budget().ceiling();
            gate.helpless = !more && !self.wanted.flush;
        }
        self.room.changed.notify_all();
        self.answer(swept.nothing_left);
        Ok(more)
    }

    fn look(&self) -> Look {
        let log_since = self.hooks.log_bytes_since(self.snapshots.last().map_or(0, Manifest::index));
        let state = self.state.read();
        let mvcc = &state.mvcc;
        Look {
            applied: state.applied_index,
            resident: mvcc.resident_bytes(),
            live: mvcc.live_bytes(),
            unreclaimed: mvcc.unreclaimed_bytes(),
            log_since,
        }
    }

    /// Whether nothing may rest: somebody waits, or memory or disk run short.
    pub(super) fn is_urgent(&self, look: &Look) -> bool {
        !self.waiting.is_empty() || self.hooks.is_tight() || look.resident > self.budget().limit
    }

    /// Whether all data is in memory and the store is empty: it is used only once memory runs short, or when changes have
    /// an age at which they are flushed.
    pub(super) fn is_store_idle(&self) -> bool {
        self.config.flush_age.is_zero() && self.flusher.applied().is_none() && self.flush.is_none()
    }

    fn is_old(&self, dirty_since: Instant) -> bool {
        let age = match self.config.flush_age {
            // The store is in use all the same: it is kept near, so that an open has little to catch up with.
            Duration::ZERO => FLUSH_AGE,
            age => age,
        };
        !self.is_store_idle() && dirty_since.elapsed() >= age
    }

    pub(super) fn budget(&self) -> MemoryBudget {
        self.config.budget.above(self.floor)
    }

    fn answer(&mut self, swept: bool) {
        let in_store = self.flusher.applied().map_or(0, |applied| applied.index);
        let newest = self.snapshots.last().map_or(0, Manifest::index);
        let gave_up = self.retry_after.is_some();
        // Without room for a flush nothing leaves the store: what could be done is done.
        let no_room = std::mem::take(&mut self.no_room);
        self.waiting.retain(|waiting| {
            let reached = match waiting.what {
                What::Flush(at) => in_store >= at || no_room,
                What::Snapshot(at) => newest >= at || gave_up || no_room,
                What::Sweep(_) => swept || no_room,
            };
            if reached {
                let _ = waiting.done.send(());
            }
            !reached
        });
    }

    /// Brings everything into the store that is not yet there.
    fn last_flush(&mut self) -> Result<(), Fatal> {
        if let Some(builder) = self.builder.take() {
            builder.abandon();
        }
        if self.is_store_idle() {
            return Ok(());
        }
        // A flush that is on its way describes an older state; another follows it.
        while self.flush.is_some() {
            self.step_flush()?;
        }
        let state = self.state.read();
        self.flusher.flush_all(&*self.store, &state.mvcc, state.to_meta())?;
        Ok(())
    }
}
