//! The working store: ordered bytes behind the acknowledgement, which may vanish at any moment.
//!
//! In reading order: [`keys`] and [`block`] are the formats, [`applied`] says how far the store is, [`scan`] reads it
//! whole, [`flush`] fills it, [`restore`] brings it back, [`usable`] decides at open whether it may be trusted; [`mem`] is its twin in memory and
//! [`fmt`] shows its bytes to people.

pub mod applied;
pub mod block;
pub mod flush;
pub mod fmt;
pub mod keys;
pub mod mem;
pub mod restore;
pub mod scan;
pub mod usable;

use crate::outcome::Fatal;
use crate::record::Record;
use crate::types::Revision;
use bytes::Bytes;

/// One atomic batch: all of it is in the store after a process crash, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Keys to set, in any order.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys to remove; a key is in one of both lists only.
    pub removes: Vec<Vec<u8>>,
}

impl Batch {
    /// Tells whether the batch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.removes.is_empty()
    }
}

/// An ordered key-value store (get, scan, commit). Not durable: only the log and the snapshots are.
///
/// A shell whose threads share one asks for `Send + Sync` beside it; the twin in memory has neither lock nor thread.
pub trait Store {
    /// Returns the value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fatal>;

    /// Returns the last pair with `from <= key <= to`, in key order.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, Fatal>;

    /// Calls `visit` with each pair with `from <= key < to`, ascending, until it returns false.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fatal>;

    /// Applies `batch` atomically.
    fn commit(&self, batch: Batch) -> Result<(), Fatal>;
}

impl<S: Store + ?Sized> Store for &S {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        (**self).get(key)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, Fatal> {
        (**self).last(from, to)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fatal> {
        (**self).scan(from, to, visit)
    }
    fn commit(&self, batch: Batch) -> Result<(), Fatal> {
        (**self).commit(batch)
    }
}

impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        (**self).get(key)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, Fatal> {
        (**self).last(from, to)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fatal> {
        (**self).scan(from, to, visit)
    }
    fn commit(&self, batch: Batch) -> Result<(), Fatal> {
        (**self).commit(batch)
    }
}

/// Where values are found that have left memory.
pub trait Values {
    /// Returns the record written at `revision`; errors: [`Fatal::EngineLost`] if it is missing or its CRC differs.
    fn load(&self, revision: Revision) -> Result<Record, Fatal>;
}

/// For a state whose values are all in memory: to load one is a bug.
pub struct AllInMemory;

impl Values for AllInMemory {
    fn load(&self, revision: Revision) -> Result<Record, Fatal> {
        Err(Fatal::Bug(format!("value of revision {revision} is not in memory")))
    }
}

/// The records in a store's blocks, found by revision.
#[derive(Clone, Debug)]
pub struct Blocks<S>(pub S);

impl<S: Store> Values for Blocks<S> {
    fn load(&self, revision: Revision) -> Result<Record, Fatal> {
        let missing = || Fatal::EngineLost(format!("record {revision} is missing"));
        let (first, key) = (keys::record(Revision::new(0, 0)), keys::record(revision));
        let (key, value) = self.0.last(&first, &key)?.ok_or_else(missing)?;
        match block::decode(&key, &value)? {
            block::Block::Run(run) => {
                for entry in run.entries() {
                    let entry = entry?;
                    if entry.revision >= revision {
                        return if entry.revision == revision { Ok(entry.record) } else { Err(missing()) };
                    }
                }
                Err(missing())
            }
            block::Block::Part(part) if part.revision == revision && part.number == 0 => {
                Ok(scan::joined(&self.0, revision)?.record)
            }
            block::Block::Part(_) => Err(missing()),
        }
    }
}
