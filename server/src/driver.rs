//! The thread that owns consensus: it drains what came, lets the replica settle, and begins the effects in their order.

mod leases;
mod readers;
#[cfg(test)]
mod tests;

use crate::mailbox::{Letters, Mailbox, Refused, mailbox};
use crate::propose::Pending;
use crate::wal_thread::{self, Hooks, WalHandle};
use bytes::Bytes;
use leases::Leases;
use mechi_proto::mechipb::{self, Command, command::Request};
use mechi_replica::apply::LeaseEvent;
use mechi_replica::effect::{Effect, Entry, Role};
use mechi_replica::input::{Input, Ticket};
use mechi_replica::lease::lessor::Remaining;
use mechi_replica::limits::{APPLY_BACKLOG_BYTES_MAX, DRIVER_EVENTS_MAX, DRIVER_TICK_MS, LEASE_PAUSE_MS};
use mechi_replica::outcome::{Error, Fatal, Response};
use mechi_replica::replica::{LogTail, Replica, ReplicaConfig};
use mechi_replica::types::{Index, LeaseId, MemberId, MonoMillis};
use readers::{Reader, Readers};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};

/// What the driver begins with.
pub struct DriverConfig {
    /// This member, its cluster and its timing.
    pub replica: ReplicaConfig,
    /// The log as recovery found it.
    pub tail: LogTail,
    /// The index that the replicated state stands at.
    pub applied: Index,
    /// The index of the newest verified snapshot; 0 if there is none.
    pub snapshot: Index,
    /// The leases of that state.
    pub leases: Vec<mechipb::Lease>,
    /// Milliseconds between two notes of a lease's remaining time.
    pub lease_checkpoint_ms: u64,
    /// How long a client waits for an answer (etcd: 5 s and two election timeouts).
    pub request_timeout: Duration,
}

/// What the driver calls.
pub struct DriverHooks {
    /// The disk is full: frees what can be freed. Called on the log's thread, before each new attempt to write.
    pub free_space: Box<dyn FnMut() + Send>,
    /// This member can no longer be trusted; in production [`wal_thread::end_process`].
    pub fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    /// Sends a raft message to another member; must not wait.
    pub send: Box<dyn FnMut(MemberId, Bytes) + Send>,
}

/// What the apply thread is told.
#[derive(Debug)]
pub enum Committed {
    /// Apply these in order, then call [`DriverHandle::applied`], then answer their clients.
    Entries(Vec<Entry>),
    /// Nothing more will come.
    Stop,
}

/// A running driver with what belongs to it.
pub struct Driver {
    /// The way to it.
    pub handle: DriverHandle,
    /// The way to the log's thread.
    pub wal: WalHandle,
    /// For the apply thread.
    pub committed: Letters<Committed>,
    /// To be joined after [`DriverHandle::stop`].
    pub driver_thread: JoinHandle<()>,
    /// To be joined after [`WalHandle::close_clean`] or [`WalHandle::stop`].
    pub wal_thread: JoinHandle<()>,
}

/// The way to the driver; cheap to clone.
#[derive(Clone)]
pub struct DriverHandle {
    events: Mailbox<Event>,
    pending: Pending,
    role: watch::Receiver<Role>,
    request_timeout: Duration,
    leases_expired: Arc<AtomicU64>,
}

enum Event {
    Propose(Command),
    Read(oneshot::Sender<Result<Index, Error>>),
    KeepAlive {
        id: LeaseId,
        reply: oneshot::Sender<Result<i64, Error>>,
    },
    TimeToLive {
        id: LeaseId,
        reply: oneshot::Sender<Result<Option<Remaining>, Error>>,
    },
    Leases {
        reply: oneshot::Sender<Result<Vec<LeaseId>, Error>>,
    },
    Applied {
        index: Index,
        lease_events: Vec<LeaseEvent>,
    },
    /// For the replica as it is.
    Input(Input),
    Stop,
}

