//! One member: every acknowledged write must come back from its own disk.

use crate::rig::{arm, must_end, spawn_with, start, stores_of_another_boot};
use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::fire::Fire;
use mechi_tests::watching::{Watching, create};
use pb::watch_request::RequestUnion;

pub(crate) const SITES: &[&str] = &[
    "wal_before_append",
    "wal_after_append_before_sync",
    "wal_after_sync",
    "hs_before_save",
    "hs_after_save",
    "apply_before",
    "apply_after",
    "readindex_after_confirm",
    "readindex_before_respond",
    "lease_before_revoke",
    "lease_before_checkpoint",
    "engine_before_commit",
    "engine_after_commit",
    "watch_before_send",
    "watch_before_sync",
    "watch_before_progress",
    "watch_before_victims",
    "snap_before_write",
    "snap_after_write_before_rename",
    "snap_after_rename_before_dirsync",
    "wal_before_truncate",
    "wal_after_truncate",
    "ckpt_after_flush_before_fsync",
    "ckpt_after_fsync_before_record",
    "ckpt_after_record",
    "rebuild_before_swap",
    "rebuild_after_swap",
];

/// Small snapshots, a store that is in use, and leases whose remaining time is noted.
const FLAGS: [&str; 3] =
    ["--snapshot-log-bytes=1MiB", "--store-flush-interval=100ms", "--lease-checkpoint-interval=200ms"];

/// Acknowledged writes to each round.
const WRITES: u64 = 40;

/// Bytes of the longest value while a snapshot is wanted.
const LONG_BYTES: u64 = 64 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_ends_at_each_place_and_keeps_what_it_acknowledged() {
    let rounds = SITES.len() as u64;
    let mut fire = Fire::over("failpoints of one member", start(1, &FLAGS), rounds, rounds * WRITES).await;
    let mut turn = 0;
    while fire.goes_on().await {
        let site = SITES[turn % SITES.len()];
        turn += 1;
        end_at(&mut fire, site).await;
        fire.effect(site);
        fire.cluster.spawn(0).expect("it serves again");
        println!("{site}: ended after {} acknowledged writes and serves again", fire.load.acknowledged());
    }
    fire.finish().await;
}

async fn end_at(fire: &mut Fire, site: &'static str) {
    let member = |fire: &Fire| fire.cluster.members[0].endpoint();
    match site {
        "ckpt_after_flush_before_fsync" | "ckpt_after_fsync_before_record" | "ckpt_after_record" => {
            arm(&fire.cluster.members[0], site, "panic");
            fire.cluster.members[0].signal(15).expect("it runs");
            must_end(fire, 0, site).await;
        }
        "rebuild_before_swap" | "rebuild_after_swap" => {
            // One that was set aside by the round before is made again by the next flush.
            fire.until("there is a store", || has_store(fire)).await;
            fire.cluster.kill(0).expect("it runs");
            assert_eq!(stores_of_another_boot(&fire.cluster.members[0]), 1, "{site}");
            spawn_with(fire, 0, format!("{site}=panic"));
            must_end(fire, 0, site).await;
        }
        "watch_before_sync" => {
            // More than a stream may have open, so that the past is not told in one go.
            fire.load.set_value_bytes(Some(LONG_BYTES));
            fire.progress(400).await;
            fire.load.set_value_bytes(None);
            let mut client = Client::connect(&member(fire)).await.expect("answers");
            arm(&fire.cluster.members[0], site, "panic");
            let past = pb::WatchCreateRequest { start_revision: 2, ..create(b"own/", b"own0") };
            let requests = [RequestUnion::CreateRequest(past)];
            let reading = tokio::spawn(async move {
                let mut watch = Watching::open(&mut client, requests).await;
                loop {
                    watch.next().await;
                }
            });
            must_end(fire, 0, site).await;
            reading.abort();
        }
        "watch_before_progress" => {
            let mut client = Client::connect(&member(fire)).await.expect("answers");
            let mut watch = Watching::create(&mut client, create(b"own/", b"own0")).await;
            arm(&fire.cluster.members[0], site, "panic");
            watch.ask(Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}))).await;
            must_end(fire, 0, site).await;
        }
        "watch_before_victims" => {
            let mut client = Client::connect(&member(fire)).await.expect("answers");
            let mut watch = Watching::create(&mut client, create(b"own/", b"own0")).await;
            // More than a stream may have open, and its connection and both their buffers; then it is read again.
            fire.load.set_value_bytes(Some(LONG_BYTES));
            fire.progress(400).await;
            fire.load.set_value_bytes(None);
            arm(&fire.cluster.members[0], site, "panic");
            let reading = tokio::spawn(async move {
                loop {
                    watch.next().await;
                }
            });
            must_end(fire, 0, site).await;
            reading.abort();
        }
        _ => {
            let snapshot = site.starts_with("snap_") || site.ends_with("_truncate");
            fire.load.set_value_bytes(snapshot.then_some(LONG_BYTES));
            arm(&fire.cluster.members[0], site, "panic");
            must_end(fire, 0, site).await;
            fire.load.set_value_bytes(None);
        }
    }
}

fn has_store(fire: &Fire) -> bool {
    let member = fire.cluster.members[0].data_dir().join("member");
    let names = std::fs::read_dir(member).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with("store-"))
}
