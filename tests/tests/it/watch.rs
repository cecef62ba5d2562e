//! Watches over the wire: what etcd sends for the same history, many and slow watchers, and the order of progress.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb;
use mechi_tests::client::{Client, revision};
use mechi_tests::process::{Kind, Server};
use mechi_tests::watching;
use mechi_tests::wire::{SOON, Watching, call, counts, create, frame, metric, prefix, put_all, put_op, span};
use pb::watch_create_request::FilterType;
use pb::watch_request::RequestUnion;
use prost::Message;
use std::collections::BTreeMap;
use tokio::net::TcpStream;
use tonic::Code;

async fn connect(server: &Server) -> Client {
    Client::connect(&server.endpoint()).await.expect("answers")
}

/// Two puts, a delete, a txn of three, and a key that is deleted at revision 7; compacted at 3.
async fn history(client: &mut Client) {
    client.put("w/a", "1").await.expect("puts");
    client.put("w/a", "2").await.expect("puts");
    client.kv.delete_range(pb::DeleteRangeRequest { key: "w/a".into(), ..Default::default() }).await.expect("deletes");
    let success = vec![put_op("w/b", "1"), put_op("w/c", "1"), put_op("w/d", "1")];
    client.kv.txn(pb::TxnRequest { success, ..Default::default() }).await.expect("puts");
    client.put("w/b", "2").await.expect("puts");
    let (key, range_end) = span("w/");
    client.kv.delete_range(pb::DeleteRangeRequest { key, range_end, prev_kv: false }).await.expect("deletes");
    client.put("w/e", "1").await.expect("puts");
    client.kv.compact(pb::CompactionRequest { revision: 3, physical: false }).await.expect("compacts");
}

/// What a watch says: control responses as they come, events joined, since servers batch revisions differently.
#[derive(Debug, Default, PartialEq)]
struct Said {
    controls: Vec<(bool, bool, i64, i64, String)>,
    events: Vec<mvccpb::Event>,
}

