//! A member that was down until the log that it needs is gone: it fetches a snapshot, killed on the way or overtaken.

use mechi_tests::client::Client;
use mechi_tests::fire::{Fire, SOON};
use std::time::{Duration, Instant};

/// What each piece of a connection waits, so that a transfer takes long enough to be disturbed.
const SLOW: Duration = Duration::from_millis(40);

/// Bytes of the longest value while a member is to fall behind.
const LONG_BYTES: u64 = 64 << 10;

/// Writes of such values that are more than the log that is kept.
const BEHIND: u64 = 100;

async fn fall_behind(fire: &Fire) {
    fire.load.set_value_bytes(Some(LONG_BYTES));
    fire.progress(BEHIND).await;
    fire.load.set_value_bytes(None);
}

async fn says(fire: &Fire, n: usize, text: &str) {
    fire.until(text, || fire.cluster.members[n].log().contains(text)).await;
}

/// What a member says that has fetched a snapshot.
const INSTALLED: &str = "the member is stopped and opened again";

/// How long a member that has caught up may take to answer a read; then its log is looked at again.
const GLANCE: Duration = Duration::from_millis(50);

/// Waits until a member says this in its log, or has caught up without; returns whether it said it.
async fn says_or_serves(fire: &Fire, n: usize, text: &str) -> bool {
    let deadline = Instant::now() + SOON;
    let member = &fire.cluster.members[n];
    loop {
        if member.log().contains(text) {
            return true;
        }
        let endpoint = member.endpoint();
        // A linearizable one: it waits for what is committed.
        let read = async { Client::connect(&endpoint).await.ok()?.get("nothing").await.ok() };
        if matches!(tokio::time::timeout(GLANCE, read).await, Ok(Some(_))) {
            return member.log().contains(text);
        }
        assert!(Instant::now() < deadline, "member {n} neither serves nor says {text:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Starts a member that is behind; returns whether it needs a snapshot.
///
/// A machine that is busy with nothing else has elections too: who leads now may have sent a snapshot lately and keep the
/// log behind it, and the member follows that.
async fn is_beyond_the_log(fire: &mut Fire, n: usize) -> bool {
    fire.cluster.spawn_only(n).expect("it starts");
    says_or_serves(fire, n, "receiving database snapshot").await
}

fn slow(fire: &Fire, n: usize) {
    for other in fire.others(&[n]) {
        fire.cluster.link(n, other, |rule| rule.delay = SLOW);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_beyond_the_log_gets_a_snapshot() {
    let flags = ["--snapshot-log-bytes=1MiB"];
    let mut fire = Fire::start("lag beyond the log", 3, &flags, 3, 900).await;
    let (mut round, mut fresh, mut spared) = (0, None, 0);
    while fire.goes_on().await {
        if let Some(fresh) = fresh {
            // One that has sent a snapshot keeps the log behind it for two minutes, one that has just started does not.
            fire.lead(fresh).await;
        }
        let n = fire.follower().await;
        fire.cluster.kill(n).expect("it runs");
        fall_behind(&fire).await;
        if round % 3 > 0 {
            slow(&fire, n);
        }
        fresh = Some(n);
        if !is_beyond_the_log(&mut fire, n).await {
            fire.effect("it followed the log");
            fire.cluster.heal();
            spared += 1;
            continue;
        }
        match round % 3 {
            0 => {}
            1 => {
                fire.cluster.kill(n).expect("it runs");
                let log = fire.cluster.members[n].log();
                let is_whole = log.contains("received and saved database snapshot");
                fire.effect(if is_whole { "killed after the transfer" } else { "killed in the transfer" });
                fire.cluster.heal();
                fire.cluster.spawn_only(n).expect("it starts");
                // One that was killed after the transfer, or in the moment of its end, has what it needs.
                if is_whole || !says_or_serves(&fire, n, INSTALLED).await {
                    fire.cluster.members[n].wait_ready().expect("it serves again");
                    round += 1;
                    continue;
                }
            }
            _ => {
                fall_behind(&fire).await;
                fire.effect("overtaken in the transfer");
                fire.cluster.heal();
            }
        }
        says(&fire, n, INSTALLED).await;
        fire.effect("snapshot installed");
        fire.cluster.members[n].wait_ready().expect("it serves again");
        round += 1;
    }
    assert!(round > 0, "no member needed a snapshot, {spared} followed the log");
    fire.finish().await;
}
