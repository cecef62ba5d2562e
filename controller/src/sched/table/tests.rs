//! Placements are feasible, the best there are, and depend on nothing but what they are worked out from.

use super::*;
use crate::kv::KeyValue;
use crate::types::resource::Resource as _;
use serde_json::json;

fn node(name: &str, created: i64, cpu: &str, memory: &str, pods: u32) -> Held<Node> {
    let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods.to_string()}}});
    let node: Node = serde_json::from_value(node).expect("a node");
    let from = KeyValue { value: node.to_stored(), created, modified: created, ..KeyValue::default() };
    Held::read(1, &from).expect("a node")
}

fn spec(cpu: &str, memory: &str) -> PodSpec {
    let spec = json!({"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]});
    serde_json::from_value(spec).expect("a spec")
}

fn table(nodes: &[Held<Node>]) -> Table {
    let mut table = Table::default();
    for node in nodes {
        let place = table.enter(node.clone());
        table.set_version(place, Some(1));
    }
    table
}

/// Places a pod; returns the node's name.
fn put(table: &mut Table, spec: &PodSpec, seed: u64) -> Option<String> {
    let needs = Needs::of(spec);
    let place = table.best(spec, &needs, seed)?;
    table.take(place, &needs);
    Some(table.node(place).metadata.name.clone())
}

#[test]
fn the_emptiest_node_is_taken_until_none_is_left() {
    let mut table = table(&[node("small", 1, "2", "2Gi", 10), node("large", 2, "4", "4Gi", 10)]);
    let one = spec("1", "1Gi");
    let placed: Vec<_> = (0..7).map(|seed| put(&mut table, &one, seed)).collect();
    let count = |name: &str| placed.iter().flatten().filter(|other| *other == name).count();
    assert_eq!(
        (placed[0].as_deref(), count("small"), count("large"), placed[6].as_deref()),
        (Some("large"), 2, 4, None)
    );
    let reasons = table.reasons(&one, &Needs::of(&one));
    assert_eq!(
        filter::sentence(table.len(), &reasons),
        "0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient memory."
    );
}

#[test]
fn ports_pods_and_names_of_resources_bound_too() {
    let mut table = table(&[node("n1", 1, "4", "4Gi", 2)]);
    let mut web = spec("1", "1Gi");
    web.containers[0].ports =
        serde_json::from_value(json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}])).expect("ports");
    assert_eq!(put(&mut table, &web, 0).as_deref(), Some("n1"));
    assert_eq!(put(&mut table, &web, 0), None);
    assert_eq!(table.reasons(&web, &Needs::of(&web)).into_keys().collect::<Vec<_>>(), [Reason::Ports]);
    let mut gpu = spec("1", "1Gi");
    gpu.containers[0]
        .resources
        .requests
        .insert("example.com/gpu".to_owned(), crate::types::quantity::Quantity::whole(1));
    assert_eq!(put(&mut table, &gpu, 0), None);
    assert_eq!(put(&mut table, &spec("1", "1Gi"), 0).as_deref(), Some("n1"));
    assert_eq!(put(&mut table, &spec("1", "1Gi"), 0), None);
    let any = spec("1", "1Gi");
    assert_eq!(table.reasons(&any, &Needs::of(&any)).into_keys().collect::<Vec<_>>(), [Reason::TooManyPods]);
}

#[test]
fn nobody_is_placed_where_the_version_is_not_known() {
    let mut table = table(&[node("n1", 1, "4", "4Gi", 10)]);
    let place = table.place("n1").expect("is there");
    table.set_version(place, None);
    assert_eq!(put(&mut table, &spec("1", "1Gi"), 0), None);
    table.set_version(place, Some(7));
    assert_eq!(put(&mut table, &spec("1", "1Gi"), 0).as_deref(), Some("n1"));
}

#[test]
fn placements_fit_are_the_best_and_do_not_depend_on_the_order_of_nodes() {
    use proptest::prelude::*;
    let nodes = proptest::collection::vec((1..8_i64, 1..8_i64, 1..6_u32), 1..12);
    let pods = proptest::collection::vec((0..30_i64, 0..30_i64, any::<u64>()), 0..40);
    proptest!(|(nodes in nodes, pods in pods, turn in 0..12_usize)| {
        let nodes: Vec<Held<Node>> = nodes
            .iter()
            .enumerate()
            .map(|(n, (cpu, memory, pods))| node(&format!("n{n}"), n as i64 + 1, &cpu.to_string(), &format!("{memory}Gi"), *pods))
            .collect();
        let mut turned = nodes.clone();
        turned.rotate_left(turn % nodes.len());
        let (mut one, mut other) = (table(&nodes), table(&turned));
        for (cpu, memory, seed) in pods {
            let spec = spec(&format!("{}m", cpu * 100), &format!("{}Mi", memory * 100));
            let needs = Needs::of(&spec);
            let before = one.clone();
            let placed = put(&mut one, &spec, seed);
            prop_assert_eq!(&placed, &put(&mut other, &spec, seed));
            let fits = |name: &String| {
                let row = before.row(before.place(name).expect("is there"));
                against(row, &spec, &needs).is_empty()
            };
            match &placed {
                Some(name) => prop_assert!(fits(name)),
                None => prop_assert!(before.places.keys().all(|name| !fits(name))),
            }
            // Taken and given back, everything is as it was.
            if let Some(place) = placed.and_then(|name| one.place(&name)) {
                let mut again = one.clone();
                again.give_back(place, &needs);
                prop_assert_eq!(again.used(place), before.used(place));
            }
        }
    });
}

/// How long one placement takes: `cargo test --release -p mechi-controller -- --ignored --nocapture placements_a_second`.
#[test]
#[ignore = "a measurement"]
fn placements_a_second() {
    for count in [1_000, 5_000, 20_000] {
        let nodes: Vec<_> = (0..count).map(|n| node(&format!("n{n}"), n + 1, "32", "128Gi", 110)).collect();
        let mut table = table(&nodes);
        let begun = std::time::Instant::now();
        let spec = spec("100m", "128Mi");
        let placed = (0..20_000).filter(|seed| put(&mut table, &spec, *seed).is_some()).count();
        println!("{count} nodes: {:.0} placements/s", placed as f64 / begun.elapsed().as_secs_f64());
    }
}
