//! The keeper: one thread that flushes, snapshots, removes, sweeps and evicts, a slice at a time.
//!
//! One thread does all of it, because their order is what a crash is survived by: nothing is swept while a flush is on
//! its way, nothing is removed from the store while a snapshot reads it, and a value is evicted only after its flush.

use super::sled::SledStore;
use crate::disk::RealDisk;
use crate::limits::KEEPER_ASKS_MAX;
use mechi_replica::apply::state::State;
use mechi_replica::limits::SLICE_KEYS_MAX;
use mechi_replica::mvcc::{Export, HashJob};
use mechi_replica::outcome::Fatal;
use mechi_replica::snapshot::build::Builder;
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::snapshot::{self, Error};
use mechi_replica::store::flush::{Flush, Flusher};
use mechi_replica::store::{Blocks, Store};
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a change may wait for its flush while the store is in use and nothing else is said.
const FLUSH_AGE: Duration = Duration::from_secs(60);

/// How often the keeper looks around when nothing wakes it.
const LOOK: Duration = Duration::from_millis(200);

/// How long a snapshot is not tried again after the disk was full.
const FULL_PAUSE: Duration = Duration::from_secs(10);

/// The bound of values in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Bytes of resident records above which the keeper flushes and evicts.
    pub limit: u64,
}

impl MemoryBudget {
    /// Bytes above which the store is used, if it was not before: that takes a while, and the limit is near.
    pub fn near(&self) -> u64 {
        self.limit / 4 * 3
    }

    /// Bytes at which apply waits for the keeper: an eighth above the limit.
    pub fn ceiling(&self) -> u64 {
        self.limit.saturating_add(self.limit / 8)
    }

    /// Bytes that eviction goes down to: an eighth below the limit, so that it need not run all the time.
    pub fn target(&self) -> u64 {
        self.limit - self.limit / 8
    }

    /// The budget over `floor` bytes that cannot leave memory, as the index: another eighth may come before it is
    /// worth it to look again. Were the limit kept, a large index would mean a flush for every entry.
    pub fn above(&self, floor: u64) -> Self {
        Self { limit: self.limit.max(floor.saturating_add(self.limit / 8)) }
    }
}

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
        let work = Work {
            config,
            state,
            store,
            flusher,
            snapshots,
            hooks: Box::new(hooks),
            room: work_room,
            floor: 0,
            floor_at: 0,
            dirty_since: None,
            flush: None,
            builder: None,
            export: None,
            building_since: Instant::now(),
            hash: None,
            retry_after: None,
            no_room: false,
            waiting: Vec::new(),
            wanted: Wanted::default(),
        };
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

/// What somebody waits for, and how far it must be.
struct Waiting {
    what: What,
    done: SyncSender<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// The store at this index.
    Flush(u64),
    /// A snapshot at this index.
    Snapshot(u64),
    /// The sweep done and nothing waiting for its removal under this compaction.
    Sweep(i64),
}

#[derive(Default)]
struct Wanted {
    flush: bool,
    snapshot: bool,
}

struct Work {
    config: KeeperConfig,
    state: Arc<RwLock<State>>,
    store: Arc<SledStore>,
    flusher: Flusher,
    snapshots: Vec<Manifest>,
    hooks: Box<dyn Hooks>,
    room: Arc<Room>,
    /// Bytes that the last full round of eviction could not take out of memory; 0 if it reached its target.
    floor: u64,
    /// What was flushed then.
    floor_at: i64,
    dirty_since: Option<Instant>,
    flush: Option<Flush>,
    builder: Option<Builder<RealDisk>>,
    /// Where `builder` gets its records if the store is not used.
    export: Option<Export>,
    /// When `builder` began.
    building_since: Instant,
    hash: Option<HashJob>,
    retry_after: Option<Instant>,
    /// The last flush that was wanted did not begin for lack of disk space.
    no_room: bool,
    waiting: Vec<Waiting>,
    wanted: Wanted,
}

