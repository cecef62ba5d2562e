//! Between members: what one sends to another, what comes back, and the connections that carry it.
//!
//! Per other member and direction there are two connections, one for what must not wait and one for the rest; the files
//! of snapshots are pulled over a third. docs/formats.md says what goes over them. In reading order: [`peers`] (the
//! handle), [`hello`] (the handshake), `dial`, `queue`, `outbound`, `inbound`, `lease`; and for snapshots [`pins`],
//! `offer` and `serve` on the sender's side, `fetch` and `pull` on the receiver's.

mod dial;
mod fetch;
pub mod hello;
mod inbound;
mod lease;
mod offer;
mod outbound;
pub mod peers;
pub mod pins;
mod pull;
mod queue;
mod serve;
mod shared;

pub use hello::Lane;
pub use peers::{PeerStatus, Peers, PeersConfig};
pub use pins::Pins;

use bytes::Bytes;
use mechi_replica::lease::lessor::Remaining;
use mechi_replica::outcome::Error;
use mechi_replica::types::{Index, LeaseId, MemberId, Term};
use std::pin::Pin;

/// What goes to another member.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// A raft message, opaque.
    Raft {
        /// raft's bytes.
        message: Bytes,
        /// It must not wait behind entries: heartbeats, votes, read requests and their answers.
        urgent: bool,
    },
    /// A batch that this member asks the leader to append, in its entry form.
    Batch(Bytes),
    /// The other member's batch is not appended.
    Refused {
        /// The boot that made it; 0 if that could not be read.
        boot: u64,
        /// Its number, or 0.
        number: u64,
        /// For people.
        why: String,
    },
    /// The sum over everything applied up to an index.
    Digest {
        /// Up to this entry.
        index: Index,
        /// The chain digest there.
        chain: u64,
    },
    /// The other member lags beyond the log: it shall fetch this snapshot.
    Snapshot {
        /// The snapshot's last entry.
        index: Index,
        /// Its term.
        term: Term,
    },
}

/// An answer that comes later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the connections tell the member. No call may block.
pub trait Events: Send + Sync + 'static {
    /// A raft message came.
    fn raft(&self, from: MemberId, message: Bytes);
    /// A member asks to append its batch.
    fn batch(&self, from: MemberId, batch: Bytes);
    /// A leader has refused a batch of this member.
    fn batch_refused(&self, from: MemberId, boot: u64, number: u64, why: &str);
    /// A member told its digest.
    fn digest(&self, from: MemberId, index: Index, chain: u64);
    /// A message to this member was dropped or could not be delivered.
    fn unreachable(&self, member: MemberId);
    /// A connection from or to this member broke, as when its process ends; not told for one that was never made, and told
    /// once until something is heard of the member again.
    fn reset(&self, member: MemberId);
    /// What became of an [`Outgoing::Snapshot`]; told once for each.
    fn snapshot_sent(&self, to: MemberId, ok: bool);
    /// A snapshot that was offered lies in the snapshots' folder, verified and durable: install it. Told again if it is
    /// offered again before.
    fn snapshot_received(&self, index: Index, term: Term);
    /// Another member's client renews a lease; only a leader's lessor answers.
    fn keep_alive(&self, id: LeaseId) -> Later<Result<i64, Error>>;
    /// Another member's client asks how long a lease has left.
    fn time_to_live(&self, id: LeaseId) -> Later<Result<Option<Remaining>, Error>>;
}

#[cfg(test)]
mod tests;
