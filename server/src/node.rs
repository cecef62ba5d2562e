//! The handle through which services reach the running member.
//!
//! SKELETON: signatures that others compile against; the bodies are being written.
#![allow(unused_variables, clippy::todo)]

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use mechi_replica::outcome::{Error, Response};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A running member, as its services see it; cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {}

/// What `Maintenance.Status`, `/health` and the metrics need to know.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Status {
    pub leader: u64,
    pub is_learner: bool,
    pub term: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    /// Live plus unreclaimed bytes; never 0.
    pub db_size: i64,
    /// Bytes of all revisions that are not compacted.
    pub db_size_in_use: i64,
    /// The quota in force, in bytes.
    pub quota: i64,
    pub revision: i64,
    pub compact_revision: i64,
    pub keys: u64,
    /// (member, NOSPACE or CORRUPT) as the replicated state has them.
    pub alarms: Vec<pb::AlarmMember>,
}

/// The answer to a range, its values not yet gathered.
pub struct RangeReply {
    /// The store's current revision, for the header.
    pub revision: i64,
    /// Keys in the range at the wanted revision, whatever the limit and the filters.
    pub count: i64,
    /// Whether the limit cut it.
    pub more: bool,
    /// The key-values.
    pub kvs: Kvs,
}

/// The key-values of a [`RangeReply`].
pub enum Kvs {
    /// Gathered: each is one `mvccpb.KeyValue` in wire form.
    Ready(Vec<Bytes>),
    /// Too many to hold at once: read chunk by chunk at the pinned revision.
    Lazy(Reader),
}

/// Reads a long list chunk by chunk at its pinned revision, under the server's byte budget.
pub struct Reader {}

impl Reader {
    /// Bytes of all key-values to come, each with the tag (1 byte) and length that `RangeResponse.kvs` (field 2)
    /// gives it; exact, so that the gRPC message's length can be sent first.
    pub fn framed_bytes(&self) -> u64 {
        todo!()
    }
    /// The next key-values in wire form (each without tag and length); `None` at the end. A chunk holds at most
    /// `target_bytes`, but at least one key-value. Errors: `Compacted` if the view was given up (60 s without reading).
    pub async fn next(&mut self, target_bytes: usize) -> Result<Option<Vec<Bytes>>, Error> {
        todo!()
    }
}

/// One client's watch stream: requests go in, encoded responses come out in order.
pub struct WatchStream {
    /// The client's requests; bounded, so a client that floods waits.
    pub requests: mpsc::Sender<pb::WatchRequest>,
    /// Whole `WatchResponse` messages in wire form, each as pieces to be concatenated (events are shared between
    /// watchers and encoded once). Reading frees room: a stream that does not read gets its events later from
    /// history, not from a private buffer.
    pub responses: mpsc::Receiver<WatchMessage>,
}

/// One `WatchResponse` in wire form.
#[derive(Clone, Debug)]
pub struct WatchMessage {
    /// The pieces, in order.
    pub pieces: Vec<Bytes>,
}

impl Node {
    /// Puts a command through the log; answers once it is durable and applied.
    ///
    /// - Errors: in etcd's words. `Timeout` and `LeaderChanged` leave the outcome unknown.
    pub async fn propose(&self, request: Request) -> Result<Response, Error> {
        todo!()
    }
    /// Waits for a read point that covers everything acknowledged before the call.
    pub async fn linearize(&self) -> Result<(), Error> {
        todo!()
    }
    /// The header of an answer; `revision` 0 is filled with the current one.
    pub fn header(&self, revision: i64) -> pb::ResponseHeader {
        todo!()
    }
    /// Serves a checked range (linearizable unless `serializable`).
    pub async fn range(&self, request: pb::RangeRequest) -> Result<RangeReply, Error> {
        todo!()
    }
    /// Serves a txn that only reads (all its flat operations are ranges, or it has none).
    pub async fn read_txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        todo!()
    }
    /// Compacts; with `physical` it answers once the old revisions are gone from memory and store.
    pub async fn compact(&self, request: pb::CompactionRequest) -> Result<pb::CompactionResponse, Error> {
        todo!()
    }
    /// Renews a lease; the answer's TTL is 0 if there is none.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Error> {
        todo!()
    }
    /// A lease's remaining time; TTL -1 if there is none.
    pub async fn lease_time_to_live(&self, id: i64, keys: bool) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        todo!()
    }
    /// All leases, soonest to expire first.
    pub async fn lease_leases(&self) -> Result<pb::LeaseLeasesResponse, Error> {
        todo!()
    }
    /// The members of the replicated state.
    pub fn members(&self) -> Vec<pb::Member> {
        todo!()
    }
    /// (hash, compact revision, hashed revision), as etcd computes them.
    pub async fn hash_kv(&self, revision: i64) -> Result<(u32, i64, i64), Error> {
        todo!()
    }
    /// A checksum of the whole replicated state, for tests.
    pub async fn hash(&self) -> Result<u32, Error> {
        todo!()
    }
    /// A look at the member; works without a leader.
    pub fn status(&self) -> Status {
        todo!()
    }
    /// Hands leadership over.
    pub async fn move_leader(&self, target: u64) -> Result<(), Error> {
        todo!()
    }
    /// Opens a watch stream.
    pub fn watch(&self) -> WatchStream {
        todo!()
    }
    /// Resolves once the member is stopping.
    pub async fn stopping(&self) {
        todo!()
    }
    /// Resolves at the next moment when there has been no leader for three election timeouts.
    pub async fn leaderless(&self) {
        todo!()
    }
}
