//! What the scheduler keeps of the store: nodes with the room they have left, and of each pod as little as it can.
//!
//! A pod that waits is kept as it is in the store, since a bind writes all of it; one that runs is its node, what it
//! needs, how urgent it is, and its name. Invariant: what a node's row says is used is what the pods here that are bound to
//! it need, those that were placed on it and are not seen bound yet, and those that are nominated for it and not placed.

use super::amounts::Amounts;
use super::queues::Waiting;
use super::table::{Needs, Place, Table};
use crate::api::defaults::SCHEDULER;
use crate::cache::Mirror;
use crate::keys::{self, Coord, Kind, ObjectKey};
use crate::kv::{Batch, Event, KeyValue, Revision};
use crate::limits::INTERNED_MAX;
use crate::types::fields;
use crate::types::node::Node;
use crate::types::pod::Pod;
use crate::types::resource::Held;
use crate::types::time::Time;
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A pod.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// It wants a node from us. Boxed: most pods run, and each slot is as large as the largest kind.
    Waiting(Box<Pending>),
    /// It uses a node; one of a higher priority may want its room, if it is not told to go anyway.
    Bound { created: Revision, node: Arc<str>, needs: Arc<Needs>, priority: i32, started: Option<Time>, going: bool },
    /// It uses nothing and wants nothing from us.
    Idle { created: Revision },
}

/// A pod that waits.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// As the store has it.
    item: KeyValue,
    priority: i32,
    nominated: Option<(Arc<str>, Arc<Needs>)>,
}

impl Slot {
    pub(super) fn created(&self) -> Revision {
        match self {
            Self::Waiting(pending) => pending.item.created,
            Self::Bound { created, .. } | Self::Idle { created } => *created,
        }
    }

    /// What it keeps from others, and where: who is less urgent has it no more even if the pod only waits for it.
    fn holds(&self) -> Option<(&Arc<str>, &Arc<Needs>, i32)> {
        match self {
            Self::Bound { node, needs, priority, .. } => Some((node, needs, *priority)),
            Self::Waiting(pending) => pending.nominated.as_ref().map(|(node, needs)| (node, needs, pending.priority)),
            Self::Idle { .. } => None,
        }
    }
}

/// A pod that was placed and is not seen bound yet.
#[derive(Clone, Debug)]
pub(super) struct Assumed {
    pub(super) created: Revision,
    pub(super) node: Arc<str>,
    pub(super) needs: Arc<Needs>,
    pub(super) priority: i32,
}

/// A pod for which others went, or go, and room is kept.
#[derive(Clone, Debug)]
struct Nominated {
    node: Arc<str>,
    needs: Arc<Needs>,
    priority: i32,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A pod wants a node.
    Waits {
        /// Which.
        key: ObjectKey,
        /// Which incarnation.
        created: Revision,
        /// How urgently.
        priority: i32,
    },
    /// A pod wants none any more: it is bound, over, or gone.
    Waited(ObjectKey),
    /// A node changed in itself.
    Node,
    /// There is more room somewhere.
    Room,
    /// A node's placements have another version.
    Placements(String),
}

/// The scheduler's copy of the store.
#[derive(Clone, Debug, Default)]
pub struct View {
    cluster_id: u64,
    at: Revision,
    pub(super) table: Table,
    pub(super) pods: BTreeMap<ObjectKey, Slot>,
    pub(super) assumed: BTreeMap<ObjectKey, Assumed>,
    /// Pods that wait, are nominated, and are not placed: what they need counts as used.
    nominated: BTreeMap<ObjectKey, Nominated>,
    /// How many pods use a node, by priority: nobody can go for whoever is not above the lowest.
    levels: BTreeMap<i32, usize>,
    versions: BTreeMap<String, i64>,
    elections: BTreeMap<Bytes, KeyValue>,
    names: HashSet<Arc<str>>,
    makes: HashSet<Arc<Needs>>,
}

/// What was listed: nodes before pods, so that each pod finds its node's row.
#[derive(Debug, Default)]
pub struct Staged {
    nodes: Vec<KeyValue>,
    pods: Vec<(ObjectKey, Slot)>,
    coords: Vec<KeyValue>,
    names: HashSet<Arc<str>>,
    makes: HashSet<Arc<Needs>>,
}

fn interned<T: ?Sized + Eq + std::hash::Hash>(all: &mut HashSet<Arc<T>>, new: Arc<T>) -> Arc<T> {
    match all.get(&*new) {
        Some(known) => known.clone(),
        None => {
            if all.len() >= INTERNED_MAX && all.len().is_power_of_two() {
                all.retain(|known| Arc::strong_count(known) > 1);
            }
            all.insert(new.clone());
            new
        }
    }
}

