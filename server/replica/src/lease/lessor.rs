//! The leader's deadlines: who may live how long, on this boot's monotonic clock.

use crate::apply::LeaseEvent;
use crate::apply::lease::Leases;
use crate::types::{Index, LeaseId, MonoMillis, Term};
use mechi_proto::etcdserverpb::LeaseCheckpoint;
use mechi_proto::mechipb::LeaseExpire;
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds between two notes of a lease's remaining time (etcd: 5 minutes).
pub const CHECKPOINT_INTERVAL_MS: u64 = 5 * 60 * 1_000;

/// Times the leases of the replicated state while this member leads; a pure machine that the driver asks and tells.
///
/// That a lease exists is the state's to say: the lessor learns it by [`Lessor::promote`] and then from the events of
/// applied entries. What it wants to happen it only proposes. Every operation is O(log n) per lease it touches.
///
/// Invariant: a lease is in `deadlines` unless its expiry was proposed and not yet answered; in `notes` only while it
/// is in `deadlines`.
#[derive(Debug)]
pub struct Lessor {
    checkpoint_interval_ms: u64,
    term: Option<Term>,
    leases: BTreeMap<LeaseId, Held>,
    deadlines: BTreeSet<(MonoMillis, LeaseId)>,
    notes: BTreeSet<(MonoMillis, LeaseId)>,
}

impl Default for Lessor {
    /// Notes remaining times as often as etcd does.
    fn default() -> Self {
        Self::new(CHECKPOINT_INTERVAL_MS)
    }
}

/// One lease as its leader times it.
#[derive(Debug)]
struct Held {
    ttl: i64,
    grant_index: Index,
    deadline: MonoMillis,
    /// When its remaining time is noted next, if it is long enough for that.
    note: Option<MonoMillis>,
    /// A note of its remaining time is in the log, or on its way there.
    noted: bool,
    /// Its expiry was proposed: it may end at any moment and must not be renewed any more.
    expiring: bool,
}

/// What became of a keep-alive.
#[derive(Clone, Debug, PartialEq)]
pub enum Renewal {
    /// It lives this many seconds more.
    Ok(i64),
    /// A note of its remaining time stands in the log: with it the next leader would end the renewed lease too early.
    /// Propose this checkpoint, which clears it, and ask again once it is applied.
    NeedsClear(LeaseCheckpoint),
    /// There is no such lease, or its expiry is on its way; a client hears a TTL of 0.
    Gone,
}

/// How long a lease has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Whole seconds left, rounded down; 0 if it is overdue.
    pub ttl: i64,
    /// Seconds, as granted.
    pub granted_ttl: i64,
}

impl Lessor {
    /// Makes a lessor that times nothing yet and will note the remaining time of leases that live longer than this.
    pub fn new(checkpoint_interval_ms: u64) -> Self {
        Self {
            checkpoint_interval_ms,
            term: None,
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            notes: BTreeSet::new(),
        }
    }

    /// Begins to time the leases of the state, when this member leads and has applied an entry of its own term.
    ///
    /// A lease starts with what its last note left, else with its whole TTL, and `extend_ms` (an election timeout)
    /// more: the old leader may have renewed it until the last moment.
    pub fn promote(&mut self, term: Term, now: MonoMillis, leases: &Leases, extend_ms: u64) {
        self.demote();
        self.term = Some(term);
        for (id, lease) in leases.iter() {
            let noted = lease.remaining_ttl > 0;
            let seconds = if noted { lease.remaining_ttl } else { lease.ttl };
            self.hold(id, lease.ttl, lease.grant_index, after(after_seconds(now, seconds), extend_ms), noted, now);
        }
    }

    /// Stops: another member may lead, and times the leases from now on.
    pub fn demote(&mut self) {
        *self = Self::new(self.checkpoint_interval_ms);
    }

    /// The term it times leases for; `None` if this member does not lead.
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    /// Takes an event of an applied entry. One that the promotion's state already contained changes nothing.
    pub fn applied(&mut self, event: &LeaseEvent, now: MonoMillis) {
        if self.term.is_none() {
            return;
        }
        match *event {
            LeaseEvent::Granted { id, ttl, grant_index } => {
                if self.leases.get(&id).is_none_or(|held| held.grant_index < grant_index) {
                    self.drop_lease(id);
                    self.hold(id, ttl, grant_index, after_seconds(now, ttl), false, now);
                }
            }
            LeaseEvent::Revoked { id, grant_index } => {
                if self.held(id, grant_index) {
                    self.drop_lease(id);
                }
            }
            LeaseEvent::Checkpointed { id, grant_index, remaining_ttl } => {
                if self.held(id, grant_index)
                    && let Some(held) = self.leases.get_mut(&id)
                {
                    held.noted = remaining_ttl > 0;
                }
            }
        }
    }

