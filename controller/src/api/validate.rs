//! What an object must be to be taken: Kubernetes' rules, as far as they concern what works here.

use super::names;
use super::status::FieldError;
use crate::limits::CONTAINERS_MAX;
use crate::types::meta::ObjectMeta;
use crate::types::node::{Namespace, Node, Taint};
use crate::types::object::Field;
use crate::types::percent::IntOrPercent;
use crate::types::pod::{Container, ContainerPort, Pod, PodSpec, Probe, Resources, Toleration};
use crate::types::resource::Resource;
use crate::types::selector::{LabelSelector, Labels, Requirement};
use crate::types::workload::{Deployment, PodTemplateSpec, ReplicaSet};
use std::collections::BTreeSet;

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// An object with rules.
pub trait Validate: Resource {
    /// Everything that is wrong with it.
    fn check(&self) -> Vec<FieldError>;

    /// What of its kind alone may not follow another one.
    fn check_kept(&self, _: &Self, _: &mut Vec<FieldError>) {}

    /// Everything that is wrong with what is to follow another one.
    fn check_update(&self, old: &Self) -> Vec<FieldError> {
        let mut errors = self.check();
        life(self.meta(), old.meta(), &mut errors);
        self.check_kept(old, &mut errors);
        errors
    }
}

fn metadata(meta: &ObjectMeta, is_one_word: bool, errors: &mut Vec<FieldError>) {
    let path = "metadata.name";
    if meta.name.is_empty() {
        errors.push(FieldError::required(path, "name or generateName is required"));
    } else if is_one_word {
        names::label(path, &meta.name, errors);
    } else {
        names::subdomain(path, &meta.name, errors);
    }
    names::labels("metadata.labels", &meta.labels, errors);
    names::annotations("metadata.annotations", &meta.annotations, errors);
    for (n, owner) in meta.owner_references.iter().enumerate() {
        for (field, value) in
            [("apiVersion", &owner.api_version), ("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)]
        {
            if value.is_empty() {
                errors
                    .push(FieldError::required(format!("metadata.ownerReferences[{n}].{field}"), "must not be empty"));
            }
        }
    }
    if meta.owner_references.iter().filter(|owner| owner.controller).count() > 1 {
        let detail = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid("metadata.ownerReferences", "[]", detail));
    }
    for finalizer in &meta.finalizers {
        names::qualified("metadata.finalizers", finalizer, errors);
    }
}

fn unique<'a>(path: &str, field: &str, names: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (n, name) in names.enumerate() {
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}[{n}].{field}"), name));
        }
    }
}

fn resources(path: &str, amounts: &Resources, errors: &mut Vec<FieldError>) {
    for (name, amount) in amounts {
        names::qualified(&format!("{path}.{name}"), name, errors);
        if amount.is_negative() {
            errors.push(FieldError::invalid(
                format!("{path}[{name}]"),
                format!("{:?}", amount.to_string()),
                NOT_NEGATIVE,
            ));
        }
    }
}

fn port(path: &str, number: i32, errors: &mut Vec<FieldError>) {
    if !(1..=65_535).contains(&number) {
        errors.push(FieldError::invalid(path, number, "must be between 1 and 65535, inclusive"));
    }
}

fn ports(path: &str, ports: &[ContainerPort], errors: &mut Vec<FieldError>) {
    for (n, item) in ports.iter().enumerate() {
        let path = format!("{path}[{n}]");
        if item.container_port == 0 {
            errors.push(FieldError::required(format!("{path}.containerPort"), ""));
        } else {
            port(&format!("{path}.containerPort"), item.container_port, errors);
        }
        if item.host_port != 0 {
            port(&format!("{path}.hostPort"), item.host_port, errors);
        }
        if !matches!(item.protocol.as_str(), "TCP" | "UDP" | "SCTP") {
            errors.push(FieldError::unsupported(format!("{path}.protocol"), &item.protocol, &["SCTP", "TCP", "UDP"]));
        }
    }
    let named = ports.iter().map(|port| port.name.as_str()).filter(|name| !name.is_empty());
    unique(path, "name", named, errors);
}

