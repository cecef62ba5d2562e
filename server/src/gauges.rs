//! Brings the metrics up to date with what the member does; they describe, and decide nothing.

use crate::metrics::Metrics;
use crate::node::Node;
use crate::propose::Pending;
use mechi_replica::apply::{Counts, LeaseEvent, Outcomes};
use mechi_replica::mvcc::Mvcc;
use mechi_replica::types::MemberId;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds from which on an entry counts as slowly applied (etcd: 100 ms).
const SLOW_APPLY_SECONDS: f64 = 0.1;

/// What was counted at the last look, so that only the difference is added.
#[derive(Debug, Default)]
pub struct Counting {
    events_sent: u64,
    leases_expired: u64,
    leader: Option<MemberId>,
}

/// Sets what changes by itself; called once a second, and by every scrape, which must not show less than its client did.
pub fn refresh(metrics: &Metrics, node: &Node, pending: &Pending, counting: &mut Counting) {
    let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.server.proposals_pending.set(gauge(pending.count()));
    metrics.mvcc.db_open_read_transactions.set(gauge(node.reads().views.count()));
    let watches = node.watches().metrics();
    metrics.mvcc.watch_stream_total.set(gauge(watches.streams.load(Relaxed)));
    metrics.mvcc.watcher_total.set(gauge(watches.watchers.load(Relaxed)));
    metrics.mvcc.slow_watcher_total.set(gauge(watches.slow_watchers.load(Relaxed)));
    metrics.mvcc.pending_events_total.set(gauge(watches.pending_events.load(Relaxed)));
    let sent = watches.events_sent.load(Relaxed);
    metrics.mvcc.events_total.inc_by(sent.saturating_sub(counting.events_sent));
    counting.events_sent = sent;
    let expired = node.driver().leases_expired();
    metrics.server.lease_expired_total.inc_by(expired.saturating_sub(counting.leases_expired));
    counting.leases_expired = expired;
    let role = node.driver().role();
    node.watches().set_term(role.term);
    if role.leader.is_some() && role.leader != counting.leader {
        metrics.server.leader_changes_seen_total.inc();
        counting.leader = role.leader;
    }
}

/// Counts the bytes that one entry put, and whether it was slow.
pub fn entry(metrics: &Metrics, mvcc: &Mvcc, from: i64, seconds: f64) {
    if seconds > SLOW_APPLY_SECONDS {
        metrics.server.slow_apply_total.inc();
    }
    if mvcc.revision() < from {
        return;
    }
    let bytes: usize = mvcc.changes(from).filter(|change| !change.tombstone).map(|change| change.head.wire().len()).sum();
    metrics.mvcc.total_put_size_in_bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
}

/// Counts what came of a batch of entries that took `seconds`.
pub fn outcomes(metrics: &Metrics, out: &Outcomes, seconds: f64) {
    let Counts { ranges, puts, deletes, txns, commands } = &out.counts;
    metrics.mvcc.range_total.inc_by(*ranges);
    metrics.mvcc.put_total.inc_by(*puts);
    metrics.mvcc.delete_total.inc_by(*deletes);
    metrics.mvcc.txn_total.inc_by(*txns);
    // A batch is applied as a whole: each of its commands is given its share.
    let share = seconds / commands.len().max(1) as f64;
    for same in commands.chunk_by(|a, b| a == b) {
        let (name, succeeded) = same[0];
        let success = if succeeded { "true" } else { "false" };
        let histogram = metrics.server.apply_duration_seconds.with_label_values(&["v3", name, success]);
        same.iter().for_each(|_| histogram.observe(share));
    }
    for event in &out.lease_events {
        match event {
            LeaseEvent::Granted { ttl, .. } => {
                metrics.lease.granted_total.inc();
                metrics.lease.ttl_total.observe(*ttl as f64);
            }
            LeaseEvent::Revoked { .. } => metrics.lease.revoked_total.inc(),
            LeaseEvent::Checkpointed { .. } => {}
        }
    }
    if out.compaction.is_some() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics.mvcc.db_compaction_last.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }
}