/// Reads as much of a pod as is kept.
fn slot(item: KeyValue, names: &mut HashSet<Arc<str>>, makes: &mut HashSet<Arc<Needs>>) -> Slot {
    let created = item.created;
    // What cannot be read is not ours to place, and uses nothing that anybody could tell.
    let Ok(pod) = fields::read::<Pod>(&item.value) else { return Slot::Idle { created } };
    let priority = pod.spec.priority.unwrap_or(0);
    if pod.is_over() {
        Slot::Idle { created }
    } else if !pod.spec.node_name.is_empty() {
        let node = interned(names, Arc::from(pod.spec.node_name.as_str()));
        let needs = interned(makes, Arc::new(Needs::of(&pod.spec)));
        let (started, going) = (pod.status.start_time, pod.metadata.is_going());
        Slot::Bound { created, node, needs, priority, started, going }
    } else if pod.metadata.is_going()
        || !pod.spec.scheduling_gates.is_empty()
        || !matches!(pod.spec.scheduler_name.as_str(), "" | SCHEDULER)
    {
        Slot::Idle { created }
    } else {
        let nominated = (!pod.status.nominated_node_name.is_empty()).then(|| {
            let node = interned(names, Arc::from(pod.status.nominated_node_name.as_str()));
            (node, interned(makes, Arc::new(Needs::of(&pod.spec))))
        });
        // Copies: each would keep all that came with it, a page of a list for one pod.
        let (key, value) = (Bytes::copy_from_slice(&item.key), Bytes::copy_from_slice(&item.value));
        let item = KeyValue { key, value, ..item };
        Slot::Waiting(Box::new(Pending { item, priority, nominated }))
    }
}

impl View {
    /// The election's key, as this copy has it.
    pub fn election(&self, component: &str) -> Option<&KeyValue> {
        self.elections.get(keys::election(component).as_bytes())
    }

    /// Pods that want a node from us, and which incarnations.
    pub fn waits(&self) -> impl Iterator<Item = (&ObjectKey, Revision)> {
        let waits = |(key, slot): (_, &Slot)| match slot {
            Slot::Waiting(pending) => Some((key, pending.item.created)),
            Slot::Bound { .. } | Slot::Idle { .. } => None,
        };
        self.pods.iter().filter_map(waits)
    }

    /// The nodes.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The version of a node's placements, as this copy has it; 0 if nobody has written any.
    pub fn version(&self, node: &str) -> i64 {
        self.versions.get(node).copied().unwrap_or(0)
    }

