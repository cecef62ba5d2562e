//! Ten minutes of process chaos for the control plane: three members of a store, two schedulers, two sets of controllers, and
//! two hundred fake nodes, all killed, paused, cut off and compacted under, while people change their minds.
//!
//! In reading order: `trace` (what is written down), `record` (the whole history as it comes, audited), `watchers` (what
//! others are told of it), `plane` (what runs), `people` (what they order), `harm` (what is done to all of it), `progress`
//! (a line each ten seconds), `settle` and `end` (whether what is wanted is what is), `report` (what it comes to). Here is how
//! one run goes.

mod trace;
mod record;
mod watchers;
mod plane;
mod people;
mod harm;
mod progress;
mod settle;
mod end;
mod report;

pub use report::{Outcome, PAGE, RESULT, Verdict};

use crate::cluster::{Cluster, ClusterOptions, Gear, Program};
use crate::limits::CONVERGE_MAX;
use crate::pulse::Pulse;
use anyhow::{Context, Result, bail, ensure};
use harm::Harm;
use mechi_client::{Client, Config};
use mechi_controller::api::Api;
use mechi_controller::kv::Etcd;
use mechi_controller::types::node::Node;
use people::{Counts, Person};
use plane::Plane;
use progress::Sums;
use record::Record;
use report::Facts;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use trace::Trace;
use watchers::Follower;

/// Members of the store.
const MEMBERS: usize = 3;

/// Time without faults at the beginning, if the run is long enough for it.
const CALM: Duration = Duration::from_secs(10);

/// Of a hundred parts of the time, so many that this process was kept waiting make what came late say nothing.
const STARVED_PERCENT: f64 = 10.0;

/// What to run.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// The server, as it was named.
    pub server: String,
    /// How long people give orders, calm and faults together.
    pub load: Duration,
    /// Fake nodes.
    pub nodes: u32,
    /// People.
    pub people: usize,
    /// Everything that is random is drawn from it; the order in which things happen is not.
    pub seed: u64,
    /// Where the run's files go; a new folder.
    pub dir: PathBuf,
}

impl ControlOptions {
    /// The command that runs the same again.
    pub fn command(&self) -> String {
        let Self { server, load, nodes, people, seed, .. } = self;
        let minutes = load.as_secs_f64() / 60.0;
        format!("jepsen control --minutes {minutes} --server {server} --nodes {nodes} --people {people} --seed {seed}")
    }

    /// Time without faults, and with faults.
    fn parts(&self) -> (Duration, Duration) {
        let calm = CALM.min(self.load / 4);
        (calm, self.load - calm)
    }
}

/// Runs it to its verdict, and writes [`RESULT`] and [`PAGE`]; its processes and their data are gone when it returns, or is
/// dropped.
///
/// - Errors: the run itself failed, so that there is nothing to judge: a program that does not start, a full disk, history
///   that was lost.
pub async fn run(options: &ControlOptions) -> Result<Outcome> {
    let program = Program::find(&options.server)?;
    let stores = options.dir.join("logs").join("stores");
    std::fs::create_dir_all(&stores).with_context(|| format!("create {}", stores.display()))?;
    let trace = Arc::new(Trace::create(&options.dir)?);
    trace.say(&options.command());
    let gear = Gear { plain: true, ..Gear::default() };
    let cluster = ClusterOptions { program, members: MEMBERS, gear, seed: options.seed };
    let cluster = Cluster::start(&cluster).await.context("start the store")?;
    let mut run = Run::begin(options, &cluster, &trace).await?;
    let played = run.play().await;
    // The logs say why a run failed, too.
    tokio::task::block_in_place(|| cluster.stop_all())?;
    cluster.write_logs(&stores)?;
    played?;
    let mut outcome = run.conclude(&stores)?;
    outcome.weigh();
    outcome.write(options)?;
    Ok(outcome)
}

/// One run, while its processes are there.
struct Run<'a> {
    options: &'a ControlOptions,
    cluster: &'a Cluster,
    trace: Arc<Trace>,
    record: Arc<Record>,
    plane: Plane,
    /// A client of all members, past all proxies.
    operator: Client,
    store: Etcd,
    counts: Arc<Counts>,
    lists: Arc<AtomicU64>,
    sums: Sums,
    facts: Facts,
    gaps: Vec<String>,
    recorder: JoinSet<Result<()>>,
    pulse: Pulse,
    begun: Instant,
}

