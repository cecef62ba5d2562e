//! The scheduler: which node each pod is bound to.
//!
//! In reading order: `amounts` (what pods ask for), `filter` (where they may be at all), `table` (the nodes, and the best one),
//! `view` (the copy of the store), `queues` (who waits, and for what), `preempt` (who has to go for the more urgent), `wanted`
//! (how they are told), and the scheduler here, which places pods, groups placements into transactions, and makes of the
//! answers what they mean.
//!
//! Each bind compares the version of the node's placements and rewrites it, so that a bind which does not know of another
//! one is refused. The next version is never foretold: while a bind to a node is on its way, nobody else is placed there.
//! Foretelling looks safe and is not: if the first of two binds is lost, and something else rewrites the node's placements,
//! the second one finds the version that it was told, and does not know why. It does no I/O: whoever holds it asks for
//! transactions, writes them under the leader's fence, and tells the answers.

pub mod amounts;
pub mod filter;
pub mod table;
pub mod view;
pub mod queues;
mod preempt;
mod wanted;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;

pub use wanted::BY_SCHEDULER;

use crate::cache::Mirror as _;
use crate::control::{About, Note, Now};
use crate::keys::{self, ObjectKey};
use crate::kv::{Error, Guard, KeyValue, Outcome, Revision, Txn};
use crate::limits::{BINDS_MAX, FLIGHTS_MAX, NOTES_MAX, TXN_OPERATIONS_MAX};
use crate::types::fields;
use crate::types::meta::{Condition, set_condition};
use crate::types::pod::Pod;
use crate::types::resource::Resource as _;
use filter::sentence;
use preempt::Choice;
use queues::Queues;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use table::{Needs, Place};
use view::{Told, View};
use wanted::{Missed, Wanted};

/// The component whose election it is.
pub const COMPONENT: &str = "scheduler";

/// A transaction on its way.
#[derive(Clone, Debug)]
struct Flight {
    txn: Txn,
    pods: Vec<(ObjectKey, Revision)>,
    /// Its nodes, and the versions of their placements that it compares.
    nodes: BTreeMap<String, i64>,
    /// How many go by it, if it makes room for its only pod; then nobody is bound by it.
    victims: Option<usize>,
    /// The revision that the copy must have come to before it is known what became of it.
    until: Option<Revision>,
    is_committed: bool,
    /// What to tell people once it is written.
    notes: Vec<Note>,
}

/// How a scheduler is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pods that were bound.
    pub bound: u64,
    /// Pods that fitted nowhere, each time that they were looked at.
    pub unschedulable: u64,
    /// Pods that were nominated for a node, each time.
    pub preempting: u64,
    /// Pods that were told to go for others.
    pub preempted: u64,
    /// Transactions that were written, refused, and neither.
    pub committed: u64,
    /// Transactions that a guard refused.
    pub refused: u64,
    /// Transactions that were not answered, or not done.
    pub failed: u64,
}

/// Places pods.
#[derive(Clone, Debug, Default)]
pub struct Scheduler {
    queues: Queues,
    flights: BTreeMap<u64, Flight>,
    next_flight: u64,
    /// Transactions of which it is not known yet what became of them, by node.
    busy: BTreeMap<String, usize>,
    /// Up to where the copy must have come before its version of a node's placements counts again.
    settles: BTreeMap<String, Revision>,
    /// The pod for which others are to go as soon as they are read: one at a time, and nobody is placed meanwhile.
    wanted: Option<Wanted>,
    counters: Counters,
    notes: Vec<Note>,
}

/// A transaction to be written, and what to call it when its answer is told.
pub type Bind = (u64, Txn);

impl Scheduler {
    /// Something happened in the copy of the store.
    pub fn told(&mut self, view: &mut View, told: &[Told], now: Now) {
        for one in told {
            match one {
                Told::Waits { key, created, priority } => self.queues.add(key, *created, *priority),
                Told::Waited(key) => self.queues.remove(key),
                Told::Node => self.queues.changed(filter::NODE, now.ms),
                Told::Room => self.queues.changed(filter::ROOM, now.ms),
                Told::Placements(node) => self.refresh(view, node),
            }
        }
        self.settle(view, now);
    }

