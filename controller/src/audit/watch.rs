//! S9: what a watcher is told is exactly the history: in order, without a gap, nothing twice, and whole revisions; and a list
//! is what was there at its revision.
//!
//! The history is kept as two digests for each revision: of what it changed, and of all there was afterwards.

use super::Finding;
use crate::keys::ROOT;
use crate::kv::{Batch, Event, KeyValue, Page, Revision};
use crate::limits::HISTORY_REVISIONS_MAX;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

/// Digests of a history.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Of the changes of a revision, and of all keys after it; the oldest are dropped beyond a bound.
    revisions: BTreeMap<Revision, (u64, u64)>,
    keys: BTreeMap<Bytes, u64>,
    state: u64,
    /// Up to where it was told, and from where it knows.
    through: Revision,
    from: Revision,
}

/// How far somebody was told of it.
#[derive(Clone, Debug, Default)]
pub struct Watcher {
    at: Revision,
    /// The revision of a list that has begun, and the digest of its pages so far.
    listing: Option<(Revision, u64)>,
}

fn digest(event: &Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    match event {
        Event::Put(now) => (&now.key, &now.value, now.created, now.modified, now.version, now.lease).hash(&mut hasher),
        Event::Delete { key, revision } => (key, revision).hash(&mut hasher),
    }
    hasher.finish()
}

/// The changes of each revision that a batch tells, as digests that do not hang on their order.
fn revisions(events: &[Event]) -> Vec<(Revision, u64)> {
    let mut all: Vec<(Revision, u64)> = Vec::new();
    for event in events {
        let (revision, one) = (event.revision(), digest(event));
        match all.last_mut() {
            Some((last, sum)) if *last == revision => *sum = sum.wrapping_add(one),
            _ => all.push((revision, one)),
        }
    }
    all
}

impl History {
    /// Begins with what is there at a revision.
    pub fn begin(items: &[KeyValue], at: Revision) -> Self {
        let mut history = Self { through: at, from: at, ..Self::default() };
        items.iter().for_each(|item| history.put(&Event::Put(item.clone())));
        history.revisions.insert(at, (0, history.state));
        history
    }

    fn put(&mut self, event: &Event) {
        let old = match event {
            Event::Put(now) => {
                let new = digest(event);
                self.state = self.state.wrapping_add(new);
                self.keys.insert(now.key.clone(), new)
            }
            Event::Delete { key, .. } => self.keys.remove(key),
        };
        self.state = self.state.wrapping_sub(old.unwrap_or(0));
    }

    /// Takes what happened next.
    pub fn see(&mut self, batch: &Batch) {
        let mut events = batch.events.iter().peekable();
        for (revision, sum) in revisions(&batch.events) {
            while let Some(event) = events.next_if(|event| event.revision() == revision) {
                self.put(event);
            }
            self.revisions.insert(revision, (sum, self.state));
        }
        self.through = self.through.max(batch.through);
        while self.revisions.len() > HISTORY_REVISIONS_MAX {
            self.revisions.pop_first();
            self.from = self.revisions.first_key_value().map_or(0, |(revision, _)| *revision);
        }
    }

    /// A watcher was given a page of a list; what is wrong with the list once it is whole.
    pub fn listed(&self, watcher: &mut Watcher, page: &Page) -> Option<Finding> {
        let (revision, sum) = watcher.listing.take().unwrap_or((page.revision, 0));
        let one = |item: &KeyValue| digest(&Event::Put(item.clone()));
        let sum = page.items.iter().map(one).fold(sum, u64::wrapping_add);
        if page.more {
            watcher.listing = Some((revision, sum));
            return None;
        }
        watcher.at = revision;
        let (_, (_, state)) = self.revisions.range(..=revision).next_back()?;
        (*state != sum).then(|| finding(revision, "a list is not what was there".to_owned()))
    }

    /// A watcher was told something by a watch from a revision on; what is wrong with that.
    pub fn heard(&self, watcher: &mut Watcher, from: Revision, batch: &Batch) -> Option<Finding> {
        let known = watcher.at;
        watcher.at = known.max(batch.through);
        if from <= self.from {
            return None;
        }
        if from != known + 1 {
            return Some(finding(from, format!("a watch begins there, and its watcher knows up to {known}")));
        }
        let mut at = known;
        for (revision, sum) in revisions(&batch.events) {
            if revision <= at {
                return Some(finding(revision, format!("it is told again, or late: {at} was told before")));
            }
            if let Some((missed, _)) = self.revisions.range(at + 1..revision).next() {
                return Some(finding(*missed, format!("it is not told, and {revision} is")));
            }
            if self.revisions.get(&revision).is_none_or(|(real, _)| *real != sum) {
                return Some(finding(revision, "what is told is not what happened".to_owned()));
            }
            at = revision;
        }
        let through = batch.through.max(at);
        let missed = self.revisions.range((Bound::Excluded(at), Bound::Included(through))).next();
        missed.map(|(missed, _)| finding(*missed, format!("it is not told, and all up to {} should be", batch.through)))
    }
}

