//! Nodes in a store, and what the controller makes of them, step by step.

use super::*;
use crate::cache::Mirror as _;
use crate::keys::{Kind, prefix_end};
use crate::kv::memory::Memory;
use crate::kv::{Batch, Outcome};
use crate::types::pod::Pod;
use serde_json::{Value, json};

const CLUSTER: u64 = 0xfeed_beef_0123_4567;

/// A store with a copy of it, and a clock.
struct Rig {
    store: Memory,
    cache: Cache,
    now: Now,
    notes: Vec<super::super::Note>,
}

impl Rig {
    /// Nodes that are heard of and ready, each in the zone that is named.
    fn new(zones: &[&str]) -> Self {
        let store = Memory::new(CLUSTER);
        let now = Now { ms: 1_000_000, time: Time(1_800_000_000) };
        let mut rig = Self { store, cache: Cache::default(), now, notes: Vec::new() };
        rig.cache.replace(Default::default(), CLUSTER, 1);
        for (n, zone) in zones.iter().enumerate() {
            rig.put(&format!("nodes/n{n}"), &node(n, zone, "True"));
            rig.beat(n);
        }
        rig
    }

    fn write(&mut self, txn: &Txn) -> Outcome {
        let done = self.store.txn(txn).expect("it fits");
        self.hear();
        done
    }

    fn hear(&mut self) {
        let (key, end) = (keys::ROOT.into(), prefix_end(keys::ROOT).into());
        let batch: Batch = self.store.events(&key, &end, self.cache.at() + 1, usize::MAX).expect("not compacted");
        self.cache.apply(batch);
    }

    fn put(&mut self, key: &str, value: &Value) {
        self.write(&Txn::new().put(format!("{}{key}", keys::ROOT), value.to_string()));
    }

    fn beat(&mut self, n: usize) {
        self.write(&Txn::new().put(keys::heartbeat(&format!("n{n}")), "{}"));
    }

    fn silence(&mut self, n: usize) {
        self.write(&Txn::new().delete(keys::heartbeat(&format!("n{n}"))));
    }

