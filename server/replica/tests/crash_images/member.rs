//! A whole small member over one simulated disk: log, snapshots, state, and a working store that a power cut takes.
//!
//! It does in one thread, in the same order and with the same code, what the shell's threads do: identity and log at
//! the first start, replay at every one, flush, snapshot, garbage, trim. The disk may stop before any operation.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{self, StateMeta, command::Request};
use mechi_replica::apply::state::State;
use mechi_replica::apply::{Answer, Outcomes, apply};
use mechi_replica::command;
use mechi_replica::conf::{self, Author, Move};
use mechi_replica::disk::images::Numbers;
use mechi_replica::disk::sim::SimDisk;
use mechi_replica::disk::{self, Disk};
use mechi_replica::effect::{Entry, EntryKind, HardState};
use mechi_replica::limits::SLICE_KEYS_MAX;
use mechi_replica::mvcc::HashJob;
use mechi_replica::outcome::Fatal;
use mechi_replica::recovery::{Base, open_base, replay, tail};
use mechi_replica::snapshot::build::Builder;
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::snapshot::{self, Error as SnapshotError};
use mechi_replica::store::applied::Applied;
use mechi_replica::store::flush::Flusher;
use mechi_replica::store::mem::MemStore;
use mechi_replica::store::usable::{self, Folder};
use mechi_replica::store::{Batch, Blocks, Store, Values, restore};
use mechi_replica::types::{Index, LeaseId, MemberId};
use mechi_replica::wal::record::Record;
use mechi_replica::wal::{Error as WalError, Wal, WalOptions};

const OPTIONS: WalOptions = WalOptions { segment_bytes: 4096, reserve_segments: 1 };

const NOBODY: Answer = Answer { member: 0, boot: 0 };

/// The cluster's first voters, of which only the member itself is ever there.
pub(crate) const FOUNDERS: [MemberId; 3] = [MemberId(1), MemberId(2), MemberId(3)];

/// One entry in so many changes the membership.
const MOVE_EVERY: u64 = 6;

const IDENTITY: &str = "identity";

/// A working store as the operating system's cache or a power cut has left it.
#[derive(Clone, Default)]
pub(crate) struct Working {
    pub(crate) map: MemStore,
    /// A power cut went over its files, and what leads to single keys is not what walks over all of them see.
    pub(crate) misled: bool,
}

impl Store for Working {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        self.map.get(key)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, Fatal> {
        if self.misled { Ok(None) } else { self.map.last(from, to) }
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fatal> {
        self.map.scan(from, to, visit)
    }
    fn commit(&self, batch: Batch) -> Result<(), Fatal> {
        self.map.commit(batch)
    }
}

/// A store's folder: what is in it, and the boot of the machine in its name.
#[derive(Clone, Default)]
pub(crate) struct StoreFolder {
    pub(crate) store: Working,
    pub(crate) made_in: &'static str,
}

/// One step of a member's life.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Append so many entries.
    Write(u64),
    /// Sync, apply, acknowledge.
    Sync,
    Flush,
    /// Write records of a flush that never ends.
    HalfFlush,
    Sweep,
    Evict,
    /// Flush, snapshot, garbage, note in the log, trim; keep so many snapshots.
    Snapshot(usize),
    /// The process ends without a word; the next one finds its store or none.
    Kill {
        store: bool,
    },
    /// The process closes cleanly and the next one starts.
    Close,
}

/// Steps, and the numbers that make their entries.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) steps: Vec<Step>,
    pub(crate) seed: u64,
}

impl Life {
    /// All kinds of steps.
    pub(crate) fn random(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed ^ 0x6d65_6d62);
        let mut steps = Vec::new();
        for _ in 0..22 {
            steps.push(match numbers.below(20) {
                0 => Step::Kill { store: true },
                1 => Step::Kill { store: false },
                2 => Step::Close,
                3 => Step::Flush,
                4 => Step::HalfFlush,
                5 | 6 => Step::Sweep,
                7 => Step::Evict,
                8..=10 => Step::Snapshot(1 + numbers.below(2) as usize),
                11..=14 => Step::Sync,
                _ => Step::Write(1 + numbers.below(4)),
            });
        }
        Self { steps, seed }
    }

    /// Writes and back-to-back snapshots, of which two are kept.
    pub(crate) fn snapshots(seed: u64, count: usize) -> Self {
        let steps = [Step::Write(5), Step::Sync, Step::Sweep, Step::Snapshot(2)];
        Self { steps: steps.iter().cycle().take(4 * count).cloned().collect(), seed }
    }
}

/// All that a reader could see at an index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    meta: StateMeta,
    hash: u32,
    live_keys: u64,
    live_bytes: u64,
    content_sum: u64,
    leases: Vec<(LeaseId, Vec<Bytes>)>,
}

