//! Brings the live state into the store: records first, the applied record last, removals after it.
//!
//! The order is what a process crash is survived by. Records without an applied record are dropped at open, so they
//! may come early. The applied record counts only whole: state parts and every record up to its revision precede it.
//! A revision that compaction has freed leaves the store only once an applied record that knows of the compaction is
//! in it: were it removed before, a crash would reopen the store at an older state in which the removed version is
//! still the newest one. From the beginning of a flush to its end nothing may be swept from the state either, for the
//! same reason seen from the other side: the flush describes the state at its beginning.

use super::applied::{Applied, Tally, state_batches};
use super::block::{Builder, Entry};
use super::{Batch, Store, applied, keys};
use crate::limits::{BLOCK_BYTES_MAX, FLUSH_SLICE_CHANGES, REMOVALS_MAX, STORE_BATCH_BYTES};
use crate::mvcc::{Change, Export, Mvcc};
use crate::outcome::Fatal;
use crate::types::Revision;
use mechi_proto::mechipb::StateMeta;
use std::collections::{BTreeSet, VecDeque};

/// What is in the store, and what must still leave it.
#[derive(Debug, Default)]
pub struct Flusher {
    applied: Option<Applied>,
    removals: VecDeque<Removal>,
    waiting: usize,
}

#[derive(Debug)]
struct Removal {
    /// The compaction that freed them.
    compact_revision: i64,
    revisions: BTreeSet<Revision>,
}

/// One flush on its way: [`Flush::slice`] and [`Flush::batch`] by turns, then [`Flush::finish`].
#[derive(Debug)]
pub struct Flush {
    meta: StateMeta,
    source: Source,
    /// What it has brought into the store; what the store held before may shrink meanwhile.
    added: Tally,
    builder: Builder,
    read_all: bool,
    /// Tombstones among the changes that compaction freed before they were ever in the store. They must come into it all
    /// the same: what they deleted may still be there, and would be alive without them.
    freed: BTreeSet<Revision>,
}

/// Where a flush finds what the store lacks.
#[derive(Debug)]
enum Source {
    /// The changes since the last flush, from here on.
    Log(Revision),
    /// All that memory holds: nothing was ever flushed, and the log may have forgotten its beginning. `None` before the
    /// first slice.
    Memory(Option<Box<Export>>),
}

impl Flusher {
    /// Starts over a store that holds what `applied` says; `None` for an empty one.
    pub fn new(applied: Option<Applied>) -> Self {
        Self { applied, ..Self::default() }
    }

    /// How far the store is.
    pub fn applied(&self) -> Option<&Applied> {
        self.applied.as_ref()
    }

    /// The newest revision whose records are all in the store under an applied record.
    pub fn flushed(&self) -> i64 {
        self.applied.map_or(0, |applied| applied.revision)
    }

    /// Begins a flush of the state that `meta` describes; the caller captured it under one lock with the revision.
    ///
    /// From here to [`Flush::finish`] the state must not be swept. `None` if the store holds that state already.
    pub fn begin(&self, meta: StateMeta) -> Option<Flush> {
        if self.applied.is_some_and(|applied| applied.index >= meta.applied_index) {
            return None;
        }
        let source = match self.applied {
            Some(applied) => Source::Log(Revision::new(applied.revision + 1, 0)),
            None => Source::Memory(None),
        };
        let (added, builder) = (Tally::default(), Builder::default());
        Some(Flush { meta, source, added, builder, read_all: false, freed: BTreeSet::new() })
    }

    /// Remembers what a sweep took out of memory after the compaction at `compact_revision`.
    ///
    /// Revisions that were never flushed are forgotten: the next flush passes by what the state no longer has, and knows
    /// itself which tombstones it brings all the same.
    pub fn removed(&mut self, compact_revision: i64, revisions: impl IntoIterator<Item = Revision>) {
        let flushed = self.flushed();
        let revisions: BTreeSet<_> = revisions.into_iter().filter(|revision| revision.main <= flushed).collect();
        if !revisions.is_empty() {
            self.waiting += revisions.len();
            self.removals.push_back(Removal { compact_revision, revisions });
        }
    }

    /// Whether the sweep must wait: more revisions wait for their removal than are kept in mind.
    pub fn is_full(&self) -> bool {
        self.waiting >= REMOVALS_MAX
    }

