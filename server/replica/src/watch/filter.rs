//! What a watcher wants to see: its keys, the kinds of events, and from which revision on.

use crate::mvcc::Change;
use crate::types::{Bound, KeyRange};
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use pb::watch_create_request::FilterType;

/// Why a watch was not created, in etcd's words.
///
/// - Source: etcd `server/storage/mvcc/watcher.go` and `server/etcdserver/api/v3rpc/watch.go`.
pub(super) const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// See [`DUPLICATE_ID`].
pub(super) const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// See [`DUPLICATE_ID`].
pub(super) const NEGATIVE_START: &str = "etcdserver: mvcc: required revision has been compacted";

/// The unchanging part of a watcher.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    /// The keys.
    pub(super) range: KeyRange,
    /// Whether puts are left out.
    pub(super) no_put: bool,
    /// Whether deletions are left out.
    pub(super) no_delete: bool,
    /// Whether events carry the version before them.
    pub(super) prev_kv: bool,
}

impl Filter {
    /// Reads a create request's keys and filters; errors: etcd's cancel reason.
    ///
    /// Keys are copied, so that a watcher does not pin the buffer that its request came in.
    pub(super) fn new(request: &pb::WatchCreateRequest) -> Result<Self, &'static str> {
        if request.start_revision < 0 {
            return Err(NEGATIVE_START);
        }
        let key = match request.key.is_empty() {
            true => Bytes::from_static(b"\0"),
            false => Bytes::copy_from_slice(&request.key),
        };
        let range = KeyRange::new(&key, &Bytes::copy_from_slice(&request.range_end));
        if range.is_empty() {
            return Err(EMPTY_RANGE);
        }
        let has = |kind: FilterType| request.filters.contains(&(kind as i32));
        Ok(Self {
            range,
            no_put: has(FilterType::Noput),
            no_delete: has(FilterType::Nodelete),
            prev_kv: request.prev_kv,
        })
    }

    /// Tells whether the watcher wants events of `change`'s kind; its key is the index's matter.
    pub(super) fn wants(&self, change: &Change) -> bool {
        if change.tombstone { !self.no_delete } else { !self.no_put }
    }

    /// The one key, if the range is one.
    pub(super) fn single(&self) -> Option<&Bytes> {
        (self.range.to == Bound::Single).then_some(&self.range.from)
    }
}
