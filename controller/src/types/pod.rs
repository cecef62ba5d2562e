//! Pods: what is to run, where, and how it is.

use super::meta::{Condition, ObjectMeta, holds};
use super::object::object;
use super::quantity::Quantity;
use super::selector::Requirement;
use super::time::Time;
use std::collections::BTreeMap;

/// Amounts by the name of the resource.
pub type Resources = BTreeMap<String, Quantity>;

object! {
    /// Containers that run together on one node.
    Pod [] {
        /// `v1`.
        api_version: String = "apiVersion",
        /// `Pod`.
        kind: String = "kind",
        /// Its name and life.
        metadata: ObjectMeta = "metadata",
        /// What is wanted.
        spec: PodSpec = "spec",
        /// What is.
        status: PodStatus = "status",
    }

    /// What is wanted of a pod.
    PodSpec [
        "activeDeadlineSeconds", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks",
        "ephemeralContainers", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostUsers", "hostname",
        "imagePullSecrets", "os", "overhead", "readinessGates", "resourceClaims", "resources",
        "runtimeClassName", "securityContext", "serviceAccount", "serviceAccountName", "setHostnameAsFQDN",
        "shareProcessNamespace", "subdomain", "topologySpreadConstraints", "volumes",
    ] {
        /// Run to their end, one after the other, before the others.
        init_containers: Vec<Container> = "initContainers",
        /// Run together.
        containers: Vec<Container> = "containers",
        /// Always, OnFailure or Never.
        restart_policy: String = "restartPolicy",
        /// Seconds to stop in.
        termination_grace_period_seconds: Option<i64> = "terminationGracePeriodSeconds",
        /// Where it runs; set once, by a bind.
        node_name: String = "nodeName",
        /// Labels that the node must have.
        node_selector: BTreeMap<String, String> = "nodeSelector",
        /// More that the node must have.
        affinity: Option<Affinity> = "affinity",
        /// Taints that do not keep it away.
        tolerations: Vec<Toleration> = "tolerations",
        /// Larger goes first, and may push smaller ones out.
        priority: Option<i32> = "priority",
        /// A name for a priority.
        priority_class_name: String = "priorityClassName",
        /// Whether smaller ones go for it: PreemptLowerPriority, which is meant if it is empty, or Never.
        preemption_policy: String = "preemptionPolicy",
        /// Who is to bind it.
        scheduler_name: String = "schedulerName",
        /// It is not looked at while there are any.
        scheduling_gates: Vec<SchedulingGate> = "schedulingGates",
    }

    /// Something that holds a pod back.
    SchedulingGate [] {
        /// Its name.
        name: String = "name",
    }

    /// One program of a pod.
    Container [
        "envFrom", "imagePullPolicy", "lifecycle", "resizePolicy", "restartPolicy", "securityContext", "stdin",
        "stdinOnce", "terminationMessagePath", "terminationMessagePolicy", "tty", "volumeDevices", "volumeMounts",
    ] {
        /// Unique within the pod.
        name: String = "name",
        /// What it is.
        image: String = "image",
        /// The program.
        command: Vec<String> = "command",
        /// Its arguments.
        args: Vec<String> = "args",
        /// Where it begins.
        working_dir: String = "workingDir",
        /// Where it listens.
        ports: Vec<ContainerPort> = "ports",
        /// Its environment.
        env: Vec<EnvVar> = "env",
        /// What it needs, and what it may have.
        resources: ResourceRequirements = "resources",
        /// Whether it must be started anew.
        liveness_probe: Option<Probe> = "livenessProbe",
        /// Whether it may be used.
        readiness_probe: Option<Probe> = "readinessProbe",
        /// Whether it has come up.
        startup_probe: Option<Probe> = "startupProbe",
    }

    /// A port.
    ContainerPort ["hostIP"] {
        /// Its name.
        name: String = "name",
        /// In the container.
        container_port: i32 = "containerPort",
        /// On the node, for one pod alone.
        host_port: i32 = "hostPort",
        /// TCP, UDP or SCTP.
        protocol: String = "protocol",
    }

    /// A variable.
    EnvVar ["valueFrom"] {
        /// Its name.
        name: String = "name",
        /// Its value.
        value: String = "value",
    }

    /// What a container needs, and what it may have.
    ResourceRequirements ["claims"] {
        /// No more than this.
        limits: Resources = "limits",
        /// This is set aside for it.
        requests: Resources = "requests",
    }

    /// How to ask a container for its health.
    Probe ["grpc", "terminationGracePeriodSeconds"] {
        /// By a command's exit.
        exec: Option<ExecAction> = "exec",
        /// By an answer.
        http_get: Option<HttpGetAction> = "httpGet",
        /// By a connection.
        tcp_socket: Option<TcpSocketAction> = "tcpSocket",
        /// Seconds before the first.
        initial_delay_seconds: i32 = "initialDelaySeconds",
        /// Seconds that one may take.
        timeout_seconds: i32 = "timeoutSeconds",
        /// Seconds between two.
        period_seconds: i32 = "periodSeconds",
        /// So many in a row are success.
        success_threshold: i32 = "successThreshold",
        /// So many in a row are failure.
        failure_threshold: i32 = "failureThreshold",
    }

    /// A command.
    ExecAction [] {
        /// Its words.
        command: Vec<String> = "command",
    }

    /// A request.
    HttpGetAction ["host", "httpHeaders", "scheme"] {
        /// What is asked for.
        path: String = "path",
        /// A port's number or name.
        port: super::percent::IntOrPercent = "port",
    }

