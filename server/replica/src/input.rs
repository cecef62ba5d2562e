//! Everything that can happen to a [`crate::replica::Replica`], as a closed enum.

use crate::conf::{Moved, Step};
use crate::types::{Index, MemberId, MonoMillis, Term};
use bytes::Bytes;
use mechi_proto::mechipb::Command;

/// Names a persist request; counts up from 1 in each process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names a waiting linearizable read on this member; counts up in each process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// What the shell tells the replica.
#[derive(Debug)]
pub enum Input {
    /// Time went on; the replica makes raft ticks of it.
    Tick {
        /// Now, on this boot's monotonic clock.
        now: MonoMillis,
        /// The wall clock, milliseconds since 1970: stamped into batches for people, decides nothing.
        wall_ms: i64,
    },
    /// A client's command; its `id` is the shell's, unique in this boot.
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
    /// A client wants to read at a point that includes everything acknowledged before now.
    Read(ReadId),
    /// The records of this ticket, and of all earlier ones, are durable.
    Persisted(Ticket),
    /// An operator wants another configuration; refused unless this member leads.
    Configure {
        /// The shell's id, unique in this boot, of the same kind as a command's.
        id: u64,
        /// What to do, all of it in one change.
        steps: Vec<Step>,
    },
    /// Entries are applied.
    Applied {
        /// All up to this one.
        index: Index,
        /// The membership changes among them that took effect, in order.
        moved: Vec<Moved>,
    },
    /// A raft message from another member, opaque.
    Peer(Bytes),
    /// A message to this member could not be delivered.
    Unreachable(MemberId),
    /// A connection from or to this member broke, as when its process ends.
    Reset(MemberId),
    /// An operator, or the stopping shell, wants another leader; 0 lets the replica choose.
    Transfer(MemberId),
    /// A snapshot was made, verified, and noted in the log.
    SnapshotMade {
        /// Its last entry.
        index: Index,
        /// That entry's term.
        term: Term,
    },
    /// What became of an [`crate::effect::Effect::SendSnapshot`]; told once for each.
    SnapshotSent {
        /// Who was to have it.
        to: MemberId,
        /// It has it, verified and durable.
        ok: bool,
    },
}
