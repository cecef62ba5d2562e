//! The thread that owns consensus: it drains what came, lets the replica settle, and begins the effects in their order.

#[cfg(test)]
mod tests;

use crate::deliver::{Deliveries, Delivery};
use crate::failpoint::failpoint;
use crate::mailbox::{Kinds, Letters, Mailbox, Refused, mailbox};
use crate::peer::Outgoing;
use crate::propose::Pending;
use crate::wal_thread::{self, Hooks, WalHandle};
use bytes::Bytes;
use mechi_proto::mechipb::{Command, command::Request};
use mechi_replica::apply::LeaseEvent;
use mechi_replica::conf::Moved;
use mechi_replica::effect::{Entry, Role};
use mechi_replica::input::Ticket;
use mechi_replica::lease::lessor::Remaining;
use mechi_replica::limits::{DRIVER_EVENTS_MAX, DRIVER_TICK_MS, LEASE_PAUSE_MS};
use mechi_replica::member::{Answer, Effect, Input, Member, MemberConfig, Token};
use mechi_replica::outcome::{Error, Fatal, Response};
use mechi_replica::types::{Index, LeaseId, MemberId, MonoMillis, Term};
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};

/// How much longer than the member itself a client waits: what the member says of the outcome is more exact.
const PATIENCE: Duration = Duration::from_millis(200);

/// Small commands: they lie while the leader lets them gather for its next entry.
const COMMANDS: Kinds = Kinds::kind(0);

/// Reads: they lie while a round of others is under way, since they have to wait for the next.
const READS: Kinds = Kinds::kind(1);

/// Bytes from which on a command is large: it may be what an entry is made for at once.
const LARGE_BYTES: usize = 16 << 10;

/// What the driver begins with.
pub struct DriverConfig {
    /// The member, its log and its state.
    pub member: MemberConfig,
    /// How long a client waits for an answer (etcd: 5 s and two election timeouts).
    pub request_timeout: Duration,
}

/// What the driver calls.
pub struct DriverHooks {
    /// The disk is full: frees what can be freed. Called on the log's thread, before each new attempt to write.
    pub free_space: Box<dyn FnMut() + Send>,
    /// This member can no longer be trusted; in production [`wal_thread::end_process`].
    pub fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    /// Sends to another member; must not wait.
    pub send: Box<dyn FnMut(MemberId, Outgoing) + Send>,
    /// A member lags beyond the log and no snapshot reaches into it: makes one; must not wait.
    pub build_snapshot: Box<dyn Fn() + Send>,
    /// What is applied here differs, at this index, from what an agreeing majority has; must not wait.
    pub diverged: Box<dyn Fn(Index) + Send>,
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
    /// For the member as it is.
    Input(Input),
    /// A question whose answer goes to whoever waits.
    Ask(Question, Reply),
    Stop,
}

enum Question {
    Read,
    KeepAlive(LeaseId),
    TimeToLive(LeaseId),
    Leases,
}

impl Question {
    fn input(self, token: Token) -> Input {
        match self {
            Self::Read => Input::Read(token),
            Self::KeepAlive(id) => Input::KeepAlive { token, id },
            Self::TimeToLive(id) => Input::TimeToLive { token, id },
            Self::Leases => Input::Leases(token),
        }
    }
}

/// Where the answer to a question goes.
pub type Reply = oneshot::Sender<Result<Answer, Error>>;

