//! Sieve's three patterns, enumerated: every transaction that a replica can die after, every revision that it can fail to
//! see, every copy that it can act on too late. Whatever of it happens, no revision breaks a statement, and the end is the
//! end of the run in which nothing happens, but for names, places, times, and makes that are over.
//!
//! - Source: Sun et al., "Automatic Reliability Testing for Cluster Management Controllers", OSDI 2022: intermediate,
//!   unobserved and stale states.

mod world;
#[path = "world/nodes.rs"]
#[allow(dead_code, reason = "scripts say what happens to machines, and dice do not")]
mod nodes;

use mechi_controller::api::change::{Deletion, Half};
use mechi_controller::cache::{Ask, Cache, Feed, Mirror as _};
use mechi_controller::control::Now;
use mechi_controller::control::manager::{Ended, Manager};
use mechi_controller::keys;
use mechi_controller::kv::memory::Memory;
use mechi_controller::kv::{Event, Outcome, Revision, Txn};
use mechi_controller::queue::Priority;
use mechi_controller::sched::view::View;
use mechi_controller::sched::{COMPONENT, Scheduler};
use mechi_controller::types::pod::Pod;
use mechi_controller::types::resource::{Held, Resource as _};
use mechi_controller::types::workload::{Deployment, ReplicaSet};
use nodes::{MACHINES, Machines};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use world::{Ground, Setting};

/// A round's time.
const ROUND_MS: u64 = 1_000;

/// Rounds until everything must have come to rest.
const ROUNDS_MAX: usize = 2_000;

/// Rounds without a change after which it has: three times as long as a heartbeat lasts.
const ROUNDS_IDLE: usize = 30;

/// Rounds after which a script goes on in the middle of what it began.
const ROUNDS_BETWEEN: usize = 4;

/// Plans of one round, and revisions that are heard in one: more than any script has.
const TURNS_MAX: usize = 200;

/// Rounds that who is to miss something waits for something else to happen.
const PATIENCE_ROUNDS: usize = 5;

/// Revisions that are missed in a row, at most.
const GAP_MAX: Revision = 3;

/// How far the store has gone on when somebody acts on a copy.
const LATE: [Revision; 3] = [1, 7, Revision::MAX / 2];

/// What happens to the replica, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// It dies after so many transactions were written, and another one begins.
    Crash(usize),
    /// It does not see from the first to the second revision, and lists what there is afterwards.
    Gap(Revision, Revision),
    /// When the store has reached the second revision, another one acts on a copy of the first.
    Stale(Revision, Revision),
}

/// All controllers and the scheduler, on one copy each.
#[derive(Default)]
struct Replica {
    feed: Feed<Cache>,
    cache: Cache,
    manager: Manager,
    view_feed: Feed<View>,
    view: View,
    scheduler: Scheduler,
}

impl Replica {
    /// Hears one revision of a store, or a list of it.
    fn hear(&mut self, store: &Memory, now: Now) {
        let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
        let changes = match self.feed.ask(&self.cache) {
            Ask::List(range) => {
                let listed = self.feed.listed(&mut self.cache, store.range(&range));
                listed.ok().flatten().map(|changes| (changes, Priority::Review))
            }
            Ask::Watch(from) => {
                let heard = self.feed.heard(&mut self.cache, store.events(&key, &end, from, 1));
                heard.ok().map(|changes| (changes, Priority::Change))
            }
        };
        if let Some((changes, priority)) = changes {
            self.manager.changed(&self.cache, &changes, priority);
        }
        let told = match self.view_feed.ask(&self.view) {
            Ask::List(range) => self.view_feed.listed(&mut self.view, store.range(&range)).ok().flatten(),
            Ask::Watch(from) => self.view_feed.heard(&mut self.view, store.events(&key, &end, from, 1)).ok(),
        };
        if let Some(told) = told {
            self.scheduler.told(&mut self.view, &told, now);
        }
    }

    fn is_watching(&self) -> bool {
        self.feed.is_watching() && self.view_feed.is_watching()
    }

