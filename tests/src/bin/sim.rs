//! `cargo sim --seed N`: runs the simulator by hand, repeats what it found, makes it smaller and draws it.

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use mechi_tests::arguments::Seeds;
use mechi_tests::sim::campaign::{Sums, campaign};
use mechi_tests::sim::page::page;
use mechi_tests::sim::shrink::{RUNS_MAX, shrink};
use mechi_tests::sim::{Keep, Numbers, Plan, Report, run_by};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Events shown before what was broken.
const LAST_EVENTS: usize = 60;

/// Threads that run seeds at once.
const THREADS_MAX: u64 = 1_024;

/// How often a line says how far it is: on a terminal, and elsewhere.
const PROGRESS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(20)];

const EXAMPLES: &str = "\
The exit code is 1 if a promise was broken; such a seed ends with what happened last, and with its command.

Examples:
  cargo sim --seeds 2500                        the seeds 0 to 2499, with a line that says how far it is
  cargo sim --seed 4711 --shrink                what is left of a failure, as a command
  cargo sim --seed 4711 --page run.html         the run as a picture, for a browser
  cargo sim --seed 4711 --without Pause --until 900 --verbose";

/// Run whole clusters in one thread, each drawn from its seed: crashes, cuts, pauses, bad disks and clocks
#[derive(Debug, Parser)]
#[command(bin_name = "cargo sim", after_help = EXAMPLES, allow_negative_numbers = true)]
struct Wanted {
    /// Run this seed alone
    #[arg(long, value_name = "N", conflicts_with = "seeds", value_parser = RangedU64ValueParser::<u64>::new().range(..u64::MAX))]
    seed: Option<u64>,
    /// Run the seeds from A on and below B, or the first N
    #[arg(long, value_name = "A..B|N", default_value = "0..10", value_parser = seeds)]
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
    /// Make a failing run smaller, and print the command that repeats what is left
    #[arg(long, requires = "seed", conflicts_with = "seeds")]
    shrink: bool,
    /// Draw the run into this file, for a browser
    #[arg(long, value_name = "FILE", requires = "seed", conflicts_with = "seeds")]
    page: Option<PathBuf>,
    /// Leave out these classes of faults
    #[arg(long, value_name = "CLASS,...", value_delimiter = ',', value_parser = Plan::class)]
    without: Vec<&'static str>,
    /// Let faults begin only after so many milliseconds
    #[arg(long, value_name = "MS", value_parser = milliseconds())]
    from: Option<u64>,
    /// Let neither faults nor operations begin after so many milliseconds
    #[arg(long, value_name = "MS", value_parser = milliseconds())]
    until: Option<u64>,
    /// Let only these faults happen, as 1..5,9 or none
    #[arg(long, value_name = "LIST")]
    faults: Option<Numbers>,
    /// Let only these operations of clients happen
    #[arg(long, value_name = "LIST")]
    ops: Option<Numbers>,
    /// Put this known bug back; needs a build with --features mutants
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<String>,
    /// Put all known bugs back, one at a time, and write down what found each; needs the feature mutants
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "mutant"])]
    mutants: Option<PathBuf>,
}

/// The longest time on the command line: a day.
fn milliseconds() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(..=86_400_000)
}

fn seeds(text: &str) -> Result<Seeds, String> {
    match text.parse::<u64>() {
        Ok(count) => format!("0..{count}").parse(),
        Err(_) => text.parse(),
    }
}

impl Wanted {
    fn threads(&self) -> usize {
        // The events of two seeds would stand between each other.
        if self.verbose { 1 } else { self.threads.unwrap_or_else(cores) }
    }

    fn plan(&self) -> Plan {
        Plan {
            without: self.without.iter().copied().collect(),
            from: self.from,
            until: self.until,
            faults: self.faults.clone(),
            ops: self.ops.clone(),
        }
    }

