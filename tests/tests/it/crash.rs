//! A real process, killed at random moments and robbed of its working store: no acknowledged write is lost, revisions
//! never go back, and a watch that resumes sees every event once.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::{Event, event::EventType};
use mechi_tests::client::Client;
use mechi_tests::process::{Kind, Server};
use mechi_tests::rng::Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const ROUNDS: u64 = 50;
const ACKNOWLEDGED_MIN: u64 = 50_000;
const WRITERS: u64 = 32;

/// How long the writes of one round, or a watch that catches up, may take.
const ROUND_MAX: Duration = Duration::from_secs(120);

/// What one writer knows: its key's last acknowledged counter and revision, and whether a later put has no outcome.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    acknowledged: u64,
    revision: i64,
    attempted: u64,
}

type Ledger = Arc<Mutex<BTreeMap<u64, Written>>>;

fn rounds() -> u64 {
    std::env::var("MECHI_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing() {
    let seed = 7;
    let mut rng = Rng::new(seed);
    let mut server = Server::start(Kind::Mechi, &["--store-flush-interval=200ms"]).expect("mechi starts");
    let ledger = Ledger::default();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let watcher = Watcher::start(server.endpoint());
    let mut damages = BTreeMap::<&str, u64>::new();
    let (mut newest, mut round) = (1, 0);
    while round < rounds() || acknowledged.load(Ordering::Relaxed) < ACKNOWLEDGED_MIN * rounds() / ROUNDS {
        round += 1;
        // A slow machine, or a slow disk, takes longer for as many writes.
        let goal = acknowledged.load(Ordering::Relaxed) + rng.below(2 * ACKNOWLEDGED_MIN / ROUNDS);
        let writers = write(&server.endpoint(), &ledger, &acknowledged);
        tokio::time::sleep(Duration::from_millis(50 + rng.below(400))).await;
        let deadline = Instant::now() + ROUND_MAX;
        while acknowledged.load(Ordering::Relaxed) < goal {
            assert!(Instant::now() < deadline, "round {round}: {acknowledged:?} of {goal} writes in {ROUND_MAX:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill().expect("the server runs");
        for writer in writers {
            writer.await.expect("a writer ends with its connection");
        }
        if rng.chance(50) {
            *damages.entry(damage_store(&server.data_dir(), &mut rng)).or_default() += 1;
        }
        server.spawn().unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
        newest = check(&server.endpoint(), &ledger, newest).await;
    }
    let events = watcher.finish(newest).await;
    check_history(&events, &ledger, newest);
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    println!(
        "kill -9: {round} rounds, {} acknowledged writes, {} events, store damaged: {damages:?}",
        acknowledged.load(Ordering::Relaxed),
        events.len(),
    );
}

/// Starts writers that put ever higher counters until their connection breaks.
fn write(endpoint: &str, ledger: &Ledger, acknowledged: &Arc<AtomicU64>) -> Vec<JoinHandle<()>> {
    (0..WRITERS)
        .map(|writer| {
            let (endpoint, ledger, acknowledged) = (endpoint.to_owned(), ledger.clone(), acknowledged.clone());
            tokio::spawn(async move {
                let Ok(mut client) = Client::connect(&endpoint).await else { return };
                loop {
                    let counter = {
                        let mut ledger = ledger.lock().expect("no writer panics");
                        let written = ledger.entry(writer).or_default();
                        written.attempted += 1;
                        written.attempted
                    };
                    let Ok(revision) = client.put(key(writer), counter.to_string()).await else { return };
                    let mut ledger = ledger.lock().expect("no writer panics");
                    let written = ledger.entry(writer).or_default();
                    assert!(revision > written.revision, "revision {revision} after {}", written.revision);
                    (written.acknowledged, written.revision) = (counter, revision);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect()
}

fn key(writer: u64) -> String {
    format!("writer/{writer:03}")
}

/// Every acknowledged put is there, and nothing that was not attempted; returns the store's revision.
async fn check(endpoint: &str, ledger: &Ledger, before: i64) -> i64 {
    let mut client = Client::connect(endpoint).await.expect("the server answers");
    let all = client.all().await.expect("the server reads");
    let revision = all.header.expect("a header").revision;
    let ledger = ledger.lock().expect("no writer panics");
    let newest = ledger.values().map(|written| written.revision).max().unwrap_or_default();
    assert!(revision >= newest.max(before), "revision {revision}, acknowledged {newest}, before {before}");
    let found: BTreeMap<String, (u64, i64)> = all.kvs.iter().map(found).collect();
    for (writer, written) in ledger.iter() {
        let (counter, at) = found.get(&key(*writer)).copied().unwrap_or_default();
        assert!(
            counter >= written.acknowledged && counter <= written.attempted && at >= written.revision,
            "{} holds {counter} of revision {at}, but {written:?}",
            key(*writer),
        );
    }
    revision
}

fn found(kv: &mechi_proto::mvccpb::KeyValue) -> (String, (u64, i64)) {
    let counter = String::from_utf8_lossy(&kv.value).parse().expect("a counter");
    (String::from_utf8_lossy(&kv.key).into_owned(), (counter, kv.mod_revision))
}

/// Deletes, truncates or flips the working store, or passes it off as another boot's; the log must carry all.
pub(crate) fn damage_store(data: &Path, rng: &mut Rng) -> &'static str {
    let stores: Vec<PathBuf> = walk(&data.join("member")).into_iter().filter(|path| is_store(path)).collect();
    let Some(store) = stores.first() else { return "no store yet" };
    let files: Vec<PathBuf> =
        files(store).into_iter().filter(|path| path.metadata().is_ok_and(|m| m.len() > 0)).collect();
    match rng.below(4) {
        0 => {
            std::fs::remove_dir_all(store).expect("the store can be removed");
            "deleted"
        }
        1 if !files.is_empty() => {
            let file = std::fs::OpenOptions::new().write(true).open(rng.pick(&files)).expect("writable");
            file.set_len(file.metadata().expect("a file").len() / 2).expect("truncates");
            "truncated"
        }
        2 if !files.is_empty() => {
            let path = rng.pick(&files);
            let mut bytes = std::fs::read(path).expect("readable");
            for _ in 0..8 {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            std::fs::write(path, bytes).expect("writable");
            "bits flipped"
        }
        _ => {
            // A power cut: another boot of the machine finds the folder, and some of its writes never happened.
            let other = store.with_file_name("store-00000000-0000-0000-0000-000000000000");
            let _ = std::fs::remove_dir_all(&other);
            std::fs::rename(store, &other).expect("the store can be renamed");
            for path in self::files(&other) {
                if rng.chance(50) {
                    let mut bytes = std::fs::read(&path).expect("readable");
                    let from = rng.below(bytes.len() as u64 + 1) as usize;
                    bytes[from..].fill(0);
                    std::fs::write(&path, bytes).expect("writable");
                }
            }
            "power cut"
        }
    }
}

fn is_store(path: &Path) -> bool {
    path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("store-"))
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    walk(dir).into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Watches everything from revision 2 on, over all restarts, resuming after the last event it saw.
struct Watcher {
    events: Arc<Mutex<Vec<Event>>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Watcher {
    fn start(endpoint: String) -> Self {
        let (events, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(watch(endpoint, events.clone(), stop.clone()));
        Self { events, stop, task }
    }

    /// Waits until the watch has seen `revision`.
    async fn finish(self, revision: i64) -> Vec<Event> {
        let deadline = Instant::now() + ROUND_MAX;
        while Instant::now() < deadline {
            if last_revision(&self.events.lock().expect("no panic")) >= revision {
                break;
            }
            assert!(!self.task.is_finished(), "the watcher ended");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        self.task.abort();
        let events = self.events.lock().expect("no panic").clone();
        assert!(last_revision(&events) >= revision, "the watch stopped at {} of {revision}", last_revision(&events));
        events
    }
}

fn last_revision(events: &[Event]) -> i64 {
    events.last().and_then(|event| event.kv.as_ref()).map_or(1, |kv| kv.mod_revision)
}

async fn watch(endpoint: String, events: Arc<Mutex<Vec<Event>>>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let _ = watch_once(&endpoint, &events).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn watch_once(endpoint: &str, events: &Mutex<Vec<Event>>) -> anyhow::Result<()> {
    let mut client = Client::connect(endpoint).await?;
    let start_revision = last_revision(&events.lock().expect("no panic")) + 1;
    let zero = Bytes::from_static(&[0]);
    let create = pb::WatchCreateRequest {
        key: zero.clone(),
        range_end: zero,
        start_revision,
        prev_kv: true,
        ..Default::default()
    };
    let request = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    tx.send(request).await?;
    let mut responses = client.watch.watch(tokio_stream::wrappers::ReceiverStream::new(rx)).await?.into_inner();
    while let Some(response) = responses.message().await? {
        assert!(!response.canceled, "canceled: {response:?}");
        events.lock().expect("no panic").extend(response.events);
    }
    drop(tx);
    Ok(())
}

/// One event per revision, none skipped, none repeated; each key's counters ascend and every predecessor is right.
fn check_history(events: &[Event], ledger: &Ledger, newest: i64) {
    let mut last = BTreeMap::<Bytes, Bytes>::new();
    let mut at = BTreeMap::<String, BTreeMap<i64, u64>>::new();
    for (n, event) in events.iter().enumerate() {
        let kv = event.kv.as_ref().expect("an event has a key");
        assert_eq!(event.r#type, EventType::Put as i32);
        assert_eq!(kv.mod_revision, n as i64 + 2, "a gap or a repeat");
        let previous = event.prev_kv.as_ref().map(|kv| kv.value.clone());
        assert_eq!(previous, last.insert(kv.key.clone(), kv.value.clone()), "the predecessor at {}", kv.mod_revision);
        let (key, (counter, revision)) = found(kv);
        at.entry(key).or_default().insert(revision, counter);
    }
    assert!(last_revision(events) >= newest);
    for (writer, written) in ledger.lock().expect("no panic").iter() {
        let seen = at.get(&key(*writer)).and_then(|seen| seen.get(&written.revision));
        assert_eq!(seen, Some(&written.acknowledged), "{}: {written:?}", key(*writer));
    }
}
