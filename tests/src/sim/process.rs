//! One member's process: the same machines as in production, each stepped when the simulator says so.
//!
//! The log, apply, the watches and the keeper of store and snapshots are threads in production; here each has a queue
//! and a step. What the shell decides there (when to flush, to build a snapshot, to trim) is decided here by the run's
//! options.

use super::ledger::Ledger;
use super::machine::{Machine, SNAP_DIR, SimStore, StoreFolder, WAL_DIR};
use super::options::Options;
use super::work::{Ask, Outcome};
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::Command;
use mechi_replica::apply::state::State;
use mechi_replica::apply::{self, Outcomes, kv};
use mechi_replica::disk::Disk;
use mechi_replica::disk::sim::SimDisk;
use mechi_replica::effect::{Entry, Role};
use mechi_replica::input::Ticket;
use mechi_replica::limits::SLICE_KEYS_MAX;
use mechi_replica::member::{Answer, Effect, Input, Member, MemberConfig, Token};
use mechi_replica::mvcc::HashJob;
use mechi_replica::outcome::{Error, Fatal};
use mechi_replica::recovery::{Base, open_base, replay, tail, term_at};
use mechi_replica::replica::{LogTail, ReplicaConfig};
use mechi_replica::snapshot::build::Builder;
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::snapshot::{self};
use mechi_replica::store::applied::Applied;
use mechi_replica::store::flush::{Flush, Flusher};
use mechi_replica::store::usable::{self, Folder, Unusable};
use mechi_replica::store::{Blocks, Store, restore};
use mechi_replica::types::{Index, LeaseId, MemberId, MonoMillis, Term};
use mechi_replica::wal::record::Record;
use mechi_replica::wal::{Wal, WalOptions};
use mechi_replica::watch::{Config, Header, Input as HubInput, StreamId, WatchHub};
use std::collections::{BTreeMap, VecDeque};

/// Members say these to each other.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub(super) enum Wire {
    Raft(Bytes),
    Batch(Bytes),
    Digest {
        index: Index,
        chain: u64,
    },
    /// A client's keep-alive that a follower passes on, by the operation's number.
    KeepAlive {
        op: u64,
        id: LeaseId,
    },
    /// The leader's answer to it.
    Renewed {
        op: u64,
        answer: Result<i64, Error>,
    },
}

/// What a step of a process brings about outside of it.
#[derive(Debug)]
#[allow(missing_docs)]
pub(super) enum Act {
    Send {
        to: u64,
        wire: Wire,
    },
    Reply {
        op: u64,
        outcome: Outcome,
    },
    Watch {
        stream: u64,
        message: Bytes,
        cost: usize,
    },
    Role(Role),
    /// Records that the log was asked to hold.
    Asked(Vec<Record>),
    Committed(Vec<Entry>),
    Offer {
        to: u64,
        index: Index,
        term: Term,
    },
    Diverged(Index),
}

/// What the log's thread is asked for.
enum WalAsk {
    Persist { ticket: Ticket, records: Vec<Record>, sync: bool },
    Snapshot { index: Index, term: Term, trim: Index },
}

/// What becomes true when the fsync that is under way returns.
#[derive(Default)]
struct Round {
    durable: Option<Ticket>,
    snapshots: Vec<(Index, Term, Index)>,
}

/// A read that waits for its read point.
struct Waiting {
    range: pb::RangeRequest,
}

/// A running member.
pub(super) struct Process {
    /// Its id.
    pub(super) id: u64,
    /// Its boot counter.
    pub(super) boot: u64,
    /// The state as far as it is applied.
    pub(super) state: State,
    /// The watches.
    pub(super) hub: WatchHub,
    core: Member,
    disk: SimDisk,
    wal: Wal<SimDisk>,
    store: SimStore,
    flusher: Flusher,
    snapshots: Vec<Manifest>,
    wal_queue: Vec<WalAsk>,
    round: Option<Round>,
    to_apply: VecDeque<Entry>,
    reads: BTreeMap<u64, Waiting>,
    /// Keep-alives under way, and the member that passed each on; 0 for an own client's.
    renewals: BTreeMap<u64, (u64, LeaseId)>,
    /// A read point of this boot is applied: serializable reads no longer go back.
    caught_up: bool,
    flush: Option<Flush>,
    builder: Option<Builder<SimDisk>>,
    wants_snapshot: bool,
    /// A snapshot is being fetched: its files must not be taken for garbage.
    pub(super) fetching: bool,
    hash: Option<HashJob>,
    evictions: u64,
    flush_entries: u64,
    snapshot_entries: u64,
    snapshots_kept: usize,
    effects: Vec<Effect>,
}

