//! Processes that die, that stand still, and that never come to rest.

use super::harm::Harm;
use anyhow::Result;

/// kill -9, and a start some time later.
pub(super) async fn kill(harm: &mut Harm<'_>) -> Result<()> {
    let (who, leader) = (harm.targets().await, harm.cluster.leader().await);
    harm.begin("kill", harm.each(&who, "killed"));
    for n in &who {
        if harm.cluster.kill(*n)? {
            harm.effect(format!("{} was down", harm.cluster.name(*n)));
        }
    }
    harm.hold(50..1_500).await;
    harm.note_leader(leader).await;
    who.iter().try_for_each(|n| harm.cluster.spawn(*n))?;
    harm.undone("kill");
    harm.hold(200..1_500).await;
    Ok(())
}

/// SIGSTOP, also for longer than an election takes and a short lease lives, and SIGCONT.
pub(super) async fn pause(harm: &mut Harm<'_>) -> Result<()> {
    let (who, leader) = (harm.targets().await, harm.cluster.leader().await);
    harm.begin("pause", harm.each(&who, "paused"));
    for n in &who {
        if harm.cluster.freeze(*n)? {
            harm.effect(format!("{} stood still", harm.cluster.name(*n)));
        }
    }
    match harm.rng.below(3) {
        0 => harm.hold(100..600).await,
        1 => harm.hold(600..2_500).await,
        _ => harm.hold(2_500..6_000).await,
    }
    harm.note_leader(leader).await;
    who.iter().try_for_each(|n| harm.cluster.thaw(*n))?;
    harm.undone("pause");
    harm.hold(200..1_500).await;
    Ok(())
}

/// All members are killed, at once or one after the other, and started again before the last one is well.
pub(super) async fn storm(harm: &mut Harm<'_>) -> Result<()> {
    let all: Vec<usize> = (0..harm.cluster.len()).collect();
    harm.begin("restart-storm", harm.each(&all, "killed"));
    let staggered = harm.rng.chance(50);
    for n in &all {
        if harm.cluster.kill(*n)? {
            harm.effect(format!("{} was down", harm.cluster.name(*n)));
        }
        if staggered {
            harm.cluster.spawn(*n)?;
            harm.hold(0..300).await;
        }
    }
    all.iter().try_for_each(|n| harm.cluster.spawn(*n))?;
    harm.undone("restart-storm");
    harm.hold(1_000..2_000).await;
    Ok(())
}
