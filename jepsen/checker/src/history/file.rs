//! A history as a file: one map per line, in the order of keys in which Jepsen's own files are read by people.

use super::store::{Request, Response};
use super::value::{Election, Lock, Register, RegisterCall, Seen, Set, Value, mops_from_edn, mops_to_edn};
use super::{History, Kind, Op, Process};
use crate::edn::{Edn, read_lines};
use std::io::{self, BufRead, Write};

/// How the values of registers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Plainly, with the key beside it as `:key`: what this crate reads, and, for one key, Knossos too.
    Plain,
    /// Jepsen's tuples of independent keys, `[key value]`.
    Tuples,
    /// As Jepsen's suite for etcd does: `[version value]`.
    Versioned,
}

/// Writes a history.
pub fn write(history: &History, form: Form, out: &mut impl Write) -> io::Result<()> {
    history.ops().iter().try_for_each(|op| writeln!(out, "{}", line(op, form)))
}

/// One operation as its line, without the line's end.
pub fn line(op: &Op, form: Form) -> String {
    let kind = match op.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    };
    let process = match op.process {
        Process::Client(number) => Edn::from(number),
        Process::Nemesis => Edn::keyword("nemesis"),
    };
    let value = value_to_edn(&op.value, form);
    let mut line = format!(
        "{{:index {}, :time {}, :type :{kind}, :process {process}, :f :{}, :value {value}",
        op.index,
        op.time_ns,
        op.value.f()
    );
    let mut more = |name: &str, value: Edn| {
        if value != Edn::Nil {
            line.push_str(&format!(", :{name} {value}"));
        }
    };
    if let Value::Register(register) = &op.value {
        if form == Form::Plain {
            more("key", register.key.into());
        }
        if let Some(seen) = &register.seen {
            more("version", seen.version.into());
            more("mod-revision", seen.mod_revision.into());
        }
    }
    more("node", op.node.as_ref().map_or(Edn::Nil, Edn::text));
    more("revision", op.revision.into());
    more("raft-term", op.raft_term.map_or(Edn::Nil, Edn::from));
    more("error", op.error.as_ref().map_or(Edn::Nil, Edn::text));
    line.push('}');
    line
}

fn value_to_edn(value: &Value, form: Form) -> Edn {
    match value {
        Value::Register(register) => {
            let plain = match register.call {
                RegisterCall::Read => register.seen.map_or(Edn::Nil, |seen| seen.value.into()),
                RegisterCall::Write(value) => value.into(),
                RegisterCall::Cas(from, to) => Edn::Vector(vec![from.into(), to.into()]),
            };
            match form {
                Form::Plain => plain,
                Form::Tuples => Edn::Vector(vec![register.key.into(), plain]),
                Form::Versioned => Edn::Vector(vec![register.seen.and_then(|seen| seen.version).into(), plain]),
            }
        }
        Value::Set(Set::Add(item)) => (*item).into(),
        Value::Set(Set::Read(items)) => match items {
            Some(items) => Edn::Set(items.iter().map(|&item| item.into()).collect()),
            None => Edn::Nil,
        },
        Value::Txn(mops) => mops_to_edn(mops),
        Value::Ask(request) => request.to_edn(),
        Value::Answer(response) => response.to_edn(),
        Value::Lock(Lock::Acquire { name, fence, until_ns }) => {
            let fence = fence.map(|fence| ("fence", Edn::from(fence)));
            let until = until_ns.map(|until| ("until", Edn::from(until)));
            Edn::map([("name", Edn::text(name))].into_iter().chain(fence).chain(until))
        }
        Value::Lock(Lock::Release { name }) => Edn::map([("name", Edn::text(name))]),
        Value::Election(election) => election.to_edn(),
        Value::Other { value, .. } => value.clone(),
    }
}

/// Reads a history.
///
/// - Shape: as [`write`] writes it in its plain form, or as Jepsen does; `:index` may be missing from every line, which
///   then are numbered as they come. A `read` without a `:key` is one of the set if anything is added, and otherwise
///   of the register 0.
/// - Errors: those of the file, and [`io::ErrorKind::InvalidData`] for what is no history.
pub fn read(input: impl BufRead) -> io::Result<History> {
    let mut lines = Vec::new();
    read_lines(input, |form| {
        lines.push(form);
        Ok(())
    })?;
    let set = lines.iter().any(|line| line.get("f").name() == Some("add"));
    let mut ops = Vec::with_capacity(lines.len());
    for (line, place) in lines.iter().zip(0..) {
        let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("operation {place}: {what}"));
        ops.push(op_of(line, place, set).map_err(bad)?);
    }
    let history = History::from_ops(ops);
    history.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(history)
}

