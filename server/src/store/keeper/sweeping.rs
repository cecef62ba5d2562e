//! Taking what compaction has freed out of memory and store.

use super::work::{Look, Work};
use crate::failpoint::failpoint;
use mechi_replica::limits::SNAPSHOT_LOG_BYTES_MIN;
use mechi_replica::mvcc::Export;
use mechi_replica::outcome::Fatal;
use mechi_replica::store::Blocks;
use parking_lot::{RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

#[derive(Default)]
pub(super) struct Swept {
    /// Nothing more to do at once.
    pub(super) finished: bool,
    /// Nothing that compaction has freed is left in memory or store, but for open views.
    pub(super) nothing_left: bool,
}

/// How long the sweep rests after a slice, in times of that slice. Apply and every reader wait for a slice; without a rest
/// each of them is waked for every single turn, and on a busy machine that keeps a member from answering for a second.
const REST: u32 = 2;

impl Work {
    pub(super) fn step_sweep(&mut self, look: &Look) -> Result<Swept, Fatal> {
        if self.is_sweep_resting(look) {
            return Ok(Swept { finished: true, nothing_left: false });
        }
        let begun = Instant::now();
        let swept = self.sweep_slice()?;
        match swept.finished {
            true => self.sweep_rest.end(),
            false => self.sweep_rest.begin(begun.elapsed() * REST),
        }
        Ok(swept)
    }

    /// Whether the sweep rests now: not if much is left to sweep.
    fn is_sweep_resting(&self, look: &Look) -> bool {
        let is_behind = look.unreclaimed > SNAPSHOT_LOG_BYTES_MIN.max(look.live / 2);
        self.sweep_rest.is_on() && !self.is_urgent(look) && !is_behind
    }

    fn sweep_slice(&mut self) -> Result<Swept, Fatal> {
        if let Some(job) = &mut self.hash {
            let state = self.state.read();
            let stepped = job.step(&state.mvcc);
            // To whoever waits, not to the next slice.
            RwLockReadGuard::unlock_fair(state);
            let more = match stepped {
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
            let floor = self.hooks.floor().min(exported);
            let compacted = state.mvcc.compact_revision();
            let sweep = state.mvcc.sweep(floor, self.sweep_size.keys());
            self.sweep_size.took(began.elapsed());
            RwLockWriteGuard::unlock_fair(state);
            // Whoever holds it back goes on without being asked; to try again and again would only take the lock.
            let held_back = floor < compacted && sweep.removed.is_empty() && sweep.hash.is_none();
            swept.finished = sweep.done || held_back;
            swept.nothing_left = sweep.done || held_back && self.export.is_none();
            if !sweep.removed.is_empty() {
                self.hooks.swept(sweep.removed.len(), began.elapsed());
            }
            failpoint!(if !sweep.removed.is_empty(), "compact_mid_batch");
            failpoint!(if sweep.done && std::mem::replace(&mut self.swept_for, compacted) < compacted, "compact_after_batch_before_finish");
            self.hash = sweep.hash;
            self.flusher.removed(compacted, sweep.removed);
        }
        if self.builder.is_none() && self.flusher.remove_some(&*self.store)? {
            failpoint!(if self.flusher.waiting() == 0, "compact_after_finish");
            swept.finished = false;
        }
        swept.nothing_left &= self.flusher.waiting() == 0;
        Ok(swept)
    }
}
