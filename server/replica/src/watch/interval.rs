//! Finds the watchers of a key, at a cost that the watchers of other keys do not raise.
//!
//! Single keys are looked up in a map. Ranges are in a treap ordered by their start, each node knowing the largest
//! end below it; watchers of the same range share a node. Priorities come from a counter through a fixed mixing
//! function, so the shape is the same in every run.

use super::filter::Filter;
use crate::types::{Bound, KeyRange};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// A watcher's place in the hub's table.
pub(super) type Slot = u32;

/// The watchers of single keys and of ranges.
#[derive(Debug, Default)]
pub(super) struct Index {
    singles: BTreeMap<Bytes, BTreeSet<Slot>>,
    ranges: Tree,
    nodes_made: u64,
}

impl Index {
    /// Adds `slot` under its filter's keys; adding it twice changes nothing.
    pub(super) fn insert(&mut self, filter: &Filter, slot: Slot) {
        match filter.single() {
            Some(key) => {
                self.singles.entry(key.clone()).or_default().insert(slot);
            }
            None => {
                self.nodes_made += 1;
                insert(&mut self.ranges, &filter.range, slot, mix(self.nodes_made));
            }
        }
    }

    /// Removes `slot` from its filter's keys.
    pub(super) fn remove(&mut self, filter: &Filter, slot: Slot) {
        match filter.single() {
            Some(key) => {
                if let Some(slots) = self.singles.get_mut(key) {
                    slots.remove(&slot);
                    if slots.is_empty() {
                        self.singles.remove(key);
                    }
                }
            }
            None => remove(&mut self.ranges, &filter.range, slot),
        }
    }

    /// Tells whether no watcher is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.ranges.is_none()
    }

    /// Calls `visit` with each watcher whose keys contain `key`.
    pub(super) fn matching(&self, key: &[u8], visit: &mut dyn FnMut(Slot)) {
        if let Some(slots) = self.singles.get(key) {
            slots.iter().copied().for_each(&mut *visit);
        }
        stab(&self.ranges, key, visit);
    }
}

type Tree = Option<Box<Node>>;

/// Invariants: nodes are ordered by (from, end); a node's priority is at least its children's; `last` is the largest
/// end in the subtree.
#[derive(Debug)]
struct Node {
    from: Bytes,
    end: End,
    last: End,
    slots: BTreeSet<Slot>,
    priority: u64,
    left: Tree,
    right: Tree,
}

/// The exclusive end of a range; `Open` is above every key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Open,
}

impl End {
    fn of(range: &KeyRange) -> Self {
        match &range.to {
            Bound::Before(to) => Self::Before(to.clone()),
            Bound::Open => Self::Open,
            Bound::Single => unreachable!("single keys are in the map"),
        }
    }

    fn is_above(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(to) => key < &to[..],
            Self::Open => true,
        }
    }
}

impl Node {
    fn refresh(&mut self) {
        let children = [&self.left, &self.right];
        let below = children.into_iter().flatten().map(|child| &child.last).max();
        self.last = below.map_or(&self.end, |last| last.max(&self.end)).clone();
    }

    fn cmp(&self, from: &Bytes, end: &End) -> Ordering {
        from.cmp(&self.from).then_with(|| end.cmp(&self.end))
    }
}

fn insert(tree: &mut Tree, range: &KeyRange, slot: Slot, priority: u64) {
    let end = End::of(range);
    if let Some(node) = find(tree, &range.from, &end) {
        node.slots.insert(slot);
        return;
    }
    let (left, right) = split(tree.take(), &range.from, &end);
    let slots = BTreeSet::from([slot]);
    let node = Node { from: range.from.clone(), last: end.clone(), end, slots, priority, left: None, right: None };
    *tree = merge(merge(left, Some(Box::new(node))), right);
}

fn remove(tree: &mut Tree, range: &KeyRange, slot: Slot) {
    let end = End::of(range);
    let Some(node) = find(tree, &range.from, &end) else { return };
    node.slots.remove(&slot);
    if node.slots.is_empty() {
        *tree = without(tree.take(), &range.from, &end);
    }
}

fn find<'a>(tree: &'a mut Tree, from: &Bytes, end: &End) -> Option<&'a mut Node> {
    let mut at = tree.as_deref_mut();
    while let Some(node) = at {
        match node.cmp(from, end) {
            Ordering::Equal => return Some(node),
            Ordering::Less => at = node.left.as_deref_mut(),
            Ordering::Greater => at = node.right.as_deref_mut(),
        }
    }
    None
}