/// Starts the driver's and the log's threads. The member takes part in its cluster from now on.
///
/// - Errors: log and applied index contradict each other, or the operating system gives no thread.
pub fn start(
    config: DriverConfig,
    log: impl wal_thread::Log,
    hooks: DriverHooks,
    pending: Pending,
) -> Result<Driver, Fatal> {
    let member = config.replica.member;
    let extend_ms = config.replica.tick_ms * config.replica.election_ticks as u64;
    let replica = Replica::new(config.replica, config.tail, config.applied)?;
    let (events, letters) = mailbox(DRIVER_EVENTS_MAX);
    // The backlog's bound in bytes is kept by refusing new proposals.
    let (apply, committed) = mailbox(usize::MAX);
    let (role_sender, role) = watch::channel(Role::default());

    let persisted = events.clone();
    let fatal = hooks.fatal.clone();
    let wal_hooks = Hooks {
        persisted: Box::new(move |ticket: Ticket| persisted.push_owed(Event::Input(Input::Persisted(ticket)))),
        free_space: hooks.free_space,
        fatal: Box::new(move |error| fatal(error)),
    };
    let no_thread = |source| Fatal::Io { context: "start a thread".to_owned(), source };
    let (wal, wal_thread) = wal_thread::spawn(log, config.snapshot, wal_hooks).map_err(no_thread)?;

    let leases = Leases::new(config.leases, extend_ms, config.lease_checkpoint_ms);
    let leases_expired = leases.expired();
    let mut thread = Thread {
        member,
        replica,
        letters,
        effects: Vec::new(),
        started: Instant::now(),
        applied: config.applied,
        backlog: Backlog::default(),
        leases,
        readers: Readers::default(),
        pending: pending.clone(),
        wal: wal.clone(),
        apply,
        role: role_sender,
        send: hooks.send,
        fatal: hooks.fatal.clone(),
    };
    let driver_thread =
        std::thread::Builder::new().name("driver".to_owned()).spawn(move || thread.run()).map_err(no_thread)?;
    let handle = DriverHandle { events, pending, role, request_timeout: config.request_timeout, leases_expired };
    Ok(Driver { handle, wal, committed, driver_thread, wal_thread })
}

impl DriverHandle {
    /// Puts a command through the log; answers once it is durable and applied.
    ///
    /// - Errors: `TooManyRequests`, `NoLeader`, `Stopped`: nothing changed. `Timeout` and `LeaderChanged` may leave
    ///   the outcome unknown. Everything else is the outcome.
    pub async fn propose(&self, request: Request) -> Result<Response, Error> {
        let place = self.pending.register()?;
        let command = Command { id: place.id(), request: Some(request), ..Command::default() };
        self.push(Event::Propose(command))?;
        self.within(place.answer()).await
    }

    /// Waits for a read point that covers everything acknowledged before the call, and until it is applied.
    pub async fn read(&self) -> Result<Index, Error> {
        self.ask(Event::Read).await
    }

    /// Renews a lease; returns its time to live in seconds, 0 if there is no such lease.
    ///
    /// - Errors: `NotLeader` if this member is not the one that judges leases.
    pub async fn keep_alive(&self, id: LeaseId) -> Result<i64, Error> {
        self.ask(|reply| Event::KeepAlive { id, reply }).await
    }

    /// Tells how long a lease has left, `None` if there is no such lease.
    ///
    /// - Errors: `NotLeader` if this member is not the one that judges leases.
    pub async fn time_to_live(&self, id: LeaseId) -> Result<Option<Remaining>, Error> {
        self.ask(|reply| Event::TimeToLive { id, reply }).await
    }

