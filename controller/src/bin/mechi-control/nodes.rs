//! Fake nodes against a store: one copy, one watch, writes in batches, and a few leases for all heartbeats.

use crate::clock::Clock;
use crate::follow::Follower;
use crate::journal::Journal;
use crate::limits::{ELECTION_ANSWER_MAX, MEASURE_MS};
use crate::metrics::Metrics;
use mechi_controller::cache::Cache;
use mechi_controller::fake::{Fleet, HEARTBEAT_TTL_MS};
use mechi_controller::kv::{Error, Kv, LeaseId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

/// Between two renewals of a heartbeat: three may be lost.
const RENEW: Duration = Duration::from_millis(HEARTBEAT_TTL_MS * 3 / 10);

/// Between two tries to get a lease.
const RETRY: Duration = Duration::from_millis(500);

/// Leases that were granted and not looked at.
const LEASES_QUEUE: usize = 64;

/// Runs a fleet until it is told to stop, or until its journal cannot be written; what its nodes wrote stays, and their
/// heartbeats run out.
pub(crate) async fn run<K: Kv>(
    kv: K,
    mut fleet: Fleet,
    mut journal: Option<Journal>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let clock = Clock::new();
    let mut follower: Follower<K, Cache> = Follower::new(kv.clone(), "nodes", metrics.clone());
    let (tell, mut leases) = mpsc::channel(LEASES_QUEUE);
    let mut keepers = JoinSet::new();
    for group in 0..fleet.groups() {
        // One after the other, so that they are not all renewed at once.
        let offset = RENEW.mul_f64(group as f64 / fleet.groups() as f64);
        keepers.spawn(keep(kv.clone(), group, offset, tell.clone()));
    }
    let mut jobs = JoinSet::new();
    let mut measured_ms = 0;
    while !*stop.borrow() {
        let now = clock.now();
        let mut planned = Vec::new();
        while follower.is_watching()
            && let Some(next) = fleet.plan(&follower.copy, now)
        {
            planned.push(next);
        }
        if let Some(journal) = &mut journal
            && let Err(error) = journal.append(&fleet.take_journal())
        {
            tracing::error!(%error, "nothing runs of which no journal tells");
            return;
        }
        for (id, txn) in planned {
            let kv = kv.clone();
            jobs.spawn(async move { (id, kv.txn(&txn).await) });
        }
        if now.ms >= measured_ms + MEASURE_MS {
            measured_ms = now.ms;
            measure(&fleet, &metrics);
        }
        let due_ms = fleet.due_ms().unwrap_or(u64::MAX).max(now.ms + 2);
        tokio::select! {
            biased;
            ended = stop.changed() => if ended.is_err() { break },
            heard = follower.next() => {
                fleet.changed(&follower.copy, &heard.changes);
                let mut taken = 0;
                while let Some(changes) = follower.more(taken) {
                    fleet.changed(&follower.copy, &changes);
                    taken += 1;
                }
            }
            Some((group, lease)) = leases.recv() => fleet.leased(group, lease),
            Some(done) = jobs.join_next() => {
                let (id, answer) = done.expect("nobody panics in a transaction, and nobody aborts it");
                if let Err(error) = &answer {
                    tracing::debug!(%error, "a transaction of fake nodes was not done");
                }
                fleet.answered(id, &answer, clock.now());
            }
            () = sleep_until(clock.at_ms(due_ms.min(measured_ms + MEASURE_MS))) => {}
        }
    }
}

fn measure(fleet: &Fleet, metrics: &Metrics) {
    let counters = fleet.counters();
    metrics.set("mechi_control_nodes", &[], counters.registered as f64);
    metrics.set("mechi_control_stages_total", &[], counters.stages as f64);
    for (result, count) in
        [("committed", counters.committed), ("refused", counters.refused), ("failed", counters.failed)]
    {
        metrics.set("mechi_control_txns_total", &[("component", "nodes"), ("result", result)], count as f64);
    }
}

/// Keeps a lease for a group of nodes, and another one whenever it is lost.
async fn keep<K: Kv>(kv: K, group: usize, offset: Duration, tell: mpsc::Sender<(usize, LeaseId)>) {
    let late = |_| Error::Unavailable("no answer in time".to_owned());
    let mut wait = RENEW.saturating_sub(offset);
    loop {
        let granted = timeout(ELECTION_ANSWER_MAX, kv.grant(Duration::from_millis(HEARTBEAT_TTL_MS))).await;
        let lease = match granted.map_err(late).and_then(|answer| answer) {
            Ok(lease) => lease,
            Err(error) => {
                tracing::debug!(group, %error, "no lease for heartbeats");
                sleep(RETRY).await;
                continue;
            }
        };
        if tell.send((group, lease)).await.is_err() {
            return;
        }
        loop {
            sleep(std::mem::replace(&mut wait, RENEW)).await;
            let answer = timeout(ELECTION_ANSWER_MAX, kv.keep_alive(lease)).await;
            match answer.map_err(late).and_then(|answer| answer) {
                Ok(()) => {}
                Err(Error::LeaseNotFound) => {
                    tracing::warn!(group, "the lease of these nodes' heartbeats was lost");
                    break;
                }
                Err(error) => {
                    tracing::debug!(group, %error, "heartbeats were not renewed");
                    wait = RETRY;
                }
            }
        }
    }
}
