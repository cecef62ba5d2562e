//! Bringing changes into the store, and letting values leave memory that are in it.

use super::work::Work;
use mechi_replica::outcome::Fatal;
use mechi_replica::store::Store;
use parking_lot::RwLockWriteGuard;
use std::time::Instant;

impl Work {
    pub(super) fn step_flush(&mut self) -> Result<bool, Fatal> {
        if self.flush.is_none() && (self.wanted.flush || self.wanted.snapshot && !self.is_store_idle()) {
            self.wanted.flush = false;
            let unflushed = {
                let mvcc = &self.state.read().mvcc;
                match self.flusher.applied() {
                    Some(applied) => mvcc.bytes_since(applied.revision),
                    None => mvcc.live_bytes() + mvcc.unreclaimed_bytes(),
                }
            };
            // A flush begins only with room for it.
            if !self.hooks.may_flush(unflushed) {
                self.no_room = true;
                self.wanted.snapshot &= self.is_store_idle();
                return Ok(false);
            }
            let meta = self.state.read().to_meta();
            self.flush = self.flusher.begin(meta);
        }
        let Some(flush) = &mut self.flush else { return Ok(false) };
        let slice = flush.slice(&self.state.read().mvcc)?;
        if let Some(entries) = slice {
            let batch = flush.batch(&entries);
            if !batch.is_empty() {
                let began = Instant::now();
                self.store.commit(batch)?;
                self.hooks.committed(began.elapsed());
            }
            return Ok(true);
        }
        if let Some(flush) = self.flush.take() {
            let finished = flush.finish(&self.flusher)?;
            for batch in finished.batches {
                let began = Instant::now();
                self.store.commit(batch)?;
                self.hooks.committed(began.elapsed());
            }
            self.flusher.flushed_with(&*self.store, finished.ended)?;
            self.state.write().mvcc.set_flushed(self.flusher.flushed());
            self.dirty_since = None;
            self.hooks.flushed();
        }
        Ok(true)
    }

    /// Evicts a slice; returns whether enough is evicted or nothing more can be.
    pub(super) fn step_evict(&mut self) -> Result<bool, Fatal> {
        // An export finds its values in memory.
        if self.export.is_some() || self.state.read().mvcc.resident_bytes() <= self.budget().limit {
            return Ok(true);
        }
        let flushed = self.flusher.flushed();
        let target = self.config.budget.target();
        let mut state = self.state.write();
        let began = Instant::now();
        let done = state.mvcc.evict(flushed, target, self.evict_size.keys());
        self.evict_size.took(began.elapsed());
        if done && self.flush.is_none() && self.floor_at != flushed {
            let left = state.mvcc.resident_bytes();
            self.floor = if left > target { left.saturating_sub(state.mvcc.bytes_since(flushed)) } else { 0 };
            self.floor_at = flushed;
        }
        RwLockWriteGuard::unlock_fair(state);
        Ok(done)
    }
}
