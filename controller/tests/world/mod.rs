//! What both worlds stand on: a store, a clock, dice, people who change objects, and the auditor, who sees every revision.
//!
//! In reading order: `ablation` (what is left out, to see who finds it), `many` (many worlds, and what became of them), `play`
//! (how one is played), and the ground here.

#![allow(dead_code, unused_imports, reason = "each of the tests that stand on it needs some of it")]

pub(crate) mod ablation;
mod many;
mod play;

pub(crate) use ablation::{Ablation, Part, Without};
pub(crate) use many::{Caught, Run, Setting, attempt, variable, worlds};
pub(crate) use play::{Play, run};

use mechi_controller::api::change::{self, Deletion, Half, Rules};
use mechi_controller::api::{self, change::create};
use mechi_controller::audit::watch::{History, Watcher};
use mechi_controller::audit::{Auditor, Finding};
use mechi_controller::cache::{Ask, Cached, Feed, Mirror};
use mechi_controller::control::Now;
use mechi_controller::keys::{self, Kind, ObjectKey};
use mechi_controller::kv::memory::Memory;
use mechi_controller::kv::{Error, KeyValue, Outcome, Txn, Write};
use mechi_controller::queue::Priority;
use mechi_controller::sched::amounts::Amounts;
use mechi_controller::sched::filter::keeps_out;
use mechi_controller::sched::table::Needs;
use mechi_controller::types::node::{Namespace, Node};
use mechi_controller::types::pod::Pod;
use mechi_controller::types::resource::Held;
use mechi_controller::types::time::Time;
use mechi_controller::types::workload::ReplicaSet;
use serde_json::json;

const CLUSTER: u64 = 0xfeed_beef_0123_4567;

/// Transactions of people and nodes that are late at once.
const LATE_MAX: usize = 6;

/// Keeps an object until somebody lets it go.
pub(crate) const HOLD: &str = "example.com/hold";

/// SplitMix64.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A store that is audited, with one namespace, `a`.
pub(crate) struct Ground {
    pub(crate) rng: Rng,
    pub(crate) store: Memory,
    pub(crate) auditor: Auditor,
    /// What watchers are told is compared with it.
    history: History,
    /// What others than the auditor of the store found: of watchers, journals and queues.
    pub(crate) found: Vec<Finding>,
    audited: i64,
    pub(crate) ms: u64,
    /// No more faults.
    pub(crate) quiet: bool,
    talks: bool,
    without: Option<&'static Ablation>,
    /// What people and nodes have sent off, and what has not arrived.
    late: Vec<Txn>,
    /// What must never be and the history alone does not show, since it does not say who wrote what.
    broken: Option<(&'static str, String)>,
}

impl Ground {
    pub(crate) fn new(Setting { seed, talks, without }: Setting) -> Self {
        let (store, auditor) = (Memory::new(CLUSTER), Auditor::begin(CLUSTER, vec![], 1));
        let (history, found) = (History::begin(&[], 1), Vec::new());
        let (rng, late) = (Rng(seed), Vec::new());
        let mut ground = Self {
            rng,
            store,
            auditor,
            history,
            found,
            broken: None,
            audited: 1,
            ms: 0,
            quiet: true,
            talks,
            without,
            late,
        };
        ground.make::<Namespace>(json!({"metadata": {"name": "a"}}));
        ground.quiet = false;
        ground
    }

    /// Whether something that whoever holds the core does is left out.
    pub(crate) fn is_without(&self, step: &str) -> bool {
        self.without.is_some_and(|ablation| matches!(ablation.without, Without::Step(name) if name == step))
    }

    /// Whether all was right until now.
    pub(crate) fn check(&self) -> Result<(), Caught> {
        let ms = Some(self.ms);
        if let Some(finding) = self.auditor.findings().first().or(self.found.first()) {
            return Err(Caught { rule: finding.rule.to_owned(), text: finding.to_string(), ms });
        }
        let broken = self.broken.as_ref();
        broken.map_or(Ok(()), |(rule, text)| Err(Caught { rule: (*rule).to_owned(), text: text.clone(), ms }))
    }

    /// Tells what happens, if anybody listens.
    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if self.talks {
            println!("{:6} ms, revision {:4}: {}", self.ms, self.store.revision(), text());
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now { ms: self.ms, time: Time(1_800_000_000 + (self.ms / 1_000) as i64) }
    }

    /// One of ten faults, or none of them once it is quiet.
    pub(crate) fn fault(&mut self) -> u64 {
        if self.quiet { 9 } else { self.rng.below(10) }
    }

    pub(crate) fn held<T: Cached>(&self, namespace: &str, name: &str) -> Option<Held<T>> {
        self.auditor.cache().get::<T>(namespace, name).cloned()
    }

