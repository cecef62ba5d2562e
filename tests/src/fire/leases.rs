//! Clients with leases: each holds a key by one, renews it through one member after the other, and then lets it end.

use super::record::{Lease, Outcome, What, Write};
use super::workload::Shared;
use super::writer::{failed, send};
use crate::client::Client;
use anyhow::{Context, Result};
use mechi_proto::etcdserverpb as pb;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Acknowledged renewals after which a lease is left alone.
pub(super) const RENEWALS: usize = 12;

/// Seconds of a lease that is kept.
const KEPT_TTL: u64 = 4;

/// Seconds of a lease that is left alone from the beginning; etcd's least with the default election timeout.
const LEFT_TTL: u64 = 2;

/// How long one request may take.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Grants leases one after the other until the workload is stopped; each is renewed `renewals` times, or until it is
/// gone.
pub(super) async fn run(shared: Arc<Shared>, client: usize, renewals: usize) {
    let ttl = if renewals == 0 { LEFT_TTL } else { KEPT_TTL };
    let mut turn = client;
    for count in 1.. {
        if shared.is_stopped() {
            return;
        }
        turn += 1;
        let id = client as i64 * 1_000_000 + count;
        let endpoint = &shared.endpoints[turn % shared.endpoints.len()];
        let hold = tokio::time::timeout(ANSWER_MAX * 2, hold(&shared, endpoint, client, id, ttl));
        let Ok(Ok(place)) = hold.await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        for _ in 0..renewals {
            tokio::time::sleep(Duration::from_secs(ttl) / 6).await;
            turn += 1;
            if shared.is_stopped() || is_gone(&shared, place) {
                break;
            }
            let endpoint = &shared.endpoints[turn % shared.endpoints.len()];
            let sent = Instant::now();
            // What is not answered promises nothing; the next member is asked.
            let Ok(Ok(left)) = tokio::time::timeout(ANSWER_MAX, renew(endpoint, id)).await else { continue };
            let answered = Instant::now();
            let mut book = shared.book.lock().expect("no client panics");
            let lease = &mut book.leases[place];
            match left {
                0 => drop(lease.gone.get_or_insert(answered)),
                _ => lease.promises.push((sent, answered)),
            }
        }
        let key = shared.book.lock().expect("no client panics").leases[place].key.clone();
        while !shared.is_stopped() && !shared.has_ended(&key) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn is_gone(shared: &Shared, place: usize) -> bool {
    shared.book.lock().expect("no client panics").leases[place].gone.is_some()
}

/// Grants a lease and puts a key that ends with it; returns its place in the book.
async fn hold(shared: &Shared, endpoint: &str, client: usize, id: i64, ttl: u64) -> Result<usize> {
    let mut member = Client::connect(endpoint).await?;
    let sent = Instant::now();
    let grant = pb::LeaseGrantRequest { ttl: ttl as i64, id };
    let granted = member.lease.lease_grant(grant).await?.into_inner();
    let answered = Instant::now();
    anyhow::ensure!((granted.id, granted.ttl) == (id, ttl as i64), "{granted:?}");
    let what = What::Put { key: format!("lease/{id}").into(), value: format!("lease {id}").into(), lease: id };
    let What::Put { key, .. } = &what else { unreachable!("it is a put") };
    let (key, after) = (key.clone(), shared.newest());
    let put = tokio::time::timeout(ANSWER_MAX, send(&mut member, &what)).await;
    let outcome = match put {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(status)) => failed(&status),
        Err(_) => Outcome::Unknown("no answer in time".into()),
    };
    let is_held = matches!(outcome, Outcome::Wrote(_));
    shared.wrote(Write { client, what, after, outcome });
    anyhow::ensure!(is_held, "nothing is held");
    let mut book = shared.book.lock().expect("no client panics");
    book.leases.push(Lease { key, ttl, promises: vec![(sent, answered)], gone: None });
    Ok(book.leases.len() - 1)
}

/// Renews once; returns the seconds that are left, 0 if there is no such lease.
async fn renew(endpoint: &str, id: i64) -> Result<i64> {
    let mut member = Client::connect(endpoint).await?;
    let ask = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
    let mut answers = member.lease.lease_keep_alive(ask).await?.into_inner();
    Ok(answers.message().await?.context("no answer")?.ttl)
}
