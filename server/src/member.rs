//! An open member: every part from the data directory to the handle that services use, and its orderly stop.

use crate::apply::{self, Applying, Progress};
use crate::config::urls::Url;
use crate::config::{Config, Quota};
use crate::deliver::Deliveries;
use crate::driver::{self, Driver, DriverConfig, DriverHandle, DriverHooks};
use crate::failpoint::failpoint;
use crate::founding::Founding;
use crate::gauges;
use crate::keeping::Keeping;
use crate::limits::{DISK_PART_BYTES_MAX, PEER_SNAPSHOT_SILENCE, STORE_CACHE_BYTES_MAX};
use crate::metrics::Metrics;
use crate::node::{AskLeader, Inner, Node};
use crate::peer::{Events, Later, Peers, PeersConfig, Pins, peers};
use crate::propose::Pending;
use crate::quota::{self, QuotaGuard};
use crate::recovery::{self, Opened, Settings, folder};
use crate::space::{self, Space};
use crate::store::budget::MemoryBudget;
use crate::store::keeper::{Keeper, KeeperConfig};
use crate::view::{Reads, Views};
use crate::wal_log::WalLog;
use crate::wal_thread::end_process;
use crate::watch::{self, Watches};
use anyhow::{Context, Result};
use axum::Router;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_replica::apply::state::State;
use mechi_replica::apply::{Answer, Outcomes};
use mechi_replica::lease::lessor::Remaining;
use mechi_replica::limits::{GRPC_OVERHEAD_BYTES, WAL_RESERVE_SEGMENTS};
use mechi_replica::member::MemberConfig;
use mechi_replica::mvcc::Mvcc;
use mechi_replica::outcome::{Error, Fatal};
use mechi_replica::replica::ReplicaConfig;
use mechi_replica::store::{Blocks, Values};
use mechi_replica::types::{Index, LeaseId, MemberId, Term};
use mechi_replica::wal::WalOptions;
use parking_lot::RwLock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::watch as signals;

/// How long apply waits for memory before it takes the next batch all the same: writes slow down, but none may wait
/// until its client gives up, nor a lease until it ends.
const ROOM_TIMEOUT: Duration = Duration::from_millis(500);

/// The share of the memory limit that values in memory may take.
const RESIDENT_SHARE: u64 = 2;

/// The share that all reads together may hold.
const READS_SHARE: u64 = 8;

/// The share of the store's own cache.
const CACHE_SHARE: u64 = 8;

/// Why a running member is to be stopped and opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reopen {
    /// Another member's snapshot lies beyond this member's log: opening installs it.
    SnapshotReceived {
        /// The snapshot's last entry.
        index: Index,
        /// Its term.
        term: Term,
    },
    /// An agreeing majority has another digest: the working store is not what the log says.
    Diverged {
        /// Where the digests differ.
        index: Index,
    },
}

/// What a member shares with the process around it, over all its openings.
#[derive(Clone)]
pub struct Surroundings {
    /// Counts on over a reopening.
    pub metrics: Arc<Metrics>,
    /// Where a member asks to be opened again; one wish at a time is enough.
    pub reopen: mpsc::Sender<Reopen>,
}

/// A member's parts, from the data directory to the handle that services use.
pub struct Member {
    /// The handle that services use.
    pub node: Node,
    /// Its disk.
    pub space: Arc<Space>,
    /// The clients that wait.
    pub pending: Pending,
    keeper: Arc<Keeper>,
    driver: Threads,
    apply_thread: JoinHandle<()>,
    watch_thread: JoinHandle<()>,
    peers: Arc<OnceLock<Peers>>,
    peer_service: Router,
    store: Arc<crate::store::sled::SledStore>,
    stopping: signals::Sender<bool>,
    _lock: <crate::disk::RealDisk as mechi_replica::disk::Disk>::Lock,
}

