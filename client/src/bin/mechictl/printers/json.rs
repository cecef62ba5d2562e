//! `-w json`: what Go's `encoding/json` makes of etcd's types, in the order of their fields.

use super::{Health, Reply};
use crate::go::json::{Object, base64, list, list_or_null, string};
use mechi_proto::authpb::Permission;
use mechi_proto::etcdserverpb::response_op::Response;
use mechi_proto::etcdserverpb::{self as pb, ResponseHeader};
use mechi_proto::mvccpb::{Event, KeyValue};

/// The output; `None` for the reply that etcdctl crashes on.
pub(super) fn print(reply: &Reply, hex: bool) -> Option<String> {
    let json = match reply {
        Reply::Get(r) => get(r),
        Reply::Put(r) => put(r),
        Reply::Del(r) => del(r),
        Reply::Txn(r) => txn(r),
        Reply::Watch(r) => watch(r),
        // The client's own types of leases hold the header's fields, and print zeros.
        Reply::Grant(r) => {
            fields(Object::new(), &r.header).raw("ID", r.id).raw("TTL", r.ttl).raw("Error", string(&r.error)).end()
        }
        Reply::Revoke(_, r) => object(&r.header).end(),
        Reply::KeepAlive(r) => fields(Object::new(), &r.header).raw("ID", r.id).raw("TTL", r.ttl).end(),
        Reply::TimeToLive(r, _) => {
            let object =
                fields(Object::new(), &r.header).raw("id", r.id).raw("ttl", r.ttl).raw("granted-ttl", r.granted_ttl);
            object.raw("keys", list_or_null(&r.keys, |key| base64(key))).end()
        }
        Reply::Leases(r) => {
            let leases = list(&r.leases, |lease| Object::new().raw("id", lease.id).end());
            fields(Object::new(), &r.header).raw("leases", leases).end()
        }
        Reply::MemberAdd(r) => {
            object(&r.header).some("member", r.member.as_ref(), member).list("members", &r.members, member).end()
        }
        Reply::MemberRemove(_, r) => object(&r.header).list("members", &r.members, member).end(),
        Reply::MemberUpdate(_, r) => object(&r.header).list("members", &r.members, member).end(),
        Reply::MemberPromote(_, r) => object(&r.header).list("members", &r.members, member).end(),
        Reply::MemberList(r) if hex => members_in_hex(r),
        Reply::MemberList(r) => object(&r.header).list("members", &r.members, member).end(),
        Reply::EndpointHealth(healths) => list(healths, health),
        Reply::EndpointStatus(all) => {
            list(all, |(endpoint, r)| Object::new().raw("Endpoint", string(endpoint)).raw("Status", status(r)).end())
        }
        Reply::EndpointHashKv(all) => {
            list(all, |(endpoint, r)| Object::new().raw("Endpoint", string(endpoint)).raw("HashKV", hash(r)).end())
        }
        Reply::MoveLeader(.., r) => object(&r.header).end(),
        Reply::Alarm(r) => {
            let alarm = |alarm: &pb::AlarmMember| {
                Object::new().number("memberID", alarm.member_id).number("alarm", alarm.alarm).end()
            };
            object(&r.header).list("alarms", &r.alarms, alarm).end()
        }
        Reply::AuthStatus(r) => {
            object(&r.header).flag("enabled", r.enabled).number("authRevision", r.auth_revision).end()
        }
        Reply::RoleAdd(_, r) => object(&r.header).end(),
        Reply::RoleGet(_, r) => object(&r.header).list("perm", &r.perm, permission).end(),
        Reply::RoleDelete(_, r) => object(&r.header).end(),
        Reply::RoleList(r) => object(&r.header).list("roles", &r.roles, |role| string(role)).end(),
        Reply::RoleGrant(_, r) => object(&r.header).end(),
        Reply::RoleRevoke(.., r) => object(&r.header).end(),
        Reply::UserAdd(_, r) => object(&r.header).end(),
        Reply::UserGet(_, r) => object(&r.header).list("roles", &r.roles, |role| string(role)).end(),
        Reply::UserDelete(_, r) => object(&r.header).end(),
        Reply::UserList(r) => object(&r.header).list("users", &r.users, |user| string(user)).end(),
        Reply::UserPasswd(r) => object(&r.header).end(),
        Reply::UserGrantRole(.., r) => object(&r.header).end(),
        Reply::UserRevokeRole(.., r) => object(&r.header).end(),
    };
    Some(json + "\n")
}

/// An object that starts with a header.
fn object(header: &Option<ResponseHeader>) -> Object {
    Object::new().some("header", header.as_ref(), |header| fields(Object::new(), &Some(*header)).end())
}

