//! The client library while members die, freeze and lose their leader: reads go on elsewhere, and no write is done twice.

use mechi_client::{Client, Error, Get, Outcome};
use mechi_tests::cluster::Cluster;
use mechi_tests::grounds::{CALL_MAX, COMES_MAX, client_of, config};
use mechi_tests::on_both;
use mechi_tests::port::Port;
use mechi_tests::process::Kind;
use std::time::Duration;

on_both!(
    calls_go_on_when_the_used_member_is_killed,
    a_write_under_way_to_a_killed_member_is_unknown_and_never_sent_again,
    writes_under_fire_are_done_at_most_once,
    a_member_without_a_leader_is_left,
    a_frozen_member_is_left,
);

async fn three(kind: Kind) -> Cluster {
    let cluster = Cluster::start(kind, 3, &[]).expect("starts");
    cluster.leader().await.expect("a leader");
    cluster
}

/// How often the key was written; 0 for never.
async fn version(client: &Client, key: &str) -> i64 {
    client.get(key.to_owned()).await.expect("reads").map_or(0, |found| found.version)
}

async fn calls_go_on_when_the_used_member_is_killed(kind: Kind) {
    let mut cluster = three(kind).await;
    let client = client_of(&cluster, &[0, 1, 2]).await;
    client.put("k", "1").await.expect("writes");
    // A read is sent again until it is answered, whatever happens to the member below it.
    let reader = tokio::spawn({
        let client = client.clone();
        async move {
            for _ in 0..200 {
                client.get_with(Get::key("k")).await.expect("is read elsewhere");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.kill(0).expect("kills");
    reader.await.expect("no read failed");
    // Nothing is under way, and the connection is known to be broken: the write goes to another member at once. While
    // the others elect, a server may still time out; that one is not repeated.
    let mut tries = 0;
    while let Err(error) = client.put("k", "2").await {
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
        tries += 1;
        assert!(tries < 10, "{error:?}");
    }
    // An endpoint that nobody listens at, before one that lives: the write was not sent to the first.
    let nobody = Port::keep();
    let endpoints = [format!("127.0.0.1:{nobody}"), cluster.members[0].endpoint(), cluster.members[1].endpoint()];
    let late = Client::lazy(config(endpoints)).expect("are endpoints");
    late.put("late", "1").await.expect("finds the member that lives");
    assert_eq!(version(&client, "late").await, 1);
}

async fn a_write_under_way_to_a_killed_member_is_unknown_and_never_sent_again(kind: Kind) {
    let mut cluster = three(kind).await;
    let client = client_of(&cluster, &[0, 1, 2]).await;
    client.put("warm", "1").await.expect("writes");
    // Frozen, the member takes the request into its socket and never looks at it; the kill breaks the connection.
    cluster.freeze(0).expect("freezes");
    let write = tokio::spawn({
        let client = client.clone();
        async move { client.put("k", "1").await }
    });
    let lease = tokio::spawn({
        let client = client.clone();
        async move { client.lease_grant(600, 4711).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!write.is_finished(), "nobody can have answered");
    cluster.kill(0).expect("kills");
    let error = write.await.expect("no panic").expect_err("no answer can come");
    let Error::OutcomeUnknown { cause } = &error else { panic!("{error:?}") };
    assert!(
        matches!(&**cause, Error::Broken { endpoint, .. } if *endpoint == cluster.members[0].endpoint()),
        "{cause:?}"
    );
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert!(matches!(lease.await.expect("no panic"), Err(Error::OutcomeUnknown { .. })));
    // It did not reach the log, and this side did not send it to anybody else.
    assert_eq!(version(&client, "k").await, 0);
    assert!(client.leases().await.expect("lists").leases.is_empty());
    // The caller, who knows that, may.
    while client.put("k", "1").await.is_err() {}
    assert!(version(&client, "k").await >= 1);
}

async fn writes_under_fire_are_done_at_most_once(kind: Kind) {
    let mut cluster = three(kind).await;
    let client = client_of(&cluster, &[0, 1, 2]).await;
    let mut writers = Vec::new();
    for writer in 0..8 {
        let client = client.clone();
        writers.push(tokio::spawn(async move {
            let mut told = Vec::new();
            for n in 0..300 {
                let key = format!("w/{writer}/{n}");
                let outcome = match client.put(key.clone(), "v").await {
                    Ok(_) => None,
                    Err(error) => Some(error.outcome()),
                };
                told.push((key, outcome));
            }
            told
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.kill(0).expect("kills");
    let (mut done, mut unknown, mut refused) = (0, 0, 0);
    for writer in writers {
        for (key, outcome) in writer.await.expect("no panic") {
            let version = version(&client, &key).await;
            match outcome {
                None => (done, ()) = (done + 1, assert_eq!(version, 1, "{key} was acknowledged")),
                Some(Outcome::Unknown) => (unknown, ()) = (unknown + 1, assert!(version <= 1, "{key}: {version}")),
                Some(Outcome::NotApplied) => (refused, ()) = (refused + 1, assert_eq!(version, 0, "{key} was refused")),
            }
        }
    }
    println!("{kind:?}: {done} done, {unknown} unknown, {refused} refused");
    assert!(done > 1000, "most were after or before the kill");
}

async fn a_member_without_a_leader_is_left(kind: Kind) {
    let cluster = three(kind).await;
    let endpoints = (0..3).map(|n| cluster.members[n].endpoint());
    let client = Client::connect(config(endpoints).require_leader()).await.expect("connects");
    client.put("k", "1").await.expect("writes");
    cluster.isolate(0);
    // It may answer until it has noticed; then it says `no leader`, and a read goes on elsewhere.
    cluster.wait_for_leader(&[1, 2]).await.expect("a leader");
    let lone = client.at(&cluster.members[0].endpoint()).expect("is an endpoint");
    let alone = async { while lone.status().await.is_ok_and(|status| status.leader != 0) {} };
    tokio::time::timeout(COMES_MAX, alone).await.expect("it notices");
    client.get("k").await.expect("reads elsewhere").expect("is there");
    client.put("k", "2").await.expect("stays there");
    cluster.heal();
}

async fn a_frozen_member_is_left(kind: Kind) {
    let cluster = three(kind).await;
    let client = client_of(&cluster, &[0, 1, 2]).await;
    client.put("k", "1").await.expect("writes");
    cluster.freeze(0).expect("freezes");
    let hasty = client.with_timeout(Duration::from_secs(4));
    let error = hasty.put("k", "2").await.expect_err("nobody answers");
    assert!(
        matches!(&error, Error::OutcomeUnknown { cause } if matches!(**cause, Error::Deadline { .. })),
        "{error:?}"
    );
    // That was a sign: the next call goes elsewhere, though the connection is not broken.
    client.with_timeout(CALL_MAX).get("k").await.expect("reads elsewhere").expect("is there");
    cluster.thaw(0).expect("thaws");
}
