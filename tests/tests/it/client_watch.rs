//! The client library's watches: every change once, in order, whatever happens to the member they are on.

use futures_util::future::join_all;
use mechi_client::{Compare, Delete, Error, Get, Put, Txn, Watch, WatchOptions, proto::mvccpb};
use mechi_tests::cluster::Cluster;
use mechi_tests::grounds::{COMES_MAX, client, client_of, revision};
use mechi_tests::on_both;
use mechi_tests::process::{Kind, Server};
use mechi_tests::wire::counts;

on_both!(
    a_watch_tells_what_it_was_asked_for,
    a_watch_outlives_the_member_it_is_on,
    compaction_while_a_watch_is_down_is_told,
    a_slow_reader_misses_nothing_and_holds_up_nobody,
    a_large_revision_comes_whole,
    a_thousand_watches_share_a_stream,
);

async fn next(watch: &mut Watch) -> Result<mechi_client::Batch, Error> {
    tokio::time::timeout(COMES_MAX, watch.next()).await.expect("something comes").expect("has not ended")
}

/// Reads until `count` events have come.
async fn events(watch: &mut Watch, count: usize) -> Vec<mvccpb::Event> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(next(watch).await.expect("a batch").events().iter().cloned());
    }
    assert_eq!(all.len(), count);
    all
}

fn key(event: &mvccpb::Event) -> String {
    String::from_utf8_lossy(&event.kv.as_ref().expect("every event has one").key).into_owned()
}

