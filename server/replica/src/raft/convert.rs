//! Between raft-rs's protobuf types and ours: the only place that knows both.

use crate::conf::{Configuration, Step};
use crate::effect::{Entry, EntryKind, HardState, RoleKind};
use crate::types::MemberId;
use bytes::Bytes;
use protobuf::Message as _;
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

/// Makes raft's form of a configuration. A joint one is always left by itself.
pub(super) fn raft_conf_state(conf: &Configuration) -> pb::ConfState {
    let meta = conf.to_meta();
    pb::ConfState {
        voters: meta.voters,
        learners: meta.learners,
        voters_outgoing: meta.voters_outgoing,
        learners_next: meta.learners_next,
        auto_leave: meta.auto_leave,
        ..Default::default()
    }
}

/// Takes raft's configuration over.
pub(super) fn configuration(state: &pb::ConfState) -> Configuration {
    let set = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    Configuration {
        voters: set(&state.voters),
        outgoing: set(&state.voters_outgoing),
        learners: set(&state.learners),
        learners_next: set(&state.learners_next),
    }
}

/// Makes raft's form of a change. Left to its own, raft does one step at once and several by way of a joint
/// configuration that it leaves by itself; none ends it.
pub(super) fn raft_change(steps: &[Step], context: Vec<u8>) -> pb::ConfChangeV2 {
    let single = |step: &Step| {
        let kind = match step {
            Step::Promote(_) => pb::ConfChangeType::AddNode,
            Step::Demote(_) => pb::ConfChangeType::AddLearnerNode,
        };
        let mut single = pb::ConfChangeSingle { node_id: step.member().0, ..Default::default() };
        single.set_change_type(kind);
        single
    };
    let mut change = pb::ConfChangeV2::default();
    change.set_changes(steps.iter().map(single).collect());
    change.context = context.into();
    change
}

/// The data of a change's entry.
pub(crate) fn encode_change(steps: &[Step], context: Vec<u8>) -> Bytes {
    let change = raft_change(steps, context);
    change.write_to_bytes().expect("a change has no required fields").into()
}

/// Reads the steps and the context of a change in raft's form; `None` if it is none that [`raft_change`] makes.
pub(crate) fn decode_change(data: &Bytes) -> Option<(Vec<Step>, Vec<u8>)> {
    let change = pb::ConfChangeV2::parse_from_bytes(data).ok()?;
    let step = |single: &pb::ConfChangeSingle| {
        let member = MemberId(single.node_id);
        match single.get_change_type() {
            pb::ConfChangeType::AddNode => Some(Step::Promote(member)),
            pb::ConfChangeType::AddLearnerNode => Some(Step::Demote(member)),
            pb::ConfChangeType::RemoveNode => None,
        }
    };
    let steps = change.get_changes().iter().map(step).collect::<Option<_>>()?;
    let plain = change.get_transition() == pb::ConfChangeTransition::Auto;
    plain.then(|| (steps, change.get_context().to_vec()))
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
