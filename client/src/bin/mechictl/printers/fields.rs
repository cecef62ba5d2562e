//! `-w fields`: every field on a line of its own, strings quoted as Go quotes them.

use super::{Reply, header};
use crate::go::quote::quote;
use mechi_proto::authpb::permission::Type;
use mechi_proto::etcdserverpb::response_op::Response;
use mechi_proto::etcdserverpb::{self as pb, AlarmType};
use mechi_proto::mvccpb::KeyValue;
use mechi_proto::mvccpb::event::EventType;
use std::fmt::Display;

/// The output; `None` for the replies that etcdctl has no fields for.
pub(super) fn print(reply: &Reply) -> Option<String> {
    let mut out = Fields::default();
    match reply {
        Reply::Get(r) => out.get(r),
        Reply::Put(r) => out.put(r),
        Reply::Del(r) => out.del(r),
        Reply::Txn(r) => out.txn(r),
        Reply::Watch(r) => out.watch(r),
        Reply::Grant(r) => out.header(&r.header).field("ID", r.id).field("TTL", r.ttl),
        Reply::Revoke(_, r) => out.header(&r.header),
        Reply::KeepAlive(r) => out.header(&r.header).field("ID", r.id).field("TTL", r.ttl),
        Reply::TimeToLive(r, _) => {
            out.header(&r.header).field("ID", r.id).field("TTL", r.ttl).field("GrantedTTL", r.granted_ttl);
            r.keys.iter().fold(&mut out, |out, key| out.quoted("Key", key))
        }
        Reply::Leases(r) => r.leases.iter().fold(out.header(&r.header), |out, lease| out.field("ID", lease.id)),
        Reply::MemberList(r) => r.members.iter().fold(out.header(&r.header), Fields::member),
        Reply::EndpointHealth(healths) => healths.iter().fold(&mut out, |out, health| {
            out.quoted("Endpoint", health.endpoint.as_bytes()).field("Health", health.healthy);
            out.field("Took", &health.took).field("Error", &health.error).blank()
        }),
        Reply::EndpointStatus(list) => list.iter().fold(&mut out, |out, (endpoint, r)| out.status(endpoint, r)),
        Reply::EndpointHashKv(list) => list.iter().fold(&mut out, |out, (endpoint, r)| {
            out.header(&r.header).quoted("Endpoint", endpoint.as_bytes()).field("Hash", r.hash).blank()
        }),
        Reply::Alarm(r) => r.alarms.iter().fold(out.header(&r.header), |out, alarm| {
            let kind =
                AlarmType::try_from(alarm.alarm).map_or(alarm.alarm.to_string(), |kind| kind.as_str_name().into());
            out.field("MemberID", alarm.member_id).field("AlarmType", kind).blank()
        }),
        Reply::RoleAdd(_, r) => out.header(&r.header),
        Reply::RoleGet(_, r) => r.perm.iter().fold(out.header(&r.header), |out, permission| {
            let kind = Type::try_from(permission.perm_type).unwrap_or_default().as_str_name();
            // Two spaces: Go's line ends its label with one, and adds one.
            out.field("PermType", format!(" {kind}")).quoted("Key", &permission.key);
            out.quoted("RangeEnd", &permission.range_end)
        }),
        Reply::RoleDelete(_, r) => out.header(&r.header),
        Reply::RoleList(r) => {
            let roles: String = r.roles.iter().map(|role| format!(" {}", quote(role.as_bytes()))).collect();
            out.header(&r.header).line(format!("\"Roles\" :{roles}"))
        }
        Reply::RoleGrant(_, r) => out.header(&r.header),
        Reply::RoleRevoke(.., r) => out.header(&r.header),
        Reply::UserAdd(_, r) => out.header(&r.header),
        Reply::UserPasswd(r) => out.header(&r.header),
        Reply::UserGrantRole(.., r) => out.header(&r.header),
        Reply::UserRevokeRole(.., r) => out.header(&r.header),
        Reply::UserDelete(_, r) => out.header(&r.header),
        Reply::MemberAdd(_)
        | Reply::MemberRemove(..)
        | Reply::MemberUpdate(..)
        | Reply::MemberPromote(..)
        | Reply::MoveLeader(..)
        | Reply::AuthStatus(_)
        | Reply::UserGet(..)
        | Reply::UserList(_) => return None,
    };
    Some(out.text)
}