    /// Pods that wait, that use a node, and all others.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.pods.values().fold((0, 0, 0), |(waiting, bound, idle), slot| match slot {
            Slot::Waiting(_) => (waiting + 1, bound, idle),
            Slot::Bound { .. } => (waiting, bound + 1, idle),
            Slot::Idle { .. } => (waiting, bound, idle + 1),
        })
    }

    /// A pod that waits, as the store has it.
    pub fn waiting(&self, key: &ObjectKey) -> Option<&KeyValue> {
        match self.pods.get(key)? {
            Slot::Waiting(pending) => Some(&pending.item),
            _ => None,
        }
    }

    /// Counts a pod that waits as being on a node, before it is seen there.
    pub(super) fn assume(&mut self, key: &ObjectKey, waiting: &Waiting, place: Place, needs: &Needs) {
        self.unreserve(key);
        let node = interned(&mut self.names, Arc::from(self.table.node(place).metadata.name.as_str()));
        let needs = interned(&mut self.makes, Arc::new(needs.clone()));
        self.table.take(place, &needs);
        let assumed = Assumed { created: waiting.created, node, needs, priority: waiting.priority };
        let before = self.assumed.insert(key.clone(), assumed);
        assert!(before.is_none(), "{key} is placed while it is placed");
    }

    /// Counts it no more; returns whether it was still counted so, and there is more room now.
    pub(super) fn forget(&mut self, key: &ObjectKey, created: Revision) -> bool {
        let is_counted = self.assumed.get(key).is_some_and(|assumed| assumed.created == created);
        is_counted && self.unassume(key).is_some()
    }

    /// Counts a pod as placed no more; returns the node on which it was.
    fn unassume(&mut self, key: &ObjectKey) -> Option<Arc<str>> {
        let Assumed { node, needs, .. } = self.assumed.remove(key)?;
        if let Some(place) = self.table.place(&node) {
            self.table.give_back(place, &needs);
        }
        self.reserve(key);
        Some(node)
    }

    /// Keeps room for a pod that waits and is nominated, unless it is placed.
    fn reserve(&mut self, key: &ObjectKey) {
        if self.assumed.contains_key(key) || self.nominated.contains_key(key) {
            return;
        }
        let Some(Slot::Waiting(pending)) = self.pods.get(key) else { return };
        let Some((node, needs)) = pending.nominated.clone() else { return };
        let nominated = Nominated { node, needs, priority: pending.priority };
        if let Some(place) = self.table.place(&nominated.node) {
            self.table.take(place, &nominated.needs);
        }
        self.nominated.insert(key.clone(), nominated);
    }

    /// Keeps it no more.
    fn unreserve(&mut self, key: &ObjectKey) {
        if let Some(Nominated { node, needs, .. }) = self.nominated.remove(key)
            && let Some(place) = self.table.place(&node)
        {
            self.table.give_back(place, &needs);
        }
    }

    /// Keeps no room for a pod itself and for those less urgent, while a place for it is looked for; returns for whom it was
    /// kept, to be given to [`View::lower`].
    pub(super) fn lift(&mut self, key: &ObjectKey, priority: i32) -> Vec<ObjectKey> {
        let is_lifted = |(other, nominated): &(&ObjectKey, &Nominated)| *other == key || nominated.priority < priority;
        let lifted: Vec<ObjectKey> = self.nominated.iter().filter(is_lifted).map(|(other, _)| other.clone()).collect();
        lifted.iter().for_each(|other| self.unreserve(other));
        lifted
    }

    /// Keeps room again for whoever has not been placed meanwhile.
    pub(super) fn lower(&mut self, lifted: &[ObjectKey]) {
        lifted.iter().for_each(|other| self.reserve(other));
    }

    /// Whether nobody who uses a node is less urgent.
    pub(super) fn is_lowest(&self, priority: i32) -> bool {
        self.levels.range(..priority).next().is_none()
            && self.assumed.values().all(|assumed| assumed.priority >= priority)
    }

    /// Pods that were placed and are not seen bound yet.
    pub fn assumed(&self) -> usize {
        self.assumed.len()
    }

    fn put(&mut self, key: ObjectKey, slot: Slot, told: &mut Vec<Told>) {
        self.remove(&key, Some(&slot), told);
        match &slot {
            Slot::Waiting(pending) => {
                let (created, priority) = (pending.item.created, pending.priority);
                told.push(Told::Waits { key: key.clone(), created, priority });
            }
            Slot::Bound { node, needs, priority, .. } => {
                let assumed = self.unassume(&key);
                if let Some(place) = self.table.place(node) {
                    self.table.take(place, needs);
                }
                *self.levels.entry(*priority).or_default() += 1;
                // Somebody else bound it, to another node.
                if assumed.is_some_and(|assumed| assumed != *node) {
                    told.push(Told::Room);
                }
                told.push(Told::Waited(key.clone()));
            }
            Slot::Idle { .. } => {
                if self.unassume(&key).is_some() {
                    told.push(Told::Room);
                }
                told.push(Told::Waited(key.clone()));
            }
        }
        self.pods.insert(key.clone(), slot);
        self.reserve(&key);
    }

    /// Takes a pod out, to be gone or to be put in as it is now.
    fn remove(&mut self, key: &ObjectKey, next: Option<&Slot>, told: &mut Vec<Told>) {
        let Some(old) = self.pods.remove(key) else { return };
        self.unreserve(key);
        if let Slot::Bound { node, needs, priority, .. } = &old {
            if let Some(place) = self.table.place(node) {
                self.table.give_back(place, needs);
            }
            let level = self.levels.get_mut(priority).expect("whoever uses a node is counted");
            *level -= 1;
            if *level == 0 {
                self.levels.remove(priority);
            }
        }
        if old.holds().is_some() && old.holds() != next.and_then(Slot::holds) {
            told.push(Told::Room);
        }
        // What was placed was this incarnation.
        if next.is_none_or(|next| next.created() != old.created()) {
            if self.unassume(key).is_some() {
                told.push(Told::Room);
            }
            told.push(Told::Waited(key.clone()));
        }
    }

    fn enter(&mut self, item: &KeyValue, told: &mut Vec<Told>) {
        let Ok(node) = Held::<Node>::read(self.cluster_id, item) else { return };
        let name = node.metadata.name.clone();
        let known = self.table.place(&name).map(|place| self.table.node(place).created);
        if known.is_some_and(|known| known != node.created) {
            self.table.leave(&name);
        }
        let is_new = known != Some(node.created);
        let place = self.table.enter(node);
        if is_new {
            // Pods may have been bound to it before it was seen, or to another one of its name.
            let bound = self.pods.values().filter_map(|slot| match slot {
                Slot::Bound { node, needs, .. } if **node == *name => Some(needs),
                _ => None,
            });
            let assumed = self.assumed.values().filter(|assumed| *assumed.node == *name).map(|assumed| &assumed.needs);
            let kept = self.nominated.values().filter(|kept| *kept.node == *name).map(|kept| &kept.needs);
            for needs in bound.chain(assumed).chain(kept) {
                self.table.take(place, needs);
            }
            self.table.set_version(place, Some(self.versions.get(&name).copied().unwrap_or(0)));
        }
        told.extend([Told::Node, Told::Room]);
    }

    fn put_coord(&mut self, item: KeyValue, told: &mut Vec<Told>) {
        match Coord::parse(&item.key) {
            Some(Coord::Alloc(node)) => {
                self.versions.insert(node.clone(), item.version);
                told.push(Told::Placements(node));
            }
            Some(Coord::Election(_)) => drop(self.elections.insert(item.key.clone(), item)),
            _ => {}
        }
    }

    fn remove_coord(&mut self, key: &Bytes, told: &mut Vec<Told>) {
        match Coord::parse(key) {
            Some(Coord::Alloc(node)) => {
                self.versions.remove(&node);
                told.push(Told::Placements(node));
            }
            Some(Coord::Election(_)) => drop(self.elections.remove(key)),
            _ => {}
        }
    }

    /// What is used of each node, worked out anew: for tests.
    pub fn used_anew(&self) -> BTreeMap<String, Amounts> {
        let mut used: BTreeMap<String, Amounts> = BTreeMap::new();
        let bound = self.pods.values().filter_map(|slot| match slot {
            Slot::Bound { node, needs, .. } => Some((node, needs)),
            _ => None,
        });
        let assumed = self.assumed.values().map(|assumed| (&assumed.node, &assumed.needs));
        let kept = self.nominated.values().map(|kept| (&kept.node, &kept.needs));
        for (node, needs) in bound.chain(assumed).chain(kept).filter(|(node, _)| self.table.place(node).is_some()) {
            let at = used.entry(node.to_string()).or_default();
            *at = at.plus(&needs.amounts);
        }
        used
    }
}

