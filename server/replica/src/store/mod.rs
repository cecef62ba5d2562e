//! The working store: ordered bytes behind the acknowledgement, which may vanish at any moment.

use crate::outcome::Fatal;
use crate::record::Record;
use crate::types::Revision;
use bytes::Bytes;

/// One atomic batch: all of it is in the store after a process crash, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Keys to set, in any order.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys to remove; a key is in one of both lists only.
    pub removes: Vec<Vec<u8>>,
}

/// An ordered key-value store (get, scan, commit). Not durable: only the log and the snapshots are.
pub trait Store: Send + Sync {
    /// Returns the value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fatal>;

    /// Returns the last pair with `from <= key <= to`, in key order.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, Fatal>;

    /// Calls `visit` with each pair with `from <= key < to`, ascending, until it returns false.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fatal>;

    /// Applies `batch` atomically.
    fn commit(&self, batch: Batch) -> Result<(), Fatal>;
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
