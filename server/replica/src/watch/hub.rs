//! The hub: streams and their watchers, what comes in, and the order in which responses leave.

use super::encode::{Header, Prefixes, WatchMessage};
use super::filter::{DUPLICATE_ID, Filter};
use super::interval::{Index, Slot};
use super::progress::{Dues, Wanted};
use crate::limits::{
    GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX, WATCH_REQUESTS_PER_SLICE_MAX, WATCH_RESPONSE_BYTES_TARGET,
    WATCH_SLICE_CHANGES_MAX, WATCH_STREAM_BYTES_MAX,
};
use crate::mvcc::Mvcc;
use crate::outcome::Fatal;
use crate::store::Values;
use crate::types::MonoMillis;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One client's stream, by a number that the shell never uses twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What the shell's flags decide, and the bounds that tests make small.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes from which on a response of several events is split, for watchers that asked for it.
    pub fragment_bytes: usize,
    /// Milliseconds between two progress notifications of a watcher that asked for them and saw nothing else.
    pub progress_interval_ms: u64,
    /// Bytes that one stream may have been sent and not taken; beyond, its watchers catch up from history.
    pub stream_bytes_max: usize,
    /// Bytes of events that one response gathers from several revisions.
    pub response_bytes_target: usize,
    /// Changes that one slice reads.
    pub slice_changes_max: usize,
}

impl Default for Config {
    /// etcd's defaults (the largest request and gRPC's share, ten minutes) and the bounds of `limits`.
    fn default() -> Self {
        Self {
            fragment_bytes: REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES,
            progress_interval_ms: 600_000,
            stream_bytes_max: WATCH_STREAM_BYTES_MAX,
            response_bytes_target: WATCH_RESPONSE_BYTES_TARGET,
            slice_changes_max: WATCH_SLICE_CHANGES_MAX,
        }
    }
}

/// Everything that a hub is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client opened a stream.
    Open(StreamId),
    /// A stream ended; its watchers go.
    Close(StreamId),
    /// A client asks something; a request on a stream that is not open is ignored.
    Request(StreamId, pb::WatchRequest),
    /// A create request was refused before it came here (permission, token); the reason goes into its place in line.
    Refuse(StreamId, String),
    /// Everything up to this revision is applied and visible in the `Mvcc` that `settle` is given next.
    /// A revision below the hub's is ignored: no cursor ever goes back.
    Advance(i64),
    /// The state was replaced by a snapshot at this revision. A watcher whose next revision it no longer holds is
    /// canceled with the compact revision; no cursor ever goes back.
    Restored(i64),
    /// The client took messages of this cost ([`WatchMessage::cost`]).
    Credit(StreamId, usize),
    /// Time passes; needed for progress notifications only.
    Tick(MonoMillis),
    /// The headers of later responses.
    Header(Header),
}

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Open streams.
    pub streams: usize,
    /// Watchers on them.
    pub watchers: usize,
    /// Those that lag behind the hub and catch up from history.
    pub slow_watchers: usize,
    /// Events sent since the start, each counted once per watcher.
    pub events_sent: u64,
}

/// One watch.
///
/// Invariants: it has been sent every event that it wants below `next`; it is in the hub's index and has been sent
/// everything up to the hub's cursor, or it is in its stream's `lagging`, never both.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: StreamId,
    pub(super) id: i64,
    pub(super) filter: Filter,
    /// Events below this revision are not for it (any more).
    pub(super) next: i64,
    /// No progress below this revision: what `created` said, or the start if it lies in the future.
    pub(super) gate: i64,
    pub(super) progress_notify: bool,
    pub(super) fragment: bool,
    /// No event was sent since the last progress interval.
    pub(super) quiet: bool,
    /// Its turn among its stream's lagging watchers.
    pub(super) lag: Option<u64>,
}

/// One client.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) watchers: BTreeMap<i64, Slot>,
    next_id: i64,
    /// Cost of the messages sent and not taken.
    outstanding: usize,
    /// `outstanding` reached its bound and has not yet fallen to half of it.
    blocked: bool,
    /// Who catches up, in order of turns.
    pub(super) lagging: BTreeMap<u64, Slot>,
    /// The stream's own turn in the hub's ring; there only if it has room and lagging watchers.
    pub(super) turn: Option<u64>,
    /// Gates above the hub's cursor when they were set.
    pub(super) gates: BTreeSet<(i64, Slot)>,
    /// The progress requests that are not answered.
    pub(super) wanted: Option<Wanted>,
    /// When the next progress notifications are due; none while no watcher wants them.
    pub(super) due: Option<MonoMillis>,
}

impl Stream {
    /// Tells whether anything may be sent now.
    pub(super) fn has_room(&self) -> bool {
        !self.blocked
    }
}

/// The open streams.
pub(super) type Streams = BTreeMap<StreamId, Stream>;

