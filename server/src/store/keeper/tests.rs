//! The keeper over a real store in a real folder: what it writes, frees and removes can be read and rebuilt.

use super::*;
use crate::store::sled::SledStore;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{self, command::Request};
use mechi_replica::apply::{Answer, Outcomes, apply};
use mechi_replica::command;
use mechi_replica::disk;
use mechi_replica::effect::{Entry, EntryKind};
use mechi_replica::limits::SNAPSHOT_LOG_BYTES_MIN;
use mechi_replica::mvcc::HashJob;
use mechi_replica::snapshot;
use mechi_replica::store::applied::Applied;
use mechi_replica::store::mem::MemStore;
use mechi_replica::store::restore::{from_snapshot, rebuild, restore};
use mechi_replica::store::{Blocks, Store};
use mechi_replica::types::KeyRange;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tempfile::TempDir;

const NOBODY: Answer = Answer { member: 0, boot: 0 };

/// What the keeper asks and says, where a test can turn it and see it.
#[derive(Clone)]
struct Told {
    floor: Arc<AtomicI64>,
    full: Arc<AtomicBool>,
    made: Arc<Mutex<Vec<(u64, u64)>>>,
    fatal: Arc<Mutex<Option<String>>>,
}

impl Default for Told {
    fn default() -> Self {
        let floor = Arc::new(AtomicI64::new(i64::MAX));
        Self { floor, full: Arc::default(), made: Arc::default(), fatal: Arc::default() }
    }
}

impl Hooks for Told {
    fn floor(&self) -> i64 {
        self.floor.load(Ordering::SeqCst)
    }
    fn log_bytes_since(&self, _: u64) -> u64 {
        0
    }
    fn may_flush(&self, _: u64) -> bool {
        !self.full.load(Ordering::SeqCst)
    }
    fn flushed(&self) {}
    fn nothing_to_flush(&self) {}
    fn log_is_superfluous(&self, _: u64) {}
    fn is_tight(&self) -> bool {
        false
    }
    fn snapshot_made(&self, manifest: &Manifest, trim: u64) {
        self.made.lock().push((manifest.index(), trim));
    }
    fn fatal(&self, error: Fatal) {
        *self.fatal.lock() = Some(error.to_string());
    }
}

/// A keeper with what it keeps.
struct Kept {
    dir: TempDir,
    state: Arc<RwLock<State>>,
    store: Arc<SledStore>,
    keeper: Keeper,
    told: Told,
}

impl Kept {
    fn new(limit: u64, flush_age: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        Self::over(dir, store, State::empty(), Flusher::new(None), limit, flush_age)
    }

    fn over(dir: TempDir, store: SledStore, state: State, flusher: Flusher, limit: u64, flush_age: Duration) -> Self {
        let disk = RealDisk::new(dir.path());
        disk::ensure_dir(&disk, "snap").unwrap();
        let (snapshots, _) = snapshot::list(&disk, "snap").unwrap();
        let config = config(disk, MemoryBudget { limit }, flush_age);
        let (state, store, told) = (Arc::new(RwLock::new(state)), Arc::new(store), Told::default());
        let keeper = Keeper::start(config, state.clone(), store.clone(), flusher, snapshots, told.clone()).unwrap();
        Self { dir, state, store, keeper, told }
    }

    fn propose(&self, request: Request) {
        let mut state = self.state.write();
        let index = state.applied_index + 1;
        let command = mechipb::Command { id: index, request: Some(request), ..Default::default() };
        let batch = mechipb::Batch { member: 1, boot: 1, number: index, wall_ms: 0, commands: vec![command] };
        let entry = Entry { index, term: 1, kind: EntryKind::Normal, data: command::encode(&batch) };
        apply(&mut state, &entry, NOBODY, &Blocks(&*self.store), &mut Outcomes::default()).unwrap();
    }

    fn put(&self, key: u32, bytes: usize) {
        let (key, value) = (format!("key-{key:04}").into(), vec![key as u8; bytes].into());
        self.propose(Request::Put(pb::PutRequest { key, value, ..Default::default() }));
    }

    fn compact(&self) {
        let revision = self.state.read().mvcc.revision();
        self.propose(Request::Compaction(pb::CompactionRequest { revision, ..Default::default() }));
    }