fn probe(path: &str, probe: &Probe, errors: &mut Vec<FieldError>) {
    let ways = [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some()];
    match ways.iter().filter(|way| **way).count() {
        0 if !probe.extra.contains_key("grpc") => {
            errors.push(FieldError::required(path, "must specify a handler type"));
        }
        0 | 1 => {}
        _ => errors.push(FieldError::forbidden(path, "may not specify more than 1 handler type")),
    }
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers.into_iter().filter(|(_, number)| *number < 0) {
        errors.push(FieldError::invalid(format!("{path}.{field}"), number, NOT_NEGATIVE));
    }
}

fn containers(path: &str, containers: &[Container], errors: &mut Vec<FieldError>) {
    if containers.len() > CONTAINERS_MAX {
        errors.push(FieldError::forbidden(path, &format!("must have at most {CONTAINERS_MAX} items")));
        return;
    }
    for (n, container) in containers.iter().enumerate() {
        let path = format!("{path}[{n}]");
        if container.name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            names::label(&format!("{path}.name"), &container.name, errors);
        }
        if container.image.is_empty() {
            errors.push(FieldError::required(format!("{path}.image"), ""));
        }
        ports(&format!("{path}.ports"), &container.ports, errors);
        for (n, variable) in container.env.iter().enumerate().filter(|(_, variable)| variable.name.is_empty()) {
            errors.push(FieldError::required(format!("{path}.env[{n}].name"), &variable.name));
        }
        resources(&format!("{path}.resources.limits"), &container.resources.limits, errors);
        resources(&format!("{path}.resources.requests"), &container.resources.requests, errors);
        for (name, request) in &container.resources.requests {
            if let Some(limit) = container.resources.limits.get(name).filter(|limit| *limit < request) {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                let value = format!("{:?}", request.to_string());
                errors.push(FieldError::invalid(format!("{path}.resources.requests"), value, &detail));
            }
        }
        let probes = [
            ("livenessProbe", &container.liveness_probe),
            ("readinessProbe", &container.readiness_probe),
            ("startupProbe", &container.startup_probe),
        ];
        for (field, at) in probes {
            at.iter().for_each(|at| probe(&format!("{path}.{field}"), at, errors));
        }
    }
    unique(path, "name", containers.iter().map(|container| container.name.as_str()), errors);
}

fn tolerations(path: &str, tolerations: &[Toleration], errors: &mut Vec<FieldError>) {
    for (n, toleration) in tolerations.iter().enumerate() {
        let path = format!("{path}[{n}]");
        if !toleration.key.is_empty() {
            names::qualified(&format!("{path}.key"), &toleration.key, errors);
        }
        match toleration.operator.as_str() {
            "" | "Equal" => names::value(&format!("{path}.operator"), &toleration.value, errors),
            "Exists" if !toleration.value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(format!("{path}.operator"), format!("{:?}", toleration.value), detail));
            }
            "Exists" => {}
            other => errors.push(FieldError::unsupported(format!("{path}.operator"), other, &["Equal", "Exists"])),
        }
        if toleration.key.is_empty() && toleration.operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(format!("{path}.operator"), format!("{:?}", toleration.operator), detail));
        }
        effect(&format!("{path}.effect"), &toleration.effect, true, errors);
        if toleration.toleration_seconds.is_some() && toleration.effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(format!("{path}.effect"), format!("{:?}", toleration.effect), detail));
        }
    }
}

fn effect(path: &str, effect: &str, may_be_empty: bool, errors: &mut Vec<FieldError>) {
    const KNOWN: [&str; 3] = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
    if effect.is_empty() && !may_be_empty {
        errors.push(FieldError::required(path, ""));
    } else if !effect.is_empty() && !KNOWN.contains(&effect) {
        errors.push(FieldError::unsupported(path, effect, &KNOWN));
    }
}

