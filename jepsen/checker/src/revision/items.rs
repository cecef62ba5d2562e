//! The operations on the whole store, with what the oracle has to know of each at hand.

use crate::history::store::{Request, Response};
use crate::history::value::Value;
use crate::history::{Kind, Pair};
use crate::model::Model;
use mechi_proto::etcdserverpb as pb;
use pb::request_op::Request as AskOp;
use pb::response_op::Response as AnswerOp;

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    /// The index of its beginning.
    pub(super) id: u64,
    pub(super) ask: &'a Request,
    pub(super) answer: Option<&'a Response>,
    pub(super) kind: Kind,
    pub(super) error: &'a str,
    pub(super) invoked_ns: u64,
    pub(super) returned_ns: u64,
    /// Its answer's; 0 without an answer.
    pub(super) revision: i64,
    /// Whether its answer says that it made a revision. A revoke's does not say.
    pub(super) writes: bool,
    /// Whether its revision may be old.
    pub(super) serializable: bool,
}

/// The operations on the whole store, in the order of their beginnings.
pub(super) fn items<'a>(pairs: &[Pair<'a>]) -> Vec<Item<'a>> {
    let item = |pair: &Pair<'a>| {
        let Value::Ask(ask) = &pair.invoke.value else { return None };
        let answer = match &pair.done.value {
            Value::Answer(answer) if pair.done.kind == Kind::Ok => Some(answer),
            _ => None,
        };
        Some(Item {
            id: pair.id(),
            ask,
            answer,
            // An answer without content says no more than none.
            kind: if pair.done.kind == Kind::Ok && answer.is_none() { Kind::Info } else { pair.done.kind },
            error: pair.done.error.as_deref().unwrap_or_default(),
            invoked_ns: pair.invoke.time_ns,
            returned_ns: pair.returned_ns(),
            revision: answer.map_or(0, Response::revision),
            writes: answer.is_some_and(writes),
            // The header of these two is filled by the member that was asked, however far behind it is.
            serializable: ask.is_serializable()
                || matches!(ask, Request::LeaseKeepAlive(_) | Request::LeaseTimeToLive(_)),
        })
    };
    pairs.iter().filter_map(item).collect()
}

fn writes(answer: &Response) -> bool {
    match answer {
        Response::Put(_) => true,
        Response::DeleteRange(delete) => delete.deleted > 0,
        Response::Txn(txn) => txn_writes(txn),
        _ => false,
    }
}

fn txn_writes(txn: &pb::TxnResponse) -> bool {
    txn.responses.iter().any(|op| match &op.response {
        Some(AnswerOp::ResponsePut(_)) => true,
        Some(AnswerOp::ResponseDeleteRange(delete)) => delete.deleted > 0,
        Some(AnswerOp::ResponseTxn(nested)) => txn_writes(nested),
        Some(AnswerOp::ResponseRange(_)) | None => false,
    })
}

/// Makes the leases live that a request names: whether they did is the lease checker's question.
pub(super) fn assume_leases(ask: &Request, model: &mut Model) {
    match ask {
        Request::Put(put) if put.lease != 0 => model.assume_lease(put.lease),
        Request::LeaseRevoke(revoke) => model.assume_lease(revoke.id),
        Request::Txn(txn) => assume_txn(txn, model),
        _ => {}
    }
}

fn assume_txn(txn: &pb::TxnRequest, model: &mut Model) {
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(AskOp::RequestPut(put)) if put.lease != 0 => model.assume_lease(put.lease),
            Some(AskOp::RequestTxn(nested)) => assume_txn(nested, model),
            _ => {}
        }
    }
}
