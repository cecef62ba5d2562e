//! Committed entries that are not yet applied: while they are many, nothing new is taken in.

use crate::effect::Entry;
use crate::limits::APPLY_BACKLOG_BYTES_MAX;
use crate::types::Index;
use std::collections::VecDeque;

/// What apply has been handed and has not reported.
#[derive(Default)]
pub(super) struct Backlog {
    waiting: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Backlog {
    /// Takes note of entries handed to apply.
    pub(super) fn add(&mut self, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        let bytes = entries.iter().map(|entry| entry.data.len()).sum();
        self.bytes += bytes;
        self.waiting.push_back((last.index, bytes));
    }

    /// Takes note that everything up to `index` is applied.
    pub(super) fn applied(&mut self, index: Index) {
        while let Some((last, bytes)) = self.waiting.front()
            && *last <= index
        {
            self.bytes -= bytes;
            self.waiting.pop_front();
        }
    }

    /// Tells whether new proposals are to be refused.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > APPLY_BACKLOG_BYTES_MAX
    }
}