impl Watcher {
    /// Its list begins anew.
    pub fn relists(&mut self) {
        self.listing = None;
    }
}

fn finding(revision: Revision, text: String) -> Finding {
    Finding { rule: "S9", revision, key: ROOT.to_owned(), text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::memory::Memory;
    use crate::kv::{Range, Txn};

    fn all(store: &Memory, from: Revision) -> Batch {
        store.events(&ROOT.into(), &crate::keys::prefix_end(ROOT).into(), from, usize::MAX).expect("not compacted")
    }

    fn store() -> (Memory, History) {
        let mut store = Memory::new(1);
        let (a, b) = (format!("{ROOT}a"), format!("{ROOT}b"));
        store.txn(&Txn::new().put(a.clone(), "1").put(b.clone(), "1")).expect("written");
        store.txn(&Txn::new().put("/elsewhere", "1")).expect("written");
        store.txn(&Txn::new().put(a, "2")).expect("written");
        store.txn(&Txn::new().delete(b)).expect("written");
        let mut history = History::begin(&[], 1);
        history.see(&all(&store, 2));
        (store, history)
    }

    #[test]
    fn what_is_the_history_is_right_however_it_is_cut() {
        let (store, history) = store();
        let mut watcher = Watcher { at: 1, listing: None };
        for _ in 0..4 {
            let from = watcher.at + 1;
            let end = crate::keys::prefix_end(ROOT).into();
            let batch = store.events(&ROOT.into(), &end, from, 1).expect("not compacted");
            assert_eq!(history.heard(&mut watcher, from, &batch), None);
        }
        assert_eq!(watcher.at, 5);
    }

    #[test]
    fn each_way_of_being_wrong_is_seen() {
        let (store, history) = store();
        let right = all(&store, 2);
        let wrong = |act: &dyn Fn(&mut Batch)| {
            let mut batch = right.clone();
            act(&mut batch);
            let found = history.heard(&mut Watcher { at: 1, listing: None }, 2, &batch);
            found.map_or(0, |finding| finding.revision)
        };
        assert_eq!(wrong(&|_| {}), 0);
        // Half a revision, none of one, one twice, another order, another value, the last one kept back.
        assert_eq!(wrong(&|batch| drop(batch.events.remove(0))), 2);
        assert_eq!(wrong(&|batch| drop(batch.events.remove(2))), 4);
        assert_eq!(wrong(&|batch| batch.events.push(batch.events[0].clone())), 2);
        assert_eq!(wrong(&|batch| batch.events.swap(2, 3)), 4);
        assert_eq!(wrong(&|batch| drop(batch.events.pop())), 5);
        let other = |batch: &mut Batch| {
            if let Event::Put(now) = &mut batch.events[2] {
                now.value = "3".into();
            }
        };
        assert_eq!(wrong(&other), 4);
        let skips = history.heard(&mut Watcher { at: 1, listing: None }, 3, &all(&store, 3));
        assert_eq!(skips.map(|finding| finding.revision), Some(3));
    }

    #[test]
    fn a_list_is_what_was_there_at_its_revision() {
        let (store, history) = store();
        let range =
            |revision| Range { key: ROOT.into(), end: crate::keys::prefix_end(ROOT).into(), limit: 1, revision };
        let mut watcher = Watcher::default();
        let first = Page { revision: 2, ..store.range(&range(2)).expect("a page") };
        assert!(first.more);
        assert_eq!(history.listed(&mut watcher, &first), None);
        // The second page is of a later revision.
        let mut rest = range(0);
        rest.limit = 0;
        assert_eq!(history.listed(&mut watcher, &store.range(&rest).expect("a page")).map(|one| one.revision), Some(2));
        let whole = Range { limit: 0, ..range(0) };
        assert_eq!(history.listed(&mut watcher, &store.range(&whole).expect("a page")), None);
        assert_eq!(watcher.at, 5);
    }
}
