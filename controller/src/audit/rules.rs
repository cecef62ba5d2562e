//! What must hold at every revision, one function for each kind of statement.

use crate::cache::{Cache, Cached as _, Change, Changes, Object};
use crate::control::node::Brake;
use crate::keys::{self, Coord, Kind, ObjectKey};
use crate::kv::{Batch, Revision};
use crate::sched::amounts::Amounts;
use crate::sched::table::Needs;
use crate::types::meta::ObjectMeta;
use crate::types::node::{Namespace, Node};
use crate::types::pod::Pod;
use crate::types::workload::{Deployment, ReplicaSet};
use std::collections::{BTreeMap, BTreeSet};

/// A rule, what it is about, and what is wrong.
pub(super) type Found = (&'static str, String, String);

/// What was true right before a revision, as far as it is gone afterwards.
pub(super) struct Before {
    /// The tokens of all elections that the revision changes.
    tokens: BTreeMap<String, Revision>,
    /// All zones' brakes that it changes.
    pub(super) brakes: BTreeMap<String, Brake>,
}

impl Before {
    pub(super) fn of(cache: &Cache, batch: &Batch) -> Self {
        let elections = batch.events.iter().filter_map(|event| match Coord::parse(event.key()) {
            Some(Coord::Election(component)) => Some(component),
            _ => None,
        });
        let token = |component: &String| cache.coord(&keys::election(component)).map(|held| held.created);
        let tokens = elections.filter_map(|component| token(&component).map(|token| (component, token)));
        let brakes = batch.events.iter().filter_map(|event| match Coord::parse(event.key()) {
            Some(Coord::Brake(zone)) => Some(zone),
            _ => None,
        });
        let brake = |zone: &String| cache.coord(&keys::brake(zone)).map(|held| Brake::read(&held.value));
        let brakes = brakes.filter_map(|zone| brake(&zone).map(|brake| (zone, brake)));
        Self { tokens: tokens.collect(), brakes: brakes.collect() }
    }
}

/// What an object may never become: S1, S7, S8.
pub(super) fn object(change: &Change, found: &mut Vec<Found>) {
    let key = change.key.to_string();
    if let Some(Object::Broken { why, .. }) = &change.new {
        found.push(("S0", key.clone(), format!("it is no object of its kind: {why}")));
    }
    let (old, new) = (change.old.as_ref(), change.new.as_ref());
    let same = |old: &&Object| new.is_some_and(|new| new.created() == old.created());
    if let (Some(old_meta), Some(new_meta)) = (old.filter(same).and_then(Object::meta), new.and_then(Object::meta)) {
        life(&key, old_meta, new_meta, found);
        if let (Some(old), Some(new)) = (old, new) {
            generation(&key, old, new, found);
        }
    }
    let replaced = old.filter(|old| !same(old));
    if let Some(meta) = replaced.and_then(Object::meta)
        && let finalizers = meta
            .finalizers
            .iter()
            .chain(replaced.and_then(Namespace::of).iter().flat_map(|of| &of.spec.finalizers))
            .collect::<Vec<_>>()
        && !finalizers.is_empty()
        && !meta.is_going()
    {
        let text = format!("it disappears with finalizers {finalizers:?}, and nobody told it to go");
        found.push(("S7", key.clone(), text));
    }
    let node = |object: Option<&Object>| object.and_then(Pod::of).map_or("", |pod| &pod.spec.node_name).to_owned();
    let (was, is) = (node(old.filter(same)), node(new));
    if !was.is_empty() && new.is_some() && was != is {
        found.push(("S1", key, format!("nodeName changes from {was:?} to {is:?}")));
    } else if old.filter(same).is_none() && !is.is_empty() {
        found.push(("S1", key, format!("it begins with nodeName {is:?}: it was bound before it was there")));
    }
}

fn life(key: &str, old: &ObjectMeta, new: &ObjectMeta, found: &mut Vec<Found>) {
    if old.is_going() && !new.is_going() {
        found.push(("S7", key.to_owned(), "deletionTimestamp is taken back".to_owned()));
    }
    if new.generation < old.generation {
        let text = format!("generation falls from {} to {}", old.generation, new.generation);
        found.push(("S8", key.to_owned(), text));
    }
}

/// S8: generation rises exactly with the spec, and nobody has observed more than there is. A bind changes no generation.
fn generation(key: &str, old: &Object, new: &Object, found: &mut Vec<Found>) {
    let differs = match (old, new) {
        (Object::ReplicaSet(old), Object::ReplicaSet(new)) => old.spec != new.spec,
        (Object::Deployment(old), Object::Deployment(new)) => old.spec != new.spec,
        _ => return,
    };
    let (Some(was), Some(is)) = (old.meta(), new.meta()) else { return };
    if differs != (is.generation > was.generation) {
        let text = format!(
            "spec {} and generation goes from {} to {}",
            if differs { "changes" } else { "stays" },
            was.generation,
            is.generation
        );
        found.push(("S8", key.to_owned(), text));
    }
    let observed = match new {
        Object::ReplicaSet(new) => new.status.observed_generation,
        Object::Deployment(new) => new.status.observed_generation,
        _ => 0,
    };
    if observed > is.generation {
        let text = format!("observedGeneration is {observed}, and generation {}", is.generation);
        found.push(("S8", key.to_owned(), text));
    }
}

/// S2 and S3: what is bound fits, and whoever bound it led.
pub(super) fn placements(cache: &Cache, before: &Before, changes: &Changes, found: &mut Vec<Found>) {
    let node_of = |object: Option<&Object>| {
        object.and_then(Pod::of).map(|pod| pod.spec.node_name.clone()).filter(|node| !node.is_empty())
    };
    let bound: BTreeSet<String> = changes
        .objects
        .iter()
        .filter(|change| node_of(change.old.as_ref()) != node_of(change.new.as_ref()))
        .filter_map(|change| node_of(change.new.as_ref()))
        .collect();
    for name in bound {
        let key = ObjectKey::new(Kind::Node, "", &name).to_string();
        let Some(node) = cache.get::<Node>("", &name) else {
            found.push(("S2", key, "pods are bound to it, and there is no such node".to_owned()));
            continue;
        };
        let runs = cache.on_node(&name).filter(|pod| !pod.is_over());
        let (mut used, mut ports, mut twice) = (Amounts::default(), BTreeSet::new(), Vec::new());
        for pod in runs {
            let needs = Needs::of(&pod.spec);
            used = used.plus(&needs.amounts);
            twice.extend(needs.ports.into_iter().filter(|port| !ports.insert(port.clone())));
        }
        let has = Amounts::of_node(&node.status.allocatable);
        let mut lacks = has.lacks(&used);
        if used.pods > has.pods {
            lacks.push("pods".to_owned());
        }
        if !lacks.is_empty() {
            let text = format!("its pods need more than it has of {}: {used:?} of {has:?}", lacks.join(", "));
            found.push(("S2", key.clone(), text));
        }
        if let Some((protocol, port)) = twice.first() {
            found.push(("S2", key, format!("two of its pods have the port {port}/{protocol}")));
        }
    }
    for coord in &changes.coords {
        let Coord::Alloc(node) = coord else { continue };
        let key = keys::alloc(node);
        let stamp = cache.coord(&key).and_then(|now| serde_json::from_slice::<serde_json::Value>(&now.value).ok());
        let Some(stamp) = stamp.filter(|stamp| stamp.get("token").is_some()) else { continue };
        let component = stamp["component"].as_str().unwrap_or_default();
        let held = cache.coord(&keys::election(component)).map(|held| held.created);
        let held = before.tokens.get(component).copied().or(held);
        if stamp["token"].as_i64() != held {
            let text = format!("{component} wrote under token {}, and the token was {held:?}", stamp["token"]);
            found.push(("S3", key, text));
        }
    }
}

/// S4, S5 and the half of S6 that is a sum: what is made has its owner and its namespace, and is not too much.
pub(super) fn owners(cache: &Cache, changes: &Changes, found: &mut Vec<Found>) {
    let mut sets = BTreeSet::new();
    let mut deployments = BTreeSet::new();
    for change in &changes.objects {
        let Some(new) = &change.new else { continue };
        let is_new = change.old.as_ref().is_none_or(|old| old.created() != new.created());
        let Some(meta) = new.meta() else { continue };
        if is_new && change.key.kind.is_namespaced() {
            created(cache, &change.key, meta, found);
        }
        let Some(owner) = meta.controller() else { continue };
        let owner_key = (meta.namespace.clone(), owner.name.clone(), owner.uid.clone());
        match new {
            Object::Pod(_) if is_new => {
                sets.insert(owner_key);
            }
            Object::ReplicaSet(set) => {
                let old = change.old.as_ref().and_then(ReplicaSet::of).map_or(0, |old| old.wanted());
                // A number up to what it has makes no pod: it was told to have fewer, and is told again before it has.
                let pods = crate::control::replica_set::owned(cache, set).filter(|pod| pod.is_active()).count();
                if set.wanted() > old && i64::from(set.wanted()) > pods as i64 {
                    deployments.insert(owner_key);
                }
            }
            _ => {}
        }
    }
    for (namespace, name, uid) in sets {
        let Some(set) = cache.get::<ReplicaSet>(&namespace, &name).filter(|set| set.metadata.uid == uid) else {
            continue;
        };
        let active = crate::control::replica_set::owned(cache, set).filter(|pod| pod.is_active()).count();
        if active as i64 > i64::from(set.wanted()) {
            let text = format!("a creation leaves it with {active} active pods, and {} are wanted", set.wanted());
            found.push(("S5", ObjectKey::new(Kind::ReplicaSet, &namespace, &name).to_string(), text));
        }
    }
    for (namespace, name, uid) in deployments {
        let deployment = cache.get::<Deployment>(&namespace, &name);
        let Some(deployment) = deployment.filter(|deployment| deployment.metadata.uid == uid) else { continue };
        let sets = cache.owned::<ReplicaSet>(deployment.created);
        // What a ReplicaSet was told to delete is there until it has.
        let has = |set: &crate::types::resource::Held<ReplicaSet>| {
            let pods = crate::control::replica_set::owned(cache, set).filter(|pod| pod.is_active()).count();
            (pods as i64).max(i64::from(set.wanted()))
        };
        let total: i64 = sets.map(has).sum();
        let (surge, _) = crate::control::deployment::bounds(deployment);
        let most = i64::from(deployment.wanted()) + i64::from(surge);
        if total > most {
            let text = format!("its ReplicaSets have or may have {total} pods, and {most} at most are wanted");
            found.push(("S6", ObjectKey::new(Kind::Deployment, &namespace, &name).to_string(), text));
        }
    }
}

/// S4: at its creation an object's controlling owner is there, the one that is named, and its namespace takes new things.
fn created(cache: &Cache, key: &ObjectKey, meta: &ObjectMeta, found: &mut Vec<Found>) {
    let namespace = cache.get::<Namespace>("", key.namespace());
    if !namespace.is_some_and(|namespace| namespace.is_active()) {
        found.push((
            "S4",
            key.to_string(),
            format!("it is made in namespace {:?}, which takes nothing new", key.namespace()),
        ));
    }
    let Some(owner) = meta.controller() else { return };
    let Some(kind) = Kind::of_name(&owner.kind) else { return };
    let owner_key = ObjectKey::new(kind, &meta.namespace, &owner.name);
    let there = cache.object(&owner_key).and_then(Object::meta).is_some_and(|there| there.uid == owner.uid);
    if !there {
        found.push((
            "S4",
            key.to_string(),
            format!("it is made for {owner_key} with uid {}, which is not there", owner.uid),
        ));
    }
}
