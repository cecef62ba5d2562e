//! The watch hub's thread: it feeds the hub what clients ask and what was applied, and hands out what comes back.
//!
//! One thread serves all streams. Clients' requests wait in line under a small bound each; responses wait in a channel
//! per stream whose bound is the hub's, in bytes, and which is refilled from history once the client has taken some.

use crate::deliver::{Deliveries, Delivery};
use crate::failpoint::failpoint;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_replica::limits::{
    WATCH_MESSAGE_OVERHEAD_BYTES, WATCH_MESSAGES_SPARE, WATCH_STREAM_BYTES_MAX, WATCH_STREAM_REQUESTS_MAX,
};
use mechi_replica::mvcc::Mvcc;
use mechi_replica::outcome::Fatal;
use mechi_replica::store::Values;
use mechi_replica::types::MonoMillis;
pub use mechi_replica::watch::{Config, Header};
use mechi_replica::watch::{Input, Out, StreamId, WatchHub};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// Lends the state's `Mvcc` for one look; the state's lock is held only while it lasts.
pub type Source = Box<dyn Fn(&mut dyn FnMut(&Mvcc)) + Send>;

/// Where values are found that have left memory.
pub type SharedValues = Arc<dyn Values + Send + Sync>;

/// One client's watch stream: requests go in, encoded responses come out in order.
#[derive(Debug)]
pub struct WatchStream {
    /// The client's requests; when the last clone is dropped the stream ends.
    pub requests: Requests,
    /// Whole `WatchResponse` messages in wire form; ends when the member stops.
    pub responses: mpsc::Receiver<WatchMessage>,
}

/// One `WatchResponse` in wire form, which counts against its stream until it is dropped.
#[derive(Debug)]
pub struct WatchMessage {
    /// The pieces, in order, to be concatenated; events are shared between watchers.
    pub pieces: Vec<Bytes>,
    /// Dropped with the message: makes room for what comes next.
    _taken: Option<Taken>,
}

impl From<Vec<Bytes>> for WatchMessage {
    /// Makes a message that counts against nothing.
    fn from(pieces: Vec<Bytes>) -> Self {
        Self { pieces, _taken: None }
    }
}

/// Numbers for the metrics, brought up to date after each round of the thread.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Open streams.
    pub streams: AtomicUsize,
    /// Watchers on them.
    pub watchers: AtomicUsize,
    /// Watchers that catch up from history.
    pub slow_watchers: AtomicUsize,
    /// Events sent to a stream and not taken by it.
    pub pending_events: AtomicUsize,
    /// Events sent since the start, each counted once per watcher.
    pub events_sent: AtomicU64,
}

/// The way to the hub's thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct Watches(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    advanced: AtomicI64,
    /// Up to where the hub has sent changes to its synced watchers.
    dispatched: AtomicI64,
    raft_term: AtomicU64,
    streams_made: AtomicU64,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Inbox {
    opened: Vec<(Arc<Line>, mpsc::Sender<WatchMessage>)>,
    asked: Vec<(StreamId, Asked)>,
    credited: Vec<Arc<Line>>,
    closed: Vec<StreamId>,
    /// Something happened since the thread last looked.
    poked: bool,
    stopping: bool,
}

#[derive(Debug)]
enum Asked {
    Request(pb::WatchRequest),
    Refuse(String),
}

#[cfg(feature = "failpoints")]
impl Asked {
    fn is_for_progress(&self) -> bool {
        let Self::Request(request) = self else { return false };
        matches!(request.request_union, Some(pb::watch_request::RequestUnion::ProgressRequest(_)))
    }
}

/// What a stream's two ends share.
#[derive(Debug)]
struct Line {
    stream: StreamId,
    /// Room for requests that the hub has not handled.
    room: Semaphore,
    /// Never has a permit; closed once the hub serves the stream no more.
    gone: Semaphore,
    /// Cost of the messages that the client took and the hub has not been told of.
    taken: AtomicUsize,
    /// The hub waits for credit on this stream, so taking a message must wake it.
    blocked: AtomicBool,
}

impl Line {
    fn close(&self) {
        self.room.close();
        self.gone.close();
    }
}

/// The client's side of a stream's requests.
#[derive(Clone, Debug)]
pub struct Requests(Arc<Asker>);

#[derive(Debug)]
struct Asker {
    line: Arc<Line>,
    shared: Arc<Shared>,
}

/// The member is stopping: no watch is served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("etcdserver: server stopped")]
pub struct Stopped;

impl Requests {
    /// Passes a request on; waits while the stream has many that are not handled, or does not read its responses.
    ///
    /// - Errors: [`Stopped`].
    pub async fn send(&self, request: pb::WatchRequest) -> Result<(), Stopped> {
        self.ask(Asked::Request(request)).await
    }