/// How a process came up.
pub(super) struct Opened {
    /// It.
    pub(super) process: Process,
    /// Why its store was rebuilt.
    pub(super) rebuilt: Option<Unusable>,
    /// What it applied from its log before its raft started.
    pub(super) replayed: u64,
}

fn say(context: &str) -> impl FnOnce(Fatal) -> String {
    move |fatal| format!("{context}: {fatal}")
}

impl Process {
    /// Opens a member from what its machine holds, as the shell does, and checks what it finds.
    pub(super) fn open(
        id: u64,
        machine: &mut Machine,
        options: &Options,
        ledger: &mut Ledger,
        now: u64,
        killed: bool,
    ) -> Result<Opened, String> {
        let disk = machine.disk.clone();
        for path in [WAL_DIR, SNAP_DIR] {
            mechi_replica::disk::ensure_dir(&disk, path).map_err(|error| format!("create {path}: {error}"))?;
        }
        let layout = WalOptions { segment_bytes: options.segment_bytes, reserve_segments: 1 };
        let base = open_base(&disk, WAL_DIR, SNAP_DIR, layout).map_err(say("D1: open"))?;
        if let Some(damaged) = base.damaged.first() {
            return Err(format!("D2: a snapshot is damaged: {damaged}"));
        }
        let committed = usize::try_from(base.snapshot_index()).expect("a run is short");
        let Some(terms) = ledger.terms.get(..committed) else {
            return Err(format!("A2: a snapshot at {committed}, where nothing is committed"));
        };
        machine.shadow.reopened(&base.recovered, terms, killed)?;
        for entry in &base.recovered.entries {
            ledger.appends(id, entry)?;
        }

        let boot_name = machine.boot_name();
        let (stood, rebuilt) = match reuse(machine.folder.take(), &boot_name, &base) {
            Ok((store, state, flusher)) => ((store, state, flusher), None),
            Err(why) => {
                base.check_meets().map_err(say("D1: rebuild"))?;
                let store = SimStore::default();
                let (state, flusher) = match &base.snapshot {
                    None => (State::empty(), Flusher::new(None)),
                    Some(manifest) => {
                        let applied =
                            restore::rebuild(&store, &disk, SNAP_DIR, manifest).map_err(say("D1: rebuild"))?;
                        restore::restore(&store, &applied, u64::MAX).map_err(say("D1: restore"))?
                    }
                };
                ((store, state, flusher), Some(why))
            }
        };
        let (store, mut state, mut flusher) = stood;
        machine.folder = Some(StoreFolder { store: store.clone(), made_in: boot_name });
        machine.closed = false;
        ledger.applies(id, now, state.applied_index, state.chain_digest)?;
        if state.conf_state.voters.is_empty() {
            state.conf_state.voters = (1..=options.members).collect();
        }
        let newest = base.snapshot_index();
        let snapshot = base.snapshot.as_ref().map_or((0, 0), |manifest| (manifest.index(), manifest.term()));
        let (mut snapshots, _) = snapshot::list(&disk, SNAP_DIR).map_err(say("list snapshots"))?;
        snapshots.retain(|manifest| manifest.index() <= newest);
        let boot = base.recovered.boot;
        let Base { wal, recovered, .. } = base;
        let tail = tail(recovered, state.applied_index, state.applied_term).map_err(say("D1: tail"))?;
        let (entries, hard_state) = (tail.entries, tail.hard_state);
        let base = state.applied_index;
        for entry in entries.iter().filter(|entry| base < entry.index && entry.index <= hard_state.commit) {
            // Others may not have heard of it yet; that a quorum holds it was known to whoever wrote the commit index.
            let own = std::iter::once(&machine.shadow.durable);
            ledger.commits((id, hard_state.term), now, entry, own)?;
        }
        let replayed = hard_state.commit.saturating_sub(state.applied_index);
        replay(&mut state, &store, &mut flusher, &entries, hard_state.commit, u64::MAX).map_err(say("replay"))?;
        if state.applied_index > hard_state.commit {
            return Err(format!("R9: applied {} above commit {}", state.applied_index, hard_state.commit));
        }
        ledger.applies(id, now, state.applied_index, state.chain_digest)?;

        let config = MemberConfig {
            replica: ReplicaConfig {
                member: MemberId(id),
                voters: state.conf_state.voters.iter().copied().map(MemberId).collect(),
                learners: Vec::new(),
                boot,
                seed: options.seed,
                tick_ms: options.tick_ms,
                heartbeat_ticks: 1,
                election_ticks: options.election_ticks as usize,
                log_memory_bytes: options.log_memory_bytes,
            },
            tail: LogTail { before: tail.before, entries, hard_state },
            applied: state.applied_index,
            snapshot,
            leases: state.leases.to_meta(),
            lease_checkpoint_ms: options.checkpoint_ms,
        };
        let core = Member::new(config).map_err(say("start raft"))?;
        let header = Header { cluster_id: 1, member_id: id, raft_term: hard_state.term };
        let bounds = Config { stream_bytes_max: 8 << 10, slice_changes_max: 16, ..Config::default() };
        let process = Self {
            id,
            boot,
            hub: WatchHub::new(bounds, header, state.mvcc.revision()),
            state,
            core,
            disk,
            wal,
            store,
            flusher,
            snapshots,
            wal_queue: Vec::new(),
            round: None,
            to_apply: VecDeque::new(),
            reads: BTreeMap::new(),
            renewals: BTreeMap::new(),
            caught_up: false,
            flush: None,
            builder: None,
            wants_snapshot: false,
            fetching: false,
            hash: None,
            evictions: 0,
            flush_entries: options.flush_entries,
            snapshot_entries: options.snapshot_entries,
            snapshots_kept: options.snapshots_kept,
            effects: Vec::new(),
        };
        Ok(Opened { process, rebuilt, replayed })
    }

