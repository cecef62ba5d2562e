//! The Cluster service: lists the members.

use crate::grpc::status::Status;
use crate::grpc::{Server, header};
use mechi_proto::etcdserverpb as pb;
use std::sync::Arc;

/// `Cluster.MemberList`; a linearizable one waits for a read point first.
pub async fn member_list(
    server: Arc<Server>,
    request: pb::MemberListRequest,
) -> Result<pb::MemberListResponse, Status> {
    if request.linearizable {
        server.node.linearize().await?;
    }
    Ok(pb::MemberListResponse { header: header::without_revision(&server.node), members: server.node.members() })
}
