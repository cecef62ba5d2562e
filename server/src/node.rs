//! The handle through which services reach the running member.

use crate::apply::Progress;
use crate::driver::DriverHandle;
use crate::metrics::Metrics;
use crate::peer::Later;
use crate::quota::QuotaGuard;
use crate::store::keeper::Keeper;
pub use crate::view::{Chunk, Kvs, RangeReply, Reader};
use crate::view::{Reads, View};
use crate::watch::Watches;
pub use crate::watch::{WatchMessage, WatchStream};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use mechi_replica::apply::{Counts, txn};
use mechi_replica::effect::RoleKind;
use mechi_replica::lease::lessor::Remaining;
use mechi_replica::mvcc::HashJob;
use mechi_replica::outcome::{Error, Fatal, Response};
use mechi_replica::record::Record;
use mechi_replica::store::Values;
use mechi_replica::types::{KeyRange, LeaseId, MemberId, Revision};
use prost::Message;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A running member, as its services see it; cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

/// What a [`Node`] is made of.
pub struct Inner {
    /// This member's id.
    pub member_id: u64,
    /// Its cluster's id.
    pub cluster_id: u64,
    /// Three of these without a leader end streams that require one.
    pub election_timeout: Duration,
    /// The way to consensus.
    pub driver: DriverHandle,
    /// The way to the state.
    pub reads: Reads,
    /// The way to the watch hub.
    pub watches: Watches,
    /// How far this member is.
    pub progress: Arc<Progress>,
    /// What may still grow.
    pub quota: QuotaGuard,
    /// Sweeps, flushes and snapshots.
    pub keeper: Arc<Keeper>,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
    /// How long a client waits for an answer (etcd: 5 s and two election timeouts).
    pub request_timeout: Duration,
    /// The way to another member that leads.
    pub leader: Arc<dyn AskLeader>,
    /// Becomes true when the member stops.
    pub stopping: watch::Receiver<bool>,
}

/// Asks another member what only the leader's lessor can answer.
pub trait AskLeader: Send + Sync {
    /// Renews a lease; as [`DriverHandle::keep_alive`].
    fn keep_alive(&self, leader: MemberId, id: LeaseId) -> Later<Result<i64, Error>>;
    /// Tells how long a lease has left; as [`DriverHandle::time_to_live`].
    fn time_to_live(&self, leader: MemberId, id: LeaseId) -> Later<Result<Option<Remaining>, Error>>;
}

/// What `Maintenance.Status`, `/health` and the metrics need to know.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Status {
    pub leader: u64,
    pub is_learner: bool,
    pub term: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    /// Live plus unreclaimed bytes; never 0.
    pub db_size: i64,
    /// Bytes of all revisions that are not compacted.
    pub db_size_in_use: i64,
    /// The quota in force, in bytes.
    pub quota: i64,
    pub revision: i64,
    pub compact_revision: i64,
    pub keys: u64,
    /// (member, NOSPACE or CORRUPT) as the replicated state has them.
    pub alarms: Vec<pb::AlarmMember>,
}

/// What an empty store is said to take: some tools divide by it.
const EMPTY_DB_BYTES: i64 = 20_480;

/// How long a wished leader has to take over (etcd: the election timeout, and the time of a request).
const TRANSFER_MAX: Duration = Duration::from_secs(5);

/// Time before a lessor is asked again (etcd: 50 ms).
const LESSOR_RETRY: Duration = Duration::from_millis(50);

impl Node {
    /// Puts the parts together.
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// The way to the state, for upkeep and metrics.
    pub fn reads(&self) -> &Reads {
        &self.0.reads
    }

    /// The way to consensus.
    pub fn driver(&self) -> &DriverHandle {
        &self.0.driver
    }

    /// The watch hub.
    pub fn watches(&self) -> &Watches {
        &self.0.watches
    }