impl Said {
    fn take(&mut self, response: pb::WatchResponse) {
        if response.events.is_empty() {
            let pb::WatchResponse { created, canceled, compact_revision, watch_id, cancel_reason, .. } = response;
            self.controls.push((created, canceled, compact_revision, watch_id, cancel_reason));
        } else {
            self.events.extend(response.events);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_say_what_etcds_say() {
    let servers = [Kind::Mechi, Kind::Etcd].map(|kind| Server::start(kind, &[]).expect("starts"));
    let mut mine = connect(&servers[0]).await;
    let mut theirs = connect(&servers[1]).await;
    history(&mut mine).await;
    history(&mut theirs).await;
    let all = || prefix("w/");
    let cases = [
        all(),
        pb::WatchCreateRequest { start_revision: 4, ..all() },
        pb::WatchCreateRequest { start_revision: 3, prev_kv: true, ..all() },
        pb::WatchCreateRequest { start_revision: 5, prev_kv: true, ..all() },
        pb::WatchCreateRequest { start_revision: 4, filters: vec![FilterType::Noput as i32], ..all() },
        pb::WatchCreateRequest {
            start_revision: 4,
            filters: vec![FilterType::Nodelete as i32],
            prev_kv: true,
            ..all()
        },
        pb::WatchCreateRequest { start_revision: 4, filters: vec![0, 1], ..all() },
        pb::WatchCreateRequest { start_revision: 2, ..all() },
        pb::WatchCreateRequest { start_revision: 1 << 40, ..all() },
        pb::WatchCreateRequest { start_revision: 4, watch_id: 77, fragment: true, ..all() },
        pb::WatchCreateRequest { key: "w/b".into(), start_revision: 4, ..Default::default() },
        pb::WatchCreateRequest { key: "z".into(), range_end: "a".into(), ..Default::default() },
        pb::WatchCreateRequest { key: "a".into(), range_end: "a".into(), ..Default::default() },
        pb::WatchCreateRequest { start_revision: 4, ..Default::default() },
        pb::WatchCreateRequest {
            key: "w/c".into(),
            range_end: vec![0].into(),
            start_revision: 4,
            ..Default::default()
        },
    ];
    for case in cases {
        // Mechi answers a progress request after everything else; etcd 3.5.1 may answer it before, so that from it
        // only as much is read as Mechi has said.
        let mut watching = Watching::open(&mut mine, case.clone()).await.expect("opens");
        watching.ask_progress().await;
        let mut ours = Said::default();
        loop {
            let response = watching.next().await;
            let progress = response.watch_id == -1 && !response.canceled;
            if progress {
                break;
            }
            let ended = response.canceled;
            ours.take(response);
            // A future watch holds the answer to a progress request back until it is reached.
            if ended || case.start_revision > 1_000 {
                break;
            }
        }
        let mut watching = Watching::open(&mut theirs, case.clone()).await.expect("opens");
        let mut real = Said::default();
        while real.events.len() < ours.events.len() || real.controls.len() < ours.controls.len() {
            let response = watching.next().await;
            real.take(response);
        }
        assert_eq!(ours, real, "{case:?}");
    }
}

/// etcd 3.5.1 takes a negative start for none; 3.6 and later refuse it as compacted.
#[tokio::test(flavor = "multi_thread")]
async fn a_negative_start_is_compacted() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    let request = pb::WatchCreateRequest { start_revision: -1, ..prefix("w/") };
    let refused = Watching::open(&mut client, request).await.expect("opens").next().await;
    assert_eq!((refused.created, refused.canceled, refused.watch_id), (true, true, -1));
    assert_eq!(refused.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
}

/// etcd 18089 and 19179: a deletion at the compacted revision itself is still told to a watch from there.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_at_the_compacted_revision_is_told() {
    let mut server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    client.put("e/a", "1").await.expect("puts");
    client.kv.delete_range(pb::DeleteRangeRequest { key: "e/a".into(), ..Default::default() }).await.expect("deletes");
    client.put("e/b", "1").await.expect("puts");
    client.kv.compact(pb::CompactionRequest { revision: 3, physical: true }).await.expect("compacts");
    for restart in [false, true] {
        if restart {
            server.kill().expect("kills");
            server.spawn().expect("starts again");
        }
        let mut client = connect(&server).await;
        let request = pb::WatchCreateRequest { start_revision: 3, prev_kv: true, ..prefix("e/") };
        let events = Watching::on(&mut client, request).await.events(2).await;
        let told = |event: &mvccpb::Event| {
            let kv = event.kv.clone().expect("a kv");
            (event.r#type, kv.key, kv.mod_revision, event.prev_kv.is_some())
        };
        let told: Vec<_> = events.iter().map(told).collect();
        assert_eq!(told, [(1, "e/a".into(), 3, false), (0, "e/b".into(), 4, false)], "restarted: {restart}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_cancels_and_duplicates_are_etcds() {
    let mut said = Vec::new();
    for kind in [Kind::Mechi, Kind::Etcd] {
        let server = Server::start(kind, &[]).expect("starts");
        let mut client = connect(&server).await;
        let mut watching = Watching::on(&mut client, prefix("a")).await;
        let mut controls = Vec::new();
        for request in [
            RequestUnion::CreateRequest(pb::WatchCreateRequest { watch_id: 2, ..prefix("b") }),
            RequestUnion::CreateRequest(prefix("c")),
            RequestUnion::CreateRequest(prefix("d")),
            RequestUnion::CreateRequest(pb::WatchCreateRequest { watch_id: 2, ..prefix("e") }),
            RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 1 }),
            RequestUnion::CreateRequest(prefix("f")),
            RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 2 }),
            RequestUnion::CreateRequest(pb::WatchCreateRequest { watch_id: 2, ..prefix("g") }),
        ] {
            watching.ask(request).await;
            let response = watching.next().await;
            assert!(response.header.is_some(), "a client would crash without it");
            controls.push((response.watch_id, response.created, response.canceled, response.cancel_reason));
        }
        // An unknown id is not answered: the next response belongs to the next request.
        watching.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 99 })).await;
        watching.ask(RequestUnion::CreateRequest(prefix("h"))).await;
        controls.push((watching.next().await.watch_id, true, false, String::new()));
        client.put("b", "1").await.expect("puts");
        client.put("g", "1").await.expect("puts");
        let response = watching.next().await;
        assert_eq!((response.watch_id, response.events.len()), (2, 1), "the canceled watch of b is silent");
        assert_eq!(response.events[0].kv.as_ref().expect("a kv").key, "g");
        said.push(controls);
    }
    assert_eq!(said[0], said[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_txn_comes_in_fragments_to_who_asked_for_them() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    let big = |byte: u8| (0..40).map(move |n| put_op(format!("f/{n:02}"), vec![byte; 35_000])).collect();
    let fragmented = pb::WatchCreateRequest { prev_kv: true, fragment: true, start_revision: 3, ..prefix("f/") };
    let whole = pb::WatchCreateRequest { fragment: false, ..fragmented.clone() };
    for byte in [b'1', b'2'] {
        client.kv.txn(pb::TxnRequest { success: big(byte), ..Default::default() }).await.expect("puts");
    }
    let mut watching = Watching::on(&mut client, fragmented).await;
    let (mut events, mut parts) = (Vec::new(), 0);
    loop {
        let response = watching.next().await;
        parts += 1;
        events.extend(response.events);
        if !response.fragment {
            break;
        }
    }
    assert!(parts > 1, "2.8 MB in one response");
    let mut watching = Watching::on(&mut client, whole).await;
    assert_eq!(watching.next().await.events, events, "one response without the wish");
    assert_eq!(events.len(), 40);
    assert!(events.iter().all(|event| event.prev_kv.as_ref().is_some_and(|kv| kv.value[0] == b'1')));
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_by_interval_to_who_asked_for_it() {
    let server = Server::start(Kind::Mechi, &["--watch-progress-notify-interval=100ms"]).expect("mechi starts");
    let mut client = connect(&server).await;
    let mut told = Watching::on(&mut client, pb::WatchCreateRequest { progress_notify: true, ..prefix("p/") }).await;
    let mut untold = Watching::on(&mut client, prefix("p/")).await;
    for n in 0..3 {
        let now = client.put("elsewhere", n.to_string()).await.expect("puts");
        loop {
            let response = told.next().await;
            assert!(response.events.is_empty() && response.watch_id == 0 && response.compact_revision == 0);
            if revision(response.header) == now {
                break;
            }
        }
    }
    client.put("p/x", "1").await.expect("puts");
    assert_eq!(untold.next().await.events.len(), 1, "nothing came before it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_watches_on_one_stream() {
    const WATCHES: i64 = 1_000;
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    let mut watching = Watching::on(&mut client, prefix("many/")).await;
    for _ in 1..WATCHES {
        watching.ask(RequestUnion::CreateRequest(prefix("many/"))).await;
    }
    for id in 1..WATCHES {
        let response = watching.next().await;
        assert!(response.created && response.watch_id == id, "{response:?}");
    }
    counts(&server.endpoint(), "etcd_debugging_mvcc_watcher_total", WATCHES as f64).await;
    put_all(&mut client, (0..5).map(|n| (format!("many/{n}"), Bytes::from_static(b"v")))).await.expect("puts");
    let last = client.put("many/last", "v").await.expect("puts");
    let mut seen = BTreeMap::<i64, usize>::new();
    while seen.values().sum::<usize>() < 6 * WATCHES as usize {
        let response = watching.next().await;
        assert!(response.events.iter().all(|event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision <= last)));
        *seen.entry(response.watch_id).or_default() += response.events.len();
    }
    assert!(seen.len() == WATCHES as usize && seen.values().all(|events| *events == 6));
    drop(watching);
    // They are gone with their client.
    counts(&server.endpoint(), "etcd_debugging_mvcc_watcher_total", 0.0).await;
    let canceled = "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",\
                    grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"}";
    counts(&server.endpoint(), canceled, 1.0).await;
}

/// Ten clients that do not read while 50 MB of events are written: nothing is lost, and nothing is hoarded for them.
#[tokio::test(flavor = "multi_thread")]
async fn slow_consumers_lose_nothing_and_cost_nothing() {
    const EVENTS: usize = 50_000;
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut client = connect(&server).await;
        slow.push(Watching::on(&mut client, prefix("s/")).await);
    }
    let pairs = (0..EVENTS).map(|n| (format!("s/{:04}", n % 5_000), Bytes::from(format!("{n:01000}"))));
    put_all(&mut client, pairs).await.expect("puts");
    let rss = metric(&server.endpoint(), "process_resident_memory_bytes").expect("a number") as u64 >> 20;
    println!("slow consumers: {} MiB resident", rss);
    assert!(rss < 300, "{rss} MiB: events are kept once for each of ten watchers");
    for (n, mut watching) in slow.into_iter().enumerate() {
        // All have to be complete; to read every one of them to the end would only take longer.
        let wanted = if n < 2 { EVENTS } else { 1_000 };
        let mut next = 0;
        while next < wanted {
            for event in watching.next().await.events {
                let value = event.kv.expect("a put").value;
                let number: usize = std::str::from_utf8(&value).expect("digits").parse().expect("a number");
                assert_eq!(number, next, "watcher {n}");
                next += 1;
            }
        }
    }
}

/// etcd 15220: a progress answer must not overtake events that it covers.
#[tokio::test(flavor = "multi_thread")]
async fn progress_never_overtakes_events() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    let mut watching = Watching::on(&mut client, prefix("o/")).await;
    let mut writer = connect(&server).await;
    let writing = tokio::spawn(async move {
        let mut last = 0;
        for n in 0..2_000 {
            last = writer.put(format!("o/{}", n % 10), n.to_string()).await.expect("puts");
        }
        last
    });
    let (mut seen, mut answers) = (1, 0);
    watching.ask_progress().await;
    // The last question is open when the last event comes: it has its answer, however fast the writer was.
    while seen < 2_001 || answers == 0 {
        let response = watching.next().await;
        let at = revision(response.header);
        for event in &response.events {
            let revision = event.kv.as_ref().expect("a kv").mod_revision;
            assert_eq!(revision, seen + 1, "no gap, no repeat");
            seen = revision;
        }
        if response.watch_id == -1 {
            assert!(at <= seen, "progress says {at}, but events came only up to {seen}");
            answers += 1;
            watching.ask_progress().await;
        } else {
            assert!(at >= seen);
        }
    }
    assert_eq!(writing.await.expect("no panic"), 2_001);
    assert!(answers > 0);
}