    /// Leadership as this member sees it.
    pub(super) fn role(&self) -> Role {
        self.core.role()
    }

    /// Feeds the core.
    pub(super) fn feed(&mut self, now: MonoMillis, input: Input) {
        self.core.feed(now, input);
    }

    /// Takes a message of another member.
    pub(super) fn receive(&mut self, now: MonoMillis, from: u64, wire: Wire, acts: &mut Vec<Act>) {
        match wire {
            Wire::Raft(message) => self.core.feed(now, Input::Peer(message)),
            Wire::Batch(batch) => self.core.feed(now, Input::Forwarded { from: MemberId(from), batch }),
            Wire::Digest { index, chain } => {
                self.core.feed(now, Input::Digest { from: MemberId(from), index, chain });
            }
            Wire::KeepAlive { op, id } => {
                if let std::collections::btree_map::Entry::Vacant(free) = self.renewals.entry(op) {
                    free.insert((from, id));
                    self.core.feed(now, Input::KeepAlive { token: Token(op), id });
                }
            }
            Wire::Renewed { op, answer } => {
                if self.renewals.remove(&op).is_some() {
                    acts.push(Act::Reply { op, outcome: Outcome::renewed(answer) });
                }
            }
        }
    }

    /// Takes a client's request.
    pub(super) fn request(&mut self, now: MonoMillis, op: u64, ask: Ask, acts: &mut Vec<Act>) -> Result<(), String> {
        match ask {
            Ask::Write(request) => {
                let command = Command { id: op, request: Some(request), ..Command::default() };
                self.core.feed(now, Input::Propose(command));
            }
            Ask::Range(range) if range.serializable && self.caught_up => {
                let outcome = self.range(&range)?;
                acts.push(Act::Reply { op, outcome });
            }
            Ask::Range(range) => {
                self.reads.insert(op, Waiting { range });
                self.core.feed(now, Input::Read(Token(op)));
            }
            Ask::KeepAlive(id) => {
                self.renewals.insert(op, (0, id));
                self.core.feed(now, Input::KeepAlive { token: Token(op), id });
            }
        }
        Ok(())
    }

