//! One stream against what really happened.

use super::record::{Event, Received, Stream};
use super::{Ending, Truth};
use crate::model::Change;
use crate::verdict::Finding;
use std::collections::BTreeSet;

/// What has been followed so far.
struct Walk<'a> {
    stream: &'a Stream,
    truth: &'a Truth,
    findings: Vec<Finding>,
    /// Every revision up to here has been received, or was told to hold nothing.
    through: Option<i64>,
    /// The largest revision of any event.
    newest: i64,
    /// The largest revision of any header.
    header: i64,
    /// Told by a progress notification: nothing up to here is still to come.
    promised: i64,
    /// The revision that is coming in parts.
    partial: Option<(i64, Vec<Event>)>,
    seen: BTreeSet<(i64, bytes::Bytes)>,
    created: u32,
    cancelled: u32,
}

/// Everything that is wrong with a stream.
pub(super) fn check(stream: &Stream, truth: &Truth, ending: &Ending) -> Vec<Finding> {
    let start = stream.request.start_revision;
    let mut walk = Walk {
        stream,
        truth,
        findings: vec![],
        through: (start > 0).then(|| start - 1),
        newest: 0,
        header: 0,
        promised: 0,
        partial: None,
        seen: BTreeSet::new(),
        created: 0,
        cancelled: 0,
    };
    for (at, received) in &stream.received {
        walk.receive(*at, received);
    }
    walk.end(ending);
    walk.findings
}

