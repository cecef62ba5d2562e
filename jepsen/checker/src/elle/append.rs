//! List-append: a read shows every append before it, in order, so that versions need not be guessed.

use super::graph::{Edge, Graph, Why};
use super::{Txn, cycles, lost_updates, order_of_time, txns};
use crate::history::value::{Mop, Read};
use crate::history::{History, Kind, Malformed};
use crate::verdict::{Finding, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// Who appended an element, and whether that was the last thing its transaction did to the key.
#[derive(Clone, Copy)]
struct Append {
    txn: usize,
    last: bool,
}

/// Checks the transactions of a history on lists.
///
/// - Errors: a malformed history.
pub fn check_append(history: &History) -> Result<Verdict, Malformed> {
    let txns = txns(history)?;
    let mut findings = Vec::new();
    let mut appends: BTreeMap<(i64, i64), Append> = BTreeMap::new();
    for (place, txn) in txns.iter().enumerate() {
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        for mop in &txn.mops {
            if let Mop::Append { key, element } = mop {
                if let Some(before) = last.insert(*key, *element) {
                    appends.entry((*key, before)).and_modify(|append| append.last = false);
                }
                if let Some(first) = appends.insert((*key, *element), Append { txn: place, last: true }) {
                    let ids = [txns[first.txn].id, txn.id];
                    let text = format!("{element} is appended to key {key} twice, so that nothing can be told");
                    return Ok(Verdict::Invalid(vec![Finding::new("duplicate-appends", text, ids)]));
                }
            }
        }
    }
    let reads = reads(&txns);
    for (place, key, list) in &reads {
        findings.extend(one_read(&txns, *place, *key, list, &appends));
    }
    for txn in txns.iter().filter(|txn| txn.kind == Kind::Ok) {
        findings.extend(internal(txn));
    }
    let mut longest: BTreeMap<i64, (usize, &[i64])> = BTreeMap::new();
    for (place, key, list) in &reads {
        let found = longest.entry(*key).or_insert((*place, list));
        if list.len() > found.1.len() {
            *found = (*place, list);
        }
    }
    let mut graph = Graph::new(txns.len());
    let mut told = BTreeSet::new();
    for (place, key, list) in &reads {
        let (other, order) = longest[key];
        if !order.starts_with(list) {
            if told.insert(*key) {
                let text = format!("key {key} was read as {list:?} and as {order:?}: neither begins with the other");
                findings.push(Finding::new("incompatible-order", text, [txns[*place].id, txns[other].id]));
            }
            continue;
        }
        let last = list.last().copied();
        if let Some(append) = last.and_then(|last| appends.get(&(*key, last))) {
            graph.add(append.txn, *place, Edge::Wr, Why { key: *key, from: None, to: last.unwrap_or_default() });
        }
        let mut follow = |element: i64| {
            if let Some(append) = appends.get(&(*key, element)).filter(|append| txns[append.txn].kind != Kind::Fail) {
                graph.add(*place, append.txn, Edge::Rw, Why { key: *key, from: last, to: element });
            }
        };
        match order.get(list.len()) {
            Some(&next) => follow(next),
            // Lists only grow: an append that took effect and is in no read comes after all of them.
            None => unseen(&appends, &txns, *key, order).into_iter().for_each(&mut follow),
        }
    }
    for (key, (_, order)) in &longest {
        for pair in order.windows(2) {
            if let (Some(from), Some(to)) = (appends.get(&(*key, pair[0])), appends.get(&(*key, pair[1]))) {
                graph.add(from.txn, to.txn, Edge::Ww, Why { key: *key, from: Some(pair[0]), to: pair[1] });
            }
        }
    }
    order_of_time(&txns, &mut graph);
    findings.extend(cycles(&txns, &graph));
    findings.extend(lost_updates(&txns));
    Ok(Verdict::of(findings))
}

/// Every read of a list by another's eyes: what the transaction itself appended before is cut off.
fn reads(txns: &[Txn]) -> Vec<(usize, i64, Vec<i64>)> {
    let mut found = Vec::new();
    for (place, txn) in txns.iter().enumerate().filter(|(_, txn)| txn.kind == Kind::Ok) {
        let mut own: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for mop in &txn.mops {
            match mop {
                Mop::Append { key, element } => own.entry(*key).or_default().push(*element),
                Mop::Read { key, seen } => {
                    let list = match seen {
                        Read::List(list) => list.as_slice(),
                        _ => &[],
                    };
                    let own = own.get(key).map_or(&[][..], Vec::as_slice);
                    let others = list.strip_suffix(own).unwrap_or(list);
                    found.push((place, *key, others.to_vec()));
                }
                Mop::Write { .. } => {}
            }
        }
    }
    found
}

fn unseen(appends: &BTreeMap<(i64, i64), Append>, txns: &[Txn], key: i64, order: &[i64]) -> Vec<i64> {
    let all = appends.range((key, i64::MIN)..=(key, i64::MAX)).filter(|(_, append)| txns[append.txn].kind == Kind::Ok);
    let order: BTreeSet<i64> = order.iter().copied().collect();
    all.map(|((_, element), _)| *element).filter(|element| !order.contains(element)).collect()
}

/// What is wrong with a read by itself.
fn one_read(
    txns: &[Txn],
    place: usize,
    key: i64,
    list: &[i64],
    appends: &BTreeMap<(i64, i64), Append>,
) -> Vec<Finding> {
    let id = txns[place].id;
    let mut findings = Vec::new();
    let mut once = BTreeSet::new();
    if let Some(twice) = list.iter().find(|element| !once.insert(**element)) {
        let text = format!("transaction {id} read {twice} twice in key {key}: {list:?}");
        findings.push(Finding::new("duplicate-elements", text, [id]));
    }
    for element in list {
        match appends.get(&(key, *element)) {
            None => {
                let text = format!("transaction {id} read {element} of key {key}, which nobody appended");
                findings.push(Finding::new("phantom", text, [id]));
            }
            Some(append) if txns[append.txn].kind == Kind::Fail => {
                let writer = txns[append.txn].id;
                let text =
                    format!("transaction {id} read {element} of key {key}, which {writer} appended and was refused");
                findings.push(Finding::new("G1a", text, [writer, id]));
            }
            Some(_) => {}
        }
    }
    if let Some((last, append)) = list.last().and_then(|last| appends.get(&(key, *last)).map(|append| (last, append)))
        && !append.last
        && append.txn != place
    {
        let writer = txns[append.txn].id;
        let text = format!("transaction {id} read key {key} up to {last}, half way through transaction {writer}");
        findings.push(Finding::new("G1b", text, [writer, id]));
    }
    findings
}

/// A transaction that contradicts itself.
fn internal(txn: &Txn) -> Option<Finding> {
    let mut known: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let mut own: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for mop in &txn.mops {
        match mop {
            Mop::Append { key, element } => {
                if let Some(list) = known.get_mut(key) {
                    list.push(*element);
                }
                own.entry(*key).or_default().push(*element);
            }
            Mop::Read { key, seen } => {
                let list = match seen {
                    Read::List(list) => list.clone(),
                    _ => vec![],
                };
                let wrong = match known.get(key) {
                    Some(wanted) => *wanted != list,
                    None => own.get(key).is_some_and(|own| !list.ends_with(own)),
                };
                if wrong {
                    let text = format!("transaction {} read {list:?} of key {key} after {:?}", txn.id, txn.mops);
                    return Some(Finding::new("internal", text, [txn.id]));
                }
                known.insert(*key, list);
            }
            Mop::Write { .. } => {}
        }
    }
    None
}
