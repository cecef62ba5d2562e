//! Histories are written and read as they are, and what breaks a rule is named.

use super::file::{Form, read, write};
use super::store::{Request, Response, header};
use super::value::{Lock, Mop, Read, Register, RegisterCall, Seen, Set, Value};
use super::{History, Kind, Op, Process};
use crate::edn::{Edn, parse_all};
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::KeyValue;
use pb::request_op::Request as AskOp;
use pb::response_op::Response as AnswerOp;

fn text(history: &History, form: Form) -> String {
    let mut out = Vec::new();
    write(history, form, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A history of one process per pair, one after the other.
fn history(pairs: impl IntoIterator<Item = (Value, Kind, Value)>) -> History {
    let mut history = History::default();
    for ((ask, kind, answer), number) in pairs.into_iter().zip(0..) {
        history.push(Op::new(number * 10, Kind::Invoke, Process::Client(number), ask));
        let mut done = Op::new(number * 10 + 5, kind, Process::Client(number), answer);
        (done.node, done.revision, done.raft_term) = (Some("n2".into()), Some(881), Some(4));
        done.error = (kind != Kind::Ok).then(|| "etcdserver: request timed out".into());
        history.push(done);
    }
    history
}

fn register(call: RegisterCall, seen: Option<Seen>) -> Value {
    Value::Register(Register { key: 9, call, seen })
}

fn seen(value: i64) -> Option<Seen> {
    Some(Seen { value: Some(value), version: Some(3), mod_revision: Some(881) })
}

#[test]
fn lines_are_those_of_the_documented_format() {
    let mops = |seen| Value::Txn(vec![Mop::Append { key: 7, element: 12 }, Mop::Read { key: 9, seen }]);
    let mut history = history([(mops(Read::Nil), Kind::Ok, mops(Read::List(vec![1, 4, 5])))]);
    let kill = Value::Other { f: "kill".into(), value: Edn::Map([(Edn::text("n1"), Edn::keyword("killed"))].into()) };
    history.push(Op::new(13, Kind::Info, Process::Nemesis, kill));
    assert_eq!(
        text(&history, Form::Plain),
        "{:index 0, :time 0, :type :invoke, :process 0, :f :txn, :value [[:append 7 12] [:r 9 nil]]}\n\
         {:index 1, :time 5, :type :ok, :process 0, :f :txn, :value [[:append 7 12] [:r 9 [1 4 5]]], :node \"n2\", \
         :revision 881, :raft-term 4}\n\
         {:index 2, :time 13, :type :info, :process :nemesis, :f :kill, :value {\"n1\" :killed}}\n"
    );
}

#[test]
fn registers_are_written_for_one_key_for_tuples_and_with_versions() {
    let history = history([
        (register(RegisterCall::Read, None), Kind::Ok, register(RegisterCall::Read, seen(5))),
        (register(RegisterCall::Cas(5, 6), None), Kind::Ok, register(RegisterCall::Cas(5, 6), seen(6))),
    ]);
    let values = |form| {
        let forms = parse_all(&text(&history, form)).unwrap();
        forms.iter().map(|line| line.get("value").to_string()).collect::<Vec<_>>()
    };
    assert_eq!(values(Form::Plain), ["nil", "5", "[5 6]", "[5 6]"]);
    assert_eq!(values(Form::Tuples), ["[9 nil]", "[9 5]", "[9 [5 6]]", "[9 [5 6]]"]);
    assert_eq!(values(Form::Versioned), ["[nil nil]", "[3 5]", "[nil [5 6]]", "[3 [5 6]]"]);
    assert_eq!(history.registers()[&9], history);
}

/// A transaction with everything that a request can have.
fn whole_txn() -> (Request, Response) {
    let op = |request| pb::RequestOp { request: Some(request) };
    let range = pb::RangeRequest {
        key: Bytes::from_static(b"\xff\x00"),
        range_end: Bytes::from_static(&[0]),
        limit: 3,
        revision: 9,
        sort_order: 2,
        sort_target: 4,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 1,
        max_mod_revision: 2,
        min_create_revision: 3,
        max_create_revision: 4,
    };
    let put = pb::PutRequest {
        key: "k".into(),
        value: "\"v\"".into(),
        lease: 7,
        prev_kv: true,
        ignore_value: true,
        ignore_lease: true,
    };
    let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true };
    let compare = pb::Compare {
        result: 3,
        target: 3,
        key: "k".into(),
        range_end: "l".into(),
        target_union: Some(pb::compare::TargetUnion::Value("x".into())),
    };
    let nested = pb::TxnRequest { compare: vec![], success: vec![], failure: vec![op(AskOp::RequestRange(range))] };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(AskOp::RequestPut(put)), op(AskOp::RequestTxn(nested)), pb::RequestOp { request: None }],
        failure: vec![op(AskOp::RequestDeleteRange(delete))],
    };
    let kv =
        KeyValue { key: "k".into(), value: Bytes::new(), create_revision: 1, mod_revision: 2, version: 3, lease: 4 };
    let op = |response| pb::ResponseOp { response: Some(response) };
    let range = pb::RangeResponse { header: header(5), kvs: vec![kv.clone()], more: true, count: 6 };
    let put = pb::PutResponse { header: header(5), prev_kv: Some(kv.clone()) };
    let delete = pb::DeleteRangeResponse { header: None, deleted: 1, prev_kvs: vec![kv] };
    let nested =
        pb::TxnResponse { header: None, succeeded: false, responses: vec![op(AnswerOp::ResponseRange(range))] };
    let responses = vec![
        op(AnswerOp::ResponsePut(put)),
        op(AnswerOp::ResponseTxn(nested)),
        op(AnswerOp::ResponseDeleteRange(delete)),
        pb::ResponseOp { response: None },
    ];
    (Request::Txn(txn), Response::Txn(pb::TxnResponse { header: header(5), succeeded: true, responses }))
}

