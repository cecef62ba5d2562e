//! The Lease service: ids and the shortest TTL are chosen here, everything else through the log or by the lessor.

use crate::grpc::answer::{End, Pieces};
use crate::grpc::frame::Messages;
use crate::grpc::kv::unexpected;
use crate::grpc::limits::KEEP_ALIVES_IN_FLIGHT;
use crate::grpc::status::Status;
use crate::grpc::{Server, frame, header};
use futures_util::{StreamExt, stream};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use mechi_replica::limits::LEASE_TTL_MAX;
use mechi_replica::outcome::{Error, Response};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// `Lease.LeaseGrant`: ID 0 asks for any id, and a TTL below the floor is raised to it.
pub async fn grant(server: Arc<Server>, mut request: pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Status> {
    if request.ttl > LEASE_TTL_MAX {
        return Err(Error::LeaseTtlTooLarge.into());
    }
    request.ttl = request.ttl.max(server.options.lease_ttl_min);
    if request.id == 0 {
        request.id = random_id();
    }
    match server.propose(Request::LeaseGrant(request)).await? {
        Response::LeaseGrant(mut response) => {
            header::fill(&server.node, &mut response.header);
            Ok(response)
        }
        other => Err(unexpected("lease grant", &other)),
    }
}

/// `Lease.LeaseRevoke`.
pub async fn revoke(server: Arc<Server>, request: pb::LeaseRevokeRequest) -> Result<pb::LeaseRevokeResponse, Status> {
    match server.propose(Request::LeaseRevoke(request)).await? {
        Response::LeaseRevoke(mut response) => {
            header::fill(&server.node, &mut response.header);
            Ok(response)
        }
        other => Err(unexpected("lease revoke", &other)),
    }
}

/// `Lease.LeaseKeepAlive`: one answer per request, in order; an unknown lease is answered with TTL 0.
pub async fn keep_alive(server: Arc<Server>, messages: Messages) -> Result<Pieces, Status> {
    let requests = stream::try_unfold(messages, async |mut messages: Messages| {
        Ok(messages.decode::<pb::LeaseKeepAliveRequest>().await?.map(|request| (request, messages)))
    });
    let answers = requests.map(move |request: Result<_, Status>| {
        let server = server.clone();
        async move { Ok::<_, End>(frame::encode(&renew(&server, request?).await?)?) }
    });
    Ok(Box::pin(answers.buffered(KEEP_ALIVES_IN_FLIGHT)))
}

async fn renew(server: &Server, request: pb::LeaseKeepAliveRequest) -> Result<pb::LeaseKeepAliveResponse, Status> {
    // The header is etcd's from before the renewal: its revision must not promise what came meanwhile.
    let header = server.node.header(0);
    let mut response = match server.node.lease_keep_alive(request.id).await {
        Err(Error::LeaseNotFound) => pb::LeaseKeepAliveResponse { id: request.id, ..Default::default() },
        other => other?,
    };
    response.header = Some(header);
    Ok(response)
}

/// `Lease.LeaseTimeToLive`: an unknown lease is answered with TTL -1.
pub async fn time_to_live(
    server: Arc<Server>,
    request: pb::LeaseTimeToLiveRequest,
) -> Result<pb::LeaseTimeToLiveResponse, Status> {
    let mut response = match server.node.lease_time_to_live(request.id, request.keys).await {
        Err(Error::LeaseNotFound) => pb::LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() },
        other => other?,
    };
    header::fill(&server.node, &mut response.header);
    Ok(response)
}

/// `Lease.LeaseLeases`.
pub async fn leases(server: Arc<Server>, _: pb::LeaseLeasesRequest) -> Result<pb::LeaseLeasesResponse, Status> {
    let mut response = server.node.lease_leases().await?;
    header::fill(&server.node, &mut response.header);
    Ok(response)
}

/// A positive id that is hardly in use: the lessor refuses it if it is.
///
/// Each `RandomState` is keyed by the operating system's randomness and a counter, which is random enough for a name.
fn random_id() -> i64 {
    let id = RandomState::new().hash_one(()) >> 1;
    i64::try_from(id).expect("63 bits fit").max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn random_ids_are_positive_and_differ() {
        let ids: BTreeSet<i64> = (0..1000).map(|_| random_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| *id > 0));
    }
}
