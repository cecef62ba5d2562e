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
use std::collections::BTreeMap;

/// A walk over the versions up to the revision of its beginning.
///
/// Changes may go on meanwhile. No value may have left memory.
#[derive(Debug)]
pub struct Export {
    through: i64,
    /// What a compaction to this revision made garbage is passed by.
    compacted: Option<i64>,
    /// Versions that one pass gathers.
    rows_max: usize,
    /// Where the pass under way begins, and the key that it goes on from.
    from: Revision,
    key: Bytes,
    /// The oldest of what the pass has met. A map, since to sort that much at once would hold the lock for too long.
    found: BTreeMap<Revision, Row>,
    /// The pass met more than it may gather.
    is_cut: bool,
    /// The pass has ended: what it found is handed out.
    is_gathered: bool,
}

#[derive(Debug)]
struct Row {
    crc: u32,
    tombstone: bool,
    record: Record,
}

impl Export {
    /// Begins a walk over all that `mvcc` holds up to the revision `through`, its newest now or a little older. Nothing may
    /// be swept before its end.
    pub fn of_all(mvcc: &Mvcc, through: i64) -> Self {
        Self::new(mvcc, through, None)
    }

    /// Begins a walk over what is retained now; what compaction made garbage is passed by, whether it is swept or not.
    ///
    /// A sweep may take that garbage meanwhile, but nothing that becomes garbage later: see [`Export::floor`]. Were the
    /// garbage handed out too, a sweep between two passes could take a tombstone whose predecessor is out already, and
    /// a key that was deleted would be alive in the snapshot.
    pub fn of_retained(mvcc: &Mvcc) -> Self {
        Self::new(mvcc, mvcc.revision, Some(mvcc.compact_revision))
    }

    fn new(mvcc: &Mvcc, through: i64, compacted: Option<i64>) -> Self {
        let versions = mvcc.keys.len() + mvcc.older_versions as usize;
        Self {
            through,
            compacted,
            rows_max: (versions / EXPORT_PASSES).max(EXPORT_ROWS_MIN),
            from: Revision::default(),
            key: Bytes::new(),
            found: BTreeMap::new(),
            is_cut: false,
            is_gathered: false,
        }
    }

    /// Gathers so many versions in a pass, at least one; for tests, whose keys are few.
    #[must_use]
    pub fn in_passes_of(self, versions: usize) -> Self {
        Self { rows_max: versions.max(1), ..self }
    }

    /// The revision that a sweep must not go beyond while the walk is under way.
    pub fn floor(&self) -> i64 {
        #[cfg(feature = "mutants")]
        if crate::mutants::active("swept_under_export") {
            return i64::MAX;
        }
        self.compacted.unwrap_or(-1)
    }

    /// Returns the next versions, in the order of their revisions and in bounded number; an empty slice while a pass
    /// gathers them, `None` at the end.
    ///
    /// - Errors: [`Fatal::Bug`] if a value is not in memory; [`Fatal::Corrupt`] if it is not what was written there.
    pub fn slice(&mut self, mvcc: &Mvcc) -> Result<Option<Vec<Entry>>, Fatal> {
        if !self.is_gathered {
            self.gather(mvcc)?;
            return Ok(Some(Vec::new()));
        }
        if self.found.is_empty() {
            // Without a cut the pass was the last one.
            self.is_gathered = !std::mem::take(&mut self.is_cut);
            return Ok((!self.is_gathered).then(Vec::new));
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while bytes < STORE_BATCH_BYTES && entries.len() < FLUSH_SLICE_CHANGES {
            let Some((revision, Row { crc, tombstone, record })) = self.found.pop_first() else { break };
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
            let mut versions = entry.versions().peekable();
            while let Some(version) = versions.next() {
                let revision = version.revision();
                let next = versions.peek().copied();
                let is_garbage = self.compacted.is_some_and(|compacted| version.is_garbage(next, compacted));
                if revision < self.from || revision.main > self.through || is_garbage {
                    continue;
                }
                if self.found.len() == self.rows_max {
                    self.is_cut = true;
                    if self.found.last_key_value().is_some_and(|(newest, _)| *newest < revision) {
                        continue;
                    }
                    self.found.pop_last();
                }
                if !version.resident && !version.tombstone {
                    return Err(Fatal::Bug(format!("the value of revision {revision} is not in memory")));
                }
                let (crc, tombstone, record) = (version.crc, version.tombstone, version.head.clone());
                self.found.insert(revision, Row { crc, tombstone, record });
            }
        }
        self.key = Bytes::new();
        if let Some((Revision { main, sub }, _)) = self.found.last_key_value() {
            self.from = Revision::new(*main, sub + 1);
        }
        self.is_gathered = true;
        Ok(())
    }
}
