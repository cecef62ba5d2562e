//! The controllers in a world that crashes them, delays and loses what they ask, hides what happens and compacts it; judged
//! by the auditor at every revision, and by where everything comes to rest. Under them machines die, are cut off and come
//! back.
//!
//! `MECHI_CONTROL_SEEDS=100000` runs so many, `MECHI_CONTROL_SEED=7` one and prints what happens.

mod world;
#[path = "world/nodes.rs"]
mod nodes;

use mechi_controller::api::change::{Deletion, Half, attempt, generated};
use mechi_controller::audit::watch::Watcher;
use mechi_controller::cache::{Cache, Feed};
use mechi_controller::control::Note;
use mechi_controller::control::manager::{Ended, Manager, Work};
use mechi_controller::events::{self, Recorder};
use mechi_controller::keys::{self, Kind};
use mechi_controller::kv::{Error, Range, Txn};
use mechi_controller::types::event::Event;
use mechi_controller::types::meta::ObjectMeta;
use mechi_controller::types::node::{Namespace, Node};
use mechi_controller::types::pod::Pod;
use mechi_controller::types::workload::{Deployment, ReplicaSet};
use nodes::{LEAVE, Machines};
use serde_json::json;
use std::collections::BTreeSet;
use world::{Ablation, Ground, HOLD, Part, Play, Setting, Without, ablation::ablations, run, worlds};

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
    /// Names that ReplicaSets have had.
    names: BTreeSet<String>,
}