    /// Waits, for a bounded time, until `reached` says so.
    fn until(&self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !reached(self) {
            assert!(Instant::now() < end && self.told.fatal.lock().is_none(), "{what}: {:?}", self.told.fatal.lock());
            thread::yield_now();
        }
    }

    fn in_store(&self) -> u64 {
        Applied::load(&*self.store).unwrap().map_or(0, |applied| applied.index)
    }

    fn shown(&self) -> Vec<String> {
        shown(&self.state.read(), &*self.store)
    }
}

fn config(disk: RealDisk, budget: MemoryBudget, flush_age: Duration) -> KeeperConfig {
    let (snapshots, snapshot_log_bytes) = ("snap".into(), SNAPSHOT_LOG_BYTES_MIN);
    KeeperConfig { disk, snapshots, member: 1, budget, flush_age, snapshot_log_bytes }
}

fn open(dir: &Path) -> SledStore {
    SledStore::open(&dir.join("store"), 16 << 20, Duration::from_secs(60)).unwrap()
}

/// Everything that a reader can see now, each value read from where it is.
fn shown(state: &State, store: &impl Store) -> Vec<String> {
    let mut lines = vec![format!("{:?}", state.to_meta())];
    state.mvcc.scan(&KeyRange::all(), state.mvcc.revision(), &mut |item| {
        let record = item.record(&Blocks(store)).unwrap();
        lines.push(format!("{} {:?} {}", item.mod_revision, item.key(), crc32c::crc32c(record.wire())));
        true
    });
    lines
}

/// So old is any change that waits.
const AT_ONCE: Duration = Duration::from_nanos(1);
const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn flushes_when_asked_and_not_before() {
    let kept = Kept::new(64 << 20, NEVER);
    (0..50).for_each(|key| kept.put(key, 300));
    kept.keeper.wake();
    assert_eq!(kept.in_store(), 0);
    kept.keeper.flush();
    assert_eq!(kept.in_store(), 50);
    kept.put(50, 10);
    assert_eq!(kept.in_store(), 50);
}

#[test]
fn flushes_what_is_old_enough_by_itself() {
    let kept = Kept::new(64 << 20, AT_ONCE);
    kept.put(1, 300);
    kept.until("a flush", |kept| kept.in_store() == 1);
}

#[test]
fn a_flush_waits_for_room_on_the_disk() {
    let kept = Kept::new(64 << 20, AT_ONCE);
    kept.told.full.store(true, Ordering::SeqCst);
    kept.put(1, 300);
    // A sweep is answered by the same thread, after it has looked at the flush.
    kept.keeper.sweep();
    assert_eq!(kept.in_store(), 0);
    kept.told.full.store(false, Ordering::SeqCst);
    kept.until("a flush", |kept| kept.in_store() == 1);
}

#[test]
fn memory_stays_within_its_budget_and_every_value_can_be_read() {
    let limit = 256 << 10;
    let kept = Kept::new(limit, NEVER);
    for key in 0..400 {
        kept.put(key, 4_000);
        kept.keeper.wait_for_room(Duration::from_secs(30));
    }
    kept.keeper.wake();
    kept.until("eviction", |kept| kept.state.read().mvcc.resident_bytes() <= limit);
    let state = kept.state.read();
    let (mut evicted, mut read) = (0, 0);
    state.mvcc.scan(&KeyRange::all(), state.mvcc.revision(), &mut |item| {
        evicted += u32::from(item.record(&mechi_replica::store::AllInMemory).is_err());
        let record = item.record(&Blocks(&*kept.store)).unwrap();
        assert_eq!(record.fields().unwrap().value, vec![read as u8; 4_000]);
        read += 1;
        true
    });
    assert_eq!(read, 400);
    assert!(evicted > 300, "only {evicted} values left memory");
}

