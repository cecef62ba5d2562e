//! mechictl is etcdctl: one script of calls with etcdctl 3.5.1 and with mechictl, against etcd 3.5.1 and against Mechi.
//! Standard output, standard error and exit codes are equal in all four columns, but for what the script lists.

mod dump;
mod script;

use crate::mask::{digits, mask};
use mechi_tests::cluster::{Cluster, NO_ELECTIONS};
use mechi_tests::oracle;
use mechi_tests::process::{Kind, Server};
use script::{Call, Differs};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// No call of the script takes longer, on any machine.
const CALL_MAX: Duration = Duration::from_secs(60);
/// What is said of a call that does.
const LATE: &str = "did not end in time";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Etcdctl,
    Mechictl,
}

impl Tool {
    fn path(self) -> PathBuf {
        match self {
            Self::Etcdctl => oracle::etcdctl_3_5(),
            Self::Mechictl => oracle::mechictl(),
        }
    }
}

/// The columns of the comparison.
const COLUMNS: [(Tool, Kind); 4] = [
    (Tool::Etcdctl, Kind::Etcd),
    (Tool::Mechictl, Kind::Etcd),
    (Tool::Etcdctl, Kind::Mechi),
    (Tool::Mechictl, Kind::Mechi),
];

/// What a call did: its exit code (none if it was ended), what it printed, and what it complained.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ended {
    code: Option<i32>,
    out: Vec<u8>,
    err: Vec<u8>,
}

#[test]
fn mechictl_is_etcdctl_on_etcd_and_on_mechi() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/mechictl/script.txt");
    let calls = script::parse(&std::fs::read_to_string(script).expect("the script is there"));
    assert!(calls.len() >= 200, "only {} calls", calls.len());
    let columns: Vec<Vec<String>> = std::thread::scope(|scope| {
        let run = |(tool, kind)| {
            let calls = &calls;
            scope.spawn(move || column(tool, kind, calls))
        };
        let running: Vec<_> = COLUMNS.map(run).into();
        running.into_iter().map(|column| column.join().expect("a column runs to its end")).collect()
    });
    let mut failed = Vec::new();
    let mut listed = 0;
    for (n, call) in calls.iter().enumerate() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|column| &columns[column][n]);
        let same = match &call.differs {
            None => a == b && a == c && a == d,
            Some((Differs::Server, _)) => a == b && c == d,
            Some((Differs::Tool, _)) => a == c && b == d,
            Some((Differs::Both, _)) => a == b,
        };
        listed += usize::from(call.differs.is_some());
        // A difference that is none any more must leave the list.
        let is_stale = call.differs.is_some() && a == b && a == c && a == d;
        let is_late = [a, b, c, d].iter().any(|ended| ended.contains(LATE));
        if !same || is_stale || is_late {
            let what = match (is_late, is_stale) {
                (true, _) => LATE,
                (_, true) => "is listed as different and is not",
                _ => "differs",
            };
            let mut text = format!("{} {what}: {:?}\n", call.name, call.differs);
            for (column, ended) in COLUMNS.iter().zip([a, b, c, d]) {
                text += &format!("--- {column:?}\n{ended}");
            }
            failed.push(text);
        }
    }
    println!("{} calls, {} equal in all four columns, {listed} listed differences", calls.len(), calls.len() - listed);
    assert!(failed.is_empty(), "{} calls:\n{}", failed.len(), failed.join("\n"));
}

/// Runs all calls with one tool on a server of its own; returns what they did, masked.
fn column(tool: Tool, kind: Kind, calls: &[Call]) -> Vec<String> {
    let server = Server::start(kind, &NO_ELECTIONS).expect("a server starts");
    let endpoint = server.endpoint();
    let (mut lease, mut revision) = (String::new(), String::new());
    let mut results = Vec::new();
    for call in calls {
        let mut call = call.clone();
        for word in &mut call.words {
            for (name, value) in [("$lease", &lease), ("$rev", &revision)] {
                if word.ends_with(name.as_bytes()) {
                    *word = String::from_utf8_lossy(word).replace(name, value).into_bytes();
                }
            }
        }
        let ended = run(tool, &endpoint, &call);
        let text = String::from_utf8_lossy(&ended.out);
        if let Some(granted) = text.strip_prefix("lease ").filter(|text| text.contains(" granted with TTL")) {
            lease = granted.split(' ').next().expect("an id").to_owned();
        }
        if call.name.starts_with("rev.") {
            let (_, after) = text.split_once("\"revision\":").expect("a revision in JSON");
            revision = after.chars().take_while(char::is_ascii_digit).collect();
        }
        results.push(normal(&call, &ended, &endpoint));
    }
    results
}