impl World {
    /// What a person does.
    fn user(&mut self) {
        match self.ground.rng.below(16) {
            0..3 => {
                let (name, replicas) = (["web", "db"][self.ground.rng.below(2) as usize], self.ground.rng.below(6));
                let strategy = match self.ground.rng.below(3) {
                    0 => json!({"type": "Recreate"}),
                    1 => json!({"rollingUpdate": {"maxSurge": self.ground.rng.below(3), "maxUnavailable": 1}}),
                    _ => json!({"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": self.ground.rng.below(2)}}),
                };
                // Some do not wait long for a node that is not heard of, or that people want to be empty; some stay there.
                let toleration = |key: &str, seconds: Option<i64>| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
                let mut tolerations = match self.ground.rng.below(3) {
                    0 => vec![],
                    _ => vec![
                        toleration("node.kubernetes.io/unreachable", Some(3)),
                        toleration("node.kubernetes.io/not-ready", Some(3)),
                    ],
                };
                match self.ground.rng.below(3) {
                    0 => {}
                    1 => tolerations.push(toleration(LEAVE, Some(3))),
                    _ => tolerations.push(toleration(LEAVE, None)),
                }
                let kept = self.ground.rng.below(3);
                self.ground.say(|| format!("a user makes {name} with {replicas} pods"));
                self.ground.make::<Deployment>(json!({
                    "metadata": {"name": name, "namespace": "a"},
                    "spec": {
                        "replicas": replicas, "strategy": strategy, "revisionHistoryLimit": kept,
                        "selector": {"matchLabels": {"app": name}},
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
            9 => {
                let orphans = self.ground.rng.below(3) == 0;
                if let Some(deployment) = self.ground.pick::<Deployment>() {
                    self.ground.say(|| format!("a user deletes {}, orphans {orphans}", deployment.metadata.name));
                    self.ground.delete(&deployment, &Deletion { orphans, ..Deletion::default() });
                }
            }
            10..12 => self.squat(),
            12 => {
                if let Some(deployment) = self.ground.pick::<Deployment>() {
                    let name = format!("own-{}", self.ground.rng.below(3));
                    self.ground.say(|| format!("a user makes pod {name} for {}", deployment.metadata.name));
                    let owner = json!({
                        "apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.metadata.name,
                        "uid": deployment.metadata.uid, "controller": true,
                    });
                    self.ground.make::<Pod>(json!({
                        "metadata": {"name": name, "namespace": "a", "ownerReferences": [owner]},
                        "spec": {"containers": [{"name": "c", "image": "1"}]},
                    }));
                }
            }
            13 => match self.ground.held::<Namespace>("", "a") {
                Some(namespace) if self.ground.rng.below(4) == 0 => {
                    self.ground.say(|| "a user deletes the namespace".to_owned());
                    self.ground.delete(&namespace, &Deletion::default());
                }
                Some(_) => {}
                None => self.ground.make::<Namespace>(json!({"metadata": {"name": "a"}})),
            },
            14 => {
                if let Some(node) = self.ground.pick::<Node>() {
                    self.ground.say(|| format!("a user taints {}, or takes the taint away", node.metadata.name));
                    nodes::taint(&mut self.ground, &node);
                }
            }
            _ => {
                // An object that is held stays, and may still be changed, when it is told to go.
                if let Some(pod) = self.ground.pick::<Pod>().filter(|pod| !pod.metadata.is_going()) {
                    self.ground.say(|| format!("a user holds {}", pod.metadata.name));
                    self.ground.modify(&pod, Half::Wanted, |new| new.metadata.finalizers.push(HOLD.to_owned()));
                }
            }
        }
    }

    /// Somebody takes a name that a controller is about to give, for something that is told to go at once and is held.
    fn squat(&mut self) {
        self.names.extend(self.ground.all::<ReplicaSet>().iter().map(|set| set.metadata.name.clone()));
        let metadata = |name: &String| json!({"name": name, "namespace": "a", "finalizers": [HOLD]});
        let spec = json!({"containers": [{"name": "c", "image": "1"}]});
        if self.ground.rng.below(2) == 0 {
            let Some(set) = self.ground.pick::<ReplicaSet>() else { return };
            let name = generated(&format!("{}-", set.metadata.name), attempt(set.created, set.modified, 0));
            self.ground.say(|| format!("a user takes the name {name}"));
            self.ground.make::<Pod>(json!({"metadata": metadata(&name), "spec": spec}));
            if let Some(pod) = self.ground.held::<Pod>("a", &name) {
                self.ground.delete(&pod, &Deletion::default());
            }
        } else if !self.names.is_empty() {
            let which = self.ground.rng.below(self.names.len() as u64) as usize;
            let name = self.names.iter().nth(which).expect("there are so many").clone();
            if self.ground.held::<ReplicaSet>("a", &name).is_some() {
                return;
            }
            self.ground.say(|| format!("a user takes the name {name}"));
            self.ground.make::<ReplicaSet>(json!({"metadata": metadata(&name), "spec": {
                "replicas": 0, "selector": {"matchLabels": {"app": "none"}},
                "template": {"metadata": {"labels": {"app": "none"}}, "spec": spec},
            }}));
            if let Some(set) = self.ground.held::<ReplicaSet>("a", &name) {
                self.ground.delete(&set, &Deletion::default());
            }
        }
    }

    /// People let go of something that they hold and that is told to go.
    fn let_go(&mut self) {
        let is_held = |meta: &ObjectMeta| meta.is_going() && meta.finalizers.iter().any(|finalizer| finalizer == HOLD);
        if let Some(set) = self.ground.all::<ReplicaSet>().into_iter().find(|set| is_held(&set.metadata)) {
            self.ground.release(&set);
        }
        if let Some(pod) = self.ground.all::<Pod>().into_iter().find(|pod| is_held(&pod.metadata)) {
            self.ground.release(&pod);
        }
    }

    /// A replica hears something of the store.
    fn hear(&mut self, n: usize, revisions_max: usize) {
        let replica = &mut self.replicas[n];
        let changes = self.ground.hear(&mut replica.feed, &mut replica.cache, &mut replica.watcher, revisions_max);
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
        let (work, txn) = {
            let (work, txns, _) = &mut self.replicas[n].busy[which];
            (work.clone(), txns.remove(0))
        };
        let answer = self.ground.deliver(work.0.name(), &txn);
        self.ground.say(|| format!("replica {n}, {:?} of {}: {answer:?}", work.0, work.1.name()));
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
                let answer = self.ground.write("events", &txn);
                self.replicas[n].recorder.written(&if fault == 0 { Err(lost()) } else { answer }, ms);
            }
        }
    }

    /// What people are told can be read, and nobody has anything more to tell.
    fn events(&self) {
        assert!(self.replicas.iter().all(|replica| replica.recorder.waiting() == 0), "L4: somebody has more to tell");
        let range = Range { key: keys::EVENTS.into(), end: keys::prefix_end(keys::EVENTS).into(), ..Range::default() };
        for item in self.ground.store.range(&range).expect("now").items {
            let event: Event = serde_json::from_slice(&item.value).expect("an event");
            assert!(event.count > 0 && item.lease != 0 && !event.reason.is_empty() && !event.message.is_empty());
            assert!(!event.involved_object.uid.is_empty(), "an event about nothing: {event:?}");
        }
    }
}

impl Play for World {
    const STEPS: usize = 500;
    const IDLE_ROUNDS: usize = 300;

    fn new(setting: Setting) -> Self {
        let replicas = (0..REPLICAS as u64).map(Replica::new).collect();
        let (ground, machines) = (Ground::new(setting), Machines::new());
        Self { ground, machines, born: REPLICAS as u64, replicas, names: BTreeSet::new() }
    }

    fn ground(&mut self) -> &mut Ground {
        &mut self.ground
    }

    fn step(&mut self) {
        let n = self.ground.rng.below(REPLICAS as u64) as usize;
        let ms = self.ground.rng.below(20);
        self.ground.tick(ms);
        match self.ground.rng.below(100) {
            0..6 => self.user(),
            6..8 => self.ground.arrive(),
            8..18 => {
                let machine = self.ground.rng.below(nodes::MACHINES as u64) as usize;
                self.machines.agent(&mut self.ground, machine, 2);
            }
            18..22 => nodes::bind(&mut self.ground),
            22..24 => self.let_go(),
            24..46 => self.hear(n, 1),
            46..64 => self.plan(n),
            64..86 => self.deliver(n),
            86..88 => self.tell(n),
            88..90 => self.machines.trouble(&mut self.ground),
            90..93 => {
                self.ground.say(|| format!("replica {n} crashes"));
                // What it had sent may still arrive.
                let late: Vec<(Work, Txn)> = std::mem::take(&mut self.replicas[n].busy)
                    .into_iter()
                    .filter_map(|(work, txns, _)| Some((work, txns.into_iter().next()?)))
                    .collect();
                self.born += 1;
                self.replicas[n] = Replica::new(self.born);
                for (work, txn) in late {
                    if self.ground.rng.below(2) == 0 {
                        let _ = self.ground.write(work.0.name(), &txn);
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

    fn heal(&mut self) {
        self.machines.heal(&mut self.ground);
    }

    fn round(&mut self, idle: usize) -> bool {
        // Longer than any wait after a failure.
        if idle == 100 {
            self.machines.wait(&mut self.ground, 62);
        }
        self.ground.tick(50);
        self.let_go();
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
        self.replicas.iter().all(|replica| replica.busy.is_empty())
    }

    fn judge(&mut self) {
        self.machines.judge(&self.ground);
        self.events();
        let pods = self.ground.all::<Pod>();
        for deployment in self.ground.all::<Deployment>() {
            let name = &deployment.metadata.name;
            let status = &deployment.status;
            let wanted = deployment.wanted();
            assert!(!deployment.metadata.is_going(), "L1: {name} should be gone");
            let is_seen = status.observed_generation == deployment.metadata.generation;
            assert!(is_seen, "L1: nobody looked at {name} since it was changed");
            let numbers = (status.replicas, status.available_replicas, status.updated_replicas);
            assert!(numbers == (wanted, wanted, wanted), "L1: {name} wants {wanted} and has {numbers:?}");
            let image = &deployment.spec.template.spec.containers[0].image;
            let own = pods.iter().filter(|pod| pod.is_active() && pod.metadata.labels.get("app") == Some(name));
            let managed = own.filter(|pod| {
                pod.metadata.controller().is_some_and(|owner| owner.name.starts_with(&format!("{name}-")))
            });
            let right = managed.filter(|pod| pod.is_ready() && pod.spec.containers[0].image == *image);
            assert!(right.count() as i32 >= wanted, "L1: {name} has too few pods with image {image}");
        }
        let mut uids: Vec<String> =
            self.ground.all::<ReplicaSet>().iter().map(|set| set.metadata.uid.clone()).collect();
        uids.extend(self.ground.all::<Deployment>().iter().map(|deployment| deployment.metadata.uid.clone()));
        let is_there = self.ground.held::<Namespace>("", "a").is_some();
        for pod in pods {
            if let Some(owner) = pod.metadata.controller() {
                assert!(uids.contains(&owner.uid), "L2: {} has an owner that is gone", pod.metadata.name);
            }
            assert!(is_there, "L2: {} is in a namespace that is gone", pod.metadata.name);
        }
    }
}

#[test]
fn whatever_happens_to_the_controllers_what_is_becomes_what_is_wanted() {
    worlds(run::<World>);
}

/// Whether it is the lock of a batch: the ReplicaSet's own version beside other writes.
fn locks(part: &Part<'_>) -> bool {
    part.is("replicaset", "seen", Kind::ReplicaSet)
}

/// Guards of the controllers, and of everybody who makes, changes and deletes objects.
const ABLATIONS: &[Ablation] = &[
    Ablation {
        name: "ReplicaSet: its own version, in a batch of pods",
        rules: &["S5", "S8", "S4", "S7"],
        why: "two controllers make, or delete, the same number twice",
        without: Without::Guard(|part| locks(part) && part.txn.writes().len() > 1),
    },
    Ablation {
        name: "ReplicaSet: its own version, in a status",
        rules: &["S8", "S4"],
        why: "an old status overwrites what is wanted now, or makes it anew when it is gone",
        without: Without::Guard(|part| locks(part) && part.txn.writes().len() == 1),
    },
    Ablation {
        name: "ReplicaSet: its namespace's version, in a batch of new pods",
        rules: &["S4"],
        why: "pods are made in a namespace that goes",
        without: Without::Guard(|part| part.is("replicaset", "seen", Kind::Namespace)),
    },
    Ablation {
        name: "ReplicaSet: that a new pod's name is free",
        rules: &["S7"],
        why: "somebody else's pod is overwritten",
        without: Without::Guard(|part| part.is("replicaset", "absent", Kind::Pod)),
    },
    Ablation {
        name: "ReplicaSet: that the pods which stay are there",
        rules: &["surplus"],
        why: "a surplus is deleted that somebody else has just deleted",
        without: Without::Guard(|part| part.is("replicaset", "alive", Kind::Pod)),
    },
    Ablation {
        name: "ReplicaSet: the version of a pod that it deletes or takes",
        rules: &["S1", "S4", "S7"],
        why: "an old copy of the pod is written back",
        without: Without::Guard(|part| part.is("replicaset", "seen", Kind::Pod)),
    },
    Ablation {
        name: "Deployment: its own version",
        rules: &["S8", "S4", "S7"],
        why: "an old status overwrites what is wanted now, or makes it anew when it is gone",
        without: Without::Guard(|part| part.is("deployment", "seen", Kind::Deployment)),
    },
    Ablation {
        name: "Deployment: the versions of the ReplicaSets that its numbers come from",
        rules: &["S6", "S8", "S4", "S7"],
        why: "an old ReplicaSet is written back, or more pods are allowed than the surge",
        without: Without::Guard(|part| part.is("deployment", "seen", Kind::ReplicaSet) && part.txn.writes().len() > 1),
    },
    Ablation {
        name: "Deployment: its namespace's version, with a new ReplicaSet",
        rules: &["S4"],
        why: "a ReplicaSet is made in a namespace that goes",
        without: Without::Guard(|part| part.is("deployment", "seen", Kind::Namespace)),
    },
    Ablation {
        name: "Deployment: that a new ReplicaSet's name is free",
        rules: &["S7", "S8"],
        why: "somebody else's ReplicaSet is overwritten",
        without: Without::Guard(|part| part.is("deployment", "absent", Kind::ReplicaSet)),
    },
    Ablation {
        name: "Namespace: the version of what it empties",
        rules: &["S1", "S4", "S7", "S8"],
        why: "an old copy is written back, or made anew in a namespace that goes",
        without: Without::Guard(|part| part.by == "namespace" && part.kind() != Some(Kind::Namespace)),
    },
    Ablation {
        name: "Namespace: its own version, when it is let go",
        rules: &["S7"],
        why: "the next namespace of its name goes, with all that is in it",
        without: Without::Guard(|part| part.is("namespace", "seen", Kind::Namespace)),
    },
    Ablation {
        name: "Collector: the version of what is garbage",
        rules: &["S1", "S4", "S7"],
        why: "an old copy is written back, told to go",
        without: Without::Guard(|part| {
            part.by == "collector" && part.guard.is_some_and(|guard| guard.name() == "seen") && is_garbage(part)
        }),
    },
    Ablation {
        name: "Collector: the version of what it lets stay, and of whom it lets go",
        rules: &["S1", "S4", "S7", "S8"],
        why: "an old copy is written back, without its owner",
        without: Without::Guard(|part| {
            part.by == "collector" && part.guard.is_some_and(|guard| guard.name() == "seen") && !is_garbage(part)
        }),
    },
    Ablation {
        name: "Collector: that an owner is gone",
        rules: &[],
        why: "an incarnation that a copy has seen go never comes back, and the object's version says that its owners are the same",
        without: Without::Guard(|part| {
            part.by == "collector" && part.guard.is_some_and(|guard| matches!(guard.name(), "absent" | "alive"))
        }),
    },
    Ablation {
        name: "Clients: that a new object's name is free",
        rules: &["S1", "S7", "S8", "S4"],
        why: "what is there is overwritten",
        without: Without::Guard(|part| part.by == "user" && part.guard.is_some_and(|guard| guard.name() == "absent")),
    },
    Ablation {
        name: "Clients: the namespace's version, with a new object",
        rules: &["S4"],
        why: "it is made in a namespace that goes",
        without: Without::Guard(|part| part.is("user", "seen", Kind::Namespace) && !part.writes()),
    },
    Ablation {
        name: "Clients: that a new object's owner is the one it names",
        rules: &["S4"],
        why: "it is made for an owner that is gone",
        without: Without::Guard(|part| part.by == "user" && part.guard.is_some_and(|guard| guard.name() == "alive")),
    },
    Ablation {
        name: "Clients: the version of what they change or delete",
        rules: &["S1", "S4", "S7", "S8"],
        why: "an old copy is written back, or made anew",
        without: Without::Guard(|part| {
            part.by == "user" && part.guard.is_some_and(|guard| guard.name() == "seen") && part.writes()
        }),
    },
    Ablation {
        name: "Node: its own version, when it is rewritten",
        rules: &["S12", "L1"],
        why: "an old node is written back, with the taint that makes pods leave, or made anew when it is gone",
        without: Without::Guard(|part| part.is("node", "seen", Kind::Node) && part.writes()),
    },
    Ablation {
        name: "Node: that there is no heartbeat",
        rules: &["S12"],
        why: "a node that is back is said not to be heard of",
        without: Without::Guard(|part| part.by == "node" && part.is_heartbeat()),
    },
    Ablation {
        name: "Node: the version of a pod that has to leave, or is not ready",
        rules: &["S1", "S4", "S7"],
        why: "an old copy of the pod is written back, or made anew",
        without: Without::Guard(|part| part.is("node", "seen", Kind::Pod)),
    },
    Ablation {
        name: "Node: its own version, when pods have to leave it",
        rules: &["S12"],
        why: "a pod has to leave for a taint that is not there any more",
        without: Without::Guard(|part| part.is("node", "seen", Kind::Node) && !part.writes()),
    },
    Ablation {
        name: "Node: that it is gone, when its pods are taken away",
        rules: &[],
        why: "a pod goes that its node, which is back, could have kept: to its owner it is one more that was lost",
        without: Without::Guard(|part| part.is("node", "absent", Kind::Node)),
    },
    Ablation {
        name: "Node: the version of its zone's brake",
        rules: &["S12", "L1"],
        why: "two nodes are made to be left in one turn, or an old state of the zone is written back",
        without: Without::Guard(|part| part.by == "node" && part.is_brake()),
    },
    Ablation {
        name: "Node: its placements, rewritten with it",
        rules: &[],
        why: "its controller changes no room, only taints: who is bound on top of one has to leave again",
        without: Without::Write(|part| part.by == "node" && part.is_placement()),
    },
];

/// Whether a collector's transaction deletes: it says that the owners are gone.
fn is_garbage(part: &Part<'_>) -> bool {
    part.txn.guards().iter().any(|guard| matches!(guard.name(), "absent" | "alive"))
}

/// `MECHI_CONTROL_WRITE=1` writes the table into docs/ablations.md.
#[test]
fn ablations_of_the_controllers_are_each_found() {
    ablations("Controllers and clients", run::<World>, ABLATIONS);
}