#[test]
fn what_compaction_frees_leaves_memory_and_store_once_no_view_needs_it() {
    let kept = Kept::new(64 << 20, NEVER);
    for round in 0..5 {
        (0..40).for_each(|key| kept.put(key, 200 + round));
        kept.keeper.flush();
    }
    let records = || Applied::load(&*kept.store).unwrap().unwrap().tally.records;
    assert_eq!(records(), 200);
    let view = 1;
    kept.told.floor.store(view, Ordering::SeqCst);
    kept.compact();
    kept.keeper.sweep();
    assert_eq!(records(), 200, "a view at revision {view} is open");
    kept.told.floor.store(i64::MAX, Ordering::SeqCst);
    kept.keeper.sweep();
    assert_eq!((records(), kept.state.read().mvcc.unreclaimed_bytes()), (40, 0));
    let whole = kept.shown();
    let applied = Applied::load(&*kept.store).unwrap().unwrap();
    let (state, _) = restore(&*kept.store, &applied, 0).unwrap();
    assert_eq!(shown(&state, &*kept.store), whole);
}

#[test]
fn a_compaction_is_hashed_over_values_that_left_memory_before_they_are_swept() {
    let kept = Kept::new(1, NEVER);
    (0..3).for_each(|_| (0..40).for_each(|key| kept.put(key, 1_000)));
    kept.keeper.flush();
    kept.compact();
    let compacted = kept.state.read().mvcc.compact_revision();
    let wanted = {
        let mut job = HashJob::new(&kept.state.read().mvcc, compacted).unwrap();
        while job.step(&kept.state.read().mvcc).unwrap() {}
        job.finish(&Blocks(&*kept.store)).unwrap()
    };
    kept.keeper.sweep();
    let state = kept.state.read();
    let known = HashJob::new(&state.mvcc, compacted).unwrap().finish(&mechi_replica::store::AllInMemory).unwrap();
    assert_eq!(known, wanted, "remembered, and needs no value any more");
}

/// Makes a snapshot at index 300, and after overwrites, a lease and a compaction another one at 352.
fn snapshot_twice(kept: &Kept) {
    (0..300).for_each(|key| kept.put(key, 2_000));
    kept.keeper.snapshot();
    (100..150).for_each(|key| kept.put(key, 9_000));
    kept.propose(Request::LeaseGrant(pb::LeaseGrantRequest { id: 7, ttl: 60 }));
    kept.compact();
    kept.keeper.sweep();
    kept.keeper.snapshot();
}

/// The newest snapshot on the disk; no file may be damaged.
fn newest_snapshot(kept: &Kept) -> (RealDisk, Manifest) {
    let disk = RealDisk::new(kept.dir.path());
    let (found, damaged) = snapshot::newest_verified(&disk, "snap").unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    (disk, found.unwrap())
}

#[test]
fn a_snapshot_rebuilds_the_state_and_frees_its_predecessor() {
    let kept = Kept::new(1 << 20, NEVER);
    snapshot_twice(&kept);
    let made = kept.told.made.lock().clone();
    assert_eq!(made.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [300, 352]);
    let (disk, found) = newest_snapshot(&kept);
    assert_eq!(found.index(), 352);
    // What is trimmed is never above the oldest snapshot that stands.
    let (all, _) = snapshot::list(&disk, "snap").unwrap();
    assert_eq!(all.first().map(Manifest::index), made.last().map(|(_, trim)| *trim));
    let store = MemStore::default();
    let applied = rebuild(&store, &disk, "snap", &found).unwrap();
    let (state, _) = restore(&store, &applied, 0).unwrap();
    assert_eq!(shown(&state, &store), kept.shown());
}

#[test]
fn while_memory_holds_everything_snapshots_come_from_there_and_the_store_stays_empty() {
    let kept = Kept::new(64 << 20, Duration::ZERO);
    snapshot_twice(&kept);
    let (disk, found) = newest_snapshot(&kept);
    assert_eq!((found.index(), kept.in_store()), (352, 0));
    let state = from_snapshot(&disk, "snap", &found).unwrap();
    assert_eq!(shown(&state, &MemStore::default()), kept.shown());
    assert!(kept.keeper.stop().unwrap().applied().is_none());
    assert!(Applied::load(&*kept.store).unwrap().is_none());
}

/// A step without a rest of the sweep.
fn stepped(work: &mut Work) -> bool {
    work.sweep_rest.end();
    let more = work.step().unwrap();
    more || work.sweep_rest.is_on()
}

