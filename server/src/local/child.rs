//! One member's process: started in a process group of its own, asked over its client port, stopped by signal.

use super::plan::Plan;
use crate::limits::LOCAL_ANSWER_BYTES_MAX;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Set for a member's process: it ends in order when its parent is gone.
pub const FOLLOWS_PARENT: &str = "MECHI_LOCAL_MEMBER";

/// How long a member may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A member of a local cluster.
pub struct Member {
    /// `m1` and so on.
    pub name: String,
    /// `127.0.0.1:PORT` for clients.
    pub endpoint: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Where its log lines go, all starts one after the other.
    pub log: PathBuf,
    /// Starts in a row without having served, and when the next one is due.
    pub failures: u32,
    /// When it is to be started again; `None` while it runs.
    pub due: Option<Instant>,
    /// Whether it has served since its last start.
    pub served: bool,
    args: Vec<String>,
    process: Option<Child>,
}

impl Member {
    /// Describes member `n`, counted from 0.
    pub fn new(plan: &Plan, n: usize, dir: &Path, flags: &[String]) -> Self {
        let name = |n: usize| format!("m{}", n + 1);
        let peer = |n: usize| format!("http://127.0.0.1:{}", plan.members[n].peer);
        let cluster: Vec<String> = (0..plan.members.len()).map(|n| format!("{}={}", name(n), peer(n))).collect();
        let endpoint = format!("127.0.0.1:{}", plan.members[n].client);
        let data_dir = dir.join(name(n));
        let mut args = vec![
            format!("--name={}", name(n)),
            format!("--data-dir={}", data_dir.display()),
            format!("--listen-client-urls=http://{endpoint}"),
            format!("--advertise-client-urls=http://{endpoint}"),
            format!("--listen-peer-urls={}", peer(n)),
            format!("--initial-advertise-peer-urls={}", peer(n)),
            format!("--initial-cluster={}", cluster.join(",")),
            "--initial-cluster-token=mechi-local".to_owned(),
        ];
        args.extend_from_slice(flags);
        let log = dir.join(format!("{}.log", name(n)));
        let (failures, due, served, process) = (0, None, false, None);
        Self { name: name(n), endpoint, data_dir, log, failures, due, served, args, process }
    }

    /// Starts the process.
    pub fn start(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let program = std::env::current_exe().context("find the own program")?;
        let mut command = Command::new(program);
        // Ctrl-C goes to the whole foreground group: members in it would stop all at once, the leader too.
        command.args(&self.args).process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Variables that configure a single member must not reach each of several.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD_")) {
            command.env_remove(name);
        }
        command.env(FOLLOWS_PARENT, std::process::id().to_string());
        self.process = Some(command.spawn().with_context(|| format!("start {}", self.name))?);
        (self.due, self.served) = (None, false);
        Ok(())
    }

    /// Looks whether the process has ended; returns its status once.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(process) = &mut self.process else { return Ok(None) };
        let status = process.try_wait().with_context(|| format!("look after {}", self.name))?;
        if status.is_some() {
            self.process = None;
        }
        Ok(status)
    }

    /// Whether the process runs, as far as [`Member::ended`] has looked.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Sends a signal, if the process runs.
    pub fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().and_then(|process| i32::try_from(process.id()).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended meanwhile; it is not reaped yet, so nobody else has its number.
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether clients are served: `/health` answers, whatever it says.
    pub async fn serves(&self) -> bool {
        self.get("/health").await.is_some_and(|answer| answer.contains(" 200 "))
    }

    /// Whether it leads, by its own metrics.
    pub async fn leads(&self) -> bool {
        self.get("/metrics").await.is_some_and(|answer| answer.contains("\netcd_server_is_leader 1\n"))
    }

    async fn get(&self, path: &str) -> Option<String> {
        let exchange = async {
            let mut stream = TcpStream::connect(&self.endpoint).await?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.endpoint).as_bytes()).await?;
            let mut answer = Vec::new();
            stream.take(LOCAL_ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
            std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        timeout(ANSWER_TIMEOUT, exchange).await.ok()?.ok()
    }
}

/// In a member's process: asks the system for SIGTERM when the process that started it ends, however it does.
pub fn follow_parent() {
    let Ok(parent) = std::env::var(FOLLOWS_PARENT) else { return };
    // Without it the members live on, which is only untidy.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().to_string());
    if now.as_deref() != Some(&parent) {
        // It ended before it could be followed.
        std::process::exit(0);
    }
}
