//! What a process costs, read off `/proc`: CPU, memory and disk.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The kernel's unit of a process's times; Linux tells user space 100 in a second on every machine.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of a process and all its threads so far.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    cpu_of(&stat).context("an unknown form of /proc/PID/stat")
}

fn cpu_of(stat: &str) -> Option<Duration> {
    // The name may hold spaces and brackets; after it the 12th and 13th field are utime and stime.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND))
}

/// Memory of a process that is in RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that only this process has.
    pub anonymous: u64,
    /// Bytes of mapped files, which the kernel may drop.
    pub file: u64,
    /// The most that both together were since [`reset_peak`].
    pub peak: u64,
}

impl Memory {
    /// Both together.
    pub fn rss(self) -> u64 {
        self.anonymous + self.file
    }

    /// The memory of several processes.
    pub fn sum(self, other: Self) -> Self {
        Self { anonymous: self.anonymous + other.anonymous, file: self.file + other.file, peak: self.peak + other.peak }
    }
}

/// The memory of a process.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    memory_of(&status).context("an unknown form of /proc/PID/status")
}

fn memory_of(status: &str) -> Option<Memory> {
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    };
    Some(Memory { anonymous: kib("RssAnon")?, file: kib("RssFile")? + kib("RssShmem")?, peak: kib("VmHWM")? })
}

/// Makes the present memory of a process its peak.
pub fn reset_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("process {pid}"))
}

/// Bytes that the files below `folder` take on disk, as `du` counts them; files that vanish meanwhile count nothing.
pub fn disk(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// The same for each folder directly below `folder`, by its name.
pub fn disk_parts(folder: &Path) -> BTreeMap<String, u64> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let parts = entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir());
    parts.map(|entry| (entry.file_name().to_string_lossy().into_owned(), disk(&entry.path()))).collect()
}

/// The load average of one, five and fifteen minutes.
pub fn load_average() -> [f64; 3] {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut numbers = text.split(' ').map(|number| number.parse().unwrap_or_default());
    [(); 3].map(|()| numbers.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 100";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of("7 (a) S 1"), None);
    }

    #[test]
    fn memory_is_told_apart() {
        let status = "Name:\tx\nVmHWM:\t    40 kB\nRssAnon:\t   10 kB\nRssFile:\t   20 kB\nRssShmem:\t    1 kB\n";
        let memory = memory_of(status).expect("known");
        assert_eq!(memory, Memory { anonymous: 10 << 10, file: 21 << 10, peak: 40 << 10 });
        assert_eq!(memory.sum(memory).rss(), 62 << 10);
        assert_eq!(memory_of("Name:\tx\n"), None);
    }

    #[test]
    fn disk_is_summed_and_told_by_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in [("wal", 100_000), ("snap", 10)] {
            fs::create_dir(folder.path().join(name)).expect("made");
            fs::write(folder.path().join(name).join("file"), vec![1; bytes]).expect("written");
        }
        let parts = disk_parts(folder.path());
        assert!(parts["wal"] >= 100_000 && parts["snap"] < 100_000, "{parts:?}");
        assert_eq!(disk(folder.path()), parts.values().sum::<u64>());
        assert_eq!(disk(Path::new("/nowhere")), 0);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        assert!(memory(pid).expect("runs").rss() > 0);
        cpu(pid).expect("runs");
    }
}
