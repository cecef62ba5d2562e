//! The client port as load balancers, Prometheus and odd clients see it: health, metrics, sockets, limits.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::port::Port;
use mechi_tests::process::{Kind, Server, http, http_get};
use mechi_tests::wire::{self, Watching, metric, prefix, put_op};
use prost::Message;
use std::io::Write;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;

async fn connect(server: &Server) -> Client {
    Client::connect(&server.endpoint()).await.expect("answers")
}

fn get(endpoint: &str, path: &str) -> (u16, String) {
    http_get(endpoint, path).expect("answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_answer_as_kubernetes_expects() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let at = server.endpoint();
    let ok = |text: &str| (200, text.to_owned());
    let healthy = ok("{\"health\":\"true\",\"reason\":\"\"}");
    assert_eq!(get(&at, "/health"), healthy);
    assert_eq!(get(&at, "/health?serializable=true"), healthy);
    assert_eq!(get(&at, "/livez"), ok("ok\n"));
    assert_eq!(get(&at, "/livez?verbose"), ok("[+]serializable_read ok\nok\n"));
    assert_eq!(get(&at, "/livez/serializable_read"), ok("ok\n"));
    assert_eq!(get(&at, "/readyz"), ok("ok\n"));
    let (code, verbose) = get(&at, "/readyz?verbose");
    let mut lines: Vec<&str> = verbose.lines().collect();
    assert_eq!((code, lines.pop()), (200, Some("ok")));
    lines.sort_unstable();
    let checks = ["[+]data_corruption ok", "[+]linearizable_read ok", "[+]non_learner ok", "[+]serializable_read ok"];
    assert_eq!(lines, checks);
    assert_eq!(get(&at, "/readyz/linearizable_read?verbose").1, "[+]linearizable_read ok\nok\n");
    assert!(!get(&at, "/readyz?verbose&exclude=non_learner&exclude=unknown").1.contains("non_learner"));
    assert_eq!(get(&at, "/readyz/nothing").0, 404);
    assert_eq!(
        http(&at, &format!("POST /health HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")).expect("answers").0,
        405
    );
    let version = ok("{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.7.0\"}");
    assert_eq!(get(&at, "/version"), version);

    let mut client = connect(&server).await;
    let member = client.all().await.expect("reads").header.expect("a header").member_id;
    let corrupt = pb::AlarmRequest { action: 1, member_id: member, alarm: pb::AlarmType::Corrupt as i32 };
    client.maintenance.alarm(corrupt).await.expect("raises");
    assert_eq!(get(&at, "/health"), (503, "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}\n".into()));
    assert_eq!(get(&at, "/health?exclude=CORRUPT&exclude=NOSPACE").0, 200);
    assert_eq!(get(&at, "/livez").0, 200);
    let (code, text) = get(&at, "/readyz");
    assert!(code == 503 && text.contains("[-]data_corruption failed: alarm activated: CORRUPT\n"), "{code} {text}");
    assert!(text.contains("[+]linearizable_read ok\n"), "a failure lists every check: {text}");
    assert_eq!(get(&at, "/readyz?exclude=data_corruption"), ok("ok\n"));
    assert_eq!(get(&at, "/readyz/data_corruption").0, 503);
    assert!(metric(&at, "etcd_server_health_failures") >= Some(1.0));
    assert!(metric(&at, "etcd_server_health_success") >= Some(3.0));
    let failed = "etcd_server_healthchecks_total{name=\"data_corruption\",status=\"error\",type=\"readyz\"}";
    assert_eq!(metric(&at, failed), Some(2.0));
}

/// What both servers count for the same calls; names that the mixin's alerts and dashboards use among them.
const COUNTED: &[&str] = &[
    "etcd_mvcc_put_total",
    "etcd_mvcc_delete_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_debugging_mvcc_events_total",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_server_has_leader",
    "etcd_server_is_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_heartbeat_send_failures_total",
    "etcd_server_health_failures",
];

async fn exercise(server: &Server) -> Vec<String> {
    let mut client = connect(server).await;
    let mut watching = Watching::on(&mut client, prefix("k")).await;
    for n in 0..5 {
        client.put(format!("k{n}"), "v").await.expect("puts");
    }
    for key in ["k1", "k2", "none"] {
        client
            .kv
            .delete_range(pb::DeleteRangeRequest { key: key.into(), ..Default::default() })
            .await
            .expect("deletes");
    }
    let success = vec![put_op("k8", "v"), put_op("k9", "v")];
    client.kv.txn(pb::TxnRequest { success, ..Default::default() }).await.expect("puts");
    client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 100, id: 1 }).await.expect("grants");
    client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 100, id: 2 }).await.expect("grants");
    client.kv.put(pb::PutRequest { key: "k7".into(), lease: 2, ..Default::default() }).await.expect("puts");
    client.lease.lease_revoke(pb::LeaseRevokeRequest { id: 2 }).await.expect("revokes");
    client.kv.compact(pb::CompactionRequest { revision: 4, physical: false }).await.expect("compacts");
    watching.events(11).await;
    client.get("k1").await.expect("reads");
    client.put("", "v").await.expect_err("no key");
    client.kv.compact(pb::CompactionRequest { revision: 4, physical: false }).await.expect_err("compacted");
    client.kv.compact(pb::CompactionRequest { revision: 99, physical: false }).await.expect_err("future");
    client.lease.lease_revoke(pb::LeaseRevokeRequest { id: 2 }).await.expect_err("gone");
    for _ in 0..3 {
        let mut other = connect(server).await;
        Watching::on(&mut other, prefix("k")).await;
    }
    let endpoint = server.endpoint();
    let left = "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",\
                grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"}";
    wire::until("three streams are left by their clients", async || {
        let streams = metric(&endpoint, "etcd_debugging_mvcc_watch_stream_total");
        (metric(&endpoint, left) == Some(3.0) && streams == Some(1.0)).then_some(())
    })
    .await;
    let (_, text) = get(&endpoint, "/metrics");
    let counted = |line: &&str| {
        let name = line.split([' ', '{']).next().unwrap_or_default();
        let call = name == "grpc_server_handled_total" && !line.ends_with(" 0") && !line.contains("MemberList");
        COUNTED.contains(&name) || call
    };
    let mut lines: Vec<String> = text.lines().filter(counted).map(str::to_owned).collect();
    lines.sort_unstable();
    drop(watching);
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_etcds_count() {
    let servers = [Kind::Mechi, Kind::Etcd].map(|kind| Server::start(kind, &[]).expect("starts"));
    let (mine, real) = (exercise(&servers[0]).await, exercise(&servers[1]).await);
    assert!(mine.len() > COUNTED.len(), "{mine:#?}");
    assert_eq!(mine, real);
}