#[test]
fn a_sweep_that_a_snapshot_holds_back_waits_for_it_and_does_not_try_without_end() {
    let kept = Kept::new(64 << 20, Duration::ZERO);
    (0..100).for_each(|key| kept.put(key, 10_000));
    kept.keeper.stop();
    let config = config(RealDisk::new(kept.dir.path()), MemoryBudget { limit: 64 << 20 }, Duration::ZERO);
    let room = Gate { ceiling: u64::MAX, helpless: false };
    let room = Arc::new(Room { gate: Mutex::new(room), changed: Condvar::new() });
    let (state, store, hooks) = (kept.state.clone(), kept.store.clone(), Box::new(kept.told.clone()));
    let mut work = Work::new(config, state, store, Flusher::new(None), Vec::new(), hooks, room);
    work.wanted.snapshot = true;
    assert!(work.step().unwrap() && work.export.is_some(), "a snapshot from memory is on its way");
    (0..100).for_each(|key| kept.put(key, 10));
    kept.compact();
    // The snapshot rests; what may be swept beside it is bounded, and so is what can be done.
    work.snapshot_rest.begin(NEVER);
    assert!((0..10_000).any(|_| !stepped(&mut work)), "there is always something to do at once");
    assert!(work.export.is_some(), "it rests");
    let before = kept.state.read().mvcc.resident_bytes();
    work.snapshot_rest.end();
    while stepped(&mut work) {
        work.snapshot_rest.end();
    }
    assert_eq!(kept.told.made.lock().len(), 1);
    assert!(kept.state.read().mvcc.resident_bytes() < before / 2, "what the snapshot held back is swept");
}

#[test]
fn when_memory_runs_short_the_store_gets_what_was_compacted_and_written_before() {
    let limit = 256 << 10;
    let kept = Kept::new(limit, Duration::ZERO);
    (0..20).for_each(|key| kept.put(key, 2_000));
    (0..10).for_each(|key| kept.put(key, 1_000));
    kept.compact();
    kept.keeper.sweep();
    assert_eq!(kept.in_store(), 0);
    for key in 20..400 {
        kept.put(key, 4_000);
        kept.keeper.wait_for_room(Duration::from_secs(30));
    }
    kept.until("eviction", |kept| kept.in_store() > 0 && kept.state.read().mvcc.resident_bytes() <= limit);
    kept.compact();
    kept.keeper.sweep();
    kept.keeper.snapshot();
    let (disk, found) = newest_snapshot(&kept);
    let state = from_snapshot(&disk, "snap", &found).unwrap();
    assert_eq!(shown(&state, &MemStore::default()), kept.shown());
    assert_eq!(kept.told.fatal.lock().clone(), None);
}

#[test]
fn a_stopped_keeper_leaves_a_store_that_stands_for_all_that_was_applied() {
    let kept = Kept::new(1 << 20, NEVER);
    (0..200).for_each(|key| kept.put(key, 700));
    kept.keeper.flush();
    (0..50).for_each(|key| kept.put(key, 800));
    let flusher = kept.keeper.stop().unwrap();
    assert_eq!((flusher.applied().unwrap().index, kept.in_store()), (250, 250));
    assert!(kept.keeper.stop().is_none(), "it has stopped already");
    let whole = kept.shown();
    kept.store.close().unwrap();
    let Kept { dir, keeper, store, .. } = kept;
    drop((keeper, store));

    let store = open(dir.path());
    let applied = Applied::load(&store).unwrap().unwrap();
    let (state, flusher) = restore(&store, &applied, 1 << 10).unwrap();
    assert_eq!(shown(&state, &store), whole);
    let kept = Kept::over(dir, store, state, flusher, 1 << 20, NEVER);
    kept.put(9, 900);
    kept.keeper.flush();
    assert_eq!((kept.in_store(), kept.told.fatal.lock().clone()), (251, None));
}

#[test]
fn a_store_that_fails_ends_the_member_and_leaves_nobody_waiting() {
    let kept = Kept::new(64 << 20, NEVER);
    kept.put(1, 300);
    kept.store.close().unwrap();
    kept.keeper.flush();
    assert!(kept.told.fatal.lock().is_some(), "the member must hear of it");
    kept.keeper.flush();
    kept.keeper.wait_for_room(Duration::from_secs(30));
    assert!(kept.keeper.stop().is_none());
}