/// A client of these endpoints.
fn client(endpoints: Vec<String>) -> Result<Client> {
    Ok(Client::lazy(Config::new(endpoints).require_leader())?)
}

impl<'a> Run<'a> {
    /// Begins to record, and starts the control plane.
    async fn begin(options: &'a ControlOptions, cluster: &'a Cluster, trace: &Arc<Trace>) -> Result<Self> {
        let (pulse, begun) = (Pulse::start(), Instant::now());
        let operator = client((0..cluster.len()).map(|n| cluster.endpoint(n)).collect())?;
        let store = Etcd::new(operator.clone());
        let (cluster_id, at) = record::whereabouts(&store).await?;
        ensure!(at == 1, "the store begins at revision {at}: what was there before is not in the record");
        let record = Arc::new(Record::begin(cluster_id, at));
        let mut recorder = JoinSet::new();
        {
            let (record, trace, store) = (record.clone(), trace.clone(), store.clone());
            recorder.spawn(async move { record.follow(&store, &trace).await });
        }
        let plane = Plane::start(cluster, options)?;
        let trace = trace.clone();
        let (counts, lists) = (Arc::new(Counts::default()), Arc::new(AtomicU64::new(0)));
        let (sums, facts, gaps) = (Sums::default(), Facts::default(), Vec::new());
        Ok(Self {
            options,
            cluster,
            trace,
            record,
            plane,
            operator,
            store,
            counts,
            lists,
            sums,
            facts,
            gaps,
            recorder,
            pulse,
            begun,
        })
    }

    /// All of it, but for what is read of stopped processes.
    async fn play(&mut self) -> Result<()> {
        let mut followers = self.follow()?;
        self.wait_for_nodes().await?;
        let through_proxies = self.cluster.members().iter().map(|member| member.endpoint.clone()).collect();
        let api = Api::new(Etcd::new(client(through_proxies)?));
        people::begin(&api).await?;
        let (stop, told) = watch::channel(false);
        let mut people = JoinSet::new();
        for number in 0..self.options.people {
            let (record, counts, options) = (&self.record, &self.counts, self.options);
            let person = Person::new(number, api.clone(), record, counts, options.nodes, options.seed);
            people.spawn(person.run(told.clone()));
        }
        self.harm().await?;

        if let Err(error) = end::heal(self.cluster, &self.plane).await {
            // The members that did not come back are accused of it.
            self.trace.say(&format!("after healing: {error:#}"));
        }
        let healed = Instant::now();
        self.trace.say("healed");
        stop.send_replace(true);
        let mut people = people.join_all().await;
        end::catch_up(&self.store, &self.record).await?;
        end::last_words(&mut people, &self.record, &self.trace).await;
        end::catch_up(&self.store, &self.record).await?;
        self.settle(healed).await;

        let stores = (0..self.cluster.len()).map(|n| {
            let kv = Etcd::new(client(vec![self.cluster.endpoint(n)])?);
            anyhow::Ok((self.cluster.name(n).to_owned(), kv))
        });
        let stores = stores.collect::<Result<Vec<_>>>()?;
        end::read_all(stores, &self.record, &self.trace).await;
        followers.shutdown().await;
        self.sums.ask(&self.plane).await;
        if let Err(error) = tokio::task::block_in_place(|| self.plane.stop()) {
            self.trace.finding(format!("{error:#}"));
        }
        end::catch_up(&self.store, &self.record).await?;
        println!("{}", progress::line(&self.record, &self.trace, &self.counts));
        self.recorder_lives()
    }

    /// Starts a watcher at each member, through its proxy.
    fn follow(&self) -> Result<JoinSet<()>> {
        let mut followers = JoinSet::new();
        for member in self.cluster.members() {
            let kv = Etcd::new(client(vec![member.endpoint.clone()])?);
            let (name, record, trace) = (format!("the watcher at {}", member.name), &self.record, &self.trace);
            let (record, trace, lists) = (record.clone(), trace.clone(), self.lists.clone());
            followers.spawn(Follower { name, kv, record, trace, lists }.run());
        }
        Ok(followers)
    }

