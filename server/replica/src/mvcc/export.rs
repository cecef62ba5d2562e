//! All retained versions in the order of their revisions, slice by slice: for a snapshot of what is in memory, and for
//! the store when it is used for the first time.
//!
//! The index is ordered by key, and the log has forgotten what is older than the last compaction. So passes go over the
//! whole index, and each picks the oldest revisions that are not out yet, as many as its bound allows.

use super::Mvcc;
use super::tree::Entry as _;
use crate::limits::{EXPORT_PASSES, EXPORT_ROWS_MIN, FLUSH_SLICE_CHANGES, SLICE_KEYS_MAX, STORE_BATCH_BYTES};
use crate::outcome::Fatal;
use crate::record::Record;
use crate::store::block::Entry;
use crate::types::Revision;
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A walk over the versions up to the revision of its beginning.
///
/// Changes may go on meanwhile. No value may have left memory, and nothing may be swept but below
/// [`Export::floor`].
#[derive(Debug)]
pub struct Export {
    through: i64,
    floor: i64,
    /// Versions that one pass gathers.
    pub(super) rows_max: usize,
    /// Where the pass under way begins, and the key that it goes on from.
    from: Revision,
    key: Bytes,
    /// The oldest of what the pass has met, the newest on top.
    found: BinaryHeap<Row>,
    /// The pass met more than it may gather.
    is_cut: bool,
    /// What the last pass gathered.
    ready: std::vec::IntoIter<Row>,
    is_last: bool,
}

#[derive(Debug)]
struct Row {
    revision: Revision,
    crc: u32,
    tombstone: bool,
    record: Record,
}

impl Export {
    /// Begins a walk over what `mvcc` holds up to the revision `through`, its newest now or a little older, when
    /// `compact_revision` was its compact revision.
    pub fn new(mvcc: &Mvcc, through: i64, compact_revision: i64) -> Self {
        let versions = mvcc.keys.len() + mvcc.older_versions as usize;
        Self {
            through,
            floor: compact_revision,
            rows_max: (versions / EXPORT_PASSES).max(EXPORT_ROWS_MIN),
            from: Revision::default(),
            key: Bytes::new(),
            found: BinaryHeap::new(),
            is_cut: false,
            ready: Vec::new().into_iter(),
            is_last: false,
        }
    }

    /// The revision that a sweep must not go beyond while the walk is under way.
    pub fn floor(&self) -> i64 {
        self.floor
    }

    /// Returns the next versions, in the order of their revisions and in bounded number; an empty slice while a pass
    /// gathers them, `None` at the end.
    ///
    /// - Errors: [`Fatal::Bug`] if a value is not in memory; [`Fatal::Corrupt`] if it is not what was written there.
    pub fn slice(&mut self, mvcc: &Mvcc) -> Result<Option<Vec<Entry>>, Fatal> {
        if self.ready.len() == 0 {
            if self.is_last {
                return Ok(None);
            }
            self.gather(mvcc)?;
            return Ok(Some(Vec::new()));
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while bytes < STORE_BATCH_BYTES && entries.len() < FLUSH_SLICE_CHANGES {
            let Some(Row { revision, crc, tombstone, record }) = self.ready.next() else { break };
            if crc32c::crc32c(record.wire()) != crc {
                let detail = format!("the record of revision {revision} has another CRC than when it was written");
                return Err(Fatal::Corrupt { what: "value", file: "memory".into(), offset: 0, detail });
            }
            bytes += record.wire().len();
            entries.push(Entry { revision, tombstone, record });
        }
        Ok(Some(entries))
    }

    /// One slice of a pass over the index.
    fn gather(&mut self, mvcc: &Mvcc) -> Result<(), Fatal> {
        for (visited, entry) in mvcc.keys.iter_from(&self.key).enumerate() {
            if visited == SLICE_KEYS_MAX {
                self.key = Bytes::copy_from_slice(entry.key());
                return Ok(());
            }
            for version in entry.versions() {
                let revision = version.revision();
                if revision < self.from || revision.main > self.through {
                    continue;
                }
                if self.found.len() == self.rows_max {
                    self.is_cut = true;
                    if self.found.peek().is_some_and(|newest| newest.revision < revision) {
                        continue;
                    }
                    self.found.pop();
                }
                if !version.resident && !version.tombstone {
                    return Err(Fatal::Bug(format!("the value of revision {revision} is not in memory")));
                }
                let (crc, tombstone, record) = (version.crc, version.tombstone, version.head.clone());
                self.found.push(Row { revision, crc, tombstone, record });
            }
        }
        let found = std::mem::take(&mut self.found).into_sorted_vec();
        self.is_last = !std::mem::take(&mut self.is_cut);
        self.key = Bytes::new();
        if let Some(Revision { main, sub }) = found.last().map(|row| row.revision) {
            self.from = Revision::new(main, sub + 1);
        }
        self.ready = found.into_iter();
        Ok(())
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> Ordering {
        self.revision.cmp(&other.revision)
    }
}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

impl Eq for Row {}
