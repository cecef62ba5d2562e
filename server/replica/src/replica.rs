//! One member's consensus: commands and messages come in, ordered effects go out.
//!
//! Feed it any number of inputs, then settle it until it says that nothing is left. Each settle makes at most one
//! entry of all waiting commands and at most one write, so that whatever arrives during an fsync shares the next.

use crate::effect::{Effect, Entry, HardState, Role, RoleKind};
use crate::input::Input;
use crate::outcome::{Error, Fatal};
use crate::propose::Proposals;
use crate::raft::{Appended, Node};
use crate::types::{Index, MemberId, Term};

/// What a [`Replica`] must know from its shell.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This member; not 0.
    pub member: MemberId,
    /// The voters of the replicated state, or of the new cluster.
    pub voters: Vec<MemberId>,
    /// The learners of the replicated state.
    pub learners: Vec<MemberId>,
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
}

impl Replica {
    /// Restores a member from its log; `applied` is the index that the replicated state stands at.
    ///
    /// - Errors: [`Fatal::Bug`] if log and applied index contradict each other: the shell's open rules exclude it.
    pub fn new(config: ReplicaConfig, tail: LogTail, applied: Index) -> Result<Self, Fatal> {
        if config.tick_ms == 0 {
            return Err(Fatal::Bug("a tick of 0 ms".to_owned()));
        }
        let proposals = Proposals::new(config.member, config.boot);
        let node = Node::new(config, tail, applied)?;
        Ok(Self { node, proposals, role: Role::default() })
    }

    /// Takes in what happened; effects come with the next [`Replica::settle`].
    pub fn feed(&mut self, input: Input) {
        match input {
            Input::Tick { now, wall_ms } => {
                self.proposals.set_wall(wall_ms);
                self.node.tick(now);
            }
            Input::Propose(command) => self.proposals.offer(command),
            Input::Read(id) => self.node.read(id),
            Input::Persisted(ticket) => self.node.persisted(ticket),
            Input::Applied(index) => self.node.applied(index),
            Input::Peer(message) => self.node.step(&message),
            Input::Unreachable(member) => self.node.unreachable(member),
            Input::Transfer(to) => self.node.transfer(to),
            Input::Trimmed(index) => self.node.trimmed(index),
        }
    }

    /// Appends what shall be done to `effects`, in the order in which it must be begun.
    ///
    /// Returns whether something is left: settle again then.
    pub fn settle(&mut self, effects: &mut Vec<Effect>) -> bool {
        self.propose();
        self.proposals.settle(effects);
        self.node.settle_reads(effects);
        let committed = self.node.settle(effects);
        self.proposals.committed(&committed, effects);
        let role = self.node.role();
        if role != self.role {
            self.role = role;
            effects.push(Effect::Role(role));
        }
        let proposable = self.proposals.is_waiting() && (self.node.takes_proposals() || !self.leads());
        proposable || self.proposals.has_refusals() || self.node.is_unsettled()
    }

    /// Leadership as this member sees it now.
    pub fn role(&self) -> Role {
        self.role
    }

    fn leads(&self) -> bool {
        self.node.role().kind == RoleKind::Leader
    }

    /// Makes one entry of what waits; while leadership is handed over it waits on, without leadership it is refused.
    fn propose(&mut self) {
        if !self.proposals.is_waiting() {
            return;
        }
        if self.node.takes_proposals() {
            let Some(entry) = self.proposals.next_entry() else { return };
            match self.node.propose(entry.data) {
                Appended::At(term, index) => self.proposals.appended(term, index, entry.commands),
                Appended::Full => self.proposals.refuse(entry.commands, &Error::TooManyRequests),
            }
        } else if !self.leads() {
            let why = if self.node.role().leader.is_some() { Error::LeaderChanged } else { Error::NoLeader };
            self.proposals.refuse_waiting(&why);
        }
    }
}