#[test]
fn every_kind_of_operation_is_read_as_it_was_written() {
    let (ask, answer) = whole_txn();
    let ttl = pb::LeaseTimeToLiveRequest { id: 4, keys: true };
    let lives =
        pb::LeaseTimeToLiveResponse { header: header(8), id: 4, ttl: -1, granted_ttl: 10, keys: vec!["k".into()] };
    let grant = Request::LeaseGrant(pb::LeaseGrantRequest { id: 4, ttl: 10 });
    let lock = |fence: Option<i64>| Value::Lock(Lock::Acquire { name: "l".into(), fence, until_ns: fence.map(|_| 7) });
    let compact = Request::Compaction(pb::CompactionRequest { revision: 8, physical: true });
    let stores = history([
        (register(RegisterCall::Write(5), None), Kind::Ok, register(RegisterCall::Write(5), seen(5))),
        (register(RegisterCall::Cas(1, 2), None), Kind::Fail, register(RegisterCall::Cas(1, 2), None)),
        (
            Value::Txn(vec![Mop::Write { key: 1, value: 2 }]),
            Kind::Info,
            Value::Txn(vec![Mop::Write { key: 1, value: 2 }]),
        ),
        (Value::Ask(ask), Kind::Ok, Value::Answer(answer)),
        (Value::Ask(Request::LeaseTimeToLive(ttl)), Kind::Ok, Value::Answer(Response::LeaseTimeToLive(lives))),
        (Value::Ask(grant.clone()), Kind::Fail, Value::Ask(grant)),
        (Value::Ask(compact), Kind::Info, Value::Other { f: "compact".into(), value: Edn::Nil }),
        (lock(None), Kind::Ok, lock(Some(6))),
    ]);
    let set = history([
        (Value::Set(Set::Add(4)), Kind::Ok, Value::Set(Set::Add(4))),
        (Value::Set(Set::Read(None)), Kind::Ok, Value::Set(Set::Read(Some([4].into())))),
    ]);
    for history in [stores, set] {
        assert_eq!(read(text(&history, Form::Plain).as_bytes()).unwrap(), history);
    }
}

#[test]
fn what_is_no_history_is_refused() {
    let line = |index: u64, time: u64, kind: &str, process: &str, f: &str| {
        format!("{{:index {index}, :time {time}, :type :{kind}, :process {process}, :f :{f}, :value 1}}\n")
    };
    let begin = line(0, 5, "invoke", "3", "write");
    let cases = [
        (begin.clone(), "operation 0: has no completion"),
        (line(1, 0, "invoke", "3", "write"), "operation 1: stands at 0"),
        (begin.clone() + &line(1, 4, "ok", "3", "write"), "operation 1: happens at 4, the one before it at 5"),
        (begin.clone() + &line(1, 6, "invoke", "3", "write"), "operation 1: client 3 has operation 0 open"),
        (begin.clone() + &line(1, 6, "ok", "3", "read"), "operation 1: read completes operation 0, a write"),
        (line(0, 5, "ok", "3", "write"), "operation 0: completes nothing: client 3 has no operation open"),
        (
            begin.clone() + &line(1, 6, "info", "3", "write") + &line(2, 7, "invoke", "3", "write"),
            "operation 2: client 3 acts after an unknown outcome",
        ),
        (line(0, 5, "ok", ":nemesis", "kill"), "operation 0: the nemesis says Ok, wanted :info"),
        (line(0, 5, "maybe", "3", "write"), "operation 0: :type is :maybe"),
        (line(0, 5, "invoke", "3", "txn"), "operation 0: 1 is no transaction"),
    ];
    for (text, wanted) in cases {
        assert_eq!(read(text.as_bytes()).unwrap_err().to_string(), wanted, "{text}");
    }
}

#[test]
fn an_open_operation_is_closed_as_unknown() {
    let mut history = History::default();
    history.push(Op::new(1, Kind::Invoke, Process::Client(2), register(RegisterCall::Read, None)));
    assert!(history.check().is_err());
    history.close(9);
    assert_eq!(history.check(), Ok(()));
    let pairs = history.pairs().unwrap();
    assert_eq!((pairs[0].done.kind, pairs[0].returned_ns()), (Kind::Info, u64::MAX));
}