    /// Answers a create request that was refused (permission, token), in its place among the others.
    ///
    /// - Errors: [`Stopped`].
    pub async fn refuse(&self, reason: String) -> Result<(), Stopped> {
        self.ask(Asked::Refuse(reason)).await
    }

    /// Resolves once no request is served any more: the responses were dropped, or the member stops.
    pub async fn closed(&self) {
        let closed = self.0.line.gone.acquire().await;
        assert!(closed.is_err(), "nobody gives this semaphore a permit");
    }

    async fn ask(&self, asked: Asked) -> Result<(), Stopped> {
        let Asker { line, shared } = &*self.0;
        line.room.acquire().await.map_err(|_| Stopped)?.forget();
        let mut inbox = shared.inbox.lock();
        if inbox.stopping {
            return Err(Stopped);
        }
        inbox.asked.push((line.stream, asked));
        shared.poke(&mut inbox);
        Ok(())
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let mut inbox = self.shared.inbox.lock();
        inbox.closed.push(self.line.stream);
        self.shared.poke(&mut inbox);
    }
}

#[derive(Debug)]
struct Taken {
    line: Arc<Line>,
    shared: Arc<Shared>,
    cost: usize,
    events: usize,
}

impl Drop for Taken {
    /// The order matters: the thread first sets `blocked` and then collects `taken`, so one of both sides sees the other.
    fn drop(&mut self) {
        self.shared.metrics.pending_events.fetch_sub(self.events, Relaxed);
        self.line.taken.fetch_add(self.cost, SeqCst);
        if self.line.blocked.swap(false, SeqCst) {
            let mut inbox = self.shared.inbox.lock();
            inbox.credited.push(Arc::clone(&self.line));
            self.shared.poke(&mut inbox);
        }
    }
}

impl Shared {
    fn poke(&self, inbox: &mut Inbox) {
        if !inbox.poked {
            inbox.poked = true;
            self.wake.notify_one();
        }
    }
}

impl Watches {
    /// Starts the thread; `revision` is the state's, and `header` says who answers.
    ///
    /// Responses go by way of `deliveries`; `on_fatal` is called once if the hub cannot go on: the member must stop.
    pub fn spawn(
        config: Config,
        header: Header,
        revision: i64,
        source: Source,
        values: SharedValues,
        deliveries: Deliveries,
        on_fatal: Box<dyn FnOnce(Fatal) + Send>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let shared = Arc::new(Shared::default());
        shared.advanced.store(revision, SeqCst);
        shared.dispatched.store(revision, SeqCst);
        shared.raft_term.store(header.raft_term, SeqCst);
        let hub = WatchHub::new(config, header, revision);
        let peers = BTreeMap::new();
        let worker = Worker { shared: Arc::clone(&shared), hub, header, source, values, deliveries, peers };
        let run = move || worker.run(on_fatal);
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(run)?;
        Ok((Self(shared), thread))
    }

    /// Opens a stream. After [`Watches::stop`] its responses end at once.
    pub fn open(&self) -> WatchStream {
        let shared = &self.0;
        let line = Arc::new(Line {
            stream: StreamId(shared.streams_made.fetch_add(1, Relaxed)),
            room: Semaphore::new(WATCH_STREAM_REQUESTS_MAX),
            gone: Semaphore::new(0),
            taken: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
        });
        let messages_max = WATCH_STREAM_BYTES_MAX / WATCH_MESSAGE_OVERHEAD_BYTES + WATCH_MESSAGES_SPARE;
        let (sender, responses) = mpsc::channel(messages_max);
        let requests = Requests(Arc::new(Asker { line: Arc::clone(&line), shared: Arc::clone(shared) }));
        let mut inbox = shared.inbox.lock();
        if inbox.stopping {
            line.close();
        } else {
            inbox.opened.push((line, sender));
            shared.poke(&mut inbox);
        }
        drop(inbox);
        WatchStream { requests, responses }
    }

    /// Says that everything up to `revision` is applied and visible through the source.
    pub fn advance(&self, revision: i64) {
        if self.0.advanced.fetch_max(revision, SeqCst) < revision {
            self.0.poke(&mut self.0.inbox.lock());
        }
    }

    /// Up to where changes were sent to the watchers that keep up: a sweep must leave what comes after.
    pub fn dispatched(&self) -> i64 {
        self.0.dispatched.load(SeqCst)
    }

    /// Sets the term that later headers show.
    pub fn set_term(&self, raft_term: u64) {
        self.0.raft_term.store(raft_term, Relaxed);
    }

