//! Between raft-rs's protobuf types and ours: the only place that knows both.

use crate::effect::{Entry, EntryKind, HardState, RoleKind};
use raft::StateRole;
use raft::eraftpb as pb;

/// Takes one of raft's entries over; its data are shared, not copied.
pub(super) fn entry(entry: &pb::Entry) -> Entry {
    let kind = match entry.get_entry_type() {
        pb::EntryType::EntryNormal => EntryKind::Normal,
        pb::EntryType::EntryConfChange => EntryKind::ConfChange,
        pb::EntryType::EntryConfChangeV2 => EntryKind::ConfChangeV2,
    };
    Entry { index: entry.index, term: entry.term, kind, data: entry.data.clone() }
}

/// Makes raft's form of an entry that the log gave back.
pub(super) fn raft_entry(entry: Entry) -> pb::Entry {
    let mut made = pb::Entry::default();
    made.set_entry_type(match entry.kind {
        EntryKind::Normal => pb::EntryType::EntryNormal,
        EntryKind::ConfChange => pb::EntryType::EntryConfChange,
        EntryKind::ConfChangeV2 => pb::EntryType::EntryConfChangeV2,
    });
    made.index = entry.index;
    made.term = entry.term;
    made.data = entry.data;
    made
}

/// Takes raft's hard state over.
pub(super) fn hard_state(state: &pb::HardState) -> HardState {
    HardState { term: state.term, vote: state.vote, commit: state.commit }
}

/// Makes raft's form of a hard state.
pub(super) fn raft_hard_state(state: HardState) -> pb::HardState {
    pb::HardState { term: state.term, vote: state.vote, commit: state.commit, ..Default::default() }
}

/// Takes raft's role over.
pub(super) fn role(state: StateRole) -> RoleKind {
    match state {
        StateRole::Follower => RoleKind::Follower,
        StateRole::PreCandidate => RoleKind::PreCandidate,
        StateRole::Candidate => RoleKind::Candidate,
        StateRole::Leader => RoleKind::Leader,
    }
}
