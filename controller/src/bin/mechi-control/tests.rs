//! The whole control plane in one process on the store in memory: everything but the connection is as it is with a real one.

use crate::clock::today;
use crate::controllers::Controllers;
use crate::metrics::Metrics;
use crate::scheduler::Scheduler;
use crate::{audit, nodes, role};
use mechi_controller::api::change::{Deletion, Half};
use mechi_controller::api::{Api, read};
use mechi_controller::fake::{Fleet, Make};
use mechi_controller::keys;
use mechi_controller::kv::{Guard, KeyValue, Kv, Local, Range, Txn};
use mechi_controller::types::node::{Namespace, Node};
use mechi_controller::types::pod::Pod;
use mechi_controller::types::quantity::Quantity;
use mechi_controller::types::workload::Deployment;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long anything may take on a busy machine.
const COMES_MAX: Duration = Duration::from_secs(120);

struct Replica {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    metrics: Arc<Metrics>,
}

impl Replica {
    fn start(kv: &Local, identity: &str) -> Self {
        let (stop, told) = watch::channel(false);
        let metrics = Arc::new(Metrics::default());
        let (kv, name) = (kv.clone(), identity.to_owned());
        let scheduler = Scheduler::new(metrics.clone()).auditing(true);
        let scheduler = role::run(kv.clone(), scheduler, name.clone(), metrics.clone(), told.clone());
        let controllers = role::run(kv, Controllers::new(metrics.clone()), name, metrics.clone(), told);
        Self { stop, tasks: vec![tokio::spawn(scheduler), tokio::spawn(controllers)], metrics }
    }

    fn kill(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.expect("it ends in order");
        }
    }
}

async fn comes<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + COMES_MAX;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn held(kv: &Local, key: &str) -> Option<KeyValue> {
    let range = Range { key: key.to_owned().into(), end: format!("{key}\0").into(), limit: 1, revision: 0 };
    kv.range(range).await.expect("it answers").items.into_iter().next()
}

fn fleet(kv: &Local, count: usize) -> (watch::Sender<bool>, JoinHandle<()>) {
    let capacity = [("cpu", "8"), ("memory", "32Gi"), ("pods", "110")];
    let capacity =
        capacity.map(|(name, amount)| (name.to_owned(), amount.parse::<Quantity>().expect("an amount"))).into();
    let script = "start=5ms,ready=5ms,stop=5ms".parse().expect("a script");
    let fleet = Fleet::new(Make { capacity, script, ..Make::default() }, (0..count).map(|n| format!("node-{n}")));
    let (stop, told) = watch::channel(false);
    let task = tokio::spawn(nodes::run(kv.clone(), fleet, None, Arc::new(Metrics::default()), told));
    (stop, task)
}

fn deployment(replicas: i32) -> Deployment {
    let text = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]},
            },
        },
    });
    read(text.to_string().as_bytes(), true).expect("a deployment")
}

