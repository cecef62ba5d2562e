//! What the kernel says about this process: memory, time, file descriptors.

use prometheus::{Counter, Gauge, Registry};

/// `process_*` and `os_fd_*`, read from /proc at every scrape; what cannot be read keeps its last value.
#[derive(Debug)]
pub(super) struct Process {
    resident: Gauge,
    virtual_size: Gauge,
    virtual_max: Gauge,
    cpu_seconds: Counter,
    start_time: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    fd_used: Gauge,
    fd_limit: Gauge,
}

/// The kernel's unit of CPU time and start time in /proc: 100 a second on every Linux that runs Rust's std.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name, help| {
            let gauge = Gauge::new(name, help).expect("the name is well formed");
            registry.register(Box::new(gauge.clone())).expect("the name is unique");
            gauge
        };
        let cpu_seconds = Counter::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")
            .expect("the name is well formed");
        registry.register(Box::new(cpu_seconds.clone())).expect("the name is unique");
        Self {
            resident: gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            virtual_size: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            virtual_max: gauge(
                "process_virtual_memory_max_bytes",
                "Maximum amount of virtual memory available in bytes.",
            ),
            cpu_seconds,
            start_time: gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
            open_fds: gauge("process_open_fds", "Number of open file descriptors."),
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors."),
            fd_used: gauge("os_fd_used", "The number of used file descriptors."),
            fd_limit: gauge("os_fd_limit", "The file descriptor limit."),
        }
    }

    pub(super) fn refresh(&self) {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        if let Some(times) = stat_times(&read("/proc/self/stat"), &read("/proc/stat")) {
            self.cpu_seconds.inc_by((times.cpu_seconds - self.cpu_seconds.get()).max(0.0));
            self.start_time.set(times.start);
        }
        let status = read("/proc/self/status");
        set(&self.resident, kilobytes(&status, "VmRSS:"));
        set(&self.virtual_size, kilobytes(&status, "VmSize:"));
        let limits = read("/proc/self/limits");
        set(&self.virtual_max, limit(&limits, "Max address space"));
        let max_fds = limit(&limits, "Max open files");
        set(&self.max_fds, max_fds);
        set(&self.fd_limit, max_fds);
        // The directory handle that counts is itself one of them.
        let open = std::fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count().saturating_sub(1) as f64);
        set(&self.open_fds, open);
        set(&self.fd_used, open);
    }
}

/// The limit of open files, if the kernel tells.
pub fn open_files_limit() -> Option<f64> {
    limit(&std::fs::read_to_string("/proc/self/limits").ok()?, "Max open files")
}

fn set(gauge: &Gauge, value: Option<f64>) {
    if let Some(value) = value {
        gauge.set(value);
    }
}

struct Times {
    cpu_seconds: f64,
    start: f64,
}

fn stat_times(own: &str, machine: &str) -> Option<Times> {
    // The command's name is in parentheses and may itself hold spaces and parentheses.
    let after_name = &own[own.rfind(')')? + 1..];
    let field = |at: usize| after_name.split_whitespace().nth(at)?.parse::<f64>().ok();
    let boot: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(Times {
        cpu_seconds: (field(11)? + field(12)?) / TICKS_PER_SECOND,
        start: boot + field(19)? / TICKS_PER_SECOND,
    })
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

fn limit(limits: &str, name: &str) -> Option<f64> {
    let soft = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
    // Go's collector shows the largest number for a limit that is none.
    if soft == "unlimited" { Some(u64::MAX as f64) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let own = "7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0 4 0 1000 0 0 0";
        let times = stat_times(own, "cpu 1\nbtime 5000\n").unwrap();
        assert_eq!((times.cpu_seconds, times.start), (3.0, 5010.0));
        assert!(stat_times("", "").is_none());
        assert_eq!(kilobytes("VmSize:\t 8 kB\nVmRSS:\t 4 kB\n", "VmRSS:"), Some(4096.0));
        let limits = "Max open files            1024                 4096                 files\n\
                      Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(limit(limits, "Max address space"), Some(u64::MAX as f64));
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let process = Process::new(&Registry::new());
        process.refresh();
        assert!(process.resident.get() > 0.0 && process.fd_used.get() >= 3.0 && process.start_time.get() > 0.0);
    }
}
