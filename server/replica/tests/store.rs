//! The working store and the snapshots under process crashes: whatever batch was the last one, the log completes it.

#![allow(clippy::unwrap_used)] // A failed call is a failed test.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{self, command::Request};
use mechi_replica::apply::state::State;
use mechi_replica::apply::{Answer, Outcomes, apply};
use mechi_replica::command;
use mechi_replica::disk::sim::SimDisk;
use mechi_replica::disk::{self, Disk};
use mechi_replica::effect::{Entry, EntryKind};
use mechi_replica::mvcc::HashJob;
use mechi_replica::outcome::Fatal;
use mechi_replica::snapshot::{self, build};
use mechi_replica::store::applied::Applied;
use mechi_replica::store::flush::{Flush, Flusher};
use mechi_replica::store::mem::MemStore;
use mechi_replica::store::restore::{rebuild, restore};
use mechi_replica::store::{Batch, Blocks, Store};
use mechi_replica::types::{KeyRange, Revision};
use proptest::prelude::*;
use std::cell::RefCell;

/// A store that keeps what it was after each batch: every one of them is what a process crash may leave.
#[derive(Default)]
struct Recorder {
    store: MemStore,
    states: RefCell<Vec<MemStore>>,
}

impl Store for Recorder {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        self.store.get(key)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, Fatal> {
        self.store.last(from, to)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fatal> {
        self.store.scan(from, to, visit)
    }
    fn commit(&self, batch: Batch) -> Result<(), Fatal> {
        self.store.commit(batch)?;
        self.states.borrow_mut().push(self.store.clone());
        Ok(())
    }
}

/// What a run does, a step at a time.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Delete(u8, u8),
    Compact(u8),
    Grant(i64),
    /// Refused while there is no such lease.
    PutLeased(u8, i64),
    Revoke(i64),
    Flush,
    /// Begins a flush, or brings the next slice of it into the store; other steps may come in between.
    FlushSlice,
    Sweep,
    Remove,
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..12, prop_oneof![8 => 0usize..300, 1 => 3_000usize..20_000]).prop_map(|(key, bytes)| Step::Put(key, bytes)),
        3 => (0u8..12, 0u8..4).prop_map(|(key, more)| Step::Delete(key, more)),
        2 => (0u8..100).prop_map(Step::Compact),
        2 => (1i64..4).prop_map(Step::Grant),
        2 => (0u8..12, 1i64..4).prop_map(|(key, lease)| Step::PutLeased(key, lease)),
        1 => (1i64..4).prop_map(Step::Revoke),
        2 => Just(Step::Flush),
        4 => Just(Step::FlushSlice),
        2 => Just(Step::Sweep),
        2 => Just(Step::Remove),
        1 => Just(Step::Evict),
    ]
}

fn key(number: u8) -> Bytes {
    Bytes::from(format!("key-{number:02}"))
}

const NOBODY: Answer = Answer { member: 0, boot: 0 };

/// A member without log and network: its entries are kept, so that any state can be built from them again.
struct Member {
    state: State,
    flusher: Flusher,
    /// A flush on its way.
    open: Option<Flush>,
    store: Recorder,
    entries: Vec<Entry>,
}

impl Member {
    fn new() -> Self {
        let store = Recorder::default();
        store.states.borrow_mut().push(MemStore::default());
        Self { state: State::empty(), flusher: Flusher::new(None), open: None, store, entries: Vec::new() }
    }

    fn propose(&mut self, request: Request) {
        let index = self.entries.len() as u64 + 1;
        let command = mechipb::Command { id: index, request: Some(request), ..Default::default() };
        let batch = mechipb::Batch { member: 1, boot: 1, number: index, wall_ms: 0, commands: vec![command] };
        let data = command::encode(&batch);
        let entry = Entry { index, term: 1, kind: EntryKind::Normal, data };
        self.entries.push(entry.clone());
        apply(&mut self.state, &entry, NOBODY, &Blocks(&self.store), &mut Outcomes::default()).unwrap();
    }

