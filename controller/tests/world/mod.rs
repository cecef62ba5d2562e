//! What both worlds stand on: a store, a clock, dice, people who change objects, and the auditor, who sees every revision.

use mechi_controller::api::change::{self, Deletion, Half, Rules};
use mechi_controller::api::{self, change::create};
use mechi_controller::audit::watch::{History, Watcher};
use mechi_controller::audit::{Auditor, Finding};
use mechi_controller::control::Now;
use mechi_controller::keys;
use mechi_controller::kv::memory::Memory;
use mechi_controller::kv::{Batch, Error, Outcome, Page, Range, Revision, Txn};
use mechi_controller::types::node::Namespace;
use mechi_controller::types::resource::{Held, Resource};
use mechi_controller::types::time::Time;
use serde_json::json;

const CLUSTER: u64 = 0xfeed_beef_0123_4567;

/// Worlds that a test looks at, if nobody says otherwise.
const SEEDS: u64 = 500;

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
    /// What others than the auditor of the store found.
    pub(crate) found: Vec<Finding>,
    audited: i64,
    pub(crate) ms: u64,
    /// No more faults.
    pub(crate) quiet: bool,
    talks: bool,
}

impl Ground {
    pub(crate) fn new(seed: u64, talks: bool) -> Self {
        let (store, auditor) = (Memory::new(CLUSTER), Auditor::begin(CLUSTER, vec![], 1));
        let (history, found) = (History::begin(&[], 1), Vec::new());
        let rng = Rng(seed);
        let mut ground = Self { rng, store, auditor, history, found, audited: 1, ms: 0, quiet: false, talks };
        ground.make::<Namespace>(json!({"metadata": {"name": "a"}}));
        ground
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

    pub(crate) fn held<T: Resource>(&self, namespace: &str, name: &str) -> Option<Held<T>> {
        let key = keys::ObjectKey::new(T::KIND, namespace, name).to_string();
        self.store.get(key.as_bytes()).map(|item| Held::read(CLUSTER, item).expect("an object"))
    }

    pub(crate) fn all<T: Resource>(&self) -> Vec<Held<T>> {
        let prefix = T::KIND.prefix();
        let range = Range { end: keys::prefix_end(&prefix).into(), key: prefix.into(), ..Range::default() };
        let page = self.store.range(&range).expect("now");
        page.items.iter().map(|item| Held::read(CLUSTER, item).expect("an object")).collect()
    }

    pub(crate) fn pick<T: Resource>(&mut self) -> Option<Held<T>> {
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

    /// Somebody was given a page of a list of everything.
    pub(crate) fn listed(&mut self, watcher: &mut Watcher, page: &Result<Page, Error>) {
        match page {
            Ok(page) => self.found.extend(self.history.listed(watcher, page)),
            Err(_) => watcher.relists(),
        }
    }

    /// Somebody was told something by a watch of everything from a revision on.
    pub(crate) fn heard(&mut self, watcher: &mut Watcher, from: Revision, batch: &Result<Batch, Error>) {
        if let Ok(batch) = batch {
            self.found.extend(self.history.heard(watcher, from, batch));
        }
    }

    /// Nobody found anything.
    pub(crate) fn judge(&self) {
        assert_eq!(self.auditor.findings(), [], "the auditor found something");
        assert_eq!(self.found, [], "watchers, journals or queues are wrong");
    }

    /// Writes, and lets the auditor look at once.
    pub(crate) fn write(&mut self, txn: &Txn) -> Result<Outcome, Error> {
        let done = self.store.txn(txn);
        self.audit();
        done
    }

    pub(crate) fn make<T: Rules>(&mut self, value: serde_json::Value) {
        let object: T = api::read(value.to_string().as_bytes(), true).expect("an object");
        let namespace = self.held::<Namespace>("", &object.meta().namespace);
        if let Ok((_, txn)) = create(CLUSTER, object, namespace.as_ref(), self.now().time) {
            let _ = self.write(&txn);
        }
    }

    pub(crate) fn modify<T: Rules>(&mut self, object: &Held<T>, half: Half, act: impl FnOnce(&mut T)) {
        let mut new = object.to_object();
        act(&mut new);
        if let Ok(Some(txn)) = change::update(object, new, half) {
            let _ = self.write(&txn);
        }
    }

    pub(crate) fn delete<T: Rules>(&mut self, object: &Held<T>, how: &Deletion) {
        if let Ok(Some(txn)) = change::delete(object, how, self.now().time) {
            let _ = self.write(&txn);
        }
    }

    /// Forgets some of the last revisions.
    pub(crate) fn compact(&mut self) {
        let revision = self.store.revision() - self.rng.below(5) as i64;
        self.store.compact(revision);
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs as many worlds as the environment says, or the one that it names, which then tells what happens.
///
/// - Shape: `run` takes a seed and whether to talk, and returns the revisions and changes that were audited.
/// - Panics: if one fails, naming its seed; if too little happened for it to say anything.
pub(crate) fn worlds(run: fn(u64, bool) -> (u64, u64)) {
    if let Some(seed) = variable("MECHI_CONTROL_SEED") {
        run(seed, true);
        return;
    }
    let seeds = variable("MECHI_CONTROL_SEEDS").unwrap_or(SEEDS);
    let (mut revisions, mut objects) = (0, 0);
    for seed in 0..seeds {
        let seen = std::panic::catch_unwind(|| run(seed, false));
        let seen = seen.unwrap_or_else(|_| panic!("MECHI_CONTROL_SEED={seed} fails"));
        (revisions, objects) = (revisions + seen.0, objects + seen.1);
    }
    println!("{seeds} worlds: {revisions} revisions and {objects} changes of objects were audited");
    assert!(revisions > 50 * seeds, "too little happened");
}
