//! Measures how long a cluster of three does not acknowledge a write after its leader is gone: Mechi beside etcd.
//!
//! `failover [--rounds N] [--kinds mechi,etcd] [--ends kill,term]`; what is measured, and how, is in `mechi_tests::failover`.

use anyhow::{Context, Result, bail};
use mechi_tests::failover::{End, measure};
use mechi_tests::process::Kind;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

struct Options {
    rounds: usize,
    kinds: Vec<Kind>,
    ends: Vec<End>,
}

fn main() -> Result<()> {
    let options = options()?;
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

fn options() -> Result<Options> {
    let mut options = Options { rounds: 50, kinds: vec![Kind::Mechi, Kind::Etcd], ends: vec![End::Kill, End::Term] };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--rounds" => options.rounds = value.parse().with_context(|| format!("--rounds {value}"))?,
            "--kinds" => options.kinds = value.split(',').map(kind).collect::<Result<_>>()?,
            "--ends" => options.ends = value.split(',').map(end).collect::<Result<_>>()?,
            _ => bail!("unknown option {name}; there are --rounds, --kinds and --ends"),
        }
    }
    if options.rounds == 0 {
        bail!("--rounds 0 measures nothing");
    }
    Ok(options)
}

fn kind(name: &str) -> Result<Kind> {
    match name {
        "mechi" => Ok(Kind::Mechi),
        "etcd" => Ok(Kind::Etcd),
        _ => bail!("unknown server {name}; there are mechi and etcd"),
    }
}

fn end(name: &str) -> Result<End> {
    match name {
        "kill" => Ok(End::Kill),
        "term" => Ok(End::Term),
        _ => bail!("unknown end {name}; there are kill and term"),
    }
}

/// Shows how far it is, where somebody looks.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        // Whoever looks misses nothing but progress if it cannot be written.
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }
}
