//! Whether what is wanted is what is, in a copy of everything: what is left to be done, in words.

use super::people::{GIANT, NAMESPACE, Ordered, Wish};
use super::plane::COMPONENTS;
use mechi_controller::cache::{Cache, Object};
use mechi_controller::keys::{self, Kind, ObjectKey};
use mechi_controller::types::meta::ObjectMeta;
use mechi_controller::types::node::Node;
use mechi_controller::types::pod::Pod;
use mechi_controller::types::resource::{Held, Resource as _};
use mechi_controller::types::workload::{Deployment, ReplicaSet};
use std::collections::{BTreeMap, BTreeSet};

/// What is not as it is wanted, once nobody changes anything any more; empty if all is.
pub(super) fn unsettled(cache: &Cache) -> Vec<String> {
    let mut left = Vec::new();
    for component in COMPONENTS {
        if cache.coord(&keys::election(component)).is_none() {
            left.push(format!("nobody leads the {component}"));
        }
    }
    for kind in Kind::ALL {
        let broken = cache.keys(kind).filter(|(_, object)| matches!(object, Object::Broken { .. }));
        left.extend(broken.map(|(key, _)| format!("{key} cannot be read")));
    }
    for node in cache.all::<Node>() {
        if !node.is_ready() {
            left.push(format!("{} is not ready", node.key()));
        }
        let taints = node.spec.taints.iter().map(|taint| taint.key.as_str()).collect::<Vec<_>>();
        if !taints.is_empty() {
            left.push(format!("{} has the taints {}", node.key(), taints.join(", ")));
        }
    }
    cache.all::<Deployment>().for_each(|one| deployment(cache, one, &mut left));
    cache.all::<ReplicaSet>().for_each(|set| owner(cache, &set.key(), &set.metadata, &mut left));
    cache.all::<Pod>().for_each(|one| pod(cache, one, &mut left));
    left
}

fn deployment(cache: &Cache, deployment: &Held<Deployment>, left: &mut Vec<String>) {
    let (meta, status, wanted) = (&deployment.metadata, &deployment.status, deployment.wanted());
    let available = if meta.name == GIANT { 0 } else { wanted };
    if meta.is_going() {
        left.push(format!("{} still goes", deployment.key()));
    }
    if status.observed_generation < meta.generation {
        left.push(format!("{} is not looked at since it changed", deployment.key()));
    }
    if (status.replicas, status.updated_replicas, status.available_replicas) != (wanted, wanted, available) {
        left.push(format!(
            "{} has {} pods, {} new ones, {} available, and wants {wanted}",
            deployment.key(),
            status.replicas,
            status.updated_replicas,
            status.available_replicas
        ));
    }
    // What it says of itself is one thing, what is there another.
    let newest = Wish::of(deployment);
    let sets: BTreeSet<&str> =
        cache.owned::<ReplicaSet>(deployment.created).map(|set| set.metadata.uid.as_str()).collect();
    let own = cache.within::<Pod>(&meta.namespace).filter(|pod| pod.is_active());
    let own = own.filter(|pod| pod.metadata.controller().is_some_and(|owner| sets.contains(owner.uid.as_str())));
    let is_new = |pod: &Pod| {
        let image = pod.spec.containers.first().map(|container| container.image.as_str());
        let template = deployment.spec.template.spec.containers.first().map(|container| container.image.as_str());
        image == template
    };
    let (mut count, mut ready) = (0, 0);
    for pod in own {
        count += 1;
        ready += i32::from(pod.is_ready());
        if !is_new(pod) {
            left.push(format!("{} is not of the newest make, {newest:?}", pod.key()));
        }
    }
    if (count, ready) != (wanted, available) {
        left.push(format!("{} has {count} pods that are there, {ready} ready, and wants {wanted}", deployment.key()));
    }
}

/// L2: whose owner is gone goes, too.
fn owner(cache: &Cache, key: &ObjectKey, meta: &ObjectMeta, left: &mut Vec<String>) {
    if meta.is_going() {
        left.push(format!("{key} still goes"));
    }
    let Some(owner) = meta.controller() else {
        left.push(format!("{key} is nobody's"));
        return;
    };
    let found = Kind::of_name(&owner.kind).map(|kind| ObjectKey::new(kind, &meta.namespace, &owner.name));
    let found = found.and_then(|key| cache.object(&key)).and_then(Object::meta);
    if found.is_none_or(|found| found.uid != owner.uid) {
        left.push(format!("{key} is of {} {}, which is not there", owner.kind, owner.name));
    }
}

/// L3: a pod is on a node that is there, or says why it waits, and that is true: only what fits nowhere waits.
fn pod(cache: &Cache, pod: &Held<Pod>, left: &mut Vec<String>) {
    owner(cache, &pod.key(), &pod.metadata, left);
    let node = &pod.spec.node_name;
    if !node.is_empty() {
        if cache.get::<Node>("", node).is_none() {
            left.push(format!("{} is on {node}, which is not there", pod.key()));
        }
        return;
    }
    let mut conditions = pod.status.conditions.iter();
    let is_told = conditions.any(|condition| {
        condition.r#type == "PodScheduled"
            && condition.status == "False"
            && condition.reason == "Unschedulable"
            && !condition.message.is_empty()
    });
    if !is_told {
        left.push(format!("{} waits for a node, and nothing says why", pod.key()));
    } else if pod.metadata.labels.get("app").is_none_or(|app| app != GIANT) {
        left.push(format!("{} waits for a node, and fits on one", pod.key()));
    }
}

