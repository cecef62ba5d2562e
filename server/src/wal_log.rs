//! The write-ahead log on the real disk, as the log's thread uses it; it measures what it does.

use crate::disk::RealDisk;
use crate::metrics::Metrics;
use crate::wal_thread::{Log, Snapshot, Written};
use mechi_replica::outcome::Fatal;
use mechi_replica::types::Index;
use mechi_replica::wal::record::Record;
use mechi_replica::wal::{Error, Wal};
use std::sync::Arc;
use std::time::Instant;

/// A [`Wal`] and the metrics it keeps.
pub struct WalLog {
    wal: Wal<RealDisk>,
    metrics: Arc<Metrics>,
}

impl WalLog {
    /// Takes an open log.
    pub fn new(wal: Wal<RealDisk>, metrics: Arc<Metrics>) -> Self {
        Self { wal, metrics }
    }
}

impl Log for WalLog {
    fn append(&mut self, records: &[Record]) -> Result<Written, Fatal> {
        let (began, before) = (Instant::now(), self.logged());
        let written = match self.wal.append(records) {
            Ok(()) => Ok(Written::Whole),
            Err(Error::Full(_)) => Ok(Written::Full),
            Err(Error::Fatal(fatal)) => Err(fatal),
        };
        let disk = &self.metrics.disk;
        disk.wal_write_duration_seconds.observe(began.elapsed().as_secs_f64());
        disk.wal_write_bytes_total.add(i64::try_from(self.logged() - before).unwrap_or(i64::MAX));
        written
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        let began = Instant::now();
        let synced = self.wal.sync();
        self.metrics.disk.wal_fsync_duration_seconds.observe(began.elapsed().as_secs_f64());
        synced
    }

    fn mark(&mut self) -> Result<(), Fatal> {
        match self.wal.mark() {
            // A mark only saves work at the next open; on a full disk there is none.
            Ok(()) | Err(Error::Full(_)) => Ok(()),
            Err(Error::Fatal(fatal)) => Err(fatal),
        }
    }

    fn snapshot(&mut self, snapshot: Snapshot) -> Result<(), Fatal> {
        let record = Record::Snapshot { index: snapshot.index, term: snapshot.term };
        match self.wal.append(&[record]) {
            Ok(()) => {}
            // The next snapshot says it again; until then the log stays longer than it must.
            Err(Error::Full(_)) => return Ok(()),
            Err(Error::Fatal(fatal)) => return Err(fatal),
        }
        self.wal.sync()?;
        self.wal.trim(snapshot.trim)
    }

    fn close_clean(&mut self, applied: Index) -> Result<(), Fatal> {
        self.wal.sync()?;
        match self.wal.close_clean(applied) {
            // Without the record the next open rebuilds the store; nothing is lost.
            Ok(()) | Err(Error::Full(_)) => Ok(()),
            Err(Error::Fatal(fatal)) => Err(fatal),
        }
    }

    fn bytes(&self) -> u64 {
        self.wal.bytes()
    }

    fn logged(&self) -> u64 {
        self.wal.bytes_since(0)
    }
}
