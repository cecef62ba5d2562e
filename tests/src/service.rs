//! What clients of three real members notice of a fault: how long no write is acknowledged, which writes fail although a
//! majority could serve them, and how long the cluster takes to be whole again.

use crate::client::Client;
use crate::cluster::Cluster;
use crate::pace::{Pace, Writers, Written, longest_gap};
use crate::process::{Kind, Server};
use crate::rng::Rng;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use tokio::task::block_in_place;
use tokio::time::sleep;

const MEMBERS: usize = 3;

/// A write each 5 ms; what takes longer than a client is ready to wait has failed.
const PACE: Pace = Pace { every: Duration::from_millis(5), give_up: Duration::from_secs(2) };

/// How long the writers run before a fault, and after it.
const AROUND: Duration = Duration::from_secs(1);

/// How long a member is paused, or cut off.
pub const FAULT: Duration = Duration::from_secs(5);

/// Bytes of one value of the data that a member must come back with.
const VALUE_BYTES: usize = 16 << 10;

/// Writers of that data.
const FILLERS: usize = 32;

/// How long such data may take to be in the working store of every member.
const FILL_MAX: Duration = Duration::from_secs(300);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// kill -9 of the leader, which is started again after [`FAULT`].
    LeaderKilled,
    /// SIGSTOP of the leader for [`FAULT`].
    LeaderPaused,
    /// The leader's links to both others are cut for [`FAULT`]; clients of the others are watched.
    LeaderCutOff,
    /// The same of a follower.
    FollowerCutOff,
}

impl Fault {
    /// In words, for a table.
    pub fn text(self) -> &'static str {
        match self {
            Self::LeaderKilled => "leader killed (-9), started again after 5 s",
            Self::LeaderPaused => "leader paused for 5 s",
            Self::LeaderCutOff => "leader cut off for 5 s",
            Self::FollowerCutOff => "follower cut off for 5 s",
        }
    }
}

/// What the clients of the two other members have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The longest time between two acknowledged writes.
    pub gap: Duration,
    /// Writes that began before that gap ended and failed.
    pub failed_until: usize,
    /// Writes that began later and failed.
    pub failed_after: usize,
    /// Writes that were acknowledged.
    pub acked: usize,
    /// From the end of the fault until all three members held the same.
    pub whole: Duration,
}

/// Lets one fault happen to a cluster.
///
/// - Panics: outside a runtime of many threads, since processes are waited for.
pub async fn measure(cluster: &mut Cluster, fault: Fault) -> Result<Seen> {
    let leader = cluster.leader().await?;
    let victim = if fault == Fault::FollowerCutOff { (leader + 1) % MEMBERS } else { leader };
    let others = (0..MEMBERS).filter(|n| *n != victim).map(|n| &cluster.members[n]);
    let writers = Writers::start(&others.map(Server::endpoint).collect::<Vec<_>>(), PACE).await?;
    sleep(AROUND).await;
    let begun = Instant::now();
    match fault {
        Fault::LeaderKilled => block_in_place(|| cluster.kill(victim))?,
        Fault::LeaderPaused => cluster.freeze(victim)?,
        Fault::LeaderCutOff | Fault::FollowerCutOff => cluster.isolate(victim),
    }
    sleep(FAULT).await;
    let ended = Instant::now();
    match fault {
        Fault::LeaderKilled => block_in_place(|| cluster.spawn(victim))?,
        Fault::LeaderPaused => cluster.thaw(victim)?,
        Fault::LeaderCutOff | Fault::FollowerCutOff => cluster.heal(),
    }
    // Coming back is part of the fault: it must not cost the others their leader.
    sleep(AROUND).await;
    let all = writers.stop().await?;
    cluster.wait_until_equal().await?;
    seen(&all, begun, ended.elapsed())
}

fn seen(all: &[Written], begun: Instant, whole: Duration) -> Result<Seen> {
    let (gap, over) = longest_gap(all, begun).context("no write was acknowledged after the fault")?;
    let failed =
        |after: bool| all.iter().filter(|written| !written.is_acked && (written.began >= over) == after).count();
    let acked = all.iter().filter(|written| written.is_acked).count();
    Ok(Seen { gap, failed_until: failed(false), failed_after: failed(true), acked, whole })
}

