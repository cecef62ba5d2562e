//! The client library's lease keepers, on Mechi and on etcd.

use mechi_client::{Error, LeaseEnd, Put};
use mechi_tests::cluster::Cluster;
use mechi_tests::grounds::{COMES_MAX, client, client_of};
use mechi_tests::on_both;
use mechi_tests::process::{Kind, Server};
use mechi_tests::wire::until;
use std::time::Duration;

on_both!(
    a_kept_lease_outlives_its_time_and_a_killed_member,
    a_lost_lease_is_told,
    without_servers_a_lease_is_unconfirmed
);

async fn a_kept_lease_outlives_its_time_and_a_killed_member(kind: Kind) {
    let mut cluster = Cluster::start(kind, 3, &[]).expect("starts");
    cluster.leader().await.expect("a leader");
    let client = client_of(&cluster, &[0, 1, 2]).await;
    // Longer than a few elections of etcd's on a busy machine, shorter than the test.
    let lease = client.lease_grant(12, 0).await.expect("grants");
    client.put_with(Put::new("mine", "1").lease(lease.id)).await.expect("writes");
    let mut kept = client.lease_keep_alive(lease.id).await.expect("is kept");
    assert_eq!((kept.id(), kept.latest().expect("is kept").ttl), (lease.id, 12));
    kept.next().await.expect("is kept again");
    cluster.kill(0).expect("kills");
    for _ in 0..4 {
        let answer = tokio::time::timeout(COMES_MAX, kept.next()).await.expect("comes").expect("is kept");
        assert_eq!(answer.ttl, 12);
    }
    client.get("mine").await.expect("reads").expect("is there: more than its time has passed");
    // Kept no more, it ends.
    drop(kept);
    until("the lease ends", async || client.get("mine").await.expect("reads").is_none().then_some(())).await;
}

async fn a_lost_lease_is_told(kind: Kind) {
    let server = Server::start(kind, &[]).expect("starts");
    let client = client(&server).await;
    let none = client.lease_keep_alive(4711).await.expect_err("nobody knows it");
    assert!(matches!(none, Error::LeaseLost(LeaseEnd::Gone { id: 4711 })), "{none:?}");
    assert_eq!(client.lease_keep_alive_once(4711).await.expect("an answer").ttl, 0);
    assert_eq!(client.lease_time_to_live(4711, true).await.expect("an answer").ttl, -1);

    let lease = client.lease_grant(15, 0).await.expect("grants");
    let mut kept = client.lease_keep_alive(lease.id).await.expect("is kept");
    client.lease_revoke(lease.id).await.expect("ends it");
    let end = tokio::time::timeout(COMES_MAX, kept.lost()).await.expect("is told");
    assert_eq!(end, LeaseEnd::Gone { id: lease.id });
    assert_eq!(kept.latest().expect_err("stays lost"), end);
    assert_eq!(kept.next().await.expect_err("stays lost"), end);
}

async fn without_servers_a_lease_is_unconfirmed(kind: Kind) {
    let mut server = Server::start(kind, &[]).expect("starts");
    let client = client(&server).await;
    let lease = client.lease_grant(6, 0).await.expect("grants");
    let mut kept = client.lease_keep_alive(lease.id).await.expect("is kept");
    let lives = tokio::time::timeout(Duration::from_secs(10), kept.lost()).await;
    assert!(lives.is_err(), "it is kept beyond its time: {lives:?}");
    server.kill().expect("kills");
    let end = tokio::time::timeout(COMES_MAX, kept.lost()).await.expect("is told");
    assert_eq!(end, LeaseEnd::Unconfirmed { id: lease.id });
}
