//! The write-ahead log on the real disk, measured.

use crate::disk::RealDisk;
use crate::metrics::Metrics;
use crate::wal_thread::{Log, Written};
use mechi_replica::outcome::Fatal;
use mechi_replica::types::Index;
use mechi_replica::wal::Wal;
use mechi_replica::wal::record::Record;
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
        let (began, before) = (Instant::now(), self.wal.bytes_since(0));
        let written = Log::append(&mut self.wal, records);
        let disk = &self.metrics.disk;
        disk.wal_write_duration_seconds.observe(began.elapsed().as_secs_f64());
        disk.wal_write_bytes_total.add(i64::try_from(self.wal.bytes_since(0) - before).unwrap_or(i64::MAX));
        written
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        let began = Instant::now();
        let synced = self.wal.sync();
        self.metrics.disk.wal_fsync_duration_seconds.observe(began.elapsed().as_secs_f64());
        synced
    }

    fn mark(&mut self) -> Result<(), Fatal> {
        Log::mark(&mut self.wal)
    }

    fn trim(&mut self, index: Index) -> Result<(), Fatal> {
        self.wal.trim(index)
    }

    fn close_clean(&mut self, applied: Index) -> Result<(), Fatal> {
        Log::close_clean(&mut self.wal, applied)
    }

    fn bytes(&self) -> u64 {
        self.wal.bytes()
    }

    fn bytes_since(&self, index: Index) -> u64 {
        self.wal.bytes_since(index)
    }
}
