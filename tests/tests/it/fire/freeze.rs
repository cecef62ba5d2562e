//! SIGSTOP of the leader: it holds still with all its connections, and comes back believing that it leads.

use mechi_tests::fire::Fire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_frozen_for_longer_than_an_election() {
    let mut fire = Fire::start("leader frozen, longer than an election", 3, &[], 3, 900).await;
    while fire.goes_on().await {
        let frozen = fire.leader().await;
        fire.cluster.freeze(frozen).expect("it runs");
        fire.leader_among(&fire.others(&[frozen])).await;
        fire.progress(20).await;
        fire.effect("another leads");
        fire.cluster.thaw(frozen).expect("it runs");
    }
    fire.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_frozen_for_longer_than_a_lease() {
    let mut fire = Fire::start("leader frozen, longer than a lease", 3, &[], 2, 900).await;
    while fire.goes_on().await {
        let frozen = fire.leader().await;
        let leases = fire.load.leases();
        fire.cluster.freeze(frozen).expect("it runs");
        fire.leader_among(&fire.others(&[frozen])).await;
        // Granted, left alone and ended while the old leader holds still.
        fire.until("leases end under the new leader", || fire.load.ended(leases) >= 2).await;
        fire.effect("two leases ended under another leader");
        fire.cluster.thaw(frozen).expect("it runs");
    }
    fire.finish().await;
}
