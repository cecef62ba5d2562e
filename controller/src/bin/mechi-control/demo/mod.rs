//! Everything at once on this machine: a store, two replicas of the control plane, fake nodes, and a Deployment whose
//! pods become ready while one looks. Ends by itself, and leaves nothing behind.

mod process;
mod view;

use crate::audit;
use crate::clock::today;
use crate::follow::Follower;
use crate::limits::STORE_START_MAX;
use crate::metrics::Metrics;
use crate::store::Store;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use mechi_controller::api::{Api, read};
use mechi_controller::cache::Cache;
use mechi_controller::keys::ROOT;
use mechi_controller::kv::{Etcd, Kv as _, Range};
use mechi_controller::types::node::Namespace;
use mechi_controller::types::workload::Deployment;
use process::{Folder, Process, free_ports};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use view::{Counts, View};

const NAMESPACE: &str = "default";
const NAME: &str = "web";

/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(200);

/// Words of the demonstration.
#[derive(Args, Clone, Debug)]
pub(crate) struct Demo {
    /// The store's program, mechi or etcd; mechi beside this program, if it is not said
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// Fake nodes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    nodes: u32,
    /// Pods of the Deployment
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=50_000))]
    pods: u32,
    /// Seconds that it may take until all pods are available
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
}

/// Runs it; returns whether all pods became available and the auditor found nothing.
pub(crate) async fn run(demo: &Demo, mut stop: watch::Receiver<bool>) -> Result<bool> {
    let mut ended = stop.clone();
    tokio::select! {
        biased;
        _ = ended.wait_for(|stop| *stop) => bail!("interrupted"),
        done = play(demo, &mut stop) => done,
    }
}

async fn play(demo: &Demo, stop: &mut watch::Receiver<bool>) -> Result<bool> {
    let own = std::env::current_exe().context("find this program")?;
    let server = server(demo, &own)?;
    let mut view = View::new(demo.pods as usize);
    let folder = Folder::new()?;
    let [client, peer] = free_ports()?;
    view.say(&format!("starting {} on 127.0.0.1:{client}", server.display()));
    let mut store = Process::start("store", folder.path(), &server, &store_args(folder.path(), client, peer))?;
    let kv = Store::local(client).open()?;
    serves(&kv, &mut store).await?;

    let endpoints = format!("--endpoints=127.0.0.1:{client}");
    let words =
        |words: &[&str]| words.iter().map(|word| (*word).to_owned()).chain([endpoints.clone()]).collect::<Vec<_>>();
    let mut others = Vec::new();
    for name in ["one", "two"] {
        let args = words(&["run", "--with-parent", "--identity", name]);
        others.push(Process::start(&format!("replica-{name}"), folder.path(), &own, &args)?);
    }
    view.say("two replicas of the scheduler and the controllers: one and two");
    others.push(Process::start(
        "nodes",
        folder.path(),
        &own,
        &words(&["nodes", "--with-parent", "--count", &demo.nodes.to_string()]),
    )?);
    view.say(&format!("{} fake nodes; Deployment {NAMESPACE}/{NAME} of {} pods", demo.nodes, demo.pods));

    let limit = Duration::from_secs(demo.timeout);
    let shown = timeout(limit, show(demo, &kv, &mut view, &mut store, &mut others)).await;
    let took = shown.with_context(|| format!("not all pods became available within {limit:?}"))??;
    let per_second = f64::from(demo.pods) / took.as_secs_f64();
    view.say(&format!(
        "{} pods available {:.2} s after the Deployment was made: {per_second:.0} a second",
        demo.pods,
        took.as_secs_f64()
    ));

    others.iter_mut().rev().for_each(Process::stop);
    let report = audit::run(&kv, false, stop, &mut std::io::stdout()).await?;
    // Nobody needs what it holds any more.
    drop(store);
    Ok(report.violations == 0)
}

fn server(demo: &Demo, own: &Path) -> Result<PathBuf> {
    if let Some(server) = &demo.server {
        return Ok(server.clone());
    }
    let beside = own.with_file_name("mechi");
    if beside.exists() {
        return Ok(beside);
    }
    bail!(
        "there is no {}: build it with `cargo build -p mechi-server`, or name a store with --server PATH",
        beside.display()
    )
}

/// The flags that mechi and etcd share.
fn store_args(folder: &Path, client: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    vec![
        "--name=demo".to_owned(),
        format!("--data-dir={}", folder.join("data").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=demo={peer}"),
    ]
}

/// Waits until the store answers.
async fn serves(kv: &Etcd, store: &mut Process) -> Result<()> {
    let deadline = Instant::now() + STORE_START_MAX;
    loop {
        let range = Range { key: ROOT.into(), limit: 1, ..Range::default() };
        match timeout(Duration::from_secs(1), kv.range(range)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) if Instant::now() > deadline => return Err(error).context("the store does not serve"),
            Err(_) if Instant::now() > deadline => bail!("the store does not serve"),
            _ => {}
        }
        if let Some(why) = store.has_ended() {
            bail!(why);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Makes the Deployment and shows what becomes of it; returns how long it took until all of it was available.
async fn show(
    demo: &Demo,
    kv: &Etcd,
    view: &mut View,
    store: &mut Process,
    others: &mut [Process],
) -> Result<Duration> {
    let mut follower: Follower<Etcd, Cache> = Follower::new(kv.clone(), "demo", Arc::new(Metrics::default()));
    let api = Api::new(kv.clone());
    let namespace = serde_json::json!({"metadata": {"name": NAMESPACE}}).to_string();
    api.create(read::<Namespace>(namespace.as_bytes(), true)?, today()).await?;
    let mut made: Option<Instant> = None;
    loop {
        // Once everybody is there, so that what is measured is the Deployment and not the start of programs.
        let counts = Counts::of(&follower.copy, NAMESPACE, NAME);
        let is_led = counts.scheduler != "nobody" && counts.controllers != "nobody";
        if made.is_none() && counts.nodes_ready == demo.nodes as usize && is_led {
            api.create(deployment(demo)?, today()).await?;
            made = Some(Instant::now());
        }
        let wanted = demo.pods as usize;
        let is_done = counts.available == wanted && counts.ready == wanted && counts.created == wanted;
        view.show(&follower.copy, &counts, is_done);
        if let Some(made) = made.filter(|_| is_done) {
            return Ok(made.elapsed());
        }
        if timeout(LOOK, follower.next()).await.is_ok() {
            let mut taken = 0;
            while follower.more(taken).is_some() {
                taken += 1;
            }
        }
        if let Some(why) = others.iter_mut().chain([&mut *store]).find_map(Process::has_ended) {
            bail!(why);
        }
    }
}

fn deployment(demo: &Demo) -> Result<Deployment> {
    let text = serde_json::json!({
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "replicas": demo.pods,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {"containers": [{
                    "name": NAME,
                    "image": "nginx",
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                }]},
            },
        },
    });
    Ok(read(text.to_string().as_bytes(), true)?)
}
