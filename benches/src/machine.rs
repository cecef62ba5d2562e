//! Where and when a measurement was made.

use std::fs;
use std::process::Command;

/// Processor, cores, memory and kernel in one line.
pub fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kib: u64 = line(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let model = line(&read("/proc/cpuinfo"), "model name");
    format!("{cores} cores of {model}, {} GiB, Linux {}", kib >> 20, kernel.trim())
}

/// Now, in UTC.
pub fn date() -> String {
    said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])
}

/// The commit of the working directory, with `-dirty` for changes; empty outside a repository.
pub fn commit() -> String {
    said("git", &["describe", "--always", "--dirty", "--abbrev=12"])
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
