//! The auditor: replays the store's history and looks at every revision for what must never be.
//!
//! It knows nothing of who wrote what and trusts nobody: it has the history alone, which is the same for everybody. `rules`
//! has one function for each kind of statement, `nodes` those about nodes, `preemptions` the one about pods that go for
//! others, `rollouts` what needs a memory of pods; here is what feeds them. Three statements are not about the store alone
//! and have auditors of their own: `watch` (what watchers were told), `journals` (what nodes ran) and `queues` (who waits in
//! a scheduler).

mod rules;
mod nodes;
mod preemptions;
mod rollouts;
pub mod watch;
pub mod journals;
pub mod queues;

use crate::cache::{Cache, Change, Mirror, Object};
use crate::keys::ObjectKey;
use crate::kv::{Batch, Event, KeyValue, Revision};
use crate::limits::FINDINGS_MAX;
use std::collections::BTreeMap;

/// Something that must never be, and was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which statement it breaks.
    pub rule: &'static str,
    /// From when.
    pub revision: Revision,
    /// What it is about.
    pub key: String,
    /// What is wrong.
    pub text: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at revision {}: {}: {}", self.rule, self.revision, self.key, self.text)
    }
}

/// Replays a history.
#[derive(Debug, Default)]
pub struct Auditor {
    cache: Cache,
    findings: Vec<Finding>,
    more: usize,
    revisions: u64,
    objects: u64,
    /// The largest observed generation of each incarnation.
    observed: BTreeMap<ObjectKey, (Revision, i64)>,
    rollouts: rollouts::Rollouts,
}

impl Auditor {
    /// Begins with what is there at a revision.
    pub fn begin(cluster_id: u64, items: Vec<KeyValue>, at: Revision) -> Self {
        let mut auditor = Self::default();
        let mut staged = Default::default();
        auditor.cache.stage(&mut staged, cluster_id, items);
        auditor.cache.replace(staged, cluster_id, at);
        auditor.rollouts.begin(&auditor.cache);
        auditor
    }

    /// Looks at what happened next: whole revisions, in order.
    pub fn see(&mut self, batch: Batch) {
        let mut rest = batch.events;
        while let Some(revision) = rest.first().map(Event::revision) {
            let behind = rest.iter().position(|event| event.revision() != revision).unwrap_or(rest.len());
            let later = rest.split_off(behind);
            let events = std::mem::replace(&mut rest, later);
            self.revision(Batch { events, through: revision });
        }
        self.cache.apply(Batch { events: vec![], through: batch.through });
    }

    fn revision(&mut self, batch: Batch) {
        let revision = batch.through;
        // What was true before is what whoever wrote this relied on.
        let before = rules::Before::of(&self.cache, &batch);
        let changes = self.cache.apply(batch);
        self.revisions += 1;
        self.objects += changes.objects.len() as u64;
        let mut found = Vec::new();
        for change in &changes.objects {
            rules::object(change, &mut found);
            self.observe(change, &mut found);
        }
        rules::placements(&self.cache, &before, &changes, &mut found);
        rules::owners(&self.cache, &changes, &mut found);
        nodes::look(&self.cache, &before, &changes, &mut found);
        preemptions::look(&changes, &mut found);
        self.rollouts.see(&self.cache, &changes, &mut found);
        for (rule, key, text) in found {
            if self.findings.len() < FINDINGS_MAX {
                self.findings.push(Finding { rule, revision, key, text });
            } else {
                self.more += 1;
            }
        }
    }

    /// S8, the half that needs a memory: what was observed never falls.
    fn observe(&mut self, change: &Change, found: &mut Vec<rules::Found>) {
        let observed = match &change.new {
            Some(Object::ReplicaSet(set)) => set.status.observed_generation,
            Some(Object::Deployment(deployment)) => deployment.status.observed_generation,
            Some(_) => return,
            None => {
                self.observed.remove(&change.key);
                return;
            }
        };
        let created = change.new.as_ref().map_or(0, Object::created);
        let before = self.observed.insert(change.key.clone(), (created, observed));
        if let Some((_, most)) = before.filter(|(same, most)| *same == created && *most > observed) {
            found.push(("S8", change.key.to_string(), format!("observedGeneration falls from {most} to {observed}")));
        }
    }

    /// What was found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many findings were not kept.
    pub fn more(&self) -> usize {
        self.more
    }

    /// Revisions and changes of objects that were looked at: an audit of nothing says nothing.
    pub fn looked_at(&self) -> (u64, u64) {
        (self.revisions, self.objects)
    }

    /// Everything as it is now.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}

#[cfg(test)]
mod tests;
