//! How objects are made, changed and deleted: one transaction each, worked out from what was read.
//!
//! Every one carries guards for all that it relies on, so that whatever happens between the read and the write, nothing
//! half-true is written: no object in a namespace that goes, none whose owner is gone, no change on top of one unseen.

use super::defaults::Defaults;
use super::status::{FieldError, Status};
use super::validate::Validate;
use crate::digest::letters;
use crate::keys::{self, Kind, ObjectKey};
use crate::kv::{Guard, Revision, Txn};
use crate::limits::{NAME_BEGIN_CHARS_MAX, OBJECT_BYTES_MAX};
use crate::types::meta::ObjectMeta;
use crate::types::node::{Namespace, Node};
use crate::types::pod::Pod;
use crate::types::resource::{Held, Resource};
use crate::types::time::Time;
use crate::types::workload::{Deployment, ReplicaSet};

/// What a kind does beside what all do.
pub trait Rules: Resource + Defaults + Validate {
    /// Makes it new: whatever it says of its state is forgotten.
    fn begin(&mut self);

    /// Whether what is wanted differs.
    fn spec_differs(&self, other: &Self) -> bool;

    /// Takes over the state of another one: who changes what is wanted does not change what is.
    fn keep_status(&mut self, other: &Self);

    /// What only a kind knows to be wrong with a new one.
    fn check_new(&self) -> Option<FieldError> {
        None
    }

    /// What is written beside it, whenever it is made, changed or deleted.
    fn beside(&self, txn: Txn) -> Txn {
        txn
    }

    /// Marks it as going, and says whether it stays until somebody lets it go.
    fn begin_to_go(&mut self, grace: Option<i64>, now: Time) -> bool {
        let meta = self.meta_mut();
        meta.deletion_timestamp.get_or_insert(Time(now.0 + grace.unwrap_or(0)));
        meta.deletion_grace_period_seconds = Some(grace.unwrap_or(0));
        !meta.finalizers.is_empty()
    }
}

macro_rules! spec_and_status {
    // A new one has no state yet.
    (forgets) => {
        fn begin(&mut self) {
            self.status = Default::default();
        }

        spec_and_status!();
    };
    () => {
        fn spec_differs(&self, other: &Self) -> bool {
            self.spec != other.spec
        }

        fn keep_status(&mut self, other: &Self) {
            self.status = other.status.clone();
        }
    };
}

impl Rules for Pod {
    spec_and_status!(forgets);

    fn check_new(&self) -> Option<FieldError> {
        let is_bound = !self.spec.node_name.is_empty();
        is_bound.then(|| FieldError::forbidden("spec.nodeName", "only a bind sets it"))
    }

    fn begin_to_go(&mut self, grace: Option<i64>, now: Time) -> bool {
        let own = self.spec.termination_grace_period_seconds.unwrap_or(30);
        let grace = grace.unwrap_or(own).max(0);
        // Nobody has to stop what runs nowhere.
        let runs = !self.spec.node_name.is_empty() && !self.is_over() && grace > 0;
        let meta = &mut self.metadata;
        let until = Time(now.0 + if runs { grace } else { 0 });
        // It may be told to go sooner, and never later.
        meta.deletion_timestamp = Some(meta.deletion_timestamp.map_or(until, |told| told.min(until)));
        let left = meta.deletion_grace_period_seconds.map_or(grace, |left| left.min(grace));
        meta.deletion_grace_period_seconds = Some(if runs { left } else { 0 });
        runs || !meta.finalizers.is_empty()
    }
}

impl Rules for ReplicaSet {
    spec_and_status!(forgets);
}

impl Rules for Deployment {
    spec_and_status!(forgets);
}

impl Rules for Namespace {
    spec_and_status!(forgets);

    fn begin_to_go(&mut self, _: Option<i64>, now: Time) -> bool {
        self.metadata.deletion_timestamp.get_or_insert(now);
        "Terminating".clone_into(&mut self.status.phase);
        !self.spec.finalizers.is_empty() || !self.metadata.finalizers.is_empty()
    }
}

impl Rules for Node {
    spec_and_status!();