    /// Takes the copy's version of a node's placements, unless it may be older than what was written.
    fn refresh(&mut self, view: &mut View, node: &str) {
        let settled = self.settles.get(node).is_none_or(|until| *until <= view.at());
        if settled && !self.busy.contains_key(node) {
            self.settles.remove(node);
            let version = view.version(node);
            if let Some(place) = view.table.place(node) {
                view.table.set_version(place, Some(version));
            }
        }
    }

    /// Ends the flights of which the copy now says what became of them.
    fn settle(&mut self, view: &mut View, now: Now) {
        let at = view.at();
        let is_known = |flight: &Flight| flight.until.is_some_and(|until| until <= at);
        let known: Vec<u64> = self.flights.iter().filter(|(_, flight)| is_known(flight)).map(|(id, _)| *id).collect();
        for id in known {
            let flight = self.flights.remove(&id).expect("it was just seen");
            for (key, created) in &flight.pods {
                // Whoever is seen bound is counted as bound; who is not was not bound, and others may have its room.
                if view.forget(key, *created) {
                    self.queues.changed(filter::ROOM, now.ms);
                }
                let waits = view.waiting(key).is_some_and(|item| item.created == *created);
                if !waits || self.queues.get(key).is_none_or(|waiting| waiting.created != *created) {
                    continue;
                }
                if flight.victims.is_some() && flight.is_committed {
                    // It is nominated, and waits for its victims to be gone.
                    self.queues.set_aside(key, filter::NODE | filter::ROOM, now.ms);
                } else {
                    self.queues.put_back(key);
                }
            }
            for node in flight.nodes.into_keys() {
                let left = self.busy.get_mut(&node).expect("each flight counts each of its nodes");
                *left -= 1;
                if *left == 0 {
                    self.busy.remove(&node);
                }
                self.refresh(view, &node);
            }
        }
        let due: Vec<String> =
            self.settles.iter().filter(|(_, until)| **until <= at).map(|(node, _)| node.clone()).collect();
        due.iter().for_each(|node| self.refresh(view, node));
    }

    /// Places pods that wait, and says what to write: nothing once enough is on its way, or nobody waits, or victims are to be
    /// read first.
    ///
    /// - Shape: `token` is the leader's, which every transaction carries and every placement states.
    pub fn plan(&mut self, view: &mut View, token: Revision, now: Now) -> Option<Bind> {
        self.queues.wake(now.ms);
        if self.wanted.is_some() || self.flights.values().filter(|flight| flight.until.is_none()).count() >= FLIGHTS_MAX
        {
            return None;
        }
        let mut batch = Batch::new(token);
        while batch.pods.len() < BINDS_MAX {
            let Some((key, waiting)) = self.queues.take() else { break };
            let Some(item) = view.waiting(&key).filter(|item| item.created == waiting.created).cloned() else {
                self.queues.remove(&key);
                continue;
            };
            let Ok(pod) = fields::read::<Pod>(&item.value) else {
                self.queues.remove(&key);
                continue;
            };
            let needs = Needs::of(&pod.spec);
            // What is kept for it is its own, and what is kept for the less urgent is not kept from it.
            let lifted = view.lift(&key, waiting.priority);
            let Some(place) = view.table.best(&pod.spec, &needs, item.created as u64) else {
                let next = self.unfit(view, &key, &item, pod, batch.txn.is_empty(), now);
                view.lower(&lifted);
                let ControlFlow::Continue(told) = next else { break };
                if let Some(txn) = told.filter(|txn| batch.takes(txn)) {
                    batch.txn = batch.txn.and(txn);
                }
                continue;
            };
            let bind = bind(view, &key, item.modified, pod, place, now);
            if !batch.takes(&bind) {
                // It goes first into the next one.
                self.queues.put_back(&key);
                view.lower(&lifted);
                break;
            }
            batch.add(view, place, bind);
            let node = &view.table.node(place).metadata.name;
            let message = format!("Successfully assigned {}/{} to {node}", key.namespace(), key.name());
            batch.notes.push(note(view, &key, &item, "Scheduled", message));
            view.assume(&key, &waiting, place, &needs);
            view.lower(&lifted);
            batch.pods.push((key, item.created));
        }
        self.send(view, batch)
    }

