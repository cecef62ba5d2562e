//! What is to be reconciled, each key once: level-triggered, with two priorities, retries that take longer and longer,
//! and a gate that keeps a key back until the cache has seen what its last reconcile wrote.
//!
//! Invariants: a key is handed out to one worker at a time; a key that is added while it is worked on is handed out once
//! more afterwards, however often it was added; a key that waits is in exactly one of ready, gated and delayed.

use crate::kv::Revision;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The first wait after a failure.
pub const RETRY_MS_MIN: u64 = 5;

/// The longest wait after many.
pub const RETRY_MS_MAX: u64 = 60_000;

/// How much longer a wait may be than its power of two, so that keys that failed together do not come together again.
const JITTER_PERCENT: u64 = 20;

/// How soon something is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Something changed.
    Change,
    /// It was listed, or looked at again in its turn.
    Review,
}

/// Keys that wait.
#[derive(Clone, Debug)]
pub struct Queue<K> {
    entries: BTreeMap<K, Entry>,
    ready: BTreeMap<(Priority, u64), K>,
    gated: BTreeSet<(Revision, K)>,
    /// Keys that nobody wants, whose gates are still to be remembered.
    remembered: BTreeSet<(Revision, K)>,
    delayed: BTreeSet<(u64, K)>,
    turns: u64,
    /// How far the cache is.
    at: Revision,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    place: Place,
    /// Somebody works on it.
    is_taken: bool,
    /// It was added while it was worked on.
    again: Option<Priority>,
    failures: u32,
    /// It is not handed out before the cache is here.
    gate: Revision,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Nowhere,
    Ready(Priority, u64),
    Gated(Priority),
    Delayed(u64),
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            ready: BTreeMap::new(),
            gated: BTreeSet::new(),
            remembered: BTreeSet::new(),
            delayed: BTreeSet::new(),
            turns: 0,
            at: 0,
        }
    }
}