    /// What repeats a seed.
    fn command(&self, seed: u64, plan: &Plan) -> String {
        let mutant = self.mutant.as_ref().map(|name| format!(" --mutant {name}")).unwrap_or_default();
        let cargo = match mutant.is_empty() {
            true => "cargo sim".to_owned(),
            false => "cargo run --locked -p mechi-tests --features mutants --bin sim --".to_owned(),
        };
        format!("{cargo} --seed {seed}{plan}{mutant}")
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(feature = "mutants")]
fn mutant(name: &str) -> Result<String, String> {
    let known: Vec<&str> = mechi_replica::mutants::BUGS.iter().map(|bug| bug.name).collect();
    if known.contains(&name) { Ok(name.to_owned()) } else { Err(format!("there are {}", known.join(", "))) }
}

#[cfg(not(feature = "mutants"))]
fn mutant(_: &str) -> Result<String, String> {
    Err("known bugs are built in only with --features mutants".into())
}

fn main() -> ExitCode {
    let wanted = Wanted::parse();
    // What is broken is reported with its seed; the panic's own text would come without it.
    std::panic::set_hook(Box::new(|_| {}));
    let well = match (&wanted.mutants, wanted.seed) {
        (Some(file), _) => mutants(file, wanted.threads()),
        (None, Some(seed)) => one(seed, &wanted),
        (None, None) => many(&wanted),
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs many seeds; returns whether all went well.
fn many(wanted: &Wanted) -> bool {
    let (began, plan, seeds) = (Instant::now(), wanted.plan(), wanted.seeds.0.clone());
    let count = seeds.end - seeds.start;
    let terminal = std::io::stderr().is_terminal();
    let told = Mutex::new(Instant::now());
    let around = |body: &mut dyn FnMut()| under(wanted, body);
    let seen = |report: &Report, sums: &Sums| {
        if let Some((at, text)) = &report.broken {
            broken(wanted, report.options.seed, &plan, *at, text);
        }
        let mut told = told.lock().expect("nobody panics with it");
        if told.elapsed() < PROGRESS[usize::from(!terminal)] && sums.seeds < count {
            return;
        }
        *told = Instant::now();
        let (done, took) = (sums.seeds, began.elapsed().as_secs_f64());
        let left = took / done as f64 * (count - done) as f64;
        let line = format!(
            "{done} of {count} seeds, {} broken, {} faults with effect, {took:.0} s, {left:.0} s to go",
            sums.broken.len(),
            sums.all.faults
        );
        // On a terminal one line that changes, else lines.
        let (before, after) = if terminal { ("\r\x1b[K", if done == count { "\n" } else { "" }) } else { ("", "\n") };
        let mut out = std::io::stderr().lock();
        // Who cannot be told how far it is hears the result all the same.
        let _ = write!(out, "{before}{line}{after}").and_then(|()| out.flush());
    };
    let sums = if wanted.verbose {
        // Printed as it happens.
        let mut sums = Sums::default();
        for seed in seeds {
            let began = Instant::now();
            let report = under(wanted, || run_by(seed, &plan, Keep::Print, false));
            let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            sums.add(&report, took);
            seen(&report, &sums);
        }
        sums
    } else {
        campaign(seeds, wanted.threads(), &plan, around, seen)
    };
    let took = began.elapsed().as_secs_f64();
    println!("{sums}\n  in {took:.1} s on {} threads, {:.2} s a seed and thread", wanted.threads(), {
        took * wanted.threads() as f64 / sums.seeds.max(1) as f64
    });
    sums.broken.is_empty()
}

fn broken(wanted: &Wanted, seed: u64, plan: &Plan, at: u64, text: &str) {
    let command = wanted.command(seed, plan);
    println!("\nseed {seed} is broken at {}.{:06}: {text}\n  again: {command}", at / 1_000_000, at % 1_000_000);
}

/// Runs a seed and says how it went; returns whether it went well.
fn one(seed: u64, wanted: &Wanted) -> bool {
    let mut plan = wanted.plan();
    if wanted.shrink {
        let say = &mut |line: &str| eprintln!("{line}");
        match under(wanted, || shrink(seed, &plan, RUNS_MAX, say)) {
            Some(shrunk) => plan = shrunk.plan,
            None => println!("there is nothing to shrink: no promise is broken"),
        }
    }
    let began = Instant::now();
    let keep = if wanted.verbose { Keep::Print } else { Keep::Last(LAST_EVENTS) };
    let report = under(wanted, || run_by(seed, &plan, keep, wanted.page.is_some()));
    let (stats, command) = (&report.stats, wanted.command(seed, &plan));
    println!("{}\n  seed={seed} {stats} in {:.2} s", report.options, began.elapsed().as_secs_f64());
    if let Some((at, text)) = &report.broken {
        report.last.iter().for_each(|line| println!("{line}"));
        broken(wanted, seed, &plan, *at, text);
    }
    if let Some(file) = &wanted.page {
        let html = page(&report, &plan, &command).expect("the run was traced");
        if let Err(error) = std::fs::write(file, html) {
            eprintln!("write {}: {error}", file.display());
            return false;
        }
        println!("drawn: {}", file.display());
    }
    report.broken.is_none()
}

#[cfg(feature = "mutants")]
fn mutants(file: &std::path::Path, threads: usize) -> bool {
    use mechi_tests::sim::mutants::{hunt_all, table};
    let caught = hunt_all(threads, &mut |row| println!("{row}"));
    if let Err(error) = std::fs::write(file, table(&caught)) {
        eprintln!("write {}: {error}", file.display());
        return false;
    }
    println!("written: {}", file.display());
    caught.iter().all(|hunt| hunt.found.is_some())
}

#[cfg(not(feature = "mutants"))]
fn mutants(_: &std::path::Path, _: usize) -> bool {
    eprintln!("known bugs are built in only with --features mutants: cargo mutants-table");
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
