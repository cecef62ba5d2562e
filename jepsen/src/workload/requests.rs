//! The requests that workloads are made of, and what is read out of answers.

use crate::client::{Client, Outcome};
use bytes::Bytes;
use mechi_checker::history::store::{Request, Response};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::KeyValue;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request as AskOp;
use pb::response_op::Response as AnswerOp;

/// One key, as it is now.
pub(super) fn get(key: impl Into<Bytes>) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

/// All keys that begin with a prefix.
pub(super) fn get_prefix(prefix: &str) -> pb::RangeRequest {
    let range_end = crate::watcher::prefix_end(prefix);
    pb::RangeRequest { key: Bytes::copy_from_slice(prefix.as_bytes()), range_end, ..Default::default() }
}

/// The whole store.
pub(super) fn get_all() -> pb::RangeRequest {
    let zero = Bytes::from_static(&[0]);
    pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() }
}

pub(super) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

pub(super) fn delete(key: impl Into<Bytes>) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.into(), ..Default::default() }
}

/// Whether a key's last change is that of a revision; 0 if it is not there.
pub(super) fn unchanged(key: impl Into<Bytes>, mod_revision: i64) -> pb::Compare {
    compare(key, CompareTarget::Mod, TargetUnion::ModRevision(mod_revision))
}

/// Whether a key was made at a revision; 0 if it is not there.
pub(super) fn made(key: impl Into<Bytes>, create_revision: i64) -> pb::Compare {
    compare(key, CompareTarget::Create, TargetUnion::CreateRevision(create_revision))
}

/// Whether a key holds a value.
pub(super) fn holds(key: impl Into<Bytes>, value: impl Into<Bytes>) -> pb::Compare {
    compare(key, CompareTarget::Value, TargetUnion::Value(value.into()))
}

fn compare(key: impl Into<Bytes>, target: CompareTarget, to: TargetUnion) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: target as i32,
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(to),
    }
}

pub(super) fn op_get(get: pb::RangeRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(AskOp::RequestRange(get)) }
}

pub(super) fn op_put(put: pb::PutRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(AskOp::RequestPut(put)) }
}

pub(super) fn op_delete(delete: pb::DeleteRangeRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(AskOp::RequestDeleteRange(delete)) }
}

/// Asks for a range.
pub(super) async fn range(client: &mut Client, ask: pb::RangeRequest) -> Outcome<pb::RangeResponse> {
    client.ask(Request::Range(ask)).await.and_then(|answer| match answer {
        Response::Range(it) => Some(it),
        _ => None,
    })
}

/// Runs a transaction.
pub(super) async fn txn(
    client: &mut Client,
    compare: Vec<pb::Compare>,
    success: Vec<pb::RequestOp>,
    failure: Vec<pb::RequestOp>,
) -> Outcome<pb::TxnResponse> {
    client.ask(Request::Txn(pb::TxnRequest { compare, success, failure })).await.and_then(|answer| match answer {
        Response::Txn(it) => Some(it),
        _ => None,
    })
}

/// Grants a lease with an id of the server's choice.
pub(super) async fn grant(client: &mut Client, ttl: i64) -> Outcome<pb::LeaseGrantResponse> {
    client.ask(Request::LeaseGrant(pb::LeaseGrantRequest { id: 0, ttl })).await.and_then(|answer| match answer {
        Response::LeaseGrant(it) => Some(it),
        _ => None,
    })
}

/// What a step of a transaction read.
pub(super) fn kvs(response: &pb::ResponseOp) -> &[KeyValue] {
    match &response.response {
        Some(AnswerOp::ResponseRange(it)) => &it.kvs,
        _ => &[],
    }
}

/// The revision of an answer.
pub(super) fn revision(header: &Option<pb::ResponseHeader>) -> i64 {
    mechi_checker::history::store::revision(header)
}

/// A value that is a number.
pub(super) fn number(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// A value that is a list of numbers.
pub(super) fn numbers(bytes: &[u8]) -> Option<Vec<i64>> {
    std::str::from_utf8(bytes).ok()?.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
}

/// A list of numbers as a value.
pub(super) fn list(numbers: &[i64]) -> Bytes {
    let words: Vec<_> = numbers.iter().map(i64::to_string).collect();
    words.join(" ").into()
}
