//! A fleet against the store in memory.

use super::*;
use crate::api::change::{self, Deletion};
use crate::api::read;
use crate::audit::journals::Journals;
use crate::cache::{Ask, Feed};
use crate::keys;
use crate::kv::memory::Memory;
use crate::types::meta::ObjectMeta;
use crate::types::node::Namespace;
use crate::types::quantity::Quantity;
use crate::types::resource::Resource as _;
use crate::types::time::Time;
use serde_json::json;

struct World {
    store: Memory,
    feed: Feed<Cache>,
    cache: Cache,
    fleet: Fleet,
    ms: u64,
}

impl World {
    fn new(nodes: usize, script: &str) -> Self {
        let capacity = [("cpu", "8"), ("memory", "32Gi"), ("pods", "110")];
        let capacity = capacity.map(|(name, amount)| (name.to_owned(), amount.parse::<Quantity>().expect("an amount")));
        let script = script.parse().expect("a script");
        let make = Make { capacity: capacity.into(), script, ..Make::default() };
        let fleet = Fleet::new(make, (0..nodes).map(|n| format!("n{n}")));
        let mut world = Self { store: Memory::new(7), feed: Feed::default(), cache: Cache::default(), fleet, ms: 0 };
        let namespace = json!({"metadata": {"name": "a"}});
        let namespace: Namespace = read(namespace.to_string().as_bytes(), true).expect("a namespace");
        let (_, txn) = change::create(7, namespace, None, Time(0)).expect("a namespace");
        world.store.txn(&txn).expect("written");
        world.lease(HEARTBEAT_TTL_MS);
        world
    }

    fn lease(&mut self, ttl_ms: u64) {
        for group in 0..self.fleet.groups() {
            let lease = self.store.grant(ttl_ms, self.ms);
            self.fleet.leased(group, lease);
        }
    }

    fn now(&self) -> Now {
        Now { ms: self.ms, time: Time(1_800_000_000 + (self.ms / 1_000) as i64) }
    }

    fn hear(&mut self) {
        let changes = match self.feed.ask(&self.cache) {
            Ask::List(range) => self.feed.listed(&mut self.cache, self.store.range(&range)).ok().flatten(),
            Ask::Watch(from) => {
                let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
                let events = self.store.events(&key, &end, from, usize::MAX);
                self.feed.heard(&mut self.cache, events).ok()
            }
        };
        if let Some(changes) = changes {
            self.fleet.changed(&self.cache, &changes);
        }
    }

    /// Time passes, and everything is done that is due meanwhile.
    fn pass(&mut self, ms: u64) {
        let until = self.ms + ms;
        while self.ms <= until {
            self.hear();
            let now = self.now();
            while let Some((id, txn)) = self.fleet.plan(&self.cache, now) {
                let answer = self.store.txn(&txn);
                self.fleet.answered(id, &answer, now);
            }
            self.ms += 10;
        }
    }

    fn bind(&mut self, name: &str, node: &str, script: Option<&str>) {
        let annotations = script.map(|script| (script::ANNOTATION.to_owned(), script.to_owned()));
        let mut pod: Pod = read(
            json!({"spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": node}}).to_string().as_bytes(),
            true,
        )
        .expect("a pod");
        pod.metadata = ObjectMeta {
            name: name.to_owned(),
            namespace: "a".to_owned(),
            annotations: annotations.into_iter().collect(),
            ..Default::default()
        };
        crate::api::defaults::Defaults::fill_in(&mut pod);
        self.store.txn(&Txn::new().put(pod.key().to_string(), pod.to_stored())).expect("written");
    }

    fn pod(&self, name: &str) -> Option<Held<Pod>> {
        let key = ObjectKey::new(Kind::Pod, "a", name).to_string();
        self.store.get(key.as_bytes()).map(|item| Held::read(7, item).expect("a pod"))
    }

    fn phase(&self, name: &str) -> (String, bool, i32) {
        let pod = self.pod(name).expect("it is there");
        (pod.status.phase.clone(), pod.is_ready(), pod.restarts())
    }
}

#[test]
fn nodes_register_once_with_their_heartbeats_in_few_transactions() {
    let mut world = World::new(120, "");
    world.pass(50);
    let nodes: Vec<_> = world.cache.all::<Node>().collect();
    assert_eq!((nodes.len(), world.fleet.counters().registered), (120, 120));
    assert!(nodes.iter().all(|node| node.is_ready() && !node.status.allocatable.is_empty()));
    assert!(nodes.iter().all(|node| world.cache.coord(&keys::heartbeat(&node.metadata.name)).is_some()));
    assert!(world.fleet.counters().committed <= 4, "{:?}", world.fleet.counters());
    // Nothing is left to be written.
    let revision = world.store.revision();
    world.pass(60_000);
    assert_eq!(world.store.revision(), revision);
    // Somebody takes one away: it stays away.
    let node = world.cache.get::<Node>("", "n7").expect("is there");
    let txn = change::delete(node, &Deletion::default(), Time(0)).expect("may").expect("is there");
    world.store.txn(&txn).expect("written");
    world.pass(1_000);
    assert_eq!(world.cache.all::<Node>().count(), 119);
}