    /// The revision that it hears of next, if there is any.
    fn next(&self, store: &Memory) -> Option<Revision> {
        let Ask::Watch(from) = self.feed.ask(&self.cache) else { return None };
        let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
        let batch = store.events(&key, &end, from, 1).expect("nothing is compacted");
        batch.events.first().map(Event::revision)
    }

    fn relist(&mut self) {
        self.feed.relist();
        self.view_feed.relist();
    }

    /// Does all that it thinks has to be done. Returns whether it lives: it dies once so many transactions were written.
    fn act(&mut self, ground: &mut Ground, token: Revision, written: &mut usize, dies_after: usize) -> bool {
        let now = ground.now();
        for _ in 0..TURNS_MAX {
            let Some((work, plan)) = self.manager.next(&self.cache, now) else { break };
            let mut ended = Ended::Written(None);
            for txn in &plan.txns {
                ended = Ended::of(&ground.write(work.0.name(), txn));
                if !matches!(ended, Ended::Written(_)) {
                    break;
                }
                *written += 1;
                if *written == dies_after {
                    return false;
                }
            }
            self.manager.ended(&work, &ended, now);
        }
        for _ in 0..TURNS_MAX {
            let Some((id, txn)) = self.scheduler.plan(&mut self.view, token, now) else { break };
            let answer = ground.write("scheduler", &txn);
            *written += usize::from(matches!(answer, Ok(Outcome::Committed(_))));
            if *written == dies_after {
                return false;
            }
            let again = self.scheduler.answered(&mut self.view, id, answer, now);
            assert!(again.is_none(), "the outcome was known");
        }
        true
    }
}

/// The scheduler's election is won, by whoever comes.
fn win(ground: &mut Ground) -> Revision {
    let key = keys::election(COMPONENT);
    let _ = ground.write("elector", &Txn::new().delete(key.clone()));
    match ground.write("elector", &Txn::new().put(key, "{}")) {
        Ok(Outcome::Committed(token)) => token,
        other => panic!("nobody can lead: {other:?}"),
    }
}

struct World {
    ground: Ground,
    machines: Machines,
    /// The store before anything happened, from which any later copy is made.
    beginning: Memory,
    replica: Replica,
    token: Revision,
    fault: Fault,
    /// Transactions of the replica that were written.
    written: usize,
    patience: usize,
    /// The machine that the script let die.
    dead: Option<usize>,
}

impl World {
    fn new(fault: Fault) -> Self {
        let mut ground = Ground::new(Setting { seed: 0, talks: false, without: None });
        ground.quiet = true;
        let (beginning, token) = (ground.store.clone(), win(&mut ground));
        Self {
            ground,
            machines: Machines::new(),
            beginning,
            replica: Replica::default(),
            token,
            fault,
            written: 0,
            patience: PATIENCE_ROUNDS,
            dead: None,
        }
    }

    /// Hears all there is, but for what is to be missed.
    fn hear(&mut self) {
        let now = self.ground.now();
        for _ in 0..TURNS_MAX {
            let next = self.replica.next(&self.ground.store);
            if let Fault::Gap(first, last) = self.fault
                && next.is_some_and(|next| (first..=last).contains(&next))
            {
                // Only what is followed by something else can be missed.
                if self.ground.store.revision() <= last && self.patience > 0 {
                    self.patience -= 1;
                    return;
                }
                self.fault = Fault::Nothing;
                self.replica.relist();
            }
            if next.is_none() && self.replica.is_watching() {
                return;
            }
            self.replica.hear(&self.ground.store, now);
        }
    }

    /// Another one acts on the copy that it is to act on, if it is time, or the end.
    fn act_late(&mut self, is_end: bool) {
        let Fault::Stale(copy, at) = self.fault else { return };
        if self.ground.store.revision() < at && !is_end {
            return;
        }
        self.fault = Fault::Nothing;
        let mut late = Replica::default();
        let now = self.ground.now();
        late.hear(&self.beginning, now);
        assert!(late.is_watching(), "one page has all of the beginning");
        while late.cache.at() < copy && late.next(&self.ground.store).is_some() {
            late.hear(&self.ground.store, now);
        }
        // It has led for long: pods have to leave at once if it thinks so.
        late.manager.leads(Now::default());
        late.act(&mut self.ground, self.token, &mut 0, usize::MAX);
    }