    /// Puts a batch on its way.
    fn send(&mut self, view: &mut View, batch: Batch) -> Option<Bind> {
        if batch.txn.is_empty() {
            return None;
        }
        let mut txn = batch.txn.fenced(COMPONENT, batch.token);
        let stamp = serde_json::json!({"component": COMPONENT, "token": batch.token}).to_string();
        for node in batch.nodes.keys() {
            txn = txn.put(keys::alloc(node), stamp.clone());
            let place = view.table.place(node).expect("nothing was told since it was placed on");
            view.table.set_version(place, None);
            *self.busy.entry(node.clone()).or_default() += 1;
        }
        let id = self.next_flight;
        self.next_flight += 1;
        let Batch { pods, nodes, victims, notes, .. } = batch;
        let flight = Flight { txn: txn.clone(), pods, nodes, victims, until: None, is_committed: false, notes };
        self.flights.insert(id, flight);
        Some((id, txn))
    }

    /// A pod fits nowhere: others go for it, or it waits for what can help, and says so, unless it has said the same. Nobody
    /// else is looked at before something is answered if that decides it.
    ///
    /// - Shape: nothing is kept from the pod that is kept for less urgent ones. Nobody is chosen to go unless it `is_first`:
    ///   what is placed together with it is not on its way yet, and its nodes are not known to be in use.
    fn unfit(
        &mut self,
        view: &View,
        key: &ObjectKey,
        item: &KeyValue,
        pod: Pod,
        is_first: bool,
        now: Now,
    ) -> ControlFlow<(), Option<Txn>> {
        let needs = Needs::of(&pod.spec);
        if view.table.has_room(&pod.spec, &needs) {
            // It fits where somebody is being placed right now: the answer is soon there.
            self.queues.put_back(key);
            return ControlFlow::Break(());
        }
        let reasons = view.table.reasons(&pod.spec, &needs);
        let sentence = sentence(view.table.len(), &reasons);
        let (told, stays) = match preempt::choose(view, &pod, &needs, item.created as u64) {
            Choice::Victims(place, victims) if is_first => {
                self.counters.unschedulable += 1;
                self.wanted = Some(Wanted {
                    key: key.clone(),
                    created: item.created,
                    priority: pod.spec.priority.unwrap_or(0),
                    node: view.table.node(place).metadata.name.clone(),
                    version: view.table.version(place).expect("nobody goes where it is not known"),
                    victims,
                    condition: unschedulable(sentence),
                });
                return ControlFlow::Break(());
            }
            Choice::Victims(..) | Choice::Soon => {
                self.queues.put_back(key);
                return ControlFlow::Break(());
            }
            Choice::Nothing { told, stays } => (told, stays),
        };
        self.counters.unschedulable += 1;
        let helps = if view.table.is_empty() { filter::NODE } else { 0 };
        let helps = reasons.keys().fold(helps, |bits, reason| bits | reason.bit());
        self.queues.set_aside(key, helps, now.ms);
        let condition = unschedulable(format!("{sentence}{told}"));
        keep(&mut self.notes, vec![failed(view, key, item, &condition)]);
        ControlFlow::Continue(says(key, item, pod, stays, condition, now))
    }

    /// The pods that somebody has to read before others are placed; what was read goes to [`Scheduler::make_room`].
    ///
    /// - Shape: at most [`crate::limits::VICTIMS_MAX`]; nobody, if those suffice who go already: then nothing is to be read.
    pub fn victims(&self) -> Option<Vec<ObjectKey>> {
        let wanted = self.wanted.as_ref()?;
        Some(wanted.victims.iter().map(|(key, _)| key.clone()).collect())
    }

