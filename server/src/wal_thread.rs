//! The thread that owns the write-ahead log: whatever waits is written at once and made durable by one fsync.

use crate::failpoint::failpoint;
use crate::mailbox::{Letters, Mailbox, mailbox};
use mechi_replica::disk::Disk;
use mechi_replica::input::Ticket;
use mechi_replica::limits::DISK_FULL_RETRY_MS;
use mechi_replica::outcome::Fatal;
use mechi_replica::types::{Index, Term};
use mechi_replica::wal::record::Record;
use mechi_replica::wal::{self, Wal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// The log as this thread uses it.
pub trait Log: Send + 'static {
    /// Writes records, without making them durable.
    ///
    /// - Errors: [`Written::Full`] leaves the log as it was and may be tried again.
    fn append(&mut self, records: &[Record]) -> Result<Written, Fatal>;
    /// Makes everything written so far durable. The first error is final.
    fn sync(&mut self) -> Result<(), Fatal>;
    /// Notes how far the log is durable; needs no fsync.
    fn mark(&mut self) -> Result<(), Fatal>;
    /// Frees the log below `index`, as far as a durable snapshot record covers it.
    fn trim(&mut self, index: Index) -> Result<(), Fatal>;
    /// Closes the log as the last act of an orderly stop, with the store's applied index.
    fn close_clean(&mut self, applied: Index) -> Result<(), Fatal>;
    /// Bytes that the log holds on disk.
    fn bytes(&self) -> u64;
    /// Bytes logged since the entry at `index`.
    fn bytes_since(&self, index: Index) -> u64;
}

impl<D: Disk<File: Send> + Send + 'static> Log for Wal<D> {
    fn append(&mut self, records: &[Record]) -> Result<Written, Fatal> {
        match Wal::append(self, records) {
            Ok(()) => Ok(Written::Whole),
            Err(wal::Error::Full(_)) => Ok(Written::Full),
            Err(wal::Error::Fatal(error)) => Err(error),
        }
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        Wal::sync(self)
    }

    fn mark(&mut self) -> Result<(), Fatal> {
        match Wal::mark(self) {
            // A mark only helps recovery to tell damage from a torn tail; the next write says the same.
            Ok(()) | Err(wal::Error::Full(_)) => Ok(()),
            Err(wal::Error::Fatal(error)) => Err(error),
        }
    }

    fn trim(&mut self, index: Index) -> Result<(), Fatal> {
        Wal::trim(self, index)
    }

    fn close_clean(&mut self, applied: Index) -> Result<(), Fatal> {
        match Wal::close_clean(self, applied) {
            Ok(()) => Ok(()),
            Err(wal::Error::Full(error)) => {
                // Without the note the next start rebuilds the store: slower, and as safe.
                tracing::warn!(%error, "no room to note the orderly stop");
                Ok(())
            }
            Err(wal::Error::Fatal(error)) => Err(error),
        }
    }

    fn bytes(&self) -> u64 {
        Wal::bytes(self)
    }

    fn bytes_since(&self, index: Index) -> u64 {
        Wal::bytes_since(self, index)
    }
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is written.
    Whole,
    /// The disk is full; nothing was written.
    Full,
}

/// What the thread calls.
pub struct Hooks {
    /// This ticket and all earlier ones are durable.
    pub persisted: Box<dyn Fn(Ticket) + Send>,
    /// The disk is full: frees what can be freed. Called again before each new attempt.
    pub free_space: Box<dyn FnMut() + Send>,
    /// The log can no longer be trusted; must not return in production, see [`end_process`].
    pub fatal: Box<dyn Fn(&Fatal) + Send>,
}

/// Reports an error that this member cannot survive and ends the process.
///
/// After a failed fsync nobody knows what is on disk (Rebello et al., ATC '20): only a restart can find out.
pub fn end_process(error: &Fatal) -> ! {
    tracing::error!(%error, "the member stops: it can no longer be trusted");
    std::process::exit(70)
}

enum Ask {
    Persist { ticket: Ticket, records: Vec<Record>, sync: bool },
    Snapshot { index: Index, term: Term },
    Trim(Index),
    CloseClean { applied: Index, done: oneshot::Sender<()> },
    Stop,
}

