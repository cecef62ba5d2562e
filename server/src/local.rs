//! `mechi local`: a whole cluster on this machine, each member a process of this very program.

pub mod asked;
pub mod child;
pub mod plan;

use crate::config::memory;
use crate::disk::RealDisk;
use crate::limits::{LOCAL_BACKOFF_MAX, LOCAL_BACKOFF_MIN, LOCAL_FAILURES_MAX, LOCAL_STOP_MAX};
use anyhow::{Context, Result, bail};
use asked::Asked;
use child::Member;
use clap::Parser;
use mechi_replica::disk::Disk;
use plan::Plan;
use rustix::process::Signal;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};
use tokio::time::{Instant, sleep};

/// Time between two looks at the processes.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Runs a local cluster until a signal; `args` are those after `local`.
///
/// - Shape: help, and wrong arguments with 2, end the process at once.
pub fn run(args: &[OsString]) -> ExitCode {
    let asked = Asked::parse_from(args);
    // One thread: the system tells the members that their parent is gone when the thread that started them is.
    let ran = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(cluster(&asked)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mechi local: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn cluster(asked: &Asked) -> Result<()> {
    let folder = Folder::open(asked)?;
    let plan = Plan::find_or_make(&folder.path, asked)?;
    let flags = flags(asked, plan.members.len());
    let members = (0..plan.members.len()).map(|n| Member::new(&plan, n, &folder.path, &flags)).collect();
    let mut cluster = Cluster {
        members,
        terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
        interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
    };
    let ran = cluster.run().await;
    let stopped = cluster.stop().await;
    ran.and(stopped)
}

/// The members share the memory that one alone would take.
fn flags(asked: &Asked, members: usize) -> Vec<String> {
    let mut flags = asked.flags.clone();
    if !flags.iter().any(|flag| flag.trim_start_matches('-').starts_with("memory-limit")) {
        let least = crate::config::limits::MEMORY_LIMIT_MIN;
        flags.push(format!("--memory-limit={}", (memory::default_limit() / members as u64).max(least)));
    }
    flags
}

/// The cluster's folder; a temporary one goes with it.
struct Folder {
    path: PathBuf,
    is_temporary: bool,
    // Keeps a second `mechi local` out.
    _lock: <RealDisk as Disk>::Lock,
}

impl Folder {
    fn open(asked: &Asked) -> Result<Self> {
        let is_temporary = asked.dir.is_none();
        let path = match &asked.dir {
            Some(dir) => std::path::absolute(dir).with_context(|| format!("find {}", dir.display()))?,
            None => std::env::temp_dir().join(format!("mechi-local-{}", std::process::id())),
        };
        if is_temporary || !path.exists() {
            // A temporary folder that is there already is somebody else's.
            let made = DirBuilder::new().mode(0o700).recursive(!is_temporary).create(&path);
            made.with_context(|| format!("create {}", path.display()))?;
        }
        let lock = match RealDisk::new(&path).lock("lock") {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                bail!("a local cluster runs in {} already", path.display())
            }
            lock => lock.with_context(|| format!("lock {}", path.display()))?,
        };
        Ok(Self { path, is_temporary, _lock: lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("mechi local: {} is left behind: {error}", self.path.display());
        }
    }
}

struct Cluster {
    members: Vec<Member>,
    terminate: Listener,
    interrupt: Listener,
}

impl Cluster {
    /// Starts all, says when they serve, and looks after them until a signal.
    async fn run(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.start()?;
        }
        let mut is_told = false;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Ok(()),
                _ = self.interrupt.recv() => return Ok(()),
                () = sleep(LOOK_INTERVAL) => {}
            }
            for member in &mut self.members {
                look_after(member).await?;
            }
            if !is_told && self.members.iter().all(|member| member.served) {
                is_told = true;
                print!("{}", table(&self.members));
            }
        }
    }

    /// Stops the followers, then the leader, so that no member has to elect a new one on the way.
    async fn stop(&mut self) -> Result<()> {
        let deadline = Instant::now() + LOCAL_STOP_MAX;
        let mut leads = Vec::new();
        for member in &self.members {
            leads.push(member.runs() && member.leads().await);
        }
        // Half of them keep the quorum until the others are gone; the last ones need none to stop.
        for turn in [false, true] {
            let chosen: Vec<usize> = (0..self.members.len()).filter(|n| leads[*n] == turn).collect();
            chosen.iter().for_each(|n| self.members[*n].signal(Signal::TERM));
            self.wait_for(&chosen, deadline).await?;
        }
        let left: Vec<usize> = (0..self.members.len()).filter(|n| self.members[*n].runs()).collect();
        for n in &left {
            println!("{} did not stop in time and is killed", self.members[*n].name);
            self.members[*n].signal(Signal::KILL);
        }
        self.wait_for(&left, Instant::now() + LOCAL_STOP_MAX).await?;
        println!("all members have stopped");
        Ok(())
    }

    /// Waits until these have ended, or the deadline, or a second signal.
    async fn wait_for(&mut self, chosen: &[usize], deadline: Instant) -> Result<()> {
        while Instant::now() < deadline {
            for n in chosen {
                self.members[*n].ended()?;
            }
            if chosen.iter().all(|n| !self.members[*n].runs()) {
                return Ok(());
            }
            tokio::select! {
                _ = self.terminate.recv() => return Ok(()),
                _ = self.interrupt.recv() => return Ok(()),
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
        Ok(())
    }
}

/// Reports a member that ended, and starts it again after a while that grows.
///
/// - Errors: it ended too often without having served.
async fn look_after(member: &mut Member) -> Result<()> {
    if let Some(status) = member.ended()? {
        if member.served {
            member.failures = 0;
        }
        member.failures += 1;
        if member.failures >= LOCAL_FAILURES_MAX {
            bail!(
                "{} ended ({status}) {} times without having served:\n{}",
                member.name,
                member.failures,
                last_lines(&member.log)
            );
        }
        let wait = LOCAL_BACKOFF_MIN.saturating_mul(1 << (member.failures - 1)).min(LOCAL_BACKOFF_MAX);
        member.due = Some(Instant::now() + wait);
        println!(
            "{} ended ({status}) and is started again in {wait:.0?}; its log is {}",
            member.name,
            member.log.display()
        );
    }
    if member.due.is_some_and(|due| Instant::now() >= due) {
        member.start()?;
    }
    if member.runs() && !member.served {
        member.served = member.serves().await;
        if member.served && member.failures > 0 {
            println!("{} serves again", member.name);
        }
    }
    Ok(())
}

fn table(members: &[Member]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, endpoint: &str, data: &Path, log: &Path| {
        writeln!(text, "{name:<8}{endpoint:<24}{:<32}{}", data.display(), log.display())
            .expect("writing to a string does not fail");
    };
    line("member", "clients", Path::new("data"), Path::new("log"));
    for member in members {
        line(&member.name, &member.endpoint, &member.data_dir, &member.log);
    }
    let endpoints: Vec<&str> = members.iter().map(|member| member.endpoint.as_str()).collect();
    format!("{text}\nexport ETCDCTL_API=3 ETCDCTL_ENDPOINTS={}\n\nCtrl-C stops all members.\n", endpoints.join(","))
}

/// The end of a log, for a person who wonders why.
fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