impl<K: Clone + Ord + Hash> Queue<K> {
    /// Wants a key as soon as possible; a higher priority wins over what it has, and over a delay.
    pub fn add(&mut self, key: K, priority: Priority) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.is_taken {
            entry.again = Some(entry.again.map_or(priority, |other| other.min(priority)));
            return;
        }
        match entry.place {
            Place::Ready(other, _) | Place::Gated(other) if other <= priority => {}
            _ => self.place(key, priority),
        }
    }

    /// Wants a key at a time, unless it waits for an earlier one, or for none.
    pub fn add_at(&mut self, key: K, due_ms: u64) {
        let entry = self.entries.entry(key.clone()).or_default();
        match entry.place {
            Place::Ready(..) | Place::Gated(_) => {}
            Place::Delayed(other) if other <= due_ms => {}
            place => {
                if let Place::Delayed(other) = place {
                    self.delayed.remove(&(other, key.clone()));
                }
                entry.place = Place::Delayed(due_ms);
                self.delayed.insert((due_ms, key));
            }
        }
    }

    /// The cache has come this far: what waited for it is ready.
    pub fn reached(&mut self, at: Revision) {
        self.at = self.at.max(at);
        while let Some((gate, key)) = self.gated.first().cloned() {
            if gate > self.at {
                break;
            }
            let Some(Place::Gated(priority)) = self.entries.get(&key).map(|entry| entry.place) else {
                unreachable!("what is gated has an entry that says so");
            };
            self.place(key, priority);
        }
        while let Some((gate, _)) = self.remembered.first()
            && *gate <= self.at
        {
            let (_, key) = self.remembered.pop_first().expect("it was just seen");
            self.forget(&key);
        }
    }

    /// Takes the next key to work on; it stays taken until [`Queue::done`] or [`Queue::failed`].
    pub fn take(&mut self, now_ms: u64) -> Option<K> {
        while let Some((due_ms, key)) = self.delayed.first().cloned() {
            if due_ms > now_ms {
                break;
            }
            self.delayed.pop_first();
            let entry = self.entries.get_mut(&key).expect("what is delayed has an entry");
            entry.place = Place::Nowhere;
            if entry.is_taken {
                entry.again.get_or_insert(Priority::Review);
            } else {
                self.place(key, Priority::Review);
            }
        }
        let (_, key) = self.ready.pop_first()?;
        let entry = self.entries.get_mut(&key).expect("what is ready has an entry");
        (entry.place, entry.is_taken) = (Place::Nowhere, true);
        Some(key)
    }

    /// A key was worked on; what it wrote last is to be seen before it is worked on again.
    pub fn done(&mut self, key: &K, wrote: Option<Revision>) {
        let entry = self.entries.get_mut(key).expect("it was taken");
        entry.failures = 0;
        if let Some(wrote) = wrote {
            entry.gate = entry.gate.max(wrote);
        }
        self.give_back(key);
    }

    /// A key could not be worked on: it comes again, later with each failure in a row. Returns how long it waits.
    pub fn failed(&mut self, key: &K, now_ms: u64) -> u64 {
        let entry = self.entries.get_mut(key).expect("it was taken");
        let wait = wait_ms(key, entry.failures);
        entry.failures = entry.failures.saturating_add(1);
        // What came in meanwhile waits with it: it may be why.
        entry.again = None;
        entry.is_taken = false;
        self.add_at(key.clone(), now_ms + wait);
        wait
    }

    /// When something that is delayed is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.delayed.first().map(|(due_ms, _)| *due_ms)
    }

    /// Keys that could be taken now.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Keys that wait for anything.
    pub fn waiting(&self) -> usize {
        self.ready.len() + self.gated.len() + self.delayed.len()
    }

    /// Whether nobody waits and nobody works.
    pub fn is_idle(&self) -> bool {
        self.entries.is_empty()
    }

    fn give_back(&mut self, key: &K) {
        let entry = self.entries.get_mut(key).expect("it was taken");
        entry.is_taken = false;
        if let Some(priority) = entry.again.take() {
            if let Place::Delayed(due_ms) = entry.place {
                self.delayed.remove(&(due_ms, key.clone()));
            }
            return self.place(key.clone(), priority);
        }
        if entry.gate > self.at {
            self.remembered.insert((entry.gate, key.clone()));
        }
        self.forget(key);
    }

    /// Drops what is known of a key, if that is nothing more.
    fn forget(&mut self, key: &K) {
        let is_bare = |entry: &Entry| entry.place == Place::Nowhere && !entry.is_taken && entry.gate <= self.at;
        if self.entries.get(key).is_some_and(is_bare) {
            self.entries.remove(key);
        }
    }

    /// Puts a key where it belongs: ready, or behind its gate.
    fn place(&mut self, key: K, priority: Priority) {
        let entry = self.entries.get_mut(&key).expect("it has an entry");
        match entry.place {
            Place::Nowhere => {}
            Place::Ready(other, turn) => {
                self.ready.remove(&(other, turn));
            }
            Place::Gated(_) => {
                self.gated.remove(&(entry.gate, key.clone()));
            }
            Place::Delayed(due_ms) => {
                self.delayed.remove(&(due_ms, key.clone()));
            }
        }
        if entry.gate > self.at {
            entry.place = Place::Gated(priority);
            self.gated.insert((entry.gate, key));
        } else {
            self.turns += 1;
            entry.place = Place::Ready(priority, self.turns);
            self.ready.insert((priority, self.turns), key);
        }
    }
}

