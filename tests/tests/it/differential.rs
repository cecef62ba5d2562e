//! The same random history against Mechi and against a real etcd 3.5.1, answer by answer.
//!
//! Where etcd's own versions differ, [`explained`] names the version and the reason; anything else fails, with the
//! seed and the number of the operation.

use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::generate::{self, Known, Op};
use mechi_tests::process::{Kind, Server};
use mechi_tests::rng::Rng;
use mechi_tests::run::{Answer, run};
use std::collections::BTreeMap;

const SEEDS: u64 = 4;
const OPS: usize = 2_500;

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_etcds_operation_by_operation() {
    let seeds = std::env::var("MECHI_DIFF_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let mut explained_by = BTreeMap::<&str, usize>::new();
    let (mut total, mut refused) = (0, 0);
    for seed in 1..=seeds {
        let mechi = Server::start(Kind::Mechi, &[]).expect("mechi starts");
        let etcd = Server::start(Kind::Etcd, &[]).expect("etcd starts");
        let mut ours = Client::connect(&mechi.endpoint()).await.expect("mechi answers");
        let mut theirs = Client::connect(&etcd.endpoint()).await.expect("etcd answers");
        let mut rng = Rng::new(seed);
        let mut known = Known { revision: 1, compacted: 0 };
        for n in 0..OPS {
            let op = generate::op(&mut rng, known);
            let (mine, real) = (run(&mut ours, &op).await, run(&mut theirs, &op).await);
            if mine != real {
                match explained(&op, &mine, &real, known) {
                    Some(reason) => *explained_by.entry(reason).or_default() += 1,
                    None => panic!("seed {seed}, operation {n}: {op:#?}\nmechi: {mine:#?}\netcd:  {real:#?}"),
                }
            }
            total += 1;
            refused += usize::from(matches!(real, Answer::Refused(..)));
            real.teach(&op, &mut known);
        }
        compare_watches(&mut ours, &mut theirs, known).await;
    }
    println!("differential: {seeds} seeds, {total} operations, {refused} of them refused by both");
    for (reason, times) in explained_by {
        println!("differential: {times} times: {reason}");
    }
    assert!(total > 0 && refused * 2 < total, "most operations must do something");
}

/// The table of known differences; each names the etcd version that behaves as Mechi does.
fn explained(op: &Op, mine: &Answer, real: &Answer, known: Known) -> Option<&'static str> {
    match (op, mine, real) {
        (Op::Range(request), Answer::Range(mine), Answer::Range(real)) if request.keys_only => {
            let mut without_lease = real.clone();
            without_lease.kvs.iter_mut().for_each(|kv| kv.lease = 0);
            (*mine == without_lease).then_some("etcd 3.7 answers keys_only from its index, without the lease")
        }
        (Op::Txn(_), Answer::Txn(mine), Answer::Txn(real)) => {
            let mut real = real.clone();
            forget_keys_only_leases(&mut real);
            let mut mine = mine.clone();
            forget_keys_only_leases(&mut mine);
            (mine == real).then_some("etcd 3.7 answers keys_only from its index, without the lease")
        }
        (Op::HashKv(_), Answer::HashKv(_), Answer::HashKv(_)) if known.compacted > 0 => Some(
            "etcd 3.5.16 and later keep the tombstone at the compact revision, and answer HashKV of that revision \
             with the hash stored by the compaction",
        ),
        _ => None,
    }
}

/// A key-value without a value may come from a keys_only range: its lease is not compared.
fn forget_keys_only_leases(txn: &mut pb::TxnResponse) {
    for response in &mut txn.responses {
        match &mut response.response {
            Some(pb::response_op::Response::ResponseRange(range)) => {
                range.kvs.iter_mut().filter(|kv| kv.value.is_empty()).for_each(|kv| kv.lease = 0);
            }
            Some(pb::response_op::Response::ResponseTxn(txn)) => forget_keys_only_leases(txn),
            _ => {}
        }
    }
}

/// All events since the last compaction, with their predecessors, in the same order and cut at the same revisions.
async fn compare_watches(ours: &mut Client, theirs: &mut Client, known: Known) {
    let start = known.compacted + 1;
    let (mine, real) = (history(ours, start, known.revision).await, history(theirs, start, known.revision).await);
    assert_eq!(mine.len(), real.len(), "events from revision {start} to {}", known.revision);
    for (mine, real) in mine.iter().zip(&real) {
        assert_eq!(mine, real);
    }
}

async fn history(client: &mut Client, start: i64, end: i64) -> Vec<mechi_proto::mvccpb::Event> {
    let zero = bytes::Bytes::from_static(&[0]);
    let create = pb::WatchCreateRequest {
        key: zero.clone(),
        range_end: zero,
        start_revision: start,
        prev_kv: true,
        ..Default::default()
    };
    let request = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    tx.send(request).await.expect("the stream is open");
    let requests = tokio_stream::wrappers::ReceiverStream::new(rx);
    let mut responses = client.watch.watch(requests).await.expect("the watch opens").into_inner();
    let mut events = Vec::new();
    let mut seen = start - 1;
    while seen < end {
        let response = responses.message().await.expect("the stream lives").expect("the stream goes on");
        assert!(!response.canceled, "canceled at {seen}: {response:?}");
        for event in response.events {
            let revision = event.kv.as_ref().map(|kv| kv.mod_revision).unwrap_or_default();
            assert!(revision >= seen, "revision {revision} after {seen}");
            seen = revision;
            events.push(event);
        }
        // The last revision may have changed nothing that lives on: then the history ends before `end`.
        if seen >= end - 1 && events.is_empty() {
            break;
        }
    }
    drop(tx);
    events
}
