//! One cell of the matrix, one run: a workload under one kind of harm, healed, read to the end, and judged.

use crate::cluster::{Cluster, ClusterOptions, Program};
use crate::judge;
use crate::nemesis::{self, Nemesis};
use crate::recorder::Recorder;
use crate::resolve;
use crate::workload::{self, PAUSE_MS, Workload, WorkloadOptions};
use anyhow::{Context, Result, bail};
use mechi_checker::edn::Edn;
use mechi_checker::verdict::Results;
use mechi_tests::process::Kind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Seconds of load before the first fault, if the run is long enough for them.
const CALM_SECONDS: u64 = 5;

/// One run in so many goes without the members' logs, so that the checkers do not rely on what reads them.
const WITHOUT_LOGS: u64 = 10;

/// The leader's patience, by default of both servers: what is late is late by this.
const ELECTION_MS: u64 = 1_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct CellOptions {
    /// What clients do.
    pub workload: Workload,
    /// What is done to the servers.
    pub nemesis: Nemesis,
    /// Seconds of load, faults and healing among them.
    pub seconds: u64,
    /// The server, as it was named.
    pub server: String,
    /// How many members.
    pub members: usize,
    /// Everything that is random is drawn from it; the order in which things happen is not.
    pub seed: u64,
    /// Milliseconds between two operations of a client; [`PAUSE_MS`] leaves a machine of two cores some air.
    pub pause_ms: u64,
    /// Where the run's files go; a new folder.
    pub dir: PathBuf,
}

impl CellOptions {
    /// The command that runs the same again.
    pub fn command(&self) -> String {
        let Self { workload, nemesis, seconds, server, members, seed, pause_ms, .. } = self;
        let pause = if *pause_ms == PAUSE_MS { String::new() } else { format!(" --pause-ms {pause_ms}") };
        format!(
            "jepsen run --workload {workload} --nemesis {nemesis} --seconds {seconds} --server {server} --members {members} \
             --seed {seed}{pause}"
        )
    }

    /// Seconds without faults, with faults, and for coming back.
    fn parts(&self) -> (u64, u64, u64) {
        let calm = CALM_SECONDS.min(self.seconds / 3).max(1);
        let after = (self.seconds / 4).clamp(1, 8);
        (calm, self.seconds.saturating_sub(calm + after).max(1), after)
    }

    fn to_edn(&self, kind: Kind) -> Edn {
        let (calm, harm, _) = self.parts();
        let members = (1..=self.members).map(|n| Edn::text(format!("n{n}")));
        let logs = self.nemesis.expected_logs().iter().map(|text| Edn::text(*text));
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get() as u64);
        Edn::map([
            ("workload", Edn::text(self.workload.name())),
            ("nemesis", Edn::text(self.nemesis.name())),
            ("seed", self.seed.into()),
            ("seconds", self.seconds.into()),
            ("server", Edn::text(&self.server)),
            ("kind", Edn::keyword(if kind == Kind::Mechi { "mechi" } else { "etcd" })),
            ("commit", Edn::text(commit())),
            ("members", Edn::Vector(members.collect())),
            ("command", Edn::text(self.command())),
            ("election-ms", ELECTION_MS.into()),
            ("calm-ms", (1_000 * calm).into()),
            ("expected-logs", Edn::Vector(logs.collect())),
            ("effects-wanted", self.nemesis.effects_wanted(harm).into()),
            ("nproc", cores.into()),
            ("load", Edn::text(load.split(' ').next().unwrap_or_default())),
        ])
    }
}

