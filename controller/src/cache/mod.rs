//! One ordered copy of all objects, at one revision, with the indexes that reconcilers need.
//!
//! In reading order: this copy, and `feed` (how it is filled and kept up to date: list, watch, list again).
//!
//! Invariants: everything of a revision is in it, or nothing is; an object is in each of its indexes exactly as long as it
//! is here. Objects are told apart by key and creation, so that one of the same name never passes for another.

mod feed;

pub use feed::{Ask, Feed, Mirror};

use crate::keys::{Coord, Kind, ObjectKey};
use crate::kv::{Batch, Event, KeyValue, Revision};
use crate::types::node::{Namespace, Node};
use crate::types::pod::Pod;
use crate::types::resource::{Held, Resource};
use crate::types::workload::{Deployment, ReplicaSet};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// An object of any kind.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Object {
    Namespace(Held<Namespace>),
    Node(Held<Node>),
    Pod(Held<Pod>),
    ReplicaSet(Held<ReplicaSet>),
    Deployment(Held<Deployment>),
    /// What the store holds is no object of its kind; why.
    Broken {
        created: Revision,
        modified: Revision,
        why: String,
    },
}

/// A kind whose objects an [`Object`] can hold.
pub trait Cached: Resource {
    /// Its object, if it is one of this kind.
    fn of(object: &Object) -> Option<&Held<Self>>;
}

macro_rules! cached {
    ($($type:ident),*) => {
        $(impl Cached for $type {
            fn of(object: &Object) -> Option<&Held<Self>> {
                match object {
                    Object::$type(held) => Some(held),
                    _ => None,
                }
            }
        })*

        impl Object {
            fn read(kind: Kind, cluster_id: u64, from: &KeyValue) -> Self {
                let read = match kind {
                    $(Kind::$type => Held::<$type>::read(cluster_id, from).map(Object::$type),)*
                };
                let (created, modified) = (from.created, from.modified);
                read.unwrap_or_else(|why| Object::Broken { created, modified, why })
            }

            /// Its metadata, if it is an object of its kind.
            pub fn meta(&self) -> Option<&crate::types::meta::ObjectMeta> {
                match self {
                    $(Object::$type(held) => Some(&held.metadata),)*
                    Object::Broken { .. } => None,
                }
            }

            /// When this incarnation began.
            pub fn created(&self) -> Revision {
                match self {
                    $(Object::$type(held) => held.created,)*
                    Object::Broken { created, .. } => *created,
                }
            }

            /// When it last changed.
            pub fn modified(&self) -> Revision {
                match self {
                    $(Object::$type(held) => held.modified,)*
                    Object::Broken { modified, .. } => *modified,
                }
            }
        }
    };
}

cached!(Namespace, Node, Pod, ReplicaSet, Deployment);

/// An object that is not what it was.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which.
    pub key: ObjectKey,
    /// What it was; `None` if it was not there.
    pub old: Option<Object>,
    /// What it is; `None` if it is not there.
    pub new: Option<Object>,
}

/// What an update changed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Objects.
    pub objects: Vec<Change>,
    /// Elections, heartbeats and placements that are not what they were.
    pub coords: Vec<Coord>,
}

/// All objects at one revision.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    cluster_id: u64,
    at: Revision,
    objects: BTreeMap<ObjectKey, Object>,
    coords: BTreeMap<Bytes, KeyValue>,
    /// Objects by the creation of each of their owners.
    by_owner: BTreeMap<Revision, BTreeSet<ObjectKey>>,
    /// Pods by the node that they are bound to.
    by_node: BTreeMap<String, BTreeSet<ObjectKey>>,
}

impl Cache {
    /// Which cluster it is a copy of; 0 before the first list.
    pub fn cluster(&self) -> u64 {
        self.cluster_id
    }

    /// Any object.
    pub fn object(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    /// An object of a kind; `None` also if it is broken.
    pub fn get<T: Cached>(&self, namespace: &str, name: &str) -> Option<&Held<T>> {
        self.objects.get(&ObjectKey::new(T::KIND, namespace, name)).and_then(T::of)
    }

    /// All objects of a kind, in the order of their keys.
    pub fn all<T: Cached>(&self) -> impl Iterator<Item = &Held<T>> {
        self.keys(T::KIND).filter_map(|(_, object)| T::of(object))
    }

    /// All objects of a kind, broken ones too.
    pub fn keys(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        let first = ObjectKey::below_all(kind);
        self.objects.range(first..).take_while(move |(key, _)| key.kind == kind)
    }

    /// All objects of a kind in a namespace.
    pub fn within<T: Cached>(&self, namespace: &str) -> impl Iterator<Item = &Held<T>> {
        let first = ObjectKey::new(T::KIND, namespace, "");
        let is_within = {
            let namespace = namespace.to_owned();
            move |key: &ObjectKey| key.kind == T::KIND && key.namespace() == namespace
        };
        self.objects.range(first..).take_while(move |(key, _)| is_within(key)).filter_map(|(_, object)| T::of(object))
    }

    /// All objects of a kind that name this incarnation as an owner.
    pub fn owned<T: Cached>(&self, owner: Revision) -> impl Iterator<Item = &Held<T>> {
        let keys = self.by_owner.get(&owner).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key).and_then(T::of))
    }

    /// The keys of everything that names this incarnation as an owner.
    pub fn dependents(&self, owner: Revision) -> impl Iterator<Item = &ObjectKey> {
        self.by_owner.get(&owner).into_iter().flatten()
    }

    /// All pods that are bound to a node.
    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Held<Pod>> {
        let keys = self.by_node.get(node).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key).and_then(Pod::of))
    }

    /// An election, a heartbeat or a placement, by its key in the store.
    pub fn coord(&self, key: &str) -> Option<&KeyValue> {
        self.coords.get(key.as_bytes())
    }

    fn put(&mut self, key: ObjectKey, new: Object, changes: &mut Changes) {
        let old = self.objects.insert(key.clone(), new.clone());
        self.index(&key, old.as_ref(), false);
        self.index(&key, Some(&new), true);
        changes.objects.push(Change { key, old, new: Some(new) });
    }

    fn remove(&mut self, key: ObjectKey, changes: &mut Changes) {
        if let Some(old) = self.objects.remove(&key) {
            self.index(&key, Some(&old), false);
            changes.objects.push(Change { key, old: Some(old), new: None });
        }
    }

    fn put_coord(&mut self, now: KeyValue, changes: &mut Changes) {
        if let Some(coord) = Coord::parse(&now.key) {
            self.coords.insert(now.key.clone(), now);
            changes.coords.push(coord);
        }
    }

    fn remove_coord(&mut self, key: &Bytes, changes: &mut Changes) {
        if self.coords.remove(key).is_some() {
            changes.coords.extend(Coord::parse(key));
        }
    }

    /// Enters an object into its indexes, or takes it out of them.
    fn index(&mut self, key: &ObjectKey, object: Option<&Object>, enter: bool) {
        let Some(object) = object else { return };
        let owners = object.meta().into_iter().flat_map(|meta| &meta.owner_references);
        for owner in owners.filter_map(|owner| owner.created(self.cluster_id, key.namespace())) {
            change(&mut self.by_owner, owner, key, enter);
        }
        if let Some(pod) = Pod::of(object)
            && !pod.spec.node_name.is_empty()
        {
            change(&mut self.by_node, pod.spec.node_name.clone(), key, enter);
        }
    }
}

