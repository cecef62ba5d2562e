//! Holds Mechi against etcd, round by round.
//!
//! Each scenario starts fresh servers, first etcd's and then Mechi's, in the next round the other way round. After each
//! run `DIR/results.json`, the table `DIR/RESULTS.md` and the plots are written, so that an interrupted comparison has
//! something to show, and `--resume` goes on where it was.

use anyhow::{Context, Result};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use mechi_benches::arguments::BothPrograms;
use mechi_benches::results::{Results, Run, median};
use mechi_benches::scenario::{SCENARIOS, Scale, Scenario, Setting};
use mechi_benches::{machine, plot, process, table};
use mechi_tests::arguments;
use mechi_tests::process::Kind;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Hold Mechi against etcd, round by round, and write tables and plots after each run
#[derive(Debug, Parser)]
#[command(after_help = after_help(), allow_negative_numbers = true)]
struct Options {
    #[command(flatten)]
    programs: BothPrograms,
    /// Rounds of all scenarios, with each server once; one takes about 9 minutes on two cores
    #[arg(long, value_name = "N", default_value = "5", value_parser = arguments::rounds())]
    rounds: usize,
    /// Only these scenarios, of those below [default: all]
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(names()),
        hide_possible_values = true
    )]
    only: Vec<String>,
    /// The folder for results.json, RESULTS.md and the plots
    #[arg(long, value_name = "DIR", default_value = "target/compare")]
    out: PathBuf,
    /// Go on with the comparison in --out: the same programs on the same machine
    #[arg(long)]
    resume: bool,
}

/// Scenarios in one line of the help.
const NAMES_PER_LINE: usize = 7;

fn after_help() -> String {
    let names: Vec<_> = names().collect();
    let lines: Vec<_> = names.chunks(NAMES_PER_LINE).map(|line| format!("  {}", line.join(" "))).collect();
    format!(
        "Scenarios (benches/README.md says what each does):\n{}\n\nExample:\n  target/release/compare --rounds 1 \
         --only put_1,get_1 --out target/quick",
        lines.join("\n")
    )
}

fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|scenario| scenario.name)
}

fn main() -> Result<()> {
    let options = Options::parse();
    let programs = options.programs.find()?;
    let scenarios: Vec<&Scenario> = SCENARIOS.iter().filter(|scenario| wanted(&options.only, scenario.name)).collect();
    std::fs::create_dir_all(&options.out)?;
    let path = options.out.join("results.json");
    let fresh = Results {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        date: machine::date(),
        machine: machine::describe(),
        etcd: programs.etcd_version.clone(),
        mechi: programs.mechi_version.clone(),
        commit: machine::commit(),
        half_rate: None,
        runs: Vec::new(),
    };
    let mut results = if options.resume { Results::resume(&path, &fresh)? } else { fresh };
    let total = options.rounds * scenarios.len() * 2;
    let (begun, mut done, mut skipped) = (Instant::now(), 0, 0);
    for round in 1..=options.rounds {
        println!("round {round} of {}; load average {:?}", options.rounds, process::load_average());
        for scenario in &scenarios {
            for kind in order(round) {
                let server = server(kind);
                if results.has(round, scenario.name, server) {
                    skipped += 1;
                    continue;
                }
                let setting = Setting { programs: programs.clone(), scale: Scale::FULL, half_rate: results.half_rate };
                let run = run(&setting, scenario, kind, round)?;
                results.runs.push(run);
                learn_half_rate(&mut results, round);
                write(&results, &options.out, &path)?;
                done += 1;
                let left = total - skipped - done;
                let minutes = begun.elapsed().as_secs_f64() / 60.0 / f64::from(done as u32) * left as f64;
                println!("    {left} runs left, about {minutes:.0} minutes");
            }
        }
    }
    println!("\n{}", table::page(&results));
    println!("written to {}", options.out.display());
    Ok(())
}

/// One scenario with one server.
fn run(setting: &Setting, scenario: &Scenario, kind: Kind, round: usize) -> Result<Run> {
    let (load_average, begun) = (process::load_average(), Instant::now());
    let server = server(kind);
    print!("  {round} {:<14} {server:<6}", scenario.name);
    let samples = (scenario.run)(setting, kind).with_context(|| format!("{} with {server}", scenario.name))?;
    for sample in &samples {
        print!(" {} {}", sample.metric, table::number(sample.value));
        if let (Some(server), Some(client)) = (sample.server_us, sample.client_us) {
            print!(" ({} µs, load {} µs)", table::number(server), table::number(client));
        }
    }
    println!("; load average {:.1}", load_average[0]);
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Run { round, scenario: scenario.name.into(), server: server.into(), load_average, seconds, samples })
}

/// After the first round's puts of etcd, the rate of the open loop stands for all rounds.
fn learn_half_rate(results: &mut Results, round: usize) {
    if results.half_rate.is_none() && round == 1 {
        results.half_rate = median(results.samples("put_3", "etcd").iter().map(|sample| sample.value / 2.0));
    }
}

fn write(results: &Results, out: &Path, path: &Path) -> Result<()> {
    results.save(path)?;
    std::fs::write(out.join("RESULTS.md"), table::page(results) + "\n![Times better than etcd](ratios.svg)\n")?;
    std::fs::write(out.join("ratios.svg"), plot::ratios(results))?;
    Ok(())
}

/// Who goes first changes, so that what one leaves behind (a warm machine, dirty pages) meets both.
fn order(round: usize) -> [Kind; 2] {
    if round % 2 == 1 { [Kind::Etcd, Kind::Mechi] } else { [Kind::Mechi, Kind::Etcd] }
}

fn server(kind: Kind) -> &'static str {
    match kind {
        Kind::Etcd => "etcd",
        Kind::Mechi => "mechi",
    }
}

fn wanted(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|only| only == name)
}