/// The commit that runs, as far as git knows.
pub fn commit() -> String {
    let asked = Command::new("git").args(["rev-parse", "HEAD"]).output().ok().filter(|ran| ran.status.success());
    asked.map_or_else(|| "unknown".to_owned(), |ran| String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

/// Runs a cell to its verdict; its processes and their data are gone when it returns, or is dropped.
///
/// - Errors: the run itself failed, so that there is nothing to judge: a program that does not start, a full disk.
pub async fn run(options: &CellOptions) -> Result<Results> {
    let program = Program::find(&options.server)?;
    if let Some(why) = options.nemesis.impossible(program.kind) {
        bail!("{} cannot be done to {}: {why}", options.nemesis, options.server);
    }
    let dir = &options.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    std::fs::write(dir.join("options.edn"), format!("{}\n", options.to_edn(program.kind)))?;
    let gear = options.nemesis.gear(program.kind);
    let cluster = ClusterOptions { program, members: options.members, gear, seed: options.seed };
    let cluster = Cluster::start(&cluster).await.context("start the members")?;
    if options.nemesis == Nemesis::Failpoint && !nemesis::has_failpoints(&cluster, 0) {
        bail!("{} was built without its failpoints", options.server);
    }
    let torn = torture(options, &cluster).await;
    // The logs say why a run failed, too.
    tokio::task::block_in_place(|| cluster.stop_all())?;
    cluster.write_logs(&dir.join("logs"))?;
    torn?;
    tokio::task::block_in_place(|| conclude(options, &cluster, dir))
}

/// Load, harm, healing, and the last reads.
async fn torture(options: &CellOptions, cluster: &Cluster) -> Result<()> {
    let recorder = Recorder::create(&options.dir)?;
    let asked = WorkloadOptions::new(options.seed, options.seconds, options.pause_ms);
    let (calm, harm, _) = options.parts();
    let load = {
        let (members, recorder, asked) = (cluster.members().to_vec(), recorder.clone(), asked.clone());
        let workload = options.workload;
        tokio::spawn(async move { workload::run(workload, &members, &asked, &recorder).await })
    };
    let load = Abort(load);
    // etcd takes a snapshot after a hundred entries of any size.
    let ballast = (cluster.gear().snapshots && cluster.program().kind == Kind::Mechi).then(|| {
        let (members, recorder, seed) = (cluster.members().to_vec(), recorder.clone(), options.seed);
        Abort(tokio::spawn(async move { nemesis::ballast::write(&members, &recorder, seed).await }))
    });
    tokio::time::sleep(Duration::from_secs(calm)).await;
    let end = Instant::now() + Duration::from_secs(harm);
    nemesis::run(options.nemesis, cluster, &recorder, options.seed, end).await.context("do harm")?;
    if let Err(error) = nemesis::heal(cluster, &recorder).await {
        // The members that did not come back are accused of it.
        eprintln!("after healing: {error:#}");
    }
    recorder.healed();
    drop(ballast);
    load.join().await.context("the workload")?;
    if let Err(error) = workload::last_reads(options.workload, cluster.members(), &asked, &recorder).await {
        cluster.accuse(0, &format!("and the others, at the last reads: {error:#}"));
    }
    for n in 0..cluster.len() {
        cluster.ended(n);
    }
    recorder.finish()
}

/// Reads the stopped members' logs, and has everything judged.
fn conclude(options: &CellOptions, cluster: &Cluster, dir: &Path) -> Result<Results> {
    if cluster.program().kind == Kind::Mechi && !options.seed.is_multiple_of(WITHOUT_LOGS) {
        let members: Vec<(String, PathBuf)> =
            (0..cluster.len()).map(|n| (cluster.name(n).to_owned(), cluster.data_dir(n))).collect();
        resolve::merge(&cluster.program().path, &members, dir).context("merge the members' logs")?;
    }
    judge::judge(dir).context("judge the run")
}

/// A task that ends with whoever waits for it.
struct Abort<T>(tokio::task::JoinHandle<T>);

impl<T> Abort<Result<T>> {
    async fn join(mut self) -> Result<T> {
        (&mut self.0).await?
    }
}

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_calm_harm_and_time_to_come_back() {
        let parts = |seconds| {
            let (workload, nemesis) = (Workload::Register, Nemesis::Kill);
            let (server, dir) = ("mechi".to_owned(), PathBuf::new());
            CellOptions { workload, nemesis, seconds, server, members: 3, seed: 7, pause_ms: PAUSE_MS, dir }.parts()
        };
        assert_eq!((parts(30), parts(15), parts(1)), ((5, 18, 7), (5, 7, 3), (1, 1, 1)));
    }
}
