//! The Auth service as far as it can be told that authentication is off.

use crate::grpc::status::Status;
use crate::grpc::{Server, header};
use mechi_proto::etcdserverpb as pb;
use mechi_replica::outcome::Error;
use std::sync::Arc;

/// etcd's auth revision before the first user or role.
const FIRST_AUTH_REVISION: u64 = 1;

/// `Auth.AuthStatus`; etcd answers it from its log, so it waits for a read point.
pub async fn status(server: Arc<Server>, _: pb::AuthStatusRequest) -> Result<pb::AuthStatusResponse, Status> {
    server.node.linearize().await?;
    let mut response = pb::AuthStatusResponse { header: None, enabled: false, auth_revision: FIRST_AUTH_REVISION };
    header::fill(&server.node, &mut response.header);
    Ok(response)
}

/// `Auth.Authenticate`: clients that carry a name and a password go on without a token after this refusal.
pub async fn authenticate(_: Arc<Server>, _: pb::AuthenticateRequest) -> Result<pb::AuthenticateResponse, Status> {
    Err(Error::AuthNotEnabled.into())
}
