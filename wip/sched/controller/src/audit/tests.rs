//! Each rule is broken once, and a history in which nothing is wrong breaks none.

use super::*;
use crate::keys;
use crate::kv::Txn;
use crate::kv::memory::Memory;
use serde_json::{Value, json};

const CLUSTER: u64 = 0xfeed_beef_0123_4567;

/// A store with a namespace, a node with four cores, and a ReplicaSet that wants one pod.
fn store() -> (Memory, String) {
    let mut store = Memory::new(CLUSTER);
    put(&mut store, "namespaces/default", json!({"metadata": {"name": "default"}, "status": {"phase": "Active"}}));
    put(
        &mut store,
        "nodes/n1",
        json!({"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "10"}}}),
    );
    put(&mut store, "replicasets/default/web", set(1, 1, 1));
    let uid = keys::uid(CLUSTER, store.revision());
    (store, uid)
}

fn set(replicas: i32, generation: i64, observed: i64) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default", "generation": generation},
        "spec": {"replicas": replicas}, "status": {"observedGeneration": observed},
    })
}

fn pod(name: &str, node: &str, cpu: &str, owner: Option<&str>) -> Value {
    let owner = owner.map(
        |uid| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid, "controller": true}),
    );
    json!({
        "metadata": {"name": name, "namespace": "default", "ownerReferences": owner.into_iter().collect::<Vec<_>>()},
        "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    })
}

fn put(store: &mut Memory, key: &str, value: Value) {
    store.txn(&Txn::new().put(format!("{}{key}", keys::ROOT), value.to_string())).expect("written");
}

fn gone(store: &mut Memory, key: &str) {
    store.txn(&Txn::new().delete(format!("{}{key}", keys::ROOT))).expect("written");
}

/// The rules that a history breaks.
fn broken(store: &Memory) -> Vec<&'static str> {
    let mut auditor = Auditor::begin(CLUSTER, vec![], 1);
    let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
    auditor.see(store.events(&key, &end, 2, usize::MAX).expect("nothing is compacted"));
    let (revisions, objects) = auditor.looked_at();
    assert!(revisions > 2 && objects > 2);
    auditor.findings().iter().map(|finding| finding.rule).collect()
}

#[test]
fn a_good_history_breaks_nothing() {
    let (mut store, uid) = store();
    put(&mut store, "pods/default/a", pod("a", "", "3", Some(&uid)));
    put(&mut store, "pods/default/a", pod("a", "n1", "3", Some(&uid)));
    gone(&mut store, "pods/default/a");
    put(&mut store, "pods/default/a", pod("a", "", "3", Some(&uid)));
    put(&mut store, "pods/default/a", pod("a", "n1", "3", Some(&uid)));
    put(&mut store, "replicasets/default/web", set(2, 2, 1));
    put(&mut store, "replicasets/default/web", set(2, 2, 2));
    assert_eq!(broken(&store), [""; 0]);
}

/// A rule, and what breaks it in a store whose ReplicaSet has this uid.
type Case<'a> = (&'static str, &'a dyn Fn(&mut Memory, &str));

#[test]
fn each_rule_is_seen_to_be_broken() {
    let cases: [Case<'_>; 12] = [
        ("S0", &|store, _| put(store, "pods/default/a", json!({"spec": 7}))),
        ("S1", &|store, _| {
            put(store, "pods/default/a", pod("a", "n1", "1", None));
            put(
                store,
                "nodes/n2",
                json!({"metadata": {"name": "n2"}, "status": {"allocatable": {"cpu": "4", "pods": "10"}}}),
            );
            put(store, "pods/default/a", pod("a", "n2", "1", None));
        }),
        ("S2", &|store, _| {
            put(store, "pods/default/a", pod("a", "n1", "3", None));
            put(store, "pods/default/b", pod("b", "n1", "2", None));
        }),
        ("S2", &|store, _| put(store, "pods/default/a", pod("a", "nowhere", "1", None))),
        ("S3", &|store, _| {
            put(store, "_coord/election/scheduler", json!("one"));
            let token = store.revision();
            gone(store, "_coord/election/scheduler");
            put(store, "_coord/election/scheduler", json!("two"));
            put(store, "_coord/alloc/n1", json!({"component": "scheduler", "token": token}));
        }),
        ("S4", &|store, _| put(store, "pods/default/a", pod("a", "", "1", Some(&keys::uid(CLUSTER, 2))))),
        ("S4", &|store, _| {
            put(
                store,
                "namespaces/default",
                json!({"metadata": {"name": "default"}, "status": {"phase": "Terminating"}}),
            );
            put(store, "pods/default/a", pod("a", "", "1", None));
        }),
        ("S5", &|store, uid| {
            put(store, "pods/default/a", pod("a", "", "1", Some(uid)));
            put(store, "pods/default/b", pod("b", "", "1", Some(uid)));
        }),
        ("S7", &|store, _| {
            let going =
                json!({"metadata": {"name": "x", "namespace": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
            put(store, "pods/default/x", going);
            put(store, "pods/default/x", json!({"metadata": {"name": "x", "namespace": "default"}}));
        }),
        ("S7", &|store, _| {
            put(
                store,
                "pods/default/x",
                json!({"metadata": {"name": "x", "namespace": "default", "finalizers": ["a/b"]}}),
            );
            gone(store, "pods/default/x");
        }),
        ("S8", &|store, _| put(store, "replicasets/default/web", set(5, 1, 1))),
        ("S8", &|store, _| {
            put(store, "replicasets/default/web", set(2, 2, 2));
            put(store, "replicasets/default/web", set(2, 2, 1));
        }),
    ];
    for (rule, act) in cases {
        let (mut store, uid) = store();
        act(&mut store, &uid);
        assert_eq!(broken(&store), [rule], "{rule}");
    }
}

#[test]
fn more_pods_than_a_deployment_may_have_are_seen() {
    let (mut store, _) = store();
    let deployment = json!({
        "metadata": {"name": "d", "namespace": "default", "generation": 1},
        "spec": {"replicas": 4, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
    });
    put(&mut store, "deployments/default/d", deployment);
    let uid = keys::uid(CLUSTER, store.revision());
    let set = |name: &str, replicas: i32| {
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": uid, "controller": true}]);
        json!({"metadata": {"name": name, "namespace": "default", "ownerReferences": owner}, "spec": {"replicas": replicas}})
    };
    put(&mut store, "replicasets/default/d-1", set("d-1", 4));
    put(&mut store, "replicasets/default/d-2", set("d-2", 1));
    assert_eq!(broken(&store), [""; 0]);
    put(&mut store, "replicasets/default/d-3", set("d-3", 1));
    assert_eq!(broken(&store), ["S6"]);
}
