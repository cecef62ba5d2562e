//! What an operator can do to a healthy cluster, much too often: compaction, leadership handed on, defragmentation.

use super::harm::Harm;
use crate::client::{Client, Outcome};
use crate::cluster::Cluster;
use anyhow::Result;
use mechi_checker::edn::Edn;
use mechi_checker::history::store::Request;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::rng::Rng;

/// Who acts in the histories: a thread that no workload has. A compaction is an operation like any other, since what is
/// read after it depends on it.
const THREAD: u64 = 30;

/// Revisions that a compaction leaves, at the most.
const KEPT_MAX: u64 = 300;

/// Some seconds of one of them, or of all.
pub(super) async fn storm(harm: &mut Harm<'_>) -> Result<()> {
    let (cluster, what) = (harm.cluster, *harm.rng.pick(&["compact", "move-leader", "all"]));
    let mut client = Client::new(THREAD, cluster.members(), None, harm.recorder, harm.rng.next_u64())?;
    harm.begin("admin", Edn::keyword(what));
    let (mut compacted, mut moved) = (0, 0);
    for _ in 0..5 + harm.rng.below(15) {
        if harm.is_over() {
            break;
        }
        match (what, harm.rng.below(3)) {
            ("compact", _) | ("all", 0) => {
                let n = harm.rng.below(cluster.len() as u64) as usize;
                let Ok(status) = cluster.status(n).await else { continue };
                let now = status.header.as_ref().map_or(0, |header| header.revision);
                let revision = now - harm.rng.below(KEPT_MAX) as i64;
                if revision > 0 {
                    let physical = harm.rng.chance(30);
                    let asked = client.ask(Request::Compaction(pb::CompactionRequest { revision, physical })).await;
                    compacted += u32::from(matches!(asked, Outcome::Ok(_)));
                }
            }
            ("move-leader", _) | ("all", 1) => moved += u32::from(move_leader(cluster, &mut harm.rng).await.is_some()),
            _ => {
                let n = harm.rng.below(cluster.len() as u64) as usize;
                if let Ok(mut client) = cluster.connect(n).await {
                    // Of no consequence, whatever it answers: the members' sums are compared at the end.
                    let asked = client.maintenance.defragment(pb::DefragmentRequest {});
                    let _ = tokio::time::timeout(crate::limits::ASK_MAX, asked).await;
                }
            }
        }
        harm.hold(50..300).await;
    }
    harm.undone("admin");
    (0..compacted.min(1)).for_each(|_| harm.effect("it was compacted"));
    (0..moved.min(2)).for_each(|_| harm.effect("the leader changed"));
    harm.hold(100..500).await;
    Ok(())
}

/// Asks the leader to hand over to another member; `None` if it did not.
pub(crate) async fn move_leader(cluster: &Cluster, rng: &mut Rng) -> Option<()> {
    let leader = cluster.leader().await?;
    let others: Vec<usize> = (0..cluster.len()).filter(|n| *n != leader).collect();
    if others.is_empty() {
        return None;
    }
    let to = *rng.pick(&others);
    let target_id = cluster.status(to).await.ok()?.header.map_or(0, |header| header.member_id);
    let mut client = cluster.connect(leader).await.ok()?;
    let asked = client.maintenance.move_leader(pb::MoveLeaderRequest { target_id });
    tokio::time::timeout(crate::limits::ASK_MAX * 2, asked).await.ok()?.ok()?;
    Some(())
}
