//! Changes in revision order, in chunks, so that growing never copies what is there.

use super::Change;
use crate::record::Record;
use crate::types::Revision;
use std::collections::VecDeque;

/// Changes per chunk.
const CHUNK: usize = 1_024;

/// To pass over a change costs about this much less than to look its key up.
const PASSED_PER_MAKER: usize = 16;

/// A change, and how many bytes a compaction to it makes garbage, summed over it and all changes before it.
pub(super) struct Row {
    pub(super) change: Change,
    garbage: u64,
}

/// The revision log. Invariants: revisions ascend; no chunk is empty.
#[derive(Default)]
pub(super) struct Log {
    chunks: VecDeque<VecDeque<Row>>,
    len: usize,
    /// The running count of garbage before the first row.
    garbage_before: u64,
}

impl Log {
    /// Appends a change; with it (for a tombstone: after it) `garbage` bytes may be compacted.
    pub(super) fn push(&mut self, change: Change, garbage: u64) {
        let garbage = garbage + self.last().map_or(self.garbage_before, |row| row.garbage);
        debug_assert!(self.last().is_none_or(|row| row.change.revision < change.revision), "revisions ascend");
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK && chunk.capacity() > chunk.len() => {
                chunk.push_back(Row { change, garbage });
            }
            _ => {
                let mut chunk = VecDeque::with_capacity(CHUNK);
                chunk.push_back(Row { change, garbage });
                self.chunks.push_back(chunk);
            }
        }
        self.len += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn last(&self) -> Option<&Row> {
        self.chunks.back()?.back()
    }

    /// The changes at or after `from`, ascending.
    pub(super) fn iter_from(&self, from: Revision) -> impl Iterator<Item = &Change> {
        let chunk = self.chunks.partition_point(|chunk| chunk.back().is_some_and(|row| row.change.revision < from));
        let row = self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(|row| row.change.revision < from));
        self.chunks.range(chunk..).flat_map(|chunk| chunk.iter()).skip(row).map(|row| &row.change)
    }

    /// Of the changes in `from..end`, the first `max` that make garbage, with their records, and the change to go on
    /// from; passes over at most [`PASSED_PER_MAKER`] times as many that make none.
    pub(super) fn makers(
        &self,
        from: Revision,
        end: Revision,
        max: usize,
    ) -> (Vec<(Revision, Record)>, Option<Revision>) {
        let chunk = self.chunks.partition_point(|chunk| chunk.back().is_some_and(|row| row.change.revision < from));
        let before = chunk.checked_sub(1).and_then(|before| self.chunks[before].back());
        let mut before = before.map_or(self.garbage_before, |row| row.garbage);
        let (mut makers, mut seen) = (Vec::new(), 0);
        for row in self.chunks.range(chunk..).flatten().take_while(|row| row.change.revision < end) {
            let makes = row.garbage > std::mem::replace(&mut before, row.garbage);
            if row.change.revision < from {
                continue;
            }
            if makers.len() == max || seen == max * PASSED_PER_MAKER {
                return (makers, Some(row.change.revision));
            }
            seen += 1;
            if makes {
                makers.push((row.change.revision, row.change.head.clone()));
            }
        }
        (makers, None)
    }

    /// The running count of garbage up to and with revision `main`, tombstones at `main` itself left out.
    pub(super) fn garbage_at(&self, main: i64, tombstone_bytes: impl Fn(&Change) -> u64) -> u64 {
        let end = Revision::new(main + 1, 0);
        let chunk = self.chunks.partition_point(|chunk| chunk[0].change.revision < end);
        let sum = match chunk.checked_sub(1).map(|chunk| &self.chunks[chunk]) {
            None => self.garbage_before,
            Some(chunk) => chunk[chunk.partition_point(|row| row.change.revision < end) - 1].garbage,
        };
        let at_main = self.iter_from(Revision::new(main, 0)).take_while(|change| change.revision < end);
        sum - at_main.filter(|change| change.tombstone).map(tombstone_bytes).sum::<u64>()
    }

    /// Replaces the record of `revision` by a stub, if the log still has it.
    pub(super) fn evict(&mut self, revision: Revision, stub: &Record) {
        let at = self.chunks.partition_point(|chunk| chunk.back().is_some_and(|row| row.change.revision < revision));
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        if let Ok(at) = chunk.binary_search_by_key(&revision, |row| row.change.revision) {
            chunk[at].change.head = stub.clone();
            chunk[at].change.resident = false;
        }
    }

    /// Forgets up to `max` of the oldest changes with revisions below `main`; returns whether none is left there.
    pub(super) fn trim(&mut self, main: i64, max: usize) -> bool {
        for _ in 0..max {
            let Some(chunk) = self.chunks.front_mut() else { return true };
            match chunk.pop_front() {
                Some(row) if row.change.revision.main >= main => {
                    chunk.push_front(row);
                    return true;
                }
                Some(row) => {
                    self.garbage_before = row.garbage;
                    self.len -= 1;
                }
                None => {}
            }
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        self.chunks.front().and_then(|chunk| chunk.front()).is_none_or(|row| row.change.revision.main >= main)
    }
}
