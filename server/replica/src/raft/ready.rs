//! The order of effects: what raft wants done, and which messages wait for which write.
//!
//! A ready's messages leave only when its own write and all earlier ones are durable, even if it has nothing to
//! write: raft-rs puts a MsgAppend among the messages of the very ready whose term is unsaved, and a member that
//! forgets such a term in a crash can win it twice. Two exceptions keep the network busy during an fsync: a leader's
//! messages in a term that is already durable, and heartbeat answers and read requests while no term or vote is
//! unsaved. Committed entries are handed on only once they are persisted here; raft-rs 0.7 sees to that.

use super::convert;
use super::log::Log;
use crate::effect::{Effect, Entry, HardState};
use crate::input::Ticket;
use crate::types::{Index, MemberId};
use crate::wal::record::Record;
use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use raft::{RawNode, StateRole};
use std::collections::VecDeque;

/// The writes that are under way, oldest first.
pub(super) struct Writes {
    newest: Ticket,
    open: VecDeque<Write>,
    saved: HardState,
    /// Messages whose writes became durable since the last settle.
    released: Vec<Message>,
}

struct Write {
    ticket: Ticket,
    /// The newest of raft's ready numbers that this write, once durable, persists.
    ready: u64,
    /// It carries a term or a vote.
    votes: bool,
    /// Raft's tick count when it was handed out.
    since_tick: u64,
    /// Messages that wait for it.
    held: Vec<Message>,
}

/// What one ready brings beside its effects.
pub(super) struct Outcome {
    /// Committed entries, also among the effects; contiguous.
    pub(super) committed: Vec<Entry>,
    /// Contexts of confirmed read rounds with their read points.
    pub(super) read_points: Vec<(Vec<u8>, Index)>,
}

impl Writes {
    /// Starts with nothing under way and `saved` on disk.
    pub(super) fn new(saved: HardState) -> Self {
        Self { newest: Ticket(0), open: VecDeque::new(), saved, released: Vec::new() }
    }

    /// Tells whether some write is not yet durable.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Tells whether a term or a vote is not yet durable.
    pub(super) fn is_vote_open(&self) -> bool {
        self.open.iter().any(|write| write.votes)
    }

    /// The tick count at which the oldest write that is under way was handed out.
    pub(super) fn oldest_tick(&self) -> Option<u64> {
        self.open.front().map(|write| write.since_tick)
    }

    /// Takes note that the writes up to `ticket` are durable; returns raft's newest ready number among them.
    pub(super) fn persisted(&mut self, ticket: Ticket) -> Option<u64> {
        let mut ready = None;
        while self.open.front().is_some_and(|write| write.ticket <= ticket) {
            let Some(write) = self.open.pop_front() else { break };
            ready = Some(write.ready);
            self.released.extend(write.held);
        }
        ready
    }

    /// Moves the messages that may leave by now to `effects`.
    pub(super) fn release(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(self.released.drain(..).map(send));
    }

    /// Tells whether messages wait to be moved by [`Writes::release`].
    pub(super) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// Turns raft's ready into effects: messages that may leave now, one write, committed entries.
    pub(super) fn handle(&mut self, raw: &mut RawNode<Log>, tick: u64, effects: &mut Vec<Effect>) -> Outcome {
        let mut ready = raw.ready();
        let number = ready.number();
        // A MsgSnapshot is never stepped, so raft has none to install.
        assert!(ready.snapshot().is_empty(), "raft wants to install a snapshot that nobody stepped");

        let newest = convert::hard_state(&raw.raft.hard_state());
        let votes = (newest.term, newest.vote) != (self.saved.term, self.saved.vote);
        let moved = newest != self.saved;
        let must_sync = ready.must_sync();
        #[cfg(feature = "mutants")]
        let must_sync = must_sync && !(ready.entries().is_empty() && crate::mutants::active("vote_not_synced"));
        let entries = ready.take_entries();
        let mut messages = ready.take_messages();
        messages.extend(ready.take_persisted_messages());
        let read_points = ready.take_read_states().into_iter().map(|state| (state.request_ctx, state.index)).collect();
        let committed: Vec<Entry> = ready.take_committed_entries().iter().map(convert::entry).collect();

        let votes_unsaved = votes || self.is_vote_open();
        let leads = raw.raft.state == StateRole::Leader;
        let waits = must_sync || self.is_open();
        #[cfg(feature = "mutants")]
        let waits = waits && !crate::mutants::active("message_before_ticket");
        let (now, later): (Vec<Message>, Vec<Message>) = if !waits {
            (messages, Vec::new())
        } else {
            messages.into_iter().partition(|message| !votes_unsaved && (leads || may_overtake(message)))
        };
        effects.extend(now.into_iter().map(send));

        raw.mut_store().append(&entries);
        if must_sync || moved {
            self.newest = Ticket(self.newest.0 + 1);
            // Every write carries the newest commit, so that a restart replays as far as it can.
            let mut records: Vec<Record> = entries.iter().map(|entry| Record::Entry(convert::entry(entry))).collect();
            records.push(Record::HardState(newest));
            #[cfg(feature = "mutants")]
            records.rotate_right(usize::from(crate::mutants::active("hard_state_before_entries")));
            self.saved = newest;
            effects.push(Effect::Persist { ticket: self.newest, records, sync: must_sync });
        }
        raw.advance_append_async(ready);
        if must_sync {
            self.open.push_back(Write { ticket: self.newest, ready: number, votes, since_tick: tick, held: later });
        } else if let Some(write) = self.open.back_mut() {
            write.ready = number;
            write.held.extend(later);
        } else {
            raw.on_persist_ready(number);
        }

        if !committed.is_empty() {
            effects.push(Effect::Apply(committed.clone()));
        }
        Outcome { committed, read_points }
    }
}

/// Tells whether a follower's message promises nothing that is still being written.
fn may_overtake(message: &Message) -> bool {
    matches!(message.get_msg_type(), MessageType::MsgHeartbeatResponse | MessageType::MsgReadIndex)
}

fn send(message: Message) -> Effect {
    let to = MemberId(message.to);
    if message.get_msg_type() == MessageType::MsgSnapshot {
        // Its receiver fetches the files and starts from them: raft there never sees the message.
        let metadata = message.get_snapshot().get_metadata();
        return Effect::SendSnapshot { to, index: metadata.index, term: metadata.term };
    }
    let bytes = message.write_to_bytes().expect("a message that raft made has all required fields");
    Effect::Send { to, message: Bytes::from(bytes), urgent: is_urgent(&message) }
}

/// Tells whether a message is small and others wait for it; all but what carries entries, and is large.
fn is_urgent(message: &Message) -> bool {
    !matches!(message.get_msg_type(), MessageType::MsgAppend)
}
