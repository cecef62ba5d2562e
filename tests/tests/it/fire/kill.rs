//! kill -9: of the leader, of a follower, of all at once.

use mechi_tests::fire::Fire;

const MEMBERS: usize = 3;

async fn kill(name: &'static str, pick: impl AsyncFn(&mut Fire) -> Vec<usize>) {
    let mut fire = Fire::start(name, MEMBERS, &[], 3, 900).await;
    while fire.goes_on().await {
        let killed = pick(&mut fire).await;
        for n in &killed {
            fire.cluster.kill(*n).expect("it runs");
        }
        if killed.len() < MEMBERS {
            fire.progress(20).await;
        }
        fire.effect("killed");
        for n in &killed {
            fire.cluster.spawn_only(*n).expect("it starts");
        }
        for n in &killed {
            fire.cluster.members[*n].wait_ready().expect("it serves again");
        }
    }
    fire.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_leader() {
    kill("kill -9 of the leader", async |fire: &mut Fire| vec![fire.leader().await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_a_follower() {
    kill("kill -9 of a follower", async |fire: &mut Fire| vec![fire.follower().await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_all() {
    kill("kill -9 of all", async |_: &mut Fire| (0..MEMBERS).collect()).await;
}
