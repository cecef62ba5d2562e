//! ReplicaSets: as many pods as are wanted, exactly.
//!
//! The ReplicaSet is the lock: every batch of creations or deletions also compares and rewrites it, so that two controllers
//! that act at once, on whatever they believe, cannot make one pod too many.

use super::{Now, Plan};
use crate::api::change::{alive, attempt, generated, seen};
use crate::api::defaults::Defaults as _;
use crate::cache::Cache;
use crate::keys::{Kind, ObjectKey};
use crate::kv::{Guard, Txn};
use crate::limits::{KEPT_GUARDS_MAX, REPLICA_BATCH_MAX};
use crate::types::meta::{Condition, ObjectMeta, OwnerReference, set_condition};
use crate::types::node::Namespace;
use crate::types::pod::Pod;
use crate::types::resource::{Held, Resource as _};
use crate::types::time::Time;
use crate::types::workload::{ReplicaSet, ReplicaSetStatus};
use std::collections::BTreeMap;

/// The condition of one that cannot make its pods, and its reason.
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";
const FAILED_CREATE: &str = "FailedCreate";

/// Works out what a ReplicaSet needs.
pub fn reconcile(cache: &Cache, key: &ObjectKey, now: Now) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = cache.get::<ReplicaSet>(key.namespace(), key.name()) else {
        return plan;
    };
    if !set.metadata.is_going() && claim(cache, set, &mut plan) {
        // What is its own is seen again once that is written.
        return plan;
    }
    let own: Vec<&Held<Pod>> = owned(cache, set).collect();
    let active: Vec<&Held<Pod>> = own.into_iter().filter(|pod| pod.is_active()).collect();
    let wanted = usize::try_from(set.wanted()).unwrap_or(0);
    if !set.metadata.is_going() && active.len() < wanted {
        create(cache, set, &active, wanted - active.len(), now, &mut plan);
    } else if !set.metadata.is_going() && active.len() > wanted {
        delete(set, &active, active.len() - wanted, now, &mut plan);
    }
    if plan.is_empty() {
        let status = status(set, &active, 0, now, &mut plan);
        if status != set.status {
            plan.txns.push(touch(set, status, Txn::new()));
        }
    }
    plan
}

/// The pods that it manages, those that go among them.
pub fn owned<'a>(cache: &'a Cache, set: &Held<ReplicaSet>) -> impl Iterator<Item = &'a Held<Pod>> {
    let uid = set.metadata.uid.clone();
    cache.owned::<Pod>(set.created).filter(move |pod| pod.metadata.controller().is_some_and(|owner| owner.uid == uid))
}

/// Rewrites it with a status; refused if it is not as it was read.
fn touch(set: &Held<ReplicaSet>, status: ReplicaSetStatus, txn: Txn) -> Txn {
    let mut new = set.to_object();
    new.status = status;
    txn.guard(seen(set)).put(set.key().to_string(), new.to_stored())
}

/// Takes pods that match and that nobody manages, and lets go those that match no more. Returns whether there were any.
fn claim(cache: &Cache, set: &Held<ReplicaSet>, plan: &mut Plan) -> bool {
    let Some(selector) = &set.spec.selector else { return false };
    let mut txn = Txn::new();
    let mut status = set.status.clone();
    for pod in cache.within::<Pod>(&set.metadata.namespace).filter(|pod| !pod.metadata.is_going()) {
        let owner = pod.metadata.controller();
        let is_own = owner.is_some_and(|owner| owner.uid == set.metadata.uid);
        let matches = selector.matches(&pod.metadata.labels);
        let (mut new, mut more_pods) = (pod.to_object(), 0);
        if is_own && !matches {
            new.metadata.owner_references.retain(|owner| owner.uid != set.metadata.uid);
        } else if owner.is_none() && matches && !pod.is_over() {
            new.metadata.owner_references.push(reference(set));
            more_pods = 1;
        } else {
            continue;
        }
        let more = Txn::new().guard(seen(pod)).put(pod.key().to_string(), new.to_stored());
        if !txn.fits_with(&more.clone().and(touch(set, set.status.clone(), Txn::new())))
            || txn.writes().len() == REPLICA_BATCH_MAX
        {
            break;
        }
        txn = txn.and(more);
        // Whoever counts what is there counts it at once.
        status.replicas += more_pods;
    }
    let any = !txn.is_empty();
    if any {
        plan.txns.push(touch(set, status, txn));
    }
    any
}