    /// A node that registers says what it has.
    fn begin(&mut self) {}

    /// Placements that were worked out from another state of this node are refused.
    fn beside(&self, txn: Txn) -> Txn {
        txn.put(keys::alloc(&self.metadata.name), "{}")
    }
}

fn checked<T: Rules>(object: &T, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        let bytes = object.to_stored().len();
        if bytes > OBJECT_BYTES_MAX {
            let why = format!("the object has {bytes} bytes, and may have {OBJECT_BYTES_MAX} at most");
            return Err(Status::too_large(why));
        }
        return Ok(());
    }
    Err(Status::invalid(&object.key(), errors))
}

/// Guards that all owners are still the ones that are named.
///
/// - Errors: an owner of a kind that is not known here, or with a uid that is not one of its name's in this cluster.
fn owners(cluster_id: u64, key: &ObjectKey, meta: &ObjectMeta, mut txn: Txn) -> Result<Txn, Status> {
    for (n, owner) in meta.owner_references.iter().enumerate() {
        let path = format!("metadata.ownerReferences[{n}]");
        let Some(kind) = Kind::of_name(&owner.kind) else {
            let error = FieldError::invalid(format!("{path}.kind"), format!("{:?}", owner.kind), "no such kind");
            return Err(Status::invalid(key, &[error]));
        };
        let owner_key = ObjectKey::new(kind, &meta.namespace, &owner.name);
        let Some(created) = keys::created_of(cluster_id, &owner_key, &owner.uid) else {
            let error = FieldError::invalid(format!("{path}.uid"), format!("{:?}", owner.uid), "no uid of this owner");
            return Err(Status::invalid(key, &[error]));
        };
        txn = txn.guard(Guard::Alive { key: owner_key.to_string().into(), created });
    }
    Ok(txn)
}

/// Makes an object that is to be new.
///
/// - Shape: `namespace` is the object's, as it was read, if its kind has namespaces.
/// - Errors: what is wrong with it; that its namespace is not there or goes.
pub fn create<T: Rules>(
    cluster_id: u64,
    mut object: T,
    namespace: Option<&Held<Namespace>>,
    now: Time,
) -> Result<(T, Txn), Status> {
    let meta = object.meta_mut();
    if !T::KIND.is_namespaced() {
        meta.namespace.clear();
    }
    (meta.creation_timestamp, meta.generation) = (Some(now), 1);
    (meta.deletion_timestamp, meta.deletion_grace_period_seconds) = (None, None);
    object.begin();
    object.fill_in();
    let key = object.key();
    let mut errors = object.check();
    errors.extend(object.check_new());
    checked(&object, &errors)?;
    let mut txn = Txn::new().guard(Guard::Absent { key: key.to_string().into() });
    if T::KIND.is_namespaced() {
        let room = ObjectKey::new(Kind::Namespace, "", key.namespace());
        let Some(namespace) = namespace else {
            return Err(Status::not_found(&room));
        };
        if !namespace.is_active() {
            return Err(Status::terminating(&key));
        }
        txn = txn.guard(Guard::Seen { key: room.to_string().into(), modified: namespace.modified });
    }
    let txn = owners(cluster_id, &key, object.meta(), txn)?;
    let txn = object.beside(txn.put(key.to_string(), object.to_stored()));
    Ok((object, txn))
}

/// Which half of an object somebody changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// All but the status.
    Wanted,
    /// The status only.
    Status,
}

