//! Drives work against servers: N clients in a closed loop, or a fixed rate whoever answers (open loop).

use super::calls::{Listener, REFUSED};
use super::connection::Connection;
use super::limits::{DRAIN_MAX, IN_FLIGHT_MAX, LATENCY_NS_MAX};
use super::pool::{Pool, on_this_thread};
use super::report::{Mark, Report, histogram};
use super::work::Work;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How many connections, and how many streams at once on each.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Shape {
    pub connections: usize,
    pub streams: usize,
}

impl Shape {
    /// The load of the throughput figures: 256 clients.
    pub const MANY: Shape = Shape { connections: 16, streams: 16 };
    /// One client that waits for each answer.
    pub const LONE: Shape = Shape { connections: 1, streams: 1 };

    /// How many clients that is.
    pub fn clients(self) -> usize {
        self.connections * self.streams
    }
}

/// How long a closed loop runs.
#[derive(Clone, Copy, Debug)]
pub enum Extent {
    /// Warms up, then measures.
    Time(Duration, Duration),
    /// Measures so many operations from the first on.
    Count(u64),
}

/// What the connections of one run share.
struct Shared<W> {
    work: RefCell<W>,
    latency: RefCell<Histogram<u64>>,
    operations: Cell<u64>,
    left: Cell<u64>,
    stop: Cell<bool>,
    /// Places of an open loop that are free.
    free: RefCell<Vec<usize>>,
    ended: Notify,
}

impl<W: Work> Shared<W> {
    fn new(work: W, count: u64) -> Rc<Self> {
        Rc::new(Self {
            work: RefCell::new(work),
            latency: RefCell::new(histogram()),
            operations: Cell::new(0),
            left: Cell::new(count),
            stop: Cell::new(false),
            free: RefCell::default(),
            ended: Notify::new(),
        })
    }

    /// The next request of a client in a closed loop, if it has one.
    fn next(&self, client: usize) -> Option<(Bytes, Instant)> {
        if self.stop.get() || self.left.get() == 0 {
            return None;
        }
        self.left.set(self.left.get() - 1);
        Some((self.work.borrow_mut().next(client), Instant::now()))
    }

    fn record(&self, began: Instant) {
        let ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX).min(LATENCY_NS_MAX);
        self.latency.borrow_mut().saturating_record(ns);
        self.operations.set(self.operations.get() + 1);
    }
}

/// Hears the answers of a closed loop.
struct Closed<W>(Rc<Shared<W>>);

impl<W: Work> Listener for Closed<W> {
    fn message(&mut self, client: usize, answer: &[u8]) -> Result<Option<Bytes>> {
        self.0.work.borrow_mut().answered(client, answer)?;
        Ok(None)
    }

    fn done(&mut self, client: usize, began: Instant) -> Option<(Bytes, Instant)> {
        self.0.record(began);
        let next = self.0.next(client);
        if next.is_none() {
            self.0.ended.notify_one();
        }
        next
    }
}

/// Hears the answers of an open loop.
struct Open<W>(Rc<Shared<W>>);

impl<W: Work> Listener for Open<W> {
    fn message(&mut self, client: usize, answer: &[u8]) -> Result<Option<Bytes>> {
        self.0.work.borrow_mut().answered(client, answer)?;
        Ok(None)
    }

    fn done(&mut self, client: usize, began: Instant) -> Option<(Bytes, Instant)> {
        self.0.record(began);
        self.0.free.borrow_mut().push(client);
        self.0.ended.notify_one();
        None
    }
}

/// An error without words is asked for its words: the same request once more, over a client that decodes headers.
async fn in_words<W: Work>(error: anyhow::Error, endpoint: &str, shared: &Shared<W>) -> anyhow::Error {
    if error.root_cause().to_string() != REFUSED {
        return error;
    }
    let asked = async {
        let (method, request) = {
            let mut work = shared.work.borrow_mut();
            (work.method(), work.next(0))
        };
        Connection::open(endpoint).await?.unary(method, request, |_| Ok(())).await
    };
    match asked.await {
        Ok(()) => error.context("and a second one had an answer"),
        Err(words) => words.context(error.to_string()),
    }
}

/// Runs a closed loop: each client sends its next request when the one before is answered.
///
/// - Errors: the first operation that fails ends the run.
pub fn closed<W: Work + 'static>(
    endpoints: &[String],
    shape: Shape,
    extent: Extent,
    work: W,
    server_cpu: &dyn Fn() -> Duration,
) -> Result<Report> {
    on_this_thread(async {
        let count = if let Extent::Count(count) = extent { count } else { u64::MAX };
        let shared = Shared::new(work, count);
        let method = shared.work.borrow().method();
        let mut pool = Pool::open(endpoints, shape.connections, method, || Closed(shared.clone())).await?;
        let ran = run_closed(&mut pool, shape, extent, &shared, server_cpu).await;
        match ran {
            Ok(report) => Ok(report),
            Err(error) => Err(in_words(error, &endpoints[0], &shared).await),
        }
    })
}