    /// Lists the leases, soonest to expire first.
    ///
    /// - Errors: `NotLeader` if this member is not the one that judges leases.
    pub async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        self.ask(|reply| Event::Leases { reply }).await
    }

    /// Leases that this member ended because nobody renewed them, since the start.
    pub fn leases_expired(&self) -> u64 {
        self.leases_expired.load(Relaxed)
    }

    /// Asks for another leader; member 0 lets the replica choose. [`DriverHandle::role`] shows whether it happens.
    pub fn transfer(&self, to: MemberId) {
        self.events.push_owed(Event::Input(Input::Transfer(to)));
    }

    /// Tells that everything up to `index` is applied and visible to reads on this member.
    ///
    /// Called by the apply thread, before it answers the clients of those entries: a client that has its lease must
    /// find it known here.
    pub fn applied(&self, index: Index, lease_events: Vec<LeaseEvent>) {
        self.events.push_owed(Event::Applied { index, lease_events });
    }

    /// Tells that the log below `index` is covered by a durable snapshot and may leave memory.
    pub fn trimmed(&self, index: Index) {
        self.events.push_owed(Event::Input(Input::Trimmed(index)));
    }

    /// Hands a raft message of another member in; dropped if too much waits, since raft sends again.
    pub fn peer(&self, message: Bytes) {
        let _ = self.events.push(Event::Input(Input::Peer(message)));
    }

    /// Tells that a message to `member` was lost.
    pub fn unreachable(&self, member: MemberId) {
        let _ = self.events.push(Event::Input(Input::Unreachable(member)));
    }

    /// Leadership as this member sees it.
    pub fn role(&self) -> Role {
        *self.role.borrow()
    }

    /// For waiting until leadership changes.
    pub fn role_changes(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Ends the driver: all that wait hear `Stopped`, and the apply thread is told after its last entries.
    pub fn stop(&self) {
        self.events.push_owed(Event::Stop);
    }

    fn push(&self, event: Event) -> Result<(), Error> {
        self.events.push(event).map_err(|refused| match refused {
            Refused::Full => Error::TooManyRequests,
            Refused::Closed => Error::Stopped,
        })
    }

    async fn ask<T>(&self, event: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Event) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.push(event(reply))?;
        // A driver that ends drops the questions that it has not answered.
        self.within(async { answer.await.unwrap_or(Err(Error::Stopped)) }).await
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::time::timeout(self.request_timeout, answer).await.unwrap_or(Err(Error::Timeout))
    }
}

/// Committed entries that are not yet applied.
#[derive(Default)]
struct Backlog {
    waiting: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Backlog {
    fn add(&mut self, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        let bytes = entries.iter().map(|entry| entry.data.len()).sum();
        self.bytes += bytes;
        self.waiting.push_back((last.index, bytes));
    }

    fn applied(&mut self, index: Index) {
        while let Some((last, bytes)) = self.waiting.front()
            && *last <= index
        {
            self.bytes -= bytes;
            self.waiting.pop_front();
        }
    }

    fn is_full(&self) -> bool {
        self.bytes > APPLY_BACKLOG_BYTES_MAX
    }
}

struct Thread {
    member: MemberId,
    replica: Replica,
    letters: Letters<Event>,
    effects: Vec<Effect>,
    started: Instant,
    applied: Index,
    backlog: Backlog,
    leases: Leases,
    readers: Readers,
    pending: Pending,
    wal: WalHandle,
    apply: Mailbox<Committed>,
    role: watch::Sender<Role>,
    send: Box<dyn FnMut(MemberId, Bytes) + Send>,
    fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
}

impl Thread {
    fn run(&mut self) {
        let tick = Duration::from_millis(DRIVER_TICK_MS);
        let mut events = Vec::new();
        let mut next_tick = self.started;
        loop {
            self.letters.take(&mut events, Some(next_tick));
            for event in events.drain(..) {
                if matches!(event, Event::Stop) {
                    self.pending.stop();
                    self.apply.push_owed(Committed::Stop);
                    return;
                }
                self.handle(event);
            }
            // Time comes after messages: a process that slept must hear its leader before it misses it.
            if Instant::now() >= next_tick {
                if next_tick.elapsed() >= Duration::from_millis(LEASE_PAUSE_MS) {
                    self.leases.paused(self.now());
                }
                next_tick = Instant::now() + tick;
                self.tick();
            }
            self.settle();
        }
    }

    fn now(&self) -> MonoMillis {
        MonoMillis(u64::try_from(self.started.elapsed().as_millis()).expect("a process does not run for 500 M years"))
    }

