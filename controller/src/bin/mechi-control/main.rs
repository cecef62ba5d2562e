//! `mechi-control`: the control plane over any etcd, as a program.
//!
//! In reading order: the words of its command line here, `store` (how the store is reached), `follow` (a copy that is kept
//! up to date), `role` (one replica that is elected and acts), `scheduler` and `controllers` (what it does), `nodes` (fake
//! ones) and their `journal`, `audit` (whether it was all right), `demo` (all of it at once), `metrics` and `http`, `log`,
//! `clock`, `memory`, `limits`.

mod limits;
mod memory;
mod clock;
mod log;
mod store;
mod follow;
mod role;
mod scheduler;
mod controllers;
mod nodes;
mod journal;
mod audit;
mod demo;
mod metrics;
mod http;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use limits::NODES_MAX;
use mechi_controller::fake::script::Script;
use mechi_controller::fake::{Fleet, Make};
use mechi_controller::types::quantity::Quantity;
use metrics::Metrics;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A control plane over any etcd: it keeps pods, nodes, ReplicaSets and Deployments, and makes the world like them.
#[derive(Parser, Debug)]
#[command(name = "mechi-control", version, about)]
struct Words {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs the scheduler and the controllers; of several replicas one acts
    Run {
        #[command(flatten)]
        store: Store,
        /// What to run
        #[arg(long, value_enum, value_delimiter = ',', default_value = "scheduler,controllers")]
        roles: Vec<RoleName>,
        /// Looks at the scheduler's queues once a second, and logs what must not be
        #[arg(long)]
        audit_queues: bool,
        /// This replica's name, for people; the host's and the process's, if it is not said
        #[arg(long)]
        identity: Option<String>,
        #[command(flatten)]
        serve: Serve,
    },
    /// Runs fake nodes, which play the pods that are bound to them
    Nodes(Box<NodesWords>),
    /// Looks at every revision of the store's history; ends with 1 if anything was ever as it must not be
    Audit {
        #[command(flatten)]
        store: Store,
        /// Goes on with what comes, until it is told to stop
        #[arg(long)]
        follow: bool,
    },
    /// Starts a store, two replicas and fake nodes on this machine, and shows a Deployment becoming available
    Demo(demo::Demo),
}

