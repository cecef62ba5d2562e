//! Several replicas in one thread, with a network, disks and state machines that do only what they are told.

use mechi_proto::etcdserverpb::PutRequest;
use mechi_proto::mechipb::{Command, command::Request};
use mechi_replica::command::{decode, encode};
use mechi_replica::conf::{Configuration, Move, Moved, Step};
use mechi_replica::effect::{Effect, Entry, HardState};
use mechi_replica::input::{Input, ReadId, Ticket};
use mechi_replica::limits::LOG_MEMORY_BYTES_MAX;
use mechi_replica::replica::{LogTail, Replica, ReplicaConfig};
use mechi_replica::types::{Index, MemberId, MonoMillis, Term};
use mechi_replica::wal::record::Record;
use protobuf::Message as _;
use raft::eraftpb::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

/// Milliseconds per raft tick; an election timeout is ten ticks.
pub(crate) const TICK_MS: u64 = 100;

/// One member with what would be its disk and its state machine.
pub(crate) struct Member {
    replica: Replica,
    /// Handed out and not yet durable.
    writes: VecDeque<(Ticket, Vec<Record>, bool)>,
    /// What survives a crash.
    disk: Vec<Record>,
    /// Handed out and not yet applied.
    committed: VecDeque<Entry>,
    applied: Index,
    /// The configuration as it is applied.
    conf: Configuration,
    boot: u64,
    /// The snapshot that it started from: index and term.
    base: (Index, Term),
    /// Its disk finishes nothing.
    stalled: bool,
}

/// The cluster under test.
pub(crate) struct Net {
    seed: u64,
    now: MonoMillis,
    pub(crate) members: BTreeMap<u64, Member>,
    /// In flight, oldest first: (from, to, bytes).
    pub(crate) flight: VecDeque<(u64, u64, bytes::Bytes)>,
    /// Batches on their way to a leader: (from, to, bytes).
    pub(crate) forwarded: VecDeque<(u64, u64, bytes::Bytes)>,
    /// Refusals of such on their way back: (to, boot, number).
    refused: Vec<(u64, u64, u64)>,
    isolated: BTreeSet<u64>,
    /// The configuration from each index on at which somebody applied a change: what a snapshot would hold.
    confs: BTreeMap<Index, Configuration>,
    commands: u64,
    reads: u64,
    /// Every effect since the last [`Net::take_text`].
    text: String,
    /// Whether messages and writes are part of the text.
    pub(crate) verbose: bool,
}

impl Net {
    pub(crate) fn new(count: u64, seed: u64) -> Self {
        let mut net = Self {
            seed,
            now: MonoMillis(1_000),
            members: BTreeMap::new(),
            flight: VecDeque::new(),
            forwarded: VecDeque::new(),
            refused: Vec::new(),
            isolated: BTreeSet::new(),
            confs: BTreeMap::from([(0, Configuration::founding((1..=count).map(MemberId)))]),
            commands: 0,
            reads: 0,
            text: String::new(),
            verbose: true,
        };
        for id in 1..=count {
            let member = net.start(id, Vec::new(), 1, (0, 0));
            net.members.insert(id, member);
        }
        net
    }

    fn start(&self, id: u64, disk: Vec<Record>, boot: u64, base: (Index, Term)) -> Member {
        let mut tail = LogTail { before: base, ..LogTail::default() };
        for record in &disk {
            match record {
                Record::Entry(entry) => {
                    tail.entries.retain(|kept| kept.index < entry.index);
                    tail.entries.push(entry.clone());
                }
                Record::HardState(state) => tail.hard_state = *state,
                _ => {}
            }
        }
        let conf = self.confs.range(..=base.0).next_back().expect("the first stands at 0").1.clone();
        let config = ReplicaConfig {
            member: MemberId(id),
            conf: conf.clone(),
            boot,
            seed: self.seed,
            tick_ms: TICK_MS,
            heartbeat_ticks: 1,
            election_ticks: 10,
            log_memory_bytes: LOG_MEMORY_BYTES_MAX,
        };
        tail.hard_state.commit = tail.hard_state.commit.max(base.0);
        let mut replica = Replica::new(config, tail, base.0).expect("a disk that was written in order");
        replica.feed(Input::Tick { now: self.now, wall_ms: 0 });
        Member {
            replica,
            writes: VecDeque::new(),
            disk,
            committed: VecDeque::new(),
            applied: base.0,
            conf,
            boot,
            base,
            stalled: false,
        }
    }

