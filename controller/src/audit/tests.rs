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
    let uid = uid("replicasets/default/web", store.revision());
    (store, uid)
}

/// The uid of what was created at a revision.
fn uid(key: &str, created: Revision) -> String {
    keys::uid(CLUSTER, format!("{}{key}", keys::ROOT).as_bytes(), created)
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

/// A pod that is made and then bound.
fn bound(store: &mut Memory, name: &str, node: &str, cpu: &str) {
    put(store, &format!("pods/default/{name}"), pod(name, "", cpu, None));
    put(store, &format!("pods/default/{name}"), pod(name, node, cpu, None));
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
    let cases: [Case<'_>; 14] = [
        ("S0", &|store, _| put(store, "pods/default/a", json!({"spec": 7}))),
        ("S1", &|store, _| {
            bound(store, "a", "n1", "1");
            put(
                store,
                "nodes/n2",
                json!({"metadata": {"name": "n2"}, "status": {"allocatable": {"cpu": "4", "pods": "10"}}}),
            );
            put(store, "pods/default/a", pod("a", "n2", "1", None));
        }),
        ("S1", &|store, _| put(store, "pods/default/a", pod("a", "n1", "1", None))),
        ("S2", &|store, _| {
            bound(store, "a", "n1", "3");
            bound(store, "b", "n1", "2");
        }),
        ("S2", &|store, _| bound(store, "a", "nowhere", "1")),
        ("S3", &|store, _| {
            put(store, "_coord/election/scheduler", json!("one"));
            let token = store.revision();
            gone(store, "_coord/election/scheduler");
            put(store, "_coord/election/scheduler", json!("two"));
            put(store, "_coord/alloc/n1", json!({"component": "scheduler", "token": token}));
        }),
        ("S4", &|store, _| put(store, "pods/default/a", pod("a", "", "1", Some(&uid("replicasets/default/web", 2))))),
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
        ("S7", &|store, _| {
            put(store, "namespaces/x", json!({"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}}));
            gone(store, "namespaces/x");
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

/// One step: `a` has to go from its node, and `b`, which has this priority, is nominated for a node.
fn preempts(store: &mut Memory, priority: i32, nominated: &str) {
    bound(store, "a", "n1", "1");
    put(store, "pods/default/b", pod("b", "", "1", None));
    let (mut victim, mut other) = (pod("a", "n1", "1", None), pod("b", "", "1", None));
    victim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let why = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"});
    victim["status"] = json!({"conditions": [why]});
    other["spec"]["priority"] = json!(priority);
    other["status"] = json!({"nominatedNodeName": nominated});
    let key = |name: &str| format!("{}pods/default/{name}", keys::ROOT);
    let step = Txn::new().put(key("a"), victim.to_string()).put(key("b"), other.to_string());
    store.txn(&step).expect("written");
}

#[test]
fn whoever_goes_for_nobody_more_urgent_is_seen() {
    for (priority, nominated, findings) in [(1, "n1", 0), (0, "n1", 1), (1, "n2", 1), (1, "", 1)] {
        let (mut store, _) = store();
        preempts(&mut store, priority, nominated);
        assert_eq!(broken(&store), vec!["S13"; findings], "priority {priority}, nominated for {nominated:?}");
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
    let uid = uid("deployments/default/d", store.revision());
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

/// A node that is not heard of, with or without the taint that makes pods leave.
fn lost(name: &str, since: Option<&str>) -> Value {
    let taint = |since| json!({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": since});
    json!({
        "metadata": {"name": name}, "spec": {"taints": since.map(taint).into_iter().collect::<Vec<_>>()},
        "status": {"allocatable": {"cpu": "4", "pods": "10"}, "conditions": [{"type": "Ready", "status": "Unknown"}]},
    })
}

fn brake(stopped: bool, tainted: &str) -> Value {
    json!({"state": "Normal", "stopped": stopped, "tainted": tainted})
}

/// Writes several things as one revision.
fn put_all(store: &mut Memory, all: &[(&str, Value)]) {
    let put = |txn: Txn, (key, value): &(&str, Value)| txn.put(format!("{}{key}", keys::ROOT), value.to_string());
    store.txn(&all.iter().fold(Txn::new(), put)).expect("written");
}

const NOON: &str = "2026-01-01T12:00:00Z";

/// A pod that was told at noon and some seconds to leave its node, in ten seconds.
fn evicted(seconds: i64) -> Value {
    let mut pod = pod("a", "n1", "1", None);
    pod["metadata"]["deletionTimestamp"] = json!(format!("2026-01-01T12:00:{:02}Z", seconds + 10));
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(10);
    pod["spec"]["tolerations"] = json!([{"operator": "Exists", "tolerationSeconds": 30}]);
    let why = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"});
    pod["status"] = json!({"conditions": [why]});
    pod
}

#[test]
fn nodes_are_lost_one_by_one_and_pods_leave_in_their_time() {
    let begin = |store: &mut Memory| {
        bound(store, "a", "n1", "1");
        put(store, "nodes/n1", lost("n1", None));
        put(store, "nodes/n2", lost("n2", None));
        put_all(store, &[("nodes/n1", lost("n1", Some(NOON))), ("_coord/brake/:", brake(false, NOON))]);
    };
    let six = "2026-01-01T12:00:06Z";
    let cases: [Case<'_>; 8] = [
        ("", &|store, _| put_all(store, &[("nodes/n2", lost("n2", Some(six))), ("_coord/brake/:", brake(false, six))])),
        ("S12", &|store, _| put(store, "nodes/n2", lost("n2", Some(six)))),
        ("S12", &|store, _| {
            put_all(store, &[("nodes/n2", lost("n2", Some(six))), ("_coord/brake/:", brake(true, six))]);
        }),
        ("S12", &|store, _| {
            let five = "2026-01-01T12:00:05Z";
            put_all(store, &[("nodes/n2", lost("n2", Some(five))), ("_coord/brake/:", brake(false, five))]);
        }),
        ("S12", &|store, _| {
            put(store, "_coord/node/n3", json!({}));
            put(store, "nodes/n3", lost("n3", None));
        }),
        ("", &|store, _| put(store, "pods/default/a", evicted(30))),
        ("S12", &|store, _| put(store, "pods/default/a", evicted(29))),
        ("S12", &|store, _| {
            put(store, "nodes/n1", lost("n1", None));
            put(store, "pods/default/a", evicted(30));
        }),
    ];
    for (n, (rule, act)) in cases.into_iter().enumerate() {
        let (mut store, uid) = store();
        begin(&mut store);
        act(&mut store, &uid);
        let wanted: Vec<&str> = Some(rule).filter(|rule| !rule.is_empty()).into_iter().collect();
        assert_eq!(broken(&store), wanted, "case {n}");
    }
}

/// A Deployment of four, of which one may be missing; its ReplicaSet; and the ReplicaSet's pods, of which some are ready.
struct Rollout {
    store: Memory,
    deployment: String,
    set: String,
}

impl Rollout {
    fn new() -> Self {
        let (store, _) = store();
        let mut rollout = Self { store, deployment: String::new(), set: String::new() };
        rollout.scale(4);
        rollout.deployment = uid("deployments/default/d", rollout.store.revision());
        let begin = rollout.set(4, 4, 0);
        put(&mut rollout.store, "replicasets/default/d-1", begin);
        rollout.set = uid("replicasets/default/d-1", rollout.store.revision());
        for n in 0..4 {
            rollout.ready(n, true);
        }
        // Now what it says is true.
        let settled = rollout.set(4, 4, 4);
        put(&mut rollout.store, "replicasets/default/d-1", settled);
        rollout
    }

    fn scale(&mut self, replicas: i32) {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
        let meta = json!({"name": "d", "namespace": "default", "generation": 10 - replicas});
        put(
            &mut self.store,
            "deployments/default/d",
            json!({"metadata": meta, "spec": {"replicas": replicas, "strategy": strategy}}),
        );
    }

    /// The ReplicaSet that is to have so many pods, sized for so many, and says that so many are ready.
    fn set(&self, replicas: i32, desired: i32, ready: i32) -> Value {
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": self.deployment, "controller": true});
        json!({
            "metadata": {
                "name": "d-1", "namespace": "default", "ownerReferences": [owner], "generation": 10 - replicas,
                "annotations": {"deployment.kubernetes.io/desired-replicas": desired.to_string()},
            },
            "spec": {"replicas": replicas}, "status": {"readyReplicas": ready},
        })
    }

    fn pod(&self, n: usize, ready: bool) -> Value {
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "d-1", "uid": self.set, "controller": true});
        let ready = if ready { "True" } else { "False" };
        json!({
            "metadata": {"name": format!("p{n}"), "namespace": "default", "ownerReferences": [owner]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn ready(&mut self, n: usize, ready: bool) {
        let pod = self.pod(n, ready);
        put(&mut self.store, &format!("pods/default/p{n}"), pod);
    }

    /// The ReplicaSet deletes pods, which rewrites it.
    fn deletes(&mut self, pods: &[usize], left: i32, desired: i32) {
        let set = self.set(left, desired, left);
        let txn = Txn::new().put(format!("{}replicasets/default/d-1", keys::ROOT), set.to_string());
        let gone = |txn: Txn, n: &usize| txn.delete(format!("{}pods/default/p{n}", keys::ROOT));
        self.store.txn(&pods.iter().fold(txn, gone)).expect("written");
    }
}

#[test]
fn a_replica_set_that_deletes_more_than_may_be_missing_is_seen() {
    let mut rollout = Rollout::new();
    rollout.deletes(&[0], 3, 4);
    assert_eq!(broken(&rollout.store), [""; 0]);
    rollout.deletes(&[1], 2, 4);
    assert_eq!(broken(&rollout.store), ["S6"]);
}

#[test]
fn pods_that_fail_by_themselves_are_not_held_against_it() {
    let mut rollout = Rollout::new();
    // One is decided to go; before it goes another one fails.
    let decided = rollout.set(3, 4, 4);
    put(&mut rollout.store, "replicasets/default/d-1", decided);
    rollout.ready(3, false);
    rollout.deletes(&[0], 3, 4);
    assert_eq!(broken(&rollout.store), [""; 0]);
    rollout.deletes(&[1], 2, 4);
    assert_eq!(broken(&rollout.store), ["S6"], "once was enough");
}

#[test]
fn who_makes_a_deployment_smaller_is_not_rolling_out() {
    let mut rollout = Rollout::new();
    rollout.scale(1);
    let decided = rollout.set(1, 1, 4);
    put(&mut rollout.store, "replicasets/default/d-1", decided);
    rollout.deletes(&[0, 1, 2], 1, 1);
    assert_eq!(broken(&rollout.store), [""; 0]);
}
