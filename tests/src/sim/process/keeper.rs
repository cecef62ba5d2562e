//! The keeper of store and snapshots: flush, snapshot, sweep and evict, a slice at a time.

use super::*;

/// Steps for which no snapshot is tried again after the disk was full.
const FULL_PAUSE: u64 = 10;

/// Versions that one pass of an export gathers, so that what runs beside it meets many passes.
const EXPORT_PASS: usize = 5;

impl Process {
    /// Does one slice of what the keeper of store and snapshots does; returns whether there is more to do at once.
    pub(in crate::sim) fn keep(&mut self) -> Result<bool, String> {
        let applied = self.state.applied_index;
        let in_store = self.flusher.applied().map_or(0, |applied| applied.index);
        let newest = self.snapshots.last().map_or(0, Manifest::index);
        self.patience = self.patience.saturating_sub(1);
        if self.builder.is_none() && !self.fetching && self.patience == 0 && applied >= newest + self.snapshot_entries {
            self.wants_snapshot = true;
        }
        let mut more = !self.is_store_idle() && self.step_flush(applied, in_store)?;
        more |= self.step_snapshot(newest)?;
        more |= self.step_sweep()?;
        self.evictions += 1;
        // An export finds its values in memory.
        if self.evictions.is_multiple_of(8) && self.export.is_none() {
            self.state.mvcc.evict(self.flusher.flushed(), 0, SLICE_KEYS_MAX);
        }
        Ok(more)
    }

    /// Whether all data is in memory and the store is empty.
    pub(super) fn is_store_idle(&self) -> bool {
        self.flusher.applied().is_none() && self.flush.is_none() && self.state.applied_index < self.store_from
    }

    pub(super) fn step_flush(&mut self, applied: Index, in_store: Index) -> Result<bool, String> {
        let due = applied >= in_store + self.flush_entries || self.flusher.waiting() > 0 || self.wants_snapshot;
        if self.flush.is_none() && applied > in_store && due {
            self.flush = self.flusher.begin(self.state.to_meta());
        }
        let Some(flush) = &mut self.flush else { return Ok(false) };
        if let Some(entries) = flush.slice(&self.state.mvcc).map_err(say("flush"))? {
            let batch = flush.batch(&entries);
            if !batch.is_empty() {
                self.store.commit(batch).map_err(say("flush"))?;
            }
            return Ok(true);
        }
        if let Some(flush) = self.flush.take() {
            let finished = flush.finish(&self.flusher).map_err(say("flush"))?;
            for batch in finished.batches {
                self.store.commit(batch).map_err(say("flush"))?;
            }
            self.flusher.flushed_with(&self.store, finished.ended).map_err(say("flush"))?;
            self.state.mvcc.set_flushed(self.flusher.flushed());
        }
        Ok(true)
    }

    pub(super) fn step_snapshot(&mut self, newest: Index) -> Result<bool, String> {
        if self.builder.is_none() && self.wants_snapshot && self.flush.is_none() && !self.fetching {
            self.wants_snapshot = false;
            let (tally, meta) = match self.flusher.applied() {
                Some(applied) if applied.index > newest => {
                    (Some(applied.tally), applied.state(&self.store).map_err(say("snapshot"))?)
                }
                None if self.is_store_idle() => {
                    let meta = self.state.to_meta();
                    self.export = Some(Export::of_retained(&self.state.mvcc).in_passes_of(EXPORT_PASS));
                    (None, meta)
                }
                _ => return Ok(false),
            };
            let previous = self.snapshots.last();
            self.builder = Some(Builder::new(self.disk.clone(), SNAP_DIR, self.id, tally, meta, previous));
        }
        let Some(builder) = &mut self.builder else { return Ok(false) };
        let slice = match &mut self.export {
            Some(export) => export.slice(&self.state.mvcc).map_err(say("export"))?.map(Some),
            None => Some(None),
        };
        let stepped = match slice {
            Some(Some(entries)) => builder.add(entries).map(|()| true),
            Some(None) => builder.step(&self.store),
            None => builder.end().map(|()| false),
        };
        let result = match stepped {
            Ok(true) => return Ok(true),
            Ok(false) => self.builder.take().expect("it was there above").finish(),
            Err(error) => {
                self.builder.take().expect("it was there above").abandon();
                Err(error)
            }
        };
        self.export = None;
        let manifest = match result {
            Ok(manifest) => manifest,
            Err(snapshot::Error::Fatal(fatal)) => return Err(say("snapshot")(fatal)),
            Err(snapshot::Error::Full(_)) => {
                self.patience = FULL_PAUSE;
                self.collect_garbage()?;
                return Ok(true);
            }
        };
        let (index, term) = (manifest.index(), manifest.term());
        self.snapshots.push(manifest);
        let drop = self.snapshots.len().saturating_sub(self.snapshots_kept);
        self.snapshots.drain(..drop);
        self.collect_garbage()?;
        let trim = self.snapshots.first().map_or(0, Manifest::index);
        self.wal_queue.push(WalAsk::Snapshot { index, term, trim });
        Ok(true)
    }

    fn collect_garbage(&self) -> Result<(), String> {
        if self.fetching {
            return Ok(());
        }
        let kept: Vec<&Manifest> = self.snapshots.iter().collect();
        snapshot::collect_garbage(&self.disk, SNAP_DIR, &kept).map_err(say("garbage"))?;
        Ok(())
    }

    pub(super) fn step_sweep(&mut self) -> Result<bool, String> {
        if let Some(job) = &mut self.hash {
            match job.step(&self.state.mvcc) {
                Ok(true) => {}
                Ok(false) => {
                    let job = self.hash.take().expect("it was there above");
                    let hash = job.finish(&Blocks(&self.store)).map_err(say("hash"))?;
                    self.state.mvcc.remember_hash(hash);
                }
                // Compacted meanwhile: its hash is never asked for any more.
                Err(_) => self.hash = None,
            }
            return Ok(true);
        }
        let mut more = false;
        if self.flush.is_none() && !self.flusher.is_full() {
            let compacted = self.state.mvcc.compact_revision();
            let exported = self.export.as_ref().map_or(i64::MAX, Export::floor);
            let sweep = self.state.mvcc.sweep(self.hub.cursor().min(exported), SLICE_KEYS_MAX);
            more = !sweep.removed.is_empty() && !sweep.done;
            self.hash = sweep.hash;
            self.flusher.removed(compacted, sweep.removed);
        }
        if self.builder.is_none() {
            more |= self.flusher.remove_some(&self.store).map_err(say("sweep"))?;
        }
        Ok(more)
    }
}
