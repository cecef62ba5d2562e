//! Leases of a real process: they end through the log, together with their keys, and not before they must.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::event::EventType;
use mechi_tests::client::{Client, revision};
use mechi_tests::process::{Kind, Server};
use mechi_tests::wire::{SOON, Watching, counts, metric, prefix, span, until};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tonic::Streaming;

async fn connect(server: &Server) -> Client {
    Client::connect(&server.endpoint()).await.expect("answers")
}

async fn grant(client: &mut Client, id: i64, ttl: i64) {
    let granted = client.lease.lease_grant(pb::LeaseGrantRequest { ttl, id }).await.expect("grants").into_inner();
    assert_eq!((granted.id, granted.ttl), (id, ttl));
}

async fn put(client: &mut Client, key: String, lease: i64) {
    let request = pb::PutRequest { key: key.into(), value: "v".into(), lease, ..Default::default() };
    client.kv.put(request).await.expect("puts");
}

fn put_op(key: String, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest { key: key.into(), value: "v".into(), lease, ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
}

async fn time_to_live(client: &mut Client, id: i64) -> pb::LeaseTimeToLiveResponse {
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    client.lease.lease_time_to_live(request).await.expect("answers").into_inner()
}

async fn leases(client: &mut Client) -> Vec<i64> {
    let leases = client.lease.lease_leases(pb::LeaseLeasesRequest {}).await.expect("lists").into_inner().leases;
    leases.into_iter().map(|lease| lease.id).collect()
}

/// A keep-alive stream.
struct Keeping {
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl Keeping {
    /// Opens the stream with a first renewal, which must succeed.
    async fn open(client: &mut Client, id: i64) -> Self {
        let (requests, stream) = mpsc::channel(100);
        requests.send(pb::LeaseKeepAliveRequest { id }).await.expect("open");
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        let answers = client.lease.lease_keep_alive(stream).await.expect("opens").into_inner();
        let mut keeping = Self { requests, answers };
        assert!(keeping.answer().await.ttl > 0);
        keeping
    }

    async fn ask(&self, id: i64) {
        self.requests.send(pb::LeaseKeepAliveRequest { id }).await.expect("open");
    }

    async fn answer(&mut self) -> pb::LeaseKeepAliveResponse {
        let answer = tokio::time::timeout(SOON, self.answers.message()).await.expect("soon");
        answer.expect("the stream is well").expect("the stream goes on")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_with_all_its_keys_in_one_revision() {
    const KEYS: usize = 300;
    // Longer than what is done under these leases, on a machine that stops for a moment.
    const TTL: i64 = 8;
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    grant(&mut client, 5, TTL).await;
    grant(&mut client, 6, TTL).await;
    grant(&mut client, 7, 1_000).await;
    // A few txns: on a slow disk as many puts as keys would outlast the lease.
    let keys: Vec<usize> = (0..KEYS).collect();
    for keys in keys.chunks(100) {
        let success = keys.iter().map(|n| put_op(format!("l/{n:03}"), 5)).collect();
        client.kv.txn(pb::TxnRequest { success, ..Default::default() }).await.expect("puts");
    }
    put(&mut client, "l/000".into(), 7).await;
    put(&mut client, "l/001".into(), 0).await;
    put(&mut client, "kept".into(), 6).await;
    let mut other = connect(&server).await;
    let mut keeping = Keeping::open(&mut other, 6).await;
    let watched = pb::WatchCreateRequest { prev_kv: true, ..prefix("l/") };
    let mut watching = Watching::on(&mut client, watched).await;
    let renewed = Instant::now();
    let mut owner = connect(&server).await;
    drop(Keeping::open(&mut owner, 5).await);
    let ended = loop {
        let next = tokio::time::timeout(Duration::from_millis(500), watching.next()).await;
        keeping.ask(6).await;
        assert_eq!(keeping.answer().await.ttl, TTL, "a lease that is kept alive lives");
        if let Ok(response) = next {
            break response;
        }
        assert!(renewed.elapsed() < SOON, "the lease does not end");
    };
    let after = renewed.elapsed();
    assert!(after >= Duration::from_secs(TTL.unsigned_abs()), "it ended {after:?} after its renewal");
    println!("lease: TTL {TTL} s ended {after:?} after its renewal");
    assert_eq!(ended.events.len(), KEYS - 2, "those that were put anew without it stay");
    let revisions: Vec<i64> = ended.events.iter().map(|event| event.kv.as_ref().expect("a kv").mod_revision).collect();
    assert!(revisions.iter().all(|at| *at == revision(ended.header)), "{revisions:?}");
    assert!(ended.events.iter().all(|event| event.r#type() == EventType::Delete && event.prev_kv.is_some()));
    assert_eq!(leases(&mut client).await, [6, 7], "soonest to end first");
    let gone = time_to_live(&mut client, 5).await;
    assert_eq!((gone.ttl, gone.granted_ttl, gone.keys.len()), (-1, 0, 0));
    assert_eq!(time_to_live(&mut client, 7).await.keys, [Bytes::from("l/000")]);
    keeping.ask(5).await;
    assert_eq!(keeping.answer().await.ttl, 0, "an ended lease is answered, not refused");
    let endpoint = server.endpoint();
    counts(&endpoint, "etcd_debugging_server_lease_expired_total", 1.0).await;
    counts(&endpoint, "etcd_debugging_lease_granted_total", 3.0).await;
    counts(&endpoint, "etcd_debugging_lease_revoked_total", 1.0).await;
    assert!(metric(&endpoint, "etcd_debugging_lease_renewed_total") >= Some(3.0));
}

/// A crowd of leases with the same deadline ends without delay, and those that are renewed meanwhile do not.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_leases_end_together() {
    const LEASES: i64 = 3_000;
    // The one that is kept must outlast the granting of all others, on a busy machine too.
    const KEPT_TTL: i64 = 600;
    // Those that are not kept must outlast the time between their grant and their put.
    const LEFT_TTL: i64 = 8;
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    let mut granting = tokio::task::JoinSet::new();
    for part in 0..50 {
        let mut client = client.clone();
        granting.spawn(async move {
            for id in (1..=LEASES).filter(|id| id % 50 == part) {
                grant(&mut client, id, if id == 1 { KEPT_TTL } else { LEFT_TTL }).await;
                put(&mut client, format!("many/{id}"), id).await;
            }
        });
    }
    granting.join_all().await;
    let mut keeping = Keeping::open(&mut client, 1).await;
    let mut other = connect(&server).await;
    let kept = until("all but one have ended", async || {
        keeping.ask(1).await;
        assert_eq!(keeping.answer().await.ttl, KEPT_TTL);
        let left = leases(&mut other).await;
        (left.len() <= 1).then_some(left)
    })
    .await;
    assert_eq!(kept, [1]);
    let left = client.all().await.expect("reads");
    assert_eq!((left.count, &left.kvs[0].key[..]), (1, &b"many/1"[..]));
    counts(&server.endpoint(), "etcd_debugging_server_lease_expired_total", (LEASES - 1) as f64).await;
}

/// Keep-alives that waited in the connection while the process was stopped are heard before any lease is ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_hears_its_clients_before_it_ends_leases() {
    const TTL: i64 = 3;
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    grant(&mut client, 1, TTL).await;
    grant(&mut client, 2, TTL).await;
    put(&mut client, "kept".into(), 1).await;
    put(&mut client, "lost".into(), 2).await;
    let mut keeping = Keeping::open(&mut client, 1).await;
    server.freeze().expect("stops");
    keeping.ask(1).await;
    // Longer than the TTL, and shorter than a request may take (7 s): after a longer pause the answer may be a timeout.
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.signal(18).expect("goes on");
    assert_eq!(keeping.answer().await.ttl, TTL, "its renewal was on its way when the deadline passed");
    let mut other = connect(&server).await;
    until("the lease that nobody renewed ends", async || {
        keeping.ask(1).await;
        assert_eq!(keeping.answer().await.ttl, TTL);
        let (key, range_end) = span("lost");
        let request = pb::RangeRequest { key, range_end, ..Default::default() };
        (other.kv.range(request).await.expect("reads").into_inner().count == 0).then_some(())
    })
    .await;
    assert_eq!(client.get("kept").await.expect("reads").count, 1);
}

/// Leases, their keys and what they have left survive kill -9; a renewal makes the note of what was left void.
#[tokio::test(flavor = "multi_thread")]
async fn leases_survive_kill_9_with_the_time_they_had_left() {
    let mut server = Server::start(Kind::Mechi, &["--lease-checkpoint-interval=100ms"]).expect("mechi starts");
    let mut client = connect(&server).await;
    grant(&mut client, 1, 1_000).await;
    grant(&mut client, 2, 1_000).await;
    put(&mut client, "a".into(), 1).await;
    put(&mut client, "b".into(), 1).await;
    until("some of their time has passed", async || (time_to_live(&mut client, 1).await.ttl <= 995).then_some(()))
        .await;
    let mut keeping = Keeping::open(&mut client, 2).await;
    keeping.ask(2).await;
    assert_eq!(keeping.answer().await.ttl, 1_000);
    // Its next note cannot be far, and a kill before it changes nothing that is asserted.
    server.kill().expect("kills");
    server.spawn().expect("starts again");
    let mut client = connect(&server).await;
    assert_eq!(leases(&mut client).await, [1, 2]);
    // Asked first: the longer the test takes, the less the other has left.
    let renewed = time_to_live(&mut client, 2).await;
    let noted = time_to_live(&mut client, 1).await;
    // A new leader gives every lease an election timeout more.
    assert!(noted.ttl <= 997, "{} seconds left: the note was lost", noted.ttl);
    assert_eq!((noted.granted_ttl, &noted.keys[..]), (1_000, &[Bytes::from("a"), Bytes::from("b")][..]));
    assert!(renewed.ttl > noted.ttl, "{} seconds left: an old note outlived the renewal", renewed.ttl);
    let before = client.all().await.expect("reads");
    let revoked = client.lease.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.expect("revokes").into_inner();
    assert_eq!(revision(revoked.header), revision(before.header) + 1, "one revision for both keys");
    assert_eq!(client.all().await.expect("reads").count, 0);
    server.kill().expect("kills");
    server.spawn().expect("starts again");
    let mut client = connect(&server).await;
    assert_eq!(leases(&mut client).await, [2]);
}

/// Grants, lists and refusals as etcd has them.
#[tokio::test(flavor = "multi_thread")]
async fn lease_requests_are_answered_as_etcd_does() {
    let mut said = Vec::new();
    for kind in [Kind::Mechi, Kind::Etcd] {
        let server = Server::start(kind, &[]).expect("starts");
        let mut client = connect(&server).await;
        let mut lines = Vec::new();
        for (ttl, id) in [(0, 1), (-5, 2), (1, 3), (50, 4), (50, 4), (9_000_000_000, 5), (9_000_000_001, 6), (20, -7)] {
            let granted = client.lease.lease_grant(pb::LeaseGrantRequest { ttl, id }).await;
            lines.push(match granted.map(tonic::Response::into_inner) {
                Ok(granted) => format!("{} {} {}", granted.id, granted.ttl, revision(granted.header)),
                Err(refused) => format!("{:?} {}", refused.code(), refused.message()),
            });
        }
        let random = client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 9, id: 0 }).await.expect("grants");
        assert!(random.into_inner().id > 0);
        put(&mut client, "x".into(), 4).await;
        for id in [4, 99] {
            let mut told = time_to_live(&mut client, id).await;
            told.header = None;
            // Seconds go on between the two servers.
            told.ttl = told.ttl.signum();
            lines.push(format!("{told:?}"));
        }
        for id in [4, 4, 99, 0] {
            let revoked = client.lease.lease_revoke(pb::LeaseRevokeRequest { id }).await;
            lines.push(match revoked.map(tonic::Response::into_inner) {
                Ok(revoked) => format!("{}", revision(revoked.header)),
                Err(refused) => format!("{:?} {}", refused.code(), refused.message()),
            });
        }
        said.push(lines);
    }
    assert_eq!(said[0], said[1]);
}
