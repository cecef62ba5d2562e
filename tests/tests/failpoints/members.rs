//! Three members: one ends where it talks to the others, applies what it has missed, or fetches a snapshot.

use crate::rig::{arm, ends, must_end, spawn_with, start};
use mechi_tests::client::Client;
use mechi_tests::fire::{Fire, SOON};
use std::time::{Duration, Instant};

pub(crate) const SITES: &[&str] = &[
    "send_before_leader",
    "send_before_follower",
    "forward_before_send",
    "apply_mid_batch",
    "snap_recv_mid",
    "snap_recv_before_sync",
    "snap_before_apply",
    "snap_after_apply",
];

/// Bytes of the longest value while a member is to fall behind, and how many of those are more than the log that is kept.
const LONG_BYTES: u64 = 64 << 10;
const BEHIND: u64 = 100;

/// How long a look for an end is before it is seen whether the member has caught up without one.
const GLANCE: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_ends_at_each_place_and_comes_back() {
    // Some rounds may be in vain: a member that has sent a snapshot lately keeps the log behind it.
    let (wanted, rounds) = (Fire::rounds_wanted(SITES.len() as u64) as usize, 2 * SITES.len() as u64);
    let cluster = start(3, &["--snapshot-log-bytes=1MiB"]);
    let mut fire = Fire::over("failpoints of three members", cluster, rounds, rounds * 60).await;
    let (mut turn, mut fresh) = (0, None);
    while turn < wanted && fire.goes_on().await {
        let site = SITES[turn % SITES.len()];
        let Some(n) = end_at(&mut fire, site, fresh).await else {
            fire.effect("it followed the log");
            fresh = None;
            continue;
        };
        turn += 1;
        fire.effect(site);
        fire.progress(20).await;
        fire.cluster.spawn(n).expect("it serves again");
        // One that has sent a snapshot keeps the log behind it for a while, one that has just started does not.
        fresh = Some(n);
        println!("{site}: member {n} ended and serves again");
    }
    assert!(turn >= SITES.len(), "only {turn} places were reached");
    fire.finish().await;
}

/// Makes a member end at `site`; returns which one, `None` if it did not come to it.
async fn end_at(fire: &mut Fire, site: &'static str, fresh: Option<usize>) -> Option<usize> {
    match site {
        "send_before_leader" => {
            let n = fire.leader().await;
            arm(&fire.cluster.members[n], site, "panic");
            must_end(fire, n, site).await;
            Some(n)
        }
        "send_before_follower" | "forward_before_send" => {
            let n = fire.follower().await;
            arm(&fire.cluster.members[n], site, "panic");
            must_end(fire, n, site).await;
            Some(n)
        }
        "apply_mid_batch" => {
            // What it has missed comes in one go.
            let n = fire.follower().await;
            fire.cluster.kill(n).expect("it runs");
            fire.progress(BEHIND).await;
            spawn_with(fire, n, format!("{site}=panic"));
            must_end(fire, n, site).await;
            Some(n)
        }
        _ => {
            if let Some(fresh) = fresh {
                fire.lead(fresh).await;
            }
            let n = fire.follower().await;
            fire.cluster.kill(n).expect("it runs");
            fall_behind(fire).await;
            spawn_with(fire, n, format!("{site}=panic"));
            ends_or_serves(fire, n, site).await.then_some(n)
        }
    }
}

pub(crate) async fn fall_behind(fire: &Fire) {
    fire.load.set_value_bytes(Some(LONG_BYTES));
    fire.progress(BEHIND).await;
    fire.load.set_value_bytes(None);
}

/// Waits until a member ends at `site`, or has caught up without; returns whether it ended.
async fn ends_or_serves(fire: &mut Fire, n: usize, site: &str) -> bool {
    let deadline = Instant::now() + SOON;
    let endpoint = fire.cluster.members[n].endpoint();
    loop {
        if ends(fire, n, site, GLANCE).await {
            return true;
        }
        // A linearizable one: it waits for what is committed.
        let read = async { Client::connect(&endpoint).await.ok()?.get("nothing").await.ok() };
        if matches!(tokio::time::timeout(GLANCE, read).await, Ok(Some(_))) && !ends(fire, n, site, GLANCE).await {
            return false;
        }
        assert!(Instant::now() < deadline, "member {n} neither serves nor ends at {site}:\n{}", fire.cluster.logs());
    }
}