    /// Waits until all fake nodes are there.
    async fn wait_for_nodes(&mut self) -> Result<()> {
        let wanted = self.options.nodes as usize;
        let deadline = Instant::now() + CONVERGE_MAX;
        loop {
            let ready = self.record.with(|cache| cache.all::<Node>().filter(|node| node.is_ready()).count());
            if ready == wanted {
                return Ok(());
            }
            if let Some(why) = self.plane.ended() {
                bail!("{why}; its log is in {}", self.options.dir.join("logs").display());
            }
            self.recorder_lives()?;
            ensure!(Instant::now() < deadline, "{ready} of {wanted} nodes are ready after {CONVERGE_MAX:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Calm, then faults, with a line each ten seconds.
    async fn harm(&mut self) -> Result<()> {
        let (calm, harmed) = self.options.parts();
        let begun = Instant::now();
        let end = begun + calm + harmed;
        let harm = Harm {
            cluster: self.cluster,
            plane: &self.plane,
            record: &self.record,
            trace: &self.trace,
            operator: &self.operator,
        };
        let seed = self.options.seed;
        let work = async {
            tokio::time::sleep(calm).await;
            harm::run(&harm, seed, end).await.context("do harm")
        };
        let shown = progress::show(&self.plane, &self.record, &self.trace, &self.counts, &mut self.sums);
        tokio::select! {
            done = work => done?,
            () = shown => unreachable!("it goes on for ever"),
            Some(ended) = self.recorder.join_next() => {
                ended.context("the recorder")??;
                bail!("the recorder has ended");
            }
        }
        self.facts.harm = begun.elapsed().saturating_sub(calm);
        Ok(())
    }

    /// Waits until everything is as it is wanted.
    async fn settle(&mut self, healed: Instant) {
        match end::settle(&self.record, healed).await {
            Ok(after) => self.facts.settled = Some(after),
            Err(left) => {
                let text = format!("L1: no fault is left, and not all is as it is wanted: {}", end::first_of(&left));
                left.iter().for_each(|left| self.trace.say(&format!("left: {left}")));
                if self.late_percent() >= STARVED_PERCENT { self.gaps.push(text) } else { self.trace.finding(text) }
            }
        }
        if let Some(why) = self.plane.ended() {
            self.trace.finding(why);
        }
    }

    /// How much of the time this process was kept waiting.
    fn late_percent(&self) -> f64 {
        100.0 * self.pulse.late_ns() as f64 / self.begun.elapsed().as_nanos().max(1) as f64
    }

    /// - Errors: why the recorder has ended, which it never does by itself.
    fn recorder_lives(&mut self) -> Result<()> {
        match self.recorder.try_join_next() {
            Some(ended) => ended.context("the recorder")?,
            None => Ok(()),
        }
    }

    /// What is read once all processes have stopped.
    fn conclude(mut self, stores: &std::path::Path) -> Result<Outcome> {
        let late_percent = self.late_percent();
        let running = self.record.with(end::running);
        let journal_lines = end::journal(&self.options.dir, &running, &self.trace)?;
        let is_starved = late_percent >= STARVED_PERCENT;
        end::read_logs(&self.plane, stores, is_starved, &self.trace, &mut self.gaps)?;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let metrics = self.sums.all();
        let (findings, more) = self.trace.findings();
        let facts = Facts {
            faults: self.trace.faults(),
            looked: self.record.looked(),
            orders: [of(&self.counts.done), of(&self.counts.refused), of(&self.counts.unknown)],
            lists: of(&self.lists),
            journal_lines,
            queue_audits: metrics.get(progress::QUEUE_AUDITS).copied().unwrap_or(0),
            metrics,
            late_percent,
            ..self.facts
        };
        Ok(Outcome { findings, more: more + self.record.more_findings(), gaps: self.gaps, facts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_calm_and_faults_and_says_how_to_repeat_it() {
        let options = |seconds| ControlOptions {
            server: "etcd".to_owned(),
            load: Duration::from_secs(seconds),
            nodes: 20,
            people: 2,
            seed: 7,
            dir: PathBuf::new(),
        };
        let parts = |seconds| options(seconds).parts();
        assert_eq!(parts(600), (Duration::from_secs(10), Duration::from_secs(590)));
        assert_eq!(parts(20), (Duration::from_secs(5), Duration::from_secs(15)));
        assert_eq!(options(30).command(), "jepsen control --minutes 0.5 --server etcd --nodes 20 --people 2 --seed 7");
    }
}
