//! A fake node itself: how it registers, how it is heard of, how it says that it is well.

use super::Make;
use crate::api::change::{Half, alive, create, update};
use crate::cache::Cache;
use crate::keys;
use crate::kv::{LeaseId, Txn};
use crate::types::meta::{Condition, ObjectMeta, set_condition};
use crate::types::node::{Node, NodeAddress, NodeStatus, NodeSystemInfo};
use crate::types::resource::Held;
use crate::types::time::Time;
use std::collections::BTreeMap;

/// The name of a node in its labels.
const HOSTNAME: &str = "kubernetes.io/hostname";

fn ready(node: &mut Node, now: Time) -> bool {
    let condition = Condition {
        r#type: "Ready".to_owned(),
        status: "True".to_owned(),
        reason: "KubeletReady".to_owned(),
        message: "a fake node is always well".to_owned(),
        last_heartbeat_time: Some(now),
        ..Default::default()
    };
    set_condition(&mut node.status.conditions, condition, now)
}

/// A node that is there for the first time, with its heartbeat: nobody ever sees the one without the other.
pub(super) fn register(cluster_id: u64, name: &str, make: &Make, lease: LeaseId, now: Time) -> Option<Txn> {
    let mut labels: BTreeMap<String, String> = make.labels.clone();
    labels.insert(HOSTNAME.to_owned(), name.to_owned());
    let address = |r#type: &str, address: &str| NodeAddress {
        r#type: r#type.to_owned(),
        address: address.to_owned(),
        ..Default::default()
    };
    let mut node = Node {
        metadata: ObjectMeta { name: name.to_owned(), labels, ..Default::default() },
        status: NodeStatus {
            capacity: make.capacity.clone(),
            addresses: vec![address("InternalIP", "127.0.0.1"), address("Hostname", name)],
            node_info: NodeSystemInfo {
                architecture: std::env::consts::ARCH.to_owned(),
                operating_system: std::env::consts::OS.to_owned(),
                kubelet_version: concat!("mechi-fake-", env!("CARGO_PKG_VERSION")).to_owned(),
                ..Default::default()
            },
            ..Default::default()
        },
        ..Default::default()
    };
    ready(&mut node, now);
    let (_, txn) = create(cluster_id, node, None, now).ok()?;
    Some(txn.put_leased(keys::heartbeat(name), "", lease))
}

/// What a node that is there has to write: its heartbeat under the lease that lives, or that it is well again.
pub(super) fn keep(cache: &Cache, node: &Held<Node>, lease: LeaseId, now: Time) -> Option<Txn> {
    let heartbeat = keys::heartbeat(&node.metadata.name);
    if cache.coord(&heartbeat).is_none_or(|held| held.lease != lease) {
        return Some(Txn::new().guard(alive(node)).put_leased(heartbeat, "", lease));
    }
    if node.is_ready() {
        return None;
    }
    let mut new = node.to_object();
    ready(&mut new, now);
    update(node, new, Half::Status).ok().flatten()
}
