//! Two schedulers that elect one of them, in a world that kills, pauses and misleads them; judged by the auditor at every
//! revision, and by whether in the end everything is bound that fits.
//!
//! `MECHI_CONTROL_SEEDS=100000` runs so many worlds, `MECHI_CONTROL_SEED=7` one and prints what happens.

mod world;

use mechi_controller::api::change::{Deletion, Half};
use mechi_controller::audit::queues;
use mechi_controller::audit::watch::Watcher;
use mechi_controller::cache::{Feed, Mirror as _};
use mechi_controller::elect::{self, Elector};
use mechi_controller::keys::Kind;
use mechi_controller::kv::{Error, Outcome, Txn};
use mechi_controller::sched::table::Needs;
use mechi_controller::sched::view::{Told, View};
use mechi_controller::sched::{COMPONENT, Scheduler, filter};
use mechi_controller::types::node::Node;
use mechi_controller::types::pod::Pod;
use serde_json::json;
use world::{Ablation, Ground, HOLD, Part, Play, Setting, Without, ablation::ablations, run, worlds};

const REPLICAS: usize = 2;

struct Replica {
    feed: Feed<View>,
    watcher: Watcher,
    view: View,
    scheduler: Scheduler,
    elector: Elector,
    /// The token under which it has listed everything.
    listed: Option<i64>,
    flights: Vec<(u64, Txn)>,
    paused_until_ms: u64,
}

impl Replica {
    fn new(name: u64) -> Self {
        Self {
            feed: Feed::default(),
            watcher: Watcher::default(),
            view: View::default(),
            scheduler: Scheduler::default(),
            elector: Elector::new(COMPONENT, &format!("scheduler-{name}"), 3_000),
            listed: None,
            flights: Vec::new(),
            paused_until_ms: 0,
        }
    }
}

struct World {
    ground: Ground,
    replicas: Vec<Replica>,
    born: u64,
}

impl World {
    /// What people and nodes do.
    fn user(&mut self) {
        match self.ground.rng.below(12) {
            0..5 => {
                let (name, cpu, priority) =
                    (self.ground.rng.below(12), 1 + self.ground.rng.below(3), self.ground.rng.below(3));
                let policy = if self.ground.rng.below(4) == 0 { "Never" } else { "PreemptLowerPriority" };
                let tolerates = self.ground.rng.below(3) == 0;
                let finalizers = if self.ground.rng.below(4) == 0 { json!([HOLD]) } else { json!([]) };
                let ports = if self.ground.rng.below(5) == 0 {
                    json!([{"containerPort": 80, "hostPort": 80}])
                } else {
                    json!([])
                };
                self.ground.say(|| format!("a user makes pod p{name} with {cpu} cores, priority {priority}, {policy}"));
                let tolerations = if tolerates { json!([{"operator": "Exists"}]) } else { json!([]) };
                self.ground.make::<Pod>(json!({
                    "metadata": {"name": format!("p{name}"), "namespace": "a", "finalizers": finalizers},
                    "spec": {
                        "priority": priority, "preemptionPolicy": policy, "tolerations": tolerations,
                        "containers": [{"name": "c", "image": "i", "ports": ports, "resources": {"requests": {"cpu": cpu.to_string()}}}],
                    },
                }));
            }
            5 | 6 => {
                if let Some(pod) = self.ground.pick::<Pod>() {
                    self.ground.say(|| format!("a user deletes pod {}", pod.metadata.name));
                    let grace = Some(if self.ground.rng.below(2) == 0 { 0 } else { 30 });
                    self.ground.delete(&pod, &Deletion { grace, ..Deletion::default() });
                }
            }
            7 | 8 => {
                let (name, cpu) = (self.ground.rng.below(4), 1 + self.ground.rng.below(6));
                self.ground.say(|| format!("node n{name} registers with {cpu} cores"));
                self.ground.make::<Node>(json!({
                    "metadata": {"name": format!("n{name}")},
                    "status": {"capacity": {"cpu": cpu.to_string(), "memory": "8Gi", "pods": "4"}},
                }));
            }
            9 => {
                if let Some(node) = self.ground.pick::<Node>() {
                    self.ground.say(|| format!("node {} is deleted", node.metadata.name));
                    // Who is on it is gone with it.
                    for pod in self.ground.all::<Pod>().iter().filter(|pod| pod.spec.node_name == node.metadata.name) {
                        self.ground.delete(pod, &Deletion { grace: Some(0), ..Deletion::default() });
                    }
                    self.ground.delete(&node, &Deletion::default());
                }
            }
            10 => {
                if let Some(node) = self.ground.pick::<Node>() {
                    let cordon = !node.spec.unschedulable;
                    self.ground.say(|| format!("node {} takes nothing new: {cordon}", node.metadata.name));
                    self.ground.modify(&node, Half::Wanted, |new| new.spec.unschedulable = cordon);
                }
            }
            _ => {
                if let Some(pod) = self.ground.pick::<Pod>().filter(|pod| !pod.spec.node_name.is_empty()) {
                    self.ground.say(|| format!("pod {} is over", pod.metadata.name));
                    self.ground.modify(&pod, Half::Status, |new| "Succeeded".clone_into(&mut new.status.phase));
                }
            }
        }
    }

