//! How a run goes on: a line each ten seconds, and what the processes' own metrics count, which each of them forgets when it
//! is killed.

use super::people::Counts;
use super::plane::{Plane, sum_of};
use super::record::Record;
use super::trace::Trace;
use mechi_controller::keys;
use mechi_controller::types::node::Node;
use mechi_controller::types::pod::Pod;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Looks of schedulers at their own queues.
pub(super) const QUEUE_AUDITS: &str = "mechi_control_queue_audits_total";

/// Pods for which others were told to go.
pub(super) const PREEMPTIONS: &str = "scheduler_preemption_attempts_total";

/// What is counted.
const COUNTED: [&str; 7] = [
    QUEUE_AUDITS,
    PREEMPTIONS,
    "mechi_control_queue_findings_total",
    "mechi_control_fence_rejections_total",
    "mechi_control_relists_total",
    "mechi_control_txn_conflicts_total",
    "mechi_control_stages_total",
];

/// Counters that grow over the lives of those who count.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    last: BTreeMap<(usize, &'static str), f64>,
    sums: BTreeMap<&'static str, f64>,
}

impl Sums {
    /// A process shows a counter.
    fn add(&mut self, process: usize, name: &'static str, now: f64) {
        let last = self.last.insert((process, name), now).unwrap_or(0.0);
        // One that is less than it was began anew.
        *self.sums.entry(name).or_default() += if now >= last { now - last } else { now };
    }

    /// All counters, rounded down.
    pub(super) fn all(&self) -> BTreeMap<&'static str, u64> {
        self.sums.iter().map(|(name, sum)| (*name, *sum as u64)).collect()
    }

    /// Asks all processes once.
    pub(super) async fn ask(&mut self, plane: &Plane) {
        for n in 0..plane.len() {
            let Some(text) = plane.metrics(n).await else { continue };
            for name in COUNTED {
                self.add(n, name, sum_of(&text, name));
            }
        }
    }
}

/// Shows a line each ten seconds, for ever.
pub(super) async fn show(plane: &Plane, record: &Record, trace: &Trace, counts: &Counts, sums: &mut Sums) {
    loop {
        tokio::time::sleep(PAUSE).await;
        sums.ask(plane).await;
        if let Some(why) = plane.ended() {
            trace.finding(why);
        }
        println!("{}", line(record, trace, counts));
    }
}

/// How it stands.
pub(super) fn line(record: &Record, trace: &Trace, counts: &Counts) -> String {
    let (pods, ready, waiting, nodes, leaders) = record.with(|cache| {
        let active: Vec<_> = cache.all::<Pod>().filter(|pod| pod.is_active()).collect();
        let ready = active.iter().filter(|pod| pod.is_ready()).count();
        let waiting = active.iter().filter(|pod| pod.spec.node_name.is_empty()).count();
        let nodes = cache.all::<Node>().filter(|node| node.is_ready()).count();
        let leaders = super::plane::COMPONENTS.map(|component| {
            let held = cache.coord(&keys::election(component));
            held.map_or_else(|| "nobody".to_owned(), |held| String::from_utf8_lossy(&held.value).into_owned())
        });
        (active.len(), ready, waiting, nodes, leaders)
    });
    let (rounds, effects) = trace
        .faults()
        .values()
        .fold((0, 0), |(rounds, effects), tally| (rounds + tally.rounds, effects + tally.effects));
    let (findings, more) = trace.findings();
    let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    format!(
        "{:5.0} s  revision {}  nodes {nodes}  pods {pods}, {ready} ready, {waiting} wait  orders {} done, {} refused, \
         {} unknown  faults {rounds}, {effects} effects  lead {}  findings {}",
        trace.seconds(),
        record.through(),
        of(&counts.done),
        of(&counts.refused),
        of(&counts.unknown),
        leaders.join(" "),
        findings.len() + more,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_began_anew_goes_on_where_it_was() {
        let mut sums = Sums::default();
        [3.0, 5.0, 2.0, 2.0].into_iter().for_each(|now| sums.add(0, QUEUE_AUDITS, now));
        sums.add(1, QUEUE_AUDITS, 10.0);
        assert_eq!(sums.all(), BTreeMap::from([(QUEUE_AUDITS, 17)]));
    }
}
