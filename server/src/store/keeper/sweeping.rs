//! Taking what compaction has freed out of memory and store.

use super::work::Work;
use mechi_replica::limits::SLICE_KEYS_MAX;
use mechi_replica::mvcc::Export;
use mechi_replica::outcome::Fatal;
use mechi_replica::store::Blocks;
use std::time::Instant;

#[derive(Default)]
pub(super) struct Swept {
    /// Nothing more to do at once.
    pub(super) finished: bool,
    /// Nothing that compaction has freed is left in memory or store, but for open views.
    pub(super) nothing_left: bool,
}

impl Work {
    pub(super) fn step_sweep(&mut self) -> Result<Swept, Fatal> {
        if let Some(job) = &mut self.hash {
            let more = match job.step(&self.state.read().mvcc) {
                Ok(more) => more,
                // Compacted meanwhile: its hash is never asked for any more.
                Err(_) => {
                    self.hash = None;
                    return Ok(Swept::default());
                }
            };
            if !more && let Some(job) = self.hash.take() {
                let hash = job.finish(&Blocks(&*self.store))?;
                self.state.write().mvcc.remember_hash(hash);
            }
            return Ok(Swept::default());
        }
        // While a flush is on its way or the removals are full, the sweep waits for them: they report for it.
        let mut swept = Swept { finished: true, nothing_left: false };
        if self.flush.is_none() && !self.flusher.is_full() {
            // The lock first: a view that opens before it is seen, one that opens after it reads what is left.
            let mut state = self.state.write();
            let began = Instant::now();
            let exported = self.export.as_ref().map_or(i64::MAX, Export::floor);
            let floor = self.hooks.floor();
            let compacted = state.mvcc.compact_revision();
            let sweep = state.mvcc.sweep(floor.min(exported), SLICE_KEYS_MAX);
            drop(state);
            let held_back = floor < compacted && sweep.removed.is_empty() && sweep.hash.is_none();
            swept.finished = sweep.done || held_back;
            swept.nothing_left = swept.finished;
            if !sweep.removed.is_empty() {
                self.hooks.swept(sweep.removed.len(), began.elapsed());
            }
            self.hash = sweep.hash;
            self.flusher.removed(compacted, sweep.removed);
        }
        if self.builder.is_none() && self.flusher.remove_some(&*self.store)? {
            swept.finished = false;
        }
        swept.nothing_left &= self.flusher.waiting() == 0;
        Ok(swept)
    }
}
