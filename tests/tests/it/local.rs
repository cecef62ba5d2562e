//! `mechi local`: starts a cluster, survives the end of a member, stops in order, and is found again.

use mechi_tests::client::Client;
use mechi_tests::oracle;
use mechi_tests::port::Port;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a cluster may take to serve, or to stop, on a busy machine.
const SOON: Duration = Duration::from_secs(90);

struct Local {
    child: Child,
    out: std::path::PathBuf,
}

impl Local {
    fn start(home: &Path, args: &[&str]) -> Self {
        let out = home.join("out");
        let file = std::fs::File::create(&out).expect("writable");
        let child = Command::new(oracle::mechi())
            .arg("local")
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a handle"))
            .stderr(file)
            .spawn()
            .expect("mechi starts");
        Self { child, out }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.out).expect("readable")
    }

    /// Waits until `text` was said; returns all that was.
    fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            let said = self.said();
            if said.contains(text) {
                return said;
            }
            if let Some(status) = self.child.try_wait().expect("waits") {
                panic!("it ended with {status}:\n{}", self.said());
            }
            assert!(Instant::now() < deadline, "{text:?} was not said:\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn endpoints(&mut self) -> Vec<String> {
        let said = self.wait_for("Ctrl-C stops");
        let line = said.lines().find_map(|line| line.split_once("ETCDCTL_ENDPOINTS=")).expect("the endpoints");
        line.1.split(',').map(str::to_owned).collect()
    }

    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status;
            }
            assert!(Instant::now() < deadline, "it goes on:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn interrupt(&mut self) -> ExitStatus {
        signal(self.child.id(), "INT");
        self.end()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Its members end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().expect("kill runs");
    assert!(status.success());
}

/// The process whose arguments name this data directory.
fn pid_of(data_dir: &Path) -> u32 {
    let wanted = format!("--data-dir={}", data_dir.display());
    let processes = std::fs::read_dir("/proc").expect("readable").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|arg| arg == wanted.as_bytes())
    });
    found.next().expect("the member runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_cluster_serves_survives_and_is_found_again() {
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join("data");
    let dir_flag = format!("--dir={}", dir.display());
    // Kept, so that nobody takes one while the cluster is down.
    let ports = Port::row(6);
    let base_port = format!("--base-port={}", ports[0]);
    let mut local = Local::start(home.path(), &["--members=3", &dir_flag, &base_port]);
    let endpoints = local.endpoints();
    assert_eq!(endpoints.len(), 3);
    Client::connect(&endpoints[0]).await.expect("answers").put("key", "value").await.expect("puts");

    // A second one in the same folder is kept out.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut second = Local::start(elsewhere.path(), &[&dir_flag]);
    assert!(!second.end().success());
    assert!(second.said().contains("a local cluster runs in"), "{}", second.said());

    // A member that dies comes back.
    signal(pid_of(&dir.join("m2")), "KILL");
    let said = local.wait_for("m2 serves again");
    assert!(said.contains("m2 ended (signal: 9 (SIGKILL)) and is started again"), "{said}");
    let got = Client::connect(&endpoints[1]).await.expect("answers").get("key").await.expect("gets");
    assert_eq!(got.kvs[0].value.as_ref(), b"value");

    let status = local.interrupt();
    assert!(status.success(), "{status}:\n{}", local.said());
    let said = local.said();
    assert!(said.contains("all members have stopped") && !said.contains("killed"), "{said}");
    for name in ["m1", "m2", "m3"] {
        let log = std::fs::read_to_string(dir.join(format!("{name}.log"))).expect("readable");
        assert!(log.contains("the member has stopped") && !log.contains("panicked"), "{name}:\n{log}");
    }

    let mut local = Local::start(home.path(), &[&dir_flag, "--members=5"]);
    assert!(!local.end().success());
    assert!(local.said().contains("holds a cluster of 3 members"), "{}", local.said());
    let mut local = Local::start(home.path(), &[&dir_flag]);
    assert_eq!(local.endpoints(), endpoints, "the same ports again");
    let got = Client::connect(&endpoints[2]).await.expect("answers").get("key").await.expect("gets");
    assert_eq!(got.kvs[0].value.as_ref(), b"value");

    // Its members do not outlive it, however it ends.
    let m1 = pid_of(&dir.join("m1"));
    local.child.kill().expect("it runs");
    local.child.wait().expect("it ends");
    let deadline = Instant::now() + SOON;
    while Path::new(&format!("/proc/{m1}/fd")).read_dir().is_ok_and(|mut files| files.next().is_some()) {
        assert!(Instant::now() < deadline, "m1 lives on");
        std::thread::sleep(Duration::from_millis(20));
    }
}
