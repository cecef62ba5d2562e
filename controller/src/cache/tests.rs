//! A copy that is fed, cut off and fed again is what the store holds.

use super::*;
use crate::kv::memory::Memory;
use crate::kv::{Error, Txn};
use crate::types::meta::{ObjectMeta, OwnerReference};
use crate::{keys, kv};

const CLUSTER: u64 = 0xfeed_beef_0123_4567;

fn pod(namespace: &str, name: &str, node: &str, owner: Option<Revision>) -> Pod {
    let set = ObjectKey::new(Kind::ReplicaSet, namespace, "web");
    let owner = owner.map(|created| OwnerReference {
        kind: set.kind.name().to_owned(),
        name: set.name().to_owned(),
        uid: keys::uid(CLUSTER, set.to_string().as_bytes(), created),
        controller: true,
        ..Default::default()
    });
    let mut pod = Pod {
        metadata: ObjectMeta {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            owner_references: owner.into_iter().collect(),
            ..Default::default()
        },
        ..Default::default()
    };
    node.clone_into(&mut pod.spec.node_name);
    pod
}

fn put(store: &mut Memory, object: &impl Resource) {
    let txn = Txn::new().put(object.key().to_string(), object.to_stored());
    assert!(matches!(store.txn(&txn), Ok(kv::Outcome::Committed(_))));
}

/// Answers one question of the feed; returns what it told.
fn turn(store: &Memory, feed: &mut Feed<Cache>, cache: &mut Cache) -> Result<Changes, Error> {
    match feed.ask(cache) {
        Ask::List(range) => feed.listed(cache, store.range(&range)).map(Option::unwrap_or_default),
        Ask::Watch(from) => {
            let (key, end) = (keys::ROOT.into(), keys::prefix_end(keys::ROOT).into());
            feed.heard(cache, store.events(&key, &end, from, 1))
        }
    }
}

fn until_equal(store: &Memory, feed: &mut Feed<Cache>, cache: &mut Cache) {
    for _ in 0..10_000 {
        if feed.is_watching() && cache.at() == store.revision() {
            return assert_equal(store, cache);
        }
        let _ = turn(store, feed, cache);
    }
    panic!("the copy is at {}, the store at {}", cache.at(), store.revision());
}

/// The copy is the one that a fresh list makes, indexes and all.
fn assert_equal(store: &Memory, cache: &Cache) {
    let range = kv::Range { key: keys::ROOT.into(), end: keys::prefix_end(keys::ROOT).into(), limit: 0, revision: 0 };
    let page = store.range(&range).expect("now is never compacted");
    let (mut fresh, mut staged) = (Cache::default(), Staged::default());
    fresh.stage(&mut staged, page.cluster_id, page.items);
    fresh.replace(staged, page.cluster_id, page.revision);
    assert_eq!(format!("{cache:?}"), format!("{fresh:?}"));
}

#[test]
fn indexes_follow_their_objects() {
    let mut store = Memory::new(CLUSTER);
    let (mut feed, mut cache) = (Feed::default(), Cache::default());
    put(&mut store, &pod("a", "one", "", Some(77)));
    put(&mut store, &pod("a", "two", "n1", Some(77)));
    put(&mut store, &pod("b", "one", "n1", None));
    until_equal(&store, &mut feed, &mut cache);
    let names = |pods: &mut dyn Iterator<Item = &Held<Pod>>| -> Vec<String> {
        pods.map(|pod| format!("{}/{}", pod.metadata.namespace, pod.metadata.name)).collect()
    };
    assert_eq!(names(&mut cache.owned::<Pod>(77)), ["a/one", "a/two"]);
    assert_eq!(names(&mut cache.on_node("n1")), ["a/two", "b/one"]);
    assert_eq!(names(&mut cache.within::<Pod>("a")), ["a/one", "a/two"]);
    assert_eq!((cache.all::<Pod>().count(), cache.all::<Node>().count()), (3, 0));
    let one = cache.get::<Pod>("a", "one").expect("is there");
    assert_eq!((one.created, one.metadata.resource_version.as_str()), (2, "2"));
    assert_eq!(keys::created_of(CLUSTER, &one.key(), &one.metadata.uid), Some(2));

    put(&mut store, &pod("a", "one", "n2", None));
    store.txn(&Txn::new().delete("/registry/pods/a/two")).expect("written");
    until_equal(&store, &mut feed, &mut cache);
    assert_eq!(names(&mut cache.owned::<Pod>(77)), Vec::<String>::new());
    assert_eq!(
        (names(&mut cache.on_node("n1")), names(&mut cache.on_node("n2"))),
        (vec!["b/one".to_owned()], vec!["a/one".to_owned()])
    );
}

