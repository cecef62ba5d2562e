//! Scenarios: each starts fresh servers, does one kind of work, and gives the figures that it measured.

mod failover;
mod lists;
mod throughput;
mod watching;

use crate::load::report::Report;
use crate::servers::Programs;
use anyhow::Result;
use mechi_tests::process::Kind;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How much is done: a comparison in full, or a smoke test that only shows that everything works.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Scale {
    /// Warm-up of a throughput.
    pub warm: Duration,
    /// Measured time of a throughput.
    pub measure: Duration,
    /// Keys that random overwrites and gets are drawn from.
    pub spread: u64,
    /// Keys of the lists and pages that are called 300 k.
    pub some_keys: u64,
    /// Keys of those that are called a million.
    pub many_keys: u64,
    /// How long a server is left alone before its memory is read.
    pub settle: Duration,
    pub watchers: usize,
    pub idle_streams: usize,
    pub idle_watches: usize,
    /// Leaders killed for one figure.
    pub failovers: usize,
}

impl Scale {
    /// What a comparison does.
    pub const FULL: Scale = Scale {
        warm: Duration::from_secs(1),
        measure: Duration::from_secs(4),
        spread: 100_000,
        some_keys: 300_000,
        many_keys: 1_000_000,
        settle: Duration::from_secs(15),
        watchers: 1_000,
        idle_streams: 10_000,
        idle_watches: 100_000,
        failovers: 5,
    };

    /// What a smoke test does.
    pub const SMOKE: Scale = Scale {
        warm: Duration::from_millis(100),
        measure: Duration::from_millis(200),
        spread: 200,
        some_keys: 1_200,
        many_keys: 3_000,
        settle: Duration::ZERO,
        watchers: 20,
        idle_streams: 100,
        idle_watches: 100,
        failovers: 1,
    };
}

/// What a scenario needs to know.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The two servers' programs.
    pub programs: Programs,
    /// How much is done.
    pub scale: Scale,
    /// Puts in a second for the open loop: half of etcd's maximum on three members, once that is known.
    pub half_rate: Option<f64>,
}

/// One figure of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// A name of [`crate::metrics::METRICS`].
    pub metric: String,
    /// In the metric's unit.
    pub value: f64,
    /// Microseconds of all server processes for one operation, beside a throughput.
    pub server_us: Option<f64>,
    /// Microseconds of the load generator for one operation, beside a throughput.
    pub client_us: Option<f64>,
}

impl Sample {
    fn new(metric: &str, value: f64) -> Self {
        Self { metric: metric.to_owned(), value, server_us: None, client_us: None }
    }

    fn rate(metric: &str, report: &Report) -> Self {
        Self {
            server_us: Some(report.server_us()),
            client_us: Some(report.client_us()),
            ..Self::new(metric, report.per_second())
        }
    }
}

/// A scenario.
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// Measures one server.
    pub run: fn(&Setting, Kind) -> Result<Vec<Sample>>,
}

/// All scenarios, in the order of a round.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "put_1", run: throughput::put_1 },
    Scenario { name: "put_one_key_1", run: throughput::put_one_key_1 },
    Scenario { name: "put_random_1", run: throughput::put_random_1 },
    Scenario { name: "put_3", run: throughput::put_3 },
    Scenario { name: "put_3_all", run: throughput::put_3_all },
    Scenario { name: "txn_1", run: throughput::txn_1 },
    Scenario { name: "txn_3", run: throughput::txn_3 },
    Scenario { name: "lone_put_1", run: throughput::lone_put_1 },
    Scenario { name: "lone_put_3", run: throughput::lone_put_3 },
    Scenario { name: "half_load", run: throughput::half_load },
    Scenario { name: "get_1", run: throughput::get_1 },
    Scenario { name: "get_3", run: throughput::get_3 },
    Scenario { name: "sget_1", run: throughput::sget_1 },
    Scenario { name: "sget_3", run: throughput::sget_3 },
    Scenario { name: "list_300k", run: lists::list_300k },
    Scenario { name: "million", run: lists::million },
    Scenario { name: "watch", run: watching::watch },
    Scenario { name: "watch_shared", run: watching::watch_shared },
    Scenario { name: "keep_alive", run: watching::keep_alive },
    Scenario { name: "streams", run: watching::streams },
    Scenario { name: "watches", run: watching::watches },
    Scenario { name: "failover", run: failover::failover },
];
