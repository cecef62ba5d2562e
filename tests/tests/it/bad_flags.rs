//! One table of wrong flags and one of HTTP requests, each against Mechi and against a real etcd 3.5.1.

use mechi_tests::oracle;
use mechi_tests::process::{Kind, Server, http};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How Mechi's last words are held against etcd's.
enum Expect {
    /// The same text and the same exit code.
    Same,
    /// etcd 3.5.1 words it otherwise; this is what Mechi says, and why.
    Differs(&'static str, &'static str),
    /// Only Mechi refuses; its text has this part.
    Ours(&'static str),
}
use Expect::{Differs, Ours, Same};

/// Flags, environment, expectation.
struct Row(&'static [&'static str], &'static [(&'static str, &'static str)], Expect);

const LISTEN: &str = "--listen-client-urls=http://127.0.0.1:0";
const ADVERTISE: &str = "--advertise-client-urls=http://127.0.0.1:1";

#[rustfmt::skip]
const FLAGS: &[Row] = &[
    Row(&["--nothing"], &[], Same),
    Row(&["-nothing=1"], &[], Same),
    Row(&["---name=a"], &[], Same),
    Row(&["--=a"], &[], Same),
    Row(&["positional"], &[], Differs("\"positional\" is not a valid flag", "etcd 3.6 and later quote with %q, 3.5.1 with '%s'")),
    Row(&["--snapshot-count=x"], &[], Same),
    Row(&["--snapshot-count=-1"], &[], Same),
    Row(&["--snapshot-count=99999999999999999999"], &[], Same),
    Row(&["--snapshot-count"], &[], Same),
    Row(&["--quota-backend-bytes=1GiB"], &[], Same),
    Row(&["--max-txn-ops=-1"], &[], Same),
    Row(&["--grpc-keepalive-min-time=5"], &[], Same),
    Row(&["--grpc-keepalive-min-time=soon"], &[], Same),
    Row(&["--pre-vote=maybe"], &[], Same),
    Row(&["--pre-vote=TrUe"], &[], Same),
    Row(&["--heartbeat-interval=100", "--election-timeout=300"], &[], Same),
    Row(&["--heartbeat-interval=0"], &[], Same),
    Row(&["--election-timeout=60000"], &[], Same),
    Row(&[LISTEN], &[], Same),
    Row(&["--listen-client-urls=ftp://127.0.0.1:1", ADVERTISE], &[], Same),
    Row(&["--listen-client-urls=127.0.0.1:1", ADVERTISE], &[], Same),
    Row(&["--listen-client-urls=http://127.0.0.1", ADVERTISE], &[], Same),
    Row(&["--listen-client-urls=http://127.0.0.1:1/path", ADVERTISE], &[], Same),
    Row(&["--listen-client-urls=http://example.org:1", ADVERTISE], &[], Same),
    Row(&["--listen-peer-urls=http://example.org:1"], &[], Same),
    Row(&["--initial-cluster=m1=http://127.0.0.1:1,m2"], &[], Same),
    Row(&["--initial-cluster-state=old"], &[], Same),
    Row(&["--auto-compaction-mode=sometimes"], &[], Same),
    Row(&["--auto-compaction-retention=x"], &[], Same),
    Row(&["--name=a"], &[("ETCD_NAME", "b")], Differs(
        "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment \
         variable or disable flag)): ETCD_NAME",
        "every etcd logs the sentence as fatal, with the variable in a field and a stack trace; Mechi says it in one line")),
    Row(&[], &[("ETCD_PRE_VOTE", "maybe")], Same),
    Row(&["--config-file=/nonexistent.yml"], &[], Same),
    Row(&["--listen-client-urls=http://0.0.0.0:0", ADVERTISE], &[], Ours("only loopback addresses and unix sockets are safe")),
    Row(&["--listen-peer-urls=http://10.1.2.3:0"], &[], Ours("only loopback addresses and unix sockets are safe")),
    Row(&["--cert-file=/x", "--key-file=/y"], &[], Ours("cert-file")),
    Row(&["--client-cert-auth"], &[], Ours("client-cert-auth")),
    Row(&["--auto-tls"], &[], Ours("auto-tls")),
    Row(&["--auth-token=jwt"], &[], Ours("auth-token")),
    Row(&["--force-new-cluster"], &[], Ours("force-new-cluster")),
    Row(&["--initial-cluster-state=existing"], &[], Ours("initial-cluster-state")),
    Row(&["--client-crl-file=/x"], &[], Ours("client-crl-file")),
    Row(&["--memory-limit=lots"], &[], Ours("memory-limit")),
];

/// Runs a program that refuses to start; returns its exit code, all it printed, and the sentence it refuses with:
/// the log line's `error`, unescaped, or else the first line.
fn refusal(program: &Path, home: &Path, row: &Row) -> (Option<i32>, String, String) {
    let Row(flags, env, _) = row;
    let mut child = Command::new(program)
        .args(*flags)
        .env_clear()
        .envs(env.iter().copied())
        .current_dir(home)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("waits").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("it runs");
            panic!("{} {flags:?} goes on", program.display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let done = child.wait_with_output().expect("ends");
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    let json = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let logged = json.filter_map(|line| line["error"].as_str().map(str::to_owned)).last();
    let sentence = logged.or_else(|| text.lines().next().map(str::to_owned)).unwrap_or_default();
    (done.status.code(), text, sentence)
}

#[test]
fn wrong_flags_end_the_start_with_a_sentence() {
    let home = tempfile::tempdir().expect("a folder");
    let mut wrong = Vec::new();
    for row in FLAGS {
        let Row(flags, env, expect) = row;
        let (code, text, sentence) = refusal(&oracle::mechi(), home.path(), row);
        assert!(code.is_some_and(|code| code != 0), "{flags:?}: {code:?} {text}");
        assert!(!text.contains("panicked"), "{flags:?}: {text}");
        assert!(std::fs::read_dir(home.path()).expect("reads").next().is_none(), "{flags:?} left files");
        let right = match expect {
            Ours(part) => sentence.contains(part),
            Same | Differs(..) => {
                let elsewhere = tempfile::tempdir().expect("a folder");
                let (etcds, _, real) = refusal(&oracle::etcd(), elsewhere.path(), row);
                let right = match expect {
                    Differs(ours, _) => sentence == *ours && sentence != real,
                    _ => sentence == real,
                };
                if let Differs(_, reason) = expect {
                    println!("flags: {flags:?}\n  mechi {sentence}\n  etcd  {real}\n  {reason}");
                }
                if !right || code != etcds {
                    wrong.push(format!("{flags:?} {env:?}\n  mechi {code:?} {sentence}\n  etcd  {etcds:?} {real}"));
                }
                true
            }
        };
        if !right {
            wrong.push(format!("{flags:?} {env:?}\n  mechi {code:?} {sentence}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), FLAGS.len(), wrong.join("\n"));
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
