//! Who of several replicas acts: one key under a lease, and its create revision as the token that fences every write.
//!
//! Safety is in the token: a transaction of a former leader is refused, however late it comes. That a leader which was
//! not heard of for two thirds of its lease's time stops by itself only saves it useless work.
//!
//! It does nothing itself: [`Elector::ask`] says what to ask the store next, and the answers go to the methods named after
//! them. Whoever wins must list everything anew before it acts ([`Feed::relist`](crate::cache::Feed::relist)), since what
//! its predecessor wrote is below the token, and so in that list.

use crate::keys;
use crate::kv::{Error, Guard, KeyValue, LeaseId, Outcome, Revision, Txn};

/// The lease's time, if nobody says otherwise: etcd's floor is 2 s.
pub const TTL_MS: u64 = 3_000;

/// Between two tries after a failure.
const RETRY_MS: u64 = 200;

/// What the store is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// For a lease of so many milliseconds.
    Grant(u64),
    /// To renew it.
    KeepAlive(LeaseId),
    /// For the leadership.
    Campaign(Txn),
}

/// One replica's part in an election.
#[derive(Clone, Debug)]
pub struct Elector {
    component: String,
    identity: String,
    ttl_ms: u64,
    lease: Option<Lease>,
    token: Option<Revision>,
    /// An answer is still to come.
    is_waiting: bool,
    /// Nothing is asked before.
    rest_until_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    id: LeaseId,
    /// When the renewal was asked for that was answered last.
    renewed_ms: u64,
    /// When a renewal is asked for next.
    due_ms: u64,
}

impl Elector {
    /// A replica that takes part in a component's election, under a name for people.
    pub fn new(component: &str, identity: &str, ttl_ms: u64) -> Self {
        Self {
            component: component.to_owned(),
            identity: identity.to_owned(),
            ttl_ms,
            lease: None,
            token: None,
            is_waiting: false,
            rest_until_ms: 0,
        }
    }

    /// The component's name.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// The token, while this replica leads as far as it knows.
    pub fn token(&self) -> Option<Revision> {
        self.token
    }

    /// The token, if this replica leads and was heard of lately.
    pub fn active(&self, now_ms: u64) -> Option<Revision> {
        let lease = self.lease.as_ref()?;
        self.token.filter(|_| now_ms < lease.renewed_ms + self.ttl_ms * 2 / 3)
    }

    /// The lease to revoke when this replica stops: the next one leads at once.
    pub fn lease(&self) -> Option<LeaseId> {
        self.lease.map(|lease| lease.id)
    }

    /// What to ask the store now, if anything; the answer must be told before more is asked.
    ///
    /// - Shape: `held` is the election's key in a copy of the store that is at revision `at`.
    pub fn ask(&mut self, held: Option<&KeyValue>, at: Revision, now_ms: u64) -> Option<Ask> {
        self.observe(held, at);
        if self.is_waiting || now_ms < self.rest_until_ms {
            return None;
        }
        let ask = match &self.lease {
            None => Ask::Grant(self.ttl_ms),
            Some(lease) if now_ms >= lease.due_ms => Ask::KeepAlive(lease.id),
            Some(lease) if self.token.is_none() && at > 0 && held.is_none() => {
                let key = keys::election(&self.component);
                let txn = Txn::new().guard(Guard::Absent { key: key.clone().into() });
                Ask::Campaign(txn.put_leased(key, self.identity.clone(), lease.id))
            }
            Some(_) => return None,
        };
        self.is_waiting = true;
        Some(ask)
    }

    /// When to ask again, if nothing comes.
    pub fn due_ms(&self) -> u64 {
        let lease = self.lease.map_or(0, |lease| lease.due_ms);
        lease.max(self.rest_until_ms)
    }

    /// The answer to [`Ask::Grant`], which was asked for at a time.
    pub fn granted(&mut self, answer: Result<LeaseId, Error>, asked_ms: u64, now_ms: u64) {
        self.is_waiting = false;
        match answer {
            Ok(id) => self.lease = Some(Lease { id, renewed_ms: asked_ms, due_ms: asked_ms + self.ttl_ms / 3 }),
            // A lease that nobody knows of runs out by itself.
            Err(_) => self.rest_until_ms = now_ms + RETRY_MS,
        }
    }

    /// The answer to [`Ask::KeepAlive`], which was asked at a time.
    pub fn kept_alive(&mut self, answer: Result<(), Error>, asked_ms: u64, now_ms: u64) {
        self.is_waiting = false;
        let Some(lease) = &mut self.lease else { return };
        match answer {
            Ok(()) => (lease.renewed_ms, lease.due_ms) = (asked_ms, asked_ms + self.ttl_ms / 3),
            Err(Error::LeaseNotFound) => (self.lease, self.token) = (None, None),
            Err(_) => lease.due_ms = now_ms + RETRY_MS,
        }
    }

