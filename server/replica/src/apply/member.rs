//! The cluster's identity and members: the replicated state is their one source.

use super::Outcomes;
use super::state::State;
use crate::outcome::{Error, Response};
use mechi_proto::mechipb;

/// Takes the cluster's identity and first members; the first such entry wins, later ones change nothing.
pub(super) fn init(state: &mut State, init: &mechipb::ClusterInit, out: &mut Outcomes) -> Result<Response, Error> {
    if state.cluster_id == 0 && state.members.is_empty() {
        state.cluster_id = init.cluster_id;
        state.members = init.members.iter().map(|member| (member.id, member.clone())).collect();
        state.conf_state.voters = init.members.iter().filter(|member| !member.is_learner).map(|m| m.id).collect();
        state.conf_state.learners = init.members.iter().filter(|member| member.is_learner).map(|m| m.id).collect();
        state.conf_state.voters.sort_unstable();
        state.conf_state.learners.sort_unstable();
        out.members_changed = true;
    }
    Ok(Response::Internal)
}

/// Takes a member's name and client URLs; one that was removed in the meantime stays away.
pub(super) fn publish(state: &mut State, told: &mechipb::MemberPublish, out: &mut Outcomes) -> Result<Response, Error> {
    let member = state.members.get_mut(&told.member_id).ok_or(Error::MemberNotFound)?;
    if member.name != told.name || member.client_ur_ls != told.client_urls {
        member.name.clone_from(&told.name);
        member.client_ur_ls.clone_from(&told.client_urls);
        out.members_changed = true;
    }
    Ok(Response::Internal)
}
