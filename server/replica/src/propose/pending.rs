//! Batches in this member's log whose fate is open.
//!
//! A batch that was appended in term T is committed when the entry at its place is handed on with that term. It is
//! lost once an entry of a later term is: the log then continues from a leader that did not have it.

use crate::types::{Index, Term};
use std::collections::BTreeMap;

/// Batches by the place of their entry.
#[derive(Default)]
pub(super) struct Pending {
    batches: BTreeMap<(Term, Index), Vec<u64>>,
    commands: usize,
}

impl Pending {
    /// Counts the commands whose fate is open.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    /// Takes note of a batch's commands (ids) and place.
    pub(super) fn appended(&mut self, place: (Term, Index), commands: Vec<u64>) {
        self.commands += commands.len();
        let twice = self.batches.insert(place, commands);
        assert!(twice.is_none(), "one batch per entry");
    }

    /// Takes note of a committed entry; returns the commands that are lost by it.
    ///
    /// - Shape: called for every committed entry, in the log's order.
    pub(super) fn committed(&mut self, term: Term, index: Index) -> Vec<u64> {
        if let Some(commands) = self.batches.remove(&(term, index)) {
            self.commands -= commands.len();
        }
        let open = self.batches.split_off(&(term, 0));
        let lost: Vec<u64> = std::mem::replace(&mut self.batches, open).into_values().flatten().collect();
        self.commands -= lost.len();
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_term_tells_which_batches_are_lost() {
        let mut pending = Pending::default();
        pending.appended((1, 5), vec![10, 11]);
        pending.appended((1, 6), vec![12]);
        pending.appended((3, 6), vec![13]);
        assert_eq!(pending.committed(1, 4), []);
        assert_eq!(pending.committed(1, 5), []);
        assert_eq!(pending.commands(), 2);
        assert_eq!(pending.committed(2, 6), [12]);
        assert_eq!(pending.commands(), 1);
        assert_eq!(pending.committed(3, 7), []);
        assert_eq!(pending.commands(), 1);
    }
}
