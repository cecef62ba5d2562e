//! A store, the scheduler's copy of it, and the scheduler: for tests.

use super::view::View;
use super::{Bind, COMPONENT, Scheduler};
use crate::cache::Mirror as _;
use crate::control::Now;
use crate::keys::{self, Kind, ObjectKey};
use crate::kv::memory::Memory;
use crate::kv::{KeyValue, Outcome, Range, Revision, Txn};
use crate::types::fields;
use crate::types::pod::Pod;
use crate::types::time::Time;
use serde_json::{Value, json};

pub(super) const CLUSTER: u64 = 7;

pub(super) struct Bench {
    pub(super) store: Memory,
    pub(super) view: View,
    pub(super) scheduler: Scheduler,
    /// The scheduler leads, under it.
    pub(super) token: Revision,
}

impl Bench {
    /// A store with objects, and a scheduler that has listed them.
    pub(super) fn new(objects: &[Value]) -> Self {
        let mut store = Memory::new(CLUSTER);
        store.txn(&Txn::new().put(keys::election(COMPONENT), "it leads")).expect("written");
        let token = store.revision();
        let mut bench = Self { store, view: View::default(), scheduler: Scheduler::default(), token };
        objects.iter().for_each(|object| bench.put(object));
        let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
        let page = bench.store.range(&Range { key, end, limit: 0, revision: 0 }).expect("it is now");
        let mut staged = Default::default();
        bench.view.stage(&mut staged, CLUSTER, page.items);
        let told = bench.view.replace(staged, CLUSTER, page.revision);
        bench.scheduler.told(&mut bench.view, &told, at(0));
        bench
    }

    pub(super) fn put(&mut self, object: &Value) {
        let kind = Kind::of_name(object["kind"].as_str().expect("a kind")).expect("a kind");
        let key = ObjectKey::new(kind, "a", object["metadata"]["name"].as_str().expect("a name"));
        self.store.txn(&Txn::new().put(key.to_string(), object.to_string())).expect("written");
    }

    pub(super) fn delete(&mut self, pod: &str) {
        self.store.txn(&Txn::new().delete(key(pod).to_string())).expect("written");
    }

    /// The scheduler hears of everything that happened.
    pub(super) fn hear(&mut self, now: Now) {
        let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
        let batch = self.store.events(&key, &end, self.view.at() + 1, usize::MAX).expect("nothing is compacted");
        let told = self.view.apply(batch);
        self.scheduler.told(&mut self.view, &told, now);
    }

    /// It hears of everything, and says what to write next.
    pub(super) fn plan(&mut self, now: Now) -> Option<Bind> {
        self.hear(now);
        let bind = self.scheduler.plan(&mut self.view, self.token, now);
        if bind.is_some() {
            return bind;
        }
        let victims = self.scheduler.victims()?;
        let read: Vec<KeyValue> = victims.iter().filter_map(|key| self.item(key)).collect();
        self.scheduler.make_room(&mut self.view, &read, self.token, now)
    }

    /// The scheduler does all that there is to do right now.
    pub(super) fn work(&mut self, ms: u64) {
        while let Some((id, txn)) = self.plan(at(ms)) {
            let answer = self.store.txn(&txn);
            assert!(matches!(answer, Ok(Outcome::Committed(_))), "{answer:?}");
            assert!(self.scheduler.answered(&mut self.view, id, answer, at(ms)).is_none());
        }
    }

    pub(super) fn item(&self, key: &ObjectKey) -> Option<KeyValue> {
        self.store.get(key.to_string().as_bytes()).cloned()
    }

    pub(super) fn pod(&self, name: &str) -> Pod {
        let item = self.item(&key(name)).expect("it is there");
        fields::read(&item.value).expect("a pod")
    }
}

pub(super) fn at(ms: u64) -> Now {
    Now { ms, time: Time(1_800_000_000 + (ms / 1_000) as i64) }
}

pub(super) fn key(pod: &str) -> ObjectKey {
    ObjectKey::new(Kind::Pod, "a", pod)
}

pub(super) fn node(name: &str, cpu: &str) -> Value {
    let has = json!({"cpu": cpu, "memory": "8Gi", "pods": "10"});
    json!({"kind": "Node", "metadata": {"name": name}, "status": {"allocatable": has}})
}

/// A pod that is bound, or waits if the node's name is empty.
pub(super) fn pod(name: &str, priority: i32, cpu: &str, on: &str) -> Value {
    json!({
        "kind": "Pod", "metadata": {"name": name, "namespace": "a"},
        "spec": {
            "priority": priority, "nodeName": on, "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
        },
    })
}