#[derive(clap::Args, Debug)]
struct NodesWords {
    #[command(flatten)]
    store: Store,
    /// How many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=NODES_MAX as i64))]
    count: u32,
    /// What their names begin with; the rest is a number
    #[arg(long, default_value = "node-")]
    prefix: String,
    /// Cores of each
    #[arg(long, default_value = "32", value_parser = quantity)]
    cpu: Quantity,
    /// Memory of each
    #[arg(long, default_value = "256Gi", value_parser = quantity)]
    memory: Quantity,
    /// Pods of each
    #[arg(long, default_value = "110", value_parser = quantity)]
    pods: Quantity,
    /// Stages of pods: start=100ms,ready=100ms,stop=100ms,fail=5s@10%,crash=1m@1%; the annotation mechi.dev/script of a
    /// pod amends it
    #[arg(long, default_value_t)]
    script: Script,
    /// Appends what their containers do to this file, a line of JSON before each start and after each end
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(clap::Args, Debug)]
struct Serve {
    /// Serves metrics here; loopback only
    #[arg(long, value_name = "ADDRESS")]
    listen_metrics: Option<SocketAddr>,
    /// Stops when its standard input ends
    #[arg(long, hide = true)]
    with_parent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum RoleName {
    Scheduler,
    Controllers,
}

fn quantity(text: &str) -> Result<Quantity, String> {
    let quantity = text.parse::<Quantity>().map_err(|error| error.to_string())?;
    if quantity.is_negative() { Err("it is negative".to_owned()) } else { Ok(quantity) }
}

fn main() -> ExitCode {
    memory::keep_small();
    let words = Words::parse();
    log::install();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.context("start the runtime").and_then(|runtime| {
        let done = runtime.block_on(run(words.command));
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mechi-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Told once it is to stop: by SIGTERM, by SIGINT, or by the end of standard input if that is its parent's hand.
fn stopper(with_parent: bool) -> Result<watch::Receiver<bool>> {
    let (tell, told) = watch::channel(false);
    let tell = Arc::new(tell);
    if with_parent {
        let tell = tell.clone();
        std::thread::spawn(move || {
            // An error ends it, too.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            tell.send_replace(true);
        });
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("is told to stop");
        tell.send_replace(true);
        // Whoever looks later finds it told, too.
        std::future::pending::<()>().await;
    });
    Ok(told)
}

async fn run(command: Command) -> Result<bool> {
    let serve = match &command {
        Command::Run { serve, .. } => Some(serve),
        Command::Nodes(words) => Some(&words.serve),
        Command::Audit { .. } | Command::Demo(_) => None,
    };
    let mut stop = stopper(serve.is_some_and(|serve| serve.with_parent))?;
    let metrics = Arc::new(Metrics::default());
    match command {
        Command::Run { store, mut roles, audit_queues, identity, serve } => {
            serve.begin(&metrics).await?;
            let identity = identity.unwrap_or_else(identity_of_process);
            roles.sort_unstable();
            roles.dedup();
            let mut tasks = JoinSet::new();
            for role in roles {
                let (kv, identity, metrics, stop) = (store.open()?, identity.clone(), metrics.clone(), stop.clone());
                match role {
                    RoleName::Scheduler => {
                        let role = scheduler::Scheduler::new(metrics.clone()).auditing(audit_queues);
                        tasks.spawn(role::run(kv, role, identity, metrics, stop))
                    }
                    RoleName::Controllers => {
                        let role = controllers::Controllers::new(metrics.clone());
                        tasks.spawn(role::run(kv, role, identity, metrics, stop))
                    }
                };
            }
            // A role that panicked must not leave half a control plane behind.
            while let Some(ended) = tasks.join_next().await {
                ended.context("a role has ended")?;
                if !*stop.borrow() {
                    bail!("a role has ended by itself");
                }
            }
            Ok(true)
        }
        Command::Nodes(words) => {
            let NodesWords { store, count, prefix, cpu, memory, pods, script, journal, serve } = *words;
            let journal = journal.as_deref().map(journal::Journal::open).transpose()?;
            serve.begin(&metrics).await?;
            let capacity = [("cpu", cpu), ("memory", memory), ("pods", pods)];
            let capacity = capacity.map(|(name, amount)| (name.to_owned(), amount)).into();
            let make = Make { capacity, script, ..Make::default() };
            let mut fleet = Fleet::new(make, (0..count).map(|n| format!("{prefix}{n}")));
            if journal.is_some() {
                fleet = fleet.with_journal();
            }
            tracing::info!(count, %script, "fake nodes");
            let told = stop.clone();
            nodes::run(store.open()?, fleet, journal, metrics, stop).await;
            if !*told.borrow() {
                bail!("the nodes have ended by themselves");
            }
            Ok(true)
        }
        Command::Audit { store, follow } => {
            let report = audit::run(&store.open()?, follow, &mut stop, &mut std::io::stdout()).await?;
            Ok(report.violations == 0)
        }
        Command::Demo(demo) => demo::run(&demo, stop).await,
    }
}

impl Serve {
    async fn begin(&self, metrics: &Arc<Metrics>) -> Result<()> {
        if let Some(address) = self.listen_metrics {
            let (address, _) = http::serve(address, metrics.clone()).await?;
            tracing::info!(%address, "serves metrics");
        }
        Ok(())
    }
}

/// The host's name and the process's number.
fn identity_of_process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", if host.trim().is_empty() { "mechi-control" } else { host.trim() }, std::process::id())
}
