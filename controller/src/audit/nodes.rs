//! S12: nobody has to leave a node but for a taint whose time is over, nobody is tainted but in turn, and nobody is called
//! unheard of who is heard.

use super::rules::{Before, Found};
use crate::cache::{Cache, Cached as _, Changes, Object};
use crate::control::node::{BY_TAINT, Brake, Stay, is_heard, sick_taint, stay, zone_of};
use crate::keys::{self, Coord};
use crate::limits::EVICTION_SECONDS_MIN;
use crate::types::node::Node;
use crate::types::pod::Pod;
use crate::types::time::Time;

/// Looks at what a revision did to nodes, and to pods because of nodes.
pub(super) fn look(cache: &Cache, before: &Before, changes: &Changes, found: &mut Vec<Found>) {
    for change in &changes.objects {
        let old =
            change.old.as_ref().filter(|old| change.new.as_ref().is_some_and(|new| new.created() == old.created()));
        let key = change.key.to_string();
        match &change.new {
            Some(Object::Node(new)) => {
                let old = old.and_then(Node::of).map(|old| &**old);
                if is_unknown(new) && !old.is_some_and(is_unknown) && is_heard(cache, &new.metadata.name) {
                    found.push((
                        "S12",
                        key.clone(),
                        "it is said not to be heard of, and its heartbeat is there".to_owned(),
                    ));
                }
                if let Some(taint) = sick_taint(new).filter(|_| old.is_some_and(|old| sick_taint(old).is_none())) {
                    let text = turn(cache, before, changes, &zone_of(new), taint.time_added);
                    found.extend(text.map(|text| ("S12", key, text)));
                }
            }
            Some(Object::Pod(new)) => {
                let was_told = old.and_then(Pod::of).is_some_and(|old| old.metadata.is_going());
                if !was_told && is_evicted(new) {
                    found.extend(eviction(cache, new).map(|text| ("S12", key, text)));
                }
            }
            _ => {}
        }
    }
}

fn is_unknown(node: &Node) -> bool {
    node.status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "Unknown")
}

/// What is wrong with a node's being given the taint that makes pods leave.
fn turn(cache: &Cache, before: &Before, changes: &Changes, zone: &str, since: Option<Time>) -> Option<String> {
    if !changes.coords.contains(&Coord::Brake(zone.to_owned())) {
        return Some(format!("it makes pods leave, and zone {zone:?} was not asked"));
    }
    let brake = cache.coord(&keys::brake(zone)).map(|held| Brake::read(&held.value)).unwrap_or_default();
    if brake.stopped || brake.tainted != since {
        return Some(format!("it makes pods leave since {since:?}, and its zone says {brake:?}"));
    }
    let last = before.brakes.get(zone).and_then(|brake| brake.tainted)?;
    let early = since.is_none_or(|since| since.0 < last.0 + EVICTION_SECONDS_MIN);
    early.then(|| format!("it makes pods leave since {since:?}, and another one of its zone did at {last:?}"))
}

fn is_evicted(pod: &Pod) -> bool {
    let is_why = |condition: &crate::types::meta::Condition| {
        condition.r#type == "DisruptionTarget" && condition.status == "True" && condition.reason == BY_TAINT
    };
    pod.metadata.is_going() && pod.status.conditions.iter().any(is_why)
}

/// What is wrong with a pod's being told to leave.
fn eviction(cache: &Cache, pod: &Pod) -> Option<String> {
    let name = &pod.spec.node_name;
    let Some(node) = cache.get::<Node>("", name) else {
        return Some(format!("it has to leave {name}, which is not there"));
    };
    let until = pod.metadata.deletion_timestamp.unwrap_or_default();
    let told = Time(until.0 - pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    match stay(pod, node) {
        Stay::Until(time) if time <= told => None,
        stay => Some(format!("it has to leave {name} at {told}, and may stay: {stay:?}")),
    }
}