/// etcd 17529: a watcher that starves while compaction passes by hears of it; it must not skip events in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_starved_watch_hears_of_compaction_or_gets_everything() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    let mut reader = connect(&server).await;
    let mut watching = Watching::on(&mut reader, prefix("c/")).await;
    let mut last = 0;
    for round in 0..20 {
        let pairs = (0..500).map(|n| (format!("c/{n:04}"), Bytes::from(format!("{round:02000}"))));
        last = put_all(&mut client, pairs).await.expect("puts");
        client.kv.compact(pb::CompactionRequest { revision: last, physical: true }).await.expect("compacts");
    }
    let mut events = 0;
    let mut revision = 1;
    loop {
        let response = watching.next().await;
        if response.canceled {
            assert!(response.compact_revision > revision && response.watch_id == 0, "{response:?}");
            break;
        }
        for event in response.events {
            let at = event.kv.expect("a kv").mod_revision;
            assert!(at == revision || at == revision + 1, "from {revision} to {at}");
            revision = at;
            events += 1;
        }
        if revision == last {
            assert_eq!(events, 10_000, "nothing was skipped");
            break;
        }
    }
    // The stream lives on.
    watching.ask(RequestUnion::CreateRequest(prefix("d/"))).await;
    assert!(watching.next().await.created);
}

