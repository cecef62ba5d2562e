//! Eviction: values that the store has leave memory, and their keys stay.

use super::Mvcc;
use super::key_index::{KeyEntry, Version, allocated};
use super::log::Row;
use super::tree::Entry;
use crate::record::Record;
use crate::types::Revision;
use std::mem::size_of;

/// Saving less than this is not worth the read that it costs later.
const SAVED_BYTES_MIN: u64 = 64;

/// Keys looked at between two looks at the target.
const BATCH_KEYS: usize = 64;

/// The clock's hand over the keys.
#[derive(Default)]
pub(super) struct Hand {
    key: Box<[u8]>,
    /// Keys passed since something was last evicted.
    idle: usize,
    /// What was flushed then.
    flushed: i64,
}

impl Mvcc {
    /// Bytes that records, stubs, index and log take in memory, as allocated; separators and spare room not counted.
    pub fn resident_bytes(&self) -> u64 {
        self.record_bytes
            + (self.keys.len() * size_of::<KeyEntry>()) as u64
            + self.older_versions * size_of::<Version>() as u64
            + (self.log.len() * size_of::<Row>()) as u64
    }

    /// Replaces records that the store has (revision main at most `flushed`) by stubs with the key alone, until
    /// [`Mvcc::resident_bytes`] is at most `target_resident` or `budget_keys` keys were looked at.
    ///
    /// Goes round the keys like a clock's hand, on from where the last call stopped. Returns whether the target is
    /// reached or a full round found nothing more. Readers find evicted values through [`crate::store::Values`].
    pub fn evict(&mut self, flushed: i64, target_resident: u64, budget_keys: usize) -> bool {
        if self.hand.flushed != flushed {
            self.hand.flushed = flushed;
            self.hand.idle = 0;
        }
        let mut left = budget_keys;
        while self.resident_bytes() > target_resident {
            if self.hand.idle >= self.keys.len() {
                return true;
            }
            if left == 0 {
                return false;
            }
            left -= self.evict_batch(flushed, left.min(BATCH_KEYS));
        }
        true
    }

    fn evict_batch(&mut self, flushed: i64, max: usize) -> usize {
        let (mut visited, mut evicted, mut saved) = (0, Vec::new(), 0);
        let next = self.keys.visit_mut(&self.hand.key, max, &mut |entry| {
            visited += 1;
            saved += evict_entry(entry, flushed, &mut evicted);
        });
        self.hand.idle = if evicted.is_empty() { self.hand.idle + visited } else { 0 };
        self.hand.key = next.unwrap_or_default();
        self.record_bytes -= saved;
        for (revision, stub) in evicted {
            self.log.evict(revision, &stub);
        }
        // At the end of a round nothing may have been left to visit; the turn itself counts, so that a loop ends.
        visited.max(1)
    }
}

/// Puts stubs into all versions that are worth it; returns the bytes saved.
fn evict_entry(entry: &mut KeyEntry, flushed: i64, evicted: &mut Vec<(Revision, Record)>) -> u64 {
    let mut stub: Option<Record> = None;
    let mut saved = 0;
    let stub_bytes = allocated(Record::key_only(&[]).wire().len() + entry.key().len() + 3);
    for version in entry.versions_mut() {
        let bytes = version.record_bytes();
        let worth = version.resident && !version.tombstone && bytes >= stub_bytes + SAVED_BYTES_MIN;
        if !worth || version.main > flushed {
            continue;
        }
        // All stubs of a key share one allocation.
        let stub = stub.get_or_insert_with(|| Record::key_only(version.head.key()));
        version.head = stub.clone();
        version.resident = false;
        saved += bytes - version.record_bytes();
        evicted.push((version.revision(), stub.clone()));
    }
    saved
}