/// What of a [`Driver`] is stopped and joined at the end.
struct Threads {
    handle: driver::DriverHandle,
    wal: crate::wal_thread::WalHandle,
    driver_thread: JoinHandle<()>,
    wal_thread: JoinHandle<()>,
}

impl Member {
    /// What answers the other members' calls.
    pub fn peer_service(&self) -> Router {
        self.peer_service.clone()
    }

    /// Opens the data directory and starts every thread of the member.
    ///
    /// - Errors: a sentence for the person who starts the member.
    pub fn open(config: &Config, founding: &Founding, around: &Surroundings) -> Result<Self> {
        let settings = settings(config, founding)?;
        let Opened { disk, lock, boot, state, store, flusher, snapshots, wal, applied, tail, rebuilt, .. } =
            recovery::open(&settings)?;
        tracing::info!(
            boot,
            applied = applied.0,
            revision = state.mvcc.revision(),
            rebuilt = rebuilt.map(|why| why.to_string()),
            "opened the data directory"
        );
        recovery::space::tidy(&settings.data_dir)?;
        let own = settings.identity.member_id;
        let cluster_id = settings.identity.cluster_id;
        let metrics = around.metrics.clone();
        let fatal: Arc<dyn Fn(&Fatal) + Send + Sync> = Arc::new(|fatal| end_process(fatal));
        // What is still read while the store closes finds it closed, which is nobody's damage.
        let (stopping, stopped) = signals::channel(false);
        let (ending, reading) = (stopped.clone(), fatal.clone());
        let unreadable: Arc<dyn Fn(&Fatal) + Send + Sync> = Arc::new(move |error| match *ending.borrow() {
            true => tracing::warn!(%error, "a read is cut off, since the member stops"),
            false => reading(error),
        });
        let (total, free) = space::disk_bytes(disk.root()).context("ask for the disk's size")?;
        let snapshotted = snapshots.last().map_or(0, |manifest| manifest.tally.bytes);
        let space = Arc::new(Space::new(disk.clone(), space::part_bytes(total), state.mvcc.live_bytes(), snapshotted));

        let conf = state.conf.clone();
        let leases = state.leases.to_meta();
        let others = others(founding, &state)?;
        let progress = Arc::new(Progress::at(&state));
        let revision = state.mvcc.revision();
        let state = Arc::new(RwLock::new(state));
        let values: Arc<dyn Values + Send + Sync> = Arc::new(Blocks(store.clone()));
        let views = Arc::new(Views::default());
        let budget = config.memory_limit / READS_SHARE;
        let reads = Reads::new(state.clone(), values.clone(), views.clone(), budget, unreadable);

        let watch_state = state.clone();
        let source = Box::new(move |look: &mut dyn FnMut(&Mvcc)| look(&watch_state.read().mvcc));
        let watch_config = watch::Config {
            fragment_bytes: config.max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES),
            progress_interval_ms: millis(config.watch_progress_interval),
            ..watch::Config::default()
        };
        let header = watch::Header { cluster_id, member_id: own, raft_term: tail.hard_state.term };
        let on_fatal = Box::new(|fatal: Fatal| end_process(&fatal));
        let deliveries = Deliveries::start();
        let (watches, watch_thread) =
            Watches::spawn(watch_config, header, revision, source, values.clone(), deliveries.clone(), on_fatal)
                .context("start a thread")?;

