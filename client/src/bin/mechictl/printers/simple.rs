//! `-w simple`: what a person reads, one fact a line.

use super::{Printed, Printer, Reply, table};
use mechi_proto::authpb::Permission;
use mechi_proto::authpb::permission::Type;
use mechi_proto::etcdserverpb::response_op::Response;
use mechi_proto::etcdserverpb::{self as pb, AlarmType};
use mechi_proto::mvccpb::KeyValue;
use mechi_proto::mvccpb::event::EventType;

pub(super) fn print(reply: &Reply, printer: &Printer) -> Printed {
    if let Reply::EndpointHealth(healths) = reply {
        return health(healths);
    }
    let mut out = Vec::new();
    match reply {
        Reply::Get(response) => get(response, printer, &mut out),
        Reply::Put(response) => put(response, printer, &mut out),
        Reply::Del(response) => del(response, printer, &mut out),
        Reply::Txn(response) => txn(response, printer, &mut out),
        Reply::Watch(response) => watch(response, printer, &mut out),
        Reply::AuthStatus(response) => line(
            &mut out,
            format!("Authentication Status: {}\nAuthRevision: {}", response.enabled, response.auth_revision),
        ),
        Reply::RoleGet(name, response) => role(name, &response.perm, &mut out),
        Reply::RoleList(response) => response.roles.iter().for_each(|role| line(&mut out, role)),
        Reply::UserList(response) => response.users.iter().for_each(|user| line(&mut out, user)),
        Reply::UserGet(name, response) => {
            line(&mut out, format!("User: {name}"));
            let roles: String = response.roles.iter().map(|role| format!(" {role}")).collect();
            line(&mut out, format!("Roles:{roles}"));
        }
        Reply::RoleRevoke(role, key, end, _) => revoked(role, key, end, &mut out),
        Reply::Alarm(response) => response.alarms.iter().for_each(|alarm| {
            // Go's text form of the message leaves zero fields out, and ends each field with a space.
            let member = if alarm.member_id == 0 { String::new() } else { format!("memberID:{} ", alarm.member_id) };
            let kind = match AlarmType::try_from(alarm.alarm) {
                Ok(AlarmType::None) => String::new(),
                Ok(kind) => format!("alarm:{} ", kind.as_str_name()),
                Err(_) => format!("alarm:{} ", alarm.alarm),
            };
            line(&mut out, format!("{member}{kind}"));
        }),
        Reply::MemberList(_) | Reply::EndpointStatus(_) | Reply::EndpointHashKv(_) => {
            let (_, rows) = table::rows(reply).expect("these three have rows");
            rows.iter().for_each(|row| line(&mut out, row.join(", ")));
        }
        other => line(&mut out, sentence(other)),
    }
    out.into()
}

/// The replies that are one sentence.
fn sentence(reply: &Reply) -> String {
    let cluster = |header: &Option<pb::ResponseHeader>| super::header(header).cluster_id;
    match reply {
        Reply::Grant(r) => format!("lease {:016x} granted with TTL({}s)", r.id, r.ttl),
        Reply::Revoke(id, _) => format!("lease {id:016x} revoked"),
        Reply::KeepAlive(r) => format!("lease {:016x} keepalived with TTL({})", r.id, r.ttl),
        Reply::TimeToLive(r, _) if r.granted_ttl == 0 && r.ttl == -1 => format!("lease {:016x} already expired", r.id),
        Reply::TimeToLive(r, keys) => {
            let all: Vec<_> = r.keys.iter().map(|key| String::from_utf8_lossy(key)).collect();
            let keys = if *keys { format!(", attached keys([{}])", all.join(" ")) } else { String::new() };
            format!("lease {:016x} granted with TTL({}s), remaining({}s){keys}", r.id, r.granted_ttl, r.ttl)
        }
        Reply::Leases(r) => {
            let ids: String = r.leases.iter().map(|lease| format!("\n{:016x}", lease.id)).collect();
            format!("found {} leases{ids}", r.leases.len())
        }
        Reply::MemberAdd(r) => {
            let id = r.member.as_ref().map_or(0, |member| member.id);
            format!("Member {id:16x} added to cluster {:16x}", cluster(&r.header))
        }
        Reply::MemberRemove(id, r) => format!("Member {id:16x} removed from cluster {:16x}", cluster(&r.header)),
        Reply::MemberUpdate(id, r) => format!("Member {id:16x} updated in cluster {:16x}", cluster(&r.header)),
        Reply::MemberPromote(id, r) => format!("Member {id:16x} promoted in cluster {:16x}", cluster(&r.header)),
        Reply::MoveLeader(from, to, _) => format!("Leadership transferred from {from:x} to {to:x}"),
        Reply::RoleAdd(role, _) => format!("Role {role} created"),
        Reply::RoleDelete(role, _) => format!("Role {role} deleted"),
        Reply::RoleGrant(role, _) => format!("Role {role} updated"),
        Reply::UserAdd(user, _) => format!("User {user} created"),
        Reply::UserDelete(user, _) => format!("User {user} deleted"),
        Reply::UserPasswd(_) => "Password updated".into(),
        Reply::UserGrantRole(user, role, _) => format!("Role {role} is granted to user {user}"),
        Reply::UserRevokeRole(user, role, _) => format!("Role {role} is revoked from user {user}"),
        other => unreachable!("{other:?} is more than one sentence"),
    }
}