/// The way to the thread; cheap to clone.
#[derive(Clone)]
pub struct WalHandle {
    asks: Mailbox<Ask>,
    gauges: Arc<Gauges>,
}

#[derive(Default)]
struct Gauges {
    bytes: AtomicU64,
    since_snapshot: AtomicU64,
    /// The snapshot that `since_snapshot` counts from.
    snapshot: AtomicU64,
    full: AtomicBool,
    syncs: AtomicU64,
}

impl WalHandle {
    /// Writes records; [`Hooks::persisted`] tells when they are durable. Without `sync` nobody waits for them.
    pub fn persist(&self, ticket: Ticket, records: Vec<Record>, sync: bool) {
        self.asks.push_owed(Ask::Persist { ticket, records, sync });
    }

    /// Notes durably that a verified snapshot stands at this entry; what follows may be trimmed up to it.
    pub fn snapshot(&self, index: Index, term: Term) {
        self.asks.push_owed(Ask::Snapshot { index, term });
    }

    /// Frees the log below `index`, as far as [`WalHandle::snapshot`] noted that it is covered.
    pub fn trim(&self, index: Index) {
        self.asks.push_owed(Ask::Trim(index));
    }

    /// Notes an orderly stop with the store's applied index; answers once that is durable. The thread then ends.
    pub async fn close_clean(&self, applied: Index) {
        let (done, wait) = oneshot::channel();
        self.asks.push_owed(Ask::CloseClean { applied, done });
        // An error says that the thread has ended already: then the stop was not orderly, and the next open sees that.
        let _ = wait.await;
    }

    /// Ends the thread without noting an orderly stop.
    pub fn stop(&self) {
        self.asks.push_owed(Ask::Stop);
    }

    /// Bytes that the log holds on disk, as of its last write.
    pub fn bytes(&self) -> u64 {
        self.gauges.bytes.load(Ordering::Relaxed)
    }

    /// Bytes logged since the snapshot at `index`, the newest one, as of the last write; 0 as long as the log has not
    /// noted that snapshot: what it counts then is from an older one, and would make the next snapshot due at once.
    pub fn bytes_since_snapshot(&self, index: Index) -> u64 {
        let counted_from = self.gauges.snapshot.load(Ordering::Acquire);
        if counted_from < index { 0 } else { self.gauges.since_snapshot.load(Ordering::Relaxed) }
    }

    /// Counts the fsyncs since the start.
    pub fn syncs(&self) -> u64 {
        self.gauges.syncs.load(Ordering::Relaxed)
    }
}

/// Starts the thread; `snapshot` is the index of the snapshot that this start began with, 0 if there was none.
///
/// - Errors: the operating system gives no thread.
pub fn spawn(log: impl Log, snapshot: Index, hooks: Hooks) -> std::io::Result<(WalHandle, JoinHandle<()>)> {
    // Everything in it was asked for by the driver, whose proposals are bounded.
    let (asks, letters) = mailbox(usize::MAX);
    let gauges = Arc::new(Gauges::default());
    let handle = WalHandle { asks, gauges: gauges.clone() };
    let mut thread = Thread { log, hooks, letters, gauges, first_snapshot: snapshot };
    let joined = std::thread::Builder::new().name("wal".to_owned()).spawn(move || thread.run())?;
    Ok((handle, joined))
}

struct Thread<L> {
    log: L,
    hooks: Hooks,
    letters: Letters<Ask>,
    gauges: Arc<Gauges>,
    /// The index of the snapshot that this start began with; 0 if there was none.
    first_snapshot: Index,
}

/// What one drained queue asks for.
#[derive(Default)]
struct Round {
    records: Vec<Record>,
    durable: Option<Ticket>,
    snapshot: Option<Index>,
    trim: Option<Index>,
    close: Option<(Index, oneshot::Sender<()>)>,
    stop: bool,
}

impl<L: Log> Thread<L> {
    fn run(&mut self) {
        if let Err(error) = self.serve() {
            (self.hooks.fatal)(&error);
        }
    }