    fn range(&self, range: &pb::RangeRequest) -> Result<Outcome, String> {
        let revision = self.state.mvcc.revision();
        let result = kv::range(&self.state.mvcc, range, revision, &Blocks(&self.store)).map_err(say("range"))?;
        Ok(Outcome::Read { at: self.state.applied_index, revision, result })
    }

    /// Lets the core settle, and takes its effects in their order.
    pub(super) fn settle(&mut self, now: MonoMillis, acts: &mut Vec<Act>) -> Result<(), String> {
        for _ in 0..SETTLES_MAX {
            let mut effects = std::mem::take(&mut self.effects);
            let more = self.core.settle(&mut effects);
            for effect in effects.drain(..) {
                self.perform(now, effect, acts)?;
            }
            self.effects = effects;
            if !more {
                return Ok(());
            }
        }
        Err(format!("the core of {} does not settle", self.id))
    }

    fn perform(&mut self, now: MonoMillis, effect: Effect, acts: &mut Vec<Act>) -> Result<(), String> {
        match effect {
            Effect::Persist { ticket, records, sync } => {
                let state = records.iter().position(|record| matches!(record, Record::HardState(_)));
                if state.is_some_and(|place| place + 1 != records.len()) {
                    return Err("R9: a write whose hard state stands before its entries".into());
                }
                acts.push(Act::Asked(records.clone()));
                self.wal_queue.push(WalAsk::Persist { ticket, records, sync });
            }
            Effect::Send { to, message, .. } => acts.push(Act::Send { to: to.0, wire: Wire::Raft(message) }),
            Effect::Forward { to, batch } => acts.push(Act::Send { to: to.0, wire: Wire::Batch(batch) }),
            Effect::Digest { to, index, chain } => {
                acts.push(Act::Send { to: to.0, wire: Wire::Digest { index, chain } });
            }
            Effect::Apply(entries) => {
                acts.push(Act::Committed(entries.clone()));
                self.to_apply.extend(entries);
            }
            Effect::Answered { token, answer } => self.answered(now, token.0, answer, acts)?,
            Effect::Refuse { id, why } => acts.push(Act::Reply { op: id, outcome: Outcome::Refused(why) }),
            Effect::Unknown { id, .. } => acts.push(Act::Reply { op: id, outcome: Outcome::Unknown }),
            Effect::Role(role) => acts.push(Act::Role(role)),
            Effect::Judges(_) => {}
            Effect::BuildSnapshot => self.wants_snapshot = true,
            Effect::SendSnapshot { to, index, term } => acts.push(Act::Offer { to: to.0, index, term }),
            Effect::Diverged { index } => acts.push(Act::Diverged(index)),
        }
        Ok(())
    }

    fn answered(
        &mut self,
        _now: MonoMillis,
        op: u64,
        answer: Result<Answer, Error>,
        acts: &mut Vec<Act>,
    ) -> Result<(), String> {
        if let Some(waiting) = self.reads.remove(&op) {
            let outcome = match answer {
                Ok(Answer::ReadAt(at)) if at <= self.state.applied_index => {
                    self.caught_up = true;
                    self.range(&waiting.range)?
                }
                Ok(answer) => return Err(format!("read {op} is answered {answer:?} at {}", self.state.applied_index)),
                Err(why) => Outcome::Refused(why),
            };
            acts.push(Act::Reply { op, outcome });
            return Ok(());
        }
        let Some((from, id)) = self.renewals.get(&op).copied() else {
            return Err(format!("question {op} was answered twice"));
        };
        let answer = answer.map(|answer| if let Answer::Renewed(ttl) = answer { ttl } else { i64::MIN });
        // What is judged by the leader alone is asked of it.
        let leader = self.role().leader.filter(|leader| leader.0 != self.id);
        if answer == Err(Error::NotLeader)
            && from == 0
            && let Some(leader) = leader
        {
            acts.push(Act::Send { to: leader.0, wire: Wire::KeepAlive { op, id } });
            return Ok(());
        }
        self.renewals.remove(&op);
        acts.push(match from {
            0 => Act::Reply { op, outcome: Outcome::renewed(answer) },
            from => Act::Send { to: from, wire: Wire::Renewed { op, answer } },
        });
        Ok(())
    }

