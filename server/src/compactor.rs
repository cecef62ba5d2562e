//! Auto-compaction: keeps a span of time, or a number of revisions, and forgets what is older.

use crate::node::Node;
use mechi_proto::etcdserverpb::CompactionRequest;
use mechi_replica::outcome::Error;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The longest time between two compactions of the periodic mode.
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// What is kept (`--auto-compaction-mode`, `--auto-compaction-retention`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Nothing is compacted by the server itself.
    Off,
    /// All revisions younger than this.
    Period(Duration),
    /// The newest revisions, so many of them, looked at so often (etcd: every 5 minutes).
    Revisions(i64, Duration),
}

/// Compacts for ever, until the task is dropped; only the leader does.
pub async fn run(node: Node, retention: Retention) {
    match retention {
        Retention::Off => {}
        Retention::Period(period) => periodic(&node, period).await,
        Retention::Revisions(kept, interval) => by_revision(&node, kept, interval).await,
    }
}

/// The periodic mode's memory: a revision per tenth of the interval, the oldest of which is due.
///
/// - Source: etcd `server/etcdserver/api/v3compactor/periodic.go`.
#[derive(Debug)]
struct Samples {
    revisions: VecDeque<i64>,
    retentions: usize,
}

impl Samples {
    fn new(period: Duration) -> (Self, Duration) {
        let interval = period.min(PERIODIC_INTERVAL_MAX);
        let retry = (interval / 10).max(Duration::from_millis(100));
        let retentions = (period.as_millis() / retry.as_millis()).max(1) as usize;
        (Self { revisions: VecDeque::with_capacity(retentions), retentions }, retry)
    }

    /// Adds the newest revision; returns the one that is `period` old, or the oldest known.
    fn push(&mut self, revision: i64) -> i64 {
        self.revisions.push_back(revision);
        if self.revisions.len() > self.retentions {
            self.revisions.pop_front();
        }
        self.revisions.front().copied().unwrap_or(revision)
    }
}

async fn periodic(node: &Node, period: Duration) {
    let (mut samples, retry) = Samples::new(period);
    let mut last_success = Instant::now();
    let mut last_revision = 0;
    // The first compaction waits for the whole period, later ones for at most an hour.
    let mut wait = period;
    loop {
        let due = samples.push(node.status().revision);
        tokio::time::sleep(retry).await;
        if last_success.elapsed() < wait || due == last_revision {
            continue;
        }
        wait = period.min(PERIODIC_INTERVAL_MAX);
        if compact(node, due).await {
            last_revision = due;
            last_success = Instant::now();
        }
    }
}

async fn by_revision(node: &Node, kept: i64, interval: Duration) {
    let mut last = 0;
    loop {
        tokio::time::sleep(interval).await;
        let due = node.status().revision - kept;
        if due > 0 && due != last && compact(node, due).await {
            last = due;
        }
    }
}

async fn compact(node: &Node, revision: i64) -> bool {
    // Every member keeps its samples, so that a new leader goes on where the old one was.
    if !node.leads() {
        return false;
    }
    match node.compact(CompactionRequest { revision, physical: false }).await {
        Ok(_) => {
            tracing::info!(revision, "completed auto compaction");
            true
        }
        Err(Error::Compacted) => true,
        Err(error) => {
            tracing::warn!(revision, %error, "failed auto compaction");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_sample_is_one_period_old() {
        let (mut samples, retry) = Samples::new(Duration::from_secs(5 * 3600));
        assert_eq!(retry, Duration::from_secs(360));
        assert_eq!(samples.retentions, 50);
        for revision in 1..=50 {
            assert_eq!(samples.push(revision), 1);
        }
        assert_eq!(samples.push(51), 2);
    }

    #[test]
    fn a_short_period_is_sampled_ten_times() {
        let (samples, retry) = Samples::new(Duration::from_secs(600));
        assert_eq!((samples.retentions, retry), (10, Duration::from_secs(60)));
    }
}