    fn step(&mut self, step: &Step) {
        let revision = self.state.mvcc.revision();
        match *step {
            Step::Put(at, bytes) => {
                let value = Bytes::from(vec![revision as u8; bytes]);
                self.propose(Request::Put(pb::PutRequest { key: key(at), value, ..Default::default() }));
            }
            Step::Delete(at, more) => {
                let range_end = if more == 0 { Bytes::new() } else { key(at + more) };
                let request = pb::DeleteRangeRequest { key: key(at), range_end, ..Default::default() };
                self.propose(Request::DeleteRange(request));
            }
            Step::Compact(percent) => {
                let revision = revision * i64::from(percent) / 100;
                self.propose(Request::Compaction(pb::CompactionRequest { revision, ..Default::default() }));
            }
            Step::Grant(id) => {
                self.propose(Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 60 }));
            }
            Step::PutLeased(at, lease) => {
                self.propose(Request::Put(pb::PutRequest { key: key(at), lease, ..Default::default() }));
            }
            Step::Revoke(id) => self.propose(Request::LeaseRevoke(pb::LeaseRevokeRequest { id })),
            Step::Flush => self.flush(),
            Step::FlushSlice => self.flush_slice(),
            // Nothing is swept while a flush is on its way.
            Step::Sweep if self.open.is_some() => {}
            Step::Sweep => {
                let sweep = self.state.mvcc.sweep(i64::MAX, 5);
                self.flusher.removed(self.state.mvcc.compact_revision(), sweep.removed);
            }
            Step::Remove => while self.flusher.remove_some(&self.store).unwrap() {},
            Step::Evict => {
                self.state.mvcc.evict(self.flusher.flushed(), 0, 100);
            }
        }
    }

    fn flush_slice(&mut self) {
        if self.open.is_none() {
            self.open = self.flusher.begin(self.state.to_meta());
        }
        let Some(flush) = &mut self.open else { return };
        if let Some(entries) = flush.slice(&self.state.mvcc).unwrap() {
            let batch = flush.batch(&entries);
            if !batch.is_empty() {
                self.store.commit(batch).unwrap();
            }
        } else if let Some(flush) = self.open.take() {
            let finished = flush.finish(&self.flusher).unwrap();
            finished.batches.into_iter().for_each(|batch| self.store.commit(batch).unwrap());
            self.flusher.flushed_with(&self.store, finished.ended).unwrap();
            self.state.mvcc.set_flushed(self.flusher.flushed());
        }
    }

    fn flush(&mut self) {
        while self.open.is_some() {
            self.flush_slice();
        }
        self.flusher.flush_all(&self.store, &self.state.mvcc, self.state.to_meta()).unwrap();
        let flushed = self.flusher.flushed();
        self.state.mvcc.set_flushed(flushed);
    }

    /// Flushes, sweeps and removes until nothing is left to do.
    fn clean_up(&mut self) {
        // A change behind the last compaction, so that there is a flush under which what it freed may go.
        self.step(&Step::Put(0, 1));
        while self.open.is_some() {
            self.flush_slice();
        }
        self.sweep();
        self.flush();
        self.step(&Step::Remove);
        assert_eq!(self.flusher.waiting(), 0);
    }

    fn sweep(&mut self) {
        loop {
            let sweep = self.state.mvcc.sweep(i64::MAX, 5);
            self.flusher.removed(self.state.mvcc.compact_revision(), sweep.removed);
            if sweep.done {
                return;
            }
        }
    }

    /// Records in the store.
    fn stored(&self) -> u64 {
        Applied::load(&self.store).unwrap().unwrap().tally.records
    }

    /// Versions and tombstones in the index.
    fn held(&self) -> u64 {
        let (mut held, mut from) = (0, Some(Bytes::new()));
        while let Some(key) = from {
            from = self.state.mvcc.versions_slice(&key, 100, &mut |_| held += 1);
        }
        held
    }

    /// The state at an earlier index, from the entries alone.
    fn at(&self, index: u64) -> State {
        let mut state = State::empty();
        replay(&mut state, &self.entries[..index as usize], &MemStore::default());
        state
    }
}

fn replay(state: &mut State, entries: &[Entry], store: &impl Store) {
    for entry in entries.iter().filter(|entry| entry.index > state.applied_index).cloned().collect::<Vec<_>>() {
        apply(state, &entry, NOBODY, &Blocks(store), &mut Outcomes::default()).unwrap();
    }
}

