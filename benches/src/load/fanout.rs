//! Many watchers of one key: each put is delivered to all of them, every delivery is checked, and a writer keeps only a
//! few puts ahead of the slowest.

use super::calls::Listener;
use super::connection::{Connection, Method, frame};
use super::limits::{DRAIN_MAX, FANOUT_AHEAD};
use super::pool::{Pool, on_this_thread};
use super::report::{Mark, Report, histogram};
use super::wire::{Fields, Value, bytes, number, revision};
use super::work::{Keys, Puts, Work, key};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use mechi_proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How the watchers are spread.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Watchers {
    pub connections: usize,
    /// Streams of each connection.
    pub streams: usize,
    /// Watchers of each stream.
    pub watches: usize,
}

impl Watchers {
    /// How many that is.
    pub fn total(self) -> usize {
        self.connections * self.streams * self.watches
    }
}

/// What has been delivered.
struct Tracker {
    watchers: u32,
    created: u32,
    /// The revision of the first put, once it is known; the others follow without a gap, since nobody else writes.
    first: Option<u64>,
    /// When each put began, and how many watchers have it.
    puts: Vec<(Instant, u32)>,
    /// Puts that every watcher has, all before them among these.
    complete: usize,
    /// The next revision of each watcher, by its stream and number; 0 before its first.
    next: Vec<u64>,
    events: u64,
    latency: Histogram<u64>,
}

impl Tracker {
    fn delivered(&mut self, watcher: usize, revision: u64) -> Result<()> {
        let first = *self.first.get_or_insert(revision);
        let next = self.next.get_mut(watcher).with_context(|| format!("there is no watcher {watcher}"))?;
        let wanted = if *next == 0 { first } else { *next };
        ensure!(revision == wanted, "watcher {watcher} got revision {revision} and not {wanted}");
        *next = revision + 1;
        let put = usize::try_from(revision - first)?;
        let (began, count) = self.puts.get_mut(put).with_context(|| format!("nobody wrote revision {revision}"))?;
        *count += 1;
        self.latency.saturating_record(u64::try_from(began.elapsed().as_nanos())?);
        self.events += 1;
        while self.puts.get(self.complete).is_some_and(|(_, count)| *count == self.watchers) {
            self.complete += 1;
        }
        Ok(())
    }
}

/// Hears the watch streams of one connection.
struct Ears {
    tracker: Rc<RefCell<Tracker>>,
    changed: Rc<Notify>,
    watches: usize,
}

impl Listener for Ears {
    fn message(&mut self, stream: usize, message: &[u8]) -> Result<Option<Bytes>> {
        let mut tracker = self.tracker.borrow_mut();
        ensure!(number(message, 4)? == 0, "a watcher was cancelled");
        let complete = tracker.complete;
        // The client names its watchers from 1 on.
        let id = usize::try_from(number(message, 2)?)?;
        let watcher = stream * self.watches + id.checked_sub(1).context("a watcher without its name")?;
        let mut say = None;
        if number(message, 3)? == 1 {
            tracker.created += 1;
            say = (id < self.watches).then(|| create(&key(0), id + 1));
            self.changed.notify_one();
        }
        for field in Fields(message) {
            if let (11, Value::Bytes(event)) = field? {
                tracker.delivered(watcher, number(bytes(event, 2)?, 3)?)?;
            }
        }
        if tracker.complete > complete {
            self.changed.notify_one();
        }
        Ok(say)
    }

    fn done(&mut self, _client: usize, _began: Instant) -> Option<(Bytes, Instant)> {
        unreachable!("a watch stream does not end in success")
    }
}

/// The request for a watcher of one key, with its frame header.
pub fn create(key: &str, id: usize) -> Bytes {
    let request = pb::WatchCreateRequest { key: key.to_owned().into(), watch_id: id as i64, ..Default::default() };
    frame(&pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) })
}