    /// Whether the log's thread would do something now.
    pub(super) fn wants_write(&self) -> bool {
        self.round.is_none() && !self.wal_queue.is_empty()
    }

    /// Appends all that waits; returns whether an fsync follows, and what was appended.
    pub(super) fn begin_write(&mut self) -> Result<(bool, Vec<Record>), String> {
        let mut round = Round::default();
        let (mut records, mut sync) = (Vec::new(), false);
        for ask in self.wal_queue.drain(..) {
            match ask {
                WalAsk::Persist { ticket, records: more, sync: wanted } => {
                    records.extend(more);
                    if wanted {
                        round.durable = Some(ticket);
                        sync = true;
                    }
                }
                WalAsk::Snapshot { index, term, trim } => {
                    records.push(Record::Snapshot { index, term });
                    round.snapshots.push((index, term, trim));
                    sync = true;
                }
            }
        }
        // Of several hard states only the last one counts.
        let last = records.iter().rposition(|record| matches!(record, Record::HardState(_)));
        let mut place = 0;
        records.retain(|record| {
            place += 1;
            !matches!(record, Record::HardState(_)) || Some(place - 1) == last
        });
        self.wal.append(&records).map_err(|error| format!("append: {error}"))?;
        if sync {
            self.round = Some(round);
        }
        Ok((sync, records))
    }

    /// The fsync returns.
    pub(super) fn end_write(&mut self, now: MonoMillis) -> Result<(), String> {
        let round = self.round.take().expect("an fsync was under way");
        self.wal.sync().map_err(say("sync"))?;
        if let Some(ticket) = round.durable {
            self.core.feed(now, Input::Persisted(ticket));
        }
        for (index, term, trim) in round.snapshots {
            self.wal.trim(trim).map_err(say("trim"))?;
            self.core.feed(now, Input::SnapshotMade { index, term });
        }
        if self.wal_queue.is_empty() {
            self.wal.mark().map_err(|error| format!("mark: {error}"))?;
        }
        Ok(())
    }

    /// Whether committed entries wait.
    pub(super) fn wants_apply(&self) -> bool {
        !self.to_apply.is_empty()
    }

    /// Applies at most `count` entries and tells everyone.
    pub(super) fn apply(
        &mut self,
        now: MonoMillis,
        at: u64,
        count: u64,
        ledger: &mut Ledger,
        acts: &mut Vec<Act>,
    ) -> Result<(), String> {
        let (mut lease_events, mut digests, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let Some(entry) = self.to_apply.pop_front() else { break };
            let mut out = Outcomes::default();
            let answer = apply::Answer { member: self.id, boot: self.boot };
            apply::apply(&mut self.state, &entry, answer, &Blocks(&self.store), &mut out).map_err(say("apply"))?;
            ledger.applies(self.id, at, entry.index, self.state.chain_digest)?;
            lease_events.append(&mut out.lease_events);
            digests.append(&mut out.digests);
            answers.extend(out.answers.into_iter().map(|(op, result)| (op, entry.index, result)));
        }
        self.hub.feed(HubInput::Advance(self.state.mvcc.revision()));
        // The driver before the clients: who was granted a lease may renew it at once.
        self.core.feed(now, Input::Applied { index: self.state.applied_index, lease_events, digests });
        for (op, index, result) in answers.into_iter().filter(|(op, ..)| *op < OWN_COMMANDS) {
            acts.push(Act::Reply { op, outcome: Outcome::Answer { at: index, result } });
        }
        Ok(())
    }