/// A reference to it as the one that manages.
fn reference(set: &Held<ReplicaSet>) -> OwnerReference {
    OwnerReference {
        api_version: Kind::ReplicaSet.api_version().to_owned(),
        kind: Kind::ReplicaSet.name().to_owned(),
        name: set.metadata.name.clone(),
        uid: set.metadata.uid.clone(),
        controller: true,
        block_owner_deletion: true,
        ..Default::default()
    }
}

fn create(cache: &Cache, set: &Held<ReplicaSet>, active: &[&Held<Pod>], missing: usize, now: Now, plan: &mut Plan) {
    let namespace = cache.get::<Namespace>("", &set.metadata.namespace).filter(|namespace| namespace.is_active());
    let Some(namespace) = namespace else {
        return;
    };
    let mut txn = Txn::new().guard(seen(namespace));
    let mut made = Vec::new();
    let begin = format!("{}-", set.metadata.name);
    let names = (0..).map(|n| generated(&begin, attempt(set.created, set.modified, n)));
    // A name that somebody else took is passed over, or it would be tried for ever.
    let free = names.take(10 * REPLICA_BATCH_MAX).filter(|name| cache.object(&pod_key(set, name)).is_none());
    for name in free.take(missing.min(REPLICA_BATCH_MAX)) {
        let pod = pod(set, name, now.time);
        let key = pod.key().to_string();
        let more = Txn::new().guard(Guard::Absent { key: key.clone().into() }).put(key, pod.to_stored());
        if !txn.fits_with(&more.clone().and(touch(set, set.status.clone(), Txn::new()))) {
            break;
        }
        if made.contains(&pod.metadata.name) {
            continue;
        }
        made.push(pod.metadata.name.clone());
        txn = txn.and(more);
    }
    let mut status = status(set, active, made.len() as i32, now, plan);
    if made.is_empty() {
        let why = "no transaction holds a pod beside its ReplicaSet, or no name is free";
        fail(&mut status, why, now.time);
        if status != set.status {
            plan.txns.push(touch(set, status, Txn::new()));
            plan.note(true, FAILED_CREATE, format!("Error creating: {why}"));
        }
        return;
    }
    plan.txns.push(touch(set, status, txn));
    for name in made {
        plan.note(false, "SuccessfulCreate", format!("Created pod: {name}"));
    }
}

/// Says that no pod can be made.
fn fail(status: &mut ReplicaSetStatus, why: &str, now: Time) {
    let condition = Condition {
        r#type: REPLICA_FAILURE.to_owned(),
        status: "True".to_owned(),
        reason: FAILED_CREATE.to_owned(),
        message: why.to_owned(),
        ..Default::default()
    };
    set_condition(&mut status.conditions, condition, now);
}

fn pod_key(set: &Held<ReplicaSet>, name: &str) -> ObjectKey {
    ObjectKey::new(Kind::Pod, &set.metadata.namespace, name)
}

/// A pod as its template says.
fn pod(set: &Held<ReplicaSet>, name: String, now: Time) -> Pod {
    let template = &set.spec.template;
    let mut pod = Pod {
        metadata: ObjectMeta {
            name,
            generate_name: format!("{}-", set.metadata.name),
            namespace: set.metadata.namespace.clone(),
            generation: 1,
            creation_timestamp: Some(now),
            labels: template.metadata.labels.clone(),
            annotations: template.metadata.annotations.clone(),
            finalizers: template.metadata.finalizers.clone(),
            owner_references: vec![reference(set)],
            ..Default::default()
        },
        spec: template.spec.clone(),
        ..Default::default()
    };
    pod.fill_in();
    pod
}

