//! Holds the same control plane on Mechi against the one on etcd, round by round: `benches/README.md` says what it does.

use anyhow::{Context, Result};
use clap::Parser;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use mechi_benches::arguments::BothPrograms;
use mechi_benches::control::limits::SIZE_MAX;
use mechi_benches::control::scenario::{self, Setting};
use mechi_benches::control::{SCENARIOS, Scale, page};
use mechi_benches::results::{Results, Run};
use mechi_benches::{machine, process, table};
use mechi_tests::process::Kind;
use mechi_tests::{arguments, oracle};
use std::path::PathBuf;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLE: &str = "\
Example:
  target/release/control --rounds 1 --only bound --members 1 --nodes 100 --pods 1000 --out target/quick";

/// Run the control plane on Mechi and on etcd, round by round, and write a table after each run
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLE)]
struct Options {
    #[command(flatten)]
    programs: BothPrograms,
    /// mechi-control's program [default: `mechi-control` beside this program]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Rounds of all scenarios, with each server once
    #[arg(long, value_name = "N", default_value = "5", value_parser = arguments::rounds())]
    rounds: usize,
    /// Only these scenarios [default: all]
    ///
    /// bound, latency, deployment, killed, stopped, rest, memory
    #[arg(long, value_name = "NAME,...", hide_possible_values = true, value_delimiter = ',', value_parser = PossibleValuesParser::new(SCENARIOS))]
    only: Vec<String>,
    /// Members of the store
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,3", value_parser = PossibleValuesParser::new(["1", "3"]))]
    members: Vec<String>,
    /// Fake nodes, but for the Deployment's [default: 5000]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=SIZE_MAX))]
    nodes: Option<usize>,
    /// Pods of `bound`, `latency` and `memory` [default: 10000, 10000 and 150000]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(2..=SIZE_MAX))]
    pods: Option<usize>,
    /// The folder for control.json and CONTROL.md
    #[arg(long, value_name = "DIR", default_value = "target/control")]
    out: PathBuf,
}

impl Options {
    fn scale(&self) -> Scale {
        let mut scale = Scale::FULL;
        scale.nodes = self.nodes.unwrap_or(scale.nodes);
        if let Some(pods) = self.pods {
            (scale.pods, scale.paced, scale.memory_pods) = (pods, pods, pods);
        }
        scale
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let control = options.control.clone().unwrap_or_else(oracle::mechi_control);
    let setting = Setting { programs: options.programs.find()?, control, scale: options.scale() };
    std::fs::create_dir_all(&options.out)?;
    let mut results = Results {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        date: machine::date(),
        machine: machine::describe(),
        etcd: setting.programs.etcd_version.clone(),
        mechi: setting.programs.mechi_version.clone(),
        commit: machine::commit(),
        half_rate: None,
        runs: Vec::new(),
    };
    for round in 1..=options.rounds {
        println!("round {round} of {}; load average {:?}", options.rounds, process::load_average());
        for name in
            SCENARIOS.iter().filter(|name| options.only.is_empty() || options.only.iter().any(|only| only == *name))
        {
            for members in &options.members {
                for kind in order(round) {
                    let members: usize = members.parse().context("a number of members")?;
                    results.runs.push(one(&setting, name, kind, members, round)?);
                    results.save(&options.out.join("control.json"))?;
                    std::fs::write(options.out.join("CONTROL.md"), page::page(&results))?;
                }
            }
        }
    }
    println!("\n{}\nwritten to {}", page::page(&results), options.out.display());
    Ok(())
}

fn one(setting: &Setting, name: &str, kind: Kind, members: usize, round: usize) -> Result<Run> {
    let (load_average, begun) = (process::load_average(), Instant::now());
    let server = if kind == Kind::Etcd { "etcd" } else { "mechi" };
    let samples = scenario::run(setting, name, kind, members)
        .with_context(|| format!("{name} with {server}, {members} members"))?;
    print!("  {round} {name:<10} {members} {server:<6}");
    for sample in &samples {
        print!(" {} {}", sample.metric, table::number(sample.value));
        if let (Some(servers), Some(control)) = (sample.server_us, sample.client_us) {
            print!(" ({} µs, mechi-control {} µs)", table::number(servers), table::number(control));
        }
    }
    println!("; load average {:.1}", load_average[0]);
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Run { round, scenario: format!("{name}_{members}"), server: server.into(), load_average, seconds, samples })
}

/// Who goes first changes, so that what one leaves behind meets both.
fn order(round: usize) -> [Kind; 2] {
    if round % 2 == 1 { [Kind::Etcd, Kind::Mechi] } else { [Kind::Mechi, Kind::Etcd] }
}