/// Takes the node (from, end) out.
fn without(tree: Tree, from: &Bytes, end: &End) -> Tree {
    let mut node = tree?;
    match node.cmp(from, end) {
        Ordering::Equal => return merge(node.left.take(), node.right.take()),
        Ordering::Less => node.left = without(node.left.take(), from, end),
        Ordering::Greater => node.right = without(node.right.take(), from, end),
    }
    node.refresh();
    Some(node)
}

/// Splits into the nodes below (from, end), which is not in the tree, and those above it.
fn split(tree: Tree, from: &Bytes, end: &End) -> (Tree, Tree) {
    let Some(mut node) = tree else { return (None, None) };
    if node.cmp(from, end) == Ordering::Greater {
        let (low, high) = split(node.right.take(), from, end);
        node.right = low;
        node.refresh();
        (Some(node), high)
    } else {
        let (low, high) = split(node.left.take(), from, end);
        node.left = high;
        node.refresh();
        (low, Some(node))
    }
}

/// Joins two trees, all of `left` being below all of `right`.
fn merge(left: Tree, right: Tree) -> Tree {
    match (left, right) {
        (None, tree) | (tree, None) => tree,
        (Some(mut left), Some(mut right)) => {
            if left.priority >= right.priority {
                left.right = merge(left.right.take(), Some(right));
                left.refresh();
                Some(left)
            } else {
                right.left = merge(Some(left), right.left.take());
                right.refresh();
                Some(right)
            }
        }
    }
}

fn stab(tree: &Tree, key: &[u8], visit: &mut dyn FnMut(Slot)) {
    let Some(node) = tree else { return };
    // No range below here reaches the key.
    if !node.last.is_above(key) {
        return;
    }
    stab(&node.left, key, visit);
    if node.from <= key {
        if node.end.is_above(key) {
            node.slots.iter().copied().for_each(&mut *visit);
        }
        stab(&node.right, key, visit);
    }
}

/// splitmix64's finalizer: neighbours come out unrelated.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(from: &[u8], to: &[u8]) -> Filter {
        let range = KeyRange::new(&Bytes::copy_from_slice(from), &Bytes::copy_from_slice(to));
        Filter { range, no_put: false, no_delete: false, prev_kv: false }
    }

    proptest! {
        #[test]
        fn finds_exactly_the_ranges_that_contain_the_key(
            ranges in prop::collection::vec((0u8..30, 0u8..30, any::<bool>()), 1..60),
            removals in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let filters: Vec<Filter> = ranges.iter().map(|&(from, len, single)| match (single, len) {
                (true, _) => filter(&[from + 1], b""),
                (_, 0) => filter(&[from + 1], b"\0"),
                (_, len) => filter(&[from + 1], &[from + 1 + len]),
            }).collect();
            let mut index = Index::default();
            filters.iter().enumerate().for_each(|(slot, filter)| index.insert(filter, slot as Slot));
            let gone: BTreeSet<usize> = removals.iter().map(|at| at.index(filters.len())).collect();
            gone.iter().for_each(|&slot| index.remove(&filters[slot], slot as Slot));
            for key in 0..70u8 {
                let mut found = Vec::new();
                index.matching(&[key], &mut |slot| found.push(slot as usize));
                found.sort_unstable();
                let wanted: Vec<usize> = (0..filters.len())
                    .filter(|slot| !gone.contains(slot) && filters[*slot].range.contains(&[key]))
                    .collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }

    #[test]
    fn a_key_costs_nothing_for_the_ranges_that_do_not_hold_it() {
        let mut index = Index::default();
        for at in 0..10_000u32 {
            let from = at.to_be_bytes();
            index.insert(&filter(&from, &(at + 1).to_be_bytes()), at);
        }
        fn touched(tree: &Tree, key: &[u8]) -> usize {
            match tree {
                Some(node) if node.last.is_above(key) => {
                    let right = if node.from <= key { touched(&node.right, key) } else { 0 };
                    1 + touched(&node.left, key) + right
                }
                _ => 0,
            }
        }
        let most = (0..10_000u32).step_by(97).map(|at| touched(&index.ranges, &at.to_be_bytes())).max();
        assert!(most < Some(120), "{most:?} nodes of 10,000 visited for one hit");
    }
}
