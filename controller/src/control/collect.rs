//! Garbage: what is left of owners that are gone, and owners whose dependents are to stay.

use super::{Now, Plan};
use crate::api::change::{Deletion, ORPHAN, delete, seen};
use crate::cache::{Cache, Cached, Object};
use crate::keys::ObjectKey;
use crate::kv::{Guard, Txn};
use crate::limits::ORPHANS_BATCH_MAX;
use crate::types::meta::OwnerReference;
use crate::types::pod::Pod;
use crate::types::resource::{Held, Resource};
use crate::types::workload::{Deployment, ReplicaSet};

/// Works out whether an object is garbage, or whether it is to let go of its dependents.
pub fn reconcile(cache: &Cache, key: &ObjectKey, now: Now) -> Plan {
    match cache.object(key) {
        Some(Object::Pod(pod)) => look(cache, pod, now),
        Some(Object::ReplicaSet(set)) => look(cache, set, now),
        Some(Object::Deployment(deployment)) => look(cache, deployment, now),
        // Nodes and namespaces have no owners; what is broken is nobody's to delete.
        _ => Plan::default(),
    }
}

fn look<T: Cached + crate::api::change::Rules>(cache: &Cache, object: &Held<T>, now: Now) -> Plan {
    let mut plan = Plan::default();
    let meta = object.meta();
    if meta.is_going() {
        if meta.finalizers.iter().any(|finalizer| finalizer == ORPHAN) {
            plan.txns.extend(orphan(cache, object));
        }
        return plan;
    }
    if meta.owner_references.is_empty() || meta.owner_references.iter().any(|owner| is_there(cache, object, owner)) {
        return plan;
    }
    // All owners are gone in this copy; the guards say that they are gone in the store.
    let gone = meta.owner_references.iter().filter_map(|owner| owner_key(object, owner));
    let Ok(Some(txn)) = delete(object, &Deletion::default(), now.time) else { return plan };
    let txn = gone.fold(txn, |txn, key| match cache.object(&key) {
        // Another one has its name now, and this one goes all the same.
        Some(other) => txn.guard(Guard::Alive { key: key.to_string().into(), created: other.created() }),
        None => txn.guard(Guard::Absent { key: key.to_string().into() }),
    });
    plan.txns.push(txn);
    plan
}

fn owner_key<T: Resource>(object: &Held<T>, owner: &OwnerReference) -> Option<ObjectKey> {
    owner.key(&object.meta().namespace)
}

/// Whether an owner is the one that is named. One of a kind that is not known here counts: it is not ours to judge.
fn is_there<T: Resource>(cache: &Cache, object: &Held<T>, owner: &OwnerReference) -> bool {
    let Some(key) = owner_key(object, owner) else { return true };
    let found = cache.object(&key).map(Object::created);
    found.is_some() && found == owner.created(cache.cluster(), &object.meta().namespace)
}

/// Lets go of dependents, and of the finalizer once there are none.
fn orphan<T: Cached + crate::api::change::Rules>(cache: &Cache, owner: &Held<T>) -> Option<Txn> {
    let uid = &owner.meta().uid;
    let mut txn = Txn::new();
    for key in cache.dependents(owner.created).take(ORPHANS_BATCH_MAX) {
        let more = match cache.object(key) {
            Some(Object::Pod(dependent)) => released::<Pod>(dependent, uid),
            Some(Object::ReplicaSet(dependent)) => released::<ReplicaSet>(dependent, uid),
            Some(Object::Deployment(dependent)) => released::<Deployment>(dependent, uid),
            _ => continue,
        };
        if !txn.fits_with(&more) {
            break;
        }
        txn = txn.and(more);
    }
    if !txn.is_empty() {
        return Some(txn);
    }
    let mut new = owner.to_object();
    new.meta_mut().finalizers.retain(|finalizer| finalizer != ORPHAN);
    crate::api::change::update(owner, new, crate::api::change::Half::Wanted).ok().flatten()
}

fn released<T: Resource>(dependent: &Held<T>, uid: &str) -> Txn {
    let mut new = dependent.to_object();
    new.meta_mut().owner_references.retain(|owner| owner.uid != uid);
    Txn::new().guard(seen(dependent)).put(dependent.key().to_string(), new.to_stored())
}
