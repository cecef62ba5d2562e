//! The cluster, its clients and its troubles in one queue of events: one seed, one order.

use super::chaos::Chaos;
use super::clock::Clock;

use super::ledger::Ledger;
use super::log::EventLog;
use super::machine::{Machine, StoreLoss};
use super::network::{Link, Network};
use super::options::{Options, Span};
use super::process::{Act, Process, Wire};
use super::raft_peek::{self, peek};
use super::transfer::Fetch;
use super::watcher::{Taken, Watcher};
use super::work::{Ask, Op, Outcome, Work};
use crate::rng::Rng;
use bytes::Bytes;
use mechi_replica::effect::{Role, RoleKind};
use mechi_replica::member::Input;
use mechi_replica::outcome::Error;
use mechi_replica::types::{Index, MemberId, Term};
use mechi_replica::watch::{Input as HubInput, StreamId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Something that will happen.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub(super) enum Event {
    Tick { member: u64, life: u64 },
    Deliver { from: u64, to: u64, wire: Wire },
    Settle { member: u64, life: u64 },
    Synced { member: u64, life: u64 },
    Apply { member: u64, life: u64 },
    Hub { member: u64, life: u64 },
    Keep { member: u64, life: u64 },
    Reset { member: u64, life: u64, of: u64 },
    Unreachable { member: u64, life: u64, to: u64 },
    Taken { member: u64, life: u64, to: u64, ok: bool },
    Start { member: u64, life: u64 },
    Fetch { member: u64, life: u64 },
    Client { client: u64 },
    Request { op: u64 },
    Reply { op: u64, outcome: Outcome },
    Timeout { op: u64 },
    Watch { watcher: usize },
    Connect { watcher: usize },
    WatchMessage { watcher: usize, session: u64, message: Bytes, cost: usize },
    Credit { member: u64, stream: u64, cost: usize },
    Fault,
    FaultEnds { fault: u64 },
}

impl Event {
    /// The member in whose process it happens, if it waits while that is stopped.
    fn inside(&self) -> Option<u64> {
        match self {
            Self::Tick { member, .. }
            | Self::Settle { member, .. }
            | Self::Synced { member, .. }
            | Self::Apply { member, .. }
            | Self::Hub { member, .. }
            | Self::Keep { member, .. }
            | Self::Reset { member, .. }
            | Self::Unreachable { member, .. }
            | Self::Taken { member, .. }
            | Self::Fetch { member, .. }
            | Self::Credit { member, .. } => Some(*member),
            Self::Deliver { to, .. } => Some(*to),
            _ => None,
        }
    }
}

/// Which steps of a process are in the queue.
#[derive(Clone, Copy, Debug, Default)]
struct Queued {
    settle: bool,
    apply: bool,
    hub: bool,
}

/// One member with its machine.
pub(super) struct Node {
    /// What survives the process.
    pub(super) machine: Machine,
    /// The process, if it runs.
    pub(super) process: Option<Process>,
    /// The machine's clocks.
    pub(super) clock: Clock,
    /// Counts processes; events of earlier ones are void.
    pub(super) life: u64,
    /// While the process is stopped: what waits for it.
    pub(super) stopped: Option<Vec<Event>>,
    /// What makes its disk slow now, by fault.
    pub(super) slow: BTreeMap<u64, Span>,
    /// A snapshot on its way here.
    pub(super) fetch: Option<Fetch>,
    /// The last process was closed in good order or killed; the machine did not lose power.
    pub(super) killed: bool,
    queued: Queued,
    /// The newest role that it told.
    pub(super) role: Role,
    /// The applied index that its reads have shown, over all lives.
    pub(super) shown: Index,
}

/// The simulated world.
pub(super) struct World {
    /// What the run is made of.
    pub(super) options: Options,
    /// True time, in microseconds.
    pub(super) now: u64,
    /// All that happened.
    pub(super) log: EventLog,
    /// What must not be contradicted.
    pub(super) ledger: Ledger,
    /// By id, from 1 on.
    pub(super) nodes: BTreeMap<u64, Node>,
    /// Between the members.
    pub(super) network: Network,
    /// By number, from 1 on: place + 1.
    pub(super) ops: Vec<Op>,
    /// The watching clients.
    pub(super) watchers: Vec<Watcher>,
    /// The faults.
    pub(super) chaos: Chaos,
    /// What the clients will ask.
    pub(super) work: Work,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
    disk: Rng,
    sched: Rng,
    client: Rng,
    streams: u64,
    /// Clients issue operations and watchers move about.
    pub(super) busy: bool,
    think: Span,
    timeout: u64,
    /// When each settled leader was first seen, with its term.
    pub(super) led: Vec<(u64, u64, Term)>,
    acts: Vec<Act>,
    /// Snapshots that were installed from another member.
    pub(super) installs: u64,
    /// Stores that were rebuilt at open.
    pub(super) rebuilds: u64,
    /// How long healing took, in microseconds.
    pub(super) healed: u64,
}

fn stream(seed: u64, name: &str) -> Rng {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // One draw apart, so that neighbouring seeds share nothing.
    Rng::new(Rng::new(seed ^ hash).next_u64())
}

impl World {
    /// A cluster whose members start now.
    pub(super) fn new(options: Options, log: EventLog) -> Self {
        let seed = options.seed;
        let mut work = stream(seed, "work");
        let mut clock = stream(seed, "clock");
        let watchers = (0..options.watchers).map(|_| Watcher::new(&mut work, options.keys)).collect();
        let nodes = (1..=options.members)
            .map(|id| {
                let rate = 1_000_000 - options.skew + clock.below(2 * options.skew + 1);
                let node = Node {
                    machine: Machine::new(),
                    process: None,
                    clock: Clock::new(rate),
                    life: 0,
                    stopped: None,
                    slow: BTreeMap::new(),
                    fetch: None,
                    killed: true,
                    queued: Queued::default(),
                    role: Role::default(),
                    shown: 0,
                };
                (id, node)
            })
            .collect();
        let election = options.election_us();
        // So that the faults, two election timeouts apart, and the operations end at about the same time.
        let length = options.faults * election * 2;
        let think = length * options.clients / options.operations;
        let mut world = Self {
            now: 0,
            log,
            ledger: Ledger::default(),
            nodes,
            network: Network::new(&options, stream(seed, "net")),
            ops: Vec::new(),
            watchers,
            chaos: Chaos::new(&options, stream(seed, "faults")),
            work: Work::new(&options, work),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            disk: stream(seed, "disk"),
            sched: stream(seed, "schedule"),
            client: stream(seed, "client"),
            streams: 0,
            busy: true,
            think: Span { min: think / 8, max: think },
            timeout: election * 4,
            led: Vec::new(),
            acts: Vec::new(),
            installs: 0,
            rebuilds: 0,
            healed: 0,
            options,
        };
        for member in 1..=world.options.members {
            let at = world.sched.below(election / 2);
            world.at(at, Event::Start { member, life: 0 });
        }
        for client in 0..world.options.clients {
            let at = election * 2 + world.client.below(election);
            world.at(at, Event::Client { client });
        }
        for watcher in 0..world.watchers.len() {
            let at = world.client.below(election * 2);
            world.at(at, Event::Watch { watcher });
        }
        world.at(election * 3, Event::Fault);
        world
    }

    /// Lets something happen at a time.
    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at.max(self.now), self.sequence)));
        self.events.insert(self.sequence, event);
    }

    /// Lets something happen after so many microseconds.
    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Takes back what a member has sent and nobody received.
    pub(super) fn drop_sent(&mut self, member: u64) {
        self.events.retain(|_, event| !matches!(event, Event::Deliver { from, .. } if *from == member));
    }

    /// Runs until `until`, or the next event beyond it.
    pub(super) fn run(&mut self, until: u64) -> Result<(), String> {
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > until {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some(event) = self.events.remove(&number) {
                self.happen(event)?;
            }
        }
        self.now = self.now.max(until);
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        if let Some(member) = event.inside()
            && let Some(held) = self.nodes.get_mut(&member).and_then(|node| node.stopped.as_mut())
        {
            held.push(event);
            return Ok(());
        }
        self.note(&event);
        match event {
            Event::Tick { member, life } => self.tick(member, life),
            Event::Deliver { from, to, wire } => self.deliver(from, to, wire),
            Event::Settle { member, life } => {
                if self.is_alive(member, life) {
                    self.node(member).queued.settle = false;
                }
                self.inside(member, life, |_, _, _, _| Ok(()))
            }
            Event::Synced { member, life } => self.synced(member, life),
            Event::Apply { member, life } => self.apply(member, life),
            Event::Hub { member, life } => self.hub(member, life),
            Event::Keep { member, life } => self.keep(member, life),
            Event::Reset { member, life, of } => self.inside(member, life, |process, clock, _, _| {
                process.feed(clock, Input::Reset(MemberId(of)));
                Ok(())
            }),
            Event::Unreachable { member, life, to } => self.inside(member, life, |process, clock, _, _| {
                process.feed(clock, Input::Unreachable(MemberId(to)));
                Ok(())
            }),
            Event::Taken { member, life, to, ok } => self.inside(member, life, |process, clock, _, _| {
                process.feed(clock, Input::SnapshotSent { to: MemberId(to), ok });
                Ok(())
            }),
            Event::Start { member, life } => self.start(member, life),
            Event::Fetch { member, life } => self.fetch(member, life),
            Event::Client { client } => self.client(client),
            Event::Request { op } => self.request(op),
            Event::Reply { op, outcome } => self.reply(op, outcome),
            Event::Timeout { op } => self.reply(op, Outcome::Unknown),
            Event::Watch { watcher } => {
                self.watch(watcher);
                Ok(())
            }
            Event::Connect { watcher } => {
                self.connect(watcher);
                Ok(())
            }
            Event::WatchMessage { watcher, session, message, cost } => {
                self.watch_message(watcher, session, &message, cost)
            }
            Event::Credit { member, stream, cost } => {
                if let Some(process) = &mut self.node(member).process {
                    process.tell_hub(HubInput::Credit(StreamId(stream), cost));
                    self.want_hub(member);
                }
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::FaultEnds { fault } => self.fault_ends(fault),
        }
    }

    fn note(&mut self, event: &Event) {
        let (kind, a, b) = match event {
            Event::Tick { member, life } => (1, *member, *life),
            Event::Deliver { from, to, wire } => match wire {
                Wire::Raft(bytes) | Wire::Batch(bytes) => (2, from << 8 | to, bytes.len() as u64),
                _ => (3, from << 8 | to, 0),
            },
            Event::Settle { member, life } => (4, *member, *life),
            Event::Synced { member, life } => (5, *member, *life),
            Event::Apply { member, life } => (6, *member, *life),
            Event::Hub { member, life } => (7, *member, *life),
            Event::Keep { member, life } => (8, *member, *life),
            Event::Reset { member, of, .. } => (9, *member, *of),
            Event::Unreachable { member, to, .. } => (10, *member, *to),
            Event::Taken { member, to, ok, .. } => (11, member << 8 | to, u64::from(*ok)),
            Event::Start { member, life } => (12, *member, *life),
            Event::Fetch { member, life } => (13, *member, *life),
            Event::Client { client } => (14, *client, 0),
            Event::Request { op } => (15, *op, 0),
            Event::Reply { op, outcome } => (16, *op, u64::from(outcome.is_ok())),
            Event::Timeout { op } => (17, *op, 0),
            Event::Watch { watcher } => (18, *watcher as u64, 0),
            Event::WatchMessage { watcher, session, message, .. } => {
                (19, *watcher as u64 | session << 8, message.len() as u64)
            }
            Event::Credit { member, stream, .. } => (20, *member, *stream),
            Event::Connect { watcher } => (23, *watcher as u64, 0),
            Event::Fault => (21, 0, 0),
            Event::FaultEnds { fault } => (22, *fault, 0),
        };
        self.log.event(self.now, &[kind, a, b], || show(event));
    }

    /// A member by its id.
    pub(super) fn node(&mut self, member: u64) -> &mut Node {
        self.nodes.get_mut(&member).expect("a member of this cluster")
    }

    /// Whether this very process runs.
    pub(super) fn is_alive(&self, member: u64, life: u64) -> bool {
        self.nodes.get(&member).is_some_and(|node| node.life == life && node.process.is_some())
    }

    /// Does something inside a process, and what follows from it.
    fn inside(
        &mut self,
        member: u64,
        life: u64,
        body: impl FnOnce(&mut Process, mechi_replica::types::MonoMillis, &mut Vec<Act>, &mut Ledger) -> Result<(), String>,
    ) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        let mut acts = std::mem::take(&mut self.acts);
        let now = self.now;
        let node = self.nodes.get_mut(&member).expect("it is alive");
        let clock = node.clock.mono(now);
        let process = node.process.as_mut().expect("it is alive");
        body(process, clock, &mut acts, &mut self.ledger)?;
        // Whatever arrives until the settle shares it.
        let settles = !node.queued.settle;
        let done =
            if settles && self.sched.chance(60) { process.settle(clock, &mut acts).map(|()| true) } else { Ok(false) };
        let settled = done?;
        if !settled && settles {
            node.queued.settle = true;
            let delay = self.sched.below(150);
            self.after(delay, Event::Settle { member, life });
        }
        for act in acts.drain(..) {
            self.act(member, act)?;
        }
        self.acts = acts;
        self.begin_write(member, life)?;
        let node = self.node(member);
        if let Some(process) = &node.process
            && process.wants_apply()
            && !node.queued.apply
        {
            node.queued.apply = true;
            let delay = self.options.apply.draw(&mut self.sched);
            self.after(delay, Event::Apply { member, life });
        }
        Ok(())
    }

    fn act(&mut self, member: u64, act: Act) -> Result<(), String> {
        match act {
            Act::Send { to, wire } => self.send(member, to, wire),
            Act::Reply { op, outcome } => {
                if let Outcome::Read { at, .. } = &outcome {
                    let node = self.node(member);
                    if *at < node.shown {
                        return Err(format!("K3: {member} shows index {at} after {}", node.shown));
                    }
                    node.shown = *at;
                }
                let delay = self.network.delay();
                self.after(delay, Event::Reply { op, outcome });
                Ok(())
            }
            Act::Watch { stream, message, cost } => {
                let found = self.watchers.iter().position(|watcher| watcher.stream == Some((stream, member)));
                if let Some(watcher) = found {
                    let session = self.watchers[watcher].session;
                    let delay = self.options.latency.min;
                    self.after(delay, Event::WatchMessage { watcher, session, message, cost });
                }
                Ok(())
            }
            Act::Role(role) => {
                self.log
                    .event(self.now, &[30, member, role.term, role.kind as u64], || format!("  {member} is {role:?}"));
                let node = self.nodes.get_mut(&member).expect("it acts");
                if role.term < node.role.term {
                    return Err(format!("R7: {member} went from term {} to {}", node.role.term, role.term));
                }
                node.role = role;
                if role.kind == RoleKind::Leader {
                    self.ledger.leads(member, role.term, &node.machine.shadow.asked)?;
                    if role.settled {
                        self.led.push((self.now, member, role.term));
                    }
                }
                Ok(())
            }
            Act::Asked(records) => {
                for record in &records {
                    if let mechi_replica::wal::record::Record::Entry(entry) = record {
                        self.ledger.appends(member, entry)?;
                    }
                }
                self.node(member).machine.shadow.ask(&records);
                self.spring(member, &records);
                Ok(())
            }
            Act::Committed(entries) => {
                let term = self.nodes[&member].process.as_ref().map_or(0, |process| process.role().term);
                for entry in &entries {
                    let own = &self.nodes[&member].machine.shadow.durable;
                    if own.term(entry.index) != entry.term {
                        return Err(format!("R9: {member} applies entry {}, which is not durable there", entry.index));
                    }
                    let logs = self.nodes.values().map(|node| &node.machine.shadow.durable);
                    self.ledger.commits((member, term), self.now, entry, logs)?;
                }
                Ok(())
            }
            Act::Offer { to, index, term } => {
                self.offer(member, to, index, term);
                Ok(())
            }
            Act::Diverged(index) => Err(format!("A6: {member} says that it differs at index {index}")),
        }
    }

    /// Checks what a message promises, and gives it to the network.
    fn send(&mut self, from: u64, to: u64, wire: Wire) -> Result<(), String> {
        if let Wire::Raft(bytes) = &wire {
            let message = peek(bytes).ok_or("a raft message that cannot be read")?;
            let durable = &self.nodes[&from].machine.shadow.durable;
            let (term, hard_state) = (message.term, durable.hard_state);
            let voted =
                |candidate: u64| hard_state.term > term || (hard_state.term, hard_state.vote) == (term, candidate);
            match message.kind {
                raft_peek::REQUEST_VOTE_RESPONSE if !message.reject => {
                    if !voted(to) {
                        return Err(format!("R8: {from} votes for {to} in term {term} before that is durable"));
                    }
                    self.ledger.votes(from, term, to)?;
                }
                raft_peek::REQUEST_VOTE => {
                    if !voted(from) {
                        return Err(format!("R8: {from} asks for votes in term {term} before its own is durable"));
                    }
                    self.ledger.votes(from, term, from)?;
                }
                raft_peek::APPEND if hard_state.term < term => {
                    return Err(format!("R8: {from} leads in term {term} before that is durable"));
                }
                raft_peek::APPEND_RESPONSE if !message.reject && message.index > durable.last() => {
                    return Err(format!(
                        "R6: {from} acknowledges entry {} while its durable log ends at {}",
                        message.index,
                        durable.last()
                    ));
                }
                _ => {}
            }
        }
        let fate = self.network.send(self.now, Link { from, to });
        if let Some(fault) = fate.by {
            self.chaos.had_effect(fault);
        }
        if fate.arrivals.is_empty() && self.sched.chance(10) {
            let life = self.nodes[&from].life;
            let delay = self.network.delay();
            self.after(delay, Event::Unreachable { member: from, life, to });
        }
        for at in fate.arrivals {
            self.at(at, Event::Deliver { from, to, wire: wire.clone() });
        }
        Ok(())
    }

    fn deliver(&mut self, from: u64, to: u64, wire: Wire) -> Result<(), String> {
        let life = self.nodes[&to].life;
        self.inside(to, life, |process, clock, acts, _| {
            process.receive(clock, from, wire, acts);
            Ok(())
        })
    }

    fn tick(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        let wall_ms = self.nodes[&member].clock.wall_ms(self.now);
        self.inside(member, life, |process, clock, _, _| {
            process.feed(clock, Input::Tick { wall_ms });
            process.tell_hub(HubInput::Tick(clock));
            Ok(())
        })?;
        let own = self.options.tick_ms * 1_000 / TICKS_PER_RAFT_TICK;
        let delay = self.nodes[&member].clock.true_us(own) + self.sched.below(own / 8 + 1);
        self.after(delay, Event::Tick { member, life });
        Ok(())
    }

    fn begin_write(&mut self, member: u64, life: u64) -> Result<(), String> {
        let node = self.nodes.get_mut(&member).expect("a member");
        let Some(process) = node.process.as_mut().filter(|process| process.wants_write()) else { return Ok(()) };
        let (sync, records) = process.begin_write()?;
        node.machine.shadow.write(&records);
        if !sync {
            return Ok(());
        }
        let mut delay = self.options.fsync.draw(&mut self.disk);
        for (fault, slow) in &node.slow {
            delay += slow.draw(&mut self.disk);
            self.chaos.had_effect(*fault);
        }
        self.after(delay, Event::Synced { member, life });
        Ok(())
    }

    fn synced(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        // First the log, then the record of it: what the mutants skip must not be noted.
        self.node(member).machine.shadow.sync();
        self.inside(member, life, |process, clock, _, _| process.end_write(clock))
    }

    fn apply(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        self.node(member).queued.apply = false;
        let (now, count) = (self.now, 1 + self.sched.below(8));
        self.inside(member, life, |process, clock, acts, ledger| process.apply(clock, now, count, ledger, acts))?;
        self.want_hub(member);
        Ok(())
    }

    /// Lets the watches of a member be stepped soon.
    pub(super) fn want_hub(&mut self, member: u64) {
        let node = self.node(member);
        let life = node.life;
        if node.process.as_ref().is_some_and(|process| process.hub.has_work()) && !node.queued.hub {
            node.queued.hub = true;
            let delay = self.sched.below(300);
            self.after(delay, Event::Hub { member, life });
        }
    }

    fn hub(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        self.node(member).queued.hub = false;
        let mut acts = Vec::new();
        self.node(member).process.as_mut().expect("it is alive").watch(&mut acts)?;
        for act in acts {
            self.act(member, act)?;
        }
        self.want_hub(member);
        Ok(())
    }

    fn keep(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        let more = self.node(member).process.as_mut().expect("it is alive").keep()?;
        self.begin_write(member, life)?;
        let tick = self.options.tick_ms * 1_000;
        let delay = if more { self.disk.below(tick / 4) } else { tick + self.disk.below(2 * tick) };
        self.after(delay, Event::Keep { member, life });
        Ok(())
    }

    fn start(&mut self, member: u64, life: u64) -> Result<(), String> {
        let now = self.now;
        let node = self.nodes.get_mut(&member).expect("a member");
        if node.process.is_some() || node.life != life {
            return Ok(());
        }
        let opened = Process::open(member, &mut node.machine, &self.options, &mut self.ledger, now, node.killed)
            .map_err(|error| format!("{member} does not open: {error}"))?;
        node.life += 1;
        node.killed = true;
        node.clock.start(now);
        node.queued = Queued::default();
        let durable = node.machine.shadow.durable.hard_state.term;
        if durable < node.role.term && node.role.kind == RoleKind::Leader && node.role.settled {
            return Err(format!("R7: {member} led in term {} and is back in term {durable}", node.role.term));
        }
        node.role = Role::default();
        let (boot, replayed) = (opened.process.boot, opened.replayed);
        self.rebuilds += u64::from(opened.rebuilt.is_some());
        self.log.event(now, &[31, member, boot, replayed], || {
            format!("  {member} is open: boot {boot}, replayed {replayed}, store rebuilt {:?}", opened.rebuilt)
        });
        let life = node.life;
        node.process = Some(opened.process);
        self.after(0, Event::Tick { member, life });
        let delay = self.disk.below(self.options.tick_ms * 1_000);
        self.after(delay, Event::Keep { member, life });
        Ok(())
    }

    /// Ends a process; its clients and peers see their connections break.
    pub(super) fn stop(&mut self, member: u64, how: End) -> Result<(), String> {
        let rng = &mut self.disk;
        let node = self.nodes.get_mut(&member).expect("a member");
        let Some(process) = node.process.take() else { return Ok(()) };
        node.stopped = None;
        let fetch = node.fetch.take();
        node.killed = true;
        match how {
            End::Kill(loss) => {
                drop(process);
                node.machine.kill(loss, rng);
            }
            End::PowerCut(loss) => {
                drop(process);
                node.machine.power_cut(loss, rng);
                node.killed = false;
            }
            End::Close => process.close(&mut node.machine)?,
        }
        node.life += 1;
        self.log.event(self.now, &[32, member], || format!("  {member} ends: {how:?}"));
        for op in 1..=self.ops.len() as u64 {
            let found = &self.ops[op as usize - 1];
            if found.member == member && found.outcome.is_none() {
                let delay = self.network.delay();
                self.after(delay, Event::Reply { op, outcome: Outcome::Unknown });
            }
        }
        for watcher in 0..self.watchers.len() {
            if self.watchers[watcher].stream.is_some_and(|(_, on)| on == member) {
                self.watchers[watcher].stream = None;
                let delay = self.network.delay() * 4;
                self.after(delay, Event::Connect { watcher });
            }
        }
        let others: Vec<(u64, u64)> =
            self.nodes.iter().filter(|(id, _)| **id != member).map(|(id, node)| (*id, node.life)).collect();
        for (other, life) in others {
            // Over a link that is cut nobody hears of it.
            if !self.network.is_cut(Link { from: member, to: other }) && self.sched.chance(80) {
                let delay = self.network.delay();
                self.after(delay, Event::Reset { member: other, life, of: member });
            }
        }
        if let Some(fetch) = fetch {
            let delay = self.network.delay();
            self.after(delay, Event::Taken { member: fetch.from, life: fetch.life, to: member, ok: false });
        }
        Ok(())
    }

    /// Stops a process as SIGSTOP does.
    pub(super) fn pause(&mut self, member: u64) {
        let node = self.node(member);
        if node.process.is_some() && node.stopped.is_none() {
            node.stopped = Some(Vec::new());
        }
    }

    /// Lets it go on: what waited comes at once, time last.
    pub(super) fn resume(&mut self, member: u64) {
        let Some(held) = self.node(member).stopped.take() else { return };
        let (ticks, others): (Vec<Event>, Vec<Event>) =
            held.into_iter().partition(|event| matches!(event, Event::Tick { .. }));
        for event in others.into_iter().chain(ticks) {
            self.after(0, event);
        }
    }

    fn client(&mut self, client: u64) -> Result<(), String> {
        if !self.busy {
            return Ok(());
        }
        let op = self.ops.len() as u64 + 1;
        let member = self.choose_member();
        let ask = self.work.next(op);
        self.issue(client, member, ask);
        Ok(())
    }

    /// Mostly a member that runs, as clients leave out those that refuse their connections.
    fn choose_member(&mut self) -> u64 {
        let all: Vec<u64> = self.nodes.keys().copied().collect();
        let up: Vec<u64> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.process.is_some() && node.stopped.is_none())
            .map(|(id, _)| *id)
            .collect();
        let (any, choice) = (self.client.chance(5), self.client.next_u64());
        let from = if any || up.is_empty() { &all } else { &up };
        from[(choice % from.len() as u64) as usize]
    }

    /// Sends a client's request; returns the operation's number.
    pub(super) fn issue(&mut self, client: u64, member: u64, ask: Ask) -> u64 {
        self.ops.push(Op { client, member, ask, invoked: self.now, returned: None, outcome: None });
        let op = self.ops.len() as u64;
        let delay = self.network.delay();
        self.after(delay, Event::Request { op });
        self.after(self.timeout, Event::Timeout { op });
        op
    }

    fn request(&mut self, op: u64) -> Result<(), String> {
        let found = &self.ops[op as usize - 1];
        let (member, ask, settled) = (found.member, found.ask.clone(), found.outcome.is_some());
        let node = self.node(member);
        if let Some(held) = &mut node.stopped {
            // It waits in the connection, as long as the client does.
            held.push(Event::Request { op });
            return Ok(());
        }
        if settled {
            return Ok(());
        }
        let life = node.life;
        if node.process.is_none() {
            return self.reply(op, Outcome::Refused(Error::Stopped));
        }
        self.inside(member, life, |process, clock, acts, _| process.request(clock, op, ask, acts))
    }

    fn reply(&mut self, op: u64, outcome: Outcome) -> Result<(), String> {
        let now = self.now;
        let found = &mut self.ops[op as usize - 1];
        if found.outcome.is_some() {
            return Ok(());
        }
        self.work.heard(&found.ask, &outcome);
        self.log.event(now, &[33, op, u64::from(outcome.is_ok())], || {
            format!("  op {op} of client {} at {}: {:?} -> {outcome:?}", found.client, found.member, found.ask)
        });
        // Who gave up has not heard: whatever comes later happened after it gave up.
        found.returned = (outcome != Outcome::Unknown).then_some(now);
        found.outcome = Some(outcome);
        let client = found.client;
        if self.busy {
            // Who was refused waits before the next attempt, as well-behaved clients do.
            let patience = match &found.outcome {
                Some(Outcome::Refused(Error::Stopped)) => self.options.election_us() / 2,
                Some(outcome) if !outcome.is_ok() => 2 * self.think.max,
                _ => 0,
            };
            let delay = patience + self.think.draw(&mut self.client);
            self.after(delay, Event::Client { client });
        }
        Ok(())
    }

    fn watch(&mut self, watcher: usize) {
        // A watcher's life: connect, ask for progress now and then, stall, move on.
        let again = self.options.election_us() / 2 + self.client.below(self.options.election_us() * 3);
        let choice = self.client.below(10);
        self.after(again, Event::Watch { watcher });
        let Some((stream, member)) = self.watchers[watcher].stream else { return self.connect(watcher) };
        match choice {
            0..=1 if self.busy => {
                self.watchers[watcher].stream = None;
                if let Some(process) = &mut self.node(member).process {
                    process.close_stream(stream);
                }
                self.connect(watcher);
            }
            2..=3 if self.busy => self.watchers[watcher].stalled = true,
            _ => {
                let owed = std::mem::take(&mut self.watchers[watcher].owed);
                self.watchers[watcher].stalled = false;
                if owed > 0 {
                    self.after(0, Event::Credit { member, stream, cost: owed });
                }
                if let Some(process) = &mut self.node(member).process {
                    process.tell_hub(HubInput::Request(StreamId(stream), Watcher::ask_progress()));
                    self.want_hub(member);
                }
            }
        }
    }

    fn connect(&mut self, watcher: usize) {
        if self.watchers[watcher].stream.is_some() {
            return;
        }
        let (member, after_event) = (self.choose_member(), self.client.chance(50));
        if self.nodes[&member].process.is_none() || self.nodes[&member].stopped.is_some() {
            return;
        }
        self.streams += 1;
        let stream = self.streams;
        let request = self.watchers[watcher].begin(stream, member, after_event);
        let process = self.node(member).process.as_mut().expect("it was there above");
        process.tell_hub(HubInput::Open(StreamId(stream)));
        process.tell_hub(HubInput::Request(StreamId(stream), request));
        self.want_hub(member);
    }

    fn watch_message(&mut self, watcher: usize, session: u64, message: &Bytes, cost: usize) -> Result<(), String> {
        let found = &mut self.watchers[watcher];
        let Some((stream, member)) = found.stream.filter(|_| found.session == session) else { return Ok(()) };
        let taken = found.take(message).map_err(|error| format!("watcher {watcher} at {member}: {error}"))?;
        if found.stalled {
            found.owed += cost;
        } else {
            let delay = self.options.latency.min;
            self.after(delay, Event::Credit { member, stream, cost });
        }
        if taken == Taken::Canceled {
            if let Some(process) = &mut self.node(member).process {
                process.close_stream(stream);
            }
            let delay = self.network.delay();
            self.after(delay, Event::Connect { watcher });
        }
        Ok(())
    }

    /// The member that leads by its own account, with the highest term.
    pub(super) fn leader(&self) -> Option<u64> {
        let leads = |node: &&Node| node.process.is_some() && node.role.kind == RoleKind::Leader;
        let found = self.nodes.iter().filter(|(_, node)| leads(node)).max_by_key(|(_, node)| node.role.term);
        found.map(|(id, _)| *id)
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process alone.
    Kill(StoreLoss),
    /// The machine with it.
    PowerCut(StoreLoss),
    /// In good order.
    Close,
}

/// The driver's own ticks in one of raft's.
const TICKS_PER_RAFT_TICK: u64 = 2;

fn show(event: &Event) -> String {
    match event {
        Event::Deliver { from, to, wire: Wire::Raft(bytes) } => {
            format!("{from} -> {to}: raft {:?}", peek(bytes).unwrap_or_default())
        }
        Event::Deliver { from, to, wire } => format!("{from} -> {to}: {wire:?}"),
        Event::WatchMessage { watcher, message, .. } => format!("watcher {watcher}: {} bytes", message.len()),
        other => format!("{other:?}"),
    }
}
