//! Random histories of KV, Txn, Lease and Compact operations, with the odd and the wrong among them.

use crate::rng::Rng;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request;

/// One client operation.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Op {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
    TimeToLive(pb::LeaseTimeToLiveRequest),
    Leases,
    HashKv(pb::HashKvRequest),
}

/// What the generator knows of the store, so that revisions are near the borders.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// The newest revision seen in an answer.
    pub revision: i64,
    /// The newest compaction that succeeded.
    pub compacted: i64,
}

/// How many leases a history plays with; their TTL is long, so that none ends by itself.
const LEASES: u64 = 8;
const KEYS: [&[u8]; 18] = [
    b"a",
    b"a/",
    b"a/1",
    b"a/2",
    b"a/2/x",
    b"a/3",
    b"a0",
    b"b",
    b"b/1",
    b"b/2",
    b"c",
    b"c\0",
    b"c\0\0",
    b"d\xff",
    b"d\xff\xff",
    b"\xfd",
    b"\0",
    b"z",
];
const ENDS: [&[u8]; 9] = [b"", b"", b"\0", b"a0", b"b", b"b0", b"c\0", b"\xff", b"a"];
const VALUES: [&[u8]; 6] = [b"", b"0", b"1", b"22", b"a longer value, to vary the lengths", &LONG];
/// Long enough that it is worth to evict it from memory.
const LONG: [u8; 300] = [b'v'; 300];

fn key(rng: &mut Rng) -> Bytes {
    if rng.chance(1) { Bytes::new() } else { Bytes::from_static(rng.pick::<&[u8]>(&KEYS[..])) }
}

fn end(rng: &mut Rng) -> Bytes {
    Bytes::from_static(rng.pick::<&[u8]>(&ENDS[..]))
}

fn value(rng: &mut Rng) -> Bytes {
    Bytes::from_static(rng.pick::<&[u8]>(&VALUES[..]))
}

/// Mostly now, often in the past, sometimes compacted, seldom in the future or negative.
fn revision(rng: &mut Rng, known: Known) -> i64 {
    match rng.below(20) {
        0..=11 => 0,
        12..=16 => known.compacted + rng.below((known.revision - known.compacted).max(1) as u64 + 1) as i64,
        17 => known.compacted - rng.below(3) as i64,
        18 => known.revision + rng.below(3) as i64,
        _ => -1,
    }
}

fn range(rng: &mut Rng, known: Known) -> pb::RangeRequest {
    let sorted = rng.chance(35);
    let filtered = rng.chance(15);
    let bound =
        |rng: &mut Rng| if filtered && rng.chance(50) { rng.below(known.revision as u64 + 2) as i64 } else { 0 };
    pb::RangeRequest {
        key: key(rng),
        range_end: end(rng),
        limit: if rng.chance(40) { rng.below(6) as i64 } else { 0 },
        revision: revision(rng, known),
        sort_order: if sorted { rng.below(3) as i32 } else { SortOrder::None as i32 },
        sort_target: if sorted { rng.below(5) as i32 } else { SortTarget::Key as i32 },
        serializable: rng.chance(20),
        keys_only: rng.chance(10),
        count_only: rng.chance(10),
        min_mod_revision: bound(rng),
        max_mod_revision: bound(rng),
        min_create_revision: bound(rng),
        max_create_revision: bound(rng),
    }
}

fn put(rng: &mut Rng) -> pb::PutRequest {
    let ignore_value = rng.chance(8);
    let ignore_lease = rng.chance(8);
    pb::PutRequest {
        key: key(rng),
        value: if ignore_value && rng.chance(80) { Bytes::new() } else { value(rng) },
        lease: if rng.chance(25) && !(ignore_lease && rng.chance(80)) { rng.below(LEASES + 1) as i64 } else { 0 },
        prev_kv: rng.chance(30),
        ignore_value,
        ignore_lease,
    }
}

fn delete(rng: &mut Rng) -> pb::DeleteRangeRequest {
    let range_end = if rng.chance(60) { Bytes::new() } else { end(rng) };
    pb::DeleteRangeRequest { key: key(rng), range_end, prev_kv: rng.chance(40) }
}

fn compare(rng: &mut Rng, known: Known) -> pb::Compare {
    let target = rng.below(5) as i32;
    let number = if rng.chance(30) { 0 } else { rng.below(known.revision as u64 + 1) as i64 };
    let union = match CompareTarget::try_from(target).expect("below 5") {
        CompareTarget::Version => TargetUnion::Version(rng.below(4) as i64),
        CompareTarget::Create => TargetUnion::CreateRevision(number),
        CompareTarget::Mod => TargetUnion::ModRevision(number),
        CompareTarget::Value => TargetUnion::Value(value(rng)),
        CompareTarget::Lease => TargetUnion::Lease(rng.below(LEASES) as i64),
    };
    pb::Compare {
        result: *rng.pick(&[
            CompareResult::Equal as i32,
            CompareResult::Greater as i32,
            CompareResult::Less as i32,
            CompareResult::NotEqual as i32,
        ]),
        target,
        key: key(rng),
        target_union: (!rng.chance(5)).then_some(union),
        range_end: if rng.chance(80) { Bytes::new() } else { end(rng) },
    }
}

