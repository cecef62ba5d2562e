//! What is meant where nothing is said, as Kubernetes fills it in.

use crate::types::node::Namespace;
use crate::types::percent::IntOrPercent;
use crate::types::pod::{Container, Pod, PodSpec, Probe, Toleration};
use crate::types::workload::{Deployment, PodTemplateSpec, ReplicaSet, RollingUpdate};

/// Who binds pods that name nobody.
pub const SCHEDULER: &str = "default-scheduler";

/// Seconds that a pod stays on a node that is not heard of; Kubernetes has 300.
pub const TOLERATION_SECONDS: i64 = 30;

/// The taint of a node that says that it is not well.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The taint of a node that is not heard of.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The label of a namespace that is its name.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The finalizer of a namespace, until it is empty.
pub const NAMESPACE_FINALIZER: &str = "kubernetes";

/// Priority classes that are built in.
pub const PRIORITY_CLASSES: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// An object with something to fill in.
pub trait Defaults {
    /// Fills it in; does nothing the second time.
    fn fill_in(&mut self);
}

fn set(text: &mut String, default: &str) {
    if text.is_empty() {
        default.clone_into(text);
    }
}

fn set_number(number: &mut i32, default: i32) {
    if *number == 0 {
        *number = default;
    }
}

impl Defaults for PodSpec {
    fn fill_in(&mut self) {
        set(&mut self.restart_policy, "Always");
        set(&mut self.scheduler_name, SCHEDULER);
        self.termination_grace_period_seconds.get_or_insert(30);
        self.init_containers.iter_mut().chain(&mut self.containers).for_each(Container::fill_in);
    }
}

impl Defaults for Container {
    fn fill_in(&mut self) {
        for port in &mut self.ports {
            set(&mut port.protocol, "TCP");
        }
        // What it may have is set aside for it, if nothing else is said.
        for (name, limit) in &self.resources.limits {
            self.resources.requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
        let probes = [&mut self.liveness_probe, &mut self.readiness_probe, &mut self.startup_probe];
        probes.into_iter().flatten().for_each(Probe::fill_in);
    }
}

impl Defaults for Probe {
    fn fill_in(&mut self) {
        set_number(&mut self.timeout_seconds, 1);
        set_number(&mut self.period_seconds, 10);
        set_number(&mut self.success_threshold, 1);
        set_number(&mut self.failure_threshold, 3);
    }
}

impl Defaults for Pod {
    fn fill_in(&mut self) {
        self.spec.fill_in();
        set(&mut self.status.phase, "Pending");
        let named = PRIORITY_CLASSES.iter().find(|(name, _)| *name == self.spec.priority_class_name);
        self.spec.priority.get_or_insert(named.map_or(0, |(_, priority)| *priority));
        for key in [NOT_READY, UNREACHABLE] {
            let is_said = |toleration: &Toleration| {
                (toleration.key == key || toleration.key.is_empty())
                    && (toleration.effect == "NoExecute" || toleration.effect.is_empty())
            };
            if !self.spec.tolerations.iter().any(is_said) {
                self.spec.tolerations.push(Toleration {
                    key: key.to_owned(),
                    operator: "Exists".to_owned(),
                    effect: "NoExecute".to_owned(),
                    toleration_seconds: Some(TOLERATION_SECONDS),
                    ..Default::default()
                });
            }
        }
    }
}

impl Defaults for PodTemplateSpec {
    fn fill_in(&mut self) {
        self.spec.fill_in();
    }
}

impl Defaults for ReplicaSet {
    fn fill_in(&mut self) {
        self.spec.replicas.get_or_insert(1);
        self.spec.template.fill_in();
    }
}

impl Defaults for Deployment {
    fn fill_in(&mut self) {
        self.spec.replicas.get_or_insert(1);
        self.spec.template.fill_in();
        self.spec.revision_history_limit.get_or_insert(10);
        self.spec.progress_deadline_seconds.get_or_insert(600);
        set(&mut self.spec.strategy.r#type, "RollingUpdate");
        if self.spec.strategy.r#type == "RollingUpdate" {
            let bounds = self.spec.strategy.rolling_update.get_or_insert_with(RollingUpdate::default);
            let quarter = || IntOrPercent::Text("25%".to_owned());
            bounds.max_unavailable.get_or_insert_with(quarter);
            bounds.max_surge.get_or_insert_with(quarter);
        }
    }
}

impl Defaults for Namespace {
    fn fill_in(&mut self) {
        set(&mut self.status.phase, "Active");
        self.metadata.labels.insert(NAMESPACE_NAME.to_owned(), self.metadata.name.clone());
        let finalizers = &mut self.spec.finalizers;
        if !self.metadata.is_going() && !finalizers.iter().any(|finalizer| finalizer == NAMESPACE_FINALIZER) {
            finalizers.push(NAMESPACE_FINALIZER.to_owned());
        }
    }
}

impl Defaults for crate::types::node::Node {
    fn fill_in(&mut self) {
        if self.status.allocatable.is_empty() {
            self.status.allocatable = self.status.capacity.clone();
        }
    }
}