/// Watches one key and writes it for a time; an operation is one event at one watcher, its latency the time from the
/// put's beginning.
///
/// - Errors: an event that is missing, doubled or out of order, besides what fails.
pub fn fan_out(
    endpoint: &str,
    watchers: Watchers,
    (warm, measure): (Duration, Duration),
    value_bytes: usize,
    server_cpu: &dyn Fn() -> Duration,
) -> Result<Report> {
    on_this_thread(async {
        let total = watchers.total();
        let tracker = Rc::new(RefCell::new(Tracker {
            watchers: total as u32,
            created: 0,
            first: None,
            puts: Vec::new(),
            complete: 0,
            next: vec![0; total],
            events: 0,
            latency: histogram(),
        }));
        let changed = Rc::new(Notify::new());
        let ears = || Ears { tracker: tracker.clone(), changed: changed.clone(), watches: watchers.watches };
        let to = [endpoint.to_owned()];
        let mut pool = Pool::open(&to, watchers.connections, Method::Watch, ears).await?;
        for stream in 0..watchers.connections * watchers.streams {
            pool.connections[stream % watchers.connections].begin(stream, create(&key(0), 1), Instant::now());
        }
        pool.flush()?;
        let all = pool.wait_for(&changed, |_| tracker.borrow().created == total as u32);
        tokio::time::timeout(DRAIN_MAX, all).await.context("watchers wait to be created")??;

        let mut writer = Connection::open(endpoint).await?;
        let mut puts = Puts::new(Keys::One, value_bytes);
        let begun = Instant::now();
        let mut begin = None;
        while begun.elapsed() < warm + measure {
            if begin.is_none() && begun.elapsed() >= warm {
                begin = Some(Mark::now(tracker.borrow().events, server_cpu));
                tracker.borrow_mut().latency.reset();
            }
            let ahead = |tracker: &Tracker| tracker.puts.len() - tracker.complete < FANOUT_AHEAD;
            let room = pool.wait_for(&changed, |_| ahead(&tracker.borrow()));
            tokio::time::timeout(DRAIN_MAX, room).await.context("watchers wait for events")??;
            tracker.borrow_mut().puts.push((Instant::now(), 0));
            let written = writer.unary(Method::Put, puts.next(0), revision).await?;
            let (first, count) = (tracker.borrow().first, tracker.borrow().puts.len() as u64);
            let first = first.unwrap_or(written + 1 - count);
            ensure!(written == first + count - 1, "somebody else writes: revision {written}");
        }
        let end = Mark::now(tracker.borrow().events, server_cpu);
        let all = pool.wait_for(&changed, |_| tracker.borrow().complete == tracker.borrow().puts.len());
        if tokio::time::timeout(DRAIN_MAX, all).await.is_err() {
            let tracker = tracker.borrow();
            bail!("only {} of {} puts reached all watchers", tracker.complete, tracker.puts.len());
        }
        let latency = std::mem::replace(&mut tracker.borrow_mut().latency, histogram());
        Ok(begin.context("the run was shorter than its warm-up")?.report(end, latency))
    })
}

/// Creates idle watchers of different keys, and runs `then` while they stand.
pub fn idle<T>(endpoint: &str, watchers: Watchers, then: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Counted {
        created: Rc<std::cell::Cell<usize>>,
        changed: Rc<Notify>,
        watches: usize,
    }
    impl Listener for Counted {
        fn message(&mut self, stream: usize, message: &[u8]) -> Result<Option<Bytes>> {
            ensure!(number(message, 3)? == 1, "an answer that is no creation");
            let id = usize::try_from(number(message, 2)?)?;
            self.created.set(self.created.get() + 1);
            self.changed.notify_one();
            Ok((id < self.watches).then(|| create(&key((stream * self.watches + id) as u64), id + 1)))
        }

        fn done(&mut self, _client: usize, _began: Instant) -> Option<(Bytes, Instant)> {
            unreachable!("a watch stream does not end in success")
        }
    }
    on_this_thread(async {
        let (created, changed) = (Rc::new(std::cell::Cell::new(0)), Rc::new(Notify::new()));
        let count = || Counted { created: created.clone(), changed: changed.clone(), watches: watchers.watches };
        let to = [endpoint.to_owned()];
        let mut pool = Pool::open(&to, watchers.connections, Method::Watch, count).await?;
        for stream in 0..watchers.connections * watchers.streams {
            let first = create(&key((stream * watchers.watches) as u64), 1);
            pool.connections[stream % watchers.connections].begin(stream, first, Instant::now());
        }
        pool.flush()?;
        let all = pool.wait_for(&changed, |_| created.get() == watchers.total());
        tokio::time::timeout(DRAIN_MAX, all).await.context("watchers wait to be created")??;
        then()
    })
}
