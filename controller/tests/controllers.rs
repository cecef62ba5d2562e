//! The controllers in a world that crashes them, delays and loses what they ask, hides what happens and compacts it; judged
//! by the auditor at every revision, and by where everything comes to rest. Under them machines die, are cut off and come
//! back.
//!
//! `MECHI_CONTROL_SEEDS=100000` runs so many, `MECHI_CONTROL_SEED=7` one and prints what happens.

mod world;
#[path = "world/nodes.rs"]
mod nodes;

use mechi_controller::api::change::{Deletion, Half};
use mechi_controller::audit::watch::Watcher;
use mechi_controller::cache::{Ask, Cache, Feed};
use mechi_controller::control::Note;
use mechi_controller::control::manager::{Ended, Manager, Work};
use mechi_controller::events::{self, Recorder};
use mechi_controller::keys;
use mechi_controller::kv::{Error, Range, Txn};
use mechi_controller::queue::Priority;
use mechi_controller::types::event::Event;
use mechi_controller::types::pod::Pod;
use mechi_controller::types::workload::{Deployment, ReplicaSet};
use nodes::Machines;
use serde_json::json;
use world::{Ground, worlds};

/// Steps with faults.
const STEPS: usize = 500;

/// Steps without, until everything must have come to rest.
const REST_STEPS: usize = 20_000;

const REPLICAS: usize = 3;

/// One replica of the controllers; none of them leads, so that all act at once.
struct Replica {
    feed: Feed<Cache>,
    cache: Cache,
    manager: Manager,
    watcher: Watcher,
    recorder: Recorder,
    /// Plans whose transactions are on their way, in order, and what is told once they are written.
    busy: Vec<(Work, Vec<Txn>, Vec<Note>)>,
}

impl Replica {
    fn new(name: u64) -> Self {
        Self {
            feed: Feed::default(),
            cache: Cache::default(),
            manager: Manager::default(),
            watcher: Watcher::default(),
            recorder: Recorder::new(&format!("controllers-{name}")),
            busy: Vec::new(),
        }
    }
}

struct World {
    ground: Ground,
    machines: Machines,
    born: u64,
    replicas: Vec<Replica>,
}

impl World {
    fn new(seed: u64, talks: bool) -> Self {
        let replicas = (0..REPLICAS as u64).map(Replica::new).collect();
        let (ground, machines) = (Ground::new(seed, talks), Machines::new());
        Self { ground, machines, born: REPLICAS as u64, replicas }
    }

