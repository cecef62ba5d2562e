//! What the program counts and measures, in Prometheus' text form. Where Kubernetes has a metric of that meaning, it has its name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard};

/// What a metric is.
#[derive(Clone, Copy, Debug)]
enum Type {
    Counter,
    Gauge,
    /// With these upper bounds.
    Histogram(&'static [f64]),
}

const SECONDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
const SHORT: &[f64] = &[0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 96.0, 128.0];

/// All metrics there are: nothing else can be counted.
static FAMILIES: [(&str, Type, &str); 24] = [
    ("leader_election_master_status", Type::Gauge, "1 while this replica leads."),
    (
        "mechi_control_cache_lag_revisions",
        Type::Gauge,
        "Revisions that the copy is behind what the store has answered.",
    ),
    ("mechi_control_cache_lag_seconds", Type::Gauge, "Since when it is behind."),
    ("mechi_control_cache_revision", Type::Gauge, "The revision of the copy."),
    ("mechi_control_fence_rejections_total", Type::Counter, "Transactions refused since another replica leads."),
    ("mechi_control_nodes", Type::Gauge, "Fake nodes that are registered."),
    ("mechi_control_queue_audits_total", Type::Counter, "Looks at the scheduler's own queues."),
    ("mechi_control_queue_findings_total", Type::Counter, "What was wrong with them."),
    ("mechi_control_reconcile_duration_seconds", Type::Histogram(SHORT), "Time to work out what a key needs."),
    ("mechi_control_reconcile_errors_total", Type::Counter, "Plans that were not written, by why."),
    ("mechi_control_relists_total", Type::Counter, "How often everything was listed again, by cause."),
    ("mechi_control_stages_total", Type::Counter, "Stages of fake pods that were written."),
    ("mechi_control_txn_conflicts_total", Type::Counter, "Guards that did not hold, by guard."),
    ("mechi_control_txn_duration_seconds", Type::Histogram(SECONDS), "Time to an answer."),
    ("mechi_control_txn_guards", Type::Histogram(SIZES), "Guards of a transaction."),
    ("mechi_control_txn_writes", Type::Histogram(SIZES), "Writes of a transaction."),
    ("mechi_control_txns_total", Type::Counter, "Transactions, by what became of them."),
    ("scheduler_pending_pods", Type::Gauge, "Pods that wait, by queue."),
    ("scheduler_pod_scheduling_sli_duration_seconds", Type::Histogram(SECONDS), "From seen to bound."),
    ("scheduler_preemption_attempts_total", Type::Counter, "Pods that others were told to go for."),
    ("scheduler_preemption_victims", Type::Histogram(SIZES), "Pods that were told to go for another one."),
    ("scheduler_schedule_attempts_total", Type::Counter, "Pods that were tried, by result."),
    ("scheduler_scheduling_algorithm_duration_seconds", Type::Histogram(SHORT), "Time to place one batch of pods."),
    ("workqueue_depth", Type::Gauge, "Keys that wait to be looked at."),
];

/// Labels and their values, as they are printed.
type Labels = String;

#[derive(Debug)]
enum Value {
    Number(f64),
    Histogram { counts: Vec<u64>, sum: f64, count: u64 },
}

/// All that is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    values: Mutex<BTreeMap<(&'static str, Labels), Value>>,
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let printed: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    printed.join(",")
}