/// What a call did as text, without what differs by nature.
fn normal(call: &Call, ended: &Ended, endpoint: &str) -> String {
    let is_protobuf = call.words.iter().any(|word| word == b"protobuf");
    let out = match dump::dump(&ended.out).filter(|_| is_protobuf && ended.code == Some(0)) {
        Some(message) => message,
        None => String::from_utf8_lossy(&ended.out).into_owned(),
    };
    let mut out = mask(&out, endpoint);
    if call.name.starts_with("lease.timetolive") {
        for left in ["\"ttl\":", "\"TTL\" : ", "remaining("] {
            if let Some(at) = out.find(left) {
                digits(&mut out, at + left.len(), "LEFT");
            }
        }
    }
    if call.name.starts_with("status") {
        // Sizes and indexes.
        out = out.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        while out.contains("99") {
            out = out.replace("99", "9");
        }
    }
    let err = String::from_utf8_lossy(&ended.err);
    // Go's panics show addresses of their memory.
    let err = mask(err.split("\ngoroutine ").next().unwrap_or_default(), endpoint);
    format!("code {:?}\n{out}stderr:\n{err}", ended.code)
}

/// Runs one call; both tools are called `etcdctl`.
fn run(tool: Tool, endpoint: &str, call: &Call) -> Ended {
    run_as("etcdctl", tool, endpoint, call)
}

/// Runs one call under a name.
fn run_as(name: &str, tool: Tool, endpoint: &str, call: &Call) -> Ended {
    let mut command = Command::new(tool.path());
    command.arg0(name).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(call.variables.iter().cloned());
    let names_endpoints = call.words.iter().any(|word| word.starts_with(b"--endpoints"));
    let is_completion = call.words.first().is_some_and(|word| word == b"__complete");
    if !names_endpoints && !is_completion {
        command.arg(format!("--endpoints={endpoint}"));
    }
    command.args(call.words.iter().map(|word| OsStr::from_bytes(word)));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", tool.path().display()));
    let mut stdin = child.stdin.take().expect("piped");
    // A call that fails early does not read it.
    let _ = stdin.write_all(&call.input);
    // One that is ended by its output may be reading yet.
    let _open = call.lines.map(|_| stdin);
    let (tell, told) = mpsc::channel();
    let mut out = child.stdout.take().expect("piped");
    let mut err = child.stderr.take().expect("piped");
    let lines = call.lines;
    let (out, err) = std::thread::scope(|scope| {
        let out = scope.spawn(move || {
            let read = read(&mut out, lines);
            let _ = tell.send(());
            read
        });
        let err = scope.spawn(move || read(&mut err, None));
        let in_time = told.recv_timeout(CALL_MAX);
        if in_time.is_err() {
            let _ = child.kill();
        } else if lines.is_some() {
            // As a person ends it: a lock is given back, so that no lease takes its key later, at another revision.
            let ended = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status();
            assert!(ended.expect("kill runs").success(), "{} has ended before its output was read", call.name);
        }
        let mut err = err.join().expect("the reader ends");
        if in_time.is_err() {
            err.extend_from_slice(LATE.as_bytes());
        }
        (out.join().expect("the reader ends"), err)
    });
    let code = child.wait().expect("the call ends").code();
    Ended { code, out, err }
}

/// Reads to the end, or so many lines.
fn read(from: &mut impl Read, lines: Option<usize>) -> Vec<u8> {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        let count = from.read(&mut part).expect("a pipe is readable");
        all.extend_from_slice(&part[..count]);
        let mut ends = all.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        if let Some(end) = lines.and_then(|lines| ends.nth(lines - 1)) {
            // What came with the last line's bytes is another time's.
            all.truncate(end);
            return all;
        }
        if count == 0 {
            return all;
        }
    }
}

/// Calls that change nothing, whose output on one server is equal to the byte, ids and table widths included.
#[rustfmt::skip]
const SAME_SERVER: [&str; 26] = [
    "get k", "get k -w json", "get k -w fields", "get k -w protobuf", "get --prefix k -w protobuf",
    "get --prefix k -w json", "get k --hex",
    "member list", "member list -w json", "member list -w table", "member list -w fields", "member list -w protobuf",
    "member list -w json --hex",
    "endpoint status", "endpoint status -w json", "endpoint status -w table", "endpoint status -w fields",
    "endpoint status --cluster -w table",
    "endpoint hashkv", "endpoint hashkv -w json", "endpoint hashkv -w table", "endpoint hashkv -w fields",
    "lease list", "lease list -w json", "lease list -w protobuf", "alarm list -w json",
];

