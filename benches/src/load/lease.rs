//! Lease keep-alives in a closed loop: each stream renews a lease of its own.

use super::calls::Listener;
use super::connection::{Connection, Method, frame};
use super::pool::{Pool, on_this_thread};
use super::report::{Mark, Report, histogram};
use super::wire::number;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use mechi_proto::etcdserverpb as pb;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Seconds that each lease would live without a renewal.
const TTL: i64 = 600;

/// The streams of one connection.
struct Renewals {
    requests: Rc<Vec<Bytes>>,
    began: Vec<Instant>,
    shared: Rc<(Cell<u64>, RefCell<Histogram<u64>>)>,
}

impl Listener for Renewals {
    fn message(&mut self, stream: usize, message: &[u8]) -> Result<Option<Bytes>> {
        ensure!(number(message, 3)? > 0, "a lease was lost");
        let (renewals, latency) = &*self.shared;
        renewals.set(renewals.get() + 1);
        latency.borrow_mut().saturating_record(u64::try_from(self.began[stream].elapsed().as_nanos())?);
        self.began[stream] = Instant::now();
        Ok(Some(self.requests[stream].clone()))
    }

    fn done(&mut self, _client: usize, _began: Instant) -> Option<(Bytes, Instant)> {
        unreachable!("a keep-alive stream does not end in success")
    }
}

/// Renews one lease on each of `connections` × `streams` streams for a time.
pub fn keep_alives(
    endpoint: &str,
    (connections, streams): (usize, usize),
    (warm, measure): (Duration, Duration),
    server_cpu: &dyn Fn() -> Duration,
) -> Result<Report> {
    on_this_thread(async {
        let mut connection = Connection::open(endpoint).await?;
        let mut requests = Vec::new();
        for _ in 0..connections * streams {
            let grant = frame(&pb::LeaseGrantRequest { ttl: TTL, id: 0 });
            let id = connection.unary(Method::LeaseGrant, grant, |answer| number(answer, 2)).await.context("grant")?;
            requests.push(frame(&pb::LeaseKeepAliveRequest { id: id as i64 }));
        }
        let requests = Rc::new(requests);
        let shared = Rc::new((Cell::new(0), RefCell::new(histogram())));
        let listener = || Renewals {
            requests: requests.clone(),
            began: vec![Instant::now(); requests.len()],
            shared: shared.clone(),
        };
        let to = [endpoint.to_owned()];
        let mut pool = Pool::open(&to, connections, Method::LeaseKeepAlive, listener).await?;
        for (stream, request) in requests.iter().enumerate() {
            pool.connections[stream % connections].begin(stream, request.clone(), Instant::now());
        }
        pool.flush()?;
        pool.until(Instant::now() + warm).await?;
        let begin = Mark::now(shared.0.get(), server_cpu);
        shared.1.borrow_mut().reset();
        pool.until(begin.at + measure).await?;
        let end = Mark::now(shared.0.get(), server_cpu);
        let latency = shared.1.replace(histogram());
        Ok(begin.report(end, latency))
    })
}
