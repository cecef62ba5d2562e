//! Sieve's three patterns, enumerated: every state between two transactions that a controller can die in, every revision
//! that it can fail to see, every copy that it can act on too late. Whatever of it happens, the end is the end of the run
//! in which nothing does, but for names and times.
//!
//! - Source: Sun et al., "Automatic Reliability Testing for Cluster Management Controllers", OSDI 2022.

mod world;

use mechi_controller::api::change::{Deletion, Half};
use mechi_controller::cache::{Ask, Cache, Feed};
use mechi_controller::control::manager::{Ended, Manager};
use mechi_controller::keys;
use mechi_controller::kv::Outcome;
use mechi_controller::kv::memory::Memory;
use mechi_controller::queue::Priority;
use mechi_controller::types::meta::{Condition, set_condition};
use mechi_controller::types::pod::Pod;
use mechi_controller::types::resource::Resource as _;
use mechi_controller::types::workload::{Deployment, ReplicaSet};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use world::{Ground, Setting};

/// Rounds until everything must have come to rest.
const ROUNDS_MAX: usize = 2_000;

/// Rounds without a change after which it has: longer than any wait after a failure, since each takes a second.
const ROUNDS_IDLE: usize = 70;

/// What happens to the controllers, once.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    /// They die after so many transactions; with the last one's answer, or without.
    Crash(usize),
    /// They do not see these revisions.
    Hidden(i64, i64),
    /// At the second revision, others begin with a copy of the first: they hear of a member that lags, and act on it.
    Stale(i64, i64),
}

#[derive(Default)]
struct Replica {
    feed: Feed<Cache>,
    cache: Cache,
    manager: Manager,
}

impl Replica {
    /// Hears one revision, or a list, of a store.
    fn hear(&mut self, store: &Memory) {
        let changes = match self.feed.ask(&self.cache) {
            Ask::List(range) => {
                let listed = self.feed.listed(&mut self.cache, store.range(&range));
                listed.ok().flatten().map(|changes| (changes, Priority::Review))
            }
            Ask::Watch(from) => {
                let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
                let heard = self.feed.heard(&mut self.cache, store.events(&key, &end, from, 1));
                heard.ok().map(|changes| (changes, Priority::Change))
            }
        };
        if let Some((changes, priority)) = changes {
            self.manager.changed(&self.cache, &changes, priority);
        }
    }

    /// The revision that it hears of next, if there is any.
    fn next(&mut self, store: &Memory) -> Option<i64> {
        let Ask::Watch(from) = self.feed.ask(&self.cache) else { return None };
        let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
        let batch = store.events(&key, &end, from, 1).ok()?;
        batch.events.first().map(|event| event.revision())
    }
}

struct World {
    ground: Ground,
    replica: Replica,
    fault: Fault,
    /// Transactions of the controllers that were written.
    txns: usize,
    /// The store as it was, for those who will hear of a member that lags.
    lagging: Option<Memory>,
}

impl World {
    /// Works on everything that there is to do now.
    fn work(&mut self) {
        while let Some((work, plan)) = self.replica.manager.next(&self.replica.cache, self.ground.now()) {
            let mut ended = Ended::Written(None);
            for txn in &plan.txns {
                let answer = self.ground.write(work.0.name(), txn);
                ended = Ended::of(&answer);
                self.txns += usize::from(matches!(answer, Ok(Outcome::Committed(_))));
                if self.fault == Fault::Crash(self.txns) {
                    self.fault = Fault::Nothing;
                    self.replica = Replica::default();
                    return;
                }
                if !matches!(ended, Ended::Written(_)) {
                    break;
                }
            }
            let now = self.ground.now();
            self.replica.manager.ended(&work, &ended, now);
        }
    }