/// Objects and the rest, as they were listed.
#[derive(Debug, Default)]
pub struct Staged {
    objects: Vec<(ObjectKey, Object)>,
    coords: Vec<KeyValue>,
}

impl Mirror for Cache {
    type Changes = Changes;
    type Staged = Staged;

    fn at(&self) -> Revision {
        self.at
    }

    fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    fn stage(&self, staged: &mut Staged, cluster_id: u64, page: Vec<KeyValue>) {
        for item in page {
            match ObjectKey::parse(&item.key) {
                Some(key) => {
                    let known = self.objects.get(&key).filter(|_| cluster_id == self.cluster_id);
                    let known = known.filter(|known| known.modified() == item.modified);
                    // What is here already is not read again, and not kept twice.
                    let object = known.cloned().unwrap_or_else(|| Object::read(key.kind, cluster_id, &item));
                    staged.objects.push((key, object));
                }
                None => staged.coords.push(item),
            }
        }
    }

    fn replace(&mut self, staged: Staged, cluster_id: u64, at: Revision) -> Changes {
        let mut changes = Changes::default();
        let is_other = self.cluster_id != cluster_id;
        self.cluster_id = cluster_id;
        let mut gone: BTreeMap<ObjectKey, Revision> =
            self.objects.iter().map(|(key, object)| (key.clone(), object.modified())).collect();
        let mut coords_gone: BTreeMap<Bytes, Revision> =
            self.coords.iter().map(|(key, now)| (key.clone(), now.modified)).collect();
        // Another cluster's revisions say nothing about this one's.
        let is_known = |known: Option<Revision>, modified| known == Some(modified) && !is_other;
        for (key, object) in staged.objects {
            if !is_known(gone.remove(&key), object.modified()) {
                self.put(key, object, &mut changes);
            }
        }
        for item in staged.coords {
            if !is_known(coords_gone.remove(&item.key), item.modified) {
                self.put_coord(item, &mut changes);
            }
        }
        gone.into_keys().for_each(|key| self.remove(key, &mut changes));
        coords_gone.into_keys().for_each(|key| self.remove_coord(&key, &mut changes));
        if is_other {
            // Owners are named by uids of the old cluster in what was just taken out.
            (self.by_owner, self.by_node) = (BTreeMap::new(), BTreeMap::new());
            let objects = std::mem::take(&mut self.objects);
            objects.iter().for_each(|(key, object)| self.index(key, Some(object), true));
            self.objects = objects;
        }
        self.at = at;
        changes
    }

    fn apply(&mut self, batch: Batch) -> Changes {
        let mut changes = Changes::default();
        for event in batch.events {
            // A watch that was made anew may tell what is known.
            if event.revision() <= self.at {
                continue;
            }
            let key = ObjectKey::parse(event.key());
            match (event, key) {
                (Event::Put(now), Some(key)) => {
                    let object = Object::read(key.kind, self.cluster_id, &now);
                    self.put(key, object, &mut changes);
                }
                (Event::Put(now), None) => self.put_coord(now, &mut changes),
                (Event::Delete { .. }, Some(key)) => self.remove(key, &mut changes),
                (Event::Delete { key, .. }, None) => self.remove_coord(&key, &mut changes),
            }
        }
        self.at = self.at.max(batch.through);
        changes
    }
}

fn change<K: Ord>(index: &mut BTreeMap<K, BTreeSet<ObjectKey>>, under: K, key: &ObjectKey, enter: bool) {
    let keys = index.entry(under);
    if enter {
        keys.or_default().insert(key.clone());
    } else if let std::collections::btree_map::Entry::Occupied(mut keys) = keys {
        keys.get_mut().remove(key);
        if keys.get().is_empty() {
            keys.remove();
        }
    }
}

#[cfg(test)]
mod tests;
