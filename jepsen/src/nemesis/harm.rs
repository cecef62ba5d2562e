//! What every kind of harm has at hand: the cluster, the record, random numbers, the time that is left.

use crate::cluster::Cluster;
use crate::recorder::Recorder;
use mechi_checker::edn::Edn;
use mechi_tests::rng::Rng;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One lane of harm.
pub(super) struct Harm<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) recorder: &'a Arc<Recorder>,
    pub(super) rng: Rng,
    pub(super) end: Instant,
    /// A minority that is the same for the whole run: only theirs are the files that are damaged, so that a majority
    /// of disks is whole at any time.
    pub(super) victims: Vec<usize>,
}

impl<'a> Harm<'a> {
    pub(super) fn new(cluster: &'a Cluster, recorder: &'a Arc<Recorder>, seed: u64, end: Instant) -> Self {
        // Both lanes of a swarm have the same victims: they are drawn from the seed alone.
        let mut rng = Rng::new(seed ^ 0x6e65_6d65_7369);
        let count = cluster.len();
        let victims = sample(&mut rng, count, (count.saturating_sub(1) / 2).max(1));
        Self { cluster, recorder, rng, end, victims }
    }

    /// Whether there is no time for another round.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Waits so many milliseconds, but not beyond the end.
    pub(super) async fn hold(&mut self, milliseconds: Range<u64>) {
        let wait = milliseconds.start + self.rng.below(milliseconds.end.saturating_sub(milliseconds.start));
        let until = (Instant::now() + Duration::from_millis(wait)).min(self.end);
        tokio::time::sleep_until(until.into()).await;
    }

    /// Records that a fault begins.
    pub(super) fn begin(&self, f: &str, value: Edn) {
        self.recorder.nemesis(f, value);
    }

    /// Records that the fault is undone.
    pub(super) fn undone(&self, f: &str) {
        self.recorder.nemesis(&format!("heal-{f}"), Edn::Nil);
    }

    /// Records that something was seen to happen.
    pub(super) fn effect(&self, what: impl AsRef<str>) {
        self.recorder.effect(what.as_ref());
    }

    /// One, the leader, a minority, or all.
    pub(super) async fn targets(&mut self) -> Vec<usize> {
        let count = self.cluster.len();
        match self.rng.below(10) {
            0..3 => vec![self.rng.below(count as u64) as usize],
            3..7 => match self.cluster.leader().await {
                Some(leader) => vec![leader],
                None => vec![self.rng.below(count as u64) as usize],
            },
            7..9 => sample(&mut self.rng, count, (count.saturating_sub(1) / 2).max(1)),
            _ => (0..count).collect(),
        }
    }

    /// One of the run's victims.
    pub(super) fn victim(&mut self) -> usize {
        *self.rng.pick(&self.victims)
    }

    /// `{"n1" :what, …}`.
    pub(super) fn each(&self, who: &[usize], what: &str) -> Edn {
        let named = who.iter().map(|n| (Edn::text(self.cluster.name(*n)), Edn::keyword(what)));
        Edn::Map(named.collect())
    }

    /// `{"n1" "text"}`.
    pub(super) fn one(&self, who: usize, text: impl Into<String>) -> Edn {
        Edn::Map([(Edn::text(self.cluster.name(who)), Edn::text(text))].into())
    }

    /// Compares who leads with who led.
    pub(super) async fn note_leader(&self, before: Option<usize>) {
        let now = self.cluster.leader().await;
        if now.is_some() && before.is_some() && now != before {
            self.effect("the leader changed");
        }
    }
}

/// So many different numbers below `count`, in random order.
pub(crate) fn sample(rng: &mut Rng, count: usize, size: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    for place in 0..size.min(count) {
        let other = place + rng.below((count - place) as u64) as usize;
        all.swap(place, other);
    }
    all.truncate(size);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_different_numbers_and_every_number_has_its_turn() {
        let mut seen = [0; 5];
        for seed in 0..100 {
            let mut drawn = sample(&mut Rng::new(seed), 5, 2);
            drawn.iter().for_each(|n| seen[*n] += 1);
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), 2);
        }
        assert!(seen.iter().all(|times| *times > 20), "{seen:?}");
        assert_eq!(sample(&mut Rng::new(1), 1, 1), [0]);
    }
}
