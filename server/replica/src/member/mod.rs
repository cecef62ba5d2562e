//! One member's judgement as a whole: consensus, reads, leases and agreement, in one machine without a clock.
//!
//! Feed it any number of inputs, then settle it until it says that nothing is left, and begin its effects in their
//! order. The driver's thread does so in production, the simulator in its own time: the very same code.

mod backlog;
mod effect;
mod input;
mod readers;
#[cfg(test)]
mod tests;

use crate::agree::{Agreement, Verdict};
use crate::conf::Configuration;
use crate::effect::{Effect as Wish, Role, RoleKind};
use crate::input::Input as Told;
use crate::lease::judge::Judge;
use crate::limits::LEASE_PAUSE_MS;
use crate::outcome::{Error, Fatal};
use crate::propose::OWN_COMMANDS;
use crate::replica::{LogTail, Replica, ReplicaConfig};
use crate::types::{Index, LeaseId, MemberId, MonoMillis, Term};
use backlog::Backlog;
pub use effect::{Answer, Effect};
pub use input::{Input, Token};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{self, Command, command::Request};
use readers::{Reader, Readers};

/// What a [`Member`] begins with.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// This member, its cluster and its timing.
    pub replica: ReplicaConfig,
    /// The log as recovery found it.
    pub tail: LogTail,
    /// The index that the replicated state stands at.
    pub applied: Index,
    /// The newest verified snapshot's index and term; (0, 0) if there is none.
    pub snapshot: (Index, Term),
    /// The leases of that state.
    pub leases: Vec<mechipb::Lease>,
    /// Milliseconds between two notes of a lease's remaining time.
    pub lease_checkpoint_ms: u64,
}

/// One member. See the module's text.
pub struct Member {
    replica: Replica,
    judge: Judge,
    readers: Readers,
    backlog: Backlog,
    agreement: Agreement,
    applied: Index,
    now: MonoMillis,
    ticked: Option<MonoMillis>,
    /// Something was fed to the replica since it last settled.
    fed: bool,
    wishes: Vec<Wish>,
    out: Vec<Effect>,
    #[cfg(feature = "mutants")]
    wall_began: Option<u64>,
}

impl Member {
    /// Restores a member from its log and state.
    ///
    /// - Errors: [`Fatal::Bug`] if log, leases and applied index contradict each other: the open rules exclude it.
    pub fn new(config: MemberConfig) -> Result<Self, Fatal> {
        let MemberConfig { replica, tail, applied, snapshot, leases, lease_checkpoint_ms } = config;
        let extend_ms = replica.tick_ms * replica.election_ticks as u64;
        let agreement = Agreement::new(replica.member, replica.conf.clone());
        let mut replica = Replica::new(replica, tail, applied)?;
        if snapshot.0 > 0 {
            replica.feed(Told::SnapshotMade { index: snapshot.0, term: snapshot.1 });
        }
        Ok(Self {
            replica,
            judge: Judge::new(leases, extend_ms, lease_checkpoint_ms)?,
            readers: Readers::default(),
            backlog: Backlog::default(),
            agreement,
            applied,
            now: MonoMillis::default(),
            ticked: None,
            fed: false,
            wishes: Vec::new(),
            out: Vec::new(),
            #[cfg(feature = "mutants")]
            wall_began: None,
        })
    }

