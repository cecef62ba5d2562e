//! A panic like any other: in a thread that the member cannot be without it ends the process, in a client's call that alone.

use crate::rig::{ENDED, arm, start};
use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::watching::{Watching, create};
use std::time::Duration;

/// How long the end may take.
const SOON: Duration = Duration::from_secs(60);

/// Each thread of the member's own, with a place in it.
const THREADS: [(&str, &str); 5] = [
    ("wal", "wal_before_append"),
    ("driver", "readindex_after_confirm"),
    ("apply", "apply_before"),
    ("watch", "watch_before_send"),
    ("keeper", "snap_before_write"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_thread_of_the_members_own_ends_the_process() {
    let mut cluster = start(1, &["--snapshot-log-bytes=1MiB"]);
    let mut kept = Vec::new();
    for (thread, site) in THREADS {
        let endpoint = cluster.members[0].endpoint();
        let mut client = Client::connect(&endpoint).await.expect("answers");
        client.put(thread, "kept").await.expect("writes");
        kept.push(thread);
        let watch = Watching::create(&mut client, create(b"k", b"l")).await;
        arm(&cluster.members[0], site, "return(bug)");
        let busy = tokio::spawn(async move {
            // A write and a read at a read point, until one of them is not answered; then a snapshot is due, too.
            while let Ok(mut client) = Client::connect(&endpoint).await {
                let value = vec![b'v'; 256 << 10];
                let put = pb::PutRequest { key: "key".into(), value: value.into(), ..Default::default() };
                if client.kv.put(put).await.is_err() || client.get("key").await.is_err() {
                    return;
                }
            }
        });
        let ended = tokio::task::block_in_place(|| cluster.members[0].wait_exit(SOON));
        let log = cluster.members[0].log();
        let ended = ended.unwrap_or_else(|error| panic!("{thread}: {error}: {log}"));
        assert_eq!(ended.code(), Some(ENDED), "{thread}: {log}");
        assert!(log.contains(&format!("the thread {thread} panicked: a bug at {site}")), "{thread}: {log}");
        drop(watch);
        busy.abort();
        cluster.spawn(0).expect("it serves again");
        let mut client = Client::connect(&cluster.members[0].endpoint()).await.expect("answers");
        for key in &kept {
            let found = client.get(*key).await.expect("reads");
            assert_eq!(found.kvs.len(), 1, "{key} after a bug in {thread}");
        }
    }
    println!("bugs: {} threads panicked, each ended its process with {ENDED}", THREADS.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_clients_call_fails_that_call_alone() {
    let cluster = start(1, &[]);
    let server = &cluster.members[0];
    let mut client = Client::connect(&server.endpoint()).await.expect("answers");
    client.put("key", "value").await.expect("writes");
    arm(server, "readindex_before_respond", "1*return(bug)");
    let failed = tokio::time::timeout(SOON, client.get("key")).await.expect("it does not hang");
    assert!(failed.is_err(), "{failed:?}");
    let mut client = Client::connect(&server.endpoint()).await.expect("answers still");
    assert_eq!(client.get("key").await.expect("reads").kvs.len(), 1);
    assert!(server.log().contains("a bug at readindex_before_respond"), "{}", server.log());
}
