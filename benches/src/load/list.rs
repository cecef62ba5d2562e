//! Lists: of everything, and pages at a pinned revision, from places spread over all keys.

use super::connection::{Connection, Method, frame};
use super::pool::on_this_thread;
use super::report::{Mark, Report, histogram};
use super::wire::ListCounter;
use super::work::{KEY_BYTES, PREFIX, VALUE_BYTES, key, prefix_end};
use anyhow::{Context, Result, ensure};
use mechi_proto::etcdserverpb as pb;
use mechi_tests::rng::Rng;
use std::time::{Duration, Instant};

/// Keys of one page: what Kubernetes asks for.
pub const PAGE_KEYS: u64 = 500;

async fn list(connection: &mut Connection, request: &pb::RangeRequest) -> Result<ListCounter> {
    let mut counter = ListCounter::default();
    connection.pieces(Method::Range, frame(request), |piece| counter.see(piece)).await?;
    counter.end()?;
    Ok(counter)
}

/// Lists all keys a number of times, one after the other; an operation is one key-value, a latency that of one list.
///
/// - Errors: a list that has not `keys` keys, or too few bytes for them.
pub fn lists(endpoint: &str, keys: u64, times: usize, server_cpu: &dyn Fn() -> Duration) -> Result<Report> {
    on_this_thread(async {
        let mut connection = Connection::open(endpoint).await?;
        let mut latency = histogram();
        let request = pb::RangeRequest { key: PREFIX.into(), range_end: prefix_end(), ..Default::default() };
        let begin = Mark::now(0, server_cpu);
        for _ in 0..times {
            let began = Instant::now();
            let list = list(&mut connection, &request).await.context("list all keys")?;
            latency.saturating_record(u64::try_from(began.elapsed().as_nanos())?);
            ensure!((list.kvs, list.count) == (keys, keys), "a list of {} keys, not {keys}", list.kvs);
            let least = keys * (KEY_BYTES + VALUE_BYTES) as u64;
            ensure!(list.bytes > least, "a list of {} bytes, not {least}", list.bytes);
        }
        let end = Mark::now(keys * times as u64, server_cpu);
        Ok(begin.report(end, latency))
    })
}

/// Reads pages from places spread over all keys for a time, all at the revision of the first; an operation is a page.
///
/// - Errors: a page that is not full, or does not count all keys from its place on.
pub fn pages(endpoint: &str, keys: u64, time: Duration, server_cpu: &dyn Fn() -> Duration) -> Result<Report> {
    on_this_thread(async {
        let mut connection = Connection::open(endpoint).await?;
        let (mut latency, mut rng, mut pages, mut revision) = (histogram(), Rng::new(5), 0, 0);
        let page = PAGE_KEYS.min(keys);
        let begin = Mark::now(0, server_cpu);
        while begin.at.elapsed() < time {
            let from = rng.below(keys - page + 1);
            let began = Instant::now();
            revision = self::page(&mut connection, from, page, keys, revision).await?;
            latency.saturating_record(u64::try_from(began.elapsed().as_nanos())?);
            pages += 1;
        }
        let end = Mark::now(pages, server_cpu);
        Ok(begin.report(end, latency))
    })
}

/// Reads a page of `size` of `keys` keys from key number `from` on; returns the revision for the next one.
///
/// - Errors: a page that is not full, or does not count all keys from its place on.
pub async fn page(connection: &mut Connection, from: u64, size: u64, keys: u64, revision: i64) -> Result<i64> {
    let request = pb::RangeRequest {
        key: key(from).into(),
        range_end: prefix_end(),
        limit: size as i64,
        revision,
        ..Default::default()
    };
    let list = list(connection, &request).await.context("read a page")?;
    ensure!((list.kvs, list.count) == (size, keys - from), "{} keys of {} from {from}", list.kvs, list.count);
    // A page at a pinned revision says the newest one in its header: the first page's stands.
    if revision == 0 { Ok(i64::try_from(list.revision)?) } else { Ok(revision) }
}
