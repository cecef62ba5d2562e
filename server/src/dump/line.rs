//! One command of the log, or one key, in one line of bounded length.

use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{Command, command::Request};
use pb::request_op::Request as Op;
use std::fmt::Write;

/// Bytes of a key or a value that are shown.
const BYTES_SHOWN: usize = 64;

/// Operations of a transaction that are shown.
const OPS_SHOWN: usize = 8;

/// Shows bytes as a quoted text, what cannot be printed escaped, what is long cut.
pub(super) fn bytes(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(BYTES_SHOWN)];
    match bytes.len() - shown.len() {
        0 => format!("\"{}\"", shown.escape_ascii()),
        _ => format!("\"{}\"… ({} bytes)", shown.escape_ascii(), bytes.len()),
    }
}

/// Writes bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Shows a range of keys.
fn keys(key: &[u8], end: &[u8]) -> String {
    match end {
        [] => bytes(key),
        [0] => format!("from {}", bytes(key)),
        end => format!("{} to {}", bytes(key), bytes(end)),
    }
}

/// Shows one command.
pub(super) fn command(command: &Command) -> String {
    let Some(request) = &command.request else { return "nothing that this version knows".to_owned() };
    match request {
        Request::Put(request) => put(request),
        Request::DeleteRange(request) => delete(request),
        Request::Txn(request) => txn(request, 0),
        Request::Compaction(request) => {
            format!("compact to {}{}", request.revision, flag(request.physical, "physical"))
        }
        Request::LeaseGrant(request) => format!("grant lease {:016x} for {} s", request.id, request.ttl),
        Request::LeaseRevoke(request) => format!("revoke lease {:016x}", request.id),
        Request::LeaseExpire(request) => {
            format!("expire lease {:016x} granted at {} in term {}", request.id, request.grant_index, request.term)
        }
        Request::LeaseCheckpoint(request) => {
            let some = request.checkpoints.iter().take(OPS_SHOWN);
            let some: Vec<_> = some.map(|lease| format!("{:016x} {} s", lease.id, lease.remaining_ttl)).collect();
            format!("note the time left of {} leases: {}", request.checkpoints.len(), some.join(", "))
        }
        Request::Alarm(request) => format!(
            "alarm {} {} of member {:x}",
            request.action().as_str_name(),
            request.alarm().as_str_name(),
            request.member_id
        ),
        Request::MemberPublish(request) => {
            let urls = bytes(request.client_urls.join(",").as_bytes());
            format!("member {:x} is {} at {urls}", request.member_id, bytes(request.name.as_bytes()))
        }
        Request::ClusterInit(request) => {
            let members: Vec<_> = request.members.iter().map(|member| format!("{:x}", member.id)).collect();
            format!("cluster {:x} begins with members {}", request.cluster_id, members.join(", "))
        }
    }
}

fn put(request: &pb::PutRequest) -> String {
    let mut line = format!("put {} = {}", bytes(&request.key), bytes(&request.value));
    if request.lease != 0 {
        let _ = write!(line, " lease {:016x}", request.lease);
    }
    line + flag(request.ignore_value, "ignore_value")
        + flag(request.ignore_lease, "ignore_lease")
        + flag(request.prev_kv, "prev_kv")
}

fn delete(request: &pb::DeleteRangeRequest) -> String {
    format!("delete {}{}", keys(&request.key, &request.range_end), flag(request.prev_kv, "prev_kv"))
}

fn txn(request: &pb::TxnRequest, depth: usize) -> String {
    let compares = list(&request.compare, |compare| {
        let target = compare.target().as_str_name().to_lowercase();
        format!("{target} of {} {}", keys(&compare.key, &compare.range_end), right_side(compare))
    });
    let ops = |ops: &[pb::RequestOp]| list(ops, |op| self::op(op, depth));
    format!("txn if [{compares}] then [{}] else [{}]", ops(&request.success), ops(&request.failure))
}

