//! Watchers that list, watch, resume and list again as the control plane's own copies do, each through one member and its
//! proxy; what each is told is held against the history (S9).

use super::record::Record;
use super::trace::Trace;
use crate::limits::FOLLOW_RETRY;
use mechi_controller::audit::Finding;
use mechi_controller::audit::watch::Watcher;
use mechi_controller::keys::{ROOT, prefix_end};
use mechi_controller::kv::{Error, Etcd, Kv as _, Range, Revision, Watch as _};
use mechi_controller::limits::LIST_PAGE;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One watcher.
pub(super) struct Follower {
    /// Who it is, in findings.
    pub(super) name: String,
    /// Its member.
    pub(super) kv: Etcd,
    /// The history.
    pub(super) record: Arc<Record>,
    /// Where findings go.
    pub(super) trace: Arc<Trace>,
    /// Counts lists: the first, and those after a compaction.
    pub(super) lists: Arc<AtomicU64>,
}

impl Follower {
    /// Follows for ever.
    pub(super) async fn run(self) {
        let mut watcher = Watcher::default();
        loop {
            let at = self.list(&mut watcher).await;
            self.watch(&mut watcher, at).await;
        }
    }

    /// Lists everything once.
    pub(super) async fn list(&self, watcher: &mut Watcher) -> Revision {
        'anew: loop {
            watcher.relists();
            self.lists.fetch_add(1, Ordering::Relaxed);
            let mut range = Range { key: ROOT.into(), end: prefix_end(ROOT).into(), limit: LIST_PAGE, revision: 0 };
            loop {
                match self.kv.range(range.clone()).await {
                    Ok(page) => {
                        if range.revision == 0 {
                            range.revision = page.revision;
                        }
                        if let Some(last) = page.items.last() {
                            range.key = [&last.key[..], &[0]].concat().into();
                        }
                        self.record.reached(range.revision).await;
                        self.tell(self.record.listed(watcher, &page));
                        if !page.more {
                            return range.revision;
                        }
                    }
                    Err(Error::Compacted(_)) => continue 'anew,
                    Err(_) => tokio::time::sleep(FOLLOW_RETRY).await,
                }
            }
        }
    }

    /// Watches until what comes next is compacted.
    async fn watch(&self, watcher: &mut Watcher, mut at: Revision) {
        loop {
            let error = match self.kv.watch(ROOT.into(), prefix_end(ROOT).into(), at + 1).await {
                Ok(mut watch) => loop {
                    match watch.next().await {
                        Ok(batch) => {
                            self.record.reached(batch.through).await;
                            self.tell(self.record.heard(watcher, at + 1, &batch));
                            at = at.max(batch.through);
                        }
                        Err(error) => break error,
                    }
                },
                Err(error) => error,
            };
            if matches!(error, Error::Compacted(_)) {
                return;
            }
            tokio::time::sleep(FOLLOW_RETRY).await;
        }
    }

    fn tell(&self, finding: Option<Finding>) {
        if let Some(finding) = finding {
            self.trace.finding(format!("{finding} (told to {})", self.name));
        }
    }
}
