//! All nodes, and what room is left on each: columns that a scan of thousands reads one after the other.
//!
//! Invariants: a node's place never changes while it is there; what is used is the sum of what its pods need, those that
//! were placed and are not seen bound yet among them, and those for whom others went and room is kept.

use super::amounts::Amounts;
use super::filter::{self, Reason, keeps_out};
use crate::digest::mix;
use crate::limits::SIGNATURES_MAX;
use crate::types::node::Node;
use crate::types::pod::PodSpec;
use crate::types::resource::Held;
use std::collections::{BTreeMap, HashMap};

/// A node's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u32);

/// A port of a node.
pub type Port = (String, i32);

/// What a node has, and what is used of it.
#[derive(Clone, Debug)]
pub(super) struct Room {
    has: Amounts,
    used: Amounts,
    ports: BTreeMap<Port, u32>,
}

impl Room {
    /// A pod is here from here on.
    pub(super) fn take(&mut self, needs: &Needs) {
        self.used = self.used.plus(&needs.amounts);
        needs.ports.iter().for_each(|port| *self.ports.entry(port.clone()).or_default() += 1);
    }

    /// A pod is here no more.
    pub(super) fn give_back(&mut self, needs: &Needs) {
        self.used = self.used.minus(&needs.amounts);
        for port in &needs.ports {
            if let Some(count) = self.ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.ports.remove(port);
                }
            }
        }
    }

    /// Whether a pod has room.
    pub(super) fn fits(&self, needs: &Needs) -> bool {
        self.lacks(needs).is_empty()
    }

    /// Everything that there is too little of for a pod.
    pub(super) fn lacks(&self, needs: &Needs) -> Vec<Reason> {
        if needs.ports.iter().any(|port| self.ports.contains_key(port)) {
            return vec![Reason::Ports];
        }
        let left = self.has.minus(&self.used);
        let too_many = (left.pods < 1).then_some(Reason::TooManyPods);
        let lacks = left.lacks(&needs.amounts).into_iter().map(Reason::Insufficient);
        too_many.into_iter().chain(lacks).collect()
    }
}

#[derive(Clone, Debug)]
struct Row {
    node: Held<Node>,
    room: Room,
    /// The placements' version, as the next bind has to find it; `None` until it is known.
    version: Option<i64>,
}

/// All nodes.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Option<Row>>,
    places: BTreeMap<String, Place>,
    free: Vec<u32>,
    /// What a scan reads: free cores and memory, free pods, and what a hundredth of the node is, as a multiplier.
    columns: Columns,
    /// Nodes that pods of a make may be on.
    open: HashMap<Vec<u8>, Vec<bool>>,
}

#[derive(Clone, Debug, Default)]
struct Columns {
    cpu: Vec<i64>,
    memory: Vec<i64>,
    pods: Vec<i64>,
    /// 100 × 2^64 / what there is.
    cpu_scale: Vec<u64>,
    memory_scale: Vec<u64>,
    seed: Vec<u64>,
}

/// What a pod asks of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Needs {
    /// Amounts.
    pub amounts: Amounts,
    /// Ports of the node.
    pub ports: Vec<Port>,
}

impl Needs {
    /// Reads them.
    pub fn of(spec: &PodSpec) -> Self {
        let containers = spec.containers.iter().chain(&spec.init_containers);
        let ports = containers.flat_map(|container| &container.ports).filter(|port| port.host_port != 0);
        let ports = ports.map(|port| (port.protocol.clone(), port.host_port)).collect();
        Self { amounts: Amounts::of_pod(spec), ports }
    }
}

fn scale(whole: i64) -> u64 {
    u64::try_from((100_u128 << 64) / u128::from(whole.max(1) as u64)).unwrap_or(u64::MAX)
}

/// A hundredth's share of what is left, from 0 to 100.
fn share(left: i64, scale: u64) -> u64 {
    ((u128::from(left.max(0) as u64) * u128::from(scale)) >> 64) as u64
}

