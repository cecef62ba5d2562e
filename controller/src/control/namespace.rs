//! Namespaces that go: emptied, and then let go.

use super::{Now, Plan};
use crate::api::change::{Deletion, Half, Rules, delete, update};
use crate::api::defaults::NAMESPACE_FINALIZER;
use crate::cache::{Cache, Cached};
use crate::keys::ObjectKey;
use crate::kv::Txn;
use crate::limits::EMPTY_BATCH_MAX;
use crate::types::node::Namespace;
use crate::types::pod::Pod;
use crate::types::workload::{Deployment, ReplicaSet};

/// Works out what a namespace needs.
pub fn reconcile(cache: &Cache, key: &ObjectKey, now: Now) -> Plan {
    let mut plan = Plan::default();
    let Some(namespace) = cache.get::<Namespace>("", key.name()).filter(|namespace| namespace.metadata.is_going())
    else {
        return plan;
    };
    // Owners first, or they would make anew what is deleted.
    let mut left = empty::<Deployment>(cache, key.name(), now, &mut plan);
    left += empty::<ReplicaSet>(cache, key.name(), now, &mut plan);
    left += empty::<Pod>(cache, key.name(), now, &mut plan);
    let keeps = |finalizer: &String| finalizer != NAMESPACE_FINALIZER;
    if left == 0 && !namespace.spec.finalizers.iter().all(keeps) {
        let mut new = namespace.to_object();
        new.spec.finalizers.retain(keeps);
        plan.txns.extend(update(namespace, new, Half::Wanted).ok().flatten());
    }
    plan
}

/// Tells objects of a kind to go; returns how many there are.
fn empty<T: Cached + Rules>(cache: &Cache, namespace: &str, now: Now, plan: &mut Plan) -> usize {
    let mut txn = Txn::new();
    let mut count = 0;
    for object in cache.within::<T>(namespace) {
        count += 1;
        let Ok(Some(more)) = delete(object, &Deletion::default(), now.time) else { continue };
        if txn.writes().len() < EMPTY_BATCH_MAX && txn.fits_with(&more) {
            txn = txn.and(more);
        }
    }
    if !txn.is_empty() {
        plan.txns.push(txn);
    }
    count
}