    /// Revisions that wait for their removal from the store.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Removes some of the revisions that the store's applied record allows to remove; returns whether there were any.
    ///
    /// One bounded batch, in which the rewritten blocks and the applied record with the new tally stand together.
    /// - Errors: [`Fatal::EngineLost`] if a record that must be there is not.
    pub fn remove_some(&mut self, store: &impl Store) -> Result<bool, Fatal> {
        let Some(applied) = &mut self.applied else { return Ok(false) };
        let Some(removal) = self.removals.front_mut() else { return Ok(false) };
        if removal.compact_revision > applied.compact_revision {
            return Ok(false);
        }
        let before = removal.revisions.len();
        let mut batch = rewrite(store, &mut removal.revisions, &mut applied.tally)?;
        applied.put(&mut batch);
        store.commit(batch)?;
        self.waiting -= before - removal.revisions.len();
        if removal.revisions.is_empty() {
            self.removals.pop_front();
        }
        Ok(true)
    }
}

impl Flush {
    /// The revision that this flush ends at.
    pub fn revision(&self) -> i64 {
        self.meta.revision
    }

    /// Clones the next changes, a bounded number and perhaps none; `None` once all are read. The caller holds the state's
    /// read lock.
    ///
    /// - Errors: [`Fatal::Bug`] if a value that was never flushed is not in memory.
    pub fn slice(&mut self, mvcc: &Mvcc) -> Result<Option<Vec<Entry>>, Fatal> {
        if self.read_all {
            return Ok(None);
        }
        let next = match &mut self.source {
            Source::Log(next) => next,
            Source::Memory(export) => {
                let begin = || Box::new(Export::of_all(mvcc, self.meta.revision));
                let slice = export.get_or_insert_with(begin).slice(mvcc)?;
                self.read_all = slice.is_none();
                return Ok(slice);
            }
        };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        self.read_all = true;
        for change in mvcc.changes(next.main) {
            let Change { revision, tombstone, head, resident, .. } = change;
            if *revision < *next {
                continue;
            }
            if revision.main > self.meta.revision {
                break;
            }
            if bytes >= STORE_BATCH_BYTES || entries.len() >= FLUSH_SLICE_CHANGES {
                self.read_all = false;
                *next = *revision;
                break;
            }
            // What is beyond the bound stays in the store until the next open.
            if *tombstone && self.freed.len() < REMOVALS_MAX && !mvcc.holds(head.key(), *revision) {
                self.freed.insert(*revision);
            }
            if !resident && !tombstone {
                if !mvcc.holds(head.key(), *revision) {
                    // Compaction has removed it since, and before this flush began: it never comes into the store.
                    continue;
                }
                return Err(Fatal::Bug(format!("value of revision {revision} left memory before it was flushed")));
            }
            bytes += head.wire().len();
            entries.push(Entry { revision: *revision, tombstone: *tombstone, record: head.clone() });
        }
        Ok(Some(entries))
    }

    /// Makes the batch that brings `entries` into the store; needs no lock. It may be empty: the rest of a block
    /// waits for the next records.
    pub fn batch(&mut self, entries: &[Entry]) -> Batch {
        let mut batch = Batch::default();
        for entry in entries {
            self.added.add(entry);
            self.builder.push(entry, &mut batch.puts);
        }
        batch
    }

    /// The batches that end the flush, to be committed in order and before anything else; the last one holds the applied
    /// record.
    ///
    /// - Shape: `flusher` is the one that began it. What it removed meanwhile is no longer in the store.
    pub fn finish(mut self, flusher: &Flusher) -> Result<Finished, Fatal> {
        assert!(self.read_all, "a flush ends when all its changes are read");
        let mut records = Batch::default();
        self.builder.finish(&mut records.puts);
        let (applied, mut batches) = state_batches(&self.meta)?;
        let mut tally = flusher.applied.map_or(Tally::default(), |applied| applied.tally);
        tally.merge(&self.added);
        let applied = Applied { tally, ..applied };
        batches.insert(0, records);
        let mut last = Batch::default();
        applied.put(&mut last);
        batches.push(last);
        batches.retain(|batch| !batch.is_empty());
        Ok(Finished { batches, ended: Ended { applied, freed: self.freed } })
    }
}