impl Table {
    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The nodes' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.places.keys()
    }

    /// A node's place.
    pub fn place(&self, name: &str) -> Option<Place> {
        self.places.get(name).copied()
    }

    /// The node at a place.
    ///
    /// - Panics: if there is none.
    pub fn node(&self, place: Place) -> &Held<Node> {
        &self.row(place).node
    }

    fn row(&self, place: Place) -> &Row {
        self.rows[place.0 as usize].as_ref().expect("a place that was given out has a node")
    }

    fn row_mut(&mut self, place: Place) -> &mut Row {
        self.rows[place.0 as usize].as_mut().expect("a place that was given out has a node")
    }

    /// Enters a node, or what is new of it. Returns its place.
    pub fn enter(&mut self, node: Held<Node>) -> Place {
        let name = node.metadata.name.clone();
        let has = Amounts::of_node(&node.status.allocatable);
        self.open.clear();
        let place = match self.places.get(&name) {
            Some(&place) => {
                let row = self.row_mut(place);
                (row.node, row.room.has) = (node, has);
                place
            }
            None => {
                let place = Place(self.free.pop().unwrap_or(self.rows.len() as u32));
                if place.0 as usize == self.rows.len() {
                    self.rows.push(None);
                    self.columns.push();
                }
                let room = Room { has, used: Amounts::default(), ports: BTreeMap::new() };
                self.rows[place.0 as usize] = Some(Row { node, room, version: None });
                self.places.insert(name, place);
                place
            }
        };
        self.renew(place);
        place
    }

    /// Takes a node out; what was used of it is forgotten.
    pub fn leave(&mut self, name: &str) {
        if let Some(place) = self.places.remove(name) {
            self.rows[place.0 as usize] = None;
            self.free.push(place.0);
            self.open.clear();
            self.columns.close(place);
        }
    }

    /// A pod is on a node from here on.
    pub fn take(&mut self, place: Place, needs: &Needs) {
        self.row_mut(place).room.take(needs);
        self.renew(place);
    }

    /// A pod is on a node no more.
    pub fn give_back(&mut self, place: Place, needs: &Needs) {
        self.row_mut(place).room.give_back(needs);
        self.renew(place);
    }

    /// What is used of a node.
    pub fn used(&self, place: Place) -> &Amounts {
        &self.row(place).room.used
    }

    /// A copy of a node's room, to try things out.
    pub(super) fn room(&self, place: Place) -> Room {
        self.row(place).room.clone()
    }

    /// The version that a bind to a node must find, if it is known.
    pub fn version(&self, place: Place) -> Option<i64> {
        self.row(place).version
    }

    /// Sets the version that the next bind must find.
    pub fn set_version(&mut self, place: Place, version: Option<i64>) {
        self.row_mut(place).version = version;
        self.renew(place);
    }

    /// Brings a node's columns up to date.
    fn renew(&mut self, place: Place) {
        let row = self.rows[place.0 as usize].as_ref().expect("it was just changed");
        let left = row.room.has.minus(&row.room.used);
        let at = place.0 as usize;
        let columns = &mut self.columns;
        // Nobody can be placed where the version is not known.
        columns.pods[at] = if row.version.is_some() { left.pods } else { 0 };
        (columns.cpu[at], columns.memory[at]) = (left.cpu, left.memory);
        (columns.cpu_scale[at], columns.memory_scale[at]) = (scale(row.room.has.cpu), scale(row.room.has.memory));
        columns.seed[at] = mix(row.node.created as u64);
    }

    /// The best node for a pod: the most of it left, and the most evenly; of equals, one that depends on both.
    ///
    /// - Source: Kubernetes' `LeastAllocated` and `BalancedAllocation`, each with the same weight.
    pub fn best(&mut self, spec: &PodSpec, needs: &Needs, seed: u64) -> Option<Place> {
        let signature = filter::signature(spec);
        if !self.open.contains_key(&signature) {
            if self.open.len() >= SIGNATURES_MAX {
                self.open.clear();
            }
            let open = self.rows.iter().map(|row| row.as_ref().is_some_and(|row| keeps_out(spec, &row.node).is_none()));
            let open = open.collect();
            self.open.insert(signature.clone(), open);
        }
        let open = &self.open[&signature];
        let columns = &self.columns;
        let (cpu, memory) = (needs.amounts.cpu, needs.amounts.memory);
        let (cpu_weight, memory_weight) = needs.amounts.weight();
        let is_usual = needs.amounts.storage == 0 && needs.amounts.others.is_none() && needs.ports.is_empty();
        let mut best: Option<(u64, u64, usize)> = None;
        for (at, open) in open.iter().enumerate() {
            let fits = *open
                && columns.pods[at] >= 1
                && (cpu == 0 || columns.cpu[at] >= cpu)
                && (memory == 0 || columns.memory[at] >= memory);
            if !fits || !is_usual && !self.has_the_rest(at, needs) {
                continue;
            }
            let cpu_left = share(columns.cpu[at] - cpu_weight, columns.cpu_scale[at]);
            let memory_left = share(columns.memory[at] - memory_weight, columns.memory_scale[at]);
            let score = (cpu_left + memory_left) / 2 + (100 - cpu_left.abs_diff(memory_left).min(100) / 2);
            if best.is_some_and(|(other, ..)| score < other) {
                continue;
            }
            let tie = mix(seed ^ columns.seed[at]);
            if best.is_none_or(|(other, other_tie, _)| (score, tie) > (other, other_tie)) {
                best = Some((score, tie, at));
            }
        }
        best.map(|(_, _, at)| Place(at as u32))
    }

    fn has_the_rest(&self, at: usize, needs: &Needs) -> bool {
        self.rows[at].as_ref().is_some_and(|row| row.room.fits(needs))
    }

    /// Whether a pod fits somewhere, if only where nobody is placed right now since a transaction is on its way.
    pub(super) fn has_room(&self, spec: &PodSpec, needs: &Needs) -> bool {
        self.rows.iter().flatten().any(|row| against(row, spec, needs).is_empty())
    }

    /// Why a pod fits nowhere: how many nodes each reason keeps it from.
    pub fn reasons(&self, spec: &PodSpec, needs: &Needs) -> BTreeMap<Reason, usize> {
        let mut reasons = BTreeMap::new();
        for row in self.rows.iter().flatten() {
            for reason in against(row, spec, needs) {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        reasons
    }
}

/// What keeps a pod from a node: the first that does, or everything that there is too little of.
fn against(row: &Row, spec: &PodSpec, needs: &Needs) -> Vec<Reason> {
    if let Some(reason) = keeps_out(spec, &row.node) {
        return vec![reason];
    }
    row.room.lacks(needs)
}

impl Columns {
    fn push(&mut self) {
        for column in [&mut self.cpu, &mut self.memory, &mut self.pods] {
            column.push(0);
        }
        for column in [&mut self.cpu_scale, &mut self.memory_scale, &mut self.seed] {
            column.push(0);
        }
    }

    fn close(&mut self, place: Place) {
        self.pods[place.0 as usize] = 0;
    }
}

#[cfg(test)]
mod tests;
