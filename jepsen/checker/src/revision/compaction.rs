//! K6: what is compacted is refused as compacted, what is not yet written as future, and nothing else is.

use super::items::Item;
use crate::history::Kind;
use crate::history::store::Request;
use crate::verdict::Finding;

/// Checks every read of a given revision against the compactions before and beside it.
pub(super) fn check(items: &[Item<'_>]) -> Vec<Finding> {
    let mut compactions: Vec<(i64, &Item<'_>)> = Vec::new();
    for item in items.iter().filter(|item| item.kind != Kind::Fail) {
        if let Request::Compaction(compaction) = item.ask {
            compactions.push((compaction.revision, item));
        }
    }
    let mut findings = Vec::new();
    let mut seen: Vec<(u64, i64, u64)> = items
        .iter()
        .filter(|item| item.kind == Kind::Ok && !item.serializable)
        .map(|item| (item.returned_ns, item.revision, item.id))
        .collect();
    seen.sort_unstable();
    // The newest revision that anyone had heard of at each moment.
    let mut newest = (0, 0);
    for (_, revision, id) in &mut seen {
        newest = newest.max((*revision, *id));
        (*revision, *id) = newest;
    }
    for item in items {
        let (asked, serializable) = match item.ask {
            Request::Range(range) => (range.revision, range.serializable),
            Request::Compaction(compaction) => (compaction.revision, false),
            _ => continue,
        };
        let compacts = matches!(item.ask, Request::Compaction(_));
        if item.kind == Kind::Ok && asked > item.revision {
            let text = format!(
                "operation {} asked for revision {asked} and was answered at {}, which is older",
                item.id, item.revision
            );
            findings.push(Finding::new("K6", text, [item.id]));
        }
        if item.kind == Kind::Ok && asked > 0 && !serializable {
            // A compaction is refused at the compacted revision itself too.
            let before = |(at, other): &&(i64, &Item<'_>)| {
                (*at > asked || compacts && *at == asked)
                    && other.id != item.id
                    && other.kind == Kind::Ok
                    && other.returned_ns < item.invoked_ns
            };
            if let Some((at, other)) = compactions.iter().find(before) {
                let text = format!(
                    "operation {} was answered for revision {asked}, although operation {} had compacted at {at} before",
                    item.id, other.id
                );
                findings.push(Finding::new("K6", text, [other.id, item.id]));
            }
        }
        if item.kind != Kind::Fail {
            continue;
        }
        if item.error.contains("has been compacted") {
            let beside = |(at, other): &(i64, &Item<'_>)| {
                (*at > asked || compacts && *at == asked) && other.id != item.id && other.invoked_ns < item.returned_ns
            };
            // What is compacted begins at -1, as in etcd: a compaction of that or less is refused from the start.
            let is_from_the_start = compacts && asked < 0;
            if asked <= 0 && !compacts || !is_from_the_start && !compactions.iter().any(beside) {
                let text = format!(
                    "operation {} was refused revision {asked} as compacted, and nobody had compacted past it",
                    item.id
                );
                findings.push(Finding::new("K6", text, [item.id]));
            }
        }
        if item.error.contains("future revision") && !serializable {
            let place = seen.partition_point(|(returned, _, _)| *returned < item.invoked_ns);
            if let Some((_, revision, other)) = seen[..place].last().filter(|(_, revision, _)| *revision >= asked) {
                let text = format!(
                    "operation {} was refused revision {asked} as future, and operation {other} had heard of {revision}",
                    item.id
                );
                findings.push(Finding::new("K6", text, [*other, item.id]));
            }
        }
    }
    findings
}
