//! Transactions: compares, and what is done in one revision if they hold or if they do not.

use crate::keys::Keys;
use crate::ops::{Delete, Get, Put};
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;

/// A transaction.
///
/// All compares are made before anything is done; then one of the two lists runs, in order, in one revision.
///
/// ```
/// use mechi_client::{Compare, Get, Put, Txn};
/// // Changes a key only if nobody has since revision 7.
/// let guarded = Txn::new()
///     .when(Compare::mod_revision("config").equal(7))
///     .and_then(Put::new("config", "new"))
///     .or_else(Get::key("config"));
/// assert_eq!(guarded.as_request().compare.len(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "does nothing until it is sent"]
pub struct Txn(pub(crate) pb::TxnRequest);

impl Txn {
    /// A transaction without compares and operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a compare; all must hold.
    pub fn when(mut self, compare: Compare) -> Self {
        self.0.compare.push(compare.0);
        self
    }

    /// Adds an operation for when all compares hold.
    pub fn and_then(mut self, op: impl Into<Op>) -> Self {
        self.0.success.push(op.into().0);
        self
    }

    /// Adds an operation for when a compare does not hold.
    pub fn or_else(mut self, op: impl Into<Op>) -> Self {
        self.0.failure.push(op.into().0);
        self
    }

    /// The request as it travels.
    pub fn as_request(&self) -> &pb::TxnRequest {
        &self.0
    }
}

impl From<pb::TxnRequest> for Txn {
    fn from(request: pb::TxnRequest) -> Self {
        Self(request)
    }
}

/// One operation of a [`Txn`]: a [`Get`], [`Put`], [`Delete`] or another [`Txn`].
#[derive(Clone, Debug, PartialEq)]
pub struct Op(pub(crate) pb::RequestOp);

impl From<Get> for Op {
    fn from(get: Get) -> Self {
        Self(pb::RequestOp { request: Some(Request::RequestRange(get.0)) })
    }
}

impl From<Put> for Op {
    fn from(put: Put) -> Self {
        Self(pb::RequestOp { request: Some(Request::RequestPut(put.0)) })
    }
}

impl From<Delete> for Op {
    fn from(delete: Delete) -> Self {
        Self(pb::RequestOp { request: Some(Request::RequestDeleteRange(delete.0)) })
    }
}

impl From<Txn> for Op {
    fn from(txn: Txn) -> Self {
        Self(pb::RequestOp { request: Some(Request::RequestTxn(txn.0)) })
    }
}

/// A compare of one key, or of every key of a range, with a value; [`Compare::version`] and its sisters begin one.
///
/// A key that does not exist has version, revisions and lease 0, and no value: a compare of its value never holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare(pub(crate) pb::Compare);

/// A compare that lacks its right side.
#[derive(Clone, Debug)]
#[must_use = "compares with nothing yet"]
pub struct Comparing<V> {
    compare: pb::Compare,
    wrap: fn(V) -> TargetUnion,
}

impl Compare {
    /// Compares how often the key was written since it was created.
    pub fn version(key: impl Into<Bytes>) -> Comparing<i64> {
        begin(key, CompareTarget::Version, TargetUnion::Version)
    }

    /// Compares the revision that created the key; equal to 0 means that it does not exist.
    pub fn create_revision(key: impl Into<Bytes>) -> Comparing<i64> {
        begin(key, CompareTarget::Create, TargetUnion::CreateRevision)
    }

    /// Compares the revision that last wrote the key.
    pub fn mod_revision(key: impl Into<Bytes>) -> Comparing<i64> {
        begin(key, CompareTarget::Mod, TargetUnion::ModRevision)
    }

    /// Compares the value, byte by byte.
    pub fn value(key: impl Into<Bytes>) -> Comparing<Bytes> {
        begin(key, CompareTarget::Value, TargetUnion::Value)
    }

    /// Compares the lease that the key is tied to.
    pub fn lease(key: impl Into<Bytes>) -> Comparing<i64> {
        begin(key, CompareTarget::Lease, TargetUnion::Lease)
    }

    /// The compare as it travels.
    pub fn as_request(&self) -> &pb::Compare {
        &self.0
    }
}

impl From<pb::Compare> for Compare {
    fn from(compare: pb::Compare) -> Self {
        Self(compare)
    }
}

fn begin<V>(key: impl Into<Bytes>, target: CompareTarget, wrap: fn(V) -> TargetUnion) -> Comparing<V> {
    Comparing { compare: pb::Compare { key: key.into(), target: target.into(), ..Default::default() }, wrap }
}

impl<V> Comparing<V> {
    /// Compares every key of `keys` instead of one; an empty range counts as a key that does not exist.
    pub fn of(mut self, keys: Keys) -> Self {
        (self.compare.key, self.compare.range_end) = (keys.key, keys.end);
        self
    }

    /// Holds if both are equal.
    pub fn equal(self, right: impl Into<V>) -> Compare {
        self.end(CompareResult::Equal, right)
    }

    /// Holds if they differ.
    pub fn not_equal(self, right: impl Into<V>) -> Compare {
        self.end(CompareResult::NotEqual, right)
    }

    /// Holds if the key's is greater.
    pub fn greater(self, right: impl Into<V>) -> Compare {
        self.end(CompareResult::Greater, right)
    }

    /// Holds if the key's is less.
    pub fn less(self, right: impl Into<V>) -> Compare {
        self.end(CompareResult::Less, right)
    }

    fn end(mut self, result: CompareResult, right: impl Into<V>) -> Compare {
        self.compare.result = result.into();
        self.compare.target_union = Some((self.wrap)(right.into()));
        Compare(self.compare)
    }
}