/// Starts the driver's and the log's threads. The member takes part in its cluster from now on.
///
/// - Errors: log and applied index contradict each other, or the operating system gives no thread.
pub fn start(
    config: DriverConfig,
    log: impl wal_thread::Log,
    hooks: DriverHooks,
    pending: Pending,
    deliveries: Deliveries,
) -> Result<Driver, Fatal> {
    let id = config.member.replica.member;
    let snapshot = config.member.snapshot.0;
    let member = Member::new(config.member)?;
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
    let (wal, wal_thread) = wal_thread::spawn(log, snapshot, wal_hooks).map_err(no_thread)?;

    let leases_expired = Arc::<AtomicU64>::default();
    let mut thread = Thread {
        id,
        member,
        letters,
        effects: Vec::new(),
        started: Instant::now(),
        asked: 0,
        waiting: HashMap::new(),
        deliveries,
        answered: Vec::new(),
        leases_expired: leases_expired.clone(),
        pending: pending.clone(),
        wal: wal.clone(),
        apply,
        role: role_sender,
        send: hooks.send,
        build_snapshot: hooks.build_snapshot,
        diverged: hooks.diverged,
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
        let kind = if command.encoded_len() < LARGE_BYTES { COMMANDS } else { Kinds::NONE };
        self.push(Event::Input(Input::Propose(command)), kind)?;
        self.within(place.answer()).await
    }

    /// Waits for a read point that covers everything acknowledged before the call, and until it is applied.
    pub async fn read(&self) -> Result<Index, Error> {
        match self.ask(Question::Read).await? {
            Answer::ReadAt(index) => {
                failpoint!("readindex_before_respond");
                Ok(index)
            }
            other => unreachable!("a read was answered with {other:?}"),
        }
    }

    /// Renews a lease; returns its time to live in seconds, 0 if there is no such lease.
    ///
    /// - Errors: `NotLeader` if this member is not the one that judges leases.
    pub async fn keep_alive(&self, id: LeaseId) -> Result<i64, Error> {
        match self.ask(Question::KeepAlive(id)).await? {
            Answer::Renewed(ttl) => Ok(ttl),
            other => unreachable!("a keep-alive was answered with {other:?}"),
        }
    }

    /// Tells how long a lease has left, `None` if there is no such lease.
    ///
    /// - Errors: `NotLeader` if this member is not the one that judges leases.
    pub async fn time_to_live(&self, id: LeaseId) -> Result<Option<Remaining>, Error> {
        match self.ask(Question::TimeToLive(id)).await? {
            Answer::Remaining(remaining) => Ok(remaining),
            other => unreachable!("a time to live was answered with {other:?}"),
        }
    }

    /// Lists the leases: soonest to expire first if this member judges them, else by id.
    pub async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        match self.ask(Question::Leases).await? {
            Answer::Leases(leases) => Ok(leases),
            other => unreachable!("a list of leases was answered with {other:?}"),
        }
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
    /// find it known here. `digests` and `moved` are those of [`Input::Applied`].
    pub fn applied(&self, index: Index, lease_events: Vec<LeaseEvent>, digests: Vec<(Index, u64)>, moved: Vec<Moved>) {
        self.events.push_owed(Event::Input(Input::Applied { index, lease_events, digests, moved }));
    }

    /// Hands a raft message of another member in; dropped if too much waits, since raft sends again.
    pub fn peer(&self, message: Bytes) {
        let _ = self.events.push(Event::Input(Input::Peer(message)));
    }

    /// Hands a batch in that another member wants appended; dropped if too much waits, since its author asks again.
    pub fn forwarded(&self, from: MemberId, batch: Bytes) {
        let _ = self.events.push(Event::Input(Input::Forwarded { from, batch }));
    }

    /// Hands a leader's refusal of this member's batch in; dropped if too much waits, since the batch is refused again.
    pub fn batch_refused(&self, boot: u64, number: u64) {
        let _ = self.events.push(Event::Input(Input::BatchRefused { boot, number }));
    }

    /// Hands another member's chain digest in; dropped if too much waits, since the next one tells as much.
    pub fn digest(&self, from: MemberId, index: Index, chain: u64) {
        let _ = self.events.push(Event::Input(Input::Digest { from, index, chain }));
    }

    /// Tells that a message to `member` was lost.
    pub fn unreachable(&self, member: MemberId) {
        let _ = self.events.push(Event::Input(Input::Unreachable(member)));
    }

    /// Tells that a connection from or to `member` broke, as when its process ends.
    pub fn reset(&self, member: MemberId) {
        let _ = self.events.push(Event::Input(Input::Reset(member)));
    }

    /// Tells what became of an [`Outgoing::Snapshot`]; once for each.
    pub fn snapshot_sent(&self, to: MemberId, ok: bool) {
        self.events.push_owed(Event::Input(Input::SnapshotSent { to, ok }));
    }

    /// Tells that a snapshot was made, verified, and noted in the log.
    pub fn snapshot_made(&self, index: Index, term: Term) {
        self.events.push_owed(Event::Input(Input::SnapshotMade { index, term }));
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

    fn push(&self, event: Event, kind: Kinds) -> Result<(), Error> {
        self.events.push_kind(event, kind).map_err(|refused| match refused {
            Refused::Full => Error::TooManyRequests,
            Refused::Closed => Error::Stopped,
        })
    }

    async fn ask(&self, question: Question) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        let kind = if matches!(question, Question::Read) { READS } else { Kinds::NONE };
        self.push(Event::Ask(question, reply), kind)?;
        // A driver that ends drops the questions that it has not answered.
        self.within(async { answer.await.unwrap_or(Err(Error::Stopped)) }).await
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::time::timeout(self.request_timeout + PATIENCE, answer).await.unwrap_or(Err(Error::Timeout))
    }
}

