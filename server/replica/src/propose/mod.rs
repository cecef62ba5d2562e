//! From waiting commands to batches, and from batches to the log: one new batch per settle, each with its author, kept
//! until its fate is known and handed to whoever leads.
//!
//! A batch may reach the log more than once, by way of several leaders or of one that was asked again. It is the
//! windows of [`crate::apply::dedupe`] that make this safe: a number is applied once. So a batch goes out again only as
//! it is, under its own number, and a command is refused, which says "nothing changed", only if it was never in one.
mod admit;
mod forwarded;
mod open;

use crate::command::{self, BatchId};
use crate::effect::{Effect, Entry, EntryKind};
use crate::limits::PENDING_REQUESTS_MAX;
use crate::outcome::Error;
use crate::types::{MemberId, MonoMillis, Term};
use admit::Queue;
use bytes::Bytes;
use forwarded::Forwarded;
use mechi_proto::mechipb::{Batch, Command};
use open::Open;

/// Ids of commands that no client waits for begin here; clients' ids count up from 1.
///
/// They are the leader's own wishes about leases. One that was made in a term means nothing in another: a note of a
/// lease's remaining time that a deposed leader's successor appended would end a lease that was renewed meanwhile.
pub(crate) const OWN_COMMANDS: u64 = 1 << 63;

/// Who appends to the log now, as this member sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leader {
    /// This member, in this term.
    Own(Term),
    /// This member, but it is handing leadership over.
    Leaving(Term),
    /// Another one.
    Other(Term, MemberId),
    /// Nobody that is known.
    Nobody,
}

/// The commands of one member from their arrival until their fate is known, and those that others forward to it.
pub(crate) struct Proposals {
    member: MemberId,
    boot: u64,
    timeout_ms: u64,
    now: MonoMillis,
    /// The newest wall time that the shell told, in milliseconds since 1970.
    wall_ms: i64,
    clients: Queue,
    /// The leader's own wishes, which wait apart.
    wishes: Queue,
    /// The term that this member was last seen to lead.
    leads: Option<Term>,
    open: Open,
    forwarded: Forwarded,
    answers: Vec<Effect>,
}

/// The batches of one settle for this leader's log.
#[derive(Default)]
pub(crate) struct ForLog {
    /// Their entries' data.
    pub(crate) data: Vec<Bytes>,
    /// Numbers of own batches, those at `fresh..` never offered before.
    own: Vec<u64>,
    fresh: usize,
    others: Vec<BatchId>,
}

impl Proposals {
    /// Starts without commands; batches are numbered from 1 within (member, boot), and a client waits `timeout_ms`.
    pub(crate) fn new(member: MemberId, boot: u64, timeout_ms: u64) -> Self {
        Self {
            member,
            boot,
            timeout_ms,
            now: MonoMillis::default(),
            wall_ms: 0,
            clients: Queue::default(),
            wishes: Queue::default(),
            leads: None,
            open: Open::default(),
            forwarded: Forwarded::default(),
            answers: Vec::new(),
        }
    }

    /// Lets time go on, and gives up what nobody waits for any more.
    pub(crate) fn tick(&mut self, now: MonoMillis, wall_ms: i64, leader: Leader) {
        self.now = self.now.max(now);
        self.wall_ms = wall_ms;
        let why = if leader == Leader::Nobody { Error::NoLeader } else { Error::Timeout };
        for id in self.clients.overdue(self.now, self.timeout_ms) {
            self.answers.push(Effect::Refuse { id, why: why.clone() });
        }
        for id in self.open.overdue(self.now, self.timeout_ms) {
            self.answers.push(Effect::Unknown { id, why: Error::Timeout });
        }
    }

    /// Queues a command; above a bound it is refused with `too many requests`.
    pub(crate) fn offer(&mut self, command: Command) {
        let id = command.id;
        let queue = if id >= OWN_COMMANDS { &mut self.wishes } else { &mut self.clients };
        let full = queue.len() + self.open.commands() >= PENDING_REQUESTS_MAX;
        if full || !queue.push(command, self.now) {
            self.answers.push(Effect::Refuse { id, why: Error::TooManyRequests });
        }
    }

    /// Takes in a batch that another member wants appended; one that could not be applied is refused.
    ///
    /// It is decoded for this alone: its entry is decoded by another thread, after its commit, when it is too late. One
    /// that is known, or for which there is no room, is dropped before that.
    pub(crate) fn forwarded(&mut self, from: MemberId, batch: Bytes) {
        let id = command::peek(&batch).unwrap_or_default();
        if !self.forwarded.wants(&id, batch.len()) {
            return;
        }
        match command::check_foreign(&batch, from) {
            Ok(()) => self.forwarded.offer(id, batch),
            Err(unfit) => {
                let BatchId { boot, number, .. } = id;
                self.answers.push(Effect::RefuseBatch { to: from, boot, number, why: unfit.to_string() });
            }
        }
    }