    /// The numbers for the metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Ends all streams and the thread; join it afterwards.
    pub fn stop(&self) {
        let mut inbox = self.0.inbox.lock();
        inbox.stopping = true;
        self.0.poke(&mut inbox);
    }
}

/// One stream as the thread sees it.
struct Peer {
    line: Arc<Line>,
    sender: mpsc::Sender<WatchMessage>,
    /// Handled requests whose room is given back once the client reads again.
    held: usize,
}

struct Worker {
    shared: Arc<Shared>,
    hub: WatchHub,
    header: Header,
    source: Source,
    values: SharedValues,
    deliveries: Deliveries,
    peers: BTreeMap<StreamId, Peer>,
}

impl Worker {
    fn run(mut self, on_fatal: Box<dyn FnOnce(Fatal) + Send>) {
        let (start, mut out) = (Instant::now(), Out::new());
        loop {
            let now = MonoMillis(start.elapsed().as_millis() as u64);
            self.hub.feed(Input::Tick(now));
            let inbox = self.wait(now);
            if inbox.stopping {
                return self.end();
            }
            self.feed(inbox);
            failpoint!(if self.hub.counters().slow_watchers > 0, "watch_before_sync");
            failpoint!(if self.hub.next_due().is_some_and(|due| due <= now), "watch_before_progress");
            let mut settled = Ok(false);
            (self.source)(&mut |mvcc| settled = self.hub.settle(mvcc, &*self.values, &mut out));
            self.shared.dispatched.store(self.hub.cursor(), SeqCst);
            if let Err(fatal) = settled {
                self.end();
                return on_fatal(fatal);
            }
            self.send(&mut out);
            self.count();
        }
    }

    /// Takes what came in; waits for it if the hub has nothing to do.
    fn wait(&self, now: MonoMillis) -> Inbox {
        let mut inbox = self.shared.inbox.lock();
        if !inbox.poked && !self.hub.has_work() {
            match self.hub.next_due() {
                None => self.shared.wake.wait(&mut inbox),
                Some(due) => {
                    let wait = Duration::from_millis(due.0.saturating_sub(now.0));
                    self.shared.wake.wait_for(&mut inbox, wait);
                }
            }
        }
        let stopping = inbox.stopping;
        Inbox { stopping, ..std::mem::replace(&mut *inbox, Inbox { stopping, ..Inbox::default() }) }
    }

    fn feed(&mut self, inbox: Inbox) {
        for (line, sender) in inbox.opened {
            self.hub.feed(Input::Open(line.stream));
            self.peers.insert(line.stream, Peer { line, sender, held: 0 });
        }
        for (stream, asked) in inbox.asked {
            if let Some(peer) = self.peers.get_mut(&stream) {
                peer.held += 1;
            }
            failpoint!(if asked.is_for_progress(), "watch_before_progress");
            self.hub.feed(match asked {
                Asked::Request(request) => Input::Request(stream, request),
                Asked::Refuse(reason) => Input::Refuse(stream, reason),
            });
        }
        for line in inbox.credited {
            failpoint!("watch_before_victims");
            self.collect(&line);
            self.await_credit(&line);
        }
        for stream in inbox.closed {
            self.close(stream);
        }
        let raft_term = self.shared.raft_term.load(Relaxed);
        if raft_term != self.header.raft_term {
            self.header.raft_term = raft_term;
            self.hub.feed(Input::Header(self.header));
        }
        self.hub.feed(Input::Advance(self.shared.advanced.load(SeqCst)));
        for peer in self.peers.values_mut().filter(|peer| peer.held > 0) {
            if self.hub.has_room(peer.line.stream) {
                peer.line.room.add_permits(std::mem::take(&mut peer.held));
            }
        }
    }

    /// Tells the hub what a client has taken.
    fn collect(&mut self, line: &Line) {
        let taken = line.taken.swap(0, SeqCst);
        if taken > 0 {
            self.hub.feed(Input::Credit(line.stream, taken));
        }
    }

    /// Asks to be woken by the next message taken, as long as the stream has no room. What was taken in between is
    /// collected once more, since nobody was asked then.
    fn await_credit(&mut self, line: &Line) {
        if !self.hub.has_room(line.stream) {
            line.blocked.store(true, SeqCst);
            self.collect(line);
        }
    }