fn operation(rng: &mut Rng, known: Known, depth: u32) -> pb::RequestOp {
    let request = match rng.below(100) {
        0..=34 => Some(Request::RequestPut(put(rng))),
        35..=64 => Some(Request::RequestRange(range(rng, known))),
        65..=84 => Some(Request::RequestDeleteRange(delete(rng))),
        85..=98 if depth < 2 => Some(Request::RequestTxn(txn(rng, known, depth + 1))),
        85..=98 => Some(Request::RequestRange(range(rng, known))),
        _ => None,
    };
    pb::RequestOp { request }
}

fn txn(rng: &mut Rng, known: Known, depth: u32) -> pb::TxnRequest {
    let compares = rng.below(3);
    let compare = (0..compares).map(|_| compare(rng, known)).collect();
    let count = rng.below(4);
    let success = (0..count).map(|_| operation(rng, known, depth)).collect();
    let count = rng.below(3);
    let failure = (0..count).map(|_| operation(rng, known, depth)).collect();
    pb::TxnRequest { compare, success, failure }
}

/// Tells whether `op` may stop a real etcd: it checks that a put's key is there before the txn, and panics on every
/// member if a delete earlier in the txn has taken it away (3.5.1 to 3.7.1).
pub fn stops_etcd(op: &Op) -> bool {
    let Op::Txn(txn) = op else { return false };
    keeps_after_delete(&txn.success, &mut false) || keeps_after_delete(&txn.failure, &mut false)
}

fn keeps_after_delete(steps: &[pb::RequestOp], deleted: &mut bool) -> bool {
    steps.iter().any(|step| match &step.request {
        Some(Request::RequestPut(put)) => *deleted && (put.ignore_value || put.ignore_lease),
        Some(Request::RequestDeleteRange(_)) => {
            *deleted = true;
            false
        }
        // Whichever branch runs: what either deletes may be gone after it.
        Some(Request::RequestTxn(txn)) => {
            let before = *deleted;
            let found = keeps_after_delete(&txn.success, deleted);
            let mut otherwise = before;
            let found = found || keeps_after_delete(&txn.failure, &mut otherwise);
            *deleted |= otherwise;
            found
        }
        Some(Request::RequestRange(_)) | None => false,
    })
}

/// Tells whether `op` may make the members of a real etcd differ: a member that is not asked for the answer leaves out a
/// txn's ranges, and with them the check of their revisions, so that it writes what the member that was asked refuses
/// (3.5.1, `removeNeedlessRangeReqs`).
pub fn splits_etcd(op: &Op) -> bool {
    let Op::Txn(txn) = op else { return false };
    [&txn.success, &txn.failure].into_iter().any(|steps| {
        let of_the_past =
            |step: &pb::RequestOp| matches!(&step.request, Some(Request::RequestRange(range)) if range.revision != 0);
        steps.iter().any(of_the_past)
    })
}

/// The next operation of a history.
pub fn op(rng: &mut Rng, known: Known) -> Op {
    let lease = rng.below(LEASES + 1) as i64;
    match rng.below(1000) {
        0..=299 => Op::Put(put(rng)),
        300..=549 => Op::Range(range(rng, known)),
        550..=669 => Op::DeleteRange(delete(rng)),
        670..=899 => Op::Txn(txn(rng, known, 0)),
        900..=909 => Op::Compact(pb::CompactionRequest { revision: compaction(rng, known), physical: rng.chance(70) }),
        // Id 0 would be answered with a random id.
        910..=940 => Op::Grant(pb::LeaseGrantRequest { id: lease.max(1), ttl: 100_000 + rng.below(9) as i64 }),
        941..=959 => Op::Revoke(pb::LeaseRevokeRequest { id: lease }),
        960..=979 => Op::TimeToLive(pb::LeaseTimeToLiveRequest { id: lease, keys: rng.chance(70) }),
        980..=984 => Op::Leases,
        _ => Op::HashKv(pb::HashKvRequest { revision: revision(rng, known).max(0) }),
    }
}

fn compaction(rng: &mut Rng, known: Known) -> i64 {
    match rng.below(10) {
        0 => known.revision,
        1 => known.revision + 1,
        2 => known.compacted,
        3 => rng.below(3) as i64 - 1,
        _ => known.compacted + rng.below((known.revision - known.compacted).max(1) as u64) as i64,
    }
}
