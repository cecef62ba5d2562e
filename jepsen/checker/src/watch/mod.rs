//! What a watcher may see: every event of its range, once, in order, whole, and nothing before it was asked for.
//!
//! Each stream is held against the events that there really were: those of the revision oracle's replay, or of the
//! members' logs. The rules are W1 to W13 of the list of invariants; what etcd promises is on its page "KV API
//! guarantees" (ordered, unique, reliable, atomic, resumable, bookmarkable).

mod record;
mod stream;

pub use record::{Event, Received, Request, Stream, closed_line, read, received_line, request_line, write};

use crate::model::Change;
use crate::verdict::{Finding, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that happened to the keys, by revision.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    changes: Vec<Change>,
    /// When each revision was first known to exist; what comes after the end of the run was never waited for.
    known_ns: BTreeMap<i64, u64>,
    /// Each compaction that may have happened: its revision, and when it was asked for.
    compactions: Vec<(i64, u64)>,
}

impl Truth {
    /// From the changes in order, the times at which revisions were first answered, and all compactions asked for.
    pub fn new(
        changes: impl IntoIterator<Item = Change>,
        known_ns: BTreeMap<i64, u64>,
        compactions: impl IntoIterator<Item = (i64, u64)>,
    ) -> Self {
        Self { changes: changes.into_iter().collect(), known_ns, compactions: compactions.into_iter().collect() }
    }

    /// The newest revision.
    pub fn last(&self) -> i64 {
        self.changes.last().map_or(1, |change| change.revision)
    }

    fn after(&self, revision: i64) -> &[Change] {
        &self.changes[self.changes.partition_point(|change| change.revision <= revision)..]
    }

    fn at(&self, revision: i64) -> &[Change] {
        let rest = self.after(revision - 1);
        &rest[..rest.partition_point(|change| change.revision <= revision)]
    }

    /// Whether a compaction that was asked for by `now_ns` reaches `revision`.
    fn compacted(&self, revision: i64, now_ns: u64) -> bool {
        self.compactions.iter().any(|(at, asked)| *at >= revision && *asked <= now_ns)
    }
}

/// What is asked of the streams at the end of the run.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// When all was healed and nothing was written any more; `None` if the run did not end so.
    pub healed_ns: Option<u64>,
    /// How long a stream may then take to catch up.
    pub catch_up_ns: u64,
}

/// Checks all streams. Findings name the request by the number of its stream, as an operation's index would be.
pub fn check(streams: &[Stream], truth: &Truth, ending: &Ending) -> Verdict {
    let mut findings: Vec<Finding> = streams.iter().flat_map(|stream| stream::check(stream, truth, ending)).collect();
    let mut ids = BTreeSet::new();
    for stream in streams {
        if !ids.insert(stream.id) {
            findings.push(Finding::new("W11", format!("there are two streams {}", stream.id), [stream.id]));
        }
    }
    Verdict::of(findings)
}
