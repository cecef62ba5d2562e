//! Makes a failing run smaller: fewer classes of faults, less time, fewer faults, fewer operations, as long as it fails in the
//! same way.
//!
//! Every step is a run of its own, and only what it showed counts: what is left out may let everything after it happen
//! otherwise.

use super::plan::Numbers;
use super::{Keep, Plan, Report, run_by};

/// Runs after which what was found so far is small enough for a person.
pub const RUNS_MAX: u64 = 400;

/// Operations that are left out at once, at the least: one by one would take a run for each.
const OPS_CHUNK_MIN: usize = 4;

/// A run that was made smaller.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left.
    pub plan: Plan,
    /// How it fails.
    pub report: Report,
    /// Runs that it took.
    pub runs: u64,
}

struct Shrinker<'a> {
    seed: u64,
    runs_max: u64,
    kind: String,
    best: Shrunk,
    say: &'a mut dyn FnMut(&str),
}

/// Makes the run of a seed smaller with so many runs at the most; `None` if it does not fail. Tells how far it is.
pub fn shrink(seed: u64, plan: &Plan, runs_max: u64, say: &mut dyn FnMut(&str)) -> Option<Shrunk> {
    let report = run_by(seed, plan, Keep::Nothing, false);
    let kind = kind(report.finding()?);
    let best = Shrunk { plan: plan.clone(), report, runs: 1 };
    let mut shrinker = Shrinker { seed, runs_max, kind, best, say };
    shrinker.classes();
    shrinker.time();
    shrinker.faults();
    shrinker.ops();
    // With fewer operations other classes may have become superfluous.
    shrinker.classes();
    shrinker.faults();
    Some(shrinker.best)
}

/// In what way a run failed: the rule that was broken, without the numbers of this very run.
pub fn kind(text: &str) -> String {
    let mut parts = text.split(": ");
    let first = parts.next().unwrap_or_default();
    // The rules' names have numbers of their own: R1, W13.
    let plain = |part: &str| match part.contains(' ') || part.len() > 3 {
        true => part.chars().filter(|c| !c.is_ascii_digit()).collect::<String>().trim().to_owned(),
        false => part.to_owned(),
    };
    // A panic's or a watcher's own words say more than that it was one.
    if first == "panic" || first.starts_with("watcher") || first.contains("does not open") {
        return format!("{}: {}", plain(first), parts.next().map(plain).unwrap_or_default());
    }
    plain(first)
}

impl Shrinker<'_> {
    /// Runs a smaller plan, and keeps it if it fails in the same way.
    fn try_out(&mut self, plan: Plan) -> bool {
        if plan == self.best.plan || self.best.runs >= self.runs_max {
            return false;
        }
        self.best.runs += 1;
        let report = run_by(self.seed, &plan, Keep::Nothing, false);
        let same = report.finding().is_some_and(|text| kind(text) == self.kind);
        if same {
            (self.best.plan, self.best.report) = (plan, report);
        }
        same
    }

    fn tell(&mut self, what: &str) {
        let Shrunk { plan, report, runs } = &self.best;
        let (ops, faults) = (report.stats.operations, report.faults.len());
        (self.say)(&format!("{what}: after {runs} runs {faults} faults, {ops} operations:{plan}"));
    }

    /// Leaves out whole classes of troubles.
    fn classes(&mut self) {
        for class in self.best.report.options.troubles() {
            let mut plan = self.best.plan.clone();
            if plan.without.insert(class) {
                self.try_out(plan);
            }
        }
        self.tell("classes");
    }

    /// Lets all troubles end as early and begin as late as may be.
    fn time(&mut self) {
        let end = self.best.report.broken.as_ref().map_or(0, |(at, _)| at / 1_000 + 1);
        let (mut fails, mut passes) = (self.best.plan.until.unwrap_or(end).min(end), 0);
        while fails > passes + fails / 64 + 1 {
            let middle = passes.midpoint(fails);
            let plan = Plan { until: Some(middle), ..self.best.plan.clone() };
            if self.try_out(plan) { fails = middle } else { passes = middle }
        }
        let (mut fails, mut passes) = (self.best.plan.from.unwrap_or(0), fails);
        while passes > fails + passes / 64 + 1 {
            let middle = fails.midpoint(passes);
            let plan = Plan { from: Some(middle), ..self.best.plan.clone() };
            if self.try_out(plan) { fails = middle } else { passes = middle }
        }
        self.tell("time");
    }

    /// Leaves out faults, many at once and then fewer.
    fn faults(&mut self) {
        let begun: Vec<u64> = self.best.report.faults.iter().map(|fault| fault.number).collect();
        self.thin_out(begun, 1, |plan, faults| plan.faults = Some(faults));
        self.tell("faults");
    }

    /// Leaves out operations of the clients.
    fn ops(&mut self) {
        let all: Vec<u64> = match &self.best.plan.ops {
            Some(ops) => ops.iter().collect(),
            None => (1..=self.best.report.stats.operations).collect(),
        };
        self.thin_out(all, OPS_CHUNK_MIN, |plan, ops| plan.ops = Some(ops));
        self.tell("operations");
    }

    fn thin_out(&mut self, mut left: Vec<u64>, least: usize, set: impl Fn(&mut Plan, Numbers)) {
        let with = |shrinker: &Self, numbers: &[u64]| {
            let mut plan = shrinker.best.plan.clone();
            set(&mut plan, numbers.iter().copied().collect());
            plan
        };
        let nothing = with(&*self, &[]);
        if self.try_out(nothing) {
            return;
        }
        let mut chunk = left.len().div_ceil(2).max(least);
        loop {
            let mut at = 0;
            while at < left.len() {
                let mut rest = left.clone();
                rest.drain(at..left.len().min(at + chunk));
                let plan = with(&*self, &rest);
                if self.try_out(plan) { left = rest } else { at += chunk }
            }
            if chunk <= least || left.is_empty() {
                return;
            }
            chunk = (chunk / 2).max(least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn the_way_of_a_failure_is_its_rule() {
        assert_eq!(kind("R8: in term 4 3 votes for 1 and for 2"), "R8");
        assert_eq!(kind("W13: watcher 2 is at 5 of Some(9)"), "W13");
        assert_eq!(kind("panic: to_commit 17 is out of range"), "panic: to_commit  is out of range");
        assert_eq!(kind("watcher 2 at 1: W3: revision 7 after"), "watcher  at: W3");
        assert_eq!(kind("2 does not open: D1: open: corrupt log"), "does not open: D1");
        assert_eq!(kind("read 7 is answered 8"), kind("read 12 is answered 3"));
    }
}
