//! All controllers as one role.

use crate::limits::{KEYS_MAX, PLANS_MAX};
use crate::metrics::Metrics;
use crate::role::{Ask, Next, Role};
use mechi_controller::cache::{Cache, Change, Changes};
use mechi_controller::control::Now;
use mechi_controller::control::manager::{Ended, Manager, Work};
use mechi_controller::keys::{self, Kind};
use mechi_controller::kv::{Error, KeyValue, Outcome, Revision, Txn};
use mechi_controller::queue::Priority;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// The component whose election it is.
const COMPONENT: &str = "controllers";

/// What the controllers do.
pub(crate) struct Controllers {
    manager: Manager,
    token: Option<Revision>,
    plans: BTreeMap<u64, Written>,
    next: u64,
    /// There was more to look at than is looked at in a row.
    is_hurried: bool,
    metrics: Arc<Metrics>,
}

/// A plan whose transactions are being written, one after the other.
struct Written {
    work: Work,
    rest: VecDeque<Txn>,
}

impl Controllers {
    /// Controllers that have seen nothing yet.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { manager: Manager::default(), token: None, plans: BTreeMap::new(), next: 0, is_hurried: false, metrics }
    }
}

impl Role for Controllers {
    type Copy = Cache;

    const COMPONENT: &'static str = COMPONENT;

    fn election(copy: &Cache) -> Option<&KeyValue> {
        copy.coord(&keys::election(COMPONENT))
    }

    fn heard(&mut self, copy: &mut Cache, changes: Changes, is_list: bool, _: Now) {
        // Whoever does not lead has nothing to do; once it leads, it looks at everything.
        if self.token.is_some() {
            let priority = if is_list { Priority::Review } else { Priority::Change };
            self.manager.changed(copy, &changes, priority);
        }
    }

    fn begin(&mut self, copy: &mut Cache, token: Revision) {
        self.token = Some(token);
        let mut all = Changes::default();
        for kind in Kind::ALL {
            let changes =
                copy.keys(kind).map(|(key, object)| Change { key: key.clone(), old: None, new: Some(object.clone()) });
            all.objects.extend(changes);
        }
        self.manager.changed(copy, &all, Priority::Review);
    }

    fn end(&mut self, _: &mut Cache) {
        self.token = None;
        self.manager = Manager::default();
        self.plans.clear();
    }

    fn plan(&mut self, copy: &mut Cache, now: Now) -> Option<Ask> {
        let token = self.token?;
        self.is_hurried = false;
        if self.plans.len() >= PLANS_MAX {
            return None;
        }
        for _ in 0..KEYS_MAX {
            let begun = Instant::now();
            let (work, plan) = self.manager.next(copy, now)?;
            let labels = [("controller", work.0.name())];
            self.metrics.observe("mechi_control_reconcile_duration_seconds", &labels, begun.elapsed().as_secs_f64());
            for note in &plan.notes {
                tracing::debug!(object = %work.1, reason = note.reason, text = note.message, "planned");
            }
            let mut rest: VecDeque<Txn> = plan.txns.into_iter().map(|txn| txn.fenced(COMPONENT, token)).collect();
            let Some(first) = rest.pop_front() else {
                self.manager.ended(&work, &Ended::Written(None), now);
                continue;
            };
            let id = self.next;
            self.next += 1;
            self.plans.insert(id, Written { work, rest });
            return Some((id, first));
        }
        self.is_hurried = true;
        None
    }

    fn answered(&mut self, _: &mut Cache, ask: &Ask, answer: Result<Outcome, Error>, now: Now) -> Next {
        let Some(plan) = self.plans.get_mut(&ask.0) else { return Next::Nothing };
        let ended = Ended::of(&answer);
        if let (Ended::Written(_), Some(next)) = (&ended, plan.rest.pop_front()) {
            return Next::Then(next);
        }
        let Written { work, .. } = self.plans.remove(&ask.0).expect("it was just seen");
        let why = match &ended {
            Ended::Written(_) => None,
            Ended::Refused(_) => Some("conflict"),
            Ended::Failed => Some("unanswered"),
        };
        if let Some(why) = why {
            let labels = [("controller", work.0.name()), ("why", why)];
            self.metrics.add("mechi_control_reconcile_errors_total", &labels, 1.0);
        }
        // What was not answered is worked out anew: guards tell whether it was written.
        self.manager.ended(&work, &ended, now);
        if matches!(ended, Ended::Failed) { Next::Rest } else { Next::Nothing }
    }

    fn due_ms(&self) -> Option<u64> {
        let due_ms = if self.is_hurried { Some(0) } else { self.manager.next_due_ms() };
        due_ms.filter(|_| self.plans.len() < PLANS_MAX)
    }

    fn measure(&self, metrics: &Metrics) {
        metrics.set("workqueue_depth", &[("name", COMPONENT)], self.manager.waiting() as f64);
    }
}
