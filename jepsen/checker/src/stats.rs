//! Whether a run says anything: one with too little traffic, or with faults that did nothing, has failed.
//!
//! - Source: etcd's robustness tests fail a run below a minimum of requests, or whose last request fails.

use crate::history::{History, Kind, Malformed};
use crate::verdict::{Finding, Verdict};

/// What a run must have had.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Successful operations per second before the first fault.
    pub ok_per_second: u64,
    /// Faults with an effect.
    pub effects: u64,
    /// After healing there is a success in every such stretch.
    pub silence_ns: u64,
    /// How many in a thousand of the parts that were judged may stay without a verdict.
    pub unknown_per_mille: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { ok_per_second: 100, effects: 5, silence_ns: 10 * SECOND_NS, unknown_per_mille: 10 }
    }
}

/// What only the runner knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Faults that were seen to do something: a leader changed, a member was down, bytes were flipped.
    pub effects: u64,
    /// When all faults were healed.
    pub healed_ns: u64,
    /// When clients stopped.
    pub ended_ns: u64,
    /// Parts that were judged by themselves, and how many of them stayed without a verdict.
    pub judged: u64,
    /// See above.
    pub unknown: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

/// Numbers of a history, for a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counts {
    pub ok: u64,
    pub fail: u64,
    pub info: u64,
    pub nemesis: u64,
}

/// Counts outcomes.
pub fn counts(history: &History) -> Counts {
    let mut counts = Counts { nemesis: history.nemesis().count() as u64, ..Counts::default() };
    for op in history.ops().iter().filter(|op| op.process != crate::history::Process::Nemesis) {
        match op.kind {
            Kind::Invoke => {}
            Kind::Ok => counts.ok += 1,
            Kind::Fail => counts.fail += 1,
            Kind::Info => counts.info += 1,
        }
    }
    counts
}

/// Checks that a run was one.
///
/// - Errors: a malformed history.
pub fn check(history: &History, run: &Run, wanted: &Wanted) -> Result<Verdict, Malformed> {
    let pairs = history.pairs()?;
    let mut findings = Vec::new();
    let mut bad = |text: String| findings.push(Finding::new("validity", text, []));
    let mut ok: Vec<u64> =
        pairs.iter().filter(|pair| pair.done.kind == Kind::Ok).map(|pair| pair.done.time_ns).collect();
    ok.sort_unstable();
    let first = history.nemesis().next().map_or(run.ended_ns, |op| op.time_ns);
    let before = ok.partition_point(|at| *at < first) as u64;
    // In exact integers: so many per second are so many times a second's nanoseconds.
    if u128::from(before) * u128::from(SECOND_NS) < u128::from(wanted.ok_per_second) * u128::from(first) || before == 0
    {
        bad(format!(
            "{before} successes in the {} ms before the first fault, wanted {} per second",
            first / 1_000_000,
            wanted.ok_per_second
        ));
    }
    if run.effects < wanted.effects {
        bad(format!("{} faults had an effect, wanted {}", run.effects, wanted.effects));
    }
    let after = ok.iter().copied().filter(|at| *at >= run.healed_ns).chain([run.ended_ns]);
    let mut last = run.healed_ns;
    for at in after {
        if at.saturating_sub(last) > wanted.silence_ns {
            bad(format!("no success between {last} and {at}, after all was healed"));
        }
        last = last.max(at);
    }
    match pairs.iter().max_by_key(|pair| (pair.done.time_ns, pair.done.index)) {
        Some(pair) if pair.done.kind != Kind::Ok => {
            bad(format!("the last operation, {}, did not succeed", pair.id()));
        }
        Some(_) => {}
        None => bad("nobody did anything".into()),
    }
    if run.unknown * 1_000 > run.judged * wanted.unknown_per_mille {
        bad(format!("{} of {} parts have no verdict", run.unknown, run.judged));
    }
    Ok(Verdict::of(findings))
}
