//! What people are told of a Deployment.

use super::super::replica_set::REPLICA_FAILURE;
use super::super::{Now, Plan};
use super::rolling::bounds;
use super::sets::Sets;
use crate::types::meta::{Condition, set_condition};
use crate::types::time::Time;
use crate::types::workload::{Deployment, DeploymentStatus};

/// Seconds without progress until a rollout has failed, if nothing is said.
const DEADLINE_SECONDS: i32 = 600;

/// Works out the status; says when to look whether there was progress.
pub(super) fn fill_in(sets: &Sets<'_>, deployment: &mut Deployment, now: Now, plan: &mut Plan) {
    let old = deployment.status.clone();
    let sum =
        |of: fn(&crate::types::workload::ReplicaSetStatus) -> i32| sets.all().map(|set| of(&set.status)).sum::<i32>();
    let (replicas, available) = (sum(|status| status.replicas), sum(|status| status.available_replicas));
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas,
        updated_replicas: sets.new.map_or(0, |new| new.status.replicas),
        ready_replicas: sum(|status| status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (sets.wanted() - available).max(0),
        ..old.clone()
    };
    let (_, missing) = bounds(deployment);
    let enough = available >= deployment.wanted() - missing;
    let (state, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status.conditions, "Available", state, reason, message.to_owned(), now.time);
    progress(sets, deployment, &old, &mut status, now, plan);
    failure(sets, &mut status.conditions, now.time);
    deployment.status = status;
}

/// What keeps a ReplicaSet from making its pods is said of the Deployment too, the new one's first.
fn failure(sets: &Sets<'_>, conditions: &mut Vec<Condition>, now: Time) {
    let said = sets.new.into_iter().chain(sets.old.iter().copied()).flat_map(|set| &set.status.conditions);
    let mut failed = said.filter(|condition| condition.r#type == REPLICA_FAILURE && condition.status == "True");
    match failed.next() {
        Some(failed) => set(conditions, REPLICA_FAILURE, "True", &failed.reason, failed.message.clone(), now),
        None => conditions.retain(|condition| condition.r#type != REPLICA_FAILURE),
    }
}

fn set(conditions: &mut Vec<Condition>, r#type: &str, status: &str, reason: &str, message: String, now: Time) {
    let update = Some(now);
    let condition = Condition {
        r#type: r#type.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_update_time: update,
        ..Default::default()
    };
    set_condition(conditions, condition, now);
}

/// Whether the rollout goes on, is done, or has taken too long.
fn progress(
    sets: &Sets<'_>,
    deployment: &Deployment,
    old: &DeploymentStatus,
    status: &mut DeploymentStatus,
    now: Now,
    plan: &mut Plan,
) {
    let name = sets.new.map_or(&deployment.metadata.name, |new| &new.metadata.name);
    let what = if sets.new.is_some() { "ReplicaSet" } else { "Deployment" };
    let before = old.conditions.iter().find(|condition| condition.r#type == "Progressing").cloned();
    let is_done = sets.new.is_some()
        && status.updated_replicas == deployment.wanted()
        && status.replicas == deployment.wanted()
        && status.available_replicas == deployment.wanted();
    let moved = status.updated_replicas > old.updated_replicas
        || status.replicas - status.updated_replicas < old.replicas - old.updated_replicas
        || status.ready_replicas > old.ready_replicas
        || status.available_replicas > old.available_replicas;
    let conditions = &mut status.conditions;
    if deployment.spec.paused {
        return set(
            conditions,
            "Progressing",
            "Unknown",
            "DeploymentPaused",
            "Deployment is paused".to_owned(),
            now.time,
        );
    }
    if is_done {
        let message = format!("{what} \"{name}\" has successfully progressed.");
        return set(conditions, "Progressing", "True", "NewReplicaSetAvailable", message, now.time);
    }
    let was_done = before.as_ref().is_some_and(|before| before.reason == "NewReplicaSetAvailable");
    let is_new = before.as_ref().is_none_or(|before| before.reason == "DeploymentPaused");
    let failed = before.as_ref().is_some_and(|before| before.reason == "ProgressDeadlineExceeded");
    // Pods that were well and are not any more are no rollout, unless there is a new make.
    let is_rollout = old.observed_generation < deployment.metadata.generation || !was_done;
    if was_done && !is_rollout {
        return;
    }
    if moved || is_new || was_done {
        let message = format!("{what} \"{name}\" is progressing.");
        conditions.retain(|condition| condition.r#type != "Progressing" || !(moved || was_done));
        set(conditions, "Progressing", "True", "ReplicaSetUpdated", message, now.time);
    }
    let Some(seconds) = deployment.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX) else {
        return;
    };
    let since = conditions.iter().find(|condition| condition.r#type == "Progressing");
    let since = since.and_then(|since| since.last_update_time).unwrap_or(now.time);
    let deadline = Time(since.0 + i64::from(if seconds > 0 { seconds } else { DEADLINE_SECONDS }));
    if failed && !moved {
        return;
    }
    if deadline <= now.time {
        let message = format!("{what} \"{name}\" has timed out progressing.");
        set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", message, now.time);
    } else {
        plan.again_at(now.ms_at(deadline));
    }
}
