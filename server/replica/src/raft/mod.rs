//! raft-rs behind a door: no type of it leaves this folder.
mod convert;
mod log;
mod members;
mod reads;
mod ready;
mod timeout;
mod pins;
mod failover;

pub(crate) use convert::{decode_change, encode_change};

use crate::conf::Moved;
use crate::effect::{Effect, Entry, HardState, Role};
use crate::input::{ReadId, Ticket};
use crate::limits::{
    COMMITTED_BYTES_PER_READY_MAX, LOG_MEMORY_BYTES_MAX, LOG_MEMORY_PINNED_BYTES_MAX, PEER_MESSAGE_BYTES_MAX,
    RAFT_INFLIGHT_MAX, RAFT_MESSAGE_BYTES_MAX, RAFT_NUMBER_MAX, RAFT_UNCOMMITTED_BYTES_MAX, READ_TIMEOUT_MS,
};
use crate::outcome::{Error, Fatal};
use crate::replica::{LogTail, ReplicaConfig};
use crate::types::{Index, MemberId, MonoMillis, Term};
use bytes::Bytes;
use failover::Failover;
use log::Log;
use members::Members;
use pins::Pins;
use protobuf::Message as _;
use raft::eraftpb::{self, Message, MessageType};
use raft::{Config, INVALID_ID, RawNode, SnapshotStatus, StateRole};
use reads::Reads;
use ready::Writes;
use timeout::Clock;

/// One member's raft state machine with what surrounds it: time, writes under way, reads.
pub(crate) struct Node {
    raw: RawNode<Log>,
    config: ReplicaConfig,
    clock: Clock,
    now: MonoMillis,
    ticks: u64,
    campaigns: u64,
    writes: Writes,
    reads: Reads,
    /// Refusals since the last settle.
    refused: Vec<Effect>,
    members: Members,
    pins: Pins,
    failover: Failover,
}

/// Whether a message can be true: raft counts on from its numbers, and indexes entries by theirs, without looking.
fn is_sound(message: &Message) -> bool {
    let Message { term, log_term, index, commit, commit_term, reject_hint, request_snapshot, .. } = *message;
    let numbers = [term, log_term, index, commit, commit_term, reject_hint, request_snapshot];
    let mut last = (index, log_term);
    let follows = |entry: &eraftpb::Entry| {
        let before = std::mem::replace(&mut last, (entry.index, entry.term));
        entry.index == before.0 + 1 && (before.1..=term).contains(&entry.term)
    };
    let is_append = message.get_msg_type() == MessageType::MsgAppend;
    numbers.into_iter().all(|number| number <= RAFT_NUMBER_MAX) && (!is_append || message.entries.iter().all(follows))
}

impl Node {
    /// Restores raft from what recovery found; a single voter campaigns at once, since nobody could object.
    ///
    /// - Errors: [`Fatal::Bug`] if log, hard state and applied index contradict each other, which the shell's open
    ///   rules exclude, or if raft refuses the configuration.
    pub(crate) fn new(config: ReplicaConfig, tail: LogTail, applied: Index) -> Result<Self, Fatal> {
        let hard_state = check_tail(&tail, applied)?;
        let conf_state = convert::raft_conf_state(&config.conf);
        let entries = tail.entries.into_iter().map(convert::raft_entry).collect();
        let log = Log::new(tail.before, entries, convert::raft_hard_state(hard_state), conf_state);

        let settings = Config {
            id: config.member.0,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: RAFT_MESSAGE_BYTES_MAX,
            max_inflight_msgs: RAFT_INFLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            // Our one entry per settle is the batching; raft's own merges past max_size_per_msg.
            batch_append: false,
            max_uncommitted_size: RAFT_UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_PER_READY_MAX,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&settings, log, &logger).map_err(|error| Fatal::Bug(format!("start raft: {error}")))?;
        let election_ms = config.tick_ms * config.election_ticks as u64;
        let mut node = Self {
            raw,
            clock: Clock::new(config.tick_ms, config.election_ticks),
            now: MonoMillis(0),
            ticks: 0,
            campaigns: 0,
            writes: Writes::new(hard_state),
            reads: Reads::new(config.member, config.boot, READ_TIMEOUT_MS + 2 * election_ms),
            refused: Vec::new(),
            members: Members::new(config.conf.clone()),
            pins: Pins::default(),
            failover: Failover::default(),
            config,
        };
        node.shrink(applied);
        node.redraw_timeout();
        if node.members.conf.decides_alone(node.config.member) {
            node.campaign();
        }
        Ok(node)
    }

