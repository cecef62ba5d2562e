//! Places that meet an error instead: what cannot be survived ends the member, what can be is survived.

use crate::members::fall_behind;
use crate::rig::{arm, spawn_with, start};
use mechi_tests::fire::{Fire, SOON};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_or_a_lost_store_ends_the_member_and_a_full_disk_does_not() {
    let flags = ["--snapshot-log-bytes=1MiB", "--store-flush-interval=100ms"];
    let ending = ["wal_after_append_before_sync", "engine_before_commit", "engine_after_commit"];
    let cases: Vec<_> = ["snap_after_write_before_rename"].into_iter().chain(ending).collect();
    let mut fire = Fire::over("errors at failpoints", start(1, &flags), cases.len() as u64, 300).await;
    let mut turn = 0;
    while fire.goes_on().await {
        let site = cases[turn % cases.len()];
        turn += 1;
        fire.load.set_value_bytes(Some(64 << 10));
        arm(&fire.cluster.members[0], site, "1*return(by a test)");
        if ending.contains(&site) {
            let ended = tokio::task::block_in_place(|| fire.cluster.members[0].wait_exit(SOON)).expect(site);
            fire.cluster.kill(0).expect("it is gone already");
            assert_eq!(ended.code(), Some(70), "{site}");
            fire.cluster.spawn(0).expect("it serves again");
        } else {
            let log = |fire: &Fire| fire.cluster.members[0].log();
            let before = log(&fire).matches("saved snapshot").count();
            fire.until("the full disk is met", || log(&fire).contains("no snapshot: the disk is full")).await;
            // It is tried again after a while.
            fire.until("a snapshot is made", || log(&fire).matches("saved snapshot").count() > before).await;
        }
        fire.load.set_value_bytes(None);
        fire.effect(site);
    }
    fire.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_of_a_fetched_snapshot_ends_the_member_and_the_next_fetches_it_again() {
    let mut fire =
        Fire::over("a fetched snapshot that is not synced", start(3, &["--snapshot-log-bytes=1MiB"]), 1, 200).await;
    while fire.goes_on().await {
        let n = fire.follower().await;
        fire.cluster.kill(n).expect("it runs");
        fall_behind(&fire).await;
        spawn_with(&mut fire, n, "snap_recv_before_sync=return(by a test)".to_owned());
        let ended = tokio::task::block_in_place(|| fire.cluster.members[n].wait_exit(SOON));
        // Whoever had sent a snapshot lately keeps the log behind it: then there is none to fetch.
        let Ok(ended) = ended else { continue };
        fire.cluster.kill(n).expect("it is gone already");
        assert_eq!(ended.code(), Some(70), "{}", fire.cluster.members[n].log());
        assert!(fire.cluster.members[n].log().contains("sync a fetched snapshot: by a test"));
        fire.cluster.spawn(n).expect("it serves again");
        fire.effect("an fsync failed");
        fire.progress(100).await;
    }
    fire.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_arrives_malformed_is_refused_and_stops_nobody() {
    let mut fire = Fire::over("a malformed batch", start(3, &[]), 2, 200).await;
    while fire.goes_on().await {
        let n = fire.follower().await;
        let refused = |fire: &Fire| fire.cluster.members[n].log().matches("a batch of this member is refused").count();
        let before = refused(&fire);
        arm(&fire.cluster.members[n], "forward_before_send", "1*return");
        fire.until("its author hears of it", || refused(&fire) > before).await;
        let minded = fire.cluster.members.iter().any(|one| one.log().contains("it could not be applied"));
        assert!(minded, "no leader says why:\n{}", fire.cluster.logs());
        for other in 0..3 {
            assert!(!fire.cluster.ended(other), "member {other} ended:\n{}", fire.cluster.logs());
        }
        fire.effect("a batch was refused");
        fire.progress(50).await;
    }
    fire.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_dropped_and_transfers_that_are_cut_lose_nothing() {
    let mut fire = Fire::over("drops at failpoints", start(3, &["--snapshot-log-bytes=1MiB"]), 2, 600).await;
    for n in 0..3 {
        arm(&fire.cluster.members[n], "send_before_leader", "5%return");
        arm(&fire.cluster.members[n], "send_before_follower", "5%return");
    }
    while fire.goes_on().await {
        let n = fire.follower().await;
        fire.cluster.kill(n).expect("it runs");
        fall_behind(&fire).await;
        spawn_with(&mut fire, n, "snap_recv_mid=3*return(cut);send_before_follower=5%return".to_owned());
        fire.cluster.members[n].wait_ready().expect("it serves again");
        if fire.cluster.members[n].log().contains("was cut and goes on") {
            fire.effect("a transfer was cut");
        }
        fire.effect("caught up over a network that drops");
        fire.progress(100).await;
    }
    for n in 0..3 {
        arm(&fire.cluster.members[n], "send_before_leader", "off");
        arm(&fire.cluster.members[n], "send_before_follower", "off");
    }
    fire.finish().await;
}
