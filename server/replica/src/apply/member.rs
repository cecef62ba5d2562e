//! The cluster's identity and members: the replicated state is their one source.

use super::state::State;
use super::{Answer, Outcomes, link, status_code};
use crate::conf::{Author, Move, Moved};
use crate::digest::Link;
use crate::effect::Entry;
use crate::outcome::{Error, Response};
use crate::types::MemberId;
use mechi_proto::mechipb;
use prost::Message;

/// Takes the cluster's identity and first members; the first such entry wins, later ones change nothing.
pub(super) fn init(state: &mut State, init: &mechipb::ClusterInit, out: &mut Outcomes) -> Result<Response, Error> {
    if state.cluster_id == 0 && state.members.is_empty() {
        state.cluster_id = init.cluster_id;
        state.members = init.members.iter().map(|member| (member.id, member.clone())).collect();
        // A state that takes part in a cluster knows its first voters from the start.
        state.found(init.members.iter().filter(|member| !member.is_learner).map(|member| MemberId(member.id)));
        mark_learners(state);
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

/// Takes a membership change, or refuses it: on every member alike, since the configuration is part of the state.
///
/// Returns what the chain digest learns of it: the outcome, and the configuration that every member must have now.
pub(super) fn configure(state: &mut State, entry: &Entry, change: Move, answer: Answer, out: &mut Outcomes) -> Link {
    let Move { author: Author { member, boot, id }, steps } = change;
    let outcome = state.conf.after(&steps).map(|now| {
        state.conf = now.clone();
        mark_learners(state);
        out.members_changed = true;
        out.moved.push(Moved { index: entry.index, steps, now });
        Response::Internal
    });
    let conf_crc = crc32c::crc32c(&state.conf.to_meta().encode_to_vec());
    let link = link(state, conf_crc, status_code(&outcome));
    if (Answer { member, boot }) == answer {
        out.answers.push((id, outcome));
    }
    link
}

/// Lets the list of members say who learns; who still votes for the time before does not.
fn mark_learners(state: &mut State) {
    let State { conf, members, .. } = state;
    members.values_mut().for_each(|member| member.is_learner = conf.learners.contains(&MemberId(member.id)));
}
