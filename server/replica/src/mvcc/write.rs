//! Writes: one transaction takes one revision with its first change, and numbers its changes.

use super::Mvcc;
use super::key_index::{KeyEntry, Version};
use super::tree::Entry;
use crate::record::{Fields, Record};

/// Changes that the log may forget per change written, so that it shrinks without a long pause.
const TRIM_PER_CHANGE: usize = 4;

/// One transaction's writes; reads through [`Write::mvcc`] see them.
pub struct Write<'a> {
    mvcc: &'a mut Mvcc,
    /// The revision before the transaction.
    base: i64,
    /// Number of changes so far.
    changes: u32,
}

impl Mvcc {
    /// Starts a transaction; it takes the next revision with its first change.
    pub fn write(&mut self) -> Write<'_> {
        let base = self.revision;
        Write { mvcc: self, base, changes: 0 }
    }
}

impl Write<'_> {
    /// The store as it stands, with this transaction's changes.
    pub fn mvcc(&self) -> &Mvcc {
        self.mvcc
    }

    /// The revision that reads inside the transaction see and headers show: the new one after the first change.
    pub fn revision(&self) -> i64 {
        self.mvcc.revision
    }

    /// Whether anything has changed.
    pub fn changed(&self) -> bool {
        self.changes > 0
    }

    /// The number of changes so far.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// Writes one version; the caller has checked the lease.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        let main = self.base + 1;
        let (create_revision, version) = match self.mvcc.keys.get(key).map(|entry| &entry.latest) {
            Some(latest) if !latest.tombstone => (latest.create_revision, latest.version + 1),
            _ => (main, 1),
        };
        let fields = Fields { key, create_revision, mod_revision: main, version, value, lease };
        self.add(Record::encode(&fields), create_revision, version, false);
    }

    /// Deletes `key`; returns whether it lived.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let lives = self.mvcc.keys.get(key).is_some_and(|entry| !entry.latest.tombstone);
        if lives {
            self.add(Record::key_only(key), 0, 0, true);
        }
        lives
    }

    fn add(&mut self, head: Record, create_revision: i64, version: i64, tombstone: bool) {
        let new = Version {
            main: self.base + 1,
            sub: self.changes,
            create_revision,
            version,
            crc: crc32c::crc32c(head.wire()),
            wire_len: u32::try_from(head.wire().len()).expect("a request is far below 4 GiB"),
            resident: true,
            tombstone,
            head,
        };
        self.mvcc.revision = new.main;
        self.changes += 1;
        self.mvcc.add(new);
    }
}

impl Mvcc {
    fn add(&mut self, new: Version) {
        self.live_bytes += new.size();
        self.record_bytes += new.record_bytes();
        // What a compaction to (for a tombstone: beyond) this change makes garbage.
        let mut garbage = if new.tombstone { new.size() } else { 0 };
        if !new.tombstone {
            self.content_sum = self.content_sum.wrapping_add(new.content());
        }
        let key = new.head.clone();
        let change = new.change();
        let mut new = Some(new);
        let previous = self.keys.update(key.key(), |entry: &mut KeyEntry| {
            let live = (!entry.latest.tombstone).then(|| (entry.latest.content(), entry.latest.size()));
            entry.push(new.take().expect("update calls once"));
            live
        });
        match previous {
            Some(live) => {
                self.older_versions += 1;
                if let Some((content, size)) = live {
                    self.content_sum = self.content_sum.wrapping_sub(content);
                    garbage += size;
                }
            }
            None => {
                let entry = KeyEntry::from_versions(new.into_iter().collect()).expect("one version");
                debug_assert!(entry.key() == key.key());
                self.keys.insert(entry);
            }
        }
        self.log.push(change, garbage);
        self.trim(TRIM_PER_CHANGE);
    }
}
