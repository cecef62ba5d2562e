//! Tortures real clusters and says what went wrong: one run, a whole matrix of them, or a stored run once more.

use anyhow::{Context, Result, bail};
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use mechi_checker::verdict::{Results, Verdict};
use mechi_jepsen::cell::{self, CellOptions};
use mechi_jepsen::control::{self, ControlOptions, Outcome};
use mechi_jepsen::limits::{
    CONTROL_MINUTES_MAX, CONTROL_NODES_MAX, CONTROL_NODES_MIN, CONTROL_PEOPLE_MAX, MEMBERS_MAX, PAUSE_MS_MAX,
    SECONDS_MAX,
};
use mechi_jepsen::matrix::{self, Cell, MatrixOptions};
use mechi_jepsen::nemesis::Nemesis;
use mechi_jepsen::workload::{PAUSE_MS, Workload};
use mechi_jepsen::{judge, report};
use mechi_tests::arguments;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Everything runs on loopback, and is gone at the end or after Ctrl-C but for the files below --out.
The exit code is 0 if nothing was wrong, 1 if something was, 2 for wrong words.

Examples:
  jepsen run --workload register --nemesis kill --seconds 15
  jepsen run --workload watch --nemesis partition --server etcd
  jepsen matrix --cells append/all,watch/kill
  jepsen control --minutes 10
  jepsen control --etcd /usr/bin/etcd --seed 7
  jepsen check target/jepsen/register-kill-7";

/// Torture real clusters of Mechi or etcd, and check what their clients saw
#[derive(Debug, Parser)]
#[command(name = "jepsen", after_help = EXAMPLES)]
struct Asked {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run one workload under one nemesis
    #[command(after_help = EXAMPLES)]
    Run {
        /// What clients do; `jepsen list` names them
        #[arg(long, value_name = "NAME", default_value = "register")]
        workload: Workload,
        /// What is done to the servers; `jepsen list` explains them
        #[arg(long, value_name = "NAME", default_value = "none")]
        nemesis: Nemesis,
        #[command(flatten)]
        how: How,
    },
    /// Run many cells, and write a report of them
    #[command(after_help = EXAMPLES)]
    Matrix {
        /// Leave out cells that have a verdict below --out
        #[arg(long)]
        resume: bool,
        /// The cells to run; all if none is named
        #[arg(long, value_name = "W/N,...", value_delimiter = ',', value_parser = matrix::parse_cell)]
        cells: Vec<Cell>,
        /// Run the cells that continuous integration runs for this commit instead
        #[arg(long, value_name = "HASH", conflicts_with = "cells")]
        of_commit: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Run the control plane on a store under faults, and audit its whole history
    #[command(after_help = EXAMPLES)]
    Control(ControlWords),
    /// Check a stored run again
    #[command(after_help = EXAMPLES)]
    Check {
        /// The run's folder
        dir: PathBuf,
    },
    /// Write the report of all runs below a folder
    #[command(after_help = EXAMPLES)]
    Report {
        /// The folder of the runs' folders
        dir: PathBuf,
    },
    /// List the workloads, and the nemeses
    #[command(after_help = EXAMPLES)]
    List,
}

#[derive(Debug, Args)]
struct How {
    /// Seconds of load in each run
    #[arg(long, value_name = "N", default_value = "30", value_parser = RangedU64ValueParser::<u64>::new().range(5..=SECONDS_MAX))]
    seconds: u64,
    /// The server: mechi of this build, etcd 3.5.1, or the path of either
    #[arg(long, value_name = "NAME", default_value = "mechi")]
    server: String,
    /// Members of the cluster
    #[arg(long, value_name = "N", default_value = "3", value_parser = RangedU64ValueParser::<usize>::new().range(1..=MEMBERS_MAX))]
    members: usize,
    /// What everything random is drawn from; another one each time if none is named
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Milliseconds between two operations of each client
    #[arg(long, value_name = "MS", default_value_t = PAUSE_MS, value_parser = RangedU64ValueParser::<u64>::new().range(..=PAUSE_MS_MAX))]
    pause_ms: u64,
    /// Where the files of the runs go
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ControlWords {
    /// Minutes of load; what comes after the last fault is not counted
    #[arg(long, value_name = "N", default_value = "10", value_parser = arguments::time(60.0, 0.2..=CONTROL_MINUTES_MAX))]
    minutes: Duration,
    /// The store: mechi of this build, etcd 3.5.1, or the path of either
    #[arg(long, value_name = "NAME", default_value = "mechi")]
    server: String,
    /// The same as --server PATH
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    etcd: Option<String>,
    /// Fake nodes
    #[arg(long, value_name = "N", default_value = "200", value_parser = RangedU64ValueParser::<u32>::new().range(CONTROL_NODES_MIN..=CONTROL_NODES_MAX))]
    nodes: u32,
    /// People who give orders
    #[arg(long, value_name = "N", default_value = "4", value_parser = RangedU64ValueParser::<usize>::new().range(1..=CONTROL_PEOPLE_MAX))]
    people: usize,
    /// What everything random is drawn from; another one each time if none is named
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where the run's files go
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl How {
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(seed_of_now)
    }
}

/// Seconds since 1970: another one for each run that a person starts.
fn seed_of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs())
}

