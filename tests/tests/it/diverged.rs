//! A running member whose state is not what its log says: found by the sums, kept as evidence, rebuilt, stopped the
//! second time; and what happens when nobody can say who is wrong.

use mechi_proto::etcdserverpb as pb;
use mechi_replica::limits::DIGEST_EVERY;
use mechi_tests::client::Client;
use mechi_tests::cluster::Cluster;
use mechi_tests::process::Kind;
use mechi_tests::tamper;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long anything may take that must happen, on a busy machine.
const SOON: Duration = Duration::from_secs(90);

/// The key whose value one member has wrong.
const KEY: &str = "config/limit";

/// Writers at once; each write is an entry of its own, or nearly.
const WRITERS: u64 = 8;

fn evidence(cluster: &Cluster, n: usize) -> Vec<PathBuf> {
    let found = std::fs::read_dir(cluster.members[n].data_dir().join("member")).expect("readable").flatten();
    let found = found.map(|entry| entry.path());
    found.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("evidence-"))).collect()
}

async fn value(cluster: &Cluster, n: usize) -> bytes::Bytes {
    let mut client = Client::connect(&cluster.members[n].endpoint()).await.expect("answers");
    let request = pb::RangeRequest { key: KEY.into(), serializable: true, ..Default::default() };
    client.kv.range(request).await.expect("reads").into_inner().kvs[0].value.clone()
}

/// Gives member `n` a wrong value while it is stopped, and starts it again.
async fn tamper(cluster: &mut Cluster, n: usize) {
    assert!(cluster.stop(n).expect("it ends").success());
    tamper::change_value(&cluster.members[n].data_dir(), KEY.as_bytes(), b"wrong").expect("tampers");
    cluster.spawn(n).expect("it serves: nothing at its open can notice");
    assert!(!cluster.members[n].log().contains("rebuilt"), "the tampered store is used: {}", cluster.members[n].log());
    assert_eq!(value(cluster, n).await, "wrong");
}

/// Writes through the members `through` until `seen`, far beyond the next index at which sums are compared at most.
async fn write_until(cluster: &mut Cluster, through: &[usize], what: &str, mut seen: impl FnMut(&mut Cluster) -> bool) {
    let deadline = Instant::now() + SOON;
    let mut round = 0;
    while !seen(cluster) {
        round += 1;
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}\n{}", cluster.logs());
        let writers = (0..WRITERS).map(|writer| {
            let endpoint = cluster.members[through[writer as usize % through.len()]].endpoint();
            tokio::spawn(async move {
                let Ok(mut client) = Client::connect(&endpoint).await else { return };
                for n in 0..DIGEST_EVERY / 16 {
                    // A member that hands over or opens again may refuse; others go on.
                    let _ = client.put(format!("w/{writer}/{n}"), format!("{round}")).await;
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("no writer panics");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_from_a_majority_is_rebuilt_and_the_second_time_it_stops() {
    let mut cluster = Cluster::start(Kind::Mechi, 3, &["--store-flush-interval=1m"]).expect("the members start");
    let leader = cluster.leader().await.expect("a leader");
    let mut client = Client::connect(&cluster.members[leader].endpoint()).await.expect("answers");
    client.put(KEY, "right").await.expect("puts");
    let wrong = (leader + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|n| *n != wrong).collect();

    tamper(&mut cluster, wrong).await;
    // Its sum differs from its first entry on; it leads when that is found.
    let target_id = cluster.status(wrong).await.expect("answers").header.expect("always there").member_id;
    let deadline = Instant::now() + SOON;
    loop {
        let leader = cluster.leader().await.expect("a leader");
        if leader == wrong {
            break;
        }
        assert!(Instant::now() < deadline, "member {wrong} does not come to lead:\n{}", cluster.logs());
        let mut client = Client::connect(&cluster.members[leader].endpoint()).await.expect("answers");
        // One that has just started may not catch up in time, and the leader may be another by now: it is asked again.
        let _ = client.maintenance.move_leader(pb::MoveLeaderRequest { target_id }).await;
    }
    write_until(&mut cluster, &others, "the member is rebuilt", |cluster| {
        !evidence(cluster, wrong).is_empty() && cluster.members[wrong].log().contains("rebuilt")
    })
    .await;
    let log = cluster.members[wrong].log();
    assert!(log.contains("this member's state differs from the majority's; it is rebuilt"), "{log}");
    cluster.wait_until_equal().await.expect("all hold the same");
    for n in 0..3 {
        assert_eq!(value(&cluster, n).await, "right", "member {n}");
    }
    assert_eq!(others.iter().map(|n| evidence(&cluster, *n).len()).sum::<usize>(), 0, "the others were right");
    for n in 0..3 {
        let mut client = Client::connect(&cluster.members[n].endpoint()).await.expect("answers");
        let alarms = client.maintenance.alarm(pb::AlarmRequest::default()).await.expect("answers").into_inner().alarms;
        assert!(alarms.is_empty(), "no alarm: the majority was right: {alarms:?}");
    }

    tamper(&mut cluster, wrong).await;
    write_until(&mut cluster, &others, "the member stops", |cluster| cluster.ended(wrong)).await;
    let log = cluster.members[wrong].log();
    assert!(log.contains("differs from the majority's again"), "{log}");
    assert_eq!(evidence(&cluster, wrong).len(), 1, "the first evidence is kept, nothing is changed");
    let leader = cluster.wait_for_leader(&others).await.expect("the others go on");
    let mut client = Client::connect(&cluster.members[leader].endpoint()).await.expect("answers");
    client.put("goes", "on").await.expect("the others serve without it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_differ_raise_corrupt_and_neither_is_touched() {
    let mut cluster = Cluster::start(Kind::Mechi, 2, &["--store-flush-interval=1m"]).expect("the members start");
    let leader = cluster.leader().await.expect("a leader");
    let mut client = Client::connect(&cluster.members[leader].endpoint()).await.expect("answers");
    client.put(KEY, "right").await.expect("puts");
    let wrong = 1 - leader;
    tamper(&mut cluster, wrong).await;
    cluster.leader().await.expect("a leader");

    let (asked, mut told) = tokio::sync::watch::channel(false);
    let endpoint = cluster.members[leader].endpoint();
    let asking = tokio::spawn(async move {
        loop {
            if let Ok(mut client) = Client::connect(&endpoint).await
                && let Ok(answer) = client.maintenance.alarm(pb::AlarmRequest::default()).await
                && answer.get_ref().alarms.iter().any(|alarm| alarm.alarm == pb::AlarmType::Corrupt as i32)
            {
                let _ = asked.send(true);
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    write_until(&mut cluster, &[leader], "CORRUPT is raised", |_| *told.borrow_and_update()).await;
    asking.await.expect("it was told");
    for n in 0..2 {
        assert!(evidence(&cluster, n).is_empty() && !cluster.ended(n), "nobody can say who is wrong");
        let mut client = Client::connect(&cluster.members[n].endpoint()).await.expect("answers");
        let refused = client.put("more", "harm").await.expect_err("writes are refused");
        assert_eq!((refused.code(), refused.message()), (tonic::Code::DataLoss, "etcdserver: corrupt cluster"));
    }
}
