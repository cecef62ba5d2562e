//! An empty directory under an old identity is refused, and the cluster goes on without it.

use mechi_tests::fire::Fire;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_is_refused_and_the_others_go_on() {
    let mut fire = Fire::start("wiped member", 3, &[], 2, 600).await;
    while fire.goes_on().await {
        let wiped = fire.rng.below(3) as usize;
        fire.cluster.kill(wiped).expect("it runs");
        let (data, aside) = (fire.cluster.members[wiped].data_dir(), fire.cluster.home().join("aside"));
        std::fs::rename(&data, &aside).expect("moves");
        fire.cluster.spawn_only(wiped).expect("it starts");
        let status = fire.cluster.members[wiped].wait_exit(Duration::from_secs(90)).expect("it ends");
        let log = fire.cluster.members[wiped].log();
        assert!(!status.success() && log.contains("has already been bootstrapped"), "{log}");
        assert!(!data.join("member").exists(), "nothing is made in the empty directory");
        fire.effect("refused");
        fire.progress(20).await;
        let _ = std::fs::remove_dir_all(&data);
        std::fs::rename(&aside, &data).expect("moves back");
        fire.cluster.spawn(wiped).expect("with its data it starts");
    }
    fire.finish().await;
}
