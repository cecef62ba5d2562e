//! How long a cluster of three acknowledges no write after its leader is gone: default flags, real processes on loopback
//! without proxies. Writers put through the two members that stay, one write each 2 ms whether or not the last was answered.

use crate::cluster::Cluster;
use crate::pace::{Pace, Writers, longest_gap};
use crate::process::{Kind, Server};
use anyhow::{Context, Result};
use std::path::Path;
use std::time::{Duration, Instant};

const MEMBERS: usize = 3;

/// A write each 2 ms, given up long before so many wait that no more begin.
const PACE: Pace = Pace { every: Duration::from_millis(2), give_up: Duration::from_millis(500) };

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
    let others = (0..MEMBERS).filter(|n| *n != leader).map(|n| &cluster.members[n]);
    let mut writers = Writers::start(&others.map(Server::endpoint).collect::<Vec<_>>(), PACE).await?;
    tokio::time::sleep(AROUND).await;
    let gone = Instant::now();
    match end {
        End::Kill => tokio::task::block_in_place(|| cluster.kill(leader))?,
        End::Term => cluster.members[leader].signal(15)?,
    }
    let mut all = Vec::new();
    loop {
        let written = writers.next(gone + RECOVER_MAX).await.context("no write was acknowledged within a minute")?;
        all.push(written);
        if written.is_acked && written.began > gone && written.ended > gone + AROUND {
            break;
        }
    }
    if end == End::Term {
        tokio::task::block_in_place(|| cluster.members[leader].wait_exit(RECOVER_MAX))?;
        tokio::task::block_in_place(|| cluster.kill(leader))?;
    }
    writers.stop().await?;
    Ok(match end {
        End::Kill => {
            let later = all.iter().filter(|written| written.is_acked && written.began > gone);
            let first = later.map(|written| written.ended).min();
            first.context("a write that began later was acknowledged")? - gone
        }
        End::Term => longest_gap(&all, gone).context("writes were acknowledged")?.0,
    })
}
