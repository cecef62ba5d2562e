//! `cargo sim --seed N`: runs the simulator by hand, and repeats what it found.

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use mechi_tests::arguments::Seeds;
use mechi_tests::sim::{Keep, Report, across, run};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Events shown before what was broken.
const LAST_EVENTS: usize = 60;

/// Threads that run seeds at once.
const THREADS_MAX: u64 = 1_024;

const EXAMPLES: &str = "\
The exit code is 1 if a promise was broken; the run of such a seed ends with what happened last, and its command.

Examples:
  cargo sim --seeds 0..10000
  cargo sim --seed 4711 --verbose";

/// Run whole clusters in one thread, each drawn from its seed: crashes, cuts, pauses, slow disks and clocks
#[derive(Debug, Parser)]
#[command(bin_name = "cargo sim", after_help = EXAMPLES, allow_negative_numbers = true)]
struct Wanted {
    /// Run this seed alone
    #[arg(long, value_name = "N", conflicts_with = "seeds", value_parser = RangedU64ValueParser::<u64>::new().range(..u64::MAX))]
    seed: Option<u64>,
    /// Run the seeds from A on and below B
    #[arg(long, value_name = "A..B", default_value = "0..10")]
    seeds: Seeds,
    /// Print every event, on one thread
    #[arg(long)]
    verbose: bool,
    #[arg(
        long,
        value_name = "N",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=THREADS_MAX),
        help = format!("Seeds that run at once, 1 to {THREADS_MAX} [default: one per core, here {}]", cores())
    )]
    threads: Option<usize>,
    /// Put this known bug back; needs a build with --features mutants
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<String>,
}

impl Wanted {
    fn seeds(&self) -> Range<u64> {
        self.seed.map_or(self.seeds.0.clone(), |seed| seed..seed + 1)
    }

    fn threads(&self) -> usize {
        // The events of two seeds would stand between each other.
        if self.verbose { 1 } else { self.threads.unwrap_or_else(cores) }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(feature = "mutants")]
fn mutant(name: &str) -> Result<String, String> {
    use mechi_replica::mutants::{CLUSTER_NAMES, NAMES};
    let known = CLUSTER_NAMES.iter().chain(NAMES).any(|known| *known == name);
    known.then(|| name.to_owned()).ok_or_else(|| format!("there are {}", [CLUSTER_NAMES, NAMES].concat().join(", ")))
}

#[cfg(not(feature = "mutants"))]
fn mutant(_: &str) -> Result<String, String> {
    Err("known bugs are built in only with --features mutants".into())
}

fn main() -> ExitCode {
    let wanted = Wanted::parse();
    // What is broken is reported with its seed; the panic's own text would come without it.
    std::panic::set_hook(Box::new(|_| {}));
    let (began, seeds) = (Instant::now(), wanted.seeds());
    let broken = AtomicU64::new(0);
    across(seeds.clone(), wanted.threads(), |seed| {
        if !one(seed, &wanted) {
            broken.fetch_add(1, Ordering::Relaxed);
        }
        true
    });
    let (broken, seeds) = (broken.into_inner(), seeds.end - seeds.start);
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
