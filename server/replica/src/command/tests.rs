//! Each check and each rule about txns, case by case; the duplicate-key rule's cases are in `testscripts/txn/checks`.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn put(key: &'static str) -> pb::RequestOp {
    op(Op::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() }))
}

fn get(serializable: bool) -> pb::RequestOp {
    op(Op::RequestRange(pb::RangeRequest { key: "a".into(), serializable, ..Default::default() }))
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn txn(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { compare: vec![], success, failure }
}

fn nested(txn: pb::TxnRequest) -> pb::RequestOp {
    op(Op::RequestTxn(txn))
}

fn command(request: Request) -> Command {
    Command { id: 7, request: Some(request), ..Default::default() }
}

#[test]
fn a_batch_comes_back_from_its_entry() {
    let request = Request::Put(pb::PutRequest { key: "k".into(), value: vec![7; 300].into(), ..Default::default() });
    let batch = Batch { member: 1, boot: 2, number: 3, wall_ms: 4, commands: vec![command(request)] };
    let data = encode(&batch);
    assert_eq!(decode(&data).unwrap(), batch);
    let empty = Batch { commands: vec![], ..batch.clone() };
    assert_eq!(data.len() - encode(&empty).len(), entry_bytes(&batch.commands[0]));
}

#[test]
fn another_version_and_rubbish_are_fatal() {
    for (data, says) in [(&b""[..], "empty"), (b"\x02", "format 2 is unknown"), (b"\x01\xff", "no batch")] {
        let fatal = decode(&Bytes::from_static(data)).unwrap_err().to_string();
        assert!(fatal.contains(says), "{fatal}");
    }
}

#[test]
fn a_level_counts_its_longest_list_and_nested_txns_share_what_is_left() {
    let puts = |count| (0..count).map(|_| get(false)).collect::<Vec<_>>();
    assert_eq!(check_txn(&txn(puts(3), puts(3)), 3), Ok(()), "branches are not added up");
    assert_eq!(check_txn(&txn(vec![], puts(4)), 3), Err(Error::TooManyOps));
    let compare = pb::Compare { key: "a".into(), ..Default::default() };
    let compares = pb::TxnRequest { compare: vec![compare; 4], ..Default::default() };
    assert_eq!(check_txn(&compares, 3), Err(Error::TooManyOps));
    let pair = || nested(txn(puts(2), vec![]));
    assert_eq!(check_txn(&txn(vec![pair(), pair()], vec![]), 4), Ok(()), "siblings each get what is left");
    assert_eq!(check_txn(&txn(vec![pair(), pair()], vec![]), 3), Err(Error::TooManyOps));
}

#[test]
fn the_deepest_txn_that_passes_can_be_read_from_the_log() {
    let levels = |count: usize| {
        (1..count).fold(txn(vec![put("a")], vec![]), |txn_inside, _| txn(vec![nested(txn_inside)], vec![]))
    };
    let deepest = levels(TXN_DEPTH_MAX);
    assert_eq!(check_txn(&deepest, TXN_OPS_MAX), Ok(()));
    assert_eq!(check_txn(&levels(TXN_DEPTH_MAX + 1), TXN_OPS_MAX), Err(Error::TooManyOps));
    let batch = Batch { commands: vec![command(Request::Txn(deepest))], ..Default::default() };
    assert_eq!(decode(&encode(&batch)).unwrap(), batch);
}

#[test]
fn an_op_count_is_found_before_bad_keys_and_duplicates_last() {
    let bad = || op(Op::RequestPut(pb::PutRequest::default()));
    assert_eq!(check_txn(&txn(vec![bad(), bad()], vec![]), 1), Err(Error::TooManyOps));
    assert_eq!(check_txn(&txn(vec![put("a"), put("a"), bad()], vec![]), 9), Err(Error::EmptyKey));
    let no_request = pb::RequestOp { request: None };
    assert_eq!(check_txn(&txn(vec![put("a"), put("a")], vec![no_request]), 9), Err(Error::KeyNotFound));
    assert_eq!(check_txn(&txn(vec![put("a"), put("a")], vec![]), 9), Err(Error::DuplicateKey));
}

#[test]
fn only_flat_ranges_are_read_only() {
    assert!(is_read_only(&txn(vec![], vec![])) && is_serializable(&txn(vec![], vec![])));
    let mixed = txn(vec![get(true)], vec![get(false)]);
    assert!(is_read_only(&mixed) && !is_serializable(&mixed));
    assert!(is_serializable(&txn(vec![get(true)], vec![get(true)])));
    assert!(!is_read_only(&txn(vec![get(true)], vec![put("a")])));
    let wrapped = txn(vec![nested(txn(vec![get(true)], vec![]))], vec![]);
    assert!(!is_read_only(&wrapped) && !is_serializable(&wrapped));
}

#[test]
fn the_request_size_is_measured_last_and_on_the_log_form() {
    let put = pb::PutRequest { key: "k".into(), value: vec![0; 100].into(), ..Default::default() };
    let size = Request::Put(put.clone()).encoded_len();
    let limits = |request_bytes_max| RequestLimits { txn_ops_max: 9, request_bytes_max };
    assert_eq!(check(&Request::Put(put.clone()), &limits(size)), Ok(()));
    assert_eq!(check(&Request::Put(put.clone()), &limits(size - 1)), Err(Error::RequestTooLarge));
    let no_key = pb::PutRequest { key: Bytes::new(), ..put };
    assert_eq!(check(&Request::Put(no_key), &limits(1)), Err(Error::EmptyKey));
}

#[test]
fn the_quota_pays_for_the_dearer_branch() {
    assert_eq!(quota_cost(&Request::Txn(txn(vec![put("a")], vec![put("bb"), put("c")]))), 2 * 256 + 3);
    assert_eq!(quota_cost(&Request::Txn(txn(vec![nested(txn(vec![put("a")], vec![]))], vec![]))), 257);
    assert_eq!(quota_cost(&Request::Txn(txn(vec![get(false)], vec![]))), 0);
    assert_eq!(quota_cost(&Request::LeaseGrant(pb::LeaseGrantRequest { ttl: 1, id: 1 })), 64);
    assert_eq!(quota_cost(&Request::DeleteRange(pb::DeleteRangeRequest { key: "a".into(), ..Default::default() })), 0);
}

/// `key` and `range_end` of a delete.
type Interval = (Bytes, Bytes);

/// etcd's rule as it is written there, over lists instead of trees.
fn naive(branch: &[pb::RequestOp]) -> Result<(Vec<Bytes>, Vec<Interval>), Error> {
    let hit = |deletes: &[Interval], key: &Bytes| {
        deletes.iter().any(|(from, to)| if to.is_empty() { from == key } else { from <= key && key < to })
    };
    let mut deletes = Vec::new();
    for op in branch {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request {
            deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    let mut puts: Vec<Bytes> = Vec::new();
    for op in branch {
        if let Some(Op::RequestTxn(txn)) = &op.request {
            let ((then, then_deletes), (other, other_deletes)) = (naive(&txn.success)?, naive(&txn.failure)?);
            for key in &then {
                if puts.contains(key) || hit(&deletes, key) {
                    return Err(Error::DuplicateKey);
                }
            }
            for key in &other {
                if puts.contains(key) || hit(&deletes, key) {
                    return Err(Error::DuplicateKey);
                }
            }
            puts.extend(then.into_iter().chain(other));
            deletes.extend(then_deletes.into_iter().chain(other_deletes));
        }
    }
    for op in branch {
        if let Some(Op::RequestPut(put)) = &op.request {
            if puts.contains(&put.key) || hit(&deletes, &put.key) {
                return Err(Error::DuplicateKey);
            }
            puts.push(put.key.clone());
        }
    }
    Ok((puts, deletes))
}

fn ops_of(inner: BoxedStrategy<Vec<pb::RequestOp>>) -> BoxedStrategy<Vec<pb::RequestOp>> {
    let key = || prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    let end = prop::sample::select(vec!["", "", "b", "d", "f", "\0"]);
    let delete = (key(), end).prop_map(|(key, end)| {
        op(Op::RequestDeleteRange(pb::DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false }))
    });
    let one = prop_oneof![
        3 => key().prop_map(put),
        2 => delete,
        1 => (inner.clone(), inner).prop_map(|(success, failure)| nested(txn(success, failure))),
    ];
    prop::collection::vec(one, 0..4).boxed()
}

proptest! {
    #[test]
    fn the_duplicate_rule_is_etcds(branch in ops_of(ops_of(ops_of(Just(vec![]).boxed())))) {
        prop_assert_eq!(intervals::check(&branch), naive(&branch).map(|_| ()));
    }
}

#[test]
fn a_long_txn_is_checked_quickly() {
    // Half a million steps would not finish in a test if the rule compared every put with every delete.
    let keys: BTreeSet<String> = (0..60_000).map(|n| format!("{n:06}")).collect();
    let deletes = keys.iter().map(|key| {
        op(Op::RequestDeleteRange(pb::DeleteRangeRequest { key: format!("d{key}").into(), ..Default::default() }))
    });
    let puts =
        keys.iter().map(|key| op(Op::RequestPut(pb::PutRequest { key: key.clone().into(), ..Default::default() })));
    assert_eq!(intervals::check(&deletes.chain(puts).collect::<Vec<_>>()), Ok(()));
}

#[test]
fn an_entrys_author_is_read_without_decoding_it() {
    let batch = Batch { member: u64::MAX, boot: 300, number: 7, wall_ms: 5, commands: Vec::new() };
    let data = encode(&batch);
    assert_eq!(peek(&data), Some(BatchId { member: u64::MAX, boot: 300, number: 7 }));
    for cut in 0..data.len() - 2 {
        assert_eq!(peek(&data[..cut]), None, "cut at {cut}");
    }
    assert_eq!(peek(&[ENTRY_VERSION + 1, 8, 1, 16, 1, 24, 1]), None, "a later version");
    assert_eq!(peek(&[ENTRY_VERSION, 8, 1, 24, 1, 16, 1]), None, "fields in another order");
}