    /// This member's part in the cluster now.
    pub(crate) fn role(&self) -> Role {
        let raft = &self.raw.raft;
        Role {
            kind: convert::role(raft.state),
            term: raft.term,
            leader: (raft.leader_id != INVALID_ID).then_some(MemberId(raft.leader_id)),
            settled: raft.state == StateRole::Leader && raft.commit_to_current_term(),
        }
    }

    /// Tells whether this member leads and takes proposals now; it does not while it hands leadership over.
    pub(crate) fn takes_proposals(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && self.raw.raft.lead_transferee.is_none()
    }

    /// Tells whether a write is on its way to the disk.
    pub(crate) fn is_writing(&self) -> bool {
        self.writes.is_open()
    }

    /// Sets whether followers hear of a new commit with the next entry only, or at once.
    pub(crate) fn carry_commit(&mut self, with_entry: bool) {
        self.raw.skip_bcast_commit(with_entry);
    }

    /// Lets time go on.
    pub(crate) fn tick(&mut self, now: MonoMillis) {
        let due = self.clock.due(now);
        self.now = self.now.max(now);
        for _ in 0..due {
            self.ticks += 1;
            self.tick_once();
            self.redraw_timeout();
        }
        self.fail_over();
    }

    /// Takes note that a connection from or to `member` broke. If it was the leader's, its process has probably ended:
    /// it is forgotten at once, so that this member grants others a pre-vote, and the members that could replace it
    /// ask for votes one after the other. If it lives, its next heartbeat makes it the leader again.
    pub(crate) fn reset(&mut self, member: MemberId) {
        let raft = &mut self.raw.raft;
        if raft.state == StateRole::Follower && raft.leader_id == member.0 && member.0 != INVALID_ID {
            raft.leader_id = INVALID_ID;
            let (term, promotable) = (raft.term, raft.promotable());
            if promotable {
                let voters: Vec<MemberId> = self.members.conf.all_voters().collect();
                self.failover.begin(self.config.member, member, term, &voters, self.now);
            }
        }
    }

    /// Campaigns if it is this member's turn after the leader was lost.
    fn fail_over(&mut self) {
        let raft = &self.raw.raft;
        let led = raft.leader_id != INVALID_ID || raft.state == StateRole::Leader;
        let promotable = raft.promotable();
        // raft panics if it wins an election with entries unsaved: a turn that comes meanwhile waits for the disk. It lets
        // a learner campaign if it is told to.
        if self.failover.is_due(led, raft.term, self.now) && promotable && !self.writes.is_open() {
            self.failover.took_turn(self.now);
            self.campaign();
        }
    }

    fn tick_once(&mut self) {
        let raft = &mut self.raw.raft;
        if raft.state == StateRole::Leader {
            self.raw.tick();
            self.tick_without_vote();
            // A leader whose disk hangs still answers heartbeats; another one can commit.
            let patience = self.config.election_ticks as u64;
            if self.writes.oldest_tick().is_some_and(|since| self.ticks - since > patience) {
                self.transfer(MemberId(INVALID_ID));
            }
        } else if self.writes.is_open() {
            // raft panics if it wins an election with entries unsaved. Time must still pass for others, or this
            // member would refuse its vote for as long as its disk is slow.
            raft.election_elapsed = (raft.election_elapsed + 1).min(self.config.election_ticks);
        } else if self.raw.tick() {
            self.campaigns += 1;
        }
    }

    /// Starts an election now.
    fn campaign(&mut self) {
        self.campaigns += 1;
        // An error here says that raft ignored it: unapplied membership changes come first, the timer tries again.
        let _ = self.raw.campaign();
        self.redraw_timeout();
    }

    /// Replaces the timeout that raft drew from the thread's random numbers.
    fn redraw_timeout(&mut self) {
        let ReplicaConfig { seed, member, election_ticks, .. } = self.config;
        let ticks = timeout::election_timeout(seed, member, self.raw.raft.term, self.campaigns, election_ticks);
        self.raw.raft.set_randomized_election_timeout(ticks);
    }

