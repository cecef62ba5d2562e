//! The duplicate-key rule of a txn: which keys its branches may put and delete together.

use crate::outcome::Error;
use bytes::{BufMut, Bytes, BytesMut};
use mechi_proto::etcdserverpb as pb;
use pb::request_op::Request as Op;
use std::collections::{BTreeMap, BTreeSet};

/// Checks one branch: no key is put twice, and none is put that the same level, a txn nested in it, or an earlier
/// sibling of such a txn deletes. The two branches of one nested txn never run both and may repeat each other's keys.
///
/// - Source: etcd `v3rpc/key.go`, `checkIntervals`. It reads `range_end` plainly as an end, so a delete "from this
///   key on" (`"\0"`) is an empty interval there and hits no put; clients see that, so it is kept.
pub(super) fn check(branch: &[pb::RequestOp]) -> Result<(), Error> {
    collect(branch).map(|_| ())
}

fn collect(branch: &[pb::RequestOp]) -> Result<(BTreeSet<Bytes>, Cover), Error> {
    let (mut puts, mut deletes) = (BTreeSet::new(), Cover::default());
    for op in branch {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request {
            deletes.add(delete);
        }
    }
    for op in branch {
        let Some(Op::RequestTxn(nested)) = &op.request else { continue };
        let (puts_then, deletes_then) = collect(&nested.success)?;
        let (puts_else, deletes_else) = collect(&nested.failure)?;
        for key in puts_then.iter().chain(&puts_else) {
            if puts.contains(key) || deletes.contains(key) {
                return Err(Error::DuplicateKey);
            }
        }
        puts.extend(puts_then);
        puts.extend(puts_else);
        deletes.union(deletes_then);
        deletes.union(deletes_else);
    }
    for op in branch {
        let Some(Op::RequestPut(put)) = &op.request else { continue };
        if deletes.contains(&put.key) || !puts.insert(put.key.clone()) {
            return Err(Error::DuplicateKey);
        }
    }
    Ok((puts, deletes))
}

/// A set of keys as disjoint, merged, non-empty intervals: first key to exclusive end.
#[derive(Default)]
struct Cover(BTreeMap<Bytes, Bytes>);

impl Cover {
    fn add(&mut self, delete: &pb::DeleteRangeRequest) {
        let end = if delete.range_end.is_empty() {
            let mut next = BytesMut::with_capacity(delete.key.len() + 1);
            next.put_slice(&delete.key);
            next.put_u8(0);
            next.freeze()
        } else {
            delete.range_end.clone()
        };
        self.insert(delete.key.clone(), end);
    }

    fn insert(&mut self, mut from: Bytes, mut to: Bytes) {
        if to <= from {
            return;
        }
        // Whatever begins at or before `to` and ends at or after `from` melts into the new interval; since those
        // kept are disjoint, they are the last ones that begin at or before `to`.
        while let Some((begin, end)) = self.0.range::<Bytes, _>(..=&to).next_back() {
            if end < &from {
                break;
            }
            let (begin, end) = (begin.clone(), end.clone());
            self.0.remove(&begin);
            from = from.min(begin);
            to = to.max(end);
        }
        self.0.insert(from, to);
    }

    fn union(&mut self, other: Self) {
        for (from, to) in other.0 {
            self.insert(from, to);
        }
    }

    fn contains(&self, key: &Bytes) -> bool {
        self.0.range::<Bytes, _>(..=key).next_back().is_some_and(|(_, end)| key < end)
    }
}