fn fields(object: Object, header: &Option<ResponseHeader>) -> Object {
    let header = super::header(header);
    let object = object.number("cluster_id", header.cluster_id).number("member_id", header.member_id);
    object.number("revision", header.revision).number("raft_term", header.raft_term)
}

fn key_value(kv: &KeyValue) -> String {
    let object = Object::new().bytes("key", &kv.key).number("create_revision", kv.create_revision);
    let object = object.number("mod_revision", kv.mod_revision).number("version", kv.version);
    object.bytes("value", &kv.value).number("lease", kv.lease).end()
}

fn get(r: &pb::RangeResponse) -> String {
    object(&r.header).list("kvs", &r.kvs, key_value).flag("more", r.more).number("count", r.count).end()
}

fn put(r: &pb::PutResponse) -> String {
    object(&r.header).some("prev_kv", r.prev_kv.as_ref(), key_value).end()
}

fn del(r: &pb::DeleteRangeResponse) -> String {
    object(&r.header).number("deleted", r.deleted).list("prev_kvs", &r.prev_kvs, key_value).end()
}

fn txn(r: &pb::TxnResponse) -> String {
    object(&r.header).flag("succeeded", r.succeeded).list("responses", &r.responses, op).end()
}

/// Go wraps each answer in the interface that holds it, whose name has no tag.
fn op(op: &pb::ResponseOp) -> String {
    let inner = match &op.response {
        Some(Response::ResponseRange(r)) => Object::new().raw("response_range", get(r)),
        Some(Response::ResponsePut(r)) => Object::new().raw("response_put", put(r)),
        Some(Response::ResponseDeleteRange(r)) => Object::new().raw("response_delete_range", del(r)),
        Some(Response::ResponseTxn(r)) => Object::new().raw("response_txn", txn(r)),
        None => return Object::new().raw("Response", "null").end(),
    };
    Object::new().raw("Response", inner.end()).end()
}

fn watch(r: &pb::WatchResponse) -> String {
    let event = |event: &Event| {
        let object = Object::new().number("type", event.r#type).some("kv", event.kv.as_ref(), key_value);
        object.some("prev_kv", event.prev_kv.as_ref(), key_value).end()
    };
    let object = Object::new().raw("Header", fields(Object::new(), &r.header).end());
    let object = object.raw("Events", list(&r.events, event)).raw("CompactRevision", r.compact_revision);
    object.raw("Canceled", r.canceled).raw("Created", r.created).end()
}

fn member(member: &pb::Member) -> String {
    let object = Object::new().number("ID", member.id).text("name", &member.name);
    let object = object.list("peerURLs", &member.peer_ur_ls, |url| string(url));
    object.list("clientURLs", &member.client_ur_ls, |url| string(url)).flag("isLearner", member.is_learner).end()
}

/// etcdctl writes this one by hand: ids in hexadecimal, no revision, and another spelling of the clients' URLs.
fn members_in_hex(r: &pb::MemberListResponse) -> String {
    let sent = super::header(&r.header);
    let id = |id: u64| format!("\"{id:x}\"");
    let header = Object::new().raw("cluster_id", id(sent.cluster_id)).raw("member_id", id(sent.member_id));
    let header = header.raw("raft_term", format!("{:x}", sent.raft_term)).end();
    let member = |member: &pb::Member| {
        let object = Object::new().raw("ID", id(member.id)).raw("name", format!("\"{}\"", member.name));
        let object = object.raw("peerURLs", list_or_null(&member.peer_ur_ls, |url| string(url)));
        object.raw("clientURLS", list_or_null(&member.client_ur_ls, |url| string(url))).end()
    };
    Object::new().raw("header", header).list("members", &r.members, member).end()
}

fn health(health: &Health) -> String {
    let object = Object::new().raw("endpoint", string(&health.endpoint)).raw("health", health.healthy);
    object.raw("took", string(&health.took)).text("error", &health.error).end()
}

fn status(r: &pb::StatusResponse) -> String {
    let object = object(&r.header).text("version", &r.version).number("dbSize", r.db_size).number("leader", r.leader);
    let object = object.number("raftIndex", r.raft_index).number("raftTerm", r.raft_term);
    let object = object.number("raftAppliedIndex", r.raft_applied_index).list("errors", &r.errors, |why| string(why));
    object.number("dbSizeInUse", r.db_size_in_use).flag("isLearner", r.is_learner).end()
}

fn hash(r: &pb::HashKvResponse) -> String {
    object(&r.header).number("hash", r.hash).number("compact_revision", r.compact_revision).end()
}

fn permission(permission: &Permission) -> String {
    let object = Object::new().number("permType", permission.perm_type).bytes("key", &permission.key);
    object.bytes("range_end", &permission.range_end).end()
}
