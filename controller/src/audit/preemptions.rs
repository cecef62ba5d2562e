//! S13: nobody is told to go for another pod but for one that is more urgent, that lets others go, and that is nominated for
//! the victim's node in the same step.

use super::rules::Found;
use crate::cache::{Cached as _, Changes, Object};
use crate::sched::BY_SCHEDULER;
use crate::types::pod::Pod;

/// Looks at whom a revision tells to go so that another pod has room. Who is taken away at once is not seen.
pub(super) fn look(changes: &Changes, found: &mut Vec<Found>) {
    for change in &changes.objects {
        let Some(Object::Pod(victim)) = &change.new else { continue };
        let old = change.old.as_ref().and_then(Pod::of).filter(|old| old.created == victim.created);
        if old.is_some_and(|old| old.metadata.is_going()) || !makes_room(victim) {
            continue;
        }
        let mut changed = changes.objects.iter().filter_map(|change| change.new.as_ref().and_then(Pod::of));
        if !changed.any(|pod| is_for(pod, victim)) {
            let node = &victim.spec.node_name;
            let text = format!("it has to make room on {node}, and nobody more urgent is nominated for it");
            found.push(("S13", change.key.to_string(), text));
        }
    }
}

fn makes_room(pod: &Pod) -> bool {
    let is_why = |condition: &crate::types::meta::Condition| {
        condition.r#type == "DisruptionTarget" && condition.status == "True" && condition.reason == BY_SCHEDULER
    };
    pod.metadata.is_going() && pod.status.conditions.iter().any(is_why)
}

fn is_for(pod: &Pod, victim: &Pod) -> bool {
    let priority = |pod: &Pod| pod.spec.priority.unwrap_or(0);
    pod.spec.node_name.is_empty()
        && pod.status.nominated_node_name == victim.spec.node_name
        && pod.spec.preemption_policy != "Never"
        && priority(pod) > priority(victim)
}
