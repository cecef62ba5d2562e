//! One scenario on fresh servers: a fleet of fake nodes, `mechi-control`, and what the store says of both.

use super::binds::{Bind, Binds};
use super::limits::{LOOK, PODS_MAX, SETTLE_MAX};
use super::plane::Control;
use super::pods::{Store, now};
use super::{Scale, loss};
use crate::load::limits::{LATENCY_DIGITS, LATENCY_NS_MAX};
use crate::process;
use crate::scenario::Sample;
use crate::servers::{Fleet, Programs};
use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use mechi_controller::api::{Api, read};
use mechi_controller::types::workload::Deployment;
use mechi_tests::process::Kind;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Between two pods of the open loop: 500 in a second.
const PACE: Duration = Duration::from_millis(2);

/// Pods stay as they are bound, so that nothing but binds is written while binds are counted.
const STILL: &str = "start=60m";

/// Pods that come up, as the Deployment's must.
const PLAYS: &str = "start=20ms,ready=20ms,stop=20ms";

/// How long a store must be without a new revision before its rest is measured.
const QUIET: Duration = Duration::from_secs(2);

/// What all scenarios need.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The servers' programs.
    pub programs: Programs,
    /// `mechi-control`.
    pub control: PathBuf,
    /// How much is done.
    pub scale: Scale,
}

/// A store with a control plane on it; processes are killed and data is removed when it is dropped.
pub(super) struct World<'a> {
    setting: &'a Setting,
    // Before the servers, so that it ends before them.
    processes: Vec<Control>,
    /// The store's client.
    pub(super) store: Store,
    fleet: &'a Fleet,
}

