//! The load of a soak: guarded writes spread over all keys, and beside them gets, pages, watches and leases.

use crate::load::calls::Listener;
use crate::load::connection::{Connection, Method, frame};
use crate::load::list::{PAGE_KEYS, page};
use crate::load::pool::on_this_thread;
use crate::load::wire::{Fields, Value, bytes, number};
use crate::load::work::{GuardedKeys, KEY_BYTES, PREFIX, VALUE_BYTES, Work, key, prefix_end};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::rng::Rng;
use pb::watch_request::RequestUnion;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Kubernetes' guarded writes over all keys, each by one client at a time: first once in their order, then by chance.
pub(super) struct SpreadTxns {
    requests: GuardedKeys,
    /// The key that each client writes now.
    now: BTreeMap<usize, u64>,
    busy: Vec<bool>,
    next: Option<u64>,
    rng: Rng,
}

impl SpreadTxns {
    /// Work on the first `keys` keys.
    pub(super) fn new(keys: u64) -> Self {
        Self {
            requests: GuardedKeys::new(0, keys as usize, VALUE_BYTES),
            now: BTreeMap::new(),
            busy: vec![false; keys as usize],
            next: Some(0),
            rng: Rng::new(7),
        }
    }

    /// From now on keys are drawn by chance.
    pub(super) fn spread(&mut self) {
        self.next = None;
    }

    /// Bytes of the keys and values of so many keys.
    pub(super) fn live_bytes(keys: u64) -> u64 {
        keys * (KEY_BYTES + VALUE_BYTES) as u64
    }

    fn draw(&mut self) -> u64 {
        if let Some(next) = &mut self.next {
            *next += 1;
            return *next - 1;
        }
        loop {
            let key = self.rng.below(self.busy.len() as u64);
            if !self.busy[key as usize] {
                return key;
            }
        }
    }
}

impl Work for SpreadTxns {
    fn method(&self) -> Method {
        Method::Txn
    }

    fn next(&mut self, client: usize) -> Bytes {
        let key = self.draw();
        self.busy[key as usize] = true;
        self.now.insert(client, key);
        self.requests.request(key as usize)
    }

    fn answered(&mut self, client: usize, answer: &[u8]) -> Result<()> {
        let key = self.now.remove(&client).context("the client asked")?;
        self.busy[key as usize] = false;
        self.requests.answered(key as usize, answer)
    }
}