    /// Says what to write so that others go for a pod: nothing if anything is not as it was.
    ///
    /// - Shape: `read` is what the store has of [`Scheduler::victims`], of those that are there, in any order and not older than
    ///   when they were named; nothing if the store did not answer. `token` as in [`Scheduler::plan`].
    pub fn make_room(&mut self, view: &mut View, read: &[KeyValue], token: Revision, now: Now) -> Option<Bind> {
        let wanted = self.wanted.take()?;
        let Wanted { key, created, .. } = &wanted;
        let item = view.waiting(key).filter(|item| item.created == *created).cloned()?;
        let place = view.table.place(&wanted.node);
        let is_same = place.is_some_and(|place| view.table.version(place) == Some(wanted.version));
        let done = if is_same { wanted.txn(view.cluster_id(), &item, read, now) } else { Err(Missed::Stale) };
        let mut batch = Batch::new(token);
        match done {
            Err(Missed::Stale) => {
                // The copy has not seen yet what is different.
                self.queues.set_aside(key, 0, now.ms);
                return None;
            }
            Err(Missed::TooLarge) => {
                self.queues.set_aside(key, filter::NODE | filter::ROOM, now.ms);
                let message = format!("{} preemption: no transaction is large enough.", wanted.condition.message);
                let condition = unschedulable(message);
                let pod = fields::read::<Pod>(&item.value).ok()?;
                keep(&mut self.notes, vec![failed(view, key, &item, &condition)]);
                batch.txn = says(key, &item, pod, false, condition, now)?;
            }
            Ok((txn, notes)) => {
                batch.txn = txn;
                batch.pods.push((key.clone(), *created));
                batch.nodes.insert(wanted.node.clone(), wanted.version);
                batch.victims = Some(wanted.victims.len());
                batch.notes.push(failed(view, key, &item, &wanted.condition));
                batch.notes.extend(notes);
            }
        }
        self.send(view, batch)
    }

    /// What people should hear of since it was last asked.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// The pods whose transactions are on their way, and the one whose victims are being read.
    pub fn in_flight(&self) -> impl Iterator<Item = (&ObjectKey, Revision)> {
        let flies = self.flights.values().flat_map(|flight| flight.pods.iter().map(|(key, created)| (key, *created)));
        flies.chain(self.wanted.iter().map(|wanted| (&wanted.key, wanted.created)))
    }

    /// The pods that a transaction on its way binds.
    pub fn binds(&self, id: u64) -> impl Iterator<Item = &ObjectKey> {
        let flight = self.flights.get(&id).filter(|flight| flight.victims.is_none());
        flight.into_iter().flat_map(|flight| flight.pods.iter().map(|(key, _)| key))
    }

    /// The answer to a transaction. Returns it if it is to be written again: its outcome is unknown, and only itself tells.
    /// After any other error the caller waits before it plans again.
    pub fn answered(&mut self, view: &mut View, id: u64, answer: Result<Outcome, Error>, now: Now) -> Option<Txn> {
        let flight = self.flights.get_mut(&id)?;
        let until = match answer {
            Err(Error::Unknown(_)) => {
                self.counters.failed += 1;
                return Some(flight.txn.clone());
            }
            Ok(Outcome::Committed(revision)) => {
                self.counters.committed += 1;
                flight.is_committed = true;
                keep(&mut self.notes, std::mem::take(&mut flight.notes));
                if let Some(victims) = flight.victims {
                    // The copy has to see first who goes, and for whom room is kept.
                    self.counters.preempting += 1;
                    self.counters.preempted += victims as u64;
                } else {
                    self.counters.bound += flight.pods.len() as u64;
                    // It found the version that it compared, and made it the next one: nobody came in between.
                    for (node, version) in &flight.nodes {
                        if let Some(place) = view.table.place(node) {
                            view.table.set_version(place, Some(version + 1));
                        }
                    }
                }
                revision
            }
            Ok(Outcome::Refused { revision, .. }) => {
                self.counters.refused += 1;
                revision
            }
            Err(_) => {
                self.counters.failed += 1;
                view.at()
            }
        };
        flight.until = Some(until);
        for node in flight.nodes.keys().cloned() {
            let settles = self.settles.entry(node).or_default();
            *settles = (*settles).max(until);
        }
        self.told(view, &[], now);
        None
    }

    /// Forgets what is on its way: the leadership is lost, or won anew.
    pub fn reset(&mut self, view: &mut View) {
        if let Some(Wanted { key, created, .. }) = self.wanted.take()
            && self.queues.get(&key).is_some_and(|waiting| waiting.created == created)
        {
            self.queues.put_back(&key);
        }
        for flight in std::mem::take(&mut self.flights).into_values() {
            for (key, created) in &flight.pods {
                view.forget(key, *created);
                if self.queues.get(key).is_some_and(|waiting| waiting.created == *created) {
                    self.queues.put_back(key);
                }
            }
        }
        let nodes: Vec<String> =
            std::mem::take(&mut self.busy).into_keys().chain(std::mem::take(&mut self.settles).into_keys()).collect();
        nodes.iter().for_each(|node| self.refresh(view, node));
    }

