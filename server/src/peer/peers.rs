//! The handle to all other members.

use super::dial::Dialer;
use super::fetch;
use super::hello::{Hello, Lane, PROTOCOL};
use super::inbound::Inbound;
use super::lease;
use super::offer::{self, Letters};
use super::outbound;
use super::pins::Pins;
use super::queue::Queue;
use super::shared::{Member, Shared};
use super::{Events, Outgoing};
use crate::config::urls::Url;
use crate::disk::RealDisk;
use crate::limits::{
    PEER_BULK_BYTES_MAX, PEER_FETCHES_MAX, PEER_OFFERS_MAX, PEER_OVERHEAD_BYTES, PEER_PING_MIN, PEER_URGENT_BYTES_MAX,
};
use crate::metrics::names::Network;
use axum::Router;
use mechi_proto::mechipeerpb::peer_message::Message;
use mechi_proto::mechipeerpb::peer_server::PeerServer;
use mechi_proto::mechipeerpb::{BatchRefused, Digest};
use mechi_replica::lease::lessor::Remaining;
use mechi_replica::limits::{ENTRY_BYTES_MAX, RAFT_MESSAGE_BYTES_MAX, READ_TIMEOUT_MS};
use mechi_replica::outcome::Error;
use mechi_replica::types::{Index, LeaseId, MemberId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tonic::service::Routes;

/// What the connections between members need to know.
#[derive(Clone)]
pub struct PeersConfig {
    /// This member's cluster.
    pub cluster_id: u64,
    /// This member.
    pub own: MemberId,
    /// The other members, each with its peer URLs.
    pub others: Vec<(MemberId, Vec<Url>)>,
    /// The data directory's disk.
    pub disk: RealDisk,
    /// The snapshots' directory on it.
    pub snapshots: String,
    /// Keeps files of that directory from its keeper, who must have the same pins.
    pub pins: Arc<Pins>,
    /// How far this member has applied; what is offered below it is not fetched.
    pub applied: Arc<dyn Fn() -> Index + Send + Sync>,
    /// A connection on which nothing is answered for this long is broken.
    pub election_timeout: Duration,
    /// Bytes of one message; [`message_bytes_max`] but in tests.
    pub message_bytes_max: usize,
    /// How long a member may be silent that was offered a snapshot: `PEER_SNAPSHOT_SILENCE` but in tests.
    pub snapshot_silence: Duration,
    /// Bytes of the disk that a fetched snapshot must leave free, for the log: `DISK_PART_BYTES_MAX` but in tests.
    pub reserve_bytes: u64,
    /// Where traffic is counted.
    pub metrics: Network,
}

/// The most bytes that a message between members may have, under `--max-request-bytes`: raft gathers entries up to a
/// bound, and the entry that crosses it still belongs to the message.
pub fn message_bytes_max(max_request_bytes: usize) -> usize {
    let gathered = usize::try_from(RAFT_MESSAGE_BYTES_MAX).unwrap_or(usize::MAX);
    ENTRY_BYTES_MAX.saturating_add(max_request_bytes).saturating_add(gathered).saturating_add(PEER_OVERHEAD_BYTES)
}

/// The connections to all other members.
pub struct Peers {
    pub(super) shared: Arc<Shared>,
}

/// What is known of the connection to another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The other member.
    pub id: MemberId,
    /// Since when it can be talked to; `None` while it cannot.
    pub active_since: Option<Instant>,
}

impl Peers {
    /// Starts to dial all other members; needs a tokio runtime.
    pub fn start(config: PeersConfig, events: Arc<dyn Events>) -> Self {
        Self::start_as(config, events, PROTOCOL)
    }

    pub(super) fn start_as(config: PeersConfig, events: Arc<dyn Events>, protocol: u64) -> Self {
        let hello = Hello { cluster: config.cluster_id, own: config.own, protocol };
        // A ping, and the wait for its answer: together an election timeout.
        let dialer = Dialer { hello, ping: (config.election_timeout / 2).max(PEER_PING_MIN) };
        let own = config.own.to_string();
        let (mut members, mut letters) = (BTreeMap::new(), Vec::new());
        for (id, urls) in config.others.iter().filter(|(id, _)| *id != config.own) {
            let (offers, offered) = mpsc::channel(PEER_OFFERS_MAX);
            let (taken, answers) = mpsc::channel(PEER_OFFERS_MAX);
            let queues = [Queue::new(PEER_URGENT_BYTES_MAX), Queue::new(PEER_BULK_BYTES_MAX)];
            let member = Member::new(*id, urls.clone(), queues, offers, taken);
            let labels = [own.as_str(), member.label.as_str()];
            config.metrics.known_peers.with_label_values(&labels).set(1);
            config.metrics.active_peers.with_label_values(&labels).set(0);
            members.insert(*id, member);
            letters.push((*id, Letters { offers: offered, taken: answers }));
        }
        let shared = Arc::new(Shared {
            config,
            events,
            dialer,
            members,
            stop: watch::channel(false).0,
            tasks: Mutex::new(JoinSet::new()),
            refusals: Default::default(),
            fetches: Arc::new(Semaphore::new(PEER_FETCHES_MAX)),
            wanted: watch::channel(None).0,
        });
        for (id, letters) in letters {
            for lane in [Lane::Urgent, Lane::Bulk] {
                shared.spawn(outbound::run(shared.clone(), id, lane));
            }
            shared.spawn(offer::run(shared.clone(), id, letters));
        }
        shared.spawn(fetch::run(shared.clone()));
        Self { shared }
    }