async fn run_closed<W: Work>(
    pool: &mut Pool,
    shape: Shape,
    extent: Extent,
    shared: &Shared<W>,
    server_cpu: &dyn Fn() -> Duration,
) -> Result<Report> {
    let mut begin = Mark::now(0, server_cpu);
    for client in 0..shape.clients() {
        if let Some((request, began)) = shared.next(client) {
            pool.connections[client % shape.connections].begin(client, request, began);
        }
    }
    pool.flush()?;
    let end = match extent {
        Extent::Count(_) => {
            pool.wait_for(&shared.ended, |pool| pool.under_way() == 0).await?;
            Mark::now(shared.operations.get(), server_cpu)
        }
        Extent::Time(warm, measure) => {
            pool.until(Instant::now() + warm).await?;
            begin = Mark::now(shared.operations.get(), server_cpu);
            shared.latency.borrow_mut().reset();
            let before = shared.operations.get();
            pool.until(begin.at + measure).await?;
            // A time without an answer measures nothing: it goes on until there is one.
            while shared.operations.get() == before {
                ensure!(begin.at.elapsed() < measure + DRAIN_MAX, "nothing is answered");
                pool.until(Instant::now() + measure).await?;
            }
            let end = Mark::now(shared.operations.get(), server_cpu);
            shared.stop.set(true);
            let drained = tokio::time::timeout(DRAIN_MAX, pool.wait_for(&shared.ended, |pool| pool.under_way() == 0));
            drained.await.context("clients wait for answers")??;
            end
        }
    };
    Ok(begin.report(end, shared.latency.replace(histogram())))
}

/// Runs an open loop: `rate` operations in a second, sent when they are due and not when the server is ready, each
/// latency measured from the time at which it was due. So a server that stalls pays for everything it held up.
///
/// - Errors: the first operation that fails, or more than [`IN_FLIGHT_MAX`] unanswered, ends the run.
pub fn open<W: Work + 'static>(
    endpoints: &[String],
    connections: usize,
    rate: f64,
    (warm, measure): (Duration, Duration),
    work: W,
    server_cpu: &dyn Fn() -> Duration,
) -> Result<Report> {
    ensure!(rate > 0.0, "an open loop needs a rate");
    on_this_thread(async {
        let shared = Shared::new(work, u64::MAX);
        // A client is a place among those under way; the lowest are used first, so that as few keys as possible are.
        shared.free.borrow_mut().extend((0..IN_FLIGHT_MAX).rev());
        let method = shared.work.borrow().method();
        let mut pool = Pool::open(endpoints, connections, method, || Open(shared.clone())).await?;
        let ran = run_open(&mut pool, rate, (warm, measure), &shared, server_cpu).await;
        match ran {
            Ok(report) => Ok(report),
            Err(error) => Err(in_words(error, &endpoints[0], &shared).await),
        }
    })
}

async fn run_open<W: Work>(
    pool: &mut Pool,
    rate: f64,
    (warm, measure): (Duration, Duration),
    shared: &Shared<W>,
    server_cpu: &dyn Fn() -> Duration,
) -> Result<Report> {
    let mut schedule = Schedule::new(Instant::now(), rate);
    let (measured_from, end) = (schedule.begin + warm, schedule.begin + warm + measure);
    let mut due = ticker(rate, end + DRAIN_MAX);
    let (mut begin, mut before) = (None, u64::MAX);
    // A time without an answer measures nothing: it goes on until there is one.
    while Instant::now() < end || shared.operations.get() <= before {
        tokio::select! {
            failed = pool.failed() => failed?,
            tick = due.recv() => tick.context("nothing is answered")?,
        }
        let now = Instant::now();
        if begin.is_none() && now >= measured_from {
            before = shared.operations.get();
            begin = Some(Mark::now(before, server_cpu));
            shared.latency.borrow_mut().reset();
        }
        while let Some(at) = schedule.next_due(now) {
            let client = shared.free.borrow_mut().pop();
            let client = client.with_context(|| format!("more than {IN_FLIGHT_MAX} operations wait for answers"))?;
            let request = shared.work.borrow_mut().next(client);
            pool.connections[schedule.sent as usize % pool.connections.len()].begin(client, request, at);
        }
        pool.flush()?;
    }
    let end = Mark::now(shared.operations.get(), server_cpu);
    // The latencies of those under way count; their number does not, since it belongs to no measured time.
    tokio::time::timeout(DRAIN_MAX, pool.wait_for(&shared.ended, |pool| pool.under_way() == 0))
        .await
        .context("operations wait for answers")??;
    let begin = begin.context("the run was shorter than its warm-up")?;
    Ok(begin.report(end, shared.latency.replace(histogram())))
}

/// When the operations of an open loop are due.
struct Schedule {
    begin: Instant,
    rate: f64,
    sent: u64,
}

impl Schedule {
    fn new(begin: Instant, rate: f64) -> Self {
        Self { begin, rate, sent: 0 }
    }

    /// When the next operation was due, if it is due by `now`.
    fn next_due(&mut self, now: Instant) -> Option<Instant> {
        let at = self.begin + Duration::from_secs_f64(self.sent as f64 / self.rate);
        (at <= now).then(|| {
            self.sent += 1;
            at
        })
    }
}

/// Ticks once for each operation, but at most each 100 µs, from a thread of its own: the runtime's timer knows only
/// milliseconds, which is longer than what is measured.
fn ticker(rate: f64, end: Instant) -> tokio::sync::mpsc::UnboundedReceiver<()> {
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
    let pause = Duration::from_secs_f64(1.0 / rate).clamp(Duration::from_micros(100), Duration::from_millis(10));
    std::thread::spawn(move || {
        // Ends when nobody listens any more, at the latest at the run's end.
        while Instant::now() < end && tx.send(()).is_ok() {
            std::thread::sleep(pause);
        }
    });
    rx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stall_held_up_was_due_in_time() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, 1_000.0);
        assert_eq!(schedule.next_due(begin), Some(begin));
        assert_eq!(schedule.next_due(begin), None, "the second is due a millisecond later");
        let late = begin + Duration::from_millis(5);
        let due: Vec<_> = std::iter::from_fn(|| schedule.next_due(late)).collect();
        let wanted: Vec<_> = (1..=5).map(|ms| begin + Duration::from_millis(ms)).collect();
        assert_eq!(due, wanted, "none is left out, and each has its own time");
    }
}
