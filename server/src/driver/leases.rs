//! The lessor in the driver: when it may judge, what it proposes, and who waits for a renewal.
//!
//! It judges from the moment when a read point requested in this term is applied here, so that it knows every grant and
//! renewal note of earlier terms, until this member no longer leads. A lease ends only by a wish that is proposed after a
//! read point requested after the deadline: no other leader can have renewed it meanwhile, and keep-alives that arrived
//! before are served first.

use super::readers::{Reader, answer};
use mechi_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest};
use mechi_proto::mechipb::{self, Command, LeaseExpire, command::Request};
use mechi_replica::apply::LeaseEvent;
use mechi_replica::apply::lease::Leases as Table;
use mechi_replica::effect::{Role, RoleKind};
use mechi_replica::lease::lessor::{Lessor, Remaining, Renewal};
use mechi_replica::limits::{
    LEASE_EXPIRE_BATCH_MAX, LEASE_EXPIRE_RETRY_MS, LEASE_PAUSE_GRACE_MS, PENDING_REQUESTS_MAX,
};
use mechi_replica::outcome::{Error, Fatal};
use mechi_replica::types::{LeaseId, MonoMillis, Term};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::oneshot;

/// Ids of commands that no client waits for begin here; clients' ids count up from 1.
const OWN_COMMANDS: u64 = 1 << 63;

type Reply = oneshot::Sender<Result<i64, Error>>;

/// The leases as the driver knows them, and the lessor while this member leads.
pub(super) struct Leases {
    /// Every lease of the applied state, on every member, so that a new leader has them at hand.
    table: BTreeMap<LeaseId, mechipb::Lease>,
    lessor: Lessor,
    /// Milliseconds (an election timeout) that a new leader grants to every lease.
    extend_ms: u64,
    promoting: Option<Term>,
    checking: bool,
    /// No lease is ended before: the process was stopped for a while.
    paused_until: MonoMillis,
    /// Leases that ended by this member's wish.
    expired: Arc<AtomicU64>,
    commands: u64,
    /// Wishes that may still be refused, by command id.
    wishes: BTreeMap<u64, LeaseExpire>,
    /// Keep-alives that wait until the note of a remaining time is cleared, and the command that clears it.
    clearing: BTreeMap<LeaseId, (u64, Vec<Reply>)>,
}

impl Leases {
    pub(super) fn new(leases: Vec<mechipb::Lease>, extend_ms: u64, checkpoint_interval_ms: u64) -> Self {
        Self {
            table: leases.into_iter().map(|lease| (LeaseId(lease.id), lease)).collect(),
            lessor: Lessor::new(checkpoint_interval_ms),
            extend_ms,
            promoting: None,
            checking: false,
            paused_until: MonoMillis::default(),
            expired: Arc::default(),
            commands: 0,
            wishes: BTreeMap::new(),
            clearing: BTreeMap::new(),
        }
    }

    /// Counts the leases that ended by this member's wish.
    pub(super) fn expired(&self) -> Arc<AtomicU64> {
        self.expired.clone()
    }

    /// Takes note that the process was stopped until `now`, as by SIGSTOP or a suspended machine.
    pub(super) fn paused(&mut self, now: MonoMillis) {
        self.paused_until = MonoMillis(now.0 + LEASE_PAUSE_GRACE_MS);
    }

    /// Takes note of a change in leadership; returns whether a read point is now wanted for [`Leases::promote`].
    pub(super) fn role_changed(&mut self, role: Role) -> bool {
        let term = (role.kind == RoleKind::Leader && role.settled).then_some(role.term);
        if term.is_some() && (term == self.promoting || term == self.lessor.term()) {
            return false;
        }
        self.demote();
        self.promoting = term;
        term.is_some()
    }

    fn demote(&mut self) {
        self.lessor.demote();
        self.promoting = None;
        self.checking = false;
        self.wishes.clear();
        for (_, replies) in std::mem::take(&mut self.clearing).into_values() {
            replies.into_iter().for_each(|reply| answer(reply, Err(Error::NotLeader)));
        }
    }

    /// Tells whether this member judges leases, or is about to.
    pub(super) fn may_judge(&self) -> bool {
        self.promoting.is_some() || self.lessor.term().is_some()
    }

    /// Begins to judge leases; returns whether it does.
    ///
    /// - Errors: [`Fatal`] if the leases that the applied state gave are no leases.
    pub(super) fn promote(&mut self, term: Term, now: MonoMillis) -> Result<bool, Fatal> {
        if self.promoting != Some(term) {
            return Ok(false);
        }
        self.promoting = None;
        let table = Table::from_meta(self.table.values().cloned().collect())?;
        self.lessor.promote(term, now, &table, self.extend_ms);
        Ok(true)
    }

    /// Takes the events of applied entries.
    pub(super) fn applied(&mut self, events: Vec<LeaseEvent>, now: MonoMillis) {
        for event in events {
            self.lessor.applied(&event, now);
            match event {
                LeaseEvent::Granted { id, ttl, grant_index } => {
                    self.table.insert(id, mechipb::Lease { id: id.0, ttl, remaining_ttl: 0, grant_index });
                }
                LeaseEvent::Revoked { id, grant_index } => {
                    if self.table.get(&id).is_some_and(|lease| lease.grant_index == grant_index) {
                        self.table.remove(&id);
                    }
                    let wishes = self.wishes.len();
                    self.wishes.retain(|_, wish| (wish.id, wish.grant_index) != (id.0, grant_index));
                    self.expired.fetch_add((wishes - self.wishes.len()) as u64, Relaxed);
                    self.cleared(id, now);
                }
                LeaseEvent::Checkpointed { id, grant_index, remaining_ttl } => {
                    if let Some(lease) = self.table.get_mut(&id).filter(|lease| lease.grant_index == grant_index) {
                        lease.remaining_ttl = remaining_ttl;
                    }
                    if remaining_ttl == 0 {
                        self.cleared(id, now);
                    }
                }
            }
        }
    }