async fn a_watch_tells_what_it_was_asked_for(kind: Kind) {
    let server = Server::start(kind, &[]).expect("starts");
    let client = client(&server).await;
    let begun = revision(&client.put("w/a", "1").await.expect("writes").header);
    let mut all = client.watch(WatchOptions::prefix("w/").prev_kv()).await.expect("watches");
    let mut past = client.watch(WatchOptions::prefix("w/").from_revision(begun)).await.expect("watches");
    let mut puts = client.watch(WatchOptions::prefix("w/").without_deletes()).await.expect("watches");
    let mut deletes = client.watch(WatchOptions::prefix("w/").without_puts().created_notify()).await.expect("watches");
    let other = client.watch(WatchOptions::key("other")).await.expect("watches");

    client.put("w/a", "2").await.expect("writes");
    client.delete("w/a").await.expect("deletes");
    let txn = Txn::new().and_then(Put::new("w/b", "1")).and_then(Put::new("w/c", "1"));
    let last = revision(&client.txn(txn).await.expect("runs").header);

    let told = events(&mut all, 4).await;
    assert_eq!(told.iter().map(key).collect::<Vec<_>>(), ["w/a", "w/a", "w/b", "w/c"]);
    assert_eq!(told[0].prev_kv.as_ref().expect("was asked for").value, "1");
    assert_eq!(told[1].prev_kv.as_ref().expect("was asked for").value, "2");
    assert_eq!(told[1].r#type(), mvccpb::event::EventType::Delete);
    assert!(told[2].prev_kv.is_none(), "was not there");
    assert_eq!(events(&mut past, 5).await.len(), 5);
    assert_eq!(events(&mut puts, 3).await.iter().map(key).collect::<Vec<_>>(), ["w/a", "w/b", "w/c"]);
    let created = next(&mut deletes).await.expect("a batch");
    assert!(created.0.created && created.events().is_empty());
    assert_eq!(events(&mut deletes, 1).await.iter().map(key).collect::<Vec<_>>(), ["w/a"]);

    // All have seen everything, so the server says so to each.
    client.watch_progress().await.expect("asks");
    for watch in [&mut all, &mut past, &mut puts, &mut deletes] {
        let batch = next(watch).await.expect("a batch");
        assert!(batch.is_progress() && batch.revision() == last, "{batch:?}");
    }

    let empty = client.watch(WatchOptions::from(mechi_client::pb::WatchCreateRequest {
        key: "b".into(),
        range_end: "a".into(),
        ..Default::default()
    }));
    let error = empty.await.expect_err("the range is empty");
    assert!(
        matches!(&error, Error::WatchCanceled { reason } if reason.contains("watcher range is empty")),
        "{error:?}"
    );

    // A watch that is dropped leaves the server; the others stay.
    let watchers = async |wanted: f64| counts(&server.endpoint(), "etcd_debugging_mvcc_watcher_total", wanted).await;
    watchers(5.0).await;
    drop((past, other));
    watchers(3.0).await;
    drop((all, puts, deletes));
    watchers(0.0).await;
    // And one may follow after the stream has ended.
    let mut again = client.watch(WatchOptions::key("w/a")).await.expect("watches");
    client.put("w/a", "3").await.expect("writes");
    events(&mut again, 1).await;
}

async fn a_watch_outlives_the_member_it_is_on(kind: Kind) {
    let mut cluster = Cluster::start(kind, 3, &[]).expect("starts");
    cluster.leader().await.expect("a leader");
    let watcher = client_of(&cluster, &[0, 1, 2]).await;
    let mut watch = watcher.watch(WatchOptions::prefix("e/")).await.expect("watches");
    // Nothing ever happens to it: it must not begin from wherever the next member is.
    let mut quiet = watcher.watch(WatchOptions::prefix("quiet/")).await.expect("watches");
    let writer = client_of(&cluster, &[1, 2]).await;
    let writing = tokio::spawn(async move {
        for n in 0..400 {
            // Unknown ones may or may not be there; the list below says which.
            let _ = writer.put(format!("e/{n:04}"), "v").await;
            if n % 3 == 0 {
                let _ = writer.delete(format!("e/{n:04}")).await;
            }
        }
        while writer.put("e/last", "v").await.is_err() {}
        while writer.put("quiet/one", "v").await.is_err() {}
        writer
    });
    let mut told = Vec::new();
    let mut kills = 0;
    loop {
        told.extend(next(&mut watch).await.expect("goes on").events().iter().cloned());
        if told.len() > 50 && kills == 0 {
            cluster.kill(0).expect("kills");
            kills += 1;
        }
        if told.len() > 200 && kills == 1 {
            // Back again, so that a majority stays; then the next one goes, on which the watch is by now.
            cluster.spawn(0).expect("comes back");
            cluster.kill(1).expect("kills");
            kills += 1;
        }
        if told.last().is_some_and(|event| key(event) == "e/last") {
            break;
        }
    }
    assert_eq!(kills, 2);
    let writer = writing.await.expect("no panic");
    let revisions: Vec<i64> = told.iter().map(|event| event.kv.as_ref().expect("has one").mod_revision).collect();
    assert!(revisions.windows(2).all(|pair| pair[0] < pair[1]), "in order, and none twice: {revisions:?}");
    // Each write has a revision of its own, and all of them are on these keys: none may be missing.
    let last = *revisions.last().expect("is not empty");
    assert_eq!(revisions, (last + 1 - revisions.len() as i64..=last).collect::<Vec<_>>());
    // What the events make of nothing is what is there.
    let mut made = std::collections::BTreeMap::new();
    for event in &told {
        match event.r#type() {
            mvccpb::event::EventType::Put => made.insert(key(event), revision_of(event)),
            mvccpb::event::EventType::Delete => made.remove(&key(event)),
        };
    }
    let there = writer.get_with(Get::prefix("e/").revision(last)).await.expect("reads");
    let there = there.kvs.iter().map(|kv| (String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision)).collect();
    assert_eq!(made, there);
    // An attempt whose outcome was unknown may have been done too: then the key came twice.
    let told = next(&mut quiet).await.expect("goes on");
    assert!(!told.events().is_empty() && told.events().iter().all(|event| key(event) == "quiet/one"), "{told:?}");
}

fn revision_of(event: &mvccpb::Event) -> i64 {
    event.kv.as_ref().expect("has one").mod_revision
}

