//! The verdict on a run, out of nothing but the files in its directory: judged again, it is the same.

use crate::cluster::LATE;
use crate::recorder::{HISTORY, REQUESTS, RUN, WATCH};
use crate::resolve::{MERGED, map_of, read as read_merged, settle};
use crate::workload::{CATCH_UP, HASHES, Workload};
use anyhow::{Context, Result};
use mechi_checker::edn::{Edn, read_lines};
use mechi_checker::history::value::Value;
use mechi_checker::history::{History, Kind, file};
use mechi_checker::judge::{Evidence, judge as judge_history};
use mechi_checker::lease::Bounds;
use mechi_checker::revision::Logged;
use mechi_checker::verdict::{Finding, Results, Verdict};
use mechi_checker::watch::{Ending, Stream};
use mechi_checker::{hash, lock, logs, stats, timeline, watch};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

/// What was run.
pub const OPTIONS: &str = "options.edn";
/// The verdict.
pub const RESULTS: &str = "results.edn";
/// What clients did, drawn, if something is wrong with it.
pub const TIMELINE: &str = "timeline.svg";
/// The same of single requests.
pub const REQUESTS_TIMELINE: &str = "requests.svg";
/// The registers' operations as Jepsen's tuples of independent keys.
pub const TUPLES: &str = "history-tuples.edn";
/// The members' logs.
pub const LOGS: &str = "logs";

/// How late a lease may end beside an election, on a machine that has much to do.
const LEASE_LATE: Duration = Duration::from_secs(4);

/// An election's time if the options say none.
const ELECTION_MS: u64 = 1_000;

/// Faults that must have had an effect, if the options say nothing.
const EFFECTS: u64 = 5;

/// Everything that is known of a run.
struct Run {
    options: Edn,
    facts: Edn,
    workload: Workload,
    members: Vec<String>,
    history: History,
    /// Single requests, if they are another history.
    requests: Option<History>,
    streams: Vec<Stream>,
    hashes: Option<Vec<hash::Answer>>,
    log: Option<Vec<Logged>>,
    /// Why there is no log although one was wanted, and where members differ.
    why: Option<String>,
    differ: Vec<String>,
}

/// Judges the run in `dir`, and writes [`RESULTS`] and, of a run with findings, pictures of them.
///
/// - Errors: a file that is missing, cannot be read, or holds no history.
pub fn judge(dir: &Path) -> Result<Results> {
    let run = read(dir)?;
    let mut results = Results::default();
    let mut notes: Vec<(&str, Edn)> = Vec::new();
    // Where the log is there, what is unknown may be known to have never happened.
    let (history, settled) = match &run.log {
        Some(log) => settle(&run.history, log),
        None => (run.history.clone(), 0),
    };
    notes.push(("settled", Edn::from(settled as u64)));
    let requests = run.requests.as_ref().unwrap_or(&history);

    let evidence = run.evidence(requests);
    let of_requests = judge_history(&evidence)?;
    let of_operations = match &run.requests {
        Some(_) => judge_history(&Evidence::of(&history))?,
        None => Results::default(),
    };
    // On a machine that had no time for the run, what only came late is no finding.
    let starved = run.starved();
    let timed =
        |finding: &Finding| starved && (["L2", "W13"].contains(&&finding.rule[..]) || finding.text.contains(LATE));
    for (name, verdict) in of_requests.each().chain(of_operations.each()) {
        // Without a fence the lock's set is known to lose elements: that is counted, not judged.
        if run.workload == Workload::Lock && name == "set" {
            notes.push(("lost-without-a-fence", Edn::from(verdict.findings().len() as u64)));
            continue;
        }
        results.note(name, excused(verdict.clone(), timed));
    }
    if matches!(run.workload, Workload::Lock | Workload::LockFenced | Workload::Election) {
        notes.push(("held-by-two-at-once", lock::overlaps(&history)?.into()));
    }
    let differ = run.differ.iter().map(|text| Finding::new("R4", text.clone(), []));
    results.note("log", Verdict::of(differ.collect()));
    for verdict in run.logs(dir)? {
        results.note("logs", excused(verdict, timed));
    }
    let judged = results.each().count() as u64;
    let unknown = results.each().filter(|(_, verdict)| matches!(verdict, Verdict::Unknown(_))).count() as u64;
    // One in which too little happened is neither right nor wrong: it says nothing.
    results.note("stats", excused(run.stats(requests, judged, unknown)?, |_| true));
    if let Some(why) = &run.why {
        notes.push(("no-merged-log", Edn::text(why)));
    }
    notes.push(("starved", Edn::Bool(starved)));
    notes.push(("merged-log", Edn::Bool(run.log.is_some())));
    write(dir, &run, &results, notes, &history, requests, &of_operations, &of_requests)?;
    Ok(results)
}

