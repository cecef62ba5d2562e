//! Puts load on servers that run already, for profiles and for a look: `load --endpoints HOST:PORT[,...]
//! [--work put|put-one|put-random|txn|get|sget] [--keys 100000] [--value-bytes 256] [--shape 16x16] [--seconds 5]
//! [--rate N] [--pids PID[,...]]`.
//!
//! Without `--rate` a closed loop; with it an open loop whose latencies count from the time an operation was due. With
//! `--pids` it says what those processes consumed for each operation.

use anyhow::{Context, Result, bail};
use mechi_benches::load::drive::{Extent, Shape, closed, open};
use mechi_benches::load::report::Report;
use mechi_benches::load::work::{Gets, GuardedTxns, Keys, Puts, VALUE_BYTES, Work};
use mechi_benches::{process, table};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WARM: Duration = Duration::from_millis(500);

struct Options {
    endpoints: Vec<String>,
    work: String,
    keys: u64,
    value_bytes: usize,
    shape: Shape,
    seconds: f64,
    rate: Option<f64>,
    pids: Vec<u32>,
}

fn main() -> Result<()> {
    let options = options()?;
    let (keys, value_bytes) = (options.keys, options.value_bytes);
    let report = match options.work.as_str() {
        "put" => run(&options, Puts::new(Keys::New(0), value_bytes))?,
        "put-one" => run(&options, Puts::new(Keys::One, value_bytes))?,
        "put-random" => run(&options, Puts::new(Keys::Random(keys), value_bytes))?,
        "txn" => run(&options, GuardedTxns::new(0, options.shape.clients(), value_bytes))?,
        "get" | "sget" => {
            let fill = Puts::new(Keys::New(0), value_bytes);
            closed(&options.endpoints, Shape::MANY, Extent::Count(keys), fill, &|| Duration::ZERO).context("fill")?;
            run(&options, Gets::new(Keys::Random(keys), options.work == "sget"))?
        }
        work => bail!("unknown work {work}; there are put, put-one, put-random, txn, get and sget"),
    };
    println!(
        "{} {}/s; p50 {} p99 {} p99.9 {} max {} ms; load {} µs{}; load average {:?}",
        options.work,
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
    let measure = Duration::from_secs_f64(options.seconds);
    let cpu = || options.pids.iter().filter_map(|pid| process::cpu(*pid).ok()).sum();
    match options.rate {
        Some(rate) => open(&options.endpoints, options.shape.connections, rate, (WARM, measure), work, &cpu),
        None => closed(&options.endpoints, options.shape, Extent::Time(WARM, measure), work, &cpu),
    }
}

fn options() -> Result<Options> {
    let mut options = Options {
        endpoints: vec!["127.0.0.1:2379".to_owned()],
        work: "put".to_owned(),
        keys: 100_000,
        value_bytes: VALUE_BYTES,
        shape: Shape::MANY,
        seconds: 5.0,
        rate: None,
        pids: Vec::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} wants a value"))?;
        let wrong = || format!("{name} {value}");
        match name.as_str() {
            "--endpoints" => options.endpoints = value.split(',').map(str::to_owned).collect(),
            "--work" => options.work = value,
            "--keys" => options.keys = value.parse().with_context(wrong)?,
            "--value-bytes" => options.value_bytes = value.parse().with_context(wrong)?,
            "--shape" => {
                let (connections, streams) = value.split_once('x').with_context(wrong)?;
                let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number > 0).with_context(wrong);
                options.shape = Shape { connections: number(connections)?, streams: number(streams)? };
            }
            "--seconds" => options.seconds = value.parse().with_context(wrong)?,
            "--rate" => options.rate = Some(value.parse().with_context(wrong)?),
            "--pids" => {
                options.pids = value.split(',').map(str::parse).collect::<Result<_, _>>().with_context(wrong)?;
            }
            _ => bail!(
                "unknown option {name}; there are --endpoints, --work, --keys, --value-bytes, --shape, --seconds, --rate \
                 and --pids"
            ),
        }
    }
    Ok(options)
}
