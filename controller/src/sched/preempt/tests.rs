//! As few as possible go, and the least urgent of them, and only where it helps.

use super::super::bench::{Bench, at, node, pod};
use super::*;
use serde_json::{Value, json};

fn choose_for(bench: &Bench, pod: &Value) -> Choice {
    let pod: Pod = serde_json::from_value(pod.clone()).expect("a pod");
    choose(&bench.view, &pod, &Needs::of(&pod.spec), 1)
}

/// Where a pod of this priority that needs so much would get room, and who would go.
fn chosen(bench: &Bench, priority: i32, cpu: &str) -> Option<(String, Vec<String>)> {
    let Choice::Victims(place, victims) = choose_for(bench, &pod("new", priority, cpu, "")) else { return None };
    let mut names: Vec<String> = victims.into_iter().map(|(key, _)| key.name().to_owned()).collect();
    names.sort();
    Some((bench.view.table.node(place).metadata.name.clone(), names))
}

fn on(node: &str, victims: &[&str]) -> Option<(String, Vec<String>)> {
    Some((node.to_owned(), victims.iter().map(|name| (*name).to_owned()).collect()))
}

fn since(mut pod: Value, time: &str) -> Value {
    pod["status"] = json!({"startTime": time});
    pod
}

fn going(mut pod: Value) -> Value {
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-22T00:00:00Z");
    pod
}

fn told(choice: Choice) -> String {
    match choice {
        Choice::Nothing { told, stays: false } => told,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_more_go_than_have_to_and_the_most_urgent_stay() {
    let bench = Bench::new(&[
        node("n1", "4"),
        pod("low", 1, "1", "n1"),
        pod("lower", 0, "1", "n1"),
        pod("middle", 5, "2", "n1"),
    ]);
    assert_eq!(chosen(&bench, 10, "1"), on("n1", &["lower"]));
    assert_eq!(chosen(&bench, 10, "2"), on("n1", &["low", "lower"]));
    assert_eq!(chosen(&bench, 10, "3"), on("n1", &["lower", "middle"]));
    assert_eq!(chosen(&bench, 5, "3"), None);
    assert_eq!(chosen(&bench, 0, "1"), None);
}

#[test]
fn the_node_whose_victims_matter_least_is_taken() {
    let mut objects = vec![
        node("n1", "2"),
        pod("one", 3, "2", "n1"),
        node("n2", "2"),
        pod("two", 2, "1", "n2"),
        pod("three", 2, "1", "n2"),
    ];
    assert_eq!(chosen(&Bench::new(&objects), 9, "2"), on("n2", &["three", "two"]), "the most urgent one first");
    // Of equals the one that came last goes.
    assert_eq!(chosen(&Bench::new(&objects), 3, "1"), on("n2", &["three"]));
    objects.extend([node("n3", "2"), pod("four", 2, "2", "n3")]);
    assert_eq!(chosen(&Bench::new(&objects), 9, "2"), on("n3", &["four"]), "then how many there are");
}

#[test]
fn many_with_a_negative_priority_are_more_than_one() {
    let bench = Bench::new(&[
        node("n1", "2"),
        pod("one", -5, "1", "n1"),
        pod("two", -5, "1", "n1"),
        node("n2", "2"),
        pod("three", -5, "2", "n2"),
    ]);
    assert_eq!(chosen(&bench, 0, "2"), on("n2", &["three"]));
}

#[test]
fn whoever_started_last_goes() {
    let (early, late) = ("2026-11-22T00:00:00Z", "2026-11-22T01:00:00Z");
    let bench = Bench::new(&[
        node("n1", "2"),
        since(pod("one", 1, "1", "n1"), late),
        since(pod("two", 1, "1", "n1"), early),
        node("n2", "2"),
        since(pod("three", 1, "2", "n2"), early),
    ]);
    assert_eq!(chosen(&bench, 9, "1"), on("n1", &["one"]), "of one node and of all");
    assert_eq!(chosen(&bench, 9, "2"), on("n2", &["three"]), "but one is less than two");
}

#[test]
fn who_goes_already_makes_room_without_anybody_else() {
    let less = going(pod("going", 1, "2", "n1"));
    let bench = Bench::new(&[node("n1", "4"), less.clone(), pod("low", 0, "2", "n1")]);
    assert_eq!(chosen(&bench, 5, "2"), on("n1", &[]));
    assert_eq!(chosen(&bench, 5, "4"), on("n1", &["low"]));
    assert_eq!(chosen(&bench, 1, "2"), on("n1", &["low"]), "it is as urgent, and still there");
    // Whoever is nominated for the room waits for it, and does not look for another.
    let mut nominated = pod("new", 5, "2", "");
    nominated["status"] = json!({"nominatedNodeName": "n1"});
    let bench =
        Bench::new(&[node("n1", "4"), less, pod("low", 0, "2", "n1"), node("n2", "2"), pod("lower", 0, "2", "n2")]);
    let told = " preemption: not eligible due to a terminating pod on the nominated node.".to_owned();
    assert_eq!(choose_for(&bench, &nominated), Choice::Nothing { told, stays: true });
}

#[test]
fn a_node_with_a_transaction_on_its_way_is_waited_for() {
    let mut bench = Bench::new(&[node("n1", "2"), pod("low", 0, "2", "n1")]);
    let place = bench.view.table.place("n1").expect("it is there");
    bench.view.table.set_version(place, None);
    assert_eq!(choose_for(&bench, &pod("new", 1, "2", "")), Choice::Soon);
    bench.put(&node("n2", "2"));
    bench.put(&pod("lower", 0, "2", "n2"));
    bench.hear(at(0));
    let place = bench.view.table.place("n1").expect("it is there");
    bench.view.table.set_version(place, None);
    assert_eq!(chosen(&bench, 1, "2"), on("n2", &["lower"]));
}

#[test]
fn why_nobody_goes_is_told_in_kubernetes_words() {
    let mut tainted = node("n1", "8");
    tainted["spec"] = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    let bench = Bench::new(&[
        tainted,
        node("n2", "2"),
        pod("high", 9, "2", "n2"),
        node("n3", "2"),
        pod("high-too", 9, "1", "n3"),
        pod("low", 0, "1", "n3"),
    ]);
    let mut new = pod("new", 5, "2", "");
    assert_eq!(
        told(choose_for(&bench, &new)),
        " preemption: 0/3 nodes are available: 1 Insufficient cpu, 1 No preemption victims found for incoming pod, \
         1 Preemption is not helpful for scheduling."
    );
    new["spec"]["preemptionPolicy"] = json!("Never");
    assert_eq!(told(choose_for(&bench, &new)), " preemption: not eligible due to preemptionPolicy=Never.");
    assert_eq!(told(choose_for(&Bench::new(&[]), &new)), "");
}

#[test]
fn no_more_go_than_one_transaction_can_tell() {
    let mut large = node("n1", "200");
    large["status"]["allocatable"]["pods"] = json!("200");
    let mut objects = vec![large];
    objects.extend((0..=VICTIMS_MAX).map(|n| pod(&format!("p{n}"), 0, "1", "n1")));
    let bench = Bench::new(&objects);
    let left = 200 - VICTIMS_MAX - 1;
    let fits = chosen(&bench, 1, &(left + VICTIMS_MAX).to_string()).expect("all but one go");
    assert_eq!(fits.1.len(), VICTIMS_MAX);
    assert_eq!(chosen(&bench, 1, "200"), None);
}