/// A call of words without quotes.
fn call(words: &str) -> Call {
    Call { words: words.split(' ').map(|word| word.as_bytes().to_vec()).collect(), ..Call::default() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_same_server_gives_the_same_bytes() {
    for kind in [Kind::Etcd, Kind::Mechi] {
        let server = Server::start(kind, &NO_ELECTIONS).expect("a server starts");
        for words in ["put k v", "put k2 <&>", "lease grant 1000"] {
            assert_eq!(run(Tool::Etcdctl, &server.endpoint(), &call(words)).code, Some(0), "{words}");
        }
        // A linearizable read follows the last write, so that no index moves any more.
        for words in SAME_SERVER {
            let [etcdctl, mechictl] =
                [Tool::Etcdctl, Tool::Mechictl].map(|tool| run(tool, &server.endpoint(), &call(words)));
            assert_eq!(text(&mechictl.out), text(&etcdctl.out), "{words} on {kind:?} (left: mechictl)");
            assert_eq!(mechictl, etcdctl, "{words} on {kind:?} (left: mechictl)");
        }
    }
}

#[test]
fn under_its_own_name_it_says_more() {
    let server = Server::start(Kind::Mechi, &NO_ELECTIONS).expect("a server starts");
    let own = |words: &str| {
        let ended = run_as("/usr/bin/mechictl", Tool::Mechictl, &server.endpoint(), &call(words));
        (ended.code, text(&ended.out), text(&ended.err))
    };
    assert_eq!(own("put k v"), (Some(0), "OK\n".into(), String::new()));
    // No colour in a pipe.
    assert_eq!(own("get k"), (Some(0), "k\nv\n".into(), String::new()));
    assert!(own("version").1.starts_with("mechictl version: "));
    let mistaken = "Error: unknown flag: --nope\nRun 'mechictl get --help' for usage.\n";
    assert_eq!(own("get --nope"), (Some(1), String::new(), mistaken.into()));
    // The client library's log line is etcdctl's alone.
    let future = "Error: etcdserver: mvcc: required revision is a future revision\n";
    assert_eq!(own("get k --rev=1000"), (Some(1), String::new(), future.into()));
    let (code, _, unreached) = own("--endpoints=127.0.0.1:1 --command-timeout=100ms put k v");
    assert_eq!(code, Some(1));
    assert!(unreached.starts_with("Error: no endpoint was reached, nothing was sent"), "{unreached}");
    assert!(own("options").1.contains("--endpoints=[127.0.0.1:2379]"));
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = own(&format!("completion {shell}"));
        assert!(code == Some(0) && script.contains("__complete"), "{script}");
    }
    assert_eq!(own("completion tcsh").0, Some(128));
}

#[test]
fn a_cluster_looks_the_same_to_both_and_its_leader_moves() {
    let cluster = Cluster::start(Kind::Mechi, 3, &NO_ELECTIONS).expect("three members start");
    let endpoints = cluster.endpoints();
    for words in ["member list", "member list -w json", "endpoint hashkv --cluster", "endpoint health --cluster"] {
        let lines = |tool| {
            let ended = run(tool, &endpoints, &call(words));
            // Health comes in the order of the answers.
            let mut lines: Vec<String> = mask(&text(&ended.out), &endpoints).lines().map(str::to_owned).collect();
            lines.sort();
            (ended.code, lines, text(&ended.err))
        };
        assert_eq!(lines(Tool::Mechictl), lines(Tool::Etcdctl), "{words}");
    }
    let status = text(&run(Tool::Mechictl, &endpoints, &call("endpoint status --cluster -w json")).out);
    let status: Vec<serde_json::Value> = serde_json::from_str(&status).expect("JSON");
    let id = |member: &serde_json::Value, field: &str| {
        member["Status"].pointer(field).and_then(|id| id.as_u64()).expect("an id")
    };
    let leader = id(&status[0], "/leader");
    let follower = status.iter().map(|member| id(member, "/header/member_id")).find(|&member| member != leader);
    let follower = follower.expect("two others");
    // The variable alone names the endpoints: etcdctl 3.5.1 would call that a conflict here.
    let mut moving = Command::new(oracle::mechictl());
    moving.env_clear().env("ETCDCTL_ENDPOINTS", &endpoints).args(["move-leader", &format!("{follower:x}")]);
    let moved = moving.output().expect("mechictl runs");
    let want = format!("Leadership transferred from {leader:x} to {follower:x}\n");
    assert_eq!((text(&moved.stdout), text(&moved.stderr)), (want, String::new()));
}