fn delete(set: &Held<ReplicaSet>, active: &[&Held<Pod>], surplus: usize, now: Now, plan: &mut Plan) {
    let mut order = active.to_vec();
    // Its own pods on the same node as others of its own are missed least.
    let mut together: BTreeMap<&str, usize> = BTreeMap::new();
    active.iter().for_each(|pod| *together.entry(&pod.spec.node_name).or_default() += 1);
    order.sort_by_cached_key(|pod| rank(pod, together[pod.spec.node_name.as_str()]));
    let (victims, kept) = order.split_at(surplus.min(REPLICA_BATCH_MAX));
    let mut txn = Txn::new();
    if kept.len() <= KEPT_GUARDS_MAX && victims.len() + kept.len() < REPLICA_BATCH_MAX {
        // Whoever deletes one of those at this moment makes the count another one.
        txn = kept.iter().fold(txn, |txn, pod| txn.guard(alive(pod)));
    }
    let mut gone = Vec::new();
    for pod in victims {
        let how = crate::api::change::Deletion::default();
        let Ok(Some(more)) = crate::api::change::delete(pod, &how, now.time) else { continue };
        if !txn.fits_with(&more.clone().and(touch(set, set.status.clone(), Txn::new()))) {
            break;
        }
        gone.push(pod.metadata.name.clone());
        txn = txn.and(more);
    }
    if gone.is_empty() {
        return;
    }
    let left: Vec<&Held<Pod>> = order.iter().copied().filter(|pod| !gone.contains(&pod.metadata.name)).collect();
    let status = status(set, &left, 0, now, plan);
    plan.txns.push(touch(set, status, txn));
    for name in gone {
        plan.note(false, "SuccessfulDelete", format!("Deleted pod: {name}"));
    }
}

/// What goes first: what is bound nowhere, what is pending, what is not ready, what is beside others of its own, what became
/// ready last, what was started anew most, what is newest.
fn rank(pod: &Pod, together: usize) -> impl Ord + use<> {
    let phase = match pod.status.phase.as_str() {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let ready_since = std::cmp::Reverse(pod.ready_since());
    let created = std::cmp::Reverse(pod.metadata.creation_timestamp);
    (
        !pod.spec.node_name.is_empty(),
        phase,
        pod.is_ready(),
        std::cmp::Reverse(together),
        ready_since,
        std::cmp::Reverse(pod.restarts()),
        created,
        pod.metadata.name.clone(),
    )
}

/// What is, with `more` pods that are being made; says when a pod will have been ready for long enough.
fn status(set: &ReplicaSet, active: &[&Held<Pod>], more: i32, now: Now, plan: &mut Plan) -> ReplicaSetStatus {
    let count = |counts: &dyn Fn(&Pod) -> bool| active.iter().filter(|pod| counts(pod)).count() as i32;
    let labels = &set.spec.template.metadata.labels;
    let has_all = |pod: &Pod| labels.iter().all(|(name, value)| pod.metadata.labels.get(name) == Some(value));
    let available_from =
        |pod: &Pod| pod.ready_since().map(|since| Time(since.0 + i64::from(set.spec.min_ready_seconds)));
    let available =
        |pod: &Pod| available_from(pod).is_some_and(|from| from <= now.time || set.spec.min_ready_seconds == 0);
    let next = active.iter().filter(|pod| !available(pod)).filter_map(|pod| available_from(pod)).min();
    if let Some(next) = next {
        plan.again_at(now.ms_at(next));
    }
    let mut status = ReplicaSetStatus {
        replicas: active.len() as i32 + more,
        fully_labeled_replicas: count(&has_all) + more,
        ready_replicas: count(&Pod::is_ready),
        available_replicas: count(&available),
        observed_generation: set.metadata.generation,
        conditions: set.status.conditions.clone(),
        extra: set.status.extra.clone(),
    };
    let failed =
        status.conditions.iter().any(|condition| condition.r#type == REPLICA_FAILURE && condition.status == "True");
    if failed && more > 0 {
        let condition =
            Condition { r#type: REPLICA_FAILURE.to_owned(), status: "False".to_owned(), ..Default::default() };
        set_condition(&mut status.conditions, condition, now.time);
    }
    status
}

#[cfg(test)]
mod tests;