fn requirements(path: &str, requirements: &[Requirement], of_nodes: bool, errors: &mut Vec<FieldError>) {
    for (n, requirement) in requirements.iter().enumerate() {
        let path = format!("{path}[{n}]");
        names::qualified(&format!("{path}.key"), &requirement.key, errors);
        let values = requirement.values.len();
        match requirement.operator.as_str() {
            "In" | "NotIn" if values == 0 => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{path}.values"), detail));
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if values > 0 => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{path}.values"), detail));
            }
            "Exists" | "DoesNotExist" => {}
            "Gt" | "Lt" if of_nodes && values != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::required(format!("{path}.values"), detail));
            }
            "Gt" | "Lt" if of_nodes => {}
            other => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(format!("{path}.operator"), format!("{other:?}"), detail));
            }
        }
    }
}

fn pod_spec(path: &str, spec: &PodSpec, errors: &mut Vec<FieldError>) {
    if spec.containers.is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    containers(&format!("{path}.initContainers"), &spec.init_containers, errors);
    containers(&format!("{path}.containers"), &spec.containers, errors);
    if !matches!(spec.restart_policy.as_str(), "Always" | "OnFailure" | "Never") {
        let known = ["Always", "OnFailure", "Never"];
        errors.push(FieldError::unsupported(format!("{path}.restartPolicy"), &spec.restart_policy, &known));
    }
    if let Some(seconds) = spec.termination_grace_period_seconds.filter(|seconds| *seconds < 0) {
        errors.push(FieldError::invalid(format!("{path}.terminationGracePeriodSeconds"), seconds, NOT_NEGATIVE));
    }
    if !matches!(spec.preemption_policy.as_str(), "" | "PreemptLowerPriority" | "Never") {
        let known = ["PreemptLowerPriority", "Never"];
        errors.push(FieldError::unsupported(format!("{path}.preemptionPolicy"), &spec.preemption_policy, &known));
    }
    names::labels(&format!("{path}.nodeSelector"), &spec.node_selector, errors);
    tolerations(&format!("{path}.tolerations"), &spec.tolerations, errors);
    let required = spec.affinity.iter().filter_map(|affinity| affinity.node_affinity.as_ref());
    for required in required.filter_map(|affinity| affinity.required.as_ref()) {
        let path =
            format!("{path}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        if required.node_selector_terms.is_empty() {
            errors.push(FieldError::required(&path, "must have at least one node selector term"));
        }
        for (n, term) in required.node_selector_terms.iter().enumerate() {
            requirements(&format!("{path}[{n}].matchExpressions"), &term.match_expressions, true, errors);
        }
    }
    let gates = spec.scheduling_gates.iter().map(|gate| gate.name.as_str());
    unique(&format!("{path}.schedulingGates"), "name", gates, errors);
}

/// As Go prints labels: `map[string]string{"app":"web"}`.
fn go_map(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name:?}:{value:?}")).collect();
    format!("map[string]string{{{}}}", pairs.join(", "))
}

/// A selector of a kind that makes pods, and the template that it must match.
fn selector_and_template(selector: Option<&LabelSelector>, template: &PodTemplateSpec, errors: &mut Vec<FieldError>) {
    match selector {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(selector) if selector.is_empty() => {
            errors.push(FieldError::invalid("spec.selector", "{}", "empty selector is invalid for deployment"));
        }
        Some(selector) => {
            names::labels("spec.selector.matchLabels", &selector.match_labels, errors);
            requirements("spec.selector.matchExpressions", &selector.match_expressions, false, errors);
            if !selector.matches(&template.metadata.labels) {
                let (path, value) = ("spec.template.metadata.labels", go_map(&template.metadata.labels));
                errors.push(FieldError::invalid(path, value, "`selector` does not match template `labels`"));
            }
        }
    }
    names::labels("spec.template.metadata.labels", &template.metadata.labels, errors);
    names::annotations("spec.template.metadata.annotations", &template.metadata.annotations, errors);
    pod_spec("spec.template.spec", &template.spec, errors);
    if template.spec.restart_policy != "Always" {
        let policy = &template.spec.restart_policy;
        errors.push(FieldError::unsupported("spec.template.spec.restartPolicy", policy, &["Always"]));
    }
    if !template.spec.node_name.is_empty() {
        errors.push(FieldError::forbidden("spec.template.spec.nodeName", "only a bind sets it"));
    }
}

