//! One table of malformed requests and flags, each against Mechi and against a real etcd 3.5.1.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::oracle;
use mechi_tests::process::{Kind, Server, http};
use mechi_tests::raw;
use pb::request_op::Request as Op;
use prost::Message;
use std::process::Command;
use std::time::Duration;

/// How two answers are held against each other.
enum Expect {
    /// Code and text are equal (or both succeed).
    Same,
    /// They differ, and this is why.
    Differs(&'static str),
}
use Expect::{Differs, Same};

/// A request: path, bytes, metadata, expectation.
struct Row(String, Bytes, Vec<(&'static str, &'static str)>, Expect);

fn row(method: &str, message: impl Message, expect: Expect) -> Row {
    Row(format!("/etcdserverpb.{method}"), message.encode_to_vec().into(), Vec::new(), expect)
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes("v"), ..Default::default() }
}

fn put_op(key: &'static str) -> pb::RequestOp {
    pb::RequestOp { request: Some(Op::RequestPut(put(key))) }
}

fn delete_op(key: &'static str, range_end: &'static str) -> pb::RequestOp {
    let delete = pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false };
    pb::RequestOp { request: Some(Op::RequestDeleteRange(delete)) }
}

fn txn(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..Default::default() }
}

fn nested(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
    let txn = pb::TxnRequest { success, failure, ..Default::default() };
    pb::RequestOp { request: Some(Op::RequestTxn(txn)) }
}

fn range(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), ..Default::default() }
}