/// All watchers; a slot is used again after its watcher is gone from everywhere.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    table: Vec<Option<Watcher>>,
    free: Vec<Slot>,
}

impl Watchers {
    pub(super) fn get(&self, slot: Slot) -> &Watcher {
        self.table[slot as usize].as_ref().expect("slots in use are those of living watchers")
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Watcher {
        self.table[slot as usize].as_mut().expect("slots in use are those of living watchers")
    }

    fn insert(&mut self, watcher: Watcher) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.table[slot as usize] = Some(watcher);
            return slot;
        }
        self.table.push(Some(watcher));
        Slot::try_from(self.table.len() - 1).expect("four billion watchers do not fit in memory")
    }

    fn remove(&mut self, slot: Slot) -> Watcher {
        self.free.push(slot);
        self.table[slot as usize].take().expect("slots in use are those of living watchers")
    }

    fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..).zip(&self.table).filter(|(_, watcher)| watcher.is_some()).map(|(slot, _)| slot)
    }

    fn len(&self) -> usize {
        self.table.len() - self.free.len()
    }
}

/// What leaves: messages in order, each for one stream.
pub type Out = Vec<(StreamId, WatchMessage)>;

/// All watches of one member.
#[derive(Debug)]
pub struct WatchHub {
    pub(super) config: Config,
    header: Header,
    prefixes: Prefixes,
    /// What is not yet answered; bounded by the shell, which takes a stream's next request after the last is handled.
    requests: VecDeque<(StreamId, Asked)>,
    /// Everything up to here may be sent.
    advanced: i64,
    /// Synced watchers have been sent everything up to here.
    pub(super) cursor: i64,
    pub(super) streams: Streams,
    pub(super) watchers: Watchers,
    /// The synced watchers.
    pub(super) index: Index,
    /// Streams with room and lagging watchers, in order of turns.
    pub(super) ring: BTreeMap<u64, StreamId>,
    turns: u64,
    lagging: usize,
    pub(super) wanting: BTreeSet<StreamId>,
    pub(super) dues: Dues,
    events_sent: u64,
}

#[derive(Debug)]
enum Asked {
    Request(pb::WatchRequest),
    Refuse(String),
}

impl WatchHub {
    /// Makes a hub without streams; the first watchers see changes above `revision`, the state's at the start.
    pub fn new(config: Config, header: Header, revision: i64) -> Self {
        Self {
            config,
            header,
            prefixes: Prefixes::default(),
            requests: VecDeque::new(),
            advanced: revision,
            cursor: revision,
            streams: Streams::new(),
            watchers: Watchers::default(),
            index: Index::default(),
            ring: BTreeMap::new(),
            turns: 0,
            lagging: 0,
            wanting: BTreeSet::new(),
            dues: Dues::default(),
            events_sent: 0,
        }
    }

    /// Takes one input; what follows from it comes out of the next [`WatchHub::settle`] calls.
    pub fn feed(&mut self, input: Input) {
        match input {
            Input::Open(stream) => {
                self.streams.insert(stream, Stream::default());
            }
            Input::Close(stream) => self.close(stream),
            Input::Request(stream, request) => self.requests.push_back((stream, Asked::Request(request))),
            Input::Refuse(stream, reason) => self.requests.push_back((stream, Asked::Refuse(reason))),
            Input::Advance(revision) | Input::Restored(revision) => self.advanced = self.advanced.max(revision),
            Input::Credit(stream, cost) => self.credit(stream, cost),
            Input::Tick(now) => self.dues.now = self.dues.now.max(now),
            Input::Header(header) => self.header = header,
        }
    }

    /// Does one bounded piece of work: some requests, one slice of new changes, one of catching up, and progress.
    ///
    /// Returns whether more can be done at once; then call it again, with the lock on `mvcc` let go in between.
    /// - Errors: [`Fatal`] if a value that is not in memory cannot be read, or `mvcc` lacks what was announced.
    pub fn settle(&mut self, mvcc: &Mvcc, values: &dyn Values, out: &mut Out) -> Result<bool, Fatal> {
        if mvcc.revision() < self.advanced {
            let (have, announced) = (mvcc.revision(), self.advanced);
            return Err(Fatal::Bug(format!("the watch hub was told of revision {announced} but sees {have}")));
        }
        for _ in 0..WATCH_REQUESTS_PER_SLICE_MAX {
            let Some((stream, asked)) = self.requests.pop_front() else { break };
            self.answer(stream, asked, mvcc, out);
        }
        self.dispatch(self.advanced, mvcc, values, out)?;
        self.catch_up(mvcc, values, out)?;
        self.notify_progress(out);
        self.answer_progress(out);
        Ok(self.has_work())
    }

    /// Tells whether [`WatchHub::settle`] has something to do; a tick alone does not count.
    pub fn has_work(&self) -> bool {
        !self.requests.is_empty() || self.cursor < self.advanced || !self.ring.is_empty()
    }