    /// Puts a command through the log; answers once it is durable and applied.
    ///
    /// - Errors: in etcd's words. `Timeout`, `LeaderChanged` and `BatchRefused` leave the outcome unknown.
    pub async fn propose(&self, request: Request) -> Result<Response, Error> {
        self.0.quota.admit(self, &request).await?;
        let outcome = self.0.driver.propose(request).await;
        if matches!(
            outcome,
            Err(Error::Timeout | Error::NoLeader | Error::LeaderChanged | Error::BatchRefused | Error::Stopped)
        ) {
            self.0.metrics.server.proposals_failed_total.inc();
        }
        outcome
    }

    /// Waits for a read point that covers everything acknowledged before the call.
    pub async fn linearize(&self) -> Result<(), Error> {
        let server = &self.0.metrics.server;
        match self.0.driver.read().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let metric = match error {
                    Error::Timeout => &server.slow_read_indexes_total,
                    _ => &server.read_indexes_failed_total,
                };
                metric.inc();
                Err(error)
            }
        }
    }

    /// The header of an answer; `revision` 0 is filled with the current one.
    pub fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.0.cluster_id,
            member_id: self.0.member_id,
            revision: if revision == 0 { self.0.progress.revision.load(Relaxed) } else { revision },
            raft_term: self.0.driver.role().term,
        }
    }

    /// Serves a checked range (linearizable unless `serializable`).
    pub async fn range(&self, request: pb::RangeRequest) -> Result<RangeReply, Error> {
        let (began, metrics) = (Instant::now(), &self.0.metrics);
        let reply = async {
            if !request.serializable {
                self.linearize().await?;
            }
            metrics.mvcc.range_total.inc();
            self.0.reads.range(&request).await
        };
        let reply = reply.await;
        let success = if reply.is_ok() { "true" } else { "false" };
        metrics.server.range_duration_seconds.with_label_values(&[success]).observe(began.elapsed().as_secs_f64());
        reply
    }

    /// Serves a txn that only reads (all its flat operations are ranges, or it has none).
    pub async fn read_txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        if !mechi_replica::command::is_serializable(&request) {
            self.linearize().await?;
        }
        // Its answer is one message in memory: what it may hold comes off the budget first.
        let held = {
            let state = self.0.reads.state.read();
            let ranges = request.success.iter().chain(&request.failure).filter_map(|op| match &op.request {
                Some(pb::request_op::Request::RequestRange(range)) if !range.count_only => Some(range),
                _ => None,
            });
            ranges.map(|range| state.mvcc.totals(&KeyRange::new(&range.key, &range.range_end)).framed_bytes).sum()
        };
        let _held = self.0.reads.reserve(held).await;
        let reads = self.0.reads.clone();
        let response = self.blocking(move || txn::read(&reads.state.read(), &request, &*reads.values)).await??;
        let mut counts = Counts::default();
        counts.txn(&response);
        self.0.metrics.mvcc.range_total.inc_by(counts.ranges);
        self.0.metrics.mvcc.txn_total.inc_by(counts.txns);
        Ok(response)
    }

    /// Compacts; with `physical` it answers once the old revisions are gone from memory.
    pub async fn compact(&self, request: pb::CompactionRequest) -> Result<pb::CompactionResponse, Error> {
        let physical = request.physical;
        let response = match self.propose(Request::Compaction(request)).await? {
            Response::Compaction(response) => response,
            other => return Err(self.bug(format!("a compaction was answered with {other:?}"))),
        };
        if physical {
            let keeper = self.0.keeper.clone();
            let swept = tokio::task::spawn_blocking(move || keeper.sweep()).await;
            swept.map_err(|_| Error::Stopped)?;
        }
        Ok(response)
    }

    /// Renews a lease; the answer's TTL is 0 if there is none.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Error> {
        let header = self.header(0);
        let lease = LeaseId(id);
        let ttl = self
            .ask_lessor(|leader| match leader {
                None => {
                    let driver = self.0.driver.clone();
                    Box::pin(async move { driver.keep_alive(lease).await })
                }
                Some(leader) => self.0.leader.keep_alive(leader, lease),
            })
            .await?;
        if ttl > 0 {
            self.0.metrics.lease.renewed_total.inc();
        }
        Ok(pb::LeaseKeepAliveResponse { header: Some(header), id, ttl })
    }

    /// A lease's remaining time; TTL -1 if there is none.
    pub async fn lease_time_to_live(&self, id: i64, keys: bool) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        // The lessor knows only what is applied: a lease granted elsewhere before must be found.
        self.linearize().await?;
        let lease = LeaseId(id);
        let remaining = self
            .ask_lessor(|leader| match leader {
                None => {
                    let driver = self.0.driver.clone();
                    Box::pin(async move { driver.time_to_live(lease).await })
                }
                Some(leader) => self.0.leader.time_to_live(leader, lease),
            })
            .await?;
        let state = self.0.reads.state.read();
        let header = Some(self.header(state.mvcc.revision()));
        Ok(match (remaining, state.leases.get(LeaseId(id))) {
            (Some(remaining), Some(lease)) => pb::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: remaining.ttl,
                granted_ttl: remaining.granted_ttl,
                keys: if keys { lease.keys().cloned().collect() } else { Vec::new() },
            },
            _ => pb::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() },
        })
    }

    /// Asks whoever judges leases, this member (`None`) or another, and follows the leadership until there is an answer.
    ///
    /// - Errors: `NoLeader` or `Timeout` if nobody answered within the time of a request.
    async fn ask_lessor<T>(&self, ask: impl Fn(Option<MemberId>) -> Later<Result<T, Error>>) -> Result<T, Error> {
        let asked = async {
            loop {
                let leader = self.0.driver.role().leader.filter(|leader| leader.0 != self.0.member_id);
                match ask(leader).await {
                    // Another one may lead by now, or this leader has not yet read what it needs to judge.
                    Err(Error::NotLeader | Error::NoLeader | Error::LeaderChanged) => {}
                    // A leader that stops will have a successor; this member's own stop is an answer.
                    Err(Error::Stopped | Error::Timeout) if leader.is_some() => {}
                    answer => return answer,
                }
                tokio::time::sleep(LESSOR_RETRY).await;
            }
        };
        match tokio::time::timeout(self.0.request_timeout, asked).await {
            Ok(answer) => answer,
            Err(_) if self.has_leader() => Err(Error::Timeout),
            Err(_) => Err(Error::NoLeader),
        }
    }

    /// All leases, soonest to expire first where this member judges them, else by id.
    pub async fn lease_leases(&self) -> Result<pb::LeaseLeasesResponse, Error> {
        self.linearize().await?;
        let leases = self.0.driver.leases().await?.into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
        Ok(pb::LeaseLeasesResponse { header: Some(self.header(0)), leases })
    }

    /// The members of the replicated state.
    pub fn members(&self) -> Vec<pb::Member> {
        self.0.reads.state.read().members.values().cloned().collect()
    }

    /// (hash, compact revision, hashed revision), as etcd computes them.
    pub async fn hash_kv(&self, revision: i64) -> Result<(u32, i64, i64), Error> {
        let (began, reads) = (Instant::now(), self.0.reads.clone());
        let (mut job, view) = {
            let state = reads.state.read();
            let job = HashJob::new(&state.mvcc, revision)?;
            let view = reads.views.open(job.floor());
            (job, view)
        };
        let hash = self
            .blocking(move || {
                loop {
                    if view.touch().is_err() {
                        return Ok(Err(Error::Compacted));
                    }
                    match job.step(&reads.state.read().mvcc) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(error) => return Ok(Err(error)),
                    }
                }
                let values = Pinned { values: &*reads.values, view: &view, lost: Cell::new(false) };
                match job.finish(&values) {
                    Err(_) if values.lost.get() => Ok(Err(Error::Compacted)),
                    hash => hash.map(Ok),
                }
            })
            .await??;
        self.0.metrics.mvcc.hash_rev_duration_seconds.observe(began.elapsed().as_secs_f64());
        Ok((hash.hash, hash.compact_revision, hash.hash_revision))
    }

    /// A checksum of the whole replicated state, for tests.
    pub async fn hash(&self) -> Result<u32, Error> {
        let began = Instant::now();
        let (keys, ..) = self.hash_kv(0).await?;
        let mut meta = self.0.reads.state.read().to_meta();
        // How far a member is, and by which entries, is not what it holds.
        (meta.applied_index, meta.applied_term, meta.chain_digest, meta.windows) = (0, 0, 0, Vec::new());
        self.0.metrics.mvcc.hash_duration_seconds.observe(began.elapsed().as_secs_f64());
        Ok(crc32c::crc32c_append(keys, &meta.encode_to_vec()))
    }

    /// Tells whether a leader is known.
    pub fn has_leader(&self) -> bool {
        self.0.driver.role().leader.is_some()
    }

    /// A look at the member; works without a leader.
    pub fn status(&self) -> Status {
        let role = self.0.driver.role();
        let progress = &self.0.progress;
        let state = self.0.reads.state.read();
        let mvcc = &state.mvcc;
        let in_use = i64::try_from(mvcc.live_bytes()).unwrap_or(i64::MAX);
        let unreclaimed = i64::try_from(mvcc.unreclaimed_bytes()).unwrap_or(i64::MAX);
        Status {
            leader: role.leader.map_or(0, |leader| leader.0),
            is_learner: state.members.get(&self.0.member_id).is_some_and(|member| member.is_learner),
            term: role.term,
            committed_index: progress.committed_index.load(Relaxed),
            applied_index: state.applied_index,
            db_size: EMPTY_DB_BYTES.saturating_add(in_use).saturating_add(unreclaimed),
            db_size_in_use: EMPTY_DB_BYTES.saturating_add(in_use),
            quota: self.0.quota.bytes(),
            revision: mvcc.revision(),
            compact_revision: mvcc.compact_revision(),
            keys: mvcc.live_keys(),
            alarms: state.alarms.list(pb::AlarmType::None),
        }
    }

    /// Hands leadership over; the caller has checked that this member leads and that `target` is a voter.
    ///
    /// - Errors: `Timeout` if the target did not take over.
    pub async fn move_leader(&self, target: u64) -> Result<(), Error> {
        let mut roles = self.0.driver.role_changes();
        if roles.borrow().leader == Some(MemberId(target)) {
            return Ok(());
        }
        self.0.driver.transfer(MemberId(target));
        let moved = roles.wait_for(|role| role.leader == Some(MemberId(target)));
        match tokio::time::timeout(TRANSFER_MAX, moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// Opens a watch stream.
    pub fn watch(&self) -> WatchStream {
        self.0.watches.open()
    }

    /// Resolves once the member is stopping.
    pub async fn stopping(&self) {
        // An error says that the member is gone, which is as good.
        let _ = self.0.stopping.clone().wait_for(|stopping| *stopping).await;
    }

    /// Resolves at the next moment when there has been no leader for three election timeouts.
    pub async fn leaderless(&self) {
        let mut roles = self.0.driver.role_changes();
        loop {
            if roles.wait_for(|role| role.leader.is_none()).await.is_err() {
                return;
            }
            let led = roles.wait_for(|role| role.leader.is_some());
            if tokio::time::timeout(self.0.election_timeout * 3, led).await.is_err() {
                return;
            }
        }
    }

    /// Tells whether this member leads and may judge leases.
    pub fn leads(&self) -> bool {
        self.0.driver.role().kind == RoleKind::Leader
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Fatal> + Send + 'static,
    ) -> Result<T, Error> {
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(fatal)) => {
                self.0.reads.fail(fatal);
                Err(Error::Stopped)
            }
            Err(_) => Err(Error::Stopped),
        }
    }

    fn bug(&self, text: String) -> Error {
        self.0.reads.fail(Fatal::Bug(text));
        Error::Stopped
    }
}

/// Values read under a view: each read says that the view is in use, and none is taken for damage once the view was
/// given up, since compaction may have removed it then.
struct Pinned<'a> {
    values: &'a dyn Values,
    view: &'a View,
    lost: Cell<bool>,
}

impl Values for Pinned<'_> {
    fn load(&self, revision: Revision) -> Result<Record, Fatal> {
        self.lost.set(self.view.touch().is_err());
        if self.lost.get() {
            return Err(Fatal::Bug(format!("the view that needed revision {revision} was given up")));
        }
        self.values.load(revision)
    }
}
