//! How many pods each ReplicaSet may have: never more than the surge in all, never fewer available than the rest.
//!
//! - Source: Kubernetes' `pkg/controller/deployment/rolling.go` and `util/deployment_util.go`, for the numbers.

use super::sets::Sets;
use crate::cache::Cache;
use crate::control::replica_set;
use crate::types::percent::IntOrPercent;
use crate::types::resource::Held;
use crate::types::workload::{Deployment, ReplicaSet};

/// ReplicaSets, and how many pods each is to have now.
pub(super) type Changes<'a> = Vec<(&'a Held<ReplicaSet>, i32)>;

/// How many pods may be too many, and how many may be missing.
pub fn bounds(deployment: &Deployment) -> (i32, i32) {
    let wanted = deployment.wanted();
    if deployment.spec.strategy.r#type == "Recreate" {
        return (0, wanted);
    }
    let Some(rolling) = &deployment.spec.strategy.rolling_update else { return (0, 1) };
    let share = |share: &Option<IntOrPercent>, up| share.as_ref().and_then(|share| share.of(wanted, up)).unwrap_or(0);
    let (surge, missing) = (share(&rolling.max_surge, true), share(&rolling.max_unavailable, false));
    // Both may be rounded to nothing, and then nothing could ever move.
    if surge == 0 && missing == 0 { (0, 1) } else { (surge, missing.min(wanted)) }
}

/// How many pods a ReplicaSet that is made now begins with.
pub(super) fn first(sets: &Sets<'_>, deployment: &Deployment) -> i32 {
    let wanted = deployment.wanted();
    if deployment.spec.strategy.r#type == "Recreate" {
        return if sets.old.iter().all(|set| set.wanted() == 0 && set.status.replicas == 0) { wanted } else { 0 };
    }
    let (surge, _) = bounds(deployment);
    (wanted + surge - sets.wanted()).clamp(0, wanted)
}

/// One step of a rolling update: the new one up if there is room, else old ones down as far as enough are available.
pub(super) fn step<'a>(sets: &Sets<'a>, deployment: &Deployment) -> Changes<'a> {
    let Some(new) = sets.new else { return vec![] };
    let (wanted, (surge, missing)) = (deployment.wanted(), bounds(deployment));
    let room = wanted + surge - sets.wanted();
    let next = match new.wanted() {
        now if now > wanted => wanted,
        now if now < wanted && room > 0 => (now + room).min(wanted),
        now => now,
    };
    if next != new.wanted() {
        return vec![(new, next)];
    }
    down(sets, new, wanted - missing)
}

fn down<'a>(sets: &Sets<'a>, new: &Held<ReplicaSet>, least: i32) -> Changes<'a> {
    let not_yet = new.wanted() - new.status.available_replicas;
    let mut may_go = sets.wanted() - least - not_yet;
    let mut changes: Changes<'a> = Vec::new();
    if may_go <= 0 {
        return changes;
    }
    let mut left: Vec<(&'a Held<ReplicaSet>, i32)> =
        sets.old.iter().filter(|set| set.wanted() > 0).map(|set| (*set, set.wanted())).collect();
    // Those that are no use go first: they were not available anyway.
    for (set, wanted) in &mut left {
        let sick = (*wanted - set.status.available_replicas).clamp(0, may_go);
        (*wanted, may_go) = (*wanted - sick, may_go - sick);
    }
    // Of the others only as many as are available beyond the least.
    let available: i32 = sets.all().map(|set| set.status.available_replicas).sum();
    let mut may_go = may_go.min(available - least);
    for (_, wanted) in &mut left {
        let gone = (*wanted).min(may_go).max(0);
        (*wanted, may_go) = (*wanted - gone, may_go - gone);
    }
    changes.extend(left.into_iter().filter(|(set, wanted)| set.wanted() != *wanted));
    changes
}

/// One step of a replacement: all old ones down; the new one up once no old pod is left.
pub(super) fn recreate<'a>(cache: &Cache, sets: &Sets<'a>, deployment: &Deployment) -> Changes<'a> {
    let down: Changes<'a> = sets.old.iter().filter(|set| set.wanted() > 0).map(|set| (*set, 0)).collect();
    if !down.is_empty() {
        return down;
    }
    // Also those that go still run.
    let runs = sets.old.iter().any(|set| replica_set::owned(cache, set).any(|pod| !pod.is_over()));
    let new = sets.new.filter(|new| !runs && new.wanted() != deployment.wanted());
    new.map(|new| (new, deployment.wanted())).into_iter().collect()
}

/// Gives a Deployment's new size to its ReplicaSets: all of it to the only one with pods, or to each its share.
pub(super) fn proportion<'a>(sets: &Sets<'a>, deployment: &Deployment) -> Changes<'a> {
    let (wanted, (surge, _)) = (deployment.wanted(), bounds(deployment));
    let active: Vec<&'a Held<ReplicaSet>> = sets.all().filter(|set| set.wanted() > 0).collect();
    let only = match &active[..] {
        [] => sets.new.or(sets.old.last().copied()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(one) = only {
        let is_noted = !sets.is_scaled();
        return if one.wanted() == wanted && is_noted { vec![] } else { vec![(one, wanted)] };
    }
    // A finished rollout leaves nothing to share.
    if let Some(new) = sets.new.filter(|new| new.status.available_replicas >= wanted && new.wanted() == wanted) {
        let old = sets.old.iter().filter(|set| set.wanted() > 0).map(|set| (*set, 0));
        return old.chain(sets.is_scaled().then_some((new, wanted))).collect();
    }
    let most = if wanted > 0 { wanted + surge } else { 0 };
    let total = sets.wanted();
    let mut to_add = most - total;
    // The largest first, the newest of equals first when there is more to give, the oldest when there is to take.
    let mut order = active;
    order.sort_by_key(|set| (-set.wanted(), if to_add > 0 { -set.created } else { set.created }));
    let mut sizes: Vec<i32> = Vec::new();
    let whole = to_add;
    for set in &order {
        let share = (i64::from(set.wanted()) * i64::from(whole) / i64::from(total.max(1))) as i32;
        let share = if whole > 0 { share.clamp(0, to_add) } else { share.clamp(to_add, 0) };
        sizes.push(set.wanted() + share);
        to_add -= share;
    }
    // What rounding left goes to the largest.
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add).max(0);
    }
    order.into_iter().zip(sizes).collect()
}
