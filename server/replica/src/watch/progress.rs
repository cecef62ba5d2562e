//! Progress notifications: by interval for one watcher, on request for a whole stream, never ahead of an event.

use super::hub::{Out, StreamId, WatchHub};
use super::interval::Slot;
use crate::types::MonoMillis;
use mechi_proto::etcdserverpb as pb;
use std::collections::BTreeSet;

/// The progress requests of one stream that are not answered; many are answered as one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The store's revision when the first was made: an answer below it would not serve a client that has just read.
    first: i64,
    /// The same for the last.
    last: i64,
}

/// When each stream's next notifications are due.
#[derive(Debug, Default)]
pub(super) struct Dues {
    pub(super) now: MonoMillis,
    queue: BTreeSet<(MonoMillis, StreamId)>,
}

impl Dues {
    /// Plans a stream's next notifications; streams differ by up to a tenth of the interval, so that they do not all
    /// come at once.
    pub(super) fn schedule(&mut self, stream: StreamId, interval_ms: u64) -> MonoMillis {
        let due = MonoMillis(self.now.0 + interval_ms + interval_ms / 160 * (stream.0 % 16));
        self.queue.insert((due, stream));
        due
    }

    /// Removes a stream's plan.
    pub(super) fn drop(&mut self, stream: StreamId, due: Option<MonoMillis>) {
        if let Some(due) = due {
            self.queue.remove(&(due, stream));
        }
    }

    fn pop(&mut self) -> Option<StreamId> {
        let &(due, stream) = self.queue.first().filter(|(due, _)| *due <= self.now)?;
        self.queue.remove(&(due, stream));
        Some(stream)
    }
}

impl WatchHub {
    /// Returns when a tick will have something to do.
    pub fn next_due(&self) -> Option<MonoMillis> {
        self.dues.queue.first().map(|(due, _)| *due)
    }

    /// Notes a progress request made when the store was at `revision`.
    pub(super) fn want_progress(&mut self, stream: StreamId, revision: i64) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let first = state.wanted.map_or(revision, |wanted| wanted.first);
        state.wanted = Some(Wanted { first, last: revision });
        self.wanting.insert(stream);
    }

    /// Answers the progress requests of streams whose watchers are all synced.
    ///
    /// etcd drops a request that it cannot answer at once; here it is answered as soon as it can be, after every event
    /// up to its revision, since responses leave in one order.
    pub(super) fn answer_progress(&mut self, out: &mut Out) {
        let mut ready: Vec<StreamId> = self.wanting.iter().copied().collect();
        ready.retain(|&stream| self.all_synced(stream));
        let cursor = self.cursor;
        for stream in ready {
            self.respond(stream, cursor, pb::WatchResponse { watch_id: -1, ..Default::default() }, out);
            let Some(state) = self.streams.get_mut(&stream) else { continue };
            state.wanted = state
                .wanted
                .filter(|wanted| wanted.last > cursor)
                .map(|Wanted { last, .. }| Wanted { first: last, last });
            if state.wanted.is_none() {
                self.wanting.remove(&stream);
            }
        }
    }

    fn all_synced(&mut self, stream: StreamId) -> bool {
        let cursor = self.cursor;
        let Some(state) = self.streams.get_mut(&stream) else { return false };
        // A gate that the cursor has passed stays passed.
        while state.gates.first().is_some_and(|(gate, _)| *gate <= cursor) {
            state.gates.pop_first();
        }
        let asked = state.wanted.is_some_and(|wanted| wanted.first <= cursor);
        #[cfg(feature = "mutants")]
        if crate::mutants::active("progress_before_events") {
            return asked;
        }
        asked && state.has_room() && state.lagging.is_empty() && state.gates.is_empty()
    }

    /// Sends the notifications that are due: to synced watchers that were sent nothing since the last time.
    pub(super) fn notify_progress(&mut self, out: &mut Out) {
        let cursor = self.cursor;
        while let Some(stream) = self.dues.pop() {
            let due = self.dues.schedule(stream, self.config.progress_interval_ms);
            let Some(state) = self.streams.get_mut(&stream) else { continue };
            state.due = Some(due);
            let slots: Vec<Slot> = state.watchers.values().copied().collect();
            for slot in slots {
                let room = self.has_room(stream);
                let watcher = self.watchers.get_mut(slot);
                let quiet = std::mem::replace(&mut watcher.quiet, true);
                if watcher.progress_notify && quiet && room && watcher.lag.is_none() && watcher.gate <= cursor {
                    let watch_id = watcher.id;
                    self.respond(stream, cursor, pb::WatchResponse { watch_id, ..Default::default() }, out);
                }
            }
        }
    }
}