    /// A connection.
    TcpSocketAction ["host"] {
        /// A port's number or name.
        port: super::percent::IntOrPercent = "port",
    }

    /// Where a pod would like to be.
    Affinity ["podAffinity", "podAntiAffinity"] {
        /// By nodes' labels.
        node_affinity: Option<NodeAffinity> = "nodeAffinity",
    }

    /// Which nodes are meant.
    NodeAffinity ["preferredDuringSchedulingIgnoredDuringExecution"] {
        /// What must hold.
        required: Option<NodeSelector> = "requiredDuringSchedulingIgnoredDuringExecution",
    }

    /// Any of its terms.
    NodeSelector [] {
        /// One of them must hold.
        node_selector_terms: Vec<NodeSelectorTerm> = "nodeSelectorTerms",
    }

    /// All of its requirements.
    NodeSelectorTerm ["matchFields"] {
        /// All of them must hold.
        match_expressions: Vec<Requirement> = "matchExpressions",
    }

    /// A taint that does not keep a pod away.
    Toleration [] {
        /// The taint's; empty for all, with `Exists`.
        key: String = "key",
        /// Exists, or Equal, which is meant if it is empty.
        operator: String = "operator",
        /// The taint's, for `Equal`.
        value: String = "value",
        /// The taint's; empty for all.
        effect: String = "effect",
        /// How long it stays where it runs; for ever if it is not said.
        toleration_seconds: Option<i64> = "tolerationSeconds",
    }

    /// How a pod is.
    PodStatus [
        "ephemeralContainerStatuses", "hostIPs", "observedGeneration", "podIPs", "qosClass", "resize",
        "resourceClaimStatuses",
    ] {
        /// Pending, Running, Succeeded, Failed or Unknown.
        phase: String = "phase",
        /// Why, for programs.
        reason: String = "reason",
        /// Why, for people.
        message: String = "message",
        /// PodScheduled, Initialized, ContainersReady, Ready.
        conditions: Vec<Condition> = "conditions",
        /// How the first containers are.
        init_container_statuses: Vec<ContainerStatus> = "initContainerStatuses",
        /// How the containers are.
        container_statuses: Vec<ContainerStatus> = "containerStatuses",
        /// The node's address.
        host_ip: String = "hostIP",
        /// Its own address.
        pod_ip: String = "podIP",
        /// When a node took it up.
        start_time: Option<Time> = "startTime",
        /// Where it will go once others have made room.
        nominated_node_name: String = "nominatedNodeName",
    }

    /// How a container is.
    ContainerStatus ["allocatedResources", "allocatedResourcesStatus", "resources", "stopSignal", "user", "volumeMounts"] {
        /// The container's.
        name: String = "name",
        /// Now.
        state: ContainerState = "state",
        /// Before.
        last_state: ContainerState = "lastState",
        /// Whether it may be used.
        ready: bool = "ready",
        /// Whether it has come up.
        started: Option<bool> = "started",
        /// How often it was started anew.
        restart_count: i32 = "restartCount",
        /// What it is.
        image: String = "image",
        /// What it is, exactly.
        image_id: String = "imageID",
        /// Which one it is.
        container_id: String = "containerID",
    }

    /// One of the three.
    ContainerState [] {
        /// Not yet.
        waiting: Option<Waiting> = "waiting",
        /// It runs.
        running: Option<Running> = "running",
        /// No more.
        terminated: Option<Terminated> = "terminated",
    }

    /// A container that does not run yet.
    Waiting [] {
        /// Why, for programs.
        reason: String = "reason",
        /// Why, for people.
        message: String = "message",
    }

    /// A container that runs.
    Running [] {
        /// Since when.
        started_at: Option<Time> = "startedAt",
    }

    /// A container that ended.
    Terminated [] {
        /// Its process's answer.
        exit_code: i32 = "exitCode",
        /// What ended it, if a signal did.
        signal: i32 = "signal",
        /// Why, for programs.
        reason: String = "reason",
        /// Why, for people.
        message: String = "message",
        /// From when.
        started_at: Option<Time> = "startedAt",
        /// Until when.
        finished_at: Option<Time> = "finishedAt",
        /// Which one it was.
        container_id: String = "containerID",
    }
}

impl Pod {
    /// Whether it has ended for good, so that it uses nothing any more.
    pub fn is_over(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether it counts for its owner: neither over nor told to go.
    pub fn is_active(&self) -> bool {
        !self.is_over() && !self.metadata.is_going()
    }

    /// Whether it may be used.
    pub fn is_ready(&self) -> bool {
        holds(&self.status.conditions, "Ready")
    }

    /// Since when it may be used.
    pub fn ready_since(&self) -> Option<Time> {
        let ready = self.status.conditions.iter().find(|condition| condition.r#type == "Ready")?;
        ready.last_transition_time.filter(|_| ready.status == "True")
    }

    /// Whether any of its containers runs, as its node says.
    pub fn runs(&self) -> bool {
        let mut containers = self.status.container_statuses.iter();
        self.status.phase == "Running" && containers.any(|container| container.state.running.is_some())
    }

    /// How often any of its containers was started anew.
    pub fn restarts(&self) -> i32 {
        self.status.container_statuses.iter().map(|status| status.restart_count).max().unwrap_or(0)
    }
}

impl Toleration {
    /// Whether it tolerates a taint.
    pub fn tolerates(&self, taint: &super::node::Taint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && match self.operator.as_str() {
                "Exists" => true,
                "" | "Equal" => self.value == taint.value && !self.key.is_empty(),
                _ => false,
            }
    }
}
