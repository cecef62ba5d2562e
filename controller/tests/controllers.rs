//! The controllers in a world that crashes them, delays and loses what they ask, hides what happens and compacts it; judged
//! by the auditor at every revision, and by where everything comes to rest.
//!
//! `MECHI_CONTROL_SEEDS=100000` runs so many, `MECHI_CONTROL_SEED=7` one and prints what happens.

mod world;

use mechi_controller::api::change::{Deletion, Half};
use mechi_controller::cache::{Ask, Cache, Feed};
use mechi_controller::control::manager::{Ended, Manager, Work};
use mechi_controller::keys;
use mechi_controller::kv::{Error, Txn};
use mechi_controller::queue::Priority;
use mechi_controller::types::meta::{Condition, set_condition};
use mechi_controller::types::pod::Pod;
use mechi_controller::types::workload::{Deployment, ReplicaSet};
use serde_json::json;
use world::{Ground, worlds};

/// Steps with faults.
const STEPS: usize = 500;

/// Steps without, until everything must have come to rest.
const REST_STEPS: usize = 20_000;

const REPLICAS: usize = 3;

/// One replica of the controllers; none of them leads, so that all act at once.
#[derive(Default)]
struct Replica {
    feed: Feed<Cache>,
    cache: Cache,
    manager: Manager,
    /// Plans whose transactions are on their way, in order.
    busy: Vec<(Work, Vec<Txn>)>,
}

struct World {
    ground: Ground,
    replicas: Vec<Replica>,
}

impl World {
    fn new(seed: u64, talks: bool) -> Self {
        Self { ground: Ground::new(seed, talks), replicas: (0..REPLICAS).map(|_| Replica::default()).collect() }
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
                self.ground.say(|| format!("a user makes {name} with {replicas} pods"));
                self.ground.make::<Deployment>(json!({
                    "metadata": {"name": name, "namespace": "a"},
                    "spec": {
                        "replicas": replicas, "strategy": strategy, "selector": {"matchLabels": {"app": name}},
                        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "1"}]}},
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

    /// What nodes say of a pod.
    fn node(&mut self) {
        let fails = !self.ground.quiet && self.ground.rng.below(8) == 0;
        let pending: Vec<_> =
            self.ground.all::<Pod>().into_iter().filter(|pod| pod.is_active() && (fails || !pod.is_ready())).collect();
        if pending.is_empty() {
            return;
        }
        let pod = pending[self.ground.rng.below(pending.len() as u64) as usize].clone();
        let now = self.ground.now().time;
        self.ground.say(|| format!("{} is {}", pod.metadata.name, if fails { "over" } else { "ready" }));
        self.ground.modify(&pod, Half::Status, |new| {
            (if fails { "Failed" } else { "Running" }).clone_into(&mut new.status.phase);
            let status = if fails { "False" } else { "True" };
            let ready = Condition { r#type: "Ready".to_owned(), status: status.to_owned(), ..Default::default() };
            set_condition(&mut new.status.conditions, ready, now);
        });
    }

    /// A replica hears something of the store.
    fn hear(&mut self, n: usize, revisions_max: usize) {
        let replica = &mut self.replicas[n];
        let changes = match replica.feed.ask(&replica.cache) {
            Ask::List(range) => {
                let listed = replica.feed.listed(&mut replica.cache, self.ground.store.range(&range));
                listed.ok().flatten().map(|changes| (changes, Priority::Review))
            }
            Ask::Watch(from) => {
                let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
                let events = self.ground.store.events(&key, &end, from, revisions_max);
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
                replica.busy.push((work, plan.txns));
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
            let (work, txns) = &mut self.replicas[n].busy[which];
            (work.clone(), txns.remove(0))
        };
        let answer =
            if fault == 0 { Err(Error::Unavailable("lost on its way".to_owned())) } else { self.ground.write(&txn) };
        let answer = if fault == 1 { Err(Error::Unknown("the answer was lost".to_owned())) } else { answer };
        self.ground.say(|| format!("replica {n}, {:?} of {}: {answer:?}", work.0, work.1.name));
        let ended = Ended::of(&answer);
        let is_last = self.replicas[n].busy[which].1.is_empty();
        if is_last || !matches!(ended, Ended::Written(_)) {
            self.replicas[n].busy.remove(which);
            let now = self.ground.now();
            self.replicas[n].manager.ended(&work, &ended, now);
        }
    }

    fn step(&mut self) {
        let n = self.ground.rng.below(REPLICAS as u64) as usize;
        self.ground.ms += self.ground.rng.below(20);
        match self.ground.rng.below(100) {
            0..6 => self.user(),
            6..20 => self.node(),
            20..45 => self.hear(n, 1),
            45..65 => self.plan(n),
            65..90 => self.deliver(n),
            90..93 => {
                self.ground.say(|| format!("replica {n} crashes"));
                // What it had sent may still arrive.
                let late: Vec<Txn> = std::mem::take(&mut self.replicas[n].busy)
                    .into_iter()
                    .flat_map(|(_, txns)| txns.into_iter().take(1))
                    .collect();
                self.replicas[n] = Replica::default();
                for txn in late {
                    if self.ground.rng.below(2) == 0 {
                        let _ = self.ground.write(&txn);
                    }
                }
            }
            93..96 => {
                self.ground.compact();
            }
            96..98 => self.replicas[n].feed.relist(),
            _ => self.ground.ms += 2_000,
        }
    }

    /// No more faults, until nothing has to be done any more.
    fn rest(&mut self) {
        self.ground.quiet = true;
        let mut idle = 0;
        for _ in 0..REST_STEPS {
            let before = self.ground.store.revision();
            self.ground.ms += 50;
            self.node();
            for n in 0..REPLICAS {
                self.hear(n, usize::MAX);
                self.plan(n);
                self.deliver(n);
            }
            let is_idle =
                self.ground.store.revision() == before && self.replicas.iter().all(|replica| replica.busy.is_empty());
            idle = if is_idle { idle + 1 } else { 0 };
            // Longer than any wait after a failure.
            if idle == 100 && self.ground.ms > 0 {
                self.ground.ms += 61_000;
            }
            if idle > 300 {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// What is, is what is wanted.
    fn judge(&self) {
        assert_eq!(self.ground.auditor.findings(), [], "the auditor found something");
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