        let request_timeout = Duration::from_secs(5) + config.election_timeout * 2;
        let pending = Pending::new(deliveries.clone());
        let tick = config.heartbeat_interval;
        let driver_config = DriverConfig {
            member: MemberConfig {
                replica: ReplicaConfig {
                    member: MemberId(own),
                    conf,
                    boot,
                    seed: own ^ boot.rotate_left(32),
                    tick_ms: millis(tick),
                    heartbeat_ticks: 1,
                    election_ticks: ticks(config.election_timeout, tick),
                    log_memory_bytes: usize::try_from(config.snapshot_log_bytes).unwrap_or(usize::MAX),
                },
                tail,
                applied: applied.0,
                snapshot: snapshots.last().map_or((0, 0), |manifest| (manifest.index(), manifest.term())),
                leases,
                lease_checkpoint_ms: millis(config.lease_checkpoint_interval),
            },
            request_timeout,
        };
        let free_space = space.clone();
        // What the driver calls is made after it, since it calls the driver too; what comes too early is dropped, and
        // the heart asks again.
        let peers = Arc::new(OnceLock::<Peers>::new());
        let builder = Arc::new(OnceLock::<Arc<Keeper>>::new());
        let (sending, building, reopen) = (peers.clone(), builder.clone(), around.reopen.clone());
        let hooks = DriverHooks {
            free_space: Box::new(move || free_space.give_up()),
            fatal: fatal.clone(),
            send: Box::new(move |to, outgoing| {
                if let Some(peers) = sending.get() {
                    peers.send(to, outgoing);
                }
            }),
            build_snapshot: Box::new(move || {
                if let Some(keeper) = building.get() {
                    keeper.want_snapshot();
                }
            }),
            // A wish that is there already leads to an opening too.
            diverged: Box::new(move |index| {
                let _ = reopen.try_send(Reopen::Diverged { index });
            }),
        };
        let log = WalLog::new(wal, metrics.clone());
        let Driver { handle, wal, committed, driver_thread, wal_thread } =
            driver::start(driver_config, log, hooks, pending.clone(), deliveries)?;

        let pins = Arc::<Pins>::default();
        let keeping = Keeping {
            views,
            watches: watches.clone(),
            space: space.clone(),
            wal: wal.clone(),
            driver: handle.clone(),
            fatal: fatal.clone(),
            metrics: metrics.clone(),
            pins: pins.clone(),
        };
        let keeper_config = KeeperConfig {
            disk: disk.clone(),
            snapshots: recovery::SNAP_DIR.to_owned(),
            member: own,
            budget: MemoryBudget { limit: settings.resident_bytes },
            flush_age: config.store_flush_interval,
            snapshot_log_bytes: config.snapshot_log_bytes,
        };
        let keeper = Keeper::start(keeper_config, state.clone(), store.clone(), flusher, snapshots, keeping);
        let keeper = Arc::new(keeper.context("start a thread")?);
        drop(builder.set(keeper.clone()));

        let (room, observed) = (keeper.clone(), watches.clone());
        let (compacted, counted, slow) = (keeper.clone(), metrics.clone(), metrics.clone());
        let applying = Applying {
            state,
            values,
            answer: Answer { member: own, boot },
            pending: pending.clone(),
            driver: handle.clone(),
            progress: progress.clone(),
            backpressure: Box::new(move || room.wait_for_room(ROOM_TIMEOUT)),
            observe: Box::new(move |out: &Outcomes, seconds| {
                if let Some(revisions) = &out.revisions {
                    observed.advance(*revisions.end());
                }
                if out.compaction.is_some() {
                    compacted.wake();
                }
                gauges::outcomes(&counted, out, seconds);
            }),
            counted: Box::new(move |mvcc, from, seconds| gauges::entry(&slow, mvcc, from, seconds)),
            fatal,
        };
        let apply_thread = apply::spawn(applying, committed).context("start a thread")?;

        let at = progress.clone();
        let peers_config = PeersConfig {
            cluster_id,
            own: MemberId(own),
            others,
            disk: disk.clone(),
            snapshots: recovery::SNAP_DIR.to_owned(),
            pins,
            applied: Arc::new(move || at.applied_index.load(Relaxed)),
            election_timeout: config.election_timeout,
            message_bytes_max: peers::message_bytes_max(config.max_request_bytes),
            snapshot_silence: PEER_SNAPSHOT_SILENCE,
            reserve_bytes: DISK_PART_BYTES_MAX,
            metrics: metrics.network.clone(),
        };
        let inbox = Inbox { driver: handle.clone(), progress: progress.clone(), reopen: around.reopen.clone() };
        let started = Peers::start(peers_config, Arc::new(inbox));
        let peer_service = started.service();
        drop(peers.set(started));

