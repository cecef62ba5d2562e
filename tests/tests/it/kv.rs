//! Ranges as a client sees them: streams, large lists, pages at a pinned revision, and what compaction does to them.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::{Client, revision};
use mechi_tests::process::{Kind, Server};
use mechi_tests::wire::{self, put_all, span, until};
use pb::range_request::{SortOrder, SortTarget};
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpStream;
use tonic::Code;

fn range(prefix: &str) -> pb::RangeRequest {
    let (key, range_end) = span(prefix);
    pb::RangeRequest { key, range_end, ..Default::default() }
}

fn key(n: usize) -> String {
    format!("k/{n:06}")
}

async fn fill(client: &mut Client, keys: usize, value: &'static [u8]) -> i64 {
    put_all(client, (0..keys).map(|n| (key(n), Bytes::from_static(value)))).await.expect("puts")
}

async fn list(client: &mut Client, request: pb::RangeRequest) -> pb::RangeResponse {
    client.kv.range(request).await.expect("a list").into_inner()
}

/// Reads a stream to its end and checks that only the last chunk says what concerns all of them.
async fn stream(client: &mut Client, request: pb::RangeRequest) -> (pb::RangeResponse, usize) {
    let mut chunks = client.kv.range_stream(request).await.expect("a stream").into_inner();
    let (mut whole, mut count) = (pb::RangeResponse::default(), 0);
    while let Some(chunk) = chunks.message().await.expect("the stream is well") {
        let chunk = chunk.range_response.expect("every message holds a chunk");
        assert!(whole.header.is_none(), "a chunk came after the last");
        count += 1;
        assert!(chunk.header.is_some() || (chunk.count == 0 && !chunk.more), "only the last chunk counts");
        whole.kvs.extend(chunk.kvs);
        (whole.header, whole.more, whole.count) = (chunk.header, chunk.more, chunk.count);
    }
    assert!(whole.header.is_some(), "the last chunk has the header");
    (whole, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_stream_says_what_a_range_says() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = Client::connect(&server.endpoint()).await.expect("answers");
    let old = fill(&mut client, 6_000, &[b'1'; 700]).await;
    fill(&mut client, 3_000, &[b'2'; 900]).await;
    let base = range("k/");
    let requests = [
        base.clone(),
        pb::RangeRequest { revision: old, ..base.clone() },
        pb::RangeRequest { limit: 4_500, ..base.clone() },
        pb::RangeRequest { limit: 7, ..base.clone() },
        pb::RangeRequest { keys_only: true, ..base.clone() },
        pb::RangeRequest { count_only: true, ..base.clone() },
        pb::RangeRequest { serializable: true, limit: 11, revision: old, ..base.clone() },
        pb::RangeRequest { sort_order: SortOrder::Ascend as i32, ..base.clone() },
        range("nothing"),
        pb::RangeRequest { key: key(5).into(), ..Default::default() },
    ];
    for request in requests {
        let (streamed, chunks) = stream(&mut client, request.clone()).await;
        let whole = list(&mut client, request.clone()).await;
        assert_eq!(streamed, whole, "{request:?}");
        assert!(whole.kvs.len() <= 10 || chunks > 1, "{} keys came in one chunk", whole.kvs.len());
    }
    for (request, code, text) in [
        (
            pb::RangeRequest { sort_target: SortTarget::Mod as i32, sort_order: SortOrder::Ascend as i32, ..base.clone() },
            Code::Unimplemented,
            "RangeStream does not support custom sort orders",
        ),
        (
            pb::RangeRequest { min_mod_revision: 3, ..base.clone() },
            Code::Unimplemented,
            "RangeStream does not support revision filters",
        ),
        (pb::RangeRequest::default(), Code::InvalidArgument, "etcdserver: key is not provided"),
        (
            pb::RangeRequest { revision: 1 << 40, ..base.clone() },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
    ] {
        let refused = client.kv.range_stream(request).await.expect_err("refused");
        assert_eq!((refused.code(), refused.message()), (code, text));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_lists_are_etcds() {
    let servers = [Kind::Mechi, Kind::Etcd].map(|kind| Server::start(kind, &[]).expect("starts"));
    let mut answers = Vec::new();
    for server in &servers {
        let mut client = Client::connect(&server.endpoint()).await.expect("answers");
        let old = fill(&mut client, 4_000, &[b'1'; 1_000]).await;
        let newest = fill(&mut client, 2_000, &[b'2'; 1_500]).await;
        let doomed = pb::DeleteRangeRequest { key: key(100).into(), range_end: key(200).into(), prev_kv: true };
        let deleted = client.kv.delete_range(doomed).await.expect("deletes").into_inner();
        assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (100, 100));
        let base = range("k/");
        let mut lists = Vec::new();
        for request in [
            base.clone(),
            pb::RangeRequest { revision: old, ..base.clone() },
            pb::RangeRequest { revision: old, limit: 1_777, ..base.clone() },
            pb::RangeRequest { limit: 2_500, ..base.clone() },
            pb::RangeRequest { limit: 1_500, revision: newest, ..base.clone() },
            pb::RangeRequest { keys_only: true, ..base.clone() },
            pb::RangeRequest { keys_only: true, limit: 3_000, revision: old, ..base.clone() },
            pb::RangeRequest { sort_order: SortOrder::Descend as i32, limit: 2_000, ..base.clone() },
            pb::RangeRequest {
                sort_order: SortOrder::Ascend as i32,
                sort_target: SortTarget::Value as i32,
                ..base.clone()
            },
            pb::RangeRequest { max_mod_revision: old, limit: 1_500, ..base.clone() },
        ] {
            let mut list = list(&mut client, request).await;
            list.header = list.header.map(|header| pb::ResponseHeader { revision: header.revision, ..Default::default() });
            lists.push(list);
        }
        answers.push(lists);
    }
    for (n, (mine, real)) in answers[0].iter().zip(&answers[1]).enumerate() {
        assert_eq!((mine.count, mine.more, mine.kvs.len()), (real.count, real.more, real.kvs.len()), "list {n}");
        assert!(mine == real, "list {n} differs from etcd's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_under_way_survives_the_compaction_of_its_revision() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = Client::connect(&server.endpoint()).await.expect("answers");
    let old = fill(&mut client, 5_000, &[b'1'; 1_000]).await;
    let request = pb::RangeRequest { revision: old, ..range("k/") };
    let tcp = TcpStream::connect(server.endpoint()).await.expect("connects");
    let body = wire::frame(&request.encode_to_vec(), false);
    // The answer waits in the server: this connection gives it no window until it is read.
    let answer = wire::call(tcp, "/etcdserverpb.KV/Range", &[], body).await.expect("begins");
    let (key, range_end) = span("k/");
    let gone = client.kv.delete_range(pb::DeleteRangeRequest { key, range_end, prev_kv: false }).await.expect("deletes");
    let now = revision(gone.into_inner().header);
    client.kv.compact(pb::CompactionRequest { revision: now, physical: true }).await.expect("compacts");
    let refused = client.kv.range(request).await.expect_err("new reads see the compaction at once");
    assert_eq!(refused.message(), "etcdserver: mvcc: required revision has been compacted");
    let list = pb::RangeResponse::decode(wire::finish(answer).await.expect("ends well")).expect("is a list");
    assert_eq!((list.kvs.len(), list.count, list.more), (5_000, 5_000, false));
    assert!(list.kvs.iter().all(|kv| kv.value.len() == 1_000 && kv.mod_revision <= old));
}

/// What a Kubernetes API server does: pages at the first page's revision while others write.
#[tokio::test(flavor = "multi_thread")]
async fn pages_at_a_pinned_revision_count_exactly_while_writers_run() {
    const KEYS: usize = 20_000;
    const PAGE: i64 = 500;
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = Client::connect(&server.endpoint()).await.expect("answers");
    fill(&mut client, KEYS, b"first").await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (stop, endpoint) = (stop.clone(), server.endpoint());
            tokio::spawn(async move {
                let mut client = Client::connect(&endpoint).await.expect("answers");
                let mut n = writer;
                while !stop.load(Ordering::Relaxed) {
                    n = (n + 7) % (2 * KEYS);
                    if n % 3 == 0 {
                        let gone = pb::DeleteRangeRequest { key: key(n).into(), ..Default::default() };
                        client.kv.delete_range(gone).await.expect("deletes");
                    } else {
                        client.put(key(n), "later").await.expect("puts");
                    }
                }
            })
        })
        .collect();
    let mut keys = 0;
    for round in 0..3 {
        let mut pinned = 0;
        let (mut from, range_end) = span("k/");
        let (mut seen, mut count) = (0, 0);
        loop {
            let request = pb::RangeRequest {
                key: from,
                range_end: range_end.clone(),
                limit: PAGE,
                revision: pinned,
                ..Default::default()
            };
            let page = list(&mut client, request).await;
            if pinned == 0 {
                (pinned, count) = (revision(page.header), page.count);
            }
            assert_eq!(page.count, count - seen, "page after {seen} of {count} keys at {pinned}, round {round}");
            assert_eq!(page.more, page.count > PAGE);
            assert_eq!(page.kvs.len() as i64, page.count.min(PAGE));
            assert!(page.kvs.iter().all(|kv| kv.mod_revision <= pinned));
            seen += page.kvs.len() as i64;
            let Some(last) = page.kvs.last().filter(|_| page.more) else { break };
            from = [&last.key[..], &[0]].concat().into();
        }
        assert_eq!(seen, count);
        keys = count;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("no panic");
    }
    assert!(keys > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_physical_compaction_frees_what_it_took() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = Client::connect(&server.endpoint()).await.expect("answers");
    let mut last = 0;
    for _ in 0..10 {
        last = fill(&mut client, 500, &[b'v'; 1_000]).await;
    }
    let size = async |client: &mut Client| {
        let status = client.maintenance.status(pb::StatusRequest {}).await.expect("status").into_inner();
        (status.db_size, status.db_size_in_use)
    };
    let (before, _) = size(&mut client).await;
    assert!(before > 5_000_000, "{before}");
    client.kv.compact(pb::CompactionRequest { revision: last, physical: true }).await.expect("compacts");
    let (after, in_use) = size(&mut client).await;
    assert!(after < 1_000_000 && in_use <= after, "{before} bytes became {after}, {in_use} in use");
    assert_eq!(list(&mut client, range("k/")).await.kvs.len(), 500);
    let again = client.kv.compact(pb::CompactionRequest { revision: last, physical: true }).await.expect_err("done");
    assert_eq!(again.message(), "etcdserver: mvcc: required revision has been compacted");
}

/// `--auto-compaction-mode`: by revisions, and by time.
#[tokio::test(flavor = "multi_thread")]
async fn old_revisions_are_compacted_by_the_server_itself() {
    for (flags, kept) in [
        (
            &["--auto-compaction-mode=revision", "--auto-compaction-retention=10", "--auto-compaction-revision-interval=50ms"][..],
            10,
        ),
        (&["--auto-compaction-mode=periodic", "--auto-compaction-retention=1s"][..], 0),
    ] {
        let server = Server::start(Kind::Mechi, flags).expect("mechi starts");
        let mut client = Client::connect(&server.endpoint()).await.expect("answers");
        let mut last = 0;
        for n in 0..30 {
            last = client.put(key(0), n.to_string()).await.expect("puts");
        }
        let wanted = last - kept;
        until("the compaction", async || {
            let compacted = wire::metric(&server.endpoint(), "etcd_debugging_mvcc_compact_revision")?;
            (compacted >= wanted as f64).then_some(())
        })
        .await;
        let at = |revision| pb::RangeRequest { key: key(0).into(), revision, ..Default::default() };
        client.kv.range(at(wanted - 1)).await.expect_err("compacted");
        client.kv.range(at(last)).await.expect("kept");
        if kept > 0 {
            client.kv.range(at(wanted)).await.expect("kept");
        }
    }
}