    fn tick(&mut self) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
        let now = self.now();
        self.replica.feed(Input::Tick { now, wall_ms });
        if let Some(command) = self.leases.checkpoints(now) {
            self.replica.feed(Input::Propose(command));
        }
        if let Some(term) = self.leases.wants_expiry_check(now) {
            self.read(Reader::Expiry { asked: now, term });
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Propose(command) if self.backlog.is_full() => {
                self.pending.answer([(command.id, Err(Error::TooManyRequests))]);
            }
            Event::Propose(command) => self.replica.feed(Input::Propose(command)),
            Event::Read(reply) => self.read(Reader::Client(reply)),
            Event::KeepAlive { id, reply } => {
                if self.leases.may_judge() {
                    self.read(Reader::KeepAlive { id, reply });
                } else {
                    readers::answer(reply, Err(Error::NotLeader));
                }
            }
            Event::TimeToLive { id, reply } => {
                let now = self.now();
                readers::answer(reply, self.leases.remaining(id, now));
            }
            Event::Leases { reply } => readers::answer(reply, self.leases.list()),
            Event::Applied { index, lease_events } => {
                self.applied = self.applied.max(index);
                self.backlog.applied(index);
                self.replica.feed(Input::Applied(index));
                let now = self.now();
                self.leases.applied(lease_events, now);
                self.serve_applied();
            }
            Event::Input(input) => self.replica.feed(input),
            Event::Stop => {}
        }
    }

    fn read(&mut self, reader: Reader) {
        let id = self.readers.ask(reader);
        self.replica.feed(Input::Read(id));
    }

    fn settle(&mut self) {
        loop {
            let more = self.replica.settle(&mut self.effects);
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.perform(effect);
            }
            self.effects = effects;
            if !more {
                return;
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, message } => (self.send)(to, message),
            Effect::Persist { ticket, records, sync } => self.wal.persist(ticket, records, sync),
            Effect::Apply(entries) => {
                self.backlog.add(&entries);
                self.apply.push_owed(Committed::Entries(entries));
            }
            Effect::Serve { reads, at } => {
                self.readers.confirmed(reads, at);
                self.serve_applied();
            }
            Effect::Refuse { id, why } | Effect::Unknown { id, why } => {
                if !self.leases.undone(id, self.now()) {
                    self.pending.answer([(id, Err(why))]);
                }
            }
            Effect::RefuseRead { reads, why } => {
                for reader in self.readers.refused(reads) {
                    if let Some(term) = self.leases.read_refused(&reader) {
                        self.read(Reader::Promotion { term });
                    }
                    reader.refuse(&why);
                }
            }
            Effect::Role(role) => self.role_changed(role),
        }
    }

    fn role_changed(&mut self, role: Role) {
        tracing::info!(member = %self.member, kind = ?role.kind, term = role.term, leader = ?role.leader, settled = role.settled,
            "leadership changed");
        if self.leases.role_changed(role) {
            self.read(Reader::Promotion { term: role.term });
        }
        self.role.send_replace(role);
    }

    /// Serves the reads whose read point is applied by now, in the order of their arrival.
    fn serve_applied(&mut self) {
        while let Some((at, reader)) = self.readers.next_served(self.applied) {
            let now = self.now();
            match reader {
                Reader::Client(reply) => readers::answer(reply, Ok(at)),
                Reader::KeepAlive { id, reply } => {
                    if let Some(command) = self.leases.keep_alive(id, now, reply) {
                        self.replica.feed(Input::Propose(command));
                    }
                }
                Reader::Promotion { term } => match self.leases.promote(term, now) {
                    Ok(true) => tracing::info!(term, "this member judges leases"),
                    Ok(false) => {}
                    Err(error) => (self.fatal)(&error),
                },
                Reader::Expiry { asked, term } => {
                    for command in self.leases.expire(asked, term) {
                        self.replica.feed(Input::Propose(command));
                    }
                }
            }
        }
    }
}
