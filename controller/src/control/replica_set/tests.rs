//! What a ReplicaSet does that cannot make its pods, and how those are called that it makes.

use super::*;
use crate::cache::Mirror as _;
use crate::control::deployment;
use crate::keys::{self, prefix_end};
use crate::kv::memory::Memory;
use crate::limits::{NAME_BEGIN_CHARS_MAX, OBJECT_BYTES_MAX, READ_BYTES_MAX};
use crate::types::workload::Deployment;
use serde_json::{Value, json};

const CLUSTER: u64 = 0xfeed_beef_0123_4567;

/// A store with a copy of it.
struct Rig {
    store: Memory,
    cache: Cache,
    now: Now,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self { store: Memory::new(CLUSTER), cache: Cache::default(), now: Now::default() };
        rig.cache.replace(Default::default(), CLUSTER, 1);
        rig.put("namespaces/a", &json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}}));
        rig
    }

    fn write(&mut self, txn: &Txn) {
        assert!(txn.fits(), "no store takes it");
        self.store.txn(txn).expect("it fits");
        let (key, end) = (keys::ROOT.into(), prefix_end(keys::ROOT).into());
        let batch = self.store.events(&key, &end, self.cache.at() + 1, usize::MAX).expect("not compacted");
        self.cache.apply(batch);
    }

    fn put(&mut self, key: &str, value: &Value) {
        self.write(&Txn::new().put(format!("{}{key}", keys::ROOT), value.to_string()));
    }

    /// Reconciles until nothing is to be done; returns the notes' reasons.
    fn settle(&mut self, key: &ObjectKey, reconcile: fn(&Cache, &ObjectKey, Now) -> Plan) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        for _ in 0..50 {
            let plan = reconcile(&self.cache, key, self.now);
            reasons.extend(plan.notes.iter().map(|note| note.reason));
            if plan.is_empty() {
                return reasons;
            }
            plan.txns.iter().for_each(|txn| self.write(txn));
        }
        panic!("it does not come to rest: {reasons:?}");
    }
}

/// A ReplicaSet or Deployment of one pod whose template has so many bytes more than it must.
fn workload(name: &str, more: usize) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "a"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"more": "x".repeat(more)}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

fn failure(conditions: &[Condition]) -> Option<(&str, &str)> {
    let failure = conditions.iter().find(|condition| condition.r#type == REPLICA_FAILURE)?;
    Some((failure.status.as_str(), failure.reason.as_str()))
}

#[test]
fn whoever_cannot_make_a_pod_says_so_once_and_takes_it_back() {
    let mut rig = Rig::new();
    let key = ObjectKey::new(Kind::ReplicaSet, "a", "web");
    // Nobody makes it so large here; others may have.
    rig.put("replicasets/a/web", &workload("web", READ_BYTES_MAX / 2));
    assert_eq!(rig.settle(&key, reconcile), [FAILED_CREATE]);
    let conditions = |rig: &Rig| rig.cache.get::<ReplicaSet>("a", "web").expect("is there").status.conditions.clone();
    assert_eq!(failure(&conditions(&rig)), Some(("True", FAILED_CREATE)));
    assert_eq!(rig.settle(&key, reconcile), [""; 0], "it is said once");

    let mut smaller = workload("web", 0);
    smaller["status"] = json!({"conditions": conditions(&rig)});
    rig.put("replicasets/a/web", &smaller);
    assert_eq!(rig.settle(&key, reconcile), ["SuccessfulCreate"]);
    assert_eq!(failure(&conditions(&rig)).map(|(status, _)| status), Some("False"));
}

#[test]
fn what_may_be_made_is_small_enough_for_whoever_works_with_it() {
    let mut rig = Rig::new();
    let most = OBJECT_BYTES_MAX - workload("web", 0).to_string().len();
    rig.put("deployments/a/web", &workload("web", most));
    let key = ObjectKey::new(Kind::Deployment, "a", "web");
    assert_eq!(rig.settle(&key, deployment::reconcile), ["ScalingReplicaSet"]);
    let set = rig.cache.all::<ReplicaSet>().next().expect("was made").key();
    assert_eq!(rig.settle(&set, reconcile), ["SuccessfulCreate"]);

    // Ten more makes, all of that size, and then each of them with a pod: one step of many cannot hold them all.
    for n in 0..10 {
        let mut next = rig.cache.get::<Deployment>("a", "web").expect("is there").to_object();
        next.spec.template.metadata.annotations.insert("n".to_owned(), n.to_string());
        rig.write(&Txn::new().put(key.to_string(), next.to_stored()));
        rig.settle(&key, deployment::reconcile);
    }
    let sets: Vec<ReplicaSet> = rig.cache.all::<ReplicaSet>().map(|set| set.to_object()).collect();
    for mut set in sets {
        set.spec.replicas = Some(1);
        rig.write(&Txn::new().put(set.key().to_string(), set.to_stored()));
    }
    let mut scaled = rig.cache.get::<Deployment>("a", "web").expect("is there").to_object();
    scaled.spec.replicas = Some(0);
    rig.write(&Txn::new().put(key.to_string(), scaled.to_stored()));
    rig.settle(&key, deployment::reconcile);
    assert!(rig.cache.all::<ReplicaSet>().all(|set| set.wanted() == 0), "one was not told");
    assert_eq!(rig.cache.all::<ReplicaSet>().count(), 11);
}

#[test]
fn a_deployment_says_what_keeps_its_replica_set_from_making_pods() {
    let mut rig = Rig::new();
    rig.put("deployments/a/web", &workload("web", 0));
    let key = ObjectKey::new(Kind::Deployment, "a", "web");
    rig.settle(&key, deployment::reconcile);
    let said = |rig: &Rig| {
        let deployment = rig.cache.get::<Deployment>("a", "web").expect("is there");
        failure(&deployment.status.conditions).map(|(status, _)| status.to_owned())
    };
    assert_eq!(said(&rig), None);
    for (status, is_said) in [("True", Some("True")), ("False", None)] {
        let mut set = rig.cache.all::<ReplicaSet>().next().expect("was made").to_object();
        set.status.conditions = vec![Condition {
            r#type: REPLICA_FAILURE.to_owned(),
            status: status.to_owned(),
            reason: FAILED_CREATE.to_owned(),
            ..Default::default()
        }];
        rig.write(&Txn::new().put(set.key().to_string(), set.to_stored()));
        rig.settle(&key, deployment::reconcile);
        assert_eq!(said(&rig).as_deref(), is_said);
    }
}

#[test]
fn a_long_name_leaves_room_for_its_pods_names() {
    let mut rig = Rig::new();
    let name = "a".repeat(200);
    rig.put(&format!("replicasets/a/{name}"), &workload(&name, 0));
    rig.settle(&ObjectKey::new(Kind::ReplicaSet, "a", &name), reconcile);
    let pod = rig.cache.all::<Pod>().next().expect("was made");
    assert_eq!(pod.metadata.name.len(), NAME_BEGIN_CHARS_MAX + 5);
    assert!(pod.metadata.name.starts_with(&name[..NAME_BEGIN_CHARS_MAX]), "{}", pod.metadata.name);
}
