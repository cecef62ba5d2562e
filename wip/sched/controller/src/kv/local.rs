//! The store in this process behind the same calls as a real one, for tests and for trying things out.

use super::memory::Memory;
use super::{Batch, Error, Kv, LeaseId, Outcome, Page, Range, Revision, Txn, Watch};
use crate::limits::WATCH_BATCH_REVISIONS_MAX;
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A store that tasks share.
#[derive(Clone)]
pub struct Local {
    inner: Arc<Inner>,
}

struct Inner {
    store: Mutex<Memory>,
    changed: watch::Sender<Revision>,
    begun: Instant,
}

/// Changes of a [`Local`].
pub struct LocalWatch {
    store: Local,
    changed: watch::Receiver<Revision>,
    key: Bytes,
    end: Bytes,
    next: Revision,
}

impl Local {
    /// An empty store.
    pub fn new(cluster_id: u64) -> Self {
        let (changed, _) = watch::channel(1);
        let inner = Inner { store: Mutex::new(Memory::new(cluster_id)), changed, begun: Instant::now() };
        Self { inner: Arc::new(inner) }
    }

    /// Does something with the store; who watches hears of it afterwards.
    pub fn with<T>(&self, act: impl FnOnce(&mut Memory) -> T) -> T {
        let mut store = self.lock();
        let done = act(&mut store);
        let revision = store.revision();
        drop(store);
        self.inner.changed.send_replace(revision);
        done
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.inner.store.lock().expect("nobody panics with it")
    }

    /// Milliseconds since it was made: leases that are over end whenever it is used.
    fn now_ms(&self) -> u64 {
        self.inner.begun.elapsed().as_millis() as u64
    }

    fn at_now<T>(&self, act: impl FnOnce(&mut Memory, u64) -> T) -> T {
        let now_ms = self.now_ms();
        self.with(|store| {
            store.expire(now_ms);
            act(store, now_ms)
        })
    }
}

impl Kv for Local {
    type Watch = LocalWatch;

    async fn range(&self, range: Range) -> Result<Page, Error> {
        self.at_now(|store, _| store.range(&range))
    }

    async fn txn(&self, txn: &Txn) -> Result<Outcome, Error> {
        self.at_now(|store, _| store.txn(txn))
    }

    async fn watch(&self, key: Bytes, end: Bytes, from: Revision) -> Result<LocalWatch, Error> {
        let changed = self.inner.changed.subscribe();
        Ok(LocalWatch { store: self.clone(), changed, key, end, next: from })
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        Ok(self.at_now(|store, now_ms| store.grant(ttl.as_millis() as u64, now_ms)))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), Error> {
        self.at_now(|store, now_ms| store.keep_alive(lease, now_ms))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.at_now(|store, _| store.revoke(lease))
    }
}

impl Watch for LocalWatch {
    async fn next(&mut self) -> Result<Batch, Error> {
        loop {
            self.changed.borrow_and_update();
            let batch = self.store.lock().events(&self.key, &self.end, self.next, WATCH_BATCH_REVISIONS_MAX)?;
            if batch.through >= self.next {
                self.next = batch.through + 1;
                return Ok(batch);
            }
            if self.changed.changed().await.is_err() {
                return Err(Error::Unavailable("the store is gone".to_owned()));
            }
        }
    }
}
