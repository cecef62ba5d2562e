//! Objects are taken, changed and refused as Kubernetes does it, and in its words.

use super::*;
use crate::keys;
use crate::kv::Local;
use crate::types::node::Node;
use crate::types::pod::Pod;
use crate::types::resource::Resource as _;
use crate::types::workload::Deployment;
use serde_json::{Value, json};

const CLUSTER: u64 = 0xfeed_beef_0123_4567;
const NOW: Time = Time(1_800_000_000);

async fn store() -> (Local, Api<Local>) {
    let kv = Local::new(CLUSTER);
    let api = Api::new(kv.clone());
    let namespace = read::<Namespace>(br#"{"metadata": {"name": "default"}}"#, true).expect("a namespace");
    api.create(namespace, NOW).await.expect("made");
    (kv, api)
}

fn object<T: Rules>(value: Value) -> T {
    read(value.to_string().as_bytes(), true).expect("an object")
}

fn pod(name: &str) -> Pod {
    object(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }))
}

fn deployment(labels: &Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    })
}

/// Whether nothing was written since a revision.
fn untouched(kv: &Local, since: i64) -> bool {
    kv.with(|store| store.revision()) == since
}

#[tokio::test]
async fn an_object_is_made_read_changed_and_deleted() {
    let (kv, api) = store().await;
    let made = api.create(object::<Deployment>(deployment(&json!({"app": "web"}))), NOW).await.expect("made");
    assert_eq!(
        (made.metadata.generation, made.spec.replicas, made.spec.strategy.r#type.as_str()),
        (1, Some(1), "RollingUpdate")
    );
    assert_eq!(keys::created_of(CLUSTER, &made.key(), &made.metadata.uid), Some(made.created));
    let read: Held<Deployment> = api.get("default", "web").await.expect("read");
    assert_eq!((&*read, read.modified), (&*made, made.modified));

    let scaled = api.modify("default", "web", Half::Wanted, |web: &mut Deployment| {
        web.spec.replicas = Some(3);
        Ok(())
    });
    let scaled = scaled.await.expect("changed");
    assert_eq!((scaled.metadata.generation, scaled.metadata.uid == made.metadata.uid), (2, true));
    let at = kv.with(|store| store.revision());
    let again = api.modify("default", "web", Half::Wanted, |web: &mut Deployment| {
        web.spec.replicas = Some(3);
        web.status.replicas = 9;
        Ok(())
    });
    assert_eq!((again.await.expect("nothing to do").metadata.generation, untouched(&kv, at)), (2, true));
    let told = api.modify("default", "web", Half::Status, |web: &mut Deployment| {
        (web.status.replicas, web.spec.replicas) = (2, Some(7));
        Ok(())
    });
    let told = told.await.expect("changed");
    assert_eq!((told.status.replicas, told.spec.replicas, told.metadata.generation), (2, Some(3), 2));

    assert_eq!(api.list::<Deployment>("default").await.expect("listed").len(), 1);
    assert_eq!(api.delete::<Deployment>("default", "web", &Deletion::default(), NOW).await, Ok(true));
    let gone = api.get::<Deployment>("default", "web").await.expect_err("gone");
    assert_eq!((gone.code, gone.message.as_str()), (404, "deployments.apps \"web\" not found"));
}

#[tokio::test]
async fn bad_objects_are_refused_in_kubernetes_words_and_nothing_is_written() {
    let (kv, api) = store().await;
    api.create(pod("one"), NOW).await.expect("made");
    let at = kv.with(|store| store.revision());

    let mut typed = deployment(&json!({"app": "web"}));
    typed["spec"]["replicas"] = json!("three");
    let wrong = read::<Deployment>(typed.to_string().as_bytes(), true).expect_err("a wrong type");
    assert_eq!(
        (wrong.code, wrong.message.as_str()),
        (
            400,
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field \
             DeploymentSpec.spec.replicas of type int32"
        )
    );

    let unknown = read::<Pod>(br#"{"spec": {"containres": []}}"#, true).expect_err("an unknown field");
    assert!(unknown.message.ends_with("strict decoding error: unknown field \"spec.containres\""), "{unknown}");
    assert!(read::<Pod>(br#"{"spec": {"containres": []}}"#, false).is_ok());

    let mismatch =
        api.create(object::<Deployment>(deployment(&json!({"app": "db"}))), NOW).await.expect_err("does not match");
    assert_eq!(
        (mismatch.code, mismatch.message.as_str()),
        (
            422,
            "Deployment.apps \"web\" is invalid: spec.template.metadata.labels: Invalid value: map[string]string{\"app\":\"db\"}: \
             `selector` does not match template `labels`"
        )
    );

    let twice = api.create(pod("one"), Time(NOW.0 + 1)).await.expect_err("is there");
    assert_eq!((twice.code, twice.message.as_str()), (409, "pods \"one\" already exists"));

    let mut elsewhere = pod("two");
    "nowhere".clone_into(&mut elsewhere.metadata.namespace);
    let elsewhere = api.create(elsewhere, NOW).await.expect_err("no namespace");
    assert_eq!((elsewhere.code, elsewhere.message.as_str()), (404, "namespaces \"nowhere\" not found"));

    let quantity = json!({"metadata": {"name": "q", "namespace": "default"}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"cpu": "lots"}}}]}});
    let quantity = read::<Pod>(quantity.to_string().as_bytes(), true).expect_err("no amount");
    assert!(quantity.message.contains("quantities must match the regular expression"), "{quantity}");

    let many = json!({"metadata": {"name": "Bad_Name", "namespace": "default"}, "spec": {
        "preemptionPolicy": "Sometimes", "containers": [{"name": "c", "image": "i"}, {"name": "c"}]}});
    let many = api.create(object::<Pod>(many), NOW).await.expect_err("several errors");
    for part in [
        "Pod \"Bad_Name\" is invalid: [metadata.name: Invalid value",
        "spec.containers[1].image: Required value",
        "spec.containers[1].name: Duplicate value: \"c\"",
        "spec.preemptionPolicy: Unsupported value: \"Sometimes\": supported values: \"PreemptLowerPriority\", \"Never\"",
    ] {
        assert!(many.message.contains(part), "{many}");
    }
    let mut bound = pod("three");
    "n1".clone_into(&mut bound.spec.node_name);
    assert_eq!(api.create(bound, NOW).await.expect_err("only a bind").code, 422);
    assert!(untouched(&kv, at), "something was written");
}