impl Mirror for View {
    type Changes = Vec<Told>;
    type Staged = Staged;

    fn at(&self) -> Revision {
        self.at
    }

    fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    fn stage(&self, staged: &mut Staged, _: u64, page: Vec<KeyValue>) {
        for item in page {
            match ObjectKey::parse(&item.key) {
                Some(key) if key.kind == Kind::Pod => {
                    let slot = slot(item, &mut staged.names, &mut staged.makes);
                    staged.pods.push((key, slot));
                }
                Some(key) if key.kind == Kind::Node => staged.nodes.push(item),
                Some(_) => {}
                None => staged.coords.push(item),
            }
        }
    }

    fn replace(&mut self, staged: Staged, cluster_id: u64, at: Revision) -> Vec<Told> {
        let mut told = Vec::new();
        let old: Vec<ObjectKey> = self.pods.keys().cloned().collect();
        // What was placed stays counted until it is known what became of it.
        let assumed = if cluster_id == self.cluster_id { std::mem::take(&mut self.assumed) } else { BTreeMap::new() };
        *self = Self { cluster_id, at, names: staged.names, makes: staged.makes, ..Self::default() };
        staged.coords.into_iter().for_each(|item| self.put_coord(item, &mut told));
        staged.nodes.iter().for_each(|item| self.enter(item, &mut told));
        for (key, slot) in staged.pods {
            self.put(key, slot, &mut told);
        }
        for (key, assumed) in assumed {
            let waits = |slot: &Slot| matches!(slot, Slot::Waiting(pending) if pending.item.created == assumed.created);
            if self.pods.get(&key).is_some_and(waits) {
                self.unreserve(&key);
                if let Some(place) = self.table.place(&assumed.node) {
                    self.table.take(place, &assumed.needs);
                }
                self.assumed.insert(key, assumed);
            }
        }
        let is_gone = |key: &ObjectKey| !self.pods.contains_key(key);
        told.extend(old.into_iter().filter(is_gone).map(Told::Waited));
        told
    }

    fn apply(&mut self, batch: Batch) -> Vec<Told> {
        let mut told = Vec::new();
        for event in batch.events {
            if event.revision() <= self.at {
                continue;
            }
            let key = ObjectKey::parse(event.key());
            match (event, key) {
                (Event::Put(item), Some(key)) if key.kind == Kind::Pod => {
                    let slot = slot(item, &mut self.names, &mut self.makes);
                    self.put(key, slot, &mut told);
                }
                (Event::Delete { .. }, Some(key)) if key.kind == Kind::Pod => self.remove(&key, None, &mut told),
                (Event::Put(item), Some(key)) if key.kind == Kind::Node => self.enter(&item, &mut told),
                (Event::Delete { .. }, Some(key)) if key.kind == Kind::Node => {
                    self.table.leave(key.name());
                    told.push(Told::Node);
                }
                (_, Some(_)) => {}
                (Event::Put(item), None) => self.put_coord(item, &mut told),
                (Event::Delete { key, .. }, None) => self.remove_coord(&key, &mut told),
            }
        }
        self.at = self.at.max(batch.through);
        told
    }
}