    /// Tells whether `stream` has room; while it has none, the shell leaves its requests where they are.
    pub fn has_room(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(Stream::has_room)
    }

    /// Returns the numbers for the metrics.
    pub fn counters(&self) -> Counters {
        Counters {
            streams: self.streams.len(),
            watchers: self.watchers.len(),
            slow_watchers: self.lagging,
            events_sent: self.events_sent,
        }
    }

    /// Returns the revision up to which every synced watcher has been sent everything.
    pub fn cursor(&self) -> i64 {
        self.cursor
    }

    fn answer(&mut self, stream: StreamId, asked: Asked, mvcc: &Mvcc, out: &mut Out) {
        if !self.streams.contains_key(&stream) {
            return;
        }
        match asked {
            Asked::Refuse(reason) => self.refuse(stream, &reason, mvcc, out),
            Asked::Request(request) => match request.request_union {
                Some(RequestUnion::CreateRequest(request)) => self.create(stream, &request, mvcc, out),
                Some(RequestUnion::CancelRequest(request)) => self.cancel(stream, request.watch_id, mvcc, out),
                Some(RequestUnion::ProgressRequest(_)) => self.want_progress(stream, mvcc.revision()),
                // etcd ignores a request that says nothing, too.
                None => {}
            },
        }
    }

    fn create(&mut self, stream: StreamId, request: &pb::WatchCreateRequest, mvcc: &Mvcc, out: &mut Out) {
        let filter = match Filter::new(request) {
            Ok(filter) => filter,
            Err(reason) => return self.refuse(stream, reason, mvcc, out),
        };
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let id = match request.watch_id {
            0 => {
                while state.watchers.contains_key(&state.next_id) {
                    state.next_id += 1;
                }
                state.next_id += 1;
                state.next_id - 1
            }
            id if state.watchers.contains_key(&id) => return self.refuse(stream, DUPLICATE_ID, mvcc, out),
            id => id,
        };
        let (current, start) = (mvcc.revision(), request.start_revision);
        self.respond(stream, current, pb::WatchResponse { watch_id: id, created: true, ..Default::default() }, out);
        if start > 0 && start < mvcc.compact_revision() {
            return self.tell_compacted(stream, id, mvcc, out);
        }
        #[cfg(feature = "mutants")]
        let start =
            if crate::mutants::active("watch_cursor_reset_by_snapshot") { start.max(current + 1) } else { start };
        #[cfg(feature = "mutants")]
        let start = if crate::mutants::active("future_watch_from_now") { start.min(current + 1) } else { start };
        let next = if start == 0 { current + 1 } else { start };
        let watcher = Watcher {
            stream,
            id,
            filter,
            next,
            gate: start.max(current),
            progress_notify: request.progress_notify,
            fragment: request.fragment,
            quiet: true,
            lag: None,
        };
        self.insert(watcher);
    }

    fn insert(&mut self, watcher: Watcher) {
        let (stream, id, next, gate, notify) =
            (watcher.stream, watcher.id, watcher.next, watcher.gate, watcher.progress_notify);
        let slot = self.watchers.insert(watcher);
        let state = self.streams.get_mut(&stream).expect("a watcher is made on an open stream");
        state.watchers.insert(id, slot);
        if gate > self.cursor {
            state.gates.insert((gate, slot));
        }
        if notify && state.due.is_none() {
            state.due = Some(self.dues.schedule(stream, self.config.progress_interval_ms));
        }
        // What lies above the cursor comes with the next dispatch; what lies below must be read again.
        if next > self.cursor {
            self.index.insert(&self.watchers.get(slot).filter, slot);
        } else {
            self.lag(slot, next);
        }
    }

    fn cancel(&mut self, stream: StreamId, id: i64, mvcc: &Mvcc, out: &mut Out) {
        let Some(&slot) = self.streams.get(&stream).and_then(|state| state.watchers.get(&id)) else { return };
        self.forget(slot);
        let response = pb::WatchResponse { watch_id: id, canceled: true, ..Default::default() };
        self.respond(stream, mvcc.revision(), response, out);
    }

    fn refuse(&mut self, stream: StreamId, reason: &str, mvcc: &Mvcc, out: &mut Out) {
        let response = pb::WatchResponse {
            watch_id: -1,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..Default::default()
        };
        self.respond(stream, mvcc.revision(), response, out);
    }

    /// Tells that history no longer holds what the watch needs. etcd's header says revision 0 here.
    pub(super) fn tell_compacted(&mut self, stream: StreamId, id: i64, mvcc: &Mvcc, out: &mut Out) {
        let compact_revision = mvcc.compact_revision();
        let response = pb::WatchResponse { watch_id: id, canceled: true, compact_revision, ..Default::default() };
        self.respond(stream, 0, response, out);
    }

