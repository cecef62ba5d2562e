//! The quota on live bytes: growth is judged when a request is admitted, never when it is applied.

use crate::node::Node;
use crate::space::Space;
use crate::view::Reads;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use mechi_replica::command::quota_cost;
use mechi_replica::outcome::Error;
use pb::alarm_request::AlarmAction;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What is kept free when the quota is taken from the disk: half of it stays for the log, snapshots and their successors.
const DISK_SHARE_DIVISOR: u64 = 3;

/// The quota when it is taken from the disk, at the least.
const FROM_DISK_MIN: u64 = 64 << 20;

/// Judges growth; cheap to clone.
#[derive(Clone)]
pub struct QuotaGuard(Arc<Guard>);

struct Guard {
    /// 0 means none.
    bytes: u64,
    member_id: u64,
    reads: Reads,
    space: Arc<Space>,
    /// An alarm is on its way: one is enough.
    raising: AtomicBool,
    refusals: AtomicU64,
}

/// The quota for a disk with `free` bytes: live data may take a third, since the log, a snapshot and its successor
/// stand beside it.
pub fn from_disk(free: u64) -> u64 {
    (free / DISK_SHARE_DIVISOR).max(FROM_DISK_MIN)
}

impl QuotaGuard {
    /// Guards `bytes` (0: no quota) and the disk's last room.
    pub fn new(bytes: u64, member_id: u64, reads: Reads, space: Arc<Space>) -> Self {
        Self(Arc::new(Guard {
            bytes,
            member_id,
            reads,
            space,
            raising: AtomicBool::new(false),
            refusals: AtomicU64::new(0),
        }))
    }

    /// The quota in force, in bytes; 0 if there is none.
    pub fn bytes(&self) -> i64 {
        i64::try_from(self.0.bytes).unwrap_or(i64::MAX)
    }

    /// Requests refused since the start.
    pub fn refusals(&self) -> u64 {
        self.0.refusals.load(Relaxed)
    }

    /// Lets a request pass unless it would grow the store beyond its quota. Deletes, compactions and revokes cost
    /// nothing and always pass. As soon as there is room growth passes again, whether or not the alarm still stands.
    ///
    /// - Errors: `NoSpace`; the alarm is then raised through the log.
    pub async fn admit(&self, node: &Node, request: &Request) -> Result<(), Error> {
        let cost = quota_cost(request);
        if cost == 0 {
            return Ok(());
        }
        let (live, alarmed) = {
            let state = self.0.reads.state.read();
            (state.mvcc.live_bytes(), state.alarms.raised(pb::AlarmType::Nospace))
        };
        let tight = self.0.space.is_tight();
        if !tight && (self.0.bytes == 0 || live.saturating_add(cost) <= self.0.bytes) {
            if self.0.space.admitted(cost) {
                // A small disk fills between two looks by the clock.
                let space = self.0.space.clone();
                tokio::task::spawn_blocking(move || space.look(live));
            }
            return Ok(());
        }
        self.0.refusals.fetch_add(1, Relaxed);
        if !alarmed && !self.0.raising.swap(true, Relaxed) {
            tracing::warn!(live, cost, quota = self.0.bytes, tight, "no space: growth is refused, NOSPACE is raised");
            let alarm = pb::AlarmRequest {
                action: AlarmAction::Activate as i32,
                member_id: self.0.member_id,
                alarm: pb::AlarmType::Nospace as i32,
            };
            let raised = node.driver().propose(Request::Alarm(alarm)).await;
            self.0.raising.store(false, Relaxed);
            if let Err(error) = raised {
                tracing::warn!(%error, "raise NOSPACE");
            }
        }
        Err(Error::NoSpace)
    }
}
