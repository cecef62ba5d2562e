//! The oracle takes every right history for right, with and without the logs, and objects to each that was tampered with.

use super::{Logged, check, check_watched};
use crate::history::store::{Request, Response};
use crate::history::value::Value;
use crate::history::{History, Kind, Op, Process};
use crate::testing::{Rng, Shape, get, key, put, store};
use crate::verdict::Verdict;
use crate::watch::{Event, Received, Stream};
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::KeyValue;

const SMALL: Shape = Shape { operations: 120, clients: 5, keys: 5, unknown_percent: 10, everything: true };

#[test]
fn right_histories_are_right_with_the_logs_and_without() {
    let (mut unknown, mut guessed) = (0, 0);
    for seed in 0..300 {
        let (history, log) = store(seed, &SMALL);
        let replay = check(&history, Some(&log)).unwrap();
        assert_eq!(replay.verdict, Verdict::Valid, "seed {seed}");
        assert_eq!(replay.through, log.last().map_or(1, |last| last.revision));
        assert!(replay.writers.len() >= log.len(), "seed {seed}: {:?}", replay.writers);
        let replay = check(&history, None).unwrap();
        match replay.verdict {
            Verdict::Unknown(_) => unknown += 1,
            verdict => assert_eq!(verdict, Verdict::Valid, "seed {seed}"),
        }
        guessed += usize::from(replay.through > 1);
    }
    assert!(unknown <= 3 && guessed > 290, "{unknown} without an answer, {guessed} replayed");
}

/// Changes one thing that a client heard; says what, or nothing if the operation has nothing to change.
fn tamper(rng: &mut Rng, op: &mut Op) -> Option<&'static str> {
    let Value::Answer(answer) = &mut op.value else { return None };
    match (answer, rng.below(3)) {
        (Response::Range(it), 0) => {
            it.kvs.first_mut()?.value = Bytes::from_static(b"never written");
            Some("a value that nobody wrote")
        }
        (Response::Range(it), 1) => {
            it.kvs.pop()?;
            Some("a key is missing")
        }
        (Response::Range(it), _) => {
            it.count += 1;
            Some("a wrong count")
        }
        (Response::Put(it), 0) => {
            it.header.as_mut()?.revision += 1;
            Some("a wrong revision of a put")
        }
        (Response::Put(it), _) => {
            it.prev_kv.as_mut()?.version += 1;
            Some("a wrong version before a put")
        }
        (Response::DeleteRange(it), _) => {
            it.deleted = 1 - it.deleted;
            Some("a wrong count of deleted keys")
        }
        (Response::Txn(it), _) => {
            it.succeeded = !it.succeeded;
            Some("the wrong branch")
        }
        _ => None,
    }
}

/// Somebody who watches everything.
fn watcher(log: &[Logged]) -> Stream {
    let event = |revision, (key, kv): &(Bytes, Option<KeyValue>)| {
        let gone = KeyValue { key: key.clone(), mod_revision: revision, ..Default::default() };
        Event { delete: kv.is_none(), kv: kv.clone().unwrap_or(gone), prev_kv: None }
    };
    let received = log.iter().map(|logged| {
        let events = logged.changes.iter().map(|change| event(logged.revision, change)).collect();
        (0, Received::Events { revision: logged.revision, fragment: false, events })
    });
    Stream { id: 0, node: "n1".into(), request: Default::default(), received: received.collect(), closed_ns: None }
}

#[test]
fn what_watchers_saw_tells_who_wrote_what_no_answer_names() {
    let mut sure = 0;
    for seed in 0..300 {
        let (history, log) = store(seed, &SMALL);
        let replay = check_watched(&history, None, &[watcher(&log)]).unwrap();
        match replay.verdict {
            Verdict::Unknown(_) => continue,
            verdict => assert_eq!(verdict, Verdict::Valid, "seed {seed}"),
        }
        for logged in log.iter().filter(|logged| logged.revision <= replay.through) {
            let value = |kv: Option<KeyValue>| kv.map(|kv| (kv.value, kv.version));
            let made: Vec<_> = replay.model.changes(logged.revision).map(|it| (it.key, value(it.now))).collect();
            for (key, kv) in &logged.changes {
                let seen = (key.clone(), value(kv.clone()));
                assert!(made.contains(&seen), "seed {seed}, revision {}: {seen:?}, {made:?}", logged.revision);
            }
        }
        sure += 1;
    }
    assert!(sure > 290, "{sure}");
}

