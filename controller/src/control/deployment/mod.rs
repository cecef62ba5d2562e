//! Deployments: one make of pods follows another, within bounds.
//!
//! In reading order: `sets` (the ReplicaSets of a Deployment, and which is the new one), `rolling` (how many pods each may
//! have), `status` (what people are told), and the plan here.
//!
//! A step's changes of ReplicaSets and the Deployment's status are one transaction, guarded by the Deployment and by every
//! ReplicaSet that the numbers come from: nobody sees half of it, and two controllers cannot both take it.

mod sets;
mod rolling;
mod status;

pub use rolling::bounds;
pub use sets::{HASH_LABEL, REVISION, undo};

use super::{Now, Plan};
use crate::api::change::{Deletion, seen};
use crate::cache::Cache;
use crate::keys::ObjectKey;
use crate::kv::Txn;
use crate::limits::{HISTORY_BATCH_MAX, HISTORY_GUARDS_MAX};
use crate::types::resource::{Held, Resource as _};
use crate::types::workload::{Deployment, ReplicaSet};
use sets::Sets;

/// Works out what a Deployment needs.
pub fn reconcile(cache: &Cache, key: &ObjectKey, now: Now) -> Plan {
    let mut plan = Plan::default();
    let Some(deployment) = cache.get::<Deployment>(key.namespace(), key.name()) else {
        return plan;
    };
    let sets = Sets::of(cache, deployment);
    let mut step = Step { deployment, txn: Txn::new(), new: deployment.to_object() };
    if !deployment.metadata.is_going() {
        advance(cache, &sets, &mut step, now, &mut plan);
    }
    status::fill_in(&sets, &mut step.new, now, &mut plan);
    let stored = step.new.to_stored();
    if !step.txn.is_empty() || stored != deployment.to_stored() {
        let touch = step.touch();
        plan.txns.push(step.txn.and(touch));
    } else if !deployment.metadata.is_going() {
        clean_up(&sets, deployment, now, &mut plan);
    }
    plan
}

/// What one step writes.
struct Step<'a> {
    deployment: &'a Held<Deployment>,
    /// The ReplicaSets that change, and all guards.
    txn: Txn,
    /// The Deployment itself, with its new status.
    new: Deployment,
}

impl Step<'_> {
    /// Gives a ReplicaSet another number of pods, unless no transaction holds it too: then a later step does.
    fn scale(&mut self, set: &Held<ReplicaSet>, replicas: i32, plan: &mut Plan) {
        let mut new = set.to_object();
        let old = set.wanted();
        sets::note_bounds(&mut new, self.deployment);
        new.spec.replicas = Some(replicas);
        if new.spec != set.spec {
            new.metadata.generation += 1;
        }
        let more = Txn::new().guard(seen(set)).put(set.key().to_string(), new.to_stored());
        if !self.txn.fits_with(&more.clone().and(self.touch())) {
            return self.rely_on(set);
        }
        self.txn = std::mem::take(&mut self.txn).and(more);
        if replicas != old {
            let way = if replicas > old { "up" } else { "down" };
            let name = &set.metadata.name;
            plan.note(false, "ScalingReplicaSet", format!("Scaled {way} replica set {name} from {old} to {replicas}"));
        }
    }

    /// Insists that a ReplicaSet is as it was read. Of those that are long done with, no more than a transaction holds.
    fn rely_on(&mut self, set: &Held<ReplicaSet>) {
        let is_done = set.wanted() == 0 && set.status.replicas == 0;
        if !is_done || self.txn.guards().len() < HISTORY_GUARDS_MAX {
            self.txn = std::mem::take(&mut self.txn).guard(seen(set));
        }
    }

    /// Rewrites the Deployment; refused if it is not as it was read.
    fn touch(&self) -> Txn {
        let deployment = self.deployment;
        Txn::new().guard(seen(deployment)).put(deployment.key().to_string(), self.new.to_stored())
    }
}

fn advance(cache: &Cache, sets: &Sets<'_>, step: &mut Step<'_>, now: Now, plan: &mut Plan) {
    let deployment = step.deployment;
    if !deployment.spec.paused && sets.new.is_none() {
        return match sets::create(cache, sets, deployment, now) {
            sets::Created::Made(set, txn) => {
                let name = &set.metadata.name;
                plan.note(
                    false,
                    "ScalingReplicaSet",
                    format!("Scaled up replica set {name} from 0 to {}", set.wanted()),
                );
                sets::set_revision(&mut step.new, &set);
                sets.all().for_each(|set| step.rely_on(set));
                step.txn = std::mem::take(&mut step.txn).and(txn);
            }
            sets::Created::Taken => {
                // The name is another make's: the next hash is of another number.
                *step.new.status.collision_count.get_or_insert(0) += 1;
            }
            sets::Created::Not => {}
        };
    }
    if let Some(new) = sets.new.filter(|_| !deployment.spec.paused) {
        if let Some(txn) = sets::renew_revision(sets, new) {
            step.txn = std::mem::take(&mut step.txn).and(txn);
            return;
        }
        sets::set_revision(&mut step.new, new);
    }
    let mut changes = if sets.is_scaled() || deployment.spec.paused {
        rolling::proportion(sets, deployment)
    } else if deployment.spec.strategy.r#type == "Recreate" {
        rolling::recreate(cache, sets, deployment)
    } else {
        rolling::step(sets, deployment)
    };
    // What has its number already is written only if it is to say for which size.
    if !sets.is_scaled() {
        changes.retain(|(set, replicas)| set.wanted() != *replicas);
    }
    if changes.is_empty() {
        return;
    }
    let changed = |set: &Held<ReplicaSet>| changes.iter().any(|(other, _)| other.created == set.created);
    sets.all().filter(|set| !changed(set)).for_each(|set| step.rely_on(set));
    for (set, replicas) in &changes {
        step.scale(set, *replicas, plan);
    }
}

/// Takes away old ReplicaSets beyond those that a way back needs.
fn clean_up(sets: &Sets<'_>, deployment: &Deployment, now: Now, plan: &mut Plan) {
    let kept = usize::try_from(deployment.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let is_done = |set: &&Held<ReplicaSet>| {
        set.wanted() == 0 && set.status.replicas == 0 && set.status.observed_generation >= set.metadata.generation
    };
    let mut old: Vec<&Held<ReplicaSet>> = sets.old.iter().copied().filter(|set| !set.metadata.is_going()).collect();
    let surplus = old.len().saturating_sub(kept);
    old.sort_by_key(|set| sets::revision(set));
    let gone = old.into_iter().take(surplus).filter(is_done).take(HISTORY_BATCH_MAX);
    let mut txn = Txn::new();
    for set in gone {
        if let Ok(Some(more)) = crate::api::change::delete(set, &Deletion::default(), now.time) {
            txn = txn.and(more);
        }
    }
    if !txn.is_empty() {
        plan.txns.push(txn);
    }
}
