//! The working store over sled 0.34.7; no other file knows its types.
//!
//! sled panics, and may hang, where other libraries return errors. So one thread makes all its writes, and a caller
//! waits for it no longer than a watchdog allows; reads catch panics. After the first failure of any kind the store
//! answers nothing more: the engine is lost, and the next open rebuilds it from the snapshot and the log.

use crate::failpoint::failpoint;
use crate::panics::guarded;
use bytes::Bytes;
use mechi_replica::outcome::Fatal;
use mechi_replica::store::{Batch, Store};
use parking_lot::{Mutex, RwLock};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// A write that takes longer is taken for a hang.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A store in one folder.
#[derive(Debug)]
pub struct SledStore {
    folder: PathBuf,
    cache_bytes: u64,
    db: RwLock<Handle>,
    writer: Mutex<Option<SyncSender<Job>>>,
    lost: OnceLock<String>,
}

/// What there is to read.
#[derive(Debug)]
enum Handle {
    /// Nothing was ever written: there is no folder.
    Not,
    Yes(sled::Db),
    Closed,
}

type Done = SyncSender<Result<(), String>>;

enum Job {
    Commit(Box<Batch>, Done),
    Close(Done),
}

impl SledStore {
    /// Opens or creates the store in `folder`, on a thread of its own; gives up after `timeout`.
    ///
    /// - Units: `cache_bytes` bounds sled's page cache.
    /// - Errors: [`Fatal::EngineLost`] for an error, a panic or a hang.
    pub fn open(folder: &Path, cache_bytes: u64, timeout: Duration) -> Result<Self, Fatal> {
        let store = Self::when_needed(folder, cache_bytes);
        store.open_now(&mut store.writer.lock(), timeout)?;
        Ok(store)
    }