    /// Answers the keep-alives that waited for a clearing.
    fn cleared(&mut self, id: LeaseId, now: MonoMillis) {
        let Some((_, replies)) = self.clearing.remove(&id) else { return };
        let outcome = match self.lessor.renew(id, now) {
            Renewal::Ok(ttl) => Ok(ttl),
            Renewal::Gone => Ok(0),
            // Another note came meanwhile; that needs its whole interval to pass, and the client asks again anyway.
            Renewal::NeedsClear(_) => Err(Error::Timeout),
        };
        replies.into_iter().for_each(|reply| answer(reply, outcome.clone()));
    }

    /// Renews a lease for a client whose read point is applied; returns the command that must be applied first, if any.
    pub(super) fn keep_alive(&mut self, id: LeaseId, now: MonoMillis, reply: Reply) -> Option<Command> {
        if self.lessor.term().is_none() {
            answer(reply, Err(Error::NotLeader));
            return None;
        }
        match self.lessor.renew(id, now) {
            Renewal::Ok(ttl) => answer(reply, Ok(ttl)),
            Renewal::Gone => answer(reply, Ok(0)),
            Renewal::NeedsClear(checkpoint) => {
                if let Some((_, replies)) = self.clearing.get_mut(&id) {
                    if replies.len() < PENDING_REQUESTS_MAX {
                        replies.push(reply);
                    } else {
                        answer(reply, Err(Error::TooManyRequests));
                    }
                } else {
                    let command = self.own_command(clearing(checkpoint));
                    self.clearing.insert(id, (command.id, vec![reply]));
                    return Some(command);
                }
            }
        }
        None
    }

    /// How long a lease has left.
    ///
    /// - Errors: `NotLeader` if this member does not judge leases.
    pub(super) fn remaining(&self, id: LeaseId, now: MonoMillis) -> Result<Option<Remaining>, Error> {
        self.lessor.term().map(|_| self.lessor.remaining(id, now)).ok_or(Error::NotLeader)
    }

    /// All leases, soonest to expire first.
    ///
    /// - Errors: `NotLeader` if this member does not judge leases.
    pub(super) fn list(&self) -> Result<Vec<LeaseId>, Error> {
        self.lessor.term().map(|_| self.lessor.list()).ok_or(Error::NotLeader)
    }

    /// The commands that note remaining times which are due.
    pub(super) fn checkpoints(&mut self, now: MonoMillis) -> Option<Command> {
        let checkpoints = self.lessor.checkpoints(now, LEASE_EXPIRE_BATCH_MAX);
        if checkpoints.is_empty() {
            return None;
        }
        Some(self.own_command(Request::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints })))
    }

    /// Returns the term in which a read point is wanted because some lease is overdue; one at a time.
    pub(super) fn wants_expiry_check(&mut self, now: MonoMillis) -> Option<Term> {
        let term = self.lessor.term()?;
        if self.checking || now < self.paused_until || self.lessor.next_due().is_none_or(|due| due > now) {
            return None;
        }
        self.checking = true;
        Some(term)
    }

    /// The commands that end the leases overdue at `asked`, when the read point was requested.
    pub(super) fn expire(&mut self, asked: MonoMillis, term: Term) -> Vec<Command> {
        if self.lessor.term() != Some(term) {
            return Vec::new();
        }
        self.checking = false;
        let wishes = self.lessor.expired(asked, LEASE_EXPIRE_BATCH_MAX);
        let mut commands = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let command = self.own_command(Request::LeaseExpire(wish));
            self.wishes.insert(command.id, wish);
            commands.push(command);
        }
        commands
    }

    /// Takes note that one of its own read points was refused; it asks again with the next tick. Returns the term in
    /// which a promotion must be tried again.
    pub(super) fn read_refused(&mut self, reader: &Reader) -> Option<Term> {
        match reader {
            Reader::Expiry { .. } => self.checking = false,
            Reader::Promotion { term } => return self.promoting.filter(|promoting| promoting == term),
            Reader::Client(_) | Reader::KeepAlive { .. } => {}
        }
        None
    }

    /// Takes note that a command was refused or is lost; returns whether it was one of the lessor's own.
    pub(super) fn undone(&mut self, command: u64, now: MonoMillis) -> bool {
        if command < OWN_COMMANDS {
            return false;
        }
        if let Some(wish) = self.wishes.remove(&command) {
            self.lessor.expire_failed(&wish, MonoMillis(now.0 + LEASE_EXPIRE_RETRY_MS));
        }
        let unclear = self.clearing.iter().find(|(_, (clears, _))| *clears == command).map(|(id, _)| *id);
        if let Some((_, replies)) = unclear.and_then(|id| self.clearing.remove(&id)) {
            replies.into_iter().for_each(|reply| answer(reply, Err(Error::TooManyRequests)));
        }
        true
    }

    fn own_command(&mut self, request: Request) -> Command {
        self.commands += 1;
        Command { id: OWN_COMMANDS + self.commands, request: Some(request), ..Command::default() }
    }
}

fn clearing(checkpoint: LeaseCheckpoint) -> Request {
    Request::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints: vec![checkpoint] })
}