    /// How it is doing.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Who waits.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Transactions of which it is not known yet what became of them.
    pub fn flights(&self) -> usize {
        self.flights.len()
    }
}

/// Binds that are written together.
struct Batch {
    token: Revision,
    txn: Txn,
    pods: Vec<(ObjectKey, Revision)>,
    /// Nodes, and the versions of their placements that must be found.
    nodes: BTreeMap<String, i64>,
    /// How many go, if room is made for the only pod.
    victims: Option<usize>,
    notes: Vec<Note>,
}

impl Batch {
    fn new(token: Revision) -> Self {
        let (pods, nodes, notes) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { token, txn: Txn::new(), pods, nodes, victims: None, notes }
    }

    /// Whether there is room for one more pod, its node's placements, and the fence.
    fn takes(&self, bind: &Txn) -> bool {
        self.txn.fits_with(bind)
            && self.txn.guards().len() + 3 <= TXN_OPERATIONS_MAX
            && self.txn.writes().len() + self.nodes.len() + 2 <= TXN_OPERATIONS_MAX
    }

    fn add(&mut self, view: &View, place: Place, bind: Txn) {
        let name = &view.table.node(place).metadata.name;
        let version = view.table.version(place).expect("nobody is placed where it is not known");
        let guard = Guard::Version { key: keys::alloc(name).into(), version };
        self.txn = std::mem::take(&mut self.txn).guard(guard).and(bind);
        self.nodes.insert(name.clone(), version);
    }
}

/// Keeps notes until they are asked for, as many as may be.
fn keep(notes: &mut Vec<Note>, more: Vec<Note>) {
    let room = NOTES_MAX.saturating_sub(notes.len());
    notes.extend(more.into_iter().take(room));
}

fn note(view: &View, key: &ObjectKey, item: &KeyValue, reason: &'static str, message: String) -> Note {
    let uid = keys::uid(view.cluster_id(), &item.key, item.created);
    let about = About { key: key.clone(), uid, resource_version: item.modified.to_string() };
    Note { about: Some(about), is_warning: false, reason, message }
}

/// That a pod fits nowhere, as an event.
fn failed(view: &View, key: &ObjectKey, item: &KeyValue, condition: &Condition) -> Note {
    Note { is_warning: true, ..note(view, key, item, "FailedScheduling", condition.message.clone()) }
}

/// That a pod fits nowhere, as its condition.
fn unschedulable(message: String) -> Condition {
    Condition {
        r#type: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: "Unschedulable".to_owned(),
        message,
        ..Default::default()
    }
}

/// Lets a pod say that it fits nowhere, and takes its nomination back unless that `stays`; `None` if it says so already.
fn says(key: &ObjectKey, item: &KeyValue, mut pod: Pod, stays: bool, condition: Condition, now: Now) -> Option<Txn> {
    let is_nominated = !stays && !pod.status.nominated_node_name.is_empty();
    if is_nominated {
        pod.status.nominated_node_name.clear();
    }
    if !set_condition(&mut pod.status.conditions, condition, now.time) && !is_nominated {
        return None;
    }
    let guard = Guard::Seen { key: key.to_string().into(), modified: item.modified };
    Some(Txn::new().guard(guard).put(key.to_string(), pod.to_stored()))
}

/// The half of a bind that is the pod's.
fn bind(view: &View, key: &ObjectKey, modified: Revision, mut pod: Pod, place: Place, now: Now) -> Txn {
    pod.spec.node_name.clone_from(&view.table.node(place).metadata.name);
    pod.status.nominated_node_name.clear();
    let condition = Condition { r#type: "PodScheduled".to_owned(), status: "True".to_owned(), ..Default::default() };
    set_condition(&mut pod.status.conditions, condition, now.time);
    Txn::new().guard(Guard::Seen { key: key.to_string().into(), modified }).put(key.to_string(), pod.to_stored())
}
