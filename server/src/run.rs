//! A member's life: open, serve, stop, and open again. Every thread is started below here and joined before it returns.

use crate::compactor::{self, Retention};
use crate::config::{AutoCompaction, Config};
use crate::evidence::Evidence;
use crate::failpoint::failpoint;
use crate::founding::{self, Founding};
use crate::front::Front;
use crate::gauges::{self, Counting};
use crate::grpc;
use crate::http;
use crate::member::{Member, Reopen, Surroundings};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::propose::Pending;
use crate::recovery;
use crate::seat::Seat;
use crate::space::Space;
use anyhow::{Context, Result};
use mechi_replica::effect::RoleKind;
use mechi_replica::types::MemberId;
use parking_lot::Mutex;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// How long open calls may take to end when the member stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How often the member looks at its disk and brings its gauges up to date.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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
    let founding = Founding::new(config)?;
    let front = Front::bind(config)?;
    let seat = Seat::default();
    let metrics = Arc::new(Metrics::new(config, founding.identity.member_id));
    let scraped = seat.clone();
    let shared = http::Shared::new(Arc::new(seat.clone()), metrics.clone(), config)
        .refreshed_by(Arc::new(move || scraped.refresh()));
    let (reopen, wishes) = mpsc::channel(1);
    let mut life = Life {
        config,
        founding,
        front,
        seat,
        shared,
        around: Surroundings { metrics, reopen },
        wishes,
        signals: Signals::listen()?,
        evidence: Evidence::default(),
    };
    // A cluster of one has nobody to ask, and nobody else's votes to spoil.
    let is_blank = life.founding.members.len() > 1 && recovery::is_blank(&config.data_dir)?;
    if is_blank {
        life.seat.blank();
    }
    life.front.serve_peers(&life.shared, life.seat.peer_router());
    if is_blank {
        tokio::select! {
            known = founding::refuse_known(&life.founding) => known?,
            signal = life.signals.next() => {
                tracing::info!(signal, "received signal; shutting down");
                return Ok(());
            }
        }
    }
    while let Some(why) = life.tenure().await? {
        life.prepare(why)?;
    }
    Ok(())
}

/// What lasts as long as the process.
struct Life<'a> {
    config: &'a Config,
    founding: Founding,
    front: Front,
    seat: Seat,
    shared: http::Shared,
    around: Surroundings,
    wishes: mpsc::Receiver<Reopen>,
    signals: Signals,
    evidence: Evidence,
}

/// Why a member's tenure ends.
enum End {
    Signal(&'static str),
    Reopen(Reopen),
}

impl Life<'_> {
    /// Opens the member, serves, and stops it; returns why it is to be opened again, `None` if it is not.
    async fn tenure(&mut self) -> Result<Option<Reopen>> {
        // A wish of the last tenure is fulfilled by this opening.
        while self.wishes.try_recv().is_ok() {}
        let member = Member::open(self.config, &self.founding, &self.around)?;
        let node = member.node.clone();
        let refresh = refresher(node.clone(), self.around.metrics.clone(), member.pending.clone());
        self.seat.take(node.clone(), refresh.clone(), member.peer_service());
        let tasks = [
            tokio::spawn(compactor::run(node.clone(), retention(self.config))).abort_handle(),
            tokio::spawn(look(member.space.clone(), node.clone(), refresh)).abort_handle(),
        ];
        let settled = tokio::select! {
            settled = self.founding.settle(&node, self.config) => {
                settled.context("begin the cluster")?;
                None
            }
            signal = self.signals.next() => Some(End::Signal(signal)),
            Some(why) = self.wishes.recv() => Some(End::Reopen(why)),
        };
        let end = match settled {
            Some(end) => end,
            None => {
                self.serve(&node);
                tokio::select! {
                    signal = self.signals.next() => End::Signal(signal),
                    Some(why) = self.wishes.recv() => End::Reopen(why),
                }
            }
        };
        match &end {
            End::Signal(signal) => tracing::info!(signal, "received signal; shutting down"),
            End::Reopen(why) => tracing::warn!(?why, "the member is stopped and opened again"),
        }
        if member.reaches_others() {
            hand_over(&node, self.config.election_timeout).await;
        }
        drop(node);
        if matches!(end, End::Reopen(Reopen::Diverged { .. })) {
            member.fill_store().await?;
        }
        self.stop(member, &tasks, matches!(end, End::Signal(_))).await?;
        Ok(match end {
            End::Signal(_) => None,
            End::Reopen(why) => Some(why),
        })
    }

    fn serve(&mut self, node: &Node) {
        let options = grpc::Options {
            max_request_bytes: self.config.max_request_bytes,
            max_txn_ops: self.config.max_txn_ops,
            lease_ttl_min: grpc::Options::lease_ttl_min(
                u64::try_from(self.config.election_timeout.as_millis()).unwrap_or(u64::MAX),
            ),
        };
        self.seat.serve(grpc::Server { node: node.clone(), options });
        let service = grpc::Service::new(self.seat.clone(), self.around.metrics.grpc.clone());
        self.front.serve_clients(&self.shared, service);
        tracing::info!(addresses = self.front.client_addresses().join(","), "ready to serve client requests");
    }

    /// Lets open calls end, then stops the member; for good the listeners go too.
    async fn stop(&mut self, member: Member, tasks: &[AbortHandle], for_good: bool) -> Result<()> {
        tasks.iter().for_each(AbortHandle::abort);
        member.end_streams();
        if for_good && !self.front.close_clients(DRAIN_MAX).await {
            tracing::warn!("some calls did not end in time and are cut off");
        }
        let drain = if for_good { Duration::ZERO } else { DRAIN_MAX };
        if !self.seat.leave(drain).await && !for_good {
            tracing::warn!("some calls did not end in time and find the store closed");
        }
        let stopped = member.stop().await;
        if for_good && !self.front.close_peers(DRAIN_MAX).await {
            tracing::warn!("some connections of other members did not end in time and are cut off");
        }
        stopped
    }

    /// Does what is to be done between two openings.
    fn prepare(&mut self, why: Reopen) -> Result<()> {
        match why {
            // Opening finds the newest verified snapshot by itself.
            Reopen::SnapshotReceived { .. } => {
                failpoint!("snap_before_apply");
                Ok(())
            }
            Reopen::Diverged { index } => self.evidence.set_aside(&self.config.data_dir, index),
        }
    }
}

/// Hands leadership over before a leader stops, so that nobody has to miss it first; at most `max`.
async fn hand_over(node: &Node, max: Duration) {
    let mut roles = node.driver().role_changes();
    if roles.borrow().kind != RoleKind::Leader {
        return;
    }
    node.driver().transfer(MemberId(0));
    let led = roles.wait_for(|role| role.kind != RoleKind::Leader && role.leader.is_some());
    match tokio::time::timeout(max, led).await {
        Ok(Ok(role)) => tracing::info!(
            leader = role.leader.map(|leader| leader.to_string()),
            term = role.term,
            "handed leadership over"
        ),
        Ok(Err(_)) | Err(_) => tracing::warn!("leadership was not handed over in time"),
    }
}

/// The two signals that end the process in order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "terminated",
            _ = self.interrupt.recv() => "interrupt",
        }
    }
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
