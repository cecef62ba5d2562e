//! This member's batches whose fate is open, by number: kept, and sent again under their number, until they are seen
//! committed or nobody waits for them any more.

use crate::limits::{DEDUPE_WINDOW_MAX, FORWARD_BYTES_MAX, FORWARD_RESEND_MS, OPEN_BATCHES_MAX};
use crate::types::{MemberId, MonoMillis, Term};
use bytes::Bytes;
use std::collections::BTreeMap;

// A gap in a member's window closes when the window is full; until then a batch may still fill it.
const _: () = assert!(OPEN_BATCHES_MAX <= DEDUPE_WINDOW_MAX / 2);

/// The table.
#[derive(Default)]
pub(super) struct Open {
    batches: BTreeMap<u64, Batch>,
    last: u64,
    commands: usize,
}

/// One batch.
struct Batch {
    data: Bytes,
    commands: Vec<u64>,
    /// When its oldest command came.
    since: MonoMillis,
    /// It means nothing in another term, and must not be found in one.
    bound: Option<Term>,
    asked: Option<Asked>,
}

/// Who was asked to append a batch, which may be this member itself.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Asked {
    term: Term,
    leader: MemberId,
    /// When; `None` once it is in this member's own log, where it stays while the term lasts.
    at: Option<MonoMillis>,
}

impl Batch {
    /// Tells whether the leader of the term is to be asked for it (again).
    fn is_wanted(&self, term: Term, leader: MemberId, now: MonoMillis) -> bool {
        self.asked.is_none_or(|asked| {
            (asked.term, asked.leader) != (term, leader) || asked.at.is_some_and(|at| now.0 >= at.0 + FORWARD_RESEND_MS)
        })
    }
}

impl Open {
    /// Counts the commands whose fate is open.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    /// Tells whether another batch may be opened.
    pub(super) fn has_room(&self) -> bool {
        let oldest = self.batches.first_key_value().map_or(self.last + 1, |(number, _)| *number);
        self.last + 1 - oldest < OPEN_BATCHES_MAX as u64
    }

    /// The number of the next batch; counts up from 1.
    pub(super) fn next_number(&self) -> u64 {
        self.last + 1
    }

    /// Opens the next batch.
    pub(super) fn push(&mut self, data: Bytes, commands: Vec<u64>, since: MonoMillis, bound: Option<Term>) {
        self.last += 1;
        self.commands += commands.len();
        self.batches.insert(self.last, Batch { data, commands, since, bound, asked: None });
    }

    /// Takes out a batch: it is committed, or was never sent. Returns its commands.
    pub(super) fn remove(&mut self, number: u64) -> Vec<u64> {
        let commands = self.batches.remove(&number).map(|batch| batch.commands).unwrap_or_default();
        self.commands -= commands.len();
        commands
    }

    /// Takes out what means nothing outside a term that this member no longer leads; returns its commands.
    pub(super) fn unbind(&mut self, leads: Option<Term>) -> Vec<u64> {
        self.remove_all(|batch| batch.bound.is_some() && batch.bound != leads)
    }

    /// Lets what is bound to a term be found in another one.
    #[cfg(feature = "mutants")]
    pub(super) fn release(&mut self) {
        self.batches.values_mut().for_each(|batch| batch.bound = None);
    }

    /// Takes out what is older than `timeout_ms`; returns its commands.
    pub(super) fn overdue(&mut self, now: MonoMillis, timeout_ms: u64) -> Vec<u64> {
        // Batches are opened in the order in which their commands came, so that one look tells that none is due.
        self.remove_all(|batch| now.0 >= batch.since.0 + timeout_ms)
    }

    fn remove_all(&mut self, mut is_gone: impl FnMut(&Batch) -> bool) -> Vec<u64> {
        let mut commands = Vec::new();
        self.batches.retain(|_, batch| {
            let gone = is_gone(batch);
            if gone {
                commands.append(&mut batch.commands);
            }
            !gone
        });
        self.commands -= commands.len();
        commands
    }

    /// Tells whether [`Open::ask`] would give something.
    pub(super) fn wants(&self, term: Term, leader: MemberId, now: MonoMillis) -> bool {
        let mut under_way = 0;
        for batch in self.batches.values() {
            if batch.is_wanted(term, leader, now) {
                return under_way == 0 || under_way + batch.data.len() <= FORWARD_BYTES_MAX;
            }
            under_way += batch.data.len();
        }
        false
    }

    /// The batches, oldest first, that the leader of this term is to be asked to append (again), as far as they fit.
    pub(super) fn ask(&mut self, term: Term, leader: MemberId, now: MonoMillis) -> Vec<Bytes> {
        let mut under_way = 0;
        let mut taken = Vec::new();
        for batch in self.batches.values_mut() {
            if under_way > 0 && under_way + batch.data.len() > FORWARD_BYTES_MAX {
                break;
            }
            under_way += batch.data.len();
            if batch.is_wanted(term, leader, now) {
                batch.asked = Some(Asked { term, leader, at: Some(now) });
                taken.push(batch.data.clone());
            }
        }
        taken
    }

