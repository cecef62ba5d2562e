//! Compaction: takes effect for readers at once, and is swept from memory in slices afterwards.

use super::Mvcc;
use super::hash::HashJob;
use super::key_index::revision_bytes;
use crate::outcome::Error;
use crate::record::Record;
use crate::types::Revision;

/// What one call of [`Mvcc::sweep`] did.
#[derive(Default)]
pub struct Sweep {
    /// Whether nothing is left to do up to the compact revision.
    pub done: bool,
    /// Versions that left memory and may now leave the store, once a compaction that covers them is in it.
    pub removed: Vec<Revision>,
    /// The compaction's hash, to be computed before anything else is removed: step it to the end, finish it and hand
    /// the result to [`Mvcc::remember_hash`]. Dropping it means to go without the hash.
    pub hash: Option<HashJob>,
}

/// How far the sweep is.
pub(super) struct Sweeper {
    /// No garbage of a compaction to this revision is left.
    pub(super) swept: i64,
    /// A sweep under way: its target, and the change that it looks at next.
    progress: Option<(i64, Revision)>,
}

impl Sweeper {
    pub(super) fn new(swept: i64) -> Self {
        Self { swept, progress: None }
    }
}

impl Mvcc {
    /// Takes effect for new reads at once, in O(log n); physical removal is [`Mvcc::sweep`]'s.
    ///
    /// - Errors: [`Error::Compacted`] at or below the compact revision, [`Error::FutureRevision`] above the newest.
    pub fn compact(&mut self, revision: i64) -> Result<(), Error> {
        if revision <= self.compact_revision {
            return Err(Error::Compacted);
        }
        if revision > self.revision {
            return Err(Error::FutureRevision);
        }
        self.want_hash(revision);
        self.compact_revision = revision;
        let garbage = self.log.garbage_at(revision, |change| revision_bytes(change.head.wire().len(), true));
        let more = garbage - self.freed_bytes;
        self.freed_bytes = garbage;
        self.live_bytes -= more;
        self.unreclaimed_bytes += more;
        Ok(())
    }

    /// Removes compacted versions, and nothing that a reader at `floor` or above needs.
    ///
    /// `floor` is the oldest revision that an open view reads at (`i64::MAX`: there is none). Prunes up to
    /// `budget_keys` keys and removes at most about as many versions; the next call goes on from there.
    pub fn sweep(&mut self, floor: i64, budget_keys: usize) -> Sweep {
        let mut sweep = Sweep::default();
        let mut limit = self.compact_revision.min(floor);
        if let Some(before) = self.hash_floor(&mut sweep.hash) {
            limit = limit.min(before);
        }
        let mut budget = budget_keys;
        let progress = self.sweeper.progress.take().filter(|(target, _)| *target <= limit);
        if progress.is_some() || limit > self.sweeper.swept {
            let start = Revision::new(self.sweeper.swept, 0);
            let (target, from) = progress.unwrap_or((limit, start));
            match self.sweep_changes(target, from, &mut budget, &mut sweep.removed) {
                Some(next) => self.sweeper.progress = Some((target, next)),
                None => self.sweeper.swept = target,
            }
        }
        let trimmed = self.trim(budget.max(1));
        sweep.done = trimmed && self.sweeper.swept == self.compact_revision;
        sweep
    }

    /// Prunes the keys of the changes in `from..=target`: only a key that was overwritten or deleted there has garbage.
    /// Returns where to go on.
    fn sweep_changes(
        &mut self,
        target: i64,
        from: Revision,
        budget: &mut usize,
        removed: &mut Vec<Revision>,
    ) -> Option<Revision> {
        let end = Revision::new(target + 1, 0);
        let (makers, next) = self.log.makers(from, end, *budget);
        for (revision, head) in makers {
            if *budget == 0 {
                return Some(revision);
            }
            let left = *budget;
            let pruned = self.prune(head.key(), target, left);
            // A key with more garbage than the budget is looked at again.
            if pruned.len() >= left {
                *budget = 0;
                removed.extend(pruned);
                return Some(revision);
            }
            *budget -= pruned.len().max(1);
            removed.extend(pruned);
        }
        next
    }

    /// The revision from which on [`Mvcc::changes`] is complete and every version can be read, compacted or not: what
    /// the sweep has not reached is still there.
    pub fn history_from(&self) -> i64 {
        self.sweep_target()
    }

    /// The highest revision that anything may have been removed for.
    pub(super) fn sweep_target(&self) -> i64 {
        self.sweeper.progress.map_or(self.sweeper.swept, |(target, _)| target.max(self.sweeper.swept))
    }

    fn prune(&mut self, key: &[u8], target: i64, max: usize) -> Vec<Revision> {
        let mut pruned = Vec::new();
        let dead = self.keys.update(key, |entry| {
            entry.prune(target, max, &mut pruned);
            entry.is_dead(target)
        });
        self.older_versions -= pruned.len() as u64;
        if dead == Some(true)
            && let Some(entry) = self.keys.remove(key)
        {
            pruned.push(entry.latest);
        }
        for version in &pruned {
            self.unreclaimed_bytes -= version.size();
            self.record_bytes -= version.record_bytes();
            // The store may still have to pass by the change; the record itself need not stay for that.
            if self.flushed.is_some_and(|flushed| version.main > flushed) {
                self.log.evict(version.revision(), &Record::key_only(key));
            }
        }
        pruned.iter().map(|version| version.revision()).collect()
    }

    /// Says that the store holds every change up to `revision`, so that the log may forget what is also swept; from now
    /// on it keeps what the store has yet to get. Without a store it keeps only what is not swept.
    pub fn set_flushed(&mut self, revision: i64) {
        self.flushed = self.flushed.max(Some(revision));
        self.trim(crate::limits::SLICE_KEYS_MAX);
    }

    /// The revision that [`Mvcc::set_flushed`] was told last; 0 before.
    pub fn flushed(&self) -> i64 {
        self.flushed.unwrap_or(0)
    }

    /// Forgets up to `max` changes of the log that are swept and flushed; returns whether none is left.
    pub(super) fn trim(&mut self, max: usize) -> bool {
        let wanted = self.flushed.map_or(i64::MAX, |flushed| flushed.saturating_add(1));
        self.log.trim(self.sweeper.swept.min(wanted), max)
    }
}
