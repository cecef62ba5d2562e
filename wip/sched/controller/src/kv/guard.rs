//! The whole vocabulary of conditions: five guards, each one comparison.

use super::{KeyValue, Revision};
use bytes::Bytes;

/// What must hold of a key for a transaction to be written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// This component's election is still the one that was won: against two leaders, and requests that come late.
    Fence {
        /// The election's key.
        key: Bytes,
        /// Its create revision.
        token: Revision,
    },
    /// The object is as it was seen: against lost updates.
    Seen {
        /// The object's key.
        key: Bytes,
        /// Its last change.
        modified: Revision,
    },
    /// The object is the same incarnation, whatever changed of it: against orphans, and another of the same name.
    Alive {
        /// The object's key.
        key: Bytes,
        /// Its creation.
        created: Revision,
    },
    /// There is no such object: against making it twice.
    Absent {
        /// The object's key.
        key: Bytes,
    },
    /// It was written so often: against placements that do not know of each other. The next version can be foretold.
    Version {
        /// The key.
        key: Bytes,
        /// Its version; 0 if it is not there.
        version: i64,
    },
}

/// A guarded key as it was when its transaction was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its creation; 0 if it is not there.
    pub created: Revision,
    /// Its last change; 0 if it is not there.
    pub modified: Revision,
    /// Its version; 0 if it is not there.
    pub version: i64,
}

impl Seen {
    /// What guards see of a key.
    pub fn of(now: Option<&KeyValue>) -> Self {
        now.map_or_else(Self::default, |now| Self {
            created: now.created,
            modified: now.modified,
            version: now.version,
        })
    }
}

impl Guard {
    /// The key that it looks at.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Fence { key, .. }
            | Self::Seen { key, .. }
            | Self::Alive { key, .. }
            | Self::Absent { key }
            | Self::Version { key, .. } => key,
        }
    }

    /// Whether it holds of a key that is so.
    pub fn holds(&self, now: &Seen) -> bool {
        match self {
            Self::Fence { token, .. } => now.created == *token,
            Self::Seen { modified, .. } => now.modified == *modified,
            Self::Alive { created, .. } => now.created == *created,
            Self::Absent { .. } => now.created == 0,
            Self::Version { version, .. } => now.version == *version,
        }
    }

    /// Its name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fence { .. } => "fence",
            Self::Seen { .. } => "seen",
            Self::Alive { .. } => "alive",
            Self::Absent { .. } => "absent",
            Self::Version { .. } => "version",
        }
    }
}
