//! A member's life: open, serve, stop. Every thread is started below here and joined before it returns.

use crate::apply::{self, Applying, Progress};
use crate::compactor::{self, Retention};
use crate::config::{AutoCompaction, CLUSTER_VERSION, Config, Quota};
use crate::driver::{self, Driver, DriverConfig, DriverHooks};
use crate::front::Front;
use crate::gauges::{self, Counting};
use crate::grpc;
use crate::http;
use crate::identity;
use crate::keeping::Keeping;
use crate::metrics::Metrics;
use crate::node::{Inner, Node};
use crate::propose::Pending;
use crate::quota::{self, QuotaGuard};
use crate::recovery::{self, Opened, Settings, folder};
use crate::space::{self, Space};
use crate::store::flush::{Keeper, KeeperConfig, MemoryBudget};
use crate::view::{Reads, Views};
use crate::wal_log::WalLog;
use crate::wal_thread::end_process;
use crate::watch::{self, Watches};
use anyhow::{Context, Result, bail};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use mechi_proto::mechipb::{ClusterInit, MemberPublish};
use mechi_replica::apply::{Answer, Outcomes};
use mechi_replica::effect::RoleKind;
use mechi_replica::limits::{GRPC_OVERHEAD_BYTES, LOG_MEMORY_BYTES_MAX};
use mechi_replica::member::MemberConfig;
use mechi_replica::mvcc::Mvcc;
use mechi_replica::outcome::{Error, Fatal};
use mechi_replica::replica::ReplicaConfig;
use mechi_replica::store::{Blocks, Values};
use mechi_replica::types::MemberId;
use mechi_replica::wal::WalOptions;
use parking_lot::{Mutex, RwLock};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch as signals;

/// How long apply waits for memory before it takes the next batch all the same: writes slow down, but none may wait
/// until its client gives up, nor a lease until it ends.
const ROOM_TIMEOUT: Duration = Duration::from_millis(500);

/// How long open calls may take to end when the member stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How often the member looks at its disk and brings its gauges up to date.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Segments of the log allocated ahead.
const RESERVE_SEGMENTS: usize = 2;

/// Runs a member until a signal or its own failure; returns the process's exit code.
pub fn run(config: &Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "failed to start the runtime");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(life(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the member stops");
            ExitCode::FAILURE
        }
    }
}

async fn life(config: &Config) -> Result<()> {
    let front = Front::bind(config)?;
    let member = Member::open(config)?;
    let node = member.node.clone();
    let compactor = tokio::spawn(compactor::run(node.clone(), retention(config)));
    let refresh = refresher(node.clone(), member.metrics.clone(), member.pending.clone());
    let looker = tokio::spawn(look(member.space.clone(), node.clone(), refresh.clone()));
    let (shutdown, stopped) = signals::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        settled = settle(&node, config, member.founder.clone()) => settled.context("begin the cluster")?,
        // Nobody is served yet: nothing has to be drained.
        _ = terminate.recv() => return member.stop().await,
        _ = interrupt.recv() => return member.stop().await,
    }
    // etcd's suites of all versions wait for one of these three lines.
    tracing::info!(cluster_version = CLUSTER_VERSION, "enabled capabilities for version");
    tracing::info!(name = config.name, "published local member to cluster through raft");
    let shared = http::Shared::new(Arc::new(node.clone()), member.metrics.clone(), config).refreshed_by(refresh);
    let options = grpc::Options {
        max_request_bytes: config.max_request_bytes,
        max_txn_ops: config.max_txn_ops,
        lease_ttl_min: grpc::Options::lease_ttl_min(millis(config.election_timeout)),
    };
    let router = member.metrics.grpc.count(grpc::router(node.clone(), options));
    let addresses = front.client_addresses();
    let served = front.serve(config, shared, router, &stopped);
    tracing::info!(addresses = addresses.join(","), "ready to serve client requests");
    let signal = tokio::select! {
        _ = terminate.recv() => "terminated",
        _ = interrupt.recv() => "interrupt",
    };
    tracing::info!(signal, "received signal; shutting down");
    compactor.abort();
    looker.abort();
    member.stopping.send_replace(true);
    // Watch streams never end by themselves: their hub goes first.
    node.watches().stop();
    shutdown.send_replace(true);
    let drained = async {
        for connections in served {
            // A listener's task that panicked has said so already.
            let _ = connections.await;
        }
    };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::warn!("some calls did not end in time and are cut off");
    }
    member.stop().await
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn retention(config: &Config) -> Retention {
    match config.auto_compaction {
        None => Retention::Off,
        Some(AutoCompaction::Periodic(period)) => Retention::Period(period),
        Some(AutoCompaction::Revision(kept)) => Retention::Revisions(kept, config.auto_compaction_revision_interval),
    }
}

