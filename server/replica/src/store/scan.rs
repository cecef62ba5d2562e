//! Reads a store's records in revision order, slice by slice, so that nothing is held between slices.

use super::block::{self, Block, Entry};
use super::{Store, keys};
use crate::limits::{BLOCK_BYTES_MAX, RECORD_PARTS_MAX};
use crate::outcome::Fatal;
use crate::types::Revision;

/// A walk over the records of a store.
///
/// It may go on while records behind its end are added; nobody may remove records meanwhile.
#[derive(Clone, Debug)]
pub struct RecordScan {
    next: Vec<u8>,
    end: Vec<u8>,
    last: Option<Revision>,
}

impl RecordScan {
    /// Walks over all records.
    pub fn all() -> Self {
        Self { next: keys::record(Revision::new(0, 0)).to_vec(), end: keys::records_end().to_vec(), last: None }
    }

    /// Walks over the records up to `revision` main; a block that reaches beyond it is read whole.
    pub fn through(revision: i64) -> Self {
        Self { end: keys::record(Revision::new(revision.saturating_add(1), 0)).to_vec(), ..Self::all() }
    }

    /// Returns the next records, about `target_bytes` of them but at least one block's; `None` at the end.
    ///
    /// - Errors: [`Fatal::EngineLost`] if a block is damaged, parts are missing or revisions do not ascend.
    pub fn next_slice(&mut self, store: &impl Store, target_bytes: usize) -> Result<Option<Vec<Entry>>, Fatal> {
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        store.scan(&self.next, &self.end, &mut |key, value| {
            // Parts of one record are never split between slices.
            if bytes >= target_bytes && key.len() == keys::RECORD_BYTES {
                return false;
            }
            bytes += value.len();
            pairs.push((key.to_vec(), value.to_vec()));
            true
        })?;
        let Some((key, _)) = pairs.last() else { return Ok(None) };
        // The smallest key behind the last one.
        self.next.clone_from(key);
        self.next.push(0);
        let entries = entries(&pairs)?;
        for entry in &entries {
            if self.last.is_some_and(|last| last >= entry.revision) {
                return Err(block::damaged(entry.revision, "revisions do not ascend"));
            }
            self.last = Some(entry.revision);
        }
        Ok(Some(entries))
    }
}

/// Reads the records of neighbouring blocks; a record in parts must be there whole.
pub(super) fn entries(pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<Entry>, Fatal> {
    let mut entries = Vec::new();
    let mut pairs = pairs.iter().peekable();
    while let Some((key, value)) = pairs.next() {
        match block::decode(key, value)? {
            Block::Run(run) => {
                for entry in run.entries() {
                    entries.push(entry?);
                }
            }
            Block::Part(part) => {
                let mut join = Join::new(part)?;
                while let Some((key, value)) = pairs.next_if(|(key, _)| key.len() > keys::RECORD_BYTES) {
                    join.add(key, value)?;
                }
                entries.push(join.finish()?);
            }
        }
    }
    Ok(entries)
}

/// Reads the large record at `revision` from its parts.
pub fn joined(store: &impl Store, revision: Revision) -> Result<Entry, Fatal> {
    let (mut join, mut failed) = (None::<Join>, None);
    store.scan(&keys::record(revision), &keys::record_end(revision), &mut |key, value| {
        let step = match &mut join {
            Some(join) => join.add(key, value),
            None => block::decode(key, value).and_then(|block| match block {
                Block::Part(part) => Join::new(part).map(|first| join = Some(first)),
                Block::Run(_) => Err(block::damaged(revision, "a run where parts were")),
            }),
        };
        failed = step.err();
        failed.is_none()
    })?;
    match (failed, join) {
        (Some(error), _) => Err(error),
        (None, Some(join)) => join.finish(),
        (None, None) => Err(Fatal::EngineLost(format!("record {revision} is missing"))),
    }
}

/// The parts of one record, so far.
struct Join {
    revision: Revision,
    parts: u32,
    total: usize,
    bytes: Vec<u8>,
}

impl Join {
    fn new(first: block::Part<'_>) -> Result<Self, Fatal> {
        let total = first.total as usize;
        if first.number != 0 || total > RECORD_PARTS_MAX * BLOCK_BYTES_MAX {
            return Err(block::damaged(first.revision, "its first part is missing or its length wrong"));
        }
        Ok(Self { revision: first.revision, parts: 1, total, bytes: first.payload.to_vec() })
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fatal> {
        match block::decode(key, value)? {
            Block::Part(part)
                if part.revision == self.revision && part.number == self.parts && part.total as usize == self.total =>
            {
                self.parts += 1;
                self.bytes.extend_from_slice(part.payload);
                Ok(())
            }
            _ => Err(block::damaged(self.revision, &format!("part {} is missing", self.parts))),
        }
    }

    fn finish(self) -> Result<Entry, Fatal> {
        if self.bytes.len() != self.total {
            return Err(block::damaged(self.revision, &format!("part {} is missing", self.parts)));
        }
        block::decode_whole(self.revision, &self.bytes)
    }
}
