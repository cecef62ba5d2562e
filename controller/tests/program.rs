//! What `mechi-control` says to command lines that cannot be meant, and to a store that is not there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn run(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mechi-control"));
    command.args(words).stdin(Stdio::null()).output().expect("the program starts")
}

/// Ends with this code, and says this on standard error.
fn refuses(words: &[&str], code: i32, wanted: &str) {
    let output = run(words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    assert!(said.contains(wanted), "{words:?}: {wanted:?} is not in {said}");
    assert!(output.stdout.is_empty(), "{words:?}: it also has an output");
}

#[test]
fn words_that_cannot_be_meant_are_refused_with_a_reason() {
    refuses(&[], 2, "Usage: mechi-control");
    refuses(&["walk"], 2, "unrecognized subcommand 'walk'");
    refuses(&["run", "--roles", "scheduler,cook"], 2, "invalid value 'cook' for '--roles");
    refuses(&["run", "--listen-metrics", "here"], 2, "invalid value 'here' for '--listen-metrics");
    refuses(&["run", "--cert", "x.pem"], 2, "--key");
    refuses(&["run", "--user", "somebody"], 2, "--password-file");
    refuses(&["run", "--endpoint", "x"], 2, "unexpected argument '--endpoint'");
    refuses(&["nodes", "--count", "0"], 2, "0 is not in 1..=100000");
    refuses(&["nodes", "--count", "many"], 2, "invalid value 'many' for '--count");
    refuses(&["nodes", "--cpu", "4 cores"], 2, "invalid value '4 cores' for '--cpu");
    refuses(&["nodes", "--memory=-1Gi"], 2, "it is negative");
    refuses(&["nodes", "--script", "ready=soon"], 2, "\"ready=soon\" is no stage of a script");
    refuses(&["nodes", "--journal"], 2, "a value is required for '--journal <FILE>'");
    refuses(&["demo", "--pods", "50001"], 2, "50001 is not in 0..=50000");
}

#[test]
fn metrics_are_for_this_machine_alone() {
    refuses(&["run", "--listen-metrics", "0.0.0.0:0"], 1, "only loopback addresses can be served");
    refuses(&["nodes", "--listen-metrics", "[::]:0"], 1, "only loopback addresses can be served");
}

#[test]
fn files_that_are_not_there_are_named() {
    refuses(&["nodes", "--journal", "/nonexistent/journal"], 1, "open the journal /nonexistent/journal");
    refuses(&["audit", "--cacert", "/nonexistent/ca.pem"], 1, "read /nonexistent/ca.pem");
    refuses(&["run", "--user", "u", "--password-file", "/nonexistent/password"], 1, "read /nonexistent/password");
}

#[test]
fn a_store_that_is_not_there_ends_an_audit() {
    // Nobody listens on it: it was somebody's a moment ago.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port();
    refuses(&["audit", "--endpoints", &format!("127.0.0.1:{port}")], 1, "ask the store where it is");
}

/// A folder of this test alone.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_demonstration_without_a_store_says_why_and_leaves_nothing_behind() {
    let folder = Folder::new("demo");
    for (server, wanted) in
        [("/nonexistent/etcd", "start /nonexistent/etcd"), ("/bin/false", "store ended with exit status: 1")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mechi-control"));
        command.args(["demo", "--server", server]).env("TMPDIR", &folder.0).stdin(Stdio::null());
        let output = command.output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(wanted), "{said}");
        let left: Vec<_> = std::fs::read_dir(&folder.0).expect("a folder").collect();
        assert!(left.is_empty(), "{left:?} is left behind");
    }
}