    /// Renews a lease. The caller answers its client only once it holds a read point requested after the keep-alive
    /// came, as [`Lessor`] cannot know that this member still leads.
    pub fn renew(&mut self, id: LeaseId, now: MonoMillis) -> Renewal {
        let Some(held) = self.leases.get_mut(&id).filter(|held| !held.expiring) else { return Renewal::Gone };
        if held.noted {
            // No new note while the clearing is on its way: once that is applied, nothing must be left to clear.
            if let Some(note) = held.note {
                let next = after(now, self.checkpoint_interval_ms);
                held.note = Some(next);
                self.notes.remove(&(note, id));
                self.notes.insert((next, id));
            }
            return Renewal::NeedsClear(LeaseCheckpoint { id: id.0, remaining_ttl: 0 });
        }
        let (ttl, grant_index) = (held.ttl, held.grant_index);
        self.drop_lease(id);
        self.hold(id, ttl, grant_index, after_seconds(now, ttl), false, now);
        Renewal::Ok(ttl)
    }

    /// How long a lease has left.
    pub fn remaining(&self, id: LeaseId, now: MonoMillis) -> Option<Remaining> {
        let held = self.leases.get(&id)?;
        Some(Remaining { ttl: (left_ms(held, now) / 1_000) as i64, granted_ttl: held.ttl })
    }

    /// The wishes to end what is overdue, longest overdue first, at most `max`. A clock of whole milliseconds may have
    /// begun the countdown almost one before the lease was renewed, so that it is overdue one after its deadline. Each is given once: it is answered by
    /// a [`LeaseEvent::Revoked`], or by the caller's [`Lessor::expire_failed`].
    pub fn expired(&mut self, now: MonoMillis, max: usize) -> Vec<LeaseExpire> {
        let Some(term) = self.term else { return Vec::new() };
        let mut wishes = Vec::new();
        while wishes.len() < max
            && let Some(&(deadline, id)) = self.deadlines.first()
            && deadline < now
        {
            self.deadlines.pop_first();
            let held = self.leases.get_mut(&id).expect("a deadline belongs to a lease");
            held.expiring = true;
            if let Some(note) = held.note.take() {
                self.notes.remove(&(note, id));
            }
            wishes.push(LeaseExpire { id: id.0, grant_index: held.grant_index, term });
        }
        wishes
    }

    /// Asks for the wish to be made again at `retry_at`: it was refused, its outcome is unknown, or it failed.
    ///
    /// The lease is not renewed in the meantime: an unknown outcome may still end it.
    pub fn expire_failed(&mut self, wish: &LeaseExpire, retry_at: MonoMillis) {
        let id = LeaseId(wish.id);
        if self.term == Some(wish.term)
            && self.held(id, wish.grant_index)
            && let Some(held) = self.leases.get_mut(&id)
            && held.expiring
        {
            self.deadlines.remove(&(held.deadline, id));
            held.deadline = retry_at;
            self.deadlines.insert((retry_at, id));
        }
    }

    /// The notes of remaining time that are due, at most `max`; seconds are rounded up. A note that gets lost is made
    /// anew after the interval.
    pub fn checkpoints(&mut self, now: MonoMillis, max: usize) -> Vec<LeaseCheckpoint> {
        let mut checkpoints = Vec::new();
        while checkpoints.len() < max
            && let Some(&(due, id)) = self.notes.first()
            && due <= now
        {
            self.notes.pop_first();
            let held = self.leases.get_mut(&id).expect("a note belongs to a lease");
            held.note = None;
            let left = left_ms(held, now).div_ceil(1_000);
            if left > 0 {
                // From here on the note may come to be applied, so a renewal must clear it in any case.
                held.noted = true;
                checkpoints.push(LeaseCheckpoint { id: id.0, remaining_ttl: left as i64 });
            }
            if left_ms(held, now) > self.checkpoint_interval_ms {
                let next = after(now, self.checkpoint_interval_ms);
                held.note = Some(next);
                self.notes.insert((next, id));
            }
        }
        checkpoints
    }

