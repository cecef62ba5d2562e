//! What a run came to: the verdict, and the page and the numbers that say why.

use super::ControlOptions;
use super::harm::KINDS;
use super::progress::PREEMPTIONS;
use super::record::Looked;
use super::trace::Tally;
use crate::cell::commit;
use crate::limits::{REVISIONS_PER_SECOND_MIN, SECONDS_PER_EFFECT};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// The files, in the run's folder.
pub const RESULT: &str = "result.json";
/// The same for people.
pub const PAGE: &str = "result.md";

/// A run shorter than this is not asked for each kind of fault.
const EVERY_KIND_FROM: Duration = Duration::from_secs(300);

/// Whether a run says anything, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Enough happened, and nothing was wrong.
    Valid,
    /// Something was wrong.
    Wrong,
    /// Nothing was seen to be wrong, and too little happened for that to mean anything.
    Unknown,
}

/// What a run did and found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What must never be, and was.
    pub findings: Vec<String>,
    /// Findings beyond those that were kept.
    pub more: usize,
    /// What there was too little of.
    pub gaps: Vec<String>,
    pub(super) facts: Facts,
}

/// What happened, in numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Seconds of faults.
    pub(super) harm: Duration,
    pub(super) faults: BTreeMap<&'static str, Tally>,
    pub(super) looked: Looked,
    /// Orders of people: done, refused, of unknown outcome.
    pub(super) orders: [u64; 3],
    /// Lists of the watchers of this run.
    pub(super) lists: u64,
    /// Lines of the fake nodes' journal.
    pub(super) journal_lines: u64,
    /// Looks of schedulers at their own queues.
    pub(super) queue_audits: u64,
    /// What the control plane's metrics count, over all processes.
    pub(super) metrics: BTreeMap<&'static str, u64>,
    /// From the last fault until everything was as it was wanted; `None` if it did not come to that.
    pub(super) settled: Option<Duration>,
    /// How much of the time this process was kept waiting.
    pub(super) late_percent: f64,
}