fn main() -> ExitCode {
    let asked = Asked::parse();
    match act(asked.what) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked; returns whether nothing was wrong.
fn act(what: What) -> Result<bool> {
    match what {
        What::Run { workload, nemesis, how } => {
            let seed = how.seed();
            let dir =
                how.out.unwrap_or_else(|| Path::new("target/jepsen").join(format!("{workload}-{nemesis}-{seed}")));
            if dir.join("options.edn").exists() {
                bail!("{} holds a run already: name another folder, or another seed", dir.display());
            }
            let (seconds, server, members, pause_ms) = (how.seconds, how.server, how.members, how.pause_ms);
            let options = CellOptions { workload, nemesis, seconds, server, members, seed, pause_ms, dir };
            println!("{}", options.command());
            let results = interruptible(cell::run(&options))?;
            Ok(told(&results, &options.dir))
        }
        What::Matrix { resume, cells, of_commit, how } => {
            let kind = matrix::kind_of(&how.server)?;
            let cells = match (cells, of_commit) {
                (cells, None) if cells.is_empty() => matrix::all(kind),
                (cells, None) => cells,
                (_, Some(commit)) => matrix::of_commit(&commit, kind),
            };
            let seed = how.seed();
            let (seconds, server, members, pause_ms) = (how.seconds, how.server, how.members, how.pause_ms);
            let out = how.out.unwrap_or_else(|| PathBuf::from("target/jepsen"));
            let options = MatrixOptions { cells, resume, seconds, server, members, seed, pause_ms, out };
            let summary = interruptible(matrix::run(&options))?;
            println!(
                "{} valid, {} with findings: {:?}, {} failed: {:?}, {} had a verdict before; {}",
                summary.valid,
                summary.wrong.len(),
                summary.wrong,
                summary.failed.len(),
                summary.failed,
                summary.resumed,
                matrix::report_path(&options.out).display()
            );
            Ok(summary.is_valid())
        }
        What::Control(words) => {
            let ControlWords { minutes: load, server, etcd, nodes, people, seed, out } = words;
            let (server, seed) = (etcd.unwrap_or(server), seed.unwrap_or_else(seed_of_now));
            let dir = out.unwrap_or_else(|| Path::new("target/jepsen").join(format!("control-{seed}")));
            if dir.join(control::RESULT).exists() {
                bail!("{} holds a run already: name another folder, or another seed", dir.display());
            }
            let options = ControlOptions { server, load, nodes, people, seed, dir };
            println!("{}", options.command());
            let outcome = interruptible(control::run(&options))?;
            println!("{}", told_of_control(&outcome, &options.dir));
            Ok(outcome.verdict() == control::Verdict::Valid)
        }
        What::Check { dir } => Ok(told(&judge::judge(&dir)?, &dir)),
        What::Report { dir } => {
            let path = matrix::report_path(&dir);
            report::write(&dir, &path)?;
            println!("{}", path.display());
            Ok(true)
        }
        What::List => {
            println!("workloads: {}", Workload::ALL.map(Workload::name).join(", "));
            Nemesis::ALL.iter().for_each(|one| println!("{:18} {}", one.name(), one.about()));
            Ok(true)
        }
    }
}

fn told(results: &Results, dir: &Path) -> bool {
    matrix::print_findings(results);
    println!("{}: {}", matrix::word(results), dir.display());
    results.verdict() == Verdict::Valid
}

/// The verdict with its reasons, and where the rest is.
fn told_of_control(outcome: &Outcome, dir: &Path) -> String {
    let findings = outcome.findings.iter().map(|finding| format!("{finding}\n"));
    let gaps = outcome.gaps.iter().map(|gap| format!("too little: {gap}\n"));
    let reasons: String = findings.chain(gaps).collect();
    let more = if outcome.more > 0 { format!("{} more findings\n", outcome.more) } else { String::new() };
    format!("{reasons}{more}{}: {}", outcome.word(), dir.join(control::PAGE).display())
}

/// Runs something that is dropped, with all that it started, at the first SIGINT or SIGTERM.
fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("hear SIGINT")?;
        let mut end = signal(SignalKind::terminate()).context("hear SIGTERM")?;
        tokio::select! {
            done = work => done,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = end.recv() => bail!("told to end"),
        }
    })
}
