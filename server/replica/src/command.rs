//! Commands before the log: their bytes in an entry, and what is checked of a request before it is proposed.
//!
//! The checks are etcd's, in etcd's order, since the first error found is the one that a client reads.

mod foreign;
mod intervals;

pub use foreign::{Unfit, check_foreign};

use crate::limits::{REQUEST_BYTES_MAX, TXN_DEPTH_MAX, TXN_OPS_MAX};
use crate::outcome::{Error, Fatal};
use bytes::{BufMut, Bytes, BytesMut};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{Batch, Command, command::Request};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request as Op;
use prost::Message;

/// The first byte of a normal entry's data; another one was written by a later Mechi.
pub const ENTRY_VERSION: u8 = 1;

/// What a put costs the quota beside its key and value, in bytes (etcd `storage/quota.go`).
pub const PUT_OVERHEAD_BYTES: u64 = 256;

/// What a lease costs the quota, in bytes (etcd `storage/quota.go`).
pub const LEASE_BYTES: u64 = 64;

/// Encodes a batch as the data of one entry: the version byte, then the `mechipb.Batch`.
pub fn encode(batch: &Batch) -> Bytes {
    let mut data = BytesMut::with_capacity(1 + batch.encoded_len());
    data.put_u8(ENTRY_VERSION);
    batch.encode(&mut data).expect("BytesMut grows as needed");
    data.freeze()
}

/// Decodes an entry's data; the batch's keys and values are slices of `data`.
///
/// - Errors: [`Fatal::Bug`] on an unknown version or on bytes that are no batch. The log's own checksums were right,
///   so a newer Mechi, or a bug, wrote them, and a member that cannot apply an entry must stop.
pub fn decode(data: &Bytes) -> Result<Batch, Fatal> {
    match data.first() {
        Some(&ENTRY_VERSION) => {
            Batch::decode(data.slice(1..)).map_err(|error| Fatal::Bug(format!("entry holds no batch: {error}")))
        }
        Some(version) => Err(Fatal::Bug(format!(
            "entry format {version} is unknown, this version reads {ENTRY_VERSION}: it was written by a newer mechi"
        ))),
        None => Err(Fatal::Bug("entry is empty and holds no batch".into())),
    }
}

/// Names a batch: its author, the author's boot, and the number within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId {
    /// Who made it.
    pub member: u64,
    /// Its author's boot counter.
    pub boot: u64,
    /// Counts up from 1 within that boot.
    pub number: u64,
}

/// Reads whose batch an entry holds from its first bytes, without decoding it; `None` if it holds none.
///
/// - Shape: prost writes fields in the order of their numbers, and none of these is ever 0.
pub fn peek(data: &[u8]) -> Option<BatchId> {
    let (&ENTRY_VERSION, mut rest) = data.split_first()? else { return None };
    let mut field = |tag: u8| {
        let (found, mut value) = rest.split_first()?;
        let number = (*found == tag).then(|| prost::encoding::decode_varint(&mut value).ok())?;
        rest = value;
        number
    };
    // A varint's tag is the field's number, shifted by the three bits of the wire type 0.
    Some(BatchId { member: field(1 << 3)?, boot: field(2 << 3)?, number: field(3 << 3)? })
}

/// Bytes that `command` takes in an entry, its tag and length included.
pub fn entry_bytes(command: &Command) -> usize {
    let len = command.encoded_len();
    1 + prost::length_delimiter_len(len) + len
}

/// What flags allow a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Operations in one branch of a txn, shared with what is nested in it.
    pub txn_ops_max: usize,
    /// Bytes of the command in its log form.
    pub request_bytes_max: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { txn_ops_max: TXN_OPS_MAX, request_bytes_max: REQUEST_BYTES_MAX }
    }
}

