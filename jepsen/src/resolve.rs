//! What really happened to operations of unknown outcome: it stands in the members' logs.
//!
//! - Source: etcd's robustness tests patch the history of their clients from the merged logs of the members: of the
//!   thousands of orders in which unknown operations might have taken effect, one is left.
//! - It trusts the logs' reader. So one run in ten is judged without, by a search.

mod dumped;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use dumped::Member;
use mechi_checker::edn::{Edn, parse, read_lines};
use mechi_checker::history::store::{bytes_edn, bytes_of, kv_edn, kv_of};
use mechi_checker::history::value::{Mop, RegisterCall, Set, Value};
use mechi_checker::history::{History, Kind};
use mechi_checker::model::Model;
use mechi_checker::revision::Logged;
use mechi_proto::mechipb::command::Request;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::workload;

/// The members' logs, merged and replayed.
pub const MERGED: &str = "wal-merged.edn";

/// What became of the members' logs.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Merged {
    /// What each revision changed, if the whole log is there.
    pub log: Option<Vec<Logged>>,
    /// Why it is not.
    pub why: Option<String>,
    /// The last index that is known to be committed.
    pub through: u64,
    /// Where members hold different entries that both took for committed: the worst that can happen.
    pub differ: Vec<String>,
}

/// Reads the logs of stopped members with `mechi dump`, merges and replays them, and writes [`MERGED`] into `dir`.
///
/// - Shape: `members` are names and data directories.
/// - Errors: a dump that cannot be run or read, or a file that cannot be written; a log with a hole is none.
pub fn merge(mechi: &Path, members: &[(String, PathBuf)], dir: &Path) -> Result<Merged> {
    let mut found = Vec::new();
    for (name, data_dir) in members {
        found.push(dumped::read(mechi, name, data_dir).with_context(|| format!("dump the log of {name}"))?);
    }
    let merged = put_together(&found)?;
    write(&merged, &dir.join(MERGED))?;
    Ok(merged)
}

/// One entry of the merged log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    /// Whose batch it is, of which boot, and which: none for what brings no commands.
    pub(crate) batch: Option<(String, u64, u64)>,
    pub(crate) commands: Vec<Request>,
}

fn put_together(members: &[Member]) -> Result<Merged> {
    let mut merged = Merged::default();
    let mut through = members.iter().map(|member| member.committed).max().unwrap_or(0);
    let mut log: BTreeMap<u64, &Entry> = BTreeMap::new();
    for member in members {
        for (index, entry) in member.entries.range(..=member.committed) {
            let before = *log.entry(*index).or_insert(entry);
            if before.term != entry.term || before.batch != entry.batch {
                merged.differ.push(format!(
                    "{} holds entry {index} of term {} as committed, another member one of term {}",
                    member.name, entry.term, before.term
                ));
            }
        }
    }
    // What nobody called committed before it stopped is so all the same if most members hold it.
    loop {
        let mut terms: BTreeMap<u64, (usize, &Entry)> = BTreeMap::new();
        for entry in members.iter().filter_map(|member| member.entries.get(&(through + 1))) {
            terms.entry(entry.term).or_insert((0, entry)).0 += 1;
        }
        let Some((_, entry)) = terms.into_values().find(|(count, _)| *count > members.len() / 2) else { break };
        through += 1;
        log.insert(through, entry);
    }
    merged.through = through;
    let whole = (1..=through).find(|index| !log.contains_key(index));
    match whole {
        Some(1) => {
            let first = log.keys().next().copied().unwrap_or(0);
            merged.why = Some(format!("no member's log holds the entries before {first}: a snapshot took their place"));
        }
        Some(hole) => merged.why = Some(format!("no member's log holds entry {hole} of {through}")),
        None => merged.log = Some(replay(&log)?),
    }
    Ok(merged)
}

/// What the entries did, as the model says.
fn replay(log: &BTreeMap<u64, &Entry>) -> Result<Vec<Logged>> {
    let mut model = Model::default();
    let mut windows: BTreeMap<&str, (u64, BTreeSet<u64>)> = BTreeMap::new();
    let mut grants: BTreeMap<i64, u64> = BTreeMap::new();
    let mut done = Vec::new();
    for (index, entry) in log {
        let Some((author, boot, number)) = &entry.batch else { continue };
        // A batch that was proposed twice counts once, one of an earlier boot not at all.
        let (newest, seen) = windows.entry(author).or_default();
        if boot < newest {
            continue;
        }
        if boot > newest {
            (*newest, *seen) = (*boot, BTreeSet::new());
        }
        if !seen.insert(*number) {
            continue;
        }
        for command in &entry.commands {
            let counts = match command {
                // The wish counts for its own grant, and in its author's term.
                Request::LeaseExpire(wish) => {
                    grants.get(&wish.id) == Some(&wish.grant_index) && wish.term == entry.term
                }
                _ => true,
            };
            let before = model.revision();
            // A refusal is as good as an answer: it changed nothing.
            let answered = counts && model.apply(command).is_ok();
            match command {
                Request::LeaseGrant(grant) if answered => drop(grants.insert(grant.id, *index)),
                _ => {}
            }
            let after = model.revision();
            ensure!(after <= before + 1, "entry {index} made revisions {before} to {after}");
            if after > before {
                let changes = model.changes(after).map(|change| (change.key, change.now)).collect();
                done.push(Logged { revision: after, changes });
            }
        }
    }
    Ok(done)
}