    /// Does one bounded piece of the watches' work; returns whether there is more.
    pub(super) fn watch(&mut self, acts: &mut Vec<Act>) -> Result<bool, String> {
        let mut out = Vec::new();
        let more = self.hub.settle(&self.state.mvcc, &Blocks(&self.store), &mut out).map_err(say("watch"))?;
        for (stream, message) in out {
            let cost = message.cost();
            acts.push(Act::Watch { stream: stream.0, message: message.pieces.concat().into(), cost });
        }
        Ok(more)
    }

    /// Tells the hub.
    pub(super) fn tell_hub(&mut self, input: HubInput) {
        self.hub.feed(input);
    }

    /// Ends a client's stream.
    pub(super) fn close_stream(&mut self, stream: u64) {
        self.hub.feed(HubInput::Close(StreamId(stream)));
    }

    /// Does one slice of what the keeper of store and snapshots does; returns whether there is more to do at once.
    pub(super) fn keep(&mut self) -> Result<bool, String> {
        let applied = self.state.applied_index;
        let in_store = self.flusher.applied().map_or(0, |applied| applied.index);
        let newest = self.snapshots.last().map_or(0, Manifest::index);
        if self.builder.is_none() && !self.fetching && applied >= newest + self.snapshot_entries {
            self.wants_snapshot = true;
        }
        let mut more = self.step_flush(applied, in_store)?;
        more |= self.step_snapshot(newest)?;
        more |= self.step_sweep()?;
        self.evictions += 1;
        if self.evictions.is_multiple_of(8) {
            self.state.mvcc.evict(self.flusher.flushed(), 0, SLICE_KEYS_MAX);
        }
        Ok(more)
    }

    fn step_flush(&mut self, applied: Index, in_store: Index) -> Result<bool, String> {
        let due = applied >= in_store + self.flush_entries || self.flusher.waiting() > 0 || self.wants_snapshot;
        if self.flush.is_none() && applied > in_store && due {
            self.flush = self.flusher.begin(self.state.to_meta());
        }
        let Some(flush) = &mut self.flush else { return Ok(false) };
        let entries = flush.slice(&self.state.mvcc).map_err(say("flush"))?;
        if !entries.is_empty() {
            let batch = flush.batch(&entries);
            if !batch.is_empty() {
                self.store.commit(batch).map_err(say("flush"))?;
            }
            return Ok(true);
        }
        if let Some(flush) = self.flush.take() {
            let finished = flush.finish(&self.flusher).map_err(say("flush"))?;
            for batch in finished.batches {
                self.store.commit(batch).map_err(say("flush"))?;
            }
            self.flusher.flushed_with(&self.store, finished.applied).map_err(say("flush"))?;
            self.state.mvcc.set_flushed(finished.applied.revision);
        }
        Ok(true)
    }

    fn step_snapshot(&mut self, newest: Index) -> Result<bool, String> {
        if self.builder.is_none() && self.wants_snapshot && self.flush.is_none() && !self.fetching {
            self.wants_snapshot = false;
            let Some(applied) = self.flusher.applied().filter(|applied| applied.index > newest) else {
                return Ok(false);
            };
            let meta = applied.state(&self.store).map_err(say("snapshot"))?;
            let previous = self.snapshots.last();
            self.builder = Some(Builder::new(self.disk.clone(), SNAP_DIR, self.id, applied, meta, previous));
        }
        let Some(builder) = &mut self.builder else { return Ok(false) };
        if builder.step(&self.store).map_err(|error| format!("snapshot: {error}"))? {
            return Ok(true);
        }
        let builder = self.builder.take().expect("it was there above");
        let manifest = builder.finish().map_err(|error| format!("snapshot: {error}"))?;
        let (index, term) = (manifest.index(), manifest.term());
        self.snapshots.push(manifest);
        let drop = self.snapshots.len().saturating_sub(self.snapshots_kept);
        self.snapshots.drain(..drop);
        if !self.fetching {
            let kept: Vec<&Manifest> = self.snapshots.iter().collect();
            snapshot::collect_garbage(&self.disk, SNAP_DIR, &kept).map_err(say("garbage"))?;
        }
        let trim = self.snapshots.first().map_or(0, Manifest::index);
        self.wal_queue.push(WalAsk::Snapshot { index, term, trim });
        Ok(true)
    }

