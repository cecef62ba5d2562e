//! Reads one bounded piece of history and finds who wants which of its events.

use super::encode;
use super::hub::WatchHub;
use super::interval::{Index, Slot};
use crate::limits::{WATCH_SLICE_BYTES_MAX, WATCH_SLICE_MATCHES_MAX};
use crate::mvcc::Mvcc;
use crate::outcome::Fatal;
use crate::store::Values;
use bytes::Bytes;

/// Some whole revisions of history, matched and encoded.
#[derive(Debug, Default)]
pub(super) struct Slice {
    /// Everything up to this revision has been read.
    pub(super) end: i64,
    /// The events that somebody wants, in revision order.
    pub(super) events: Vec<Event>,
    /// (watcher, index into `events`), ascending.
    pub(super) matches: Vec<(Slot, u32)>,
}

/// One event; a form is there only if a watcher that can be sent something wants it.
#[derive(Debug, Default)]
pub(super) struct Event {
    pub(super) revision: i64,
    plain: Option<Bytes>,
    with_prev_kv: Option<Bytes>,
}

impl Event {
    /// The encoded event; `None` if its watcher's stream had no room when the slice was read.
    pub(super) fn form(&self, prev_kv: bool) -> Option<&Bytes> {
        if prev_kv { self.with_prev_kv.as_ref() } else { self.plain.as_ref() }
    }
}

impl WatchHub {
    /// Reads `from..=through` for the watchers in `index`, or its first part if that is more than one slice holds.
    ///
    /// Changes above `kept_from` have their predecessors still. A watcher is matched from its own next revision on. Nothing changes here, so an error leaves nobody with half.
    pub(super) fn read(
        &self,
        (from, through): (i64, i64),
        kept_from: i64,
        index: &Index,
        mvcc: &Mvcc,
        values: &dyn Values,
    ) -> Result<Slice, Fatal> {
        let mut slice = Slice { end: through, ..Slice::default() };
        let (mut changes, mut bytes, mut revision, mut hits) = (0, 0, from, Vec::new());
        for change in mvcc.changes(from) {
            let main = change.revision.main;
            if main > through {
                break;
            }
            let full = changes >= self.config.slice_changes_max
                || bytes >= WATCH_SLICE_BYTES_MAX
                || slice.matches.len() >= WATCH_SLICE_MATCHES_MAX;
            if full && main != revision {
                slice.end = main - 1;
                break;
            }
            revision = main;
            changes += 1;
            index.matching(change.head.key(), &mut |slot| hits.push(slot));
            let mut event = Event { revision: main, ..Event::default() };
            let place = slice.events.len() as u32;
            let before = slice.matches.len();
            for slot in hits.drain(..) {
                let watcher = self.watchers.get(slot);
                if main < watcher.next || !watcher.filter.wants(change) {
                    continue;
                }
                slice.matches.push((slot, place));
                let prev_kv = watcher.filter.prev_kv;
                let form = if prev_kv { &mut event.with_prev_kv } else { &mut event.plain };
                if form.is_none() && self.has_room(watcher.stream) {
                    let encoded = encode::event(change, prev_kv && main > kept_from, mvcc, values)?;
                    bytes += encoded.len();
                    *form = Some(encoded);
                }
            }
            if slice.matches.len() > before {
                slice.events.push(event);
            }
        }
        slice.matches.sort_unstable();
        Ok(slice)
    }
}