#[tokio::test]
async fn nothing_new_comes_into_a_namespace_that_goes() {
    let (kv, api) = store().await;
    assert_eq!(api.delete::<Namespace>("", "default", &Deletion::default(), NOW).await, Ok(false));
    let at = kv.with(|store| store.revision());
    let late = api.create(pod("late"), NOW).await.expect_err("the namespace goes");
    assert_eq!(
        (late.code, late.message.as_str()),
        (
            403,
            "pods \"late\" is forbidden: unable to create new content in namespace default because it is being terminated"
        )
    );
    assert!(untouched(&kv, at));
    // Whoever empties it lets it go.
    let emptied = api.modify("", "default", Half::Wanted, |namespace: &mut Namespace| {
        namespace.spec.finalizers.clear();
        Ok(())
    });
    emptied.await.expect("changed");
}

#[tokio::test]
async fn a_pod_that_runs_goes_when_its_node_says_so_and_any_other_at_once() {
    let (kv, api) = store().await;
    api.create(pod("free"), NOW).await.expect("made");
    assert_eq!(api.delete::<Pod>("default", "free", &Deletion::default(), NOW).await, Ok(true));

    api.create(pod("bound"), NOW).await.expect("made");
    let held: Held<Pod> = api.get("default", "bound").await.expect("read");
    let mut bound = held.to_object();
    "n1".clone_into(&mut bound.spec.node_name);
    let bind = Txn::new().guard(change::seen(&held)).put(bound.key().to_string(), bound.to_stored());
    kv.txn(&bind).await.expect("bound");
    assert_eq!(api.delete::<Pod>("default", "bound", &Deletion::default(), NOW).await, Ok(false));
    let going: Held<Pod> = api.get("default", "bound").await.expect("still there");
    assert_eq!(
        (going.metadata.deletion_timestamp, going.metadata.deletion_grace_period_seconds),
        (Some(Time(NOW.0 + 30)), Some(30))
    );
    // Told again, nothing changes; told to go at once, it does.
    let at = kv.with(|store| store.revision());
    assert_eq!(api.delete::<Pod>("default", "bound", &Deletion::default(), Time(NOW.0 + 5)).await, Ok(false));
    assert!(untouched(&kv, at));
    let now = Deletion { grace: Some(0), ..Deletion::default() };
    assert_eq!(api.delete::<Pod>("default", "bound", &now, NOW).await, Ok(true));
}

#[tokio::test]
async fn a_deletion_means_one_incarnation() {
    let (_, api) = store().await;
    let first = api.create(pod("one"), NOW).await.expect("made");
    api.delete::<Pod>("default", "one", &Deletion::default(), NOW).await.expect("deleted");
    let second = api.create(pod("one"), NOW).await.expect("made again");
    assert_ne!(first.metadata.uid, second.metadata.uid);
    let old = Deletion { uid: Some(first.metadata.uid.clone()), ..Deletion::default() };
    assert_eq!(api.delete::<Pod>("default", "one", &old, NOW).await.expect_err("another one").code, 409);
}

#[tokio::test]
async fn whatever_changes_room_for_pods_disturbs_who_places_them() {
    let (kv, api) = store().await;
    let node = json!({"metadata": {"name": "n1"}, "status": {"capacity": {"cpu": "4", "pods": "10"}}});
    api.create(object::<Node>(node), NOW).await.expect("made");
    let version = || kv.with(|store| store.get(keys::alloc("n1").as_bytes()).map(|now| now.version));
    assert_eq!(version(), Some(1));
    let cordon = api.modify("", "n1", Half::Wanted, |node: &mut Node| {
        node.spec.unschedulable = true;
        Ok(())
    });
    cordon.await.expect("changed");
    assert_eq!(version(), Some(2));
    let state = |cpu: &'static str, reason: &'static str| {
        api.modify("", "n1", Half::Status, move |node: &mut Node| {
            node.status.allocatable.insert("cpu".to_owned(), cpu.parse().expect("an amount"));
            let ready = crate::types::meta::Condition {
                r#type: "Ready".to_owned(),
                reason: reason.to_owned(),
                ..Default::default()
            };
            crate::types::meta::set_condition(&mut node.status.conditions, ready, NOW);
            Ok(())
        })
    };
    state("4", "one").await.expect("changed");
    assert_eq!(version(), Some(2));
    state("2", "two").await.expect("changed");
    assert_eq!(version(), Some(3));
    api.delete::<Node>("", "n1", &Deletion::default(), NOW).await.expect("deleted");
    assert_eq!(version(), Some(4));
}