#[test]
fn a_lost_lease_is_replaced_and_the_node_says_that_it_is_well_again() {
    let mut world = World::new(3, "");
    world.pass(50);
    world.ms += 20_000;
    world.store.expire(world.ms);
    world.hear();
    assert!(world.cache.coord(&keys::heartbeat("n1")).is_none());
    let node = world.cache.get::<Node>("", "n1").expect("is there");
    let mut new = node.to_object();
    let unknown = crate::types::meta::Condition {
        r#type: "Ready".to_owned(),
        status: "Unknown".to_owned(),
        ..Default::default()
    };
    crate::types::meta::set_condition(&mut new.status.conditions, unknown, Time(0));
    let txn = change::update(node, new, change::Half::Status).expect("may").expect("differs");
    world.store.txn(&txn).expect("written");
    world.lease(HEARTBEAT_TTL_MS);
    world.pass(50);
    assert!(world.cache.coord(&keys::heartbeat("n1")).is_some());
    assert!(world.cache.get::<Node>("", "n1").is_some_and(|node| node.is_ready()));
}

#[test]
fn pods_go_through_the_stages_of_their_script() {
    let mut world = World::new(2, "start=100ms,ready=200ms,stop=300ms");
    world.pass(50);
    world.bind("p", "n0", None);
    world.bind("elsewhere", "another", None);
    world.bind("never", "n1", Some("ready=never"));
    world.bind("fails", "n1", Some("start=0ms,ready=0ms,fail=1s"));
    world.bind("crashes", "n1", Some("crash=1s"));
    world.bind("nonsense", "n1", Some("ready=soon"));
    world.pass(50);
    assert_eq!(world.phase("p").0, "Pending");
    assert_eq!(world.phase("fails"), ("Running".to_owned(), true, 0));
    assert_eq!(world.phase("nonsense").0, "Failed");
    assert!(world.pod("nonsense").expect("is there").status.message.contains("ready=soon"));
    world.pass(100);
    assert_eq!(world.phase("p"), ("Running".to_owned(), false, 0));
    world.pass(200);
    assert_eq!(world.phase("p"), ("Running".to_owned(), true, 0));
    world.pass(1_500);
    assert_eq!(world.phase("fails").0, "Failed");
    assert_eq!(world.phase("never"), ("Running".to_owned(), false, 0));
    assert_eq!(world.phase("crashes"), ("Running".to_owned(), false, 1));
    world.pass(30_000);
    // After one second, two, four, eight: each time later.
    let (_, _, restarts) = world.phase("crashes");
    assert!((4..7).contains(&restarts), "{restarts}");
    assert_eq!(world.phase("elsewhere").0, "Pending");
    assert_eq!(world.phase("p"), ("Running".to_owned(), true, 0));

    let pod = world.pod("p").expect("is there");
    let txn = change::delete(&pod, &Deletion::default(), Time(1_800_000_000)).expect("may").expect("is there");
    world.store.txn(&txn).expect("written");
    world.pass(200);
    assert!(world.pod("p").is_some_and(|pod| pod.metadata.is_going()));
    world.pass(200);
    assert!(world.pod("p").is_none());
}

#[test]
fn one_pod_that_somebody_changed_meanwhile_does_not_hold_up_the_others() {
    let mut world = World::new(1, "start=0ms,ready=0ms");
    world.pass(50);
    (0..50).for_each(|n| world.bind(&format!("p{n}"), "n0", None));
    world.hear();
    // Nobody hears of this before the batch is written.
    world.bind("p7", "n0", Some("ready=never"));
    let now = world.now();
    let (id, txn) = world.fleet.plan(&world.cache, now).expect("there is something to do");
    assert_eq!(txn.writes().len(), 50);
    let answer = world.store.txn(&txn);
    assert!(matches!(answer, Ok(Outcome::Refused { .. })));
    world.fleet.answered(id, &answer, now);
    let (id, txn) = world.fleet.plan(&world.cache, now).expect("the others go on");
    assert_eq!(txn.writes().len(), 49);
    let answer = world.store.txn(&txn);
    world.fleet.answered(id, &answer, now);
    world.pass(100);
    assert_eq!(world.phase("p6"), ("Running".to_owned(), true, 0));
    assert_eq!(world.phase("p7"), ("Running".to_owned(), false, 0));
}

#[test]
fn the_journal_has_a_line_before_each_start_and_after_each_end() {
    let mut world = World::new(2, "start=100ms,ready=0ms,stop=100ms");
    world.fleet = std::mem::take(&mut world.fleet).with_journal();
    let mut journals = Journals::default();
    let mut runs = |world: &mut World| {
        for entry in world.fleet.take_journal() {
            assert_eq!(journals.line(&entry.node, &entry.line), None, "{entry:?}");
        }
        (journals.runs("n0").count(), journals.runs("n1").count(), journals.lines())
    };
    world.pass(50);
    world.bind("p", "n0", None);
    world.bind("fails", "n1", Some("start=0ms,fail=1s"));
    world.pass(50);
    assert_eq!(runs(&mut world), (0, 1, 3));
    world.pass(1_500);
    assert_eq!(runs(&mut world), (1, 0, 5));

    // Another process takes the fleet over: everything is off, and what is found running runs again.
    let make = Make { script: "start=100ms,ready=0ms,stop=100ms".parse().expect("a script"), ..Make::default() };
    world.fleet = Fleet::new(make, ["n0".to_owned(), "n1".to_owned()]).with_journal();
    (world.feed, world.cache) = (Feed::default(), Cache::default());
    world.lease(HEARTBEAT_TTL_MS);
    world.pass(50);
    assert_eq!(runs(&mut world), (1, 0, 8));

    let pod = world.pod("p").expect("is there");
    let txn = change::delete(&pod, &Deletion::default(), Time(1_800_000_000)).expect("may").expect("is there");
    world.store.txn(&txn).expect("written");
    world.pass(300);
    assert_eq!(runs(&mut world), (0, 0, 9));
}
