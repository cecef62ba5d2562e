//! What the keeper of store and snapshots asks of the rest of the member.

use crate::driver::DriverHandle;
use crate::metrics::Metrics;
use crate::peer::Pins;
use crate::space::Space;
use crate::store::keeper::Hooks;
use crate::view::Views;
use crate::wal_thread::WalHandle;
use crate::watch::Watches;
use mechi_replica::outcome::Fatal;
use mechi_replica::snapshot::manifest::Manifest;
use std::sync::Arc;
use std::time::Duration;

/// The member as its keeper sees it.
pub struct Keeping {
    /// Who reads at which revision: nothing below is swept.
    pub views: Arc<Views>,
    /// How far watchers were told.
    pub watches: Watches,
    /// What the disk has room for.
    pub space: Arc<Space>,
    /// The log, which goes once a snapshot covers it.
    pub wal: WalHandle,
    /// Told of each snapshot, so that it can be offered.
    pub driver: DriverHandle,
    /// Told when the member cannot go on.
    pub fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    /// Where times are counted.
    pub metrics: Arc<Metrics>,
    /// Files that travel and must stay.
    pub pins: Arc<Pins>,
}

impl Hooks for Keeping {
    fn floor(&self) -> i64 {
        self.views.floor().min(self.watches.dispatched())
    }

    fn log_bytes_since(&self, index: u64) -> u64 {
        self.wal.bytes_since_snapshot(index)
    }

    fn may_flush(&self, bytes: u64) -> bool {
        self.space.may_flush(bytes)
    }

    fn flushed(&self) {
        self.space.flushed();
    }

    fn nothing_to_flush(&self) {
        self.space.nothing_to_flush();
    }

    fn is_tight(&self) -> bool {
        self.space.is_tight()
    }

    fn log_is_superfluous(&self, below: u64) {
        self.wal.trim(below);
    }

    fn snapshot_made(&self, manifest: &Manifest, trim: u64) {
        let (index, term) = (manifest.index(), manifest.term());
        tracing::info!(index, bytes = manifest.bytes(), trim, "saved snapshot");
        self.space.snapshot_made(manifest.tally.bytes);
        self.wal.snapshot(index, term);
        self.wal.trim(trim);
        self.driver.snapshot_made(index, term);
    }

    fn is_pinned(&self, name: &str) -> bool {
        self.pins.is_pinned(name)
    }

    fn fatal(&self, error: Fatal) {
        (self.fatal)(&error);
    }

    fn committed(&self, took: Duration) {
        self.metrics.disk.backend_commit_duration_seconds.observe(took.as_secs_f64());
    }

    fn snapshot_took(&self, took: Duration) {
        self.metrics.disk.backend_snapshot_duration_seconds.observe(took.as_secs_f64());
    }

    fn swept(&self, revisions: usize, took: Duration) {
        self.metrics.mvcc.db_compaction_keys_total.inc_by(revisions as u64);
        self.metrics.mvcc.db_compaction_pause_duration_milliseconds.observe(took.as_secs_f64() * 1e3);
    }
}