    fn send(&mut self, out: &mut Out) {
        failpoint!(if !out.is_empty(), "watch_before_send");
        let (mut touched, mut batch) = (Vec::new(), Vec::with_capacity(out.len()));
        for (stream, message) in out.drain(..) {
            let Some(peer) = self.peers.get(&stream) else { continue };
            let events = message.pieces.len() - 1;
            let (line, shared, cost) = (Arc::clone(&peer.line), Arc::clone(&self.shared), message.cost());
            self.shared.metrics.pending_events.fetch_add(events, Relaxed);
            let _taken = Some(Taken { line, shared, cost, events });
            let message = WatchMessage { pieces: message.pieces, _taken };
            // Full cannot happen while the hub keeps its bound; a gap would be worse than an ended stream.
            match peer.sender.clone().try_reserve_owned() {
                Ok(place) => batch.push(Delivery::Watched(place, message)),
                Err(error) => {
                    if matches!(error, mpsc::error::TrySendError::Full(_)) {
                        tracing::error!(stream = stream.0, "a watch stream's channel is full: the stream is ended");
                    }
                    self.close(stream);
                    continue;
                }
            }
            if touched.last() != Some(&stream) {
                touched.push(stream);
            }
        }
        self.deliveries.send(batch);
        touched.sort_unstable();
        touched.dedup();
        for stream in touched {
            let Some(line) = self.peers.get(&stream).map(|peer| Arc::clone(&peer.line)) else { continue };
            self.collect(&line);
            self.await_credit(&line);
        }
    }

    fn close(&mut self, stream: StreamId) {
        self.hub.feed(Input::Close(stream));
        if let Some(peer) = self.peers.remove(&stream) {
            peer.line.close();
        }
    }

    fn count(&self) {
        let (counters, metrics) = (self.hub.counters(), &self.shared.metrics);
        metrics.streams.store(counters.streams, Relaxed);
        metrics.watchers.store(counters.watchers, Relaxed);
        metrics.slow_watchers.store(counters.slow_watchers, Relaxed);
        metrics.events_sent.store(counters.events_sent, Relaxed);
    }

    /// Ends every stream: pending requests get an error, responses end after what was sent.
    fn end(&mut self) {
        let mut inbox = self.shared.inbox.lock();
        inbox.stopping = true;
        let opened = std::mem::take(&mut inbox.opened);
        drop(inbox);
        opened.iter().for_each(|(line, _)| line.close());
        let streams: Vec<StreamId> = self.peers.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.close(stream));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_replica::store::AllInMemory;
    use parking_lot::RwLock;
    use pb::watch_request::RequestUnion;
    use prost::Message;

    fn start(config: Config) -> (Arc<RwLock<Mvcc>>, Watches, JoinHandle<()>) {
        let state = Arc::new(RwLock::new(Mvcc::new()));
        let lent = Arc::clone(&state);
        let source: Source = Box::new(move |look| look(&lent.read()));
        let fatal = Box::new(|fatal: Fatal| panic!("{fatal}"));
        let (watches, thread) =
            Watches::spawn(config, Header::default(), 1, source, Arc::new(AllInMemory), Deliveries::default(), fatal)
                .unwrap();
        (state, watches, thread)
    }

    fn write(state: &RwLock<Mvcc>, watches: &Watches, count: usize) {
        for _ in 0..count {
            let revision = {
                let mut state = state.write();
                state.write().put(b"k", &[b'x'; 100], 0);
                state.revision()
            };
            watches.advance(revision);
        }
    }

    async fn next(stream: &mut WatchStream) -> pb::WatchResponse {
        let message = stream.responses.recv().await.expect("the stream goes on");
        pb::WatchResponse::decode(&message.pieces.concat()[..]).unwrap()
    }

    fn create() -> pb::WatchRequest {
        let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
        pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    }

    #[tokio::test]
    async fn a_stream_that_stops_reading_gets_everything_once_it_reads_again() {
        let (state, watches, thread) = start(Config { stream_bytes_max: 2_000, ..Config::default() });
        let mut stream = watches.open();
        stream.requests.send(create()).await.unwrap();
        assert!(next(&mut stream).await.created);
        write(&state, &watches, 500);
        let mut revision = 1;
        while revision < 501 {
            for event in next(&mut stream).await.events {
                revision += 1;
                assert_eq!(event.kv.unwrap().mod_revision, revision);
            }
        }
        assert_eq!(watches.metrics().pending_events.load(Relaxed), 0);
        watches.stop();
        assert!(stream.responses.recv().await.is_none());
        stream.requests.closed().await;
        assert_eq!(stream.requests.send(create()).await, Err(Stopped));
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn requests_beyond_the_bound_wait_and_are_all_answered() {
        let (_, watches, thread) = start(Config { stream_bytes_max: 2_000, ..Config::default() });
        let mut stream = watches.open();
        let requests = stream.requests.clone();
        let asking = tokio::spawn(async move {
            for _ in 0..1_000 {
                requests.send(create()).await.unwrap();
            }
        });
        for watch_id in 0..1_000 {
            assert_eq!(next(&mut stream).await.watch_id, watch_id);
        }
        asking.await.unwrap();
        watches.stop();
        thread.join().unwrap();
    }
}
