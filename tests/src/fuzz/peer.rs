//! A member among three that is told anything by the others: it may believe what it likes, and must not panic.

use super::parts::split;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{Command, command::Request};
use mechi_proto::mechipeerpb::PeerMessage;
use mechi_proto::mechipeerpb::peer_message::Message;
use mechi_replica::apply::state::State;
use mechi_replica::apply::{Answer, Outcomes, apply};
use mechi_replica::conf::Configuration;
use mechi_replica::effect::{Entry, RoleKind};
use mechi_replica::limits::LOG_MEMORY_BYTES_MAX;
use mechi_replica::member::{Effect, Input, Member, MemberConfig};
use mechi_replica::replica::{LogTail, ReplicaConfig};
use mechi_replica::store::AllInMemory;
use mechi_replica::types::{Index, MemberId, MonoMillis};
use mechi_replica::wal::record::Record;
use prost::Message as _;
use std::collections::VecDeque;

/// Messages of one input.
const MESSAGES_MAX: usize = 16;

/// The flag by which the leader is told, and not a follower.
pub(super) const LEADER: u8 = 1;

/// Milliseconds of a tick, and of all time after the messages.
const TICK_MS: u64 = 100;
const AFTER_MS: u64 = 3_000;

/// The bound of ticks until one of three leads.
const ELECTION_TICKS_MAX: usize = 500;

/// Feeds the input's parts, each a `PeerMessage`, to a member of a cluster that has elected a leader and written a little.
///
/// Passed over are the two lies by which raft notices that acknowledged entries are gone, and ends the process on purpose:
/// a heartbeat that commits what the member does not have, and entries that contradict committed ones.
pub fn peer(input: &[u8]) {
    let input = split(input, MESSAGES_MAX);
    let messages: Vec<PeerMessage> = input.parts.iter().filter_map(|part| PeerMessage::decode(*part).ok()).collect();
    if messages.is_empty() {
        return;
    }
    let mut trio = Trio::elected();
    let told = if input.flags & LEADER != 0 { trio.leader() } else { trio.follower() };
    let from = if told == 0 { 1 } else { 0 };
    let one = &mut trio.members[told];
    for message in messages.into_iter().filter_map(|message| message.message) {
        if !one.tell(MemberId(from as u64 + 1), message) {
            return;
        }
    }
    let until = one.now + AFTER_MS;
    while one.now < until && one.tick() {}
}

/// Three members whose disks and state machines do at once what they are asked.
pub(super) struct Trio {
    members: Vec<One>,
    on_the_way: VecDeque<(MemberId, MemberId, Message)>,
    /// All that was said so far, to whom.
    pub(super) said: Vec<(MemberId, PeerMessage)>,
}

impl Trio {
    /// Elects a leader and writes three keys.
    pub(super) fn elected() -> Self {
        let members = (1..=3).map(One::new).collect();
        let mut trio = Self { members, on_the_way: VecDeque::new(), said: Vec::new() };
        for _ in 0..ELECTION_TICKS_MAX {
            trio.tick();
            if trio.members.iter().any(|one| one.member_leads()) {
                break;
            }
        }
        let leader = trio.leader();
        for n in 0..3u64 {
            let put = pb::PutRequest { key: vec![b'a' + n as u8].into(), value: "v".into(), ..Default::default() };
            let command = Command { id: n + 1, request: Some(Request::Put(put)), ..Default::default() };
            // One of them by way of a follower, whose batch is forwarded.
            let at = if n == 1 { trio.follower() } else { leader };
            trio.members[at].feed(Input::Propose(command));
            (0..3).for_each(|_| trio.tick());
        }
        trio
    }

    pub(super) fn leader(&self) -> usize {
        self.members.iter().position(One::member_leads).expect("one of three leads within the bound")
    }

    fn follower(&self) -> usize {
        (self.leader() + 1) % 3
    }

    fn tick(&mut self) {
        for n in 0..3 {
            assert!(self.members[n].tick(), "members that tell the truth go on");
            self.collect(n);
        }
        while let Some((from, to, message)) = self.on_the_way.pop_front() {
            let n = to.0 as usize - 1;
            assert!(self.members[n].tell(from, message), "members that tell the truth go on");
            self.collect(n);
        }
    }

    fn collect(&mut self, n: usize) {
        let from = MemberId(n as u64 + 1);
        for (to, message) in self.members[n].sent.drain(..) {
            self.said.push((to, PeerMessage { message: Some(message.clone()) }));
            self.on_the_way.push_back((from, to, message));
        }
    }
}

struct One {
    member: Member,
    state: State,
    now: u64,
    last: Index,
    commit: Index,
    leads: bool,
    /// Another member has sent it entries: they are a leader's, which is believed.
    follows: bool,
    sent: Vec<(MemberId, Message)>,
}

impl One {
    fn new(id: u64) -> Self {
        let conf = Configuration::founding((1..=3).map(MemberId));
        let config = MemberConfig {
            replica: ReplicaConfig {
                member: MemberId(id),
                conf,
                boot: 1,
                seed: 1,
                tick_ms: TICK_MS,
                heartbeat_ticks: 1,
                election_ticks: 10,
                log_memory_bytes: LOG_MEMORY_BYTES_MAX,
            },
            tail: LogTail::default(),
            applied: 0,
            snapshot: (0, 0),
            leases: Vec::new(),
            lease_checkpoint_ms: 300_000,
        };
        let mut state = State::empty();
        state.found((1..=3).map(MemberId));
        let member = Member::new(config).expect("an empty log contradicts nothing");
        Self { member, state, now: 1_000, last: 0, commit: 0, leads: false, follows: false, sent: Vec::new() }
    }

