//! The store's history through the auditor, from the oldest revision that is not compacted.

use crate::limits::{AUDIT_SILENCE_MAX, SHOWN_BYTES_MAX};
use anyhow::{Context as _, Result, bail};
use mechi_client::FROM_KEY as ALL;
use mechi_controller::audit::{Auditor, Finding};
use mechi_controller::keys::{ROOT, prefix_end};
use mechi_controller::kv::{Batch, Error, Event, KeyValue, Kv, Range, Revision, Watch as _};
use mechi_controller::limits::{LIST_PAGE, TRIES_MAX};
use std::io::Write;
use tokio::sync::watch;
use tokio::time::timeout;

/// What an audit has looked at, and what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The revision that it began at, whose state it took as given; 1 for an empty store.
    pub(crate) from: Revision,
    /// The last revision that it has seen.
    pub(crate) through: Revision,
    /// Revisions with changes.
    pub(crate) revisions: u64,
    /// Changes of objects.
    pub(crate) objects: u64,
    /// Violations.
    pub(crate) violations: usize,
}

/// Replays what there is, or goes on with what comes, and prints each violation with what its revision wrote.
///
/// All keys are watched, also those that are none of ours: each revision changes some key, so that it is known for certain
/// when everything has been seen.
///
/// - Errors: the store does not answer; history is compacted faster than it is read.
pub(crate) async fn run<K: Kv>(
    kv: &K,
    follow: bool,
    stop: &mut watch::Receiver<bool>,
    out: &mut impl Write,
) -> Result<Report> {
    let range = Range { key: ROOT.into(), end: prefix_end(ROOT).into(), limit: 1, revision: 0 };
    let now = kv.range(range).await.context("ask the store where it is")?;
    let mut audit = begin(kv, now.cluster_id, now.revision).await?;
    while follow || audit.report.through < now.revision {
        let next = audit.watch.next();
        let batch = tokio::select! {
            biased;
            _ = stop.changed() => break,
            batch = timeout(if follow { AUDIT_SILENCE_MAX * 100_000 } else { AUDIT_SILENCE_MAX }, next) => batch,
        };
        let batch = batch.context("the store tells no more of its history")?.context("read the history")?;
        audit.see(kv, batch, out).await?;
    }
    let (revisions, objects) = audit.auditor.looked_at();
    let violations = audit.auditor.findings().len() + audit.auditor.more();
    let report = Report { revisions, objects, violations, ..audit.report };
    writeln!(
        out,
        "looked at {revisions} revisions, from {} to {}, with {objects} changes of objects: {}",
        report.from,
        report.through,
        match violations {
            0 => "no violation".to_owned(),
            1 => "1 violation".to_owned(),
            more => format!("{more} violations"),
        }
    )?;
    Ok(report)
}

struct Audit<K: Kv> {
    auditor: Auditor,
    watch: K::Watch,
    report: Report,
}

/// Takes what is there where history begins, and follows it from there.
async fn begin<K: Kv>(kv: &K, cluster_id: u64, now: Revision) -> Result<Audit<K>> {
    for _ in 0..TRIES_MAX {
        let from = oldest(kv, now).await?;
        let items = match from {
            1 => Vec::new(),
            from => match list(kv, from).await {
                // Whoever compacts is ahead of us.
                Err(Error::Compacted(_)) => continue,
                items => items.context("list what is there where history begins")?,
            },
        };
        let watch = kv.watch(ALL, ALL, from + 1).await.context("watch the history")?;
        let report = Report { from, through: from, ..Report::default() };
        return Ok(Audit { auditor: Auditor::begin(cluster_id, items, from), watch, report });
    }
    bail!("history is compacted faster than it is read")
}

/// The oldest revision whose state is still there: 1, before which there is nothing, or the one that was compacted at.
async fn oldest<K: Kv>(kv: &K, now: Revision) -> Result<Revision> {
    if now <= 1 {
        return Ok(1);
    }
    let first = async {
        let mut watch = kv.watch(ALL, ALL, 1).await?;
        watch.next().await
    };
    match timeout(AUDIT_SILENCE_MAX, first).await.context("the store tells nothing of its history")? {
        Ok(_) => Ok(1),
        Err(Error::Compacted(compacted)) => Ok(compacted),
        Err(error) => Err(error).context("watch the history"),
    }
}

async fn list<K: Kv>(kv: &K, revision: Revision) -> Result<Vec<KeyValue>, Error> {
    let mut range = Range { key: ROOT.into(), end: prefix_end(ROOT).into(), limit: LIST_PAGE, revision };
    let mut all = Vec::new();
    loop {
        let page = kv.range(range.clone()).await?;
        if let Some(last) = page.items.last() {
            range.key = [&last.key[..], &[0]].concat().into();
        }
        all.extend(page.items);
        if !page.more {
            return Ok(all);
        }
    }
}

impl<K: Kv> Audit<K> {
    /// Looks at whole revisions, one at a time, so that each finding is shown with what was written.
    async fn see(&mut self, kv: &K, batch: Batch, out: &mut impl Write) -> Result<()> {
        let mut rest = &batch.events[..];
        while let Some(revision) = rest.first().map(Event::revision) {
            let behind = rest.iter().position(|event| event.revision() != revision).unwrap_or(rest.len());
            let (events, later) = rest.split_at(behind);
            rest = later;
            let known = self.auditor.findings().len();
            self.auditor.see(Batch { events: events.to_vec(), through: revision });
            for finding in &self.auditor.findings()[known..] {
                show(kv, finding, events, out).await?;
            }
        }
        self.report.through = self.report.through.max(batch.through);
        Ok(())
    }
}

/// Prints a violation, what stood there before, and everything that its revision wrote.
async fn show<K: Kv>(kv: &K, finding: &Finding, events: &[Event], out: &mut impl Write) -> Result<()> {
    writeln!(out, "{finding}")?;
    let end = [finding.key.as_bytes(), &[0]].concat().into();
    let range = Range { key: finding.key.clone().into(), end, limit: 1, revision: finding.revision - 1 };
    let before = match kv.range(range).await {
        Ok(page) => page.items.first().map_or("absent".to_owned(), |item| text(&item.value)),
        Err(error) => format!("not to be had any more: {error}"),
    };
    writeln!(out, "  before: {} {before}", finding.key)?;
    for event in events {
        let key = String::from_utf8_lossy(event.key());
        match event {
            Event::Put(now) => writeln!(
                out,
                "  revision {} put {key} (created {}, version {}) {}",
                now.modified,
                now.created,
                now.version,
                text(&now.value)
            )?,
            Event::Delete { revision, .. } => writeln!(out, "  revision {revision} delete {key}")?,
        }
    }
    Ok(())
}

fn text(value: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&value[..value.len().min(SHOWN_BYTES_MAX)]).into_owned();
    if value.len() > SHOWN_BYTES_MAX { format!("{shown}… ({} bytes)", value.len()) } else { shown }
}