/// etcd 20221: a watch from a future revision hears nothing of what lies before it, neither events nor progress.
#[tokio::test(flavor = "multi_thread")]
async fn a_future_watch_hears_nothing_before_its_start() {
    let server = Server::start(Kind::Mechi, &["--watch-progress-notify-interval=50ms"]).expect("mechi starts");
    let mut client = connect(&server).await;
    let request = pb::WatchCreateRequest { start_revision: 12, progress_notify: true, ..prefix("u/") };
    let mut watching = Watching::on(&mut client, request).await;
    watching.ask_progress().await;
    let mut other = Watching::on(&mut client, pb::WatchCreateRequest { progress_notify: true, ..prefix("u/") }).await;
    let mut last = 0;
    while last < 14 {
        last = client.put("u/x", "1").await.expect("puts");
        // Until this watcher has had a notification, the other's would have come as well.
        while revision(other.next().await.header) < last {}
    }
    let mut next = 12;
    while next <= last {
        let response = watching.next().await;
        assert!(revision(response.header) >= 12, "{response:?}");
        for event in response.events {
            assert_eq!(event.kv.expect("a kv").mod_revision, next);
            next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_sent_its_last_request_keeps_its_watches() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    let mut watching = Watching::on(&mut client, prefix("h/")).await;
    let (unused, _) = tokio::sync::mpsc::channel(1);
    drop(std::mem::replace(&mut watching.requests, unused));
    for n in 0..10 {
        client.put("h/x", n.to_string()).await.expect("puts");
    }
    assert_eq!(watching.events(10).await.len(), 10);
}

/// A member that stops ends its streams so that clients resume elsewhere, and is gone long before those give up that do
/// not read (which they do after [`SOON`] and more).
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_streams_and_the_process() {
    let mut server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = connect(&server).await;
    let mut watching = Watching::on(&mut client, prefix("t/")).await;
    let (keep, requests) = tokio::sync::mpsc::channel(1);
    let id = client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await.expect("grants").into_inner().id;
    keep.send(pb::LeaseKeepAliveRequest { id }).await.expect("open");
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut kept = client.lease.lease_keep_alive(requests).await.expect("opens").into_inner();
    assert_eq!(kept.message().await.expect("well").expect("an answer").ttl, 60);
    // Clients that do not read must not hold it up: a list and a watch that wait for their windows.
    put_all(&mut client, (0..5_000).map(|n| (format!("x/{n}"), Bytes::from(vec![b'v'; 1_000])))).await.expect("puts");
    let (key, range_end) = span("x/");
    let list = pb::RangeRequest { key, range_end, ..Default::default() }.encode_to_vec();
    let from_start = create(pb::WatchCreateRequest { start_revision: 2, ..prefix("x/") }).encode_to_vec();
    let mut stalled = Vec::new();
    for (path, request) in [("/etcdserverpb.KV/Range", list), ("/etcdserverpb.Watch/Watch", from_start)] {
        let io = TcpStream::connect(server.endpoint()).await.expect("connects");
        stalled.push(call(io, path, &[], frame(&request, false)).await.expect("begins"));
    }
    server.signal(15).expect("signals");
    let ended = watching.message().await.expect_err("the stream ends with a status");
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: server stopped"));
    let ended = tokio::time::timeout(SOON, kept.message()).await.expect("soon").expect_err("a status");
    assert_eq!(ended.code(), Code::Unavailable);
    let status = tokio::task::spawn_blocking(move || server.wait_exit(SOON / 2));
    assert!(status.await.expect("no panic").expect("soon").success());
}

/// The HTTP/2 library of Rust clients ends a connection that brings a hundred empty frames; there was one between any
/// two big events.
#[tokio::test(flavor = "multi_thread")]
async fn many_big_events_are_not_taken_for_an_attack() {
    let server = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut client = Client::connect(&server.endpoint()).await.expect("answers");
    let mut last = 0;
    for n in 0..250 {
        last = client.put(format!("big/{n:03}"), vec![b'v'; 17 << 10]).await.expect("puts");
    }
    let past = pb::WatchCreateRequest { start_revision: 1, ..watching::create(&[0], &[0]) };
    let events = watching::Watching::create(&mut client, past).await.until(last).await;
    assert_eq!(events.len(), 250);
    assert_eq!(client.all().await.expect("lists").kvs.len(), 250);
}
