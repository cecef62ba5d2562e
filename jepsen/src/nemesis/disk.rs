//! Disks that are full, slow, or answer an fsync with an error.

use super::harm::Harm;
use crate::cluster::{Cluster, LATE};
use anyhow::{Context, Result};
use mechi_proto::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use std::io::{ErrorKind, Write};
use std::time::Duration;

/// The file that takes all that is free.
const FILLER: &str = "jepsen-filler";

/// How long a member may go on after a failed fsync until it is said to go on: it writes several times a second.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Takes every byte of some members' disks for a while.
pub(super) async fn fill(harm: &mut Harm<'_>) -> Result<()> {
    let (cluster, who, leader) = (harm.cluster, harm.targets().await, harm.cluster.leader().await);
    harm.begin("disk-full", harm.each(&who, "full"));
    for n in &who {
        cluster.allow_end(*n, true);
        let path = cluster.disk(*n).context("the cluster was started without small disks")?.join(FILLER);
        let is_full = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::create(&path)?;
            for piece in [vec![1; 1 << 20], vec![1; 4096], vec![1; 1]] {
                loop {
                    match file.write(&piece) {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::StorageFull => break,
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(())
        });
        is_full.await?.context("fill a disk")?;
        harm.effect(format!("the disk of {} had no byte left", cluster.name(*n)));
    }
    harm.hold(500..4_000).await;
    harm.note_leader(leader).await;
    who.iter().try_for_each(|n| free(cluster, *n))?;
    harm.undone("disk-full");
    for n in &who {
        come_back(harm, *n)?;
        disarm(cluster, *n).await;
    }
    harm.hold(200..1_500).await;
    Ok(())
}

/// Starts a member again whose disk was filled while its working store was being written: it had looked for room, and sled
/// does not survive that there is none (README.md, known behaviour). For any other end it is accused.
fn come_back(harm: &mut Harm<'_>, n: usize) -> Result<()> {
    let cluster = harm.cluster;
    if !cluster.is_running(n) {
        let log = cluster.log(n);
        let why = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if why.contains("engine lost") && why.contains("StorageFull") {
            harm.effect(format!("{} lost its working store to the full disk, and ended", cluster.name(n)));
        } else {
            cluster.accuse(n, &format!("ended on a full disk: {why}"));
        }
        cluster.spawn(n)?;
    }
    cluster.allow_end(n, false);
    Ok(())
}

/// Gives the space back.
pub(super) fn free(cluster: &Cluster, n: usize) -> Result<()> {
    let Some(disk) = cluster.disk(n) else { return Ok(()) };
    match std::fs::remove_file(disk.join(FILLER)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("give the space back"),
        _ => Ok(()),
    }
}

/// Lowers all alarms, through one member; without a leader it is asked again by the next round, or at the end.
pub(super) async fn disarm(cluster: &Cluster, n: usize) {
    let asked = async {
        let mut client = cluster.connect(n).await?;
        let get = pb::AlarmRequest { action: AlarmAction::Get as i32, ..Default::default() };
        for alarm in client.maintenance.alarm(get).await?.into_inner().alarms {
            let (member_id, alarm) = (alarm.member_id, alarm.alarm);
            let lower = pb::AlarmRequest { action: AlarmAction::Deactivate as i32, member_id, alarm };
            client.maintenance.alarm(lower).await?;
        }
        anyhow::Ok(())
    };
    // Whoever still has an alarm at the end refuses writes, which the workload's last ones would show.
    let _ = tokio::time::timeout(crate::limits::ASK_MAX, asked).await;
}

/// Each fsync of some members takes its time.
pub(super) async fn slow(harm: &mut Harm<'_>) -> Result<()> {
    let (cluster, who, leader) = (harm.cluster, harm.targets().await, harm.cluster.leader().await);
    let delay = match harm.rng.below(3) {
        0 => 50 + harm.rng.below(100),
        1 => 150 + harm.rng.below(500),
        _ => 650 + harm.rng.below(1_350),
    };
    let slowed = || who.iter().map(|n| cluster.shim(*n, |shim| Ok(shim.done()?[0]))).sum::<Result<i64>>();
    let before = slowed()?;
    harm.begin("disk-slow", harm.each(&who, &format!("fsync-{delay}-ms")));
    for n in &who {
        cluster.shim(*n, |shim| shim.slow_fsyncs(Duration::from_millis(delay)))?;
    }
    harm.hold(500..4_000).await;
    harm.note_leader(leader).await;
    for n in &who {
        cluster.shim(*n, |shim| shim.slow_fsyncs(Duration::ZERO))?;
    }
    harm.undone("disk-slow");
    if slowed()? > before {
        harm.effect("an fsync was slow");
    }
    harm.hold(200..1_500).await;
    Ok(())
}

/// The next fsync of one victim fails: its process ends, and another one looks at what is on the disk.
pub(super) async fn fail(harm: &mut Harm<'_>) -> Result<()> {
    let (cluster, n) = (harm.cluster, harm.victim());
    harm.begin("fsync-error", harm.each(&[n], "eio"));
    cluster.allow_end(n, true);
    let failures = || cluster.shim(n, |shim| Ok(shim.done()?[1]));
    let before = failures()?;
    cluster.shim(n, |shim| shim.fail_fsyncs(1))?;
    while failures()? == before && !harm.is_over() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.shim(n, |shim| shim.fail_fsyncs(0))?;
    // It may have failed at the last moment.
    if failures()? > before {
        if cluster.ends_within(n, ENDS_WITHIN).await {
            harm.effect(format!("{} ended after a failed fsync", cluster.name(n)));
        } else {
            // What is on the disk is not known, and it acknowledges all the same (Rebello et al., ATC '20).
            cluster.accuse(n, &format!("{LATE} went on for {ENDS_WITHIN:?} after a failed fsync"));
        }
    }
    harm.hold(50..1_000).await;
    cluster.allow_end(n, false);
    cluster.spawn(n)?;
    harm.undone("fsync-error");
    harm.hold(300..2_000).await;
    Ok(())
}