    /// A node stops a pod that was told to go; what is held is let go.
    fn stop(&mut self) {
        let going: Vec<_> = self.ground.all::<Pod>().into_iter().filter(|pod| pod.metadata.is_going()).collect();
        if going.is_empty() {
            return;
        }
        let pod = &going[self.ground.rng.below(going.len() as u64) as usize];
        if pod.metadata.finalizers.is_empty() {
            self.ground.say(|| format!("{} has stopped", pod.metadata.name));
            self.ground.delete(pod, &Deletion { grace: Some(0), ..Deletion::default() });
        } else {
            self.ground.release(pod);
        }
    }

    fn hear(&mut self, n: usize, revisions_max: usize) {
        let now = self.ground.now();
        let replica = &mut self.replicas[n];
        let told = self.ground.hear(&mut replica.feed, &mut replica.view, &mut replica.watcher, revisions_max);
        if let Some((mut told, _)) = told {
            if self.ground.is_without("waits") {
                told.retain(|one| !matches!(one, Told::Waits { .. }));
            }
            replica.scheduler.told(&mut replica.view, &told, now);
        }
        assert_eq!(used(&replica.view), replica.view.used_anew(), "what is used is not what its pods need");
        self.queues(n);
    }

    /// A replica's part in the election.
    fn elect(&mut self, n: usize) {
        let ms = self.ground.ms;
        let fault = self.ground.fault();
        let replica = &mut self.replicas[n];
        let held = replica.view.election(COMPONENT).cloned();
        let ask = replica.elector.ask(held.as_ref(), replica.view.at(), ms);
        let lost = || Error::Unknown("lost".to_owned());
        match ask {
            None => {}
            Some(elect::Ask::Grant(ttl)) => {
                let lease = self.ground.store.grant(ttl, ms);
                replica.elector.granted(if fault == 0 { Err(lost()) } else { Ok(lease) }, ms, ms);
            }
            Some(elect::Ask::KeepAlive(id)) => {
                let kept = if fault == 0 { Err(lost()) } else { self.ground.store.keep_alive(id, ms) };
                replica.elector.kept_alive(kept, ms, ms);
            }
            Some(elect::Ask::Campaign(txn)) => {
                let answer = self.ground.write("elector", &txn);
                let answer = if fault == 0 { Err(lost()) } else { answer };
                self.ground.say(|| format!("replica {n} campaigns: {answer:?}"));
                self.replicas[n].elector.campaigned(answer, ms);
            }
        }
        let replica = &mut self.replicas[n];
        let token = replica.elector.token();
        if token != replica.listed {
            // Nothing that was before the token is acted on.
            replica.listed = token;
            replica.scheduler.reset(&mut replica.view);
            replica.flights.clear();
            if token.is_some() && !self.ground.is_without("list") {
                replica.feed.relist();
                replica.watcher.relists();
            }
        }
    }

