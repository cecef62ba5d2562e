//! Measures how long a cluster of three does not acknowledge a write after its leader is gone: Mechi beside etcd.
//! What is measured, and how, is in `mechi_tests::failover`.

use anyhow::Result;
use clap::Parser;
use mechi_tests::arguments;
use mechi_tests::failover::{End, measure};
use mechi_tests::process::Kind;
use mechi_tests::progress::progress;
use std::collections::BTreeMap;
use std::time::Duration;

const EXAMPLE: &str = "\
The programs are those of this build, and etcd 3.5.1 as tests/oracles.sh fetches it.

Example:
  target/release/failover --rounds 10 --kinds mechi --ends kill";

/// Measure how long three members acknowledge no write after their leader is gone: Mechi beside etcd
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLE, allow_negative_numbers = true)]
struct Options {
    /// Leaders that go, for each server and end
    #[arg(long, value_name = "N", default_value = "50", value_parser = arguments::rounds())]
    rounds: usize,
    /// The servers to measure
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', default_value = "mechi,etcd")]
    kinds: Vec<Kind>,
    /// How the leaders go: by kill -9, or by SIGTERM
    #[arg(long, value_name = "END,...", value_delimiter = ',', default_value = "kill,term")]
    ends: Vec<End>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut tables = BTreeMap::<End, Vec<String>>::new();
    for kind in &options.kinds {
        for end in &options.ends {
            let rounds = options.rounds;
            let each = |round, time: Duration| {
                progress(&format!("{kind:?} {end:?} {round}/{rounds}: {:.0} ms", time.as_secs_f64() * 1e3));
            };
            let mut times = runtime.block_on(measure(*kind, None, *end, rounds, each))?;
            progress("");
            times.sort_unstable();
            let at = |part: usize| times[((times.len() * part).div_ceil(100)).max(1) - 1].as_secs_f64() * 1e3;
            let row = format!(
                "| {kind:?} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
                times.len(),
                at(0),
                at(50),
                at(99),
                at(100)
            );
            tables.entry(*end).or_default().push(row);
        }
    }
    for (end, rows) in tables {
        let title = match end {
            End::Kill => "kill -9 of the leader to the next acknowledged write, ms",
            End::Term => "SIGTERM of the leader: longest gap between two acknowledged writes, ms",
        };
        println!("\n{title}\n\n| server | rounds | least | p50 | p99 | most |\n| --- | --- | --- | --- | --- | --- |");
        rows.iter().for_each(|row| println!("{row}"));
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("\nload average at the end: {}", load.trim());
    Ok(())
}