    /// Gives up a batch that a leader has refused. Another leader may have appended it all the same, so that its fate is
    /// unknown; but it is not sent again, since the next leader would most likely refuse it too.
    pub(crate) fn given_back(&mut self, boot: u64, number: u64) {
        if boot == self.boot {
            let given_up = self.open.remove(number);
            self.answers.extend(given_up.into_iter().map(|id| Effect::Unknown { id, why: Error::BatchRefused }));
        }
    }

    /// Sees who leads: what belongs to a term that this member no longer leads is given up.
    pub(crate) fn lead(&mut self, leader: Leader) {
        let leads = match leader {
            Leader::Own(term) | Leader::Leaving(term) => Some(term),
            Leader::Other(..) | Leader::Nobody => None,
        };
        self.forwarded.lead(leads);
        if leads.is_none() {
            #[cfg(feature = "mutants")]
            if crate::mutants::active("lease_revoked_by_deposed_leader") {
                return self.open.release();
            }
            let refused = self.wishes.drain().map(|command| Effect::Refuse { id: command.id, why: Error::NotLeader });
            self.answers.extend(refused);
        }
        if self.leads != leads {
            self.leads = leads;
            let lost = self.open.unbind(leads);
            self.answers.extend(lost.into_iter().map(|id| Effect::Unknown { id, why: Error::LeaderChanged }));
        }
    }