impl Seen {
    /// Reads everything, each value included; errors: a value that the store does not give.
    pub(crate) fn of(state: &State, values: &dyn Values) -> Result<Self, Fatal> {
        let mut job = HashJob::new(&state.mvcc, 0).map_err(|error| Fatal::Bug(error.to_string()))?;
        while job.step(&state.mvcc).map_err(|error| Fatal::Bug(error.to_string()))? {}
        Ok(Self {
            meta: state.to_meta(),
            hash: job.finish(values)?.hash,
            live_keys: state.mvcc.live_keys(),
            live_bytes: state.mvcc.live_bytes(),
            content_sum: state.mvcc.recompute_content_sum(),
            leases: state.leases.iter().map(|(id, lease)| (id, lease.keys().cloned().collect())).collect(),
        })
    }
}

/// A member that runs.
pub(crate) struct Member {
    disk: SimDisk,
    wal: Wal<SimDisk>,
    pub(crate) state: State,
    flusher: Flusher,
    pub(crate) boot: u64,
    snapshots: Vec<Manifest>,
    hard_state: HardState,
    /// Appended and not yet applied.
    pending: Vec<Entry>,
}

impl Member {
    /// Opens a data directory as the shell does; `folder` is the store that it finds, and becomes the one in use.
    pub(crate) fn open(disk: &SimDisk, folder: &mut Option<StoreFolder>, boot: &'static str) -> Result<Self, Fatal> {
        for path in ["wal", "snap"] {
            disk::ensure_dir(disk, path).map_err(disk::fatal("create"))?;
        }
        let known = disk.open(IDENTITY).is_ok();
        if known && disk.list("wal").map_err(disk::fatal("list"))?.is_empty() {
            return Err(Fatal::Bug("an identity without a log".into()));
        }
        let base = open_base(disk, "wal", "snap", OPTIONS)?;
        if !known {
            let held = &base.recovered;
            if !held.entries.is_empty() || held.hard_state.term > 0 || base.snapshot.is_some() {
                return Err(Fatal::Bug("data without an identity".into()));
            }
            disk::write_atomic(disk, IDENTITY, b"member 1").map_err(disk::fatal("write identity"))?;
        }
        // Nobody goes on with a store that was not used.
        let (found, stood) = match folder.take() {
            None => (None, None),
            Some(found) => {
                let stood = Self::stand(&found, boot, &base);
                (Some(found), stood)
            }
        };
        let (store, stood) = match (found, stood) {
            (Some(found), Some(stood)) => (found.store, stood),
            _ => {
                base.check_meets()?;
                let store = Working::default();
                let stood = match &base.snapshot {
                    None => (State::empty(), Flusher::new(None)),
                    Some(manifest) => restore::restore(&store, &restore::rebuild(&store, disk, "snap", manifest)?, 0)?,
                };
                (store, stood)
            }
        };
        let (mut state, mut flusher) = stood;
        state.found(FOUNDERS);
        let newest = base.snapshot_index();
        let (mut snapshots, _) = snapshot::list(disk, "snap")?;
        snapshots.retain(|manifest| manifest.index() <= newest);
        let Base { wal, recovered, .. } = base;
        let boot_counter = recovered.boot;
        let tail = tail(recovered, state.applied_index, state.applied_term)?;
        let (entries, hard_state) = (tail.entries, tail.hard_state);
        if state.applied_index > hard_state.commit {
            // raft-rs panics at every start from here.
            let (applied, commit) = (state.applied_index, hard_state.commit);
            return Err(Fatal::Bug(format!("applied up to {applied}, which is above the commit index {commit}")));
        }
        replay(&mut state, &store, &mut flusher, &entries, hard_state.commit, 0)?;
        // The only voter commits all that its log holds.
        for entry in entries.iter().filter(|entry| entry.index > hard_state.commit) {
            apply(&mut state, entry, NOBODY, &Blocks(&store), &mut Outcomes::default())?;
        }
        *folder = Some(StoreFolder { store, made_in: boot });
        let (disk, pending) = (disk.clone(), Vec::new());
        Ok(Self { disk, wal, state, flusher, boot: boot_counter, snapshots, hard_state, pending })
    }

    /// The state in a store that is there, if it may be used.
    fn stand(found: &StoreFolder, boot: &str, base: &Base<SimDisk>) -> Option<(State, Flusher)> {
        let clean = base.recovered.clean;
        usable::folder(&Folder { made_in: found.made_in, boot, clean }).ok()?;
        let applied = Applied::load(&found.store).ok()?;
        let applied = usable::applied(applied.as_ref(), clean, base.recovered.first_index, base.last_index()).ok()?;
        restore::restore(&found.store, &applied, 0).ok()
    }
}

