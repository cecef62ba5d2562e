//! Who waits for a read point, and until it is applied here.

use mechi_replica::input::ReadId;
use mechi_replica::outcome::Error;
use mechi_replica::types::{Index, LeaseId, MonoMillis, Term};
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::oneshot;

/// What a read point is wanted for.
pub(super) enum Reader {
    /// A client's linearizable read.
    Client(oneshot::Sender<Result<Index, Error>>),
    /// A keep-alive: the leader that answers it must have been the leader after it arrived.
    KeepAlive { id: LeaseId, reply: oneshot::Sender<Result<i64, Error>> },
    /// To judge leases in this term, everything of earlier terms must be applied.
    Promotion { term: Term },
    /// Leases whose deadline had passed at `asked` may end.
    Expiry { asked: MonoMillis, term: Term },
}

impl Reader {
    /// Tells a client that no read point was found.
    pub(super) fn refuse(self, why: &Error) {
        match self {
            Self::Client(reply) => answer(reply, Err(why.clone())),
            Self::KeepAlive { reply, .. } => answer(reply, Err(why.clone())),
            Self::Promotion { .. } | Self::Expiry { .. } => {}
        }
    }
}

/// Answers a client, who may have gone meanwhile.
pub(super) fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _ = reply.send(value);
}

/// The readers, by the round that they wait for; bounded by the replica, which refuses above its bound.
#[derive(Default)]
pub(super) struct Readers {
    last: u64,
    asked: BTreeMap<ReadId, Reader>,
    /// Read points ascend, since only one round is under way and commit does not go back.
    confirmed: VecDeque<(Index, Reader)>,
}

impl Readers {
    pub(super) fn ask(&mut self, reader: Reader) -> ReadId {
        self.last += 1;
        let id = ReadId(self.last);
        self.asked.insert(id, reader);
        id
    }

    pub(super) fn confirmed(&mut self, reads: Vec<ReadId>, at: Index) {
        for id in reads {
            self.confirmed.extend(self.asked.remove(&id).map(|reader| (at, reader)));
        }
    }

    pub(super) fn refused(&mut self, reads: Vec<ReadId>) -> Vec<Reader> {
        reads.into_iter().filter_map(|id| self.asked.remove(&id)).collect()
    }

    /// Takes the next reader whose read point lies at or below `applied`.
    pub(super) fn next_served(&mut self, applied: Index) -> Option<(Index, Reader)> {
        match self.confirmed.front() {
            Some((at, _)) if *at <= applied => self.confirmed.pop_front(),
            _ => None,
        }
    }
}
