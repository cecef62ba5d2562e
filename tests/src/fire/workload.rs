//! All clients of a cluster under fire, and the book into which they write.

use super::leases;
use super::record::{Lease, Outcome, Read, Write};
use super::witness::Witness;
use super::writer::Writer;
use crate::rng::Rng;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

/// Writers per member.
const WRITERS: usize = 3;

/// Clients that keep a lease.
const KEEPERS: usize = 2;

/// Clients that let leases end.
const LEAVERS: usize = 2;

/// Bytes of most values; the tag alone.
const VALUE_BYTES: u64 = 16;

/// What the clients wrote down.
#[derive(Debug, Default)]
pub struct Book {
    /// Every attempt to change something.
    pub writes: Vec<Write>,
    /// Every answered read.
    pub reads: Vec<Read>,
    /// Every lease that was granted.
    pub leases: Vec<Lease>,
    /// What a client saw at once to be wrong.
    pub wrong: Vec<String>,
}

/// What the clients of one workload share.
pub(super) struct Shared {
    pub(super) endpoints: Vec<String>,
    /// Set to end the writers.
    stop: AtomicBool,
    acknowledged: AtomicU64,
    newest: AtomicI64,
    /// The longest value of now.
    value_bytes: AtomicU64,
    pub(super) book: Mutex<Book>,
    witnesses: Vec<Arc<Mutex<super::witness::Seen>>>,
}

impl Shared {
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The newest revision that was acknowledged to anybody.
    pub(super) fn newest(&self) -> i64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// How long the next value is.
    pub(super) fn value_bytes(&self, rng: &mut Rng) -> usize {
        let max = self.value_bytes.load(Ordering::Relaxed);
        usize::try_from(max / 2 + rng.below(max / 2 + 1)).expect("a value fits in memory")
    }

    /// Writes an attempt down; what is acknowledged counts for whoever asks next.
    pub(super) fn wrote(&self, write: Write) {
        if let Outcome::Wrote(at) | Outcome::Idle { at, .. } = write.outcome {
            self.newest.fetch_max(at, Ordering::SeqCst);
        }
        if matches!(write.outcome, Outcome::Wrote(_)) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        self.book.lock().expect("no client panics").writes.push(write);
    }

    pub(super) fn read(&self, read: Read) {
        if read.is_linearizable {
            self.newest.fetch_max(read.at, Ordering::SeqCst);
        }
        self.book.lock().expect("no client panics").reads.push(read);
    }

    pub(super) fn wrong(&self, text: String) {
        self.book.lock().expect("no client panics").wrong.push(text);
    }

    /// Whether any watch has seen the end of this key.
    pub(super) fn has_ended(&self, key: &[u8]) -> bool {
        self.witnesses.iter().any(|seen| seen.lock().expect("no witness panics").ended.contains_key(key))
    }
}

/// The running clients.
pub struct Workload {
    pub(super) shared: Arc<Shared>,
    pub(super) witnesses: Vec<Witness>,
    clients: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Starts writers at every member, clients with leases, and a watch at every member.
    pub fn start(endpoints: Vec<String>, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let witness = |first| Witness::start(endpoints.clone(), first, seed ^ first as u64);
        let witnesses: Vec<Witness> = (0..endpoints.len()).map(witness).collect();
        let shared = Arc::new(Shared {
            endpoints: endpoints.clone(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            newest: AtomicI64::new(0),
            value_bytes: AtomicU64::new(VALUE_BYTES),
            book: Mutex::default(),
            witnesses: witnesses.iter().map(|witness| witness.seen.clone()).collect(),
        });
        let mut clients = Vec::new();
        for client in 0..WRITERS * endpoints.len() {
            clients.push(tokio::spawn(Writer::new(shared.clone(), client, rng.next_u64()).run()));
        }
        for n in 0..KEEPERS + LEAVERS {
            let client = WRITERS * endpoints.len() + n;
            let renewals = if n < KEEPERS { leases::RENEWALS } else { 0 };
            clients.push(tokio::spawn(leases::run(shared.clone(), client, renewals)));
        }
        Self { shared, witnesses, clients }
    }

    /// Writes that were acknowledged and changed something.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Leases that were granted so far.
    pub fn leases(&self) -> usize {
        self.shared.book.lock().expect("no client panics").leases.len()
    }

    /// Leases granted from the `from`-th on whose end was seen.
    pub fn ended(&self, from: usize) -> usize {
        let book = self.shared.book.lock().expect("no client panics");
        book.leases[from..].iter().filter(|lease| self.shared.has_ended(&lease.key)).count()
    }

    /// Makes values up to `bytes` long; `None` for short ones again.
    pub fn set_value_bytes(&self, bytes: Option<u64>) {
        self.shared.value_bytes.store(bytes.unwrap_or(VALUE_BYTES), Ordering::Relaxed);
    }

    /// Ends the clients, and waits for the answers that are open; the watches go on.
    pub async fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.await.expect("no client panics");
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.clients.iter().for_each(JoinHandle::abort);
    }
}
