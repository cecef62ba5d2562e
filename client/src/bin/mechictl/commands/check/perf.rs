//! `check perf`: a minute of puts at a known rate.

use super::load::{Load, Pace};
use super::{bar, compact, defragment, delete, load, model, say_errors};
use crate::call::Call;
use crate::commands::lock::interrupted;
use crate::exit::{ERROR, Exit, INVALID_INPUT};
use crate::go::quote::quote;
use crate::output::say;
use crate::session::Session;
use mechi_client::Get;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::time::Instant;

const SECONDS: u64 = 60;
/// Puts a second and clients, by the size of the load.
const MODELS: [(u32, usize); 4] = [(150, 50), (1000, 200), (8000, 500), (15000, 1000)];
/// The share of the rate below which a cluster fails.
const RATE_MIN: f64 = 0.9;
const SLOWEST_SECONDS_MAX: f64 = 0.5;
const DEVIATION_SECONDS_MAX: f64 = 0.1;

pub(in crate::commands) async fn run(call: &mut Call) -> Result<(), Exit> {
    let (rate, clients) = MODELS[model(call.flags.text("load"))?];
    let prefix = call.flags.text("prefix").to_owned();
    let session = Session::open(call).await?;
    let clients = session.others(clients)?;
    let first = session.done(session.patient().get_with(Get::prefix(prefix.clone()).limit(1))).await?;
    if !first.kvs.is_empty() {
        let quoted = quote(prefix.as_bytes());
        let why = format!("prefix {quoted} has keys. Delete with 'etcdctl del --prefix {prefix}' first");
        return Err(Exit::new(INVALID_INPUT, why));
    }
    let begun = Instant::now();
    let load = Load {
        prefix: prefix.clone(),
        key_bytes: 256,
        value_bytes: 1024,
        requests_max: u64::MAX,
        end: Some(begun + Duration::from_secs(SECONDS)),
        pace: Some(Pace::new(rate)),
    };
    let writing = load::run(clients, load, Arc::new(AtomicU64::new(0)));
    let stop = interrupted()?;
    let stats = tokio::select! {
        stats = bar::until(SECONDS, || begun.elapsed().as_secs().min(SECONDS), writing) => stats,
        () = stop => {
            clean_up(&session, &prefix, false).await?;
            return Err(Exit::new(ERROR, "interrupted"));
        }
    };
    clean_up(&session, &prefix, call.flags.on("auto-compact")).await?;
    if call.flags.on("auto-defrag") {
        defragment(&session).await?;
    }
    let mut passed = say_errors(&stats).is_ok();
    let throughput = stats.per_second() as u64 + 1;
    let mut judge = |fine: bool, pass: String, fail: String| {
        say!("{}", if fine { pass } else { fail });
        passed &= fine;
    };
    judge(
        stats.per_second() / f64::from(rate) > RATE_MIN,
        format!("PASS: Throughput is {throughput} writes/s"),
        format!("FAIL: Throughput too low: {throughput} writes/s"),
    );
    let slowest = stats.slowest();
    judge(
        slowest <= SLOWEST_SECONDS_MAX,
        format!("PASS: Slowest request took {slowest:.6}s"),
        format!("Slowest request took too long: {slowest:.6}s"),
    );
    let deviation = stats.deviation();
    judge(
        deviation <= DEVIATION_SECONDS_MAX,
        format!("PASS: Stddev is {deviation:.6}s"),
        format!("Stddev too high: {deviation:.6}s"),
    );
    say!("{}", if passed { "PASS" } else { "FAIL" });
    if passed { Ok(()) } else { Err(Exit::silent(ERROR)) }
}

async fn clean_up(session: &Session, prefix: &str, compacting: bool) -> Result<(), Exit> {
    match delete(&session.client, prefix).await {
        Ok(revision) if compacting => compact(session, revision).await,
        Ok(_) => Ok(()),
        Err(error) => {
            say!("FAIL: Cleanup failed during key deletion: ERROR({})", session.words(&error));
            Ok(())
        }
    }
}