    pub(crate) fn all<T: Cached>(&self) -> Vec<Held<T>> {
        self.auditor.cache().all::<T>().cloned().collect()
    }

    pub(crate) fn pick<T: Cached>(&mut self) -> Option<Held<T>> {
        let all = self.all::<T>();
        (!all.is_empty()).then(|| all[self.rng.below(all.len() as u64) as usize].clone())
    }

    /// Lets the auditor look at what it has not seen.
    pub(crate) fn audit(&mut self) {
        let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
        let batch =
            self.store.events(&key, &end, self.audited + 1, usize::MAX).expect("audited before it is compacted");
        self.audited = batch.through;
        self.history.see(&batch);
        self.auditor.see(batch);
    }

    /// Time passes: leases end, and the auditor looks.
    pub(crate) fn tick(&mut self, ms: u64) {
        self.ms += ms;
        self.store.expire(self.ms);
        self.audit();
    }

    /// Somebody asks the store for what is next: a page of a list of everything, or some revisions of a watch. Returns what
    /// changed in the copy, and how soon it is to be looked at.
    pub(crate) fn hear<M: Mirror>(
        &mut self,
        feed: &mut Feed<M>,
        copy: &mut M,
        watcher: &mut Watcher,
        revisions_max: usize,
    ) -> Option<(M::Changes, Priority)> {
        match feed.ask(copy) {
            Ask::List(range) => {
                let page = self.store.range(&range);
                match &page {
                    Ok(page) => self.found.extend(self.history.listed(watcher, page)),
                    Err(_) => watcher.relists(),
                }
                let listed = feed.listed(copy, page).ok().flatten();
                listed.map(|changes| (changes, Priority::Review))
            }
            Ask::Watch(from) => {
                let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
                let events = self.store.events(&key, &end, from, revisions_max);
                if let Ok(batch) = &events {
                    self.found.extend(self.history.heard(watcher, from, batch));
                }
                feed.heard(copy, events).ok().map(|changes| (changes, Priority::Change))
            }
        }
    }

    /// A replica's transaction arrives at the store, or does not; its answer comes back, or does not.
    pub(crate) fn deliver(&mut self, by: &str, txn: &Txn) -> Result<Outcome, Error> {
        let fault = self.fault();
        if fault == 0 {
            return Err(Error::Unavailable("lost on its way".to_owned()));
        }
        let answer = self.write(by, txn);
        if fault == 1 { Err(Error::Unknown("the answer was lost".to_owned())) } else { answer }
    }

    /// Somebody's transaction arrives; the auditor looks at once.
    pub(crate) fn write(&mut self, by: &str, txn: &Txn) -> Result<Outcome, Error> {
        let txn = self.without.map_or_else(|| txn.clone(), |ablation| ablation.strip(by, txn));
        let cleaned = self.cleans_up(by, &txn);
        let done = self.store.txn(&txn);
        self.audit();
        if matches!(done, Ok(Outcome::Committed(_))) {
            let broken = cleaned.or_else(|| self.keeps_too_few(by, &txn));
            self.broken = self.broken.take().or(broken);
        }
        done
    }

    /// What a Deployment takes away as an old make must have no pods to have.
    fn cleans_up(&self, by: &str, txn: &Txn) -> Option<(&'static str, String)> {
        let deleted = txn.writes().iter().filter(|write| by == "deployment" && matches!(write, Write::Delete { .. }));
        let sets = deleted.filter_map(|write| ObjectKey::parse(write.key()));
        let mut sets = sets.filter_map(|key| self.auditor.cache().get::<ReplicaSet>(key.namespace(), key.name()));
        let set = sets.find(|set| set.wanted() > 0)?;
        let text = format!("{} may have {} pods, and is taken away as an old make", set.metadata.name, set.wanted());
        Some(("clean-up", text))
    }

    /// Whoever deletes a ReplicaSet's surplus leaves as many pods as are wanted.
    fn keeps_too_few(&self, by: &str, txn: &Txn) -> Option<(&'static str, String)> {
        let keys: Vec<ObjectKey> = txn.writes().iter().filter_map(|write| ObjectKey::parse(write.key())).collect();
        let set = keys.iter().find(|key| by == "replicaset" && key.kind == Kind::ReplicaSet)?;
        let cache = self.auditor.cache();
        let is_victim = |key: &ObjectKey| {
            let pod = cache.get::<Pod>(key.namespace(), key.name());
            key.kind == Kind::Pod && pod.is_none_or(|pod| pod.metadata.is_going())
        };
        let victims: Vec<&ObjectKey> = keys.iter().filter(|key| is_victim(key)).collect();
        let set = cache.get::<ReplicaSet>(set.namespace(), set.name()).filter(|_| !victims.is_empty())?;
        let own = cache.owned::<Pod>(set.created).filter(|pod| {
            let is_victim = victims.iter().any(|victim| victim.name() == pod.metadata.name);
            !is_victim && pod.metadata.controller().is_some_and(|owner| owner.uid == set.metadata.uid)
        });
        let (kept, wanted) = (own.count(), set.wanted());
        let text = || format!("{} keeps {kept} pods, and wants {wanted}", set.metadata.name);
        ((kept as i64) < i64::from(wanted)).then(|| ("surplus", text()))
    }

