//! Room for the more urgent: which pods of a lower priority have to go so that one fits that fits nowhere.
//!
//! Pods that are told to go already count as gone. On each node all of a lower priority are taken away, and given back one
//! after the other, the most urgent first, as long as the pod still fits: who cannot be given back is a victim. Of all
//! nodes the cheapest is taken: by the most urgent victim, then by how many there are, then by the sum of their priorities.
//!
//! The scheduler keeps too little of pods that run to write them. So it says whom it wants to go ([`Wanted::victims`]), is
//! told what the store has of them, and then writes one transaction: the pod is nominated for the node, and all victims are
//! told to go, each under its version, so that there is never half of it. The room is kept for the pod until it is bound.
//!
//! - Source: Kubernetes' `pkg/scheduler/framework/preemption` and `plugins/defaultpreemption`, without disruption budgets.

use super::filter::keeps_out;
use super::table::{Needs, Place, mix};
use super::view::{Slot, View};
use crate::api::change::Rules as _;
use crate::control::Now;
use crate::keys::ObjectKey;
use crate::kv::{Guard, KeyValue, Revision, Txn};
use crate::limits::VICTIMS_MAX;
use crate::types::meta::{Condition, set_condition};
use crate::types::pod::{Pod, PodSpec};
use crate::types::resource::{Held, Resource as _};
use std::collections::BTreeMap;

/// The policy of a pod that waits until there is room.
pub const NEVER: &str = "Never";

/// What can be done for a pod that fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// These go, and it gets their place. Nobody, if there will be room once those are gone who go already.
    Victims(Place, Vec<(ObjectKey, Revision)>),
    /// Nothing, and on how many nodes it would not even help if everybody less urgent went.
    Nothing {
        /// Nodes that it may not be on at all.
        unhelpful: usize,
        /// Nodes that would have too little room all the same.
        without: usize,
    },
}

/// A pod that might go.
struct Candidate<'a> {
    key: &'a ObjectKey,
    created: Revision,
    priority: i32,
    needs: &'a Needs,
}

/// Looks for the node on which the least has to go.
pub(super) fn choose(view: &View, spec: &PodSpec, needs: &Needs, priority: i32, seed: u64) -> Choice {
    let mut less: BTreeMap<&str, Vec<Candidate<'_>>> = BTreeMap::new();
    let mut going: BTreeMap<&str, Vec<&Needs>> = BTreeMap::new();
    for (key, slot) in &view.pods {
        let Slot::Bound { created, node, needs, priority: own, going: is_going } = slot else { continue };
        if *is_going {
            going.entry(node).or_default().push(needs);
        } else if *own < priority {
            less.entry(node).or_default().push(Candidate { key, created: *created, priority: *own, needs });
        }
    }
    let (mut unhelpful, mut without) = (0, 0);
    let mut best = None;
    for name in view.table.names() {
        let place = view.table.place(name).expect("it was just named");
        let node = view.table.node(place);
        if keeps_out(spec, node).is_some() {
            unhelpful += 1;
            continue;
        }
        let mut room = view.table.room(place);
        going.get(name.as_str()).into_iter().flatten().for_each(|needs| room.give_back(needs));
        let mut candidates = less.remove(name.as_str()).unwrap_or_default();
        candidates.iter().for_each(|candidate| room.give_back(candidate.needs));
        if !room.fits(needs) {
            without += 1;
            continue;
        }
        candidates.sort_by_key(|candidate| (std::cmp::Reverse(candidate.priority), candidate.created));
        candidates.retain(|candidate| {
            room.take(candidate.needs);
            let stays = room.fits(needs);
            if !stays {
                room.give_back(candidate.needs);
            }
            !stays
        });
        if candidates.len() > VICTIMS_MAX {
            without += 1;
            continue;
        }
        let most = candidates.first().map(|candidate| candidate.priority);
        let sum: i64 = candidates.iter().map(|candidate| i64::from(candidate.priority)).sum();
        let cost = (most, candidates.len(), sum, mix(seed ^ node.created as u64));
        if best.as_ref().is_none_or(|(other, ..)| cost < *other) {
            let victims = candidates.iter().map(|candidate| (candidate.key.clone(), candidate.created)).collect();
            best = Some((cost, place, victims));
        }
    }
    match best {
        Some((_, place, victims)) => Choice::Victims(place, victims),
        None => Choice::Nothing { unhelpful, without },
    }
}

/// Somebody is wanted to go; what the store has of the victims is still to be told.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) key: ObjectKey,
    pub(super) created: Revision,
    pub(super) priority: i32,
    pub(super) node: String,
    pub(super) victims: Vec<(ObjectKey, Revision)>,
    /// What the pod is told meanwhile.
    pub(super) condition: Condition,
}

impl Wanted {
    /// Nominates the pod for the node, and tells the victims to go; `None` if any of it is not as it was.
    pub(super) fn txn(&self, cluster_id: u64, waiting: &KeyValue, read: &[KeyValue], now: Now) -> Option<Txn> {
        let pod: Held<Pod> = Held::read(cluster_id, waiting).ok().filter(|pod| pod.created == self.created)?;
        let mut new = pod.to_object();
        new.status.nominated_node_name.clone_from(&self.node);
        set_condition(&mut new.status.conditions, self.condition.clone(), now.time);
        let key = self.key.to_string();
        let guard = Guard::Seen { key: key.clone().into(), modified: pod.modified };
        let mut txn = Txn::new().guard(guard).put(key, new.to_stored());
        for (key, created) in &self.victims {
            let key = key.to_string();
            let item = read.iter().find(|item| item.key == key.as_bytes() && item.created == *created)?;
            let victim: Held<Pod> = Held::read(cluster_id, item).ok()?;
            let is_less = victim.spec.priority.unwrap_or(0) < self.priority;
            if victim.spec.node_name != self.node || victim.is_over() || victim.metadata.is_going() || !is_less {
                return None;
            }
            let mut gone = victim.to_object();
            let condition = Condition {
                r#type: "DisruptionTarget".to_owned(),
                status: "True".to_owned(),
                reason: "PreemptionByScheduler".to_owned(),
                message: "default-scheduler: preempting to accommodate a higher priority pod".to_owned(),
                ..Condition::default()
            };
            set_condition(&mut gone.status.conditions, condition, now.time);
            let guard = Guard::Seen { key: key.clone().into(), modified: victim.modified };
            let stays = gone.begin_to_go(None, now.time);
            txn = txn.guard(guard);
            txn = if stays { txn.put(key, gone.to_stored()) } else { txn.delete(key) };
        }
        txn.fits().then_some(txn)
    }
}

#[cfg(test)]
mod tests;
