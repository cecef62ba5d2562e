//! All of it is written, or nothing: whatever is not as it was seen keeps everybody where they are.

use super::super::bench::{Bench, CLUSTER, at, key, node, pod};
use super::*;
use crate::kv::{Outcome, Write};
use crate::limits::TXN_BYTES_MAX;
use serde_json::json;

/// `high` wants `low` to go from `n1`.
fn wanted(bench: &Bench) -> Wanted {
    let created = |name: &str| bench.item(&key(name)).expect("it is there").created;
    Wanted {
        key: key("high"),
        created: created("high"),
        priority: 10,
        node: "n1".to_owned(),
        version: 0,
        victims: vec![(key("low"), created("low"))],
        condition: Condition { r#type: "PodScheduled".to_owned(), ..Condition::default() },
    }
}

fn bench() -> Bench {
    Bench::new(&[node("n1", "2"), pod("low", 0, "2", "n1"), pod("high", 10, "2", "")])
}

fn txn(bench: &Bench, wanted: &Wanted, read: &[KeyValue]) -> Result<(Txn, Vec<Note>), Missed> {
    wanted.txn(CLUSTER, &bench.item(&wanted.key).expect("it is there"), read, at(0))
}

#[test]
fn the_pod_is_nominated_and_its_victims_are_told_why_they_go() {
    let mut bench = bench();
    let low = bench.item(&key("low")).expect("it is there");
    let (told, notes) = txn(&bench, &wanted(&bench), &[low]).expect("all is as it was");
    assert!(matches!(bench.store.txn(&told), Ok(Outcome::Committed(_))));
    let (low, high) = (bench.pod("low"), bench.pod("high"));
    assert!(low.metadata.is_going() && low.metadata.deletion_grace_period_seconds == Some(30));
    let why =
        low.status.conditions.iter().find(|condition| condition.r#type == "DisruptionTarget").expect("it is told");
    assert_eq!((why.status.as_str(), why.reason.as_str()), ("True", BY_SCHEDULER));
    assert_eq!(why.message, "default-scheduler: preempting to accommodate a higher priority pod");
    assert_eq!(high.status.nominated_node_name, "n1");
    let uid = keys::uid(CLUSTER, key("high").to_string().as_bytes(), wanted(&bench).created);
    let said: Vec<_> = notes.iter().map(|note| (note.reason, note.message.clone())).collect();
    assert_eq!(said, [("Preempted", format!("Preempted by pod {uid} on node n1"))]);
}

#[test]
fn a_victim_that_has_no_time_to_stop_is_taken_away() {
    let mut low = pod("low", 0, "2", "n1");
    low["spec"]["terminationGracePeriodSeconds"] = json!(0);
    let bench = Bench::new(&[node("n1", "2"), low, pod("high", 10, "2", "")]);
    let item = bench.item(&key("low")).expect("it is there");
    let (told, _) = txn(&bench, &wanted(&bench), &[item]).expect("all is as it was");
    assert!(told.writes().contains(&Write::Delete { key: key("low").to_string().into() }));
}

#[test]
fn a_victim_that_is_not_as_it_was_stays() {
    let mut bench = bench();
    let low = bench.item(&key("low")).expect("it is there");
    let stale = |wanted: &Wanted, read: &[KeyValue]| assert_eq!(txn(&bench, wanted, read), Err(Missed::Stale));
    stale(&wanted(&bench), &[]);
    let victims = vec![(key("low"), low.created + 1)];
    stale(&Wanted { victims, ..wanted(&bench) }, std::slice::from_ref(&low));
    stale(&Wanted { priority: 0, ..wanted(&bench) }, std::slice::from_ref(&low));
    stale(&Wanted { node: "n2".to_owned(), ..wanted(&bench) }, std::slice::from_ref(&low));
    // What changes between the reading and the writing is found by a guard.
    for change in [pod("low", 0, "1", "n1"), pod("high", 10, "1", "")] {
        let low = bench.item(&key("low")).expect("it is there");
        let (told, _) = txn(&bench, &wanted(&bench), &[low]).expect("all is as it was");
        bench.put(&change);
        assert!(matches!(bench.store.txn(&told), Ok(Outcome::Refused { .. })), "{change}");
    }
    let (told, _) = txn(&bench, &wanted(&bench), &[bench.item(&key("low")).expect("it is there")]).expect("it is");
    bench.store.txn(&Txn::new().put(keys::alloc("n1"), "{}")).expect("written");
    assert!(matches!(bench.store.txn(&told), Ok(Outcome::Refused { .. })), "somebody was placed there");
}

#[test]
fn what_no_store_takes_at_once_is_not_tried() {
    let mut low = pod("low", 0, "2", "n1");
    low["metadata"]["annotations"] = json!({"large": "x".repeat(TXN_BYTES_MAX)});
    let bench = Bench::new(&[node("n1", "2"), pod("high", 10, "2", "")]);
    let item = KeyValue {
        key: key("low").to_string().into(),
        value: low.to_string().into(),
        created: 9,
        modified: 9,
        ..KeyValue::default()
    };
    let wanted = Wanted {
        key: key("high"),
        created: bench.item(&key("high")).expect("it is there").created,
        priority: 10,
        node: "n1".to_owned(),
        version: 0,
        victims: vec![(key("low"), 9)],
        condition: Condition::default(),
    };
    assert_eq!(txn(&bench, &wanted, &[item]), Err(Missed::TooLarge));
}
