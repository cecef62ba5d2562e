//! A member's life: open, serve, stop. Every thread is spawned below here and joined before it returns.

use crate::apply::{self, Applying, Progress};
use crate::compactor::{self, Retention};
use crate::config::notice::Notice;
use crate::config::{AutoCompaction, Config, Quota};
use crate::driver::{self, Driver, DriverConfig, DriverHooks};
use crate::http;
use crate::listen::{self, Handlers, Limits, Listener};
use crate::log_disk::WalLog;
use crate::metrics::Metrics;
use crate::node::{self, Node};
use crate::propose::Pending;
use crate::quota::{self, QuotaGuard};
use crate::recovery::{self, Opened};
use crate::store::flush::{Hooks as KeeperHooks, Keeper, KeeperConfig, MemoryBudget};
use crate::view::{Reads, Views};
use crate::wal_thread::{WalHandle, end_process};
use crate::watch::{self, Watches};
use crate::{grpc, identity};
use anyhow::{Context, Result};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use mechi_proto::mechipb::{ClusterInit, MemberPublish};
use mechi_replica::apply::{Answer, Outcomes};
use mechi_replica::mvcc::Mvcc;
use mechi_replica::outcome::{Error, Fatal};
use mechi_replica::replica::ReplicaConfig;
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::store::Values;
use mechi_replica::types::MemberId;
use parking_lot::RwLock;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// How long apply waits for memory before it takes the next batch all the same.
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long open calls may take to end when the member stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A put slower than this is a slow apply in the metrics (etcd: 100 ms).
const SLOW_APPLY: f64 = 0.1;

/// Says what reading the configuration wanted to say.
pub fn log_notices(notices: &[Notice]) {
    for notice in notices {
        if notice.warning {
            tracing::warn!("{notice}");
        } else {
            tracing::info!("{notice}");
        }
    }
}