fn not_negative(path: &str, number: Option<i32>, errors: &mut Vec<FieldError>) {
    if let Some(number) = number.filter(|number| *number < 0) {
        errors.push(FieldError::invalid(path, number, NOT_NEGATIVE));
    }
}

fn share(path: &str, share: &IntOrPercent, errors: &mut Vec<FieldError>) {
    match share {
        IntOrPercent::Int(number) => not_negative(path, Some(*number), errors),
        IntOrPercent::Text(text) if share.percent().is_none() => {
            let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex \
                          used for validation is '[0-9]+%')";
            errors.push(FieldError::invalid(path, format!("{text:?}"), detail));
        }
        IntOrPercent::Text(_) => {}
    }
}

/// Neither name, nor incarnation, nor the moment of the deletion is ever taken back.
fn life(new: &ObjectMeta, old: &ObjectMeta, errors: &mut Vec<FieldError>) {
    const IMMUTABLE: &str = "field is immutable";
    if old.deletion_timestamp.is_some() && new.deletion_timestamp != old.deletion_timestamp {
        errors.push(FieldError::invalid("metadata.deletionTimestamp", "null", IMMUTABLE));
    }
    if new.creation_timestamp != old.creation_timestamp {
        errors.push(FieldError::invalid("metadata.creationTimestamp", "null", IMMUTABLE));
    }
    if old.is_going() && new.finalizers.iter().any(|finalizer| !old.finalizers.contains(finalizer)) {
        let detail = "no new finalizers can be added if the object is being deleted";
        errors.push(FieldError::forbidden("metadata.finalizers", detail));
    }
}

fn immutable<T: Field + PartialEq>(path: &str, new: &T, old: &T, errors: &mut Vec<FieldError>) {
    if new != old {
        let value = serde_json::to_string(new).unwrap_or_default();
        errors.push(FieldError::invalid(path, value, "field is immutable"));
    }
}

impl Validate for Pod {
    fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata(&self.metadata, false, &mut errors);
        pod_spec("spec", &self.spec, &mut errors);
        let named = &self.spec.priority_class_name;
        if !named.is_empty() && !super::defaults::PRIORITY_CLASSES.iter().any(|(name, _)| name == named) {
            errors.push(FieldError::forbidden(
                "spec.priorityClassName",
                &format!("no PriorityClass with name {named} was found"),
            ));
        }
        errors
    }

    fn check_kept(&self, old: &Self, errors: &mut Vec<FieldError>) {
        // Images, tolerations that are added and gates that are taken away are all that may change.
        let comparable = |spec: &PodSpec| {
            let mut spec = spec.clone();
            spec.containers.iter_mut().chain(&mut spec.init_containers).for_each(|container| container.image.clear());
            spec.tolerations.clear();
            spec.scheduling_gates.clear();
            spec
        };
        if comparable(&self.spec) != comparable(&old.spec) {
            let detail = "pod updates may not change fields other than `spec.containers[*].image`,\
                          `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
                          tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
            errors.push(FieldError::forbidden("spec", detail));
        }
        if !old.spec.tolerations.iter().all(|toleration| self.spec.tolerations.contains(toleration)) {
            errors.push(FieldError::forbidden(
                "spec.tolerations",
                "existing toleration can not be modified except its tolerationSeconds",
            ));
        }
        if !self.spec.scheduling_gates.iter().all(|gate| old.spec.scheduling_gates.contains(gate)) {
            errors.push(FieldError::forbidden("spec.schedulingGates", "only deletion is allowed"));
        }
    }
}