    /// Steps a message from another member; one that is malformed, misdirected or not for the wire is dropped.
    pub(crate) fn step(&mut self, message: &Bytes) {
        if message.len() > PEER_MESSAGE_BYTES_MAX {
            return;
        }
        let Ok(message) = Message::parse_from_bytes(message) else { return };
        if message.to != self.config.member.0 || message.from == self.config.member.0 || !is_sound(&message) {
            return;
        }
        match message.get_msg_type() {
            // Proposals are forwarded as our own batches, transfers are asked of the leader by an operator, and a
            // snapshot is stepped only once its body is verified on disk.
            MessageType::MsgPropose | MessageType::MsgTransferLeader | MessageType::MsgSnapshot => return,
            MessageType::MsgTimeoutNow if self.writes.is_open() => return,
            MessageType::MsgTimeoutNow => self.campaigns += 1,
            // raft indexes the first entry of a read request without looking.
            MessageType::MsgReadIndex if message.entries.len() != 1 => return,
            // With one voter, raft answers without asking it, even if that is another member.
            MessageType::MsgReadIndex if self.leads_without_vote() => return,
            _ => {}
        }
        // raft's errors here say that it ignored the message: a local type, or an answer from a stranger.
        let _ = self.raw.step(message);
        self.redraw_timeout();
    }

    /// Takes note that a message to `member` was lost.
    pub(crate) fn unreachable(&mut self, member: MemberId) {
        self.raw.report_unreachable(member.0);
    }

    /// Takes note that the writes up to `ticket` are durable.
    pub(crate) fn persisted(&mut self, ticket: Ticket) {
        if let Some(ready) = self.writes.persisted(ticket) {
            self.raw.on_persist_ready(ready);
        }
    }

    /// Takes note that everything up to `index` is applied, and what of it changed the configuration.
    pub(crate) fn applied(&mut self, index: Index, moved: &[Moved]) {
        #[cfg(feature = "mutants")]
        if crate::mutants::active("conf_change_after_advance") {
            self.advance(index);
            return moved.iter().for_each(|moved| self.follow(moved));
        }
        moved.iter().for_each(|moved| self.follow(moved));
        self.advance(index);
    }

