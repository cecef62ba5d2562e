//! The same long random history against the plain model and against the heart over both stores: memory and sled.
//!
//! Every answer is compared with the model's, operation by operation. In between, each member by itself is flushed,
//! its values leave memory, compaction is swept, and the member restarts from its store: sometimes after a last flush,
//! sometimes without one, so that its log completes what the store lacks. No process is needed for that.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{Batch, Command, command::Request};
use mechi_replica::apply::state::State;
use mechi_replica::apply::{Answer, Outcomes, apply, kv, txn};
use mechi_replica::command::{self, RequestLimits};
use mechi_replica::effect::Entry;
use mechi_replica::mvcc::HashJob;
use mechi_replica::outcome::{Error, Fatal, Response};
use mechi_replica::store::applied::Applied;
use mechi_replica::store::flush::Flusher;
use mechi_replica::store::mem::MemStore;
use mechi_replica::store::restore::restore;
use mechi_replica::store::{self, Blocks, Store};
use mechi_replica::types::{LeaseId, Revision};
use mechi_server::store::sled::SledStore;
use mechi_tests::generate::{self, Known, Op};
use mechi_tests::model::Model;
use mechi_tests::rng::Rng;
use std::time::Duration;
use tempfile::TempDir;

const SEEDS: u64 = 4;
const OPS: usize = 5_000;

/// Who asks, and so is answered; entries that are applied again after a restart are nobody's.
const ASKER: Answer = Answer { member: 1, boot: 1 };
const NOBODY: Answer = Answer { member: 0, boot: 0 };

/// A store that can be left and found again.
trait Reopen: Store + Sized {
    fn reopen(self) -> Self;
}

impl Reopen for MemStore {
    fn reopen(self) -> Self {
        self
    }
}

/// sled in a folder of its own.
struct Sled {
    store: SledStore,
    folder: TempDir,
}

impl Sled {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { store: Self::open(&folder), folder }
    }

    fn open(folder: &TempDir) -> SledStore {
        SledStore::open(folder.path(), 16 << 20, Duration::from_secs(60)).expect("sled opens")
    }
}

impl Reopen for Sled {
    fn reopen(self) -> Self {
        self.store.close().expect("sled closes");
        drop(self.store);
        Self { store: Self::open(&self.folder), folder: self.folder }
    }
}

impl Store for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        self.store.get(key)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, Fatal> {
        self.store.last(from, to)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fatal> {
        self.store.scan(from, to, visit)
    }
    fn commit(&self, batch: store::Batch) -> Result<(), Fatal> {
        self.store.commit(batch)
    }
}

/// What a member went through beside the history.
#[derive(Debug, Default)]
struct Upkeep {
    flushes: usize,
    evictions: usize,
    swept: usize,
    restarts: usize,
    replayed: usize,
}

/// The heart over one store, without log and network: the entries are the log.
struct Member<S> {
    state: State,
    flusher: Flusher,
    store: Option<S>,
    entries: Vec<Entry>,
    upkeep: Upkeep,
}

impl<S: Reopen> Member<S> {
    fn new(store: S) -> Self {
        let (state, flusher) = (State::empty(), Flusher::new(None));
        Self { state, flusher, store: Some(store), entries: Vec::new(), upkeep: Upkeep::default() }
    }

    fn store(&self) -> &S {
        self.store.as_ref().expect("taken during a restart only")
    }

    fn apply(&mut self, request: &Request) -> Result<Response, Error> {
        let index = self.state.applied_index + 1;
        let command = Command { id: index, request: Some(request.clone()), ..Default::default() };
        let batch = Batch { member: 1, boot: 1, number: index, wall_ms: 0, commands: vec![command] };
        let entry = Entry { index, term: 1, data: command::encode(&batch), ..Default::default() };
        let mut out = Outcomes::default();
        let store = self.store.as_ref().expect("taken during a restart only");
        apply(&mut self.state, &entry, ASKER, &Blocks(store), &mut out).expect("every entry here can be applied");
        self.entries.push(entry);
        let (id, answer) = out.answers.pop().expect("the asker is answered");
        assert_eq!((id, out.answers.len()), (index, 0));
        answer
    }

    fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        let mvcc = &self.state.mvcc;
        kv::range(mvcc, request, mvcc.revision(), &Blocks(self.store())).expect("the values can be loaded")
    }

    fn read(&self, request: &pb::TxnRequest) -> Result<Response, Error> {
        txn::read(&self.state, request, &Blocks(self.store())).expect("the values can be loaded").map(Response::Txn)
    }

    /// The TTL and the attached keys of a lease.
    fn lease(&self, id: i64) -> Option<(i64, Vec<Bytes>)> {
        let lease = self.state.leases.get(LeaseId(id))?;
        Some((lease.ttl, lease.keys().cloned().collect()))
    }

    fn hash(&self, revision: i64) -> Result<(u32, i64, i64), Error> {
        let mut job = HashJob::new(&self.state.mvcc, revision)?;
        while job.step(&self.state.mvcc)? {}
        let hash = job.finish(&Blocks(self.store())).expect("the values can be loaded");
        Ok((hash.hash, hash.compact_revision, hash.hash_revision))
    }

    /// One piece of what the keeper does, or a restart.
    fn keep(&mut self, rng: &mut Rng) {
        match rng.below(400) {
            0..=7 => self.flush(),
            8..=13 => {
                let mvcc = &mut self.state.mvcc;
                let before = mvcc.resident_bytes();
                mvcc.evict(self.flusher.flushed(), 0, usize::MAX);
                self.upkeep.evictions += usize::from(mvcc.resident_bytes() < before);
            }
            14..=23 => self.sweep(rng.below(9) as usize + 1),
            24..=29 => {
                let store = self.store.as_ref().expect("taken during a restart only");
                self.flusher.remove_some(store).expect("what was swept was in the store");
            }
            30 => {
                self.flush();
                self.restart(rng.below(4_000));
            }
            31 => self.restart(rng.below(4_000)),
            _ => {}
        }
    }

    fn flush(&mut self) {
        let store = self.store.as_ref().expect("taken during a restart only");
        let flushed =
            self.flusher.flush_all(store, &self.state.mvcc, self.state.to_meta()).expect("the store takes it");
        self.state.mvcc.set_flushed(self.flusher.flushed());
        self.upkeep.flushes += usize::from(flushed);
    }

    fn sweep(&mut self, budget_keys: usize) {
        let compacted = self.state.mvcc.compact_revision();
        let sweep = self.state.mvcc.sweep(i64::MAX, budget_keys);
        self.upkeep.swept += sweep.removed.len();
        self.flusher.removed(compacted, sweep.removed);
        if let Some(mut job) = sweep.hash {
            while job.step(&self.state.mvcc).expect("nothing was swept since") {}
            let hash = job.finish(&Blocks(self.store())).expect("the values can be loaded");
            self.state.mvcc.remember_hash(hash);
        }
    }

    /// Comes back from the store, with at most `resident_bytes` of values in memory, and from the entries after it.
    fn restart(&mut self, resident_bytes: u64) {
        let (meta, leases) = (self.state.to_meta(), self.state.leases.clone());
        let live = (self.state.mvcc.live_keys(), self.state.mvcc.live_bytes());
        let store = self.store.take().expect("taken during a restart only").reopen();
        (self.state, self.flusher) = match Applied::load(&store).expect("the store can be read") {
            Some(applied) => restore(&store, &applied, resident_bytes).expect("the store holds what it says"),
            None => {
                store::applied::drop_unknown(&store, None).expect("the store can be emptied");
                (State::empty(), Flusher::new(None))
            }
        };
        for entry in &self.entries[self.state.applied_index as usize..] {
            apply(&mut self.state, entry, NOBODY, &Blocks(&store), &mut Outcomes::default()).expect("applied before");
            self.upkeep.replayed += 1;
        }
        self.store = Some(store);
        assert_eq!(self.state.to_meta(), meta, "what a member is does not depend on its restarts");
        assert_eq!(self.state.leases, leases);
        assert_eq!((self.state.mvcc.live_keys(), self.state.mvcc.live_bytes()), live);
        assert_eq!(self.state.mvcc.recompute_content_sum(), meta.content_sum);
        self.upkeep.restarts += 1;
    }

    /// Every change above the compact revision, values loaded.
    fn changes(&self) -> Vec<(Revision, bool, Bytes)> {
        let blocks = Blocks(self.store());
        let from = self.state.mvcc.compact_revision() + 1;
        let record = |change: &mechi_replica::mvcc::Change| {
            let record = change.record(&blocks).expect("the values can be loaded");
            (change.revision, change.tombstone, Bytes::copy_from_slice(record.wire()))
        };
        self.state.mvcc.changes(from).map(record).collect()
    }
}

/// What the model says of one operation; `None` if its answer is not the model's business.
#[derive(Debug, PartialEq)]
enum Said {
    Range(Result<pb::RangeResponse, Error>),
    Response(Result<Response, Error>),
    Lease(Option<(i64, Vec<Bytes>)>),
    Leases(Vec<(i64, i64)>),
}

fn request(op: &Op) -> Option<Request> {
    match op.clone() {
        Op::Put(request) => Some(Request::Put(request)),
        Op::DeleteRange(request) => Some(Request::DeleteRange(request)),
        Op::Txn(request) => Some(Request::Txn(request)),
        Op::Compact(request) => Some(Request::Compaction(request)),
        Op::Grant(request) => Some(Request::LeaseGrant(request)),
        Op::Revoke(request) => Some(Request::LeaseRevoke(request)),
        Op::Range(_) | Op::TimeToLive(_) | Op::Leases | Op::HashKv(_) => None,
    }
}