async fn available(api: &Api<Local>, replicas: i32) {
    comes(&format!("{replicas} pods"), async || {
        let status = api.get::<Deployment>("default", "web").await.expect("is there").status.clone();
        let pods = api.list::<Pod>("default").await.expect("a list");
        let is_so = status.available_replicas == replicas
            && pods.len() == replicas as usize
            && pods.iter().all(|pod| pod.is_ready());
        is_so.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_available_is_scaled_and_deleted_whoever_leads() {
    let kv = Local::new(7);
    let api = Api::new(kv.clone());
    let namespace = json!({"metadata": {"name": "default"}}).to_string();
    api.create(read::<Namespace>(namespace.as_bytes(), true).expect("a namespace"), today()).await.expect("made");
    let (one, two) = (Replica::start(&kv, "one"), Replica::start(&kv, "two"));
    let (stop_nodes, nodes) = fleet(&kv, 10);
    api.create(deployment(40), today()).await.expect("made");
    available(&api, 40).await;

    // Whoever leads is killed without a word: the other one goes on once the lease has run out.
    let scheduler = held(&kv, &keys::election("scheduler")).await.expect("somebody leads");
    let (killed, left) = if scheduler.value == "one" { (one, two) } else { (two, one) };
    killed.kill();
    let scale = |replicas| {
        let api = api.clone();
        async move {
            let change = |new: &mut Deployment| {
                new.spec.replicas = Some(replicas);
                Ok(())
            };
            api.modify("default", "web", Half::Wanted, change).await.expect("scaled");
        }
    };
    scale(60).await;
    available(&api, 60).await;
    let now = held(&kv, &keys::election("scheduler")).await.expect("somebody leads");
    assert!(now.created > scheduler.created && now.value != scheduler.value, "{now:?}");

    // Whoever is asked to stop hands on at once; a third one takes over.
    let three = Replica::start(&kv, "three");
    left.stop().await;
    scale(5).await;
    available(&api, 5).await;
    assert!(held(&kv, &keys::election("controllers")).await.is_some_and(|held| held.value == "three"));

    // History is forgotten under everybody's feet, and a key changes that nobody watches.
    kv.with(|store| store.compact(store.revision()));
    kv.txn(&Txn::new().guard(Guard::Absent { key: "/other".into() }).put("/other", "x")).await.expect("written");
    api.delete::<Deployment>("default", "web", &Deletion::default(), today()).await.expect("deleted");
    comes("the end", async || api.list::<Pod>("default").await.expect("a list").is_empty().then_some(())).await;
    let ready = api.list::<Node>("").await.expect("a list").iter().filter(|node| node.is_ready()).count();
    assert_eq!(ready, 10);

    for metric in [
        "leader_election_master_status{name=\"controllers\"} 1",
        "mechi_control_queue_audits_total ",
        "mechi_control_relists_total{copy=\"scheduler\",cause=\"election\"} ",
        "mechi_control_txns_total{component=\"controllers\",result=\"committed\"} ",
        "mechi_control_reconcile_duration_seconds_count{controller=\"deployment\"} ",
    ] {
        comes(metric, async || three.metrics.text().contains(metric).then_some(())).await;
    }
    assert!(!three.metrics.text().contains("mechi_control_queue_findings_total "), "S11 does not hold");
    three.stop().await;
    assert_eq!(held(&kv, &keys::election("scheduler")).await, None, "its lease is over");
    stop_nodes.send_replace(true);
    nodes.await.expect("they end in order");

    // All that is left of history, which begins where it was compacted.
    let (_keep, mut never) = watch::channel(false);
    let mut told = Vec::new();
    let report = audit::run(&kv, false, &mut never, &mut told).await.expect("an audit");
    let told = String::from_utf8(told).expect("text");
    assert_eq!(report.violations, 0, "{told}");
    assert!(report.from > 1 && report.revisions > 5 && report.objects > 5, "{report:?}");
}

#[tokio::test]
async fn an_audit_shows_each_violation_with_what_was_written() {
    let kv = Local::new(7);
    let (_keep, mut never) = watch::channel(false);
    let mut told = Vec::new();
    let report = audit::run(&kv, false, &mut never, &mut told).await.expect("an audit of nothing");
    assert_eq!((report.revisions, report.violations), (0, 0));

    let pod = |node: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "gone"},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
        })
        .to_string()
    };
    for value in [pod("one"), pod("two")] {
        kv.txn(&Txn::new().put("/registry/pods/gone/p", value)).await.expect("written");
    }
    kv.txn(&Txn::new().put("/other", "x")).await.expect("written");
    let report = audit::run(&kv, false, &mut never, &mut told).await.expect("an audit");
    let told = String::from_utf8(told).expect("text");
    // Bound before it was there, no namespace, no node, another node, no such node either.
    assert_eq!((report.from, report.through, report.revisions, report.violations), (1, 4, 3, 5), "{told}");
    for line in [
        "S1 at revision 3: /registry/pods/gone/p: nodeName changes from \"one\" to \"two\"",
        "  before: /registry/pods/gone/p {\"apiVersion\":\"v1\"",
        "  revision 3 put /registry/pods/gone/p (created 2, version 2) {",
        "S2 at revision 2: /registry/nodes/one: ",
        "S4 at revision 2: /registry/pods/gone/p: it is made in namespace \"gone\"",
        "looked at 3 revisions, from 1 to 4, with 2 changes of objects: 5 violations",
    ] {
        assert!(told.lines().any(|other| other.starts_with(line)), "{line} is not in\n{told}");
    }
}