    /// Takes in what happened at `now`; effects come with the next [`Member::settle`].
    ///
    /// - Shape: `now` is this boot's monotonic clock, read when the input was taken, not when it was queued; it may
    ///   stand still. The tick comes after all else that waits: a process that slept must hear its leader first.
    pub fn feed(&mut self, now: MonoMillis, input: Input) {
        self.now = self.now.max(now);
        self.fed = true;
        match input {
            Input::Tick { wall_ms } => self.tick(wall_ms),
            Input::Paused => self.judge.paused(self.now),
            Input::Propose(command) if self.backlog.is_full() => {
                self.out.push(Effect::Refuse { id: command.id, why: Error::TooManyRequests });
            }
            Input::Propose(command) => self.replica.feed(Told::Propose(command)),
            // Its author asks again.
            Input::Forwarded { .. } if self.backlog.is_full() => {}
            Input::Forwarded { from, batch } => self.replica.feed(Told::Forwarded { from, batch }),
            Input::BatchRefused { boot, number } => self.replica.feed(Told::BatchRefused { boot, number }),
            Input::Read(token) => self.read(Reader::Client(token)),
            #[cfg(feature = "mutants")]
            Input::KeepAlive { token, id } if self.leads() && crate::mutants::active("keep_alive_without_round") => {
                if let Some(command) = self.judge.keep_alive(id, self.now, token) {
                    self.propose(command);
                }
                self.tell_renewed();
            }
            Input::KeepAlive { token, id } if self.leads() => self.read(Reader::KeepAlive { id, token }),
            // A follower may have applied a grant, and told its client, before the leader has: it reads up to there first.
            Input::TimeToLive { token, id } if self.leads() => self.read(Reader::TimeToLive { id, token }),
            Input::KeepAlive { token, .. } => self.answer(token, Err(Error::NotLeader)),
            Input::TimeToLive { token, id } => self.tell_remaining(token, id),
            Input::Leases(token) => {
                let leases = self.judge.list();
                self.answer(token, Ok(Answer::Leases(leases)));
            }
            Input::Configure { id, .. } if self.backlog.is_full() => {
                self.out.push(Effect::Refuse { id, why: Error::TooManyRequests });
            }
            Input::Configure { id, steps } => self.replica.feed(Told::Configure { id, steps }),
            Input::Applied { index, lease_events, digests, moved } => {
                self.applied = self.applied.max(index);
                self.backlog.applied(index);
                if let Some(newest) = moved.last() {
                    self.agreement.configure(newest.now.clone());
                }
                self.replica.feed(Told::Applied { index, moved });
                self.judge.applied(&lease_events, self.now);
                self.tell_renewed();
                self.digested(digests);
                self.serve_applied();
            }
            Input::Persisted(ticket) => self.replica.feed(Told::Persisted(ticket)),
            Input::Peer(message) => self.replica.feed(Told::Peer(message)),
            Input::Unreachable(member) => self.replica.feed(Told::Unreachable(member)),
            Input::Reset(member) => self.replica.feed(Told::Reset(member)),
            Input::Transfer(to) => self.replica.feed(Told::Transfer(to)),
            Input::SnapshotMade { index, term } => self.replica.feed(Told::SnapshotMade { index, term }),
            Input::SnapshotSent { to, ok } => self.replica.feed(Told::SnapshotSent { to, ok }),
            Input::Digest { from, index, chain } => {
                let verdict = self.agreement.told(from, index, chain);
                self.judge_digests(verdict);
            }
        }
    }

    /// Appends what shall be done to `effects`, in the order in which it must be begun.
    ///
    /// Returns whether something is left: settle again then.
    pub fn settle(&mut self, effects: &mut Vec<Effect>) -> bool {
        self.fed = false;
        let mut wishes = std::mem::take(&mut self.wishes);
        let more = self.replica.settle(&mut wishes);
        for wish in wishes.drain(..) {
            self.perform(wish);
        }
        self.wishes = wishes;
        effects.append(&mut self.out);
        more || self.fed
    }

    /// Leadership as this member sees it now.
    pub fn role(&self) -> Role {
        self.replica.role()
    }

    /// Tells whether another command would only lie and wait for what the disk is doing.
    pub fn gathers(&self) -> bool {
        self.replica.gathers()
    }

    /// Tells whether another read would only lie and wait for the round that is under way.
    pub fn reads_wait(&self) -> bool {
        self.replica.reads_wait()
    }

    /// The configuration as of the applied index.
    pub fn configuration(&self) -> &Configuration {
        self.replica.configuration()
    }

    /// Counts the leases that ended by this member's wish, since its start.
    pub fn leases_expired(&self) -> u64 {
        self.judge.expired()
    }

    fn tick(&mut self, wall_ms: i64) {
        let now = self.now;
        // A gap between two ticks is a pause too, whoever should have told of it.
        if self.ticked.is_some_and(|ticked| now.0 - ticked.0 >= LEASE_PAUSE_MS) {
            self.judge.paused(now);
        }
        self.ticked = Some(now);
        self.replica.feed(Told::Tick { now, wall_ms });
        #[cfg(feature = "mutants")]
        let now = if crate::mutants::active("lease_ended_by_wall_clock") { self.by_wall_clock(wall_ms) } else { now };
        if let Some(command) = self.judge.checkpoints(now) {
            self.propose(command);
        }
        if let Some(term) = self.judge.wants_expiry_check(now) {
            self.read(Reader::Expiry { asked: now, term });
        }
    }

    /// What the time would be if the wall clock told it.
    #[cfg(feature = "mutants")]
    fn by_wall_clock(&mut self, wall_ms: i64) -> MonoMillis {
        let wall = u64::try_from(wall_ms).unwrap_or(0);
        let began = *self.wall_began.get_or_insert(wall - self.now.0.min(wall));
        MonoMillis(wall.saturating_sub(began))
    }

    /// Tells whether this member judges leases, or will as soon as it has applied an entry of its term: who asks the
    /// new leader waits for that, since nobody else can answer.
    fn leads(&self) -> bool {
        self.judge.may_judge() || self.replica.role().kind == RoleKind::Leader
    }

    fn tell_remaining(&mut self, token: Token, id: LeaseId) {
        let answer = self.judge.remaining(id, self.now).map(Answer::Remaining);
        self.answer(token, answer);
    }

    fn answer(&mut self, token: Token, answer: Result<Answer, Error>) {
        self.out.push(Effect::Answered { token, answer });
    }