fn write(merged: &Merged, path: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create(path).with_context(|| format!("create {}", path.display()))?);
    let head = Edn::map([
        ("through", Edn::from(merged.through)),
        ("whole", Edn::Bool(merged.log.is_some())),
        ("why", merged.why.as_ref().map_or(Edn::Nil, Edn::text)),
        ("differ", Edn::Vector(merged.differ.iter().map(Edn::text).collect())),
    ]);
    writeln!(out, "{head}")?;
    for logged in merged.log.iter().flatten() {
        let change =
            |(key, kv): &(Bytes, Option<_>)| Edn::Vector(vec![bytes_edn(key), kv.as_ref().map_or(Edn::Nil, kv_edn)]);
        let changes = Edn::Vector(logged.changes.iter().map(change).collect());
        writeln!(out, "{}", Edn::map([("revision", Edn::from(logged.revision)), ("changes", changes)]))?;
    }
    out.flush().context("write the merged log")
}

/// Reads what [`merge`] wrote.
pub fn read(path: &Path) -> Result<Merged> {
    let mut merged = Merged::default();
    let mut log = Vec::new();
    let mut whole = false;
    let bad = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    read_lines(BufReader::new(file), |line| {
        let Some(revision) = line.get("revision").int() else {
            merged.through = line.get("through").unsigned().unwrap_or(0);
            merged.why = line.get("why").name().map(str::to_owned);
            let differ = line.get("differ").items().unwrap_or_default();
            merged.differ = differ.iter().filter_map(|text| text.name().map(str::to_owned)).collect();
            whole = *line.get("whole") == Edn::Bool(true);
            return Ok(());
        };
        let change = |change: &Edn| {
            let Some([key, kv]) = change.items() else { return Err(bad(format!("{change} is no change"))) };
            let kv = if *kv == Edn::Nil { None } else { Some(kv_of(kv).map_err(bad)?) };
            Ok((bytes_of(key).map_err(bad)?, kv))
        };
        let changes = line.get("changes").items().unwrap_or_default().iter().map(change);
        log.push(Logged { revision, changes: changes.collect::<std::io::Result<_>>()? });
        Ok(())
    })?;
    merged.log = whole.then_some(log);
    Ok(merged)
}

/// Calls failed what is unknown and left no trace in the log; returns the history and how many those were.
///
/// - Shape: what did leave a trace stays unknown: when it took effect, the order of the others must say.
pub fn settle(history: &History, log: &[Logged]) -> (History, usize) {
    let written = Written::of(log);
    let mut settled = 0;
    let ops = history.ops().iter().map(|op| {
        if op.kind != Kind::Info || !written.denies(&op.value) {
            return op.clone();
        }
        settled += 1;
        let error = format!("{}; it is not in the members' logs", op.error.as_deref().unwrap_or("unknown"));
        mechi_checker::history::Op { kind: Kind::Fail, error: Some(error), ..op.clone() }
    });
    let ops = ops.collect();
    (History::from_ops(ops), settled)
}

/// Every value that was ever written, as the workloads' checkers name values.
struct Written {
    registers: BTreeSet<(String, i64)>,
    elements: BTreeSet<(String, i64)>,
}

impl Written {
    fn of(log: &[Logged]) -> Self {
        let (mut registers, mut elements) = (BTreeSet::new(), BTreeSet::new());
        for (key, kv) in log.iter().flat_map(|logged| &logged.changes) {
            let Some(kv) = kv else { continue };
            let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(&kv.value));
            let numbers: Option<Vec<i64>> = value.split_ascii_whitespace().map(|word| word.parse().ok()).collect();
            for number in numbers.into_iter().flatten() {
                elements.insert((key.to_string(), number));
                registers.insert((key.to_string(), number));
            }
        }
        Self { registers, elements }
    }

    /// Whether nothing of what was asked was ever written. Of what asks for nothing, or is not known here, it is not said.
    fn denies(&self, asked: &Value) -> bool {
        let register = |prefix: &str, key: i64, value: i64| self.registers.contains(&(format!("{prefix}{key}"), value));
        match asked {
            Value::Register(it) => match it.call {
                RegisterCall::Write(value) | RegisterCall::Cas(_, value) => {
                    !register(workload::REGISTERS, it.key, value)
                }
                RegisterCall::Read => false,
            },
            Value::Set(Set::Add(element)) => {
                !workload::SETS.iter().any(|key| self.elements.contains(&((*key).to_owned(), *element)))
            }
            Value::Txn(mops) => {
                let mut writes = mops.iter().filter(|mop| !matches!(mop, Mop::Read { .. })).peekable();
                writes.peek().is_some()
                    && writes.all(|mop| match mop {
                        Mop::Append { key, element } => {
                            !self.elements.contains(&(format!("{}{key}", workload::LISTS), *element))
                        }
                        Mop::Write { key, value } => !register(workload::WR_REGISTERS, *key, *value),
                        Mop::Read { .. } => true,
                    })
            }
            _ => false,
        }
    }
}

/// Reads one map from a file.
pub(crate) fn map_of(path: &Path) -> Result<Edn> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    match parse(text.trim()) {
        Ok(edn @ Edn::Map(_)) => Ok(edn),
        Ok(_) => bail!("{} is no map", path.display()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests;