    /// Nodes make the first pod ready that is not, or take away one that has to go.
    fn node(&mut self) {
        let has_to_do = |pod: &Pod| pod.metadata.is_going() || !pod.is_ready();
        let Some(pod) = self.ground.all::<Pod>().into_iter().find(|pod| has_to_do(pod)) else { return };
        if pod.metadata.is_going() {
            return self.ground.delete(&pod, &Deletion { grace: Some(0), ..Deletion::default() });
        }
        let now = self.ground.now().time;
        self.ground.modify(&pod, Half::Status, |new| {
            "Running".clone_into(&mut new.status.phase);
            let ready = Condition { r#type: "Ready".to_owned(), status: "True".to_owned(), ..Condition::default() };
            set_condition(&mut new.status.conditions, ready, now);
        });
    }

    /// Others begin on a copy that is old, do all that they think has to be done, and die.
    fn act_late(&mut self, lagging: &Memory) {
        let mut late = Replica::default();
        (0..4).for_each(|_| late.hear(lagging));
        assert!(late.feed.is_watching(), "the lagging member does not answer");
        while let Some((work, plan)) = late.manager.next(&late.cache, self.ground.now()) {
            let mut ended = Ended::Written(None);
            for txn in &plan.txns {
                ended = Ended::of(&self.ground.write(work.0.name(), txn));
                if !matches!(ended, Ended::Written(_)) {
                    break;
                }
            }
            let now = self.ground.now();
            late.manager.ended(&work, &ended, now);
        }
    }

    fn round(&mut self) {
        self.ground.ms += 1_000;
        let at = self.ground.store.revision();
        if let Fault::Stale(from, until) = self.fault {
            if at >= from && self.lagging.is_none() {
                self.lagging = Some(self.ground.store.clone());
            }
            if at >= until
                && let Some(lagging) = self.lagging.take()
            {
                self.fault = Fault::Nothing;
                self.act_late(&lagging);
            }
        }
        for _ in 0..64 {
            let next = self.replica.next(&self.ground.store);
            if let Fault::Hidden(one, other) = self.fault
                && next.is_some_and(|next| next == one || next == other)
            {
                // Something else happens, and then they list what there is.
                self.node();
                self.replica.feed.relist();
                if next == Some(one.max(other)) {
                    self.fault = Fault::Nothing;
                }
            }
            self.replica.hear(&self.ground.store);
            if next.is_none() && self.replica.feed.is_watching() {
                break;
            }
        }
        self.work();
        self.node();
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
        panic!("it does not come to rest");
    }
}

/// What a person does, one after the other; each once all is at rest, or in the middle of what the one before began.
type Script = &'static [(fn(&mut Ground), bool)];

fn make(ground: &mut Ground) {
    ground.make::<Deployment>(json!({
        "metadata": {"name": "web", "namespace": "a"},
        "spec": {
            "replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}, "revisionHistoryLimit": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "1"}]}},
        },
    }));
}

fn change(ground: &mut Ground, act: impl FnOnce(&mut Deployment)) {
    let web = ground.held::<Deployment>("a", "web").expect("it was made");
    ground.modify(&web, Half::Wanted, act);
}

fn image(ground: &mut Ground, image: &str) {
    change(ground, |web| image.clone_into(&mut web.spec.template.spec.containers[0].image));
}

fn delete(ground: &mut Ground, orphans: bool) {
    let web = ground.held::<Deployment>("a", "web").expect("it was made");
    ground.delete(&web, &Deletion { orphans, ..Deletion::default() });
}

const ROLLOUT: Script = &[(make, true), (|ground| image(ground, "2"), false), (|ground| image(ground, "1"), true)];
const SCALE: Script =
    &[(make, false), (|ground| change(ground, |web| web.spec.replicas = Some(5)), true), (|ground| change(ground, |web| web.spec.replicas = Some(1)), true)];
const ADOPTION: Script = &[(make, true), (|ground| delete(ground, true), true), (make, true)];
const DELETION: Script = &[(make, false), (|ground| delete(ground, false), true)];

/// Runs a script; returns what is in the end, transactions of the controllers, and the last revision.
fn run(script: Script, fault: Fault) -> (Vec<String>, usize, i64) {
    let mut ground = Ground::new(Setting { seed: 0, talks: false, without: None });
    ground.quiet = true;
    let mut world = World { ground, replica: Replica::default(), fault, txns: 0, lagging: None };
    for (act, is_at_rest) in script {
        act(&mut world.ground);
        if *is_at_rest {
            world.rest();
        } else {
            (0..4).for_each(|_| world.round());
        }
    }
    // A fault that is for later than the end happens now.
    if let Some(lagging) = world.lagging.take() {
        world.act_late(&lagging);
    }
    world.rest();
    world.ground.check().unwrap_or_else(|caught| panic!("{fault:?}: {}: {}", caught.rule, caught.text));
    let last = world.ground.store.revision();
    (end(&world.ground), world.txns, last)
}

/// Everything that is, but for names and times.
fn end(ground: &Ground) -> Vec<String> {
    let stored = |bytes: bytes::Bytes| serde_json::from_slice::<Value>(&bytes).expect("an object");
    let mut all: Vec<Value> = ground.all::<Deployment>().iter().map(|object| stored(object.to_stored())).collect();
    all.extend(ground.all::<ReplicaSet>().iter().map(|object| stored(object.to_stored())));
    all.extend(ground.all::<Pod>().iter().map(|object| stored(object.to_stored())));
    all.iter_mut().for_each(mask);
    let mut all: Vec<String> = all.iter().map(Value::to_string).collect();
    all.sort();
    all
}

/// Takes out what may be another each time: times, incarnations, how often something was rewritten, names that were drawn.
fn mask(value: &mut Value) {
    const MASKED: [&str; 10] = [
        "creationTimestamp", "deletionTimestamp", "uid", "generation", "observedGeneration", "lastTransitionTime",
        "lastUpdateTime", "lastProbeTime", "annotations", "collisionCount",
    ];
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !MASKED.contains(&name.as_str()));
            if fields.contains_key("generateName") {
                fields.remove("name");
            }
            fields.values_mut().for_each(mask);
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

/// Runs a script with each fault; the end must be the same.
fn sieve(script: Script, faults: impl Fn(usize, i64) -> Vec<Fault>) {
    let (wanted, txns, last) = run(script, Fault::Nothing);
    let faults = faults(txns, last);
    println!("{} runs, against one of {txns} transactions and {last} revisions", faults.len());
    assert!(faults.len() > 10, "there is too little to try");
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for fault in faults {
        let (is, ..) = run(script, fault);
        if is != wanted {
            wrong.insert(format!("{fault:?}"), is);
        }
    }
    let first = wrong.iter().next();
    assert!(wrong.is_empty(), "{} ends differ; {first:?} and not {wanted:?}", wrong.len());
}

fn scripts() -> [Script; 4] {
    [ROLLOUT, SCALE, ADOPTION, DELETION]
}

#[test]
fn a_controller_may_die_after_each_of_its_transactions() {
    for script in scripts() {
        sieve(script, |txns, _| (1..=txns).map(Fault::Crash).collect());
    }
}

#[test]
fn a_controller_may_fail_to_see_any_two_revisions() {
    for script in scripts() {
        let pairs = |last| (1..=last).flat_map(move |one| (one..=last.min(one + 4)).map(move |two| Fault::Hidden(one, two)));
        sieve(script, |_, last| pairs(last).collect());
    }
}

#[test]
fn a_controller_may_act_on_any_copy_at_any_later_time() {
    for script in scripts() {
        let pairs = |last| (2..=last).flat_map(move |from| (from + 1..=last + 1).step_by(3).map(move |at| Fault::Stale(from, at)));
        sieve(script, |_, last| pairs(last).collect());
    }
}
