//! Questions to single members, and their upkeep. [`Client::at`](crate::Client::at) asks a certain one.

use crate::client::{Client, calls};
use crate::error::Error;
use mechi_proto::etcdserverpb as pb;
use tonic::Streaming;

calls! {
    /// Asks the member about itself; it answers without a majority too.
    Read status() = maintenance.status(pb::StatusRequest {}) -> pb::StatusResponse;

    /// Asks for the alarms that are raised.
    Read alarms() = maintenance.alarm(pb::AlarmRequest::default()) -> pb::AlarmResponse;

    /// Raises or ends an alarm; member 0 and alarm NONE mean all.
    Write alarm(request: pb::AlarmRequest) = maintenance.alarm(request) -> pb::AlarmResponse;

    /// Gives the member's freed space back to the file system; the member may not serve meanwhile.
    Write defragment() = maintenance.defragment(pb::DefragmentRequest {}) -> pb::DefragmentResponse;

    /// Asks for a hash over the member's whole store.
    Read hash() = maintenance.hash(pb::HashRequest {}) -> pb::HashResponse;

    /// Asks for a hash over the member's keys up to `revision`, 0 for all: equal members hold the same.
    Read hash_kv(revision: i64) = maintenance.hash_kv(pb::HashKvRequest { revision }) -> pb::HashKvResponse;

    /// Hands the leadership to the member `target_id`; only the leader can be asked.
    Write move_leader(target_id: u64) = maintenance.move_leader(pb::MoveLeaderRequest { target_id }) -> pb::MoveLeaderResponse;

    /// Checks, begins or cancels a downgrade.
    Write downgrade(request: pb::DowngradeRequest) = maintenance.downgrade(request) -> pb::DowngradeResponse;
}

impl Client {
    /// Opens the stream of a snapshot of the member's store, as the server sends it.
    pub async fn snapshot(&self) -> Result<Streaming<pb::SnapshotResponse>, Error> {
        self.open(pb::SnapshotRequest {}, |link, message| async move { link.maintenance().snapshot(message).await })
            .await
    }
}