    fn step_sweep(&mut self) -> Result<bool, String> {
        if let Some(job) = &mut self.hash {
            match job.step(&self.state.mvcc) {
                Ok(true) => {}
                Ok(false) => {
                    let job = self.hash.take().expect("it was there above");
                    let hash = job.finish(&Blocks(&self.store)).map_err(say("hash"))?;
                    self.state.mvcc.remember_hash(hash);
                }
                // Compacted meanwhile: its hash is never asked for any more.
                Err(_) => self.hash = None,
            }
            return Ok(true);
        }
        let mut more = false;
        if self.flush.is_none() && !self.flusher.is_full() {
            let compacted = self.state.mvcc.compact_revision();
            let sweep = self.state.mvcc.sweep(self.hub.cursor(), SLICE_KEYS_MAX);
            more = !sweep.removed.is_empty() && !sweep.done;
            self.hash = sweep.hash;
            self.flusher.removed(compacted, sweep.removed);
        }
        if self.builder.is_none() {
            more |= self.flusher.remove_some(&self.store).map_err(say("sweep"))?;
        }
        Ok(more)
    }

    /// Ends in good order: all that was asked is written, the store is flushed and closed, and the log says so.
    pub(super) fn close(mut self, machine: &mut Machine) -> Result<(), String> {
        if let Some(builder) = self.builder.take() {
            builder.abandon();
        }
        if !self.wal_queue.is_empty() {
            let (_, records) = self.begin_write()?;
            machine.shadow.write(&records);
        }
        self.wal.sync().map_err(say("sync"))?;
        machine.shadow.sync();
        let in_store = self.flusher.applied().map_or(0, |applied| applied.index);
        while self.flush.is_some() {
            self.step_flush(in_store, in_store)?;
        }
        let meta = self.state.to_meta();
        self.flusher.flush_all(&self.store, &self.state.mvcc, meta).map_err(say("last flush"))?;
        if let Some(applied) = self.flusher.applied() {
            machine.close();
            self.wal.close_clean(applied.index).map_err(|error| format!("close: {error}"))?;
        }
        Ok(())
    }

    /// Where the values are that left memory.
    pub(super) fn values(&self) -> Blocks<SimStore> {
        Blocks(self.store.clone())
    }

    /// How far the store is.
    pub(super) fn in_store(&self) -> Index {
        self.flusher.applied().map_or(0, |applied| applied.index)
    }

    /// The snapshot at `index`, if it is there to be fetched.
    pub(super) fn snapshot_at(&self, index: Index) -> Option<&Manifest> {
        self.snapshots.iter().find(|manifest| manifest.index() == index)
    }

    /// The last index that the log holds.
    pub(super) fn last_index(&self) -> Index {
        self.wal.last_index()
    }

    /// Its disk.
    pub(super) fn disk(&self) -> &impl Disk {
        &self.disk
    }
}

/// Settles after which a core that still wants more is taken to go in circles.
const SETTLES_MAX: usize = 1_000;

/// Ids of commands that no client waits for begin here.
const OWN_COMMANDS: u64 = 1 << 63;

/// The state in a store that is there, if it may be used.
fn reuse(
    folder: Option<StoreFolder>,
    boot: &str,
    base: &Base<SimDisk>,
) -> Result<(SimStore, State, Flusher), Unusable> {
    let damaged = |error: Fatal| Unusable::Damaged(error.to_string());
    let found = folder.ok_or(Unusable::Absent)?;
    let recovered = &base.recovered;
    usable::folder(&Folder { made_in: &found.made_in, boot, clean: recovered.clean })?;
    let applied = Applied::load(&found.store).map_err(damaged)?;
    let applied = usable::applied(applied.as_ref(), recovered.clean, recovered.first_index, base.last_index())?;
    if let Some(term) = term_at(recovered, applied.index).filter(|term| *term != applied.term) {
        return Err(Unusable::Damaged(format!("its term {} is not the log's {term}", applied.term)));
    }
    let (state, flusher) = restore::restore(&found.store, &applied, u64::MAX).map_err(damaged)?;
    Ok((found.store, state, flusher))
}
