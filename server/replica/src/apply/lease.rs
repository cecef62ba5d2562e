//! Leases as every member sees them: that they exist, and which keys live by them. Time is the lessor's.

use super::state::State;
use super::{LeaseEvent, Outcomes};
use crate::limits::LEASE_TTL_MAX;
use crate::mvcc::Mvcc;
use crate::outcome::{Error, Fatal, Response};
use crate::store::Values;
use crate::types::{Index, KeyRange, LeaseId, Term};
use bytes::Bytes;
use mechi_proto::{etcdserverpb as pb, mechipb};
use std::collections::{BTreeMap, BTreeSet};

/// One lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Seconds, as granted.
    pub ttl: i64,
    /// Seconds left at the last checkpoint; 0 if none was written since the last renewal.
    pub remaining_ttl: i64,
    /// The entry that granted it: an id may be granted again, and this tells the grants apart.
    pub grant_index: Index,
    keys: BTreeSet<Bytes>,
}

impl Lease {
    /// The keys attached to it, ascending.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.keys.iter()
    }
}

/// All leases, and the keys attached to them.
///
/// Invariant: `attached` and the leases' key sets say the same; a key is attached to one lease at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    attached: BTreeMap<Bytes, LeaseId>,
}

impl Leases {
    /// The lease `id`, if it is granted.
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// All leases, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (LeaseId, &Lease)> {
        self.leases.iter().map(|(&id, lease)| (id, lease))
    }

    /// The lease that `key` is attached to.
    pub fn of_key(&self, key: &[u8]) -> Option<LeaseId> {
        self.attached.get(key).copied()
    }

    /// Attaches `key` to `lease`, or with 0 or an unknown lease to none, in place of what it was attached to.
    pub fn attach(&mut self, key: &[u8], lease: LeaseId) {
        if self.of_key(key) == Some(lease) {
            return;
        }
        self.detach(key);
        if let Some(found) = self.leases.get_mut(&lease) {
            let key = Bytes::copy_from_slice(key);
            found.keys.insert(key.clone());
            self.attached.insert(key, lease);
        }
    }

    /// Detaches `key`, which was deleted or put without a lease.
    pub fn detach(&mut self, key: &[u8]) {
        if let Some(lease) = self.attached.remove(key)
            && let Some(lease) = self.leases.get_mut(&lease)
        {
            lease.keys.remove(key);
        }
    }

    /// Attaches every live key anew, loading the values that are not in memory; for a restore that cannot tell the
    /// leases while it reads the records.
    pub fn attach_from_mvcc(&mut self, mvcc: &Mvcc, values: &dyn Values) -> Result<(), Fatal> {
        if self.leases.is_empty() {
            return Ok(());
        }
        let mut failed = Ok(());
        mvcc.scan(&KeyRange::all(), mvcc.revision(), &mut |item| {
            let attach = item.record(values).and_then(|record| match record.fields() {
                Some(fields) => {
                    self.attach(fields.key, LeaseId(fields.lease));
                    Ok(())
                }
                None => Err(Fatal::Bug(format!("record of revision {} is malformed", item.mod_revision))),
            });
            match attach {
                Ok(()) => true,
                Err(fatal) => {
                    failed = Err(fatal);
                    false
                }
            }
        });
        failed
    }

    /// The stored form, without the attachments, which the records hold.
    pub fn to_meta(&self) -> Vec<mechipb::Lease> {
        let lease = |(id, lease): (LeaseId, &Lease)| mechipb::Lease {
            id: id.0,
            ttl: lease.ttl,
            remaining_ttl: lease.remaining_ttl,
            grant_index: lease.grant_index,
        };
        self.iter().map(lease).collect()
    }

    /// Reads the stored form; no key is attached yet. Errors: [`Fatal::Bug`] on a lease 0 or one that is there twice.
    pub fn from_meta(meta: Vec<mechipb::Lease>) -> Result<Self, Fatal> {
        let mut leases = Self::default();
        for mechipb::Lease { id, ttl, remaining_ttl, grant_index } in meta {
            let lease = Lease { ttl, remaining_ttl, grant_index, keys: BTreeSet::new() };
            if id == 0 || leases.leases.insert(LeaseId(id), lease).is_some() {
                return Err(Fatal::Bug(format!("lease {id} is malformed or there twice")));
            }
        }
        Ok(leases)
    }
}