    /// Ends a member's process and starts it from what was durable; what it had applied is gone.
    pub(crate) fn crash(&mut self, id: u64) {
        let old = self.members.remove(&id).expect("a member of this cluster");
        self.flight.retain(|(from, to, _)| *from != id && *to != id);
        self.forwarded.retain(|(from, to, _)| *from != id && *to != id);
        let member = self.start(id, old.disk, old.boot + 1, old.base);
        self.members.insert(id, member);
    }

    /// Stops a member and starts it from a snapshot that it has fetched; its log begins there.
    pub(crate) fn install(&mut self, id: u64, index: Index, term: Term) {
        let old = self.members.remove(&id).expect("a member of this cluster");
        let disk = old.disk.into_iter().filter(|record| matches!(record, Record::HardState(_))).collect();
        let member = self.start(id, disk, old.boot + 1, (index, term));
        self.members.insert(id, member);
    }

    /// Tells a member that it has a new snapshot.
    pub(crate) fn snapshot_made(&mut self, id: u64, index: Index, term: Term) {
        self.feed(id, Input::SnapshotMade { index, term });
    }

    /// Tells a member what became of a snapshot that it offered.
    pub(crate) fn snapshot_sent(&mut self, id: u64, to: u64, ok: bool) {
        self.feed(id, Input::SnapshotSent { to: MemberId(to), ok });
    }

    /// Ends a member's process: nothing goes in or out, and all others see its connections break.
    pub(crate) fn lose(&mut self, id: u64) {
        self.isolate(id);
        for other in self.members.keys().copied().filter(|other| *other != id).collect::<Vec<_>>() {
            self.feed(other, Input::Reset(MemberId(id)));
        }
    }

    /// Lets a member see a connection to another one break.
    pub(crate) fn reset(&mut self, id: u64, peer: u64) {
        self.feed(id, Input::Reset(MemberId(peer)));
    }

    /// Lets a member's disk finish nothing more, or go on.
    pub(crate) fn stall(&mut self, id: u64, stalled: bool) {
        self.members.get_mut(&id).expect("a member of this cluster").stalled = stalled;
    }

