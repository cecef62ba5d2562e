//! What a request does, as effects on canonical key ranges: the only thing that authorization looks at.

use crate::apply::lease::Leases;
use crate::outcome::Error;
use crate::types::{KeyRange, LeaseId};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use pb::request_op::Request as Op;

/// One effect; a request may be done if all of its effects are permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Reads these keys.
    Read(KeyRange),
    /// Writes these keys.
    Write(KeyRange),
    /// Needs a user, but no permission on a key.
    Lease,
    /// Needs the root role.
    Admin,
    /// Open to everybody, or the members' own business.
    None,
}

/// Everything that can be asked of a member.
///
/// A service that is added here without an arm in [`lower`] does not compile, and one that is not added cannot reach
/// [`permit`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Asked<'a> {
    Command(&'a Request),
    Range(&'a pb::RangeRequest),
    ReadTxn(&'a pb::TxnRequest),
    Watch(&'a pb::WatchCreateRequest),
    LeaseKeepAlive(&'a pb::LeaseKeepAliveRequest),
    LeaseTimeToLive(&'a pb::LeaseTimeToLiveRequest),
    LeaseLeases,
    MemberList,
    Alarms,
    Status,
    HashKv,
    Hash,
    Snapshot,
    Defragment,
    MoveLeader,
}

/// Who judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Authentication is off: everybody may do everything, as in an etcd where it was never enabled.
    #[default]
    Off,
}

/// The one place where a request is permitted or refused; `leases` are of the state it is judged on.
///
/// - Errors: [`Error::PermissionDenied`]; never while the policy is off.
pub fn permit(policy: Policy, user: &str, asked: Asked<'_>, leases: &Leases) -> Result<(), Error> {
    match policy {
        // Lowering is not free for a long txn, and nothing is judged by it here.
        Policy::Off => {
            let _ = (user, asked, leases);
            Ok(())
        }
    }
}

/// Lowers a request to its effects.
///
/// - Shape: a txn has the effects of its compares and of both branches, since the answer tells which one ran. A put
///   with a lease needs to write all keys of that lease: they will end with it.
/// - Source: etcd `apply/auth.go`, `v3_server.go`, `lease` checks of 3.7.1.
pub fn lower(asked: Asked<'_>, leases: &Leases) -> Vec<Effect> {
    let mut effects = Vec::new();
    match asked {
        Asked::Command(request) => command(request, leases, &mut effects),
        Asked::Range(range) => effects.push(read(range)),
        Asked::ReadTxn(request) => txn(request, leases, &mut effects),
        Asked::Watch(watch) => effects.push(Effect::Read(KeyRange::new(&watch.key, &watch.range_end))),
        Asked::LeaseKeepAlive(request) => {
            effects.push(Effect::Lease);
            write_attached(LeaseId(request.id), leases, &mut effects);
        }
        Asked::LeaseTimeToLive(request) => {
            effects.push(Effect::Lease);
            if request.keys {
                read_attached(LeaseId(request.id), leases, &mut effects);
            }
        }
        Asked::LeaseLeases => {
            effects.push(Effect::Lease);
            leases.iter().for_each(|(id, _)| read_attached(id, leases, &mut effects));
        }
        Asked::Status | Asked::MemberList | Asked::Alarms => effects.push(Effect::None),
        Asked::HashKv | Asked::Hash | Asked::Snapshot | Asked::Defragment | Asked::MoveLeader => {
            effects.push(Effect::Admin);
        }
    }
    effects
}

fn command(request: &Request, leases: &Leases, effects: &mut Vec<Effect>) {
    match request {
        Request::Put(request) => put(request, leases, effects),
        Request::DeleteRange(request) => delete(request, effects),
        Request::Txn(request) => txn(request, leases, effects),
        Request::LeaseGrant(_) => effects.push(Effect::Lease),
        Request::LeaseRevoke(request) => {
            effects.push(Effect::Lease);
            write_attached(LeaseId(request.id), leases, effects);
        }
        Request::Compaction(_) | Request::Alarm(_) => effects.push(Effect::Admin),
        Request::LeaseExpire(_) | Request::LeaseCheckpoint(_) | Request::MemberPublish(_) | Request::ClusterInit(_) => {
            effects.push(Effect::None)
        }
    }
}

fn put(request: &pb::PutRequest, leases: &Leases, effects: &mut Vec<Effect>) {
    let key = KeyRange::single(&request.key);
    if request.prev_kv || request.ignore_value || request.ignore_lease {
        effects.push(Effect::Read(key.clone()));
    }
    effects.push(Effect::Write(key));
    if request.lease != 0 {
        write_attached(LeaseId(request.lease), leases, effects);
    }
}

fn delete(request: &pb::DeleteRangeRequest, effects: &mut Vec<Effect>) {
    let keys = KeyRange::new(&request.key, &request.range_end);
    if request.prev_kv {
        effects.push(Effect::Read(keys.clone()));
    }
    effects.push(Effect::Write(keys));
}

fn txn(request: &pb::TxnRequest, leases: &Leases, effects: &mut Vec<Effect>) {
    for compare in &request.compare {
        effects.push(Effect::Read(KeyRange::new(&compare.key, &compare.range_end)));
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Op::RequestRange(request)) => effects.push(read(request)),
            Some(Op::RequestPut(request)) => put(request, leases, effects),
            Some(Op::RequestDeleteRange(request)) => delete(request, effects),
            Some(Op::RequestTxn(nested)) => txn(nested, leases, effects),
            None => {}
        }
    }
}

fn read(request: &pb::RangeRequest) -> Effect {
    Effect::Read(KeyRange::new(&request.key, &request.range_end))
}

fn write_attached(id: LeaseId, leases: &Leases, effects: &mut Vec<Effect>) {
    let keys = leases.get(id).into_iter().flat_map(|lease| lease.keys());
    effects.extend(keys.map(|key| Effect::Write(KeyRange::single(key))));
}

fn read_attached(id: LeaseId, leases: &Leases, effects: &mut Vec<Effect>) {
    let keys = leases.get(id).into_iter().flat_map(|lease| lease.keys());
    effects.extend(keys.map(|key| Effect::Read(KeyRange::single(key))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_proto::mechipb;

    fn leases() -> Leases {
        let lease = mechipb::Lease { id: 7, ttl: 10, ..Default::default() };
        let mut leases = Leases::from_meta(vec![lease]).unwrap();
        leases.attach(b"x", LeaseId(7));
        leases
    }

    fn key(key: &'static str) -> KeyRange {
        KeyRange::single(&key.into())
    }

    #[test]
    fn a_put_with_a_lease_writes_what_will_end_with_it() {
        let put = pb::PutRequest { key: "a".into(), lease: 7, prev_kv: true, ..Default::default() };
        let effects = lower(Asked::Command(&Request::Put(put)), &leases());
        assert_eq!(effects, [Effect::Read(key("a")), Effect::Write(key("a")), Effect::Write(key("x"))]);
    }

    #[test]
    fn a_txn_has_the_effects_of_both_branches_and_of_what_is_nested() {
        let op = |request| pb::RequestOp { request: Some(request) };
        let get = pb::RangeRequest { key: "g".into(), range_end: "\0".into(), ..Default::default() };
        let delete = pb::DeleteRangeRequest { key: "d".into(), ..Default::default() };
        let nested = pb::TxnRequest { failure: vec![op(Op::RequestDeleteRange(delete))], ..Default::default() };
        let txn = pb::TxnRequest {
            compare: vec![pb::Compare { key: "c".into(), ..Default::default() }],
            success: vec![op(Op::RequestRange(get.clone()))],
            failure: vec![op(Op::RequestTxn(nested))],
        };
        let open = KeyRange::new(&get.key, &get.range_end);
        let wanted = [Effect::Read(key("c")), Effect::Read(open), Effect::Write(key("d"))];
        assert_eq!(lower(Asked::ReadTxn(&txn), &leases()), wanted);
        assert_eq!(lower(Asked::Command(&Request::Txn(txn)), &leases()), wanted);
    }

    #[test]
    fn leases_need_their_keys() {
        let revoke = Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 7 });
        assert_eq!(lower(Asked::Command(&revoke), &leases()), [Effect::Lease, Effect::Write(key("x"))]);
        let look = |keys| lower(Asked::LeaseTimeToLive(&pb::LeaseTimeToLiveRequest { id: 7, keys }), &leases());
        assert_eq!(look(false), [Effect::Lease]);
        assert_eq!(look(true), [Effect::Lease, Effect::Read(key("x"))]);
        assert_eq!(lower(Asked::LeaseLeases, &leases()), [Effect::Lease, Effect::Read(key("x"))]);
        let expire = Request::LeaseExpire(mechipb::LeaseExpire { id: 7, grant_index: 0, term: 1 });
        assert_eq!(lower(Asked::Command(&expire), &leases()), [Effect::None], "nobody asks for an expiry");
    }

    #[test]
    fn everything_is_permitted_while_the_policy_is_off() {
        assert_eq!(permit(Policy::Off, "", Asked::Snapshot, &leases()), Ok(()));
    }
}