    /// Tells whether everything is on its way to the leader and there is room for more.
    pub(super) fn has_way(&self) -> bool {
        self.batches.values().map(|batch| batch.data.len()).sum::<usize>() < FORWARD_BYTES_MAX
    }

    /// Tells whether [`Open::append`] would give something.
    pub(super) fn wants_append(&self, term: Term, member: MemberId, now: MonoMillis) -> bool {
        self.batches.values().any(|batch| batch.is_wanted(term, member, now))
    }

    /// The batches, oldest first with their numbers, that this member, leading in `term`, has not appended in it.
    pub(super) fn append(&self, term: Term, member: MemberId, now: MonoMillis) -> Vec<(u64, Bytes)> {
        let wanted = self.batches.iter().filter(|(_, batch)| batch.is_wanted(term, member, now));
        wanted.map(|(number, batch)| (*number, batch.data.clone())).collect()
    }

    /// Takes note that this member appended a batch in `term`, or, with `at`, that its log was full.
    pub(super) fn appended(&mut self, number: u64, term: Term, member: MemberId, at: Option<MonoMillis>) {
        if let Some(batch) = self.batches.get_mut(&number) {
            batch.asked = Some(Asked { term, leader: member, at });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: MemberId = MemberId(3);

    fn open(count: u64, bytes: usize) -> Open {
        let mut open = Open::default();
        for number in 1..=count {
            open.push(vec![0; bytes].into(), vec![number * 10], MonoMillis(number), None);
        }
        open
    }

    #[test]
    fn a_batch_is_asked_for_once_and_again_of_a_new_leader_or_after_a_while() {
        let mut open = open(2, 1);
        assert_eq!(open.ask(1, LEADER, MonoMillis(5)).len(), 2);
        assert!(!open.wants(1, LEADER, MonoMillis(6)));
        assert_eq!(open.ask(2, LEADER, MonoMillis(6)).len(), 2, "a new term");
        assert_eq!(open.ask(2, MemberId(4), MonoMillis(7)).len(), 2, "a new leader");
        assert!(!open.wants(2, MemberId(4), MonoMillis(7 + FORWARD_RESEND_MS - 1)));
        assert_eq!(open.remove(1), [10]);
        assert_eq!(open.ask(2, MemberId(4), MonoMillis(7 + FORWARD_RESEND_MS)).len(), 1);
    }

    #[test]
    fn what_this_member_appended_stays_in_its_log_while_it_leads() {
        let mut open = open(1, 1);
        let own = MemberId(1);
        assert_eq!(open.append(4, own, MonoMillis(0)).len(), 1);
        open.appended(1, 4, own, None);
        assert!(open.append(4, own, MonoMillis(u64::MAX)).is_empty());
        assert_eq!(open.append(6, own, MonoMillis(0)).len(), 1, "another leader may have cut it off in between");
        open.appended(1, 6, own, Some(MonoMillis(0)));
        assert!(open.append(6, own, MonoMillis(1)).is_empty(), "a full log is tried again later");
        assert_eq!(open.append(6, own, MonoMillis(FORWARD_RESEND_MS)).len(), 1);
    }

    #[test]
    fn bytes_under_way_are_bounded_but_one_batch_always_goes() {
        let mut open = open(3, FORWARD_BYTES_MAX / 2 + 1);
        assert_eq!(open.ask(1, LEADER, MonoMillis(5)).len(), 1);
        assert!(!open.wants(1, LEADER, MonoMillis(5)));
        open.remove(1);
        assert!(open.wants(1, LEADER, MonoMillis(5)));
        assert_eq!(open.ask(1, LEADER, MonoMillis(5)).len(), 1);
    }

    #[test]
    fn numbers_that_are_open_lie_within_half_a_window() {
        let mut open = open(OPEN_BATCHES_MAX as u64, 0);
        assert!(!open.has_room());
        open.remove(2);
        assert!(!open.has_room(), "the oldest is still open");
        open.remove(1);
        assert!(open.has_room());
        assert_eq!(open.next_number(), OPEN_BATCHES_MAX as u64 + 1);
    }

    #[test]
    fn what_waits_too_long_or_belongs_to_a_lost_term_is_given_up() {
        let mut open = open(2, 1);
        open.push(Bytes::new(), vec![30], MonoMillis(3), Some(7));
        assert_eq!(open.unbind(Some(7)), [0u64; 0]);
        assert_eq!(open.unbind(Some(8)), [30]);
        assert_eq!(open.overdue(MonoMillis(100), 100), [0u64; 0]);
        assert_eq!(open.overdue(MonoMillis(101), 100), [10]);
        assert_eq!(open.commands(), 1);
    }
}