/// What was acknowledged and is not there.
pub(super) fn forgotten(cache: &Cache, ordered: &BTreeMap<String, Ordered>) -> Vec<String> {
    let sure = ordered.iter().filter(|(_, ordered)| ordered.is_sure);
    let differs = |(name, ordered): (&String, &Ordered)| {
        let is = cache.get::<Deployment>(NAMESPACE, name).map(|deployment| Wish::of(deployment));
        (is != ordered.wish.clone().map(Some))
            .then(|| format!("{name} was acknowledged as {:?}, and is {is:?}", ordered.wish))
    };
    sure.filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_controller::audit::Auditor;
    use mechi_controller::kv::KeyValue;
    use serde_json::{Value, json};

    const CLUSTER: u64 = 7;

    /// What a store holds, by key.
    type Items = BTreeMap<&'static str, Value>;

    type Change = fn(&mut Items);

    /// A store with a Deployment of one pod, all as it should be, but for what `change` does to it.
    fn left(change: impl FnOnce(&mut Items)) -> Vec<String> {
        let owner = |kind: Kind, name: &str, created: i64| {
            let uid = keys::uid(CLUSTER, ObjectKey::new(kind, "default", name).to_string().as_bytes(), created);
            json!([{"apiVersion": "apps/v1", "kind": kind.name(), "name": name, "uid": uid, "controller": true}])
        };
        let template =
            json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
        let ready = json!([{"type": "Ready", "status": "True"}]);
        // Created at revisions in their order: the Deployment at 4, its ReplicaSet at 8.
        let mut items = Items::new();
        items.insert("_coord/election/controllers", json!("one"));
        items.insert("_coord/election/scheduler", json!("one"));
        items.insert(
            "deployments/default/d",
            json!({
                "metadata": {"name": "d", "namespace": "default", "generation": 1},
                "spec": {"replicas": 1, "template": template},
                "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
            }),
        );
        items.insert("namespaces/default", json!({"metadata": {"name": "default"}}));
        items.insert("nodes/n", json!({"metadata": {"name": "n"}, "status": {"conditions": ready}}));
        items.insert(
            "pods/default/d-1-x",
            json!({
                "metadata": {
                    "name": "d-1-x", "namespace": "default", "labels": {"app": "d"},
                    "ownerReferences": owner(Kind::ReplicaSet, "d-1", 8),
                },
                "spec": {"nodeName": "n", "containers": [{"name": "app", "image": "app:1"}]},
                "status": {"phase": "Running", "conditions": ready},
            }),
        );
        items.insert(
            "replicasets/default/d-1",
            json!({
                "metadata": {"name": "d-1", "namespace": "default", "ownerReferences": owner(Kind::Deployment, "d", 4)},
                "spec": {"replicas": 1, "template": template},
            }),
        );
        let created: BTreeMap<&str, i64> = items.keys().copied().zip(2..).collect();
        change(&mut items);
        let item = |(key, value): (&&str, &Value)| {
            let created = created.get(key).copied().unwrap_or(99);
            let (key, value) = (format!("{}{key}", keys::ROOT).into(), value.to_string().into());
            KeyValue { key, value, created, modified: created, version: 1, lease: 0 }
        };
        let items = items.iter().map(item).collect();
        unsettled(Auditor::begin(CLUSTER, items, 100).cache())
    }

    #[test]
    fn what_is_as_it_is_wanted_is_settled() {
        assert_eq!(left(|_| {}), [""; 0]);
    }

    #[test]
    fn each_thing_that_is_left_to_be_done_is_told() {
        let pod = "pods/default/d-1-x";
        let cases: [(Change, &str); 6] = [
            (|items| drop(items.remove("nodes/n")), "is on n, which is not there"),
            (|items| drop(items.remove("_coord/election/scheduler")), "nobody leads the scheduler"),
            (|items| drop(items.remove("replicasets/default/d-1")), "is of ReplicaSet d-1, which is not there"),
            (|items| drop(items.remove("pods/default/d-1-x")), "has 0 pods that are there, 0 ready, and wants 1"),
            (
                |items| items.get_mut("pods/default/d-1-x").expect("is there")["spec"]["nodeName"] = json!(""),
                "waits for a node, and nothing says why",
            ),
            (
                |items| {
                    items.get_mut("deployments/default/d").expect("is there")["status"]["availableReplicas"] = json!(0);
                },
                "1 new ones, 0 available, and wants 1",
            ),
        ];
        for (change, told) in cases {
            let left = left(change);
            assert!(left.iter().any(|left| left.contains(told)), "{told}: {left:?}");
        }
        let waits = left(|items| {
            let pod = items.get_mut(pod).expect("is there");
            pod["spec"]["nodeName"] = json!("");
            let why = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "full"});
            pod["status"]["conditions"] = json!([why, {"type": "Ready", "status": "True"}]);
        });
        assert!(waits.len() == 1 && waits[0].ends_with("waits for a node, and fits on one"), "{waits:?}");
    }
}
