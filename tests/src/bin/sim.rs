//! `cargo sim --seed N`: runs the simulator by hand, and repeats what it found.

use mechi_tests::sim::{Keep, Report, across, run};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const USAGE: &str = "usage: cargo sim [--seed N | --seeds A..B] [--verbose] [--threads N] [--mutant NAME]";

/// Events shown before what was broken.
const LAST_EVENTS: usize = 60;

struct Wanted {
    seeds: std::ops::Range<u64>,
    verbose: bool,
    threads: usize,
    mutant: Option<String>,
}

fn main() -> ExitCode {
    let wanted = match parse(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // What is broken is reported with its seed; the panic's own text would come without it.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let broken = AtomicU64::new(0);
    across(wanted.seeds.clone(), wanted.threads, |seed| {
        if !one(seed, &wanted) {
            broken.fetch_add(1, Ordering::Relaxed);
        }
        true
    });
    let (broken, seeds) = (broken.into_inner(), wanted.seeds.end - wanted.seeds.start);
    println!("{seeds} seeds, {broken} broken, {:.1} s", began.elapsed().as_secs_f64());
    if broken > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs a seed and says how it went; returns whether it went well.
fn one(seed: u64, wanted: &Wanted) -> bool {
    let began = Instant::now();
    let keep = if wanted.verbose { Keep::Print } else { Keep::Nothing };
    let Report { options, stats, broken, .. } = under(wanted, || run(seed, keep));
    println!("{options}\n  seed={seed} {stats} in {:.2} s", began.elapsed().as_secs_f64());
    let Some((at, error)) = broken else { return true };
    if !wanted.verbose {
        // Once more, and this time with ears.
        let again = under(wanted, || run(seed, Keep::Last(LAST_EVENTS)));
        again.last.iter().for_each(|line| println!("{line}"));
        if again.stats.hash != stats.hash {
            println!("and the second run was another one: {}", again.stats);
        }
    }
    let mutant = wanted.mutant.as_ref().map(|name| format!(" --mutant {name}")).unwrap_or_default();
    println!("broken at {}.{:06}: {error}\n  again: cargo sim --seed {seed}{mutant}", at / 1_000_000, at % 1_000_000);
    false
}

#[cfg(feature = "mutants")]
fn under<T>(wanted: &Wanted, body: impl FnOnce() -> T) -> T {
    match &wanted.mutant {
        Some(name) => mechi_replica::mutants::with(name, body),
        None => body(),
    }
}

#[cfg(not(feature = "mutants"))]
fn under<T>(_: &Wanted, body: impl FnOnce() -> T) -> T {
    body()
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut wanted = Wanted { seeds: 0..10, verbose: false, threads, mutant: None };
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--seed" => {
                let seed = number(&value()?)?;
                wanted.seeds = seed..seed + 1;
            }
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or("--seeds wants A..B")?;
                wanted.seeds = number(from)?..number(to)?;
            }
            "--threads" => wanted.threads = number(&value()?)?.max(1) as usize,
            "--mutant" => wanted.mutant = Some(value()?),
            "--verbose" => wanted.verbose = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if wanted.verbose {
        wanted.threads = 1;
    }
    if wanted.mutant.is_some() && !cfg!(feature = "mutants") {
        return Err("known bugs are built in only with --features mutants".into());
    }
    Ok(wanted)
}