    /// All leases, soonest to expire first, those that are about to end before them.
    pub fn list(&self) -> Vec<LeaseId> {
        let mut leases: Vec<_> = self.leases.iter().map(|(&id, held)| (!held.expiring, held.deadline, id)).collect();
        leases.sort_unstable();
        leases.into_iter().map(|(_, _, id)| id).collect()
    }

    /// When [`Lessor::expired`] or [`Lessor::checkpoints`] will next have something to say.
    pub fn next_due(&self) -> Option<MonoMillis> {
        let deadline = self.deadlines.first().map(|&(deadline, _)| after(deadline, 1));
        deadline.into_iter().chain(self.notes.first().map(|&(due, _)| due)).min()
    }

    fn held(&self, id: LeaseId, grant_index: Index) -> bool {
        self.leases.get(&id).is_some_and(|held| held.grant_index == grant_index)
    }

    fn hold(&mut self, id: LeaseId, ttl: i64, grant_index: Index, deadline: MonoMillis, noted: bool, now: MonoMillis) {
        let mut held = Held { ttl, grant_index, deadline, note: None, noted, expiring: false };
        self.deadlines.insert((deadline, id));
        if left_ms(&held, now) > self.checkpoint_interval_ms {
            let due = after(now, self.checkpoint_interval_ms);
            held.note = Some(due);
            self.notes.insert((due, id));
        }
        self.leases.insert(id, held);
    }

    fn drop_lease(&mut self, id: LeaseId) {
        if let Some(held) = self.leases.remove(&id) {
            self.deadlines.remove(&(held.deadline, id));
            if let Some(note) = held.note {
                self.notes.remove(&(note, id));
            }
        }
    }
}

fn after(start: MonoMillis, ms: u64) -> MonoMillis {
    MonoMillis(start.0.saturating_add(ms))
}

fn after_seconds(start: MonoMillis, seconds: i64) -> MonoMillis {
    after(start, u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000))
}