    fn round(&mut self) {
        self.ground.tick(ROUND_MS);
        self.act_late(false);
        self.hear();
        let dies_after = if let Fault::Crash(written) = self.fault { written } else { usize::MAX };
        if !self.replica.act(&mut self.ground, self.token, &mut self.written, dies_after) {
            self.fault = Fault::Nothing;
            self.replica = Replica::default();
            self.token = win(&mut self.ground);
        }
        self.act_late(false);
        for n in 0..MACHINES {
            self.machines.agent(&mut self.ground, n, 1);
        }
        self.ground.check().unwrap_or_else(|caught| panic!("{}: {}", caught.rule, caught.text));
    }

    fn rest(&mut self) {
        let mut idle = 0;
        for _ in 0..ROUNDS_MAX {
            let before = self.ground.store.revision();
            self.round();
            idle = if self.ground.store.revision() == before { idle + 1 } else { 0 };
            if idle > ROUNDS_IDLE {
                return;
            }
        }
        panic!("L1: it does not come to rest");
    }

    /// Everything that people and controllers made, but for what may be another each time.
    fn end(&self) -> Vec<String> {
        let mut all: Vec<_> = self.ground.all::<Deployment>().iter().map(|object| object.to_stored()).collect();
        // A make that was wanted only while nobody looked is in nobody's history.
        let sets = self.ground.all::<ReplicaSet>();
        let lives = |set: &&Held<ReplicaSet>| set.wanted() > 0 || set.status.replicas > 0;
        all.extend(sets.iter().filter(lives).map(|object| object.to_stored()));
        all.extend(self.ground.all::<Pod>().iter().map(|object| object.to_stored()));
        let masked = |stored: &[u8]| {
            let mut object: Value = serde_json::from_slice(stored).expect("an object");
            mask(&mut object);
            object.to_string()
        };
        let mut all: Vec<String> = all.iter().map(|stored| masked(stored)).collect();
        all.sort();
        all
    }
}

/// Takes out names, places, times, and how often something was rewritten; puts lists in an order.
fn mask(value: &mut Value) {
    const MASKED: [&str; 15] = [
        "name",
        "generateName",
        "nodeName",
        "pod-template-hash",
        "annotations",
        "uid",
        "generation",
        "observedGeneration",
        "collisionCount",
        "message",
        "creationTimestamp",
        "deletionTimestamp",
        "lastTransitionTime",
        "lastUpdateTime",
        "lastProbeTime",
    ];
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !MASKED.contains(&name.as_str()));
            fields.values_mut().for_each(mask);
        }
        Value::Array(items) => {
            items.iter_mut().for_each(mask);
            items.sort_by_cached_key(|item| item.to_string());
        }
        _ => {}
    }
}

/// What happens, one after the other; each with whether all comes to rest before the next, or that comes in its middle.
type Script = &'static [(fn(&mut World), bool)];

fn make(world: &mut World) {
    let toleration =
        |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3});
    let tolerations = [toleration("node.kubernetes.io/unreachable"), toleration("node.kubernetes.io/not-ready")];
    world.ground.make::<Deployment>(json!({
        "metadata": {"name": "web", "namespace": "a"},
        "spec": {
            "replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
            "revisionHistoryLimit": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "tolerations": tolerations, "containers": [{"name": "c", "image": "1"}],
            }},
        },
    }));
}

fn change(world: &mut World, act: impl FnOnce(&mut Deployment)) {
    let web = world.ground.held::<Deployment>("a", "web").expect("it was made");
    world.ground.modify(&web, Half::Wanted, act);
}

fn scale_up(world: &mut World) {
    change(world, |web| web.spec.replicas = Some(5));
}

fn scale_down(world: &mut World) {
    change(world, |web| web.spec.replicas = Some(1));
}

fn new_image(world: &mut World) {
    change(world, |web| "2".clone_into(&mut web.spec.template.spec.containers[0].image));
}

