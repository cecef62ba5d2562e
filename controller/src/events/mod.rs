//! Events: what people are told of what happened; best effort, bounded, and dropped before they slow anything.
//!
//! In reading order: `same` (which happenings are one event), and the recorder here. What happens again is counted in its
//! event, what happens in many ways is told in one, and who never stops is not listened to: as in client-go, with its
//! numbers. Events are under leases, one for all of a minute, and outside the one watch.
//!
//! It does nothing itself: [`Recorder::ask`] says what to ask the store next, and the answers go to the methods named after
//! them.
//!
//! - Source: client-go `tools/record/event.go` and `events_cache.go`; lease reuse as in the apiserver's
//!   `storage/etcd3/lease_manager.go`.

mod same;

use crate::control::{About, Note, Now};
use crate::digest::fnv;
use crate::keys::{EVENTS, Kind};
use crate::kv::{Error, Guard, LeaseId, Outcome, Revision, Txn};
use crate::limits::{
    EVENT_LEASE_MS, EVENT_TRIES_MAX, EVENT_TTL_MS, EVENTS_BATCH_MAX, EVENTS_KNOWN_MAX, EVENTS_WAITING_MAX,
};
use crate::types::event::{Event, EventSource, ObjectReference};
use crate::types::meta::ObjectMeta;
use same::{Happening, Same};
use std::collections::{BTreeMap, VecDeque};

/// Between two tries after a failure.
const RETRY_MS: u64 = 1_000;

/// The namespace of events about what has none.
const DEFAULT_NAMESPACE: &str = "default";

/// What the store is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// For a lease of so many milliseconds.
    Grant(u64),
    /// To write events.
    Write(Txn),
}

/// An event, as it is to be written.
#[derive(Clone, Debug)]
struct Known {
    event: Event,
    /// The revision at which it was last written; 0 if it never was, or is gone.
    modified: Revision,
    is_waiting: bool,
    tries: usize,
    used: u64,
}

/// Writes down what happened.
///
/// Invariants: it knows at most [`EVENTS_KNOWN_MAX`] events, of which at most [`EVENTS_WAITING_MAX`] wait to be written;
/// one transaction is on its way at a time.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// Who records, for names that nobody else gives.
    instance: String,
    same: Same,
    known: BTreeMap<Happening, Known>,
    waiting: VecDeque<Happening>,
    flight: Vec<Happening>,
    is_asking: bool,
    /// The lease, and when it was asked for.
    lease: Option<(LeaseId, u64)>,
    rest_until_ms: u64,
    turns: u64,
    dropped: u64,
}

