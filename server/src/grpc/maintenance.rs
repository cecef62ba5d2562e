//! The Maintenance service: what an operator asks of one member.

use crate::grpc::kv::unexpected;
use crate::grpc::status::Status;
use crate::grpc::{Server, header};
use crate::node;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::etcdserverpb::alarm_request::AlarmAction;
use mechi_proto::mechipb::command::Request;
use mechi_replica::outcome::{Error, Response};
use std::sync::Arc;

/// The etcd release whose surface this is; clients choose features by it.
pub const ETCD_VERSION: &str = "3.7.1";

/// The schema that etcd of [`ETCD_VERSION`] gives its storage.
pub const STORAGE_VERSION: &str = "3.7.0";

/// `Maintenance.Alarm`: GET reads at a read point, the others go through the log.
pub async fn alarm(server: Arc<Server>, request: pb::AlarmRequest) -> Result<pb::AlarmResponse, Status> {
    let action =
        AlarmAction::try_from(request.action).map_err(|_| Status::unknown_choice("alarm action", request.action))?;
    // To list or to lower an alarm that does not exist finds none; raising it would panic etcd's every member.
    if action == AlarmAction::Activate && pb::AlarmType::try_from(request.alarm).is_err() {
        return Err(Status::unknown_choice("alarm type", request.alarm));
    }
    let mut response = match action {
        AlarmAction::Get => {
            server.node.linearize().await?;
            pb::AlarmResponse { header: None, alarms: of_type(server.node.status().alarms, request.alarm) }
        }
        AlarmAction::Activate | AlarmAction::Deactivate => match server.propose(Request::Alarm(request)).await? {
            Response::Alarm(response) => response,
            other => return Err(unexpected("alarm", &other)),
        },
    };
    header::fill(&server.node, &mut response.header);
    Ok(response)
}

/// The alarms of one type; NONE asks for all.
fn of_type(mut alarms: Vec<pb::AlarmMember>, alarm: i32) -> Vec<pb::AlarmMember> {
    if alarm != pb::AlarmType::None as i32 {
        alarms.retain(|member| member.alarm == alarm);
    }
    alarms
}

/// `Maintenance.Status`; answers without a leader too.
pub async fn status(server: Arc<Server>, _: pb::StatusRequest) -> Result<pb::StatusResponse, Status> {
    let header = server.node.header(0);
    Ok(status_response(header, server.node.status()))
}

fn status_response(header: pb::ResponseHeader, status: node::Status) -> pb::StatusResponse {
    let no_leader = (status.leader == 0).then(|| Error::NoLeader.to_string());
    pb::StatusResponse {
        header: Some(header),
        version: ETCD_VERSION.to_owned(),
        db_size: status.db_size,
        leader: status.leader,
        raft_index: status.committed_index,
        raft_term: status.term,
        raft_applied_index: status.applied_index,
        errors: no_leader.into_iter().chain(status.alarms.iter().map(alarm_text)).collect(),
        db_size_in_use: status.db_size_in_use,
        is_learner: status.is_learner,
        storage_version: STORAGE_VERSION.to_owned(),
        db_size_quota: status.quota,
        downgrade_info: Some(pb::DowngradeInfo::default()),
    }
}

/// An alarm as Go prints its message: fields that are zero are left out.
fn alarm_text(alarm: &pb::AlarmMember) -> String {
    let kind = match alarm.alarm() {
        pb::AlarmType::None => None,
        kind => Some(format!("alarm:{}", kind.as_str_name())),
    };
    let member = (alarm.member_id != 0).then(|| format!("memberID:{}", alarm.member_id));
    member.into_iter().chain(kind).collect::<Vec<_>>().join(" ")
}

/// `Maintenance.Defragment`: there is nothing to wait for, since what is unreclaimed is trimmed as it arises. No header.
pub async fn defragment(_: Arc<Server>, _: pb::DefragmentRequest) -> Result<pb::DefragmentResponse, Status> {
    Ok(pb::DefragmentResponse { header: None })
}

/// `Maintenance.Hash`: a sum over everything, for tests; it does not equal etcd's, whose file it would describe.
pub async fn hash(server: Arc<Server>, _: pb::HashRequest) -> Result<pb::HashResponse, Status> {
    let hash = server.node.hash().await?;
    Ok(pb::HashResponse { header: Some(server.node.header(0)), hash })
}

/// `Maintenance.HashKV`: equal to etcd's for the same history.
pub async fn hash_kv(server: Arc<Server>, request: pb::HashKvRequest) -> Result<pb::HashKvResponse, Status> {
    let (hash, compact_revision, hash_revision) = server.node.hash_kv(request.revision).await?;
    Ok(pb::HashKvResponse { header: Some(server.node.header(0)), hash, compact_revision, hash_revision })
}

/// `Maintenance.MoveLeader`: only the leader may be asked, and only for a voting member. No header.
pub async fn move_leader(
    server: Arc<Server>,
    request: pb::MoveLeaderRequest,
) -> Result<pb::MoveLeaderResponse, Status> {
    if server.node.status().leader != server.node.header(0).member_id {
        return Err(Error::NotLeader.into());
    }
    check_transferee(&server.node.members(), request.target_id)?;
    server.node.move_leader(request.target_id).await?;
    Ok(pb::MoveLeaderResponse { header: None })
}

fn check_transferee(members: &[pb::Member], target: u64) -> Result<(), Error> {
    let voter = members.iter().any(|member| member.id == target && !member.is_learner);
    if voter { Ok(()) } else { Err(Error::BadLeaderTransferee) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarms() -> Vec<pb::AlarmMember> {
        vec![pb::AlarmMember { member_id: 7, alarm: 1 }, pb::AlarmMember { member_id: 9, alarm: 2 }]
    }

    #[test]
    fn status_names_what_is_wrong() {
        let status = node::Status { alarms: alarms(), ..Default::default() };
        let response = status_response(pb::ResponseHeader::default(), status);
        assert_eq!(response.errors, ["etcdserver: no leader", "memberID:7 alarm:NOSPACE", "memberID:9 alarm:CORRUPT"]);
        let led = node::Status { leader: 7, ..Default::default() };
        assert!(status_response(pb::ResponseHeader::default(), led).errors.is_empty());
    }

    #[test]
    fn alarms_are_listed_by_type_and_none_means_all() {
        assert_eq!(of_type(alarms(), 0), alarms());
        assert_eq!(of_type(alarms(), 2), alarms()[1..]);
    }

    #[test]
    fn only_a_voting_member_takes_the_lead() {
        let members =
            [pb::Member { id: 1, ..Default::default() }, pb::Member { id: 2, is_learner: true, ..Default::default() }];
        assert_eq!(check_transferee(&members, 1), Ok(()));
        assert_eq!(check_transferee(&members, 2), Err(Error::BadLeaderTransferee));
        assert_eq!(check_transferee(&members, 3), Err(Error::BadLeaderTransferee));
    }
}
