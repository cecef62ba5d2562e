//! A member that ends in the middle of a compaction: the newest state is whole, the revision does not go back, and what
//! was compacted stays compacted.

use crate::rig::{arm, program, stores_of_another_boot};
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::{Client, revision};
use mechi_tests::process::{Kind, Server};
use std::time::Duration;

pub(crate) const SITES: &[&str] =
    &["compact_after_mark", "compact_mid_batch", "compact_after_batch_before_finish", "compact_after_finish"];

/// A store that is in use, so that compaction has something to take out of it.
const FLAGS: [&str; 1] = ["--store-flush-interval=50ms"];

/// Rounds of each place.
const ROUNDS: usize = 3;

/// Keys of one round: more than the keeper sweeps in one slice.
const KEYS: usize = 1_200;

/// Keys of one txn; etcd allows 128 operations.
const TXN_KEYS: usize = 100;

/// Ten times the age at which changes are flushed: what a sweep finds that never was in the store need not leave it.
const FLUSHED: Duration = Duration::from_millis(500);

/// How long the end may take.
const SOON: Duration = Duration::from_secs(90);

/// What the client knows.
#[derive(Default)]
struct Known {
    newest: i64,
    compacted: i64,
    /// What the last txn of each round left: keys of even numbers, with this value.
    round: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_ends_in_a_compaction_neither_forgets_nor_undoes_it() {
    let home = tempfile::tempdir().expect("a folder");
    let mut server = Server::at(Kind::Mechi, home.path(), &FLAGS);
    server.program = Some(program());
    server.spawn().expect("it starts");
    let mut known = Known::default();
    for round in 1..=ROUNDS * SITES.len() {
        let site = SITES[round % SITES.len()];
        let mut client = Client::connect(&server.endpoint()).await.expect("answers");
        change(&mut client, &mut known, round).await;
        arm(&server, site, "panic");
        let request = pb::CompactionRequest { revision: known.newest, physical: round % 2 == 0 };
        let compaction = client.kv.compact(request).await;
        let status = tokio::task::block_in_place(|| server.wait_exit(SOON)).unwrap_or_else(|e| panic!("{site}: {e}"));
        assert_eq!(status.code(), Some(70), "{site}: {}", server.log());
        assert!(server.log().contains(&format!("failpoint {site} panic")), "{site}: {}", server.log());
        if compaction.is_ok() {
            known.compacted = known.newest;
        }
        server.spawn().expect("it serves again");
        let with_store = check(&server.endpoint(), &mut known, site).await;
        if round % 3 == 0 {
            // Snapshot and log alone say the same as the store that went through it.
            server.kill().expect("it runs");
            assert!(stores_of_another_boot(&server) <= 1);
            server.spawn().expect("it serves from snapshot and log");
            assert_eq!(check(&server.endpoint(), &mut known, site).await, with_store, "{site}");
        }
    }
    println!("compaction: {} ends at {} places, revision {}", ROUNDS * SITES.len(), SITES.len(), known.newest);
}

/// Puts all keys, puts them again, and deletes every other one; the newest revision is of tombstones.
async fn change(client: &mut Client, known: &mut Known, round: usize) {
    use pb::request_op::Request::{RequestDeleteRange, RequestPut};
    let key = |n: usize| Bytes::from(format!("key/{n:05}"));
    let keys: Vec<usize> = (0..KEYS).collect();
    for value in ["old".to_owned(), round.to_string()] {
        let put = |n: &usize| pb::PutRequest { key: key(*n), value: value.clone().into(), ..Default::default() };
        for some in keys.chunks(TXN_KEYS) {
            known.newest = txn(client, some.iter().map(|n| RequestPut(put(n)))).await;
        }
    }
    let odd: Vec<usize> = (1..KEYS).step_by(2).collect();
    for some in odd.chunks(TXN_KEYS) {
        let delete = |n: &usize| pb::DeleteRangeRequest { key: key(*n), ..Default::default() };
        known.newest = txn(client, some.iter().map(|n| RequestDeleteRange(delete(n)))).await;
    }
    known.round = round;
    tokio::time::sleep(FLUSHED).await;
}

async fn txn(client: &mut Client, ops: impl Iterator<Item = pb::request_op::Request>) -> i64 {
    let success = ops.map(|op| pb::RequestOp { request: Some(op) }).collect();
    let txn = pb::TxnRequest { success, ..Default::default() };
    revision(client.kv.txn(txn).await.expect("changes").into_inner().header)
}

/// Checks what must hold, and returns what else two ways to the same state must agree about.
async fn check(endpoint: &str, known: &mut Known, site: &str) -> (i64, u32) {
    let mut client = Client::connect(endpoint).await.expect("answers");
    let all = client.all().await.expect("reads");
    assert_eq!(revision(all.header), known.newest, "{site}: the revision");
    let found: Vec<_> =
        all.kvs.iter().map(|kv| (String::from_utf8_lossy(&kv.key).into_owned(), kv.value.clone())).collect();
    let value = Bytes::from(known.round.to_string());
    let wanted: Vec<_> = (0..KEYS).step_by(2).map(|n| (format!("key/{n:05}"), value.clone())).collect();
    assert!(found == wanted, "{site}: {} keys, {} wanted", found.len(), wanted.len());
    // A compaction without an answer may have been done or not; one that was answered has been.
    let old = pb::RangeRequest { key: "key/00000".into(), revision: known.newest - 1, ..Default::default() };
    match client.kv.range(old).await {
        Ok(answer) => {
            assert!(known.compacted < known.newest, "{site}: an acknowledged compaction is gone");
            assert_eq!(answer.into_inner().kvs[0].value, value, "{site}: a read of the past");
        }
        Err(status) => {
            assert!(status.message().contains("required revision has been compacted"), "{site}: {status}");
            known.compacted = known.newest;
        }
    }
    // Of now: the hash of a compaction is another one where the compaction was replayed than where it had been before (as
    // with etcd).
    let hash = pb::HashKvRequest { revision: 0 };
    let hash = client.maintenance.hash_kv(hash).await.expect("hashes").into_inner();
    (hash.compact_revision, hash.hash)
}
