//! Pods that wait for a node: at once, after a while, or until something changes that can help.
//!
//! Invariant (S11): a pod that waits is in exactly one of active, resting and stuck, or somebody has it in hand.

use crate::keys::ObjectKey;
use crate::kv::Revision;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// The first rest after a failure.
const REST_MS_MIN: u64 = 1_000;

/// The longest rest after many.
const REST_MS_MAX: u64 = 10_000;

/// A pod that is stuck is looked at again after this, whatever was or was not heard.
const STUCK_MS_MAX: u64 = 60_000;

/// A pod that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Which incarnation.
    pub created: Revision,
    /// Larger goes first.
    pub priority: i32,
    failures: u32,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    InHand,
    Active,
    Resting(u64),
    /// Which changes can help, and when it is looked at anyway.
    Stuck(u8, u64),
}

/// All pods that wait.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    pods: BTreeMap<ObjectKey, Waiting>,
    /// The highest priority first, then who was created first.
    active: BTreeSet<(Reverse<i32>, Revision, ObjectKey)>,
    resting: BTreeSet<(u64, ObjectKey)>,
    stuck: BTreeSet<(u64, ObjectKey)>,
    /// Changes that came while a pod was in hand, and that it does not know of.
    missed: BTreeMap<ObjectKey, u8>,
}

impl Queues {
    /// A pod wants a node. One of another incarnation takes the place of the former one.
    pub fn add(&mut self, key: &ObjectKey, created: Revision, priority: i32) {
        if self.pods.get(key).is_some_and(|waiting| waiting.created == created && waiting.priority == priority) {
            return;
        }
        self.remove(key);
        self.pods.insert(key.clone(), Waiting { created, priority, failures: 0, place: Place::InHand });
        self.put(key, Place::Active);
    }

    /// A pod wants no node any more.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.put(key, Place::InHand);
        self.pods.remove(key);
        self.missed.remove(key);
    }

    /// Takes the next pod in hand.
    pub fn take(&mut self) -> Option<(ObjectKey, Waiting)> {
        let (_, _, key) = self.active.first().cloned()?;
        self.put(&key, Place::InHand);
        self.missed.insert(key.clone(), 0);
        let waiting = self.pods[&key].clone();
        Some((key, waiting))
    }

    /// A pod in hand is to be tried again at once: it was not its fault.
    pub fn put_back(&mut self, key: &ObjectKey) {
        self.give_back(key, Place::Active);
    }

    /// A pod in hand fits nowhere until something of these kinds changes; with none, until a while has passed.
    pub fn set_aside(&mut self, key: &ObjectKey, helps: u8, now_ms: u64) {
        let missed = self.missed.get(key).copied().unwrap_or(0);
        let Some(waiting) = self.pods.get_mut(key) else { return };
        waiting.failures = waiting.failures.saturating_add(1);
        let place = if helps == 0 || missed & helps != 0 {
            Place::Resting(now_ms + rest_ms(waiting.failures))
        } else {
            Place::Stuck(helps, now_ms + STUCK_MS_MAX)
        };
        self.give_back(key, place);
    }

    /// Something changed that can help those who are stuck for such reasons: they are tried again, after their rest.
    pub fn changed(&mut self, what: u8, now_ms: u64) {
        self.missed.values_mut().for_each(|missed| *missed |= what);
        let helped: Vec<ObjectKey> = self
            .stuck
            .iter()
            .filter(|(_, key)| matches!(self.pods[key].place, Place::Stuck(helps, _) if helps & what != 0))
            .map(|(_, key)| key.clone())
            .collect();
        for key in helped {
            let rest = rest_ms(self.pods[&key].failures);
            self.put(&key, Place::Resting(now_ms + rest));
        }
    }

    /// Lets those in whose rest is over.
    pub fn wake(&mut self, now_ms: u64) {
        let is_due = |(due_ms, _): &&(u64, ObjectKey)| *due_ms <= now_ms;
        let due = self.resting.iter().take_while(is_due).chain(self.stuck.iter().take_while(is_due));
        let due: Vec<ObjectKey> = due.map(|(_, key)| key.clone()).collect();
        due.iter().for_each(|key| self.put(key, Place::Active));
    }

    /// When somebody's rest is over.
    pub fn next_due_ms(&self) -> Option<u64> {
        let first = |queue: &BTreeSet<(u64, ObjectKey)>| queue.first().map(|(due_ms, _)| *due_ms);
        [first(&self.resting), first(&self.stuck)].into_iter().flatten().min()
    }

    /// Whether somebody has a pod in hand.
    pub fn is_in_hand(&self, key: &ObjectKey) -> bool {
        self.pods.get(key).is_some_and(|waiting| waiting.place == Place::InHand)
    }

    /// How many are active, resting, stuck, and in hand.
    pub fn lengths(&self) -> [usize; 4] {
        let places = [self.active.len(), self.resting.len(), self.stuck.len()];
        let waiting: usize = places.iter().sum();
        [places[0], places[1], places[2], self.pods.len() - waiting]
    }

    /// A pod that waits, or that is in hand.
    pub fn get(&self, key: &ObjectKey) -> Option<&Waiting> {
        self.pods.get(key)
    }

    fn give_back(&mut self, key: &ObjectKey, place: Place) {
        self.missed.remove(key);
        self.put(key, place);
    }

    fn put(&mut self, key: &ObjectKey, place: Place) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        let turn = (Reverse(waiting.priority), waiting.created, key.clone());
        match waiting.place {
            Place::InHand => {}
            Place::Active => {
                self.active.remove(&turn);
            }
            Place::Resting(due_ms) => {
                self.resting.remove(&(due_ms, key.clone()));
            }
            Place::Stuck(_, due_ms) => {
                self.stuck.remove(&(due_ms, key.clone()));
            }
        }
        waiting.place = place;
        match place {
            Place::InHand => {}
            Place::Active => {
                self.active.insert(turn);
            }
            Place::Resting(due_ms) => {
                self.resting.insert((due_ms, key.clone()));
            }
            Place::Stuck(_, due_ms) => {
                self.stuck.insert((due_ms, key.clone()));
            }
        }
    }
}

