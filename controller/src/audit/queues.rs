//! S11: a pod that waits for a node is in exactly one of the scheduler's queues, or on its way in one transaction.

use super::Finding;
use crate::cache::Mirror as _;
use crate::sched::Scheduler;
use crate::sched::view::View;
use std::collections::BTreeSet;

/// What is wrong with where a scheduler keeps who waits, as its own copy of the store has them.
pub fn waiting(view: &View, scheduler: &Scheduler) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut wrong = |key: String, text: &str| {
        found.push(Finding { rule: "S11", revision: view.at(), key, text: text.to_owned() });
    };
    let queues = scheduler.queues();
    let mut flies = BTreeSet::new();
    for (key, created) in scheduler.in_flight() {
        if !flies.insert((key, created)) {
            wrong(key.to_string(), "it is on its way twice");
        }
    }
    let mut count = 0;
    for (key, created) in view.waits() {
        count += 1;
        let is_queued = queues.get(key).is_some_and(|waiting| waiting.created == created);
        match (is_queued, queues.is_in_hand(key), flies.contains(&(key, created))) {
            (true, false, false) | (true, true, true) => {}
            (false, ..) => wrong(key.to_string(), "it waits, and no queue has it"),
            (true, true, false) => wrong(key.to_string(), "it is in hand, and in nobody's"),
            (true, false, true) => wrong(key.to_string(), "it is on its way, and in a queue"),
        }
    }
    let queued: usize = queues.lengths().iter().sum();
    if queued != count {
        wrong(String::new(), &format!("{queued} are in queues, and {count} wait"));
    }
    found
}
