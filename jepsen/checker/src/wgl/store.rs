//! The whole store as one object: for short histories, and for answers without a revision.

use super::{Call, Spec, check};
use crate::history::store::{Request, Response};
use crate::history::value::Value;
use crate::history::{History, Kind, Malformed};
use crate::model::Model;
use crate::revision::difference;
use crate::verdict::Verdict;

/// The whole store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Store;

impl Spec for Store {
    type State = Model;
    type Print = String;
    type Call = (Request, Option<Response>);

    fn start(&self) -> Model {
        Model::default()
    }

    fn step(&self, state: &Model, (ask, answer): &Self::Call) -> Option<Model> {
        let mut state = state.clone();
        let wanted = match state.ask(ask) {
            None => return Some(state),
            Some(wanted) => wanted,
        };
        match (answer, wanted) {
            (None, _) => Some(state),
            (Some(answer), Ok(wanted)) if answer.revision() == 0 => {
                // Without a header the revision is anybody's guess, and the rest is not.
                let wanted = bare(wanted);
                difference(answer, &wanted).is_none().then_some(state)
            }
            (Some(answer), Ok(wanted)) => difference(answer, &wanted).is_none().then_some(state),
            (Some(_), Err(_)) => None,
        }
    }

    fn print(&self, state: &Model) -> String {
        // All that a later answer can depend on, compared as text: stores of such histories are small.
        format!("{state:?}")
    }

    fn show(&self, state: &Model) -> String {
        format!("revision {}", state.revision())
    }
}

fn bare(mut response: Response) -> Response {
    match &mut response {
        Response::Range(it) => it.header = None,
        Response::Put(it) => it.header = None,
        Response::DeleteRange(it) => it.header = None,
        Response::Txn(it) => it.header = None,
        Response::Compaction(it) => it.header = None,
        Response::LeaseGrant(it) => it.header = None,
        Response::LeaseRevoke(it) => it.header = None,
        Response::LeaseKeepAlive(it) => it.header = None,
        Response::LeaseTimeToLive(it) => it.header = None,
    }
    response
}

/// Checks the operations on the whole store; refused and serializable ones are left out.
pub fn check_store(history: &History) -> Result<Verdict, Malformed> {
    let mut calls = Vec::new();
    for pair in history.pairs()? {
        let Value::Ask(ask) = &pair.invoke.value else { continue };
        let answer = match (&pair.done.value, pair.done.kind) {
            (Value::Answer(answer), Kind::Ok) => Some(answer.clone()),
            (_, Kind::Info) if !ask.is_read() => None,
            _ => continue,
        };
        if ask.is_serializable() {
            continue;
        }
        calls.push(Call {
            id: pair.id(),
            invoked_ns: pair.invoke.time_ns,
            returned_ns: (pair.done.kind == Kind::Ok).then_some(pair.done.time_ns),
            text: format!("operation {} ({} {})", pair.id(), ask.f(), ask.to_edn()),
            call: (ask.clone(), answer),
        });
    }
    Ok(check(&Store, &calls))
}
