//! What a node's conditions become when it is not heard of, and the taints that follow from its conditions.

use crate::api::defaults::{NOT_READY, UNREACHABLE};
use crate::cache::Cache;
use crate::keys;
use crate::types::meta::{Condition, set_condition};
use crate::types::node::{Node, Taint};
use crate::types::time::Time;

/// Conditions that only its agent knows, Ready among them.
const AGENTS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The taint of a node that takes nothing new.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions, their states, and the taints that keep new pods away because of them.
const REPELLING: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// Whether a node's heartbeat is there.
pub fn is_heard(cache: &Cache, node: &str) -> bool {
    cache.coord(&keys::heartbeat(node)).is_some()
}

pub(super) fn ready(node: &Node) -> Option<&Condition> {
    node.status.conditions.iter().find(|condition| condition.r#type == "Ready")
}

/// Whether it is known not to be well; of one that has never said anything nothing is known.
pub(super) fn is_sick(node: &Node) -> bool {
    ready(node).is_some_and(|ready| ready.status != "True")
}

/// Nobody knows any more what its agent said.
pub(super) fn unheard(conditions: &mut Vec<Condition>, now: Time) {
    for r#type in AGENTS {
        let old = conditions.iter().find(|condition| condition.r#type == r#type);
        if old.is_none() && r#type != "Ready" || old.is_some_and(|old| old.status == "Unknown") {
            continue;
        }
        let (reason, message) = match old {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let new = Condition {
            r#type: r#type.to_owned(),
            status: "Unknown".to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_heartbeat_time: old.and_then(|old| old.last_heartbeat_time),
            ..Default::default()
        };
        set_condition(conditions, new, now);
    }
}

/// The taint by which a node that is not well makes pods leave.
pub fn sick_taint(node: &Node) -> Option<&Taint> {
    node.spec.taints.iter().find(|taint| expels(taint))
}

fn expels(taint: &Taint) -> bool {
    taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

/// Whether it keeps pods away because it is not well.
pub(super) fn repels(node: &Node) -> bool {
    let is_own = |taint: &Taint| taint.effect == "NoSchedule" && (taint.key == NOT_READY || taint.key == UNREACHABLE);
    node.spec.taints.iter().any(is_own)
}

/// Sets the taints that keep new pods away, and takes away those that made pods leave if they have no reason any more, or
/// if evictions are stopped: the pods' time begins anew afterwards.
pub(super) fn taint(node: &mut Node, is_stopped: bool, now: Time) {
    let holds = |r#type: &str, status: &str| {
        let is = |condition: &Condition| condition.r#type == r#type && condition.status == status;
        node.status.conditions.iter().any(is)
    };
    let because = REPELLING.iter().filter(|(r#type, status, _)| holds(r#type, status)).map(|(_, _, key)| *key);
    let wanted: Vec<&str> = because.chain(node.spec.unschedulable.then_some(UNSCHEDULABLE)).collect();
    let (is_known, is_sick) = (ready(node).is_some(), is_sick(node));
    let says = if holds("Ready", "False") { NOT_READY } else { UNREACHABLE };
    let is_ours = |taint: &Taint| {
        let is_condition =
            REPELLING.iter().any(|(r#type, _, key)| *key == taint.key && (*r#type != "Ready" || is_known));
        taint.effect == "NoSchedule" && (is_condition || taint.key == UNSCHEDULABLE)
    };
    node.spec.taints.retain(|taint| {
        if expels(taint) { is_sick && !is_stopped } else { !is_ours(taint) || wanted.contains(&taint.key.as_str()) }
    });
    // Another reason to leave does not give pods more time.
    node.spec.taints.iter_mut().filter(|taint| expels(taint)).for_each(|taint| says.clone_into(&mut taint.key));
    for key in wanted {
        add(node, key, "NoSchedule", now);
    }
}

/// Makes pods leave.
pub(super) fn expel(node: &mut Node, now: Time) {
    let key = if ready(node).is_some_and(|ready| ready.status == "False") { NOT_READY } else { UNREACHABLE };
    add(node, key, "NoExecute", now);
}

fn add(node: &mut Node, key: &str, effect: &str, now: Time) {
    if !node.spec.taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
        let (key, effect) = (key.to_owned(), effect.to_owned());
        node.spec.taints.push(Taint { key, effect, time_added: Some(now), ..Default::default() });
    }
}
