//! The processes of the demonstration: each with a log of its own, none left behind.

use crate::limits::STOP_MAX;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Lines of a log that are shown when something went wrong.
const LOG_LINES_SHOWN: usize = 20;

/// A process; killed when it is dropped.
pub(super) struct Process {
    name: String,
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it prints goes to a file in the folder.
    pub(super) fn start(name: &str, folder: &Path, program: &Path, args: &[String]) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let child = Command::new(program)
            .args(args)
            // Whatever becomes of this process, those that look at it end with it.
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child: Some(child), log })
    }

    /// The end of what it printed, if it has ended by itself.
    pub(super) fn has_ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        Some(format!("{} ended with {status}; its last lines:\n{last}", self.name))
    }

    /// Asks it to stop by the end of its input, and waits; one that does not is killed.
    pub(super) fn stop(&mut self) {
        let Some(child) = &mut self.child else { return };
        drop(child.stdin.take());
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if !matches!(child.try_wait(), Ok(None)) {
                self.child = None;
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A folder of its own, gone with everything in it when it is dropped.
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new one, which nobody else may look into.
    pub(super) fn new() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = format!("mechi-demo-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // One of that name is an earlier process's, or a trap: it is not used.
        std::fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the folder is left behind");
        }
    }
}

/// Ports of loopback that were free a moment ago, all different.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<std::io::Result<_>>()
        .context("find a free port")?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
