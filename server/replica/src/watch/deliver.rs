//! Takes slices of history to watchers: new changes to the synced ones, old changes to those that lag.

use super::hub::{Out, StreamId, WatchHub};
use super::interval::{Index, Slot};
use super::slice::{Event, Slice};
use crate::limits::{WATCH_GROUP_MAX, WATCH_GROUP_PER_STREAM_MAX};
use crate::mvcc::Mvcc;
use crate::outcome::Fatal;
use crate::store::Values;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;

/// Who catches up together, from one revision on.
#[derive(Debug, Default)]
struct Group {
    from: Option<i64>,
    slots: Vec<Slot>,
    streams: Vec<StreamId>,
    /// Those whose next revision is compacted away.
    overtaken: Vec<Slot>,
}

impl WatchHub {
    /// Sends one slice of the changes above the cursor to the synced watchers, and moves the cursor.
    pub(super) fn dispatch(
        &mut self,
        through: i64,
        mvcc: &Mvcc,
        values: &dyn Values,
        out: &mut Out,
    ) -> Result<(), Fatal> {
        if self.cursor >= through {
            return Ok(());
        }
        if self.cursor + 1 < mvcc.history_from() {
            // A snapshot took changes that nobody has been sent. A compaction does not: the sweep waits for this hub,
            // and a synced watcher is sent what is compacted meanwhile, as with etcd, which sends before it answers.
            self.lag_all();
            self.cursor = through;
            return Ok(());
        }
        if self.index.is_empty() {
            self.cursor = through;
            return Ok(());
        }
        let range = (self.cursor + 1, through);
        // What was there when the change was applied is sent, as etcd does, which sends before it answers.
        let slice = self.read(range, mvcc.history_from(), &self.index, mvcc, values)?;
        self.cursor = slice.end;
        for matches in slice.matches.chunk_by(|a, b| a.0 == b.0) {
            let slot = matches[0].0;
            if let Some(missed) = self.deliver(slot, matches, &slice, out) {
                #[cfg(feature = "mutants")]
                let missed = if crate::mutants::active("slow_watcher_skips") { slice.end + 1 } else { missed };
                self.lag(slot, missed);
            }
        }
        Ok(())
    }

    /// Lets one group of lagging watchers catch up by one slice.
    ///
    /// The first in line sets where the slice begins, and everybody takes turns, so nobody waits for ever.
    pub(super) fn catch_up(&mut self, mvcc: &Mvcc, values: &dyn Values, out: &mut Out) -> Result<(), Fatal> {
        let group = self.next_group(mvcc.compact_revision());
        let slice = match group.from {
            // A start below the cursor lags; one exactly above it has nothing to read.
            Some(from) if from <= self.cursor => {
                let mut index = Index::default();
                group.slots.iter().for_each(|&slot| index.insert(&self.watchers.get(slot).filter, slot));
                // How far the sweep is must not be seen: for history the compaction counts.
                self.read((from, self.cursor), mvcc.compact_revision(), &index, mvcc, values)?
            }
            _ => Slice { end: self.cursor, ..Slice::default() },
        };
        for slot in group.overtaken {
            let (stream, id) = (self.watchers.get(slot).stream, self.watchers.get(slot).id);
            if self.has_room(stream) {
                self.forget(slot);
                self.tell_compacted(stream, id, mvcc, out);
            }
        }
        for &slot in &group.slots {
            let begin = slice.matches.partition_point(|(other, _)| *other < slot);
            let len = slice.matches[begin..].partition_point(|(other, _)| *other == slot);
            let missed = self.deliver(slot, &slice.matches[begin..begin + len], &slice, out);
            let next = missed.unwrap_or(slice.end + 1).max(self.watchers.get(slot).next);
            if next > self.cursor {
                self.unlag(slot);
                let watcher = self.watchers.get_mut(slot);
                watcher.next = next;
                self.index.insert(&watcher.filter, slot);
            } else {
                self.lag(slot, next);
            }
        }
        group.streams.into_iter().for_each(|stream| self.rotate(stream));
        Ok(())
    }

    fn next_group(&self, compact_revision: i64) -> Group {
        let mut group = Group::default();
        for stream in self.ring.values().take(WATCH_GROUP_MAX) {
            let mut taken = false;
            for &slot in self.streams[stream].lagging.values().take(WATCH_GROUP_PER_STREAM_MAX) {
                let next = self.watchers.get(slot).next;
                if next < compact_revision {
                    group.overtaken.push(slot);
                } else if next >= *group.from.get_or_insert(next) {
                    group.slots.push(slot);
                } else {
                    continue;
                }
                taken = true;
            }
            if taken {
                group.streams.push(*stream);
            }
            if group.slots.len() + group.overtaken.len() >= WATCH_GROUP_MAX {
                break;
            }
        }
        group
    }

    /// Sends a watcher its events of `slice`; returns the first revision that its stream had no room for.
    ///
    /// The header of each response says up to where the watcher has now been sent everything, and never more: clients
    /// resume from there.
    fn deliver(&mut self, slot: Slot, matches: &[(Slot, u32)], slice: &Slice, out: &mut Out) -> Option<i64> {
        let prev_kv = self.watchers.get(slot).filter.prev_kv;
        let event = |at: &(Slot, u32)| -> &Event { &slice.events[at.1 as usize] };
        let (mut pieces, mut bytes, mut complete) = (Vec::<Bytes>::new(), 0, 0);
        #[cfg(feature = "mutants")]
        let split = crate::mutants::active("revision_split");
        #[cfg(not(feature = "mutants"))]
        let split = false;
        for revision in matches.chunk_by(|a, b| !split && event(a).revision == event(b).revision) {
            let main = event(&revision[0]).revision;
            let forms = || revision.iter().filter_map(|at| event(at).form(prev_kv));
            let size: usize = forms().map(Bytes::len).sum();
            if !pieces.is_empty() && bytes + size > self.config.response_bytes_target {
                self.send_events(slot, complete, &pieces, out);
                pieces.clear();
                bytes = 0;
            }
            // Without room when the slice was read the event was not encoded, and without room now it must wait.
            if !self.has_room(self.watchers.get(slot).stream) || forms().count() < revision.len() {
                if !pieces.is_empty() {
                    self.send_events(slot, complete, &pieces, out);
                }
                return Some(main);
            }
            pieces.extend(forms().cloned());
            bytes += size;
            complete = main;
        }
        if !pieces.is_empty() {
            self.send_events(slot, slice.end, &pieces, out);
        }
        None
    }

    /// Sends events as one response, or as fragments if it is too large and the watcher asked for that.
    fn send_events(&mut self, slot: Slot, revision: i64, events: &[Bytes], out: &mut Out) {
        let limit = self.config.fragment_bytes;
        let watcher = self.watchers.get_mut(slot);
        watcher.quiet = false;
        let (stream, watch_id, fragment) = (watcher.stream, watcher.id, watcher.fragment);
        let mut rest = events;
        while fragment && rest.len() > 1 {
            let response = pb::WatchResponse { watch_id, fragment: true, ..Default::default() };
            let mut size = self.prefix_len(revision, &response);
            let fitting = rest.iter().take_while(|event| {
                size += event.len();
                size < limit
            });
            let count = fitting.count().max(1);
            if count == rest.len() {
                break;
            }
            self.send(stream, revision, response, &rest[..count], out);
            rest = &rest[count..];
        }
        self.send(stream, revision, pb::WatchResponse { watch_id, ..Default::default() }, rest, out);
    }
}
