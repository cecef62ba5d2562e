//! Who waits is looked at again when it may fit, and whoever is more urgent gets room.

use super::bench::{Bench, at, node, pod};
use super::*;
use serde_json::json;

fn message(pod: &Pod) -> &str {
    let condition = pod.status.conditions.iter().find(|condition| condition.r#type == "PodScheduled");
    condition.map_or("", |condition| &condition.message)
}

#[test]
fn room_that_others_made_is_kept_until_the_pod_is_bound() {
    let mut bench = Bench::new(&[node("n1", "2"), pod("low", 0, "2", "n1"), pod("high", 10, "2", "")]);
    bench.work(1_000);
    let (low, high) = (bench.pod("low"), bench.pod("high"));
    assert!(low.metadata.is_going());
    assert_eq!(high.status.nominated_node_name, "n1");
    assert_eq!(message(&high), "0/1 nodes are available: 1 Insufficient cpu.");
    let told: Vec<_> = bench.scheduler.take_notes().into_iter().map(|note| note.reason).collect();
    assert_eq!(told, ["FailedScheduling", "Preempted"]);
    assert_eq!((bench.scheduler.counters().preempting, bench.scheduler.counters().preempted), (1, 1));

    // It rests first when the room is there, and nobody less urgent gets it.
    bench.delete("low");
    bench.put(&pod("other", 5, "1", ""));
    bench.work(1_500);
    let other = bench.pod("other");
    assert_eq!(other.spec.node_name, "");
    assert_eq!(
        message(&other),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims \
         found for incoming pod."
    );
    bench.work(10_000);
    let high = bench.pod("high");
    assert_eq!((high.spec.node_name.as_str(), high.status.nominated_node_name.as_str()), ("n1", ""));
    assert_eq!(bench.view.used_anew()["n1"].cpu, 2_000);
}

#[test]
fn two_that_are_as_urgent_do_not_want_the_same_to_go() {
    let mut bench = Bench::new(&[
        node("n1", "2"),
        pod("low", 0, "2", "n1"),
        node("n2", "2"),
        pod("lower", 0, "2", "n2"),
        pod("high", 10, "2", ""),
        pod("high-too", 10, "2", ""),
        pod("high-three", 10, "2", ""),
    ]);
    bench.work(1_000);
    let mut nominated: Vec<String> =
        ["high", "high-too", "high-three"].map(|name| bench.pod(name).status.nominated_node_name).into();
    nominated.sort();
    assert_eq!(nominated, ["", "n1", "n2"]);
    assert_eq!(bench.scheduler.counters().preempted, 2);
}

#[test]
fn nobody_goes_for_a_pod_that_says_never() {
    let mut high = pod("high", 10, "2", "");
    high["spec"]["preemptionPolicy"] = json!("Never");
    let mut bench = Bench::new(&[node("n1", "2"), pod("low", 0, "2", "n1"), high]);
    bench.work(1_000);
    assert!(!bench.pod("low").metadata.is_going());
    assert_eq!(
        message(&bench.pod("high")),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
    );
}

#[test]
fn a_nomination_ends_when_it_helps_no_more() {
    let mut bench = Bench::new(&[node("n1", "2"), pod("low", 0, "2", "n1"), pod("high", 10, "2", "")]);
    bench.work(1_000);
    assert_eq!(bench.pod("high").status.nominated_node_name, "n1");
    bench.put(&node("n1", "1"));
    // It hears of it, and rests first.
    bench.work(2_000);
    bench.work(10_000);
    let high = bench.pod("high");
    assert_eq!(high.status.nominated_node_name, "");
    assert_eq!(
        message(&high),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu."
    );
}

#[test]
fn whoever_leads_no_more_forgets_whom_it_wanted_to_go() {
    let mut bench = Bench::new(&[node("n1", "2"), pod("low", 0, "2", "n1"), pod("high", 10, "2", "")]);
    assert!(bench.scheduler.plan(&mut bench.view, bench.token, at(0)).is_none());
    assert_eq!(bench.scheduler.victims().map(|victims| victims.len()), Some(1));
    assert!(bench.scheduler.plan(&mut bench.view, bench.token, at(0)).is_none(), "nobody is placed before it is read");
    bench.scheduler.reset(&mut bench.view);
    assert_eq!((bench.scheduler.victims(), bench.scheduler.queues().lengths()), (None, [1, 0, 0, 0]));
}

/// Reasons were counted, and not nodes: two against one node were taken for one against each of two.
#[test]
fn a_pod_waits_for_an_answer_where_it_fits_whatever_another_node_lacks() {
    let mut small = node("n1", "1");
    small["status"]["allocatable"]["memory"] = json!("1Gi");
    let mut second = pod("second", 0, "2", "");
    second["spec"]["containers"][0]["resources"]["requests"]["memory"] = json!("2Gi");
    let mut bench = Bench::new(&[small, node("n2", "8"), pod("first", 0, "2", "")]);
    let (id, first) = bench.plan(at(0)).expect("the first one is on its way to the second node");
    bench.put(&second);
    assert!(bench.plan(at(0)).is_none());
    assert_eq!(bench.scheduler.queues().lengths(), [1, 0, 0, 1], "the second one is looked at again at once");
    let answer = bench.store.txn(&first);
    assert!(bench.scheduler.answered(&mut bench.view, id, answer, at(0)).is_none());
    bench.work(0);
    assert_eq!(bench.pod("second").spec.node_name, "n2");
}

#[test]
fn a_bind_that_was_not_done_wakes_who_waits_for_its_room() {
    let mut bench = Bench::new(&[node("n1", "2"), pod("first", 0, "2", ""), pod("second", 0, "2", "")]);
    let (id, _) = bench.plan(at(0)).expect("the first one is on its way, and the second one says why it waits");
    assert_eq!(bench.scheduler.queues().lengths(), [0, 0, 1, 1]);
    let lost = Err(Error::Unavailable("lost".to_owned()));
    assert!(bench.scheduler.answered(&mut bench.view, id, lost, at(0)).is_none());
    assert_eq!(bench.scheduler.queues().lengths(), [1, 1, 0, 0]);
}

#[test]
fn a_pod_that_is_too_large_for_any_node_says_so_and_nothing_else_is_written() {
    let mut bench = Bench::new(&[node("n1", "2"), node("n2", "2"), pod("large", 10, "3", "")]);
    let before = bench.store.revision();
    bench.work(0);
    assert_eq!(
        message(&bench.pod("large")),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims \
         found for incoming pod."
    );
    assert_eq!(bench.store.revision(), before + 1, "its status, and nothing else");
    let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
    let batch = bench.store.events(&key, &end, before + 1, usize::MAX).expect("nothing is compacted");
    let written: Vec<String> =
        batch.events.iter().map(|event| String::from_utf8_lossy(event.key()).into_owned()).collect();
    assert_eq!(written, [super::bench::key("large").to_string()]);
    let told: Vec<_> = bench.scheduler.take_notes().into_iter().map(|note| note.reason).collect();
    assert_eq!(told, ["FailedScheduling"]);
}

/// S11, broken in each of the ways in which it can be.
#[test]
fn the_auditor_finds_whoever_is_not_in_exactly_one_place() {
    use crate::audit::queues;
    type Break = fn(&mut Scheduler, &ObjectKey);
    let ways: [(&str, Break); 6] = [
        ("it waits, and no queue has it", |scheduler, key| scheduler.queues.remove(key)),
        ("it waits, and no queue has it", |scheduler, key| {
            let created = scheduler.queues.get(key).expect("it waits").created;
            scheduler.queues.add(key, created + 1, 0);
        }),
        ("it is in hand, and in nobody's", |scheduler, _| scheduler.flights.clear()),
        ("it is on its way, and in a queue", |scheduler, key| scheduler.queues.put_back(key)),
        ("it is on its way twice", |scheduler, _| {
            let flight = scheduler.flights.values().next().expect("it is on its way").clone();
            scheduler.flights.insert(u64::MAX, flight);
        }),
        ("2 are in queues, and 1 wait", |scheduler, _| {
            scheduler.queues.add(&ObjectKey::new(keys::Kind::Pod, "a", "ghost"), 1, 0);
        }),
    ];
    for (text, breaks) in ways {
        let mut bench = Bench::new(&[node("n1", "2"), pod("waits", 0, "2", "")]);
        assert_eq!(queues::waiting(&bench.view, &bench.scheduler), []);
        assert!(bench.plan(at(0)).is_some());
        assert_eq!(queues::waiting(&bench.view, &bench.scheduler), [], "it is on its way");
        breaks(&mut bench.scheduler, &super::bench::key("waits"));
        let found = queues::waiting(&bench.view, &bench.scheduler);
        assert!(found.iter().all(|finding| finding.rule == "S11"), "{found:?}");
        assert!(found.iter().any(|finding| finding.text == text), "{text:?} is not among {found:?}");
    }
}