impl Walk<'_> {
    fn bad(&mut self, rule: &str, text: String) {
        let id = self.stream.id;
        self.findings.push(Finding::new(rule, format!("stream {id} of {}: {text}", self.stream.node), [id]));
    }

    fn receive(&mut self, at: u64, received: &Received) {
        if self.cancelled > 0 {
            self.bad("W11", format!("{received:?} came after it was cancelled"));
        }
        let revision = received.revision();
        // A watch that ends because of a compaction ends under an empty header, in etcd as here. What `created` says is
        // where the store is; every later header of Mechi's says how far the watcher is, which may be less.
        let tells = revision > 0 || !matches!(received, Received::Cancelled { .. });
        if revision < self.header && tells {
            self.bad("W12", format!("a header says revision {revision} after one said {}", self.header));
        }
        if !matches!(received, Received::Created { .. }) {
            self.header = self.header.max(revision);
        }
        if self.created == 0 && !matches!(received, Received::Created { .. } | Received::Cancelled { .. }) {
            self.bad("W11", format!("{received:?} came before it was created"));
        }
        if let (Some((revision, _)), Received::Progress { .. }) = (&self.partial, received) {
            let text = format!("a progress notification came between the parts of revision {revision}");
            self.bad("W4", text);
        }
        match received {
            Received::Created { revision } => {
                self.created += 1;
                if self.created > 1 {
                    self.bad("W11", "it was created twice".into());
                }
                // From now is from this header on: what it counts is older.
                if self.through.is_none() {
                    self.through = Some(*revision);
                }
            }
            Received::Events { revision, fragment, events } => self.events(at, *revision, *fragment, events),
            Received::Progress { revision } => self.progress(*revision),
            Received::Cancelled { compact_revision, .. } => self.cancel(at, *compact_revision),
        }
    }

    fn events(&mut self, at: u64, header: i64, fragment: bool, events: &[Event]) {
        let Some(last) = events.last().map(|event| event.kv.mod_revision) else {
            self.bad("W4", "a response with neither events nor anything else to say".into());
            return;
        };
        if last > header {
            self.bad("W12", format!("an event of revision {last} came under a header that says {header}"));
        }
        // A part may end within a revision; what is left of it comes first in the next.
        let mut all = match self.partial.take() {
            Some((revision, mut before)) => {
                if events[0].kv.mod_revision < revision {
                    self.bad("W2", format!("revision {} came within revision {revision}", events[0].kv.mod_revision));
                }
                before.extend_from_slice(events);
                before
            }
            None => events.to_vec(),
        };
        if fragment {
            if !self.stream.request.fragment {
                self.bad("W4", format!("revision {last} came in parts, which was not asked for"));
            }
            let cut = all.iter().position(|event| event.kv.mod_revision == last).unwrap_or(0);
            let open = all.split_off(cut);
            self.partial = Some((last, open));
        }
        for group in all.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
            self.revision(at, group);
        }
    }

    /// All events of one revision.
    fn revision(&mut self, at: u64, events: &[Event]) {
        let revision = events[0].kv.mod_revision;
        let mut fresh = true;
        for event in events {
            if !self.seen.insert((revision, event.kv.key.clone())) {
                let text = format!("key {:?} at revision {revision} came twice", event.kv.key);
                self.bad("W3", text);
                fresh = false;
            }
        }
        if !fresh {
            return;
        }
        let start = self.stream.request.start_revision;
        if revision < start {
            self.bad("W10", format!("revision {revision} came, and was asked for from {start} on"));
            return;
        }
        if revision == self.newest {
            self.bad("W4", format!("revision {revision} came in two responses"));
            return;
        }
        if revision < self.newest {
            self.bad("W2", format!("revision {revision} came after revision {}", self.newest));
            return;
        }
        if revision <= self.promised {
            self.bad("W7", format!("revision {revision} came after it was told that all up to {} had", self.promised));
        } else if let Some(through) = self.through.filter(|through| revision <= *through) {
            self.bad("W10", format!("revision {revision} came to a watch from after {through}"));
        }
        let truth = self.truth;
        if let Some(through) = self.through {
            self.gap(through, revision - 1);
        }
        let wanted: Vec<&Change> = truth.at(revision).iter().filter(|change| self.wants(change)).collect();
        for event in events {
            let Some(change) = truth.at(revision).iter().find(|change| change.key == event.kv.key) else {
                let text = format!("{} of {:?} at revision {revision} never happened", kind(event), event.kv.key);
                self.bad("W1", text);
                continue;
            };
            if !self.wants(change) {
                let text = format!("{} of {:?} at revision {revision} was not asked for", kind(event), event.kv.key);
                self.bad("W1", text);
                continue;
            }
            self.event(at, event, change);
        }
        let missing: Vec<_> =
            wanted.iter().filter(|change| events.iter().all(|event| event.kv.key != change.key)).collect();
        if !missing.is_empty() {
            let text =
                format!("of revision {revision} came {} of {} events", wanted.len() - missing.len(), wanted.len());
            self.bad("W4", text);
        } else {
            let order = events.iter().map(|event| &event.kv.key).eq(wanted.iter().map(|change| &change.key));
            if !order && events.len() == wanted.len() {
                self.bad(
                    "W2",
                    format!("the events of revision {revision} came in another order than they happened in"),
                );
            }
        }
        self.newest = revision;
        self.through = Some(self.through.unwrap_or(0).max(revision));
    }

    fn wants(&self, change: &Change) -> bool {
        let request = &self.stream.request;
        let inside = match &request.range_end[..] {
            [] => change.key == request.key,
            [0] => change.key >= request.key,
            _ => change.key >= request.key && change.key < request.range_end,
        };
        inside && !(request.no_put && change.now.is_some()) && !(request.no_delete && change.now.is_none())
    }

    /// One event that was wanted, against what happened.
    fn event(&mut self, at: u64, event: &Event, change: &Change) {
        let place = format!("{} of {:?} at revision {}", kind(event), event.kv.key, change.revision);
        match (&change.now, event.delete) {
            (Some(now), false) if *now == event.kv => {}
            (Some(now), false) => {
                let (create, wanted) = (event.kv.create_revision, now.create_revision);
                // isCreate is told from these two.
                let rule = if create == wanted && event.kv.version == now.version { "W1" } else { "W8" };
                self.bad(rule, format!("{place} shows {:?}, wanted {now:?}", event.kv));
            }
            (None, true) => {
                if !event.kv.value.is_empty() || event.kv.create_revision != 0 || event.kv.version != 0 {
                    self.bad("W1", format!("{place} shows {:?}, wanted the key and the revision", event.kv));
                }
            }
            _ => self.bad("W1", format!("{place} was the other kind of change")),
        }
        match (&event.prev_kv, self.stream.request.prev_kv) {
            (Some(_), false) => self.bad("W8", format!("{place} shows the version before, which was not asked for")),
            (None, false) => {}
            (prev, true) if *prev == change.before => {}
            (None, true) if self.truth.compacted(change.revision - 1, at) => {}
            (prev, true) => {
                self.bad("W8", format!("{place} shows {prev:?} as the version before, wanted {:?}", change.before));
            }
        }
    }

    /// Nothing that was wanted may lie between two revisions.
    fn gap(&mut self, after: i64, until: i64) {
        let truth = self.truth;
        let between = truth.after(after).iter().take_while(|change| change.revision <= until);
        if let Some(lost) = between.into_iter().find(|change| self.wants(change)) {
            let text = format!("the change of {:?} at revision {} never came", lost.key, lost.revision);
            self.bad("W5", text);
        }
    }

    fn progress(&mut self, revision: i64) {
        if revision < self.newest {
            self.bad("W7", format!("progress says {revision} after an event of revision {}", self.newest));
        }
        if revision > self.truth.last() {
            self.bad("W7", format!("progress says {revision}, and {} is the newest there ever was", self.truth.last()));
        }
        if revision + 1 < self.stream.request.start_revision {
            let start = self.stream.request.start_revision;
            self.bad("W10", format!("progress says {revision} to a watch from {start} on"));
        }
        if let Some(through) = self.through
            && revision > through
        {
            let before = self.findings.len();
            self.gap(through, revision);
            // Told too early is another thing than never told.
            for finding in &mut self.findings[before..] {
                finding.rule = "W7".into();
                finding.text.push_str(&format!(" before progress said {revision}"));
            }
        }
        self.promised = self.promised.max(revision);
        self.through = Some(self.through.unwrap_or(0).max(revision));
    }

    fn cancel(&mut self, at: u64, compact_revision: i64) {
        self.cancelled += 1;
        if self.cancelled > 1 {
            self.bad("W11", "it was cancelled twice".into());
        }
        if compact_revision == 0 {
            return;
        }
        if !self.truth.compactions.iter().any(|(revision, asked)| *revision == compact_revision && *asked <= at) {
            self.bad(
                "W9",
                format!("it was cancelled for a compaction at {compact_revision} that nobody had asked for"),
            );
        }
        let next = self.through.map_or(0, |through| through + 1);
        if next >= compact_revision && self.stream.request.start_revision >= compact_revision {
            self.bad(
                "W9",
                format!("it was cancelled for a compaction at {compact_revision}, and stood at {next} already"),
            );
        }
    }

    fn end(&mut self, ending: &Ending) {
        if let Some((revision, _)) = &self.partial
            && self.stream.closed_ns.is_none()
            && self.cancelled == 0
        {
            let text = format!("the rest of revision {revision} never came");
            self.bad("W4", text);
        }
        let Some(healed) = ending.healed_ns else { return };
        let open = self.cancelled == 0 && self.stream.closed_ns.is_none();
        let due = healed.max(self.stream.request.asked_ns).saturating_add(ending.catch_up_ns);
        if !open {
            return;
        }
        if self.created == 0 {
            self.bad("W13", "it was neither created nor cancelled by the end".into());
            return;
        }
        let truth = self.truth;
        let through = self.through.unwrap_or(0);
        let due_by_then = |change: &&Change| truth.known_ns.get(&change.revision).is_none_or(|known| *known <= healed);
        let lost = truth.after(through).iter().filter(due_by_then).find(|change| self.wants(change));
        if let Some(lost) = lost {
            let text = format!(
                "the change of {:?} at revision {} had not come at {due}, when it was due: the stream is at {through}",
                lost.key, lost.revision
            );
            self.bad("W13", text);
        }
        let late = self.stream.received.iter().find_map(|(at, received)| match received {
            Received::Events { events, .. } if *at > due => events.first().map(|event| (*at, event.kv.mod_revision)),
            _ => None,
        });
        if let Some((at, revision)) =
            late.filter(|(_, revision)| truth.known_ns.get(revision).is_some_and(|known| *known <= healed))
        {
            self.bad("W13", format!("revision {revision} came at {at} only, and was due at {due}"));
        }
    }
}

fn kind(event: &Event) -> &'static str {
    if event.delete { "the delete" } else { "the put" }
}
