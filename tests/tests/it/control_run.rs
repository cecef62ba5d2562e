//! The control plane as processes, on Mechi and on etcd: two replicas, fake nodes, a Deployment, a leader that is killed, and the
//! auditor on all of history.

use mechi_controller::api::change::{Deletion, Half};
use mechi_controller::api::{Api, read};
use mechi_controller::keys;
use mechi_controller::kv::{Etcd, Kv as _, Range};
use mechi_controller::types::node::Namespace;
use mechi_controller::types::pod::Pod;
use mechi_controller::types::time::Time;
use mechi_controller::types::workload::Deployment;
use mechi_tests::grounds::client;
use mechi_tests::on_both;
use mechi_tests::oracle;
use mechi_tests::process::{Kind, Server, http_get};
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

on_both!(a_deployment_becomes_available_is_scaled_and_deleted_and_its_history_is_clean);

/// How long anything may take on a busy machine.
const COMES_MAX: Duration = Duration::from_secs(180);

/// A process of `mechi-control`; killed when it is dropped.
struct Control {
    child: Child,
    log: PathBuf,
}

impl Control {
    fn start(home: &Path, name: &str, server: &Server, words: &[&str]) -> Self {
        let log = home.join(format!("{name}.log"));
        let file = File::create(&log).expect("a log");
        let child = Command::new(oracle::mechi_control())
            .args(words)
            .arg(format!("--endpoints={}", server.endpoint()))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .spawn()
            .expect("it starts");
        Self { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn stop(mut self) -> ExitStatus {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(asked.success());
        self.child.wait().expect("it ends")
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now() -> Time {
    Time(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64)
}

async fn comes<T>(what: &str, all: &[&Control], mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + COMES_MAX;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        if Instant::now() > deadline {
            let logs: Vec<String> = all.iter().map(|control| control.log()).collect();
            panic!("{what} does not come; the logs:\n{}", logs.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Who leads, and since when.
async fn leader(kv: &Etcd, component: &str) -> Option<(String, i64)> {
    let key = keys::election(component);
    let range = Range { end: format!("{key}\0").into(), key: key.into(), limit: 1, revision: 0 };
    let item = kv.range(range).await.ok()?.items.into_iter().next()?;
    Some((String::from_utf8_lossy(&item.value).into_owned(), item.created))
}

async fn available(api: &Api<Etcd>, replicas: i32, all: &[&Control]) {
    comes(&format!("{replicas} pods"), all, async || {
        let status = api.get::<Deployment>("default", "web").await.ok()?.status.clone();
        let pods = api.list::<Pod>("default").await.ok()?;
        let ready = pods.iter().filter(|pod| pod.is_ready()).count();
        (status.available_replicas == replicas && pods.len() == ready && ready == replicas as usize).then_some(())
    })
    .await;
}

async fn scale(api: &Api<Etcd>, replicas: i32) {
    let change = |new: &mut Deployment| {
        new.spec.replicas = Some(replicas);
        Ok(())
    };
    api.modify("default", "web", Half::Wanted, change).await.expect("scaled");
}

async fn a_deployment_becomes_available_is_scaled_and_deleted_and_its_history_is_clean(kind: Kind) {
    let server = Server::start(kind, &[]).expect("starts");
    let kv = Etcd::new(client(&server).await);
    let api = Api::new(kv.clone());
    let namespace = json!({"metadata": {"name": "default"}}).to_string();
    api.create(read::<Namespace>(namespace.as_bytes(), true).expect("a namespace"), now()).await.expect("made");
    let replica = |name: &str| {
        let words = ["run", "--identity", name, "--listen-metrics", "127.0.0.1:0"];
        Control::start(&server.home, name, &server, &words)
    };
    let (one, two) = (replica("one"), replica("two"));
    let words = ["nodes", "--count", "20", "--cpu", "4", "--script", "start=20ms,ready=20ms,stop=20ms"];
    let nodes = Control::start(&server.home, "nodes", &server, &words);

    let deployment = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 50, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]},
            },
        },
    });
    let deployment: Deployment = read(deployment.to_string().as_bytes(), true).expect("a deployment");
    api.create(deployment, now()).await.expect("made");
    available(&api, 50, &[&one, &two, &nodes]).await;
    let pods = api.list::<Pod>("default").await.expect("a list");
    let crowded = pods.iter().filter(|pod| pod.spec.node_name == pods[0].spec.node_name).count();
    assert!(crowded <= 4, "{crowded} pods of one core each are on a node of four");

    // The leader is killed: the other one goes on.
    let (name, token) = leader(&kv, "scheduler").await.expect("somebody leads");
    let (killed, left) = if name == "one" { (one, two) } else { (two, one) };
    drop(killed);
    scale(&api, 70).await;
    available(&api, 70, &[&left, &nodes]).await;
    let (name, next) = leader(&kv, "scheduler").await.expect("somebody leads");
    assert!(next > token, "{name} leads under {next}, after {token}");

    // It says so in its metrics, too, which it brings up to date once a second.
    let log = left.log();
    let address =
        log.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("it serves metrics");
    comes("the new leader's metric", &[&left], async || {
        let (code, text) = http_get(address, "/metrics").expect("it answers");
        assert_eq!(code, 200);
        text.contains("leader_election_master_status{name=\"scheduler\"} 1").then_some(())
    })
    .await;

    scale(&api, 10).await;
    available(&api, 10, &[&left, &nodes]).await;
    api.delete::<Deployment>("default", "web", &Deletion::default(), now()).await.expect("deleted");
    comes("the end", &[&left, &nodes], async || api.list::<Pod>("default").await.ok()?.is_empty().then_some(())).await;

    // Asked to stop, it gives its leadership back at once.
    assert!(left.stop().success() && nodes.stop().success());
    assert_eq!(leader(&kv, "scheduler").await, None);
    assert_eq!(leader(&kv, "controllers").await, None);

    let audit = Command::new(oracle::mechi_control())
        .args(["audit", &format!("--endpoints={}", server.endpoint())])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&audit.stdout);
    assert!(audit.status.success(), "{said}{}", String::from_utf8_lossy(&audit.stderr));
    assert!(said.trim_end().ends_with(": no violation") && said.contains("looked at "), "{said}");

    // What must never be is found: a pod that somebody bound to another node by hand.
    let pod =
        |node: &str| json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": node}}).to_string();
    let raw = client(&server).await;
    for node in ["node-1", "node-2"] {
        raw.put("/registry/pods/default/p", pod(node)).await.expect("written");
    }
    let audit = Command::new(oracle::mechi_control())
        .args(["audit", &format!("--endpoints={}", server.endpoint())])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&audit.stdout);
    assert_eq!(audit.status.code(), Some(1), "{said}");
    assert!(
        said.contains("S1 at revision ") && said.contains("nodeName changes from \"node-1\" to \"node-2\""),
        "{said}"
    );
}
