//! As few as possible go, and the least urgent of them, and only where it helps.

use super::super::{COMPONENT, Scheduler};
use super::*;
use crate::cache::Mirror as _;
use crate::kv::Outcome;
use crate::kv::memory::Memory;
use crate::types::fields;
use crate::types::time::Time;
use serde_json::{Value, json};

const CLUSTER: u64 = 7;

/// A store with objects, and the scheduler's copy of it.
struct Bench {
    store: Memory,
    view: View,
}

impl Bench {
    fn new(objects: &[Value]) -> Self {
        let mut store = Memory::new(CLUSTER);
        store.txn(&Txn::new().put(crate::keys::election(COMPONENT), "it leads")).expect("written");
        for object in objects {
            let (kind, meta) = (object["kind"].as_str().expect("a kind"), &object["metadata"]);
            let kind = crate::keys::Kind::of_name(kind).expect("a kind");
            let key = ObjectKey::new(kind, "a", meta["name"].as_str().expect("a name"));
            store.txn(&Txn::new().put(key.to_string(), object.to_string())).expect("written");
        }
        let mut bench = Self { store, view: View::default() };
        drop(bench.look());
        bench
    }

    /// The copy becomes the store; returns what that told.
    fn look(&mut self) -> Vec<super::super::view::Told> {
        let (key, end) = (crate::keys::ROOT.into(), crate::keys::prefix_end(crate::keys::ROOT).into());
        let page = self.store.range(&crate::kv::Range { key, end, limit: 0, revision: 0 }).expect("now");
        let mut staged = Default::default();
        self.view.stage(&mut staged, CLUSTER, page.items);
        self.view.replace(staged, CLUSTER, page.revision)
    }

    fn pod(&self, name: &str) -> Option<Pod> {
        let key = ObjectKey::new(crate::keys::Kind::Pod, "a", name).to_string();
        self.store.get(key.as_bytes()).map(|item| fields::read(&item.value).expect("a pod"))
    }

    /// Who would go for a pod of this priority that needs so much, and where.
    fn choose(&self, priority: i32, cpu: &str) -> Option<(String, Vec<String>)> {
        let spec: PodSpec = serde_json::from_value(pod("new", priority, cpu, "")["spec"].clone()).expect("a spec");
        match choose(&self.view, &spec, &Needs::of(&spec), priority, 1) {
            Choice::Victims(place, victims) => {
                let mut names: Vec<String> = victims.into_iter().map(|(key, _)| key.name).collect();
                names.sort();
                Some((self.view.table.node(place).metadata.name.clone(), names))
            }
            Choice::Nothing { .. } => None,
        }
    }
}

fn node(name: &str, cpu: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}})
}

fn pod(name: &str, priority: i32, cpu: &str, on: &str) -> Value {
    json!({
        "kind": "Pod", "metadata": {"name": name, "namespace": "a"},
        "spec": {
            "priority": priority, "nodeName": on, "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
        },
    })
}

fn chosen(node: &str, victims: &[&str]) -> Option<(String, Vec<String>)> {
    Some((node.to_owned(), victims.iter().map(|name| (*name).to_owned()).collect()))
}

#[test]
fn no_more_go_than_have_to_and_the_most_urgent_stay() {
    let bench = Bench::new(&[
        node("n1", "4"),
        pod("low", 1, "1", "n1"),
        pod("lower", 0, "1", "n1"),
        pod("middle", 5, "2", "n1"),
    ]);
    assert_eq!(bench.choose(10, "1"), chosen("n1", &["lower"]));
    assert_eq!(bench.choose(10, "2"), chosen("n1", &["low", "lower"]));
    assert_eq!(bench.choose(10, "3"), chosen("n1", &["lower", "middle"]));
    assert_eq!(bench.choose(5, "3"), None);
    assert_eq!(bench.choose(0, "1"), None);
}

#[test]
fn the_node_whose_victims_matter_least_is_taken() {
    let bench = Bench::new(&[
        node("n1", "2"),
        node("n2", "2"),
        node("n3", "2"),
        pod("one", 3, "2", "n1"),
        pod("two", 2, "1", "n2"),
        pod("three", 2, "1", "n2"),
        pod("four", 2, "2", "n3"),
    ]);
    // The most urgent victim first, then how many there are.
    assert_eq!(bench.choose(9, "2"), chosen("n3", &["four"]));
    let bench = Bench::new(&[node("n1", "2"), pod("one", 3, "2", "n1"), node("n2", "2"), pod("two", 2, "1", "n2"), pod("three", 2, "1", "n2")]);
    // Of equals the one that came last goes.
    assert_eq!(bench.choose(3, "1"), chosen("n2", &["three"]));
}

