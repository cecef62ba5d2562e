//! The part of the log that raft may read: a tail in memory, cut where entries conflict and trimmed where they are old.
//!
//! What is here is what was handed to the write-ahead log, durable or not; raft itself tracks what is persisted.
//! Entries that are applied and beyond the byte bound leave from the front. To raft they are compacted then.

use crate::types::{Index, Term};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// Bytes that an entry costs beside its data.
const ENTRY_OVERHEAD_BYTES: usize = 48;

/// Entries `first_index()..=last_index()`, contiguous, and the place of the entry before them.
pub(super) struct Log {
    before: (Index, Term),
    entries: VecDeque<Entry>,
    bytes: usize,
    initial: RaftState,
    /// The newest durable snapshot's index and term; (0, 0) if there is none.
    snapshot: (Index, Term),
    /// Raft asked for a snapshot and got none.
    missed: Cell<bool>,
}

impl Log {
    /// Makes the log of `entries` that follow the entry `before` (index, term).
    ///
    /// - Shape: contiguous, from `before.0 + 1` on; the caller checked it.
    pub(super) fn new(
        before: (Index, Term),
        entries: Vec<Entry>,
        hard_state: HardState,
        conf_state: ConfState,
    ) -> Self {
        let bytes = entries.iter().map(cost).sum();
        let initial = RaftState { hard_state, conf_state };
        Self { before, entries: entries.into(), bytes, initial, snapshot: (0, 0), missed: Cell::new(false) }
    }

    /// Takes note of a durable snapshot, whose files another member can fetch.
    pub(super) fn snapshot_made(&mut self, index: Index, term: Term) {
        self.snapshot = self.snapshot.max((index, term));
        self.missed.set(false);
    }

    /// Tells whether raft asked in vain for a snapshot since the last call.
    pub(super) fn take_missed(&self) -> bool {
        self.missed.take()
    }

    fn first(&self) -> Index {
        self.before.0 + 1
    }

    fn last(&self) -> Index {
        self.before.0 + self.entries.len() as u64
    }

    /// Takes new entries over; an index already held is replaced together with all after it.
    ///
    /// - Panics: on a gap and on an index before the tail, which would be bugs in raft.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            self.first() <= first.index && first.index <= self.last() + 1,
            "append at {} to a log of {}..={}",
            first.index,
            self.first(),
            self.last()
        );
        self.truncate(first.index);
        for entry in entries {
            assert_eq!(entry.index, self.last() + 1, "the entries of one ready are contiguous");
            self.bytes += cost(entry);
            self.entries.push_back(entry.clone());
        }
    }

    fn truncate(&mut self, from: Index) {
        while self.last() >= from {
            let gone = self.entries.pop_back().expect("last() counts the entries");
            self.bytes -= cost(&gone);
        }
    }

    /// Forgets the oldest entries up to and including `index` while the tail is above `bytes_max`.
    pub(super) fn shrink(&mut self, index: Index, bytes_max: usize) {
        while self.bytes > bytes_max && self.first() <= index && self.drop_first() {}
    }

    fn drop_first(&mut self) -> bool {
        let Some(gone) = self.entries.pop_front() else { return false };
        self.bytes -= cost(&gone);
        self.before = (gone.index, gone.term);
        true
    }

    /// Where an entry of the tail lies in `entries`.
    fn slot(&self, index: Index) -> usize {
        usize::try_from(index - self.first()).expect("the tail fits in memory")
    }
}

