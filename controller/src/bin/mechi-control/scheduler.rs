//! The scheduler as a role.

use crate::limits::MEASURE_MS;
use crate::metrics::Metrics;
use crate::role::{Ask, Next, Role};
use mechi_controller::audit::queues;
use mechi_controller::control::Now;
use mechi_controller::keys::ObjectKey;
use mechi_controller::kv::{Error, KeyValue, Outcome, Revision};
use mechi_controller::sched::view::{Told, View};
use mechi_controller::sched::{COMPONENT, Scheduler as Core};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Binds pods to nodes.
pub(crate) struct Scheduler {
    core: Core,
    token: Option<Revision>,
    /// Since when pods are seen to wait, and which incarnation.
    waits: BTreeMap<ObjectKey, (Revision, u64)>,
    /// Whether it looks at its own queues, and when it last did.
    audits: bool,
    audited_ms: Option<u64>,
    metrics: Arc<Metrics>,
}

impl Scheduler {
    /// One that has seen nothing yet.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let (core, waits) = (Core::default(), BTreeMap::new());
        Self { core, token: None, waits, audits: false, audited_ms: None, metrics }
    }

    /// Looks at its own queues as it works, once in [`MEASURE_MS`].
    pub(crate) fn auditing(mut self, audits: bool) -> Self {
        self.audits = audits;
        self
    }

    /// S11: whoever waits is in one place. Nobody but this process can see it.
    fn audit(&mut self, copy: &View, now: Now) {
        if !self.audits || self.audited_ms.is_some_and(|last| now.ms < last + MEASURE_MS) {
            return;
        }
        self.audited_ms = Some(now.ms);
        self.metrics.add("mechi_control_queue_audits_total", &[], 1.0);
        for finding in queues::waiting(copy, &self.core) {
            self.metrics.add("mechi_control_queue_findings_total", &[], 1.0);
            tracing::error!(%finding, "a queue is not as it must be");
        }
    }
}

impl Role for Scheduler {
    type Copy = View;

    const COMPONENT: &'static str = COMPONENT;

    fn election(copy: &View) -> Option<&KeyValue> {
        copy.election(COMPONENT)
    }

    fn heard(&mut self, copy: &mut View, told: Vec<Told>, _: bool, now: Now) {
        for one in &told {
            match one {
                Told::Waits { key, created, .. } => {
                    let waits = self.waits.entry(key.clone()).or_insert((*created, now.ms));
                    if waits.0 != *created {
                        *waits = (*created, now.ms);
                    }
                }
                Told::Waited(key) => {
                    self.waits.remove(key);
                }
                _ => {}
            }
        }
        self.core.told(copy, &told, now);
        self.audit(copy, now);
    }

    fn begin(&mut self, _: &mut View, token: Revision) {
        self.token = Some(token);
    }

    fn end(&mut self, copy: &mut View) {
        self.token = None;
        self.core.reset(copy);
    }

    fn plan(&mut self, copy: &mut View, now: Now) -> Option<Ask> {
        let begun = Instant::now();
        let bind = self.core.plan(copy, self.token?, now)?;
        self.metrics.observe("scheduler_scheduling_algorithm_duration_seconds", &[], begun.elapsed().as_secs_f64());
        Some(bind)
    }

    fn wants(&self) -> Option<Vec<ObjectKey>> {
        self.core.victims()
    }

    fn read(&mut self, copy: &mut View, items: Vec<KeyValue>, now: Now) -> Option<Ask> {
        self.core.make_room(copy, &items, self.token?, now)
    }

    fn answered(&mut self, copy: &mut View, ask: &Ask, answer: Result<Outcome, Error>, now: Now) -> Next {
        let is_done = !matches!(answer, Err(Error::Unknown(_)));
        let is_failed = answer.is_err();
        if matches!(answer, Ok(Outcome::Committed(_))) {
            for key in self.core.binds(ask.0) {
                if let Some((_, since_ms)) = self.waits.get(key) {
                    let seconds = now.ms.saturating_sub(*since_ms) as f64 / 1_000.0;
                    self.metrics.observe("scheduler_pod_scheduling_sli_duration_seconds", &[], seconds);
                }
            }
        }
        let before = self.core.counters();
        let again = self.core.answered(copy, ask.0, answer, now);
        let after = self.core.counters();
        if after.preempting > before.preempting {
            let victims = after.preempted - before.preempted;
            self.metrics.observe("scheduler_preemption_victims", &[], victims as f64);
        }
        match again {
            Some(_) => Next::Again,
            None if is_done && is_failed => Next::Rest,
            None => Next::Nothing,
        }
    }

    fn due_ms(&self) -> Option<u64> {
        self.core.queues().next_due_ms()
    }

    fn measure(&self, metrics: &Metrics) {
        let counters = self.core.counters();
        for (result, count) in
            [("scheduled", counters.bound), ("unschedulable", counters.unschedulable), ("error", counters.failed)]
        {
            metrics.set("scheduler_schedule_attempts_total", &[("result", result)], count as f64);
        }
        metrics.set("scheduler_preemption_attempts_total", &[], counters.preempting as f64);
        let queues = ["active", "backoff", "unschedulable", "in_flight"];
        for (queue, count) in queues.into_iter().zip(self.core.queues().lengths()) {
            metrics.set("scheduler_pending_pods", &[("queue", queue)], count as f64);
        }
    }
}
