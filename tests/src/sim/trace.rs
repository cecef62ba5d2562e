//! What of a run is drawn: who ran, led and was cut off when, who said what to whom, and what the clients did.

use super::process::Wire;
use super::raft_peek::peek;
use mechi_replica::effect::{Role, RoleKind};

/// A run as it is drawn; all times in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub(super) lives: Vec<Life>,
    pub(super) roles: Vec<Led>,
    pub(super) pauses: Vec<(u64, u64, bool)>,
    pub(super) faults: Vec<Struck>,
    pub(super) messages: Vec<Said>,
    pub(super) syncs: Vec<(u64, u64, u64)>,
    pub(super) disks: Vec<(u64, u64, String)>,
    pub(super) revisions: Vec<(u64, u64, u64, i64)>,
    pub(super) ops: Vec<Done>,
}

/// A process, from its start to its end.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) member: u64,
    pub(super) from: u64,
    pub(super) to: Option<u64>,
    pub(super) boot: u64,
    pub(super) replayed: u64,
    pub(super) end: String,
}

/// A member's role from a time on.
#[derive(Clone, Debug)]
pub(super) struct Led {
    pub(super) at: u64,
    pub(super) member: u64,
    pub(super) term: u64,
    pub(super) role: &'static str,
}

/// A fault.
#[derive(Clone, Debug)]
pub(super) struct Struck {
    pub(super) number: u64,
    pub(super) kind: &'static str,
    pub(super) hit: Vec<u64>,
    pub(super) from: u64,
    pub(super) to: Option<u64>,
}

/// A message between members.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) sent: u64,
    /// `None` if it was lost.
    pub(super) arrives: Option<u64>,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) kind: &'static str,
    pub(super) term: u64,
    pub(super) index: u64,
}

/// A client's operation.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) number: u64,
    pub(super) client: u64,
    pub(super) member: u64,
    pub(super) from: u64,
    pub(super) to: Option<u64>,
    pub(super) ask: String,
    pub(super) outcome: String,
    /// `ok`, `no` or `unknown`.
    pub(super) class: &'static str,
}

/// Message types of raft-rs's `eraftpb`, by number, as far as they travel.
const RAFT: [&str; 19] = [
    "hup",
    "beat",
    "propose",
    "append",
    "append answer",
    "vote request",
    "vote",
    "snapshot",
    "heartbeat",
    "heartbeat answer",
    "unreachable",
    "snapshot status",
    "check quorum",
    "transfer leader",
    "timeout now",
    "read index",
    "read index answer",
    "pre-vote request",
    "pre-vote",
];

impl Trace {
    /// A process is up.
    pub(super) fn up(&mut self, at: u64, member: u64, boot: u64, replayed: u64, revision: i64) {
        self.lives.push(Life { member, from: at, to: None, boot, replayed, end: String::new() });
        self.roles.push(Led { at, member, term: 0, role: "starting" });
        self.revisions.push((at, member, replayed, revision));
    }

    /// It ended.
    pub(super) fn down(&mut self, at: u64, member: u64, how: &str) {
        if let Some(life) = self.lives.iter_mut().rev().find(|life| life.member == member) {
            life.to = Some(at);
            how.clone_into(&mut life.end);
        }
    }

    /// It was stopped, or goes on.
    pub(super) fn pause(&mut self, at: u64, member: u64, stopped: bool) {
        self.pauses.push((at, member, stopped));
    }

    /// It has another role.
    pub(super) fn role(&mut self, at: u64, member: u64, role: &Role) {
        let word = match role.kind {
            RoleKind::Leader if role.settled => "leader",
            RoleKind::Leader => "new leader",
            RoleKind::Follower if role.leader.is_some() => "follower",
            RoleKind::Follower => "without leader",
            _ => "candidate",
        };
        self.roles.push(Led { at, member, term: role.term, role: word });
    }

    /// A fault began; `hit` may be empty if it hit nobody for good.
    pub(super) fn fault(&mut self, at: u64, number: u64, kind: &'static str, hit: &[u64], target: u64) {
        let hit = if hit.is_empty() { vec![target] } else { hit.to_vec() };
        self.faults.push(Struck { number, kind, hit, from: at, to: None });
    }

    /// It is over.
    pub(super) fn fault_ends(&mut self, at: u64, number: u64) {
        if let Some(fault) = self.faults.iter_mut().find(|fault| fault.number == number) {
            fault.to = Some(at);
        }
    }

    /// A message was sent.
    pub(super) fn message(&mut self, sent: u64, arrives: Option<u64>, from: u64, to: u64, wire: &Wire) {
        let (kind, term, index) = match wire {
            Wire::Raft(bytes) => {
                let seen = peek(bytes).unwrap_or_default();
                (RAFT.get(seen.kind as usize).copied().unwrap_or("raft"), seen.term, seen.index)
            }
            Wire::Batch(_) => ("forwarded batch", 0, 0),
            Wire::Digest { index, .. } => ("digest", 0, *index),
            Wire::KeepAlive { .. } => ("keep-alive", 0, 0),
            Wire::Renewed { .. } => ("renewed", 0, 0),
        };
        self.messages.push(Said { sent, arrives, from, to, kind, term, index });
    }

    /// An fsync of the log, from its beginning to its end.
    pub(super) fn sync(&mut self, from: u64, to: u64, member: u64) {
        self.syncs.push((from, to, member));
    }

    /// Something about a disk.
    pub(super) fn disk(&mut self, at: u64, member: u64, text: String) {
        self.disks.push((at, member, text));
    }

    /// A member has applied up to here.
    pub(super) fn revision(&mut self, at: u64, member: u64, applied: u64, revision: i64) {
        self.revisions.push((at, member, applied, revision));
    }
}
