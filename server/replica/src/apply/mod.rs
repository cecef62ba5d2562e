//! Committed entries in; answers and events out: a pure function of (state, entry).

pub mod alarm;
mod check;
mod compact;
pub mod dedupe;
pub mod kv;
pub mod lease;
mod member;
pub mod state;
pub mod txn;

use crate::auth::effects::{Asked, Policy, permit};
use crate::command::decode;
use crate::conf::{Move, Moved};
use crate::digest::{Link, chain};
use crate::effect::{Entry, EntryKind};
use crate::limits::DIGEST_EVERY;
use crate::outcome::{Error, Fatal, Response};
use crate::store::Values;
use crate::types::{Index, LeaseId};
use check::Before;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use state::State;
use std::ops::RangeInclusive;

/// An answer for a client, unless this member can no longer be trusted.
pub type Answered<T> = Result<Result<T, Error>, Fatal>;

/// The boot whose clients wait on this member; for all other batches no answers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// This member.
    pub member: u64,
    /// Its boot counter.
    pub boot: u64,
}

/// What came of applied entries, collected over as many as the caller likes.
#[derive(Debug, Default, PartialEq)]
pub struct Outcomes {
    /// (command id, answer) of this boot's own commands, in order.
    pub answers: Vec<(u64, Result<Response, Error>)>,
    /// What the lessor must know, in order.
    pub lease_events: Vec<LeaseEvent>,
    /// The revisions that were written.
    pub revisions: Option<RangeInclusive<i64>>,
    /// The newest compaction.
    pub compaction: Option<i64>,
    /// Whether an alarm was raised or lowered.
    pub alarms_changed: bool,
    /// Whether the cluster's id, a member, or what is known of one changed.
    pub members_changed: bool,
    /// The membership changes that took effect, in order.
    pub moved: Vec<Moved>,
    /// (index, chain digest) at every [`DIGEST_EVERY`]th entry, for members to compare.
    pub digests: Vec<(Index, u64)>,
    /// What was done, for the metrics.
    pub counts: Counts,
}

/// Operations as etcd counts them: by what was asked, not by how many keys it touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ranges in txns that went through the log.
    pub ranges: u64,
    /// Puts, alone and in txns.
    pub puts: u64,
    /// Deletions, alone and in txns, and one for each key of a lease that ended.
    pub deletes: u64,
    /// Txns of more than one operation.
    pub txns: u64,
    /// (etcd's name of the command, whether it succeeded) of this boot's own commands, in order.
    pub commands: Vec<(&'static str, bool)>,
}

impl Counts {
    /// Counts the operations that a txn ran, nested ones too.
    pub fn txn(&mut self, done: &pb::TxnResponse) {
        let before = self.operations();
        self.branch(done);
        self.txns += u64::from(self.operations() - before > 1);
    }

    fn branch(&mut self, done: &pb::TxnResponse) {
        use pb::response_op::Response::{ResponseDeleteRange, ResponsePut, ResponseRange, ResponseTxn};
        for op in &done.responses {
            match &op.response {
                Some(ResponseRange(_)) => self.ranges += 1,
                Some(ResponsePut(_)) => self.puts += 1,
                Some(ResponseDeleteRange(_)) => self.deletes += 1,
                Some(ResponseTxn(nested)) => self.branch(nested),
                None => {}
            }
        }
    }

    fn operations(&self) -> u64 {
        self.ranges + self.puts + self.deletes
    }
}

/// A change of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// It begins.
    Granted {
        /// Which.
        id: LeaseId,
        /// Seconds.
        ttl: i64,
        /// The entry that granted it.
        grant_index: Index,
    },
    /// It ended, by a revoke or by its expiry.
    Revoked {
        /// Which.
        id: LeaseId,
        /// The entry that granted it.
        grant_index: Index,
    },
    /// Its remaining time was noted, or the note was cleared.
    Checkpointed {
        /// Which.
        id: LeaseId,
        /// The entry that granted it.
        grant_index: Index,
        /// Seconds; 0 clears.
        remaining_ttl: i64,
    },
}

