//! The end of a run: faults are undone, people have their last word, everything must become as it is wanted, and what is
//! there is held against the history, the journals and the logs.

use super::people::Person;
use super::plane::{JOURNAL, Plane};
use super::record::{Record, whereabouts};
use super::settle::{forgotten, unsettled};
use super::trace::Trace;
use super::watchers::Follower;
use crate::cluster::{Cluster, LATE};
use crate::limits::{ORDER_MAX, QUIET, SETTLE_MAX};
use anyhow::{Context, Result};
use mechi_checker::logs;
use mechi_checker::verdict::Verdict;
use mechi_controller::audit::journals::{Entry, Journals, incarnation};
use mechi_controller::audit::watch::Watcher;
use mechi_controller::cache::Cache;
use mechi_controller::kv::Etcd;
use mechi_controller::types::pod::Pod;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Between two looks at whether everything is as it is wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Things that are left to be done which a finding names.
const LEFT_SHOWN: usize = 10;

/// Undoes whatever may be left of any harm, and waits until the store serves.
///
/// - Errors: a process cannot be handled, or a member does not come back, of which it is accused.
pub(super) async fn heal(cluster: &Cluster, plane: &Plane) -> Result<()> {
    cluster.heal_network();
    for n in 0..cluster.len() {
        cluster.thaw(n)?;
        cluster.ended(n);
        cluster.spawn(n)?;
    }
    plane.heal()?;
    cluster.wait_until_all_serve().await
}

/// Waits until everything that is written now has been recorded.
///
/// - Errors: the store does not answer, or the recorder does not come.
pub(super) async fn catch_up(store: &Etcd, record: &Record) -> Result<()> {
    let (_, at) = whereabouts(store).await?;
    timeout(SETTLE_MAX, record.reached(at)).await.context("the recorder does not come to where the store is")
}

/// What people were promised is there; then they say their last word.
pub(super) async fn last_words(people: &mut [Person], record: &Record, trace: &Trace) {
    for person in people.iter() {
        for lost in record.with(|cache| forgotten(cache, person.ordered())) {
            trace.finding(format!("an acknowledged order is lost: {lost}"));
        }
    }
    let deadline = Instant::now() + SETTLE_MAX;
    for person in people {
        if let Err(error) = person.settle(deadline).await {
            trace.finding(format!("no fault is left, and {error:#}"));
        }
        for lost in person.lost() {
            trace.finding(format!("an acknowledged order is lost: {lost} was there, and was not found"));
        }
    }
}