#[test]
fn one_wrong_answer_is_found() {
    let mut found = std::collections::BTreeMap::new();
    for seed in 0..800 {
        let mut rng = Rng(seed);
        let (history, log) = store(seed, &Shape { unknown_percent: seed % 2 * 10, ..SMALL });
        let mut ops = history.ops().to_vec();
        let place = rng.below(ops.len() as u64) as usize;
        let Some(what) = tamper(&mut rng, &mut ops[place]) else { continue };
        let history = History::from_ops(ops);
        let with_log = check(&history, Some(&log)).unwrap().verdict;
        assert!(!with_log.findings().is_empty(), "seed {seed}: {what} at {place}");
        if seed % 2 == 0 {
            let without = check(&history, None).unwrap().verdict;
            assert!(!without.findings().is_empty(), "seed {seed}: {what} at {place}, without the log");
        }
        *found.entry(what).or_insert(0) += 1;
    }
    assert!(found.len() == 7 && found.values().sum::<i32>() > 150, "{found:?}");
}

/// Operations one after another, each heard as the model answers.
fn script(requests: &[(Request, Option<Kind>)]) -> History {
    let mut model = crate::model::Model::default();
    let mut history = History::default();
    for ((ask, kind), number) in requests.iter().zip(0..) {
        let process = Process::Client(number);
        history.push(Op::new(number * 10, Kind::Invoke, process, Value::Ask(ask.clone())));
        let answer = model.ask(ask);
        let op = match (kind, answer) {
            (None, Some(Ok(answer))) => Op::new(number * 10 + 5, Kind::Ok, process, Value::Answer(answer)),
            (kind, _) => Op::new(number * 10 + 5, kind.expect("an answer"), process, Value::Ask(ask.clone())),
        };
        history.push(op);
    }
    history
}

fn rules(history: &History) -> Vec<(String, Vec<u64>)> {
    let verdict = check(history, None).unwrap().verdict;
    verdict.findings().iter().map(|finding| (finding.rule.clone(), finding.ops.clone())).collect()
}

#[test]
fn a_refused_write_that_is_read_is_a_dirty_read() {
    let requests = [(put(key(1), "a"), Some(Kind::Fail)), (get(key(1)), None)];
    assert_eq!(rules(&script(&requests)), [("G1a".to_owned(), vec![2, 0])]);
    let unknown = [(put(key(1), "a"), Some(Kind::Info)), (get(key(1)), None)];
    assert_eq!(rules(&script(&unknown)), []);
}

#[test]
fn an_unknown_write_cannot_explain_what_was_seen_before_it_was_asked() {
    let mut ops = script(&[(put(key(1), "a"), Some(Kind::Info)), (get(key(1)), None)]).ops().to_vec();
    // The read, in front.
    ops.rotate_left(2);
    for (op, at) in ops.iter_mut().zip(0..) {
        (op.index, op.time_ns) = (at, at * 10);
    }
    assert_eq!(rules(&History::from_ops(ops)), [("K1".to_owned(), vec![0])]);
}

#[test]
fn a_stale_read_goes_back_in_time() {
    let mut ops = script(&[(put(key(1), "a"), None), (put(key(1), "b"), None), (get(key(1)), None)]).ops().to_vec();
    let old = script(&[(put(key(1), "a"), None), (get(key(1)), None)]);
    ops[5].value = old.ops()[3].value.clone();
    assert_eq!(rules(&History::from_ops(ops)), [("K3".to_owned(), vec![2, 4])]);
}

