//! How a cluster begins: its members' ids, the check that this one is new if it has no data, and its first entries.

mod known;

use crate::config::{Config, limits};
use crate::identity;
use crate::node::Node;
use crate::recovery::identity::Identity;
use anyhow::{Result, bail};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use mechi_proto::mechipb::{ClusterInit, MemberPublish};
use mechi_replica::effect::RoleKind;
use mechi_replica::outcome::Error;
use std::time::Duration;

pub use known::refuse_known;

/// Time between two looks whether the cluster knows its members.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Time before what must not fail is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Time between two complaints that the cluster is not there yet.
const COMPLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Who found the cluster, as the flags tell it.
#[derive(Clone, Debug)]
pub struct Founding {
    /// This member's and its cluster's ids.
    pub identity: Identity,
    /// All members by ascending id: ids and peer URLs, no names yet.
    pub members: Vec<pb::Member>,
}

impl Founding {
    /// Makes the ids from the members' peer URLs and the token, as etcd does.
    ///
    /// - Errors: etcd's words for two members of one id; a sentence for what is not served.
    pub fn new(config: &Config) -> Result<Self> {
        if config.wal_dir.is_some() {
            bail!("--wal-dir is not served yet: the log lives in the data directory");
        }
        assert!(config.initial_cluster.len() <= limits::MEMBERS_MAX, "the configuration refuses more");
        let mut members = Vec::new();
        let mut own = None;
        for (name, urls) in &config.initial_cluster {
            let peer_ur_ls: Vec<String> = urls.iter().map(ToString::to_string).collect();
            let id = identity::member_id(&peer_ur_ls, &config.cluster_token, None);
            if id.0 == 0 {
                bail!("cannot use {:x} as member id", id.0);
            }
            if members.iter().any(|member: &pb::Member| member.id == id.0) {
                bail!("member exists with identical ID {:x}", id.0);
            }
            if *name == config.name {
                own = Some(id);
            }
            members.push(pb::Member { id: id.0, peer_ur_ls, ..Default::default() });
        }
        let own = own.expect("the configuration holds the own name");
        members.sort_by_key(|member| member.id);
        let ids: Vec<_> = members.iter().map(|member| mechi_replica::types::MemberId(member.id)).collect();
        let identity = Identity {
            cluster_id: identity::cluster_id(&ids),
            member_id: own.0,
            token: config.cluster_token.clone(),
            voters: ids.iter().map(|id| id.0).collect(),
        };
        Ok(Self { identity, members })
    }

    /// The other members.
    pub fn others(&self) -> impl Iterator<Item = &pb::Member> {
        self.members.iter().filter(|member| member.id != self.identity.member_id)
    }

    /// Waits until the cluster knows its members and this one's name and URLs, and until this member has had a read
    /// point of this boot: what was acknowledged before its start is then visible through it.
    ///
    /// - Errors: the member was stopped; without a quorum it waits, and says so now and then.
    pub async fn settle(&self, node: &Node, config: &Config) -> Result<()> {
        let begun = self.begin(node, config);
        tokio::pin!(begun);
        loop {
            tokio::select! {
                done = &mut begun => return done,
                () = tokio::time::sleep(COMPLAIN_INTERVAL) => {
                    let leader = node.driver().role().leader;
                    let waits_for = match (leader.is_some(), node.members().is_empty()) {
                        (false, _) => "a quorum to elect a leader",
                        (true, true) => "the cluster's first entries",
                        (true, false) => "a read point: what was acknowledged before this start",
                    };
                    let leader = leader.map(|leader| leader.to_string());
                    tracing::warn!(leader, members = self.members.len(), waits_for, "clients are not served yet");
                }
            }
        }
    }

    async fn begin(&self, node: &Node, config: &Config) -> Result<()> {
        self.wait_for_members(node).await?;
        let own = self.identity.member_id;
        let client_urls: Vec<String> = config.advertise_client_urls.iter().map(ToString::to_string).collect();
        let known = node.members().into_iter().find(|member| member.id == own);
        if known.is_none_or(|known| known.name != config.name || known.client_ur_ls != client_urls) {
            let publish = MemberPublish { member_id: own, name: config.name.clone(), client_urls };
            retried(node, Request::MemberPublish(publish)).await?;
        }
        // etcd's suites wait for these two lines too.
        tracing::info!(cluster_version = crate::config::CLUSTER_VERSION, "enabled capabilities for version");
        tracing::info!(name = config.name, "published local member to cluster through raft");
        loop {
            match node.driver().read().await {
                Ok(_) => return Ok(()),
                Err(Error::Stopped) => bail!(Error::Stopped),
                Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
            }
        }
    }

    /// Waits until the replicated state holds the members; a leader that finds none tells them. A second leader may
    /// tell them again: only the first such entry counts.
    async fn wait_for_members(&self, node: &Node) -> Result<()> {
        let mut roles = node.driver().role_changes();
        while node.members().is_empty() {
            let role = *roles.borrow_and_update();
            if role.kind == RoleKind::Leader && role.settled {
                let members = self.members.clone();
                let init = ClusterInit { cluster_id: self.identity.cluster_id, members };
                propose_once(node, Request::ClusterInit(init)).await?;
            }
            if tokio::time::timeout(LOOK_INTERVAL, roles.changed()).await.is_ok_and(|changed| changed.is_err()) {
                bail!(Error::Stopped);
            }
        }
        Ok(())
    }
}

/// Proposes what may be proposed twice until it is done.
async fn retried(node: &Node, request: Request) -> Result<()> {
    while !propose_once(node, request.clone()).await? {
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    Ok(())
}

/// Proposes; returns whether it was applied. Errors: the member was stopped.
async fn propose_once(node: &Node, request: Request) -> Result<bool> {
    match node.driver().propose(request).await {
        Ok(_) => Ok(true),
        Err(Error::Stopped) => bail!(Error::Stopped),
        Err(error) => {
            tracing::warn!(%error, "the cluster's first entries are not applied yet");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Action, action};

    fn founding(args: &[&str]) -> Founding {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let Action::Run(config, _) = action(&args, &[]) else { panic!("refused") };
        Founding::new(&config).unwrap()
    }

    #[test]
    fn every_member_makes_the_same_ids_from_the_same_list() {
        let cluster = "--initial-cluster=a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3";
        let a = founding(&["--name=a", "--initial-advertise-peer-urls=http://127.0.0.1:1", cluster]);
        let b = founding(&["--name=b", "--initial-advertise-peer-urls=http://127.0.0.1:2", cluster]);
        assert_eq!(a.members, b.members);
        assert_eq!((a.identity.cluster_id, &a.identity.voters), (b.identity.cluster_id, &b.identity.voters));
        assert_ne!(a.identity.member_id, b.identity.member_id);
        assert!(a.identity.voters.is_sorted() && a.identity.voters.contains(&b.identity.member_id));
        assert_eq!(a.others().count(), 2);
    }
}