impl Recorder {
    /// Records in the name of an instance, which no other one that runs has.
    pub fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            same: Same::default(),
            known: BTreeMap::new(),
            waiting: VecDeque::new(),
            flight: Vec::new(),
            is_asking: false,
            lease: None,
            rest_until_ms: 0,
            turns: 0,
            dropped: 0,
        }
    }

    /// A component says what happened. What says of nothing in particular that it happened is not told.
    pub fn record(&mut self, component: &str, notes: &[Note], now: Now) {
        for note in notes {
            let Some(about) = &note.about else { continue };
            match self.same.of(component, about, note, now.ms) {
                Some(happening) => self.happened(happening, about, note, now),
                None => self.dropped += 1,
            }
        }
    }

    fn happened(&mut self, happening: Happening, about: &About, note: &Note, now: Now) {
        self.turns += 1;
        if !self.known.contains_key(&happening) {
            self.make_room();
            let event = self.event(&happening, about, now);
            self.known.insert(happening.clone(), Known { event, modified: 0, is_waiting: false, tries: 0, used: 0 });
        }
        let known = self.known.get_mut(&happening).expect("it was just put in");
        known.used = self.turns;
        known.event.count = known.event.count.saturating_add(1);
        known.event.last_timestamp = Some(now.time);
        known.event.message = happening.words(&note.message);
        known.event.involved_object.resource_version.clone_from(&about.resource_version);
        if known.is_waiting {
            return;
        }
        if self.waiting.len() >= EVENTS_WAITING_MAX {
            self.dropped += 1;
            return;
        }
        (known.is_waiting, known.tries) = (true, 0);
        self.waiting.push_back(happening);
    }

    /// Forgets the event that was used the longest ago of those that do not wait, if there are too many.
    fn make_room(&mut self) {
        if self.known.len() < EVENTS_KNOWN_MAX {
            return;
        }
        // A quarter at once, so that not each new one looks at all.
        let mut used: Vec<u64> =
            self.known.values().filter(|known| !known.is_waiting).map(|known| known.used).collect();
        used.sort_unstable();
        let until = used[used.len() / 4];
        self.known.retain(|_, known| known.is_waiting || known.used > until);
    }

    fn event(&self, happening: &Happening, about: &About, now: Now) -> Event {
        let key = &about.key;
        let namespace = if key.kind.is_namespaced() { key.namespace() } else { DEFAULT_NAMESPACE };
        let bytes = self.instance.bytes().chain(now.ms.to_le_bytes()).chain(now.time.0.to_le_bytes());
        let number = fnv(bytes.chain(self.turns.to_le_bytes()));
        Event {
            api_version: "v1".to_owned(),
            kind: "Event".to_owned(),
            metadata: ObjectMeta {
                name: format!("{}.{number:016x}", key.name()),
                namespace: namespace.to_owned(),
                creation_timestamp: Some(now.time),
                ..Default::default()
            },
            involved_object: ObjectReference {
                api_version: Kind::api_version(key.kind).to_owned(),
                kind: key.kind.name().to_owned(),
                namespace: key.namespace().to_owned(),
                name: key.name().to_owned(),
                uid: about.uid.clone(),
                ..Default::default()
            },
            reason: happening.reason.to_owned(),
            source: EventSource { component: happening.component.clone(), ..Default::default() },
            first_timestamp: Some(now.time),
            r#type: if happening.is_warning { "Warning" } else { "Normal" }.to_owned(),
            ..Default::default()
        }
    }

    /// What to ask the store now, if anything; the answer must be told before more is asked.
    pub fn ask(&mut self, now_ms: u64) -> Option<Ask> {
        if self.is_asking || self.waiting.is_empty() || now_ms < self.rest_until_ms {
            return None;
        }
        self.is_asking = true;
        let lease = self.lease.filter(|(_, since_ms)| now_ms < since_ms + EVENT_LEASE_MS);
        let Some((lease, _)) = lease else { return Some(Ask::Grant(EVENT_TTL_MS + EVENT_LEASE_MS)) };
        let mut txn = Txn::new();
        while let Some(happening) = self.waiting.front().filter(|_| self.flight.len() < EVENTS_BATCH_MAX) {
            let known = self.known.get_mut(happening).expect("what waits is known");
            let meta = &known.event.metadata;
            let key = format!("{EVENTS}{}/{}", meta.namespace, meta.name);
            let value = serde_json::to_vec(&known.event).expect("events have text as keys");
            // A key that is not there was changed at 0.
            let guard = Guard::Seen { key: key.clone().into(), modified: known.modified };
            let one = Txn::new().guard(guard).put_leased(key, value, lease);
            if !txn.fits_with(&one) && !txn.is_empty() {
                break;
            }
            txn = txn.and(one);
            known.is_waiting = false;
            self.flight.extend(self.waiting.pop_front());
        }
        Some(Ask::Write(txn))
    }

    /// The answer to [`Ask::Grant`], which was asked for at a time.
    pub fn granted(&mut self, answer: Result<LeaseId, Error>, asked_ms: u64, now_ms: u64) {
        self.is_asking = false;
        match answer {
            Ok(lease) => self.lease = Some((lease, asked_ms)),
            Err(_) => self.rest_until_ms = now_ms + RETRY_MS,
        }
    }

    /// The answer to [`Ask::Write`].
    pub fn written(&mut self, answer: &Result<Outcome, Error>, now_ms: u64) {
        self.is_asking = false;
        let flight = std::mem::take(&mut self.flight);
        match answer {
            Ok(Outcome::Committed(revision)) => {
                for happening in &flight {
                    if let Some(known) = self.known.get_mut(happening) {
                        known.modified = *revision;
                    }
                }
                return;
            }
            // Some ran out, or were written by a transaction whose answer was lost: the names are nobody else's.
            Ok(Outcome::Refused { seen, .. }) => {
                for (happening, seen) in flight.iter().zip(seen) {
                    if let Some(known) = self.known.get_mut(happening) {
                        known.modified = seen.modified;
                    }
                }
            }
            Err(Error::LeaseNotFound) => self.lease = None,
            Err(_) => self.rest_until_ms = now_ms + RETRY_MS,
        }
        for happening in flight.into_iter().rev() {
            let Some(known) = self.known.get_mut(&happening) else { continue };
            if known.is_waiting {
                continue;
            }
            known.tries += 1;
            if known.tries >= EVENT_TRIES_MAX || self.waiting.len() >= EVENTS_WAITING_MAX {
                self.dropped += 1;
                continue;
            }
            known.is_waiting = true;
            self.waiting.push_front(happening);
        }
    }

    /// Events that wait to be written.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How often something was not told.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// When to ask again, if nothing comes.
    pub fn due_ms(&self) -> u64 {
        self.rest_until_ms
    }
}

#[cfg(test)]
mod tests;