    /// Bytes of what waits for this leader's log.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.clients.bytes() + self.forwarded.bytes()
    }

    /// Takes what this leader shall append now: own batches that are not in its log, others', and one new one.
    pub(crate) fn for_log(&mut self, term: Term) -> ForLog {
        let mut taken = ForLog::default();
        for (number, data) in self.open.append(term, self.member, self.now) {
            taken.own.push(number);
            taken.data.push(data);
        }
        for (id, data) in self.forwarded.take() {
            taken.others.push(id);
            taken.data.push(data);
        }
        taken.fresh = taken.own.len();
        for bound in [Some(term), None] {
            if let Some((number, data)) = self.open_next(bound) {
                taken.own.push(number);
                taken.data.push(data);
            }
        }
        taken
    }

    /// Takes note that all of it is in this leader's log.
    pub(crate) fn appended(&mut self, taken: &ForLog, term: Term) {
        for number in &taken.own {
            self.open.appended(*number, term, self.member, None);
        }
    }

    /// Takes note that none of it was appended: too many bytes are uncommitted. What was never offered before is
    /// refused; authors send theirs again, this member too.
    pub(crate) fn refused(&mut self, taken: &ForLog, term: Term) {
        for id in &taken.others {
            self.forwarded.forget(id);
        }
        let (known, fresh) = taken.own.split_at(taken.fresh);
        for number in known {
            self.open.appended(*number, term, self.member, Some(self.now));
        }
        for number in fresh {
            let refused = self.open.remove(*number);
            self.answers.extend(refused.into_iter().map(|id| Effect::Refuse { id, why: Error::TooManyRequests }));
        }
    }

    /// Sends another leader what it has not been asked to append, or long ago, and one new batch.
    pub(crate) fn forward(&mut self, term: Term, leader: MemberId, effects: &mut Vec<Effect>) {
        if self.open.has_way() {
            self.open_next(None);
        }
        let batches = self.open.ask(term, leader, self.now);
        effects.extend(batches.into_iter().map(|batch| Effect::Forward { to: leader, batch }));
    }

    /// Makes a batch of what waits.
    fn open_next(&mut self, bound: Option<Term>) -> Option<(u64, Bytes)> {
        let queue = if bound.is_some() { &mut self.wishes } else { &mut self.clients };
        if !self.open.has_room() {
            return None;
        }
        let (commands, since) = queue.take_batch()?;
        let number = self.open.next_number();
        let ids = commands.iter().map(|command| command.id).collect();
        let batch = Batch { member: self.member.0, boot: self.boot, number, wall_ms: self.wall_ms, commands };
        let data = command::encode(&batch);
        self.open.push(data.clone(), ids, since, bound);
        Some((number, data))
    }

    /// Takes note of committed entries: the batches among them have reached the log for good, wherever they come from.
    pub(crate) fn committed(&mut self, entries: &[Entry]) {
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Normal) {
            let Some(id) = command::peek(&entry.data) else { continue };
            self.forwarded.forget(&id);
            if (id.member, id.boot) == (self.member.0, self.boot) {
                self.open.remove(id.number);
            }
        }
    }

    /// Moves refusals and the like to `effects`.
    pub(crate) fn settle(&mut self, effects: &mut Vec<Effect>) {
        effects.append(&mut self.answers);
    }

    /// Tells whether another settle would do something; a leader that `gathers` appends nothing now.
    pub(crate) fn is_unsettled(&self, leader: Leader, gathers: bool) -> bool {
        let work = match leader {
            Leader::Own(_) if gathers => false,
            Leader::Own(term) => {
                let waits = self.clients.len() + self.wishes.len() > 0;
                self.forwarded.is_waiting()
                    || waits && self.open.has_room()
                    || self.open.wants_append(term, self.member, self.now)
            }
            Leader::Other(term, leader) => {
                let waits = self.clients.len() > 0;
                waits && self.open.has_room() && self.open.has_way() || self.open.wants(term, leader, self.now)
            }
            Leader::Leaving(_) | Leader::Nobody => false,
        };
        work || !self.answers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_proto::mechipb::command::Request;

    const ME: MemberId = MemberId(1);
    const OTHER: MemberId = MemberId(2);

    fn proposals() -> Proposals {
        Proposals::new(ME, 1, 7_000)
    }

    fn command(id: u64) -> Command {
        Command { id, request: Some(Request::LeaseExpire(Default::default())), ..Default::default() }
    }

    fn settled(proposals: &mut Proposals) -> Vec<String> {
        let mut effects = Vec::new();
        proposals.settle(&mut effects);
        effects.iter().map(|effect| format!("{effect:?}")).collect()
    }

    fn forward(proposals: &mut Proposals, term: Term) -> usize {
        let mut effects = Vec::new();
        proposals.lead(Leader::Other(term, OTHER));
        proposals.forward(term, OTHER, &mut effects);
        effects.len()
    }

    #[test]
    fn a_leaders_own_wishes_stay_in_their_term_and_its_clients_commands_do_not() {
        let mut proposals = proposals();
        proposals.lead(Leader::Own(4));
        proposals.offer(command(OWN_COMMANDS + 1));
        proposals.offer(command(1));
        let taken = proposals.for_log(4);
        assert_eq!(taken.data.len(), 2, "apart, so that one can go without the other");
        proposals.appended(&taken, 4);
        proposals.offer(command(OWN_COMMANDS + 2));
        assert_eq!(forward(&mut proposals, 5), 1);
        let settled = settled(&mut proposals);
        assert!(settled[0].starts_with("Refuse { id: 9223372036854775810"), "{settled:?}");
        assert!(settled[1].starts_with("Unknown { id: 9223372036854775809"), "{settled:?}");
        assert_eq!(settled.len(), 2);
    }

    #[test]
    fn a_full_log_refuses_what_is_new_and_keeps_what_was_sent() {
        let mut proposals = proposals();
        proposals.offer(command(1));
        assert_eq!(forward(&mut proposals, 3), 1);
        proposals.offer(command(2));
        proposals.lead(Leader::Own(4));
        proposals.forwarded(OTHER, command::encode(&Batch { member: 2, boot: 1, number: 1, ..Default::default() }));
        let taken = proposals.for_log(4);
        assert_eq!(taken.data.len(), 3);
        proposals.refused(&taken, 4);
        let settled = settled(&mut proposals);
        assert!(settled.len() == 1 && settled[0].starts_with("Refuse { id: 2"), "{settled:?}");
        assert!(!proposals.is_unsettled(Leader::Own(4), false), "it is tried again later");
        proposals.tick(MonoMillis(crate::limits::FORWARD_RESEND_MS), 0, Leader::Own(4));
        assert_eq!(proposals.for_log(4).data.len(), 1);
    }

    #[test]
    fn a_batch_of_a_wrong_author_or_without_one_is_refused_and_by_a_leader_alone() {
        let mut proposals = proposals();
        proposals.forwarded(OTHER, Bytes::new());
        assert_eq!(settled(&mut proposals), [""; 0]);
        proposals.lead(Leader::Own(4));
        proposals
            .forwarded(MemberId(3), command::encode(&Batch { member: 2, boot: 1, number: 1, ..Default::default() }));
        proposals.forwarded(OTHER, Bytes::new());
        proposals.forwarded(OTHER, vec![1, 2, 3].into());
        assert!(proposals.for_log(4).data.is_empty());
        assert_eq!(
            settled(&mut proposals),
            [
                r#"RefuseBatch { to: MemberId(3), boot: 1, number: 1, why: "member 2 made it" }"#,
                r#"RefuseBatch { to: MemberId(2), boot: 0, number: 0, why: "it does not begin as a batch does" }"#,
                r#"RefuseBatch { to: MemberId(2), boot: 0, number: 0, why: "it does not begin as a batch does" }"#,
            ]
        );
    }

    #[test]
    fn a_batch_that_a_leader_refused_is_given_up_and_not_sent_again() {
        let mut proposals = proposals();
        proposals.offer(command(1));
        assert_eq!(forward(&mut proposals, 3), 1);
        proposals.given_back(2, 1);
        proposals.given_back(1, 2);
        assert_eq!(settled(&mut proposals), [""; 0], "of another boot, or of no batch");
        proposals.given_back(1, 1);
        assert_eq!(settled(&mut proposals), ["Unknown { id: 1, why: BatchRefused }"]);
        assert_eq!(forward(&mut proposals, 4), 0);
    }

    #[test]
    fn a_committed_batch_is_not_sent_again() {
        let mut proposals = proposals();
        proposals.offer(command(1));
        assert_eq!(forward(&mut proposals, 3), 1);
        assert_eq!(forward(&mut proposals, 4), 1);
        let data = command::encode(&Batch { member: 1, boot: 1, number: 1, ..Default::default() });
        proposals.committed(&[Entry { index: 9, term: 4, data, ..Default::default() }]);
        assert_eq!(forward(&mut proposals, 5), 0);
    }
}