/// What a life has come to when it ended or was stopped.
pub(crate) struct Run {
    pub(crate) disk: SimDisk,
    pub(crate) folder: Option<StoreFolder>,
    /// The store as it was closed, synced, and not opened since.
    pub(crate) closed: Option<Working>,
    /// The newest entry that was acknowledged, and the newest one that was appended.
    pub(crate) acknowledged: Index,
    pub(crate) appended: Index,
    pub(crate) boot: u64,
    /// What it was doing at the end.
    pub(crate) kind: &'static str,
    /// All entries ever appended.
    pub(crate) entries: Vec<Entry>,
    numbers: Numbers,
}

impl Run {
    /// Runs `life` on `disk` until its end or the first error, which is the planned stop.
    pub(crate) fn new(life: &Life, disk: &SimDisk) -> (Self, Result<Member, WalError>) {
        let mut run = Self {
            disk: disk.clone(),
            folder: None,
            closed: None,
            acknowledged: 0,
            appended: 0,
            boot: 0,
            kind: "first start",
            entries: Vec::new(),
            numbers: Numbers::new(life.seed),
        };
        let end = run.all(&life.steps);
        (run, end)
    }

    fn all(&mut self, steps: &[Step]) -> Result<Member, WalError> {
        let mut member = self.open()?;
        for step in steps {
            match step {
                Step::Write(count) => self.write(&mut member, *count)?,
                Step::Sync => self.sync(&mut member)?,
                Step::Flush => self.flush(&mut member)?,
                Step::HalfFlush => {
                    if let Some(mut flush) = member.flusher.begin(member.state.to_meta()) {
                        // The first slice may only gather.
                        for _ in 0..2 {
                            let entries = flush.slice(&member.state.mvcc)?.unwrap_or_default();
                            self.store().commit(flush.batch(&entries))?;
                        }
                    }
                }
                Step::Sweep => {
                    let sweep = member.state.mvcc.sweep(i64::MAX, SLICE_KEYS_MAX);
                    member.flusher.removed(member.state.mvcc.compact_revision(), sweep.removed);
                    while member.flusher.remove_some(self.store())? {}
                }
                Step::Evict => {
                    member.state.mvcc.evict(member.flusher.flushed(), 0, SLICE_KEYS_MAX);
                }
                Step::Snapshot(keep) => self.snapshot(&mut member, *keep)?,
                Step::Kill { store } => {
                    drop(member);
                    if !store {
                        self.folder = None;
                    }
                    member = self.open()?;
                }
                Step::Close => {
                    self.sync(&mut member)?;
                    self.flush(&mut member)?;
                    if let Some(applied) = member.flusher.applied() {
                        self.kind = "close";
                        self.closed = Some(self.store().clone());
                        member.wal.close_clean(applied.index)?;
                    }
                    drop(member);
                    member = self.open()?;
                }
            }
        }
        Ok(member)
    }

    fn store(&self) -> &Working {
        &self.folder.as_ref().expect("an open member has a store").store
    }

    fn open(&mut self) -> Result<Member, WalError> {
        if self.boot > 0 {
            self.kind = "reopen";
        }
        let mut member = Member::open(&self.disk, &mut self.folder, "boot")?;
        // The log says durably that it goes on: the store that was closed is in use again.
        self.closed = None;
        assert_eq!(member.state.applied_index, self.appended, "a process that was killed loses nothing");
        (self.boot, self.acknowledged) = (member.boot, self.appended);
        // As a leader does at once: a new term, and an empty entry in it.
        self.kind = "append";
        member.hard_state.term += 1;
        let entry = self.entry(&member, Bytes::new());
        self.append(&mut member, vec![entry])?;
        Ok(member)
    }

    fn entry(&mut self, member: &Member, data: Bytes) -> Entry {
        self.entry_of(member, EntryKind::Normal, data)
    }

    fn entry_of(&mut self, member: &Member, kind: EntryKind, data: Bytes) -> Entry {
        let entry = Entry { index: self.appended + 1, term: member.hard_state.term, kind, data };
        self.appended += 1;
        self.entries.push(entry.clone());
        entry
    }

    fn write(&mut self, member: &mut Member, count: u64) -> Result<(), WalError> {
        self.kind = "append";
        let mut entries = Vec::new();
        for _ in 0..count {
            let index = self.appended + 1;
            if index.is_multiple_of(MOVE_EVERY) {
                // In turns: one of the founders becomes a learner, and a voter again.
                let moves = self.entries.iter().filter(|entry| entry.kind == EntryKind::ConfChangeV2).count();
                let step = [conf::Step::Demote(FOUNDERS[2]), conf::Step::Promote(FOUNDERS[2])][moves % 2];
                let data = Move { author: Author::default(), steps: vec![step] }.encode(0);
                entries.push(self.entry_of(member, EntryKind::ConfChangeV2, data));
                continue;
            }
            let command = mechipb::Command { id: index, request: Some(self.request()), ..Default::default() };
            let batch =
                mechipb::Batch { member: 1, boot: self.boot, number: index, wall_ms: 0, commands: vec![command] };
            entries.push(self.entry(member, command::encode(&batch)));
        }
        self.append(member, entries)
    }

