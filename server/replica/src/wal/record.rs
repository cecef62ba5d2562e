//! What the log holds: entries, hard states, and the facts that recovery needs.

use crate::effect::{Entry, HardState};
use crate::types::{Index, Term};

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A raft entry; one with an index already written replaces it and all after it.
    Entry(Entry),
    /// Term, vote and commit; the last one counts.
    HardState(HardState),
    /// A verified snapshot stands at this entry; the log may start after it.
    Snapshot {
        /// Index of the last entry in the snapshot.
        index: Index,
        /// Its term.
        term: Term,
    },
    /// The process began its boot with this counter; durable before any batch carries it.
    Boot {
        /// Counts this member's starts, from 1.
        counter: u64,
    },
    /// The process closed its store and synced all its files; true until the next `Boot`.
    Clean {
        /// The applied index in the store.
        applied: Index,
    },
}