struct Thread {
    id: MemberId,
    member: Member,
    letters: Letters<Event>,
    effects: Vec<Effect>,
    started: Instant,
    asked: u64,
    /// Who waits for an answer, by token; the member answers every token once.
    waiting: HashMap<Token, Reply>,
    deliveries: Deliveries,
    /// What this round has answered.
    answered: Vec<Delivery>,
    leases_expired: Arc<AtomicU64>,
    pending: Pending,
    wal: WalHandle,
    apply: Mailbox<Committed>,
    role: watch::Sender<Role>,
    send: Box<dyn FnMut(MemberId, Outgoing) + Send>,
    build_snapshot: Box<dyn Fn() + Send>,
    diverged: Box<dyn Fn(Index) + Send>,
}

impl Thread {
    fn run(&mut self) {
        let tick = Duration::from_millis(DRIVER_TICK_MS);
        let mut events = Vec::new();
        let mut next_tick = self.started;
        loop {
            let lie = Kinds::NONE.and(COMMANDS, self.member.gathers()).and(READS, self.member.reads_wait());
            self.letters.take_but(&mut events, Some(next_tick), lie);
            for event in events.drain(..) {
                match event {
                    Event::Input(input) => self.member.feed(self.now(), input),
                    Event::Ask(question, reply) => {
                        self.asked += 1;
                        let token = Token(self.asked);
                        self.waiting.insert(token, reply);
                        self.member.feed(self.now(), question.input(token));
                    }
                    Event::Stop => {
                        self.pending.stop();
                        self.apply.push_owed(Committed::Stop);
                        return;
                    }
                }
            }
            // Time comes after messages: a process that slept must hear its leader before it misses it.
            if Instant::now() >= next_tick {
                if next_tick.elapsed() >= Duration::from_millis(LEASE_PAUSE_MS) {
                    self.member.feed(self.now(), Input::Paused);
                }
                next_tick = Instant::now() + tick;
                let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let wall_ms = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
                self.member.feed(self.now(), Input::Tick { wall_ms });
            }
            self.settle();
        }
    }

    fn now(&self) -> MonoMillis {
        MonoMillis(u64::try_from(self.started.elapsed().as_millis()).expect("a process does not run for 500 M years"))
    }

    #[cfg(feature = "failpoints")]
    fn leads(&self) -> bool {
        self.role.borrow().kind == mechi_replica::effect::RoleKind::Leader
    }

    fn settle(&mut self) {
        loop {
            let more = self.member.settle(&mut self.effects);
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.perform(effect);
            }
            self.effects = effects;
            if !more {
                self.deliveries.send(std::mem::take(&mut self.answered));
                self.leases_expired.store(self.member.leases_expired(), Relaxed);
                return;
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, message, urgent } => {
                failpoint!(if self.leads(), "send_before_leader", |_| drop(message));
                failpoint!(if !self.leads(), "send_before_follower", |_| drop(message));
                (self.send)(to, Outgoing::Raft { message, urgent });
            }
            Effect::Forward { to, batch } => {
                failpoint!("forward_before_send", |_| (self.send)(to, Outgoing::Batch(batch.slice(..batch.len() - 1))));
                (self.send)(to, Outgoing::Batch(batch));
            }
            Effect::RefuseBatch { to, boot, number, why } => {
                tracing::error!(from = %to, boot, number, why, "a member's batch is refused: it could not be applied");
                (self.send)(to, Outgoing::Refused { boot, number, why });
            }
            Effect::Digest { to, index, chain } => (self.send)(to, Outgoing::Digest { index, chain }),
            Effect::SendSnapshot { to, index, term } => (self.send)(to, Outgoing::Snapshot { index, term }),
            Effect::Persist { ticket, records, sync } => self.wal.persist(ticket, records, sync),
            Effect::Apply(entries) => self.apply.push_owed(Committed::Entries(entries)),
            Effect::Answered { token, answer } => {
                failpoint!(if matches!(answer, Ok(Answer::ReadAt(_))), "readindex_after_confirm");
                let reply = self.waiting.remove(&token).expect("the member answers what it was asked, once");
                self.answered.push(Delivery::Question(reply, answer));
            }
            Effect::Refuse { id, why } | Effect::Unknown { id, why } => self.pending.answer([(id, Err(why))]),
            Effect::Role(role) => {
                tracing::info!(member = %self.id, kind = ?role.kind, term = role.term, leader = ?role.leader,
                    settled = role.settled, "leadership changed");
                self.role.send_replace(role);
            }
            Effect::Judges(term) => tracing::info!(term, "this member judges leases"),
            Effect::BuildSnapshot => (self.build_snapshot)(),
            Effect::Diverged { index } => {
                tracing::error!(index, "what is applied here differs from what a majority of the members has");
                (self.diverged)(index);
            }
        }
    }
}