fn line(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    out.extend_from_slice(text.as_ref());
    out.push(b'\n');
}

fn key_value(kv: &KeyValue, printer: &Printer, out: &mut Vec<u8>) {
    let form = |bytes: &[u8]| if printer.hex { hex(bytes) } else { bytes.to_vec() };
    if !printer.value_only {
        line(out, form(&kv.key));
    }
    line(out, form(&kv.value));
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).collect()
}

fn get(response: &pb::RangeResponse, printer: &Printer, out: &mut Vec<u8>) {
    response.kvs.iter().for_each(|kv| key_value(kv, printer, out));
}

fn put(response: &pb::PutResponse, printer: &Printer, out: &mut Vec<u8>) {
    line(out, "OK");
    response.prev_kv.iter().for_each(|kv| key_value(kv, printer, out));
}

fn del(response: &pb::DeleteRangeResponse, printer: &Printer, out: &mut Vec<u8>) {
    line(out, response.deleted.to_string());
    response.prev_kvs.iter().for_each(|kv| key_value(kv, printer, out));
}

fn txn(response: &pb::TxnResponse, printer: &Printer, out: &mut Vec<u8>) {
    line(out, if response.succeeded { "SUCCESS" } else { "FAILURE" });
    for op in &response.responses {
        line(out, "");
        match &op.response {
            Some(Response::ResponseRange(r)) => get(r, printer, out),
            Some(Response::ResponsePut(r)) => put(r, printer, out),
            Some(Response::ResponseDeleteRange(r)) => del(r, printer, out),
            other => line(out, format!("unexpected response {other:?}")),
        }
    }
}

fn watch(response: &pb::WatchResponse, printer: &Printer, out: &mut Vec<u8>) {
    for event in &response.events {
        line(out, if event.r#type() == EventType::Delete { "DELETE" } else { "PUT" });
        event.prev_kv.iter().for_each(|kv| key_value(kv, printer, out));
        event.kv.iter().for_each(|kv| key_value(kv, printer, out));
    }
}

fn health(healths: &[super::Health]) -> Printed {
    let mut printed = Printed::default();
    for health in healths {
        let endpoint = &health.endpoint;
        if health.error.is_empty() {
            let took = &health.took;
            line(&mut printed.out, format!("{endpoint} is healthy: successfully committed proposal: took = {took}"));
        } else {
            let why = &health.error;
            printed.err += &format!("{endpoint} is unhealthy: failed to commit proposal: {why}\n");
        }
    }
    printed
}

fn role(name: &str, permissions: &[Permission], out: &mut Vec<u8>) {
    line(out, format!("Role {name}"));
    for (title, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
        line(out, title);
        for permission in permissions {
            let has = permission.perm_type();
            if has == kind || has == Type::Readwrite {
                range(permission, out);
            }
        }
    }
}

fn range(permission: &Permission, out: &mut Vec<u8>) {
    let (key, end) = (&permission.key[..], &permission.range_end[..]);
    let text = match end {
        b"" => [b"\t", key].concat(),
        b"\0" => [b"\t[", key, b", <open ended>"].concat(),
        end => [b"\t[", key, b", ", end, b")"].concat(),
    };
    let is_prefix = !end.is_empty() && mechi_client::prefix_end(key) == end;
    let prefix = if is_prefix { [b" (prefix ", key, b")"].concat() } else { Vec::new() };
    line(out, [text, prefix].concat());
}

fn revoked(role: &str, key: &[u8], end: &[u8], out: &mut Vec<u8>) {
    let role = role.as_bytes();
    let what = match end {
        b"" => [b"key ", key].concat(),
        b"\0" => [b"range [", key, b", <open ended>"].concat(),
        end => [b"range [", key, b", ", end, b")"].concat(),
    };
    line(out, [b"Permission of ", &what[..], b" is revoked from role ", role].concat());
}