    fn advance(&mut self, index: Index) {
        if index > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(index);
            self.shrink(index);
        }
    }

    /// Forgets what of the log is applied and no member is likely to need; a member alone keeps nothing.
    fn shrink(&mut self, applied: Index) {
        let pinned = self.pins.oldest(self.now).unwrap_or(applied).min(applied);
        let store = self.raw.mut_store();
        let conf = &self.members.conf;
        if conf.decides_alone(self.config.member) && conf.learners.is_empty() {
            return store.shrink(applied, 0);
        }
        store.shrink(pinned, self.config.log_memory_bytes.min(LOG_MEMORY_BYTES_MAX));
        store.shrink(applied, LOG_MEMORY_PINNED_BYTES_MAX);
    }

    /// Takes note of a durable snapshot: it is what members are offered whose next entry is gone.
    pub(crate) fn snapshot_made(&mut self, index: Index, term: Term) {
        self.pins.asked = None;
        self.raw.mut_store().snapshot_made(index, term);
    }

    /// Takes note of what became of a snapshot that was offered; raft goes on with entries, or offers again.
    pub(crate) fn snapshot_sent(&mut self, to: MemberId, ok: bool) {
        #[cfg(feature = "mutants")]
        if crate::mutants::active("snapshot_report_dropped") {
            return;
        }
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(to.0, status);
    }

    /// Asks for another leader; `to` 0 chooses the live voter whose log is longest. Nothing happens if there is none.
    pub(crate) fn transfer(&mut self, to: MemberId) {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader || raft.lead_transferee.is_some() {
            return;
        }
        let voters = raft.prs().conf().voters();
        let chosen = if to.0 == INVALID_ID {
            let live = raft
                .prs()
                .iter()
                .filter(|(id, progress)| **id != raft.id && voters.contains(**id) && progress.recent_active);
            live.max_by_key(|(id, progress)| (progress.matched, **id)).map(|(id, _)| *id)
        } else {
            (to.0 != raft.id && voters.contains(to.0)).then_some(to.0)
        };
        if let Some(chosen) = chosen {
            self.raw.transfer_leader(chosen);
        }
    }

    /// Offers entries to raft, all in one message; returns whether it appended them. It does not if too many bytes are
    /// uncommitted.
    ///
    /// - Panics: if this member does not take proposals; the caller asked [`Node::takes_proposals`].
    pub(crate) fn propose(&mut self, data: Vec<Bytes>) -> bool {
        assert!(self.takes_proposals(), "only a leader proposes");
        // RawNode::propose would copy the data.
        let entries = data.into_iter().map(|data| raft::eraftpb::Entry { data, ..Default::default() });
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.member.0;
        message.set_entries(entries.collect::<Vec<_>>().into());
        self.raw.raft.step(message).is_ok()
    }

    /// Lets a read wait for a read point.
    pub(crate) fn read(&mut self, id: ReadId) {
        if let Err(why) = self.reads.offer(id, self.now) {
            self.refused.push(Effect::RefuseRead { reads: vec![id], why });
        }
    }

    /// Tells whether a round of reads is under way.
    pub(crate) fn has_read_round(&self) -> bool {
        self.reads.is_asking()
    }

    /// Begins a round of reads if one is wanted and can be answered; refuses what waited too long.
    pub(crate) fn settle_reads(&mut self, effects: &mut Vec<Effect>) {
        effects.append(&mut self.refused);
        let raft = &self.raw.raft;
        let (term, leader) = (raft.term, raft.leader_id);
        self.reads.check(self.now, term, leader);
        let overdue = self.reads.overdue(self.now);
        if !overdue.is_empty() {
            let why = if leader == INVALID_ID { Error::NoLeader } else { Error::Timeout };
            effects.push(Effect::RefuseRead { reads: overdue, why });
        }
        if self.reads.wants_round() && self.can_read() {
            let context = self.reads.begin(self.now, term, leader);
            self.raw.read_index(context);
        }
    }

    /// Tells whether a read request would be answered: the leader has committed in its term, as far as this member
    /// knows. A follower loses nothing by waiting for that, since its read point lies at or above that entry.
    fn can_read(&self) -> bool {
        self.raw.raft.leader_id != INVALID_ID && self.raw.raft.commit_to_current_term() && !self.leads_without_vote()
    }

    /// Moves what raft wants done to `effects`; returns the entries that are committed now.
    pub(crate) fn settle(&mut self, effects: &mut Vec<Effect>) -> Vec<Entry> {
        self.writes.release(effects);
        if !self.raw.has_ready() {
            self.settle_changes(effects);
            return Vec::new();
        }
        let first = effects.len();
        let outcome = self.writes.handle(&mut self.raw, self.ticks, effects);
        for effect in &effects[first..] {
            if let Effect::SendSnapshot { to, index, .. } = effect {
                self.pins.pin(*to, *index, self.now);
            }
        }
        if self.raw.store().take_missed() && self.pins.wants_snapshot(self.now) {
            effects.push(Effect::BuildSnapshot);
        }
        self.changes_committed(&outcome.committed);
        self.settle_changes(effects);
        for (context, at) in outcome.read_points {
            let reads = self.reads.answered(&context);
            if !reads.is_empty() {
                effects.push(Effect::Serve { reads, at });
            }
        }
        outcome.committed
    }

    /// Tells whether another settle would do something.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.raw.has_ready()
            || self.writes.has_released()
            || !self.refused.is_empty()
            || (self.reads.wants_round() && self.can_read())
    }
}

/// Checks that log, hard state and applied index can belong together; returns the hard state to start with.
fn check_tail(tail: &LogTail, applied: Index) -> Result<HardState, Fatal> {
    let (mut index, mut term) = tail.before;
    for entry in &tail.entries {
        if entry.index != index + 1 || entry.term < term {
            return Err(Fatal::Bug(format!(
                "log: entry {} of term {} follows entry {index} of term {term}",
                entry.index, entry.term
            )));
        }
        (index, term) = (entry.index, entry.term);
    }
    // raft-rs panics at every start if it is told of more than is committed; what is applied was committed.
    let mut hard_state = tail.hard_state;
    hard_state.commit = hard_state.commit.max(applied).max(tail.before.0);
    hard_state.term = hard_state.term.max(term);
    if applied < tail.before.0 || hard_state.commit > index {
        return Err(Fatal::Bug(format!(
            "log {}..={index} with commit {} does not fit the applied index {applied}",
            tail.before.0 + 1,
            hard_state.commit
        )));
    }
    if hard_state.term > tail.hard_state.term {
        hard_state.vote = 0;
    }
    Ok(hard_state)
}
