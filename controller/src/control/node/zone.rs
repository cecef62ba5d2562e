//! The brakes: how much of a zone is not well, whether pods may be made to leave at all, and how soon the next node.
//!
//! When most nodes of a zone are lost at once it is rarely the nodes: it is the network, or the control plane itself.
//! A zone's state is in the store ([`crate::keys::brake`]), and every taint that makes pods leave compares and rewrites it.
//! So two controllers cannot both take a turn, and one whose copy does not know of the brake is refused.

use super::health::{is_heard, is_sick};
use crate::cache::Cache;
use crate::control::Plan;
use crate::keys;
use crate::kv::{Guard, Revision, Txn};
use crate::limits::BRAKE_PERCENT;
use crate::types::node::Node;
use crate::types::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How much of a zone is not well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disruption {
    /// Little enough that it is the nodes themselves.
    #[default]
    Normal,
    /// [`BRAKE_PERCENT`] or more.
    PartialDisruption,
    /// All of it.
    FullDisruption,
}

/// What the store holds of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// How it was last seen.
    pub state: Disruption,
    /// Whether no pod has to leave a node of it that is not well.
    pub stopped: bool,
    /// When a node was last given the taint that makes pods leave.
    pub tainted: Option<Time>,
}

impl Brake {
    /// Reads what the store holds; what cannot be read is as good as nothing.
    pub fn read(value: &[u8]) -> Self {
        serde_json::from_slice(value).unwrap_or_default()
    }
}

/// A node's zone: region and zone, which are no parts of names and so cannot have the colon.
pub fn zone_of(node: &Node) -> String {
    let (region, zone) = labels(node);
    format!("{region}:{zone}")
}

/// Whether the store says that a node's zone is not as it should be.
pub(super) fn is_disrupted(cache: &Cache, node: &Node) -> bool {
    let held = cache.coord(&keys::brake(&zone_of(node)));
    held.is_some_and(|held| {
        let brake = Brake::read(&held.value);
        brake.stopped || brake.state != Disruption::Normal
    })
}

fn labels(node: &Node) -> (&str, &str) {
    let label = |name| node.metadata.labels.get(name).map_or("", String::as_str);
    (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    well: usize,
    sick: usize,
}

impl Count {
    fn state(self) -> Disruption {
        let all = self.well + self.sick;
        if self.well == 0 && self.sick > 0 {
            Disruption::FullDisruption
        } else if self.sick > 0 && self.sick * 100 >= all * BRAKE_PERCENT {
            Disruption::PartialDisruption
        } else {
            Disruption::Normal
        }
    }
}

/// A node's zone, as the store has it and as it is.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    name: String,
    /// The revision of what the store has; 0 for nothing.
    modified: Revision,
    pub(super) brake: Brake,
    state: Disruption,
    stopped: bool,
    count: Count,
}

impl Zone {
    pub(super) fn of(cache: &Cache, node: &Node) -> Self {
        let name = zone_of(node);
        let held = cache.coord(&keys::brake(&name));
        let brake = held.map_or_else(Brake::default, |held| Brake::read(&held.value));
        let modified = held.map_or(0, |held| held.modified);
        let mut counts: BTreeMap<(&str, &str), Count> = BTreeMap::new();
        for other in cache.all::<Node>() {
            let count = counts.entry(labels(other)).or_default();
            // Whoever is not heard of counts before it is marked: many are lost in one moment, and marked one by one.
            if is_sick(other) || other.is_ready() && !is_heard(cache, &other.metadata.name) {
                count.sick += 1;
            } else if other.is_ready() {
                count.well += 1;
            }
        }
        let count = counts.get(&labels(node)).copied().unwrap_or_default();
        let state = count.state();
        let is_full = |count: &Count| count.state() == Disruption::FullDisruption;
        let is_known = |count: &&Count| count.well + count.sick > 0;
        // A zone that is lost whole is believed to be, as long as others are heard of.
        let all_full = counts.values().filter(is_known).all(is_full);
        let stopped = state == Disruption::PartialDisruption || state == Disruption::FullDisruption && all_full;
        Self { name, modified, brake, state, stopped, count }
    }

    /// Whether no pod has to leave a node of it that is not well.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Writes the zone's state down, if it is another one. Returns whether it is.
    pub(super) fn note(&self, cache: &Cache, node: &Node, plan: &mut Plan) -> bool {
        if (self.state, self.stopped) == (self.brake.state, self.brake.stopped) {
            return false;
        }
        let brake = Brake { state: self.state, stopped: self.stopped, ..self.brake };
        plan.txns.push(self.write(&brake));
        let Count { well, sick } = self.count;
        let (all, what) = (well + sick, if self.stopped { "EvictionStopped" } else { "EvictionResumed" });
        if self.stopped != self.brake.stopped {
            let state = self.state;
            let message =
                format!("Zone {:?} is now in state {state:?}: {sick} of {all} nodes are not ready", self.name);
            let key = crate::types::resource::Resource::key(node);
            plan.note_about(cache, &key, self.stopped, what, message);
        }
        true
    }

    /// A node's turn is taken.
    pub(super) fn tainted(&self, now: Time) -> Txn {
        self.write(&Brake { tainted: Some(now), ..self.brake })
    }

    fn write(&self, brake: &Brake) -> Txn {
        let key = keys::brake(&self.name);
        let value = serde_json::to_vec(brake).expect("a brake has no keys but its fields");
        // A key that is not there was changed at 0.
        Txn::new().guard(Guard::Seen { key: key.clone().into(), modified: self.modified }).put(key, value)
    }
}
