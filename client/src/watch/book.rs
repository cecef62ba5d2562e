//! What the watches of one stream know, without the stream: which are on the server, and where each goes on.
//!
//! Invariant: everything before `next` of a watch has been handed to its queue, in order, and nothing from `next` on has. A watch that
//! is put on a stream again begins at `next`, so that nothing is missing and nothing comes twice.

use crate::error::Error;
use crate::watch::Batch;
use crate::watch::queue::Queue;
use mechi_proto::{etcdserverpb as pb, mvccpb};
use pb::watch_request::RequestUnion;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::oneshot;

/// A watch's number on this side; never used again.
pub(crate) type WatchKey = u64;

/// A watch to be put on the server.
pub(crate) struct Wanted {
    pub(crate) request: pb::WatchCreateRequest,
    pub(crate) tells_created: bool,
    pub(crate) queue: Queue,
    /// Told once the server has confirmed or refused it.
    pub(crate) confirm: oneshot::Sender<Result<(), Error>>,
}

/// All watches of one client.
#[derive(Default)]
pub(crate) struct Book {
    watches: BTreeMap<WatchKey, Entry>,
    /// The watches that were asked for and not answered, in the order of the asks, which is that of the answers.
    pending: VecDeque<WatchKey>,
    by_server_id: BTreeMap<i64, WatchKey>,
    /// To be written to the stream, in order.
    out: VecDeque<pb::WatchRequest>,
}

struct Entry {
    request: pb::WatchCreateRequest,
    tells_created: bool,
    queue: Queue,
    confirm: Option<oneshot::Sender<Result<(), Error>>>,
    /// The revision that the watch goes on from; 0 until the server has said which is the newest.
    next: i64,
    place: Place,
    /// Events of a revision that may have more in the next part of a batch.
    parts: Vec<mvccpb::Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Asked for on this stream.
    Pending,
    /// On the server, under its id.
    Live(i64),
    /// On no server, until the reader has caught up.
    Parked,
}

/// What an answer asks of the stream's keeper.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing.
    GoOn,
    /// The server lives and answers.
    Confirmed,
    /// A watch was refused for these words; a new token on a new stream may help. No watch was told.
    Refused(String),
    /// The server does not keep to the protocol; a new stream is needed.
    Nonsense(&'static str),
}

impl Book {
    pub(crate) fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// The next message for the stream.
    pub(crate) fn take_message(&mut self) -> Option<pb::WatchRequest> {
        self.out.pop_front()
    }

    pub(crate) fn has_message(&self) -> bool {
        !self.out.is_empty()
    }

    /// Adds a watch.
    pub(crate) fn add(&mut self, key: WatchKey, wanted: Wanted) {
        let Wanted { request, tells_created, queue, confirm } = wanted;
        let next = request.start_revision;
        let confirm = Some(confirm);
        let parts = Vec::new();
        let entry = Entry { request, tells_created, queue, confirm, next, place: Place::Pending, parts };
        self.watches.insert(key, entry);
        self.ask(key);
    }

    /// Takes a watch away whose reader has gone.
    pub(crate) fn remove(&mut self, key: WatchKey) {
        // A pending one stays in the queue of asks: it is canceled when its answer brings the id.
        if let Some(Entry { place: Place::Live(id), .. }) = self.watches.remove(&key) {
            self.cancel(id);
        }
    }

    /// Puts a parked watch on the server again: its reader has caught up.
    pub(crate) fn unpark(&mut self, key: WatchKey) {
        if self.watches.get(&key).is_some_and(|entry| entry.place == Place::Parked) {
            self.ask(key);
        }
    }

    /// Begins a new stream: every watch but the parked ones is asked for again, where it was.
    pub(crate) fn begin_stream(&mut self) {
        self.out.clear();
        self.pending.clear();
        self.by_server_id.clear();
        let again: Vec<_> =
            self.watches.iter().filter(|(_, entry)| entry.place != Place::Parked).map(|w| *w.0).collect();
        again.into_iter().for_each(|key| self.ask(key));
    }

    /// Asks how far the watches are.
    pub(crate) fn ask_progress(&mut self) {
        let request = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        self.out.push_back(pb::WatchRequest { request_union: Some(request) });
    }

    /// Ends all watches.
    pub(crate) fn fail_all(&mut self, error: &Error) {
        for (_, entry) in std::mem::take(&mut self.watches) {
            entry.fail(error.clone());
        }
        self.begin_stream();
    }

    /// Ends the watch that was refused last, with the server's words.
    pub(crate) fn fail_first_pending(&mut self, reason: String) {
        if let Some(entry) = self.pending.pop_front().and_then(|key| self.watches.remove(&key)) {
            entry.fail(Error::WatchCanceled { reason });
        }
    }