/// What brings the gauges up to date; whoever calls it, each difference is counted once.
fn refresher(node: Node, metrics: Arc<Metrics>, pending: Pending) -> Arc<dyn Fn() + Send + Sync> {
    let counting = Mutex::new(Counting::default());
    Arc::new(move || gauges::refresh(&metrics, &node, &pending, &mut counting.lock()))
}

/// Looks at the disk and at the gauges now and then, until it is dropped.
async fn look(space: Arc<Space>, node: Node, refresh: Arc<dyn Fn() + Send + Sync>) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    loop {
        interval.tick().await;
        let (seen, live) = (space.clone(), node.reads().state.read().mvcc.live_bytes());
        // It may have to read a snapshot back before it gives up an older one.
        let _ = tokio::task::spawn_blocking(move || seen.look(live)).await;
        refresh();
    }
}

/// Waits until this member leads a cluster that knows its members, and tells it this member's name and URLs.
async fn settle(node: &Node, config: &Config, founder: pb::Member) -> Result<()> {
    let mut roles = node.driver().role_changes();
    roles.wait_for(|role| role.kind == RoleKind::Leader && role.settled).await.context("wait for leadership")?;
    let client_urls: Vec<String> = config.advertise_client_urls.iter().map(ToString::to_string).collect();
    let known = || node.members().into_iter().find(|member| member.id == founder.id);
    if known().is_none() {
        let members = vec![pb::Member { name: String::new(), client_ur_ls: Vec::new(), ..founder.clone() }];
        let init = ClusterInit { cluster_id: node.header(0).cluster_id, members };
        retried(node, Request::ClusterInit(init)).await?;
    }
    if known().is_none_or(|known| known.name != config.name || known.client_ur_ls != client_urls) {
        let publish = MemberPublish { member_id: founder.id, name: config.name.clone(), client_urls };
        retried(node, Request::MemberPublish(publish)).await?;
    }
    Ok(())
}