fn old_image(world: &mut World) {
    change(world, |web| "1".clone_into(&mut web.spec.template.spec.containers[0].image));
}

fn delete(world: &mut World) {
    let web = world.ground.held::<Deployment>("a", "web").expect("it was made");
    world.ground.delete(&web, &Deletion::default());
}

fn orphan(world: &mut World) {
    let web = world.ground.held::<Deployment>("a", "web").expect("it was made");
    world.ground.delete(&web, &Deletion { orphans: true, ..Deletion::default() });
}

/// The machine of the first pod dies.
fn lose(world: &mut World) {
    let pods = world.ground.all::<Pod>();
    let node = pods.iter().map(|pod| &pod.spec.node_name).find(|node| !node.is_empty()).expect("a pod is bound");
    let n: usize = node.trim_start_matches('n').parse().expect("machines have numbers");
    world.machines.die(&world.ground, n);
    world.dead = Some(n);
}

fn find(world: &mut World) {
    let n = world.dead.take().expect("one died");
    world.machines.come_back(&mut world.ground, n);
}

const SCRIPTS: [(&str, Script); 6] = [
    ("make and bind", &[(make, true)]),
    ("scale", &[(make, false), (scale_up, true), (scale_down, true)]),
    ("roll out", &[(make, true), (new_image, false), (old_image, true)]),
    ("delete", &[(make, false), (delete, true)]),
    ("orphan", &[(make, true), (orphan, true), (make, true)]),
    ("lose a node", &[(make, true), (lose, true), (find, true)]),
];

/// What came of a run.
struct Done {
    end: Vec<String>,
    /// The transactions of the replica that the script's part had.
    written: RangeInclusive<usize>,
    /// The revisions that it had.
    revisions: RangeInclusive<Revision>,
}

/// Says which run it was, if it panics.
struct Named(&'static str, Fault);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was {:?} with {:?}", self.0, self.1);
        }
    }
}

/// Runs a script with a fault.
///
/// - Panics: if a statement does not hold, or it does not come to rest.
fn run(name: &'static str, script: Script, fault: Fault) -> Done {
    let _named = Named(name, fault);
    let mut world = World::new(fault);
    // Machines register.
    world.rest();
    let (written, revision) = (world.written, world.ground.store.revision());
    for (act, is_at_rest) in script {
        act(&mut world);
        if *is_at_rest {
            world.rest();
        } else {
            (0..ROUNDS_BETWEEN).for_each(|_| world.round());
        }
    }
    world.act_late(true);
    world.rest();
    world.machines.judge(&world.ground);
    Done {
        end: world.end(),
        written: written + 1..=world.written,
        revisions: revision + 1..=world.ground.store.revision(),
    }
}

/// Runs every script with each of its faults; the end must be that of the run without.
fn sieve(faults: fn(&Done) -> Vec<Fault>) {
    for (name, script) in SCRIPTS {
        let wanted = run(name, script, Fault::Nothing);
        let faults = faults(&wanted);
        let (txns, revisions) = (wanted.written.clone().count(), wanted.revisions.clone().count());
        println!("{name}: {} runs, against one of {txns} transactions and {revisions} revisions", faults.len());
        assert!(faults.len() >= 5, "{name}: there is too little to try");
        for fault in faults {
            let is = run(name, script, fault).end;
            assert!(is == wanted.end, "{name}, {fault:?}: it ends with {is:#?} and not {:#?}", wanted.end);
        }
    }
}

#[test]
fn a_replica_may_die_after_each_of_its_transactions() {
    sieve(|done| done.written.clone().map(Fault::Crash).collect());
}

#[test]
fn a_replica_may_miss_any_revisions() {
    sieve(|done| {
        let gaps = |first: Revision| (0..GAP_MAX).map(move |more| Fault::Gap(first, first + more));
        done.revisions.clone().flat_map(gaps).collect()
    });
}

#[test]
fn a_replica_may_act_on_any_copy_at_any_later_time() {
    sieve(|done| {
        let late = |copy: Revision| LATE.into_iter().map(move |more| Fault::Stale(copy, copy + more));
        done.revisions.clone().flat_map(late).collect()
    });
}
