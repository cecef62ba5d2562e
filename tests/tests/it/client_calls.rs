//! The client library's calls, answer by answer, on Mechi and on etcd.

use mechi_client::{Client, Config, pb};
use mechi_client::{Code, Compare, Delete, Error, Get, Keys, Kind as Why, Outcome, Put, SortOrder, SortTarget, Txn};
use mechi_tests::cluster::{Cluster, NO_ELECTIONS};
use mechi_tests::grounds::{client, client_of, config, revision};
use mechi_tests::on_both;
use mechi_tests::port::Port;
use mechi_tests::process::{Kind, Server};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

on_both!(
    keys_are_written_read_and_deleted,
    a_txn_does_one_of_two_things,
    refusals_have_their_kinds,
    pages_stay_at_one_revision_under_writes,
    a_compacted_list_says_so,
    a_list_streams_or_is_paged,
    members_answer_about_themselves,
    users_have_tokens_that_are_renewed,
);

fn start(kind: Kind) -> Server {
    Server::start(kind, &[]).expect("starts")
}

async fn keys_are_written_read_and_deleted(kind: Kind) {
    let server = start(kind);
    let client = client(&server).await;
    assert_eq!(client.get("a").await.expect("reads"), None);
    let first = revision(&client.put("a", "1").await.expect("writes").header);
    let second = client.put_with(Put::new("a", "2").prev_kv()).await.expect("writes");
    assert_eq!(second.prev_kv.expect("was asked for").value, "1");
    let lease = client.lease_grant(60, 77).await.expect("grants");
    client.put_with(Put::new("a", "").ignore_value().lease(lease.id)).await.expect("writes");
    let found = client.get("a").await.expect("reads").expect("is there");
    assert_eq!((found.value.as_ref(), found.version, found.create_revision, found.lease), (&b"2"[..], 3, first, 77));

    for n in 0..5 {
        client.put(format!("b/{n}"), format!("{}", 9 - n)).await.expect("writes");
    }
    let read = |get: Get| {
        let client = client.clone();
        async move { client.get_with(get).await.expect("reads") }
    };
    let names = |answer: &pb::RangeResponse| {
        answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect::<Vec<_>>().join(" ")
    };
    let limited = read(Get::prefix("b/").limit(2)).await;
    assert_eq!((names(&limited).as_str(), limited.more, limited.count), ("b/0 b/1", true, 5));
    assert_eq!(names(&read(Get::prefix("b/").sort(SortTarget::Value, SortOrder::Ascend)).await), "b/4 b/3 b/2 b/1 b/0");
    assert_eq!(names(&read(Get::from("b/3")).await), "b/3 b/4");
    assert_eq!(names(&read(Get::range("a", "b/1")).await), "a b/0");
    assert_eq!(names(&read(Get::all().serializable()).await), "a b/0 b/1 b/2 b/3 b/4");
    assert_eq!(read(Get::key("a").revision(first)).await.kvs[0].value, "1");
    let keys_only = read(Get::prefix("b/").keys_only()).await;
    assert!(keys_only.kvs.len() == 5 && keys_only.kvs.iter().all(|kv| kv.value.is_empty()));
    let counted = read(Get::prefix("b/").count_only()).await;
    assert_eq!((counted.kvs.len(), counted.count), (0, 5));
    let newest = read(Get::prefix("b/").min_mod_revision(revision(&counted.header))).await;
    assert_eq!(names(&newest), "b/4");

    let gone = client.delete_with(Delete::prefix("b/").prev_kv()).await.expect("deletes");
    assert_eq!((gone.deleted, gone.prev_kvs.len()), (5, 5));
    assert_eq!(client.delete("b/0").await.expect("deletes").deleted, 0);
    client.compact_physical(revision(&gone.header)).await.expect("compacts");
}

