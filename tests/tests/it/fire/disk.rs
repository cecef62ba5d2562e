//! One member's disk is full, and freed again: the others go on, and it comes back.

use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::cluster::Cluster;
use mechi_tests::fire::{Fire, SOON};
use mechi_tests::process::{Kind, http_get};
use mechi_tests::small_disk::{DISK_MIB, SmallDisk};
use pb::alarm_request::AlarmAction;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes that are taken at once.
const PIECE_BYTES: usize = 1 << 20;

/// Rounds of a quick run.
const ROUNDS: u64 = 2;

/// Rounds after which the small disk is full of what was acknowledged.
const ROUNDS_PER_DISK: u64 = 4;

/// Takes what is free; returns how many bytes that was.
fn fill(filler: &Path) -> usize {
    let mut file = std::fs::File::create(filler).expect("the disk takes a name");
    let mut taken = 0;
    for bytes in [PIECE_BYTES, 4096] {
        while let Ok(written) = file.write(&vec![1; bytes]) {
            taken += written;
        }
    }
    taken
}

/// How often the member's log has waited for space since its start.
fn waits(fire: &Fire) -> usize {
    fire.cluster.members[0].log().matches("the log waits for space").count()
}

/// Lowers all alarms: one that stands says that the member is not well.
async fn disarm(endpoint: &str) {
    let mut client = Client::connect(endpoint).await.expect("answers");
    let get = pb::AlarmRequest { action: AlarmAction::Get as i32, ..Default::default() };
    let Ok(listed) = client.maintenance.alarm(get).await else { return };
    for alarm in listed.into_inner().alarms {
        let (member_id, alarm) = (alarm.member_id, alarm.alarm);
        let lower = pb::AlarmRequest { action: AlarmAction::Deactivate as i32, member_id, alarm };
        // Without a leader it is asked again.
        let _ = client.maintenance.alarm(lower).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_full_disk() {
    let parts = Fire::rounds_wanted(ROUNDS).div_ceil(ROUNDS_PER_DISK);
    for _ in 0..parts {
        fill_and_free(parts).await;
    }
}

async fn fill_and_free(parts: u64) {
    let mut cluster = Cluster::describe(Kind::Mechi, 3, &["--quota-backend-bytes=-1"]).expect("described");
    let home = cluster.members[0].home.clone();
    let disk = SmallDisk::mount(&home.join("disk"), DISK_MIB);
    std::os::unix::fs::symlink(home.join("disk"), home.join("data")).expect("a link");
    cluster.members[0].wrapper = disk.enter();
    (0..3).for_each(|n| cluster.spawn_only(n).expect("it starts"));
    cluster.members.iter_mut().for_each(|member| member.wait_ready().expect("it serves"));
    let mut fire = Fire::over("disk of one member full", cluster, ROUNDS, 600).await;
    fire.divide(parts);
    for round in 0.. {
        if !fire.goes_on().await {
            break;
        }
        let is_leader = round % 2 == 0;
        fire.lead(if is_leader { 0 } else { 1 }).await;
        let filler = disk.path().join("filler");
        let taken = fill(&filler);
        assert!(taken > 0);
        let (before, mut has_ended) = (waits(&fire), false);
        fire.load.set_value_bytes(Some(32 << 10));
        while waits(&fire) == before && !has_ended {
            fire.progress(50).await;
            has_ended = fire.cluster.ended(0);
        }
        fire.load.set_value_bytes(None);
        // Whoever leads now, the others go on.
        fire.progress(100).await;
        fire.effect(if is_leader { "the leader's was full" } else { "a follower's was full" });
        std::fs::remove_file(&filler).expect("it is there");
        // Its log waits for space, but a store that meets the full disk in the middle of a flush ends the process.
        let endpoint = fire.cluster.members[0].endpoint();
        let deadline = Instant::now() + SOON;
        while !http_get(&endpoint, "/health").is_ok_and(|(code, _)| code == 200) {
            assert!(Instant::now() < deadline, "with space it serves again");
            if std::mem::take(&mut has_ended) || fire.cluster.ended(0) {
                fire.effect("it ended for lack of space");
                fire.cluster.spawn_only(0).expect("it starts");
            }
            disarm(&fire.cluster.members[1].endpoint()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fire.progress(20).await;
    }
    fire.finish().await;
}