    fn plan(&mut self, n: usize) {
        let now = self.ground.now();
        let replica = &mut self.replicas[n];
        let Some(token) = replica.elector.active(self.ground.ms) else { return };
        let is_caught_up = replica.view.at() >= token || self.ground.is_without("list");
        if replica.feed.is_watching() && is_caught_up && replica.listed == Some(token) {
            let victims = replica.scheduler.victims();
            let bind = match &victims {
                // They are read in a step of their own, so that anything may happen before it, and after it.
                Some(victims) => {
                    let read = self.ground.read(victims);
                    let replica = &mut self.replicas[n];
                    replica.scheduler.make_room(&mut replica.view, &read, token, now)
                }
                None => replica.scheduler.plan(&mut replica.view, token, now),
            };
            self.replicas[n].flights.extend(bind);
            self.queues(n);
        }
    }

    fn deliver(&mut self, n: usize) {
        let flights = self.replicas[n].flights.len() as u64;
        if flights == 0 {
            return;
        }
        let which = self.ground.rng.below(flights) as usize;
        let (id, txn) = self.replicas[n].flights.remove(which);
        let answer = self.ground.deliver("scheduler", &txn);
        self.ground.say(|| format!("replica {n} writes {} things: {answer:?}", txn.writes().len()));
        let now = self.ground.now();
        let replica = &mut self.replicas[n];
        if let Some(again) = replica.scheduler.answered(&mut replica.view, id, answer, now) {
            replica.flights.push((id, again));
        }
        self.queues(n);
        self.notes(n);
    }

    /// S11: whoever waits is in one place.
    fn queues(&mut self, n: usize) {
        let replica = &self.replicas[n];
        self.ground.found.extend(queues::waiting(&replica.view, &replica.scheduler));
    }

    /// What people are told is so.
    fn notes(&mut self, n: usize) {
        for note in self.replicas[n].scheduler.take_notes() {
            let about = note.about.expect("it is about a pod");
            let pod = self.ground.held::<Pod>("a", about.key.name()).filter(|pod| pod.metadata.uid == about.uid);
            let Some(pod) = pod else { continue };
            match note.reason {
                "Scheduled" => {
                    let bound = format!("Successfully assigned a/{} to {}", pod.metadata.name, pod.spec.node_name);
                    assert_eq!(note.message, bound);
                }
                "Preempted" => assert!(pod.metadata.is_going(), "{} stays: {}", pod.metadata.name, note.message),
                _ => {}
            }
        }
    }
}

impl Play for World {
    const STEPS: usize = 600;
    // With their times this is longer than the longest rest of a pod, which is one minute.
    const IDLE_ROUNDS: usize = 150;

    fn new(setting: Setting) -> Self {
        let replicas = (0..REPLICAS as u64).map(Replica::new).collect();
        Self { ground: Ground::new(setting), replicas, born: REPLICAS as u64 }
    }

    fn ground(&mut self) -> &mut Ground {
        &mut self.ground
    }

    fn step(&mut self) {
        let n = self.ground.rng.below(REPLICAS as u64) as usize;
        let ms = self.ground.rng.below(20);
        self.ground.tick(ms);
        let what = self.ground.rng.below(100);
        if self.replicas[n].paused_until_ms > self.ground.ms && (12..85).contains(&what) {
            return;
        }
        match what {
            0..10 => self.user(),
            10..12 => self.stop(),
            12..14 => self.ground.arrive(),
            14..35 => self.hear(n, 1),
            35..45 => self.elect(n),
            45..62 => self.plan(n),
            62..85 => self.deliver(n),
            85..88 => {
                self.ground.say(|| format!("replica {n} is killed"));
                let late: Vec<Txn> = self.replicas[n].flights.drain(..).map(|(_, txn)| txn).collect();
                self.born += 1;
                self.replicas[n] = Replica::new(self.born);
                for txn in late {
                    if self.ground.rng.below(2) == 0 {
                        let _ = self.ground.write("scheduler", &txn);
                    }
                }
            }
            88..91 => self.replicas[n].paused_until_ms = self.ground.ms + self.ground.rng.below(6_000),
            91..94 => {
                self.ground.compact();
            }
            94..96 => {
                self.replicas[n].feed.relist();
                self.replicas[n].watcher.relists();
            }
            _ => self.ground.ms += self.ground.rng.below(1_500),
        }
    }