fn cost(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_BYTES
}

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: Index,
        high: Index,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        if low >= high {
            return Ok(Vec::new());
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0u64;
        let mut taken = Vec::new();
        for entry in self.entries.range(self.slot(low)..self.slot(high)) {
            bytes = bytes.saturating_add(cost(entry) as u64);
            // One entry always fits, or an entry above the bound could never be sent.
            if bytes > max_size && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: Index) -> Result<Term> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        if index < self.before.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        match self.entries.get(self.slot(index)) {
            Some(entry) => Ok(entry.term),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> Result<Index> {
        Ok(self.first())
    }

    fn last_index(&self) -> Result<Index> {
        Ok(self.last())
    }

    /// Names the newest snapshot, if the log goes on behind it; without data or configuration, since members fetch the
    /// files, and raft there never sees it.
    fn snapshot(&self, _request_index: Index, _to: u64) -> Result<Snapshot> {
        let (index, term) = self.snapshot;
        if index == 0 || index < self.before.0 {
            self.missed.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: Index, term: Term, bytes: usize) -> Entry {
        Entry { index, term, data: vec![b'x'; bytes].into(), ..Default::default() }
    }

    fn log(before: (Index, Term), entries: &[(Index, Term)]) -> Log {
        let entries = entries.iter().map(|(index, term)| entry(*index, *term, 10)).collect();
        Log::new(before, entries, HardState::default(), ConfState::default())
    }

    fn entries(log: &Log, low: Index, high: Index, max: u64) -> Result<Vec<Index>> {
        let taken = log.entries(low, high, max, GetEntriesContext::empty(false))?;
        Ok(taken.iter().map(|entry| entry.index).collect())
    }

    fn is_compacted<T: std::fmt::Debug>(answer: Result<T>) -> bool {
        matches!(answer, Err(Error::Store(StorageError::Compacted)))
    }

    fn is_unavailable<T: std::fmt::Debug>(answer: Result<T>) -> bool {
        matches!(answer, Err(Error::Store(StorageError::Unavailable)))
    }

    #[test]
    fn terms_answer_from_the_entry_before_the_first_to_the_last() {
        let log = log((4, 2), &[(5, 2), (6, 3)]);
        assert!(is_compacted(log.term(3)));
        assert_eq!(log.term(4).unwrap(), 2);
        assert_eq!(log.term(5).unwrap(), 2);
        assert_eq!(log.term(6).unwrap(), 3);
        assert!(is_unavailable(log.term(7)));
    }

    #[test]
    fn entries_below_are_compacted_and_above_unavailable() {
        let log = log((4, 2), &[(5, 2), (6, 3)]);
        assert!(is_compacted(entries(&log, 4, 6, u64::MAX)));
        assert!(is_unavailable(entries(&log, 5, 8, u64::MAX)));
        assert_eq!(entries(&log, 5, 7, u64::MAX).unwrap(), [5, 6]);
        assert_eq!(entries(&log, 7, 7, u64::MAX).unwrap(), [0u64; 0]);
    }

    #[test]
    fn a_size_bound_still_gives_one_entry() {
        let log = log((0, 0), &[(1, 1), (2, 1), (3, 1)]);
        assert_eq!(entries(&log, 1, 4, 0).unwrap(), [1]);
        assert_eq!(entries(&log, 1, 4, 2 * (10 + ENTRY_OVERHEAD_BYTES) as u64).unwrap(), [1, 2]);
    }

    #[test]
    fn a_conflict_cuts_the_suffix() {
        let mut log = log((0, 0), &[(1, 1), (2, 1), (3, 1)]);
        log.append(&[entry(2, 2, 10)]);
        assert_eq!((log.last(), log.term(2).unwrap()), (2, 2));
        assert!(is_unavailable(log.term(3)));
        assert_eq!(log.bytes, 2 * (10 + ENTRY_OVERHEAD_BYTES));
    }

    #[test]
    #[should_panic(expected = "append at 5")]
    fn a_gap_is_a_bug() {
        log((0, 0), &[(1, 1)]).append(&[entry(5, 1, 1)]);
    }

    #[test]
    fn old_entries_leave_by_bytes() {
        let mut log = log((0, 0), &[(1, 1), (2, 1), (3, 2), (4, 2)]);
        log.shrink(1, 0);
        assert_eq!((log.first(), log.term(1).unwrap()), (2, 1));
        log.shrink(3, 2 * (10 + ENTRY_OVERHEAD_BYTES));
        assert_eq!(log.first(), 3, "as many as fit stay");
        log.shrink(3, 0);
        assert_eq!((log.first(), log.last(), log.term(3).unwrap()), (4, 4, 2));
        log.shrink(9, 0);
        assert_eq!((log.first(), log.last(), log.bytes), (5, 4, 0));
    }

    #[test]
    fn a_snapshot_is_named_only_if_the_log_goes_on_behind_it() {
        let mut log = log((4, 2), &[(5, 2), (6, 3)]);
        assert!(log.snapshot(0, 0).is_err() && log.take_missed());
        assert!(!log.take_missed());
        log.snapshot_made(3, 2);
        assert!(log.snapshot(0, 0).is_err() && log.take_missed(), "entry 4 is gone");
        log.snapshot_made(4, 2);
        log.snapshot_made(3, 2);
        let named = log.snapshot(0, 0).unwrap();
        assert_eq!((named.get_metadata().index, named.get_metadata().term), (4, 2));
        assert!(!log.take_missed());
    }
}
