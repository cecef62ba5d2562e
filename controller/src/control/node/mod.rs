//! Nodes: who is not heard of is not ready, what it ran goes elsewhere after a while, and nothing of that happens to many
//! at once.
//!
//! In reading order: `health` (what a node's conditions become, and the taints that follow from them), `zone` (the brakes),
//! `evict` (pods that have to leave), and the order of steps here.
//!
//! A node is heard of as long as its heartbeat's key is there: the agent holds it under a lease, so that a node that is well
//! costs no write. An agent that comes back puts its heartbeat first and says that it is ready afterwards, or it would be
//! contradicted. Each step is one transaction and is worked out anew from what the former one left:
//!
//! ```text
//! heartbeat gone ─▶ Ready=Unknown, taint NoSchedule ─▶ zone's brake says so ─▶ taint NoExecute, one each six seconds
//!                                                                               │ tolerationSeconds later
//! heartbeat, Ready=True ─▶ taints gone                    deletionTimestamp ◀───┘
//! ```
//!
//! - Source: Kubernetes' `pkg/controller/nodelifecycle/node_lifecycle_controller.go`, `pkg/controller/tainteviction` and
//!   `pkg/controller/podgc`, for conditions, taints, zones and words.

mod health;
mod zone;
mod evict;

pub use evict::BY_TAINT;
pub(crate) use evict::{Stay, stay, told_to_go};
pub use health::{is_heard, sick_taint};
pub use zone::{Brake, Disruption, zone_of};

use super::{Now, Plan};
use crate::api::change::{Rules as _, seen};
use crate::cache::Cache;
use crate::keys::{self, ObjectKey};
use crate::kv::{Guard, Txn};
use crate::limits::{EVICTION_SECONDS_MIN, NODE_STARTUP_SECONDS};
use crate::types::node::Node;
use crate::types::resource::{Held, Resource as _};
use crate::types::time::Time;

/// Works out what a node needs, or the pods of one that is gone.
///
/// - Units: no pod has to leave a node that is not well before `rests_until_ms`, in milliseconds of [`Now::ms`]: whoever has
///   just begun to lead gives nodes that were cut off together with the former leader the time of a heartbeat.
pub fn reconcile(cache: &Cache, key: &ObjectKey, now: Now, rests_until_ms: u64) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = cache.get::<Node>("", key.name()) else {
        // What cannot be read is there all the same.
        if cache.object(key).is_none() {
            evict::orphans(cache, key, now, &mut plan);
        }
        return plan;
    };
    let heard = is_heard(cache, key.name());
    // A node that is well in a zone that is well looks at no other.
    let matters = !heard || !node.is_ready() || zone::is_disrupted(cache, node);
    let zone = matters.then(|| zone::Zone::of(cache, node));
    let is_stopped = zone.as_ref().is_some_and(zone::Zone::is_stopped);
    if judge(node, heard, is_stopped, now, &mut plan) {
        return plan;
    }
    if zone.as_ref().is_some_and(|zone| zone.note(cache, node, &mut plan)) {
        return plan;
    }
    if !heard && health::ready(node).is_some_and(|ready| ready.status == "Unknown") {
        evict::not_ready(cache, node, now, &mut plan);
    }
    if let Some(zone) = zone.filter(|_| plan.is_empty() && health::is_sick(node)) {
        if now.ms < rests_until_ms {
            plan.again_at(rests_until_ms);
        } else {
            taint(node, heard, &zone, now, &mut plan);
        }
    }
    if plan.is_empty() {
        evict::intolerant(cache, node, heard, now, rests_until_ms, &mut plan);
    }
    plan
}

/// Says of a node what follows from its being heard of or not. Returns whether anything is to be written.
fn judge(node: &Held<Node>, heard: bool, is_stopped: bool, now: Now, plan: &mut Plan) -> bool {
    let mut new = node.to_object();
    if !heard {
        let began = node.metadata.creation_timestamp.unwrap_or(now.time);
        let patience = Time(began.0 + NODE_STARTUP_SECONDS);
        // An agent that has never said anything may still be starting.
        if health::ready(node).is_none() && now.time < patience {
            plan.again_at(now.ms_at(patience));
        } else {
            health::unheard(&mut new.status.conditions, now.time);
        }
    }
    health::taint(&mut new, is_stopped, now.time);
    let changes = new.spec != node.spec || new.status != node.status;
    if changes {
        if health::is_sick(&new) && !health::repels(node) {
            let message = format!("Node {} status is now: NodeNotReady", node.metadata.name);
            plan.note(false, "NodeNotReady", message);
        }
        plan.txns.push(rewrite(node, new, heard, Txn::new()));
    }
    changes
}

/// Gives a node that is not well the taint that makes pods leave, if it is its turn.
fn taint(node: &Held<Node>, heard: bool, zone: &zone::Zone, now: Now, plan: &mut Plan) {
    if sick_taint(node).is_some() || zone.is_stopped() {
        return;
    }
    let turn = zone.brake.tainted.map_or(now.time, |last| Time(last.0 + EVICTION_SECONDS_MIN));
    if now.time < turn {
        return plan.again_at(now.ms_at(turn));
    }
    let mut new = node.to_object();
    health::expel(&mut new, now.time);
    plan.txns.push(rewrite(node, new, heard, zone.tainted(now.time)));
}

/// Rewrites a node, and with it its placements' version: a bind that was worked out from how it was is refused.
fn rewrite(node: &Held<Node>, mut new: Node, heard: bool, txn: Txn) -> Txn {
    if new.spec != node.spec {
        new.metadata.generation += 1;
    }
    let txn = new.beside(txn.guard(seen(node)).put(node.key().to_string(), new.to_stored()));
    insist(node, heard, txn)
}

/// Insists that a node which is not heard of still is not.
fn insist(node: &Node, heard: bool, txn: Txn) -> Txn {
    let key = keys::heartbeat(&node.metadata.name);
    if heard { txn } else { txn.guard(Guard::Absent { key: key.into() }) }
}

#[cfg(test)]
mod tests;
