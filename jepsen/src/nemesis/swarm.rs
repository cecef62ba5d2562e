//! A random half of all kinds, two at a time: what harms processes and files in one lane, what harms links, clocks and
//! patience in the other.

use super::{Harm, Nemesis, has_failpoints, round};
use crate::cluster::Cluster;
use crate::recorder::Recorder;
use anyhow::Result;
use mechi_checker::edn::Edn;
use mechi_tests::rng::Rng;
use std::sync::Arc;
use std::time::Instant;

use Nemesis as N;

/// Everything that may be drawn: all kinds but none and all.
pub(super) fn kinds() -> impl Iterator<Item = Nemesis> {
    Nemesis::ALL.into_iter().filter(|one| !matches!(one, N::None | N::All))
}

/// Whether a kind is of the second lane. A full disk and a slow one are both in the first, so that no two kinds undo each
/// other.
fn is_second(one: Nemesis) -> bool {
    matches!(one, N::Partition | N::Slow | N::Clock | N::Admin)
}

pub(super) async fn run(cluster: &Cluster, recorder: &Arc<Recorder>, seed: u64, end: Instant) -> Result<()> {
    let mut rng = Rng::new(seed ^ 0x73_7761_726d);
    let kind = cluster.program().kind;
    let without = |one: &Nemesis| *one == N::Failpoint && !has_failpoints(cluster, 0);
    let (second, first): (Vec<_>, Vec<_>) =
        kinds().filter(|one| one.impossible(kind).is_none() && !without(one)).partition(|one| is_second(*one));
    let mut draw = |possible: &[Nemesis]| {
        let drawn: Vec<_> = possible.iter().copied().filter(|_| rng.chance(50)).collect();
        if drawn.is_empty() { vec![*rng.pick(possible)] } else { drawn }
    };
    let lanes = [draw(&first), draw(&second)];
    let names = |lane: &Vec<Nemesis>| Edn::Vector(lane.iter().map(|one| Edn::keyword(one.name())).collect());
    recorder.nemesis("swarm", Edn::Vector(lanes.iter().map(names).collect()));
    let lane = |number: u64, kinds: Vec<Nemesis>| async move {
        let mut harm = Harm::new(cluster, recorder, seed, end);
        // The victims stay, what is drawn differs.
        harm.rng = Rng::new(seed ^ number.wrapping_mul(0x9e37_79b9));
        while !harm.is_over() {
            let one = *harm.rng.pick(&kinds);
            round(one, &mut harm).await?;
        }
        anyhow::Ok(())
    };
    let [first, second] = lanes;
    tokio::try_join!(lane(1, first), lane(2, second)).map(|_| ())
}
