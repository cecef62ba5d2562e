//! A pod for which others are to go: what is written so that all of it happens, or nothing.
//!
//! The scheduler keeps too little of pods that run to write them. So it says whom it wants to go, is told what the store has
//! of them, and then writes one transaction: the pod is nominated for the node, and all victims are told to go, each under
//! its version, the pod under its own, and all under the version of the node's placements, which is rewritten as by a bind.

use super::preempt::Victim;
use crate::api::defaults::SCHEDULER;
use crate::control::node::told_to_go;
use crate::control::{About, Note, Now};
use crate::keys::{self, ObjectKey};
use crate::kv::{Guard, KeyValue, Revision, Txn};
use crate::types::meta::{Condition, set_condition};
use crate::types::pod::Pod;
use crate::types::resource::{Held, Resource as _};

/// Why a pod was told to go, in its condition `DisruptionTarget`.
pub const BY_SCHEDULER: &str = "PreemptionByScheduler";

/// A pod for which others are to go.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) key: ObjectKey,
    pub(super) created: Revision,
    pub(super) priority: i32,
    /// Where it gets room.
    pub(super) node: String,
    /// The version of the node's placements that it was worked out from.
    pub(super) version: i64,
    /// Who goes; nobody, if those suffice who go already.
    pub(super) victims: Vec<Victim>,
    /// What the pod says meanwhile.
    pub(super) condition: Condition,
}

/// Why nobody is told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// Something is not as it was, or was not read.
    Stale,
    /// No store takes it at once.
    TooLarge,
}

impl Wanted {
    /// Nominates the pod for the node and tells the victims to go; also says what people should hear once it is written.
    ///
    /// - Shape: `waiting` is the pod, and `read` what the store has of the victims that are there, in any order. The fence and
    ///   the node's placements are for whoever sends it.
    pub(super) fn txn(
        &self,
        cluster_id: u64,
        waiting: &KeyValue,
        read: &[KeyValue],
        now: Now,
    ) -> Result<(Txn, Vec<Note>), Missed> {
        let pod: Held<Pod> = Held::read(cluster_id, waiting).map_err(|_| Missed::Stale)?;
        let mut new = pod.to_object();
        new.status.nominated_node_name.clone_from(&self.node);
        set_condition(&mut new.status.conditions, self.condition.clone(), now.time);
        let seen = Guard::Seen { key: self.key.to_string().into(), modified: pod.modified };
        let placements = Guard::Version { key: keys::alloc(&self.node).into(), version: self.version };
        let mut txn = Txn::new().guard(seen).guard(placements).put(self.key.to_string(), new.to_stored());
        let named = &pod.spec.scheduler_name;
        let why = format!(
            "{}: preempting to accommodate a higher priority pod",
            if named.is_empty() { SCHEDULER } else { named.as_str() }
        );
        let mut notes = Vec::new();
        for (key, created) in &self.victims {
            let victim = self.victim(cluster_id, key, *created, read).ok_or(Missed::Stale)?;
            let gone = told_to_go(&victim, None, BY_SCHEDULER, &why, now.time).ok_or(Missed::Stale)?;
            if !txn.fits_with(&gone) {
                return Err(Missed::TooLarge);
            }
            txn = txn.and(gone);
            let (uid, resource_version) = (victim.metadata.uid.clone(), victim.metadata.resource_version.clone());
            let about = Some(About { key: key.clone(), uid, resource_version });
            let message = format!("Preempted by pod {} on node {}", pod.metadata.uid, self.node);
            notes.push(Note { about, is_warning: false, reason: "Preempted", message });
        }
        Ok((txn, notes))
    }

    /// A victim as it was read; `None` if it is not what was chosen any more.
    fn victim(&self, cluster_id: u64, key: &ObjectKey, created: Revision, read: &[KeyValue]) -> Option<Held<Pod>> {
        let name = key.to_string();
        let item = read.iter().find(|item| item.key == name.as_bytes() && item.created == created)?;
        let victim: Held<Pod> = Held::read(cluster_id, item).ok()?;
        let is_less = victim.spec.priority.unwrap_or(0) < self.priority;
        (victim.spec.node_name == self.node && victim.is_active() && is_less).then_some(victim)
    }
}

#[cfg(test)]
mod tests;
