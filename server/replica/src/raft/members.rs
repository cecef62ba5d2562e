//! Membership changes: a leader proposes one at a time, and raft hears of it when the replicated state has taken it.
//!
//! raft-rs looks whether a joint configuration is to be left only when the applied index moves on, so a change reaches it
//! before the index of its entry does: in the other order the cluster may stay joint for ever.

use super::{Node, convert};
use crate::conf::{Author, Configuration, Move, Moved, Step};
use crate::effect::{Effect, Entry, EntryKind};
use crate::limits::REQUEST_TIMEOUT_MS;
use crate::outcome::Error;
use crate::types::{Index, MemberId, MonoMillis, Term};
use raft::eraftpb::{self, EntryType, MessageType};
use raft::{INVALID_ID, StateRole};

/// The configuration as it is applied, and the change that this member proposed.
pub(super) struct Members {
    /// What raft counts by.
    pub(super) conf: Configuration,
    asked: Option<Asked>,
    /// The tick in which this leader was first seen to have no vote.
    voteless: Option<u64>,
}

/// A change in this leader's log that is not known to be committed.
struct Asked {
    id: u64,
    place: (Index, Term),
    since: MonoMillis,
}

impl Members {
    /// Begins with the configuration of the applied state.
    pub(super) fn new(conf: Configuration) -> Self {
        Self { conf, asked: None, voteless: None }
    }
}

impl Node {
    /// The configuration as of the applied index.
    pub(crate) fn configuration(&self) -> &Configuration {
        &self.members.conf
    }

    /// Proposes a change, or refuses it; its outcome is told by its application, or by [`Effect::Unknown`].
    pub(crate) fn configure(&mut self, id: u64, steps: &[Step], wall_ms: i64) {
        match self.propose_change(id, steps, wall_ms) {
            Ok(place) => self.members.asked = Some(Asked { id, place, since: self.now }),
            Err(why) => self.refused.push(Effect::Refuse { id, why }),
        }
    }

    fn propose_change(&mut self, id: u64, steps: &[Step], wall_ms: i64) -> Result<(Index, Term), Error> {
        if !self.takes_proposals() {
            return Err(Error::NotLeader);
        }
        // A new leader may hold a change that it does not know to be committed.
        let raft = &self.raw.raft;
        #[cfg(feature = "mutants")]
        let unguarded = crate::mutants::active("two_changes_at_once");
        #[cfg(not(feature = "mutants"))]
        let unguarded = false;
        if !unguarded && raft.has_pending_conf()
            || !raft.commit_to_current_term()
            || self.members.conf.is_joint()
            || steps.is_empty()
        {
            return Err(Error::UnhealthyCluster);
        }
        self.members.conf.after(steps)?;
        let author = Author { member: self.config.member.0, boot: self.config.boot, id };
        let change = Move { author, steps: steps.to_vec() };
        let mut entry = eraftpb::Entry::default();
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        entry.data = change.encode(wall_ms);
        let mut message = eraftpb::Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.member.0;
        message.set_entries(vec![entry].into());
        self.raw.raft.step(message).map_err(|_| Error::TooManyRequests)?;
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        // raft would have put an empty entry in its place.
        assert_eq!(raft.pending_conf_index, last, "raft takes a change that was checked before");
        Ok((last, raft.term))
    }

    /// Takes note of committed entries: what became of a change among them is told by its application.
    pub(super) fn changes_committed(&mut self, committed: &[Entry]) {
        let is = |entry: &Entry, place| entry.kind == EntryKind::ConfChangeV2 && (entry.index, entry.term) == place;
        self.members.asked.take_if(|asked| committed.iter().any(|entry| is(entry, asked.place)));
    }

    /// Gives up a change that a new leader may have cut off, or that nobody waits for any more.
    pub(super) fn settle_changes(&mut self, effects: &mut Vec<Effect>) {
        let raft = &self.raw.raft;
        let leads = |term| raft.state == StateRole::Leader && raft.term == term;
        let timeout_ms = REQUEST_TIMEOUT_MS + 2 * self.config.tick_ms * self.config.election_ticks as u64;
        let Some(asked) = &self.members.asked else { return };
        let why = if !leads(asked.place.1) {
            Error::LeaderChanged
        } else if self.now.0 >= asked.since.0 + timeout_ms {
            Error::Timeout
        } else {
            return;
        };
        effects.push(Effect::Unknown { id: asked.id, why });
        self.members.asked = None;
    }

    /// Lets raft follow a change that the replicated state has taken.
    ///
    /// - Panics: if raft comes to another configuration: its majorities would not be those of the other members.
    pub(super) fn follow(&mut self, moved: &Moved) {
        let change = convert::raft_change(&moved.steps, Vec::new());
        let state = self.raw.apply_conf_change(&change).expect("raft takes what the replicated state has taken");
        let now = convert::configuration(&state);
        assert_eq!(now, moved.now, "raft and the replicated state agree on the configuration of entry {}", moved.index);
        self.members.conf = now;
    }

    /// Tells whether this member leads although the cluster took its vote away; raft-rs lets it.
    pub(super) fn leads_without_vote(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && !self.raw.raft.promotable()
    }

    /// Lets a leader that has no vote hand over, with each tick anew: who has not yet applied the change that took the vote
    /// away ignores the first wish. Nobody to hand over to, or nobody that takes over in an election timeout: it steps down.
    pub(super) fn tick_without_vote(&mut self) {
        if !self.leads_without_vote() {
            self.members.voteless = None;
            return;
        }
        let since = *self.members.voteless.get_or_insert(self.ticks);
        self.raw.raft.lead_transferee = None;
        if self.ticks - since < self.config.election_ticks as u64 {
            self.transfer(MemberId(INVALID_ID));
        }
        if self.raw.raft.lead_transferee.is_none() {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, INVALID_ID);
        }
    }
}
