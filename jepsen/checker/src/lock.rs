//! Locks and elections: turns follow each other, and nobody has a turn while another's lease cannot have ended.
//!
//! A lock made of keys and leases cannot stop a holder whose lease has run out behind its back: that two clients then
//! both believe to hold it is no fault of the store's, and is counted, not judged. What can be judged: a holder whose
//! lease still runs is alone (X3); turns, named by the revision that made the holder's key, are given in their order
//! (X4); nobody sees an older leader than others had seen (X5), and no leader speaks once a later one was seen (X6).
//!
//! - Source: Jepsen's analysis of etcd 3.4.3, which found locks without a fence unsafe by nature.

use crate::history::value::{Election, Lock, Value};
use crate::history::{History, Kind, Malformed, Pair};
use crate::verdict::{Finding, Verdict};
use std::collections::BTreeMap;

/// One turn of a holder or a leader.
#[derive(Clone, Copy, Debug)]
struct Turn {
    id: u64,
    invoked_ns: u64,
    /// When it knew that it was its turn.
    from_ns: u64,
    /// When it let go; never, if it did not.
    till_ns: u64,
    /// Until when its lease cannot have ended.
    until_ns: u64,
    fence: i64,
}

/// How often two clients believed at the same time to hold the same lock, however their leases were.
pub fn overlaps(history: &History) -> Result<u64, Malformed> {
    let turns = turns(&history.pairs()?);
    Ok(turns.values().map(|turns| overlapping(turns, |turn| turn.till_ns).len() as u64).sum())
}

/// Checks the locks and elections of a history.
///
/// - Errors: a malformed history.
pub fn check(history: &History) -> Result<Verdict, Malformed> {
    let pairs = history.pairs()?;
    let mut findings = Vec::new();
    for (name, turns) in turns(&pairs) {
        for (first, second) in overlapping(&turns, |turn| turn.till_ns.min(turn.until_ns)) {
            let text = format!(
                "{name} was held from {} by operation {} and from {} by operation {}, while the first one's lease ran \
                 until {}",
                first.from_ns, first.id, second.from_ns, second.id, first.until_ns
            );
            findings.push(Finding::new("X3", text, [first.id, second.id]));
        }
        findings.extend(order(&name, &turns));
    }
    findings.extend(observed(&pairs));
    Ok(Verdict::of(findings))
}

/// Every turn, by the name of the lock or of the election.
fn turns(pairs: &[Pair<'_>]) -> BTreeMap<String, Vec<Turn>> {
    let mut turns: BTreeMap<String, Vec<Turn>> = BTreeMap::new();
    for (place, pair) in pairs.iter().enumerate() {
        let (name, fence, until_ns) = match &pair.done.value {
            Value::Lock(Lock::Acquire { name, fence: Some(fence), until_ns })
            | Value::Election(Election::Campaign { name, fence: Some(fence), until_ns })
                if pair.done.kind == Kind::Ok =>
            {
                (name, *fence, until_ns.unwrap_or(0))
            }
            _ => continue,
        };
        // Whatever the same client does next with the lock ends its turn as soon as it is asked for.
        let ends = |other: &&Pair<'_>| {
            other.invoke.process == pair.invoke.process
                && match &other.invoke.value {
                    Value::Lock(Lock::Release { name: other } | Lock::Acquire { name: other, .. }) => other == name,
                    Value::Election(Election::Resign { name: other, .. } | Election::Campaign { name: other, .. }) => {
                        other == name
                    }
                    _ => false,
                }
        };
        let till_ns = pairs[place + 1..].iter().find(ends).map_or(u64::MAX, |end| end.invoke.time_ns);
        turns.entry(name.clone()).or_default().push(Turn {
            id: pair.id(),
            invoked_ns: pair.invoke.time_ns,
            from_ns: pair.done.time_ns,
            till_ns,
            until_ns,
            fence,
        });
    }
    for turns in turns.values_mut() {
        turns.sort_by_key(|turn| turn.from_ns);
    }
    turns
}

/// Neighbours of which the second begins before the first has ended.
fn overlapping(turns: &[Turn], end: impl Fn(&Turn) -> u64) -> Vec<(Turn, Turn)> {
    let mut found = Vec::new();
    let mut longest: Option<Turn> = None;
    for turn in turns {
        if let Some(before) = longest.filter(|before| end(before) > turn.from_ns) {
            found.push((before, *turn));
        }
        if longest.is_none_or(|before| end(&before) < end(turn)) {
            longest = Some(*turn);
        }
    }
    found
}

/// X4: what was asked for after another turn had begun is a later turn.
fn order(name: &str, turns: &[Turn]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut asked: Vec<&Turn> = turns.iter().collect();
    asked.sort_by_key(|turn| turn.invoked_ns);
    let mut begun = turns.iter().peekable();
    let mut newest: Option<&Turn> = None;
    for turn in asked {
        while let Some(before) = begun.next_if(|before| before.from_ns < turn.invoked_ns) {
            if newest.is_none_or(|newest| newest.fence < before.fence) {
                newest = Some(before);
            }
        }
        if let Some(before) = newest.filter(|before| before.fence >= turn.fence) {
            let text = format!(
                "operation {} got turn {} of {name}, and operation {} had got turn {} before that was asked",
                turn.id, turn.fence, before.id, before.fence
            );
            findings.push(Finding::new("X4", text, [before.id, turn.id]));
        }
    }
    findings
}

/// X5 and X6: what observers saw, and what leaders said after it.
fn observed(pairs: &[Pair<'_>]) -> Vec<Finding> {
    // Each operation that shows which turn it is: (name, fence, whether it is a leader's own).
    let mut shown: Vec<(&Pair<'_>, &str, i64, bool)> = Vec::new();
    for pair in pairs.iter().filter(|pair| pair.done.kind == Kind::Ok) {
        match &pair.done.value {
            Value::Election(Election::Observe { name, fence: Some(fence), .. }) => {
                shown.push((pair, name, *fence, false));
            }
            Value::Election(Election::Proclaim { name, fence, .. }) => shown.push((pair, name, *fence, true)),
            _ => {}
        }
    }
    let mut returned: Vec<_> = shown.iter().collect();
    returned.sort_by_key(|(pair, ..)| pair.returned_ns());
    let mut returned = returned.into_iter().peekable();
    let mut newest: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
    let mut findings = Vec::new();
    for (pair, name, fence, leader) in &shown {
        while let Some((before, name, fence, _)) = returned.next_if(|(it, ..)| it.returned_ns() < pair.invoke.time_ns) {
            let seen = newest.entry(name).or_insert((before.id(), *fence));
            if seen.1 < *fence {
                *seen = (before.id(), *fence);
            }
        }
        let Some((before, seen)) = newest.get(name).filter(|(_, seen)| seen > fence) else { continue };
        let (rule, did) = if *leader { ("X6", "spoke as") } else { ("X5", "saw") };
        let text = format!(
            "operation {} {did} the leader of turn {fence} of {name}, and operation {before} had seen turn {seen} before \
             that was asked",
            pair.id()
        );
        findings.push(Finding::new(rule, text, [*before, pair.id()]));
    }
    findings
}