/// What is done beside the writes.
type Kind = (&'static str, fn(&[String], u64, &Side) -> Result<()>);

const KINDS: [Kind; 4] = [("gets", gets), ("pages", pages), ("watch events", watches), ("keep-alives", leases)];

/// Streams that watch all keys, as apiservers do.
const WATCHERS: usize = 5;

const LEASES: usize = 100;
const LEASE_TTL: i64 = 30;

/// Each lease is renewed so often.
const RENEW: Duration = Duration::from_secs(5);

/// Pages that are read at one revision before the next list begins.
const PAGES_OF_A_LIST: usize = 20;

const GET_PAUSE: Duration = Duration::from_millis(2);
const PAGE_PAUSE: Duration = Duration::from_millis(100);

/// How long watchers may take to catch up when the writes have ended.
const CATCH_UP: Duration = Duration::from_secs(30);

/// What one side thread and its owner share.
#[derive(Default)]
struct Side {
    stop: AtomicBool,
    done: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Side {
    fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    fn count(&self, more: u64) {
        self.done.fetch_add(more, Relaxed);
    }
}

/// The threads beside the writes.
pub(super) struct Sides(Vec<(&'static str, Arc<Side>, JoinHandle<()>)>);

impl Sides {
    /// Starts them; each asks all members in turn.
    pub(super) fn start(endpoints: &[String], keys: u64) -> Result<Self> {
        let start = |(name, run): &Kind| {
            let (side, endpoints, run) = (Arc::new(Side::default()), endpoints.to_vec(), *run);
            let theirs = side.clone();
            let thread = std::thread::Builder::new().name((*name).to_owned()).spawn(move || {
                if let Err(error) = run(&endpoints, keys, &theirs) {
                    *theirs.error.lock().expect("nobody panics with it") = Some(format!("{error:#}"));
                }
            })?;
            Ok((*name, side, thread))
        };
        Ok(Self(KINDS.iter().map(start).collect::<Result<_>>()?))
    }

    /// The first error of any of them.
    pub(super) fn failed(&self) -> Option<String> {
        let error = |side: &Side| side.error.lock().expect("nobody panics with it").clone();
        self.0.iter().find_map(|(name, side, _)| Some(format!("{name}: {}", error(side)?)))
    }

    /// Ends them, and says how much each has done.
    pub(super) fn stop(self, error: &mut Option<String>) -> Vec<(String, u64)> {
        self.0.iter().for_each(|(_, side, _)| side.stop.store(true, Relaxed));
        let mut done = Vec::new();
        for (name, side, thread) in self.0 {
            if thread.join().is_err() {
                error.get_or_insert_with(|| format!("{name} panicked"));
            }
            if let Some(failed) = side.error.lock().expect("nobody panics with it").take() {
                error.get_or_insert_with(|| format!("{name}: {failed}"));
            }
            done.push((name.to_owned(), side.done.load(Relaxed)));
        }
        done
    }
}

/// Linearizable gets of single keys, through each member in turn.
fn gets(endpoints: &[String], keys: u64, side: &Side) -> Result<()> {
    on_this_thread(async {
        let (mut members, mut rng) = (open_each(endpoints).await?, Rng::new(8));
        while side.goes_on() {
            let request = frame(&pb::RangeRequest { key: key(rng.below(keys)).into(), ..Default::default() });
            let turn = side.done.load(Relaxed) as usize % members.len();
            let count = members[turn].unary(Method::Range, request, |answer| number(answer, 4)).await?;
            ensure!(count == 1, "a key is gone");
            side.count(1);
            tokio::time::sleep(GET_PAUSE).await;
        }
        Ok(())
    })
}

/// Lists by pages, each list at the revision of its first page.
fn pages(endpoints: &[String], keys: u64, side: &Side) -> Result<()> {
    on_this_thread(async {
        let mut members = open_each(endpoints).await?;
        let (mut rng, mut revision, size) = (Rng::new(9), 0, PAGE_KEYS.min(keys));
        while side.goes_on() {
            let done = side.done.load(Relaxed) as usize;
            if done.is_multiple_of(PAGES_OF_A_LIST) {
                revision = 0;
            }
            let turn = done / PAGES_OF_A_LIST % members.len();
            match page(&mut members[turn], rng.below(keys - size + 1), size, keys, revision).await {
                Ok(pinned) => {
                    revision = pinned;
                    side.count(1);
                }
                // As every client that lists by page does: it begins anew.
                Err(error) if revision != 0 && format!("{error:#}").contains(COMPACTED) => revision = 0,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAGE_PAUSE).await;
        }
        Ok(())
    })
}

/// What a list hears whose revision was compacted meanwhile, as gRPC encodes it.
const COMPACTED: &str = "required%20revision%20has%20been%20compacted";

/// Hears everything that is written; revisions must come without a gap, since nobody else writes.
struct Ears<'a> {
    last: u64,
    side: &'a Side,
}

impl Listener for Ears<'_> {
    fn message(&mut self, _stream: usize, message: &[u8]) -> Result<Option<Bytes>> {
        ensure!(number(message, 4)? == 0, "a watcher was cancelled");
        for field in Fields(message) {
            if let (11, Value::Bytes(event)) = field? {
                let revision = number(bytes(event, 2)?, 3)?;
                ensure!(self.last == 0 || revision == self.last + 1, "revision {revision} after {}", self.last);
                self.last = revision;
                self.side.count(1);
            }
        }
        Ok(None)
    }

    fn done(&mut self, _client: usize, _began: Instant) -> Option<(Bytes, Instant)> {
        unreachable!("a watch stream does not end in success")
    }
}

fn watches(endpoints: &[String], _keys: u64, side: &Side) -> Result<()> {
    let stopped = || async {
        while side.goes_on() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let request =
        pb::WatchCreateRequest { key: PREFIX.into(), range_end: prefix_end(), prev_kv: true, ..Default::default() };
    let create = frame(&pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) });
    on_this_thread(async {
        let mut watchers = Vec::new();
        for n in 0..WATCHERS {
            let endpoint = &endpoints[n % endpoints.len()];
            let calls = crate::load::calls::Calls::open(endpoint, Method::Watch).await?;
            calls.begin(0, create.clone(), Instant::now());
            calls.flush()?;
            watchers.push((calls, Ears { last: 0, side }));
        }
        // All streams on this one task: the first error of any ends them.
        let drive = |watchers: &mut Vec<(_, Ears<'_>)>, cx: &mut std::task::Context<'_>| {
            watchers
                .iter_mut()
                .map(|(calls, ears): &mut (crate::load::calls::Calls, _)| calls.poll(cx, ears))
                .fold(std::task::Poll::Pending, |first, next| if first.is_ready() { first } else { next })
        };
        tokio::select! {
            failed = std::future::poll_fn(|cx| drive(&mut watchers, cx)) => failed?,
            () = stopped() => {}
        }
        let mut connection = Connection::open(&endpoints[0]).await?;
        let request = frame(&pb::RangeRequest { key: key(0).into(), ..Default::default() });
        let revision = connection.unary(Method::Range, request, crate::load::wire::revision).await?;
        let deadline = Instant::now() + CATCH_UP;
        while watchers.iter().any(|(_, ears)| ears.last < revision) {
            let seen: Vec<u64> = watchers.iter().map(|(_, ears)| ears.last).collect();
            ensure!(Instant::now() < deadline, "watchers are at {seen:?}, the store at {revision}");
            tokio::select! {
                failed = std::future::poll_fn(|cx| drive(&mut watchers, cx)) => failed?,
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
        Ok(())
    })
}

/// Hears keep-alives.
struct Alive<'a>(&'a Side);

impl Listener for Alive<'_> {
    fn message(&mut self, _stream: usize, message: &[u8]) -> Result<Option<Bytes>> {
        ensure!(number(message, 3)? > 0, "a lease was lost");
        self.0.count(1);
        Ok(None)
    }

    fn done(&mut self, _client: usize, _began: Instant) -> Option<(Bytes, Instant)> {
        unreachable!("a keep-alive stream does not end in success")
    }
}

fn leases(endpoints: &[String], _keys: u64, side: &Side) -> Result<()> {
    on_this_thread(async {
        let mut granter = Connection::open(&endpoints[0]).await?;
        let calls = crate::load::calls::Calls::open(&endpoints[endpoints.len() - 1], Method::LeaseKeepAlive).await?;
        let mut renewals = Vec::new();
        for n in 0..LEASES {
            let grant = frame(&pb::LeaseGrantRequest { ttl: LEASE_TTL, id: 0 });
            let id = granter.unary(Method::LeaseGrant, grant, |answer| number(answer, 2)).await?;
            renewals.push(frame(&pb::LeaseKeepAliveRequest { id: id as i64 }));
            calls.begin(n, renewals[n].clone(), Instant::now());
        }
        let (mut alive, mut turn) = (Alive(side), 0);
        while side.goes_on() {
            calls.flush()?;
            tokio::select! {
                failed = std::future::poll_fn(|cx| calls.poll(cx, &mut alive)) => failed?,
                () = tokio::time::sleep(RENEW / LEASES as u32) => {}
            }
            calls.say(turn, renewals[turn].clone())?;
            turn = (turn + 1) % LEASES;
        }
        Ok(())
    })
}

async fn open_each(endpoints: &[String]) -> Result<Vec<Connection>> {
    let mut members = Vec::new();
    for endpoint in endpoints {
        members.push(Connection::open(endpoint).await?);
    }
    Ok(members)
}
