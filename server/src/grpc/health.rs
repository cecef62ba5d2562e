//! The standard gRPC health service; as with etcd, only the server as a whole (the empty name) is known.

use crate::grpc::answer::{End, Pieces};
use crate::grpc::status::Status;
use crate::grpc::{Server, frame};
use futures_util::{StreamExt, stream};
use mechi_proto::health::health_check_response::ServingStatus;
use mechi_proto::health::{HealthCheckRequest, HealthCheckResponse};
use std::sync::Arc;

/// `Health.Check`.
pub async fn check(_: Arc<Server>, request: HealthCheckRequest) -> Result<HealthCheckResponse, Status> {
    match serving(&request) {
        ServingStatus::Serving => Ok(response(ServingStatus::Serving)),
        _ => Err(Status::unknown_health_service()),
    }
}

/// `Health.Watch`: the state now, then silence until the server stops or the client leaves.
pub async fn watch(_: Arc<Server>, request: HealthCheckRequest) -> Result<Pieces, Status> {
    let now = frame::encode(&response(serving(&request))).map_err(End::from);
    Ok(Box::pin(stream::iter([now]).chain(stream::pending())))
}

fn serving(request: &HealthCheckRequest) -> ServingStatus {
    if request.service.is_empty() { ServingStatus::Serving } else { ServingStatus::ServiceUnknown }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}