impl<'a> World<'a> {
    async fn open(setting: &'a Setting, fleet: &'a Fleet, nodes: usize, script: &str) -> Result<Self> {
        let store = Store::open(fleet.endpoints()).await?;
        let mut world = Self { setting, processes: Vec::new(), store, fleet };
        let count = nodes.to_string();
        let playing = world.start("nodes", &["nodes", "--count", &count, "--script", script])?;
        world.processes.push(playing);
        let controllers = world.start("controllers", &["run", "--roles", "controllers"])?;
        world.processes.push(controllers);
        let deadline = Instant::now() + SETTLE_MAX;
        while world.store.nodes(nodes).await? < nodes {
            world.processes.iter_mut().try_for_each(Control::check)?;
            ensure!(Instant::now() < deadline, "{nodes} nodes are not registered within {SETTLE_MAX:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(world)
    }

    fn start(&self, name: &str, words: &[&str]) -> Result<Control> {
        let home = self.fleet.cluster.home();
        Control::start(&self.setting.control, &home, name, &self.fleet.endpoints(), words)
    }

    /// Starts a scheduler of this name; its log is of that name, too.
    pub(super) fn scheduler(&self, name: &str) -> Result<Control> {
        self.start(name, &["run", "--roles", "scheduler", "--identity", name])
    }

    /// Watches for binds from now on.
    pub(super) async fn binds(&self) -> Result<Binds> {
        Binds::watch(&self.store.kv, self.store.revision().await? + 1).await
    }

    fn control_cpu(&self) -> Duration {
        self.processes.iter().map(Control::cpu).sum()
    }

    /// Waits until nothing was written for [`QUIET`].
    async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_MAX;
        let (mut last, mut since) = (self.store.revision().await?, Instant::now());
        while since.elapsed() < QUIET {
            ensure!(Instant::now() < deadline, "the store is still written to after {SETTLE_MAX:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.store.revision().await?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(())
    }
}

/// Runs one scenario on fresh servers.
///
/// - Shape: `name` is one of [`super::SCENARIOS`]; not within a runtime.
/// - Errors: what failed, with the limit that was passed.
pub fn run(setting: &Setting, name: &str, kind: Kind, members: usize) -> Result<Vec<Sample>> {
    // It outlives the world, whose processes end first.
    let fleet = Fleet::start(&setting.programs, kind, members, &[])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut samples = runtime.block_on(one(setting, name, &fleet))?;
    for sample in &mut samples {
        sample.metric = format!("{}_{members}", sample.metric);
    }
    Ok(samples)
}

async fn one(setting: &Setting, name: &str, fleet: &Fleet) -> Result<Vec<Sample>> {
    let scale = setting.scale;
    let (nodes, script) = match name {
        "deployment" | "rest" => (scale.deployment_nodes, PLAYS),
        _ => (scale.nodes, STILL),
    };
    let mut world = World::open(setting, fleet, nodes, script).await?;
    match name {
        "bound" => bound(&mut world, scale.pods).await,
        "latency" => latency(&mut world, scale.paced).await,
        "deployment" => Ok(vec![sample("deployment", deployment(&mut world, scale.replicas).await?)]),
        "killed" => loss::measure(&world, "killed", loss::End::Kill, scale.losses).await,
        "stopped" => loss::measure(&world, "stopped", loss::End::Term, scale.losses).await,
        "rest" => rest(&mut world, scale.replicas, Duration::from_secs(scale.rest_seconds)).await,
        "memory" => memory(&mut world, scale.memory_pods).await,
        other => bail!("there is no scenario {other:?}"),
    }
}

/// A figure without a throughput.
pub(super) fn sample(metric: &str, value: f64) -> Sample {
    Sample { metric: metric.into(), value, server_us: None, client_us: None }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Pods are there before the scheduler starts. The rate counts from the first batch of binds, without that batch.
async fn bound(world: &mut World<'_>, pods: usize) -> Result<Vec<Sample>> {
    world.store.create_many(pods).await?;
    world.settle().await?;
    let binds = world.binds().await?;
    let (servers, control, begun) = (world.fleet.cpu(), world.control_cpu(), Instant::now());
    let scheduler = world.scheduler("scheduler")?;
    world.processes.push(scheduler);
    let all = binds.all(pods, PODS_MAX).await?;
    let each = |cpu: Duration| Some(cpu.as_secs_f64() * 1e6 / pods as f64);
    let (server_us, client_us) = (each(world.fleet.cpu() - servers), each(world.control_cpu() - control));
    let first = all.values().map(|bind| bind.at).min().context("there are pods")?;
    let last = all.values().map(|bind| bind.at).max().context("there are pods")?;
    let later = all.values().filter(|bind| bind.at > first).count();
    let rate = later as f64 / (last - first).as_secs_f64().max(1e-3);
    let total = sample("bound_all", ms(last - begun));
    Ok(vec![Sample { metric: "bound".into(), value: rate, server_us, client_us }, total])
}

/// An open loop: each pod is made at its time, however the ones before fare; latencies count from that time.
async fn latency(world: &mut World<'_>, pods: usize) -> Result<Vec<Sample>> {
    let binds = world.binds().await?;
    let scheduler = world.scheduler("scheduler")?;
    world.processes.push(scheduler);
    // One pod first: from then on there is a leader that has seen all nodes.
    world.store.create_one(pods).await?;
    binds.all(1, SETTLE_MAX).await?;
    let begun = Instant::now();
    let due = |n: usize| begun + PACE * n as u32;
    let mut made: JoinSet<Result<()>> = JoinSet::new();
    for n in 0..pods {
        tokio::time::sleep_until(due(n).into()).await;
        let store = world.store.clone();
        made.spawn(async move { store.create_one(n).await });
        while let Some(done) = made.try_join_next() {
            done??;
        }
    }
    while let Some(done) = made.join_next().await {
        done??;
    }
    let all = binds.all(pods + 1, PODS_MAX).await?;
    let mut histogram = Histogram::<u64>::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)?;
    for (n, Bind { at, .. }) in all.iter().filter(|(n, _)| **n < pods) {
        histogram.saturating_record(at.saturating_duration_since(due(*n)).as_nanos() as u64);
    }
    let quantile = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e6;
    Ok(vec![sample("latency_p50", quantile(0.5)), sample("latency_p99", quantile(0.99))])
}

/// Milliseconds from the creation of a Deployment to the status that says that all of it is available.
async fn deployment(world: &mut World<'_>, replicas: usize) -> Result<f64> {
    let binds = world.binds().await?;
    let scheduler = world.scheduler("scheduler")?;
    world.processes.push(scheduler);
    world.store.create_one(0).await?;
    binds.all(1, SETTLE_MAX).await?;
    let api = Api::new(world.store.kv.clone());
    let json = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]},
            },
        },
    });
    let wanted: Deployment = read(json.to_string().as_bytes(), true).map_err(|status| anyhow!("{status:?}"))?;
    let begun = Instant::now();
    api.create(wanted, now()).await.map_err(|status| anyhow!("create the Deployment: {status:?}"))?;
    loop {
        let found = api.get::<Deployment>("default", "web").await;
        let available = found.map_err(|status| anyhow!("read the Deployment: {status:?}"))?.status.available_replicas;
        if available as usize == replicas {
            return Ok(ms(begun.elapsed()));
        }
        ensure!(begun.elapsed() < SETTLE_MAX, "{available} of {replicas} are available after {SETTLE_MAX:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Revisions that a converged control plane writes; renewals of leases make none.
async fn rest(world: &mut World<'_>, replicas: usize, time: Duration) -> Result<Vec<Sample>> {
    deployment(world, replicas).await?;
    world.settle().await?;
    let before = world.store.revision().await?;
    tokio::time::sleep(time).await;
    let written = world.store.revision().await? - before;
    Ok(vec![sample("rest", written as f64)])
}

/// The scheduler's memory once it has bound everything and rests.
async fn memory(world: &mut World<'_>, pods: usize) -> Result<Vec<Sample>> {
    world.store.create_many(pods).await?;
    let binds = world.binds().await?;
    let scheduler = world.scheduler("scheduler")?;
    let pid = scheduler.pid();
    world.processes.push(scheduler);
    binds.all(pods, PODS_MAX).await?;
    world.settle().await?;
    Ok(vec![sample("memory", process::memory(pid)?.rss() as f64 / 1e6)])
}
