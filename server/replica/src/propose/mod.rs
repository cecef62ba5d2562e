//! From waiting commands to raft entries: one entry per settle, each with its author, and what became of it.
mod admit;
mod pending;

use crate::command;
use crate::effect::{Effect, Entry};
use crate::limits::PENDING_REQUESTS_MAX;
use crate::outcome::Error;
use crate::types::{Index, MemberId, Term};
use admit::Queue;
use bytes::Bytes;
use mechi_proto::mechipb::{Batch, Command};
use pending::Pending;

/// The commands of one member, from their arrival until their fate is known.
pub(crate) struct Proposals {
    member: MemberId,
    boot: u64,
    number: u64,
    /// The newest wall time that the shell told, in milliseconds since 1970.
    wall_ms: i64,
    queue: Queue,
    pending: Pending,
    refusals: Vec<Effect>,
}

/// One entry's worth of commands.
pub(crate) struct NextEntry {
    /// The batch in its entry form.
    pub(crate) data: Bytes,
    /// The ids of its commands.
    pub(crate) commands: Vec<u64>,
}

impl Proposals {
    /// Starts without commands; batches are numbered from 1 within (member, boot).
    pub(crate) fn new(member: MemberId, boot: u64) -> Self {
        Self {
            member,
            boot,
            number: 0,
            wall_ms: 0,
            queue: Queue::default(),
            pending: Pending::default(),
            refusals: Vec::new(),
        }
    }

    /// Sets the wall time for the batches to come.
    pub(crate) fn set_wall(&mut self, wall_ms: i64) {
        self.wall_ms = wall_ms;
    }

    /// Queues a command; above a bound it is refused with `too many requests`.
    pub(crate) fn offer(&mut self, command: Command) {
        let id = command.id;
        let full = self.queue.len() + self.pending.commands() >= PENDING_REQUESTS_MAX;
        if full || !self.queue.push(command) {
            self.refusals.push(Effect::Refuse { id, why: Error::TooManyRequests });
        }
    }

    /// Tells whether commands wait for an entry.
    pub(crate) fn is_waiting(&self) -> bool {
        self.queue.len() > 0
    }

    /// Tells whether refusals wait to be moved by [`Proposals::settle`].
    pub(crate) fn has_refusals(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// Makes the next entry of what waits.
    pub(crate) fn next_entry(&mut self) -> Option<NextEntry> {
        let commands = self.queue.take_batch();
        if commands.is_empty() {
            return None;
        }
        self.number += 1;
        let ids = commands.iter().map(|command| command.id).collect();
        let batch =
            Batch { member: self.member.0, boot: self.boot, number: self.number, wall_ms: self.wall_ms, commands };
        Some(NextEntry { data: command::encode(&batch), commands: ids })
    }

    /// Takes note that the commands are in the log at this place.
    pub(crate) fn appended(&mut self, term: Term, index: Index, commands: Vec<u64>) {
        self.pending.appended((term, index), commands);
    }

    /// Refuses commands that were taken for an entry which raft did not append.
    pub(crate) fn refuse(&mut self, commands: Vec<u64>, why: &Error) {
        self.refusals.extend(commands.into_iter().map(|id| Effect::Refuse { id, why: why.clone() }));
    }

    /// Refuses everything that waits for an entry.
    pub(crate) fn refuse_waiting(&mut self, why: &Error) {
        let refused = self.queue.drain().map(|command| Effect::Refuse { id: command.id, why: why.clone() });
        self.refusals.extend(refused);
    }

    /// Takes note of committed entries: batches of earlier terms that are not among them are lost.
    ///
    /// They are reported as unknown, not as refused: a client that hears "nothing changed" may act on it, and the
    /// batch may yet be found in a log that nobody here has seen.
    pub(crate) fn committed(&mut self, entries: &[Entry], effects: &mut Vec<Effect>) {
        for entry in entries {
            let lost = self.pending.committed(entry.term, entry.index);
            effects.extend(lost.into_iter().map(|id| Effect::Unknown { id, why: Error::LeaderChanged }));
        }
    }

    /// Moves the refusals to `effects`.
    pub(crate) fn settle(&mut self, effects: &mut Vec<Effect>) {
        effects.append(&mut self.refusals);
    }
}