impl Outcome {
    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        match (self.findings.is_empty() && self.more == 0, self.gaps.is_empty()) {
            (false, _) => Verdict::Wrong,
            (true, false) => Verdict::Unknown,
            (true, true) => Verdict::Valid,
        }
    }

    /// The verdict in a word.
    pub fn word(&self) -> &'static str {
        match self.verdict() {
            Verdict::Valid => "valid",
            Verdict::Wrong => "INVALID",
            Verdict::Unknown => "unknown",
        }
    }

    /// Adds what there was too little of.
    pub(super) fn weigh(&mut self) {
        let seconds = self.facts.harm.as_secs();
        let effects: u64 = self.facts.faults.values().map(|tally| tally.effects).sum();
        let at_least = |what: &str, is: u64, wanted: u64, gaps: &mut Vec<String>| {
            if is < wanted {
                gaps.push(format!("{what}: {is}, and {wanted} were wanted"));
            }
        };
        let gaps = &mut self.gaps;
        at_least("faults with an effect", effects, (seconds / SECONDS_PER_EFFECT).max(1), gaps);
        at_least("revisions", self.facts.looked.revisions, seconds * REVISIONS_PER_SECOND_MIN, gaps);
        at_least("changes of objects", self.facts.looked.objects, 1, gaps);
        at_least("orders of people that were done", self.facts.orders[0], seconds / 2, gaps);
        at_least("pages and batches of watchers (S9)", self.facts.looked.judged, 1, gaps);
        at_least("lines of the nodes' journal (S10)", self.facts.journal_lines, 1, gaps);
        at_least("looks at schedulers' queues (S11)", self.facts.queue_audits, 1, gaps);
        if self.facts.harm >= EVERY_KIND_FROM {
            let preemptions = self.facts.metrics.get(PREEMPTIONS).copied().unwrap_or(0);
            at_least("pods for which others had to go (S13)", preemptions, 1, gaps);
            for kind in KINDS {
                let tally = self.facts.faults.get(kind).copied().unwrap_or_default();
                at_least(&format!("effects of {kind}"), tally.effects, 1, gaps);
            }
        }
    }

    fn to_json(&self, options: &ControlOptions) -> Value {
        let facts = &self.facts;
        let faults = facts
            .faults
            .iter()
            .map(|(kind, tally)| (kind.to_string(), json!({"rounds": tally.rounds, "effects": tally.effects})));
        let faults: serde_json::Map<String, Value> = faults.collect();
        json!({
            "verdict": self.word(),
            "findings": self.findings,
            "moreFindings": self.more,
            "gaps": self.gaps,
            "command": options.command(),
            "commit": commit(),
            "seed": options.seed,
            "server": options.server,
            "loadSeconds": options.load.as_secs_f64(),
            "harmSeconds": facts.harm.as_secs_f64(),
            "nodes": options.nodes,
            "people": options.people,
            "faults": faults,
            "revisions": facts.looked.revisions,
            "changesOfObjects": facts.looked.objects,
            "leaders": facts.looked.leaders,
            "watched": facts.looked.judged,
            "watchersLists": facts.lists,
            "orders": {"done": facts.orders[0], "refused": facts.orders[1], "unknown": facts.orders[2]},
            "journalLines": facts.journal_lines,
            "queueAudits": facts.queue_audits,
            "metrics": facts.metrics,
            "settledAfterSeconds": facts.settled.map(|settled| settled.as_secs_f64()),
            "latePercent": facts.late_percent,
        })
    }

    fn to_page(&self, options: &ControlOptions) -> Result<String> {
        let facts = &self.facts;
        let mut page = format!("# The control plane under faults: {}\n\n`{}`\n\n", self.word(), options.command());
        for (title, lines) in [("What is wrong", &self.findings), ("What there was too little of", &self.gaps)] {
            if !lines.is_empty() {
                writeln!(page, "## {title}\n")?;
                lines.iter().try_for_each(|line| writeln!(page, "- {line}"))?;
                writeln!(page)?;
            }
        }
        if self.more > 0 {
            writeln!(page, "{} more findings were not kept.\n", self.more)?;
        }
        writeln!(page, "| fault | rounds | with an effect |\n| --- | ---: | ---: |")?;
        for kind in KINDS {
            let Tally { rounds, effects } = facts.faults.get(kind).copied().unwrap_or_default();
            writeln!(page, "| {kind} | {rounds} | {effects} |")?;
        }
        let settled = facts.settled.map_or("never".to_owned(), |settled| format!("{:.1} s", settled.as_secs_f64()));
        let leaders: Vec<String> =
            facts.looked.leaders.iter().map(|(component, count)| format!("{component} {count}")).collect();
        let rows = [
            ("server", options.server.clone()),
            ("seconds of load, of faults", format!("{}, {}", options.load.as_secs(), facts.harm.as_secs())),
            ("revisions, changes of objects", format!("{}, {}", facts.looked.revisions, facts.looked.objects)),
            ("orders done, refused, unknown", format!("{}, {}, {}", facts.orders[0], facts.orders[1], facts.orders[2])),
            ("leaders", leaders.join(", ")),
            ("watchers' pages and batches, lists", format!("{}, {}", facts.looked.judged, facts.lists)),
            ("journal lines", facts.journal_lines.to_string()),
            ("looks at queues", facts.queue_audits.to_string()),
            ("settled after the last fault", settled),
            ("this process was kept waiting", format!("{:.1} % of the time", facts.late_percent)),
        ];
        writeln!(page, "\n| | |\n| --- | --- |")?;
        for (what, is) in rows {
            writeln!(page, "| {what} | {is} |")?;
        }
        for (name, count) in &facts.metrics {
            writeln!(page, "| `{name}` | {count} |")?;
        }
        Ok(page)
    }

    /// Writes both files.
    ///
    /// - Errors: one cannot be written.
    pub(super) fn write(&self, options: &ControlOptions) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.to_json(options))?;
        for (name, text) in [(RESULT, text), (PAGE, self.to_page(options)?)] {
            let path = options.dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A run of ten minutes of which nothing can be said.
    fn enough() -> Outcome {
        let looked = Looked { revisions: 100_000, objects: 1, judged: 1, ..Looked::default() };
        let faults = KINDS.map(|kind| (kind, Tally { rounds: 9, effects: 8 })).into();
        let facts = Facts {
            harm: Duration::from_secs(600),
            faults,
            looked,
            orders: [1_000, 0, 0],
            journal_lines: 1,
            queue_audits: 1,
            metrics: [(PREEMPTIONS, 1)].into(),
            ..Facts::default()
        };
        Outcome { facts, ..Outcome::default() }
    }

    #[test]
    fn a_run_is_valid_only_if_enough_happened() {
        let mut outcome = enough();
        outcome.weigh();
        assert_eq!(outcome.verdict(), Verdict::Valid, "{:?}", outcome.gaps);

        let mut idle = enough();
        idle.facts.faults.remove("compact");
        idle.facts.looked.revisions = 2_999;
        idle.facts.orders[0] = 299;
        idle.facts.metrics.clear();
        idle.weigh();
        let gaps = [
            "revisions: 2999, and 3000 were wanted",
            "orders of people that were done: 299, and 300 were wanted",
            "pods for which others had to go (S13): 0, and 1 were wanted",
            "effects of compact: 0, and 1 were wanted",
        ];
        assert_eq!((idle.verdict(), idle.gaps), (Verdict::Unknown, gaps.map(str::to_owned).to_vec()));

        let mut wrong = enough();
        wrong.more = 1;
        assert_eq!(wrong.verdict(), Verdict::Wrong);
    }

    #[test]
    fn the_files_have_the_verdict_and_the_command() {
        let home = tempfile::tempdir().expect("a folder");
        let options = ControlOptions {
            server: "mechi".to_owned(),
            load: Duration::from_secs(600),
            nodes: 200,
            people: 4,
            seed: 7,
            dir: home.path().to_owned(),
        };
        let outcome = Outcome { findings: vec!["S1 at revision 3".to_owned()], ..enough() };
        outcome.write(&options).expect("is written");
        let read = |name: &str| std::fs::read_to_string(PathBuf::from(home.path()).join(name)).expect("is there");
        let result: Value = serde_json::from_str(&read(RESULT)).expect("is JSON");
        assert_eq!((&result["verdict"], &result["faults"]["compact"]["effects"]), (&json!("INVALID"), &json!(8)));
        let page = read(PAGE);
        assert!(page.contains("- S1 at revision 3") && page.contains("--seed 7"), "{page}");
    }
}