async fn a_txn_does_one_of_two_things(kind: Kind) {
    let server = start(kind);
    let client = client(&server).await;
    let create = || {
        Txn::new()
            .when(Compare::create_revision("k").equal(0))
            .and_then(Put::new("k", "mine"))
            .or_else(Get::key("k"))
            .or_else(
                Txn::new()
                    .when(Compare::value("k").equal("mine"))
                    .and_then(Get::prefix(""))
                    .and_then(Delete::key("none")),
            )
    };
    assert!(client.txn(create()).await.expect("runs").succeeded);
    let again = client.txn(create()).await.expect("runs");
    assert!(!again.succeeded);
    let Some(pb::response_op::Response::ResponseRange(found)) = &again.responses[0].response else {
        panic!("{again:?}")
    };
    assert_eq!(found.kvs[0].value, "mine");
    let Some(pb::response_op::Response::ResponseTxn(inner)) = &again.responses[1].response else { panic!("{again:?}") };
    assert!(inner.succeeded && inner.responses.len() == 2, "{inner:?}");

    client.put("k2", "mine").await.expect("writes");
    let all_mine = Txn::new().when(Compare::value("").of(Keys::prefix("k")).equal("mine")).and_then(Get::key("k"));
    assert!(client.txn(all_mine.clone()).await.expect("runs").succeeded);
    client.put("k3", "yours").await.expect("writes");
    assert!(!client.txn(all_mine).await.expect("runs").succeeded);
}

async fn refusals_have_their_kinds(kind: Kind) {
    let server = start(kind);
    let client = client(&server).await;
    let newest = revision(&client.put("k", "v").await.expect("writes").header);
    client.put("k", "v").await.expect("writes");
    client.compact(newest + 1).await.expect("compacts");
    client.lease_grant(60, 5).await.expect("grants");
    let twice = Txn::new().and_then(Put::new("k", "1")).and_then(Put::new("k", "2"));
    let many = (0..129).fold(Txn::new(), |txn, n| txn.and_then(Put::new(format!("{n}"), "")));
    let large = vec![0; 1_600_000];
    let rows = [
        (client.put("", "v").await.err(), Why::EmptyKey, Code::InvalidArgument),
        (client.put_with(Put::new("none", "").ignore_value()).await.err(), Why::KeyNotFound, Code::InvalidArgument),
        (client.put_with(Put::new("k", "v").ignore_value()).await.err(), Why::ValueProvided, Code::InvalidArgument),
        (
            client.put_with(Put::new("k", "v").lease(1).ignore_lease()).await.err(),
            Why::LeaseProvided,
            Code::InvalidArgument,
        ),
        (client.put_with(Put::new("k", "v").lease(99)).await.err(), Why::LeaseNotFound, Code::NotFound),
        (client.put("k", large).await.err(), Why::RequestTooLarge, Code::InvalidArgument),
        (client.txn(twice).await.err(), Why::DuplicateKey, Code::InvalidArgument),
        (client.txn(many).await.err(), Why::TooManyOps, Code::InvalidArgument),
        (client.get_with(Get::key("k").revision(1)).await.err(), Why::Compacted, Code::OutOfRange),
        (client.get_with(Get::key("k").revision(999)).await.err(), Why::FutureRevision, Code::OutOfRange),
        (client.compact(newest).await.err(), Why::Compacted, Code::OutOfRange),
        (client.compact(999).await.err(), Why::FutureRevision, Code::OutOfRange),
        (client.lease_grant(60, 5).await.err(), Why::LeaseExists, Code::FailedPrecondition),
        (client.lease_grant(9_000_000_001, 6).await.err(), Why::LeaseTtlTooLarge, Code::OutOfRange),
        (client.lease_revoke(6).await.err(), Why::LeaseNotFound, Code::NotFound),
        (client.move_leader(1).await.err(), Why::BadLeaderTransferee, Code::FailedPrecondition),
        (client.authenticate("u".into(), "p".into()).await.err(), Why::AuthNotEnabled, Code::FailedPrecondition),
    ];
    for (n, (error, why, code)) in rows.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("row {n} is refused"));
        assert_eq!(
            (error.kind(), error.code(), error.outcome()),
            (why, Some(code), Outcome::NotApplied),
            "row {n}: {error}"
        );
        assert!(
            matches!(&error, Error::Server(server) if server.message.starts_with("etcdserver: ")),
            "row {n}: {error:?}"
        );
    }
    // Refused on this side, by its size, before anything is sent.
    let error = client.put("k", vec![0; 3 << 20]).await.expect_err("is too large");
    assert_eq!((error.kind(), error.outcome()), (Why::RequestTooLarge, Outcome::NotApplied), "{error:?}");
    assert_eq!(error.to_string(), "trying to send message larger than max (3145736 vs. 2097152)");
}

