//! The working store of a member that was killed is deleted, truncated, flipped, or another boot's: the log carries all.

use crate::crash::damage_store;
use mechi_tests::fire::Fire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_lost_or_damaged() {
    let mut fire = Fire::start("store lost or damaged", 3, &["--store-flush-interval=200ms"], 4, 900).await;
    while fire.goes_on().await {
        let leader = fire.leader().await;
        let n = if fire.rng.chance(50) { leader } else { fire.follower().await };
        fire.cluster.kill(n).expect("it runs");
        let damage = damage_store(&fire.cluster.members[n].data_dir(), &mut fire.rng);
        fire.effect(damage);
        fire.progress(20).await;
        fire.cluster.spawn(n).expect("it serves again");
    }
    fire.finish().await;
}
