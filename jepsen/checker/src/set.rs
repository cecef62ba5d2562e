//! A set that only grows: what was put in is found by whoever looks later, and nothing else is.
//!
//! - Source: Jepsen's `set-full`: an element is lost if a read that began after its add does not show it.

use crate::history::value::{Set, Value};
use crate::history::{History, Kind, Malformed, Pair};
use crate::verdict::{Finding, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// Checks the set's operations of a history.
///
/// - Errors: a malformed history.
pub fn check(history: &History) -> Result<Verdict, Malformed> {
    let pairs = history.pairs()?;
    let mut adds: BTreeMap<i64, Pair<'_>> = BTreeMap::new();
    let mut reads: Vec<(Pair<'_>, &BTreeSet<i64>)> = Vec::new();
    for pair in &pairs {
        match (&pair.invoke.value, &pair.done.value) {
            (Value::Set(Set::Add(element)), _) => drop(adds.insert(*element, *pair)),
            (_, Value::Set(Set::Read(Some(seen)))) if pair.done.kind == Kind::Ok => reads.push((*pair, seen)),
            _ => {}
        }
    }
    // By their ends: what an earlier one showed, every later one shows.
    reads.sort_by_key(|(pair, _)| pair.returned_ns());
    let mut findings = Vec::new();
    // When each element was first certain to be in, and by which operation.
    let mut certain: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for (element, add) in adds.iter().filter(|(_, add)| add.done.kind == Kind::Ok) {
        certain.insert(*element, (add.returned_ns(), add.id()));
    }
    for (read, seen) in &reads {
        for element in *seen {
            let wrong = match adds.get(element) {
                None => Some(("phantom", format!("read {} shows {element}, which nobody added", read.id()), None)),
                Some(add) if add.done.kind == Kind::Fail => {
                    let text = format!("read {} shows {element}, whose add {} was refused", read.id(), add.id());
                    Some(("G1a", text, Some(add.id())))
                }
                Some(add) if add.invoke.time_ns > read.returned_ns() => {
                    let text = format!("read {} shows {element}, which {} added later", read.id(), add.id());
                    Some(("phantom", text, Some(add.id())))
                }
                Some(_) => None,
            };
            if let Some((rule, text, add)) = wrong {
                findings.push(Finding::new(rule, text, add.into_iter().chain([read.id()])));
            }
            let since = certain.entry(*element).or_insert((read.returned_ns(), read.id()));
            *since = (*since).min((read.returned_ns(), read.id()));
        }
    }
    for (read, seen) in &reads {
        let due = certain.iter().filter(|(element, (at, _))| *at < read.invoke.time_ns && !seen.contains(element));
        for (element, (_, by)) in due.take(1) {
            // Found again later, it was only stale here.
            let again =
                reads.iter().any(|(later, seen)| later.invoke.time_ns > read.returned_ns() && seen.contains(element));
            let (rule, what) = if again { ("stale", "does not show") } else { ("lost", "has lost") };
            let text =
                format!("read {} {what} {element}, which operation {by} had put or seen there before", read.id());
            findings.push(Finding::new(rule, text, [*by, read.id()]));
        }
    }
    Ok(Verdict::of(findings))
}
