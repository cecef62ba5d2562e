//! A register with a version and the revision of its last write, such as one key of the store is.

use super::{Call, Spec, check};
use crate::history::value::{RegisterCall, Seen, Value};
use crate::history::{History, Kind, Malformed};
use crate::verdict::Verdict;

/// One register.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

/// What it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// `None` before the first write.
    pub value: Option<i64>,
    /// How often it was written.
    pub version: i64,
    /// At least the revision of the last write: that of one nobody heard the answer of is not known.
    pub mod_revision: i64,
}

impl State {
    /// The state after a write, if the answer fits it.
    fn write(&self, value: i64, seen: Option<&Seen>) -> Option<Self> {
        let version = self.version + 1;
        let mod_revision = seen.and_then(|seen| seen.mod_revision);
        let fits = seen.and_then(|seen| seen.version).is_none_or(|seen| seen == version)
            && mod_revision.is_none_or(|seen| seen > self.mod_revision);
        let mod_revision = mod_revision.unwrap_or(self.mod_revision);
        fits.then_some(Self { value: Some(value), version, mod_revision })
    }
}

impl Spec for Register {
    type State = State;
    type Print = State;
    type Call = (RegisterCall, Option<Seen>);

    fn start(&self) -> State {
        State::default()
    }

    fn step(&self, state: &State, (call, seen): &Self::Call) -> Option<State> {
        match *call {
            RegisterCall::Read => {
                let Some(seen) = seen else { return Some(*state) };
                let fits = seen.value == state.value
                    && seen.version.is_none_or(|version| version == state.version)
                    && seen.mod_revision.is_none_or(|revision| revision >= state.mod_revision);
                let mod_revision = seen.mod_revision.unwrap_or(state.mod_revision);
                fits.then_some(State { mod_revision, ..*state })
            }
            RegisterCall::Write(value) => state.write(value, seen.as_ref()),
            RegisterCall::Cas(from, to) if state.value == Some(from) => state.write(to, seen.as_ref()),
            RegisterCall::Cas(..) => None,
        }
    }

    fn print(&self, state: &State) -> State {
        *state
    }

    fn show(&self, state: &State) -> String {
        let value = state.value.map_or("nil".to_owned(), |value| value.to_string());
        format!("value {value}, version {}, revision {}", state.version, state.mod_revision)
    }
}

/// Checks every register of a history by itself.
///
/// - Shape: reads of unknown outcome say nothing and are left out, and so are refused operations: a refused cas may be
///   refused for another reason than its comparison.
pub fn check_registers(history: &History) -> Result<Verdict, Malformed> {
    let pairs = history.pairs()?;
    let mut keys: std::collections::BTreeMap<i64, Vec<Call<_>>> = std::collections::BTreeMap::new();
    for pair in pairs {
        let Value::Register(register) = &pair.invoke.value else { continue };
        let seen = match (&pair.done.value, pair.done.kind) {
            (Value::Register(done), Kind::Ok) => done.seen,
            (_, Kind::Info) if register.call != RegisterCall::Read => None,
            _ => continue,
        };
        let text = text(register.key, &register.call, seen.as_ref(), pair.id());
        keys.entry(register.key).or_default().push(Call {
            id: pair.id(),
            invoked_ns: pair.invoke.time_ns,
            returned_ns: (pair.done.kind == Kind::Ok).then_some(pair.done.time_ns),
            call: (register.call, seen),
            text,
        });
    }
    Ok(keys.into_values().map(|mut calls| check(&Register, prune(&mut calls))).collect())
}

/// Drops writes of unknown outcome that nobody can have noticed: without versions, a value that no answer shows and no
/// cas starts from might as well never have been written.
fn prune(calls: &mut Vec<Call<(RegisterCall, Option<Seen>)>>) -> &[Call<(RegisterCall, Option<Seen>)>] {
    let versions = calls.iter().any(|call| call.call.1.is_some_and(|seen| seen.version.is_some()));
    if !versions {
        loop {
            let noticed: std::collections::BTreeSet<i64> = calls
                .iter()
                .filter_map(|call| match call.call {
                    (RegisterCall::Read, Some(seen)) => seen.value,
                    (RegisterCall::Cas(from, _), _) => Some(from),
                    _ => None,
                })
                .collect();
            let before = calls.len();
            calls.retain(|call| match call.call.0 {
                RegisterCall::Write(to) | RegisterCall::Cas(_, to) => {
                    call.returned_ns.is_some() || noticed.contains(&to)
                }
                RegisterCall::Read => true,
            });
            if calls.len() == before {
                break;
            }
        }
    }
    calls
}

fn text(key: i64, call: &RegisterCall, seen: Option<&Seen>, id: u64) -> String {
    let show = |value: Option<i64>| value.map_or("nil".to_owned(), |value| value.to_string());
    let what = match call {
        RegisterCall::Read => format!("read of {} from {key}", show(seen.and_then(|seen| seen.value))),
        RegisterCall::Write(value) => format!("write of {value} to {key}"),
        RegisterCall::Cas(from, to) => format!("cas from {from} to {to} of {key}"),
    };
    let version = seen.and_then(|seen| seen.version).map_or(String::new(), |version| format!(" at version {version}"));
    format!("operation {id} ({what}{version})")
}
