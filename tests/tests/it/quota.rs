//! The quota on live bytes: growth is refused when it is used up, what frees room never is.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::{Client, revision};
use mechi_tests::process::{Kind, Server, http_get};
use mechi_tests::wire::{metric, put_op};
use pb::alarm_request::AlarmAction;
use pb::request_op::Request as Op;
use tonic::{Code, Status};

const QUOTA: u64 = 2 << 20;
const VALUE: &[u8] = &[b'v'; 20_000];

fn assert_full<T: std::fmt::Debug>(refused: Result<T, Status>) {
    let refused = refused.expect_err("growth is refused");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
    );
}

async fn alarms(client: &mut Client) -> Vec<pb::AlarmMember> {
    client.maintenance.alarm(pb::AlarmRequest::default()).await.expect("lists").into_inner().alarms
}

#[tokio::test(flavor = "multi_thread")]
async fn growth_stops_at_the_quota_and_goes_on_as_soon_as_there_is_room() {
    let server = Server::start(Kind::Mechi, &[&format!("--quota-backend-bytes={QUOTA}")]).expect("mechi starts");
    let endpoint = server.endpoint();
    let mut client = Client::connect(&endpoint).await.expect("answers");
    assert_eq!(metric(&endpoint, "etcd_server_quota_backend_bytes"), Some(QUOTA as f64));
    client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 1_000, id: 7 }).await.expect("grants");
    client.kv.put(pb::PutRequest { key: "leased".into(), lease: 7, ..Default::default() }).await.expect("puts");
    // The same key again and again: live bytes are all revisions that are not compacted.
    let (mut puts, mut warned) = (0, false);
    let refused = loop {
        match client.put("grow", VALUE).await {
            Ok(_) => puts += 1,
            Err(refused) => break refused,
        }
        let used = metric(&endpoint, "mechi_quota_used_ratio").expect("a number");
        assert!(used <= 1.05, "{used} of the quota is used");
        warned |= (0.8..1.0).contains(&used);
    };
    assert!(warned && puts > 90, "{puts} puts");
    assert_full::<()>(Err(refused));
    let raised = alarms(&mut client).await;
    assert_eq!(raised.len(), 1);
    assert_eq!(raised[0].alarm(), pb::AlarmType::Nospace);
    assert_eq!(
        http_get(&endpoint, "/health").expect("answers"),
        (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n".into())
    );
    assert_eq!(http_get(&endpoint, "/health?exclude=NOSPACE").expect("answers").0, 200);
    assert_eq!(http_get(&endpoint, "/readyz").expect("answers").0, 200, "NOSPACE is no reason not to be ready");
    let member = format!("{:x}", raised[0].member_id);
    let alarm = format!("etcd_debugging_server_alarms{{alarm_type=\"NOSPACE\",server_id=\"{member}\"}}");
    assert_eq!(metric(&endpoint, &alarm), Some(1.0));
    let status = client.maintenance.status(pb::StatusRequest {}).await.expect("answers").into_inner();
    assert_eq!(status.errors, [format!("memberID:{} alarm:NOSPACE", raised[0].member_id)]);
    assert_eq!(status.db_size_quota as u64, QUOTA);

    // Growth is refused in every shape.
    assert_full(client.put("other", VALUE).await);
    let txn = |op| pb::TxnRequest { success: vec![op], ..Default::default() };
    assert_full(client.kv.txn(txn(put_op("t", VALUE))).await);
    let nested = pb::RequestOp { request: Some(Op::RequestTxn(txn(put_op("t", VALUE)))) };
    assert_full(client.kv.txn(txn(nested)).await);

    // Reading and freeing is not.
    assert_eq!(client.get("grow").await.expect("reads").count, 1);
    client.lease.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await.expect("revokes");
    let delete = pb::DeleteRangeRequest { key: "nothing".into(), ..Default::default() };
    let delete_op = pb::RequestOp { request: Some(Op::RequestDeleteRange(delete)) };
    client.kv.txn(txn(delete_op)).await.expect("a txn that only deletes passes");
    let gone = pb::DeleteRangeRequest { key: "grow".into(), ..Default::default() };
    let now = revision(client.kv.delete_range(gone).await.expect("deletes").into_inner().header);
    client.kv.compact(pb::CompactionRequest { revision: now, physical: true }).await.expect("compacts");

    // There is room: growth goes on, while the alarm stays until somebody disarms it.
    client.put("grow", VALUE).await.expect("puts");
    client.kv.txn(txn(put_op("t", VALUE))).await.expect("puts");
    client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 1_000, id: 8 }).await.expect("grants");
    assert_eq!(alarms(&mut client).await, raised);
    assert_eq!(http_get(&endpoint, "/health").expect("answers").0, 503);
    let disarm = pb::AlarmRequest {
        action: AlarmAction::Deactivate as i32,
        member_id: raised[0].member_id,
        alarm: pb::AlarmType::Nospace as i32,
    };
    assert_eq!(client.maintenance.alarm(disarm).await.expect("disarms").into_inner().alarms, raised);
    assert_eq!(alarms(&mut client).await, []);
    assert_eq!(http_get(&endpoint, "/health").expect("answers"), (200, "{\"health\":\"true\",\"reason\":\"\"}".into()));
    assert_eq!(metric(&endpoint, &alarm), None);

    // It is raised again when room runs out again, also by who asks for a lease.
    while client.put("grow", VALUE).await.is_ok() {}
    while client.put("grow", Bytes::new()).await.is_ok() {}
    assert_eq!(alarms(&mut client).await, raised);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_growth_too() {
    let mut server = Server::start(Kind::Mechi, &["--quota-backend-bytes=100000"]).expect("mechi starts");
    let mut client = Client::connect(&server.endpoint()).await.expect("answers");
    client.put("k", vec![b'v'; 2_000]).await.expect("puts");
    server.stop().expect("stops");
    server.flags.push("--quota-backend-bytes=1000".into());
    server.spawn().expect("starts again");
    let mut client = Client::connect(&server.endpoint()).await.expect("answers");
    assert_full(client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 1_000, id: 7 }).await);
    assert_eq!(alarms(&mut client).await.len(), 1);
    let negative = Server::start(Kind::Mechi, &["--quota-backend-bytes=-1"]).expect("mechi starts");
    let mut client = Client::connect(&negative.endpoint()).await.expect("answers");
    client.put("k", "v").await.expect("no quota");
    assert_eq!(metric(&negative.endpoint(), "mechi_quota_used_ratio"), Some(0.0));
}
