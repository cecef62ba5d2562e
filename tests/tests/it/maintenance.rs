//! What an operator asks of one member: status, alarms, hashes, and what is not served.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::{Client, revision};
use mechi_tests::process::{Kind, Server, http_get};
use mechi_tests::wire::put_op;
use pb::alarm_request::AlarmAction;
use pb::downgrade_request::DowngradeAction;
use tonic::{Code, Status};

async fn start(kind: Kind) -> (Server, Client) {
    let server = Server::start(kind, &[]).expect("starts");
    let client = Client::connect(&server.endpoint()).await.expect("answers");
    (server, client)
}

async fn alarm(client: &mut Client, action: AlarmAction, member_id: u64, alarm: pb::AlarmType) -> pb::AlarmResponse {
    let request = pb::AlarmRequest { action: action as i32, member_id, alarm: alarm as i32 };
    client.maintenance.alarm(request).await.expect("answers").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_what_tools_read() {
    let (_server, mut client) = start(Kind::Mechi).await;
    let empty = client.maintenance.status(pb::StatusRequest {}).await.expect("answers").into_inner();
    assert!(empty.db_size > 0 && empty.db_size < 53_248, "an empty store of {} bytes", empty.db_size);
    for n in 0..100 {
        client.put(format!("k{n}"), vec![b'v'; 1_000]).await.expect("puts");
    }
    let status = client.maintenance.status(pb::StatusRequest {}).await.expect("answers").into_inner();
    let header = status.header.expect("a header");
    assert_eq!((status.version.as_str(), status.storage_version.as_str()), ("3.7.1", "3.7.0"));
    assert_eq!(header.revision, 101);
    assert_eq!((status.leader, status.raft_term), (header.member_id, header.raft_term));
    assert!(header.cluster_id != 0 && status.raft_term > 0);
    assert!(status.raft_applied_index >= empty.raft_applied_index + 100);
    assert!(status.raft_index >= status.raft_applied_index);
    assert!(status.db_size >= empty.db_size + 100_000 && status.db_size_in_use <= status.db_size);
    assert!(status.db_size_quota > 0 && !status.is_learner && status.errors.is_empty());
    assert_eq!(status.downgrade_info, Some(pb::DowngradeInfo::default()));
}

/// What becomes of a call: the code and text of a refusal.
fn outcome<T>(answer: Result<T, Status>) -> String {
    match answer {
        Ok(_) => "passes".into(),
        Err(refused) => format!("{:?} {}", refused.code(), refused.message()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_cluster_refuses_what_etcd_refuses() {
    let mut said = Vec::new();
    for kind in [Kind::Mechi, Kind::Etcd] {
        let (server, mut client) = start(kind).await;
        client.put("a", "1").await.expect("puts");
        let member = client.all().await.expect("reads").header.expect("a header").member_id;
        client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 100, id: 7 }).await.expect("grants");
        let mut lines = Vec::new();
        let none = alarm(&mut client, AlarmAction::Deactivate, member, pb::AlarmType::Corrupt).await;
        lines.push(format!("{} to disarm", none.alarms.len()));
        let raised = alarm(&mut client, AlarmAction::Activate, member, pb::AlarmType::Corrupt).await;
        lines.push(format!("{:?}", raised.alarms.iter().map(|alarm| alarm.alarm()).collect::<Vec<_>>()));
        let listed = alarm(&mut client, AlarmAction::Get, 0, pb::AlarmType::None).await;
        assert_eq!(listed.alarms, raised.alarms);
        lines.push(outcome(client.put("a", "2").await));
        lines.push(outcome(
            client.kv.delete_range(pb::DeleteRangeRequest { key: "a".into(), ..Default::default() }).await,
        ));
        let txn = pb::TxnRequest { success: vec![put_op("a", "2")], ..Default::default() };
        lines.push(outcome(client.kv.txn(txn).await));
        lines.push(outcome(client.kv.compact(pb::CompactionRequest { revision: 2, physical: false }).await));
        lines.push(outcome(client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 100, id: 8 }).await));
        lines.push(outcome(client.lease.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await));
        lines.push(outcome(client.get("a").await));
        lines.push(outcome(client.maintenance.status(pb::StatusRequest {}).await));
        lines.push(format!("{:?}", http_get(&server.endpoint(), "/health").expect("answers")));
        let disarmed = alarm(&mut client, AlarmAction::Deactivate, member, pb::AlarmType::Corrupt).await;
        assert_eq!(disarmed.alarms, raised.alarms);
        lines.push(outcome(client.put("a", "3").await));
        if kind == Kind::Mechi {
            assert_eq!(http_get(&server.endpoint(), "/readyz").expect("answers").0, 200);
        }
        said.push(lines);
    }
    assert_eq!(said[0], said[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_calls_of_an_operator() {
    let (_server, mut client) = start(Kind::Mechi).await;
    client.put("a", Bytes::from(vec![b'v'; 1_000])).await.expect("puts");
    let maintenance = &mut client.maintenance;
    let defragmented = maintenance.defragment(pb::DefragmentRequest {}).await.expect("passes").into_inner();
    assert_eq!(defragmented.header, None, "etcd gives none");
    let hash = maintenance.hash(pb::HashRequest {}).await.expect("answers").into_inner();
    let again = maintenance.hash(pb::HashRequest {}).await.expect("answers").into_inner();
    assert_eq!(hash, again);
    assert_eq!(revision(hash.header), 2);
    let kv = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.expect("answers").into_inner();
    assert_eq!((kv.compact_revision, kv.hash_revision), (-1, 2));
    let future = maintenance.hash_kv(pb::HashKvRequest { revision: 9 }).await.expect_err("refused");
    assert_eq!(future.message(), "etcdserver: mvcc: required revision is a future revision");
    let own = hash.header.expect("a header").member_id;
    let moved =
        maintenance.move_leader(pb::MoveLeaderRequest { target_id: own }).await.expect("to itself").into_inner();
    assert_eq!(moved.header, None);
    let nobody = maintenance.move_leader(pb::MoveLeaderRequest { target_id: 1 }).await.expect_err("no member");
    assert_eq!((nobody.code(), nobody.message()), (Code::FailedPrecondition, "etcdserver: bad leader transferee"));
    let request = pb::DowngradeRequest { action: DowngradeAction::Validate as i32, version: "3.6.0".into() };
    let downgrade = maintenance.downgrade(request).await.expect_err("not served");
    let snapshot = maintenance.snapshot(pb::SnapshotRequest {}).await.expect_err("not served");
    let added = client.cluster.member_add(pb::MemberAddRequest::default()).await.expect_err("not served");
    for refused in [downgrade, snapshot, added] {
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().starts_with("this server ") && refused.message().len() > 30, "{}", refused.message());
    }
    let members = client.cluster.member_list(pb::MemberListRequest { linearizable: true }).await.expect("lists");
    let members = members.into_inner();
    assert_eq!(revision(members.header), 0, "cluster answers carry no revision");
    assert_eq!((members.members.len(), members.members[0].id), (1, own));
}