/// Applies one committed entry.
///
/// - Shape: entries come in order without a gap; an empty normal entry only advances.
/// - Purity: state and outcomes depend on the entry and the state alone. `answer` and `values` decide only whether
///   read results are made and where old values are found, so `chain_digest` does not cover those.
/// - Errors: [`Fatal`] stops the process, with the state half-changed; an [`Error`] is part of the outcome.
pub fn apply(
    state: &mut State,
    entry: &Entry,
    answer: Answer,
    values: &dyn Values,
    out: &mut Outcomes,
) -> Result<(), Fatal> {
    if entry.index != state.applied_index + 1 {
        return Err(Fatal::Bug(format!("entry {} follows applied entry {}", entry.index, state.applied_index)));
    }
    let place = crc32c::crc32c_append(crc32c::crc32c(&entry.index.to_le_bytes()), &entry.term.to_le_bytes());
    let entry_crc = crc32c::crc32c_append(place, &entry.data);
    let mut digest = chain(state.chain_digest, &link(state, entry_crc, 0));
    if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
        let batch = decode(&entry.data)?;
        if state.windows.admit(batch.member, batch.boot, batch.number) {
            let awaited = (Answer { member: batch.member, boot: batch.boot }) == answer;
            for command in &batch.commands {
                let Some(request) = &command.request else {
                    return Err(Fatal::Bug(format!("entry {} holds a command unknown to this version", entry.index)));
                };
                let before = state.mvcc.revision();
                let outcome = match permit(Policy::Off, &command.user, Asked::Command(request), &state.leases) {
                    Ok(()) => Context { entry, awaited, values }.request(state, request, out)?,
                    Err(error) => Err(error),
                };
                digest = chain(digest, &link(state, entry_crc, status_code(&outcome)));
                note_revisions(out, before, state.mvcc.revision());
                if awaited {
                    out.counts.commands.push((name(request), outcome.is_ok()));
                    out.answers.push((command.id, outcome));
                }
            }
        }
    }
    if let Some(change) = Move::decode(entry)? {
        digest = chain(digest, &member::configure(state, entry, change, answer, out));
    }
    state.chain_digest = digest;
    (state.applied_index, state.applied_term) = (entry.index, entry.term);
    // Taken at the entry, however many are handed over at once: members compare what they have at the same places.
    if entry.index.is_multiple_of(DIGEST_EVERY) {
        out.digests.push((entry.index, digest));
    }
    Ok(())
}

/// What a command is applied with.
struct Context<'a> {
    entry: &'a Entry,
    awaited: bool,
    values: &'a dyn Values,
}