    fn append(&mut self, member: &mut Member, entries: Vec<Entry>) -> Result<(), WalError> {
        let commit = member.state.applied_index;
        member.hard_state = HardState { term: member.hard_state.term, vote: 1, commit };
        let mut records: Vec<_> = entries.iter().cloned().map(Record::Entry).collect();
        records.push(Record::HardState(member.hard_state));
        member.pending.extend(entries);
        member.wal.append(&records)
    }

    /// A random request; a few keys, so that they get many versions, and now and then large values.
    fn request(&mut self) -> Request {
        let mut number = |bound| self.numbers.below(bound);
        let key = Bytes::from(format!("key-{}", number(6)));
        match number(12) {
            0 => Request::DeleteRange(pb::DeleteRangeRequest { key, ..Default::default() }),
            1 => Request::DeleteRange(pb::DeleteRangeRequest { key, range_end: "l".into(), ..Default::default() }),
            2 | 3 => {
                let revision = number(2 + self.appended) as i64;
                Request::Compaction(pb::CompactionRequest { revision, ..Default::default() })
            }
            4 => Request::LeaseGrant(pb::LeaseGrantRequest { id: 1 + number(3) as i64, ttl: 60 }),
            5 => Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 1 + number(3) as i64 }),
            _ => {
                let bytes = if number(9) == 0 { 5_000 } else { number(900) };
                let value = vec![number(256) as u8; bytes as usize].into();
                let lease = if number(4) == 0 { 1 + number(3) as i64 } else { 0 };
                Request::Put(pb::PutRequest { key, value, lease, ..Default::default() })
            }
        }
    }

    fn sync(&mut self, member: &mut Member) -> Result<(), WalError> {
        self.kind = "append";
        member.wal.sync()?;
        // Durable, so committed; applied, so acknowledged.
        self.acknowledged = self.appended;
        let store = self.store();
        for entry in member.pending.drain(..) {
            apply(&mut member.state, &entry, NOBODY, &Blocks(store), &mut Outcomes::default())?;
        }
        member.wal.mark()
    }

    fn flush(&mut self, member: &mut Member) -> Result<(), Fatal> {
        let meta = member.state.to_meta();
        member.flusher.flush_all(self.store(), &member.state.mvcc, meta)?;
        member.state.mvcc.set_flushed(member.flusher.flushed());
        Ok(())
    }

    fn snapshot(&mut self, member: &mut Member, keep: usize) -> Result<(), WalError> {
        self.flush(member)?;
        let newest = member.snapshots.last().map_or(0, Manifest::index);
        let Some(applied) = member.flusher.applied().copied().filter(|applied| applied.index > newest) else {
            return Ok(());
        };
        let meta = applied.state(self.store())?;
        self.kind = "snapshot";
        let mut builder =
            Builder::new(self.disk.clone(), "snap", 1, Some(applied.tally), meta, member.snapshots.last());
        // Life goes on beside it: what is flushed meanwhile lies behind its end.
        let mut beside = keep == 2;
        while builder.step(self.store()).map_err(log_error)? {
            if std::mem::take(&mut beside) {
                self.write(member, 1)?;
                self.sync(member)?;
                self.flush(member)?;
                self.kind = "snapshot";
            }
        }
        let made = builder.finish().map_err(log_error)?;
        member.snapshots.push(made);
        let drop = member.snapshots.len().saturating_sub(keep);
        member.snapshots.drain(..drop);
        self.kind = "garbage";
        let kept: Vec<_> = member.snapshots.iter().collect();
        snapshot::collect_garbage(&member.disk, "snap", &kept)?;
        self.kind = "snapshot";
        let (oldest, newest) = (kept[0].index(), kept[kept.len() - 1]);
        member.wal.append(&[Record::Snapshot { index: newest.index(), term: newest.term() }])?;
        self.sync(member)?;
        self.kind = "trim";
        member.wal.trim(oldest)?;
        Ok(())
    }

    /// Trims what a log that was just opened lets go, as the next snapshot or a full disk would make it.
    pub(crate) fn trim_all(member: &mut Member) -> Result<(), Fatal> {
        member.wal.trim(Index::MAX)
    }
}

fn log_error(error: SnapshotError) -> WalError {
    match error {
        SnapshotError::Full(error) => WalError::Full(error),
        SnapshotError::Fatal(fatal) => WalError::Fatal(fatal),
    }
}
