//! Linearizable reads in rounds: one ReadIndex for all that wait, and a fresh context for every attempt.
//!
//! A read that arrives while a round is under way waits for the next: the round's read point may be older than it.
//! raft-rs drops a ReadIndex without a word if there is no leader or the leader has not yet committed in its term, and
//! it ignores a context that it has seen. So a round is begun only when neither holds as far as this member knows, it is
//! given up when term or leader change or no answer comes in time, and its reads are asked again under a new context.
//! Asking again is always safe: the later read point covers them too.

use crate::input::ReadId;
use crate::limits::{PENDING_READS_MAX, READ_ROUND_RETRY_MS};
use crate::outcome::Error;
use crate::types::{MemberId, MonoMillis, Term};
use std::collections::VecDeque;

/// Names one attempt: unique among members, boots and attempts. 24 bytes.
type Context = [u8; 24];

/// The reads of one member that have no read point yet.
pub(super) struct Reads {
    member: MemberId,
    boot: u64,
    timeout_ms: u64,
    attempts: u64,
    /// How long the next round waits for its answer: longer after each that was given up, since over a slow link every
    /// answer would else come to a round that is gone.
    patience_ms: u64,
    waiting: VecDeque<Waiting>,
    round: Option<Round>,
}

struct Waiting {
    id: ReadId,
    since: MonoMillis,
}

struct Round {
    context: Context,
    reads: Vec<Waiting>,
    since: MonoMillis,
    term: Term,
    leader: u64,
}

impl Reads {
    /// Starts without reads; a read waits `timeout_ms` at most.
    pub(super) fn new(member: MemberId, boot: u64, timeout_ms: u64) -> Self {
        let patience_ms = READ_ROUND_RETRY_MS;
        Self { member, boot, timeout_ms, attempts: 0, patience_ms, waiting: VecDeque::new(), round: None }
    }

    /// Lets a read wait for the next round.
    ///
    /// - Errors: `TooManyRequests` above the bound.
    pub(super) fn offer(&mut self, id: ReadId, now: MonoMillis) -> Result<(), Error> {
        let asked = self.round.as_ref().map_or(0, |round| round.reads.len());
        if self.waiting.len() + asked >= PENDING_READS_MAX {
            return Err(Error::TooManyRequests);
        }
        self.waiting.push_back(Waiting { id, since: now });
        Ok(())
    }

    /// Tells whether a round can begin as soon as there is a leader that can answer.
    pub(super) fn wants_round(&self) -> bool {
        self.round.is_none() && !self.waiting.is_empty()
    }

    /// Tells whether a round is under way.
    pub(super) fn is_asking(&self) -> bool {
        self.round.is_some()
    }

    /// Begins a round with all waiting reads; returns the context to ask with.
    pub(super) fn begin(&mut self, now: MonoMillis, term: Term, leader: u64) -> Vec<u8> {
        assert!(self.round.is_none(), "one round at a time");
        self.attempts += 1;
        #[cfg(feature = "mutants")]
        if crate::mutants::active("read_context_reused") {
            self.attempts = 1;
        }
        let mut context = Context::default();
        #[cfg(feature = "mutants")]
        let shared = crate::mutants::active("read_context_shared");
        #[cfg(not(feature = "mutants"))]
        let shared = false;
        let (member, boot) = if shared { (0, 0) } else { (self.member.0, self.boot) };
        for (slot, part) in context.chunks_exact_mut(8).zip([member, boot, self.attempts]) {
            slot.copy_from_slice(&part.to_be_bytes());
        }
        let reads = self.waiting.drain(..).collect();
        self.round = Some(Round { context, reads, since: now, term, leader });
        context.to_vec()
    }

    /// Ends the round that `context` names; an answer to a round that was given up finds nothing.
    pub(super) fn answered(&mut self, context: &[u8]) -> Vec<ReadId> {
        match self.round.take_if(|round| round.context == context) {
            Some(round) => {
                self.patience_ms = READ_ROUND_RETRY_MS;
                round.reads.into_iter().map(|read| read.id).collect()
            }
            None => Vec::new(),
        }
    }

    /// Gives the round up if term or leader changed since, or if it waits too long; its reads wait again, first.
    pub(super) fn check(&mut self, now: MonoMillis, term: Term, leader: u64) {
        let Some(round) = &self.round else { return };
        let changed = (round.term, round.leader) != (term, leader);
        if !changed && now.0 < round.since.0 + self.patience_ms {
            return;
        }
        self.patience_ms = if changed { READ_ROUND_RETRY_MS } else { (self.patience_ms * 2).min(self.timeout_ms) };
        let given_up = self.round.take();
        for read in given_up.into_iter().flat_map(|round| round.reads).rev() {
            self.waiting.push_front(read);
        }
    }

