//! Writers at an even pace: each begins a write every so often, whether or not the last one was answered, and tells how
//! each ended.

use crate::client::Client;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// Writes of one writer that wait for an answer; beyond, it begins none until one is answered or given up.
const WAITING_MAX: usize = 512;

/// Keys of one writer.
const KEYS: u64 = 100;

/// How writers write.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time between two writes of one writer.
    pub every: Duration,
    /// How long a write may take before its writer gives it up. Fewer than 512 should begin in that time: a server that
    /// never answers what came while it had no leader (etcd) must not be kept from the writes that come later.
    pub give_up: Duration,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// When it was sent.
    pub began: Instant,
    /// When it was answered or given up.
    pub ended: Instant,
    /// Whether it was acknowledged.
    pub is_acked: bool,
}

/// One writer for each endpoint, until they are stopped.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    ended: mpsc::UnboundedReceiver<Written>,
}

impl Writers {
    /// Connects to each endpoint (`host:port`) and begins to write.
    pub async fn start(endpoints: &[String], pace: Pace) -> Result<Self> {
        let (stop, (tell, ended)) = (Arc::new(AtomicBool::new(false)), mpsc::unbounded_channel());
        let mut tasks = Vec::new();
        for endpoint in endpoints {
            let client = Client::connect(endpoint).await?;
            tasks.push(tokio::spawn(write(client, pace, tell.clone(), stop.clone())));
        }
        Ok(Self { stop, tasks, ended })
    }

    /// The next write that ended; an error if none does until `deadline`.
    pub async fn next(&mut self, deadline: Instant) -> Result<Written> {
        let next = tokio::time::timeout_at(deadline.into(), self.ended.recv()).await;
        next.context("no write ended in time")?.context("the writers live")
    }

    /// Lets no write begin any more, and returns those that ended and were not asked for.
    pub async fn stop(mut self) -> Result<Vec<Written>> {
        self.stop.store(true, Relaxed);
        for task in self.tasks {
            task.await?;
        }
        let mut all = Vec::new();
        // Each write holds a sender, so that the end comes with the last of them.
        while let Some(written) = self.ended.recv().await {
            all.push(written);
        }
        Ok(all)
    }
}

async fn write(client: Client, pace: Pace, tell: mpsc::UnboundedSender<Written>, stop: Arc<AtomicBool>) {
    let places = Arc::new(Semaphore::new(WAITING_MAX));
    let mut ticks = tokio::time::interval(pace.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = 0u64;
    while !stop.load(Relaxed) {
        ticks.tick().await;
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (mut client, tell) = (client.clone(), tell.clone());
        number += 1;
        tokio::spawn(async move {
            let began = Instant::now();
            let put = client.put(format!("pace/{}", number % KEYS), "x");
            let is_acked = matches!(tokio::time::timeout(pace.give_up, put).await, Ok(Ok(_)));
            // Nobody listens any more once a measurement has failed.
            let _ = tell.send(Written { began, ended: Instant::now(), is_acked });
            drop(place);
        });
    }
}

/// The longest time between two acknowledgements, and when it ended; from the last one before `from` on.
///
/// - `None`: fewer than two acknowledgements are left then.
pub fn longest_gap(all: &[Written], from: Instant) -> Option<(Duration, Instant)> {
    let mut acks: Vec<Instant> = all.iter().filter(|written| written.is_acked).map(|written| written.ended).collect();
    acks.sort_unstable();
    let first = acks.partition_point(|at| *at < from).saturating_sub(1);
    acks[first..].windows(2).map(|pair| (pair[1] - pair[0], pair[1])).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_that_of_acknowledgements_around_the_fault() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let written = |ms, is_acked| Written { began: zero, ended: at(ms), is_acked };
        let acks = [0, 500, 510, 520, 900, 910].map(|ms| written(ms, true));
        let mut all = [&acks[..], &[written(700, false)]].concat();
        all.reverse();
        // What was before the fault does not count, but for the acknowledgement right before it.
        assert_eq!(longest_gap(&all, at(515)), Some((Duration::from_millis(380), at(900))));
        assert_eq!(longest_gap(&all, at(0)), Some((Duration::from_millis(500), at(500))));
        assert_eq!(longest_gap(&all, at(2_000)), None);
        assert_eq!(longest_gap(&[], at(0)), None);
    }
}
