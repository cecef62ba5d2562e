//! What every object carries: its name, its labels, its owners, its life.

use super::object::object;
use super::selector::Labels;
use super::time::Time;
use crate::keys::{self, Kind, ObjectKey};
use crate::kv::Revision;
use std::collections::BTreeMap;

object! {
    /// An object's metadata.
    ///
    /// `resourceVersion` and `uid` are never in the store: they are the key's revisions ([`crate::keys::uid`]), filled in
    /// when an object is read.
    ObjectMeta ["selfLink", "managedFields"] {
        /// Unique within the namespace and kind.
        name: String = "name",
        /// A name is made from it if there is none.
        generate_name: String = "generateName",
        /// Empty for nodes and namespaces.
        namespace: String = "namespace",
        /// Names one incarnation.
        uid: String = "uid",
        /// The revision of its last change.
        resource_version: String = "resourceVersion",
        /// Rises with each change of the spec.
        generation: i64 = "generation",
        /// When it was made.
        creation_timestamp: Option<Time> = "creationTimestamp",
        /// When it was told to go; never taken back.
        deletion_timestamp: Option<Time> = "deletionTimestamp",
        /// Seconds that it has to go.
        deletion_grace_period_seconds: Option<i64> = "deletionGracePeriodSeconds",
        /// What selectors look at.
        labels: Labels = "labels",
        /// What nothing selects by.
        annotations: BTreeMap<String, String> = "annotations",
        /// Without any of them it goes.
        owner_references: Vec<OwnerReference> = "ownerReferences",
        /// It stays until this is empty.
        finalizers: Vec<String> = "finalizers",
    }

    /// Whom an object belongs to.
    OwnerReference [] {
        /// The owner's API.
        api_version: String = "apiVersion",
        /// The owner's kind.
        kind: String = "kind",
        /// The owner's name, in the same namespace or in none.
        name: String = "name",
        /// The owner's incarnation.
        uid: String = "uid",
        /// Whether the owner manages it; one may.
        controller: bool = "controller",
        /// Whether the owner waits for it when it goes in the foreground.
        block_owner_deletion: bool = "blockOwnerDeletion",
    }

    /// A fact about an object, as pods, nodes, ReplicaSets and Deployments state it.
    Condition ["observedGeneration"] {
        /// What the fact is of.
        r#type: String = "type",
        /// True, False or Unknown.
        status: String = "status",
        /// Why, for programs.
        reason: String = "reason",
        /// Why, for people.
        message: String = "message",
        /// Nodes: when somebody last heard.
        last_heartbeat_time: Option<Time> = "lastHeartbeatTime",
        /// Pods: when it was last looked at.
        last_probe_time: Option<Time> = "lastProbeTime",
        /// Deployments: when it was last written.
        last_update_time: Option<Time> = "lastUpdateTime",
        /// When `status` last changed.
        last_transition_time: Option<Time> = "lastTransitionTime",
    }
}

impl ObjectMeta {
    /// The owner that manages it.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }

    /// Whether it was told to go.
    pub fn is_going(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

impl OwnerReference {
    /// Where the owner of an object in this namespace is; `None` if its kind is not known here.
    pub fn key(&self, namespace: &str) -> Option<ObjectKey> {
        Some(ObjectKey::new(Kind::of_name(&self.kind)?, namespace, &self.name))
    }

    /// When the owner of an object in this namespace was created;
    /// `None` if its uid is none of its name's in this cluster.
    pub fn created(&self, cluster_id: u64, namespace: &str) -> Option<Revision> {
        keys::created_of(cluster_id, &self.key(namespace)?, &self.uid)
    }
}

/// Whether the condition of this type is True.
pub fn holds(conditions: &[Condition], r#type: &str) -> bool {
    conditions.iter().any(|condition| condition.r#type == r#type && condition.status == "True")
}

/// Sets a condition; keeps the time of its last transition if only its words changed. Returns whether anything changed.
pub fn set_condition(conditions: &mut Vec<Condition>, new: Condition, now: Time) -> bool {
    let Some(old) = conditions.iter_mut().find(|old| old.r#type == new.r#type) else {
        conditions.push(Condition { last_transition_time: Some(now), ..new });
        return true;
    };
    let same = old.status == new.status;
    if same && old.reason == new.reason && old.message == new.message {
        return false;
    }
    let since = if same { old.last_transition_time.or(Some(now)) } else { Some(now) };
    *old = Condition { last_transition_time: since, ..new };
    true
}