/// A flush whose records are in the store; what makes them count is still to be committed.
#[derive(Debug)]
pub struct Finished {
    /// To be committed in this order.
    pub batches: Vec<Batch>,
    /// For [`Flusher::flushed_with`], after that.
    pub ended: Ended,
}

/// What a flush leaves behind.
#[derive(Debug)]
pub struct Ended {
    /// What its last batch says.
    pub applied: Applied,
    freed: BTreeSet<Revision>,
}

impl Flusher {
    /// Takes note that all batches of a flush are in the store, and frees the parts of the state before it.
    pub fn flushed_with(&mut self, store: &impl Store, Ended { applied, freed }: Ended) -> Result<(), Fatal> {
        self.applied = Some(applied);
        // Behind the removals that wait already: what these tombstones deleted is among them and must go first.
        self.removed(applied.compact_revision, freed);
        let (from, to) = keys::states();
        applied::remove_range(store, &from, &to, Some(applied.index))
    }

    /// Brings all of the state into the store at once; for one thread that owns both, as at a clean shutdown.
    ///
    /// Returns whether anything was written.
    pub fn flush_all(&mut self, store: &impl Store, mvcc: &Mvcc, meta: StateMeta) -> Result<bool, Fatal> {
        let Some(mut flush) = self.begin(meta) else { return Ok(false) };
        while let Some(entries) = flush.slice(mvcc)? {
            let batch = flush.batch(&entries);
            if !batch.is_empty() {
                store.commit(batch)?;
            }
        }
        let finished = flush.finish(self)?;
        for batch in finished.batches {
            store.commit(batch)?;
        }
        self.flushed_with(store, finished.ended)?;
        Ok(true)
    }
}

/// Makes the batch that takes the first of `revisions` out of their blocks, and takes them out of `revisions`.
///
/// A window of neighbouring blocks is rewritten at a time: small leftovers are joined with their neighbours, blocks
/// that nothing leaves stay as they are.
fn rewrite(store: &impl Store, revisions: &mut BTreeSet<Revision>, tally: &mut Tally) -> Result<Batch, Fatal> {
    let first = *revisions.first().expect("a removal without revisions is dropped");
    let missing = |revision| Fatal::EngineLost(format!("record {revision} is missing"));
    let (start, _) =
        store.last(&keys::record(Revision::new(0, 0)), &keys::record(first))?.ok_or_else(|| missing(first))?;
    let end = keys::record_end(*revisions.last().expect("not empty"));
    let mut window: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut bytes = 0;
    store.scan(&start, &end, &mut |key, value| {
        if bytes >= STORE_BATCH_BYTES && key.len() == keys::RECORD_BYTES {
            return false;
        }
        bytes += value.len();
        window.push((key.to_vec(), value.to_vec()));
        true
    })?;
    let (mut batch, mut builder) = (Batch::default(), Builder::default());
    let mut at = 0;
    let mut old: BTreeSet<Vec<u8>> = BTreeSet::new();
    while at < window.len() {
        // A record in parts is read, kept or removed as a whole.
        let parts = window[at + 1..].iter().take_while(|(key, _)| key.len() > keys::RECORD_BYTES).count();
        let group = &window[at..=at + parts];
        at += 1 + parts;
        let entries = super::scan::entries(group)?;
        let leaving = entries.iter().filter(|entry| revisions.contains(&entry.revision)).count();
        let small = group.iter().map(|(_, value)| value.len()).sum::<usize>() + builder.bytes() <= BLOCK_BYTES_MAX;
        if leaving == 0 && !(small && builder.bytes() < BLOCK_BYTES_MAX / 2 && !builder.is_empty()) {
            builder.finish(&mut batch.puts);
            continue;
        }
        old.extend(group.iter().map(|(key, _)| key.clone()));
        for entry in entries {
            if revisions.remove(&entry.revision) {
                tally.remove(&entry);
            } else {
                builder.push(&entry, &mut batch.puts);
            }
        }
    }
    builder.finish(&mut batch.puts);
    if revisions.contains(&first) {
        return Err(missing(first));
    }
    for (key, _) in &batch.puts {
        old.remove(key);
    }
    batch.removes.extend(old);
    // Below the window's end nothing can be left to remove: it would not have been in the store.
    if let (Some((key, _)), Some(next)) = (window.last(), revisions.first())
        && keys::record(*next)[..] <= key[..]
    {
        return Err(missing(*next));
    }
    Ok(batch)
}
