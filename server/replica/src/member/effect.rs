//! Everything that a [`super::Member`] asks of the shell, as a closed enum.

use super::input::Token;
use crate::effect::{Entry, Role};
use crate::input::Ticket;
use crate::lease::lessor::Remaining;
use crate::outcome::Error;
use crate::types::{Index, LeaseId, MemberId, Term};
use crate::wal::record::Record;
use bytes::Bytes;

/// What a question was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`super::Input::Read`]: the read point, applied by now.
    ReadAt(Index),
    /// To [`super::Input::KeepAlive`]: seconds to live from now on; 0 if there is no such lease.
    Renewed(i64),
    /// To [`super::Input::TimeToLive`]: `None` if there is no such lease.
    Remaining(Option<Remaining>),
    /// To [`super::Input::Leases`]: soonest to expire first if this member judges them, else by id.
    Leases(Vec<LeaseId>),
}

/// What the member asks of the shell, in order.
#[derive(Debug)]
pub enum Effect {
    /// Write these records in one write; answer [`super::Input::Persisted`] once they are durable.
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
        /// It must not wait behind entries.
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
    /// Tell another member the chain digest of what is applied here.
    Digest {
        /// To whom.
        to: MemberId,
        /// Up to this entry.
        index: Index,
        /// The chain digest there.
        chain: u64,
    },
    /// These entries are committed and persisted here: apply them in order.
    Apply(Vec<Entry>),
    /// A question has its answer.
    Answered {
        /// Which.
        token: Token,
        /// Its answer; an error says that nothing changed.
        answer: Result<Answer, Error>,
    },
    /// This command was not proposed; nothing changed.
    Refuse {
        /// The command's id.
        id: u64,
        /// Why.
        why: Error,
    },
    /// This command was proposed and may or may not happen.
    Unknown {
        /// The command's id.
        id: u64,
        /// What the client is told.
        why: Error,
    },
    /// Leadership changed, as this member sees it.
    Role(Role),
    /// This member begins to judge leases.
    Judges(Term),
    /// A member lags beyond the log and no snapshot reaches into it: make one, then tell [`super::Input::SnapshotMade`].
    BuildSnapshot,
    /// Offer the snapshot to a member that lags beyond the log, then tell [`super::Input::SnapshotSent`].
    SendSnapshot {
        /// To whom.
        to: MemberId,
        /// The snapshot's last entry.
        index: Index,
        /// That entry's term.
        term: Term,
    },
    /// What this member has applied differs, at this index, from what an agreeing majority of voters has.
    Diverged {
        /// The first index at which it was noticed.
        index: Index,
    },
}
