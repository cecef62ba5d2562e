//! Measures what clients notice of a fault, Mechi beside etcd, and how fast a member comes back with a gigabyte.
//! What is measured, and how, is in `mechi_tests::service`.

use anyhow::Result;
use clap::{Parser, ValueEnum};
use mechi_tests::arguments;
use mechi_tests::cluster::Cluster;
use mechi_tests::process::Kind;
use mechi_tests::progress::progress;
use mechi_tests::service::{Fault, Return, Seen, come_back, filled, measure};
use std::time::Duration;
use tokio::task::block_in_place;

const EXAMPLE: &str = "\
The programs are those of this build, and etcd 3.5.1 as tests/oracles.sh fetches it. The members are on loopback.

Example:
  target/release/service --rounds 3 --kinds mechi --mib 256";

/// Measure what clients notice of a fault, Mechi beside etcd, and how fast a member comes back
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLE, allow_negative_numbers = true)]
struct Options {
    /// Times that each fault happens
    #[arg(long, value_name = "N", default_value = "10", value_parser = arguments::rounds())]
    rounds: usize,
    /// The servers to measure
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', default_value = "mechi,etcd")]
    kinds: Vec<Kind>,
    /// MiB of data with which a member of Mechi comes back; 0 for not at all
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(0..=4096))]
    mib: u16,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(faults(&options))?;
    if options.mib > 0 {
        runtime.block_on(returns(options.mib.into(), options.rounds))?;
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("\nload average at the end: {}", load.trim());
    Ok(())
}

async fn faults(options: &Options) -> Result<()> {
    println!(
        "A writer through each of the other two members, one write each 5 ms, given up after 2 s; medians (and most) of"
    );
    println!("{} rounds.\n", options.rounds);
    println!(
        "| fault | server | no write acknowledged, ms | failed until then | failed later | acknowledged | whole again after, ms |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for fault in Fault::value_variants() {
        for kind in &options.kinds {
            let mut cluster = block_in_place(|| Cluster::start(*kind, 3, &[]))?;
            let mut all: Vec<Seen> = Vec::new();
            for round in 1..=options.rounds {
                progress(&format!("{kind:?}, {}: {round} of {}", fault.text(), options.rounds));
                all.push(measure(&mut cluster, *fault).await?);
            }
            progress("");
            let times = |of: fn(&Seen) -> Duration| spread(all.iter().map(of).map(ms).collect());
            let counts = |of: fn(&Seen) -> usize| spread(all.iter().map(of).map(|count| count as f64).collect());
            println!(
                "| {} | {kind:?} | {} | {} | {} | {} | {} |",
                fault.text(),
                times(|seen| seen.gap),
                counts(|seen| seen.failed_until),
                counts(|seen| seen.failed_after),
                counts(|seen| seen.acked),
                times(|seen| seen.whole),
            );
        }
    }
    Ok(())
}

async fn returns(mib: usize, rounds: usize) -> Result<()> {
    let mut cluster = filled(mib, |done| progress(&format!("{done} of {mib} MiB written"))).await?;
    progress("");
    println!(
        "\nA follower with {mib} MiB in values of 16 KiB, killed (-9) and started again; medians (and most) of {rounds} rounds.\n"
    );
    println!("| its working store | serves after, ms | holds what the others hold after, ms |\n| --- | --- | --- |");
    for (text, is_lost) in [("is there", false), ("is lost: rebuilt from snapshot and log", true)] {
        let mut all: Vec<Return> = Vec::new();
        for round in 1..=rounds {
            progress(&format!("{text}: {round} of {rounds}"));
            all.push(come_back(&mut cluster, is_lost).await?);
        }
        progress("");
        let times = |of: fn(&Return) -> Duration| spread(all.iter().map(of).map(ms).collect());
        println!("| {text} | {} | {} |", times(|back| back.serves), times(|back| back.whole));
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The median, and the most.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.0} ({:.0})", values[(values.len() - 1) / 2], values[values.len() - 1])
}
