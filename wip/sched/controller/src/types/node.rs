//! Nodes and namespaces: what pods run on, and what their names are unique in.

use super::meta::{Condition, ObjectMeta, holds};
use super::object::object;
use super::pod::Resources;
use super::time::Time;

object! {
    /// A machine.
    Node [] {
        /// `v1`.
        api_version: String = "apiVersion",
        /// `Node`.
        kind: String = "kind",
        /// Its name and life.
        metadata: ObjectMeta = "metadata",
        /// What is wanted.
        spec: NodeSpec = "spec",
        /// What is.
        status: NodeStatus = "status",
    }

    /// What is wanted of a node.
    NodeSpec ["configSource", "externalID", "podCIDR", "podCIDRs", "providerID"] {
        /// Whether nothing new is to come.
        unschedulable: bool = "unschedulable",
        /// What keeps pods away that do not tolerate it.
        taints: Vec<Taint> = "taints",
    }

    /// Something that keeps pods away.
    Taint [] {
        /// Its name.
        key: String = "key",
        /// Its value.
        value: String = "value",
        /// NoSchedule, PreferNoSchedule or NoExecute.
        effect: String = "effect",
        /// Since when.
        time_added: Option<Time> = "timeAdded",
    }

    /// How a node is.
    NodeStatus [
        "config", "daemonEndpoints", "features", "images", "phase", "runtimeHandlers", "volumesAttached", "volumesInUse",
    ] {
        /// What it has.
        capacity: Resources = "capacity",
        /// What pods may have of it.
        allocatable: Resources = "allocatable",
        /// Ready above all.
        conditions: Vec<Condition> = "conditions",
        /// Where it is reached.
        addresses: Vec<NodeAddress> = "addresses",
        /// What it is.
        node_info: NodeSystemInfo = "nodeInfo",
    }

    /// An address of a node.
    NodeAddress [] {
        /// InternalIP, Hostname and the like.
        r#type: String = "type",
        /// The address.
        address: String = "address",
    }

    /// What a node is.
    NodeSystemInfo ["bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "machineID", "osImage", "swap", "systemUUID"] {
        /// Its processor.
        architecture: String = "architecture",
        /// Its system.
        operating_system: String = "operatingSystem",
        /// Its agent.
        kubelet_version: String = "kubeletVersion",
    }

    /// A room for names.
    Namespace [] {
        /// `v1`.
        api_version: String = "apiVersion",
        /// `Namespace`.
        kind: String = "kind",
        /// Its name and life.
        metadata: ObjectMeta = "metadata",
        /// What is wanted.
        spec: NamespaceSpec = "spec",
        /// What is.
        status: NamespaceStatus = "status",
    }

    /// What is wanted of a namespace.
    NamespaceSpec [] {
        /// Who empties it before it goes.
        finalizers: Vec<String> = "finalizers",
    }

    /// How a namespace is.
    NamespaceStatus [] {
        /// Active or Terminating.
        phase: String = "phase",
        /// What is left to do.
        conditions: Vec<Condition> = "conditions",
    }
}

impl Node {
    /// Whether it says that it is well.
    pub fn is_ready(&self) -> bool {
        holds(&self.status.conditions, "Ready")
    }
}

impl Namespace {
    /// Whether anything new may come into it.
    pub fn is_active(&self) -> bool {
        !self.metadata.is_going() && self.status.phase != "Terminating"
    }
}
