//! What is asked of keys: gets, puts and deletes with all their options, alone or within a Txn.

use crate::keys::Keys;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
pub use pb::range_request::{SortOrder, SortTarget};

/// A read of one key or of many.
///
/// ```
/// use mechi_client::{Get, SortOrder, SortTarget};
/// let newest = Get::prefix("jobs/").sort(SortTarget::Mod, SortOrder::Descend).limit(1);
/// assert_eq!(newest.as_request().limit, 1);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "asks nothing until it is sent"]
pub struct Get(pub(crate) pb::RangeRequest);

impl Get {
    /// Reads `key`.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::keys(Keys::one(key))
    }

    /// Reads all keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::keys(Keys::prefix(prefix))
    }

    /// Reads all keys from `key` on.
    pub fn from(key: impl Into<Bytes>) -> Self {
        Self::keys(Keys::from(key))
    }

    /// Reads the keys from `key` up to `end`, without `end` itself.
    pub fn range(key: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self::keys(Keys::range(key, end))
    }

    /// Reads all keys.
    pub fn all() -> Self {
        Self::keys(Keys::all())
    }

    /// Reads these keys.
    pub fn keys(keys: Keys) -> Self {
        Self(pb::RangeRequest { key: keys.key, range_end: keys.end, ..Default::default() })
    }

    /// Takes at most so many keys; 0 for all.
    pub fn limit(mut self, limit: i64) -> Self {
        self.0.limit = limit;
        self
    }

    /// Reads the state as it was at `revision`; 0 for the newest.
    pub fn revision(mut self, revision: i64) -> Self {
        self.0.revision = revision;
        self
    }

    /// Sorts.
    pub fn sort(mut self, target: SortTarget, order: SortOrder) -> Self {
        (self.0.sort_target, self.0.sort_order) = (target.into(), order.into());
        self
    }

    /// Reads what the asked member holds, which may be behind: faster, and possible without a majority.
    pub fn serializable(mut self) -> Self {
        self.0.serializable = true;
        self
    }

    /// Leaves the values out.
    pub fn keys_only(mut self) -> Self {
        self.0.keys_only = true;
        self
    }

    /// Answers only how many keys there are.
    pub fn count_only(mut self) -> Self {
        self.0.count_only = true;
        self
    }

    /// Only keys last changed at `revision` or later.
    pub fn min_mod_revision(mut self, revision: i64) -> Self {
        self.0.min_mod_revision = revision;
        self
    }

    /// Only keys last changed at `revision` or before.
    pub fn max_mod_revision(mut self, revision: i64) -> Self {
        self.0.max_mod_revision = revision;
        self
    }

    /// Only keys created at `revision` or later.
    pub fn min_create_revision(mut self, revision: i64) -> Self {
        self.0.min_create_revision = revision;
        self
    }

    /// Only keys created at `revision` or before.
    pub fn max_create_revision(mut self, revision: i64) -> Self {
        self.0.max_create_revision = revision;
        self
    }

    /// The request as it travels.
    pub fn as_request(&self) -> &pb::RangeRequest {
        &self.0
    }
}

impl From<pb::RangeRequest> for Get {
    fn from(request: pb::RangeRequest) -> Self {
        Self(request)
    }
}

/// A write of one key.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "writes nothing until it is sent"]
pub struct Put(pub(crate) pb::PutRequest);

impl Put {
    /// Writes `value` at `key`.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self(pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() })
    }

    /// Ties the key to a lease: it is deleted when the lease ends. 0 ties it to none.
    pub fn lease(mut self, id: i64) -> Self {
        self.0.lease = id;
        self
    }

    /// Answers with what stood there before.
    pub fn prev_kv(mut self) -> Self {
        self.0.prev_kv = true;
        self
    }

    /// Keeps the present value and changes only the lease; the value given must be empty.
    pub fn ignore_value(mut self) -> Self {
        self.0.ignore_value = true;
        self
    }

    /// Keeps the present lease.
    pub fn ignore_lease(mut self) -> Self {
        self.0.ignore_lease = true;
        self
    }

    /// The request as it travels.
    pub fn as_request(&self) -> &pb::PutRequest {
        &self.0
    }
}

impl From<pb::PutRequest> for Put {
    fn from(request: pb::PutRequest) -> Self {
        Self(request)
    }
}

/// A delete of one key or of many.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "deletes nothing until it is sent"]
pub struct Delete(pub(crate) pb::DeleteRangeRequest);

impl Delete {
    /// Deletes `key`.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::keys(Keys::one(key))
    }

    /// Deletes all keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::keys(Keys::prefix(prefix))
    }

    /// Deletes these keys.
    pub fn keys(keys: Keys) -> Self {
        Self(pb::DeleteRangeRequest { key: keys.key, range_end: keys.end, prev_kv: false })
    }

    /// Answers with what was deleted.
    pub fn prev_kv(mut self) -> Self {
        self.0.prev_kv = true;
        self
    }

    /// The request as it travels.
    pub fn as_request(&self) -> &pb::DeleteRangeRequest {
        &self.0
    }
}

impl From<pb::DeleteRangeRequest> for Delete {
    fn from(request: pb::DeleteRangeRequest) -> Self {
        Self(request)
    }
}
