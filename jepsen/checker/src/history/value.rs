//! What an operation asks or answers, in each workload's own words.

use super::store::{Request, Response};
use crate::edn::Edn;
use std::collections::BTreeSet;

/// The function of an operation and its argument or result.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An operation on one of many independent registers.
    Register(Register),
    /// An operation on the one set.
    Set(Set),
    /// A transaction of Elle's: list-append or rw-register.
    Txn(Vec<Mop>),
    /// A request to the whole store.
    Ask(Request),
    /// The store's answer.
    Answer(Response),
    /// An operation on a lock.
    Lock(Lock),
    /// An operation of an election.
    Election(Election),
    /// A nemesis's line, or one of a workload that no checker knows.
    Other {
        /// The function.
        f: String,
        /// Anything.
        value: Edn,
    },
}

impl Value {
    /// The function: Jepsen's `:f`.
    pub fn f(&self) -> &str {
        match self {
            Self::Register(register) => match register.call {
                RegisterCall::Read => "read",
                RegisterCall::Write(_) => "write",
                RegisterCall::Cas(..) => "cas",
            },
            Self::Set(Set::Add(_)) => "add",
            Self::Set(Set::Read(_)) => "read",
            Self::Txn(_) => "txn",
            Self::Ask(request) => request.f(),
            Self::Answer(response) => response.f(),
            Self::Lock(Lock::Acquire { .. }) => "acquire",
            Self::Lock(Lock::Release { .. }) => "release",
            Self::Election(election) => election.f(),
            Self::Other { f, .. } => f,
        }
    }
}

/// One call on one register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// Which register.
    pub key: i64,
    /// What to do.
    pub call: RegisterCall,
    /// What it then was; only in an answer.
    pub seen: Option<Seen>,
}

/// What a register can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RegisterCall {
    Read,
    Write(i64),
    /// From the first to the second.
    Cas(i64, i64),
}

/// A register's state as an answer shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// What it holds; `None` if it was never written.
    pub value: Option<i64>,
    /// How often it was written, if that was said.
    pub version: Option<i64>,
    /// The revision of its last write, if that was said.
    pub mod_revision: Option<i64>,
}

/// A call on the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Set {
    /// Puts a number in.
    Add(i64),
    /// All numbers; `None` in the request.
    Read(Option<BTreeSet<i64>>),
}

/// One step of a transaction of Elle's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Mop {
    Append { key: i64, element: i64 },
    Write { key: i64, value: i64 },
    Read { key: i64, seen: Read },
}

impl Mop {
    /// The key that it touches.
    pub fn key(&self) -> i64 {
        match self {
            Self::Append { key, .. } | Self::Write { key, .. } | Self::Read { key, .. } => *key,
        }
    }
}

/// What a step read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Nothing there, or a request.
    Nil,
    /// A register's value.
    One(i64),
    /// A list.
    List(Vec<i64>),
}

/// A call on a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Lock {
    /// `fence` is the revision that proves the holder's turn, `until_ns` the time up to which its lease cannot end; only
    /// in an answer.
    Acquire {
        name: String,
        fence: Option<i64>,
        until_ns: Option<u64>,
    },
    Release {
        name: String,
    },
}

/// A call in an election. A leader is named by its fence: the revision that made its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Election {
    /// Becomes the leader; `until_ns` is the time up to which its lease cannot end.
    Campaign { name: String, fence: Option<i64>, until_ns: Option<u64> },
    /// Says something else as the leader.
    Proclaim { name: String, fence: i64, value: String },
    /// Who leads, and what it says; no fence in an answer if nobody does.
    Observe { name: String, fence: Option<i64>, value: Option<String> },
    /// Leads no more.
    Resign { name: String, fence: i64 },
}

impl Election {
    /// The function's name in a history.
    pub fn f(&self) -> &'static str {
        match self {
            Self::Campaign { .. } => "campaign",
            Self::Proclaim { .. } => "proclaim",
            Self::Observe { .. } => "observe",
            Self::Resign { .. } => "resign",
        }
    }

    pub(super) fn to_edn(&self) -> Edn {
        let (name, fence, until_ns, value) = match self {
            Self::Campaign { name, fence, until_ns } => (name, *fence, *until_ns, None),
            Self::Proclaim { name, fence, value } => (name, Some(*fence), None, Some(value)),
            Self::Observe { name, fence, value } => (name, *fence, None, value.as_ref()),
            Self::Resign { name, fence } => (name, Some(*fence), None, None),
        };
        let fence = fence.map(|fence| ("fence", Edn::from(fence)));
        let until = until_ns.map(|until| ("until", Edn::from(until)));
        let value = value.map(|value| ("value", Edn::text(value)));
        Edn::map([("name", Edn::text(name))].into_iter().chain(fence).chain(until).chain(value))
    }

    pub(super) fn from_edn(f: &str, edn: &Edn) -> Option<Self> {
        let name = edn.get("name").name()?.to_owned();
        let (fence, until_ns) = (edn.get("fence").int(), edn.get("until").unsigned());
        let value = edn.get("value").name().map(str::to_owned);
        Some(match f {
            "campaign" => Self::Campaign { name, fence, until_ns },
            "proclaim" => Self::Proclaim { name, fence: fence?, value: value? },
            "observe" => Self::Observe { name, fence, value },
            _ => Self::Resign { name, fence: fence? },
        })
    }
}

/// Writes the steps of a transaction as Elle reads them.
pub(super) fn mops_to_edn(mops: &[Mop]) -> Edn {
    let mops = mops.iter().map(|mop| {
        let (f, value) = match mop {
            Mop::Append { element, .. } => ("append", Edn::from(*element)),
            Mop::Write { value, .. } => ("w", Edn::from(*value)),
            Mop::Read { seen: Read::Nil, .. } => ("r", Edn::Nil),
            Mop::Read { seen: Read::One(value), .. } => ("r", Edn::from(*value)),
            Mop::Read { seen: Read::List(items), .. } => {
                ("r", Edn::Vector(items.iter().map(|&item| item.into()).collect()))
            }
        };
        Edn::Vector(vec![Edn::keyword(f), mop.key().into(), value])
    });
    Edn::Vector(mops.collect())
}

/// Reads the steps of a transaction.
pub(super) fn mops_from_edn(edn: &Edn) -> Result<Vec<Mop>, String> {
    let wrong = || format!("{edn} is no transaction");
    let mop = |mop: &Edn| {
        let Some([f, key, value]) = mop.items() else { return Err(wrong()) };
        let key = key.int().ok_or_else(wrong)?;
        match (f.name(), value) {
            (Some("append"), value) => Ok(Mop::Append { key, element: value.int().ok_or_else(wrong)? }),
            (Some("w"), value) => Ok(Mop::Write { key, value: value.int().ok_or_else(wrong)? }),
            (Some("r"), Edn::Nil) => Ok(Mop::Read { key, seen: Read::Nil }),
            (Some("r"), Edn::Int(_)) => Ok(Mop::Read { key, seen: Read::One(value.int().ok_or_else(wrong)?) }),
            (Some("r"), value) => {
                let items = value.items().ok_or_else(wrong)?;
                let items: Option<_> = items.iter().map(Edn::int).collect();
                Ok(Mop::Read { key, seen: Read::List(items.ok_or_else(wrong)?) })
            }
            _ => Err(wrong()),
        }
    };
    edn.items().ok_or_else(wrong)?.iter().map(mop).collect()
}
