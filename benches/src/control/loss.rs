//! A scheduler that leads goes, and another one binds: from the moment it goes to the first bind under the next token.

use super::limits::{LOOK, LOSS_MAX, SETTLE_MAX};
use super::scenario::{World, sample};
use crate::scenario::Sample;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How the leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// kill -9.
    Kill,
    /// SIGTERM, at which it gives its leadership back.
    Term,
}

/// The component that is led.
const COMPONENT: &str = "scheduler";

/// Between two pods, so that there always is one to bind.
const PACE: Duration = Duration::from_millis(5);

/// How long the next replica follows before its leader goes: it is to have its copy of everything.
const FOLLOW: Duration = Duration::from_secs(2);

/// Lets the leader go `times` times; one sample each, in milliseconds.
pub(super) async fn measure(world: &World<'_>, metric: &str, end: End, times: usize) -> Result<Vec<Sample>> {
    let binds = world.binds().await?;
    let mut leader = world.scheduler("scheduler-0")?;
    let mut next_pod = 0;
    world.store.create_one(next_pod).await?;
    binds.all(1, SETTLE_MAX).await?;
    let mut samples = Vec::new();
    for time in 1..=times {
        let mut next = world.scheduler(&format!("scheduler-{time}"))?;
        tokio::time::sleep(FOLLOW).await;
        next.check()?;
        let old = world.store.token(COMPONENT).await?.context("nobody leads the scheduler's election")?;
        let gone = Instant::now();
        match end {
            End::Kill => leader.kill()?,
            End::Term => leader.ask_to_stop()?,
        }
        let mut made: JoinSet<Result<()>> = JoinSet::new();
        let token = loop {
            next_pod += 1;
            let (store, n) = (world.store.clone(), next_pod);
            made.spawn(async move { store.create_one(n).await });
            if let Some(token) = world.store.token(COMPONENT).await?.filter(|token| *token != old) {
                break token;
            }
            ensure!(gone.elapsed() < LOSS_MAX, "nobody leads within {LOSS_MAX:?} after {end:?}:\n{}", next.log());
            tokio::time::sleep(PACE).await;
        };
        next_pod += 1;
        world.store.create_one(next_pod).await?;
        while let Some(done) = made.join_next().await {
            done??;
        }
        // Only the next leader can have bound anything above its token.
        let first = binds.wait("a bind by the next leader", LOSS_MAX, |binds| {
            binds.values().filter(|bind| bind.revision > token).map(|bind| bind.at).min()
        });
        let first = first.await?;
        samples.push(sample(metric, (first - gone).as_secs_f64() * 1e3));
        if end == End::Term {
            leader.wait()?;
        }
        leader = next;
        tokio::time::sleep(LOOK).await;
    }
    Ok(samples)
}
