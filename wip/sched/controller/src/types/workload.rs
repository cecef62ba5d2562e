//! ReplicaSets and Deployments: so many pods of one make, and how one make follows another.

use super::meta::{Condition, ObjectMeta};
use super::object::object;
use super::percent::IntOrPercent;
use super::pod::PodSpec;
use super::selector::LabelSelector;

object! {
    /// So many pods of one make.
    ReplicaSet [] {
        /// `apps/v1`.
        api_version: String = "apiVersion",
        /// `ReplicaSet`.
        kind: String = "kind",
        /// Its name and life.
        metadata: ObjectMeta = "metadata",
        /// What is wanted.
        spec: ReplicaSetSpec = "spec",
        /// What is.
        status: ReplicaSetStatus = "status",
    }

    /// What is wanted of a ReplicaSet.
    ReplicaSetSpec [] {
        /// How many; 1 if it is not said.
        replicas: Option<i32> = "replicas",
        /// Seconds that a pod must have been ready to count as available.
        min_ready_seconds: i32 = "minReadySeconds",
        /// Which pods are its own; cannot be changed.
        selector: Option<LabelSelector> = "selector",
        /// What they are made from.
        template: PodTemplateSpec = "template",
    }

    /// What pods are made from.
    PodTemplateSpec [] {
        /// Their labels and annotations.
        metadata: ObjectMeta = "metadata",
        /// Their spec.
        spec: PodSpec = "spec",
    }

    /// How a ReplicaSet is.
    ReplicaSetStatus ["terminatingReplicas"] {
        /// Pods that count.
        replicas: i32 = "replicas",
        /// Those with all the template's labels.
        fully_labeled_replicas: i32 = "fullyLabeledReplicas",
        /// Those that may be used.
        ready_replicas: i32 = "readyReplicas",
        /// Those that could be used for long enough.
        available_replicas: i32 = "availableReplicas",
        /// The spec that this is about.
        observed_generation: i64 = "observedGeneration",
        /// ReplicaFailure.
        conditions: Vec<Condition> = "conditions",
    }

    /// Pods of a make that changes over time.
    Deployment [] {
        /// `apps/v1`.
        api_version: String = "apiVersion",
        /// `Deployment`.
        kind: String = "kind",
        /// Its name and life.
        metadata: ObjectMeta = "metadata",
        /// What is wanted.
        spec: DeploymentSpec = "spec",
        /// What is.
        status: DeploymentStatus = "status",
    }

    /// What is wanted of a Deployment.
    DeploymentSpec [] {
        /// How many; 1 if it is not said.
        replicas: Option<i32> = "replicas",
        /// Which ReplicaSets and pods are its own; cannot be changed.
        selector: Option<LabelSelector> = "selector",
        /// What pods are made from.
        template: PodTemplateSpec = "template",
        /// How one make follows another.
        strategy: DeploymentStrategy = "strategy",
        /// Seconds that a pod must have been ready to count as available.
        min_ready_seconds: i32 = "minReadySeconds",
        /// How many old ReplicaSets are kept; 10 if it is not said.
        revision_history_limit: Option<i32> = "revisionHistoryLimit",
        /// Whether nothing is rolled out.
        paused: bool = "paused",
        /// Seconds without progress until it is said to have failed; 600 if it is not said.
        progress_deadline_seconds: Option<i32> = "progressDeadlineSeconds",
    }

    /// How one make follows another.
    DeploymentStrategy [] {
        /// RollingUpdate or Recreate.
        r#type: String = "type",
        /// The bounds of a rolling update.
        rolling_update: Option<RollingUpdate> = "rollingUpdate",
    }

    /// The bounds of a rolling update.
    RollingUpdate [] {
        /// How many may be missing.
        max_unavailable: Option<IntOrPercent> = "maxUnavailable",
        /// How many may be too many.
        max_surge: Option<IntOrPercent> = "maxSurge",
    }

    /// How a Deployment is.
    DeploymentStatus ["terminatingReplicas"] {
        /// The spec that this is about.
        observed_generation: i64 = "observedGeneration",
        /// Pods that count.
        replicas: i32 = "replicas",
        /// Those of the newest make.
        updated_replicas: i32 = "updatedReplicas",
        /// Those that may be used.
        ready_replicas: i32 = "readyReplicas",
        /// Those that could be used for long enough.
        available_replicas: i32 = "availableReplicas",
        /// Those that are wanted and are not available.
        unavailable_replicas: i32 = "unavailableReplicas",
        /// Progressing, Available, ReplicaFailure.
        conditions: Vec<Condition> = "conditions",
        /// How often a ReplicaSet's name was taken by another make.
        collision_count: Option<i32> = "collisionCount",
    }
}

impl ReplicaSet {
    /// How many pods are wanted.
    pub fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }
}

impl Deployment {
    /// How many pods are wanted.
    pub fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }
}
