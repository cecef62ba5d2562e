//! Holds Mechi against etcd, round by round: `compare --etcd PATH [--mechi PATH] [--rounds 5] [--only NAME,...]
//! [--out DIR] [--resume]`.
//!
//! Each scenario starts fresh servers, first etcd's and then Mechi's, in the next round the other way round. After each
//! run `DIR/results.json`, the table `DIR/RESULTS.md` and the plots are written, so that an interrupted comparison has
//! something to show, and `--resume` goes on where it was.

use anyhow::{Context, Result, bail, ensure};
use mechi_benches::results::{Results, Run, median};
use mechi_benches::scenario::{SCENARIOS, Scale, Scenario, Setting};
use mechi_benches::servers::Programs;
use mechi_benches::{machine, plot, process, table};
use mechi_tests::oracle;
use mechi_tests::process::Kind;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Options {
    etcd: PathBuf,
    mechi: PathBuf,
    rounds: usize,
    only: Vec<String>,
    out: PathBuf,
    resume: bool,
}

fn main() -> Result<()> {
    let options = options()?;
    let programs = Programs::find(options.etcd.clone(), options.mechi.clone())?;
    let scenarios: Vec<&Scenario> = SCENARIOS.iter().filter(|scenario| wanted(&options.only, scenario.name)).collect();
    ensure!(!scenarios.is_empty(), "nothing is called {}; there are {}", options.only.join(","), names());
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

fn names() -> String {
    SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ")
}

fn options() -> Result<Options> {
    let (mut etcd, mut mechi) = (None, None);
    let (mut rounds, mut only, mut out, mut resume) = (5, Vec::new(), PathBuf::from("target/compare"), false);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        if name == "--resume" {
            resume = true;
            continue;
        }
        let value = args.next().with_context(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--etcd" => etcd = Some(PathBuf::from(value)),
            "--mechi" => mechi = Some(PathBuf::from(value)),
            "--rounds" => rounds = value.parse().with_context(|| format!("--rounds {value}"))?,
            "--only" => only = value.split(',').map(str::to_owned).collect(),
            "--out" => out = PathBuf::from(value),
            _ => bail!("unknown option {name}; there are --etcd, --mechi, --rounds, --only, --out and --resume"),
        }
    }
    ensure!(rounds > 0, "--rounds 0 measures nothing");
    if let Some(unknown) = only.iter().find(|only| !SCENARIOS.iter().any(|scenario| scenario.name == **only)) {
        bail!("no scenario is called {unknown}; there are {}", names());
    }
    let (etcd, mechi) = (etcd.unwrap_or_else(oracle::etcd), mechi.unwrap_or_else(oracle::mechi));
    Ok(Options { etcd, mechi, rounds, only, out, resume })
}
