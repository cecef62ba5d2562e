//! How much memory there is to use: the machine's, or less if a cgroup says so.

use super::limits::{MEMORY_LIMIT_MIN, MEMORY_SHARE};
use std::path::{Path, PathBuf};

/// The memory limit when none is given, in bytes: half of what the cgroup or the machine allows.
pub fn default_limit() -> u64 {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| mem_total(&text));
    let cgroups = read(Path::new("/proc/self/cgroup")).map(|text| cgroup_files(&text)).unwrap_or_default();
    let cgroup = cgroups.iter().filter_map(|file| read(file)?.trim().parse::<u64>().ok()).min();
    share([machine, cgroup])
}

fn share(sources: [Option<u64>; 2]) -> u64 {
    // Without any source, assume a small machine: too small a budget is slow, too large a one is killed.
    let total = sources.into_iter().flatten().min().unwrap_or(1 << 30);
    (total / MEMORY_SHARE).max(MEMORY_LIMIT_MIN)
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The limit files of this process's cgroup and of all above it, for both versions of cgroups.
fn cgroup_files(proc_self_cgroup: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in proc_self_cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(path.trim_start_matches('/'));
        files.extend(group.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_machine_and_cgroup_is_halved() {
        assert_eq!(share([Some(8 << 30), Some(2 << 30)]), 1 << 30);
        assert_eq!(share([Some(8 << 30), None]), 4 << 30);
        assert_eq!(share([None, None]), 512 << 20);
        assert_eq!(share([Some(8 << 30), Some(1 << 20)]), MEMORY_LIMIT_MIN);
    }

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(mem_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
        let files = cgroup_files("12:cpu,memory:/a\n0::/b/c\nnonsense\n3:cpu:/x\n");
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/b/c/memory.max",
                "/sys/fs/cgroup/b/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
    }
}
