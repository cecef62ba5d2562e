//! The whole history, from the first revision on, as it comes: replayed by the auditor, and kept as digests for what
//! watchers are told.
//!
//! All keys are watched, past the proxies: each revision changes some key, so that a gap cannot hide. Whoever compacts asks
//! [`Record::through`] first and compacts nothing that is not here, so that a broken connection goes on where it was.

use super::trace::Trace;
use crate::limits::{FOLLOW_RETRY, SHOWN_BYTES_MAX};
use anyhow::{Context, Result, bail};
use mechi_client::FROM_KEY;
use mechi_controller::audit::watch::{History, Watcher};
use mechi_controller::audit::{Auditor, Finding};
use mechi_controller::cache::Cache;
use mechi_controller::keys::{Coord, ROOT};
use mechi_controller::kv::{Batch, Error, Etcd, Event, Kv as _, Page, Revision, Watch as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

/// What is known of the history.
pub(super) struct Record {
    state: Mutex<State>,
    through: watch::Sender<Revision>,
}

struct State {
    auditor: Auditor,
    history: History,
    /// The tokens of each component's leaders.
    leaders: BTreeMap<String, BTreeSet<Revision>>,
    /// Pages and batches of watchers that were held against the history.
    judged: u64,
}

/// How much was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// Revisions with changes.
    pub(super) revisions: u64,
    /// Changes of objects.
    pub(super) objects: u64,
    /// Pages and batches of watchers.
    pub(super) judged: u64,
    /// How often each component had another leader.
    pub(super) leaders: BTreeMap<String, usize>,
}