fn rest_ms(failures: u32) -> u64 {
    (REST_MS_MIN << failures.saturating_sub(1).min(10)).min(REST_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::filter::{NODE, ROOM};
    use super::*;
    use crate::keys::Kind;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::Pod, "a", name)
    }

    fn taken(queues: &mut Queues) -> Vec<String> {
        std::iter::from_fn(|| queues.take()).map(|(key, _)| key.name().to_owned()).collect()
    }

    #[test]
    fn the_highest_priority_goes_first_and_then_who_came_first() {
        let mut queues = Queues::default();
        for (name, created, priority) in [("late", 9, 0), ("early", 3, 0), ("high", 10, 5)] {
            queues.add(&key(name), created, priority);
        }
        queues.add(&key("early"), 3, 0);
        assert_eq!(taken(&mut queues), ["high", "early", "late"]);
        assert_eq!(queues.lengths(), [0, 0, 0, 3]);
    }

    #[test]
    fn who_is_stuck_waits_for_what_can_help() {
        let mut queues = Queues::default();
        queues.add(&key("a"), 1, 0);
        queues.take();
        queues.set_aside(&key("a"), ROOM, 0);
        queues.changed(NODE, 10);
        queues.wake(5_000);
        assert_eq!(taken(&mut queues), Vec::<String>::new());
        queues.changed(ROOM, 5_000);
        queues.wake(5_999);
        assert_eq!((taken(&mut queues), queues.next_due_ms()), (vec![], Some(6_000)));
        queues.wake(6_000);
        assert_eq!(taken(&mut queues), ["a"]);
    }

    #[test]
    fn what_changes_while_a_pod_is_in_hand_is_not_missed() {
        let mut queues = Queues::default();
        queues.add(&key("a"), 1, 0);
        queues.take();
        queues.changed(ROOM, 0);
        queues.set_aside(&key("a"), ROOM, 0);
        assert_eq!(queues.next_due_ms(), Some(1_000));
    }

    #[test]
    fn a_new_incarnation_starts_over() {
        let mut queues = Queues::default();
        queues.add(&key("a"), 1, 0);
        queues.take();
        queues.set_aside(&key("a"), ROOM, 0);
        queues.add(&key("a"), 2, 0);
        assert_eq!(
            (taken(&mut queues), queues.get(&key("a")).map(|waiting| waiting.created)),
            (vec!["a".to_owned()], Some(2))
        );
    }

    #[test]
    fn a_pod_that_waits_is_in_exactly_one_place() {
        use proptest::prelude::*;
        let step = (0..8_u8, 0..4_u8, 0..3_000_u64);
        proptest!(|(steps in proptest::collection::vec(step, 0..200))| {
            let (mut queues, mut now) = (Queues::default(), 0);
            let (mut wanted, mut in_hand) = (BTreeSet::new(), BTreeSet::new());
            for (what, name, more) in steps {
                let key = key(&name.to_string());
                match what {
                    0 | 1 => {
                        if wanted.insert(key.clone()) {
                            queues.add(&key, more as i64, 0);
                        }
                    }
                    2 => {
                        queues.remove(&key);
                        wanted.remove(&key);
                        in_hand.remove(&key);
                    }
                    3 => if let Some((key, _)) = queues.take() {
                        prop_assert!(in_hand.insert(key));
                    },
                    4 => if in_hand.remove(&key) {
                        queues.put_back(&key);
                    },
                    5 => if in_hand.remove(&key) {
                        queues.set_aside(&key, (more % 4) as u8, now);
                    },
                    6 => queues.changed((more % 4) as u8, now),
                    _ => {
                        now += more;
                        queues.wake(now);
                    }
                }
                let [active, resting, stuck, taken] = queues.lengths();
                prop_assert_eq!((active + resting + stuck + taken, taken), (wanted.len(), in_hand.len()));
            }
            in_hand.iter().for_each(|key| queues.put_back(key));
            queues.wake(u64::MAX);
            prop_assert_eq!(taken(&mut queues).len(), wanted.len());
        });
    }
}
