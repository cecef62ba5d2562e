//! One member's process: the same machines as in production, each stepped when the simulator says so.
//!
//! The log, apply, the watches and the keeper of store and snapshots are threads in production; here each has a queue
//! and a step. What the shell decides there (when to flush, to build a snapshot, to trim) is decided here by the run's
//! options.

mod keeper;
mod log;
mod open;

use super::ledger::Ledger;
use super::machine::{Machine, SNAP_DIR, SimStore, StoreFolder, WAL_DIR};
use super::options::Options;
use super::work::{Ask, Outcome};
use bytes::Bytes;
use log::{Round, WalAsk, Writing};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::Command;
use mechi_replica::apply::state::State;
use mechi_replica::apply::{self, Outcomes, kv};
use mechi_replica::conf::Configuration;
use mechi_replica::disk::sim::SimDisk;
use mechi_replica::disk::{self, Disk};
use mechi_replica::effect::{Entry, Role};
use mechi_replica::input::Ticket;
use mechi_replica::limits::SLICE_KEYS_MAX;
use mechi_replica::member::{Answer, Effect, Input, Member, MemberConfig, Token};
use mechi_replica::mvcc::{Export, HashJob};
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
use mechi_replica::wal::{self, Wal, WalOptions};
use mechi_replica::watch::{Config, Header, Input as HubInput, StreamId, WatchHub};
use std::collections::{BTreeMap, VecDeque};
use std::io;

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

/// How the text begins of an error that the disk gave, and of damage that was found.
pub(super) const DISK: &str = "disk: ";
/// See [`DISK`].
pub(super) const REFUSED: &str = "refused: ";

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
    /// What the log had no room for.
    unwritten: Option<Writing>,
    round: Option<Round>,
    /// Planned faults of its disk that had struck before it began.
    struck: u64,
    to_apply: VecDeque<Entry>,
    reads: BTreeMap<u64, Waiting>,
    /// Keep-alives under way, and the member that passed each on; 0 for an own client's.
    renewals: BTreeMap<u64, (u64, LeaseId)>,
    /// A read point of this boot is applied: serializable reads no longer go back.
    caught_up: bool,
    flush: Option<Flush>,
    builder: Option<Builder<SimDisk>>,
    /// Where `builder` gets its records while the store is not used.
    export: Option<Export>,
    wants_snapshot: bool,
    /// Steps of the keeper until a snapshot is tried again after the disk was full.
    patience: u64,
    /// A snapshot is being fetched: its files must not be taken for garbage.
    pub(super) fetching: bool,
    hash: Option<HashJob>,
    evictions: u64,
    flush_entries: u64,
    store_from: u64,
    snapshot_entries: u64,
    snapshots_kept: usize,
    effects: Vec<Effect>,
    conf_before: Configuration,
    /// What it counted by when it settled the last time.
    conf_settled: Configuration,
}

/// Says what a step failed of, so that whoever knows the disk's faults can tell whether it had to.
fn say(context: &str) -> impl FnOnce(Fatal) -> String {
    move |fatal| match &fatal {
        Fatal::Corrupt { .. } => format!("{REFUSED}{context}: {fatal}"),
        Fatal::Io { source, .. } if disk::is_full(source) || source.to_string().contains("injected") => {
            format!("{DISK}{context}: {fatal}")
        }
        _ => format!("{context}: {fatal}"),
    }
}

/// The same for an error of the disk itself.
pub(super) fn say_io(context: &str) -> impl FnOnce(io::Error) -> String {
    let context = context.to_owned();
    move |source| say(&context)(Fatal::Io { context: "the disk".into(), source })
}

impl Process {
    /// Leadership as this member sees it.
    pub(super) fn role(&self) -> Role {
        self.core.role()
    }

    /// The configuration that it counts by.
    pub(super) fn conf(&self) -> &Configuration {
        self.core.configuration()
    }

    /// What it counted by when it had settled the last time but one.
    pub(super) fn conf_before(&self) -> &Configuration {
        &self.conf_before
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
            Ask::Configure(steps) => self.core.feed(now, Input::Configure { id: op, steps }),
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
        self.conf_before = std::mem::replace(&mut self.conf_settled, self.core.configuration().clone());
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
            Effect::RefuseBatch { to, why, .. } => return Err(format!("a batch of {to} is refused: {why}")),
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
        let mut moved = Vec::new();
        for _ in 0..count {
            let Some(entry) = self.to_apply.pop_front() else { break };
            let mut out = Outcomes::default();
            let answer = apply::Answer { member: self.id, boot: self.boot };
            apply::apply(&mut self.state, &entry, answer, &Blocks(&self.store), &mut out).map_err(say("apply"))?;
            ledger.applies(self.id, at, &self.state)?;
            moved.append(&mut out.moved);
            lease_events.append(&mut out.lease_events);
            digests.append(&mut out.digests);
            answers.extend(out.answers.into_iter().map(|(op, result)| (op, entry.index, result)));
        }
        self.hub.feed(HubInput::Advance(self.state.mvcc.revision()));
        // The driver before the clients: who was granted a lease may renew it at once.
        self.core.feed(now, Input::Applied { index: self.state.applied_index, lease_events, digests, moved });
        if *self.core.configuration() != self.state.conf {
            return Err(format!("R10: {} counts by {:?}, it has {:?}", self.id, self.conf(), self.state.conf));
        }
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
