//! What a run measured: operations, time, latencies, and the CPU of both sides.

use super::limits::{LATENCY_DIGITS, LATENCY_NS_MAX};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// What was measured.
#[derive(Debug)]
pub struct Report {
    /// Operations answered within the measured time.
    pub operations: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// Latencies in nanoseconds.
    pub latency: Histogram<u64>,
    /// What the servers consumed meanwhile.
    pub server_cpu: Duration,
    /// What this process consumed meanwhile.
    pub client_cpu: Duration,
}

impl Report {
    /// Operations in a second.
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of CPU of all servers for one operation.
    pub fn server_us(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.operations.max(1) as f64
    }

    /// Microseconds of this process's CPU for one operation.
    pub fn client_us(&self) -> f64 {
        self.client_cpu.as_secs_f64() * 1e6 / self.operations.max(1) as f64
    }

    /// A quantile of the latency in milliseconds.
    pub fn ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }
}

/// A histogram of latencies in nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_NS_MAX, LATENCY_DIGITS).expect("the bounds are sound")
}

/// What this process has consumed so far.
pub fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A point of time in a run, and what had been done and consumed by then.
pub struct Mark {
    /// When.
    pub at: Instant,
    operations: u64,
    server_cpu: Duration,
    client_cpu: Duration,
}

impl Mark {
    /// This very moment.
    pub fn now(operations: u64, server_cpu: &dyn Fn() -> Duration) -> Self {
        Self { at: Instant::now(), operations, server_cpu: server_cpu(), client_cpu: own_cpu() }
    }

    /// What was between this and `end`.
    pub fn report(self, end: Mark, latency: Histogram<u64>) -> Report {
        Report {
            operations: end.operations - self.operations,
            elapsed: end.at - self.at,
            latency,
            server_cpu: end.server_cpu.saturating_sub(self.server_cpu),
            client_cpu: end.client_cpu.saturating_sub(self.client_cpu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_the_digits_of_the_histogram() {
        let mut latency = histogram();
        (1..=1_000u64).for_each(|us| latency.record(us * 1_000).expect("below the bound"));
        latency.record(LATENCY_NS_MAX).expect("the bound itself");
        let report = Report {
            operations: 1_001,
            elapsed: Duration::from_secs(2),
            latency,
            server_cpu: Duration::from_micros(2_002),
            client_cpu: Duration::ZERO,
        };
        assert!((report.ms(0.5) - 0.5).abs() < 0.002, "{}", report.ms(0.5));
        assert!((report.ms(1.0) / 120_000.0 - 1.0).abs() < 0.002, "{}", report.ms(1.0));
        assert!((report.per_second() - 500.5).abs() < 1e-9 && (report.server_us() - 2.0).abs() < 1e-9);
    }
}
