//! Rw-register: a read shows one write only, so that the order of versions is put together from what is certain.
//!
//! Certain is: nothing comes before the first write; who reads a version and then writes the key writes a later one;
//! and, since single keys are linearizable, a transaction that ended before another began knew no later version.

use super::graph::{Edge, Graph, Why};
use super::{Txn, cycles, lost_updates, order_of_time, txns};
use crate::history::value::{Mop, Read};
use crate::history::{History, Kind, Malformed};
use crate::verdict::{Finding, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// What a transaction did to one key, as others can see it.
#[derive(Clone, Copy, Debug, Default)]
struct Touch {
    /// What it read before it wrote; the inner `None` is a key never written.
    read: Option<Option<i64>>,
    /// Its last write.
    wrote: Option<i64>,
}

/// Checks the transactions of a history on registers.
///
/// - Errors: a malformed history.
pub fn check_register(history: &History) -> Result<Verdict, Malformed> {
    let txns = txns(history)?;
    let mut findings = Vec::new();
    // Who wrote a value, and whether it stayed when its transaction ended.
    let mut writes: BTreeMap<(i64, i64), (usize, bool)> = BTreeMap::new();
    for (place, txn) in txns.iter().enumerate() {
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        for mop in &txn.mops {
            if let Mop::Write { key, value } = mop {
                if let Some(before) = last.insert(*key, *value) {
                    writes.insert((*key, before), (place, false));
                }
                if let Some((first, _)) = writes.insert((*key, *value), (place, true)) {
                    let text = format!("{value} is written to key {key} twice, so that nothing can be told");
                    let ids = [txns[first].id, txn.id];
                    return Ok(Verdict::Invalid(vec![Finding::new("duplicate-writes", text, ids)]));
                }
            }
        }
    }
    let mut touches: BTreeMap<i64, BTreeMap<usize, Touch>> = BTreeMap::new();
    for (place, txn) in txns.iter().enumerate().filter(|(_, txn)| txn.kind != Kind::Fail) {
        for mop in &txn.mops {
            let touch = touches.entry(mop.key()).or_default().entry(place).or_default();
            match mop {
                Mop::Write { value, .. } => touch.wrote = Some(*value),
                Mop::Read { key, seen } if txn.kind == Kind::Ok => {
                    let value = match seen {
                        Read::One(value) => Some(*value),
                        _ => None,
                    };
                    let wanted = touch.wrote.map(Some).or(touch.read);
                    if wanted.is_some_and(|wanted| wanted != value) {
                        let text = format!("transaction {} reads {value:?} of key {key} against itself", txn.id);
                        findings.push(Finding::new("internal", text, [txn.id]));
                    } else if touch.wrote.is_none() {
                        touch.read = Some(value);
                        findings.extend(value.and_then(|value| one_read(&txns, txn, *key, value, &writes)));
                    }
                }
                _ => {}
            }
        }
    }
    let mut graph = Graph::new(txns.len());
    for (key, touches) in &touches {
        match versions(&txns, touches, &writes, *key) {
            Err(finding) => findings.push(finding),
            Ok(versions) => edges(&versions, touches, &writes, *key, &txns, &mut graph),
        }
    }
    order_of_time(&txns, &mut graph);
    findings.extend(cycles(&txns, &graph));
    findings.extend(lost_updates(&txns));
    Ok(Verdict::of(findings))
}

/// What is wrong with a read by itself.
fn one_read(
    txns: &[Txn],
    txn: &Txn,
    key: i64,
    value: i64,
    writes: &BTreeMap<(i64, i64), (usize, bool)>,
) -> Option<Finding> {
    let id = txn.id;
    let Some((writer, stays)) = writes.get(&(key, value)) else {
        let text = format!("transaction {id} read {value} of key {key}, which nobody wrote");
        return Some(Finding::new("phantom", text, [id]));
    };
    let writer = &txns[*writer];
    if writer.kind == Kind::Fail {
        let text = format!("transaction {id} read {value} of key {key}, which {} wrote and was refused", writer.id);
        return Some(Finding::new("G1a", text, [writer.id, id]));
    }
    if !stays && writer.id != id {
        let text = format!("transaction {id} read {value} of key {key}, half way through transaction {}", writer.id);
        return Some(Finding::new("G1b", text, [writer.id, id]));
    }
    None
}

type Versions = BTreeSet<(Option<i64>, i64)>;

/// Which version of a key certainly comes before which; a finding if they go in a circle.
fn versions(
    txns: &[Txn],
    touches: &BTreeMap<usize, Touch>,
    writes: &BTreeMap<(i64, i64), (usize, bool)>,
    key: i64,
) -> Result<Versions, Finding> {
    let mut found = Versions::new();
    let read: BTreeSet<i64> = touches.values().filter_map(|touch| touch.read.flatten()).collect();
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (&place, touch) in touches {
        let txn = &txns[place];
        // Whether one of unknown outcome took effect is known only if it was read.
        let happened = txn.kind == Kind::Ok || touch.wrote.is_some_and(|value| read.contains(&value));
        if !happened {
            continue;
        }
        if let Some(value) = touch.wrote {
            found.insert((None, value));
            if let Some(read) = touch.read {
                found.insert((read, value));
            }
        }
        events.push((txn.invoked_ns, false, place));
        if txn.kind == Kind::Ok {
            events.push((txn.returned_ns, true, place));
        }
    }
    events.sort_unstable();
    let mut ended: Vec<usize> = Vec::new();
    let mut before: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (_, ends, place) in events {
        if ends {
            ended.retain(|earlier| !before[&place].contains(earlier));
            ended.push(place);
            continue;
        }
        let first = touches[&place].read.unwrap_or(touches[&place].wrote);
        for earlier in &ended {
            let last = touches[earlier].wrote.or(touches[earlier].read.flatten());
            match (last, first) {
                (last, Some(first)) if last != Some(first) => drop(found.insert((last, first))),
                (Some(last), None) if touches[&place].read == Some(None) => {
                    let text = format!(
                        "transaction {} found nothing in key {key}, although {} had written or read {last} before it began",
                        txns[place].id, txns[*earlier].id
                    );
                    return Err(Finding::new("cyclic-versions", text, [txns[*earlier].id, txns[place].id]));
                }
                _ => {}
            }
        }
        before.insert(place, ended.clone());
    }
    let values: Vec<i64> = found.iter().map(|(_, to)| *to).collect::<BTreeSet<_>>().into_iter().collect();
    let place = |value: &i64| values.binary_search(value);
    let mut graph = Graph::new(values.len());
    for (from, to) in &found {
        if let (Some(Ok(from)), Ok(to)) = (from.as_ref().map(place), place(to)) {
            graph.add(from, to, Edge::Ww, Why::default());
        }
    }
    match graph.components(&[Edge::Ww]).first() {
        None => Ok(found),
        Some(circle) => {
            let circle: Vec<i64> = circle.iter().map(|&at| values[at]).collect();
            let touching = touches.iter().filter(|(_, touch)| {
                [touch.wrote, touch.read.flatten()].into_iter().flatten().any(|value| circle.contains(&value))
            });
            let mut ids: Vec<u64> = touching.map(|(place, _)| txns[*place].id).collect();
            let writers =
                circle.iter().filter_map(|value| writes.get(&(key, *value))).map(|(place, _)| txns[*place].id);
            ids.extend(writers);
            ids.sort_unstable();
            ids.dedup();
            ids.truncate(8);
            let text = format!("the values {circle:?} of key {key} each come before the others");
            Err(Finding::new("cyclic-versions", text, ids))
        }
    }
}

fn edges(
    versions: &Versions,
    touches: &BTreeMap<usize, Touch>,
    writes: &BTreeMap<(i64, i64), (usize, bool)>,
    key: i64,
    txns: &[Txn],
    graph: &mut Graph,
) {
    let writer =
        |value: i64| writes.get(&(key, value)).map(|(place, _)| *place).filter(|place| txns[*place].kind != Kind::Fail);
    let mut readers: BTreeMap<Option<i64>, Vec<usize>> = BTreeMap::new();
    for (place, touch) in touches {
        if let Some(read) = touch.read {
            readers.entry(read).or_default().push(*place);
            if let Some((value, writer)) = read.and_then(|value| Some((value, writer(value)?))) {
                graph.add(writer, *place, Edge::Wr, Why { key, from: None, to: value });
            }
        }
    }
    for (from, to) in versions {
        let Some(writes) = writer(*to) else { continue };
        let why = Why { key, from: *from, to: *to };
        if let Some(before) = from.and_then(writer) {
            graph.add(before, writes, Edge::Ww, why);
        }
        for reader in readers.get(from).into_iter().flatten() {
            graph.add(*reader, writes, Edge::Rw, why);
        }
    }
}
