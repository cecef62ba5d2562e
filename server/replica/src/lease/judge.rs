//! When a member's lessor may judge, what it proposes, and who waits for a renewal.
//!
//! It judges from the moment when a read point requested in this term is applied here, so that it knows every grant and
//! renewal note of earlier terms, until this member no longer leads. A lease ends only by a wish that is proposed after a
//! read point requested after the deadline: no other leader can have renewed it meanwhile, and keep-alives that arrived
//! before are served first.

use super::lessor::{Lessor, Remaining, Renewal};
use crate::apply::LeaseEvent;
use crate::apply::lease::Leases as Table;
use crate::effect::{Role, RoleKind};
use crate::limits::{LEASE_EXPIRE_BATCH_MAX, LEASE_EXPIRE_RETRY_MS, LEASE_PAUSE_GRACE_MS, PENDING_REQUESTS_MAX};
use crate::member::Token;
use crate::outcome::{Error, Fatal};
use crate::propose::OWN_COMMANDS;
use crate::types::{LeaseId, MonoMillis, Term};
use mechi_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest};
use mechi_proto::mechipb::{self, LeaseExpire, command::Request};
use std::collections::BTreeMap;

/// The leases as one member knows them, and the lessor while it leads.
pub(crate) struct Judge {
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
    expired: u64,
    commands: u64,
    /// Wishes that may still be refused, by command id.
    wishes: BTreeMap<u64, LeaseExpire>,
    /// Keep-alives that wait until the note of a remaining time is cleared, and the command that clears it.
    clearing: BTreeMap<LeaseId, (u64, Vec<Token>)>,
    /// Renewals whose outcome is known since the last [`Judge::take_renewed`].
    renewed: Vec<Renewed>,
}

/// A keep-alive's outcome: the lease's new time to live in seconds, 0 if there is no such lease.
pub(crate) type Renewed = (Token, Result<i64, Error>);

impl Judge {
    /// Begins with the leases of the applied state.
    ///
    /// - Errors: [`Fatal`] if they are no leases.
    pub(crate) fn new(leases: Vec<mechipb::Lease>, extend_ms: u64, checkpoint_interval_ms: u64) -> Result<Self, Fatal> {
        Table::from_meta(leases.clone())?;
        Ok(Self {
            table: leases.into_iter().map(|lease| (LeaseId(lease.id), lease)).collect(),
            lessor: Lessor::new(checkpoint_interval_ms),
            extend_ms,
            promoting: None,
            checking: false,
            paused_until: MonoMillis::default(),
            expired: 0,
            commands: 0,
            wishes: BTreeMap::new(),
            clearing: BTreeMap::new(),
            renewed: Vec::new(),
        })
    }

    /// Counts the leases that ended by this member's wish.
    pub(crate) fn expired(&self) -> u64 {
        self.expired
    }

    /// Takes the outcomes of keep-alives.
    pub(crate) fn take_renewed(&mut self) -> Vec<Renewed> {
        std::mem::take(&mut self.renewed)
    }

    /// Takes note that the process was stopped until `now`, as by SIGSTOP or a suspended machine.
    pub(crate) fn paused(&mut self, now: MonoMillis) {
        self.paused_until = MonoMillis(now.0 + LEASE_PAUSE_GRACE_MS);
    }

    /// Takes note of a change in leadership; returns whether a read point is now wanted for [`Judge::promote`].
    pub(crate) fn role_changed(&mut self, role: Role) -> bool {
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
        for (_, tokens) in std::mem::take(&mut self.clearing).into_values() {
            self.renewed.extend(tokens.into_iter().map(|token| (token, Err(Error::NotLeader))));
        }
    }

    /// Tells whether this member judges leases, or is about to.
    pub(crate) fn may_judge(&self) -> bool {
        self.promoting.is_some() || self.lessor.term().is_some()
    }

    /// Tells whether this member judges leases now.
    pub(crate) fn judges(&self) -> bool {
        self.lessor.term().is_some()
    }

    /// Begins to judge leases; returns whether it does.
    pub(crate) fn promote(&mut self, term: Term, now: MonoMillis) -> bool {
        if self.promoting != Some(term) {
            return false;
        }
        self.promoting = None;
        let table = Table::from_meta(self.table.values().cloned().collect());
        let table = table.expect("leases that were granted by applied entries are leases");
        self.lessor.promote(term, now, &table, self.extend_ms);
        true
    }