fn read(dir: &Path) -> Result<Run> {
    let options = map_of(&dir.join(OPTIONS))?;
    let facts = map_of(&dir.join(RUN))?;
    let open = |name: &str| {
        let path = dir.join(name);
        File::open(&path).map(BufReader::new).with_context(|| format!("open {}", path.display()))
    };
    let workload = options.get("workload").name().unwrap_or_default();
    let workload = workload.parse().map_err(anyhow::Error::msg)?;
    let members = options.get("members").items().unwrap_or_default();
    let members = members.iter().filter_map(|member| member.name().map(str::to_owned)).collect();
    let history = file::read(open(HISTORY)?).context("read the history")?;
    let requests = match dir.join(REQUESTS).exists() {
        true => Some(file::read(open(REQUESTS)?).context("read the requests")?),
        false => None,
    };
    let streams = match dir.join(WATCH).exists() {
        true => watch::read(open(WATCH)?).context("read what watchers saw")?,
        false => vec![],
    };
    let hashes = match dir.join(HASHES).exists() {
        true => {
            let mut answers = Vec::new();
            read_lines(open(HASHES)?, |line| {
                let bad = |what| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
                answers.push(hash::Answer::from_edn(&line).map_err(bad)?);
                Ok(())
            })?;
            Some(answers)
        }
        false => None,
    };
    let merged = match dir.join(MERGED).exists() {
        true => read_merged(&dir.join(MERGED))?,
        false => Default::default(),
    };
    let (log, why, differ) = (merged.log, merged.why, merged.differ);
    Ok(Run { options, facts, workload, members, history, requests, streams, hashes, log, why, differ })
}

impl Run {
    fn evidence<'a>(&'a self, requests: &'a History) -> Evidence<'a> {
        let election = Duration::from_millis(self.options.get("election-ms").unsigned().unwrap_or(ELECTION_MS));
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Evidence {
            log: self.log.as_deref(),
            streams: &self.streams,
            hashes: self.hashes.as_deref().map(|answers| (answers, &self.members[..])),
            leases: Bounds { late_ns: ns(LEASE_LATE + 2 * election), leaderless_ns: leaderless(requests) },
            ending: Ending { healed_ns: self.facts.get("quiet").unsigned(), catch_up_ns: ns(CATCH_UP) },
            ..Evidence::of(requests)
        }
    }

    /// Whether the runner was kept waiting for a tenth of the time.
    fn starved(&self) -> bool {
        let ns = |name: &str| self.facts.get(name).unsigned().unwrap_or(0);
        ns("late") > ns("ended") / 10
    }

    fn stats(&self, requests: &History, judged: u64, unknown: u64) -> Result<Verdict> {
        let effects = self.facts.get("effects").items().unwrap_or_default().len() as u64;
        let healed_ns = self.facts.get("healed").unsigned().unwrap_or(0);
        let ended_ns = self.facts.get("quiet").unsigned().or(self.facts.get("ended").unsigned()).unwrap_or(0);
        let facts = stats::Run { effects, healed_ns, ended_ns, judged, unknown };
        let wanted = stats::Wanted {
            ok_per_second: self.workload.ok_per_second(),
            effects: self.options.get("effects-wanted").unsigned().unwrap_or(EFFECTS),
            ..stats::Wanted::default()
        };
        Ok(stats::check(requests, &facts, &wanted)?)
    }

    /// What each member's log says.
    fn logs(&self, dir: &Path) -> Result<Vec<Verdict>> {
        let expected = self.options.get("expected-logs").items().unwrap_or_default();
        let expected: Vec<&str> = expected.iter().filter_map(Edn::name).collect();
        let folder = dir.join(LOGS);
        let mut found = Vec::new();
        if !folder.is_dir() {
            return Ok(found);
        }
        let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths.iter().filter(|path| path.is_file()) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
            found.push(logs::check(&name, BufReader::new(file), &expected)?);
        }
        Ok(found)
    }
}

/// What is wrong but for reasons that do not count is unknown.
fn excused(verdict: Verdict, does_not_count: impl Fn(&Finding) -> bool) -> Verdict {
    let Verdict::Invalid(findings) = verdict else { return verdict };
    let (open, wrong): (Vec<_>, Vec<_>) = findings.into_iter().partition(does_not_count);
    match wrong.is_empty() {
        true => Verdict::Unknown(open.into_iter().map(|finding| finding.text).collect()),
        false => Verdict::Invalid(wrong),
    }
}

/// When there may have been no leader, or a new one: around each fault, and wherever answers name a later term.
fn leaderless(requests: &History) -> Vec<(u64, u64)> {
    let mut spans: Vec<(u64, u64)> =
        timeline::bands(requests).into_iter().map(|(from, till, _)| (from, till)).collect();
    let mut last: Option<(u64, u64)> = None;
    for op in requests.ops().iter().filter(|op| op.kind == Kind::Ok) {
        // An answer that only its member made may name an older term.
        let Some(term) = op.raft_term.filter(|_| !matches!(&op.value, Value::Other { .. })) else { continue };
        match last {
            Some((at, before)) if term > before => {
                spans.push((at, op.time_ns));
                last = Some((op.time_ns, term));
            }
            Some((at, before)) if term == before => last = Some((at.max(op.time_ns), term)),
            None => last = Some((op.time_ns, term)),
            Some(_) => {}
        }
    }
    spans
}

