//! What the keeper of store and snapshots asks of the rest of the member.

use crate::driver::DriverHandle;
use crate::space::Space;
use crate::store::flush::Hooks;
use crate::view::Views;
use crate::wal_thread::{Snapshot, WalHandle};
use mechi_replica::outcome::Fatal;
use mechi_replica::snapshot::manifest::Manifest;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The member as its keeper sees it.
pub struct Keeping {
    views: Arc<Views>,
    space: Arc<Space>,
    wal: WalHandle,
    driver: DriverHandle,
    fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    /// Bytes of records that had been logged when the newest snapshot was made.
    logged_before: AtomicU64,
}

impl Keeping {
    /// Puts it together. What the log holds at the start counts as written since the newest snapshot.
    pub fn new(
        views: Arc<Views>,
        space: Arc<Space>,
        wal: WalHandle,
        driver: DriverHandle,
        fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    ) -> Self {
        Self { views, space, wal, driver, fatal, logged_before: AtomicU64::new(0) }
    }
}

impl Hooks for Keeping {
    fn floor(&self) -> i64 {
        self.views.floor()
    }

    fn log_bytes_since(&self, _: u64) -> u64 {
        self.wal.logged().saturating_sub(self.logged_before.load(Relaxed))
    }

    fn free_bytes(&self) -> u64 {
        self.space.free_bytes()
    }

    fn snapshot_made(&self, manifest: &Manifest, trim: u64) {
        let (index, term) = (manifest.index(), manifest.term());
        tracing::info!(index, bytes = manifest.bytes(), trim, "saved snapshot");
        self.logged_before.store(self.wal.logged(), Relaxed);
        self.wal.snapshot(Snapshot { index, term, trim });
        self.driver.trimmed(trim);
    }

    fn fatal(&self, error: Fatal) {
        (self.fatal)(&error);
    }
}