    fn close(&mut self, stream: StreamId) {
        let Some(state) = self.streams.get(&stream) else { return };
        let slots: Vec<Slot> = state.watchers.values().copied().collect();
        slots.into_iter().for_each(|slot| self.forget(slot));
        if let Some(state) = self.streams.remove(&stream) {
            assert!(state.turn.is_none() && state.lagging.is_empty(), "a stream without watchers does not catch up");
            self.dues.drop(stream, state.due);
        }
        self.wanting.remove(&stream);
    }

    fn credit(&mut self, stream: StreamId, cost: usize) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        assert!(cost <= state.outstanding, "a client cannot take more than it was sent");
        state.outstanding -= cost;
        if state.outstanding <= self.config.stream_bytes_max / 2 {
            state.blocked = false;
            self.place_in_ring(stream);
        }
    }

    /// Removes a watcher from everywhere.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.unlag(slot);
        let watcher = self.watchers.remove(slot);
        self.index.remove(&watcher.filter, slot);
        if let Some(state) = self.streams.get_mut(&watcher.stream) {
            state.watchers.remove(&watcher.id);
            state.gates.remove(&(watcher.gate, slot));
        }
        self.place_in_ring(watcher.stream);
    }

    /// Makes a watcher catch up from `next` on, at the end of the line.
    pub(super) fn lag(&mut self, slot: Slot, next: i64) {
        self.unlag(slot);
        self.turns += 1;
        let watcher = self.watchers.get_mut(slot);
        assert!(next >= watcher.next, "a watcher's cursor never goes back");
        watcher.next = next;
        watcher.lag = Some(self.turns);
        self.index.remove(&watcher.filter, slot);
        let stream = watcher.stream;
        let state = self.streams.get_mut(&stream).expect("a watcher's stream is open");
        state.lagging.insert(self.turns, slot);
        self.lagging += 1;
        self.place_in_ring(stream);
    }

    /// Takes a watcher out of its stream's lagging ones.
    pub(super) fn unlag(&mut self, slot: Slot) {
        let watcher = self.watchers.get_mut(slot);
        let Some(turn) = watcher.lag.take() else { return };
        let state = self.streams.get_mut(&watcher.stream).expect("a watcher's stream is open");
        state.lagging.remove(&turn);
        self.lagging -= 1;
    }

    /// Puts a stream into the ring if it has room and lagging watchers, at the end of the line; else takes it out.
    pub(super) fn place_in_ring(&mut self, stream: StreamId) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        match (state.has_room() && !state.lagging.is_empty(), state.turn) {
            (true, None) => {
                self.turns += 1;
                state.turn = Some(self.turns);
                self.ring.insert(self.turns, stream);
            }
            (false, Some(turn)) => {
                state.turn = None;
                self.ring.remove(&turn);
            }
            _ => {}
        }
    }

    /// Sends a stream to the end of the ring.
    pub(super) fn rotate(&mut self, stream: StreamId) {
        if let Some(turn) = self.streams.get_mut(&stream).and_then(|state| state.turn.take()) {
            self.ring.remove(&turn);
        }
        self.place_in_ring(stream);
    }

    /// Makes every synced watcher catch up by itself: history has a hole above the cursor, and each must be told.
    pub(super) fn lag_all(&mut self) {
        let synced: Vec<Slot> = self.watchers.slots().filter(|&slot| self.watchers.get(slot).lag.is_none()).collect();
        for slot in synced {
            let next = self.watchers.get(slot).next.max(self.cursor + 1);
            self.lag(slot, next);
        }
    }

    /// Returns the bytes of a response before its events.
    pub(super) fn prefix_len(&self, revision: i64, response: &pb::WatchResponse) -> usize {
        let header = self.header.at(revision).encoded_len();
        1 + prost::length_delimiter_len(header) + header + response.encoded_len()
    }

    /// Sends a response without events.
    pub(super) fn respond(&mut self, stream: StreamId, revision: i64, response: pb::WatchResponse, out: &mut Out) {
        self.send(stream, revision, response, &[], out);
    }

    /// Sends a response; it counts until its stream takes it.
    pub(super) fn send(
        &mut self,
        stream: StreamId,
        revision: i64,
        mut response: pb::WatchResponse,
        events: &[Bytes],
        out: &mut Out,
    ) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        response.header = Some(self.header.at(revision));
        let mut pieces = Vec::with_capacity(1 + events.len());
        pieces.push(self.prefixes.encode(&response));
        pieces.extend_from_slice(events);
        let message = WatchMessage { pieces };
        state.outstanding += message.cost();
        self.events_sent += events.len() as u64;
        if state.outstanding >= self.config.stream_bytes_max {
            state.blocked = true;
            self.place_in_ring(stream);
        }
        out.push((stream, message));
    }
}