#[allow(clippy::too_many_arguments)]
fn write(
    dir: &Path,
    run: &Run,
    results: &Results,
    notes: Vec<(&str, Edn)>,
    history: &History,
    requests: &History,
    of_operations: &Results,
    of_requests: &Results,
) -> Result<()> {
    let counts = |history: &History| {
        let counts = stats::counts(history);
        Edn::map([
            ("ok", counts.ok.into()),
            ("fail", counts.fail.into()),
            ("info", counts.info.into()),
            ("nemesis", Edn::from(counts.nemesis)),
        ])
    };
    let Edn::Map(mut map) = results.to_edn() else { anyhow::bail!("results are a map") };
    let mut add = |name: &str, value: Edn| drop(map.insert(Edn::keyword(name), value));
    for name in ["workload", "nemesis", "seed", "seconds", "server", "commit", "command"] {
        add(name, run.options.get(name).clone());
    }
    let effects = run.facts.get("effects").items().unwrap_or_default().len() as u64;
    add("effects", effects.into());
    add("operations", counts(history));
    add("requests", counts(requests));
    add("watchers", Edn::from(run.streams.len() as u64));
    let events = run.streams.iter().flat_map(|stream| &stream.received).map(|(_, received)| match received {
        watch::Received::Events { events, .. } => events.len() as u64,
        _ => 0,
    });
    add("watch-events", Edn::from(events.sum::<u64>()));
    for (name, value) in notes {
        add(name, value);
    }
    fs::write(dir.join(RESULTS), format!("{}\n", Edn::Map(map))).context("write the results")?;
    if run.workload == Workload::Register {
        let path = dir.join(TUPLES);
        let mut out = BufWriter::new(File::create(&path).with_context(|| format!("create {}", path.display()))?);
        file::write(&run.history, file::Form::Tuples, &mut out).context("write the tuples")?;
        out.flush().context("write the tuples")?;
    }
    let pictures =
        [(TIMELINE, history, of_operations, run.requests.is_some()), (REQUESTS_TIMELINE, requests, of_requests, true)];
    for (name, history, results, there) in pictures {
        let path = dir.join(name);
        if there && !results.verdict().findings().is_empty() {
            fs::write(&path, timeline::svg(history, results)).with_context(|| format!("write {}", path.display()))?;
        } else if path.exists() {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Done, Level, Recorder};
    use mechi_checker::history::value::Set;

    /// A run in which a set's element is there, or is lost.
    fn run(lost: bool, workload: &str) -> (tempfile::TempDir, Results) {
        let home = tempfile::tempdir().expect("a folder");
        let recorder = Recorder::create(home.path()).expect("begins");
        let value = |set| Value::Set(set);
        for element in 0..3 {
            recorder.invoke(Level::Operation, 0, value(Set::Add(element)), None);
            recorder.complete(Level::Operation, 0, Done::new(Kind::Ok, value(Set::Add(element))));
        }
        recorder.nemesis("kill", Edn::Nil);
        recorder.healed();
        recorder.quiet();
        recorder.invoke(Level::Operation, 0, value(Set::Read(None)), None);
        let seen = (i64::from(lost)..3).collect();
        recorder.complete(Level::Operation, 0, Done::new(Kind::Ok, value(Set::Read(Some(seen)))));
        recorder.finish().expect("writes");
        let options = format!("{{:workload {workload:?}, :nemesis \"kill\", :members [\"n1\"], :effects-wanted 0}}");
        fs::write(home.path().join(OPTIONS), options).expect("writes");
        fs::create_dir(home.path().join(LOGS)).expect("makes");
        fs::write(home.path().join(LOGS).join("n1.log"), "all is well\n").expect("writes");
        let results = judge(home.path()).expect("judges");
        (home, results)
    }

    #[test]
    fn a_run_is_judged_by_its_files_and_a_failure_is_drawn() {
        let rules = |results: &Results, name: &str| {
            let found = results.each().find(|(checker, _)| *checker == name);
            found.map(|(_, verdict)| verdict.findings().iter().map(|it| it.rule.clone()).collect::<Vec<_>>())
        };
        let (_home, results) = run(false, "set");
        assert_eq!(rules(&results, "set"), Some(vec![]), "{}", results.to_edn());
        let (home, results) = run(true, "set");
        assert_eq!(rules(&results, "set"), Some(vec!["lost".to_owned()]), "{}", results.to_edn());
        let written = map_of(&home.path().join(RESULTS)).expect("is a map");
        assert_eq!(written.get("valid?"), &Edn::Bool(false));
        assert_eq!(written.get("workload").name(), Some("set"));
        let picture = fs::read_to_string(home.path().join(TIMELINE)).expect("is drawn");
        assert!(picture.contains("has lost 0"), "{picture}");
    }

    #[test]
    fn a_lock_without_a_fence_loses_elements_and_that_is_counted() {
        let (home, results) = run(true, "lock");
        assert!(results.each().all(|(name, _)| name != "set"), "{}", results.to_edn());
        let written = map_of(&home.path().join(RESULTS)).expect("is a map");
        assert_eq!(written.get("lost-without-a-fence").int(), Some(1), "{written}");
    }
}