/// Checks a request before it is proposed.
///
/// - Errors: those of `check_put`, `check_delete` and `check_txn`; [`Error::RequestTooLarge`] on the marshalled
///   request, which etcd measures last.
pub fn check(request: &Request, limits: &RequestLimits) -> Result<(), Error> {
    match request {
        Request::Put(put) => check_put(put)?,
        Request::DeleteRange(delete) => check_delete(delete)?,
        Request::Txn(txn) => check_txn(txn, limits.txn_ops_max)?,
        Request::Compaction(_)
        | Request::LeaseGrant(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseExpire(_)
        | Request::LeaseCheckpoint(_)
        | Request::Alarm(_)
        | Request::MemberPublish(_)
        | Request::ClusterInit(_) => {}
    }
    if request.encoded_len() > limits.request_bytes_max {
        return Err(Error::RequestTooLarge);
    }
    Ok(())
}

/// Checks a range: its key, then its sort options.
pub fn check_range(range: &pb::RangeRequest) -> Result<(), Error> {
    if range.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if SortOrder::try_from(range.sort_order).is_err() || SortTarget::try_from(range.sort_target).is_err() {
        return Err(Error::InvalidSortOption);
    }
    Ok(())
}

/// Checks a put: its key, and that what is to be ignored was not given.
pub fn check_put(put: &pb::PutRequest) -> Result<(), Error> {
    if put.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete: its key.
pub fn check_delete(delete: &pb::DeleteRangeRequest) -> Result<(), Error> {
    if delete.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// Checks a txn and all that is nested in it, read-only ones too.
///
/// - Shape: a level counts the longest of its compares and its two branches; what it leaves of `ops_max` is what
///   each txn nested in it may count. At most `TXN_DEPTH_MAX` levels, which etcd bounds by the operations alone: an
///   entry is decoded with a bounded recursion, and one that is in the log must be.
/// - Errors: [`Error::TooManyOps`], then those of the single requests, [`Error::KeyNotFound`] for an operation
///   without a request, and last [`Error::DuplicateKey`].
/// - Source: etcd `v3rpc/key.go`, `checkTxnRequest` and `checkIntervals`.
pub fn check_txn(txn: &pb::TxnRequest, ops_max: usize) -> Result<(), Error> {
    check_txn_ops(txn, ops_max, TXN_DEPTH_MAX)?;
    intervals::check(&txn.success)?;
    intervals::check(&txn.failure)
}

fn check_txn_ops(txn: &pb::TxnRequest, ops_max: usize, levels_max: usize) -> Result<(), Error> {
    let count = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let (Some(left), Some(levels_left)) = (ops_max.checked_sub(count), levels_max.checked_sub(1)) else {
        return Err(Error::TooManyOps);
    };
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Op::RequestRange(range)) => check_range(range)?,
            Some(Op::RequestPut(put)) => check_put(put)?,
            Some(Op::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Op::RequestTxn(nested)) => check_txn_ops(nested, left, levels_left)?,
            None => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

fn ops(txn: &pb::TxnRequest) -> impl Iterator<Item = Option<&Op>> {
    txn.success.iter().chain(&txn.failure).map(|op| op.request.as_ref())
}

/// Tells whether a txn is served without the log: all its operations are ranges, or it has none.
///
/// A txn with another one nested in it goes through the log even if both only read, as in etcd.
pub fn is_read_only(txn: &pb::TxnRequest) -> bool {
    ops(txn).all(|op| matches!(op, Some(Op::RequestRange(_))))
}

/// Tells whether a read-only txn needs no read point: all its ranges are serializable, or it has none.
pub fn is_serializable(txn: &pb::TxnRequest) -> bool {
    ops(txn).all(|op| matches!(op, Some(Op::RequestRange(range)) if range.serializable))
}

/// What a request may cost the quota, in bytes; 0 for what never grows the store and always passes.
///
/// - Source: etcd `storage/quota.go`: a put costs its key and value and [`PUT_OVERHEAD_BYTES`], a txn its dearer
///   branch, a lease [`LEASE_BYTES`].
pub fn quota_cost(request: &Request) -> u64 {
    match request {
        Request::Put(put) => put_cost(put),
        Request::Txn(txn) => txn_cost(txn),
        Request::LeaseGrant(_) => LEASE_BYTES,
        Request::DeleteRange(_)
        | Request::Compaction(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseExpire(_)
        | Request::LeaseCheckpoint(_)
        | Request::Alarm(_)
        | Request::MemberPublish(_)
        | Request::ClusterInit(_) => 0,
    }
}

fn put_cost(put: &pb::PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + put.key.len() as u64 + put.value.len() as u64
}

fn txn_cost(txn: &pb::TxnRequest) -> u64 {
    let branch = |ops: &[pb::RequestOp]| -> u64 {
        ops.iter()
            .map(|op| match &op.request {
                Some(Op::RequestPut(put)) => put_cost(put),
                Some(Op::RequestTxn(nested)) => txn_cost(nested),
                Some(Op::RequestRange(_) | Op::RequestDeleteRange(_)) | None => 0,
            })
            .sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

#[cfg(test)]
mod tests;