#[test]
fn who_goes_already_makes_room_without_anybody_else() {
    let mut going = pod("going", 9, "2", "n1");
    going["metadata"]["deletionTimestamp"] = json!("2026-11-22T00:00:00Z");
    let bench = Bench::new(&[node("n1", "4"), going, pod("low", 0, "2", "n1")]);
    assert_eq!(bench.choose(5, "2"), chosen("n1", &[]));
    assert_eq!(bench.choose(5, "4"), chosen("n1", &["low"]));
}

#[test]
fn victims_are_told_to_go_and_their_room_is_kept() {
    let mut bench = Bench::new(&[node("n1", "2"), pod("low", 0, "2", "n1"), pod("high", 10, "2", "")]);
    let now = Now { ms: 1_000, time: Time(1_800_000_000) };
    let mut scheduler = Scheduler::default();
    let told = bench.look();
    scheduler.told(&mut bench.view, &told, now);
    assert!(scheduler.plan(&mut bench.view, 2, now).is_none(), "nothing is written before the victims are read");
    let victims = scheduler.victims().expect("somebody is to go");
    let read: Vec<KeyValue> =
        victims.iter().filter_map(|key| bench.store.get(key.to_string().as_bytes()).cloned()).collect();
    let (id, txn) = scheduler.make_room(&bench.view, &read, 2, now).expect("all is as it was");
    let answer = bench.store.txn(&txn);
    assert!(matches!(answer, Ok(Outcome::Committed(_))), "{answer:?}");
    scheduler.answered(&mut bench.view, id, answer, now);
    let (low, high) = (bench.pod("low").expect("it has time to stop"), bench.pod("high").expect("it waits"));
    assert!(low.metadata.is_going() && low.metadata.deletion_grace_period_seconds == Some(30));
    assert_eq!(high.status.nominated_node_name, "n1");
    // Nobody less urgent gets the room when it is there, and the pod itself does.
    let low = ObjectKey::new(crate::keys::Kind::Pod, "a", "low").to_string();
    bench.store.txn(&Txn::new().delete(low)).expect("written");
    let told = bench.look();
    let other: PodSpec = serde_json::from_value(pod("other", 5, "1", "")["spec"].clone()).expect("a spec");
    assert_eq!(bench.view.table.best(&other, &Needs::of(&other), 1), None);
    scheduler.told(&mut bench.view, &told, now);
    let later = Now { ms: 100_000, ..now };
    let (_, bind) = scheduler.plan(&mut bench.view, 2, later).expect("it is bound");
    assert!(matches!(bench.store.txn(&bind), Ok(Outcome::Committed(_))));
    assert_eq!(bench.pod("high").expect("it is there").spec.node_name, "n1");
}

#[test]
fn a_victim_that_is_not_as_it_was_stays() {
    let bench = Bench::new(&[node("n1", "2"), pod("low", 0, "2", "n1"), pod("high", 10, "2", "")]);
    let key = |name: &str| ObjectKey::new(crate::keys::Kind::Pod, "a", name);
    let item = |name: &str| bench.store.get(key(name).to_string().as_bytes()).expect("it is there").clone();
    let (low, high) = (item("low"), item("high"));
    let wanted = |victim| Wanted {
        key: key("high"),
        created: high.created,
        priority: 10,
        node: "n1".to_owned(),
        victims: vec![(key("low"), victim)],
        condition: Condition::default(),
    };
    let now = Now::default();
    assert!(wanted(low.created).txn(CLUSTER, &high, &[low.clone()], now).is_some());
    assert!(wanted(low.created + 1).txn(CLUSTER, &high, &[low.clone()], now).is_none(), "another incarnation");
    assert!(wanted(low.created).txn(CLUSTER, &high, &[], now).is_none(), "it is gone");
    let less = Wanted { priority: 0, ..wanted(low.created) };
    assert!(less.txn(CLUSTER, &high, &[low], now).is_none(), "it is as urgent");
}