    /// What answers HTTP/2 on the peer URLs.
    pub fn service(&self) -> Router {
        let server = PeerServer::new(Inbound(self.shared.clone()))
            .max_decoding_message_size(self.shared.config.message_bytes_max);
        Routes::new(server).into_axum_router()
    }

    /// Sends something to another member, or drops it; never waits. What cannot be delivered is told, from within this
    /// call too: a raft message by [`Events::unreachable`], a snapshot by [`Events::snapshot_sent`]. The author of a
    /// batch sends it again by itself.
    pub fn send(&self, to: MemberId, outgoing: Outgoing) {
        let Some(member) = self.shared.members.get(&to) else {
            tracing::debug!(%to, "nothing is sent to a member that is not known");
            return self.undelivered(to, &outgoing);
        };
        let (lane, message) = match &outgoing {
            Outgoing::Raft { message, urgent } => {
                (if *urgent { Lane::Urgent } else { Lane::Bulk }, Message::Raft(message.clone()))
            }
            Outgoing::Batch(batch) => (Lane::Bulk, Message::Batch(batch.clone())),
            Outgoing::Refused { boot, number, why } => {
                (Lane::Bulk, Message::Refused(BatchRefused { boot: *boot, number: *number, why: why.clone() }))
            }
            Outgoing::Digest { index, chain } => (Lane::Bulk, Message::Digest(Digest { index: *index, chain: *chain })),
            Outgoing::Snapshot { index, term } => {
                if member.offers.try_send((*index, *term)).is_err() {
                    self.undelivered(to, &outgoing);
                }
                return;
            }
        };
        let metrics = &self.shared.config.metrics;
        let bytes = message.encoded_len();
        // The other end would break the connection, and again with every attempt.
        if bytes > self.shared.config.message_bytes_max {
            tracing::error!(%to, bytes, "a message to another member is larger than any may be");
            metrics.peer_sent_failures_total.with_label_values(&[&member.label]).inc();
            return self.undelivered(to, &outgoing);
        }
        let pushed = member.queue(lane).push(message);
        if pushed.taken.is_some() {
            metrics.peer_sent_bytes_total.with_label_values(&[&member.label]).inc_by(bytes as u64);
        }
        let failures = pushed.dropped_raft.max(usize::from(pushed.taken.is_none()));
        if failures > 0 {
            metrics.peer_sent_failures_total.with_label_values(&[&member.label]).inc_by(failures as u64);
        }
        if pushed.dropped_raft > 0 {
            self.shared.events.unreachable(to);
        }
    }

    fn undelivered(&self, to: MemberId, outgoing: &Outgoing) {
        match outgoing {
            Outgoing::Raft { .. } => self.shared.events.unreachable(to),
            Outgoing::Snapshot { .. } => self.shared.events.snapshot_sent(to, false),
            Outgoing::Batch(_) | Outgoing::Refused { .. } | Outgoing::Digest { .. } => {}
        }
    }

    /// Renews a lease at the leader: the seconds it has again, 0 or less without such a lease.
    ///
    /// - Errors: the lessor's own; `NoLeader` without a connection, `LeaderChanged` if it broke, `Timeout`.
    pub async fn keep_alive(&self, leader: MemberId, id: LeaseId) -> Result<i64, Error> {
        lease::keep_alive(&self.shared, leader, id, self.call_timeout()).await
    }

    /// Asks the leader how long a lease has left; errors: as of [`Peers::keep_alive`].
    pub async fn time_to_live(&self, leader: MemberId, id: LeaseId) -> Result<Option<Remaining>, Error> {
        lease::time_to_live(&self.shared, leader, id, self.call_timeout()).await
    }

    fn call_timeout(&self) -> Duration {
        Duration::from_millis(READ_TIMEOUT_MS) + self.shared.config.election_timeout * 2
    }

    /// Since when another member can be talked to.
    pub fn active_since(&self, member: MemberId) -> Option<Instant> {
        let member = self.shared.members.get(&member)?;
        member.channel.lock().as_ref().map(|(_, since)| *since)
    }

    /// The connections to all other members.
    pub fn status(&self) -> Vec<PeerStatus> {
        let ids = self.shared.members.keys();
        ids.map(|id| PeerStatus { id: *id, active_since: self.active_since(*id) }).collect()
    }

    /// Sends what waits, ends every connection properly, and waits for all tasks. The service then refuses calls.
    pub async fn stop(&self) {
        let mut tasks = {
            let mut tasks = self.shared.tasks.lock();
            self.shared.stop.send_replace(true);
            std::mem::take(&mut *tasks)
        };
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task between members failed");
            }
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // The tasks hold what they share: without this they would never end.
        self.shared.stop.send_replace(true);
    }
}