async fn pages_stay_at_one_revision_under_writes(kind: Kind) {
    let server = start(kind);
    let client = client(&server).await;
    for n in 0..200 {
        client.put(format!("p/{n:04}"), "before").await.expect("writes");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (client, stop) = (client.clone(), stop.clone());
        async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                client.put(format!("p/{:04}", n % 400), "after").await.expect("writes");
                client.delete(format!("p/{:04}", (n * 7) % 400)).await.expect("deletes");
                n += 1;
            }
        }
    });
    let mut pages = client.get_pages(Get::prefix("p/").limit(17));
    let (mut listed, mut count) = (Vec::new(), 0);
    while let Some(page) = pages.next().await.expect("a page") {
        assert!(page.kvs.len() <= 17);
        count += 1;
        listed.extend(page.kvs);
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("no panic");
    assert!(count > 5, "{count} pages");
    let whole = client.get_with(Get::prefix("p/").revision(pages.revision())).await.expect("reads");
    assert_eq!(listed, whole.kvs);
    assert!(pages.next().await.expect("stays at its end").is_none());
}

async fn a_compacted_list_says_so(kind: Kind) {
    let server = start(kind);
    let client = client(&server).await;
    for n in 0..10 {
        client.put(format!("p/{n}"), "v").await.expect("writes");
    }
    let mut pages = client.get_pages(Get::prefix("p/").limit(4));
    let listed = pages.next().await.expect("a page").expect("is not empty");
    let newest = revision(&client.put("p/0", "w").await.expect("writes").header);
    client.compact(newest).await.expect("compacts");
    let error = pages.next().await.expect_err("the revision is gone");
    let held = revision(&listed.header);
    assert!(matches!(error, Error::ListCompacted { revision } if revision == held), "{error:?}");
    assert_eq!(error.kind(), Why::Compacted);
    // A list that begins in the past that is gone is the caller's mistake, and has etcd's words.
    let error = client.get_pages(Get::prefix("p/").revision(2)).next().await.expect_err("is gone");
    assert_eq!(error.kind(), Why::Compacted);
    let error =
        client.get_pages(Get::all().sort(SortTarget::Mod, SortOrder::Ascend)).next().await.expect_err("no order");
    assert!(matches!(error, Error::Config(_)), "{error:?}");
}

async fn a_list_streams_or_is_paged(kind: Kind) {
    let server = start(kind);
    let client = client(&server).await;
    for n in 0..600 {
        client.put(format!("s/{n:04}"), vec![b'x'; 100]).await.expect("writes");
    }
    let whole = client.get_with(Get::prefix("s/")).await.expect("reads").kvs;
    let listing = client.get_stream(Get::prefix("s/")).await.expect("opens");
    assert_eq!(listing.is_streamed(), kind == Kind::Mechi, "etcd 3.5 has no RangeStream");
    assert_eq!(listing.all().await.expect("lists"), whole);
    let limited = client.get_stream(Get::prefix("s/").limit(7)).await.expect("opens");
    assert_eq!(limited.all().await.expect("lists"), &whole[..7]);
}

