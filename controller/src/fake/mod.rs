//! Fake nodes, thousands in one process: each registers, is heard of, and takes the pods that are bound to it through the
//! stages of a script. All share one copy of the store, and what they write is written in batches.
//!
//! In reading order: `script` (what becomes of pods, and when), `pod` and `node` (what is written of each), `journal` (what
//! an agent would write down), and the fleet here, which looks at whatever changed or is due. Nothing but the times of
//! stages is remembered: what a node has to do next is seen from the pod, so that a fleet which is started anew goes on with
//! the pods that it finds.
//!
//! Nodes share leases, [`NODES_PER_LEASE`] each: a heartbeat is a key under a lease as with any node, and those of one process live
//! and die together anyway. Like a kubelet, a node registers once: one that somebody deleted stays deleted.

pub mod script;
mod node;
mod pod;
mod journal;

use crate::audit::journals::Entry;
use crate::cache::{Cache, Changes, Mirror as _};
use crate::control::Now;
use crate::keys::{Coord, Kind, ObjectKey};
use crate::kv::{Error, LeaseId, Outcome, Txn};
use crate::limits::{FAKE_BATCH_MAX, FLIGHTS_MAX, NODES_PER_LEASE};
use crate::queue::{Priority, Queue};
use crate::types::node::Node;
use crate::types::pod::{Pod, Resources};
use crate::types::resource::Held;
use journal::Journal;
use pod::Stage;
use script::Script;
use std::collections::BTreeMap;

/// How long a heartbeat lives that is not renewed.
pub const HEARTBEAT_TTL_MS: u64 = 10_000;

/// What all nodes of a fleet have in common.
#[derive(Clone, Debug, Default)]
pub struct Make {
    /// What each has, `cpu`, `memory` and `pods` above all.
    pub capacity: Resources,
    /// Labels beside its name.
    pub labels: BTreeMap<String, String>,
    /// What becomes of pods that say nothing themselves.
    pub script: Script,
}

/// How a fleet is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Nodes that are there.
    pub registered: u64,
    /// Changes of pods that were written: stages, and ends.
    pub stages: u64,
    /// Transactions that were written.
    pub committed: u64,
    /// Transactions that a guard refused.
    pub refused: u64,
    /// Transactions that were not answered, or not done.
    pub failed: u64,
}

/// A node of the fleet.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// Whose lease it is heard of under.
    group: usize,
    is_registered: bool,
}

/// The stage that a pod comes to next.
#[derive(Clone, Copy, Debug)]
struct Timer {
    created: i64,
    stage: Stage,
    due_ms: u64,
}

/// A transaction on its way, and whose changes are in it.
#[derive(Clone, Debug)]
struct Flight {
    txn: Txn,
    keys: Vec<ObjectKey>,
}

/// What somebody has to do.
enum Look {
    Nothing,
    Later(u64),
    Write(Txn),
}

/// Many nodes.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    make: Make,
    members: BTreeMap<String, Member>,
    leases: Vec<Option<LeaseId>>,
    queue: Queue<ObjectKey>,
    timers: BTreeMap<ObjectKey, Timer>,
    flights: BTreeMap<u64, Flight>,
    next_flight: u64,
    counters: Counters,
    /// Kept only for whoever takes its lines away.
    journal: Option<Journal>,
}

impl Fleet {
    /// Nodes with these names, none of which is there yet.
    pub fn new(make: Make, names: impl IntoIterator<Item = String>) -> Self {
        let member = |(n, name)| (name, Member { group: n / NODES_PER_LEASE, is_registered: false });
        let members: BTreeMap<String, Member> = names.into_iter().enumerate().map(member).collect();
        let leases = vec![None; members.len().div_ceil(NODES_PER_LEASE)];
        Self { make, members, leases, ..Self::default() }
    }

    /// Writes down what its containers do, for whoever takes it ([`Fleet::take_journal`]) before what is planned is written.
    pub fn with_journal(mut self) -> Self {
        let mut journal = Journal::default();
        journal.booted(self.members.keys());
        self.journal = Some(journal);
        self
    }

