//! What a restart finds: the store if it may be trusted, else snapshot and log; and a log that stays bounded.

use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::process::{Kind, Server};
use mechi_tests::rng::Rng;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const MIB: u64 = 1 << 20;

/// So that there is a store, although everything fits into memory.
const WITH_STORE: [&str; 1] = ["--store-flush-interval=200ms"];

/// MiB of each step of a load: more than the 64 MiB of log that make a snapshot due.
const STEP_MIB: u64 = 72;

/// Steps of a load; without a trim more segments are in use after them than [`SEGMENTS_MAX`].
const STEPS: usize = 6;

/// Log segments of 32 MiB in use once a snapshot is made: what is behind the older of two, which is at most a step up to
/// the newest and 48 MiB after it, since 64 make the next one due; it begins and ends within a segment.
const SEGMENTS_MAX: usize = 5;

/// Log segments to be used (again): four ahead and a trimmed one, give or take those just being made.
const FREE_MIN: usize = 2;
const FREE_MAX: usize = 6;

/// How long anything may take that must happen, on a busy machine with a slow disk.
const SOON: Duration = Duration::from_secs(60);

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

/// Removes the store that a member with these flags keeps; without any there must be none.
fn remove_store(server: &Server, flags: &[&str]) {
    let stores = names(&member(server), "store-");
    assert_eq!(stores.len(), usize::from(!flags.is_empty()), "store folders with {flags:?}");
    stores.iter().for_each(|store| fs::remove_dir_all(store).expect("removable"));
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
    let mut server = Server::start(Kind::Mechi, &WITH_STORE).expect("mechi starts");
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
    remove_store(&server, &WITH_STORE);
    server.spawn().expect("mechi starts again");
    assert!(rebuilt(&server), "{}", server.log());
    assert_eq!(look(&server.endpoint()).await, before);

    // Another boot of the machine: a store that was not closed is not even looked at, one that was closed is used.
    for clean in [false, true] {
        // A store that was lost comes back with the next flush.
        let deadline = Instant::now() + Duration::from_secs(60);
        while names(&member(&server), "store-").is_empty() {
            assert!(Instant::now() < deadline, "nothing is flushed:\n{}", server.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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

/// What a member's folder holds of its log, and how many snapshots its process has saved.
#[derive(Debug)]
struct Kept {
    snapshots: usize,
    in_use: usize,
    free: usize,
    oldest: Option<String>,
}

impl Kept {
    fn look(server: &Server) -> Self {
        let wal = member(server).join("wal");
        let segments = names(&wal, ".wal");
        let oldest = segments.iter().min().and_then(|path| path.file_name());
        Self {
            snapshots: server.log().matches("saved snapshot").count(),
            in_use: segments.len(),
            free: names(&wal, ".free").len(),
            oldest: oldest.map(|name| name.to_string_lossy().into_owned()),
        }
    }

    /// Whether all that is due after so many steps is done.
    fn is_bounded(&self, steps: usize) -> bool {
        self.snapshots >= steps && self.in_use <= SEGMENTS_MAX && (FREE_MIN..=FREE_MAX).contains(&self.free)
    }
}

/// Puts a little now and then until it is stopped, so that snapshots are made and the log is trimmed under load.
fn trickle(endpoint: String) -> (Arc<AtomicBool>, JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let putting = tokio::spawn(async move {
        let mut client = Client::connect(&endpoint).await.expect("answers");
        let mut count = 0;
        while !stopped.load(Ordering::Relaxed) {
            client.put("trickle", count.to_string()).await.expect("puts");
            count += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        count
    });
    (stop, putting)
}

/// A snapshot is made by a thread beside the writes, one at a time, and what it makes superfluous goes after it: how
/// much is there at a moment is a question of pace. So each step makes one more due, and its bounds are waited for.
#[tokio::test(flavor = "multi_thread")]
async fn under_load_snapshots_are_made_and_the_log_stays_bounded() {
    under_load(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_snapshots_are_made_and_the_log_stays_bounded_over_a_store() {
    under_load(&WITH_STORE).await;
}

async fn under_load(flags: &[&str]) {
    let mut server = Server::start(Kind::Mechi, flags).expect("mechi starts");
    let (stop, putting) = trickle(server.endpoint());
    let mut client = Client::connect(&server.endpoint()).await.expect("answers");
    for step in 1..=STEPS {
        // 8 MiB live once it is compacted.
        write_mib(&server.endpoint(), STEP_MIB, 100 + step as u64).await;
        let written = Kept::look(&server);
        let revision = client.get("churn/00").await.expect("reads").header.expect("a header").revision;
        client.kv.compact(pb::CompactionRequest { revision, physical: true }).await.expect("compacts");
        let began = Instant::now();
        let kept = loop {
            let kept = Kept::look(&server);
            if kept.is_bounded(step) {
                break kept;
            }
            assert!(
                began.elapsed() < SOON,
                "step {step} of {STEPS}, {STEP_MIB} MiB each: after {SOON:?} {kept:?}, and right after the writes \
                 {written:?}; wanted {step} snapshots or more, {SEGMENTS_MAX} segments in use or fewer, {FREE_MIN} to \
                 {FREE_MAX} free:\n{}",
                server.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        println!("log: step {step}: {written:?}, {:.1?} later {kept:?}", began.elapsed());
        // Each is made once it is due, and not again and again.
        assert!(kept.snapshots <= 2 * step, "step {step} of {STEPS}: {kept:?}:\n{}", server.log());
    }
    stop.store(true, Ordering::Relaxed);
    println!("log: {} puts beside", putting.await.expect("no panic"));
    let kept = Kept::look(&server);
    assert_ne!(kept.oldest.as_deref(), Some("0000000000000001.wal"), "the oldest segment is still there: {kept:?}");
    let snap = names(&member(&server).join("snap"), "");
    assert!(snap.len() >= 2, "manifest and chunk: {snap:?}, {kept:?}");

    // Snapshot and log are enough.
    let before = look(&server.endpoint()).await;
    server.kill().expect("runs");
    remove_store(&server, flags);
    let began = Instant::now();
    server.spawn().expect("mechi starts from snapshot and log");
    println!("rebuilt from snapshot and log in {:.1?}", began.elapsed());
    assert_eq!(rebuilt(&server), !flags.is_empty(), "only a store that should be there is missed: {}", server.log());
    assert_eq!(look(&server.endpoint()).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_a_snapshot_is_written_loses_nothing() {
    kill_in_a_snapshot(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_a_snapshot_is_written_from_a_store_loses_nothing() {
    kill_in_a_snapshot(&WITH_STORE).await;
}

async fn kill_in_a_snapshot(flags: &[&str]) {
    let mut server = Server::start(Kind::Mechi, flags).expect("mechi starts");
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
            remove_store(&server, flags);
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
    compaction_crash(&["--store-flush-interval=50ms"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reg_17780_revision_after_compaction_crash_without_a_store() {
    compaction_crash(&[]).await;
}

async fn compaction_crash(flags: &[&str]) {
    let mut server = Server::start(Kind::Mechi, flags).expect("mechi starts");
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

/// The least memory that may be given; half of it is for values, and above three quarters of that the store is filled.
const LITTLE_MEMORY: &str = "--memory-limit=64MiB";

/// Bytes of each value of [`fill_until_killed`].
const FILL_BYTES: usize = 64 << 10;

/// Puts new keys, deletes older ones and compacts now and then until the server is gone; returns how many puts were
/// acknowledged. Key n is deleted after put n + 25, for each n that 50 divides.
async fn fill_until_killed(endpoint: String) -> u64 {
    let mut client = Client::connect(&endpoint).await.expect("answers");
    let value = vec![7u8; FILL_BYTES];
    let mut count = 0;
    loop {
        let Ok(revision) = client.put(format!("fill/{count:05}"), value.clone()).await else { return count };
        count += 1;
        if count % 50 == 26 {
            let gone = pb::DeleteRangeRequest { key: format!("fill/{:05}", count - 26).into(), ..Default::default() };
            let compact = pb::CompactionRequest { revision, physical: false };
            if client.kv.delete_range(gone).await.is_err() || client.kv.compact(compact).await.is_err() {
                return count;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_the_store_is_filled_for_the_first_time_loses_nothing() {
    let mut rng = Rng::new(41);
    let mut unfinished = 0;
    for round in 0..6 {
        let mut server = Server::start(Kind::Mechi, &[LITTLE_MEMORY]).expect("mechi starts");
        let filling = tokio::spawn(fill_until_killed(server.endpoint()));
        let deadline = Instant::now() + SOON;
        while names(&member(&server), "store-").is_empty() {
            assert!(Instant::now() < deadline, "memory runs short and the store is not used:\n{}", server.log());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        std::thread::sleep(Duration::from_millis(rng.below(600)));
        server.kill().expect("runs");
        let acknowledged = filling.await.expect("no panic");
        server.spawn().expect("mechi starts again");
        unfinished += u64::from(rebuilt(&server));
        let all = Client::connect(&server.endpoint()).await.expect("answers").all().await.expect("reads");
        let found: Vec<u64> = all.kvs.iter().map(|kv| number(&kv.key)).collect();
        // One more put may have been done without a word, and the last delete.
        let lives = |n: &u64| !n.is_multiple_of(50) || n + 26 > acknowledged;
        let maybe = |n: &u64| *n == acknowledged || n + 26 == acknowledged;
        let sure = |ns: &mut dyn Iterator<Item = u64>| ns.filter(|n| !maybe(n)).collect::<Vec<_>>();
        let wanted = sure(&mut (0..acknowledged).filter(lives));
        assert!(sure(&mut found.iter().copied()) == wanted, "round {round}: {acknowledged} acknowledged, {found:?}");
        assert!(all.kvs.iter().all(|kv| kv.value.len() == FILL_BYTES && kv.value.iter().all(|byte| *byte == 7)));
    }
    println!("kill in the first fill: 6 rounds, {unfinished} with a store that was not yet whole");
}

fn number(key: &[u8]) -> u64 {
    String::from_utf8_lossy(key).trim_start_matches("fill/").parse().expect("a key of fill_until_killed")
}
