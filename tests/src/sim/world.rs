//! The cluster, its clients and its troubles in one queue of events: one seed, one order.

mod clients;
mod disk;
mod members;
mod operator;

use super::chaos::Chaos;
use super::clock::Clock;

use super::ledger::Ledger;
use super::log::EventLog;
use super::machine::{Machine, StoreLoss};
use super::network::{Link, Network};
use super::options::{Options, Span};
use super::plan::Plan;
use super::process::{Act, Process, Wire};
use super::raft_peek::{self, peek};
use super::trace::Trace;
use super::transfer::Fetch;
use super::watcher::{Taken, Watcher};
use super::work::{Ask, Op, Outcome, Work};
use crate::rng::Rng;
use bytes::Bytes;
use mechi_replica::conf::Configuration;
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
    Room { member: u64, life: u64 },
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
    Operate,
    Trip { member: u64, life: u64 },
}

impl Event {
    /// The member in whose process it happens, if it waits while that is stopped.
    fn inside(&self) -> Option<u64> {
        match self {
            Self::Tick { member, .. }
            | Self::Settle { member, .. }
            | Self::Synced { member, .. }
            | Self::Room { member, .. }
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
    /// The log waits for room.
    room: bool,
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
    /// How far faults have moved its wall clock, in milliseconds.
    pub(super) jumped: BTreeMap<u64, i64>,
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
    /// What of it happens.
    pub(super) plan: Plan,
    /// What is drawn of it, if it is.
    pub(super) trace: Option<Box<Trace>>,
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
    operator: Rng,
    /// Whoever first knows the next membership change to be committed ends before it applies it.
    trap: bool,
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
    pub(super) fn new(mut options: Options, plan: &Plan, log: EventLog, traced: bool) -> Self {
        plan.ease(&mut options);
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
                    jumped: BTreeMap::new(),
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
            plan: plan.clone(),
            trace: traced.then(Box::default),
            log,
            ledger: Ledger::new(Configuration::founding((1..=options.members).map(MemberId))),
            nodes,
            network: Network::new(&options, stream(seed, "net")),
            ops: Vec::new(),
            watchers,
            chaos: Chaos::new(&options, plan, stream(seed, "faults")),
            work: Work::new(&options, work),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            disk: stream(seed, "disk"),
            sched: stream(seed, "schedule"),
            client: stream(seed, "client"),
            operator: stream(seed, "operator"),
            trap: false,
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
        if world.options.operator > 0 {
            world.at(election * 4, Event::Operate);
        }
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
            Event::Room { member, life } => self.room(member, life),
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
            Event::Operate => {
                self.operate();
                Ok(())
            }
            Event::Trip { member, life } => self.trip(member, life),
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
            Event::Operate => (24, 0, 0),
            Event::Trip { member, life } => (25, *member, *life),
            Event::Room { member, life } => (26, *member, *life),
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
    /// The process alone, because its disk failed it.
    Broken,
    /// In good order.
    Close,
}

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