impl Work {
    fn run(mut self, queue: &Receiver<Ask>) {
        let mut busy = false;
        loop {
            let ask = match busy {
                true => queue.try_recv().map_err(|error| match error {
                    std::sync::mpsc::TryRecvError::Empty => RecvTimeoutError::Timeout,
                    std::sync::mpsc::TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
                false => queue.recv_timeout(LOOK),
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
    fn step(&mut self) -> Result<bool, Fatal> {
        let (applied, resident, live) = {
            let state = self.state.read();
            (state.applied_index, state.mvcc.resident_bytes(), state.mvcc.live_bytes())
        };
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
        let log_since = self.hooks.log_bytes_since(newest);
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
        more |= self.step_snapshot()?;
        let swept = self.step_sweep()?;
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

    /// Whether all data is in memory and the store is empty: it is used only once memory runs short, or when changes have
    /// an age at which they are flushed.
    fn is_store_idle(&self) -> bool {
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

    fn budget(&self) -> MemoryBudget {
        self.config.budget.above(self.floor)
    }

    /// On a disk that is too full for growth: whether a new snapshot would free more than a little, by the log that
    /// it makes superfluous or by what has gone since the last one.
    fn frees_space(&self, log_since: u64, live: u64) -> bool {
        if !self.hooks.is_tight() {
            return false;
        }
        let held = self.snapshots.last().map_or(0, |manifest| manifest.tally.bytes);
        log_since >= TIGHT_LOG_BYTES_MIN.max(live / 8) || held > live.saturating_add(live / 8)
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

    fn step_flush(&mut self) -> Result<bool, Fatal> {
        if self.flush.is_none() && (self.wanted.flush || self.wanted.snapshot && !self.is_store_idle()) {
            self.wanted.flush = false;
            let unflushed = {
                let mvcc = &self.state.read().mvcc;
                match self.flusher.applied() {
                    Some(applied) => mvcc.bytes_since(applied.revision),
                    None => mvcc.live_bytes() + mvcc.unreclaimed_bytes(),
                }
            };
            // A flush begins only with room for it.
            if !self.hooks.may_flush(unflushed) {
                self.no_room = true;
                self.wanted.snapshot &= self.is_store_idle();
                return Ok(false);
            }
            let meta = self.state.read().to_meta();
            self.flush = self.flusher.begin(meta);
        }
        let Some(flush) = &mut self.flush else { return Ok(false) };
        let slice = flush.slice(&self.state.read().mvcc)?;
        if let Some(entries) = slice {
            let batch = flush.batch(&entries);
            if !batch.is_empty() {
                let began = Instant::now();
                self.store.commit(batch)?;
                self.hooks.committed(began.elapsed());
            }
            return Ok(true);
        }
        if let Some(flush) = self.flush.take() {
            let finished = flush.finish(&self.flusher)?;
            for batch in finished.batches {
                let began = Instant::now();
                self.store.commit(batch)?;
                self.hooks.committed(began.elapsed());
            }
            self.flusher.flushed_with(&*self.store, finished.ended)?;
            self.state.write().mvcc.set_flushed(self.flusher.flushed());
            self.dirty_since = None;
            self.hooks.flushed();
        }
        Ok(true)
    }

    fn step_snapshot(&mut self) -> Result<bool, Fatal> {
        if self.builder.is_none() && self.wanted.snapshot && self.flush.is_none() {
            self.retry_after = None;
            let (tally, meta) = match self.flusher.applied() {
                Some(applied) => (Some(applied.tally), applied.state(&*self.store)?),
                None if self.is_store_idle() => {
                    let state = self.state.read();
                    let meta = state.to_meta();
                    self.export = Some(Export::new(&state.mvcc, meta.revision, meta.compact_revision));
                    (None, meta)
                }
                None => return Ok(false),
            };
            self.make_room()?;
            let KeeperConfig { disk, snapshots, member, .. } = &self.config;
            let previous = self.snapshots.last();
            self.building_since = Instant::now();
            self.builder = Some(Builder::new(disk.clone(), snapshots, *member, tally, meta, previous));
            self.wanted.snapshot = false;
        }
        let Some(builder) = &mut self.builder else { return Ok(false) };
        let stepped = match &mut self.export {
            None => builder.step(&*self.store),
            Some(export) => {
                let slice = export.slice(&self.state.read().mvcc)?;
                match slice {
                    Some(entries) => builder.add(entries).map(|()| true),
                    None => builder.end().map(|()| false),
                }
            }
        };
        let result = match stepped {
            Ok(true) => return Ok(true),
            Ok(false) => self.builder.take().expect("it was there above").finish(),
            Err(error) => {
                if let Some(builder) = self.builder.take() {
                    builder.abandon();
                }
                Err(error)
            }
        };
        self.export = None;
        match result {
            Ok(manifest) => {
                self.hooks.snapshot_took(self.building_since.elapsed());
                self.snapshot_made(manifest)?;
            }
            Err(Error::Fatal(error)) => return Err(error),
            Err(Error::Full(error)) => {
                tracing::warn!(%error, "no snapshot: the disk is full");
                self.retry_after = Some(Instant::now() + FULL_PAUSE);
                self.collect_garbage()?;
            }
        }
        Ok(true)
    }

    /// Drops the older snapshot and its log before a new one is written, if there would not be room for all of them.
    fn make_room(&mut self) -> Result<(), Fatal> {
        let [older, newest] = &self.snapshots[..] else { return Ok(()) };
        let live = self.state.read().mvcc.live_bytes();
        let used = older.bytes() + 2 * newest.bytes() + self.hooks.log_bytes_since(older.index());
        if snapshot::keeps_older_beside_a_new_one(used, live) {
            return Ok(());
        }
        self.snapshots.remove(0);
        self.collect_garbage()?;
        if let Some(newest) = self.snapshots.last() {
            self.hooks.log_is_superfluous(newest.index());
        }
        Ok(())
    }

    /// Keeps the new snapshot and, while the disk use allows it, its predecessor; frees all others.
    fn snapshot_made(&mut self, manifest: Manifest) -> Result<(), Fatal> {
        let live = self.state.read().mvcc.live_bytes();
        let log = self.hooks.log_bytes_since(self.snapshots.last().map_or(0, Manifest::index));
        let used: u64 = self.snapshots.last().map_or(0, Manifest::bytes) + manifest.bytes() + log;
        self.snapshots.push(manifest);
        let keep = if snapshot::keeps_older(used, live) { 2 } else { 1 };
        let drop = self.snapshots.len().saturating_sub(keep);
        self.snapshots.drain(..drop);
        self.collect_garbage()?;
        if let (Some(oldest), Some(newest)) = (self.snapshots.first(), self.snapshots.last()) {
            self.hooks.snapshot_made(newest, oldest.index());
        }
        Ok(())
    }

    fn collect_garbage(&self) -> Result<u64, Fatal> {
        let kept: Vec<&Manifest> = self.snapshots.iter().collect();
        let pinned = |name: &str| self.hooks.is_pinned(name);
        snapshot::collect_garbage_but(&self.config.disk, &self.config.snapshots, &kept, &pinned)
    }

    fn step_sweep(&mut self) -> Result<Swept, Fatal> {
        if let Some(job) = &mut self.hash {
            let more = match job.step(&self.state.read().mvcc) {
                Ok(more) => more,
                // Compacted meanwhile: its hash is never asked for any more.
                Err(_) => {
                    self.hash = None;
                    return Ok(Swept::default());
                }
            };
            if !more && let Some(job) = self.hash.take() {
                let hash = job.finish(&Blocks(&*self.store))?;
                self.state.write().mvcc.remember_hash(hash);
            }
            return Ok(Swept::default());
        }
        // While a flush is on its way or the removals are full, the sweep waits for them: they report for it.
        let mut swept = Swept { finished: true, nothing_left: false };
        if self.flush.is_none() && !self.flusher.is_full() {
            // The lock first: a view that opens before it is seen, one that opens after it reads what is left.
            let mut state = self.state.write();
            let began = Instant::now();
            let exported = self.export.as_ref().map_or(i64::MAX, Export::floor);
            let floor = self.hooks.floor();
            let compacted = state.mvcc.compact_revision();
            let sweep = state.mvcc.sweep(floor.min(exported), SLICE_KEYS_MAX);
            drop(state);
            let held_back = floor < compacted && sweep.removed.is_empty() && sweep.hash.is_none();
            swept.finished = sweep.done || held_back;
            swept.nothing_left = swept.finished;
            if !sweep.removed.is_empty() {
                self.hooks.swept(sweep.removed.len(), began.elapsed());
            }
            self.hash = sweep.hash;
            self.flusher.removed(compacted, sweep.removed);
        }
        if self.builder.is_none() && self.flusher.remove_some(&*self.store)? {
            swept.finished = false;
        }
        swept.nothing_left &= self.flusher.waiting() == 0;
        Ok(swept)
    }

    /// Evicts a slice; returns whether enough is evicted or nothing more can be.
    fn step_evict(&mut self) -> Result<bool, Fatal> {
        // An export finds its values in memory.
        if self.export.is_some() || self.state.read().mvcc.resident_bytes() <= self.budget().limit {
            return Ok(true);
        }
        let flushed = self.flusher.flushed();
        let target = self.config.budget.target();
        let mut state = self.state.write();
        let done = state.mvcc.evict(flushed, target, SLICE_KEYS_MAX);
        if done && self.flush.is_none() && self.floor_at != flushed {
            let left = state.mvcc.resident_bytes();
            self.floor = if left > target { left.saturating_sub(state.mvcc.bytes_since(flushed)) } else { 0 };
            self.floor_at = flushed;
        }
        Ok(done)
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

/// Slices of a flush in one step while memory is above its ceiling; one otherwise.
const PRESSED_SLICES: usize = 16;

/// Bytes of log that are worth a snapshot on a disk that is too full for growth.
const TIGHT_LOG_BYTES_MIN: u64 = 4 << 20;

#[derive(Default)]
struct Swept {
    /// Nothing more to do at once.
    finished: bool,
    /// Nothing that compaction has freed is left in memory or store, but for open views.
    nothing_left: bool,
}

#[cfg(test)]
mod tests;
