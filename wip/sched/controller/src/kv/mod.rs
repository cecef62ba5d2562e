//! All that the control plane asks of a store: etcd's API, as far as it is used, behind one small trait.
//!
//! In reading order: `guard` (the whole vocabulary of conditions), `txn` (how everything is written), this trait,
//! `etcd` (any etcd, through its client), `memory` (a store in this process, for tests and the simulator), `local` (the same
//! behind the trait).

mod guard;
mod txn;
mod etcd;
pub mod memory;
mod local;

pub use etcd::Etcd;
pub use guard::{Guard, Seen};
pub use local::Local;
pub use txn::{Txn, Write};

use bytes::Bytes;
use std::future::Future;
use std::time::Duration;

/// A point in the store's history.
pub type Revision = i64;

/// A lease, by its number.
pub type LeaseId = i64;

/// One key as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// What it holds.
    pub value: Bytes,
    /// When this incarnation began.
    pub created: Revision,
    /// When it last changed.
    pub modified: Revision,
    /// Changes of this incarnation, its creation among them.
    pub version: i64,
    /// The lease that it goes with; 0 if none.
    pub lease: LeaseId,
}

/// Which keys to read.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// The first.
    pub key: Bytes,
    /// One behind the last.
    pub end: Bytes,
    /// At most so many; 0 for all.
    pub limit: usize,
    /// As of this revision; 0 for now, agreed on by a majority.
    pub revision: Revision,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub items: Vec<KeyValue>,
    /// Whether there is more.
    pub more: bool,
    /// The store's revision when it was read.
    pub revision: Revision,
    /// Which cluster answered.
    pub cluster_id: u64,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was written, as this revision.
    Committed(Revision),
    /// Nothing was: what the guards' keys were like at this revision.
    Refused {
        /// The store's revision then.
        revision: Revision,
        /// One for each guard, in their order.
        seen: Vec<Seen>,
    },
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key is now so.
    Put(KeyValue),
    /// The key is gone, since this revision.
    Delete {
        /// Which.
        key: Bytes,
        /// Since when.
        revision: Revision,
    },
}

impl Event {
    /// Whose change it is.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(now) => &now.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// When.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(now) => now.modified,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// What a watch tells: whole revisions, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes.
    pub events: Vec<Event>,
    /// Everything up to here has been told.
    pub through: Revision,
}

/// Why a call did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It may have been done, or may still be: only the same transaction again tells.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// It was not done; try later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// What was asked for is compacted away.
    #[error("revisions up to {0} are compacted")]
    Compacted(Revision),
    /// There is no such lease.
    #[error("there is no such lease")]
    LeaseNotFound,
    /// It was not done, and never will be as it is.
    #[error("refused: {0}")]
    Refused(String),
}

/// A store.
pub trait Kv: Clone + Send + Sync + 'static {
    /// What a watch is read from.
    type Watch: Watch;

    /// Reads keys at one revision.
    ///
    /// - Errors: [`Error::Compacted`], [`Error::Unavailable`].
    fn range(&self, range: Range) -> impl Future<Output = Result<Page, Error>> + Send;

    /// Writes all or nothing.
    ///
    /// - Errors: [`Error::Unknown`]; never tried again here, since only the caller knows what it means.
    fn txn(&self, txn: &Txn) -> impl Future<Output = Result<Outcome, Error>> + Send;

    /// Follows the keys of a range from a revision on.
    fn watch(&self, key: Bytes, end: Bytes, from: Revision) -> impl Future<Output = Result<Self::Watch, Error>> + Send;

    /// Makes a lease.
    fn grant(&self, ttl: Duration) -> impl Future<Output = Result<LeaseId, Error>> + Send;

    /// Renews a lease.
    ///
    /// - Errors: [`Error::LeaseNotFound`].
    fn keep_alive(&self, lease: LeaseId) -> impl Future<Output = Result<(), Error>> + Send;

    /// Ends a lease, and with it its keys.
    ///
    /// - Errors: [`Error::LeaseNotFound`].
    fn revoke(&self, lease: LeaseId) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Changes as they come.
pub trait Watch: Send + 'static {
    /// The next changes, or how far there were none.
    ///
    /// - Errors: [`Error::Compacted`], after which it is over.
    fn next(&mut self) -> impl Future<Output = Result<Batch, Error>> + Send;
}