fn left_ms(held: &Held, now: MonoMillis) -> u64 {
    held.deadline.0.saturating_sub(now.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;
    const ONE: LeaseId = LeaseId(1);

    fn at(ms: u64) -> MonoMillis {
        MonoMillis(ms)
    }

    fn granted(id: i64, ttl: i64, grant_index: Index) -> LeaseEvent {
        LeaseEvent::Granted { id: LeaseId(id), ttl, grant_index }
    }

    fn leader(leases: &[(i64, i64, i64)]) -> Lessor {
        let meta = leases.iter().map(|&(id, ttl, remaining_ttl)| mechi_proto::mechipb::Lease {
            id,
            ttl,
            remaining_ttl,
            grant_index: 1,
        });
        let mut lessor = Lessor::default();
        lessor.promote(7, at(0), &Leases::from_meta(meta.collect()).unwrap(), 500);
        lessor
    }

    #[test]
    fn a_follower_times_nothing() {
        let mut lessor = Lessor::default();
        lessor.applied(&granted(1, 2, 5), at(0));
        assert_eq!(lessor.renew(ONE, at(0)), Renewal::Gone);
        assert!(lessor.expired(at(u64::MAX), 9).is_empty());
        let mut lessor = leader(&[(1, 2, 0)]);
        lessor.demote();
        assert!(lessor.expired(at(u64::MAX), 9).is_empty() && lessor.list().is_empty());
    }

    #[test]
    fn an_expiry_is_wished_once_and_blocks_renewal() {
        let mut lessor = leader(&[]);
        lessor.applied(&granted(1, 2, 5), at(0));
        assert!(lessor.expired(at(2 * SECOND), 9).is_empty());
        assert_eq!(lessor.renew(ONE, at(SECOND)), Renewal::Ok(2));
        assert!(lessor.expired(at(3 * SECOND), 9).is_empty());
        let wish = LeaseExpire { id: 1, grant_index: 5, term: 7 };
        assert_eq!(lessor.expired(at(3 * SECOND + 1), 9), [wish]);
        assert!(lessor.expired(at(9 * SECOND), 9).is_empty(), "it was wished already");
        assert_eq!(lessor.renew(ONE, at(3 * SECOND)), Renewal::Gone, "the wish may be applied at any moment");
        lessor.expire_failed(&wish, at(10 * SECOND));
        assert_eq!(lessor.renew(ONE, at(9 * SECOND)), Renewal::Gone);
        assert!(lessor.expired(at(10 * SECOND), 9).is_empty());
        assert_eq!(lessor.expired(at(10 * SECOND + 1), 9), [wish]);
        lessor.applied(&LeaseEvent::Revoked { id: ONE, grant_index: 5 }, at(11 * SECOND));
        lessor.expire_failed(&wish, at(11 * SECOND));
        assert!(lessor.expired(at(99 * SECOND), 9).is_empty() && lessor.next_due().is_none());
    }

    #[test]
    fn an_overdue_lease_is_renewed_until_its_end_is_wished() {
        let mut lessor = leader(&[]);
        lessor.applied(&granted(1, 2, 5), at(0));
        assert_eq!(lessor.renew(ONE, at(30 * SECOND)), Renewal::Ok(2));
        assert!(lessor.expired(at(31 * SECOND), 9).is_empty());
    }

    #[test]
    fn a_new_leader_extends_by_the_election_timeout() {
        let mut lessor = leader(&[(1, 2, 0)]);
        assert!(lessor.expired(at(2 * SECOND + 500), 9).is_empty());
        assert_eq!(lessor.expired(at(2 * SECOND + 501), 9).len(), 1);
    }

    #[test]
    fn reg_lease_checkpoint() {
        // A noted lease keeps its remaining time over a leader change; etcd's began anew (14253).
        let mut lessor = leader(&[(1, 1_000, 10)]);
        assert_eq!(lessor.remaining(ONE, at(0)), Some(Remaining { ttl: 10, granted_ttl: 1_000 }));
        let clear = LeaseCheckpoint { id: 1, remaining_ttl: 0 };
        assert_eq!(lessor.renew(ONE, at(0)), Renewal::NeedsClear(clear));
        lessor.applied(&LeaseEvent::Checkpointed { id: ONE, grant_index: 1, remaining_ttl: 0 }, at(SECOND));
        assert_eq!(lessor.renew(ONE, at(SECOND)), Renewal::Ok(1_000));
        assert_eq!(lessor.remaining(ONE, at(SECOND)), Some(Remaining { ttl: 1_000, granted_ttl: 1_000 }));
    }

    #[test]
    fn a_note_on_its_way_must_be_cleared_by_a_renewal() {
        let mut lessor = leader(&[]);
        lessor.applied(&granted(1, 1_000, 5), at(0));
        lessor.applied(&granted(2, 299, 6), at(0));
        assert!(lessor.checkpoints(at(CHECKPOINT_INTERVAL_MS - 1), 9).is_empty());
        let note = LeaseCheckpoint { id: 1, remaining_ttl: 700 };
        assert_eq!(lessor.checkpoints(at(CHECKPOINT_INTERVAL_MS), 9), [note], "the short one is never noted");
        assert!(matches!(lessor.renew(ONE, at(CHECKPOINT_INTERVAL_MS)), Renewal::NeedsClear(_)));
        assert!(lessor.checkpoints(at(CHECKPOINT_INTERVAL_MS), 9).is_empty());
        assert_eq!(lessor.checkpoints(at(2 * CHECKPOINT_INTERVAL_MS), 9).len(), 1);
        assert!(matches!(lessor.renew(ONE, at(2 * CHECKPOINT_INTERVAL_MS + 1)), Renewal::NeedsClear(_)));
    }

    #[test]
    fn events_of_an_earlier_grant_do_not_touch_the_later_one() {
        let mut lessor = leader(&[]);
        lessor.applied(&granted(1, 100, 9), at(0));
        lessor.applied(&granted(1, 2, 5), at(0));
        lessor.applied(&LeaseEvent::Revoked { id: ONE, grant_index: 5 }, at(0));
        lessor.applied(&LeaseEvent::Checkpointed { id: ONE, grant_index: 5, remaining_ttl: 1 }, at(0));
        assert_eq!(lessor.renew(ONE, at(0)), Renewal::Ok(100));
    }

    #[test]
    fn lists_by_expiry_and_bounds_a_batch() {
        let mut lessor = leader(&[(1, 30, 0), (2, 10, 0), (3, 20, 0)]);
        assert_eq!(lessor.list(), [LeaseId(2), LeaseId(3), LeaseId(1)]);
        assert_eq!(lessor.next_due(), Some(at(10 * SECOND + 501)));
        let ids = |wishes: Vec<LeaseExpire>| wishes.iter().map(|wish| wish.id).collect::<Vec<_>>();
        assert_eq!(ids(lessor.expired(at(100 * SECOND), 2)), [2, 3]);
        assert_eq!(ids(lessor.expired(at(100 * SECOND), 2)), [1]);
    }
}