/// Grants the lease with the id and the TTL that the shell chose.
///
/// - Errors, in etcd's order: [`Error::LeaseNotFound`] for id 0, [`Error::LeaseTtlTooLarge`], [`Error::LeaseExists`].
pub(super) fn grant(
    state: &mut State,
    request: &pb::LeaseGrantRequest,
    index: Index,
    out: &mut Outcomes,
) -> Result<Response, Error> {
    let &pb::LeaseGrantRequest { ttl, id } = request;
    if id == 0 {
        return Err(Error::LeaseNotFound);
    }
    if ttl > LEASE_TTL_MAX {
        return Err(Error::LeaseTtlTooLarge);
    }
    if state.leases.leases.contains_key(&LeaseId(id)) {
        return Err(Error::LeaseExists);
    }
    let lease = Lease { ttl, remaining_ttl: 0, grant_index: index, keys: BTreeSet::new() };
    state.leases.leases.insert(LeaseId(id), lease);
    out.lease_events.push(LeaseEvent::Granted { id: LeaseId(id), ttl, grant_index: index });
    let header = super::header(state.mvcc.revision());
    Ok(Response::LeaseGrant(pb::LeaseGrantResponse { header, id, ttl, error: String::new() }))
}

/// Revokes the lease: its keys are deleted, ascending, in one revision.
pub(super) fn revoke(state: &mut State, id: LeaseId, out: &mut Outcomes) -> Result<Response, Error> {
    let lease = state.leases.leases.remove(&id).ok_or(Error::LeaseNotFound)?;
    out.counts.deletes += lease.keys.len() as u64;
    out.counts.txns += u64::from(lease.keys.len() > 1);
    let mut write = state.mvcc.write();
    for key in &lease.keys {
        write.delete(key);
        state.leases.attached.remove(key);
    }
    out.lease_events.push(LeaseEvent::Revoked { id, grant_index: lease.grant_index });
    Ok(Response::LeaseRevoke(pb::LeaseRevokeResponse { header: super::header(state.mvcc.revision()) }))
}

/// Ends the lease as its leader wished, unless the id was granted anew since, or the wish is of another leader's term:
/// a deposed lessor no longer knows who renewed.
pub(super) fn expire(
    state: &mut State,
    wish: &mechipb::LeaseExpire,
    term: Term,
    out: &mut Outcomes,
) -> Result<Response, Error> {
    let id = LeaseId(wish.id);
    let current = state.leases.get(id).is_some_and(|lease| lease.grant_index == wish.grant_index);
    let timely = wish.term == term;
    #[cfg(feature = "mutants")]
    let timely = timely || crate::mutants::active("lease_revoked_by_deposed_leader");
    if current && timely {
        revoke(state, id, out)?;
    }
    Ok(Response::Internal)
}

/// Notes how long leases have left, so that the next leader does not start them anew; 0 clears the note.
pub(super) fn checkpoint(
    state: &mut State,
    request: &pb::LeaseCheckpointRequest,
    out: &mut Outcomes,
) -> Result<Response, Error> {
    for &pb::LeaseCheckpoint { id, remaining_ttl } in &request.checkpoints {
        // A lease that ended in the meantime needs no note, and the others still do.
        if let Some(lease) = state.leases.leases.get_mut(&LeaseId(id)) {
            lease.remaining_ttl = remaining_ttl.min(lease.ttl).max(0);
            out.lease_events.push(LeaseEvent::Checkpointed {
                id: LeaseId(id),
                grant_index: lease.grant_index,
                remaining_ttl: lease.remaining_ttl,
            });
        }
    }
    Ok(Response::Internal)
}
