//! Cycles between transactions, found without a search: each read says which write it saw, and unique values say whose.
//!
//! - Source: Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations" (2020); the
//!   classes are Adya's. What is checked is strict serializability: a cycle may be closed by the order of time.
//! - A transaction of unknown outcome counts as committed as soon as anyone read what it wrote.

mod graph;
mod append;
mod register;

pub use append::check_append;
pub use register::check_register;

use crate::history::value::{Mop, Read, Value};
use crate::history::{History, Kind, Malformed, Process};
use crate::verdict::Finding;
use graph::{Edge, Graph, Why};
use std::collections::BTreeMap;

/// A transaction.
#[derive(Clone, Debug)]
struct Txn {
    /// Its index in the history.
    id: u64,
    kind: Kind,
    process: Process,
    invoked_ns: u64,
    returned_ns: u64,
    mops: Vec<Mop>,
}

/// The transactions of a history, by their beginnings; refused ones too, whose writes nobody may see.
fn txns(history: &History) -> Result<Vec<Txn>, Malformed> {
    let txn = |pair: &crate::history::Pair<'_>| {
        let Value::Txn(asked) = &pair.invoke.value else { return None };
        let mops = match &pair.done.value {
            Value::Txn(done) if pair.done.kind == Kind::Ok => done.clone(),
            _ => asked.clone(),
        };
        Some(Txn {
            id: pair.id(),
            kind: pair.done.kind,
            process: pair.invoke.process,
            invoked_ns: pair.invoke.time_ns,
            returned_ns: pair.returned_ns(),
            mops,
        })
    };
    Ok(history.pairs()?.iter().filter_map(txn).collect())
}

/// Adds the order of time: one edge from each transaction to those that could not begin before it ended, but for
/// those that follow from others. So there are as many per transaction as there are clients, and not transactions.
fn order_of_time(txns: &[Txn], graph: &mut Graph) {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (place, txn) in txns.iter().enumerate().filter(|(_, txn)| txn.kind != Kind::Fail) {
        // A beginning at the time of an end does not follow it.
        events.push((txn.invoked_ns, false, place));
        if txn.kind == Kind::Ok {
            events.push((txn.returned_ns, true, place));
        }
    }
    events.sort_unstable();
    let mut ended: Vec<usize> = Vec::new();
    let mut last: BTreeMap<Process, usize> = BTreeMap::new();
    let mut before: Vec<Vec<usize>> = vec![vec![]; txns.len()];
    for (_, ends, place) in events {
        if ends {
            ended.retain(|earlier| !before[place].contains(earlier));
            ended.push(place);
            last.insert(txns[place].process, place);
        } else {
            for &earlier in &ended {
                graph.add(earlier, place, Edge::Realtime, Why::default());
            }
            if let Some(&earlier) = last.get(&txns[place].process) {
                graph.add(earlier, place, Edge::Process, Why::default());
            }
            before[place] = ended.clone();
        }
    }
}

/// Turns cycles into findings.
fn cycles(txns: &[Txn], graph: &Graph) -> Vec<Finding> {
    let finding = |cycle: graph::Cycle| {
        let steps: Vec<_> = cycle
            .edges
            .iter()
            .map(|(from, to, edge, why)| {
                let (from, to) = (&txns[*from], &txns[*to]);
                let reason = match edge {
                    Edge::Ww => {
                        format!("{} wrote {} of key {} over {}'s {}", to.id, why.to, why.key, from.id, show(why.from))
                    }
                    Edge::Wr => format!("{} read {}'s {} of key {}", to.id, from.id, why.to, why.key),
                    Edge::Rw => format!("{} did not see {}'s {} of key {}", from.id, to.id, why.to, why.key),
                    Edge::Process => format!("{} of the same client came before {}", from.id, to.id),
                    Edge::Realtime => format!("{} had ended before {} began", from.id, to.id),
                };
                format!("{} < {}: {reason}", from.id, to.id)
            })
            .collect();
        let ops = cycle.edges.iter().map(|(from, ..)| txns[*from].id);
        Finding::new(&cycle.class, format!("transactions in a circle: {}", steps.join("; ")), ops)
    };
    graph.cycles().into_iter().map(finding).collect()
}

fn show(value: Option<i64>) -> String {
    value.map_or("nothing".to_owned(), |value| value.to_string())
}

/// Two transactions that read the same version of a key and both wrote the key: one of the writes is lost.
fn lost_updates(txns: &[Txn]) -> Vec<Finding> {
    let mut updates: BTreeMap<(i64, String), Vec<u64>> = BTreeMap::new();
    for txn in txns.iter().filter(|txn| txn.kind == Kind::Ok) {
        let mut seen: BTreeMap<i64, Option<&Read>> = BTreeMap::new();
        for mop in &txn.mops {
            match mop {
                Mop::Read { key, seen: read } => {
                    seen.entry(*key).or_insert(Some(read));
                }
                // Only what was read before the first write is another's.
                Mop::Append { key, .. } | Mop::Write { key, .. } => match seen.insert(*key, None) {
                    Some(Some(read)) => {
                        let empty = matches!(read, Read::Nil) || *read == Read::List(vec![]);
                        let version = if empty { "nothing".to_owned() } else { format!("{read:?}") };
                        updates.entry((*key, version)).or_default().push(txn.id);
                    }
                    _ => continue,
                },
            }
        }
    }
    let lost = updates.into_iter().filter(|(_, ids)| ids.len() > 1);
    lost.map(|((key, version), ids)| {
        let text = format!("transactions {ids:?} each read {version} of key {key} and wrote the key");
        Finding::new("lost-update", text, ids)
    })
    .collect()
}

#[cfg(test)]
mod tests;
