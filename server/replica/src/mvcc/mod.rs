//! Multi-version keys: etcd's generations over an order-statistic index.
//!
//! SKELETON: signatures that others compile against; the bodies are being written.

use crate::outcome::{Error, Fatal};
use crate::record::Record;
use crate::store::Values;
use crate::types::{KeyRange, Revision};

/// One version of a key as a reader sees it.
#[derive(Clone, Debug)]
pub struct Item {
    /// The record, or a stub with the key alone if the value is not in memory.
    pub head: Record,
    /// Whether `head` is the whole record.
    pub resident: bool,
    /// Revision of the generation's first put.
    pub create_revision: i64,
    /// Revision of this version.
    pub mod_revision: Revision,
    /// Puts in this generation so far.
    pub version: i64,
    /// CRC-32C of the record's wire form.
    pub crc: u32,
    /// Bytes of the record's wire form.
    pub wire_len: u32,
}

impl Item {
    /// The key.
    pub fn key(&self) -> &[u8] {
        self.head.key()
    }

    /// The whole record, from memory or else from `values`.
    pub fn record(&self, values: &dyn Values) -> Result<Record, Fatal> {
        if self.resident { Ok(self.head.clone()) } else { values.load(self.mod_revision) }
    }
}

/// One change in revision order, as watches and the store see it.
#[derive(Clone, Debug)]
pub struct Change {
    /// When.
    pub revision: Revision,
    /// Whether it deleted the key.
    pub tombstone: bool,
    /// The record (for a tombstone: the key alone), or a stub if the value is not in memory.
    pub head: Record,
    /// Whether `head` is the whole record.
    pub resident: bool,
    /// CRC-32C of the record's wire form.
    pub crc: u32,
}

/// Keys and bytes of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys.
    pub keys: u64,
    /// Bytes of their records, each with its `RangeResponse.kvs` tag and length.
    pub framed_bytes: u64,
}

/// The keys and all their retained versions.
pub struct Mvcc {}

#[allow(unused_variables, clippy::todo)]
impl Mvcc {
    /// Makes the empty store: revision 1, never compacted.
    pub fn new() -> Self {
        todo!()
    }
    /// The newest revision.
    pub fn revision(&self) -> i64 {
        todo!()
    }
    /// The last compaction's revision; -1 before the first.
    pub fn compact_revision(&self) -> i64 {
        todo!()
    }
    /// Checks that `at` (0 or less: now) can be read; returns the revision to read at.
    pub fn readable(&self, at: i64) -> Result<i64, Error> {
        todo!()
    }
    /// The version of `key` at revision `at` (which is readable).
    pub fn get(&self, key: &[u8], at: i64) -> Option<Item> {
        todo!()
    }
    /// Visits the live versions of `range` at `at`, ascending, until `visit` returns false.
    pub fn scan(&self, range: &KeyRange, at: i64, visit: &mut dyn FnMut(Item) -> bool) {
        todo!()
    }
    /// Keys and bytes of `range` at the newest revision, in O(log n).
    pub fn totals(&self, range: &KeyRange) -> Totals {
        todo!()
    }
    /// The same at revision `at`, corrected by the changes since; `None` if there are too many of them.
    pub fn totals_at(&self, range: &KeyRange, at: i64) -> Option<Totals> {
        todo!()
    }
    /// Starts a transaction; it takes the next revision with its first change.
    pub fn write(&mut self) -> Write<'_> {
        todo!()
    }
    /// The retained changes with revision main >= `from`, ascending. Complete for `from` > compact revision.
    pub fn changes(&self, from: i64) -> Box<dyn Iterator<Item = &Change> + '_> {
        todo!()
    }
    /// Takes effect for new reads at once; physical removal is [`Mvcc::sweep`]'s.
    pub fn compact(&mut self, revision: i64) -> Result<(), Error> {
        todo!()
    }
}

/// One transaction's writes; reads through [`Write::mvcc`] see them.
pub struct Write<'a> {
    _mvcc: &'a mut Mvcc,
}

#[allow(unused_variables, clippy::todo)]
impl Write<'_> {
    /// The store as it stands, with this transaction's changes.
    pub fn mvcc(&self) -> &Mvcc {
        todo!()
    }
    /// The revision that reads inside the transaction see and headers show: the new one after the first change.
    pub fn revision(&self) -> i64 {
        todo!()
    }
    /// Writes one version; the caller has checked the lease.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        todo!()
    }
    /// Deletes `key`; returns whether it lived.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        todo!()
    }
}