    fn round(&mut self, idle: usize) -> bool {
        // Less than a third of a lease's time.
        self.ground.tick(if idle > 50 { 700 } else { 50 });
        self.stop();
        for n in 0..REPLICAS {
            self.hear(n, usize::MAX);
            self.elect(n);
            self.plan(n);
            self.deliver(n);
        }
        self.replicas.iter().all(|replica| replica.flights.is_empty() && replica.scheduler.victims().is_none())
    }

    fn judge(&mut self) {
        let leader = self.replicas.iter_mut().find(|replica| replica.elector.token().is_some());
        let leader = leader.expect("L3: somebody leads");
        assert!((leader.scheduler.flights(), leader.view.assumed()) == (0, 0), "L4: something is still on its way");
        let [active, _, _, in_hand] = leader.scheduler.queues().lengths();
        assert!((active, in_hand) == (0, 0), "L4: somebody waits for nothing");
        let (mut waiting, mut bound) = (0, 0);
        for pod in self.ground.all::<Pod>().iter().filter(|pod| pod.is_active()) {
            if !pod.spec.node_name.is_empty() {
                bound += 1;
                continue;
            }
            waiting += 1;
            let needs = Needs::of(&pod.spec);
            let reasons = leader.view.table().reasons(&pod.spec, &needs);
            let sentence = filter::sentence(leader.view.table().len(), &reasons);
            let against: usize = leader.view.table().clone().best(&pod.spec, &needs, 0).map_or(0, |_| 1);
            assert!(against == 0, "L3: {} fits somewhere and waits", pod.metadata.name);
            let nominated = &pod.status.nominated_node_name;
            assert!(nominated.is_empty(), "L3: {} waits for room on {nominated}, and nobody goes", pod.metadata.name);
            if let Some(node) = self.ground.makes_room(pod) {
                panic!("L3: {} waits, and less urgent ones could go from {node}", pod.metadata.name);
            }
            let sentence = match (pod.spec.preemption_policy.as_str(), leader.view.table().len()) {
                (_, 0) => sentence,
                ("Never", _) => format!("{sentence} preemption: not eligible due to preemptionPolicy=Never."),
                (_, nodes) => format!("{sentence} preemption: 0/{nodes} nodes are available: "),
            };
            let condition = pod.status.conditions.iter().find(|condition| condition.r#type == "PodScheduled");
            let condition = condition.unwrap_or_else(|| panic!("L3: {} does not say why it waits", pod.metadata.name));
            assert!(
                condition.message.starts_with(&sentence),
                "L3: {} says {:?}, and it is {sentence:?}",
                pod.metadata.name,
                condition.message
            );
        }
        let (waits, binds, _) = leader.view.counts();
        assert!(waits == waiting && binds >= bound, "L4: {waits} of {waiting} wait, {binds} of {bound} are bound");
    }
}

fn used(view: &View) -> std::collections::BTreeMap<String, mechi_controller::sched::amounts::Amounts> {
    let all = view.table().names();
    let used = all.map(|name| (name.clone(), view.table().used(view.table().place(name).expect("is there")).clone()));
    used.filter(|(_, used)| used.pods != 0).collect()
}

#[test]
fn whatever_happens_to_the_schedulers_no_node_is_overcommitted_and_all_that_fits_is_bound() {
    worlds(run::<World>);
}

/// The first of two binds is lost, and the node's placements are rewritten by its deletion: a second bind that had been told
/// the next version would find it.
#[test]
fn a_bind_that_is_lost_does_not_let_the_next_one_pass_for_it() {
    let mut world = World::new(Setting { seed: 0, talks: false, without: None });
    world.ground.quiet = true;
    world.ground.make::<Node>(
        json!({"metadata": {"name": "n0"}, "status": {"capacity": {"cpu": "6", "memory": "8Gi", "pods": "4"}}}),
    );
    let pod = |name: &str| json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    world.ground.make::<Pod>(pod("first"));
    for _ in 0..3 {
        world.hear(0, usize::MAX);
        world.elect(0);
    }
    world.hear(0, usize::MAX);
    world.plan(0);
    assert_eq!(world.replicas[0].flights.len(), 1, "the first bind is on its way");
    world.ground.make::<Pod>(pod("second"));
    world.hear(0, usize::MAX);
    world.plan(0);
    assert_eq!(world.replicas[0].flights.len(), 1, "nobody else is placed there meanwhile");

    let (id, _) = world.replicas[0].flights.remove(0);
    let node = world.ground.held::<Node>("", "n0").expect("is there");
    world.ground.delete(&node, &Deletion::default());
    let now = world.ground.now();
    let replica = &mut world.replicas[0];
    let lost = Err(Error::Unavailable("lost".to_owned()));
    assert!(replica.scheduler.answered(&mut replica.view, id, lost, now).is_none());
    world.plan(0);
    for (id, txn) in std::mem::take(&mut world.replicas[0].flights) {
        let answer = world.ground.write("scheduler", &txn);
        assert!(
            matches!(answer, Ok(Outcome::Refused { .. })),
            "the copy does not know that the node is gone: {answer:?}"
        );
        let replica = &mut world.replicas[0];
        assert!(replica.scheduler.answered(&mut replica.view, id, answer, now).is_none());
    }
    assert_eq!(world.ground.auditor.findings(), []);
}

/// Guards of the scheduler and of its election.
const ABLATIONS: &[Ablation] = &[
    Ablation {
        name: "Scheduler: the fence",
        rules: &["S3"],
        why: "somebody writes who does not lead any more",
        without: Without::Guard(|part| {
            part.by == "scheduler" && part.guard.is_some_and(|guard| guard.name() == "fence")
        }),
    },
    Ablation {
        name: "Scheduler: the version of a node's placements, with a bind",
        rules: &["S2"],
        why: "pods are bound to a node that is gone, or that has too little left",
        without: Without::Guard(|part| part.by == "scheduler" && part.is_placement()),
    },
    Ablation {
        name: "Scheduler: the pod's version, with a bind",
        rules: &["S1", "S7"],
        why: "a pod is bound twice, or comes back when it is gone",
        without: Without::Guard(|part| part.is("scheduler", "seen", Kind::Pod) && does(part) == Does::Bind),
    },
    Ablation {
        name: "Scheduler: the pod's version, when it says why it waits",
        rules: &["S1", "S7"],
        why: "an old copy of the pod is written back",
        without: Without::Guard(|part| part.is("scheduler", "seen", Kind::Pod) && does(part) == Does::Wait),
    },
    Ablation {
        name: "Scheduler: a victim's version, when it is told to go",
        rules: &["S1", "S7"],
        why: "a pod that is gone comes back, or an old copy of it is written back",
        without: Without::Guard(|part| part.is("scheduler", "seen", Kind::Pod) && does(part) == Does::Go),
    },
    Ablation {
        name: "Nodes: their placements are rewritten with whatever changes their room",
        rules: &["S2"],
        why: "a bind does not know of the change",
        without: Without::Write(|part| part.by == "user" && part.is_placement()),
    },
    Ablation {
        name: "Election: that nobody leads",
        rules: &["L1", "L3", "L4"],
        why: "the key is somebody else's incarnation, so that its own fence keeps the winner out",
        without: Without::Guard(|part| part.by == "elector"),
    },
    Ablation {
        name: "Scheduler: that it is told who waits",
        rules: &["S11"],
        why: "a pod waits and is in no queue",
        without: Without::Step("waits"),
    },
    Ablation {
        name: "Scheduler: the list after it has won",
        rules: &[],
        why: "a node's version says the same of what the former leader bound; without that version it is needed, which the model shows",
        without: Without::Step("list"),
    },
];

/// What becomes of a pod that the scheduler writes.
#[derive(PartialEq, Eq)]
enum Does {
    Bind,
    Wait,
    Go,
}

fn does(part: &Part<'_>) -> Does {
    let Some(pod) = part.puts() else { return Does::Go };
    let has = |path: &str| pod.pointer(path).is_some();
    match (has("/metadata/deletionTimestamp"), has("/spec/nodeName")) {
        (true, _) => Does::Go,
        (false, true) => Does::Bind,
        (false, false) => Does::Wait,
    }
}

/// `MECHI_CONTROL_WRITE=1` writes the table into docs/ablations.md.
#[test]
fn ablations_of_the_scheduler_are_each_found() {
    ablations("Scheduler", run::<World>, ABLATIONS);
}
