//! etcd's Lock and Election services, which run on the server. Not every server has them.

use crate::client::{Client, calls};
use crate::error::Error;
use bytes::Bytes;
use mechi_proto::{v3electionpb as election, v3lockpb as lock};
use tonic::Streaming;

calls! {
    /// Waits until the lock `name` is held under `lease`; the answer's key stands for it. Bounded by the time of the call.
    ///
    /// - Errors: [`Error::OutcomeUnknown`]: the lock may be held; revoke the lease to be sure that it is not.
    Write lock(name: Bytes, lease: i64) = lock.lock(lock::LockRequest { name, lease }) -> lock::LockResponse;

    /// Gives a lock back.
    Write unlock(key: Bytes) = lock.unlock(lock::UnlockRequest { key }) -> lock::UnlockResponse;

    /// Waits until the election `name` is won, with `value` for others to see. Bounded by the time of the call.
    Write campaign(name: Bytes, lease: i64, value: Bytes) = election.campaign(election::CampaignRequest { name, lease, value }) -> election::CampaignResponse;

    /// Changes the value of a leader.
    Write proclaim(leader: election::LeaderKey, value: Bytes) = election.proclaim(election::ProclaimRequest { leader: Some(leader), value }) -> election::ProclaimResponse;

    /// Asks who leads.
    Read leader(name: Bytes) = election.leader(election::LeaderRequest { name }) -> election::LeaderResponse;

    /// Gives the leadership up.
    Write resign(leader: election::LeaderKey) = election.resign(election::ResignRequest { leader: Some(leader) }) -> election::ResignResponse;
}

impl Client {
    /// Opens the stream of an election's leaders.
    pub async fn observe(&self, name: impl Into<Bytes>) -> Result<Streaming<election::LeaderResponse>, Error> {
        let request = election::LeaderRequest { name: name.into() };
        self.open(request, |link, message| async move { link.election().observe(message).await }).await
    }
}