fn op_of(line: &Edn, place: u64, set: bool) -> Result<Op, String> {
    let kind = match line.get("type").name() {
        Some("invoke") => Kind::Invoke,
        Some("ok") => Kind::Ok,
        Some("fail") => Kind::Fail,
        Some("info") => Kind::Info,
        _ => return Err(format!(":type is {}", line.get("type"))),
    };
    let process = match line.get("process") {
        Edn::Int(_) => Process::Client(line.get("process").unsigned().ok_or(":process is no number")?),
        Edn::Keyword(name) if name == "nemesis" => Process::Nemesis,
        other => return Err(format!(":process is {other}")),
    };
    let index = match line.get("index") {
        Edn::Nil => place,
        index => index.unsigned().ok_or(":index is no number")?,
    };
    let time_ns = match line.get("time") {
        Edn::Nil => place,
        time => time.unsigned().ok_or(":time is no number")?,
    };
    let f = line.get("f").name().ok_or(":f is missing")?;
    Ok(Op {
        index,
        time_ns,
        kind,
        process,
        value: value_of(f, line, kind, process, set)?,
        node: line.get("node").name().map(str::to_owned),
        revision: line.get("revision").int(),
        raft_term: line.get("raft-term").unsigned(),
        error: match line.get("error") {
            Edn::Nil => None,
            error => Some(error.name().map_or_else(|| error.to_string(), str::to_owned)),
        },
    })
}

fn value_of(f: &str, line: &Edn, kind: Kind, process: Process, set: bool) -> Result<Value, String> {
    let value = line.get("value");
    let other = || Ok(Value::Other { f: f.to_owned(), value: value.clone() });
    let wrong = || format!("{value} is no value of {f}");
    if process == Process::Nemesis {
        return other();
    }
    match f {
        "read" if set && line.get("key") == &Edn::Nil => Ok(Value::Set(Set::Read(match value {
            Edn::Nil => None,
            Edn::Set(items) => Some(items.iter().map(Edn::int).collect::<Option<_>>().ok_or_else(wrong)?),
            items => {
                let items = items.items().ok_or_else(wrong)?;
                Some(items.iter().map(Edn::int).collect::<Option<_>>().ok_or_else(wrong)?)
            }
        }))),
        "add" => Ok(Value::Set(Set::Add(value.int().ok_or_else(wrong)?))),
        "read" | "write" | "cas" => register_of(f, line, kind).ok_or_else(wrong).map(Value::Register),
        "txn" => mops_from_edn(value).map(Value::Txn),
        "acquire" | "release" => {
            let name = value.get("name").name().ok_or_else(wrong)?.to_owned();
            let (fence, until_ns) = (value.get("fence").int(), value.get("until").unsigned());
            let acquire = f == "acquire";
            Ok(Value::Lock(if acquire { Lock::Acquire { name, fence, until_ns } } else { Lock::Release { name } }))
        }
        "campaign" | "proclaim" | "observe" | "resign" => {
            Election::from_edn(f, value).ok_or_else(wrong).map(Value::Election)
        }
        _ if kind != Kind::Invoke && *value == Edn::Nil => other(),
        _ if kind == Kind::Ok => Response::from_edn(f, value).map_or_else(other, |it| it.map(Value::Answer)),
        _ => Request::from_edn(f, value).map_or_else(other, |it| it.map(Value::Ask)),
    }
}

fn register_of(f: &str, line: &Edn, kind: Kind) -> Option<Register> {
    let value = line.get("value");
    let (call, now) = match f {
        "read" => match value {
            Edn::Nil => (RegisterCall::Read, None),
            value => (RegisterCall::Read, Some(value.int()?)),
        },
        "write" => (RegisterCall::Write(value.int()?), Some(value.int()?)),
        _ => {
            let [from, to] = value.items()? else { return None };
            (RegisterCall::Cas(from.int()?, to.int()?), Some(to.int()?))
        }
    };
    let seen = Seen { value: now, version: line.get("version").int(), mod_revision: line.get("mod-revision").int() };
    let key = line.get("key").int().unwrap_or(0);
    Some(Register { key, call, seen: (kind == Kind::Ok).then_some(seen) })
}