    /// What its containers did since it was last asked; nothing without [`Fleet::with_journal`].
    pub fn take_journal(&mut self) -> Vec<Entry> {
        self.journal.as_mut().map(Journal::take).unwrap_or_default()
    }

    fn starts(&mut self, key: &ObjectKey, pod: &Held<Pod>) {
        if let Some(journal) = &mut self.journal {
            journal.starts(key, pod);
        }
    }

    fn stopped(&mut self, key: &ObjectKey) {
        if let Some(journal) = &mut self.journal {
            journal.stopped(key);
        }
    }

    /// Leases that the fleet needs, each kept alive for [`HEARTBEAT_TTL_MS`] again and again.
    pub fn groups(&self) -> usize {
        self.leases.len()
    }

    /// A group has a lease, the first one or another one since its last was lost.
    pub fn leased(&mut self, group: usize, lease: LeaseId) {
        self.leases[group] = Some(lease);
        for (name, _) in self.members.iter().filter(|(_, member)| member.group == group) {
            self.queue.add(ObjectKey::new(Kind::Node, "", name), Priority::Change);
        }
    }

    /// Something changed in the copy of the store.
    pub fn changed(&mut self, cache: &Cache, changes: &Changes) {
        for change in &changes.objects {
            let is_ours = |pod: &Held<Pod>| self.members.contains_key(&pod.spec.node_name);
            match change.key.kind {
                Kind::Pod if cache.get::<Pod>(change.key.namespace(), change.key.name()).is_some_and(is_ours) => {
                    self.queue.add(change.key.clone(), Priority::Change);
                }
                Kind::Pod => {
                    self.timers.remove(&change.key);
                    self.stopped(&change.key);
                }
                Kind::Node => self.node(change.key.name()),
                _ => {}
            }
        }
        for coord in &changes.coords {
            if let Coord::Heartbeat(name) = coord {
                self.node(name);
            }
        }
        self.queue.reached(cache.at());
    }

    fn node(&mut self, name: &str) {
        if self.members.contains_key(name) {
            self.queue.add(ObjectKey::new(Kind::Node, "", name), Priority::Change);
        }
    }

    /// What to write now, and what to call it when its answer is told; nothing once enough is on its way.
    pub fn plan(&mut self, cache: &Cache, now: Now) -> Option<(u64, Txn)> {
        if self.flights.len() >= FLIGHTS_MAX {
            return None;
        }
        let (mut txn, mut keys) = (Txn::new(), Vec::new());
        while keys.len() < FAKE_BATCH_MAX {
            let Some(key) = self.queue.take(now.ms) else { break };
            match self.look(cache, &key, now) {
                Look::Nothing => self.queue.done(&key, None),
                Look::Later(due_ms) => {
                    self.queue.add_at(key.clone(), due_ms);
                    self.queue.done(&key, None);
                }
                Look::Write(more) if txn.fits_with(&more) => {
                    txn = txn.and(more);
                    keys.push(key);
                }
                Look::Write(_) => {
                    self.queue.add(key.clone(), Priority::Change);
                    self.queue.done(&key, None);
                    break;
                }
            }
        }
        if keys.is_empty() {
            return None;
        }
        let id = self.next_flight;
        self.next_flight += 1;
        self.flights.insert(id, Flight { txn: txn.clone(), keys });
        Some((id, txn))
    }

    fn look(&mut self, cache: &Cache, key: &ObjectKey, now: Now) -> Look {
        match key.kind {
            Kind::Node => self.look_at_node(cache, key.name(), now).map_or(Look::Nothing, Look::Write),
            _ => self.look_at_pod(cache, key, now),
        }
    }

    fn look_at_node(&mut self, cache: &Cache, name: &str, now: Now) -> Option<Txn> {
        let member = self.members.get_mut(name)?;
        let lease = self.leases[member.group]?;
        let node = cache.get::<Node>("", name);
        if node.is_some() && !member.is_registered {
            member.is_registered = true;
            self.counters.registered += 1;
        }
        match node {
            Some(node) => node::keep(cache, node, lease, now.time),
            None if member.is_registered || cache.at() == 0 => None,
            None => node::register(cache.cluster(), name, &self.make, lease, now.time),
        }
    }

