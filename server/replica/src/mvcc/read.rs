//! Reads at a revision: one key, a range, its totals, and the changes since.

use super::key_index::KeyEntry;
use super::tree::Entry;
use super::{Change, Item, Mvcc, Totals};
use crate::limits::COUNT_CORRECTION_MAX;
use crate::outcome::Error;
use crate::types::{Bound, KeyRange, Revision};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BTreeSet;

impl Mvcc {
    /// Checks that `at` (0 or less: now) can be read; returns the revision to read at.
    pub fn readable(&self, at: i64) -> Result<i64, Error> {
        match at {
            ..=0 => Ok(self.revision),
            _ if at > self.revision => Err(Error::FutureRevision),
            _ if at < self.compact_revision => Err(Error::Compacted),
            _ => Ok(at),
        }
    }

    /// The version of `key` at revision `at` (which is readable).
    pub fn get(&self, key: &[u8], at: i64) -> Option<Item> {
        Some(self.keys.get(key)?.at(at)?.item())
    }

    /// Visits the live versions of `range` at `at`, ascending, until `visit` returns false.
    pub fn scan(&self, range: &KeyRange, at: i64, visit: &mut dyn FnMut(Item) -> bool) {
        for entry in self.entries(range) {
            if let Some(version) = entry.at(at)
                && !visit(version.item())
            {
                return;
            }
        }
    }

    /// Visits like [`Mvcc::scan`], but looks at no more than `max_keys` keys, live or not.
    ///
    /// Returns the key from which the next slice goes on (with the same end); `None` if the range is done or `visit`
    /// returned false.
    pub fn scan_slice(
        &self,
        range: &KeyRange,
        at: i64,
        max_keys: usize,
        visit: &mut dyn FnMut(Item) -> bool,
    ) -> Option<Bytes> {
        for (visited, entry) in self.entries(range).enumerate() {
            if visited == max_keys {
                return Some(Bytes::copy_from_slice(entry.key()));
            }
            if let Some(version) = entry.at(at)
                && !visit(version.item())
            {
                return None;
            }
        }
        None
    }

    /// Keys and bytes of `range` at the newest revision, in O(log n).
    pub fn totals(&self, range: &KeyRange) -> Totals {
        match &range.to {
            _ if range.is_empty() => Totals::default(),
            Bound::Single => self.keys.get(&range.from).map(KeyEntry::weight).unwrap_or_default(),
            Bound::Before(to) => self.keys.below(to) - self.keys.below(&range.from),
            Bound::Open => self.keys.total() - self.keys.below(&range.from),
        }
    }

    /// The same at revision `at`, corrected by the changes since; `None` if there are too many of them.
    pub fn totals_at(&self, range: &KeyRange, at: i64) -> Option<Totals> {
        let mut changed = BTreeSet::new();
        for (seen, change) in self.log.iter_from(Revision::new(at + 1, 0)).enumerate() {
            if seen == COUNT_CORRECTION_MAX {
                return None;
            }
            if range.contains(change.key()) {
                changed.insert(change.key());
            }
        }
        let (mut then, mut now) = (self.totals(range), Totals::default());
        for entry in changed.into_iter().filter_map(|key| self.keys.get(key)) {
            then = then + entry.at(at).map(|version| version.weight()).unwrap_or_default();
            now = now + entry.weight();
        }
        Some(then - now)
    }

    /// The retained changes with revision main >= `from`, ascending. Complete for `from` >= compact revision.
    pub fn changes(&self, from: i64) -> Box<dyn Iterator<Item = &Change> + '_> {
        Box::new(self.log.iter_from(Revision::new(from, 0)))
    }

    /// Bytes of the records after `revision` that are in memory, in O(changes).
    pub fn bytes_since(&self, revision: i64) -> u64 {
        self.changes(revision + 1).filter(|change| change.resident).map(|change| change.head.wire().len() as u64).sum()
    }

    /// Whether the version of `key` at exactly `revision` is in memory's index, that is, not swept.
    pub fn holds(&self, key: &[u8], revision: Revision) -> bool {
        let version = self.keys.get(key).and_then(|entry| entry.versions().find(|v| v.revision() == revision));
        version.is_some()
    }

    /// Visits all versions, tombstones too, of up to `max_keys` keys from `from` on: keys ascending, versions ascending
    /// within a key. What is compacted but not yet swept is among them. Returns the key to go on from; `None` at the end.
    ///
    /// To read one state in many slices, ignore what is newer than its revision, and hold [`Mvcc::sweep`] back with the
    /// compact revision of the beginning as its floor.
    pub fn versions_slice(&self, from: &[u8], max_keys: usize, visit: &mut dyn FnMut(Change)) -> Option<Bytes> {
        for (visited, entry) in self.keys.iter_from(from).enumerate() {
            if visited == max_keys {
                return Some(Bytes::copy_from_slice(entry.key()));
            }
            for version in entry.versions() {
                visit(version.change());
            }
        }
        None
    }

    pub(super) fn entries<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a KeyEntry> {
        self.keys.iter_from(&range.from).take_while(|entry| range.cmp_end(entry.key()) == Ordering::Less)
    }
}