fn requests() -> Vec<Row> {
    let many = |n: usize| {
        (0..n)
            .map(|n| pb::RequestOp {
                request: Some(Op::RequestPut(pb::PutRequest { key: format!("many{n}").into(), ..Default::default() })),
            })
            .collect::<Vec<_>>()
    };
    let big = |len: usize| pb::PutRequest { key: bytes("big"), value: vec![b'x'; len].into(), ..Default::default() };
    let mut rows = vec![
        row("KV/Range", range(""), Same),
        row("KV/Range", pb::RangeRequest { range_end: bytes("z"), ..range("") }, Same),
        row("KV/Range", pb::RangeRequest { range_end: bytes("a"), ..range("b") }, Same),
        row("KV/Range", pb::RangeRequest { sort_order: 7, ..range("a") }, Same),
        row("KV/Range", pb::RangeRequest { sort_target: 9, ..range("a") }, Same),
        row("KV/Range", pb::RangeRequest { sort_order: -1, ..range("a") }, Same),
        row("KV/Range", pb::RangeRequest { limit: -5, ..range("a") }, Same),
        row("KV/Range", pb::RangeRequest { limit: i64::MAX, range_end: bytes("\0"), ..range("a") }, Same),
        row("KV/Range", pb::RangeRequest { revision: -9, ..range("a") }, Same),
        row("KV/Range", pb::RangeRequest { revision: 1 << 40, ..range("a") }, Same),
        row("KV/Range", pb::RangeRequest { revision: 1, ..range("a") }, Same),
        row(
            "KV/Range",
            pb::RangeRequest { min_mod_revision: 9, max_mod_revision: 3, range_end: bytes("\0"), ..range("a") },
            Same,
        ),
        row("KV/Put", put(""), Same),
        row("KV/Put", pb::PutRequest { ignore_value: true, ..put("a") }, Same),
        row("KV/Put", pb::PutRequest { ignore_value: true, value: Bytes::new(), ..put("missing") }, Same),
        row("KV/Put", pb::PutRequest { ignore_lease: true, lease: 5, ..put("a") }, Same),
        row("KV/Put", pb::PutRequest { ignore_lease: true, ..put("missing") }, Same),
        row("KV/Put", pb::PutRequest { lease: 404, ..put("a") }, Same),
        row("KV/Put", pb::PutRequest { lease: -1, ..put("a") }, Same),
        row("KV/Put", big(1_572_864 - 100), Same),
        row("KV/Put", big(1_572_864), Same),
        row("KV/Put", big(2 << 20), Same),
        row("KV/Put", big(4 << 20), Same),
        row("KV/DeleteRange", pb::DeleteRangeRequest::default(), Same),
        row("KV/DeleteRange", pb::DeleteRangeRequest { key: bytes("b"), range_end: bytes("a"), prev_kv: true }, Same),
        row("KV/Txn", txn(many(128)), Same),
        row("KV/Txn", txn(many(129)), Same),
        row("KV/Txn", pb::TxnRequest { failure: many(129), ..Default::default() }, Same),
        row("KV/Txn", txn(vec![put_op("k"), put_op("k")]), Same),
        row(
            "KV/Txn",
            pb::TxnRequest { success: vec![put_op("k")], failure: vec![put_op("k")], ..Default::default() },
            Same,
        ),
        row("KV/Txn", txn(vec![put_op("k"), delete_op("j", "l")]), Same),
        row("KV/Txn", txn(vec![delete_op("j", "l"), put_op("k")]), Same),
        row("KV/Txn", txn(vec![delete_op("j", "l"), delete_op("j", "l")]), Same),
        row("KV/Txn", txn(vec![put_op("k"), delete_op("k", "")]), Same),
        row("KV/Txn", txn(vec![put_op("k"), nested(vec![put_op("k")], vec![])]), Same),
        row("KV/Txn", txn(vec![nested(vec![put_op("k")], vec![put_op("k")])]), Same),
        row("KV/Txn", txn(vec![nested(vec![put_op("k")], vec![]), nested(vec![put_op("k")], vec![])]), Same),
        row("KV/Txn", txn(vec![delete_op("a", "z"), nested(vec![put_op("k")], vec![])]), Same),
        row("KV/Txn", txn(vec![pb::RequestOp { request: None }]), Same),
        row("KV/Txn", txn(vec![put_op("")]), Same),
        row("KV/Txn", txn(vec![delete_op("", "")]), Same),
        row("KV/Txn", pb::TxnRequest { compare: vec![pb::Compare::default()], ..Default::default() }, Same),
        row("KV/Txn", pb::TxnRequest::default(), Same),
        row("KV/Txn", txn(vec![pb::RequestOp { request: Some(Op::RequestRange(range(""))) }]), Same),
        row(
            "KV/Txn",
            txn(vec![pb::RequestOp {
                request: Some(Op::RequestRange(pb::RangeRequest { sort_order: 5, ..range("a") })),
            }]),
            Same,
        ),
        row(
            "KV/Txn",
            txn(vec![pb::RequestOp {
                request: Some(Op::RequestRange(pb::RangeRequest { revision: 1 << 40, ..range("a") })),
            }]),
            Same,
        ),
        row(
            "KV/Txn",
            txn(vec![
                put_op("k9"),
                pb::RequestOp { request: Some(Op::RequestPut(pb::PutRequest { lease: 404, ..put("k8") })) },
            ]),
            Same,
        ),
        row("KV/Compact", pb::CompactionRequest { revision: 0, physical: false }, Same),
        row("KV/Compact", pb::CompactionRequest { revision: -1, physical: true }, Same),
        row("KV/Compact", pb::CompactionRequest { revision: 1 << 40, physical: false }, Same),
        row("Lease/LeaseGrant", pb::LeaseGrantRequest { id: 77, ttl: 0 }, Same),
        row("Lease/LeaseGrant", pb::LeaseGrantRequest { id: 77, ttl: 10 }, Same),
        row("Lease/LeaseGrant", pb::LeaseGrantRequest { id: 78, ttl: -3 }, Same),
        row("Lease/LeaseGrant", pb::LeaseGrantRequest { id: 79, ttl: 9_000_000_001 }, Same),
        row("Lease/LeaseGrant", pb::LeaseGrantRequest { id: -80, ttl: 60 }, Same),
        row("Lease/LeaseRevoke", pb::LeaseRevokeRequest { id: 404 }, Same),
        row("Lease/LeaseRevoke", pb::LeaseRevokeRequest { id: 0 }, Same),
        row("Lease/LeaseTimeToLive", pb::LeaseTimeToLiveRequest { id: 404, keys: true }, Same),
        row("Lease/LeaseKeepAlive", pb::LeaseKeepAliveRequest { id: 404 }, Same),
        row("Maintenance/HashKV", pb::HashKvRequest { revision: 1 << 40 }, Same),
        row("Maintenance/MoveLeader", pb::MoveLeaderRequest { target_id: 404 }, Same),
        row(
            "Maintenance/Alarm",
            pb::AlarmRequest { action: 9, ..Default::default() },
            Differs("etcd answers an empty list to an action that does not exist; Mechi refuses it"),
        ),
        row("Maintenance/Alarm", pb::AlarmRequest { action: 2, member_id: 404, alarm: 1 }, Same),
        row("Cluster/MemberList", pb::MemberListRequest::default(), Same),
        row(
            "Cluster/MemberRemove",
            pb::MemberRemoveRequest { id: 404 },
            Differs("membership changes are not served yet"),
        ),
        row("Auth/Authenticate", pb::AuthenticateRequest { name: "a".into(), password: "b".into() }, Same),
        row("Auth/UserAdd", pb::AuthUserAddRequest::default(), Differs("auth is not served yet")),
        row("KV/Nothing", pb::HashRequest {}, Same),
        row("Nothing/Range", pb::HashRequest {}, Same),
    ];
    let mut with_metadata = row("KV/Range", range("a"), Same);
    with_metadata.2 = vec![("hasleader", "true"), ("client-api-version", "3.5")];
    rows.push(with_metadata);
    let text = "each gRPC library words malformed protobuf in its own way; the code is Internal in both";
    for broken in [&b"\xff"[..], b"\x0a\x05ab", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"] {
        rows.push(Row("/etcdserverpb.KV/Range".into(), Bytes::from_static(broken), Vec::new(), Differs(text)));
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_answered_as_etcd_does() {
    let (mechi, etcd) =
        (Server::start(Kind::Mechi, &[]).expect("mechi starts"), Server::start(Kind::Etcd, &[]).expect("etcd starts"));
    let mut clients = Vec::new();
    for server in [&mechi, &etcd] {
        let mut client = Client::connect(&server.endpoint()).await.expect("answers");
        for key in ["a", "b", "c"] {
            client.put(key, "1").await.expect("puts");
        }
        client.kv.compact(pb::CompactionRequest { revision: 3, physical: true }).await.expect("compacts");
        clients.push(client);
    }
    let (mut same, mut differ) = (0, 0);
    for Row(path, message, metadata, expect) in requests() {
        let mut answers = Vec::new();
        for client in &clients {
            let answer = raw::call(client.channel.clone(), &path, message.clone(), &metadata).await;
            answers.push(match answer {
                Ok(_) => (0, String::new()),
                Err(status) => (status.code() as i32, status.message().to_owned()),
            });
        }
        let shown = format!("{path} {:?}", &message[..message.len().min(64)]);
        match expect {
            Same => assert_eq!(answers[0], answers[1], "{shown} (left: mechi, right: etcd)"),
            Differs(reason) => {
                println!("bad input: {shown}\n  mechi {:?}\n  etcd  {:?}\n  {reason}", answers[0], answers[1]);
                assert_ne!(answers[0].0, 0, "{shown} is refused");
                differ += 1;
            }
        }
        same += usize::from(matches!(expect, Same));
    }
    // Nothing was changed by what was refused, and both stores are still equal.
    let [mine, real] = &mut clients[..] else { unreachable!("two clients") };
    let (mine, real) = (mine.all().await.expect("reads"), real.all().await.expect("reads"));
    assert_eq!((mine.kvs, mine.count), (real.kvs, real.count));
    println!("bad input: {same} requests equal, {differ} explained");
}

/// Flags, environment, and a word that both programs print; `None` where only Mechi refuses, with its reason.
type FlagRow = (&'static [&'static str], &'static [(&'static str, &'static str)], Option<&'static str>, &'static str);

#[rustfmt::skip]
const FLAGS: &[FlagRow] = &[
    (&["--nothing"], &[], Some("flag provided but not defined: -nothing"), ""),
    (&["-nothing=1"], &[], Some("flag provided but not defined: -nothing"), ""),
    (&["positional"], &[], Some("'positional' is not a valid flag"), ""),
    (&["--snapshot-count=x"], &[], Some("invalid value \"x\" for flag -snapshot-count"), ""),
    (&["--snapshot-count"], &[], Some("flag needs an argument: -snapshot-count"), ""),
    (&["--pre-vote=maybe"], &[], Some("invalid boolean value \"maybe\" for -pre-vote"), ""),
    (&["--heartbeat-interval=100", "--election-timeout=300"], &[], Some("should be at least as 5 times as"), ""),
    (&["--election-timeout=60000"], &[], Some("is too long, and should be set less than 50000ms"), ""),
    (&["--listen-client-urls=http://127.0.0.1:0"], &[], Some("--advertise-client-urls is required when --listen-client-urls is set explicitly"), ""),
    (&["--listen-client-urls=ftp://127.0.0.1:1", "--advertise-client-urls=http://127.0.0.1:1"], &[], Some("URL scheme must be http, https, unix, or unixs"), ""),
    (&["--listen-client-urls=http://example.org:1", "--advertise-client-urls=http://127.0.0.1:1"], &[], Some("example.org"), ""),
    (&["--auto-compaction-mode=sometimes"], &[], Some("sometimes"), ""),
    (&["--name=a"], &[("ETCD_NAME", "b")], Some("conflicting environment variable"), ""),
    (&["--config-file=/nonexistent.yml"], &[], Some("no such file or directory"), ""),
    (&["--listen-client-urls=http://0.0.0.0:0", "--advertise-client-urls=http://127.0.0.1:1"], &[], None, "not loopback"),
    (&["--listen-peer-urls=http://10.1.2.3:0"], &[], None, "not loopback"),
    (&["--cert-file=/x", "--key-file=/y"], &[], None, "cert-file"),
    (&["--client-cert-auth"], &[], None, "client-cert-auth"),
    (&["--auto-tls"], &[], None, "auto-tls"),
    (&["--auth-token=jwt"], &[], None, "auth-token"),
    (&["--force-new-cluster"], &[], None, "force-new-cluster"),
    (&["--initial-cluster-state=existing"], &[], None, "initial-cluster-state"),
    (&["--client-crl-file=/x"], &[], None, "client-crl-file"),
    (&["--memory-limit=lots"], &[], None, "memory-limit"),
];

#[test]
fn wrong_flags_end_the_start_with_a_sentence() {
    let home = tempfile::tempdir().expect("a folder");
    for (flags, env, word, ours_only) in FLAGS {
        let run = |program: &std::path::Path| {
            let mut child = Command::new(program)
                .args(*flags)
                .env_clear()
                .envs(env.iter().copied())
                .current_dir(home.path())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .expect("starts");
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            while child.try_wait().expect("waits").is_none() {
                assert!(std::time::Instant::now() < deadline, "{} {flags:?} goes on", program.display());
                std::thread::sleep(Duration::from_millis(10));
            }
            let done = child.wait_with_output().expect("ends");
            let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            (done.status.code(), text)
        };
        let (code, text) = run(&oracle::mechi());
        assert!(code.is_some_and(|code| code != 0), "{flags:?}: {code:?} {text}");
        assert!(!text.contains("panicked"), "{flags:?}: {text}");
        match word {
            Some(word) => {
                let (etcds, real) = run(&oracle::etcd());
                let real = real.replace("\\\"", "\"");
                let text = text.replace("\\\"", "\"");
                assert!(real.contains(word), "etcd {flags:?}: {real}");
                assert!(text.contains(word), "mechi {flags:?}: {text}");
                assert_eq!(code, etcds, "exit code of {flags:?}");
            }
            None => {
                assert!(text.contains(ours_only), "mechi {flags:?}: {text}");
            }
        }
        assert!(
            std::fs::read_dir(home.path()).expect("reads").next().is_none() || word.is_some(),
            "{flags:?} left files"
        );
    }
    println!("flags: {} starts refused", FLAGS.len());
}

#[test]
fn http_is_refused_as_etcd_does() {
    let (mechi, etcd) =
        (Server::start(Kind::Mechi, &[]).expect("mechi starts"), Server::start(Kind::Etcd, &[]).expect("etcd starts"));
    for request in [
        "POST /health",
        "GET /nothing",
        "DELETE /version",
        "GET /health?exclude=NOSPACE",
        "GET /health?serializable=true",
    ] {
        let mut answers = Vec::new();
        for server in [&mechi, &etcd] {
            let endpoint = server.endpoint();
            let text =
                format!("{request} HTTP/1.1\r\nHost: {endpoint}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            answers.push(http(&endpoint, &text).expect("an answer"));
        }
        assert_eq!(answers[0], answers[1], "{request} (left: mechi, right: etcd)");
    }
}