#[test]
fn what_is_no_object_is_kept_apart_and_says_why() {
    let mut store = Memory::new(CLUSTER);
    let (mut feed, mut cache) = (Feed::default(), Cache::default());
    let broken =
        Txn::new().put("/registry/pods/a/bad", r#"{"spec": {"nodeName": 7}}"#).put("/registry/_coord/alloc/n1", "");
    store.txn(&broken).expect("written");
    until_equal(&store, &mut feed, &mut cache);
    let Some(Object::Broken { why, .. }) = cache.object(&ObjectKey::new(Kind::Pod, "a", "bad")) else {
        panic!("it is broken");
    };
    assert!(why.contains("PodSpec.spec.nodeName of type string"), "{why}");
    assert!(cache.get::<Pod>("a", "bad").is_none() && cache.coord(&keys::alloc("n1")).is_some());
}

#[test]
fn a_compaction_lists_anew_and_tells_only_what_changed() {
    let mut store = Memory::new(CLUSTER);
    let (mut feed, mut cache) = (Feed::default(), Cache::default());
    for name in ["one", "two", "three"] {
        put(&mut store, &pod("a", name, "", None));
    }
    until_equal(&store, &mut feed, &mut cache);
    put(&mut store, &pod("a", "two", "n1", None));
    store.txn(&Txn::new().delete("/registry/pods/a/three")).expect("written");
    store.compact(store.revision());
    assert!(matches!(turn(&store, &mut feed, &mut cache), Err(Error::Compacted(_))));
    assert_eq!((feed.is_watching(), feed.relists(), cache.all::<Pod>().count()), (false, 1, 3));
    let changes = loop {
        let changes = turn(&store, &mut feed, &mut cache).expect("answered");
        if feed.is_watching() {
            break changes;
        }
    };
    let mut told: Vec<_> = changes.objects.iter().map(|change| change.key.name()).collect();
    told.sort_unstable();
    assert_eq!((told, cache.at()), (vec!["three", "two"], store.revision()));
    assert_equal(&store, &cache);
}

#[test]
fn a_list_of_a_member_that_lags_is_refused() {
    let mut store = Memory::new(CLUSTER);
    put(&mut store, &pod("a", "one", "", None));
    let lagging = store.clone();
    put(&mut store, &pod("a", "two", "", None));
    let (mut feed, mut cache) = (Feed::default(), Cache::default());
    until_equal(&store, &mut feed, &mut cache);
    feed.relist();
    assert!(matches!(turn(&lagging, &mut feed, &mut cache), Err(Error::Unavailable(_))));
    until_equal(&store, &mut feed, &mut cache);
}

#[test]
fn another_cluster_under_the_same_address_is_taken_as_it_is() {
    let mut store = Memory::new(CLUSTER);
    put(&mut store, &pod("a", "one", "", None));
    put(&mut store, &pod("a", "one", "", None));
    let (mut feed, mut cache) = (Feed::default(), Cache::default());
    until_equal(&store, &mut feed, &mut cache);
    let other = Memory::new(CLUSTER + 0x1_0000);
    feed.relist();
    until_equal(&other, &mut feed, &mut cache);
    assert_eq!((cache.all::<Pod>().count(), cache.at()), (0, 1));
}

#[test]
fn whatever_is_cut_off_lost_or_compacted_the_copy_becomes_the_store() {
    use proptest::prelude::*;
    let step = (0..8_u8, 0..6_u8, 0..3_u8);
    proptest!(|(steps in proptest::collection::vec(step, 0..120))| {
        let mut store = Memory::new(CLUSTER);
        let (mut feed, mut cache) = (Feed::default(), Cache::default());
        for (what, name, node) in steps {
            let name = format!("p{name}");
            match what {
                0..3 => put(&mut store, &pod("a", &name, ["", "n1", "n2"][node as usize], Some(i64::from(node)))),
                3 => drop(store.txn(&Txn::new().delete(format!("/registry/pods/a/{name}")))),
                4 => store.compact(store.revision() - i64::from(node)),
                5 => feed.relist(),
                _ => drop(turn(&store, &mut feed, &mut cache)),
            }
        }
        until_equal(&store, &mut feed, &mut cache);
    });
}