    /// What the store has of objects now, of those that are there; nothing if it does not answer.
    pub(crate) fn read(&mut self, keys: &[ObjectKey]) -> Vec<KeyValue> {
        if self.fault() == 0 {
            return Vec::new();
        }
        keys.iter().filter_map(|key| self.store.get(key.to_string().as_bytes()).cloned()).collect()
    }

    /// A node on which a pod that waits would fit if everybody less urgent went, and that it may be on: worked out from the
    /// store alone. `None` also for a pod that nobody goes for.
    pub(crate) fn makes_room(&self, pod: &Pod) -> Option<String> {
        let priority = |pod: &Pod| pod.spec.priority.unwrap_or(0);
        let needs = Needs::of(&pod.spec);
        let fits = |node: &Held<Node>| {
            let all = self.auditor.cache().on_node(&node.metadata.name);
            let stay = all.filter(|other| !other.is_over() && priority(other) >= priority(pod));
            let (mut used, mut ports) = (needs.amounts.clone(), needs.ports.clone());
            for other in stay {
                let needs = Needs::of(&other.spec);
                used = used.plus(&needs.amounts);
                ports.extend(needs.ports);
            }
            let has = Amounts::of_node(&node.status.allocatable);
            let is_free = needs.ports.iter().all(|port| ports.iter().filter(|other| *other == port).count() == 1);
            keeps_out(&pod.spec, node).is_none() && has.lacks(&used).is_empty() && used.pods <= has.pods && is_free
        };
        let mut nodes = self.auditor.cache().all::<Node>();
        let found = nodes.find(|node| pod.spec.preemption_policy != "Never" && fits(node));
        found.map(|node| node.metadata.name.clone())
    }

    /// People's and nodes' transactions set out; some are late.
    fn send(&mut self, txn: Txn) {
        if !self.quiet && self.late.len() < LATE_MAX && self.rng.below(4) == 0 {
            self.late.push(txn);
        } else {
            let _ = self.write("user", &txn);
        }
    }

    /// One of those that are late arrives.
    pub(crate) fn arrive(&mut self) {
        if !self.late.is_empty() {
            let which = self.rng.below(self.late.len() as u64) as usize;
            let txn = self.late.swap_remove(which);
            let done = self.write("user", &txn);
            self.say(|| format!("somebody's late transaction: {done:?}"));
        }
    }

    /// No more faults, and nobody is late any more.
    pub(crate) fn calm(&mut self) {
        while !self.late.is_empty() {
            self.arrive();
        }
        self.quiet = true;
    }

    pub(crate) fn make<T: Rules>(&mut self, value: serde_json::Value) {
        let object: T = api::read(value.to_string().as_bytes(), true).expect("an object");
        let namespace = self.held::<Namespace>("", &object.meta().namespace);
        if let Ok((_, txn)) = create(CLUSTER, object, namespace.as_ref(), self.now().time) {
            self.send(txn);
        }
    }

    pub(crate) fn modify<T: Rules>(&mut self, object: &Held<T>, half: Half, act: impl FnOnce(&mut T)) {
        let mut new = object.to_object();
        act(&mut new);
        if let Ok(Some(txn)) = change::update(object, new, half) {
            self.send(txn);
        }
    }

    pub(crate) fn delete<T: Rules>(&mut self, object: &Held<T>, how: &Deletion) {
        if let Ok(Some(txn)) = change::delete(object, how, self.now().time) {
            self.send(txn);
        }
    }

    /// Puts an object as it says, under the only condition that it is as it was read: what a bind does.
    pub(crate) fn put<T: Rules>(&mut self, object: &Held<T>, act: impl FnOnce(&mut T)) {
        let mut new = object.to_object();
        act(&mut new);
        self.send(Txn::new().guard(change::seen(object)).put(new.key().to_string(), new.to_stored()));
    }

    /// Lets an object go that is held.
    pub(crate) fn release<T: Rules>(&mut self, object: &Held<T>) {
        self.say(|| format!("{} is let go", object.key()));
        self.modify(object, Half::Wanted, |new| new.meta_mut().finalizers.retain(|finalizer| finalizer != HOLD));
    }

    /// Forgets some of the last revisions.
    pub(crate) fn compact(&mut self) {
        let revision = self.store.revision() - self.rng.below(5) as i64;
        self.store.compact(revision);
    }
}
