//! Pods that have to leave: whatever their node's taints do not let stay, or stay any longer, and what is bound to no node.

use super::insist;
use crate::api::change::{Rules as _, seen};
use crate::cache::Cache;
use crate::control::{Now, Plan};
use crate::keys::ObjectKey;
use crate::kv::{Guard, Txn};
use crate::limits::EVICT_BATCH_MAX;
use crate::types::meta::{Condition, holds, set_condition};
use crate::types::node::{Node, Taint};
use crate::types::pod::Pod;
use crate::types::resource::{Held, Resource as _};
use crate::types::time::Time;

/// Why a pod was told to go, in its condition `DisruptionTarget`.
pub const BY_TAINT: &str = "DeletionByTaintManager";

/// How long a pod stays on a node with these taints that make pods leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    Forever,
    Until(Time),
}

/// How long a pod stays on a node; a taint that has no time was always there.
pub(crate) fn stay(pod: &Pod, node: &Node) -> Stay {
    let mut until: Option<Time> = None;
    for taint in node.spec.taints.iter().filter(|taint| taint.effect == "NoExecute") {
        match tolerated(pod, taint) {
            Stay::Forever => {}
            Stay::Until(time) => until = Some(until.map_or(time, |other| other.min(time))),
        }
    }
    until.map_or(Stay::Forever, Stay::Until)
}

fn tolerated(pod: &Pod, taint: &Taint) -> Stay {
    let since = taint.time_added.unwrap_or_default();
    let tolerations = pod.spec.tolerations.iter().filter(|toleration| toleration.tolerates(taint));
    // The shortest of those that say how long, as in Kubernetes.
    let mut seconds = None;
    let mut is_tolerated = false;
    for toleration in tolerations {
        is_tolerated = true;
        seconds = match (seconds, toleration.toleration_seconds) {
            (Some(one), Some(other)) => Some(i64::min(one, other)),
            (one, other) => one.or(other),
        };
    }
    match seconds {
        _ if !is_tolerated => Stay::Until(since),
        Some(seconds) => Stay::Until(Time(since.0.saturating_add(seconds.max(0)))),
        None => Stay::Forever,
    }
}

/// Tells pods to go that do not tolerate their node's taints, or not any longer; says when the next one's time is over.
pub(super) fn intolerant(
    cache: &Cache,
    node: &Held<Node>,
    heard: bool,
    now: Now,
    rests_until_ms: u64,
    plan: &mut Plan,
) {
    if node.spec.taints.iter().all(|taint| taint.effect != "NoExecute") {
        return;
    }
    if super::sick_taint(node).is_some() && now.ms < rests_until_ms {
        return plan.again_at(rests_until_ms);
    }
    let mut txn = insist(node, heard, Txn::new().guard(seen(node)));
    for pod in cache.on_node(&node.metadata.name).filter(|pod| pod.is_active()) {
        let Stay::Until(time) = stay(pod, node) else { continue };
        if time > now.time {
            plan.again_at(now.ms_at(time));
            continue;
        }
        let message = "Taint manager: deleting due to NoExecute taint";
        let Some(more) = told_to_go(pod, None, BY_TAINT, message, now.time) else { continue };
        if txn.writes().len() == EVICT_BATCH_MAX || !txn.fits_with(&more) {
            break;
        }
        txn = txn.and(more);
        let key = pod.key();
        let message = format!("Marking for deletion Pod {}/{}", key.namespace(), key.name());
        plan.note_about(cache, &key, false, "TaintManagerEviction", message);
    }
    if !txn.is_empty() {
        plan.txns.push(txn);
    }
}

/// Says of pods on a node that is not heard of that they are not ready: nobody should be sent to them, and a rollout must
/// not count on them. Their agent says otherwise when it is back.
pub(super) fn not_ready(cache: &Cache, node: &Held<Node>, now: Now, plan: &mut Plan) {
    let mut txn = insist(node, false, Txn::new().guard(seen(node)));
    for pod in cache.on_node(&node.metadata.name).filter(|pod| !pod.is_over()) {
        if !holds(&pod.status.conditions, "Ready") {
            continue;
        }
        let mut new = pod.to_object();
        let is_ready = |condition: &&mut Condition| condition.r#type == "Ready";
        for condition in new.status.conditions.iter_mut().filter(is_ready) {
            "False".clone_into(&mut condition.status);
            condition.last_transition_time = Some(now.time);
        }
        let more = Txn::new().guard(seen(pod)).put(pod.key().to_string(), new.to_stored());
        if txn.writes().len() == EVICT_BATCH_MAX || !txn.fits_with(&more) {
            break;
        }
        txn = txn.and(more);
        plan.note_about(cache, &pod.key(), true, "NodeNotReady", "Node is not ready".to_owned());
    }
    if !txn.is_empty() {
        plan.txns.push(txn);
    }
}

/// Takes away the pods of a node that is gone: nobody is left to stop them, and nobody to say that they have stopped.
pub(super) fn orphans(cache: &Cache, node: &ObjectKey, now: Now, plan: &mut Plan) {
    let mut txn = Txn::new().guard(Guard::Absent { key: node.to_string().into() });
    for pod in cache.on_node(node.name()) {
        let message = "PodGC: node no longer exists";
        let Some(more) = told_to_go(pod, Some(0), "DeletionByPodGC", message, now.time) else { continue };
        if txn.writes().len() == EVICT_BATCH_MAX || !txn.fits_with(&more) {
            break;
        }
        txn = txn.and(more);
    }
    if !txn.is_empty() {
        plan.txns.push(txn);
    }
}

/// Tells a pod to go and writes down why; `None` if it was told the same already.
pub(crate) fn told_to_go(pod: &Held<Pod>, grace: Option<i64>, reason: &str, message: &str, now: Time) -> Option<Txn> {
    let mut new = pod.to_object();
    let why = Condition {
        r#type: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..Default::default()
    };
    set_condition(&mut new.status.conditions, why, now);
    let txn = Txn::new().guard(seen(pod));
    if !new.begin_to_go(grace, now) {
        return Some(txn.delete(pod.key().to_string()));
    }
    let stored = new.to_stored();
    (stored != pod.to_stored()).then(|| txn.put(pod.key().to_string(), stored))
}