/// Proposes what may be proposed twice until it is done.
async fn retried(node: &Node, request: Request) -> Result<()> {
    loop {
        match node.driver().propose(request.clone()).await {
            Ok(_) => return Ok(()),
            Err(Error::Stopped) => bail!(Error::Stopped),
            Err(error) => {
                tracing::warn!(%error, "the cluster's first entries are not applied yet");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A member's parts, from the data directory to the handle that services use.
struct Member {
    node: Node,
    founder: pb::Member,
    space: Arc<Space>,
    metrics: Arc<Metrics>,
    pending: Pending,
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
    fn open(config: &Config) -> Result<Self> {
        let settings = settings(config)?;
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
        let metrics = Arc::new(Metrics::new(config, own));
        let fatal: Arc<dyn Fn(&Fatal) + Send + Sync> = Arc::new(|fatal| end_process(fatal));
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
        let reads = Reads::new(state.clone(), values.clone(), views.clone(), budget, fatal.clone());

        let watch_state = state.clone();
        let source = Box::new(move |look: &mut dyn FnMut(&Mvcc)| look(&watch_state.read().mvcc));
        let watch_config = watch::Config {
            fragment_bytes: config.max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES),
            progress_interval_ms: millis(config.watch_progress_interval),
            ..watch::Config::default()
        };
        let header = watch::Header { cluster_id, member_id: own, raft_term: tail.hard_state.term };
        let on_fatal = Box::new(|fatal: Fatal| end_process(&fatal));
        let (watches, watch_thread) = Watches::spawn(watch_config, header, revision, source, values.clone(), on_fatal)
            .context("start a thread")?;

        let pending = Pending::default();
        let tick = config.heartbeat_interval;
        let driver_config = DriverConfig {
            member: MemberConfig {
                replica: ReplicaConfig {
                    member: MemberId(own),
                    voters,
                    learners,
                    boot,
                    seed: own ^ boot.rotate_left(32),
                    tick_ms: millis(tick),
                    heartbeat_ticks: 1,
                    election_ticks: ticks(config.election_timeout, tick),
                    log_memory_bytes: LOG_MEMORY_BYTES_MAX,
                },
                tail,
                applied: applied.0,
                snapshot: snapshots.last().map_or((0, 0), |manifest| (manifest.index(), manifest.term())),
                leases,
                lease_checkpoint_ms: millis(config.lease_checkpoint_interval),
            },
            request_timeout: Duration::from_secs(5) + config.election_timeout * 2,
        };
        let free_space = space.clone();
        let hooks = DriverHooks {
            free_space: Box::new(move || free_space.give_up()),
            fatal: fatal.clone(),
            send: Box::new(|to, _| tracing::error!(%to, "a one-member cluster has nobody to send to")),
            build_snapshot: Box::new(|| {}),
            diverged: Box::new(|_| {}),
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
        let (stopping, stopped) = signals::channel(false);
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
            stopping: stopped,
        });
        let peer_urls = config.advertise_peer_urls.iter().map(ToString::to_string).collect();
        let founder = pb::Member { id: own, peer_ur_ls: peer_urls, ..Default::default() };
        let driver = Threads { handle, wal, driver_thread, wal_thread };
        Ok(Self {
            node,
            founder,
            space,
            metrics,
            pending,
            keeper,
            driver,
            apply_thread,
            watch_thread,
            store,
            stopping,
            _lock: lock,
        })
    }

    /// Stops every thread in the order in which they feed each other, and notes the orderly stop in the log.
    async fn stop(self) -> Result<()> {
        let Threads { handle, wal, driver_thread, wal_thread } = self.driver;
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

/// The share of the memory limit that values in memory may take.
const RESIDENT_SHARE: u64 = 2;

/// The share that all reads together may hold.
const READS_SHARE: u64 = 8;

/// The share of the store's own cache.
const CACHE_SHARE: u64 = 8;

fn settings(config: &Config) -> Result<Settings> {
    if config.wal_dir.is_some() {
        bail!("--wal-dir is not served yet: the log lives in the data directory");
    }
    if config.initial_cluster.len() > 1 {
        bail!(
            "--initial-cluster names {} members: clusters of several members are not served yet",
            config.initial_cluster.len()
        );
    }
    let peer_urls: Vec<String> = config.advertise_peer_urls.iter().map(ToString::to_string).collect();
    let member = identity::member_id(&peer_urls, &config.cluster_token, None);
    let cluster = identity::cluster_id(&[member]);
    let (total, _) = space::disk_bytes(&config.data_dir).context("ask for the disk's size")?;
    Ok(Settings {
        data_dir: config.data_dir.clone(),
        identity: recovery::identity::Identity {
            cluster_id: cluster,
            member_id: member.0,
            token: config.cluster_token.clone(),
            voters: vec![member.0],
        },
        wal: WalOptions { segment_bytes: space::part_bytes(total), reserve_segments: RESERVE_SEGMENTS },
        cache_bytes: config.memory_limit / CACHE_SHARE,
        resident_bytes: config.memory_limit / RESIDENT_SHARE,
        machine_boot: folder::machine_boot(),
    })
}

fn ticks(timeout: Duration, tick: Duration) -> usize {
    usize::try_from(timeout.as_millis() / tick.as_millis().max(1)).unwrap_or(usize::MAX)
}

async fn join(thread: JoinHandle<()>) -> Result<()> {
    let name = thread.thread().name().unwrap_or("unnamed").to_owned();
    let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
    joined.map_err(|_| anyhow::anyhow!("the thread {name} panicked"))
}
