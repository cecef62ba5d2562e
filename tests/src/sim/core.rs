//! TEMPORARY shim.
use bytes::Bytes;
use mechi_proto::mechipb::{self, Command};
use mechi_replica::apply::LeaseEvent;
pub use mechi_replica::effect::Role;
use mechi_replica::effect::{Effect as E, Entry};
use mechi_replica::input::{Input as I, ReadId, Ticket};
use mechi_replica::outcome::{Error, Fatal};
use mechi_replica::replica::{LogTail, Replica, ReplicaConfig};
use mechi_replica::types::{Index, LeaseId, MemberId, MonoMillis, Term};
use mechi_replica::wal::record::Record;
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);
#[derive(Debug)]
pub enum Input {
    Tick { wall_ms: i64 }, Paused, Propose(Command), Forwarded { from: MemberId, batch: Bytes }, Read(Token),
    KeepAlive { token: Token, id: LeaseId }, 
    Applied { index: Index, lease_events: Vec<LeaseEvent>, digests: Vec<(Index, u64)> },
    Persisted(Ticket), Peer(Bytes), Unreachable(MemberId), Reset(MemberId), Transfer(MemberId), Trimmed(Index),
    SnapshotMade { index: Index, term: Term }, SnapshotSent { to: MemberId, ok: bool },
    Digest { from: MemberId, index: Index, chain: u64 },
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer { ReadAt(Index), Renewed(i64), Leases(Vec<LeaseId>) }
#[derive(Debug)]
pub enum Effect {
    Persist { ticket: Ticket, records: Vec<Record>, sync: bool },
    Send { to: MemberId, message: Bytes, urgent: bool },
    Forward { to: MemberId, batch: Bytes },
    Digest { to: MemberId, index: Index, chain: u64 },
    Apply(Vec<Entry>),
    Answered { token: Token, answer: Result<Answer, Error> },
    Refuse { id: u64, why: Error }, Unknown { id: u64, why: Error }, Role(Role), Judges(Term), BuildSnapshot,
    SendSnapshot { to: MemberId, index: Index, term: Term }, Diverged { index: Index },
}
#[derive(Clone, Debug)]
pub struct MemberConfig {
    pub replica: ReplicaConfig, pub tail: LogTail, pub applied: Index, pub snapshot: (Index, Term),
    pub leases: Vec<mechipb::Lease>, pub lease_checkpoint_ms: u64,
}
pub struct Member { replica: Replica, applied: Index, waiting: Vec<(Index, Token)>, out: Vec<Effect> }
impl Member {
    pub fn new(c: MemberConfig) -> Result<Self, Fatal> {
        Ok(Self { replica: Replica::new(c.replica, c.tail, c.applied)?, applied: c.applied, waiting: vec![], out: vec![] })
    }
    pub fn feed(&mut self, now: MonoMillis, input: Input) {
        match input {
            Input::Tick { wall_ms } => self.replica.feed(I::Tick { now, wall_ms }),
            Input::Propose(c) => self.replica.feed(I::Propose(c)),
            Input::Read(t) => self.replica.feed(I::Read(ReadId(t.0))),
            Input::KeepAlive { token, .. } => self.out.push(Effect::Answered { token, answer: Err(Error::NotLeader) }),
            Input::Applied { index, .. } => { self.applied = index; self.replica.feed(I::Applied(index)); self.serve(); }
            Input::Persisted(t) => self.replica.feed(I::Persisted(t)),
            Input::Peer(m) => self.replica.feed(I::Peer(m)),
            Input::Unreachable(m) => self.replica.feed(I::Unreachable(m)),
            Input::Transfer(m) => self.replica.feed(I::Transfer(m)),
            _ => {}
        }
    }
    fn serve(&mut self) {
        let applied = self.applied;
        let (now, later) = std::mem::take(&mut self.waiting).into_iter().partition(|(at, _)| *at <= applied);
        self.waiting = later;
        let now: Vec<(Index, Token)> = now;
        for (at, token) in now { self.out.push(Effect::Answered { token, answer: Ok(Answer::ReadAt(at)) }); }
    }
    pub fn settle(&mut self, effects: &mut Vec<Effect>) -> bool {
        let mut es = vec![];
        let more = self.replica.settle(&mut es);
        for e in es {
            let e = match e {
                E::Persist { ticket, records, sync } => Effect::Persist { ticket, records, sync },
                E::Send { to, message } => Effect::Send { to, message, urgent: false },
                E::Apply(x) => Effect::Apply(x),
                E::Serve { reads, at } => { for r in reads { self.waiting.push((at, Token(r.0))); } self.serve(); continue }
                E::Refuse { id, why } => Effect::Refuse { id, why },
                E::Unknown { id, why } => Effect::Unknown { id, why },
                E::RefuseRead { reads, why } => { for r in reads { self.out.push(Effect::Answered { token: Token(r.0), answer: Err(why.clone()) }); } continue }
                E::Role(r) => Effect::Role(r),
            };
            self.out.push(e);
        }
        effects.append(&mut self.out);
        more
    }
    pub fn role(&self) -> Role { self.replica.role() }
}
