//! Many seeds on all cores: how far it is, what was found, and what all of them together went through.

use super::{Keep, Plan, Report, Stats, run_by};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Calls `body` with each seed, on `threads` threads, until it returns false; each seed stays on one thread.
///
/// Seeds are handed out in order: when it returns, all below the least for which `body` said false are done.
pub fn across(seeds: Range<u64>, threads: usize, body: impl Fn(u64) -> bool + Sync) {
    let (next, ended) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || !body(seed) {
                        ended.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// What many runs went through.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Runs.
    pub seeds: u64,
    /// Their counts, added up.
    pub all: Stats,
    /// The slowest one: milliseconds, and its seed.
    pub slowest: (u64, u64),
    /// Seeds in which something was broken, ascending, with what.
    pub broken: BTreeMap<u64, String>,
}

impl Sums {
    /// Adds a run that took so many milliseconds.
    pub fn add(&mut self, report: &Report, took_ms: u64) {
        let (all, stats) = (&mut self.all, &report.stats);
        self.seeds += 1;
        self.slowest = self.slowest.max((took_ms, report.options.seed));
        for (sum, count) in [
            (&mut all.events, stats.events),
            (&mut all.time, stats.time),
            (&mut all.operations, stats.operations),
            (&mut all.ok, stats.ok),
            (&mut all.unknown, stats.unknown),
            (&mut all.faults, stats.faults),
            (&mut all.entries, stats.entries),
            (&mut all.installs, stats.installs),
            (&mut all.rebuilds, stats.rebuilds),
            (&mut all.watched, stats.watched),
            (&mut all.leases, stats.leases),
            (&mut all.moves, stats.moves),
        ] {
            *sum += count;
        }
        all.leaders += stats.leaders;
        for (kind, count) in &stats.by_kind {
            *all.by_kind.entry(*kind).or_default() += count;
        }
        if let Some((at, text)) = &report.broken {
            let at = format!("{}.{:06}", at / 1_000_000, at % 1_000_000);
            self.broken.insert(report.options.seed, format!("at {at}: {text}"));
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, all, slowest, broken } = self;
        writeln!(
            f,
            "{seeds} seeds, {} broken: {} s of simulated time, {} events; the slowest seed, {}, took {} ms",
            broken.len(),
            all.time / 1_000_000,
            all.events,
            slowest.1,
            slowest.0
        )?;
        writeln!(
            f,
            "  {} operations: {} ok, {} without a known outcome; {} entries under {} leaders, {} leases, {} watch events",
            all.operations, all.ok, all.unknown, all.entries, all.leaders, all.leases, all.watched
        )?;
        writeln!(
            f,
            "  {} snapshots installed, {} stores rebuilt, {} membership changes",
            all.installs, all.rebuilds, all.moves
        )?;
        let kinds: Vec<_> = all.by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        write!(f, "  {} faults with effect: {}", all.faults, kinds.join(", "))
    }
}

/// Runs all seeds by one plan and adds them up; calls `seen` after each with the sums so far, one at a time.
pub fn campaign(
    seeds: Range<u64>,
    threads: usize,
    plan: &Plan,
    around: impl Fn(&mut dyn FnMut()) + Sync,
    seen: impl Fn(&Report, &Sums) + Sync,
) -> Sums {
    let sums = Mutex::new(Sums::default());
    across(seeds, threads, |seed| {
        let (began, mut report) = (Instant::now(), None);
        around(&mut || report = Some(run_by(seed, plan, Keep::Nothing, false)));
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let report = report.expect("what goes around a run runs it");
        let mut sums = sums.lock().expect("no run panics outside of itself");
        sums.add(&report, took);
        seen(&report, &sums);
        true
    });
    sums.into_inner().expect("no run panics outside of itself")
}
