//! The ReplicaSets of a Deployment: which is the new one, how it is named, and in which order they came.

use super::super::Now;
use crate::api::change::seen;
use crate::cache::Cache;
use crate::digest::{fnv, letters};
use crate::keys::{Kind, ObjectKey};
use crate::kv::{Guard, Txn};
use crate::types::meta::{ObjectMeta, OwnerReference};
use crate::types::node::Namespace;
use crate::types::resource::{Held, Resource as _};
use crate::types::workload::{Deployment, PodTemplateSpec, ReplicaSet, ReplicaSetSpec};

/// The label by which pods of one make are told from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";

/// The annotation that numbers the makes.
pub const REVISION: &str = "deployment.kubernetes.io/revision";

/// The annotations by which a change of the Deployment's size is noticed.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MOST: &str = "deployment.kubernetes.io/max-replicas";

/// A Deployment's ReplicaSets.
pub(super) struct Sets<'a> {
    /// The one of the template that is wanted now, if there is one.
    pub(super) new: Option<&'a Held<ReplicaSet>>,
    /// The others, oldest first.
    pub(super) old: Vec<&'a Held<ReplicaSet>>,
    desired: i32,
}

impl<'a> Sets<'a> {
    pub(super) fn of(cache: &'a Cache, deployment: &Held<Deployment>) -> Self {
        let uid = &deployment.metadata.uid;
        let owned = cache.owned::<ReplicaSet>(deployment.created);
        let own = owned.filter(|set| set.metadata.controller().is_some_and(|owner| owner.uid == *uid));
        let mut old: Vec<&Held<ReplicaSet>> = own.collect();
        old.sort_by_key(|set| set.created);
        // By what they say and not by name: a hash may have become another one, or be another's.
        let is_new = |set: &&Held<ReplicaSet>| {
            !set.metadata.is_going() && is_same(&set.spec.template, &deployment.spec.template)
        };
        let new = old.iter().position(is_new).map(|place| old.remove(place));
        Self { new, old, desired: deployment.wanted() }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &'a Held<ReplicaSet>> + '_ {
        self.old.iter().copied().chain(self.new)
    }

    /// Pods that all together may have.
    pub(super) fn wanted(&self) -> i32 {
        self.all().map(|set| set.wanted()).sum()
    }

    /// Pods that all together may have or still have: what a ReplicaSet was told to delete is there until it has.
    pub(super) fn occupied(&self) -> i32 {
        self.all().map(|set| set.wanted().max(set.status.replicas)).sum()
    }

    /// Whether the Deployment's size is not the one that its ReplicaSets were last given.
    pub(super) fn is_scaled(&self) -> bool {
        let number = |set: &Held<ReplicaSet>| set.metadata.annotations.get(DESIRED).and_then(|text| text.parse().ok());
        self.all()
            .filter(|set| set.wanted() > 0)
            .any(|set| number(set).is_some_and(|desired: i32| desired != self.desired))
    }
}

/// The number of a make; 0 if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.metadata.annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether two templates say the same but for the label that tells them apart.
fn is_same(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    let labels = |template: &PodTemplateSpec| {
        let mut labels = template.metadata.labels.clone();
        labels.remove(HASH_LABEL);
        labels
    };
    one.spec == other.spec
        && one.metadata.annotations == other.metadata.annotations
        && one.metadata.finalizers == other.metadata.finalizers
        && labels(one) == labels(other)
}

/// Ten characters that depend on a template as it is stored, and on how often that was another's.
fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let text = serde_json::to_vec(template).expect("objects have text as keys");
    letters(fnv(text.into_iter().chain(collisions.to_le_bytes())), 10)
}

/// What became of the new ReplicaSet.
pub(super) enum Created {
    /// It is to be made.
    Made(Box<ReplicaSet>, Txn),
    /// Its name belongs to another one.
    Taken,
    /// It cannot be made now.
    Not,
}

