//! Everything that a [`crate::replica::Replica`] asks of the shell, as a closed enum.

use crate::input::{ReadId, Ticket};
use crate::outcome::Error;
use crate::types::{Index, MemberId, Term};
use crate::wal::record::Record;
use bytes::Bytes;

/// One raft log entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log.
    pub index: Index,
    /// The term in which a leader appended it.
    pub term: Term,
    /// What `data` is.
    pub kind: EntryKind,
    /// For [`EntryKind::Normal`]: empty (a leader's first entry), or a version byte and a `mechipb.Batch`.
    pub data: Bytes,
}

/// The kinds of raft entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    /// A batch of commands.
    #[default]
    Normal,
    /// A raft configuration change (raft's `ConfChange`, version 1).
    ConfChange,
    /// A raft configuration change (raft's `ConfChangeV2`).
    ConfChangeV2,
}

/// What raft must never forget: written after the entries it speaks of, in the same write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Who got this member's vote in that term; 0 for nobody.
    pub vote: u64,
    /// The newest known committed index.
    pub commit: Index,
}

/// The part that a member plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RoleKind {
    #[default]
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// Leadership as this member sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// This member's own part.
    pub kind: RoleKind,
    /// The newest term seen.
    pub term: Term,
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// This member leads and has committed an entry of its own term: it may judge leases.
    pub settled: bool,
}

/// What the replica asks of the shell, in order.
#[derive(Debug)]
pub enum Effect {
    /// Write these records in one write; answer [`crate::input::Input::Persisted`] once they are durable.
    /// Records may be empty: the ticket then waits only for earlier ones.
    Persist {
        /// Which persist this is.
        ticket: Ticket,
        /// Entries first, then at most one HardState.
        records: Vec<Record>,
        /// Whether an fsync is needed; false if only the commit index moved.
        sync: bool,
    },
    /// Send an opaque raft message.
    Send {
        /// To whom.
        to: MemberId,
        /// raft's message.
        message: Bytes,
        /// It must not wait behind entries: heartbeats, votes, read requests, and all answers.
        urgent: bool,
    },
    /// Ask the leader to append this member's batch.
    Forward {
        /// The leader.
        to: MemberId,
        /// The batch in its entry form.
        batch: Bytes,
    },
    /// Tell a member that its batch is not appended, and never will be by this one.
    RefuseBatch {
        /// Its author.
        to: MemberId,
        /// The author's boot, as the batch says; 0 if that could not be read.
        boot: u64,
        /// The batch's number, or 0.
        number: u64,
        /// For people.
        why: String,
    },
    /// A member lags beyond the log and no snapshot reaches into it: make one.
    BuildSnapshot,
    /// Offer the snapshot to a member that lags beyond the log.
    SendSnapshot {
        /// To whom.
        to: MemberId,
        /// The snapshot's last entry.
        index: Index,
        /// That entry's term.
        term: Term,
    },
    /// These entries are committed and persisted here: apply them in order.
    Apply(Vec<Entry>),
    /// These reads may be answered once everything up to `at` is applied.
    Serve {
        /// The reads of one round.
        reads: Vec<ReadId>,
        /// Their read point.
        at: Index,
    },
    /// This command was not proposed; nothing changed.
    Refuse {
        /// The command's id.
        id: u64,
        /// Why.
        why: Error,
    },
    /// This command was proposed and may or may not happen; its client hears of a timeout or a leader change.
    Unknown {
        /// The command's id.
        id: u64,
        /// What the client is told.
        why: Error,
    },
    /// These reads found no leader in time, or the leader changed; a new attempt is the client's.
    RefuseRead {
        /// The reads of one round.
        reads: Vec<ReadId>,
        /// Why.
        why: Error,
    },
    /// Leadership changed, as this member sees it.
    Role(Role),
}