fn asked<S: Reopen>(member: &mut Member<S>, op: &Op) -> Said {
    match (op, request(op)) {
        (Op::Range(request), _) => Said::Range(member.range(request)),
        (Op::Txn(request), _) if command::is_read_only(request) => Said::Response(member.read(request)),
        (_, Some(request)) => Said::Response(member.apply(&request)),
        (Op::TimeToLive(request), _) => Said::Lease(member.lease(request.id)),
        _ => Said::Leases(member.state.leases.iter().map(|(id, lease)| (id.0, lease.ttl)).collect()),
    }
}

fn modelled(model: &mut Model, op: &Op) -> Said {
    match (op, request(op)) {
        (Op::Range(request), _) => Said::Range(model.range(request)),
        (_, Some(request)) => Said::Response(model.apply(&request)),
        (Op::TimeToLive(request), _) => Said::Lease(model.leases().get(&request.id).map(|&ttl| {
            let zero = Bytes::from_static(&[0]);
            let all = pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() };
            let kvs = model.range(&all).expect("now can be read").kvs;
            (ttl, kvs.into_iter().filter(|kv| kv.lease == request.id).map(|kv| kv.key).collect())
        })),
        _ => Said::Leases(model.leases().iter().map(|(&id, &ttl)| (id, ttl)).collect()),
    }
}

/// Runs one history; returns how many operations reached the model and how many of those were refused.
fn run(seed: u64, mem: &mut Member<MemStore>, sled: &mut Member<Sled>) -> (usize, usize) {
    let (mut rng, mut luck, mut model) = (Rng::new(seed), Rng::new(!seed), Model::default());
    let (mut compared, mut refused) = (0, 0);
    for n in 0..OPS {
        let known = Known { revision: model.revision(), compacted: model.compact_revision().max(0) };
        let op = generate::op(&mut rng, known);
        let checked = match &op {
            Op::Range(request) => command::check_range(request),
            op => request(op).map_or(Ok(()), |request| command::check(&request, &RequestLimits::default())),
        };
        match (checked, &op) {
            (Err(_), _) => {}
            // Compactions whose hash is kept differ between members that restarted and those that did not; now does not.
            (_, Op::HashKv(_)) => {
                assert_eq!(mem.hash(0), sled.hash(0), "seed {seed}, operation {n}: HashKV of both stores");
            }
            _ => {
                let wanted = modelled(&mut model, &op);
                assert_eq!(asked(mem, &op), wanted, "seed {seed}, operation {n}, memory: {op:#?}");
                assert_eq!(asked(sled, &op), wanted, "seed {seed}, operation {n}, sled: {op:#?}");
                compared += 1;
                refused += usize::from(matches!(wanted, Said::Range(Err(_)) | Said::Response(Err(_))));
            }
        }
        mem.keep(&mut luck);
        sled.keep(&mut luck);
        let revisions = (model.revision(), model.compact_revision());
        for mvcc in [&mem.state.mvcc, &sled.state.mvcc] {
            assert_eq!((mvcc.revision(), mvcc.compact_revision()), revisions, "seed {seed}, operation {n}: {op:#?}");
        }
        assert_eq!(mem.state.mvcc.content_sum(), sled.state.mvcc.content_sum(), "seed {seed}, operation {n}");
    }
    (compared, refused)
}

#[test]
fn a_long_history_over_memory_and_over_sled_is_the_models() {
    let seeds = std::env::var("MECHI_MODEL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let (mut compared, mut refused) = (0, 0);
    for seed in 1..=seeds {
        let (mut mem, mut sled) = (Member::new(MemStore::default()), Member::new(Sled::new()));
        let (more, more_refused) = run(seed, &mut mem, &mut sled);
        compared += more;
        refused += more_refused;
        for upkeep in [&mem.upkeep, &sled.upkeep] {
            let Upkeep { flushes, evictions, swept, restarts, replayed } = *upkeep;
            println!("model: seed {seed}: {upkeep:?}");
            assert!(flushes > 9 && evictions > 0 && swept > 0 && restarts > 0 && replayed > 0, "{upkeep:?}");
        }
        mem.flush();
        mem.restart(0);
        sled.flush();
        sled.restart(0);
        assert_eq!(mem.state.to_meta(), sled.state.to_meta(), "seed {seed}: both members are the same");
        assert_eq!(mem.changes(), sled.changes(), "seed {seed}: watches would see the same");
        assert_eq!(mem.hash(0), sled.hash(0), "seed {seed}");
    }
    println!("model: {seeds} seeds, {compared} operations equal over memory and over sled, {refused} of them refused");
    assert!(refused * 2 < compared, "most operations must do something");
}