/// Every family that etcd's alerts and dashboards read is there, with a value, after a few calls.
#[tokio::test(flavor = "multi_thread")]
async fn no_metric_of_the_mixin_is_missing() {
    let server =
        Server::start(Kind::Mechi, &["--metrics=extensive", "--store-flush-interval=10ms"]).expect("mechi starts");
    let mut client = connect(&server).await;
    for n in 0..3 {
        client.put(format!("k{n}"), "v").await.expect("puts");
    }
    client.get("k1").await.expect("reads");
    let at = server.endpoint();
    for positive in [
        "etcd_server_has_leader",
        "etcd_server_leader_changes_seen_total",
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_server_quota_backend_bytes",
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_wal_write_bytes_total",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_mvcc_range_total",
        "etcd_network_client_grpc_sent_bytes_total",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"}",
        "etcd_server_range_duration_seconds_count{success=\"true\"}",
        "etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"unary\"}",
        "grpc_server_handling_seconds_count{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
        "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
        "grpc_server_msg_received_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
        "grpc_server_msg_sent_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "os_fd_used",
        "os_fd_limit",
        "etcd_server_version{server_version=\"3.7.1\"}",
        "etcd_cluster_version{cluster_version=\"3.7\"}",
    ] {
        // A clock that counts hundredths of a second, on a fast machine, may not have moved yet.
        wire::until(positive, async || (metric(&at, positive) > Some(0.0)).then_some(())).await;
    }
    for there in
        ["etcd_server_proposals_failed_total", "etcd_server_proposals_pending", "etcd_server_read_indexes_failed_total"]
    {
        assert_eq!(metric(&at, there), Some(0.0), "{there}");
    }
    assert!(get(&at, "/metrics").1.contains("\netcd_network_known_peers{Local=\""));
    wire::until("the store's commits are timed", async || {
        (metric(&at, "etcd_disk_backend_commit_duration_seconds_count") > Some(0.0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_listeners_serve_what_they_are_for() {
    let home = tempfile::tempdir().expect("a folder");
    let mut server = Server::at(Kind::Mechi, home.path(), &["--host-whitelist=127.0.0.1,good.example"]);
    let ports = [Port::keep(), Port::keep()];
    let [metrics, http_only] = ports.each_ref().map(|port| format!("127.0.0.1:{port}"));
    let socket = home.path().join("client.sock");
    server.flags.push(format!("--listen-client-urls=http://{},unix://{}", server.endpoint(), socket.display()));
    server.flags.push(format!("--listen-metrics-urls=http://{metrics}"));
    server.spawn().expect("starts");
    assert_eq!(get(&metrics, "/health").0, 200);
    assert_eq!(get(&metrics, "/readyz").0, 200);
    assert!(get(&metrics, "/metrics").1.contains("etcd_server_has_leader 1"));
    assert_eq!(get(&metrics, "/version").0, 404);
    let host = |host: &str| format!("GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    for (name, code) in [("good.example", 200), ("good.example:2379", 200), ("evil.example", 421)] {
        assert_eq!(http(&server.endpoint(), &host(name)).expect("answers").0, code, "{name}");
    }
    // gRPC over the unix socket.
    let io = UnixStream::connect(&socket).await.expect("connects");
    let put = pb::PutRequest { key: "u".into(), value: "v".into(), ..Default::default() };
    let answer =
        wire::call(io, "/etcdserverpb.KV/Put", &[], wire::frame(&put.encode_to_vec(), false)).await.expect("answers");
    wire::finish(answer).await.expect("puts");
    assert_eq!(connect(&server).await.get("u").await.expect("reads").count, 1);
    server.stop().expect("stops");
    assert!(!socket.exists(), "the socket's file goes with the process");
    // A killed process leaves the file; the next one takes its place.
    server.spawn().expect("starts again");
    server.kill().expect("kills");
    assert!(socket.exists());
    server.flags.push(format!("--listen-client-http-urls=http://{http_only}"));
    server.spawn_only().expect("starts again");
    wire::until("health on its own port", async || (http_get(&http_only, "/health").ok()?.0 == 200).then_some(()))
        .await;
    assert!(http_get(&server.endpoint(), "/health").is_err(), "the client URL serves gRPC only");
    assert_eq!(connect(&server).await.get("u").await.expect("reads").count, 1);
    let ready = wire::until("the ready line", async || {
        server.log().lines().find(|line| line.contains("ready to serve client requests")).map(str::to_owned)
    })
    .await;
    let log = server.log();
    let line: serde_json::Value = serde_json::from_str(&ready).expect("is JSON");
    for field in ["level", "ts", "caller", "msg"] {
        assert!(line.get(field).is_some_and(serde_json::Value::is_string), "{field} in {ready}");
    }
    assert!(!log.contains("\"level\":\"error\""), "{log}");
}

/// Five hundred connections with streams on each, then ordinary calls on all of them.
#[tokio::test(flavor = "multi_thread")]
async fn many_connections_and_streams() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut clients = Vec::new();
    for _ in 0..500 {
        let mut client = connect(&server).await;
        let watching = Watching::on(&mut client, prefix("m/")).await;
        clients.push((client, watching));
    }
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(Watching::on(&mut clients[0].0, prefix("m/")).await);
    }
    wire::counts(&server.endpoint(), "etcd_debugging_mvcc_watch_stream_total", 700.0).await;
    clients[250].0.put("m/x", "v").await.expect("puts");
    for (client, watching) in &mut clients {
        assert_eq!(watching.events(1).await.len(), 1);
        assert_eq!(client.get("m/x").await.expect("reads").count, 1);
    }
    for watching in &mut streams {
        assert_eq!(watching.events(1).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_cancels_and_large_messages() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    // The process stands still: a call waits until its deadline, in the client; later the server finds it passed.
    server.signal(19).expect("stops");
    let mut request = tonic::Request::new(pb::PutRequest { key: "late".into(), ..Default::default() });
    request.set_timeout(Duration::from_millis(100));
    let late = client.kv.put(request).await.expect_err("too late");
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..500 {
        let mut client = client.clone();
        waiting.spawn(async move {
            let put = client.put(format!("c{n}"), "v");
            assert!(tokio::time::timeout(Duration::from_millis(200), put).await.is_err(), "the client leaves");
        });
    }
    waiting.join_all().await;
    server.signal(18).expect("goes on");
    client.put("k", "v").await.expect("others are served");
    let io = TcpStream::connect(server.endpoint()).await.expect("connects");
    let put = wire::frame(&pb::PutRequest { key: "n".into(), ..Default::default() }.encode_to_vec(), false);
    let passed = wire::call(io, "/etcdserverpb.KV/Put", &[("grpc-timeout", "1n")], put.clone()).await;
    let passed = passed.expect_err("its time was over at once").to_string();
    assert!(passed.contains("\"grpc-status\": \"4\""), "{passed}");

    // A request may have as many bytes as the flag says, a message half a MiB more.
    client.put("big", vec![b'v'; 1_500_000]).await.expect("fits");
    let too_large = client.put("big", vec![b'v'; 1_600_000]).await.expect_err("too large");
    assert_eq!((too_large.code(), too_large.message()), (Code::InvalidArgument, "etcdserver: request is too large"));
    let refused = client.put("big", vec![b'v'; 3_000_000]).await.expect_err("too large for gRPC");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("grpc: received message larger than max ("), "{}", refused.message());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_packed_with_gzip_are_taken() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let call = async |path: &'static str, headers: &[(&str, &str)], body: Bytes| {
        let io = TcpStream::connect(server.endpoint()).await.expect("connects");
        match wire::call(io, path, headers, body).await {
            Ok(answer) => wire::finish(answer).await.map_err(|error| error.to_string()),
            // gRPC escapes spaces in its texts.
            Err(refused) => Err(refused.to_string().replace("%20", " ")),
        }
    };
    let put = pb::PutRequest { key: "z".into(), value: vec![b'v'; 100_000].into(), ..Default::default() };
    let packed = wire::frame(&gzip(&put.encode_to_vec()), true);
    assert!(packed.len() < 10_000);
    call("/etcdserverpb.KV/Put", &[("grpc-encoding", "gzip")], packed.clone()).await.expect("puts");
    let plain = wire::frame(&put.encode_to_vec(), false);
    call("/etcdserverpb.KV/Put", &[("grpc-encoding", "gzip")], plain).await.expect("a single message may be plain");
    let answer = connect(&server).await.get("z").await.expect("reads");
    assert_eq!((answer.kvs[0].value.len(), answer.kvs[0].version), (100_000, 2));
    // 100 MB of zeros in 100 kB.
    let bomb = wire::frame(&gzip(&vec![0; 100_000_000]), true);
    let refused = call("/etcdserverpb.KV/Put", &[("grpc-encoding", "gzip")], bomb).await.expect_err("refused");
    assert!(refused.contains("received message after decompression larger than max"), "{refused}");
    let unknown = call("/etcdserverpb.KV/Put", &[("grpc-encoding", "snappy")], packed).await.expect_err("refused");
    assert!(unknown.contains("Decompressor is not installed"), "{unknown}");
}

/// Pings more often than etcd's minimum are tolerated: a client that is careful is no attacker.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_is_answered() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let tcp = TcpStream::connect(server.endpoint()).await.expect("connects");
    let (_send, mut connection) = h2::client::handshake(tcp).await.expect("speaks HTTP/2");
    let mut pings = connection.ping_pong().expect("the first to ask");
    let running = tokio::spawn(connection);
    for _ in 0..1_000 {
        pings.ping(h2::Ping::opaque()).await.expect("is answered");
    }
    assert!(!running.is_finished());
    connect(&server).await.put("k", "v").await.expect("puts");
}
