//! What only the leader's lessor can answer, asked over the urgent connection.

use super::hello::Lane;
use super::shared::Shared;
use mechi_proto::mechipeerpb::peer_client::PeerClient;
use mechi_proto::mechipeerpb::{PeerLeaseRequest, PeerLeaseResponse};
use mechi_replica::lease::lessor::Remaining;
use mechi_replica::outcome::Error;
use mechi_replica::types::{LeaseId, MemberId};
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Code, Response, Status};

/// What a lessor may answer with; anything else comes from the connection.
const ERRORS: [Error; 9] = [
    Error::NotLeader,
    Error::NoLeader,
    Error::LeaderChanged,
    Error::Timeout,
    Error::TimeoutWaitAppliedIndex,
    Error::TooManyRequests,
    Error::LeaseNotFound,
    Error::Stopped,
    Error::Corrupt,
];

/// Renews a lease at the leader: the seconds it has again, 0 or less without such a lease.
pub(super) async fn keep_alive(shared: &Shared, leader: MemberId, id: LeaseId, time: Duration) -> Result<i64, Error> {
    let mut client = client(shared, leader)?;
    let request = shared.dialer.request(PeerLeaseRequest { id: id.0 }, leader, Lane::Urgent);
    Ok(answer(timeout(time, client.keep_alive(request)).await)?.ttl)
}

/// Asks the leader how long a lease has left.
pub(super) async fn time_to_live(
    shared: &Shared,
    leader: MemberId,
    id: LeaseId,
    time: Duration,
) -> Result<Option<Remaining>, Error> {
    let mut client = client(shared, leader)?;
    let request = shared.dialer.request(PeerLeaseRequest { id: id.0 }, leader, Lane::Urgent);
    let PeerLeaseResponse { ttl, granted_ttl } = answer(timeout(time, client.time_to_live(request)).await)?;
    // Every lease was granted for at least a second; one that is overdue has none left.
    Ok((granted_ttl > 0).then_some(Remaining { ttl, granted_ttl }))
}

fn client(shared: &Shared, leader: MemberId) -> Result<PeerClient<tonic::transport::Channel>, Error> {
    let member = shared.members.get(&leader).ok_or(Error::NoLeader)?;
    let channel = member.channel.lock().as_ref().map(|(channel, _)| channel.clone());
    channel.map(PeerClient::new).ok_or(Error::NoLeader)
}

type Answer = Result<Result<Response<PeerLeaseResponse>, Status>, tokio::time::error::Elapsed>;

fn answer(answer: Answer) -> Result<PeerLeaseResponse, Error> {
    let status = match answer {
        Err(_) => return Err(Error::Timeout),
        Ok(Ok(response)) => return Ok(response.into_inner()),
        Ok(Err(status)) => status,
    };
    let known = ERRORS.iter().find(|error| error.to_string() == status.message()).cloned();
    // The connection broke: whether the leader renewed the lease is not known, and it may be no leader any more.
    Err(known.unwrap_or(Error::LeaderChanged))
}

/// A lessor's error as it goes to the member that asked: its text tells which.
pub(super) fn to_status(error: Error) -> Status {
    Status::new(Code::Unavailable, error.to_string())
}
