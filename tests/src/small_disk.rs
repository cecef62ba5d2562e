//! A small disk for one member: a tmpfs in a mount namespace that is made for it; no root needed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Mebibytes in which a member has a log, its reserve and some data.
pub const DISK_MIB: u64 = 320;

/// A process that holds a mount namespace with a small tmpfs open.
pub struct SmallDisk {
    holder: Child,
    mount: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty one at a folder, which is made; only what runs in [`SmallDisk::enter`] sees it there.
    ///
    /// - Panics: the system does not let its users make namespaces.
    pub fn mount(at: &Path, mib: u64) -> Self {
        std::fs::create_dir_all(at).expect("a folder");
        let script =
            format!("mount -t tmpfs -o size={mib}m,mode=700 none '{}' && echo ready && exec sleep 3600", at.display());
        let mut holder = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("the holder speaks");
        assert_eq!(line, "ready\n", "a tmpfs could not be mounted in a namespace");
        Self { holder, mount: at.to_owned() }
    }

    /// The command that starts a program inside.
    pub fn enter(&self) -> Vec<String> {
        let pid = self.holder.id().to_string();
        ["nsenter", "--preserve-credentials", "-U", "-m", "-t", &pid].map(str::to_owned).into()
    }

    /// The disk's folder as seen from outside.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), self.mount.display()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