    /// Lets `ms` pass, everything running smoothly in steps of one: a message takes one, a write another.
    pub(crate) fn wait(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = MonoMillis(self.now.0 + 1);
            for member in self.members.values_mut() {
                member.replica.feed(Input::Tick { now: self.now, wall_ms: 0 });
            }
            self.settle();
            self.deliver();
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                self.persist(id, usize::MAX);
                self.apply(id);
            }
        }
    }

    pub(crate) fn take_text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    pub(crate) fn tick(&mut self, ticks: u64, only: Option<u64>) {
        for _ in 0..ticks {
            self.now = MonoMillis(self.now.0 + TICK_MS);
            for (id, member) in &mut self.members {
                if only.is_none_or(|only| only == *id) {
                    member.replica.feed(Input::Tick { now: self.now, wall_ms: 0 });
                }
            }
        }
    }

    fn feed(&mut self, id: u64, input: Input) {
        self.members.get_mut(&id).expect("a member of this cluster").replica.feed(input);
    }

    /// Proposes a put; returns the command's id.
    pub(crate) fn put(&mut self, id: u64, value_bytes: usize) -> u64 {
        self.commands += 1;
        let put = PutRequest { key: "k".into(), value: vec![0; value_bytes].into(), ..Default::default() };
        let command = Command { id: self.commands, request: Some(Request::Put(put)), ..Default::default() };
        self.feed(id, Input::Propose(command));
        self.commands
    }

    /// Proposes a membership change; returns its id.
    pub(crate) fn configure(&mut self, id: u64, steps: Vec<Step>) -> u64 {
        self.commands += 1;
        let change = self.commands;
        self.feed(id, Input::Configure { id: change, steps });
        change
    }

    pub(crate) fn read(&mut self, id: u64) -> u64 {
        self.reads += 1;
        self.feed(id, Input::Read(ReadId(self.reads)));
        self.reads
    }

    pub(crate) fn transfer(&mut self, id: u64, to: u64) {
        self.feed(id, Input::Transfer(MemberId(to)));
    }

    pub(crate) fn isolate(&mut self, id: u64) {
        self.isolated.insert(id);
        self.flight.retain(|(from, to, _)| *from != id && *to != id);
        self.forwarded.retain(|(from, to, _)| *from != id && *to != id);
    }

    pub(crate) fn heal(&mut self) {
        self.isolated.clear();
    }

    /// Settles every member until nothing is left; returns whether there were effects.
    pub(crate) fn settle(&mut self) -> bool {
        let mut any = false;
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            loop {
                let mut effects = Vec::new();
                let more = self.members.get_mut(&id).expect("just listed").replica.settle(&mut effects);
                let persists = effects.iter().filter(|effect| matches!(effect, Effect::Persist { .. })).count();
                assert!(persists <= 1, "at most one write per settle");
                any |= !effects.is_empty();
                for effect in effects {
                    self.perform(id, effect);
                }
                if !more {
                    break;
                }
            }
        }
        any
    }

    fn perform(&mut self, id: u64, effect: Effect) {
        let shown = show(&effect);
        let inner = matches!(effect, Effect::Send { .. } | Effect::Persist { .. });
        if self.verbose || !inner {
            writeln!(self.text, "{id}: {shown}").expect("a string takes any text");
        }
        let member = self.members.get_mut(&id).expect("an effect of a member");
        match effect {
            Effect::Send { to, .. } if self.isolated.contains(&id) || self.isolated.contains(&to.0) => {}
            Effect::Send { to, message, .. } => self.flight.push_back((id, to.0, message)),
            Effect::Forward { to, .. } if self.isolated.contains(&id) || self.isolated.contains(&to.0) => {}
            Effect::Forward { to, batch } => self.forwarded.push_back((id, to.0, batch)),
            Effect::RefuseBatch { to, boot, number, .. } => self.refused.push((to.0, boot, number)),
            Effect::Persist { ticket, records, sync } => member.writes.push_back((ticket, records, sync)),
            Effect::Apply(entries) => member.committed.extend(entries),
            _ => {}
        }
    }

    /// Makes a member's writes durable, at most `count` of those that somebody waits for; returns how many.
    pub(crate) fn persist(&mut self, id: u64, count: usize) -> usize {
        let member = self.members.get_mut(&id).expect("a member of this cluster");
        let count = if member.stalled { 0 } else { count };
        let mut durable = 0;
        while durable < count
            && let Some((ticket, records, sync)) = member.writes.pop_front()
        {
            member.disk.extend(records);
            if sync {
                member.replica.feed(Input::Persisted(ticket));
                durable += 1;
            }
        }
        durable
    }

    /// Applies what a member was handed; returns how many entries.
    pub(crate) fn apply(&mut self, id: u64) -> usize {
        let member = self.members.get_mut(&id).expect("a member of this cluster");
        let count = member.committed.len();
        for entry in member.committed.drain(..) {
            assert_eq!(entry.index, member.applied + 1, "committed entries come in order, without gap or repeat");
            member.applied = entry.index;
            let mut moved = Vec::new();
            if let Some(Move { author, steps }) = Move::decode(&entry).expect("a change") {
                member.conf = member.conf.after(&steps).expect("a leader proposes what fits");
                let known = self.confs.entry(entry.index).or_insert_with(|| member.conf.clone());
                assert_eq!(*known, member.conf, "the same configuration everywhere");
                writeln!(self.text, "{id}: {}", show_conf(&member.conf)).expect("a string takes any text");
                if (author.member, author.boot) == (id, member.boot) {
                    writeln!(self.text, "{id}: change {} is applied", author.id).expect("a string takes any text");
                }
                moved.push(Moved { index: entry.index, steps, now: member.conf.clone() });
            }
            member.replica.feed(Input::Applied { index: entry.index, moved });
        }
        count
    }

    /// Spoils the batches on their way to a leader: what comes of a bug, or of an author of another version.
    pub(crate) fn spoil(&mut self, how: &str) -> Result<(), String> {
        for (_, _, data) in &mut self.forwarded {
            let mut batch = decode(data).expect("a batch");
            match how {
                "author" => batch.member += 1,
                "command" => batch.commands[0].request = None,
                "key" => batch.commands[0].request = Some(Request::Put(PutRequest::default())),
                "end" | "number" => {}
                _ => return Err(format!("nothing is spoilt by {how}")),
            }
            let mut bytes = encode(&batch).to_vec();
            match how {
                "end" => bytes.truncate(bytes.len() - 1),
                // The field of the number comes again, with another one.
                "number" => bytes.extend([3 << 3, 99]),
                _ => {}
            }
            *data = bytes.into();
        }
        Ok(())
    }

    /// Delivers the messages in flight; returns how many.
    pub(crate) fn deliver(&mut self) -> usize {
        let flight = std::mem::take(&mut self.flight);
        let forwarded = std::mem::take(&mut self.forwarded);
        let refused = std::mem::take(&mut self.refused);
        let count = flight.len() + forwarded.len() + refused.len();
        for (_, to, message) in flight {
            self.feed(to, Input::Peer(message));
        }
        for (from, to, batch) in forwarded {
            self.feed(to, Input::Forwarded { from: MemberId(from), batch });
        }
        for (to, boot, number) in refused {
            self.feed(to, Input::BatchRefused { boot, number });
        }
        count
    }

    /// Delivers, persists, applies and settles until nothing moves.
    pub(crate) fn run(&mut self) {
        for _ in 0..1_000 {
            let mut moved = self.settle();
            moved |= self.deliver() > 0;
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                moved |= self.persist(id, usize::MAX) > 0;
                moved |= self.apply(id) > 0;
            }
            if !moved {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }
}

