//! Processes of `mechi-control`: started on a store, killed when dropped, and ended by themselves once the benchmark is gone.

use super::limits::STOP_MAX;
use crate::process;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// A process of `mechi-control`.
pub struct Control {
    child: Child,
    log: PathBuf,
    // Its end tells the process to stop, however this program ends.
    _hand: Option<ChildStdin>,
}

impl Control {
    /// Starts `mechi-control WORDS --endpoints=ENDPOINTS`, whose log is `HOME/NAME.log`.
    pub fn start(program: &Path, home: &Path, name: &str, endpoints: &[String], words: &[&str]) -> Result<Self> {
        let log = home.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut child = Command::new(program)
            .args(words)
            .arg(format!("--endpoints={}", endpoints.join(",")))
            .arg("--with-parent")
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let hand = child.stdin.take();
        Ok(Self { child, log, _hand: hand })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// User and system time so far; none once it is gone.
    pub fn cpu(&self) -> Duration {
        process::cpu(self.pid()).unwrap_or_default()
    }

    /// What it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails if it has ended by itself.
    ///
    /// - Errors: how it ended, with its log.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.log.display(), self.log());
        }
        Ok(())
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, without waiting.
    pub fn ask_to_stop(&self) -> Result<()> {
        let status = Command::new("kill").arg(self.pid().to_string()).status().context("start kill")?;
        ensure!(status.success(), "kill {} ended with {status}", self.pid());
        Ok(())
    }

    /// Waits for its end after [`Control::ask_to_stop`].
    ///
    /// - Errors: it still runs after [`STOP_MAX`].
    pub fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + STOP_MAX;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "mechi-control does not stop within {STOP_MAX:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