    fn member_leads(&self) -> bool {
        self.leads
    }

    /// Lets a tick pass; returns whether the member goes on.
    fn tick(&mut self) -> bool {
        self.now += TICK_MS;
        self.feed(Input::Tick { wall_ms: self.now as i64 })
    }

    /// Hands in what another member says, as the connections do.
    fn tell(&mut self, from: MemberId, message: Message) -> bool {
        match message {
            Message::Raft(message) if self.is_alarming(&message) => true,
            Message::Raft(message) => {
                self.follows |= Fields::read(&message).is_none_or(|fields| fields.kind == APPEND);
                self.feed(Input::Peer(message))
            }
            Message::Batch(batch) => self.feed(Input::Forwarded { from, batch }),
            Message::Digest(digest) => self.feed(Input::Digest { from, index: digest.index, chain: digest.chain }),
            Message::Refused(refused) => self.feed(Input::BatchRefused { boot: refused.boot, number: refused.number }),
            // The shell's business alone.
            Message::Offer(_) | Message::Taken(_) => true,
        }
    }

    fn is_alarming(&self, message: &Bytes) -> bool {
        let Some(fields) = Fields::read(message) else { return false };
        match fields.kind {
            HEARTBEAT => fields.commit > self.last,
            APPEND => fields.entries.iter().any(|index| *index <= self.commit),
            _ => false,
        }
    }

    /// Feeds and settles; returns false once an entry cannot be applied, at which a member stops.
    fn feed(&mut self, input: Input) -> bool {
        self.member.feed(MonoMillis(self.now), input);
        loop {
            let mut effects = Vec::new();
            let more = self.member.settle(&mut effects);
            let idle = !more && effects.is_empty();
            for effect in effects {
                if !self.perform(effect) {
                    return false;
                }
            }
            if idle {
                return true;
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Persist { ticket, records, sync } => {
                for record in &records {
                    match record {
                        Record::Entry(entry) => self.last = entry.index,
                        Record::HardState(state) => self.commit = self.commit.max(state.commit),
                        _ => {}
                    }
                }
                if sync {
                    self.member.feed(MonoMillis(self.now), Input::Persisted(ticket));
                }
            }
            Effect::Apply(entries) => return self.apply(&entries),
            Effect::Send { to, message, .. } => self.sent.push((to, Message::Raft(message))),
            Effect::Forward { to, batch } => self.sent.push((to, Message::Batch(batch))),
            Effect::Role(role) => self.leads = role.kind == RoleKind::Leader && role.settled,
            _ => {}
        }
        true
    }

    fn apply(&mut self, entries: &[Entry]) -> bool {
        let Some(last) = entries.last() else { return true };
        self.commit = self.commit.max(last.index);
        let mut out = Outcomes::default();
        let answer = Answer { member: 0, boot: 0 };
        for entry in entries {
            if let Err(error) = apply(&mut self.state, entry, answer, &AllInMemory, &mut out) {
                assert!(self.follows, "a leader has let in what stops every member: {error}");
                return false;
            }
        }
        let (lease_events, digests, moved) = (out.lease_events, out.digests, out.moved);
        self.member.feed(MonoMillis(self.now), Input::Applied { index: last.index, lease_events, digests, moved });
        true
    }
}

/// `eraftpb.MessageType`s.
const APPEND: u64 = 3;
const HEARTBEAT: u64 = 8;

/// What of a raft message decides whether it is one of the two lies.
#[derive(Default)]
struct Fields {
    kind: u64,
    commit: u64,
    /// The indices of its entries.
    entries: Vec<u64>,
}

impl Fields {
    fn read(message: &[u8]) -> Option<Self> {
        let mut fields = Self::default();
        walk(message, |number, value, bytes| match number {
            1 => fields.kind = value,
            8 => fields.commit = value,
            7 => {
                let mut index = 0;
                // A malformed one makes the whole message malformed.
                let _ = walk(bytes, |number, value, _| {
                    if number == 3 {
                        index = value
                    }
                });
                fields.entries.push(index);
            }
            _ => {}
        })?;
        Some(fields)
    }
}

/// Visits the fields of a protobuf message: number, value, and the bytes if it has a length.
fn walk(mut bytes: &[u8], mut visit: impl FnMut(u64, u64, &[u8])) -> Option<()> {
    while !bytes.is_empty() {
        let tag = prost::encoding::decode_varint(&mut bytes).ok()?;
        match tag & 7 {
            0 => visit(tag >> 3, prost::encoding::decode_varint(&mut bytes).ok()?, &[]),
            1 => drop(take(&mut bytes, 8)?),
            2 => {
                let length = prost::encoding::decode_varint(&mut bytes).ok()?;
                let taken = take(&mut bytes, length)?;
                visit(tag >> 3, length, taken);
            }
            5 => drop(take(&mut bytes, 4)?),
            _ => return None,
        }
    }
    Some(())
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}