    fn pod(&mut self, name: &str, node: usize, seconds: Option<i64>) {
        let toleration = |key: &str| {
            let mut one = json!({"key": key, "operator": "Exists", "effect": "NoExecute"});
            if let Some(seconds) = seconds {
                one["tolerationSeconds"] = json!(seconds);
            }
            one
        };
        let pod = json!({
            "metadata": {"name": name, "namespace": "a"},
            "spec": {
                "nodeName": format!("n{node}"), "terminationGracePeriodSeconds": 30, "containers": [{"name": "c"}],
                "tolerations": [toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")],
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        self.put(&format!("pods/a/{name}"), &pod);
    }

    fn wait(&mut self, seconds: u64) {
        self.now.ms += seconds * 1_000;
        self.now.time.0 += seconds as i64;
    }

    fn plan(&self, n: usize) -> Plan {
        reconcile(&self.cache, &ObjectKey::new(Kind::Node, "", &format!("n{n}")), self.now, 0)
    }

    /// Looks at nodes until nothing is to be written.
    fn settle(&mut self, nodes: &[usize]) {
        for _ in 0..50 {
            let plans: Vec<Plan> = nodes.iter().map(|n| self.plan(*n)).filter(|plan| !plan.is_empty()).collect();
            let Some(plan) = plans.into_iter().next() else { return };
            for txn in &plan.txns {
                assert!(matches!(self.write(txn), Outcome::Committed(_)));
            }
            self.notes.extend(plan.notes);
        }
        panic!("it goes on for ever");
    }

    fn taints(&self, n: usize) -> Vec<String> {
        let node = self.cache.get::<Node>("", &format!("n{n}")).expect("is there");
        node.spec.taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    fn get(&self, pod: &str) -> &Pod {
        self.cache.get::<Pod>("a", pod).expect("is there")
    }

    fn brake(&self, zone: &str) -> Brake {
        self.cache.coord(&keys::brake(zone)).map_or_else(Brake::default, |held| Brake::read(&held.value))
    }
}

fn node(n: usize, zone: &str, ready: &str) -> Value {
    json!({
        "metadata": {"name": format!("n{n}"), "labels": {"topology.kubernetes.io/zone": zone}, "creationTimestamp": Time(1_800_000_000).to_string()},
        "status": {"conditions": [{"type": "Ready", "status": ready}, {"type": "MemoryPressure", "status": "False"}]},
    })
}

const NO_SCHEDULE: &str = "node.kubernetes.io/unreachable:NoSchedule";
const NO_EXECUTE: &str = "node.kubernetes.io/unreachable:NoExecute";

#[test]
fn a_node_that_is_well_costs_no_write() {
    let rig = Rig::new(&["", ""]);
    assert_eq!(rig.plan(0), Plan::default());
}

#[test]
fn a_node_that_is_not_heard_of_is_unknown_and_its_pods_leave_when_their_time_is_over() {
    let mut rig = Rig::new(&["", "", ""]);
    rig.pod("soon", 0, Some(30));
    rig.pod("never", 0, None);
    rig.pod("elsewhere", 1, Some(0));
    rig.silence(0);
    rig.settle(&[0, 1]);
    let held = rig.cache.get::<Node>("", "n0").expect("is there");
    let ready = health::ready(held).expect("a condition");
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("Unknown", "NodeStatusUnknown"));
    assert_eq!(ready.message, "Kubelet stopped posting node status.");
    assert!(held.status.conditions.iter().all(|condition| condition.status == "Unknown"));
    assert_eq!(rig.taints(0), [NO_SCHEDULE, NO_EXECUTE]);
    assert!(!rig.get("soon").is_ready() && !rig.get("never").is_ready() && rig.get("elsewhere").is_ready());
    assert!(rig.get("soon").is_active());
    assert_eq!(rig.plan(0).again_ms, Some(rig.now.ms + 30_000));

    rig.wait(29);
    rig.settle(&[0]);
    assert!(rig.get("soon").is_active());
    rig.wait(1);
    rig.settle(&[0]);
    let soon = rig.get("soon");
    // It stays until its agent says that it has stopped.
    assert_eq!(soon.metadata.deletion_timestamp, Some(Time(rig.now.time.0 + 30)));
    let why = soon.status.conditions.iter().find(|condition| condition.r#type == "DisruptionTarget").expect("why");
    assert_eq!((why.status.as_str(), why.reason.as_str()), ("True", "DeletionByTaintManager"));
    assert!(rig.get("never").is_active() && rig.get("elsewhere").is_active());
    let told: Vec<&str> = rig.notes.iter().map(|note| note.reason).collect();
    assert_eq!(told, ["NodeNotReady", "NodeNotReady", "NodeNotReady", "TaintManagerEviction"]);
    assert_eq!(rig.notes[0].message, "Node n0 status is now: NodeNotReady");
    assert_eq!(rig.notes[3].message, "Marking for deletion Pod a/soon");
}

#[test]
fn a_node_that_is_back_loses_its_taints_and_keeps_its_pods() {
    let mut rig = Rig::new(&["", "", ""]);
    rig.pod("p", 0, Some(30));
    rig.silence(0);
    rig.settle(&[0]);
    rig.wait(20);
    // The heartbeat alone says nothing of how it is.
    rig.beat(0);
    rig.settle(&[0]);
    assert_eq!(rig.taints(0), [NO_SCHEDULE, NO_EXECUTE]);
    let taints = rig.cache.get::<Node>("", "n0").expect("is there").spec.taints.clone();
    let mut back = node(0, "", "True");
    back["spec"]["taints"] = serde_json::to_value(taints).expect("taints");
    rig.put("nodes/n0", &back);
    rig.settle(&[0]);
    rig.wait(3_600);
    rig.settle(&[0]);
    assert_eq!(rig.taints(0), [""; 0]);
    assert!(rig.get("p").is_active());
}

#[test]
fn what_was_worked_out_before_a_heartbeat_came_back_is_refused() {
    let mut rig = Rig::new(&["", "", ""]);
    rig.silence(0);
    let late = rig.plan(0);
    rig.beat(0);
    assert!(matches!(rig.write(&late.txns[0]), Outcome::Refused { .. }));
    rig.silence(0);
    rig.pod("p", 0, Some(0));
    rig.settle(&[0, 1]);
    assert!(!rig.get("p").is_active(), "nothing else kept it");
}

#[test]
fn nodes_of_a_zone_take_turns() {
    let mut rig = Rig::new(&["", "", "", "", ""]);
    rig.silence(0);
    rig.silence(1);
    let both = [rig.plan(0), rig.plan(1)];
    assert!(both.iter().all(|plan| plan.txns.len() == 1));
    rig.settle(&[0]);
    rig.settle(&[1]);
    assert_eq!((rig.taints(0).len(), rig.taints(1).len()), (2, 1));
    assert_eq!(rig.plan(1).again_ms, Some(rig.now.ms + 6_000));
    rig.wait(6);
    rig.settle(&[1]);
    assert_eq!(rig.taints(1), [NO_SCHEDULE, NO_EXECUTE]);
}

#[test]
fn two_controllers_cannot_both_take_a_turn() {
    let mut rig = Rig::new(&["", "", "", "", ""]);
    for n in [0, 1] {
        rig.silence(n);
        let mark = rig.plan(n);
        rig.write(&mark.txns[0]);
    }
    let (one, other) = (rig.plan(0), rig.plan(1));
    assert!(matches!(rig.write(&one.txns[0]), Outcome::Committed(_)));
    assert!(matches!(rig.write(&other.txns[0]), Outcome::Refused { .. }));
}

#[test]
fn no_pod_leaves_while_most_of_a_zone_is_lost_and_its_time_begins_anew_afterwards() {
    let mut rig = Rig::new(&["", "", "", ""]);
    rig.pod("p", 0, Some(30));
    rig.silence(0);
    rig.silence(1);
    rig.settle(&[0]);
    assert_eq!(rig.taints(0), [NO_SCHEDULE, NO_EXECUTE], "half of them may be lost");
    rig.silence(2);
    rig.settle(&[2, 1, 0]);
    assert_eq!(rig.brake(":").state, Disruption::PartialDisruption);
    assert!(rig.brake(":").stopped);
    assert_eq!([0, 1, 2].map(|n| rig.taints(n)), [[NO_SCHEDULE], [NO_SCHEDULE], [NO_SCHEDULE]]);
    let told = rig.notes.iter().find(|note| note.reason == "EvictionStopped").expect("somebody says so");
    assert_eq!(told.message, "Zone \":\" is now in state PartialDisruption: 3 of 4 nodes are not ready");
    rig.wait(3_600);
    rig.settle(&[0, 1, 2, 3]);
    assert!(rig.get("p").is_active());

    rig.beat(2);
    rig.put("nodes/n2", &node(2, "", "True"));
    rig.settle(&[2, 3, 0, 1]);
    assert!(!rig.brake(":").stopped);
    assert_eq!(rig.taints(0), [NO_SCHEDULE, NO_EXECUTE]);
    rig.wait(29);
    rig.settle(&[0, 1]);
    assert!(rig.get("p").is_active());
    rig.wait(1);
    rig.settle(&[0]);
    assert!(!rig.get("p").is_active());
}

#[test]
fn a_zone_that_is_lost_whole_is_believed_to_be_as_long_as_another_is_not() {
    let mut rig = Rig::new(&["a", "a", "b", "b"]);
    rig.silence(0);
    rig.silence(1);
    rig.settle(&[0, 1]);
    assert_eq!(rig.brake(":a").state, Disruption::FullDisruption);
    assert_eq!(rig.taints(0), [NO_SCHEDULE, NO_EXECUTE]);
    rig.silence(2);
    rig.silence(3);
    rig.settle(&[0, 1, 2, 3]);
    assert!(rig.brake(":a").stopped && rig.brake(":b").stopped);
    assert_eq!([0, 1, 2, 3].map(|n| rig.taints(n).len()), [1; 4]);
}

#[test]
fn whoever_has_just_begun_to_lead_makes_nobody_leave() {
    let mut rig = Rig::new(&["", "", ""]);
    rig.pod("p", 0, Some(0));
    rig.silence(0);
    let key = ObjectKey::new(Kind::Node, "", "n0");
    let until = rig.now.ms + 10_000;
    for _ in 0..5 {
        let plan = reconcile(&rig.cache, &key, rig.now, until);
        plan.txns.iter().for_each(|txn| drop(rig.write(txn)));
    }
    assert_eq!(rig.taints(0), [NO_SCHEDULE]);
    assert_eq!(reconcile(&rig.cache, &key, rig.now, until).again_ms, Some(until));
    // Nor from a node that has been lost for long.
    let taint = rig.plan(0);
    rig.write(&taint.txns[0]);
    assert!(reconcile(&rig.cache, &key, rig.now, until).is_empty());
    rig.settle(&[0]);
    assert!(!rig.get("p").is_active());
}

#[test]
fn pods_of_a_node_that_is_gone_are_taken_away_and_those_of_its_successor_are_not() {
    let mut rig = Rig::new(&["", ""]);
    rig.pod("p", 0, Some(30));
    rig.write(&Txn::new().delete("/registry/nodes/n0"));
    let late = rig.plan(0);
    rig.put("nodes/n0", &node(0, "", "True"));
    assert!(matches!(rig.write(&late.txns[0]), Outcome::Refused { .. }));
    rig.write(&Txn::new().delete("/registry/nodes/n0"));
    rig.settle(&[0]);
    assert!(rig.cache.get::<Pod>("a", "p").is_none());
}

#[test]
fn an_agent_that_never_says_anything_is_given_a_minute() {
    let mut rig = Rig::new(&[]);
    rig.put("nodes/n0", &json!({"metadata": {"name": "n0", "creationTimestamp": rig.now.time.to_string()}}));
    assert_eq!(rig.plan(0), Plan { again_ms: Some(rig.now.ms + 60_000), ..Plan::default() });
    rig.wait(60);
    rig.settle(&[0]);
    let held = rig.cache.get::<Node>("", "n0").expect("is there");
    assert_eq!(health::ready(held).expect("a condition").reason, "NodeStatusNeverUpdated");
    assert_eq!(rig.taints(0), [NO_SCHEDULE], "all there is is lost");
}

#[test]
fn conditions_and_cordons_are_taints() {
    let mut rig = Rig::new(&["", "", ""]);
    let mut sick = node(0, "", "False");
    sick["spec"] = json!({"unschedulable": true, "taints": [{"key": "own", "effect": "NoSchedule"}]});
    sick["status"]["conditions"][1]["status"] = json!("True");
    rig.put("nodes/n0", &sick);
    rig.settle(&[0]);
    let ours =
        ["not-ready:NoSchedule", "memory-pressure:NoSchedule", "unschedulable:NoSchedule", "not-ready:NoExecute"];
    let ours: Vec<String> = ours.iter().map(|taint| format!("node.kubernetes.io/{taint}")).collect();
    assert_eq!(rig.taints(0), [&["own:NoSchedule".to_owned()], &ours[..]].concat());
    // What makes pods leave takes the name of the other reason, and keeps its time.
    let since = sick_taint(rig.cache.get::<Node>("", "n0").expect("is there")).expect("a taint").time_added;
    rig.wait(3);
    rig.silence(0);
    rig.settle(&[0]);
    let now = sick_taint(rig.cache.get::<Node>("", "n0").expect("is there")).expect("a taint").clone();
    assert_eq!((now.key.as_str(), now.time_added), ("node.kubernetes.io/unreachable", since));
}

#[test]
fn a_taint_of_a_persons_makes_pods_leave_at_once_whatever_the_brakes() {
    let mut rig = Rig::new(&[""]);
    rig.pod("p", 0, None);
    rig.pod("q", 0, None);
    let mut drained = node(0, "", "True");
    drained["spec"] = json!({"taints": [{"key": "k", "effect": "NoExecute"}]});
    rig.put("nodes/n0", &drained);
    let plan = rig.plan(0);
    assert_eq!(plan.notes.len(), 2);
    rig.settle(&[0]);
    assert!(!rig.get("p").is_active() && !rig.get("q").is_active());
}
