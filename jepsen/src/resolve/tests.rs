//! Logs are merged, replayed and asked what really happened.

use super::*;
use mechi_checker::history::{Op, Process};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb;
use prost::Message;
use serde_json::{Value as Json, json};

fn put(key: &str, value: &str) -> String {
    let put = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    let command = mechipb::Command { request: Some(Request::Put(put)), ..Default::default() };
    command.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn log(commit: u64) -> Json {
    json!({"kind": "log", "commit": commit, "closed_cleanly_at": "never"})
}

/// Entry `index` of `term`, with a put.
fn entry(index: u64, term: u64, value: &str) -> [Json; 2] {
    [
        json!({"kind": "entry", "index": index, "term": term, "member": "aa", "its_boot": 1, "number": index}),
        json!({"kind": "command", "index": index, "message": put("r/0", value)}),
    ]
}

fn member(name: &str, facts: impl IntoIterator<Item = Json>) -> Member {
    dumped::of_facts(name, &facts.into_iter().collect::<Vec<_>>())
}

fn values(merged: &Merged) -> Vec<String> {
    let log = merged.log.as_ref().expect("the log is whole");
    let value = |(_, kv): &(Bytes, Option<mechi_proto::mvccpb::KeyValue>)| {
        String::from_utf8_lossy(&kv.as_ref().expect("a put").value).into_owned()
    };
    log.iter().flat_map(|logged| logged.changes.iter().map(value)).collect()
}

#[test]
fn what_was_overruled_or_given_up_is_left_out_and_what_most_hold_counts() {
    let first = [vec![log(1)], entry(1, 1, "1").into(), entry(2, 1, "lost").into(), entry(2, 2, "2").into()].concat();
    let given_up = json!({"kind": "batch", "note": "given up"});
    let second = [
        vec![log(2)],
        entry(1, 1, "1").into(),
        vec![given_up],
        entry(1, 9, "dead").into(),
        vec![json!({"kind": "batch"})],
        entry(2, 2, "2").into(),
        entry(3, 2, "3").into(),
    ]
    .concat();
    let third = [vec![log(0)], entry(1, 1, "1").into(), entry(2, 2, "2").into(), entry(3, 2, "3").into()].concat();
    let members = [member("n1", first), member("n2", second), member("n3", third)];
    let merged = put_together(&members).expect("merges");
    assert_eq!((merged.through, merged.differ.len()), (3, 0), "{merged:?}");
    assert_eq!(values(&merged), ["1", "2", "3"]);

    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join(MERGED);
    write(&merged, &path).expect("writes");
    assert_eq!(read(&path).expect("reads"), merged);
}

#[test]
fn members_that_disagree_are_named_and_a_hole_is_no_log() {
    let one = member("n1", [vec![log(1)], entry(1, 1, "1").into()].concat());
    let other = member("n2", [vec![log(1)], entry(1, 2, "2").into()].concat());
    let merged = put_together(&[one, other]).expect("merges");
    assert!(merged.differ[0].contains("n2 holds entry 1 of term 2"), "{merged:?}");
    let late = member("n1", [vec![log(8)], entry(8, 1, "8").into()].concat());
    let merged = put_together(&[late]).expect("merges");
    assert_eq!(merged.log, None);
    assert!(merged.why.expect("says why").contains("before 8"));
}

#[test]
fn a_batch_counts_once_and_an_earlier_boot_not_at_all() {
    let again = |index: u64, boot: u64, number: u64, value: &str| {
        vec![
            json!({"kind": "entry", "index": index, "term": 1, "member": "aa", "its_boot": boot, "number": number}),
            json!({"kind": "command", "index": index, "message": put("r/0", value)}),
        ]
    };
    let facts = [
        vec![log(5)],
        again(1, 1, 1, "1"),
        again(2, 1, 1, "1"),
        again(3, 2, 1, "2"),
        again(4, 1, 2, "old"),
        again(5, 2, 2, "3"),
    ];
    let merged = put_together(&[member("n1", facts.concat())]).expect("merges");
    assert_eq!(values(&merged), ["1", "2", "3"]);
}

#[test]
fn what_left_no_trace_never_happened() {
    let merged = put_together(&[member("n1", [vec![log(1)], entry(1, 1, "7").into()].concat())]).expect("merges");
    let write = |value| {
        Value::Register(mechi_checker::history::value::Register {
            key: 0,
            call: RegisterCall::Write(value),
            seen: None,
        })
    };
    let mut history = History::default();
    for (process, value) in [(0, 7), (1, 8)] {
        history.push(Op::new(process, Kind::Invoke, Process::Client(process), write(value)));
    }
    for (process, value) in [(0, 7), (1, 8)] {
        history.push(Op::new(9, Kind::Info, Process::Client(process), write(value)));
    }
    let (settled, count) = settle(&history, merged.log.as_deref().expect("is whole"));
    assert_eq!((count, settled.ops()[2].kind, settled.ops()[3].kind), (1, Kind::Info, Kind::Fail));
    settled.check().expect("is a history still");
}
