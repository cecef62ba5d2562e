//! Multi-version keys: etcd's generations over an order-statistic index.
//!
//! [`Mvcc`] keeps every retained version of every key, once, in two orders: by key in a [`tree`] that also counts, and
//! by revision in a [`log`] for watches, for the store and for sweeping. Both share one allocation per record.
//!
//! What is retained follows from the compact revision alone, never from how far the physical work is:
//! a put is garbage once a later version of its key is at or below the compact revision; a tombstone is garbage once
//! it is below it (the one exactly at it stays, so that a watch from there still sees the DELETE).
//!
//! In reading order: `tree`, `key_index`, `log`, `read`, `write`, `compact`, `hash`, `evict`, `restore`, `export`.

mod compact;
mod evict;
mod export;
mod hash;
mod key_index;
mod log;
mod read;
mod restore;
mod tree;
mod write;

#[cfg(test)]
mod tests;

pub use compact::Sweep;
pub use export::Export;
pub use hash::{HashJob, HashKv};
pub use restore::Attachment;
pub use write::Write;

use crate::outcome::Fatal;
use crate::record::Record;
use crate::store::Values;
use crate::types::Revision;
use compact::Sweeper;
use evict::Hand;
use hash::CompactionHashes;
use key_index::KeyEntry;
use log::Log;
use std::ops::{Add, Sub};
use tree::Tree;

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

impl Change {
    /// The key.
    pub fn key(&self) -> &[u8] {
        self.head.key()
    }

    /// The whole record, from memory or else from `values`.
    pub fn record(&self, values: &dyn Values) -> Result<Record, Fatal> {
        if self.resident { Ok(self.head.clone()) } else { values.load(self.revision) }
    }
}

/// Keys and bytes of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys.
    pub keys: u64,
    /// Bytes of their records, each with its `RangeResponse.kvs` tag and length.
    pub framed_bytes: u64,
}

impl Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { keys: self.keys + other.keys, framed_bytes: self.framed_bytes + other.framed_bytes }
    }
}

impl Sub for Totals {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { keys: self.keys - other.keys, framed_bytes: self.framed_bytes - other.framed_bytes }
    }
}

/// The keys and all their retained versions.
pub struct Mvcc {
    keys: Tree<KeyEntry>,
    log: Log,
    revision: i64,
    compact_revision: i64,
    /// The store has everything up to this revision; the log may forget it once it is also swept. `None` while no store
    /// takes part.
    flushed: Option<i64>,
    /// Sum over the newest versions of the live keys, see [`crate::digest::content`].
    content_sum: u64,
    live_bytes: u64,
    unreclaimed_bytes: u64,
    /// What the log's running count of garbage was at the compact revision.
    freed_bytes: u64,
    /// Bytes of the records and stubs in the index, as allocated.
    record_bytes: u64,
    /// Versions in the index that are not their key's newest.
    older_versions: u64,
    sweeper: Sweeper,
    hashes: CompactionHashes,
    hand: Hand,
}

impl Default for Mvcc {
    fn default() -> Self {
        Self::new()
    }
}

impl Mvcc {
    /// Makes the empty store: revision 1, never compacted.
    pub fn new() -> Self {
        Self {
            keys: Tree::new(),
            log: Log::default(),
            revision: 1,
            compact_revision: -1,
            flushed: None,
            content_sum: 0,
            live_bytes: 0,
            unreclaimed_bytes: 0,
            freed_bytes: 0,
            record_bytes: 0,
            older_versions: 0,
            sweeper: Sweeper::new(-1),
            hashes: CompactionHashes::default(),
            hand: Hand::default(),
        }
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The last compaction's revision; -1 before the first.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// Keys that live at the newest revision.
    pub fn live_keys(&self) -> u64 {
        self.keys.total().keys
    }

    /// Bytes of all revisions that are not compacted: each record's wire form and its key in etcd's revision order
    /// (17 bytes, a tombstone's 18).
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes, counted alike, of what is compacted and not yet swept.
    pub fn unreclaimed_bytes(&self) -> u64 {
        self.unreclaimed_bytes
    }

    /// The order-free sum over the newest version of every live key; compaction does not change it.
    pub fn content_sum(&self) -> u64 {
        self.content_sum
    }

    /// Computes [`Mvcc::content_sum`] anew from the index, in O(n).
    pub fn recompute_content_sum(&self) -> u64 {
        let live = self.keys.iter_from(&[]).filter(|entry| !entry.latest.tombstone);
        live.fold(0, |sum, entry| sum.wrapping_add(entry.latest.content()))
    }
}
