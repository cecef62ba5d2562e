//! The store in memory, under which the control plane is simulated, answers as Mechi and etcd do.

use mechi_controller::api::change::{Deletion, Half};
use mechi_controller::api::{Api, read};
use mechi_controller::kv::{Error, Etcd, Guard, Kv, Local, Range, Txn, Watch as _};
use mechi_controller::types::node::Namespace;
use mechi_controller::types::pod::Pod;
use mechi_controller::types::time::Time;
use mechi_tests::grounds::client;
use mechi_tests::on_both;
use mechi_tests::process::{Kind, Server};
use std::time::Duration;

on_both!(the_store_in_memory_answers_as_a_real_one);

async fn the_store_in_memory_answers_as_a_real_one(kind: Kind) {
    let server = Server::start(kind, &[]).expect("starts");
    let real = client(&server).await;
    let memory = Local::new(7);
    let wanted = script(&memory, |revision| memory.with(|store| store.compact(revision))).await;
    let compacting = real.clone();
    let got = script(&Etcd::new(real), move |revision| {
        let client = compacting.clone();
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(client.compact_physical(revision)).expect("compacts");
        });
    })
    .await;
    for (wanted, got) in wanted.iter().zip(&got) {
        assert_eq!(got, wanted);
    }
    assert_eq!(got.len(), wanted.len());
}

/// Everything that the control plane asks of a store; each line an answer, with its revisions.
async fn script<K: Kv>(kv: &K, compact: impl Fn(i64)) -> Vec<String> {
    let mut told = Vec::new();
    let absent = |key: &'static str| Guard::Absent { key: key.into() };
    let all = |limit, revision| Range { key: "/registry/".into(), end: "/registry0".into(), limit, revision };
    let page = async |limit, revision| match kv.range(all(limit, revision)).await {
        Ok(page) => format!("{:?} more {} at {}", page.items, page.more, page.revision),
        Err(Error::Compacted(_)) => "compacted".to_owned(),
        Err(error) => format!("{error:?}"),
    };
    let mut watch = kv.watch("/registry/".into(), "/registry0".into(), 1).await.expect("a watch");

    let (a, b, c) = ("/registry/x/a", "/registry/x/b", "/registry/x/c");
    let txns = [
        Txn::new().guard(absent(a)).guard(absent(b)).put(a, "1").put(b, "1"),
        Txn::new().guard(absent(c)).guard(absent(b)).put(c, "1"),
        Txn::new().guard(Guard::Seen { key: a.into(), modified: 2 }).put(a, "2").delete(b),
        Txn::new().guard(Guard::Seen { key: a.into(), modified: 2 }).put(a, "3"),
        Txn::new().guard(Guard::Alive { key: a.into(), created: 2 }).guard(absent(b)).put(b, "2"),
        Txn::new()
            .guard(Guard::Version { key: a.into(), version: 2 })
            .guard(Guard::Fence { key: b.into(), token: 4 })
            .put(c, "1"),
        Txn::new().guard(Guard::Version { key: a.into(), version: 1 }).put(c, "2"),
        Txn::new().delete("/registry/x/none"),
    ];
    for txn in &txns {
        told.push(format!("{:?}", kv.txn(txn).await));
    }
    told.push(page(0, 0).await);
    told.push(page(1, 3).await);

    let lease = kv.grant(Duration::from_secs(60)).await.expect("a lease");
    told.push(format!("{:?}", kv.txn(&Txn::new().put_leased("/registry/x/l", "1", lease)).await));
    told.push(format!("{:?}", kv.keep_alive(lease).await));
    told.push(format!("{:?}", kv.revoke(lease).await));
    told.push(format!("{:?} {:?}", kv.keep_alive(lease).await, kv.revoke(lease).await));
    told.push(format!("{:?}", kv.txn(&Txn::new().put_leased("/registry/x/l", "1", lease)).await));
    let mut events = Vec::new();
    while events.len() < 8 {
        let batch = watch.next().await.expect("it goes on");
        events.extend(batch.events);
    }
    told.extend(events.iter().map(|event| format!("{event:?}").replace(&format!("lease: {lease}"), "lease: its own")));

    objects(kv, &mut told).await;
    compact(6);
    told.push(page(0, 3).await);
    let mut late = kv.watch("/registry/".into(), "/registry0".into(), 2).await;
    let ended = match &mut late {
        Ok(watch) => watch.next().await.map(|_| ()),
        Err(error) => Err(error.clone()),
    };
    told.push(format!("{}", matches!(ended, Err(Error::Compacted(_)))));
    told
}

/// Objects are made, refused, changed and deleted.
async fn objects<K: Kv>(kv: &K, told: &mut Vec<String>) {
    let (api, now) = (Api::new(kv.clone()), Time(1_800_000_000));
    let namespace = || read::<Namespace>(br#"{"metadata": {"name": "default"}}"#, true).expect("a namespace");
    let pod = || {
        let json = br#"{"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}"#;
        read::<Pod>(json, true).expect("a pod")
    };
    told.push(format!("{:?}", api.create(pod(), now).await.map(|_| ())));
    for _ in 0..2 {
        told.push(format!("{:?}", api.create(namespace(), now).await.map(|made| made.created)));
        told.push(format!("{:?}", api.create(pod(), now).await.map(|made| made.created)));
    }
    let changed = api.modify("default", "p", Half::Wanted, |pod: &mut Pod| {
        pod.metadata.labels.insert("a".to_owned(), "b".to_owned());
        Ok(())
    });
    told.push(format!("{:?}", changed.await.map(|pod| (pod.created, pod.modified))));
    told.push(format!("{:?}", api.list::<Pod>("default").await.map(|pods| pods.len())));
    for _ in 0..2 {
        told.push(format!("{:?}", api.delete::<Pod>("default", "p", &Deletion::default(), now).await));
    }
}