    /// Takes the events of applied entries.
    pub(crate) fn applied(&mut self, events: &[LeaseEvent], now: MonoMillis) {
        for event in events {
            self.lessor.applied(event, now);
            match *event {
                LeaseEvent::Granted { id, ttl, grant_index } => {
                    self.table.insert(id, mechipb::Lease { id: id.0, ttl, remaining_ttl: 0, grant_index });
                }
                LeaseEvent::Revoked { id, grant_index } => {
                    if self.table.get(&id).is_some_and(|lease| lease.grant_index == grant_index) {
                        self.table.remove(&id);
                    }
                    let wishes = self.wishes.len();
                    self.wishes.retain(|_, wish| (wish.id, wish.grant_index) != (id.0, grant_index));
                    self.expired += (wishes - self.wishes.len()) as u64;
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
        let Some((_, tokens)) = self.clearing.remove(&id) else { return };
        let outcome = match self.lessor.renew(id, now) {
            Renewal::Ok(ttl) => Ok(ttl),
            Renewal::Gone => Ok(0),
            // Another note came meanwhile; that needs its whole interval to pass, and the client asks again anyway.
            Renewal::NeedsClear(_) => Err(Error::Timeout),
        };
        self.renewed.extend(tokens.into_iter().map(|token| (token, outcome.clone())));
    }

    /// Renews a lease for a client whose read point is applied; returns the command that must be applied first, if any.
    pub(crate) fn keep_alive(&mut self, id: LeaseId, now: MonoMillis, token: Token) -> Option<(u64, Request)> {
        let outcome = match self.lessor.term().map(|_| self.lessor.renew(id, now)) {
            None => Err(Error::NotLeader),
            Some(Renewal::Ok(ttl)) => Ok(ttl),
            Some(Renewal::Gone) => Ok(0),
            Some(Renewal::NeedsClear(checkpoint)) => match self.clearing.get_mut(&id) {
                Some((_, tokens)) if tokens.len() < PENDING_REQUESTS_MAX => {
                    tokens.push(token);
                    return None;
                }
                Some(_) => Err(Error::TooManyRequests),
                None => {
                    let command = self.own_command(clearing(checkpoint));
                    self.clearing.insert(id, (command.0, vec![token]));
                    return Some(command);
                }
            },
        };
        self.renewed.push((token, outcome));
        None
    }

    /// How long a lease has left.
    ///
    /// - Errors: `NotLeader` if this member does not judge leases: only a lessor knows.
    pub(crate) fn remaining(&self, id: LeaseId, now: MonoMillis) -> Result<Option<Remaining>, Error> {
        self.lessor.term().map(|_| self.lessor.remaining(id, now)).ok_or(Error::NotLeader)
    }

    /// All leases: soonest to expire first where this member judges them, else by id, as nobody here knows better.
    pub(crate) fn list(&self) -> Vec<LeaseId> {
        match self.lessor.term() {
            Some(_) => self.lessor.list(),
            None => self.table.keys().copied().collect(),
        }
    }

    /// The command that notes the remaining times which are due, with its id.
    pub(crate) fn checkpoints(&mut self, now: MonoMillis) -> Option<(u64, Request)> {
        let checkpoints = self.lessor.checkpoints(now, LEASE_EXPIRE_BATCH_MAX);
        if checkpoints.is_empty() {
            return None;
        }
        Some(self.own_command(Request::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints })))
    }

    /// Returns the term in which a read point is wanted because some lease is overdue; one at a time.
    pub(crate) fn wants_expiry_check(&mut self, now: MonoMillis) -> Option<Term> {
        let term = self.lessor.term()?;
        if self.checking || now < self.paused_until || self.lessor.next_due().is_none_or(|due| due > now) {
            return None;
        }
        self.checking = true;
        Some(term)
    }

    /// The commands, with their ids, that end the leases overdue at `asked`, when the read point was requested.
    pub(crate) fn expire(&mut self, asked: MonoMillis, term: Term) -> Vec<(u64, Request)> {
        if self.lessor.term() != Some(term) {
            return Vec::new();
        }
        self.checking = false;
        let wishes = self.lessor.expired(asked, LEASE_EXPIRE_BATCH_MAX);
        let mut commands = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let command = self.own_command(Request::LeaseExpire(wish));
            self.wishes.insert(command.0, wish);
            commands.push(command);
        }
        commands
    }

    /// Takes note that the read point for a check of deadlines was refused; it is asked for again with the next tick.
    pub(crate) fn check_refused(&mut self) {
        self.checking = false;
    }

    /// Tells whether a read point for a promotion in `term` is still wanted.
    pub(crate) fn is_promoting(&self, term: Term) -> bool {
        self.promoting == Some(term)
    }

    /// Takes note that one of its own commands was refused or is lost.
    pub(crate) fn undone(&mut self, command: u64, now: MonoMillis) {
        if let Some(wish) = self.wishes.remove(&command) {
            self.lessor.expire_failed(&wish, MonoMillis(now.0 + LEASE_EXPIRE_RETRY_MS));
        }
        let unclear = self.clearing.iter().find(|(_, (clears, _))| *clears == command).map(|(id, _)| *id);
        if let Some((_, tokens)) = unclear.and_then(|id| self.clearing.remove(&id)) {
            self.renewed.extend(tokens.into_iter().map(|token| (token, Err(Error::TooManyRequests))));
        }
    }

    /// Gives an own request its id.
    pub(crate) fn own_command(&mut self, request: Request) -> (u64, Request) {
        self.commands += 1;
        (OWN_COMMANDS + self.commands, request)
    }
}

fn clearing(checkpoint: LeaseCheckpoint) -> Request {
    Request::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints: vec![checkpoint] })
}
