//! How long a cluster of three acknowledges no write after its leader is gone: default flags, real processes on loopback
//! without proxies. Writers put through the two members that stay, one write each 2 ms whether or not the last was answered.

use crate::client::Client;
use crate::cluster::Cluster;
use crate::process::Kind;
use anyhow::{Context, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

const MEMBERS: usize = 3;

/// Time between two writes of one writer.
const PACE: Duration = Duration::from_millis(2);

/// Writes of one writer that wait for an answer; beyond, it sends none until one is answered or given up.
const WAITING_MAX: usize = 512;

/// How long a write may take before its writer gives it up. Far fewer than [`WAITING_MAX`] begin in that time: a server
/// that never answers what came while it had no leader (etcd) must not be kept from the writes that come later.
const GIVE_UP: Duration = Duration::from_millis(500);

/// How long the writers run before the leader goes, and after that writes are acknowledged again.
const AROUND: Duration = Duration::from_millis(300);

/// How long a cluster may be without a leader.
const RECOVER_MAX: Duration = Duration::from_secs(60);

/// How the leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum End {
    /// kill -9: the time to the first acknowledgement of a write that began after it.
    Kill,
    /// SIGTERM, where leadership is handed over: the longest time between two acknowledgements around it.
    Term,
}

/// An acknowledged write: when it began, and when it was answered.
type Acked = (Instant, Instant);

/// Starts three members and lets the leader go `rounds` times; returns the time of each round, and tells it to `each`.
///
/// - Panics: outside a runtime of many threads, since processes are waited for.
pub async fn measure(
    kind: Kind,
    program: Option<&Path>,
    end: End,
    rounds: usize,
    mut each: impl FnMut(usize, Duration),
) -> Result<Vec<Duration>> {
    let mut cluster = tokio::task::block_in_place(|| Cluster::direct(kind, program, MEMBERS, &[]))?;
    let mut times = Vec::new();
    for round in 1..=rounds {
        let leader = cluster.leader().await?;
        let time = one_round(&mut cluster, leader, end).await?;
        each(round, time);
        times.push(time);
        tokio::task::block_in_place(|| cluster.spawn(leader))?;
    }
    Ok(times)
}

async fn one_round(cluster: &mut Cluster, leader: usize, end: End) -> Result<Duration> {
    let (stop, (acked, mut acks)) = (Arc::new(AtomicBool::new(false)), mpsc::unbounded_channel());
    let mut writers = Vec::new();
    for n in (0..MEMBERS).filter(|n| *n != leader) {
        let client = Client::connect(&cluster.members[n].endpoint()).await?;
        writers.push(tokio::spawn(write(client, acked.clone(), stop.clone())));
    }
    drop(acked);
    tokio::time::sleep(AROUND).await;
    let gone = Instant::now();
    match end {
        End::Kill => tokio::task::block_in_place(|| cluster.kill(leader))?,
        End::Term => cluster.members[leader].signal(15)?,
    }
    let mut all: Vec<Acked> = Vec::new();
    let deadline = gone + RECOVER_MAX;
    loop {
        let ack = tokio::time::timeout(deadline - Instant::now(), acks.recv()).await;
        let ack = ack.context("no write was acknowledged within a minute")?.context("the writers live")?;
        all.push(ack);
        if ack.0 > gone && ack.1 > gone + AROUND {
            break;
        }
    }
    stop.store(true, Relaxed);
    if end == End::Term {
        tokio::task::block_in_place(|| cluster.members[leader].wait_exit(RECOVER_MAX))?;
        tokio::task::block_in_place(|| cluster.kill(leader))?;
    }
    for writer in writers {
        writer.await?;
    }
    Ok(match end {
        End::Kill => {
            let first = all.iter().filter(|(began, _)| *began > gone).map(|(_, answered)| *answered).min();
            first.context("a write that began later was acknowledged")? - gone
        }
        End::Term => {
            let mut answered: Vec<Instant> = all.iter().map(|(_, answered)| *answered).collect();
            answered.sort_unstable();
            let from = answered.partition_point(|at| *at < gone).saturating_sub(1);
            let gaps = answered[from..].windows(2).map(|pair| pair[1] - pair[0]);
            gaps.max().context("writes were acknowledged")?
        }
    })
}

/// Puts through one member at an even pace until told to stop, and tells of each acknowledgement.
async fn write(client: Client, acked: mpsc::UnboundedSender<Acked>, stop: Arc<AtomicBool>) {
    let places = Arc::new(Semaphore::new(WAITING_MAX));
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut number = 0u64;
    while !stop.load(Relaxed) {
        pace.tick().await;
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (mut client, acked) = (client.clone(), acked.clone());
        number += 1;
        tokio::spawn(async move {
            let began = Instant::now();
            let put = client.put(format!("failover/{}", number % 100), "x");
            if let Ok(Ok(_)) = tokio::time::timeout(GIVE_UP, put).await {
                // Nobody listens after the round.
                let _ = acked.send((began, Instant::now()));
            }
            drop(place);
        });
    }
}