#[test]
fn compacted_and_future_revisions_are_refused_exactly_then() {
    let at = |revision| Request::Range(pb::RangeRequest { key: key(1), revision, ..Default::default() });
    let compact = |revision| Request::Compaction(pb::CompactionRequest { revision, physical: false });
    let history = |last: Request, answered: bool, error: &str| {
        let (a, b, c) = (put(key(1), "a"), put(key(1), "b"), put(key(1), "c"));
        let mut history = script(&[(a, None), (b, None), (c, None), (compact(3), None)]);
        let before =
            script(&[(put(key(1), "a"), None), (put(key(1), "b"), None), (put(key(1), "c"), None), (at(2), None)]);
        let process = Process::Client(9);
        history.push(Op::new(100, Kind::Invoke, process, Value::Ask(last.clone())));
        let (kind, value) =
            if answered { (Kind::Ok, before.ops()[7].value.clone()) } else { (Kind::Fail, Value::Ask(last)) };
        history.push(Op { error: Some(error.into()), ..Op::new(110, kind, process, value) });
        rules(&history)
    };
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let future = "etcdserver: mvcc: required revision is a future revision";
    let bad = |ops: &[u64]| vec![("K6".to_owned(), ops.to_vec())];
    assert_eq!(history(at(2), true, ""), bad(&[6, 8]));
    assert_eq!(history(at(2), false, compacted), []);
    assert_eq!(history(at(3), false, compacted), bad(&[8]));
    assert_eq!(history(at(5), false, future), []);
    assert_eq!(history(at(4), false, future), bad(&[6, 8]));
    assert_eq!(history(compact(3), false, compacted), []);
    assert_eq!(history(compact(4), false, compacted), bad(&[8]));
}

#[test]
fn what_is_compacted_begins_below_zero() {
    let refused = |revision| {
        let ask = Request::Compaction(pb::CompactionRequest { revision, physical: false });
        let mut history = script(&[(put(key(1), "a"), None)]);
        let process = Process::Client(9);
        history.push(Op::new(100, Kind::Invoke, process, Value::Ask(ask.clone())));
        let error = Some("etcdserver: mvcc: required revision has been compacted".into());
        history.push(Op { error, ..Op::new(110, Kind::Fail, process, Value::Ask(ask)) });
        rules(&history)
    };
    assert_eq!(refused(-1), []);
    assert_eq!(refused(0), [("K6".to_owned(), vec![2])]);
}

#[test]
fn two_writers_of_one_revision_are_named() {
    let mut ops = script(&[(put(key(1), "a"), None), (put(key(2), "b"), None)]).ops().to_vec();
    ops[3].value = ops[1].value.clone();
    let found = rules(&History::from_ops(ops));
    assert!(found.contains(&("K2".to_owned(), vec![0, 2])), "{found:?}");
}

#[test]
fn logs_with_a_change_that_nobody_asked_for_are_caught() {
    let (history, mut log) = store(7, &Shape { unknown_percent: 0, ..SMALL });
    log.last_mut().unwrap().changes.clear();
    let verdict = check(&history, Some(&log)).unwrap().verdict;
    assert!(verdict.findings().iter().any(|finding| finding.rule == "A1"), "{verdict:?}");
}

/// `cargo test --release -p mechi-checker -- --ignored --nocapture million`
#[test]
#[ignore = "a measurement"]
fn a_million_operations() {
    for operations in [2_000, 10_000, 50_000, 1_000_000] {
        let shape = Shape { operations, clients: 20, keys: 2_000, unknown_percent: 1, everything: false };
        let (history, log) = store(1, &shape);
        for log in [Some(&log[..]), None] {
            let start = std::time::Instant::now();
            let replay = check(&history, log).unwrap();
            let took = start.elapsed();
            println!("{operations} operations, log {}: {:?} in {took:?}", log.is_some(), replay.verdict);
        }
    }
}
