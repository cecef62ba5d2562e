//! S6, the half that is about pods that are there: no ReplicaSet deletes so many that fewer are ready than the Deployment's
//! `maxUnavailable` leaves, unless pods failed by themselves.
//!
//! Between the decision to have fewer and the deletion pods fail, are evicted and are deleted by people; what is decided is
//! worked out from counts that lag. So this remembers: at each revision at which all counts are true and nothing is left
//! to delete, a Deployment is settled, and from then on so many may become too few as were lost by themselves. Who changes
//! the Deployment's size is not rolling out: that is excused until all ReplicaSets have their share of the new one.

use super::rules::Found;
use crate::cache::{Cache, Cached as _, Changes, Object};
use crate::control::deployment::bounds;
use crate::keys::{Kind, ObjectKey};
use crate::kv::Revision;
use crate::types::pod::Pod;
use crate::types::resource::Resource as _;
use crate::types::workload::{Deployment, ReplicaSet};
use std::collections::{BTreeMap, BTreeSet};

/// The annotation by which a ReplicaSet says for which size of its Deployment it has its number.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";

/// Pods of one ReplicaSet.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    active: i64,
    ready: i64,
}

/// What may become of a Deployment's ready pods.
#[derive(Clone, Copy, Debug, Default)]
struct Settled {
    /// So many must stay.
    floor: i64,
    /// So many were lost by themselves since.
    lost: i64,
    /// Nothing is expected of it until it is settled again.
    is_excused: bool,
}

/// All Deployments, by what was seen of their pods.
#[derive(Debug, Default)]
pub(super) struct Rollouts {
    counts: BTreeMap<Revision, Count>,
    settled: BTreeMap<ObjectKey, (Revision, Settled)>,
}

/// What happened to a Deployment in one revision.
#[derive(Clone, Copy, Debug, Default)]
struct Happened {
    /// Ready pods that its ReplicaSets deleted.
    deleted: i64,
    /// Ready pods that it lost otherwise.
    lost: i64,
    is_excused: bool,
}

/// The ReplicaSet that a pod counts for, and whether it is ready.
fn share(cache: &Cache, object: Option<&Object>) -> Option<(Revision, bool)> {
    let pod = object.and_then(Pod::of).filter(|pod| pod.is_active())?;
    let owner = pod.metadata.controller().filter(|owner| owner.kind == Kind::ReplicaSet.name())?;
    Some((owner.created(cache.cluster(), &pod.metadata.namespace)?, pod.is_ready()))
}

/// The Deployment that manages a ReplicaSet.
fn deployment_of(set: &ReplicaSet) -> Option<ObjectKey> {
    let owner = set.metadata.controller().filter(|owner| owner.kind == Kind::Deployment.name())?;
    Some(ObjectKey::new(Kind::Deployment, &set.metadata.namespace, &owner.name))
}

impl Rollouts {
    /// Counts what is there at the beginning.
    pub(super) fn begin(&mut self, cache: &Cache) {
        for (_, object) in cache.keys(Kind::Pod) {
            self.count(share(cache, Some(object)), 1);
        }
    }

    fn count(&mut self, share: Option<(Revision, bool)>, by: i64) {
        let Some((set, ready)) = share else { return };
        let count = self.counts.entry(set).or_default();
        count.active += by;
        count.ready += if ready { by } else { 0 };
        if count.active == 0 {
            self.counts.remove(&set);
        }
    }

    /// Looks at a revision.
    pub(super) fn see(&mut self, cache: &Cache, changes: &Changes, found: &mut Vec<Found>) {
        let mut happened: BTreeMap<ObjectKey, Happened> = BTreeMap::new();
        let written: BTreeSet<Revision> = changes
            .objects
            .iter()
            .filter_map(|change| change.new.as_ref().and_then(ReplicaSet::of).map(|set| set.created))
            .collect();
        for change in &changes.objects {
            match change.key.kind {
                Kind::Pod => {
                    let (was, is) = (share(cache, change.old.as_ref()), share(cache, change.new.as_ref()));
                    self.count(was, -1);
                    self.count(is, 1);
                    let owner = change.new.as_ref().or(change.old.as_ref()).and_then(Object::meta);
                    let name = owner.and_then(|meta| meta.controller()).map_or("", |owner| &owner.name);
                    let set = cache.get::<ReplicaSet>(change.key.namespace(), name);
                    let Some(key) = set.and_then(|set| deployment_of(set)) else { continue };
                    let of = happened.entry(key).or_default();
                    let Some((set, true)) = was.filter(|was| is != Some(*was)) else { continue };
                    let is_told = change.new.as_ref().and_then(Object::meta).is_none_or(|meta| meta.is_going());
                    if is_told && written.contains(&set) {
                        of.deleted += 1;
                    } else {
                        of.lost += 1;
                    }
                }
                Kind::ReplicaSet => {
                    let (old, new) = (change.old.as_ref(), change.new.as_ref());
                    let is_gone = new.map(Object::created) != old.map(Object::created) && old.is_some();
                    for set in [old, new].into_iter().flatten().filter_map(ReplicaSet::of) {
                        let Some(key) = deployment_of(set) else { continue };
                        happened.entry(key).or_default().is_excused |= is_gone;
                    }
                }
                Kind::Deployment => {
                    let size = |object: Option<&Object>| object.and_then(Deployment::of).map(|one| one.wanted());
                    let is_scaled = size(change.old.as_ref()) != size(change.new.as_ref());
                    happened.entry(change.key.clone()).or_default().is_excused |= is_scaled;
                }
                Kind::Node | Kind::Namespace => {}
            }
        }
        for (key, what) in happened {
            self.judge(cache, &key, what, found);
        }
    }

    fn judge(&mut self, cache: &Cache, key: &ObjectKey, what: Happened, found: &mut Vec<Found>) {
        let Some(deployment) = cache.get::<Deployment>(key.namespace(), key.name()) else {
            self.settled.remove(key);
            return;
        };
        let uid = &deployment.metadata.uid;
        let own = |set: &&crate::types::resource::Held<ReplicaSet>| {
            set.metadata.controller().is_some_and(|owner| owner.uid == *uid)
        };
        let (mut ready, mut is_true) = (0, true);
        for set in cache.owned::<ReplicaSet>(deployment.created).filter(own) {
            let count = self.counts.get(&set.created).copied().unwrap_or_default();
            ready += count.ready;
            let desired = set.metadata.annotations.get(DESIRED);
            let is_sized = set.wanted() == 0 || desired == Some(&deployment.wanted().to_string());
            is_true &= is_sized
                && count.active <= i64::from(set.wanted())
                && i64::from(set.status.ready_replicas) == count.ready;
        }
        let (_, missing) = bounds(deployment);
        let least = i64::from(deployment.wanted() - missing);
        let unknown = Settled { is_excused: true, ..Settled::default() };
        let before = self.settled.get(key).filter(|(created, _)| *created == deployment.created);
        let mut settled = before.map_or(unknown, |(_, settled)| *settled);
        settled.floor = settled.floor.min(least);
        settled.lost += what.lost;
        settled.is_excused |= what.is_excused;
        if what.deleted > 0 && !settled.is_excused && ready < settled.floor - settled.lost {
            let text = format!(
                "{} ready pods are deleted, which leaves {ready}; {} must stay, and {} were lost otherwise",
                what.deleted, settled.floor, settled.lost
            );
            found.push(("S6", deployment.key().to_string(), text));
        }
        if is_true {
            settled = Settled { floor: least.min(ready), lost: 0, is_excused: false };
        }
        self.settled.insert(key.clone(), (deployment.created, settled));
    }
}