    /// The answer to [`Ask::Campaign`]. Of an unknown outcome the copy of the store will tell.
    pub fn campaigned(&mut self, answer: Result<Outcome, Error>, now_ms: u64) {
        self.is_waiting = false;
        match answer {
            Ok(Outcome::Committed(revision)) => self.token = Some(revision),
            Ok(Outcome::Refused { .. }) => self.rest_until_ms = now_ms + RETRY_MS,
            Err(Error::LeaseNotFound) => self.lease = None,
            Err(_) => self.rest_until_ms = now_ms + RETRY_MS,
        }
    }

    /// Sees in the copy of the store whether this replica leads.
    fn observe(&mut self, held: Option<&KeyValue>, at: Revision) {
        let own = held.filter(|held| self.lease.is_some_and(|lease| lease.id == held.lease));
        match (self.token, own) {
            // It was won, and the answer was lost.
            (None, Some(own)) => self.token = Some(own.created),
            // The copy has come as far as the token, and the key is another's or nobody's.
            (Some(token), None) if at >= token => self.token = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::memory::Memory;

    struct Replica(Elector);

    impl Replica {
        fn new(name: &str) -> Self {
            Self(Elector::new("scheduler", name, 3_000))
        }

        fn ask(&mut self, store: &Memory, now_ms: u64) -> Option<Ask> {
            self.0.ask(store.get(keys::election("scheduler").as_bytes()), store.revision(), now_ms)
        }

        /// Looks, asks, and hears the answer.
        fn turn(&mut self, store: &mut Memory, now_ms: u64) {
            store.expire(now_ms);
            match self.ask(store, now_ms) {
                Some(Ask::Grant(ttl)) => self.0.granted(Ok(store.grant(ttl, now_ms)), now_ms, now_ms),
                Some(Ask::KeepAlive(id)) => self.0.kept_alive(store.keep_alive(id, now_ms), now_ms, now_ms),
                Some(Ask::Campaign(txn)) => self.0.campaigned(store.txn(&txn), now_ms),
                None => {}
            }
        }
    }

    #[test]
    fn one_leads_and_the_next_takes_over_when_its_lease_ends() {
        let mut store = Memory::new(1);
        let (mut one, mut two) = (Replica::new("one"), Replica::new("two"));
        for now in (0..10_000).step_by(100) {
            one.turn(&mut store, now);
            two.turn(&mut store, now);
        }
        let token = one.0.active(10_000).expect("the first one leads");
        assert_eq!(two.0.token(), None);
        // The first one stands still; the second one leads once the lease has ended, under a larger token.
        for now in (10_000..14_000).step_by(100) {
            two.turn(&mut store, now);
        }
        let next = two.0.active(13_900).expect("the second one leads");
        assert!(next > token);
        let late = Txn::new().fenced("scheduler", token).put("/registry/pods/a/b", "late");
        assert!(matches!(store.txn(&late), Ok(Outcome::Refused { .. })));
        assert!(matches!(store.txn(&Txn::new().fenced("scheduler", next).put("x", "y")), Ok(Outcome::Committed(_))));
        // Awake again, it does not think that it leads, before it has even looked.
        assert_eq!(one.0.active(14_000), None);
        one.turn(&mut store, 14_000);
        assert_eq!(one.0.token(), None);
    }

    #[test]
    fn a_leader_that_is_asked_to_stop_hands_over_at_once() {
        let mut store = Memory::new(1);
        let (mut one, mut two) = (Replica::new("one"), Replica::new("two"));
        for now in (0..1_000).step_by(100) {
            one.turn(&mut store, now);
            two.turn(&mut store, now);
        }
        store.revoke(one.0.lease().expect("it has one")).expect("it lives");
        two.turn(&mut store, 1_000);
        two.turn(&mut store, 1_200);
        assert!(two.0.active(1_200).is_some());
    }

    #[test]
    fn a_campaign_whose_answer_was_lost_was_won_all_the_same() {
        let mut store = Memory::new(1);
        let mut one = Replica::new("one");
        one.turn(&mut store, 0);
        let Some(Ask::Campaign(txn)) = one.ask(&store, 0) else { panic!("it campaigns") };
        let won = store.txn(&txn);
        one.0.campaigned(Err(Error::Unknown("the connection broke".to_owned())), 10);
        assert_eq!(one.0.token(), None);
        one.turn(&mut store, 300);
        assert_eq!(won, Ok(Outcome::Committed(one.0.token().expect("it sees that it won"))));
    }

    #[test]
    fn a_leader_that_is_not_heard_of_stops_in_time() {
        let mut store = Memory::new(1);
        let mut one = Replica::new("one");
        for now in (0..1_000).step_by(100) {
            one.turn(&mut store, now);
        }
        assert!(one.0.active(1_000).is_some());
        // Renewed at 0; asks again at 1,000 and gets no answer.
        let Some(Ask::KeepAlive(_)) = one.ask(&store, 1_000) else { panic!("it renews") };
        one.0.kept_alive(Err(Error::Unavailable("no leader".to_owned())), 1_000, 1_100);
        assert!(one.0.active(1_999).is_some());
        assert_eq!(one.0.active(2_000), None);
    }
}