/// How long a key waits after so many failures in a row: doubled each time, with a jitter that is the key's own.
fn wait_ms<K: Hash>(key: &K, failures: u32) -> u64 {
    let base = RETRY_MS_MIN.saturating_mul(1 << failures.min(32)).min(RETRY_MS_MAX);
    let mut hasher = DefaultHasher::new();
    (key, failures).hash(&mut hasher);
    let more = base * JITTER_PERCENT / 100;
    (base + hasher.finish() % (more + 1)).min(RETRY_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(keys: &[&'static str]) -> Queue<&'static str> {
        let mut queue = Queue::default();
        keys.iter().for_each(|key| queue.add(*key, Priority::Change));
        queue
    }

    #[test]
    fn a_key_waits_once_and_in_its_turn() {
        let mut queue = queue(&["b", "a", "b"]);
        queue.add("r", Priority::Review);
        queue.add("c", Priority::Change);
        let taken: Vec<_> = std::iter::from_fn(|| queue.take(0)).collect();
        assert_eq!(taken, ["b", "a", "c", "r"]);
        taken.iter().for_each(|key| queue.done(key, None));
        assert!(queue.is_idle());
    }

    #[test]
    fn a_change_overtakes_a_review_and_a_delay() {
        let mut queue = queue(&[]);
        queue.add("r", Priority::Review);
        queue.add("s", Priority::Review);
        queue.add_at("late", 1_000);
        queue.add("s", Priority::Change);
        queue.add("late", Priority::Change);
        let taken: Vec<_> = std::iter::from_fn(|| queue.take(0)).collect();
        assert_eq!((taken, queue.next_due_ms()), (vec!["s", "late", "r"], None));
    }

    #[test]
    fn what_is_added_while_it_is_worked_on_comes_once_more() {
        let mut queue = queue(&["a"]);
        assert_eq!(queue.take(0), Some("a"));
        queue.add("a", Priority::Review);
        queue.add("a", Priority::Change);
        assert_eq!(queue.take(0), None);
        queue.done(&"a", None);
        assert_eq!((queue.take(0), queue.take(0)), (Some("a"), None));
    }

    #[test]
    fn what_was_written_is_seen_before_it_is_worked_on_again() {
        let mut queue = queue(&["a"]);
        queue.take(0);
        queue.done(&"a", Some(7));
        queue.add("a", Priority::Change);
        queue.add("b", Priority::Review);
        assert_eq!((queue.take(0), queue.take(0)), (Some("b"), None));
        queue.reached(6);
        assert_eq!(queue.take(0), None);
        queue.reached(7);
        assert_eq!(queue.take(0), Some("a"));
        queue.done(&"a", Some(9));
        queue.done(&"b", None);
        assert!(!queue.is_idle());
        queue.reached(9);
        assert!(queue.is_idle());
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_minute_and_are_forgotten_after_a_success() {
        let mut queue = queue(&["a"]);
        let (mut now, mut waits) = (0, Vec::new());
        for _ in 0..40 {
            assert_eq!(queue.take(now), Some("a"));
            let wait = queue.failed(&"a", now);
            assert_eq!((queue.take(now + wait - 1), queue.next_due_ms()), (None, Some(now + wait)));
            waits.push(wait);
            now += wait;
        }
        assert!((5..=6).contains(&waits[0]) && (40..=48).contains(&waits[3]), "{waits:?}");
        assert_eq!(waits[39], RETRY_MS_MAX);
        queue.take(now);
        queue.done(&"a", None);
        queue.add("a", Priority::Change);
        queue.take(now);
        assert!(queue.failed(&"a", now) <= 6);
    }

    #[test]
    fn no_key_is_lost_or_handed_out_twice() {
        use proptest::prelude::*;
        let step = (0..6_u8, 0..5_u32, 0..50_u64);
        proptest!(|(steps in proptest::collection::vec(step, 0..200))| {
            let (mut queue, mut now, mut at) = (Queue::<u32>::default(), 0, 0);
            let (mut taken, mut wanted) = (BTreeSet::new(), BTreeSet::new());
            for (what, key, more) in steps {
                match what {
                    0 => {
                        queue.add(key, if more % 2 == 0 { Priority::Change } else { Priority::Review });
                        wanted.insert(key);
                    }
                    1 => {
                        queue.add_at(key, now + more);
                        wanted.insert(key);
                    }
                    2 => if let Some(key) = queue.take(now) {
                        prop_assert!(taken.insert(key), "{key} was handed out twice");
                        prop_assert!(wanted.remove(&key), "nobody wants {key}");
                    },
                    3 => if taken.remove(&key) {
                        queue.done(&key, Some(at + more as i64));
                    },
                    4 => if taken.remove(&key) {
                        queue.failed(&key, now);
                        wanted.insert(key);
                    },
                    _ => {
                        (now, at) = (now + more, at + 1);
                        queue.reached(at);
                    }
                }
            }
            taken.iter().for_each(|key| queue.done(key, None));
            queue.reached(i64::MAX);
            while let Some(key) = queue.take(u64::MAX) {
                prop_assert!(wanted.remove(&key), "nobody wants {key}");
                queue.done(&key, None);
            }
            prop_assert!(wanted.is_empty(), "lost: {wanted:?}");
            prop_assert!(queue.is_idle());
        });
    }
}