    /// A store that is empty, and whose folder is made with the first commit.
    pub fn when_needed(folder: &Path, cache_bytes: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            cache_bytes,
            db: RwLock::new(Handle::Not),
            writer: Mutex::new(None),
            lost: OnceLock::new(),
        }
    }

    fn open_now(&self, writer: &mut Option<SyncSender<Job>>, timeout: Duration) -> Result<(), Fatal> {
        let (folder, cache_bytes) = (&self.folder, self.cache_bytes);
        let config = sled::Config::default()
            .path(folder)
            .cache_capacity(cache_bytes)
            // Our flusher decides when something is written; sled's own one would also swallow I/O errors.
            .flush_every_ms(None);
        let (opened, result) = sync_channel(1);
        let (jobs, queue) = sync_channel(1);
        let files = folder.clone();
        let spawned = thread::Builder::new().name("store".into()).spawn(move || {
            let db = guarded(|| config.open()).map_err(|_| "it panicked".to_string());
            match db.and_then(|db| db.map_err(|error| error.to_string())) {
                Ok(db) => {
                    // Nobody waits for it any more if the time was up.
                    if opened.send(Ok(db.clone())).is_ok() {
                        write(db, &queue, &files);
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        });
        spawned.map_err(|source| Fatal::Io { context: "spawn the store's thread".into(), source })?;
        let lost = |detail: String| Fatal::EngineLost(format!("open {}: {detail}", folder.display()));
        match result.recv_timeout(timeout) {
            Ok(Ok(db)) => {
                *self.db.write() = Handle::Yes(db);
                *writer = Some(jobs);
                Ok(())
            }
            Ok(Err(error)) => Err(lost(error)),
            Err(RecvTimeoutError::Timeout) => Err(lost(format!("no answer in {} s", timeout.as_secs()))),
            Err(RecvTimeoutError::Disconnected) => Err(lost("its thread died".into())),
        }
    }

    /// The folder that the store lives in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Hands everything to the operating system and closes; the caller syncs the folder's files, if it is there.
    ///
    /// From here on every call fails. Errors: [`Fatal::EngineLost`], also if closing takes too long.
    pub fn close(&self) -> Result<(), Fatal> {
        self.check()?;
        let writer = self.writer.lock().take();
        // The writer's is the last handle then; it waits until sled's own threads have let go of the files too.
        drop(std::mem::replace(&mut *self.db.write(), Handle::Closed));
        let Some(jobs) = writer else { return Ok(()) };
        let (done, result) = sync_channel(1);
        self.wait(jobs.send(Job::Close(done)).is_ok(), &result, CLOSE_TIMEOUT)
    }

    fn check(&self) -> Result<(), Fatal> {
        self.lost.get().map_or(Ok(()), |why| Err(Fatal::EngineLost(why.clone())))
    }

    fn lose(&self, why: String) -> Fatal {
        Fatal::EngineLost(self.lost.get_or_init(|| why).clone())
    }

    fn wait(&self, sent: bool, result: &Receiver<Result<(), String>>, timeout: Duration) -> Result<(), Fatal> {
        if !sent {
            return Err(self.lose("the store's thread died".into()));
        }
        match result.recv_timeout(timeout) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lose(error)),
            Err(RecvTimeoutError::Timeout) => Err(self.lose(format!("a write took over {} s", timeout.as_secs()))),
            Err(RecvTimeoutError::Disconnected) => Err(self.lose("the store's thread died".into())),
        }
    }

    /// Runs a read; a panic or an error ends the store. Where nothing was ever written, nothing is found.
    fn read<T: Default>(&self, read: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, Fatal> {
        self.check()?;
        let opened = self.db.read();
        let db = match &*opened {
            Handle::Not => return Ok(T::default()),
            Handle::Yes(db) => db,
            Handle::Closed => return Err(closed()),
        };
        match guarded(|| read(db)) {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(self.lose(error.to_string())),
            Err(_) => Err(self.lose("a read panicked".into())),
        }
    }
}

fn closed() -> Fatal {
    Fatal::EngineLost("the store is closed".into())
}

/// How long an empty store may take to open.
const FIRST_OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Closing writes what sled holds back, at most its cache.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(120);

/// Milliseconds between two looks whether sled has closed its files.
const CLOSE_POLL_MS: u64 = 1;

/// The file that sled holds locked as long as any of its threads uses it.
const LOCKED: &str = "db";

/// Makes all writes, in order; ends when the store is closed or dropped. A panic ends it too, which callers notice.
fn write(db: sled::Db, queue: &Receiver<Job>, folder: &Path) {
    while let Ok(job) = queue.recv() {
        match job {
            Job::Commit(batch, done) => {
                let mut writes = sled::Batch::default();
                batch.removes.into_iter().for_each(|key| writes.remove(key));
                batch.puts.into_iter().for_each(|(key, value)| writes.insert(key, value));
                let result = db.apply_batch(writes).map_err(|error| error.to_string());
                // A caller that gave up has marked the store as lost.
                let _ = done.send(result);
            }
            Job::Close(done) => {
                let flushed = db.flush().map(|_| ()).map_err(|error| error.to_string());
                drop(db);
                let _ = done.send(flushed.and_then(|()| released(folder)));
                return;
            }
        }
    }
}

/// Waits until no thread of sled's pool has the files open: dropping the last handle does not wait for them, and a write
/// that comes after the caller's fsync would make a lie of the note that the store was closed.
pub(crate) fn released(folder: &Path) -> Result<(), String> {
    let path = folder.join(LOCKED);
    let file = File::open(&path).map_err(|error| format!("open {}: {error}", path.display()))?;
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    loop {
        match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(CLOSE_POLL_MS));
            }
            Err(error) => return Err(format!("lock {}: {error}", path.display())),
        }
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        self.read(|db| Ok(db.get(key)?.map(|value| Bytes::copy_from_slice(&value))))
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, Fatal> {
        if from > to {
            return Ok(None);
        }
        self.read(|db| {
            let last = db.range(from..=to).next_back().transpose()?;
            Ok(last.map(|(key, value)| (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value))))
        })
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fatal> {
        if from >= to {
            return Ok(());
        }
        self.read(|db| {
            for pair in db.range(from..to) {
                let (key, value) = pair?;
                if !visit(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn commit(&self, batch: Batch) -> Result<(), Fatal> {
        self.check()?;
        let mut writer = self.writer.lock();
        if writer.is_none() && matches!(*self.db.read(), Handle::Not) {
            self.open_now(&mut writer, FIRST_OPEN_TIMEOUT)?;
        }
        let jobs = writer.as_ref().ok_or_else(closed)?;
        failpoint!("engine_before_commit", |why| Err(self.lose(why)));
        let (done, result) = sync_channel(1);
        self.wait(jobs.send(Job::Commit(Box::new(batch), done)).is_ok(), &result, WRITE_TIMEOUT)?;
        failpoint!("engine_after_commit", |why| Err(self.lose(why)));
        Ok(())
    }
}