        let quota = match config.quota {
            Quota::Unlimited => 0,
            Quota::Bytes(bytes) => u64::try_from(bytes).unwrap_or(0),
            Quota::FromDisk => quota::from_disk(free),
        };
        let node = Node::new(Inner {
            member_id: own,
            cluster_id,
            election_timeout: config.election_timeout,
            driver: handle.clone(),
            quota: QuotaGuard::new(quota, own, reads.clone(), space.clone()),
            reads,
            watches,
            progress,
            keeper: keeper.clone(),
            metrics: metrics.clone(),
            request_timeout,
            leader: Arc::new(OverPeers(peers.clone())),
            stopping: stopped,
        });
        let driver = Threads { handle, wal, driver_thread, wal_thread };
        Ok(Self {
            node,
            space,
            pending,
            keeper,
            driver,
            apply_thread,
            watch_thread,
            peers,
            peer_service,
            store,
            stopping,
            _lock: lock,
        })
    }

    /// Whether another member can be talked to.
    pub fn reaches_others(&self) -> bool {
        self.peers.get().is_some_and(|peers| peers.status().iter().any(|peer| peer.active_since.is_some()))
    }

    /// Ends the streams of clients, which never end by themselves.
    pub fn end_streams(&self) {
        self.stopping.send_replace(true);
        self.node.watches().stop();
    }

    /// Brings the state into the store, as evidence of what it is, also if memory is enough for it.
    pub async fn fill_store(&self) -> Result<()> {
        let keeper = self.keeper.clone();
        Ok(tokio::task::spawn_blocking(move || keeper.flush()).await?)
    }

    /// Stops every thread in the order in which they feed each other, and notes the orderly stop in the log.
    pub async fn stop(self) -> Result<()> {
        let Threads { handle, wal, driver_thread, wal_thread } = self.driver;
        self.stopping.send_replace(true);
        self.node.watches().stop();
        handle.stop();
        join(driver_thread).await?;
        // What the driver sent last still goes out, such as the word to the next leader.
        if let Some(peers) = self.peers.get() {
            peers.stop().await;
        }
        join(self.apply_thread).await?;
        join(self.watch_thread).await?;
        let keeper = self.keeper.clone();
        let flusher = tokio::task::spawn_blocking(move || keeper.stop()).await?;
        let store = self.store.clone();
        let closed = tokio::task::spawn_blocking(move || -> Result<()> {
            store.close()?;
            failpoint!("ckpt_after_flush_before_fsync");
            folder::sync_all(store.folder())
        });
        match (closed.await?, flusher.as_ref().and_then(|flusher| flusher.applied().map(|applied| applied.index))) {
            (Ok(()), Some(applied)) => {
                failpoint!("ckpt_after_fsync_before_record");
                wal.close_clean(applied).await;
                failpoint!("ckpt_after_record");
            }
            (closed, _) => {
                if let Err(error) = closed {
                    tracing::warn!(error = format!("{error:#}"), "the store is not closed cleanly and will be rebuilt");
                }
                wal.stop();
            }
        }
        join(wal_thread).await?;
        tracing::info!("the member has stopped");
        Ok(())
    }
}

/// Asks the leader over the connections between members.
struct OverPeers(Arc<OnceLock<Peers>>);

impl AskLeader for OverPeers {
    fn keep_alive(&self, leader: MemberId, id: LeaseId) -> Later<Result<i64, Error>> {
        let peers = self.0.clone();
        Box::pin(async move {
            match peers.get() {
                Some(peers) => peers.keep_alive(leader, id).await,
                None => Err(Error::NoLeader),
            }
        })
    }

