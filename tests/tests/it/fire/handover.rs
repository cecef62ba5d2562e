//! Handovers in a row, asked for and at SIGTERM: each raises the term by one, and clients lose nothing.

use mechi_tests::fire::Fire;

async fn term(fire: &Fire, leader: usize) -> u64 {
    fire.cluster.status(leader).await.expect("tells").raft_term
}

/// The machine may be so busy that there are elections besides.
fn count(fire: &mut Fire, before: u64, after: u64) {
    assert!(after > before, "another leads in the same term");
    fire.effect(if after == before + 1 { "term + 1" } else { "term + more" });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_and_on() {
    let mut fire = Fire::start("MoveLeader", 3, &[], 6, 900).await;
    while fire.goes_on().await {
        let old = fire.leader().await;
        let next = *fire.rng.pick(&fire.others(&[old]));
        let before = term(&fire, old).await;
        match fire.move_leader(old, next).await {
            Ok(_) => {
                let now = fire.leader().await;
                let after = term(&fire, now).await;
                count(&mut fire, before, after);
            }
            // It lost the leadership meanwhile, or the next one did not catch up in time.
            Err(status) => {
                println!("MoveLeader: {status}");
                fire.effect("refused");
            }
        }
    }
    fire.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_leader_is_stopped_in_order() {
    let mut fire = Fire::start("SIGTERM of the leader", 3, &[], 4, 900).await;
    while fire.goes_on().await {
        let old = fire.leader().await;
        let before = term(&fire, old).await;
        assert!(fire.cluster.stop(old).expect("it ends").success());
        let next = fire.leader_among(&fire.others(&[old])).await;
        let after = term(&fire, next).await;
        count(&mut fire, before, after);
        fire.progress(20).await;
        fire.cluster.spawn(old).expect("it serves again");
    }
    fire.finish().await;
}