/// One effect on one line.
fn show(effect: &Effect) -> String {
    match effect {
        Effect::Persist { ticket, records, sync } => {
            let records: Vec<String> = records.iter().map(show_record).collect();
            let lazily = if *sync { "" } else { " lazily" };
            format!("persist #{}{lazily}: {}", ticket.0, records.join(", "))
        }
        Effect::Send { to, message, .. } => {
            let message = Message::parse_from_bytes(message).expect("raft's own message");
            let mut text = format!("send {to} {:?} term={}", message.get_msg_type(), message.term);
            if !message.entries.is_empty() {
                let places: Vec<String> =
                    message.entries.iter().map(|entry| format!("{}@{}", entry.index, entry.term)).collect();
                write!(text, " entries={}", places.join(",")).expect("a string takes any text");
            }
            if message.reject {
                text.push_str(" reject");
            }
            text
        }
        Effect::Apply(entries) => {
            format!("apply {}", entries.iter().map(show_entry).collect::<Vec<_>>().join(", "))
        }
        Effect::Forward { to, batch } => format!("forward {to} {}", show_batch(batch)),
        Effect::RefuseBatch { to, boot, number, why } => format!("refuse batch {to}/{boot}/{number}: {why}"),
        Effect::BuildSnapshot => "build a snapshot".to_owned(),
        Effect::SendSnapshot { to, index, term } => format!("offer {to} the snapshot {index}@{term}"),
        Effect::Serve { reads, at } => format!("serve reads {} at {at}", ids(reads)),
        Effect::Refuse { id, why } => format!("refuse command {id}: {why}"),
        Effect::Unknown { id, why } => format!("command {id} unknown: {why}"),
        Effect::RefuseRead { reads, why } => format!("refuse reads {}: {why}", ids(reads)),
        Effect::Role(role) => {
            let leader = role.leader.map_or("none".to_owned(), |leader| leader.to_string());
            let settled = if role.settled { " settled" } else { "" };
            format!("role {:?} term={} leader={leader}{settled}", role.kind, role.term)
        }
    }
}

fn ids(reads: &[ReadId]) -> String {
    reads.iter().map(|read| read.0.to_string()).collect::<Vec<_>>().join(",")
}

fn show_record(record: &Record) -> String {
    match record {
        Record::Entry(entry) => show_entry(entry),
        Record::HardState(HardState { term, vote, commit }) => format!("term={term} vote={vote} commit={commit}"),
        other => format!("{other:?}"),
    }
}

fn show_entry(entry: &Entry) -> String {
    let place = format!("{}@{}", entry.index, entry.term);
    if let Some(change) = Move::decode(entry).expect("a change") {
        return format!("{place} {}", show_steps(&change.steps));
    }
    if entry.data.is_empty() {
        return place;
    }
    format!("{place} {}", show_batch(&entry.data))
}

fn show_batch(data: &bytes::Bytes) -> String {
    let batch = decode(data).expect("a batch");
    let commands: Vec<String> = batch.commands.iter().map(|command| command.id.to_string()).collect();
    format!("[{}/{}/{}: {}]", batch.member, batch.boot, batch.number, commands.join(" "))
}

fn show_steps(steps: &[Step]) -> String {
    let show = |step: &Step| match step {
        Step::Promote(member) => format!("promote {member}"),
        Step::Demote(member) => format!("demote {member}"),
    };
    if steps.is_empty() { "leave".to_owned() } else { steps.iter().map(show).collect::<Vec<_>>().join(" and ") }
}

fn show_conf(conf: &Configuration) -> String {
    let ids = |set: &BTreeSet<MemberId>| set.iter().map(MemberId::to_string).collect::<Vec<_>>().join(" ");
    let mut text = format!("voters {}", ids(&conf.voters));
    for (what, set) in
        [("before", &conf.outgoing), ("learners", &conf.learners), ("then learners", &conf.learners_next)]
    {
        if !set.is_empty() {
            write!(text, ", {what} {}", ids(set)).expect("a string takes any text");
        }
    }
    text
}