    fn time_to_live(&self, leader: MemberId, id: LeaseId) -> Later<Result<Option<Remaining>, Error>> {
        let peers = self.0.clone();
        Box::pin(async move {
            match peers.get() {
                Some(peers) => peers.time_to_live(leader, id).await,
                None => Err(Error::NoLeader),
            }
        })
    }
}

/// What comes from the other members, handed to the driver.
struct Inbox {
    driver: DriverHandle,
    progress: Arc<Progress>,
    reopen: mpsc::Sender<Reopen>,
}

impl Events for Inbox {
    fn raft(&self, _: MemberId, message: Bytes) {
        self.driver.peer(message);
    }

    fn batch(&self, from: MemberId, batch: Bytes) {
        self.driver.forwarded(from, batch);
    }

    fn batch_refused(&self, from: MemberId, boot: u64, number: u64, why: &str) {
        tracing::error!(by = %from, boot, number, why, "a batch of this member is refused");
        self.driver.batch_refused(boot, number);
    }

    fn digest(&self, from: MemberId, index: Index, chain: u64) {
        self.driver.digest(from, index, chain);
    }

    fn unreachable(&self, member: MemberId) {
        self.driver.unreachable(member);
    }

    fn reset(&self, member: MemberId) {
        self.driver.reset(member);
    }

    fn snapshot_sent(&self, to: MemberId, ok: bool) {
        self.driver.snapshot_sent(to, ok);
    }

    fn snapshot_received(&self, index: Index, term: Term) {
        // The log may have brought the member there meanwhile.
        if self.progress.applied_index.load(Relaxed) < index {
            let _ = self.reopen.try_send(Reopen::SnapshotReceived { index, term });
        }
    }

    fn keep_alive(&self, id: LeaseId) -> Later<Result<i64, Error>> {
        let driver = self.driver.clone();
        Box::pin(async move { driver.keep_alive(id).await })
    }

    fn time_to_live(&self, id: LeaseId) -> Later<Result<Option<Remaining>, Error>> {
        let driver = self.driver.clone();
        Box::pin(async move { driver.time_to_live(id).await })
    }
}

/// The other members and where to reach them: as the cluster knows them, or before it does as the flags say.
fn others(founding: &Founding, state: &State) -> Result<Vec<(MemberId, Vec<Url>)>> {
    let own = founding.identity.member_id;
    let known: Vec<&pb::Member> = match state.members.is_empty() {
        true => founding.members.iter().collect(),
        false => state.members.values().collect(),
    };
    let others = known.into_iter().filter(|member| member.id != own).map(|member| {
        let urls = member.peer_ur_ls.iter().map(|url| Url::parse(url)).collect::<Result<Vec<_>, _>>();
        Ok((MemberId(member.id), urls.map_err(anyhow::Error::msg)?))
    });
    others.collect::<Result<_>>().context("read the members' peer URLs")
}

fn settings(config: &Config, founding: &Founding) -> Result<Settings> {
    let (total, _) = space::disk_bytes(&config.data_dir).context("ask for the disk's size")?;
    Ok(Settings {
        data_dir: config.data_dir.clone(),
        identity: founding.identity.clone(),
        wal: WalOptions { segment_bytes: space::segment_bytes(total), reserve_segments: WAL_RESERVE_SEGMENTS },
        cache_bytes: (config.memory_limit / CACHE_SHARE).min(STORE_CACHE_BYTES_MAX),
        resident_bytes: config.memory_limit / RESIDENT_SHARE,
        expects_store: !config.store_flush_interval.is_zero(),
        machine_boot: folder::machine_boot(),
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn ticks(timeout: Duration, tick: Duration) -> usize {
    usize::try_from(timeout.as_millis() / tick.as_millis().max(1)).unwrap_or(usize::MAX)
}

async fn join(thread: JoinHandle<()>) -> Result<()> {
    let name = thread.thread().name().unwrap_or("unnamed").to_owned();
    let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
    joined.map_err(|_| anyhow::anyhow!("the thread {name} panicked"))
}