fn op(op: &pb::RequestOp, depth: usize) -> String {
    match &op.request {
        Some(Op::RequestRange(request)) => format!("get {}", keys(&request.key, &request.range_end)),
        Some(Op::RequestPut(request)) => put(request),
        Some(Op::RequestDeleteRange(request)) => delete(request),
        // One level is a picture, more would be a wall.
        Some(Op::RequestTxn(request)) if depth == 0 => txn(request, depth + 1),
        Some(Op::RequestTxn(_)) => "txn …".to_owned(),
        None => "nothing".to_owned(),
    }
}

fn right_side(compare: &pb::Compare) -> String {
    use pb::compare::TargetUnion::{CreateRevision, Lease, ModRevision, Value, Version};
    let sign = match compare.result() {
        pb::compare::CompareResult::Equal => "=",
        pb::compare::CompareResult::Greater => ">",
        pb::compare::CompareResult::Less => "<",
        pb::compare::CompareResult::NotEqual => "!=",
    };
    match &compare.target_union {
        Some(Version(number) | CreateRevision(number) | ModRevision(number)) => format!("{sign} {number}"),
        Some(Lease(id)) => format!("{sign} {id:016x}"),
        Some(Value(value)) => format!("{sign} {}", bytes(value)),
        None => format!("{sign} 0"),
    }
}

fn list<T>(all: &[T], show: impl Fn(&T) -> String) -> String {
    let mut shown: Vec<_> = all.iter().take(OPS_SHOWN).map(show).collect();
    if all.len() > OPS_SHOWN {
        shown.push(format!("… {} more", all.len() - OPS_SHOWN));
    }
    shown.join(", ")
}

fn flag(is_set: bool, name: &'static str) -> &'static str {
    match (is_set, name) {
        (false, _) => "",
        (true, "physical") => " physical",
        (true, "ignore_value") => " ignore_value",
        (true, "ignore_lease") => " ignore_lease",
        (true, _) => " prev_kv",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(request: Request) -> String {
        command(&Command { request: Some(request), ..Default::default() })
    }

    #[test]
    fn a_command_is_one_line_of_bounded_length() {
        let put = pb::PutRequest { key: "a\nb\x00".into(), value: "1".into(), lease: 7, ..Default::default() };
        assert_eq!(shown(Request::Put(put.clone())), r#"put "a\nb\x00" = "1" lease 0000000000000007"#);
        let all = pb::DeleteRangeRequest { key: "k".into(), range_end: vec![0].into(), prev_kv: true };
        assert_eq!(shown(Request::DeleteRange(all)), r#"delete from "k" prev_kv"#);
        let large = pb::PutRequest { key: "k".into(), value: vec![b'x'; 1 << 20].into(), ..Default::default() };
        let line = shown(Request::Put(large.clone()));
        assert!(line.ends_with("… (1048576 bytes)") && line.len() < 200, "{line}");

        let compare = pb::Compare {
            key: "k".into(),
            target: pb::compare::CompareTarget::Mod.into(),
            result: pb::compare::CompareResult::Equal.into(),
            target_union: Some(pb::compare::TargetUnion::ModRevision(5)),
            ..Default::default()
        };
        let op = |request| pb::RequestOp { request: Some(request) };
        let inner =
            pb::TxnRequest { success: vec![op(Op::RequestTxn(pb::TxnRequest::default()))], ..Default::default() };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![op(Op::RequestPut(put)), op(Op::RequestTxn(inner))],
            failure: vec![op(Op::RequestRange(pb::RangeRequest { key: "k".into(), ..Default::default() }))],
        };
        assert_eq!(
            shown(Request::Txn(txn)),
            r#"txn if [mod of "k" = 5] then [put "a\nb\x00" = "1" lease 0000000000000007, txn if [] then [txn …] else []] else [get "k"]"#
        );
        let wide = pb::TxnRequest { success: vec![op(Op::RequestPut(large)); 128], ..Default::default() };
        assert!(shown(Request::Txn(wide)).len() < 2_000);
    }
}
