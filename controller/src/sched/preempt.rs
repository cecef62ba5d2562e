//! Who has to go so that a pod fits that fits nowhere.
//!
//! On each node all who are less urgent are taken away, and given back one after the other, the most urgent first, as long as
//! the pod still fits: who cannot be given back is a victim. Who is told to go already is never given back, and costs
//! nothing. Of all nodes the one is taken whose most urgent victim is the least urgent; then the smallest sum of priorities,
//! the fewest victims, and the latest start of the most urgent ones decide, and at last a number that depends on both.
//!
//! - Source: Kubernetes' `pkg/scheduler/framework/preemption` and `plugins/defaultpreemption`, without disruption budgets and
//!   without its sample of nodes: all are looked at.

use super::filter::{Reason, keeps_out, unhelpful};
use super::table::{Needs, Place, Room};
use super::view::{Slot, View};
use crate::digest::mix;
use crate::keys::ObjectKey;
use crate::kv::Revision;
use crate::limits::VICTIMS_MAX;
use crate::types::pod::Pod;
use crate::types::time::Time;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The policy of a pod for which nobody goes.
const NEVER: &str = "Never";

/// What Kubernetes says of a node that the pod may not be on, whoever goes.
const UNHELPFUL: &str = "Preemption is not helpful for scheduling";

/// What Kubernetes says of a node on which nobody is less urgent.
const NOBODY: &str = "No preemption victims found for incoming pod";

/// A pod that is to go, and which incarnation of it.
pub(super) type Victim = (ObjectKey, Revision);

/// What can be done for a pod that fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// These go, and it gets their room. Nobody, if it has room once those are gone who go already.
    Victims(Place, Vec<Victim>),
    /// There is room to be made only where a transaction is on its way: what became of it is soon known.
    Soon,
    /// Nothing.
    Nothing {
        /// Kubernetes' words for it, to be said after why it fits nowhere.
        told: String,
        /// Whether it stays nominated: it waits for those to be gone who go already.
        stays: bool,
    },
}

impl Choice {
    fn nothing(told: &str) -> Self {
        Self::Nothing { told: told.to_owned(), stays: false }
    }
}

/// Looks for the node on which the least has to go.
///
/// - Shape: no room is kept meanwhile for the pod itself, or for anybody less urgent: [`View::lift`].
pub(super) fn choose(view: &View, pod: &Pod, needs: &Needs, seed: u64) -> Choice {
    if view.table.is_empty() {
        return Choice::nothing("");
    }
    if pod.spec.preemption_policy == NEVER {
        return Choice::nothing(" preemption: not eligible due to preemptionPolicy=Never.");
    }
    let mut below = below(view, pod.spec.priority.unwrap_or(0));
    let mut lacks: BTreeMap<String, usize> = BTreeMap::new();
    let mut lack = |what: String| *lacks.entry(what).or_default() += 1;
    let mut best: Option<(Cost, Place, Vec<Victim>)> = None;
    let mut is_soon = false;
    for name in view.table.names() {
        let place = view.table.place(name).expect("it was just named");
        let node = view.table.node(place);
        if keeps_out(&pod.spec, node).is_some() {
            lack(UNHELPFUL.to_owned());
            continue;
        }
        let Some(candidates) = below.remove(name.as_str()) else {
            lack(NOBODY.to_owned());
            continue;
        };
        match victims(view.table.room(place), candidates, needs) {
            Err(reasons) => reasons.iter().for_each(|reason| lack(reason.to_string())),
            Ok(victims) if victims.len() > VICTIMS_MAX => lack(NOBODY.to_owned()),
            Ok(victims) if victims.is_empty() && *name == pod.status.nominated_node_name => {
                let told = " preemption: not eligible due to a terminating pod on the nominated node.".to_owned();
                return Choice::Nothing { told, stays: true };
            }
            Ok(_) if view.table.version(place).is_none() => is_soon = true,
            Ok(victims) => {
                let cost = cost(&victims, mix(seed ^ node.created as u64));
                if best.as_ref().is_none_or(|(other, ..)| cost < *other) {
                    let victims = victims.iter().map(|victim| (victim.key.clone(), victim.created)).collect();
                    best = Some((cost, place, victims));
                }
            }
        }
    }
    match best {
        Some((_, place, victims)) => Choice::Victims(place, victims),
        None if is_soon => Choice::Soon,
        None => Choice::Nothing { told: unhelpful(view.table.len(), &lacks), stays: false },
    }
}

/// A pod that might go.
struct Candidate<'a> {
    key: &'a ObjectKey,
    created: Revision,
    needs: &'a Needs,
    priority: i32,
    started: Option<Time>,
    going: bool,
}

impl Candidate<'_> {
    /// In seconds since 1970; whoever has not started is the last.
    fn since(&self) -> i64 {
        self.started.map_or(i64::MAX, |time| time.0)
    }
}

/// Whoever is less urgent, by node, in the order of their names.
fn below(view: &View, priority: i32) -> BTreeMap<&str, Vec<Candidate<'_>>> {
    let mut below: BTreeMap<&str, Vec<Candidate<'_>>> = BTreeMap::new();
    // Most pods are as urgent as the others: then nobody has to be looked at.
    if view.is_lowest(priority) {
        return below;
    }
    for (key, slot) in &view.pods {
        if let Slot::Bound { created, node, needs, priority: own, started, going } = slot
            && *own < priority
        {
            let (created, priority, started, going) = (*created, *own, *started, *going);
            below.entry(node).or_default().push(Candidate { key, created, needs, priority, started, going });
        }
    }
    for (key, assumed) in view.assumed.iter().filter(|(_, assumed)| assumed.priority < priority) {
        let (created, priority, needs) = (assumed.created, assumed.priority, &*assumed.needs);
        let candidate = Candidate { key, created, needs, priority, started: None, going: false };
        below.entry(&assumed.node).or_default().push(candidate);
    }
    below
}

/// Who of those that are less urgent has to go from a node, the most urgent first.
///
/// - Errors: what the pod lacks even if all of them go.
fn victims<'a>(
    mut room: Room,
    mut below: Vec<Candidate<'a>>,
    needs: &Needs,
) -> Result<Vec<Candidate<'a>>, Vec<Reason>> {
    below.iter().for_each(|candidate| room.give_back(candidate.needs));
    let lacking = room.lacks(needs);
    if !lacking.is_empty() {
        return Err(lacking);
    }
    below.retain(|candidate| !candidate.going);
    below.sort_by_key(|candidate| (Reverse(candidate.priority), candidate.since(), candidate.created));
    below.retain(|candidate| {
        room.take(candidate.needs);
        let stays = room.fits(needs);
        if !stays {
            room.give_back(candidate.needs);
        }
        !stays
    });
    Ok(below)
}

/// What making room on a node costs: of two costs the first difference decides, and less is better. The most urgent victim,
/// the sum of all priorities, how many there are, when the first of the most urgent ones started, and a tie's end.
type Cost = (Option<i32>, i64, usize, Reverse<i64>, u64);

fn cost(victims: &[Candidate<'_>], tie: u64) -> Cost {
    let highest = victims.first().map(|victim| victim.priority);
    // None counts as less than nothing: many with a negative priority must not be less than a few.
    let sum: i64 = victims.iter().map(|victim| i64::from(victim.priority) - i64::from(i32::MIN) + 1).sum();
    let most_urgent = victims.iter().filter(|victim| Some(victim.priority) == highest);
    let first = most_urgent.map(|victim| victim.since()).min();
    (highest, sum, victims.len(), Reverse(first.unwrap_or(i64::MAX)), tie)
}

#[cfg(test)]
mod tests;
