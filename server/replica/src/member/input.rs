//! Everything that can happen to a [`super::Member`], as a closed enum.

use crate::apply::LeaseEvent;
use crate::conf::{Moved, Step};
use crate::input::Ticket;
use crate::types::{Index, LeaseId, MemberId, Term};
use bytes::Bytes;
use mechi_proto::mechipb::Command;

/// Names a question that the shell will be answered: the shell's, unique in this process, below 2^63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What the shell tells the member.
#[derive(Debug)]
pub enum Input {
    /// Time went on: raft's timers, deadlines of leases and of requests are looked at.
    Tick {
        /// The wall clock, milliseconds since 1970: stamped into batches for people, decides nothing.
        wall_ms: i64,
    },
    /// The process was stopped for a while, as by SIGSTOP or a suspended machine; told before the tick that follows.
    Paused,
    /// A client's command; its `id` is the shell's, unique in this boot, below 2^63.
    Propose(Command),
    /// Another member asks to append its batch, in its entry form.
    Forwarded {
        /// Its author.
        from: MemberId,
        /// The entry's data.
        batch: Bytes,
    },
    /// A leader has refused this member's batch: it cannot be applied there.
    BatchRefused {
        /// The boot that made it.
        boot: u64,
        /// Its number.
        number: u64,
    },
    /// An operator wants another configuration. Refused unless this member leads, and while a change is under way; answered
    /// by its application like a command, or by [`super::Effect::Unknown`].
    Configure {
        /// The shell's, of the same kind as a command's.
        id: u64,
        /// What to do, all of it in one change.
        steps: Vec<Step>,
    },
    /// A client wants to read at a point that includes everything acknowledged before now.
    Read(Token),
    /// A client renews a lease.
    KeepAlive {
        /// Whom to answer.
        token: Token,
        /// Which.
        id: LeaseId,
    },
    /// A client asks how long a lease has left.
    TimeToLive {
        /// Whom to answer.
        token: Token,
        /// Which.
        id: LeaseId,
    },
    /// A client asks for all leases.
    Leases(Token),
    /// All entries up to `index` are applied and visible to reads here.
    Applied {
        /// The last of them.
        index: Index,
        /// What became of leases, in order.
        lease_events: Vec<LeaseEvent>,
        /// The chain digests at those of them whose index is a multiple of [`crate::limits::DIGEST_EVERY`], ascending.
        digests: Vec<(Index, u64)>,
        /// The membership changes among them that took effect, in order.
        moved: Vec<Moved>,
    },
    /// The records of this ticket, and of all earlier ones, are durable.
    Persisted(Ticket),
    /// A raft message from another member, opaque.
    Peer(Bytes),
    /// A message to this member could not be delivered.
    Unreachable(MemberId),
    /// A connection from or to this member broke, as when its process ends.
    Reset(MemberId),
    /// An operator, or the stopping shell, wants another leader; 0 lets the member choose.
    Transfer(MemberId),
    /// A snapshot was made, verified, and noted in the log.
    SnapshotMade {
        /// Its last entry.
        index: Index,
        /// That entry's term.
        term: Term,
    },
    /// What became of an [`super::Effect::SendSnapshot`]; told once for each.
    SnapshotSent {
        /// Who was to have it.
        to: MemberId,
        /// It has it, verified and durable.
        ok: bool,
    },
    /// Another member told the chain digest of what it has applied.
    Digest {
        /// Who.
        from: MemberId,
        /// Up to this entry.
        index: Index,
        /// The chain digest there.
        chain: u64,
    },
}
