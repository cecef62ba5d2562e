//! Half load for a long time, with a verdict: `soak [--minutes 60] [--server mechi|etcd] [--members 3] [--keys 1000000]
//! [--rate N] [--mechi PATH] [--etcd PATH] [--out target/soak]`.
//!
//! Guarded writes at half of the maximum that is measured first (or at `--rate`), spread over all keys; beside them gets,
//! lists by page, watches of everything and leases; auto-compaction by revision. Ends by itself, with 1 if the verdict is
//! bad.

use anyhow::{Context, Result, bail};
use mechi_benches::servers::Programs;
use mechi_benches::soak::{Plan, judge, run, write};
use mechi_benches::table::number;
use mechi_tests::oracle;
use mechi_tests::process::Kind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Revisions that auto-compaction keeps.
const RETENTION: u64 = 100_000;

fn main() -> Result<ExitCode> {
    let (programs, plan, out) = options()?;
    std::fs::create_dir_all(&out)?;
    let total = plan.time.as_secs_f64();
    let record = run(&programs, &plan, |record| {
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
        write(record, &out)
    })?;
    let verdict = judge(&record);
    println!("\n{verdict:#?}\nwritten to {}", out.display());
    Ok(if verdict.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options() -> Result<(Programs, Plan, PathBuf)> {
    let (mut etcd, mut mechi, mut out) = (None, None, PathBuf::from("target/soak"));
    let mut plan = Plan {
        kind: Kind::Mechi,
        members: 3,
        keys: 1_000_000,
        time: Duration::from_secs(3_600),
        interval: Duration::from_secs(5),
        rate: None,
        flags: Vec::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} wants a value"))?;
        let wrong = || format!("{name} {value}");
        match name.as_str() {
            "--minutes" => plan.time = Duration::from_secs_f64(value.parse::<f64>().with_context(wrong)? * 60.0),
            "--members" => plan.members = value.parse().with_context(wrong)?,
            "--keys" => plan.keys = value.parse().with_context(wrong)?,
            "--rate" => plan.rate = Some(value.parse().with_context(wrong)?),
            "--etcd" => etcd = Some(PathBuf::from(value)),
            "--mechi" => mechi = Some(PathBuf::from(value)),
            "--out" => out = PathBuf::from(value),
            "--server" => {
                plan.kind = match value.as_str() {
                    "mechi" => Kind::Mechi,
                    "etcd" => Kind::Etcd,
                    _ => bail!("unknown server {value}; there are mechi and etcd"),
                }
            }
            _ => bail!(
                "unknown option {name}; there are --minutes, --server, --members, --keys, --rate, --mechi, --etcd and --out"
            ),
        }
    }
    plan.flags = vec!["--auto-compaction-mode=revision".into(), format!("--auto-compaction-retention={RETENTION}")];
    if plan.kind == Kind::Mechi {
        // etcd looks each five minutes and cannot be told otherwise.
        plan.flags.push("--auto-compaction-revision-interval=30s".into());
    }
    let programs = Programs::find(etcd.unwrap_or_else(oracle::etcd), mechi.unwrap_or_else(oracle::mechi))?;
    Ok((programs, plan, out))
}
