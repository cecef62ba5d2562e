//! Puts load on servers that run already, for profiles and for a look.
//!
//! Without `--rate` a closed loop; with it an open loop whose latencies count from the time an operation was due. With
//! `--pids` it says what those processes consumed for each operation.

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use mechi_benches::arguments::{keys, rate, shape};
use mechi_benches::load::drive::{Extent, Shape, closed, open};
use mechi_benches::load::limits::{IN_FLIGHT_MAX, VALUE_BYTES_MAX, VALUE_BYTES_MIN};
use mechi_benches::load::report::Report;
use mechi_benches::load::work::{Gets, GuardedTxns, Keys, Puts, VALUE_BYTES, Work};
use mechi_benches::{process, table};
use mechi_tests::arguments::time;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WARM: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  target/release/load --work get --seconds 20 --pids $(pgrep -x mechi)
  target/release/load --endpoints 127.0.0.1:2379,127.0.0.1:2381 --work put-random --keys 1000000 --rate 5000";

/// Put one kind of load on servers that run already, and say what it achieved
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES, allow_negative_numbers = true)]
struct Options {
    /// Where the servers listen; the connections are spread over them
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', default_value = "127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// What is done
    #[arg(long, default_value = "put")]
    work: Kind,
    /// Keys that random puts and gets are drawn from
    #[arg(long, value_name = "N", default_value = "100000", value_parser = keys())]
    keys: u64,
    /// Bytes of each value
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = VALUE_BYTES,
        value_parser = RangedU64ValueParser::<usize>::new().range(VALUE_BYTES_MIN..=VALUE_BYTES_MAX)
    )]
    value_bytes: usize,
    /// C connections, S requests at once on each; with --rate S is not used
    #[arg(long, value_name = "CxS", default_value = "16x16", value_parser = shape)]
    shape: Shape,
    /// Seconds that are measured, after half a second of warm-up
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = time(1.0, 0.1..=86_400.0))]
    seconds: Duration,
    /// Offer so many operations per second, whoever answers [default: each client one after the other]
    #[arg(long, value_name = "N", value_parser = rate())]
    rate: Option<f64>,
    /// Processes of the servers; their CPU per operation is told as well
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    pids: Vec<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// New keys
    Put,
    /// The same key
    PutOne,
    /// Keys drawn at random
    PutRandom,
    /// Guarded writes, as Kubernetes does them
    Txn,
    /// Linearizable reads of keys drawn at random, which are written first
    Get,
    /// The same, serializable
    Sget,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (keys, value_bytes) = (options.keys, options.value_bytes);
    let report = match options.work {
        Kind::Put => run(&options, Puts::new(Keys::New(0), value_bytes))?,
        Kind::PutOne => run(&options, Puts::new(Keys::One, value_bytes))?,
        Kind::PutRandom => run(&options, Puts::new(Keys::Random(keys), value_bytes))?,
        Kind::Txn => {
            // In an open loop every operation under way is a client of its own.
            let clients = options.rate.map_or(options.shape.clients(), |_| IN_FLIGHT_MAX);
            run(&options, GuardedTxns::new(0, clients, value_bytes))?
        }
        Kind::Get | Kind::Sget => {
            let fill = Puts::new(Keys::New(0), value_bytes);
            closed(&options.endpoints, Shape::MANY, Extent::Count(keys), fill, &|| Duration::ZERO).context("fill")?;
            run(&options, Gets::new(Keys::Random(keys), matches!(options.work, Kind::Sget)))?
        }
    };
    println!(
        "{} {}/s; p50 {} p99 {} p99.9 {} max {} ms; load {} µs{}; load average {:?}",
        options.work.to_possible_value().expect("none is hidden").get_name(),
        table::number(report.per_second()),
        table::number(report.ms(0.5)),
        table::number(report.ms(0.99)),
        table::number(report.ms(0.999)),
        table::number(report.ms(1.0)),
        table::number(report.client_us()),
        if options.pids.is_empty() {
            String::new()
        } else {
            format!(", servers {} µs", table::number(report.server_us()))
        },
        process::load_average(),
    );
    Ok(())
}

fn run(options: &Options, work: impl Work + 'static) -> Result<Report> {
    let cpu = || options.pids.iter().filter_map(|pid| process::cpu(*pid).ok()).sum();
    match options.rate {
        Some(rate) => open(&options.endpoints, options.shape.connections, rate, (WARM, options.seconds), work, &cpu),
        None => closed(&options.endpoints, options.shape, Extent::Time(WARM, options.seconds), work, &cpu),
    }
}