    fn serve(&mut self) -> Result<(), Fatal> {
        let mut asks = Vec::new();
        let mut snapshot = self.first_snapshot;
        // Something was synced that no mark speaks for yet.
        let mut owes_mark = false;
        loop {
            self.gauges.bytes.store(self.log.bytes(), Ordering::Relaxed);
            self.gauges.since_snapshot.store(self.log.bytes_since(snapshot), Ordering::Relaxed);
            self.gauges.snapshot.store(snapshot, Ordering::Release);
            self.letters.take(&mut asks, None);
            let round = collect(asks.drain(..));
            if !round.records.is_empty() {
                failpoint!("wal_before_append");
                failpoint!(if saves_hard_state(&round), "hs_before_save");
                self.append(&round.records)?;
            }
            let synced = round.durable.is_some() || round.snapshot.is_some();
            if synced {
                failpoint!("wal_after_append_before_sync", |why| Err(unsynced(why)));
                self.log.sync()?;
                failpoint!("wal_after_sync");
                failpoint!(if saves_hard_state(&round), "hs_after_save");
                self.gauges.syncs.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(ticket) = round.durable {
                (self.hooks.persisted)(ticket);
            }
            snapshot = round.snapshot.unwrap_or(snapshot);
            if let Some(index) = round.trim {
                failpoint!("wal_before_truncate");
                self.log.trim(index)?;
                failpoint!("wal_after_truncate");
            }
            if let Some((applied, done)) = round.close {
                self.log.close_clean(applied)?;
                // An error says that nobody waits for the stop any more.
                let _ = done.send(());
                return Ok(());
            }
            owes_mark |= synced;
            if round.stop {
                return if owes_mark { self.log.mark() } else { Ok(()) };
            }
            // Only a dry queue has time for the mark; under load the next write says the same.
            self.letters.take_now(&mut asks);
            if asks.is_empty() && std::mem::take(&mut owes_mark) {
                self.log.mark()?;
            }
        }
    }

    /// Writes, waiting for space as long as the disk is full: what waits is not acknowledged, and deletes and
    /// compactions that would free space need the log as well.
    fn append(&mut self, records: &[Record]) -> Result<(), Fatal> {
        while self.log.append(records)? == Written::Full {
            if !self.gauges.full.swap(true, Ordering::Relaxed) {
                tracing::error!("the disk is full: the log waits for space");
            }
            (self.hooks.free_space)();
            std::thread::sleep(Duration::from_millis(DISK_FULL_RETRY_MS));
        }
        if self.gauges.full.swap(false, Ordering::Relaxed) {
            tracing::info!("the disk has space again");
        }
        Ok(())
    }
}

fn collect(asks: impl Iterator<Item = Ask>) -> Round {
    let mut round = Round::default();
    for ask in asks {
        match ask {
            Ask::Persist { ticket, records, sync } => {
                round.records.extend(records);
                if sync {
                    round.durable = Some(ticket);
                }
            }
            Ask::Snapshot { index, term } => {
                round.records.push(Record::Snapshot { index, term });
                round.snapshot = Some(index);
            }
            Ask::Trim(index) => round.trim = round.trim.max(Some(index)),
            Ask::CloseClean { applied, done } => round.close = Some((applied, done)),
            Ask::Stop => round.stop = true,
        }
    }
    // Of several hard states only the last one counts.
    let last = round.records.iter().rposition(|record| matches!(record, Record::HardState(_)));
    let mut place = 0;
    round.records.retain(|record| {
        place += 1;
        !matches!(record, Record::HardState(_)) || Some(place - 1) == last
    });
    round
}

#[cfg(feature = "failpoints")]
fn saves_hard_state(round: &Round) -> bool {
    round.records.iter().any(|record| matches!(record, Record::HardState(_)))
}

/// An fsync that failed: nobody knows what is on disk.
#[cfg(feature = "failpoints")]
fn unsynced(why: String) -> Fatal {
    Fatal::Io { context: "sync log".to_owned(), source: std::io::Error::other(why) }
}
