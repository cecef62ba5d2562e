//! What a restart finds: the store if it may be trusted, else snapshot and log; and a log that stays bounded.

use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::process::{Kind, Server};
use mechi_tests::rng::Rng;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// Log segments in use while snapshots are made at their pace.
const SEGMENTS_MAX: usize = 5;

/// Log segments to be used (again): two ahead, four trimmed ones.
const FREE_MAX: usize = 6;

/// Bytes of each value of [`write_mib`].
const VALUE_BYTES: usize = 128 << 10;

fn member(server: &Server) -> PathBuf {
    server.data_dir().join("member")
}

fn names(dir: &Path, part: &str) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(dir) else { return Vec::new() };
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part));
    found.flatten().map(|entry| entry.path()).filter(named).collect()
}

fn remove_store(server: &Server) {
    let stores = names(&member(server), "store-");
    assert_eq!(stores.len(), 1, "one store folder");
    fs::remove_dir_all(&stores[0]).expect("removable");
}

/// Whether the last start made the store anew.
fn rebuilt(server: &Server) -> bool {
    let log = server.log();
    assert!(log.contains("opened the data directory"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log.contains("rebuilt")
}

/// Overwrites 64 keys again and again with `mib` MiB of incompressible values.
async fn write_mib(endpoint: &str, mib: u64, seed: u64) {
    let puts = mib * MIB / VALUE_BYTES as u64;
    let writers = (0..8).map(|writer| {
        let endpoint = endpoint.to_owned();
        tokio::spawn(async move {
            let mut client = Client::connect(&endpoint).await.expect("answers");
            for n in (writer..puts).step_by(8) {
                let mut rng = Rng::new(seed << 32 | n);
                let mut value = vec![0u8; VALUE_BYTES];
                value
                    .chunks_mut(8)
                    .for_each(|chunk| chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]));
                client.put(format!("churn/{:02}", n % 64), value).await.expect("puts");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
}

#[derive(PartialEq, Debug)]
struct Seen {
    revision: i64,
    kvs: Vec<(bytes::Bytes, bytes::Bytes, i64, i64, i64, i64)>,
    hash: u32,
}

async fn look(endpoint: &str) -> Seen {
    let mut client = Client::connect(endpoint).await.expect("answers");
    let all = client.all().await.expect("reads");
    let hash = client.maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.expect("hashes").into_inner().hash;
    let kvs = all.kvs.into_iter();
    Seen {
        revision: all.header.expect("a header").revision,
        kvs: kvs.map(|kv| (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)).collect(),
        hash,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_and_a_kill_keep_the_store_a_lost_one_is_rebuilt() {
    let mut server = Server::start(Kind::Mechi, &["--store-flush-interval=200ms"]).expect("mechi starts");
    write_mib(&server.endpoint(), 4, 1).await;
    let before = look(&server.endpoint()).await;

    assert!(server.stop().expect("stops").success(), "{}", server.log());
    server.spawn().expect("mechi starts again");
    assert!(!rebuilt(&server), "after a clean stop the store is used:\n{}", server.log());
    assert_eq!(look(&server.endpoint()).await, before);

    // Within one boot of the machine a killed process leaves a whole store behind.
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.kill().expect("runs");
    server.spawn().expect("mechi starts again");
    assert!(!rebuilt(&server), "after a kill the store is used:\n{}", server.log());
    assert_eq!(look(&server.endpoint()).await, before);

    server.kill().expect("runs");
    remove_store(&server);
    server.spawn().expect("mechi starts again");
    assert!(rebuilt(&server), "{}", server.log());
    assert_eq!(look(&server.endpoint()).await, before);

    // Another boot of the machine: a store that was not closed is not even looked at, one that was closed is used.
    for clean in [false, true] {
        if clean {
            assert!(server.stop().expect("stops").success(), "{}", server.log());
        } else {
            server.kill().expect("runs");
        }
        let stores = names(&member(&server), "store-");
        fs::rename(&stores[0], stores[0].with_file_name("store-another-boot")).expect("renames");
        server.spawn().expect("mechi starts again");
        assert_eq!(rebuilt(&server), !clean, "clean: {clean}\n{}", server.log());
        assert_eq!(look(&server.endpoint()).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_snapshots_are_made_and_the_log_stays_bounded() {
    let mut server = Server::start(Kind::Mechi, &["--store-flush-interval=200ms"]).expect("mechi starts");
    let (wal, snap) = (member(&server).join("wal"), member(&server).join("snap"));
    let in_use = || names(&wal, ".wal").len();
    let mut most = 0;
    // 8 MiB live, compacted after every 48 MiB; 528 MiB of log in all, more than eight segments of 64 MiB.
    for round in 0..11 {
        write_mib(&server.endpoint(), 48, 100 + round).await;
        most = most.max(in_use());
        let mut client = Client::connect(&server.endpoint()).await.expect("answers");
        let revision = client.get("churn/00").await.expect("reads").header.expect("a header").revision;
        client.kv.compact(pb::CompactionRequest { revision, physical: true }).await.expect("compacts");
    }
    let log = server.log();
    let snapshots = log.matches("saved snapshot").count();
    let (free, first) = (names(&wal, ".free").len(), names(&wal, ".wal").into_iter().min().expect("a segment"));
    println!("log: at most {most} segments in use, {free} to be used again, {snapshots} snapshots, oldest {first:?}");
    assert!(snapshots >= 4, "{snapshots} snapshots:\n{log}");
    // What is behind the older of two snapshots, of which each takes 64 MiB of log, and the segment being written.
    assert!(most <= SEGMENTS_MAX, "{most} segments in use");
    assert!(!first.ends_with("0000000000000001.wal"), "the oldest segment is still there");
    // The reserve and what was trimmed: files that are written again, not made anew.
    assert!((2..=FREE_MAX).contains(&free), "{free} segments are free");
    assert!(names(&snap, "").len() >= 2, "manifest and chunk");

    // Snapshot and log are enough.
    let before = look(&server.endpoint()).await;
    server.kill().expect("runs");
    remove_store(&server);
    let began = Instant::now();
    server.spawn().expect("mechi starts from snapshot and log");
    println!("rebuilt from snapshot and log in {:.1?}", began.elapsed());
    assert!(rebuilt(&server));
    assert_eq!(look(&server.endpoint()).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_a_snapshot_is_written_loses_nothing() {
    let mut server = Server::start(Kind::Mechi, &["--store-flush-interval=100ms"]).expect("mechi starts");
    let mut rng = Rng::new(11);
    let (mut half_written, mut newest) = (0, 0);
    for round in 0..6 {
        // 70 MiB of log make a snapshot due; the kill comes somewhere around its making.
        let endpoint = server.endpoint();
        let snap = member(&server).join("snap");
        let known = names(&snap, "");
        let writing = tokio::spawn(async move { write_mib(&endpoint, 70, 200 + round).await });
        writing.await.expect("no panic");
        // Only chunks of this round's snapshot are new; it may be whole already.
        let deadline = Instant::now() + Duration::from_secs(5);
        while names(&snap, "").iter().all(|name| known.contains(name)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let before = look(&server.endpoint()).await;
        std::thread::sleep(Duration::from_millis(rng.below(30)));
        server.kill().expect("runs");
        half_written += u64::from(!names(&snap, ".tmp").is_empty());
        if rng.chance(50) {
            remove_store(&server);
        }
        server.spawn().expect("mechi starts again");
        let after = look(&server.endpoint()).await;
        assert_eq!(after, before);
        assert!(after.revision >= newest);
        newest = after.revision;
        let mut client = Client::connect(&server.endpoint()).await.expect("answers");
        client.kv.compact(pb::CompactionRequest { revision: newest, physical: false }).await.expect("compacts");
    }
    println!("kill in a snapshot: 6 rounds, {half_written} with a half-written file");
}

/// etcd #17780: the revision came from the newest surviving key, so that a crash during the compaction that removed
/// the last tombstones set it back.
#[tokio::test(flavor = "multi_thread")]
async fn reg_17780_revision_after_compaction_crash() {
    let mut server = Server::start(Kind::Mechi, &["--store-flush-interval=50ms"]).expect("mechi starts");
    let mut rng = Rng::new(17_780);
    let mut newest = 1;
    for round in 0..10 {
        let mut client = Client::connect(&server.endpoint()).await.expect("answers");
        for n in 0..60 {
            newest = client.put(format!("gone/{n:03}"), format!("{round}")).await.expect("puts");
        }
        // The newest revisions are tombstones alone, and compaction may remove every one of them.
        for n in 0..60 {
            let delete = pb::DeleteRangeRequest { key: format!("gone/{n:03}").into(), ..Default::default() };
            let deleted = client.kv.delete_range(delete).await.expect("deletes").into_inner();
            newest = deleted.header.expect("a header").revision;
        }
        if rng.chance(50) {
            tokio::time::sleep(Duration::from_millis(rng.below(120))).await;
        }
        let compact = pb::CompactionRequest { revision: newest, physical: rng.chance(30) };
        client.kv.compact(compact).await.expect("compacts");
        std::thread::sleep(Duration::from_millis(rng.below(60)));
        server.kill().expect("runs");
        server.spawn().expect("mechi starts again");
        let mut client = Client::connect(&server.endpoint()).await.expect("answers");
        let all = client.all().await.expect("reads");
        assert!(all.kvs.is_empty());
        assert_eq!(all.header.expect("a header").revision, newest, "round {round}: the revision went back");
        let compacted = client.kv.compact(compact).await.expect_err("compacted already");
        assert!(compacted.message().contains("has been compacted"), "{compacted}");
        let next = client.put("next", "n").await.expect("puts");
        assert_eq!(next, newest + 1);
        let delete = pb::DeleteRangeRequest { key: "next".into(), ..Default::default() };
        client.kv.delete_range(delete).await.expect("deletes");
    }
}