/// How long a member takes to serve again, and to hold what the others hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// From its start until it answers `/health`.
    pub serves: Duration,
    /// From its start until all three hold the same.
    pub whole: Duration,
}

/// Starts three members that use their working stores, and writes `mib` MiB that do not compress.
pub async fn filled(mib: usize, tell: impl Fn(usize)) -> Result<Cluster> {
    let quota = format!("--quota-backend-bytes={}", 8u64 << 30);
    let flags = ["--store-flush-interval=1s", &quota];
    let cluster = block_in_place(|| Cluster::direct(Kind::Mechi, None, MEMBERS, &flags))?;
    let endpoint = cluster.members[cluster.leader().await?].endpoint();
    let values = (mib << 20) / VALUE_BYTES;
    let mut fillers = tokio::task::JoinSet::new();
    for filler in 0..FILLERS {
        let mut client = Client::connect(&endpoint).await?;
        fillers.spawn(async move {
            let mut rng = Rng::new(filler as u64 + 1);
            for n in (filler..values).step_by(FILLERS) {
                let value: Vec<u8> = (0..VALUE_BYTES / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
                client.put(format!("data/{n}"), value).await?;
            }
            anyhow::Ok(())
        });
    }
    let mut done = 0;
    while let Some(filler) = fillers.join_next().await {
        filler??;
        done += 1;
        tell(done * mib / FILLERS);
    }
    cluster.wait_until_equal().await?;
    wait_until_flushed(&cluster, (mib as u64) << 20).await?;
    Ok(cluster)
}

/// Waits until each member's working store holds about as many bytes as were written.
async fn wait_until_flushed(cluster: &Cluster, bytes: u64) -> Result<()> {
    let deadline = Instant::now() + FILL_MAX;
    for member in &cluster.members {
        while store_bytes(member)? < bytes / 10 * 9 {
            ensure!(Instant::now() < deadline, "the working store of {} does not fill", member.name);
            sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// The folders of a member's working store.
fn stores(member: &Server) -> Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(member.data_dir().join("member"))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let is_store = |path: &std::path::PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("store-"))
    };
    Ok(paths.into_iter().filter(is_store).collect())
}

fn store_bytes(member: &Server) -> Result<u64> {
    let mut bytes = 0;
    for entry in stores(member)?.iter().map(std::fs::read_dir) {
        for file in entry? {
            bytes += file?.metadata().map(|data| data.len()).unwrap_or(0);
        }
    }
    Ok(bytes)
}

/// Kills a follower, takes its working store away if `is_lost`, and starts it again.
pub async fn come_back(cluster: &mut Cluster, is_lost: bool) -> Result<Return> {
    let victim = (cluster.leader().await? + 1) % MEMBERS;
    block_in_place(|| cluster.kill(victim))?;
    let stores = stores(&cluster.members[victim])?;
    ensure!(!stores.is_empty(), "{} has no working store", cluster.members[victim].name);
    if is_lost {
        stores.iter().try_for_each(std::fs::remove_dir_all)?;
    }
    let begun = Instant::now();
    block_in_place(|| cluster.spawn(victim))?;
    let serves = begun.elapsed();
    cluster.wait_until_equal().await?;
    Ok(Return { serves, whole: begun.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_the_end_of_the_gap() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let written = |began, ended, is_acked| Written { began: at(began), ended: at(ended), is_acked };
        let all = [
            written(0, 10, true),
            written(20, 2_020, false),
            written(90, 100, true),
            written(95, 2_095, false),
            written(100, 2_100, false),
            written(110, 120, true),
        ];
        let found = seen(&all, at(5), Duration::from_secs(1)).expect("writes were acknowledged");
        assert_eq!((found.gap, found.acked), (Duration::from_millis(90), 3));
        assert_eq!((found.failed_until, found.failed_after), (2, 1));
        assert!(seen(&all[1..2], at(5), Duration::ZERO).is_err());
    }
}
