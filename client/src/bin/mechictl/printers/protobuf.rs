//! `-w protobuf`: the answer as it came over the wire.

use super::Reply;
use mechi_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use prost::Message;

/// The output; `None` for the replies that are no one message.
pub(super) fn print(reply: &Reply) -> Option<Vec<u8>> {
    // Of the client's own types of leases Go writes the header, which they hold, and nothing else.
    let only = |header: &Option<ResponseHeader>| super::header(header).encode_to_vec();
    Some(match reply {
        Reply::Get(r) => r.encode_to_vec(),
        Reply::Put(r) => r.encode_to_vec(),
        Reply::Del(r) => r.encode_to_vec(),
        Reply::Txn(r) => r.encode_to_vec(),
        Reply::Watch(r) => {
            // What the client keeps for itself is not written.
            WatchResponse { watch_id: 0, cancel_reason: String::new(), fragment: false, ..r.clone() }.encode_to_vec()
        }
        Reply::Grant(r) => only(&r.header),
        Reply::KeepAlive(r) => only(&r.header),
        Reply::TimeToLive(r, _) => only(&r.header),
        Reply::Leases(r) => only(&r.header),
        Reply::MemberAdd(r) => r.encode_to_vec(),
        Reply::MemberRemove(_, r) => r.encode_to_vec(),
        Reply::MemberUpdate(_, r) => r.encode_to_vec(),
        Reply::MemberPromote(_, r) => r.encode_to_vec(),
        Reply::MemberList(r) => r.encode_to_vec(),
        Reply::MoveLeader(.., r) => r.encode_to_vec(),
        Reply::Alarm(r) => r.encode_to_vec(),
        Reply::AuthStatus(r) => r.encode_to_vec(),
        Reply::RoleAdd(_, r) => r.encode_to_vec(),
        Reply::RoleGet(_, r) => r.encode_to_vec(),
        Reply::RoleDelete(_, r) => r.encode_to_vec(),
        Reply::RoleList(r) => r.encode_to_vec(),
        Reply::RoleGrant(_, r) => r.encode_to_vec(),
        Reply::RoleRevoke(.., r) => r.encode_to_vec(),
        Reply::UserAdd(_, r) => r.encode_to_vec(),
        Reply::UserGet(_, r) => r.encode_to_vec(),
        Reply::UserDelete(_, r) => r.encode_to_vec(),
        Reply::UserList(r) => r.encode_to_vec(),
        Reply::UserPasswd(r) => r.encode_to_vec(),
        Reply::UserGrantRole(.., r) => r.encode_to_vec(),
        Reply::UserRevokeRole(.., r) => r.encode_to_vec(),
        Reply::Revoke(..) | Reply::EndpointHealth(_) | Reply::EndpointStatus(_) | Reply::EndpointHashKv(_) => {
            return None;
        }
    })
}