async fn members_answer_about_themselves(kind: Kind) {
    let cluster = Cluster::start(kind, 3, &NO_ELECTIONS).expect("starts");
    cluster.leader().await.expect("a leader");
    let client = client_of(&cluster, &[0, 1, 2]).await;
    client.put("k", "v").await.expect("writes");
    let members = client.member_list(false).await.expect("lists").members;
    assert_eq!(members.len(), 3);
    cluster.wait_until_equal().await.expect("equal");
    let (mut ids, mut hashes, mut leader) = (Vec::new(), Vec::new(), None);
    for member in &members {
        let one = client.at(&member.client_ur_ls[0]).expect("is an endpoint");
        let status = one.status().await.expect("tells");
        let id = status.header.expect("has one").member_id;
        assert_eq!(id, member.id, "each answers for itself");
        if status.leader == id {
            leader = Some((one.clone(), id));
        }
        ids.push(id);
        hashes.push(one.hash_kv(0).await.expect("sums").hash);
        one.defragment().await.expect("OK");
    }
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    let (leader, id) = leader.expect("one leads");
    let other = *ids.iter().find(|other| **other != id).expect("three members");
    leader.move_leader(other).await.expect("moves");
    assert!(client.alarms().await.expect("lists").alarms.is_empty());
    let removed = client.member_remove(4711).await.expect_err("no such member");
    assert!(matches!(removed, Error::Server(_)), "{removed:?}");
}

/// Mechi has no users yet; what it answers instead is checked, so that this test will have to grow with it.
async fn users_have_tokens_that_are_renewed(kind: Kind) {
    let flags: &[&str] = if kind == Kind::Etcd { &["--auth-token-ttl=3"] } else { &[] };
    let server = Server::start(kind, flags).expect("starts");
    let plain = client(&server).await;
    let with_user = |password: &str| config([server.endpoint()]).credentials("root", password);
    // Without users on the server, a name and a password do no harm.
    let early = Client::connect(with_user("secret")).await.expect("connects");
    early.put("k", "v").await.expect("writes");
    let added = plain.user_add("root".into(), Some("secret".into())).await;
    if kind == Kind::Mechi {
        assert_eq!(added.expect_err("is not served yet").kind(), Why::Unimplemented);
        return;
    }
    added.expect("adds");
    plain.role_add("root".into()).await.expect("adds");
    plain.user_grant_role("root".into(), "root".into()).await.expect("grants");
    plain.auth_enable().await.expect("enables");

    assert_eq!(plain.put("k", "v").await.expect_err("has no name").kind(), Why::UserEmpty);
    early.put("k", "now with a token").await.expect("asks for a token when it needs one");
    let wrong = Client::connect(with_user("wrong")).await.expect_err("is the wrong password");
    assert_eq!(wrong.kind(), Why::AuthFailed);
    let client = Client::connect(with_user("secret")).await.expect("connects");
    let mut watch = client.watch(mechi_client::WatchOptions::key("w")).await.expect("watches");
    // The server forgets the token after three seconds without use.
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    client.put("w", "with a new token").await.expect("renews");
    client.get("w").await.expect("reads").expect("is there");
    let batch = watch.next().await.expect("goes on").expect("no error");
    assert_eq!(batch.events().len(), 1);

    // A user without permissions is refused by the watch itself, and by name.
    client.user_add("guest".into(), Some("guest".into())).await.expect("adds");
    let guest = Client::connect(config([server.endpoint()]).credentials("guest", "guest")).await.expect("connects");
    assert_eq!(guest.get("w").await.expect_err("may not").kind(), Why::PermissionDenied);
    let refused = guest.watch(mechi_client::WatchOptions::key("w")).await.expect_err("may not");
    assert!(matches!(&refused, Error::WatchCanceled { reason } if reason.contains("permission denied")), "{refused:?}");
}

#[tokio::test]
async fn nothing_listens_there() {
    let port = Port::keep();
    let dead = format!("127.0.0.1:{port}");
    let error = Client::connect(config([dead.clone()])).await.expect_err("nothing listens");
    assert!(matches!(&error, Error::Unavailable { last } if last.contains(&dead)), "{error:?}");
    let client = Client::lazy(config([dead])).expect("is an endpoint");
    let quick = client.with_timeout(std::time::Duration::from_secs(3));
    let error = quick.put("k", "v").await.expect_err("nothing listens");
    assert_eq!(error.outcome(), Outcome::NotApplied, "a write that was not sent: {error:?}");
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let error = quick.watch(mechi_client::WatchOptions::key("k")).await.expect_err("nothing listens");
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(matches!(Client::lazy(Config::new(Vec::<String>::new())), Err(Error::Config(_))));
}