/// Makes the ReplicaSet of the template that is wanted.
pub(super) fn create(cache: &Cache, sets: &Sets<'_>, deployment: &Held<Deployment>, now: Now) -> Created {
    let namespace =
        cache.get::<Namespace>("", &deployment.metadata.namespace).filter(|namespace| namespace.is_active());
    let (Some(namespace), Some(selector)) = (namespace, &deployment.spec.selector) else {
        return Created::Not;
    };
    let hash = hash(&deployment.spec.template, deployment.status.collision_count.unwrap_or(0));
    let mut template = deployment.spec.template.clone();
    template.metadata.labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let mut selector = selector.clone();
    selector.match_labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let number = sets.old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1;
    let owner = OwnerReference {
        api_version: Kind::Deployment.api_version().to_owned(),
        kind: Kind::Deployment.name().to_owned(),
        name: deployment.metadata.name.clone(),
        uid: deployment.metadata.uid.clone(),
        controller: true,
        block_owner_deletion: true,
        ..Default::default()
    };
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: format!("{}-{hash}", deployment.metadata.name),
            namespace: deployment.metadata.namespace.clone(),
            generation: 1,
            creation_timestamp: Some(now.time),
            labels: template.metadata.labels.clone(),
            annotations: [(REVISION.to_owned(), number.to_string())].into(),
            owner_references: vec![owner],
            ..Default::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(super::rolling::first(sets, deployment)),
            min_ready_seconds: deployment.spec.min_ready_seconds,
            selector: Some(selector),
            template,
            ..Default::default()
        },
        ..Default::default()
    };
    note_bounds(&mut set, deployment);
    let key = set.key();
    if cache.object(&key).is_some() {
        return Created::Taken;
    }
    let txn = Txn::new().guard(seen(namespace)).guard(Guard::Absent { key: key.to_string().into() });
    let txn = txn.put(key.to_string(), set.to_stored());
    Created::Made(Box::new(set), txn)
}

/// Writes down for which size of the Deployment a ReplicaSet has its number.
pub(super) fn note_bounds(set: &mut ReplicaSet, deployment: &Deployment) {
    let annotations = &mut set.metadata.annotations;
    let (surge, _) = super::rolling::bounds(deployment);
    annotations.insert(DESIRED.to_owned(), deployment.wanted().to_string());
    annotations.insert(MOST.to_owned(), deployment.wanted().saturating_add(surge).to_string());
}

/// Numbers an old make that is wanted again as the newest; `None` if it is.
pub(super) fn renew_revision(sets: &Sets<'_>, new: &Held<ReplicaSet>) -> Option<Txn> {
    let last = sets.old.iter().map(|set| revision(set)).max().unwrap_or(0);
    (revision(new) <= last).then(|| {
        let mut set = new.to_object();
        set.metadata.annotations.insert(REVISION.to_owned(), (last + 1).to_string());
        Txn::new().guard(seen(new)).put(new.key().to_string(), set.to_stored())
    })
}

/// Notes at the Deployment which make is wanted.
pub(super) fn set_revision(deployment: &mut Deployment, new: &ReplicaSet) {
    if let Some(number) = new.metadata.annotations.get(REVISION) {
        deployment.metadata.annotations.insert(REVISION.to_owned(), number.clone());
    }
}

/// The make to go back to: that of a number, or the one before the newest if it is 0. Its template goes into the Deployment.
pub fn undo(cache: &Cache, key: &ObjectKey, number: i64) -> Option<PodTemplateSpec> {
    let deployment = cache.get::<Deployment>(key.namespace(), key.name())?;
    let sets = Sets::of(cache, deployment);
    let wanted =
        sets.old.iter().filter(|set| number == 0 || revision(set) == number).max_by_key(|set| revision(set))?;
    let mut template = wanted.spec.template.clone();
    template.metadata.labels.remove(HASH_LABEL);
    Some(template)
}
