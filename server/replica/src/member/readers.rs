//! Who waits for a read point, and until it is applied here.

use super::input::Token;
use crate::input::ReadId;
use crate::types::{Index, LeaseId, MonoMillis, Term};
use std::collections::{BTreeMap, VecDeque};

/// Read points that clients ask for are named by their tokens; those that the member itself wants begin here.
const OWN_READS: u64 = 1 << 63;

/// What a read point is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// A client's linearizable read.
    Client(Token),
    /// A keep-alive: the leader that answers it must have been the leader after it arrived.
    KeepAlive { id: LeaseId, token: Token },
    /// A client asks how long a lease has left, while this leader does not judge leases yet.
    TimeToLive { id: LeaseId, token: Token },
    /// To judge leases in this term, everything of earlier terms must be applied.
    Promotion { term: Term },
    /// Leases whose deadline had passed at `asked` may end.
    Expiry { asked: MonoMillis, term: Term },
}

/// The readers, by the round that they wait for; bounded by the replica, which refuses above its bound.
#[derive(Default)]
pub(super) struct Readers {
    last: u64,
    /// All but plain reads, which need no more than their token.
    asked: BTreeMap<ReadId, Reader>,
    /// Read points ascend, since only one round is under way and commit does not go back.
    confirmed: VecDeque<(Index, Reader)>,
}

impl Readers {
    /// Names the read point that `reader` waits for.
    ///
    /// - Panics: if a client's token is not below 2^63, which would be a bug in the shell.
    pub(super) fn ask(&mut self, reader: Reader) -> ReadId {
        if let Reader::Client(token) = reader {
            assert!(token.0 < OWN_READS, "tokens count up from 1");
            return ReadId(token.0);
        }
        self.last += 1;
        let id = ReadId(OWN_READS + self.last);
        self.asked.insert(id, reader);
        id
    }

    fn take(&mut self, id: ReadId) -> Option<Reader> {
        if id.0 < OWN_READS { Some(Reader::Client(Token(id.0))) } else { self.asked.remove(&id) }
    }

    /// Takes note of a confirmed round.
    pub(super) fn confirmed(&mut self, reads: Vec<ReadId>, at: Index) {
        for id in reads {
            let reader = self.take(id);
            self.confirmed.extend(reader.map(|reader| (at, reader)));
        }
    }

    /// Gives back the readers of reads that found no read point.
    pub(super) fn refused(&mut self, reads: Vec<ReadId>) -> Vec<Reader> {
        reads.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// Takes the next reader whose read point lies at or below `applied`.
    pub(super) fn next_served(&mut self, applied: Index) -> Option<(Index, Reader)> {
        #[cfg(feature = "mutants")]
        let applied = if crate::mutants::active("read_before_applied") { Index::MAX } else { applied };
        match self.confirmed.front() {
            Some((at, _)) if *at <= applied => self.confirmed.pop_front(),
            _ => None,
        }
    }
}
