//! A store in this process: etcd's revisions, transactions, leases and watches, in one thread and without a clock.
//!
//! It is for tests and for the simulator, which must be able to repeat everything: time comes in as an argument, and
//! nothing happens by itself.

use super::{Batch, Error, Event, KeyValue, LeaseId, Outcome, Page, Range, Revision, Seen, Txn, Write};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A store.
#[derive(Clone, Debug)]
pub struct Memory {
    cluster_id: u64,
    revision: Revision,
    compacted: Revision,
    /// What each key was like from each revision on.
    keys: BTreeMap<Bytes, Vec<(Revision, Option<KeyValue>)>>,
    /// The keys that each revision changed, in the order of its writes.
    changes: BTreeMap<Revision, Vec<Bytes>>,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: LeaseId,
}

#[derive(Clone, Debug)]
struct Lease {
    ttl_ms: u64,
    ends_ms: u64,
    keys: BTreeSet<Bytes>,
}

impl Memory {
    /// An empty store, at revision 1 as etcd's is.
    pub fn new(cluster_id: u64) -> Self {
        Self {
            cluster_id,
            revision: 1,
            compacted: 0,
            keys: BTreeMap::new(),
            changes: BTreeMap::new(),
            leases: BTreeMap::new(),
            next_lease: 1,
        }
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Which cluster it says it is.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// A key as it is.
    pub fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key)?.last()?.1.as_ref()
    }

    fn at(&self, key: &[u8], revision: Revision) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        let behind = versions.partition_point(|(from, _)| *from <= revision);
        versions[..behind].last()?.1.as_ref()
    }

    /// Reads keys at one revision.
    ///
    /// - Errors: [`Error::Compacted`]; [`Error::Refused`] for a revision to come.
    pub fn range(&self, range: &Range) -> Result<Page, Error> {
        let revision = if range.revision > 0 { range.revision } else { self.revision };
        if revision < self.compacted {
            return Err(Error::Compacted(self.compacted));
        }
        if revision > self.revision {
            return Err(Error::Refused(format!("revision {revision} is still to come")));
        }
        if range.key >= range.end {
            return Ok(Page { revision: self.revision, cluster_id: self.cluster_id, ..Page::default() });
        }
        let names = self.keys.range(range.key.clone()..range.end.clone()).map(|(key, _)| key);
        let mut found = names.filter_map(|key| self.at(key, revision));
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let items: Vec<KeyValue> = found.by_ref().take(limit).cloned().collect();
        Ok(Page { items, more: found.next().is_some(), revision: self.revision, cluster_id: self.cluster_id })
    }

    /// Writes all or nothing.
    ///
    /// - Errors: [`Error::LeaseNotFound`]; [`Error::Refused`] for more than a store takes.
    pub fn txn(&mut self, txn: &Txn) -> Result<Outcome, Error> {
        if !txn.fits() {
            return Err(Error::Refused("the transaction is too large".to_owned()));
        }
        let seen: Vec<Seen> = txn.guards().iter().map(|guard| Seen::of(self.get(guard.key()))).collect();
        if txn.guards().iter().zip(&seen).any(|(guard, now)| !guard.holds(now)) {
            return Ok(Outcome::Refused { revision: self.revision, seen });
        }
        let wanted = txn.writes().iter().filter_map(|write| match write {
            Write::Put { lease, .. } if *lease != 0 => Some(lease),
            _ => None,
        });
        if wanted.into_iter().any(|lease| !self.leases.contains_key(lease)) {
            return Err(Error::LeaseNotFound);
        }
        self.apply(txn.writes());
        Ok(Outcome::Committed(self.revision))
    }

    /// Writes as one revision, if anything changes.
    fn apply(&mut self, writes: &[Write]) {
        let revision = self.revision + 1;
        let mut changed = Vec::new();
        for write in writes {
            let old = self.get(write.key()).cloned();
            let new = match write {
                Write::Put { key, value, lease } => {
                    let (created, version) = old.as_ref().map_or((revision, 0), |old| (old.created, old.version));
                    let (key, value, version) = (key.clone(), value.clone(), version + 1);
                    Some(KeyValue { key, value, created, modified: revision, version, lease: *lease })
                }
                Write::Delete { .. } if old.is_none() => continue,
                Write::Delete { .. } => None,
            };
            self.tie(write.key(), old.map_or(0, |old| old.lease), new.as_ref().map_or(0, |new| new.lease));
            self.keys.entry(write.key().clone()).or_default().push((revision, new));
            changed.push(write.key().clone());
        }
        if !changed.is_empty() {
            self.revision = revision;
            self.changes.insert(revision, changed);
        }
    }

    fn tie(&mut self, key: &Bytes, old: LeaseId, new: LeaseId) {
        if let Some(lease) = self.leases.get_mut(&old) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&new) {
            lease.keys.insert(key.clone());
        }
    }

    /// The changes of a range from a revision on, at most `revisions_max` revisions with any.
    ///
    /// - Errors: [`Error::Compacted`].
    pub fn events(&self, key: &Bytes, end: &Bytes, from: Revision, revisions_max: usize) -> Result<Batch, Error> {
        if from < self.compacted {
            return Err(Error::Compacted(self.compacted));
        }
        let mut batch = Batch { events: Vec::new(), through: self.revision.max(from - 1) };
        let mut told = 0;
        for (&revision, changed) in self.changes.range(from..) {
            let mut events = changed.iter().filter(|changed| *changed >= key && *changed < end).peekable();
            if events.peek().is_none() {
                continue;
            }
            if told == revisions_max {
                batch.through = revision - 1;
                break;
            }
            told += 1;
            batch.events.extend(events.map(|key| match self.at(key, revision) {
                Some(now) => Event::Put(now.clone()),
                None => Event::Delete { key: key.clone(), revision },
            }));
        }
        Ok(batch)
    }

    /// Forgets what was before a revision, but for what still is as of it.
    pub fn compact(&mut self, revision: Revision) {
        if revision <= self.compacted || revision > self.revision {
            return;
        }
        self.compacted = revision;
        self.changes = self.changes.split_off(&revision);
        self.keys.retain(|_, versions| {
            let behind = versions.partition_point(|(from, _)| *from <= revision);
            versions.drain(..behind.saturating_sub(1));
            versions.len() > 1 || versions[0].1.is_some() || versions[0].0 >= revision
        });
    }

    /// Up to where revisions were compacted.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Makes a lease.
    pub fn grant(&mut self, ttl_ms: u64, now_ms: u64) -> LeaseId {
        let id = self.next_lease;
        self.next_lease += 1;
        self.leases.insert(id, Lease { ttl_ms, ends_ms: now_ms + ttl_ms, keys: BTreeSet::new() });
        id
    }

    /// Renews a lease.
    ///
    /// - Errors: [`Error::LeaseNotFound`].
    pub fn keep_alive(&mut self, id: LeaseId, now_ms: u64) -> Result<(), Error> {
        let lease = self.leases.get_mut(&id).ok_or(Error::LeaseNotFound)?;
        lease.ends_ms = now_ms + lease.ttl_ms;
        Ok(())
    }

    /// Ends a lease, and with it its keys.
    ///
    /// - Errors: [`Error::LeaseNotFound`].
    pub fn revoke(&mut self, id: LeaseId) -> Result<(), Error> {
        let lease = self.leases.remove(&id).ok_or(Error::LeaseNotFound)?;
        let writes: Vec<Write> = lease.keys.into_iter().map(|key| Write::Delete { key }).collect();
        self.apply(&writes);
        Ok(())
    }

    /// Ends the leases whose time is over.
    pub fn expire(&mut self, now_ms: u64) {
        let over = |lease: &Lease| lease.ends_ms <= now_ms;
        let ended: Vec<LeaseId> = self.leases.iter().filter(|(_, lease)| over(lease)).map(|(id, _)| *id).collect();
        for id in ended {
            self.revoke(id).expect("it was just seen");
        }
    }

    /// When the next lease ends, if nobody renews it.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.leases.values().map(|lease| lease.ends_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Guard;

    fn all() -> (Bytes, Bytes) {
        (Bytes::from_static(b"a"), Bytes::from_static(b"z"))
    }

    fn names(page: &Page) -> Vec<&str> {
        page.items.iter().map(|item| std::str::from_utf8(&item.key).expect("text")).collect()
    }

    #[test]
    fn a_txn_is_all_or_nothing_and_says_which_guard_failed() {
        let mut store = Memory::new(7);
        assert_eq!(store.txn(&Txn::new().put("a", "1").put("b", "1")), Ok(Outcome::Committed(2)));
        let absent = Guard::Absent { key: "b".into() };
        let refused = store.txn(&Txn::new().guard(Guard::Absent { key: "c".into() }).guard(absent).put("c", "1"));
        let seen = vec![Seen::default(), Seen { created: 2, modified: 2, version: 1 }];
        assert_eq!(refused, Ok(Outcome::Refused { revision: 2, seen }));
        assert_eq!(store.get(b"c"), None);
        assert_eq!(store.txn(&Txn::new().put("a", "2").delete("b").delete("none")), Ok(Outcome::Committed(3)));
        assert_eq!(store.txn(&Txn::new().delete("none")), Ok(Outcome::Committed(3)));
        let a = store.get(b"a").expect("is there");
        assert_eq!((a.created, a.modified, a.version, store.get(b"b")), (2, 3, 2, None));
    }

    #[test]
    fn pages_are_of_one_revision_until_it_is_compacted() {
        let mut store = Memory::new(7);
        for key in ["a", "b", "c"] {
            store.txn(&Txn::new().put(key, "1")).expect("written");
        }
        let (key, end) = all();
        let range = |key: &Bytes, revision| Range { key: key.clone(), end: end.clone(), limit: 2, revision };
        let first = store.range(&range(&key, 0)).expect("a page");
        assert_eq!((names(&first), first.more, first.revision), (vec!["a", "b"], true, 4));
        store.txn(&Txn::new().delete("c").put("d", "1")).expect("written");
        let second = store.range(&range(&"b\0".into(), 4)).expect("a page");
        assert_eq!((names(&second), second.more), (vec!["c"], false));
        store.compact(5);
        assert_eq!(store.range(&range(&key, 4)), Err(Error::Compacted(5)));
        assert_eq!(names(&store.range(&range(&key, 5)).expect("a page")), ["a", "b"]);
    }

    #[test]
    fn a_watch_tells_whole_revisions_once() {
        let mut store = Memory::new(7);
        store.txn(&Txn::new().put("a", "1").put("b", "1").put("zz", "1")).expect("written");
        store.txn(&Txn::new().put("zz", "2")).expect("written");
        store.txn(&Txn::new().delete("a")).expect("written");
        let (key, end) = all();
        let first = store.events(&key, &end, 2, 1).expect("events");
        assert_eq!((first.events.len(), first.through), (2, 3));
        let second = store.events(&key, &end, 4, 1).expect("events");
        assert_eq!(second, Batch { events: vec![Event::Delete { key: "a".into(), revision: 4 }], through: 4 });
        store.compact(4);
        assert_eq!(store.events(&key, &end, 3, 1), Err(Error::Compacted(4)));
        assert_eq!(store.events(&key, &end, 4, 1), Ok(second));
    }

    #[test]
    fn keys_go_with_their_lease() {
        let mut store = Memory::new(7);
        let lease = store.grant(1_000, 0);
        store.txn(&Txn::new().put_leased("a", "1", lease).put_leased("b", "1", lease)).expect("written");
        store.txn(&Txn::new().put("b", "2")).expect("written");
        assert_eq!(store.keep_alive(lease, 500), Ok(()));
        store.expire(1_499);
        assert!(store.get(b"a").is_some());
        store.expire(1_500);
        assert_eq!((store.get(b"a"), store.get(b"b").is_some(), store.revision()), (None, true, 4));
        assert_eq!(store.keep_alive(lease, 1_500), Err(Error::LeaseNotFound));
        assert_eq!(store.txn(&Txn::new().put_leased("a", "1", lease)), Err(Error::LeaseNotFound));
    }
}
