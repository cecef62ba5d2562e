//! An open member: every part from the data directory to the handle that services use, and its orderly stop.

use crate::apply::{self, Applying, Progress};
use crate::config::{Config, Quota};
use crate::driver::{self, Driver, DriverConfig, DriverHooks};
use crate::founding::Founding;
use crate::gauges;
use crate::keeping::Keeping;
use crate::metrics::Metrics;
use crate::node::{AskLeader, Inner, Node};
use crate::peer::Later;
use crate::propose::Pending;
use crate::quota::{self, QuotaGuard};
use crate::recovery::{self, Opened, Settings, folder};
use crate::space::{self, Space};
use crate::store::flush::{Keeper, KeeperConfig, MemoryBudget};
use crate::view::{Reads, Views};
use crate::wal_log::WalLog;
use crate::wal_thread::end_process;
use crate::watch::{self, Watches};
use anyhow::{Context, Result};
use mechi_replica::apply::{Answer, Outcomes};
use mechi_replica::lease::lessor::Remaining;
use mechi_replica::limits::GRPC_OVERHEAD_BYTES;
use mechi_replica::mvcc::Mvcc;
use mechi_replica::outcome::{Error, Fatal};
use mechi_replica::replica::{LogTail, ReplicaConfig};
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::store::{Blocks, Values};
use mechi_replica::types::{Index, LeaseId, MemberId, Term};
use mechi_replica::wal::WalOptions;
use parking_lot::RwLock;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::watch as signals;

/// How long apply waits for memory before it takes the next batch all the same: writes slow down, but none may wait
/// until its client gives up, nor a lease until it ends.
const ROOM_TIMEOUT: Duration = Duration::from_millis(500);

/// Segments of the log allocated ahead.
const RESERVE_SEGMENTS: usize = 2;

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
    /// Opens the data directory and starts every thread of the member.
    ///
    /// - Errors: a sentence for the person who starts the member.
    pub fn open(config: &Config, founding: &Founding, around: &Surroundings) -> Result<Self> {
        let settings = settings(config, founding)?;
        let Opened {
            disk,
            lock,
            boot,
            state,
            store,
            flusher,
            snapshots,
            wal,
            applied,
            entries,
            hard_state,
            rebuilt,
            ..
        } = recovery::open(&settings)?;
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

        let voters = state.conf_state.voters.iter().copied().map(MemberId).collect();
        let learners = state.conf_state.learners.iter().copied().map(MemberId).collect();
        let leases = state.leases.to_meta();
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
        let header = watch::Header { cluster_id, member_id: own, raft_term: hard_state.term };
        let on_fatal = Box::new(|fatal: Fatal| end_process(&fatal));
        let (watches, watch_thread) = Watches::spawn(watch_config, header, revision, source, values.clone(), on_fatal)
            .context("start a thread")?;

        let request_timeout = Duration::from_secs(5) + config.election_timeout * 2;
        let pending = Pending::default();
        let tick = config.heartbeat_interval;
        let driver_config = DriverConfig {
            replica: ReplicaConfig {
                member: MemberId(own),
                voters,
                learners,
                boot,
                seed: own ^ boot.rotate_left(32),
                tick_ms: millis(tick),
                heartbeat_ticks: 1,
                election_ticks: ticks(config.election_timeout, tick),
            },
            tail: LogTail { before: applied, entries, hard_state },
            applied: applied.0,
            snapshot: snapshots.last().map_or(0, Manifest::index),
            leases,
            lease_checkpoint_ms: millis(config.lease_checkpoint_interval),
            request_timeout,
        };
        let free_space = space.clone();
        let hooks = DriverHooks {
            free_space: Box::new(move || free_space.give_up()),
            fatal: fatal.clone(),
            send: Box::new(|to, _| tracing::error!(%to, "a one-member cluster has nobody to send to")),
        };
        let log = WalLog::new(wal, metrics.clone());
        let Driver { handle, wal, committed, driver_thread, wal_thread } =
            driver::start(driver_config, log, hooks, pending.clone())?;

        let keeping = Keeping::new(
            views,
            watches.clone(),
            space.clone(),
            wal.clone(),
            handle.clone(),
            fatal.clone(),
            metrics.clone(),
        );
        let keeper_config = KeeperConfig {
            disk: disk.clone(),
            snapshots: recovery::SNAP_DIR.to_owned(),
            member: own,
            budget: MemoryBudget { limit: settings.resident_bytes },
            flush_age: config.store_flush_interval,
        };
        let keeper = Keeper::start(keeper_config, state.clone(), store.clone(), flusher, snapshots, keeping);
        let keeper = Arc::new(keeper.context("start a thread")?);

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
            leader: Arc::new(Alone),
            stopping: stopped,
        });
        let driver = Threads { handle, wal, driver_thread, wal_thread };
        Ok(Self { node, space, pending, keeper, driver, apply_thread, watch_thread, store, stopping, _lock: lock })
    }

    /// Ends the streams of clients, which never end by themselves.
    pub fn end_streams(&self) {
        self.stopping.send_replace(true);
        self.node.watches().stop();
    }

    /// Stops every thread in the order in which they feed each other, and notes the orderly stop in the log.
    pub async fn stop(self) -> Result<()> {
        let Threads { handle, wal, driver_thread, wal_thread } = self.driver;
        self.stopping.send_replace(true);
        self.node.watches().stop();
        handle.stop();
        join(driver_thread).await?;
        join(self.apply_thread).await?;
        join(self.watch_thread).await?;
        let keeper = self.keeper.clone();
        let flusher = tokio::task::spawn_blocking(move || keeper.stop()).await?;
        let store = self.store.clone();
        let closed = tokio::task::spawn_blocking(move || -> Result<()> {
            store.close()?;
            folder::sync_all(store.folder())
        });
        match (closed.await?, flusher.as_ref().and_then(|flusher| flusher.applied().map(|applied| applied.index))) {
            (Ok(()), Some(applied)) => wal.close_clean(applied).await,
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

/// A member of one has no other leader to ask.
struct Alone;

impl AskLeader for Alone {
    fn keep_alive(&self, _: MemberId, _: LeaseId) -> Later<Result<i64, Error>> {
        Box::pin(async { Err(Error::NotLeader) })
    }

    fn time_to_live(&self, _: MemberId, _: LeaseId) -> Later<Result<Option<Remaining>, Error>> {
        Box::pin(async { Err(Error::NotLeader) })
    }
}

fn settings(config: &Config, founding: &Founding) -> Result<Settings> {
    let (total, _) = space::disk_bytes(&config.data_dir).context("ask for the disk's size")?;
    Ok(Settings {
        data_dir: config.data_dir.clone(),
        identity: founding.identity.clone(),
        wal: WalOptions { segment_bytes: space::part_bytes(total), reserve_segments: RESERVE_SEGMENTS },
        cache_bytes: config.memory_limit / CACHE_SHARE,
        resident_bytes: config.memory_limit / RESIDENT_SHARE,
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
