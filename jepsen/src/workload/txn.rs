//! Random requests of every kind, with nested transactions and the odd and the wrong among them.

use super::Work;
use crate::client::{Client, Outcome};
use bytes::Bytes;
use mechi_checker::history::store::{Request, Response};
use mechi_proto::etcdserverpb as pb;
use mechi_tests::generate::{self, Known, Op};
use pb::request_op::Request as AskOp;
use std::sync::atomic::{AtomicI64, Ordering};

/// What clients know together.
#[derive(Default)]
pub(super) struct Txns {
    next: AtomicI64,
    compacted: AtomicI64,
}

impl Txns {
    /// Makes a value one of its own, so that who wrote it can be told.
    fn mark(&self, put: &mut pb::PutRequest) {
        if !put.ignore_value {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            put.value = Bytes::from([&put.value[..], format!("#{number}").as_bytes()].concat());
        }
    }

    fn mark_txn(&self, txn: &mut pb::TxnRequest) {
        for op in txn.success.iter_mut().chain(&mut txn.failure) {
            match &mut op.request {
                Some(AskOp::RequestPut(put)) => self.mark(put),
                Some(AskOp::RequestTxn(nested)) => self.mark_txn(nested),
                _ => {}
            }
        }
    }
}

impl Work for Txns {
    async fn step(&self, client: &mut Client) -> bool {
        let known = Known {
            revision: client.recorder().watchers.newest().max(1),
            compacted: self.compacted.load(Ordering::Relaxed),
        };
        let request = match generate::op(client.rng(), known) {
            Op::Range(it) => Request::Range(it),
            Op::Put(mut it) => {
                self.mark(&mut it);
                Request::Put(it)
            }
            Op::DeleteRange(it) => Request::DeleteRange(it),
            Op::Txn(mut it) => {
                self.mark_txn(&mut it);
                Request::Txn(it)
            }
            Op::Compact(it) => Request::Compaction(it),
            Op::Grant(it) => Request::LeaseGrant(it),
            Op::Revoke(it) => Request::LeaseRevoke(it),
            Op::TimeToLive(it) => Request::LeaseTimeToLive(it),
            // Not what a history of requests holds.
            Op::Leases | Op::HashKv(_) => return true,
        };
        let compacts = if let Request::Compaction(it) = &request { it.revision } else { 0 };
        match client.ask(request).await {
            Outcome::Ok(Response::Compaction(_)) => {
                self.compacted.fetch_max(compacts, Ordering::Relaxed);
                true
            }
            Outcome::Ok(_) => true,
            // Much of it is wrong on purpose.
            Outcome::Fail(why) => why.contains("etcdserver"),
            Outcome::Info(_) => false,
        }
    }
}
