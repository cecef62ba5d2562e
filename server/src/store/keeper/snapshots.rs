//! Making snapshots, from memory or from the store, and dropping old ones.

use super::KeeperConfig;
use super::work::{Look, Work};
use crate::failpoint::failpoint;
use mechi_replica::mvcc::Export;
use mechi_replica::outcome::Fatal;
use mechi_replica::snapshot::build::Builder;
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::snapshot::{self, Error};
use parking_lot::RwLockReadGuard;
use std::time::{Duration, Instant};

/// How long a snapshot is not tried again after the disk was full.
const FULL_PAUSE: Duration = Duration::from_secs(10);

/// Bytes of log that are worth a snapshot on a disk that is too full for growth.
const TIGHT_LOG_BYTES_MIN: u64 = 4 << 20;

/// How long the keeper rests after a slice of a snapshot, in times of that slice: members on one machine, or a member
/// with few cores, serve meanwhile. A long log ends it.
const REST: u32 = 1;

impl Work {
    /// Whether the snapshot on its way rests now: not if the log behind it is half as long again as what one is made for.
    fn is_snapshot_resting(&self, look: &Look) -> bool {
        let due = snapshot::log_between(look.live, self.config.snapshot_log_bytes);
        self.snapshot_rest.is_on() && !self.is_urgent(look) && look.log_since < due + due / 2
    }

    /// On a disk that is too full for growth: whether a new snapshot would free more than a little, by the log that
    /// it makes superfluous or by what has gone since the last one.
    pub(super) fn frees_space(&self, log_since: u64, live: u64) -> bool {
        if !self.hooks.is_tight() {
            return false;
        }
        let held = self.snapshots.last().map_or(0, |manifest| manifest.tally.bytes);
        log_since >= TIGHT_LOG_BYTES_MIN.max(live / 8) || held > live.saturating_add(live / 8)
    }

    pub(super) fn step_snapshot(&mut self, look: &Look) -> Result<bool, Fatal> {
        if self.builder.is_none() && self.wanted.snapshot && self.flush.is_none() {
            self.retry_after = None;
            let (tally, meta) = match self.flusher.applied() {
                Some(applied) => (Some(applied.tally), applied.state(&*self.store)?),
                None if self.is_store_idle() => {
                    let state = self.state.read();
                    let meta = state.to_meta();
                    self.export = Some(Export::of_retained(&state.mvcc));
                    (None, meta)
                }
                None => return Ok(false),
            };
            self.make_room()?;
            failpoint!("snap_before_write");
            let KeeperConfig { disk, snapshots, member, .. } = &self.config;
            let previous = self.snapshots.last();
            self.building_since = Instant::now();
            self.builder = Some(Builder::new(disk.clone(), snapshots, *member, tally, meta, previous));
            self.wanted.snapshot = false;
        }
        if self.builder.is_some() && self.is_snapshot_resting(look) {
            return Ok(false);
        }
        let Some(builder) = &mut self.builder else { return Ok(false) };
        let begun = Instant::now();
        let stepped = match &mut self.export {
            None => builder.step(&*self.store),
            Some(export) => {
                let state = self.state.read();
                let slice = export.slice(&state.mvcc);
                RwLockReadGuard::unlock_fair(state);
                match slice? {
                    Some(entries) => builder.add(entries).map(|()| true),
                    None => builder.end().map(|()| false),
                }
            }
        };
        let result = match stepped {
            Ok(true) => {
                self.snapshot_rest.begin(begun.elapsed() * REST);
                return Ok(true);
            }
            Ok(false) => self.builder.take().expect("it was there above").finish(),
            Err(error) => {
                if let Some(builder) = self.builder.take() {
                    builder.abandon();
                }
                Err(error)
            }
        };
        self.export = None;
        self.snapshot_rest.end();
        match result {
            Ok(manifest) => {
                self.hooks.snapshot_took(self.building_since.elapsed());
                self.snapshot_made(manifest)?;
            }
            Err(Error::Fatal(error)) => return Err(error),
            Err(Error::Full(error)) => {
                tracing::warn!(%error, "no snapshot: the disk is full");
                self.retry_after = Some(Instant::now() + FULL_PAUSE);
                self.collect_garbage()?;
            }
        }
        Ok(true)
    }

    /// Drops the older snapshot and its log before a new one is written, if there would not be room for all of them.
    fn make_room(&mut self) -> Result<(), Fatal> {
        let [older, newest] = &self.snapshots[..] else { return Ok(()) };
        let live = self.state.read().mvcc.live_bytes();
        let used = older.bytes() + 2 * newest.bytes() + self.hooks.log_bytes_since(older.index());
        if snapshot::keeps_older(used, 0, live) {
            return Ok(());
        }
        self.snapshots.remove(0);
        self.collect_garbage()?;
        if let Some(newest) = self.snapshots.last() {
            self.hooks.log_is_superfluous(newest.index());
        }
        Ok(())
    }

    /// Keeps the new snapshot and, while the disk use allows it, its predecessor; frees all others.
    fn snapshot_made(&mut self, manifest: Manifest) -> Result<(), Fatal> {
        let live = self.state.read().mvcc.live_bytes();
        let log = self.hooks.log_bytes_since(self.snapshots.last().map_or(0, Manifest::index));
        let used: u64 = self.snapshots.last().map_or(0, Manifest::bytes) + manifest.bytes() + log;
        self.snapshots.push(manifest);
        let coming = snapshot::log_between(live, self.config.snapshot_log_bytes);
        let keep = if snapshot::keeps_older(used, coming, live) { 2 } else { 1 };
        let drop = self.snapshots.len().saturating_sub(keep);
        self.snapshots.drain(..drop);
        self.collect_garbage()?;
        if let (Some(oldest), Some(newest)) = (self.snapshots.first(), self.snapshots.last()) {
            self.hooks.snapshot_made(newest, oldest.index());
        }
        Ok(())
    }

    fn collect_garbage(&self) -> Result<u64, Fatal> {
        let kept: Vec<&Manifest> = self.snapshots.iter().collect();
        let pinned = |name: &str| self.hooks.is_pinned(name);
        snapshot::collect_garbage_but(&self.config.disk, &self.config.snapshots, &kept, &pinned)
    }
}
