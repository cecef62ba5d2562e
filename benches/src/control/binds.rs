//! Which pods are bound, and when: seen by a watch of the store, not by what the scheduler says.

use super::limits::LOOK;
use anyhow::{Result, bail};
use mechi_controller::keys::{Kind, ObjectKey, prefix_end};
use mechi_controller::kv::{Etcd, Event, Kv as _, Revision, Watch as _};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// When a pod was first seen with a node.
#[derive(Clone, Copy, Debug)]
pub struct Bind {
    /// The store's revision that bound it.
    pub revision: Revision,
    /// When the watch told.
    pub at: Instant,
}

#[derive(Default)]
struct Seen {
    binds: BTreeMap<usize, Bind>,
    error: Option<String>,
}

/// All binds of numbered pods since it was started.
pub struct Binds {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Binds {
    /// Watches all pods from a revision on.
    pub async fn watch(kv: &Etcd, from: Revision) -> Result<Self> {
        let prefix = Kind::Pod.prefix();
        let end = prefix_end(&prefix);
        let mut watch = kv.watch(prefix.into(), end.into(), from).await?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let batch = watch.next().await;
                let at = Instant::now();
                let mut seen = shared.lock().expect("nobody panics with it");
                match batch {
                    Ok(batch) => {
                        for event in &batch.events {
                            if let Some((n, revision)) = bound(event) {
                                seen.binds.entry(n).or_insert(Bind { revision, at });
                            }
                        }
                    }
                    Err(error) => {
                        seen.error = Some(error.to_string());
                        return;
                    }
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// Waits until `look` finds what it looks for among the binds.
    ///
    /// - Errors: `what` did not come within `max`; the watch failed.
    pub async fn wait<T>(
        &self,
        what: &str,
        max: Duration,
        look: impl Fn(&BTreeMap<usize, Bind>) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + max;
        loop {
            {
                let seen = self.seen.lock().expect("nobody panics with it");
                if let Some(found) = look(&seen.binds) {
                    return Ok(found);
                }
                if let Some(error) = &seen.error {
                    bail!("the watch of pods failed: {error}");
                }
                if Instant::now() > deadline {
                    bail!("{what}: not within {max:?}; {} pods are bound", seen.binds.len());
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until `count` pods are bound, and returns when each was.
    pub async fn all(&self, count: usize, max: Duration) -> Result<BTreeMap<usize, Bind>> {
        self.wait("all pods bound", max, |binds| (binds.len() >= count).then(|| binds.clone())).await
    }
}

impl Drop for Binds {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The number of a pod that has a node after this event.
fn bound(event: &Event) -> Option<(usize, Revision)> {
    // With both quotes, so that `nominatedNodeName` is not taken for it; it is not written while it is empty.
    const FIELD: &[u8] = b"\"nodeName\":\"";
    let Event::Put(now) = event else { return None };
    let n = ObjectKey::parse(&now.key)?.name().strip_prefix("p-")?.parse().ok()?;
    let is_bound = now.value.windows(FIELD.len()).any(|part| part == FIELD);
    is_bound.then_some((n, now.modified))
}