impl Validate for ReplicaSet {
    fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata(&self.metadata, false, &mut errors);
        not_negative("spec.replicas", self.spec.replicas, &mut errors);
        not_negative("spec.minReadySeconds", Some(self.spec.min_ready_seconds), &mut errors);
        selector_and_template(self.spec.selector.as_ref(), &self.spec.template, &mut errors);
        errors
    }

    fn check_kept(&self, old: &Self, errors: &mut Vec<FieldError>) {
        immutable("spec.selector", &self.spec.selector, &old.spec.selector, errors);
    }
}

impl Validate for Deployment {
    fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata(&self.metadata, false, &mut errors);
        let spec = &self.spec;
        not_negative("spec.replicas", spec.replicas, &mut errors);
        not_negative("spec.minReadySeconds", Some(spec.min_ready_seconds), &mut errors);
        not_negative("spec.revisionHistoryLimit", spec.revision_history_limit, &mut errors);
        not_negative("spec.progressDeadlineSeconds", spec.progress_deadline_seconds, &mut errors);
        if let Some(seconds) = spec.progress_deadline_seconds.filter(|seconds| *seconds <= spec.min_ready_seconds) {
            errors.push(FieldError::invalid(
                "spec.progressDeadlineSeconds",
                seconds,
                "must be greater than minReadySeconds",
            ));
        }
        selector_and_template(spec.selector.as_ref(), &spec.template, &mut errors);
        match (spec.strategy.r#type.as_str(), &spec.strategy.rolling_update) {
            ("Recreate", Some(_)) => {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
            }
            ("Recreate", None) => {}
            ("RollingUpdate", bounds) => {
                let of = |share: Option<&IntOrPercent>, up| share.and_then(|share| share.of(100, up)).unwrap_or(0);
                let (unavailable, surge) = bounds
                    .as_ref()
                    .map_or((None, None), |bounds| (bounds.max_unavailable.as_ref(), bounds.max_surge.as_ref()));
                let path = "spec.strategy.rollingUpdate";
                unavailable.iter().for_each(|at| share(&format!("{path}.maxUnavailable"), at, &mut errors));
                surge.iter().for_each(|at| share(&format!("{path}.maxSurge"), at, &mut errors));
                if of(unavailable, true) == 0 && of(surge, true) == 0 {
                    let detail = "may not be 0 when `maxSurge` is 0";
                    errors.push(FieldError::invalid(format!("{path}.maxUnavailable"), 0, detail));
                }
                if unavailable.and_then(IntOrPercent::percent).is_some_and(|percent| percent > 100) {
                    let value = format!("{:?}", unavailable.map(ToString::to_string).unwrap_or_default());
                    errors.push(FieldError::invalid(
                        format!("{path}.maxUnavailable"),
                        value,
                        "must not be greater than 100%",
                    ));
                }
            }
            (other, _) => {
                errors.push(FieldError::unsupported("spec.strategy.type", other, &["Recreate", "RollingUpdate"]));
            }
        }
        errors
    }

    fn check_kept(&self, old: &Self, errors: &mut Vec<FieldError>) {
        immutable("spec.selector", &self.spec.selector, &old.spec.selector, errors);
    }
}

fn taints(taints: &[Taint], errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (n, taint) in taints.iter().enumerate() {
        let path = format!("spec.taints[{n}]");
        names::qualified(&format!("{path}.key"), &taint.key, errors);
        names::value(&format!("{path}.value"), &taint.value, errors);
        effect(&format!("{path}.effect"), &taint.effect, false, errors);
        if !seen.insert((&taint.key, &taint.effect)) {
            errors.push(FieldError::duplicate(path, &format!("{}:{}", taint.key, taint.effect)));
        }
    }
}

impl Validate for Node {
    fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata(&self.metadata, false, &mut errors);
        taints(&self.spec.taints, &mut errors);
        resources("status.capacity", &self.status.capacity, &mut errors);
        resources("status.allocatable", &self.status.allocatable, &mut errors);
        errors
    }
}

impl Validate for Namespace {
    fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata(&self.metadata, true, &mut errors);
        errors
    }
}