/// Everything that a reader can see: the state beside keys and values, sums, totals, leases with their keys, and the
/// keys at every readable revision.
fn shown(state: &State, store: &impl Store) -> Vec<String> {
    let mvcc = &state.mvcc;
    let mut job = HashJob::new(mvcc, 0).unwrap();
    while job.step(mvcc).unwrap() {}
    let hash = job.finish(&Blocks(store)).unwrap();
    let leases: Vec<_> =
        state.leases.iter().map(|(id, lease)| (id, lease.keys().cloned().collect::<Vec<_>>())).collect();
    let mut lines = vec![
        format!("{:?}", state.to_meta()),
        format!("hash {} of {}..={}", hash.hash, hash.compact_revision, hash.hash_revision),
        format!("{} keys, {} bytes, sum {}", mvcc.live_keys(), mvcc.live_bytes(), mvcc.recompute_content_sum()),
        format!("{leases:?}"),
    ];
    for revision in state.mvcc.compact_revision().max(1)..=state.mvcc.revision() {
        state.mvcc.scan(&KeyRange::all(), revision, &mut |item| {
            let record = item.record(&Blocks(store)).unwrap();
            lines.push(format!("{revision} {:?} {}", item.mod_revision, crc32c::crc32c(record.wire())));
            true
        });
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    /// Every batch may be the last one before a crash: what it is applied up to is in the store with the data, or not at
    /// all (etcd 13766).
    #[test]
    fn reg_13766_atomic_applied_index(steps in prop::collection::vec(step(), 1..70), resident in 0u64..4_000) {
        let mut member = Member::new();
        steps.iter().for_each(|step| member.step(step));
        member.flush();
        let whole = shown(&member.state, &member.store);
        let states = member.store.states.borrow().clone();
        for (number, store) in states.iter().enumerate() {
            let mut state = match Applied::load(store).unwrap() {
                None => State::empty(),
                Some(applied) => {
                    let (state, mut flusher) = restore(store, &applied, resident).unwrap();
                    prop_assert_eq!(state.applied_index, applied.index);
                    // At its own index too the state is what it was, every readable revision included.
                    if number % 7 == 0 {
                        let then = member.at(applied.index);
                        prop_assert_eq!(shown(&state, store), shown(&then, &MemStore::default()), "batch {}", number);
                    }
                    while flusher.remove_some(store).unwrap() {}
                    state
                }
            };
            replay(&mut state, &member.entries, store);
            prop_assert_eq!(shown(&state, store), whole.clone(), "batch {}", number);
        }
    }

    #[test]
    fn nothing_that_compaction_freed_stays_in_the_store(steps in prop::collection::vec(step(), 1..70)) {
        let mut member = Member::new();
        steps.iter().for_each(|step| member.step(step));
        member.clean_up();
        prop_assert_eq!(member.stored(), member.held());
    }

    #[test]
    fn snapshots_share_chunks_and_bring_the_state_back(steps in prop::collection::vec(step(), 1..80)) {
        let mut member = Member::new();
        let disk = SimDisk::new();
        disk::ensure_dir(&disk, "snap").unwrap();
        let mut previous = None;
        for (number, step) in steps.iter().enumerate() {
            member.step(step);
            if number % 11 == 10 {
                member.flush();
                let Some(applied) = member.flusher.applied().copied() else { continue };
                let meta = applied.state(&member.store).unwrap();
                let manifest =
                    build::build(&disk, "snap", 1, &member.store, meta, &applied, previous.as_ref()).unwrap();
                previous = Some(manifest);
            }
        }
        let Some(manifest) = previous else { return Ok(()) };
        snapshot::collect_garbage(&disk, "snap", &[&manifest]).unwrap();
        let (found, damaged) = snapshot::newest_verified(&disk, "snap").unwrap();
        prop_assert!(damaged.is_empty());
        prop_assert_eq!(found.as_ref(), Some(&manifest));
        let store = MemStore::default();
        let applied = rebuild(&store, &disk, "snap", &manifest).unwrap();
        let (mut state, _) = restore(&store, &applied, u64::MAX).unwrap();
        let then = member.at(applied.index);
        prop_assert_eq!(shown(&state, &store), shown(&then, &MemStore::default()));
        replay(&mut state, &member.entries, &store);
        prop_assert_eq!(shown(&state, &store), shown(&member.state, &member.store));
    }
}

#[test]
fn a_tombstone_that_was_swept_before_its_first_flush_comes_into_the_store_and_leaves_it() {
    let mut member = Member::new();
    member.step(&Step::Put(1, 10));
    member.flush();
    member.step(&Step::Delete(1, 0));
    member.step(&Step::Put(2, 10));
    member.step(&Step::Compact(100));
    member.sweep();
    assert_eq!(member.held(), 1);
    member.flush();
    assert_eq!(member.stored(), 3, "without the tombstone the key would be alive after a crash now");
    member.step(&Step::Remove);
    assert_eq!(member.stored(), 1);
}

/// A store that is made anew, as etcd's defragmentation makes it, counts only once it is whole (etcd 14685): a crash at
/// any batch leaves one that is not used, or one to which nothing is applied twice.
#[test]
fn reg_14685_defrag_crash() {
    let mut member = Member::new();
    for n in 0..60 {
        member.step(&Step::Put(n % 9, 900));
        if n % 20 == 19 {
            member.step(&Step::Compact(40));
            member.step(&Step::Delete(n % 9, 0));
        }
    }
    member.flush();
    let disk = SimDisk::new();
    disk::ensure_dir(&disk, "snap").unwrap();
    let applied = *member.flusher.applied().unwrap();
    let meta = applied.state(&member.store).unwrap();
    let manifest = build::build(&disk, "snap", 1, &member.store, meta, &applied, None).unwrap();
    (0..5).for_each(|n| member.step(&Step::Put(n, 10)));

    let made = Recorder::default();
    rebuild(&made, &disk, "snap", &manifest).unwrap();
    let states = made.states.borrow().clone();
    let (whole, parts) = states.split_last().unwrap();
    assert!(parts.len() > 1, "only {} batches to crash at", parts.len());
    for part in parts {
        assert!(Applied::load(part).unwrap().is_none(), "a part is not taken for the whole");
    }
    let applied = Applied::load(whole).unwrap().unwrap();
    assert_eq!((applied.index, applied.revision), (manifest.index(), manifest.meta.revision));
    let (mut state, _) = restore(whole, &applied, 0).unwrap();
    replay(&mut state, &member.entries, whole);
    assert_eq!(shown(&state, whole), shown(&member.state, &member.store));
}

#[test]
fn a_removal_before_its_applied_record_would_lose_a_version() {
    // The rule that the order of batches stands for, shown by breaking it: key-01 has versions at 2 and 3, the store
    // knows of revision 2 only, and 2 is compacted by 3.
    let mut member = Member::new();
    member.step(&Step::Put(1, 10));
    member.flush();
    member.step(&Step::Put(1, 20));
    member.step(&Step::Compact(100));
    let mut removed = Vec::new();
    loop {
        let sweep = member.state.mvcc.sweep(i64::MAX, 100);
        removed.extend(sweep.removed);
        if sweep.done {
            break;
        }
    }
    assert_eq!(removed, [Revision::new(2, 0)]);
    member.flusher.removed(3, removed);
    assert!(!member.flusher.remove_some(&member.store).unwrap(), "the store knows of no compaction yet");
    member.flush();
    assert!(member.flusher.remove_some(&member.store).unwrap());
    assert_eq!(member.flusher.applied().unwrap().tally.records, 1);
}

#[test]
fn what_leaves_the_store_while_a_flush_goes_on_is_not_counted_as_held() {
    // Three members under compaction met it: the flush wrote the tally of its beginning, and the next snapshot took the
    // store for damaged.
    let mut member = Member::new();
    for step in [Step::Put(1, 10), Step::Put(1, 20), Step::Put(2, 10), Step::Compact(100), Step::Flush] {
        member.step(&step);
    }
    (0..9).for_each(|_| member.step(&Step::Sweep));
    member.step(&Step::Put(3, 10));
    member.step(&Step::FlushSlice);
    assert!(member.open.is_some() && member.flusher.remove_some(&member.store).unwrap(), "both at once");
    member.flush();
    let applied = *member.flusher.applied().unwrap();
    assert_eq!(applied.tally.records, 3);
    let disk = SimDisk::new();
    disk::ensure_dir(&disk, "snap").unwrap();
    let meta = applied.state(&member.store).unwrap();
    build::build(&disk, "snap", 1, &member.store, meta, &applied, None).unwrap();
    restore(&member.store, &applied, 0).unwrap();
}

#[test]
fn a_block_that_the_store_lost_is_noticed_at_open_and_by_the_next_snapshot() {
    let mut member = Member::new();
    (0..9).for_each(|at| member.step(&Step::Put(at, 3_000)));
    member.flush();
    let applied = *member.flusher.applied().unwrap();
    let lost = mechi_replica::store::keys::record(Revision::new(5, 0)).to_vec();
    member.store.commit(Batch { removes: vec![lost], ..Default::default() }).unwrap();
    let error = restore(&member.store, &applied, 0).err().unwrap();
    assert!(matches!(error, Fatal::EngineLost(_)), "{error}");
    let disk = SimDisk::new();
    disk::ensure_dir(&disk, "snap").unwrap();
    let meta = applied.state(&member.store).unwrap();
    let made = build::build(&disk, "snap", 1, &member.store, meta, &applied, None);
    assert!(matches!(made, Err(snapshot::Error::Fatal(Fatal::EngineLost(_)))));
    assert!(snapshot::newest_verified(&disk, "snap").unwrap().0.is_none(), "no manifest stands");
}

#[test]
fn a_damaged_snapshot_gives_way_to_the_older_one() {
    let mut member = Member::new();
    let disk = SimDisk::new();
    disk::ensure_dir(&disk, "snap").unwrap();
    let mut made: Vec<snapshot::manifest::Manifest> = Vec::new();
    for at in 0..2 {
        member.step(&Step::Put(at, 100));
        member.flush();
        let applied = *member.flusher.applied().unwrap();
        let meta = applied.state(&member.store).unwrap();
        made.push(build::build(&disk, "snap", 1, &member.store, meta, &applied, made.last()).unwrap());
    }
    let only_new = made[1].chunks.iter().find(|chunk| !made[0].chunks.contains(chunk)).unwrap();
    disk.damage(&disk::join("snap", &only_new.name()), 40, b"x");
    let (found, damaged) = snapshot::newest_verified(&disk, "snap").unwrap();
    assert_eq!(found.as_ref(), Some(&made[0]));
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert!(disk.list("snap").unwrap().len() >= 4);
}
