//! One member's disk is full, and freed again: the others go on, and it comes back.

use crate::disk_full::SmallDisk;
use mechi_tests::cluster::Cluster;
use mechi_tests::fire::Fire;
use mechi_tests::process::Kind;
use std::io::Write;
use std::path::Path;

/// Bytes that are taken at once.
const PIECE_BYTES: usize = 1 << 20;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_full_disk() {
    let mut cluster = Cluster::describe(Kind::Mechi, 3, &["--quota-backend-bytes=-1"]).expect("described");
    let home = cluster.members[0].home.clone();
    let disk = SmallDisk::mount(&home.join("disk"));
    std::os::unix::fs::symlink(home.join("disk"), home.join("data")).expect("a link");
    cluster.members[0].wrapper = disk.enter();
    (0..3).for_each(|n| cluster.spawn_only(n).expect("it starts"));
    cluster.members.iter_mut().for_each(|member| member.wait_ready().expect("it serves"));
    let mut fire = Fire::over("disk of one member full", cluster, 2, 600).await;
    while fire.goes_on().await {
        let is_leader = fire.leader().await == 0;
        let filler = disk.path().join("filler");
        let taken = fill(&filler);
        assert!(taken > 0);
        fire.load.set_value_bytes(Some(32 << 10));
        fire.progress(600).await;
        fire.load.set_value_bytes(None);
        fire.effect(if is_leader { "the leader's was full" } else { "a follower's was full" });
        std::fs::remove_file(&filler).expect("it is there");
        fire.progress(20).await;
    }
    fire.finish().await;
}
