//! Decides at open whether a store's folder may be used.
//!
//! The store never calls fsync. A process crash leaves it whole, since the operating system still has what it wrote;
//! a power cut may leave anything, an empty store without an error included. So only two proofs count: the machine has
//! not been restarted since, or the log says that the store was closed and we made all its files durable.

use super::applied::Applied;
use crate::types::Index;
use std::fmt;

/// What is known about a folder before its store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder<'a> {
    /// The boot of the machine in which it was made, from its name.
    pub made_in: &'a str,
    /// The machine's boot now.
    pub boot: &'a str,
    /// The applied index that the log's last record says the store was closed with.
    pub clean: Option<Index>,
}

/// Why a store is set aside and rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// There is none.
    Absent,
    /// The machine was restarted since, and the store had not been closed cleanly.
    OtherBoot,
    /// It never got an applied record.
    Empty,
    /// It lacks entries that the log no longer has.
    Behind {
        /// Where the store is.
        applied: Index,
        /// Where the log begins.
        first: Index,
    },
    /// It was closed cleanly at another index: it is not the store that the log speaks of.
    NotAsClosed {
        /// Where the store is.
        applied: Index,
        /// What the log says.
        clean: Index,
    },
    /// It is ahead of everything that the log and the snapshots know of.
    Ahead {
        /// Where the store is.
        applied: Index,
        /// The last index that is known.
        last: Index,
    },
    /// Reading it failed, or it does not hold what its sums say.
    Damaged(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "there is no store"),
            Self::OtherBoot => write!(f, "the machine was restarted and the store had not been closed"),
            Self::Empty => write!(f, "the store holds no applied record"),
            Self::Behind { applied, first } => write!(f, "the store is at index {applied}, the log begins at {first}"),
            Self::NotAsClosed { applied, clean } => {
                write!(f, "the store is at index {applied}, the log says it was closed at {clean}")
            }
            Self::Ahead { applied, last } => write!(f, "the store is at index {applied}, the log ends at {last}"),
            Self::Damaged(detail) => write!(f, "the store is damaged: {detail}"),
        }
    }
}

/// Decides whether the folder may be opened at all.
pub fn folder(folder: &Folder<'_>) -> Result<(), Unusable> {
    #[cfg(feature = "mutants")]
    if crate::mutants::active("use_sled_after_power_cut") {
        return Ok(());
    }
    if folder.made_in == folder.boot || folder.clean.is_some() { Ok(()) } else { Err(Unusable::OtherBoot) }
}

/// Decides whether the opened store can stand under a log that holds `first` to `last`.
///
/// `last` is the last index of the log, or the newest snapshot's if that is above it.
pub fn applied(store: Option<&Applied>, clean: Option<Index>, first: Index, last: Index) -> Result<Applied, Unusable> {
    let store = store.ok_or(Unusable::Empty)?;
    let applied = store.index;
    if applied + 1 < first {
        return Err(Unusable::Behind { applied, first });
    }
    if let Some(clean) = clean.filter(|clean| *clean != applied) {
        return Err(Unusable::NotAsClosed { applied, clean });
    }
    #[cfg(feature = "mutants")]
    let last = if crate::mutants::active("sled_ahead_of_commit_at_open") { applied } else { last };
    if applied > last {
        return Err(Unusable::Ahead { applied, last });
    }
    Ok(*store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_counts_only_within_its_boot_or_after_a_clean_close() {
        let boots = |made_in, clean| Folder { made_in, boot: "b", clean };
        assert_eq!(folder(&boots("b", None)), Ok(()));
        assert_eq!(folder(&boots("a", Some(7))), Ok(()));
        assert_eq!(folder(&boots("a", None)), Err(Unusable::OtherBoot));
    }

    #[test]
    fn a_store_must_meet_the_log() {
        let at = |index| Applied { index, ..Default::default() };
        assert_eq!(applied(None, None, 1, 9), Err(Unusable::Empty));
        assert_eq!(applied(Some(&at(4)), None, 5, 9), Ok(at(4)));
        assert_eq!(applied(Some(&at(3)), None, 5, 9), Err(Unusable::Behind { applied: 3, first: 5 }));
        assert_eq!(applied(Some(&at(9)), None, 5, 9), Ok(at(9)));
        assert_eq!(applied(Some(&at(10)), None, 5, 9), Err(Unusable::Ahead { applied: 10, last: 9 }));
        assert_eq!(applied(Some(&at(8)), Some(9), 5, 9), Err(Unusable::NotAsClosed { applied: 8, clean: 9 }));
    }
}