#[derive(Default)]
struct Fields {
    text: String,
}

impl Fields {
    fn line(&mut self, line: impl Display) -> &mut Self {
        self.text += &format!("{line}\n");
        self
    }

    fn field(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.line(format_args!("\"{name}\" : {value}"))
    }

    fn quoted(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.field(name, quote(value))
    }

    fn blank(&mut self) -> &mut Self {
        self.line("")
    }

    fn header(&mut self, sent: &Option<pb::ResponseHeader>) -> &mut Self {
        let header = header(sent);
        self.field("ClusterID", header.cluster_id).field("MemberID", header.member_id);
        self.field("Revision", header.revision).field("RaftTerm", header.raft_term)
    }

    fn key_value(&mut self, prefix: &str, kv: &KeyValue) -> &mut Self {
        self.quoted(&format!("{prefix}Key"), &kv.key);
        self.field(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.field(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.field(&format!("{prefix}Version"), kv.version);
        self.quoted(&format!("{prefix}Value"), &kv.value);
        self.field(&format!("{prefix}Lease"), kv.lease)
    }

    fn get(&mut self, r: &pb::RangeResponse) -> &mut Self {
        let out = r.kvs.iter().fold(self.header(&r.header), |out, kv| out.key_value("", kv));
        out.field("More", r.more).field("Count", r.count)
    }

    fn put(&mut self, r: &pb::PutResponse) -> &mut Self {
        r.prev_kv.iter().fold(self.header(&r.header), |out, kv| out.key_value("Prev", kv))
    }

    fn del(&mut self, r: &pb::DeleteRangeResponse) -> &mut Self {
        let out = self.header(&r.header).field("Deleted", r.deleted);
        r.prev_kvs.iter().fold(out, |out, kv| out.key_value("Prev", kv))
    }

    fn txn(&mut self, r: &pb::TxnResponse) -> &mut Self {
        let out = self.header(&r.header).field("Succeeded", r.succeeded);
        r.responses.iter().fold(out, |out, op| match &op.response {
            Some(Response::ResponseRange(r)) => out.get(r),
            Some(Response::ResponsePut(r)) => out.put(r),
            Some(Response::ResponseDeleteRange(r)) => out.del(r),
            other => out.quoted("Unknown", format!("{other:?}").as_bytes()),
        })
    }

    fn watch(&mut self, r: &pb::WatchResponse) -> &mut Self {
        r.events.iter().fold(self.header(&r.header), |out, event| {
            out.field("Type", if event.r#type() == EventType::Delete { "DELETE" } else { "PUT" });
            event.prev_kv.iter().for_each(|kv| {
                out.key_value("Prev", kv);
            });
            event.kv.iter().fold(out, |out, kv| out.key_value("", kv))
        })
    }

    fn member(&mut self, member: &pb::Member) -> &mut Self {
        self.field("ID", member.id).quoted("Name", member.name.as_bytes());
        for url in &member.peer_ur_ls {
            self.quoted("PeerURL", url.as_bytes());
        }
        for url in &member.client_ur_ls {
            self.quoted("ClientURL", url.as_bytes());
        }
        self.field("IsLearner", member.is_learner).blank()
    }

    fn status(&mut self, endpoint: &str, r: &pb::StatusResponse) -> &mut Self {
        self.header(&r.header).quoted("Version", r.version.as_bytes()).field("DBSize", r.db_size);
        self.field("Leader", r.leader).field("IsLearner", r.is_learner).field("RaftIndex", r.raft_index);
        self.field("RaftTerm", r.raft_term).field("RaftAppliedIndex", r.raft_applied_index);
        self.field("Errors", format_args!("[{}]", r.errors.join(" ")));
        self.quoted("Endpoint", endpoint.as_bytes()).blank()
    }
}