/// Waits until everything is as it is wanted and nothing is written any more; how long that took, or what is left.
///
/// - Errors: what is left to be done, in words.
pub(super) async fn settle(record: &Record, since: Instant) -> Result<Duration, Vec<String>> {
    let deadline = Instant::now() + SETTLE_MAX;
    let (mut seen, mut quiet_since) = (record.through(), Instant::now());
    loop {
        let now = record.through();
        if now != seen {
            (seen, quiet_since) = (now, Instant::now());
        }
        if quiet_since.elapsed() >= QUIET && record.with(unsettled).is_empty() {
            return Ok(quiet_since - since);
        }
        if Instant::now() >= deadline {
            let mut left = record.with(unsettled);
            if left.is_empty() {
                left.push(format!(
                    "something is still written: the last revision, {seen}, is {:?} old",
                    quiet_since.elapsed()
                ));
            }
            return Err(left);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// The first of many lines, and how many more there are.
pub(super) fn first_of(lines: &[String]) -> String {
    let shown = lines.iter().take(LEFT_SHOWN).cloned().collect::<Vec<_>>().join("; ");
    match lines.len().saturating_sub(LEFT_SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

/// Lists everything through each member: all must hold what the history says.
pub(super) async fn read_all(stores: Vec<(String, Etcd)>, record: &Arc<Record>, trace: &Arc<Trace>) {
    for (name, kv) in stores {
        let said = format!("{name} does not list what it holds, and no fault is left");
        let (record, trace) = (record.clone(), trace.clone());
        let follower = Follower { name, kv, record, trace: trace.clone(), lists: Arc::new(AtomicU64::new(0)) };
        if timeout(ORDER_MAX, follower.list(&mut Watcher::default())).await.is_err() {
            trace.finding(said);
        }
    }
}

/// S10: reads the nodes' journal, and compares what runs by it with what runs by the store. Returns its lines.
///
/// - Errors: the journal cannot be read.
pub(super) fn journal(dir: &Path, cache_says: &BTreeSet<String>, trace: &Trace) -> Result<u64> {
    let path = dir.join(JOURNAL);
    let file = std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let (mut journals, mut nodes) = (Journals::default(), BTreeSet::new());
    for line in BufReader::new(file).lines() {
        // Whoever was killed within a line has begun nothing of what it tells.
        let Ok(Entry { node, line }) = serde_json::from_str(&line?) else { continue };
        if let Some(finding) = journals.line(&node, &line) {
            trace.finding(finding.to_string());
        }
        nodes.insert(node);
    }
    let runs: BTreeSet<String> = nodes.iter().flat_map(|node| journals.runs(node)).map(str::to_owned).collect();
    let differ: Vec<String> = runs.symmetric_difference(cache_says).cloned().collect();
    if !differ.is_empty() {
        trace.finding(format!("S10: by the journals and by the store differs what runs: {}", first_of(&differ)));
    }
    Ok(journals.lines())
}

/// Pods of which a container runs by what the store has, as journals name them.
pub(super) fn running(cache: &Cache) -> BTreeSet<String> {
    cache.all::<Pod>().filter(|pod| pod.runs()).map(|pod| incarnation(&pod.metadata)).collect()
}

/// Looks through all logs: panics, ends that nobody asked for, and what schedulers found in their own queues (S11).
///
/// - Shape: what only came late goes to `gaps` if the machine had no time (`is_starved`).
/// - Errors: a log cannot be read.
pub(super) fn read_logs(
    plane: &Plane,
    stores: &Path,
    is_starved: bool,
    trace: &Trace,
    gaps: &mut Vec<String>,
) -> Result<()> {
    let mut verdict = Verdict::Valid;
    for entry in std::fs::read_dir(stores).with_context(|| format!("list {}", stores.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let file = std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
        verdict = verdict.and(logs::check(&name, BufReader::new(file), &[])?);
    }
    for (name, log) in plane.logs()? {
        verdict = verdict.and(logs::check(&name, log, &[])?);
    }
    for (name, log) in plane.logs()? {
        for line in log.split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            if line.contains("finding=S11 ") {
                trace.finding(format!("{name}: {line}"));
            }
        }
    }
    if let Verdict::Invalid(findings) = verdict {
        for finding in findings {
            if is_starved && finding.text.contains(LATE) {
                gaps.push(finding.to_string());
            } else {
                trace.finding(finding.to_string());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_controller::audit::journals::Line;

    #[test]
    fn journals_are_held_against_each_other_and_the_store() {
        let home = tempfile::tempdir().expect("a folder");
        let trace = Trace::create(home.path()).expect("begins");
        let started = |node: &str, pod: &str| {
            let line = Line::Started { pod: pod.to_owned(), container: "c".to_owned() };
            serde_json::to_string(&Entry { node: node.to_owned(), line }).expect("text")
        };
        let lines = [started("n1", "a"), "{\"node\":".to_owned(), started("n2", "b"), started("n2", "a")];
        std::fs::write(home.path().join(JOURNAL), lines.join("\n")).expect("is written");
        let says = BTreeSet::from(["a".to_owned(), "c".to_owned()]);
        assert_eq!(journal(home.path(), &says, &trace).expect("is read"), 3);
        let (findings, _) = trace.findings();
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].starts_with("S10 ") && findings[0].contains("is started on n2"), "{findings:?}");
        assert!(findings[1].ends_with("what runs: b; c"), "{findings:?}");
    }

    #[test]
    fn only_the_first_lines_are_shown() {
        let lines: Vec<String> = (0..LEFT_SHOWN + 2).map(|n| n.to_string()).collect();
        assert_eq!(first_of(&lines[..2]), "0; 1");
        assert!(first_of(&lines).ends_with("9; and 2 more"));
    }
}