fn family(name: &str) -> &'static (&'static str, Type, &'static str) {
    FAMILIES.iter().find(|(known, ..)| *known == name).unwrap_or_else(|| panic!("{name} is no metric"))
}

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, Labels), Value>> {
        self.values.lock().expect("nobody panics with it")
    }

    /// Adds to a counter.
    pub(crate) fn add(&self, name: &str, pairs: &[(&str, &str)], by: f64) {
        let mut values = self.lock();
        if let Value::Number(number) = values.entry((family(name).0, labels(pairs))).or_insert(Value::Number(0.0)) {
            *number += by;
        }
    }

    /// Sets a gauge, or a counter that somebody else counts.
    pub(crate) fn set(&self, name: &str, pairs: &[(&str, &str)], to: f64) {
        self.lock().insert((family(name).0, labels(pairs)), Value::Number(to));
    }

    /// Adds to a histogram.
    pub(crate) fn observe(&self, name: &str, pairs: &[(&str, &str)], observed: f64) {
        let (name, r#type, _) = family(name);
        let Type::Histogram(bounds) = r#type else { panic!("{name} is no histogram") };
        let mut values = self.lock();
        let new = || Value::Histogram { counts: vec![0; bounds.len()], sum: 0.0, count: 0 };
        if let Value::Histogram { counts, sum, count } = values.entry((name, labels(pairs))).or_insert_with(new) {
            let at = bounds.partition_point(|bound| *bound < observed);
            if let Some(bucket) = counts.get_mut(at) {
                *bucket += 1;
            }
            *sum += observed;
            *count += 1;
        }
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn text(&self) -> String {
        let values = self.lock();
        let mut text = String::new();
        for (name, r#type, help) in &FAMILIES {
            let kind = match r#type {
                Type::Counter => "counter",
                Type::Gauge => "gauge",
                Type::Histogram(_) => "histogram",
            };
            let of_family = values.range((*name, String::new())..).take_while(|((other, _), _)| other == name);
            let mut lines = String::new();
            for ((_, labels), value) in of_family {
                print(&mut lines, name, labels, *r#type, value);
            }
            if !lines.is_empty() {
                write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}")
                    .expect("writing to a text does not fail");
            }
        }
        text
    }
}

fn print(to: &mut String, name: &str, labels: &str, r#type: Type, value: &Value) {
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let written = match (value, r#type) {
        (Value::Histogram { counts, sum, count }, Type::Histogram(bounds)) => {
            let comma = if labels.is_empty() { "" } else { "," };
            let mut below = 0;
            for (bound, in_bucket) in bounds.iter().zip(counts) {
                below += in_bucket;
                writeln!(to, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}").expect("as above");
            }
            writeln!(to, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}").expect("as above");
            writeln!(to, "{name}_sum{braced} {sum}\n{name}_count{braced} {count}")
        }
        (Value::Number(number), _) => writeln!(to, "{name}{braced} {number}"),
        (Value::Histogram { .. }, _) => Ok(()),
    };
    written.expect("writing to a text does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_printed_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics.add("mechi_control_txn_conflicts_total", &[("guard", "seen")], 2.0);
        metrics.add("mechi_control_txn_conflicts_total", &[("guard", "seen")], 1.0);
        metrics.set("workqueue_depth", &[("name", "a\"b\\")], 7.0);
        metrics.set("mechi_control_nodes", &[], 3.0);
        for observed in [0.0005, 0.001, 0.3, 1_000.0] {
            metrics.observe("mechi_control_txn_duration_seconds", &[("component", "scheduler")], observed);
        }
        let text = metrics.text();
        for line in [
            "# TYPE mechi_control_txn_conflicts_total counter",
            "mechi_control_txn_conflicts_total{guard=\"seen\"} 3",
            "workqueue_depth{name=\"a\\\"b\\\\\"} 7",
            "mechi_control_nodes 3",
            "mechi_control_txn_duration_seconds_bucket{component=\"scheduler\",le=\"0.001\"} 2",
            "mechi_control_txn_duration_seconds_bucket{component=\"scheduler\",le=\"0.2\"} 2",
            "mechi_control_txn_duration_seconds_bucket{component=\"scheduler\",le=\"0.5\"} 3",
            "mechi_control_txn_duration_seconds_bucket{component=\"scheduler\",le=\"60\"} 3",
            "mechi_control_txn_duration_seconds_bucket{component=\"scheduler\",le=\"+Inf\"} 4",
            "mechi_control_txn_duration_seconds_count{component=\"scheduler\"} 4",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        // What never happened is not printed.
        assert!(!text.contains("scheduler_pending_pods"));
        assert_eq!(text.matches("# TYPE").count(), 4);
    }

    #[test]
    fn every_metric_is_there_once_and_in_order() {
        assert!(FAMILIES.is_sorted_by(|one, two| one.0 < two.0));
    }
}
