//! The members of the cluster.

use crate::client::calls;
use mechi_proto::etcdserverpb as pb;

calls! {
    /// Asks for the members. `linearizable` asks the majority; otherwise the asked member answers what it knows.
    Read member_list(linearizable: bool) = cluster.member_list(pb::MemberListRequest { linearizable }) -> pb::MemberListResponse;

    /// Adds a member that will speak to its peers at these URLs.
    Write member_add(peer_urls: Vec<String>, is_learner: bool) = cluster.member_add(pb::MemberAddRequest { peer_ur_ls: peer_urls, is_learner }) -> pb::MemberAddResponse;

    /// Removes a member.
    Write member_remove(id: u64) = cluster.member_remove(pb::MemberRemoveRequest { id }) -> pb::MemberRemoveResponse;

    /// Changes where a member speaks to its peers.
    Write member_update(id: u64, peer_urls: Vec<String>) = cluster.member_update(pb::MemberUpdateRequest { id, peer_ur_ls: peer_urls }) -> pb::MemberUpdateResponse;

    /// Makes a learner a voter.
    Write member_promote(id: u64) = cluster.member_promote(pb::MemberPromoteRequest { id }) -> pb::MemberPromoteResponse;
}