    fn look_at_pod(&mut self, cache: &Cache, key: &ObjectKey, now: Now) -> Look {
        let pod = cache.get::<Pod>(key.namespace(), key.name());
        let Some(pod) = pod.filter(|pod| self.members.contains_key(&pod.spec.node_name)) else {
            self.timers.remove(key);
            self.stopped(key);
            return Look::Nothing;
        };
        let own = pod.metadata.annotations.get(script::ANNOTATION);
        let script = match own.map_or(Ok(self.make.script), |own| self.make.script.amended(own)) {
            Ok(script) => script,
            Err(_) if pod.metadata.is_going() => self.make.script,
            Err(_) if pod.is_over() => return Look::Nothing,
            Err(why) => {
                self.stopped(key);
                return pod::refuse(pod, &why.to_string(), now.time).map_or(Look::Nothing, Look::Write);
            }
        };
        // Whatever this process did not start itself runs since it was found running.
        if pod.runs() && !self.timers.contains_key(key) {
            self.starts(key, pod);
        }
        let Some((stage, wait_ms)) = pod::next(pod, pod.created, &script) else {
            self.timers.remove(key);
            if pod.is_over() {
                self.stopped(key);
            }
            return Look::Nothing;
        };
        let timer = self.timers.get(key).filter(|timer| timer.created == pod.created && timer.stage == stage);
        let due_ms = timer.map_or(now.ms + wait_ms, |timer| timer.due_ms);
        if timer.is_none() {
            self.timers.insert(key.clone(), Timer { created: pod.created, stage, due_ms });
        }
        if due_ms > now.ms {
            return Look::Later(due_ms);
        }
        match stage {
            Stage::Start | Stage::BecomeReady => self.starts(key, pod),
            Stage::Fail | Stage::Crash | Stage::Go => self.stopped(key),
        }
        pod::play(stage, pod, &script, now.time).map_or(Look::Nothing, Look::Write)
    }

    /// The answer to a transaction.
    pub fn answered(&mut self, id: u64, answer: &Result<Outcome, Error>, now: Now) {
        let Some(Flight { txn, keys }) = self.flights.remove(&id) else { return };
        match answer {
            Ok(Outcome::Committed(revision)) => {
                self.counters.committed += 1;
                for key in keys {
                    self.counters.stages += u64::from(key.kind == Kind::Pod);
                    self.queue.done(&key, Some(*revision));
                }
            }
            Ok(Outcome::Refused { seen, .. }) => {
                self.counters.refused += 1;
                let failed = txn.guards().iter().zip(seen).filter(|(guard, seen)| !guard.holds(seen));
                let offenders: BTreeMap<&[u8], i64> =
                    failed.map(|(guard, seen)| (&guard.key()[..], seen.modified)).collect();
                for key in keys {
                    match offenders.get(key.to_string().as_bytes()) {
                        // It is gone; when this is seen, there is nothing left to do.
                        Some(0) => {
                            self.queue.failed(&key, now.ms);
                        }
                        Some(modified) => {
                            self.queue.add(key.clone(), Priority::Change);
                            self.queue.done(&key, Some(*modified));
                        }
                        // It was not at fault, and goes into the next one.
                        None => {
                            self.queue.add(key.clone(), Priority::Change);
                            self.queue.done(&key, None);
                        }
                    }
                }
            }
            // If it was written all the same, the guards of the next try say so.
            Err(_) => {
                self.counters.failed += 1;
                for key in keys {
                    self.queue.failed(&key, now.ms);
                }
            }
        }
    }

    /// When something is due, if nothing comes.
    pub fn due_ms(&self) -> Option<u64> {
        self.queue.next_due_ms().filter(|_| self.flights.len() < FLIGHTS_MAX)
    }

    /// How it is doing.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