async fn compaction_while_a_watch_is_down_is_told(kind: Kind) {
    let mut cluster = Cluster::start(kind, 3, &[]).expect("starts");
    cluster.leader().await.expect("a leader");
    // Only the first member is known to the watcher, so that the watch is down while that is.
    let watcher = client_of(&cluster, &[0]).await;
    let mut watch = watcher.watch(WatchOptions::key("k")).await.expect("watches");
    let mut new = watcher.watch(WatchOptions::key("other")).await.expect("watches");
    let writer = client_of(&cluster, &[1, 2]).await;
    writer.put("k", "seen").await.expect("writes");
    assert_eq!(events(&mut watch, 1).await.len(), 1);
    cluster.kill(0).expect("kills");
    let newest = loop {
        if let Ok(answer) = writer.put("k", "unseen").await {
            break revision(&answer.header);
        }
    };
    while writer.put("k", "newer").await.is_err() {}
    writer.compact(newest + 1).await.expect("compacts");
    cluster.spawn(0).expect("comes back");
    for watch in [&mut watch, &mut new] {
        let error = next(watch).await.expect_err("what it should tell is gone");
        let Error::WatchCompacted { compact_revision } = error else { panic!("{error:?}") };
        assert!(compact_revision > newest, "{compact_revision}");
        assert!(watch.next().await.is_none(), "it ends with that");
    }
    // The client itself is well: the caller lists and watches from there.
    let now = watcher.get_with(Get::key("k")).await.expect("reads");
    assert_eq!(now.kvs[0].value, "newer");
    let from = WatchOptions::key("k").from_revision(revision(&now.header) + 1);
    let mut watch = watcher.watch(from).await.expect("watches");
    writer.put("k", "newest").await.expect("writes");
    assert_eq!(events(&mut watch, 1).await.len(), 1);
}

async fn a_slow_reader_misses_nothing_and_holds_up_nobody(kind: Kind) {
    let server = Server::start(kind, &[]).expect("starts");
    let client = client(&server).await;
    let mut slow = client.watch(WatchOptions::prefix("s/")).await.expect("watches");
    let mut quick = client.watch(WatchOptions::prefix("s/")).await.expect("watches");
    let count = 600;
    let value = vec![b'x'; 32 << 10];
    for n in 0..count {
        client.put(format!("s/{n:04}"), value.clone()).await.expect("writes");
    }
    // 19 MiB, none of which the slow one reads: more than may wait for it. The other has all of it.
    let seen = events(&mut quick, count).await;
    let mut also_seen = Vec::new();
    while also_seen.len() < count {
        also_seen.extend(next(&mut slow).await.expect("goes on").events().iter().cloned());
    }
    assert_eq!(also_seen.iter().map(revision_of).collect::<Vec<_>>(), seen.iter().map(revision_of).collect::<Vec<_>>());
    assert!(also_seen == seen);
}

async fn a_large_revision_comes_whole(kind: Kind) {
    let server = Server::start(kind, &["--max-request-bytes=1572864"]).expect("starts");
    let client = client(&server).await;
    for n in 0..6 {
        client.put(format!("l/{n}"), vec![b'x'; 1 << 20]).await.expect("writes");
    }
    let options = WatchOptions::prefix("l/").prev_kv().fragment();
    let parts = client.watch(options).await.expect("watches");
    let whole = client.watch(WatchOptions::prefix("l/").prev_kv()).await.expect("watches");
    client.delete_with(Delete::prefix("l/")).await.expect("deletes");
    client.txn(Txn::new().when(Compare::version("l/0").equal(0)).and_then(Put::new("l/0", "1"))).await.expect("runs");
    for mut watch in [parts, whole] {
        let first = next(&mut watch).await.expect("a batch");
        let deleted: Vec<_> = first.events().iter().filter(|event| event.prev_kv.is_some()).collect();
        assert_eq!(deleted.len(), 6, "one revision is in one batch");
        assert!(deleted.iter().all(|event| event.prev_kv.as_ref().is_some_and(|kv| kv.value.len() == 1 << 20)));
        assert!(!first.0.fragment);
        if first.events().len() == 6 {
            assert_eq!(events(&mut watch, 1).await.iter().map(key).collect::<Vec<_>>(), ["l/0"]);
        }
    }
}

async fn a_thousand_watches_share_a_stream(kind: Kind) {
    let server = Server::start(kind, &[]).expect("starts");
    let client = client(&server).await;
    let made = (0..1000).map(|n| client.watch(WatchOptions::key(format!("many/{n}"))));
    let watches: Vec<_> = join_all(made).await.into_iter().map(|watch| watch.expect("watches")).collect();
    counts(&server.endpoint(), "etcd_debugging_mvcc_watcher_total", 1000.0).await;
    counts(&server.endpoint(), "etcd_debugging_mvcc_watch_stream_total", 1.0).await;
    let puts = (0..1000).map(|n| client.put(format!("many/{n}"), "v"));
    assert!(join_all(puts).await.iter().all(Result::is_ok));
    for (n, mut watch) in watches.into_iter().enumerate() {
        assert_eq!(events(&mut watch, 1).await.iter().map(key).collect::<Vec<_>>(), [format!("many/{n}")]);
    }
}
