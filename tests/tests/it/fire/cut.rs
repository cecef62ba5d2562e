//! Cut links: the leader alone, in both directions or in one, and a split of five with the leader in the minority.

use mechi_tests::fire::Fire;

async fn cut(name: &'static str, members: usize, sever: impl AsyncFn(&mut Fire, usize) -> Vec<usize>) {
    let mut fire = Fire::start(name, members, &[], 2, 600).await;
    while fire.goes_on().await {
        let old = fire.leader().await;
        let rest = sever(&mut fire, old).await;
        let next = fire.leader_among(&rest).await;
        assert_ne!(next, old);
        fire.progress(20).await;
        fire.effect("another leads");
        fire.cluster.heal();
    }
    fire.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off() {
    cut("leader cut off", 3, async |fire: &mut Fire, old| {
        fire.cluster.isolate(old);
        fire.others(&[old])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_not_heard() {
    cut("leader not heard", 3, async |fire: &mut Fire, old| {
        let others = fire.others(&[old]);
        others.iter().for_each(|other| fire.cluster.cut(old, *other));
        others
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody() {
    cut("leader hears nobody", 3, async |fire: &mut Fire, old| {
        let others = fire.others(&[old]);
        others.iter().for_each(|other| fire.cluster.cut(*other, old));
        others
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_with_the_leader_in_the_minority() {
    cut("five split, leader in the minority", 5, async |fire: &mut Fire, old| {
        let beside = *fire.rng.pick(&fire.others(&[old]));
        let majority = fire.others(&[old, beside]);
        for one in [old, beside] {
            for other in &majority {
                fire.cluster.cut(one, *other);
                fire.cluster.cut(*other, one);
            }
        }
        majority
    })
    .await;
}
