//! What all tasks between members share: who the others are, and what is known of the connections to them.

use super::Events;
use super::dial::Dialer;
use super::fetch::Offer;
use super::hello::{Caller, Lane, Once};
use super::peers::PeersConfig;
use super::queue::Queue;
use crate::config::urls::Url;
use mechi_replica::types::{Index, MemberId, Term};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Release;
use std::time::Instant;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Status};

pub(super) struct Shared {
    pub(super) config: PeersConfig,
    pub(super) events: Arc<dyn Events>,
    pub(super) dialer: Dialer,
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) stop: watch::Sender<bool>,
    /// Every task that is not ended; none is added once `stop` is true.
    pub(super) tasks: Mutex<JoinSet<()>>,
    pub(super) refusals: Once,
    /// Files of snapshots that may be sent at once.
    pub(super) fetches: Arc<Semaphore>,
    /// The snapshot that was offered to this member last.
    pub(super) wanted: watch::Sender<Option<Offer>>,
}

/// Another member.
pub(super) struct Member {
    pub(super) id: MemberId,
    /// As metrics name it.
    pub(super) label: String,
    pub(super) urls: Vec<Url>,
    pub(super) urgent: Arc<Queue>,
    pub(super) bulk: Arc<Queue>,
    pub(super) dial_errors: [Once; 2],
    pub(super) offer_errors: Once,
    /// The urgent connection while it stands, and since when.
    pub(super) channel: Mutex<Option<(Channel, Instant)>>,
    /// Counts how often the bulk connection broke.
    pub(super) bulk_breaks: watch::Sender<u64>,
    pub(super) offers: mpsc::Sender<(Index, Term)>,
    pub(super) taken: mpsc::Sender<(Index, bool)>,
    /// When it last asked for a part of a snapshot.
    pub(super) fetched_at: Mutex<Instant>,
    /// The streams that it opened last; the sender's end ends one when the next is opened.
    inbound: [Mutex<Inbound>; 2],
    /// Its end was told and nothing was heard of it since: four connections break with one process.
    is_reset_told: AtomicBool,
}

#[derive(Debug, Default)]
struct Inbound {
    number: u64,
    replace: Option<oneshot::Sender<()>>,
}

impl Shared {
    /// Ends when the member stops.
    pub(super) async fn stopped(&self) {
        // The sender lives in `self`.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// Starts a task that [`super::peers::Peers::stop`] waits for; returns whether it was started.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut tasks = self.tasks.lock();
        if *self.stop.borrow() {
            return false;
        }
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
        true
    }

    /// Checks who calls.
    ///
    /// - Errors: `FailedPrecondition`, logged now and then.
    pub(super) fn admit(&self, metadata: &MetadataMap) -> Result<(&Member, Caller), Status> {
        if *self.stop.borrow() {
            return Err(Status::new(Code::Unavailable, "this member stops"));
        }
        let checked = self.dialer.hello.check(metadata, |id| self.members.contains_key(&id));
        match checked {
            Ok(caller) => {
                let member = self.members.get(&caller.from).expect("the check looked it up");
                Ok((member, caller))
            }
            Err(status) => {
                if self.refusals.may_log(status.message()) {
                    tracing::warn!(why = status.message(), "refused a call of another member");
                }
                Err(status)
            }
        }
    }

    /// A connection with this member broke that had stood.
    pub(super) fn broke(&self, member: &Member) {
        if !member.is_reset_told.swap(true, AcqRel) {
            self.events.reset(member.id);
        }
    }
}

impl Member {
    pub(super) fn new(
        id: MemberId,
        urls: Vec<Url>,
        queues: [Arc<Queue>; 2],
        offers: mpsc::Sender<(Index, Term)>,
        taken: mpsc::Sender<(Index, bool)>,
    ) -> Self {
        let [urgent, bulk] = queues;
        Self {
            id,
            label: id.to_string(),
            urls,
            urgent,
            bulk,
            dial_errors: Default::default(),
            offer_errors: Once::default(),
            channel: Mutex::new(None),
            bulk_breaks: watch::channel(0).0,
            offers,
            taken,
            fetched_at: Mutex::new(Instant::now()),
            inbound: Default::default(),
            is_reset_told: AtomicBool::new(false),
        }
    }

    pub(super) fn queue(&self, lane: Lane) -> &Arc<Queue> {
        match lane {
            Lane::Urgent => &self.urgent,
            Lane::Bulk => &self.bulk,
        }
    }

    /// It lives: the next break is news.
    pub(super) fn heard(&self) {
        self.is_reset_told.store(false, Release);
    }

    /// A stream came from it, which takes the place of the one before: that one may be a connection of which only the
    /// other end knows that it broke. Returns its number, and what ends when it is replaced itself.
    pub(super) fn begin_inbound(&self, lane: Lane) -> (u64, oneshot::Receiver<()>) {
        let (replace, replaced) = oneshot::channel();
        let mut inbound = self.inbound[lane as usize].lock();
        inbound.number += 1;
        inbound.replace = Some(replace);
        (inbound.number, replaced)
    }

    pub(super) fn is_current(&self, lane: Lane, number: u64) -> bool {
        self.inbound[lane as usize].lock().number == number
    }
}
