//! Keys and values: the calls of etcd's KV service.

use crate::call::Safety;
use crate::client::{Client, calls};
use crate::error::Error;
use crate::list::Listing;
use crate::ops::{Delete, Get, Put};
use crate::pages::Pages;
use crate::txn::Txn;
use bytes::Bytes;
use mechi_proto::{etcdserverpb as pb, mvccpb};

calls! {
    /// Reads as `get` says.
    Read get_with(get: Get) = kv.range(get.0) -> pb::RangeResponse;

    /// Writes as `put` says.
    ///
    /// - Errors: [`Error::OutcomeUnknown`] if it was sent and no definite answer came.
    Write put_with(put: Put) = kv.put(put.0) -> pb::PutResponse;

    /// Deletes as `delete` says.
    ///
    /// - Errors: [`Error::OutcomeUnknown`] if it was sent and no definite answer came.
    Write delete_with(delete: Delete) = kv.delete_range(delete.0) -> pb::DeleteRangeResponse;

    /// Forgets everything older than `revision`: reads and watches of it are refused from then on.
    Write compact(revision: i64) = kv.compact(pb::CompactionRequest { revision, physical: false }) -> pb::CompactionResponse;

    /// The same, and answers only once the space is free.
    Write compact_physical(revision: i64) = kv.compact(pb::CompactionRequest { revision, physical: true }) -> pb::CompactionResponse;
}

impl Client {
    /// Reads one key, linearizable.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<mvccpb::KeyValue>, Error> {
        Ok(self.get_with(Get::key(key)).await?.kvs.pop())
    }

    /// Writes `value` at `key`.
    ///
    /// - Errors: [`Error::OutcomeUnknown`] if it was sent and no definite answer came.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<pb::PutResponse, Error> {
        self.put_with(Put::new(key, value)).await
    }

    /// Deletes `key`.
    ///
    /// - Errors: [`Error::OutcomeUnknown`] if it was sent and no definite answer came.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<pb::DeleteRangeResponse, Error> {
        self.delete_with(Delete::key(key)).await
    }

    /// Runs a transaction. One that only reads is sent again like a read; any other is a write.
    ///
    /// - Errors: [`Error::OutcomeUnknown`] if it was sent and no definite answer came.
    pub async fn txn(&self, txn: Txn) -> Result<pb::TxnResponse, Error> {
        let safety = if only_reads(&txn.0) { Safety::Read } else { Safety::Write };
        self.call(safety, txn.0, |link, message| async move { link.kv().txn(message).await }).await
    }

    /// Lists in pages of so many keys as the limit of `get` says (else 500), all at the revision of the first.
    pub fn get_pages(&self, get: Get) -> Pages {
        Pages::new(self.clone(), get)
    }

    /// Lists in one stream, at one revision; in pages from servers that do not serve streams.
    pub async fn get_stream(&self, get: Get) -> Result<Listing, Error> {
        Listing::open(self.clone(), get).await
    }
}

fn only_reads(txn: &pb::TxnRequest) -> bool {
    use pb::request_op::Request;
    txn.success.iter().chain(&txn.failure).all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}