    /// Takes out the waiting reads that have waited too long.
    pub(super) fn overdue(&mut self, now: MonoMillis) -> Vec<ReadId> {
        let timeout_ms = self.timeout_ms;
        // They wait in the order of their arrival, also after a round was given up.
        let count = self.waiting.partition_point(|read| now.0 >= read.since.0 + timeout_ms);
        self.waiting.drain(..count).map(|read| read.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads() -> Reads {
        Reads::new(MemberId(1), 2, 5_000)
    }

    fn offer(reads: &mut Reads, id: u64, now: u64) {
        reads.offer(ReadId(id), MonoMillis(now)).unwrap();
    }

    #[test]
    fn a_late_read_waits_for_the_next_round() {
        let mut reads = reads();
        offer(&mut reads, 1, 0);
        let first = reads.begin(MonoMillis(0), 1, 1);
        offer(&mut reads, 2, 0);
        assert!(!reads.wants_round());
        assert_eq!(reads.answered(&first), [ReadId(1)]);
        assert!(reads.wants_round());
        let second = reads.begin(MonoMillis(0), 1, 1);
        assert_ne!(first, second);
        assert_eq!(reads.answered(&first), []);
        assert_eq!(reads.answered(&second), [ReadId(2)]);
    }

    #[test]
    fn a_leader_change_asks_again_under_a_fresh_context_and_keeps_the_order() {
        let mut reads = reads();
        offer(&mut reads, 1, 0);
        offer(&mut reads, 2, 0);
        let first = reads.begin(MonoMillis(0), 1, 1);
        offer(&mut reads, 3, 0);
        reads.check(MonoMillis(1), 1, 1);
        assert!(!reads.wants_round());
        reads.check(MonoMillis(1), 2, 3);
        let second = reads.begin(MonoMillis(1), 2, 3);
        assert_eq!(reads.answered(&first), []);
        assert_eq!(reads.answered(&second), [ReadId(1), ReadId(2), ReadId(3)]);
    }

    /// A read that came after the first attempt is not answered by what the first attempt finds, however late that is
    /// (etcd 20418, 21375): the point of that read may be older than what its client was told since.
    #[test]
    fn reg_20418_pause_read_index() {
        let mut reads = reads();
        offer(&mut reads, 1, 0);
        let before = reads.begin(MonoMillis(0), 1, 1);
        // The process is paused; the answer lies in its socket, and time has gone on.
        offer(&mut reads, 2, READ_ROUND_RETRY_MS);
        reads.check(MonoMillis(READ_ROUND_RETRY_MS), 1, 1);
        let after = reads.begin(MonoMillis(READ_ROUND_RETRY_MS), 1, 1);
        assert_ne!(before, after, "no attempt has another's context");
        assert_eq!(reads.answered(&before), []);
        // The same over a change of leader, in whose term nothing of the old one's counts.
        offer(&mut reads, 3, READ_ROUND_RETRY_MS);
        reads.check(MonoMillis(READ_ROUND_RETRY_MS), 2, 3);
        let elsewhere = reads.begin(MonoMillis(READ_ROUND_RETRY_MS), 2, 3);
        assert!(elsewhere != before && elsewhere != after);
        assert_eq!((reads.answered(&before), reads.answered(&after)), (vec![], vec![]));
        assert_eq!(reads.answered(&elsewhere), [ReadId(1), ReadId(2), ReadId(3)]);
        // Nor does another boot, or another member, ask under a context that was ever used.
        let mut others = [Reads::new(MemberId(1), 3, 5_000), Reads::new(MemberId(2), 2, 5_000)];
        for other in &mut others {
            offer(other, 1, 0);
            let context = other.begin(MonoMillis(0), 1, 1);
            assert!(context != before && context != after && context != elsewhere);
        }
    }

    #[test]
    fn a_silent_round_is_given_up_and_its_reads_in_the_end_refused() {
        let mut reads = reads();
        offer(&mut reads, 1, 0);
        reads.begin(MonoMillis(0), 1, 1);
        reads.check(MonoMillis(READ_ROUND_RETRY_MS - 1), 1, 1);
        assert!(!reads.wants_round());
        reads.check(MonoMillis(READ_ROUND_RETRY_MS), 1, 1);
        assert!(reads.wants_round());
        assert_eq!(reads.overdue(MonoMillis(4_999)), []);
        assert_eq!(reads.overdue(MonoMillis(5_000)), [ReadId(1)]);
    }

    #[test]
    fn an_answer_that_takes_longer_than_a_round_waits_is_met_in_the_end() {
        let mut reads = reads();
        offer(&mut reads, 1, 0);
        let (slow_ms, mut now, mut rounds) = (READ_ROUND_RETRY_MS * 3, 0, 0);
        loop {
            let context = reads.begin(MonoMillis(now), 1, 1);
            rounds += 1;
            reads.check(MonoMillis(now + slow_ms), 1, 1);
            if !reads.wants_round() {
                assert_eq!(reads.answered(&context), [ReadId(1)]);
                break;
            }
            now += slow_ms;
        }
        assert_eq!(rounds, 3);
        offer(&mut reads, 2, now);
        reads.begin(MonoMillis(now), 1, 1);
        reads.check(MonoMillis(now + READ_ROUND_RETRY_MS), 1, 1);
        assert!(reads.wants_round(), "an answer restores the patience of the beginning");
    }

    #[test]
    fn too_many_reads_are_refused() {
        let mut reads = reads();
        for id in 0..PENDING_READS_MAX as u64 {
            offer(&mut reads, id, 0);
        }
        assert_eq!(reads.offer(ReadId(0), MonoMillis(0)), Err(Error::TooManyRequests));
    }
}