/// Changes an object that was read; `None` if nothing changes.
///
/// - Errors: what is wrong with the change.
pub fn update<T: Rules>(old: &Held<T>, mut new: T, half: Half) -> Result<Option<Txn>, Status> {
    if half == Half::Status {
        let mut object = old.to_object();
        object.keep_status(&new);
        new = object;
    } else {
        new.keep_status(old);
    }
    let (uid, version) = (old.meta().uid.clone(), old.meta().resource_version.clone());
    let meta = new.meta_mut();
    (meta.uid, meta.resource_version) = (uid, version);
    meta.generation = old.meta().generation;
    if half == Half::Wanted {
        meta.deletion_grace_period_seconds = old.meta().deletion_grace_period_seconds;
        new.fill_in();
        checked(&new, &new.check_update(old))?;
        if new.spec_differs(old) {
            new.meta_mut().generation += 1;
        }
    }
    let key = new.key().to_string();
    let txn = Txn::new().guard(Guard::Seen { key: key.clone().into(), modified: old.modified });
    // Who takes away the last thing that kept it lets it go, in the same step.
    let stays = |object: &T| object.clone_object().begin_to_go(None, Time(0));
    if old.meta().is_going() && stays(old) && !stays(&new) {
        return Ok(Some(new.beside(txn.delete(key))));
    }
    let stored = new.to_stored();
    if stored == old.to_stored() {
        return Ok(None);
    }
    let txn = txn.put(key, stored);
    // The state of a node that says nothing new about room for pods does not disturb who places them.
    Ok(Some(if half == Half::Wanted || room_differs(&new, old) { new.beside(txn) } else { txn }))
}

/// Whether a status says something else about what fits.
fn room_differs<T: Rules>(new: &T, old: &Held<T>) -> bool {
    let allocatable = |object: &T| {
        let object = serde_json::to_value(object).unwrap_or_default();
        object.pointer("/status/allocatable").cloned()
    };
    T::KIND == Kind::Node && allocatable(new) != allocatable(old)
}

/// What a deletion insists on.
#[derive(Clone, Debug, Default)]
pub struct Deletion {
    /// Seconds to stop in; the object's own if it is not said.
    pub grace: Option<i64>,
    /// The incarnation that is meant.
    pub uid: Option<String>,
    /// The state that is meant.
    pub resource_version: Option<String>,
    /// Whether its dependents stay.
    pub orphans: bool,
}

/// The finalizer of an object whose dependents are to stay.
pub const ORPHAN: &str = "orphan";

/// Deletes an object that was read: at once, or as soon as whoever has to stop or empty it has done so; `None` if it goes
/// already and nothing changes.
///
/// - Errors: it is not the one that was meant.
pub fn delete<T: Rules>(old: &Held<T>, how: &Deletion, now: Time) -> Result<Option<Txn>, Status> {
    let meta = old.meta();
    let is_meant = |wanted: &Option<String>, is: &String| wanted.as_ref().is_none_or(|wanted| wanted == is);
    if !is_meant(&how.uid, &meta.uid) || !is_meant(&how.resource_version, &meta.resource_version) {
        return Err(Status::conflict(&old.key()));
    }
    let key = old.key().to_string();
    let txn = Txn::new().guard(Guard::Seen { key: key.clone().into(), modified: old.modified });
    let mut object = old.to_object();
    if how.orphans && !meta.is_going() && !meta.finalizers.iter().any(|finalizer| finalizer == ORPHAN) {
        object.meta_mut().finalizers.push(ORPHAN.to_owned());
    }
    if !object.begin_to_go(how.grace, now) {
        return Ok(Some(object.beside(txn.delete(key))));
    }
    let stored = object.to_stored();
    Ok((stored != old.to_stored()).then(|| object.beside(txn.put(key, stored))))
}

/// The guard that an object is still the incarnation that was read.
pub fn alive<T: Resource>(object: &Held<T>) -> Guard {
    Guard::Alive { key: object.key().to_string().into(), created: object.created }
}

/// The guard that an object is as it was read.
pub fn seen<T: Resource>(object: &Held<T>) -> Guard {
    Guard::Seen { key: object.key().to_string().into(), modified: object.modified }
}

/// A name that was not chosen: as much of `begin` as Kubernetes takes, and five letters that depend on a number.
pub fn generated(begin: &str, number: u64) -> String {
    let begin: String = begin.chars().take(NAME_BEGIN_CHARS_MAX).collect();
    format!("{begin}{}", letters(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number >> 29, 5))
}

/// A number that names an attempt: of an incarnation, at a revision, the n-th.
pub fn attempt(created: Revision, at: Revision, n: usize) -> u64 {
    (created as u64).rotate_left(40) ^ (at as u64).rotate_left(20) ^ n as u64
}