    fn propose(&mut self, (id, request): (u64, Request)) {
        self.fed = true;
        self.replica.feed(Told::Propose(Command { id, request: Some(request), ..Command::default() }));
    }

    fn read(&mut self, reader: Reader) {
        self.fed = true;
        let id = self.readers.ask(reader);
        self.replica.feed(Told::Read(id));
    }

    fn perform(&mut self, wish: Wish) {
        let effect = match wish {
            Wish::Send { to, message, urgent } => Effect::Send { to, message, urgent },
            Wish::Forward { to, batch } => Effect::Forward { to, batch },
            Wish::RefuseBatch { to, boot, number, why } => Effect::RefuseBatch { to, boot, number, why },
            Wish::Persist { ticket, records, sync } => Effect::Persist { ticket, records, sync },
            Wish::BuildSnapshot => Effect::BuildSnapshot,
            Wish::SendSnapshot { to, index, term } => Effect::SendSnapshot { to, index, term },
            Wish::Apply(entries) => {
                self.backlog.add(&entries);
                Effect::Apply(entries)
            }
            Wish::Refuse { id, .. } | Wish::Unknown { id, .. } if id >= OWN_COMMANDS => {
                self.judge.undone(id, self.now);
                return self.tell_renewed();
            }
            Wish::Refuse { id, why } => Effect::Refuse { id, why },
            Wish::Unknown { id, why } => Effect::Unknown { id, why },
            Wish::Serve { reads, at } => {
                self.readers.confirmed(reads, at);
                return self.serve_applied();
            }
            Wish::RefuseRead { reads, why } => return self.refuse_reads(reads, &why),
            Wish::Role(role) => {
                if self.judge.role_changed(role) {
                    self.read(Reader::Promotion { term: role.term });
                }
                self.tell_renewed();
                Effect::Role(role)
            }
        };
        self.out.push(effect);
    }

    fn refuse_reads(&mut self, reads: Vec<crate::input::ReadId>, why: &Error) {
        for reader in self.readers.refused(reads) {
            match reader {
                Reader::Client(token) | Reader::KeepAlive { token, .. } | Reader::TimeToLive { token, .. } => {
                    self.answer(token, Err(why.clone()));
                }
                Reader::Expiry { .. } => self.judge.check_refused(),
                Reader::Promotion { term } if self.judge.is_promoting(term) => self.read(reader),
                Reader::Promotion { .. } => {}
            }
        }
    }

    /// Serves the reads whose read point is applied by now, in the order of their arrival.
    fn serve_applied(&mut self) {
        while let Some((at, reader)) = self.readers.next_served(self.applied) {
            match reader {
                Reader::Client(token) => self.answer(token, Ok(Answer::ReadAt(at))),
                // The read point for the promotion was asked for by now, so that the next round finds it done.
                Reader::KeepAlive { .. } | Reader::TimeToLive { .. } if !self.judge.judges() && self.leads() => {
                    self.read(reader);
                }
                Reader::TimeToLive { id, token } => self.tell_remaining(token, id),
                Reader::KeepAlive { id, token } => {
                    if let Some(command) = self.judge.keep_alive(id, self.now, token) {
                        self.propose(command);
                    }
                    self.tell_renewed();
                }
                Reader::Promotion { term } => {
                    if self.judge.promote(term, self.now) {
                        self.out.push(Effect::Judges(term));
                    }
                }
                Reader::Expiry { asked, term } => {
                    for command in self.judge.expire(asked, term) {
                        self.propose(command);
                    }
                }
            }
        }
    }

    fn tell_renewed(&mut self) {
        for (token, outcome) in self.judge.take_renewed() {
            self.answer(token, outcome.map(Answer::Renewed));
        }
    }

    /// Tells all others the digests of what was applied here, and compares.
    fn digested(&mut self, digests: Vec<(Index, u64)>) {
        for (index, chain) in digests {
            let others: Vec<MemberId> = self.agreement.others().collect();
            self.out.extend(others.into_iter().map(|to| Effect::Digest { to, index, chain }));
            let verdict = self.agreement.applied(index, chain);
            self.judge_digests(verdict);
        }
    }

    fn judge_digests(&mut self, verdict: Option<Verdict>) {
        match verdict {
            None => {}
            Some(Verdict::Diverged { index }) => self.out.push(Effect::Diverged { index }),
            // Nobody can say who is right, so nobody is fenced: writes are refused everywhere, as etcd does.
            Some(Verdict::Split { .. }) if self.replica.role().settled => {
                let alarm = pb::AlarmRequest {
                    action: pb::alarm_request::AlarmAction::Activate.into(),
                    member_id: 0,
                    alarm: pb::AlarmType::Corrupt.into(),
                };
                let command = self.judge.own_command(Request::Alarm(alarm));
                self.propose(command);
            }
            Some(Verdict::Split { .. }) => {}
        }
    }
}
