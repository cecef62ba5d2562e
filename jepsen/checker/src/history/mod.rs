//! A history: what clients asked and heard, and what was done to the servers, in the order in which it happened.
//!
//! - Source: Jepsen's histories (`jepsen.history`), whose rules the checkers Elle and Knossos rely on.

pub mod value;
pub mod store;
pub mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use value::Value;

/// What a line of a history says of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It took effect.
    Ok,
    /// It never took effect, and never will.
    Fail,
    /// Nobody knows: it may take effect at any later time, or never. All lines of the nemesis are of this kind.
    Info,
}

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// One thread of a client; it has one operation open at a time.
    Client(u64),
    /// Who injects the faults.
    Nemesis,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(number) => write!(f, "client {number}"),
            Self::Nemesis => f.write_str("nemesis"),
        }
    }
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// Its place, counted from 0.
    pub index: u64,
    /// Nanoseconds since the start, on the one monotonic clock of whoever runs the clients.
    pub time_ns: u64,
    /// Beginning or outcome.
    pub kind: Kind,
    /// Who acts.
    pub process: Process,
    /// What is asked, or answered.
    pub value: Value,
    /// The member that was asked.
    pub node: Option<String>,
    /// The answer's header's revision.
    pub revision: Option<i64>,
    /// The answer's header's term.
    pub raft_term: Option<u64>,
    /// Why it failed, or why nobody knows.
    pub error: Option<String>,
}

impl Op {
    /// A line with nothing but its essentials; [`History::push`] numbers it.
    pub fn new(time_ns: u64, kind: Kind, process: Process, value: Value) -> Self {
        Self { index: 0, time_ns, kind, process, value, node: None, revision: None, raft_term: None, error: None }
    }
}

/// An operation with both its ends.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Its beginning.
    pub invoke: &'a Op,
    /// Its outcome.
    pub done: &'a Op,
}

impl Pair<'_> {
    /// Names the operation: the index of its beginning.
    pub fn id(&self) -> u64 {
        self.invoke.index
    }

    /// When its outcome was known; of one whose outcome is unknown, never.
    pub fn returned_ns(&self) -> u64 {
        if self.done.kind == Kind::Info { u64::MAX } else { self.done.time_ns }
    }
}

/// All lines, in the order of their indexes.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct History(Vec<Op>);

/// A history that no checker can judge, and the line that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {index}: {what}")]
pub struct Malformed {
    /// The line.
    pub index: u64,
    /// The rule that it breaks.
    pub what: String,
}

impl History {
    /// Appends a line and gives it its index, which it returns.
    pub fn push(&mut self, mut op: Op) -> u64 {
        op.index = self.0.len() as u64;
        self.0.push(op);
        self.0.len() as u64 - 1
    }

    /// Takes lines as they are, with their indexes; [`History::check`] says whether they are a history.
    pub fn from_ops(ops: Vec<Op>) -> Self {
        Self(ops)
    }

    /// The lines.
    pub fn ops(&self) -> &[Op] {
        &self.0
    }

    /// Completes what is still open as unknown, at `time_ns`: what a runner does before it ends.
    pub fn close(&mut self, time_ns: u64) {
        let mut open = BTreeMap::new();
        for op in self.0.iter().filter(|op| op.process != Process::Nemesis) {
            match op.kind {
                Kind::Invoke => drop(open.insert(op.process, op.clone())),
                _ => drop(open.remove(&op.process)),
            }
        }
        for op in open.into_values() {
            let error = Some("the run ended".to_owned());
            self.push(Op { time_ns, kind: Kind::Info, error, ..op });
        }
    }

    /// Checks the rules that every checker relies on.
    ///
    /// - Errors: indexes that are not 0, 1, 2 and so on; time that runs backwards; a completion that completes
    ///   nothing, or another function; two operations of one process at once; an operation without an end; a process
    ///   that goes on after an unknown outcome (its thread goes on under another number); a nemesis that says
    ///   anything but `:info`.
    pub fn check(&self) -> Result<(), Malformed> {
        let mut open: BTreeMap<Process, &Op> = BTreeMap::new();
        let mut retired = BTreeSet::new();
        let mut last_ns = 0;
        for (op, place) in self.0.iter().zip(0..) {
            let bad = |what: String| Err(Malformed { index: op.index, what });
            if op.index != place {
                return bad(format!("stands at {place}"));
            }
            if op.time_ns < last_ns {
                return bad(format!("happens at {}, the one before it at {last_ns}", op.time_ns));
            }
            last_ns = op.time_ns;
            if op.process == Process::Nemesis {
                if op.kind != Kind::Info {
                    return bad(format!("the nemesis says {:?}, wanted :info", op.kind));
                }
                continue;
            }
            if retired.contains(&op.process) {
                return bad(format!("{} acts after an unknown outcome", op.process));
            }
            if op.kind == Kind::Invoke {
                if let Some(other) = open.insert(op.process, op) {
                    return bad(format!("{} has operation {} open", op.process, other.index));
                }
                continue;
            }
            let Some(invoke) = open.remove(&op.process) else {
                return bad(format!("completes nothing: {} has no operation open", op.process));
            };
            if invoke.value.f() != op.value.f() {
                return bad(format!("{} completes operation {}, a {}", op.value.f(), invoke.index, invoke.value.f()));
            }
            if op.kind == Kind::Info {
                retired.insert(op.process);
            }
        }
        match open.into_values().min_by_key(|op| op.index) {
            Some(op) => Err(Malformed { index: op.index, what: "has no completion".into() }),
            None => Ok(()),
        }
    }

    /// The clients' operations, by the order of their beginnings.
    ///
    /// - Errors: those of [`History::check`].
    pub fn pairs(&self) -> Result<Vec<Pair<'_>>, Malformed> {
        self.check()?;
        let mut open: BTreeMap<Process, usize> = BTreeMap::new();
        let mut pairs: Vec<Pair<'_>> = Vec::new();
        for op in self.0.iter().filter(|op| op.process != Process::Nemesis) {
            if op.kind == Kind::Invoke {
                open.insert(op.process, pairs.len());
                pairs.push(Pair { invoke: op, done: op });
            } else if let Some(place) = open.remove(&op.process) {
                pairs[place].done = op;
            }
        }
        Ok(pairs)
    }

    /// The nemesis's lines.
    pub fn nemesis(&self) -> impl Iterator<Item = &Op> {
        self.0.iter().filter(|op| op.process == Process::Nemesis)
    }

    /// The operations on registers by key, each a history of its own with indexes of its own.
    pub fn registers(&self) -> BTreeMap<i64, History> {
        let mut found: BTreeMap<i64, History> = BTreeMap::new();
        for op in &self.0 {
            if let Value::Register(register) = &op.value {
                found.entry(register.key).or_default().push(op.clone());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
