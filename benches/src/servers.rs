//! The servers that are measured: etcd or Mechi, one member or three, in a folder of their own.

use crate::load::pool::on_this_thread;
use crate::process::{self, Memory};
use anyhow::{Context, Result, ensure};
use mechi_tests::cluster::Cluster;
use mechi_tests::process::Kind;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What both are given beside their defaults: room for the data.
pub const FLAGS: [&str; 1] = ["--quota-backend-bytes=8589934592"];

/// The oldest etcd that is a rival: 3.4 copies its whole read buffer for each read, so that its reads prove nothing.
const ETCD_OLDEST: (u32, u32) = (3, 5);

/// The two programs, and what they say of themselves.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Programs {
    pub etcd: PathBuf,
    pub mechi: PathBuf,
    pub etcd_version: String,
    pub mechi_version: String,
}

impl Programs {
    /// Asks both for their versions.
    ///
    /// - Errors: a program that does not run, and an etcd older than 3.5.
    pub fn find(etcd: PathBuf, mechi: PathBuf) -> Result<Self> {
        let (etcd_version, mechi_version) = (version(&etcd)?, version(&mechi)?);
        rival(&etcd_version)?;
        Ok(Self { etcd, mechi, etcd_version, mechi_version })
    }

    /// The program of a kind.
    pub fn of(&self, kind: Kind) -> &Path {
        match kind {
            Kind::Etcd => &self.etcd,
            Kind::Mechi => &self.mechi,
        }
    }
}

fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("start {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // The size tells two builds of one version apart.
    let bytes = std::fs::metadata(program).map_or(0, |meta| meta.len());
    Ok(format!("{}, a binary of {bytes} bytes", text.lines().take(2).collect::<Vec<_>>().join(", ")))
}

/// Refuses an etcd that would be no rival.
fn rival(version: &str) -> Result<()> {
    let number = version.strip_prefix("etcd Version: ").unwrap_or(version);
    let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
    let found: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    ensure!(
        found >= ETCD_OLDEST,
        "{version:?} is no fair rival: etcd before 3.5 copies its whole read buffer for each read; give 3.5.1 or newer"
    );
    Ok(())
}

/// Running servers; dropped, they are killed and their data is removed.
pub struct Fleet {
    /// The processes.
    pub cluster: Cluster,
    leader: usize,
}

impl Fleet {
    /// Starts `members` with empty data directories and waits for their leader.
    pub fn start(programs: &Programs, kind: Kind, members: usize, flags: &[&str]) -> Result<Self> {
        let flags: Vec<&str> = FLAGS.iter().chain(flags).copied().collect();
        let start = || Cluster::direct(kind, Some(programs.of(kind)), members, &flags);
        // A port that was free can be taken before the server binds it, where other programs open connections.
        let cluster = match start() {
            Err(error) if error.to_string().contains("address already in use") => start(),
            first => first,
        }?;
        let leader = on_this_thread(cluster.leader())?;
        Ok(Self { cluster, leader })
    }

    /// Where the leader serves: the place to ask a cluster for its best.
    pub fn leader(&self) -> Vec<String> {
        vec![self.cluster.members[self.leader].endpoint()]
    }

    /// Where all members serve.
    pub fn endpoints(&self) -> Vec<String> {
        self.cluster.members.iter().map(|member| member.endpoint()).collect()
    }

    fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.cluster.members.iter().filter_map(|member| member.pid())
    }

    /// CPU of all members so far; what cannot be read counts nothing, since the load's own errors tell why.
    pub fn cpu(&self) -> Duration {
        self.pids().filter_map(|pid| process::cpu(pid).ok()).sum()
    }

    /// Memory of all members.
    pub fn memory(&self) -> Result<Memory> {
        Ok(self.memory_of_each()?.into_iter().fold(Memory::default(), Memory::sum))
    }

    /// Memory of each member, in their order.
    pub fn memory_of_each(&self) -> Result<Vec<Memory>> {
        self.pids().map(process::memory).collect()
    }

    /// Forgets the members' peaks of memory.
    pub fn reset_peak(&self) -> Result<()> {
        self.pids().try_for_each(process::reset_peak)
    }

    /// Disk of all members.
    pub fn disk(&self) -> u64 {
        self.cluster.members.iter().map(|member| process::disk(&member.data_dir())).sum()
    }

    /// Disk of all members by what it is for: the folders of their `member` folders.
    pub fn disk_parts(&self) -> BTreeMap<String, u64> {
        let mut parts = BTreeMap::new();
        for member in &self.cluster.members {
            for (name, bytes) in process::disk_parts(&member.data_dir().join("member")) {
                // Mechi's store has its number behind its name.
                let name = name.split('-').next().unwrap_or_default().to_owned();
                *parts.entry(name).or_default() += bytes;
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etcd_without_concurrent_reads_is_refused() {
        for good in ["etcd Version: 3.5.1, Git SHA: e8732fb5f", "etcd Version: 3.7.0-rc.1", "etcd Version: 4.0.0"] {
            rival(good).expect(good);
        }
        for bad in ["etcd Version: 3.4.23", "etcd Version: 2.3.8", "bash 5", ""] {
            rival(bad).expect_err(bad);
        }
    }
}