impl Record {
    /// Begins with an empty store at its first revision.
    pub(super) fn begin(cluster_id: u64, at: Revision) -> Self {
        let state = State {
            auditor: Auditor::begin(cluster_id, Vec::new(), at),
            history: History::begin(&[], at),
            leaders: BTreeMap::new(),
            judged: 0,
        };
        Self { state: Mutex::new(state), through: watch::Sender::new(at) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    /// Everything up to here was seen.
    pub(super) fn through(&self) -> Revision {
        *self.through.borrow()
    }

    /// Waits until everything up to a revision was seen.
    pub(super) async fn reached(&self, revision: Revision) {
        // Whoever tells it is `self`.
        let _ = self.through.subscribe().wait_for(|through| *through >= revision).await;
    }

    /// Looks at everything as it is at [`Record::through`].
    pub(super) fn with<T>(&self, look: impl FnOnce(&Cache) -> T) -> T {
        look(self.lock().auditor.cache())
    }

    /// How much was looked at so far.
    pub(super) fn looked(&self) -> Looked {
        let state = self.lock();
        let (revisions, objects) = state.auditor.looked_at();
        let leaders = state.leaders.iter().map(|(component, tokens)| (component.clone(), tokens.len()));
        Looked { revisions, objects, judged: state.judged, leaders: leaders.collect() }
    }

    /// Follows the store for ever.
    ///
    /// - Errors: what comes next was compacted, which nobody here may do.
    pub(super) async fn follow(&self, kv: &Etcd, trace: &Trace) -> Result<()> {
        loop {
            let from = self.through() + 1;
            let compacted = match kv.watch(FROM_KEY, FROM_KEY, from).await {
                Ok(mut watch) => loop {
                    match watch.next().await {
                        Ok(batch) => self.take(batch, trace),
                        Err(error) => break error,
                    }
                },
                Err(error) => error,
            };
            if let Error::Compacted(at) = compacted {
                bail!("history is compacted at {at}, and only revisions up to {} were recorded", self.through());
            }
            tokio::time::sleep(FOLLOW_RETRY).await;
        }
    }

    /// Takes what happened next.
    fn take(&self, batch: Batch, trace: &Trace) {
        // Progress says nothing here that the next change does not say.
        let Some(last) = batch.events.last().map(Event::revision) else { return };
        let mut state = self.lock();
        let mut known = self.through();
        for revision in batch.events.iter().map(Event::revision) {
            if revision != known && revision != known + 1 {
                trace.finding(format!("S9 at revision {revision}: the recorder was told of {known} before it"));
            }
            known = revision;
        }
        let is_ours = |event: &&Event| event.key().starts_with(ROOT.as_bytes());
        let ours = batch.events.iter().filter(is_ours).cloned().collect();
        state.history.see(&Batch { events: ours, through: last });
        for event in &batch.events {
            if let (Event::Put(now), Some(Coord::Election(component))) = (event, Coord::parse(event.key())) {
                state.leaders.entry(component).or_default().insert(now.created);
            }
        }
        let found = state.auditor.findings().len();
        state.auditor.see(Batch { events: batch.events.clone(), through: last });
        for finding in &state.auditor.findings()[found..] {
            trace.finding(finding.to_string());
            let of_it = batch.events.iter().filter(|event| event.revision() == finding.revision);
            of_it.for_each(|event| trace.say(&format!("  {}", shown(event))));
        }
        drop(state);
        self.through.send_replace(last);
    }

    /// Holds a page of a watcher's list against the history.
    pub(super) fn listed(&self, watcher: &mut Watcher, page: &Page) -> Option<Finding> {
        let mut state = self.lock();
        state.judged += 1;
        state.history.listed(watcher, page)
    }

    /// Holds what a watch told against the history.
    pub(super) fn heard(&self, watcher: &mut Watcher, from: Revision, batch: &Batch) -> Option<Finding> {
        let mut state = self.lock();
        state.judged += 1;
        state.history.heard(watcher, from, batch)
    }

    /// Findings of the auditor that it did not keep.
    pub(super) fn more_findings(&self) -> usize {
        self.lock().auditor.more()
    }
}

/// Asks the store which cluster it is and where it is.
///
/// - Errors: it does not answer.
pub(super) async fn whereabouts(kv: &Etcd) -> Result<(u64, Revision)> {
    let range = mechi_controller::kv::Range { key: ROOT.into(), limit: 1, ..Default::default() };
    let page = kv.range(range).await.context("ask the store where it is")?;
    Ok((page.cluster_id, page.revision))
}

fn shown(event: &Event) -> String {
    let key = String::from_utf8_lossy(event.key());
    match event {
        Event::Put(now) => {
            let value = String::from_utf8_lossy(&now.value[..now.value.len().min(SHOWN_BYTES_MAX)]);
            format!("put {key} (created {}, version {}) {value}", now.created, now.version)
        }
        Event::Delete { .. } => format!("delete {key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_controller::kv::KeyValue;

    fn put(key: &str, value: &str, modified: Revision) -> Event {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        Event::Put(KeyValue { key, value, created: modified, modified, version: 1, lease: 0 })
    }

    #[test]
    fn what_comes_is_audited_once_and_a_gap_is_a_finding() {
        let home = tempfile::tempdir().expect("a folder");
        let (trace, record) = (Trace::create(home.path()).expect("begins"), Record::begin(7, 1));
        let pod = r#"{"metadata": {"name": "p", "namespace": "gone"}}"#;
        let election = "/registry/_coord/election/scheduler";
        let events = vec![put("/registry/pods/gone/p", pod, 2), put(election, "one", 3), put("/elsewhere", "", 4)];
        record.take(Batch { events, through: 4 }, &trace);
        record.take(Batch { events: vec![], through: 9 }, &trace);
        assert_eq!(record.through(), 4);
        let looked = record.looked();
        assert_eq!((looked.revisions, looked.objects, looked.leaders["scheduler"]), (3, 1, 1));
        let (findings, _) = trace.findings();
        assert!(findings.len() == 1 && findings[0].starts_with("S4 at revision 2: "), "{findings:?}");
        record.take(Batch { events: vec![put("/elsewhere", "", 6)], through: 6 }, &trace);
        let (findings, _) = trace.findings();
        assert!(findings[1].starts_with("S9 at revision 6: "), "{findings:?}");
    }

    #[test]
    fn a_watcher_that_misses_something_is_found_out() {
        let home = tempfile::tempdir().expect("a folder");
        let (trace, record) = (Trace::create(home.path()).expect("begins"), Record::begin(7, 1));
        let all = vec![put("/registry/_coord/x/a", "", 2), put("/registry/_coord/x/b", "", 3)];
        record.take(Batch { events: all.clone(), through: 3 }, &trace);
        let mut watcher = Watcher::default();
        assert_eq!(record.listed(&mut watcher, &Page { revision: 1, ..Page::default() }), None);
        assert_eq!(record.heard(&mut watcher, 2, &Batch { events: all.clone(), through: 3 }), None);
        let mut other = Watcher::default();
        assert_eq!(record.listed(&mut other, &Page { revision: 1, ..Page::default() }), None);
        let missed = record.heard(&mut other, 2, &Batch { events: all[1..].to_vec(), through: 3 });
        assert_eq!(missed.map(|finding| (finding.rule, finding.revision)), Some(("S9", 2)));
        assert_eq!(record.looked().judged, 4);
    }
}