    /// What a person does.
    fn user(&mut self) {
        match self.ground.rng.below(10) {
            0..3 => {
                let (name, replicas) = (["web", "db"][self.ground.rng.below(2) as usize], self.ground.rng.below(6));
                let strategy = match self.ground.rng.below(3) {
                    0 => json!({"type": "Recreate"}),
                    1 => json!({"rollingUpdate": {"maxSurge": self.ground.rng.below(3), "maxUnavailable": 1}}),
                    _ => json!({"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": self.ground.rng.below(2)}}),
                };
                // Some do not wait long for a node that is not heard of.
                let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3});
                let tolerations = match self.ground.rng.below(3) {
                    0 => json!([]),
                    _ => json!([
                        toleration("node.kubernetes.io/unreachable"),
                        toleration("node.kubernetes.io/not-ready")
                    ]),
                };
                self.ground.say(|| format!("a user makes {name} with {replicas} pods"));
                self.ground.make::<Deployment>(json!({
                    "metadata": {"name": name, "namespace": "a"},
                    "spec": {
                        "replicas": replicas, "strategy": strategy, "selector": {"matchLabels": {"app": name}},
                        "template": {"metadata": {"labels": {"app": name}}, "spec": {
                            "tolerations": tolerations, "containers": [{"name": "c", "image": "1"}],
                        }},
                    },
                }));
            }
            3..6 => {
                let replicas = self.ground.rng.below(6) as i32;
                if let Some(deployment) = self.ground.pick::<Deployment>() {
                    self.ground.say(|| format!("a user scales {} to {replicas}", deployment.metadata.name));
                    self.ground.modify(&deployment, Half::Wanted, |new| new.spec.replicas = Some(replicas));
                }
            }
            6..8 => {
                let image = self.ground.rng.below(4).to_string();
                if let Some(deployment) = self.ground.pick::<Deployment>() {
                    self.ground.say(|| format!("a user wants image {image} in {}", deployment.metadata.name));
                    self.ground
                        .modify(&deployment, Half::Wanted, |new| new.spec.template.spec.containers[0].image = image);
                }
            }
            8 => {
                if let Some(pod) = self.ground.pick::<Pod>() {
                    self.ground.say(|| format!("a user deletes {}", pod.metadata.name));
                    self.ground.delete(&pod, &Deletion::default());
                }
            }
            _ => {
                let orphans = self.ground.rng.below(3) == 0;
                if let Some(deployment) = self.ground.pick::<Deployment>() {
                    self.ground.say(|| format!("a user deletes {}, orphans {orphans}", deployment.metadata.name));
                    self.ground.delete(&deployment, &Deletion { orphans, ..Deletion::default() });
                }
            }
        }
    }

    /// A replica hears something of the store.
    fn hear(&mut self, n: usize, revisions_max: usize) {
        let replica = &mut self.replicas[n];
        let changes = match replica.feed.ask(&replica.cache) {
            Ask::List(range) => {
                let page = self.ground.store.range(&range);
                self.ground.listed(&mut replica.watcher, &page);
                let listed = replica.feed.listed(&mut replica.cache, page);
                listed.ok().flatten().map(|changes| (changes, Priority::Review))
            }
            Ask::Watch(from) => {
                let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
                let events = self.ground.store.events(&key, &end, from, revisions_max);
                self.ground.heard(&mut replica.watcher, from, &events);
                replica.feed.heard(&mut replica.cache, events).ok().map(|changes| (changes, Priority::Change))
            }
        };
        if let Some((changes, priority)) = changes {
            replica.manager.changed(&replica.cache, &changes, priority);
        }
    }

    /// A replica works out a plan, and sends its transactions off.
    fn plan(&mut self, n: usize) {
        let now = self.ground.now();
        let replica = &mut self.replicas[n];
        if !replica.feed.is_watching() || replica.busy.len() >= 4 {
            return;
        }
        if let Some((work, plan)) = replica.manager.next(&replica.cache, now) {
            if plan.is_empty() {
                replica.manager.ended(&work, &Ended::Written(None), now);
            } else {
                replica.busy.push((work, plan.txns, plan.notes));
            }
        }
    }

    /// A transaction arrives at the store, or does not; its answer comes back, or does not.
    fn deliver(&mut self, n: usize) {
        let busy = self.replicas[n].busy.len() as u64;
        if busy == 0 {
            return;
        }
        let which = self.ground.rng.below(busy) as usize;
        let fault = self.ground.fault();
        let (work, txn) = {
            let (work, txns, _) = &mut self.replicas[n].busy[which];
            (work.clone(), txns.remove(0))
        };
        let answer =
            if fault == 0 { Err(Error::Unavailable("lost on its way".to_owned())) } else { self.ground.write(&txn) };
        let answer = if fault == 1 { Err(Error::Unknown("the answer was lost".to_owned())) } else { answer };
        self.ground.say(|| format!("replica {n}, {:?} of {}: {answer:?}", work.0, work.1.name));
        let ended = Ended::of(&answer);
        let is_last = self.replicas[n].busy[which].1.is_empty();
        if is_last || !matches!(ended, Ended::Written(_)) {
            let (_, _, notes) = self.replicas[n].busy.remove(which);
            let now = self.ground.now();
            self.replicas[n].manager.ended(&work, &ended, now);
            if matches!(ended, Ended::Written(_)) {
                self.replicas[n].recorder.record(work.0.component(), &notes, now);
            }
        }
    }

    /// A replica tells people what happened.
    fn tell(&mut self, n: usize) {
        let (ms, fault) = (self.ground.ms, self.ground.fault());
        let lost = || Error::Unknown("lost".to_owned());
        match self.replicas[n].recorder.ask(ms) {
            None => {}
            Some(events::Ask::Grant(ttl)) => {
                let lease = self.ground.store.grant(ttl, ms);
                self.replicas[n].recorder.granted(if fault == 0 { Err(lost()) } else { Ok(lease) }, ms, ms);
            }
            Some(events::Ask::Write(txn)) => {
                let answer = self.ground.write(&txn);
                self.replicas[n].recorder.written(&if fault == 0 { Err(lost()) } else { answer }, ms);
            }
        }
    }

    fn step(&mut self) {
        let n = self.ground.rng.below(REPLICAS as u64) as usize;
        self.ground.ms += self.ground.rng.below(20);
        self.ground.store.expire(self.ground.ms);
        self.ground.audit();
        match self.ground.rng.below(100) {
            0..6 => self.user(),
            6..18 => {
                let machine = self.ground.rng.below(5) as usize;
                self.machines.agent(&mut self.ground, machine, 2);
            }
            18..23 => nodes::bind(&mut self.ground),
            23..46 => self.hear(n, 1),
            46..64 => self.plan(n),
            64..86 => self.deliver(n),
            86..88 => self.tell(n),
            88..90 => self.machines.trouble(&mut self.ground),
            90..93 => {
                self.ground.say(|| format!("replica {n} crashes"));
                // What it had sent may still arrive.
                let late: Vec<Txn> = std::mem::take(&mut self.replicas[n].busy)
                    .into_iter()
                    .flat_map(|(_, txns, _)| txns.into_iter().take(1))
                    .collect();
                self.born += 1;
                self.replicas[n] = Replica::new(self.born);
                for txn in late {
                    if self.ground.rng.below(2) == 0 {
                        let _ = self.ground.write(&txn);
                    }
                }
            }
            93..96 => {
                self.ground.compact();
            }
            96..98 => {
                self.replicas[n].feed.relist();
                self.replicas[n].watcher.relists();
            }
            _ => self.ground.ms += self.ground.rng.below(6_000),
        }
    }

    /// No more faults, until nothing has to be done any more.
    fn rest(&mut self) {
        self.ground.quiet = true;
        self.machines.heal(&mut self.ground);
        let mut idle = 0;
        for _ in 0..REST_STEPS {
            let before = self.ground.store.revision();
            self.ground.ms += 50;
            self.ground.store.expire(self.ground.ms);
            self.ground.audit();
            self.machines.all(&mut self.ground);
            if idle == 0 {
                nodes::bind(&mut self.ground);
            }
            for n in 0..REPLICAS {
                self.hear(n, usize::MAX);
                self.plan(n);
                self.deliver(n);
                self.tell(n);
            }
            let is_idle =
                self.ground.store.revision() == before && self.replicas.iter().all(|replica| replica.busy.is_empty());
            idle = if is_idle { idle + 1 } else { 0 };
            // Longer than any wait after a failure.
            if idle == 100 && self.ground.ms > 0 {
                self.machines.wait(&mut self.ground, 62);
            }
            if idle > 300 {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// What people are told can be read, and nobody has anything more to tell.
    fn events(&self) {
        assert!(self.replicas.iter().all(|replica| replica.recorder.waiting() == 0), "somebody has more to tell");
        let range = Range { key: keys::EVENTS.into(), end: keys::prefix_end(keys::EVENTS).into(), ..Range::default() };
        for item in self.ground.store.range(&range).expect("now").items {
            let event: Event = serde_json::from_slice(&item.value).expect("an event");
            assert!(event.count > 0 && item.lease != 0 && !event.reason.is_empty() && !event.message.is_empty());
            assert!(!event.involved_object.uid.is_empty(), "an event about nothing: {event:?}");
        }
    }

    /// What is, is what is wanted.
    fn judge(&self) {
        self.ground.judge();
        self.machines.judge(&self.ground);
        self.events();
        let pods = self.ground.all::<Pod>();
        for deployment in self.ground.all::<Deployment>() {
            let name = &deployment.metadata.name;
            let status = &deployment.status;
            let wanted = deployment.wanted();
            assert!(!deployment.metadata.is_going(), "{name} should be gone");
            assert_eq!(status.observed_generation, deployment.metadata.generation, "{name}");
            assert_eq!(
                (status.replicas, status.available_replicas, status.updated_replicas),
                (wanted, wanted, wanted),
                "{name}"
            );
            let image = &deployment.spec.template.spec.containers[0].image;
            let own = pods.iter().filter(|pod| pod.is_active() && pod.metadata.labels.get("app") == Some(name));
            let managed = own.filter(|pod| {
                pod.metadata.controller().is_some_and(|owner| owner.name.starts_with(&format!("{name}-")))
            });
            let right = managed.filter(|pod| pod.is_ready() && pod.spec.containers[0].image == *image);
            assert!(right.count() as i32 >= wanted, "{name} has too few pods with image {image}");
        }
        let uids: Vec<String> = self.ground.all::<ReplicaSet>().iter().map(|set| set.metadata.uid.clone()).collect();
        for pod in pods {
            if let Some(owner) = pod.metadata.controller() {
                assert!(uids.contains(&owner.uid), "{} has an owner that is gone", pod.metadata.name);
            }
        }
    }
}

fn run(seed: u64, talks: bool) -> (u64, u64) {
    let mut world = World::new(seed, talks);
    for _ in 0..STEPS {
        world.step();
    }
    world.rest();
    world.judge();
    world.ground.auditor.looked_at()
}

#[test]
fn whatever_happens_to_the_controllers_what_is_becomes_what_is_wanted() {
    worlds(run);
}
