//! Batches of other members at their leader: those that wait for its next entries, and those in its log.

use crate::command::BatchId;
use crate::limits::FORWARDED_BYTES_MAX;
use crate::types::Term;
use bytes::Bytes;
use std::collections::BTreeSet;

/// What others asked this leader to append.
#[derive(Default)]
pub(super) struct Forwarded {
    /// The term that it leads in.
    term: Option<Term>,
    waiting: Vec<(BatchId, Bytes)>,
    bytes: usize,
    /// Waiting, or appended in this term and not seen committed: asked for again, they must not double the log.
    known: BTreeSet<BatchId>,
}

impl Forwarded {
    /// Forgets everything if this member leads in another term, or no longer.
    pub(super) fn lead(&mut self, term: Option<Term>) {
        if self.term != term {
            *self = Self { term, ..Self::default() };
        }
    }

    /// Tells whether a batch of so many bytes would be taken in: not if it is known or too much waits, and its author
    /// sends it again.
    pub(super) fn wants(&self, id: &BatchId, bytes: usize) -> bool {
        let full = !self.waiting.is_empty() && self.bytes + bytes > FORWARDED_BYTES_MAX;
        self.term.is_some() && !full && !self.known.contains(id)
    }

    /// Takes a batch in, if it is wanted.
    pub(super) fn offer(&mut self, id: BatchId, batch: Bytes) {
        if self.wants(&id, batch.len()) {
            self.known.insert(id);
            self.bytes += batch.len();
            self.waiting.push((id, batch));
        }
    }

    /// Tells whether batches wait to be appended.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes what waits.
    pub(super) fn take(&mut self) -> Vec<(BatchId, Bytes)> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Forgets a batch: it is committed, or was not appended.
    pub(super) fn forget(&mut self, id: &BatchId) {
        self.known.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> BatchId {
        BatchId { member: 2, boot: 1, number }
    }

    #[test]
    fn a_batch_that_is_asked_for_twice_is_appended_once_per_term() {
        let mut forwarded = Forwarded::default();
        forwarded.offer(id(1), Bytes::new());
        assert!(!forwarded.is_waiting(), "only a leader takes batches in");
        forwarded.lead(Some(3));
        forwarded.offer(id(1), Bytes::new());
        forwarded.offer(id(1), Bytes::new());
        assert_eq!(forwarded.take().len(), 1);
        forwarded.offer(id(1), Bytes::new());
        assert!(!forwarded.is_waiting());
        forwarded.lead(Some(3));
        forwarded.forget(&id(1));
        forwarded.offer(id(1), Bytes::new());
        assert!(forwarded.is_waiting(), "after its commit the window of apply sees to it");
        forwarded.lead(None);
        assert!(!forwarded.is_waiting());
    }

    #[test]
    fn too_many_bytes_are_dropped() {
        let mut forwarded = Forwarded::default();
        forwarded.lead(Some(3));
        forwarded.offer(id(1), vec![0; FORWARDED_BYTES_MAX].into());
        forwarded.offer(id(2), vec![0].into());
        assert_eq!(forwarded.take().len(), 1);
        forwarded.offer(id(2), vec![0].into());
        assert_eq!(forwarded.take().len(), 1, "a dropped batch is not taken for known");
    }
}