    /// Takes an answer of the server.
    pub(crate) fn answer(&mut self, answer: pb::WatchResponse) -> After {
        if answer.created {
            return self.created(answer);
        }
        if answer.canceled {
            // Of an unknown id: this side has canceled it.
            if let Some(entry) = self.by_server_id.remove(&answer.watch_id).and_then(|key| self.watches.remove(&key)) {
                entry.fail(match answer.compact_revision {
                    0 => Error::WatchCanceled { reason: answer.cancel_reason },
                    compact_revision => Error::WatchCompacted { compact_revision },
                });
            }
            return After::GoOn;
        }
        if answer.events.is_empty() && answer.watch_id == -1 {
            // Of all watches of the stream. Servers before 3.5.8 may send it ahead of events (etcd issue 15220), so that
            // no watch goes on from there; the server's own notices, one per watch, do not have that bug.
            for key in self.by_server_id.values() {
                // A reader that is behind does not miss it: its next batch says more.
                let _ = self.watches[key].queue.push(Batch(answer.clone()));
            }
            return After::GoOn;
        }
        let Some(key) = self.by_server_id.get(&answer.watch_id).copied() else { return After::GoOn };
        let entry = self.watches.get_mut(&key).expect("ids lead to watches that are there");
        if entry.deliver(answer).is_err() {
            self.park(key);
        }
        After::GoOn
    }

    fn created(&mut self, answer: pb::WatchResponse) -> After {
        let Some(key) = self.pending.front().copied() else { return After::Nonsense("an answer to no ask") };
        if answer.canceled && answer.compact_revision == 0 {
            return After::Refused(answer.cancel_reason);
        }
        self.pending.pop_front();
        let Some(entry) = self.watches.get_mut(&key) else {
            // Its reader has gone meanwhile.
            self.cancel(answer.watch_id);
            return After::Confirmed;
        };
        if let Some(confirm) = entry.confirm.take() {
            let _ = confirm.send(Ok(()));
        }
        if answer.canceled {
            let entry = self.watches.remove(&key).expect("it was there a moment ago");
            entry.fail(Error::WatchCompacted { compact_revision: answer.compact_revision });
            return After::Confirmed;
        }
        entry.place = Place::Live(answer.watch_id);
        self.by_server_id.insert(answer.watch_id, key);
        if entry.next <= 0 {
            entry.next = answer.header.as_ref().map_or(0, |header| header.revision) + 1;
        }
        if entry.tells_created && entry.queue.push(Batch(answer)).is_err() {
            self.park(key);
        }
        After::Confirmed
    }

    fn ask(&mut self, key: WatchKey) {
        let entry = self.watches.get_mut(&key).expect("only watches that are there are asked for");
        entry.place = Place::Pending;
        entry.parts.clear();
        // The server chooses the id.
        let create = pb::WatchCreateRequest { start_revision: entry.next, watch_id: 0, ..entry.request.clone() };
        self.out.push_back(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        self.pending.push_back(key);
    }

    fn park(&mut self, key: WatchKey) {
        let entry = self.watches.get_mut(&key).expect("only watches that are there are parked");
        let Place::Live(id) = std::mem::replace(&mut entry.place, Place::Parked) else {
            unreachable!("only a watch on the server gets batches")
        };
        entry.parts.clear();
        let is_drained = entry.queue.park();
        self.cancel(id);
        if is_drained {
            self.unpark(key);
        }
    }

    fn cancel(&mut self, watch_id: i64) {
        self.by_server_id.remove(&watch_id);
        let request = RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id });
        self.out.push_back(pb::WatchRequest { request_union: Some(request) });
    }
}

impl Entry {
    /// Hands on what is whole: a revision that is sent in parts waits for its last.
    fn deliver(&mut self, mut answer: pb::WatchResponse) -> Result<(), crate::watch::queue::Full> {
        let revision = |event: &mvccpb::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        if answer.events.is_empty() && !answer.fragment && self.parts.is_empty() {
            let reached = answer.header.as_ref().map_or(0, |header| header.revision);
            // Progress that does not fit is not missed, and what it says is true all the same.
            let _ = self.queue.push(Batch(answer));
            self.next = self.next.max(reached + 1);
            return Ok(());
        }
        let mut events = std::mem::take(&mut self.parts);
        // What was delivered before never comes again; nothing that a server does may make it.
        events.extend(std::mem::take(&mut answer.events).into_iter().filter(|event| revision(event) >= self.next));
        if answer.fragment {
            let last = events.last().map_or(0, revision);
            let whole = events.partition_point(|event| revision(event) < last);
            self.parts = events.split_off(whole);
        }
        let Some(last) = events.last().map(revision) else { return Ok(()) };
        answer.events = events;
        answer.fragment = false;
        self.queue.push(Batch(answer))?;
        self.next = last + 1;
        Ok(())
    }

    fn fail(mut self, error: Error) {
        match self.confirm.take() {
            Some(confirm) => {
                // A caller that gave up has no use for it.
                let _ = confirm.send(Err(error));
            }
            None => self.queue.end(error),
        }
    }
}

#[cfg(test)]
mod tests;
