//! One member's consensus: commands and messages come in, ordered effects go out.
//!
//! Feed it any number of inputs, then settle it until it says that nothing is left. Each settle makes at most one
//! entry of all waiting commands and at most one write, so that whatever arrives during an fsync shares the next.

use crate::conf::Configuration;
use crate::effect::{Effect, Entry, HardState, Role, RoleKind};
use crate::input::Input;
use crate::limits::{GATHER_BYTES_MAX, REQUEST_TIMEOUT_MS};
use crate::outcome::Fatal;
use crate::propose::{Leader, Proposals};
use crate::raft::Node;
use crate::types::{Index, MemberId, Term};

/// What a [`Replica`] must know from its shell.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This member; not 0.
    pub member: MemberId,
    /// The configuration of the replicated state as it is applied, or of the new cluster.
    pub conf: Configuration,
    /// Counts this member's starts; durable before it is handed in.
    pub boot: u64,
    /// Spreads election timeouts; the same seed and inputs give the same effects.
    pub seed: u64,
    /// Milliseconds per raft tick.
    pub tick_ms: u64,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader after which a member campaigns, at the least; below twice that, at the most.
    pub election_ticks: usize,
    /// Bytes of applied entries kept in memory for members that lag a little; at most
    /// [`crate::limits::LOG_MEMORY_BYTES_MAX`].
    pub log_memory_bytes: usize,
}

/// The log as recovery found it.
#[derive(Clone, Debug, Default)]
pub struct LogTail {
    /// Index and term of the entry before the first; (0, 0) if the log is whole.
    pub before: (Index, Term),
    /// The entries after it, contiguous.
    pub entries: Vec<Entry>,
    /// The newest hard state on disk.
    pub hard_state: HardState,
}

/// Consensus on one member. See the module's text.
pub struct Replica {
    node: Node,
    proposals: Proposals,
    role: Role,
    /// The newest wall time that the shell told.
    wall_ms: i64,
}

impl Replica {
    /// Restores a member from its log; `applied` is the index that the replicated state stands at.
    ///
    /// - Errors: [`Fatal::Bug`] if log and applied index contradict each other: the shell's open rules exclude it.
    pub fn new(config: ReplicaConfig, tail: LogTail, applied: Index) -> Result<Self, Fatal> {
        if config.tick_ms == 0 {
            return Err(Fatal::Bug("a tick of 0 ms".to_owned()));
        }
        let timeout_ms = REQUEST_TIMEOUT_MS + 2 * config.tick_ms * config.election_ticks as u64;
        let proposals = Proposals::new(config.member, config.boot, timeout_ms);
        let node = Node::new(config, tail, applied)?;
        Ok(Self { node, proposals, role: Role::default(), wall_ms: 0 })
    }

    /// Takes in what happened; effects come with the next [`Replica::settle`].
    pub fn feed(&mut self, input: Input) {
        match input {
            Input::Tick { now, wall_ms } => {
                self.wall_ms = wall_ms;
                self.node.tick(now);
                self.proposals.tick(now, wall_ms, self.leader());
            }
            Input::Propose(command) => self.proposals.offer(command),
            Input::Read(id) => self.node.read(id),
            Input::Persisted(ticket) => {
                self.expect_entry();
                self.node.persisted(ticket);
            }
            Input::Configure { id, steps } => self.node.configure(id, &steps, self.wall_ms),
            Input::Applied { index, moved } => self.node.applied(index, &moved),
            Input::Peer(message) => {
                self.expect_entry();
                self.node.step(&message);
            }
            Input::Unreachable(member) => self.node.unreachable(member),
            Input::Transfer(to) => self.node.transfer(to),
            Input::Forwarded { from, batch } => {
                // Leadership may have changed since the last settle; a batch must not wait for a term that is over.
                self.proposals.lead(self.leader());
                self.proposals.forwarded(from, batch);
            }
            Input::BatchRefused { boot, number } => self.proposals.given_back(boot, number),
            Input::Reset(member) => self.node.reset(member),
            Input::SnapshotMade { index, term } => self.node.snapshot_made(index, term),
            Input::SnapshotSent { to, ok } => self.node.snapshot_sent(to, ok),
        }
    }

    /// Appends what shall be done to `effects`, in the order in which it must be begun.
    ///
    /// Returns whether something is left: settle again then.
    pub fn settle(&mut self, effects: &mut Vec<Effect>) -> bool {
        self.propose(effects);
        self.proposals.settle(effects);
        self.node.settle_reads(effects);
        let committed = self.node.settle(effects);
        self.proposals.committed(&committed);
        let role = self.node.role();
        if role != self.role {
            self.role = role;
            effects.push(Effect::Role(role));
        }
        let leader = self.leader();
        self.proposals.lead(leader);
        self.proposals.is_unsettled(leader, self.gathers()) || self.node.is_unsettled()
    }

    /// Tells raft whether the next entry is near: then it carries the news of a commit, which is no message of its own.
    fn expect_entry(&mut self) {
        let near = self.node.takes_proposals() && self.proposals.waiting_bytes() > 0;
        self.node.carry_commit(near);
    }

    /// Tells whether a leader lets commands gather: its log is being written, so that they can be durable no sooner than
    /// by the next fsync, and share one entry and one message until then. Much data goes on its way at once.
    ///
    /// Another member's commands never gather: they go to the leader, whose fsync is not known here.
    pub fn gathers(&self) -> bool {
        self.node.is_writing() && self.node.takes_proposals() && self.proposals.waiting_bytes() < GATHER_BYTES_MAX
    }

    /// Tells whether a round of reads is under way.
    pub fn reads_wait(&self) -> bool {
        self.node.has_read_round()
    }

    /// Leadership as this member sees it now.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The configuration as of the applied index.
    pub fn configuration(&self) -> &Configuration {
        self.node.configuration()
    }

    /// Who appends to the log now.
    fn leader(&self) -> Leader {
        let Role { kind, term, leader, .. } = self.node.role();
        match leader {
            _ if kind == RoleKind::Leader && self.node.takes_proposals() => Leader::Own(term),
            _ if kind == RoleKind::Leader => Leader::Leaving(term),
            Some(leader) => Leader::Other(term, leader),
            None => Leader::Nobody,
        }
    }

    /// Hands what waits to the log, or to the leader; without one, and while leadership is handed over, it waits on.
    fn propose(&mut self, effects: &mut Vec<Effect>) {
        let leader = self.leader();
        self.proposals.lead(leader);
        match leader {
            Leader::Own(_) if self.gathers() => {}
            Leader::Own(term) => {
                let mut taken = self.proposals.for_log(term);
                let data = std::mem::take(&mut taken.data);
                match () {
                    () if data.is_empty() => {}
                    () if self.node.propose(data) => self.proposals.appended(&taken, term),
                    () => self.proposals.refused(&taken, term),
                }
            }
            Leader::Other(term, leader) => self.proposals.forward(term, leader, effects),
            Leader::Leaving(_) | Leader::Nobody => {}
        }
    }
}
