//! The test-suite inside the crates.io package `etcd-client`, run from the registry's copy against a real process, and
//! against a cluster whose members its clients use in turn.

use mechi_tests::cluster::{Cluster, NO_ELECTIONS};
use mechi_tests::oracle;
use mechi_tests::process::{Kind, Server};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tests that cannot pass yet, each with its reason; any other test that does not pass fails this one, and so does
/// a test named here that would pass.
const SKIPPED: [(&str, &str); 9] = [
    ("test_auth", "auth is not served yet"),
    ("test_auth_refresh_token", "auth is not served yet"),
    ("test_auth_refresh_token_once_for_concurrent_calls", "auth is not served yet"),
    ("test_role", "auth is not served yet"),
    ("test_user", "auth is not served yet"),
    ("test_lock", "the lock service is not served yet"),
    ("test_election", "the election service is not served yet"),
    ("test_snapshot", "snapshots in etcd's format are not served yet"),
    ("test_cluster", "ignored by the suite itself: it needs four named hosts"),
];

/// Tests that ask one member and tell another, and so pass against a cluster, real etcds too, only as it happens.
const ONE_MEMBER_ONLY: [(&str, &str); 1] =
    [("test_move_leader", "it asks whichever member comes to hand over, and only the leader can")];

#[test]
fn the_suite_of_the_rust_client_passes() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let cluster = Cluster::start(Kind::Mechi, 3, &NO_ELECTIONS).expect("three members start");
    let suite = oracle::dir().join("etcd-client-0.21.1");
    assert!(suite.exists(), "{} is missing: run tests/oracles.sh first", suite.display());
    let binaries = build(&copy_for(&suite));
    run(&binaries, "one member", &server.endpoint(), &[]);
    run(&binaries, "three members", &cluster.endpoints(), &ONE_MEMBER_ONLY);
}

fn run(binaries: &[PathBuf], servers: &str, endpoints: &str, left_out: &[(&str, &str)]) {
    let mut results = BTreeMap::new();
    for binary in binaries {
        let listed = output(Command::new(binary).args(["--list", "--format=terse"]));
        let names: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        if names.is_empty() {
            continue;
        }
        // Every test runs by itself, also those that are expected to fail: a skip that is no longer needed is found.
        for name in names {
            if let Some((name, reason)) = left_out.iter().find(|(left_out, _)| *left_out == name) {
                println!("etcd-client, {servers}: {name} left out: {reason}");
                continue;
            }
            let ran = Command::new(binary)
                .env(ENDPOINTS, endpoints)
                .args(["--exact", name, "--include-ignored", "--test-threads=1"])
                .output()
                .expect("the suite runs");
            let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
            let passed = ran.status.success() && text.contains("1 passed");
            results.insert(name.to_owned(), (passed, text));
        }
    }
    let mut wrong = String::new();
    let mut passes = 0;
    for (name, (passed, text)) in &results {
        let skipped = SKIPPED.iter().find(|(skipped, _)| skipped == name);
        match (passed, skipped) {
            (true, None) => passes += 1,
            (false, Some((name, reason))) => println!("etcd-client, {servers}: {name} skipped: {reason}"),
            (true, Some((name, _))) => wrong += &format!("{name} passes: take it off the list\n"),
            (false, None) => wrong += &format!("{name} failed:\n{text}\n"),
        }
    }
    println!("etcd-client 0.21.1, {servers}: {passes} passed, {} skipped by name", SKIPPED.len());
    for (name, _) in SKIPPED {
        assert!(results.contains_key(name), "{name} is on the list of skipped tests, but the suite has no such test");
    }
    assert!(passes >= 18 - left_out.len(), "only {passes} tests ran");
    assert!(wrong.is_empty(), "{servers}: {wrong}");
}

/// Tells the changed suite whom to speak to.
const ENDPOINTS: &str = "MECHI_TEST_ENDPOINTS";

/// What the changed suite has instead of its fixed endpoint.
const FROM_VARIABLE: &str = r#"pub fn endpoints() -> Vec<&'static str> {
    std::env::var("MECHI_TEST_ENDPOINTS").unwrap().leak().split(',').collect()
}

pub fn default_test_endpoint() -> &'static str {
    endpoints()[0]
}"#;

/// A copy of the suite that speaks to whom a variable says instead of the fixed port 2379.
fn copy_for(suite: &Path) -> PathBuf {
    let copy = suite.with_file_name("etcd-client-run");
    output(Command::new("rm").arg("-rf").arg(&copy));
    output(Command::new("cp").arg("-r").arg(suite).arg(&copy));
    let change = |name: &str, changes: &[(&str, &str)]| {
        let path = copy.join(name);
        let mut text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (from, to) in changes {
            assert!(text.contains(from), "{name}: the suite's endpoint is where it was: {from}");
            text = text.replace(from, to);
        }
        std::fs::write(&path, text).expect("the copy is writable");
    };
    let fixed = r#"pub const DEFAULT_TEST_ENDPOINT: &str = "localhost:2379";"#;
    change("tests/testing.rs", &[(fixed, FROM_VARIABLE), ("[DEFAULT_TEST_ENDPOINT]", "endpoints()")]);
    let (named, used) = ("DEFAULT_TEST_ENDPOINT}", "(DEFAULT_TEST_ENDPOINT)");
    change("tests/client.rs", &[(named, "default_test_endpoint}"), (used, "(default_test_endpoint())")]);
    copy
}

fn build(suite: &Path) -> Vec<PathBuf> {
    let built = output(
        Command::new("cargo")
            .args(["test", "--no-run", "--tests", "--message-format=json", "--quiet"])
            .arg("--target-dir")
            .arg(suite.with_file_name("etcd-client-target"))
            .current_dir(suite)
            .env("PROTOC", oracle::dir().join("protoc/bin/protoc"))
            .env_remove("CARGO_TARGET_DIR"),
    );
    let messages = built.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    messages
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect()
}

fn output(command: &mut Command) -> String {
    let ran = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(ran.status.success(), "{command:?}: {}\n{}", ran.status, String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("programs print UTF-8")
}