impl Context<'_> {
    fn request(&self, state: &mut State, request: &Request, out: &mut Outcomes) -> Answered<Response> {
        if refused_while_corrupt(request) && state.alarms.raised(pb::AlarmType::Corrupt) {
            return Ok(Err(Error::Corrupt));
        }
        let outcome = match request {
            Request::Put(put) => {
                let done = self.put(state, put)?;
                out.counts.puts += u64::from(done.is_ok());
                done
            }
            Request::DeleteRange(delete) => {
                out.counts.deletes += 1;
                self.delete_range(state, delete)?
            }
            Request::Txn(txn) => {
                let done = txn::txn(state, txn, self.awaited, self.values)?;
                done.iter().for_each(|done| out.counts.txn(done));
                done.map(Response::Txn)
            }
            Request::Compaction(compaction) => compact::compact(state, compaction, out),
            Request::LeaseGrant(grant) => lease::grant(state, grant, self.entry.index, out),
            Request::LeaseRevoke(revoke) => lease::revoke(state, LeaseId(revoke.id), out),
            Request::LeaseExpire(wish) => lease::expire(state, wish, self.entry.term, out),
            Request::LeaseCheckpoint(checkpoint) => lease::checkpoint(state, checkpoint, out),
            Request::Alarm(alarm) => {
                let (outcome, changed) = state.alarms.apply(alarm);
                out.alarms_changed |= changed;
                outcome
            }
            Request::MemberPublish(told) => member::publish(state, told, out),
            Request::ClusterInit(init) => member::init(state, init, out),
        };
        Ok(outcome)
    }

    fn put(&self, state: &mut State, put: &pb::PutRequest) -> Answered<Response> {
        let before = Before { mvcc: &state.mvcc, leases: &state.leases, values: self.values };
        if let Err(error) = before.put(put) {
            return Ok(Err(error));
        }
        let mut write = state.mvcc.write();
        kv::put(&mut write, &mut state.leases, put, self.awaited, self.values).map(|done| Ok(Response::Put(done)))
    }

    fn delete_range(&self, state: &mut State, delete: &pb::DeleteRangeRequest) -> Answered<Response> {
        let mut write = state.mvcc.write();
        let done = kv::delete_range(&mut write, &mut state.leases, delete, self.awaited, self.values)?;
        Ok(Ok(Response::DeleteRange(done)))
    }
}

/// The command's name as `etcd_server_apply_duration_seconds` has it.
fn name(request: &Request) -> &'static str {
    match request {
        Request::Put(_) => "Put",
        Request::DeleteRange(_) => "DeleteRange",
        Request::Txn(_) => "Txn",
        Request::Compaction(_) => "Compaction",
        Request::LeaseGrant(_) => "LeaseGrant",
        Request::LeaseRevoke(_) | Request::LeaseExpire(_) => "LeaseRevoke",
        Request::LeaseCheckpoint(_) => "LeaseCheckpoint",
        Request::Alarm(_) => "Alarm",
        Request::MemberPublish(_) => "ClusterMemberAttrSet",
        Request::ClusterInit(_) => "ClusterVersionSet",
    }
}

/// While members disagree about the data, nothing may build on them; alarms and the members' own business go on.
fn refused_while_corrupt(request: &Request) -> bool {
    match request {
        Request::Put(_)
        | Request::DeleteRange(_)
        | Request::Txn(_)
        | Request::Compaction(_)
        | Request::LeaseGrant(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseExpire(_) => true,
        Request::LeaseCheckpoint(_) | Request::Alarm(_) | Request::MemberPublish(_) | Request::ClusterInit(_) => false,
    }
}

/// A header that holds only the revision; the answering member fills in the rest.
fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn note_revisions(out: &mut Outcomes, before: i64, after: i64) {
    if after > before {
        let first = out.revisions.as_ref().map_or(before + 1, |revisions| *revisions.start());
        out.revisions = Some(first..=after);
    }
}

/// What one command, or an entry itself, did: the content sum stands for its writes.
fn link(state: &State, command_crc: u32, status: u32) -> Link {
    Link { command_crc, status, revision: state.mvcc.revision(), writes: state.mvcc.content_sum() }
}

/// Numbers the outcomes that applying can have; persisted in digests, so a number is never given anew.
fn status_code(outcome: &Result<Response, Error>) -> u32 {
    match outcome {
        Ok(_) => 0,
        Err(Error::KeyNotFound) => 1,
        Err(Error::LeaseNotFound) => 2,
        Err(Error::LeaseExists) => 3,
        Err(Error::LeaseTtlTooLarge) => 4,
        Err(Error::Compacted) => 5,
        Err(Error::FutureRevision) => 6,
        Err(Error::Corrupt) => 7,
        Err(Error::MemberNotFound) => 8,
        Err(Error::PermissionDenied) => 9,
        Err(Error::MemberNotLearner) => 10,
        Err(Error::NotEnoughStartedMembers) => 11,
        Err(Error::UnhealthyCluster) => 12,
        Err(_) => 255,
    }
}

#[cfg(test)]
mod tests;
