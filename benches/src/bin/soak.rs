//! Half load for a long time, with a verdict.
//!
//! Guarded writes, spread over all keys, at half of the maximum that is measured first (or at `--rate`). Beside them, from
//! before that measurement on, gets, lists by page, watches of everything and leases; auto-compaction by revision. Ends by
//! itself, with 1 if the verdict is bad.

use anyhow::{Context, Result};
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use mechi_benches::arguments::{BothPrograms, keys, rate};
use mechi_benches::soak::{Plan, Record, judge, run, write};
use mechi_benches::table::number;
use mechi_tests::arguments::time;
use mechi_tests::process::Kind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Revisions that auto-compaction keeps.
const RETENTION: u64 = 20_000;

/// Members of a cluster that this machine can hold.
const MEMBERS_MAX: u64 = 7;

const EXAMPLE: &str = "\
The exit code is the verdict: 1 if memory drifts, the disk grows without end, or anything fails.

Example:
  target/release/soak --minutes 10 --keys 100000 --rate 500";

/// Half load for a long time: guarded writes beside gets, lists, watches and leases, with a verdict
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLE, allow_negative_numbers = true)]
struct Options {
    /// Minutes that are judged; a sample is taken each 5 seconds
    #[arg(long, value_name = "MINUTES", default_value = "60", value_parser = time(60.0, 0.2..=10_080.0))]
    minutes: Duration,
    /// Minutes of the same load before them, two fifths of --minutes unless given
    ///
    /// Memory is not judged in them; disk and errors are.
    #[arg(long, value_name = "MINUTES", value_parser = time(60.0, 0.0..=10_080.0))]
    settle: Option<Duration>,
    /// The server to soak
    #[arg(long, value_name = "KIND", default_value = "mechi")]
    server: Kind,
    /// Members of the cluster
    #[arg(long, value_name = "N", default_value = "3", value_parser = RangedU64ValueParser::<usize>::new().range(1..=MEMBERS_MAX))]
    members: usize,
    /// Keys that live all the time
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = keys())]
    keys: u64,
    /// Guarded writes per second [default: half of the maximum, which is measured first]
    #[arg(long, value_name = "N", value_parser = rate())]
    rate: Option<f64>,
    #[command(flatten)]
    programs: BothPrograms,
    /// The folder for SOAK.md, soak.json and the plots
    #[arg(long, value_name = "DIR", default_value = "target/soak")]
    out: PathBuf,
    /// Put no load on anything: judge the record in --out once more, and write its page anew
    #[arg(long)]
    again: bool,
}

impl Options {
    fn plan(&self) -> Plan {
        let mut flags =
            vec!["--auto-compaction-mode=revision".into(), format!("--auto-compaction-retention={RETENTION}")];
        if self.server == Kind::Mechi {
            // etcd looks each five minutes and cannot be told otherwise.
            flags.push("--auto-compaction-revision-interval=10s".into());
        }
        let interval = Duration::from_secs(5);
        let Self { server: kind, members, keys, minutes: time, rate, .. } = *self;
        let settling = self.settle.unwrap_or(time * 2 / 5);
        Plan { kind, members, keys, settling, time, interval, rate, flags }
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let record = if options.again { stored(&options.out)? } else { soak(&options)? };
    let (verdict, out) = (judge(&record), &options.out);
    write(&record, out)?;
    println!("\n{verdict:#?}\nwritten to {}", out.display());
    Ok(if verdict.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The record of an earlier run.
fn stored(out: &Path) -> Result<Record> {
    let path = out.join("soak.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
}

fn soak(options: &Options) -> Result<Record> {
    let (programs, plan, out) = (options.programs.find()?, options.plan(), &options.out);
    std::fs::create_dir_all(out)?;
    let total = (plan.settling + plan.time).as_secs_f64();
    run(&programs, &plan, |record| {
        if let Some(last) = record.samples.last() {
            println!(
                "{:>6.0} of {total:.0} s: {} writes/s, p99 {} ms, memory {} MB, disk {} MB, load average {:.1}",
                last.at,
                number(last.writes),
                number(last.p99),
                number((last.anonymous + last.file) as f64 / 1e6),
                number(last.disk as f64 / 1e6),
                last.load_average,
            );
        }
        write(record, out)
    })
}
