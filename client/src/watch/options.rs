//! What is watched, and from where.

use crate::keys::Keys;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use pb::watch_create_request::FilterType;

/// A watch to be made.
///
/// ```
/// use mechi_client::WatchOptions;
/// let all_jobs_since_7 = WatchOptions::prefix("jobs/").from_revision(7).prev_kv();
/// assert_eq!(all_jobs_since_7.as_request().start_revision, 7);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "watches nothing until it is given to a client"]
pub struct WatchOptions {
    pub(crate) request: pb::WatchCreateRequest,
    pub(crate) tells_created: bool,
}

impl WatchOptions {
    /// Watches `key`.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::keys(Keys::one(key))
    }

    /// Watches all keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::keys(Keys::prefix(prefix))
    }

    /// Watches these keys.
    pub fn keys(keys: Keys) -> Self {
        let request = pb::WatchCreateRequest { key: keys.key, range_end: keys.end, ..Default::default() };
        Self { request, tells_created: false }
    }

    /// Begins with the changes of `revision`, which may be in the past; 0 for those after now.
    pub fn from_revision(mut self, revision: i64) -> Self {
        self.request.start_revision = revision;
        self
    }

    /// Tells with each change what stood there before.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// Has the server tell from time to time how far the watch is, if nothing else happens.
    pub fn progress_notify(mut self) -> Self {
        self.request.progress_notify = true;
        self
    }

    /// Leaves puts out.
    pub fn without_puts(mut self) -> Self {
        self.request.filters.push(FilterType::Noput.into());
        self
    }

    /// Leaves deletes out.
    pub fn without_deletes(mut self) -> Self {
        self.request.filters.push(FilterType::Nodelete.into());
        self
    }

    /// Has the server send large batches in parts; they are put together here.
    pub fn fragment(mut self) -> Self {
        self.request.fragment = true;
        self
    }

    /// Delivers the server's confirmation too, as the first batch, and again whenever the watch was resumed.
    pub fn created_notify(mut self) -> Self {
        self.tells_created = true;
        self
    }

    /// The request as it travels.
    pub fn as_request(&self) -> &pb::WatchCreateRequest {
        &self.request
    }
}

impl From<pb::WatchCreateRequest> for WatchOptions {
    fn from(request: pb::WatchCreateRequest) -> Self {
        Self { request, tells_created: false }
    }
}
