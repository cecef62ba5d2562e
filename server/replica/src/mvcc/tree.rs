//! An ordered B+-tree that knows the weight of every range: keys and bytes of any stretch in O(log n).
//!
//! Entries carry their own key and weight. Inner nodes keep, per child, a separator (a short key prefix of its own,
//! so that dropping a record never touches the tree) and the sum of the child's weights.

use super::Totals;

/// Entries of a leaf and children of an inner node, at most.
const FANOUT: usize = 64;

/// A node below this is joined with a neighbour.
const SMALL: usize = FANOUT / 3;

/// How full [`Tree::from_sorted`] makes its nodes: nearly, so that memory is well used and the next insert fits.
const FILL: usize = FANOUT - FANOUT / 8;

/// A leaf's room grows in steps of so many bytes, which are the steps of allocators at its size. Leaves are most of the
/// tree's memory, and half empty as often as not.
const LEAF_STEP_BYTES: usize = 512;

/// Entries that a leaf of `len` has room for.
fn room<E>(len: usize) -> usize {
    len.next_multiple_of((LEAF_STEP_BYTES / size_of::<E>()).max(1))
}

/// What a tree holds.
pub(super) trait Entry {
    /// The key; it must not change while the entry is in a tree.
    fn key(&self) -> &[u8];

    /// What the entry adds to the sums.
    fn weight(&self) -> Totals;
}

/// The tree; unique keys, ascending byte order.
pub(super) struct Tree<E> {
    root: Node<E>,
    len: usize,
}

enum Node<E> {
    Leaf(Vec<E>),
    Inner(Inner<E>),
}

/// Invariants: the three vectors have one length, at least 1; `weights[i]` is the sum over `children[i]`; for i > 0
/// all keys of `children[i - 1]` are below `least[i]`, and all keys of `children[i]` at or above it. `least[0]` is
/// never looked at.
struct Inner<E> {
    least: Vec<Box<[u8]>>,
    weights: Vec<Totals>,
    children: Vec<Node<E>>,
}

/// A node that was cut off to the right of another, with the separator between the two.
struct Right<E> {
    least: Box<[u8]>,
    weight: Totals,
    node: Node<E>,
}

impl<E: Entry> Tree<E> {
    /// Makes the empty tree.
    pub(super) fn new() -> Self {
        Self { root: Node::Leaf(Vec::new()), len: 0 }
    }

    /// Builds a tree from entries with strictly ascending keys, in O(n).
    ///
    /// - Panics: if the keys do not ascend, which is the caller's bug.
    pub(super) fn from_sorted(entries: Vec<E>) -> Self {
        assert!(entries.is_sorted_by(|a, b| a.key() < b.key()), "keys must ascend");
        let len = entries.len();
        let mut level: Vec<Right<E>> = Vec::with_capacity(len / FILL + 1);
        let mut entries = entries.into_iter().peekable();
        let mut last: Option<Box<[u8]>> = None;
        while entries.peek().is_some() {
            let mut leaf = Vec::with_capacity(room::<E>(FILL));
            leaf.extend(entries.by_ref().take(FILL));
            let least = match &last {
                Some(last) => separator(last, leaf[0].key()),
                None => Box::default(),
            };
            last = leaf.last().map(|entry| entry.key().into());
            let node = Node::Leaf(leaf);
            level.push(Right { least, weight: node.weight(), node });
        }
        while level.len() > 1 {
            let mut above = Vec::with_capacity(level.len() / FILL + 1);
            let mut nodes = level.into_iter().peekable();
            while let Some(first) = nodes.peek_mut() {
                let least = std::mem::take(&mut first.least);
                let mut inner = Inner::with_capacity();
                for right in nodes.by_ref().take(FILL) {
                    inner.insert(inner.children.len(), right);
                }
                let node = Node::Inner(inner);
                above.push(Right { least, weight: node.weight(), node });
            }
            level = above;
        }
        let root = level.pop().map_or_else(|| Node::Leaf(Vec::new()), |right| right.node);
        Self { root, len }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the entry of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&E> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children[inner.route(key)],
                Node::Leaf(entries) => return find(entries, key).ok().map(|at| &entries[at]),
            }
        }
    }

    /// Changes the entry of `key` in place, and the sums with it; `None` if there is none.
    pub(super) fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut E) -> R) -> Option<R> {
        self.root.update(key, change).map(|(result, _, _)| result)
    }

    /// Inserts `entry`; returns the one it replaces.
    pub(super) fn insert(&mut self, entry: E) -> Option<E> {
        let (replaced, right) = self.root.insert(entry);
        if let Some(right) = right {
            let left = std::mem::replace(&mut self.root, Node::Inner(Inner::with_capacity()));
            let weight = left.weight();
            if let Node::Inner(root) = &mut self.root {
                root.insert(0, Right { least: Box::default(), weight, node: left });
                root.insert(1, right);
            }
        }
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Removes and returns the entry of `key`.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<E> {
        let removed = self.root.remove(key)?;
        self.len -= 1;
        while let Node::Inner(inner) = &mut self.root {
            if inner.children.len() > 1 {
                break;
            }
            self.root = inner.children.pop().expect("an inner node has a child");
        }
        Some(removed)
    }

    /// The weight of everything.
    pub(super) fn total(&self) -> Totals {
        self.root.weight()
    }

    /// The weight of all entries with a key below `key`.
    pub(super) fn below(&self, key: &[u8]) -> Totals {
        let (mut sum, mut node) = (Totals::default(), &self.root);
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.route(key);
                    sum = inner.weights[..at].iter().fold(sum, |sum, weight| sum + *weight);
                    node = &inner.children[at];
                }
                Node::Leaf(entries) => {
                    let at = entries.partition_point(|entry| entry.key() < key);
                    return entries[..at].iter().fold(sum, |sum, entry| sum + entry.weight());
                }
            }
        }
    }

    /// Iterates over the entries with a key at or above `from`, ascending.
    pub(super) fn iter_from(&self, from: &[u8]) -> Iter<'_, E> {
        let (mut stack, mut node) = (Vec::new(), &self.root);
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.route(from);
                    stack.push(inner.children[at + 1..].iter());
                    node = &inner.children[at];
                }
                Node::Leaf(entries) => {
                    let at = entries.partition_point(|entry| entry.key() < from);
                    return Iter { stack, leaf: entries[at..].iter() };
                }
            }
        }
    }

    /// Calls `visit` with up to `max` entries from `from` on, ascending; it must change neither key nor weight.
    /// Returns the key of the next entry, `None` at the end.
    pub(super) fn visit_mut(&mut self, from: &[u8], max: usize, visit: &mut dyn FnMut(&mut E)) -> Option<Box<[u8]>> {
        let mut left = max;
        self.root.visit_mut(from, &mut left, visit)
    }
}

impl<E: Entry> Node<E> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Inner(inner) => inner.children.len(),
        }
    }

    fn weight(&self) -> Totals {
        match self {
            Self::Leaf(entries) => entries.iter().fold(Totals::default(), |sum, entry| sum + entry.weight()),
            Self::Inner(inner) => inner.weights.iter().fold(Totals::default(), |sum, weight| sum + *weight),
        }
    }

    fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut E) -> R) -> Option<(R, Totals, Totals)> {
        match self {
            Self::Leaf(entries) => {
                let at = find(entries, key).ok()?;
                let entry = &mut entries[at];
                let before = entry.weight();
                let result = change(entry);
                Some((result, before, entry.weight()))
            }
            Self::Inner(inner) => {
                let at = inner.route(key);
                let (result, before, after) = inner.children[at].update(key, change)?;
                inner.weights[at] = inner.weights[at] - before + after;
                Some((result, before, after))
            }
        }
    }

    fn insert(&mut self, entry: E) -> (Option<E>, Option<Right<E>>) {
        match self {
            Self::Leaf(entries) => {
                let at = match find(entries, entry.key()) {
                    Ok(at) => return (Some(std::mem::replace(&mut entries[at], entry)), None),
                    Err(at) => at,
                };
                // Keys that arrive in ascending order fill their leaves to the brim instead of to the half.
                let middle = if at == FANOUT { at } else { FANOUT / 2 };
                if entries.len() == entries.capacity() {
                    entries.reserve_exact(room::<E>(entries.len() + 1) - entries.len());
                }
                entries.insert(at, entry);
                (None, (entries.len() > FANOUT).then(|| self.split(middle)))
            }
            Self::Inner(inner) => {
                let at = inner.route(entry.key());
                let added = entry.weight();
                let (replaced, right) = inner.children[at].insert(entry);
                let gone = replaced.as_ref().map(E::weight).unwrap_or_default();
                inner.weights[at] = inner.weights[at] + added - gone;
                let Some(right) = right else { return (replaced, None) };
                inner.weights[at] = inner.weights[at] - right.weight;
                inner.insert(at + 1, right);
                let middle = if at + 1 == FANOUT { FANOUT } else { FANOUT / 2 };
                (replaced, (inner.children.len() > FANOUT).then(|| self.split(middle)))
            }
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<E> {
        match self {
            Self::Leaf(entries) => {
                let removed = entries.remove(find(entries, key).ok()?);
                if entries.capacity() >= 2 * room::<E>(entries.len()) {
                    entries.shrink_to(room::<E>(entries.len()));
                }
                Some(removed)
            }
            Self::Inner(inner) => {
                let at = inner.route(key);
                let removed = inner.children[at].remove(key)?;
                inner.weights[at] = inner.weights[at] - removed.weight();
                if inner.children[at].len() < SMALL {
                    inner.join(at);
                }
                Some(removed)
            }
        }
    }

    /// Cuts off what lies from `at` on (0 < `at` < length).
    fn split(&mut self, at: usize) -> Right<E> {
        match self {
            Self::Leaf(entries) => {
                let least = separator(entries[at - 1].key(), entries[at].key());
                let mut right = Vec::with_capacity(room::<E>(entries.len() - at));
                right.extend(entries.drain(at..));
                entries.shrink_to(room::<E>(at));
                let node = Self::Leaf(right);
                Right { least, weight: node.weight(), node }
            }
            Self::Inner(inner) => {
                let mut right = Inner::with_capacity();
                right.least.extend(inner.least.drain(at..));
                right.weights.extend(inner.weights.drain(at..));
                right.children.extend(inner.children.drain(at..));
                let least = std::mem::take(&mut right.least[0]);
                let node = Self::Inner(right);
                Right { least, weight: node.weight(), node }
            }
        }
    }

    /// Takes over the node to its right.
    fn append(&mut self, right: Right<E>) {
        match (self, right.node) {
            (Self::Leaf(left), Self::Leaf(mut entries)) => {
                left.reserve_exact(room::<E>(left.len() + entries.len()) - left.len());
                left.append(&mut entries);
            }
            (Self::Inner(left), Self::Inner(mut inner)) => {
                inner.least[0] = right.least;
                left.least.append(&mut inner.least);
                left.weights.append(&mut inner.weights);
                left.children.append(&mut inner.children);
            }
            _ => unreachable!("all leaves have one depth"),
        }
    }

    fn visit_mut(&mut self, from: &[u8], left: &mut usize, visit: &mut dyn FnMut(&mut E)) -> Option<Box<[u8]>> {
        match self {
            Self::Leaf(entries) => {
                let start = entries.partition_point(|entry| entry.key() < from);
                for entry in &mut entries[start..] {
                    if *left == 0 {
                        return Some(entry.key().into());
                    }
                    *left -= 1;
                    visit(entry);
                }
                None
            }
            Self::Inner(inner) => {
                let start = inner.route(from);
                inner.children[start..].iter_mut().find_map(|child| child.visit_mut(from, left, visit))
            }
        }
    }
}

impl<E: Entry> Inner<E> {
    fn with_capacity() -> Self {
        // One more than the bound: a node is split after the insert that overfills it.
        Self {
            least: Vec::with_capacity(FANOUT + 1),
            weights: Vec::with_capacity(FANOUT + 1),
            children: Vec::with_capacity(FANOUT + 1),
        }
    }

    /// The child that `key` belongs to.
    fn route(&self, key: &[u8]) -> usize {
        self.least[1..].partition_point(|least| &least[..] <= key)
    }

    fn insert(&mut self, at: usize, right: Right<E>) {
        self.least.insert(at, right.least);
        self.weights.insert(at, right.weight);
        self.children.insert(at, right.node);
    }

    /// Joins the child at `at` with a neighbour, or evens the two out if they do not fit into one.
    fn join(&mut self, at: usize) {
        if self.children.len() < 2 {
            return;
        }
        let at = at.min(self.children.len() - 2);
        let right = Right {
            least: self.least.remove(at + 1),
            weight: self.weights.remove(at + 1),
            node: self.children.remove(at + 1),
        };
        self.weights[at] = self.weights[at] + right.weight;
        self.children[at].append(right);
        let len = self.children[at].len();
        if len > FANOUT {
            let right = self.children[at].split(len / 2);
            self.weights[at] = self.weights[at] - right.weight;
            self.insert(at + 1, right);
        }
    }
}

/// The entries from a key on, ascending.
pub(super) struct Iter<'a, E> {
    stack: Vec<std::slice::Iter<'a, Node<E>>>,
    leaf: std::slice::Iter<'a, E>,
}

impl<'a, E> Iterator for Iter<'a, E> {
    type Item = &'a E;

    fn next(&mut self) -> Option<&'a E> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(entry);
            }
            match self.stack.last_mut()?.next() {
                None => drop(self.stack.pop()),
                Some(Node::Leaf(entries)) => self.leaf = entries.iter(),
                Some(Node::Inner(inner)) => self.stack.push(inner.children.iter()),
            }
        }
    }
}

fn find<E: Entry>(entries: &[E], key: &[u8]) -> Result<usize, usize> {
    entries.binary_search_by(|entry| entry.key().cmp(key))
}

/// The shortest key above `left` and not above `right`.
fn separator(left: &[u8], right: &[u8]) -> Box<[u8]> {
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    right[..(common + 1).min(right.len())].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    struct Pair(Vec<u8>, u64);

    impl Entry for Pair {
        fn key(&self) -> &[u8] {
            &self.0
        }

        fn weight(&self) -> Totals {
            Totals { keys: u64::from(self.1.is_multiple_of(2)), framed_bytes: self.1 }
        }
    }

    /// Checks the invariants of `Inner`, the bounds and the depth; returns the depth.
    fn check(node: &Node<Pair>, least: &[u8], end: Option<&[u8]>) -> usize {
        assert!(node.len() <= FANOUT);
        match node {
            Node::Leaf(entries) => {
                assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
                assert!(entries.iter().all(|pair| *pair.0 >= *least && end.is_none_or(|end| *pair.0 < *end)));
                0
            }
            Node::Inner(inner) => {
                assert!(!inner.children.is_empty());
                let depths: Vec<_> = (0..inner.children.len())
                    .map(|i| {
                        assert_eq!(inner.weights[i], inner.children[i].weight());
                        let least = if i == 0 { least } else { &inner.least[i] };
                        check(&inner.children[i], least, inner.least.get(i + 1).map(|least| &**least).or(end))
                    })
                    .collect();
                assert!(depths.iter().all(|depth| *depth == depths[0]));
                depths[0] + 1
            }
        }
    }

    fn compare(tree: &Tree<Pair>, model: &BTreeMap<Vec<u8>, u64>, probes: &[Vec<u8>]) {
        check(&tree.root, &[], None);
        assert_eq!(tree.len(), model.len());
        let sum = |pairs: &mut dyn Iterator<Item = (&Vec<u8>, &u64)>| {
            pairs.fold(Totals::default(), |sum, (key, value)| sum + Pair(key.clone(), *value).weight())
        };
        assert_eq!(tree.total(), sum(&mut model.iter()));
        for probe in probes {
            assert_eq!(tree.get(probe).map(|pair| pair.1), model.get(probe).copied());
            assert_eq!(tree.below(probe), sum(&mut model.range(..probe.clone())));
            let found: Vec<_> = tree.iter_from(probe).map(|pair| (&pair.0, &pair.1)).collect();
            assert_eq!(found, model.range(probe.clone()..).collect::<Vec<_>>());
        }
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(0u8..3, 0..4),
            (0u32..3000).prop_map(|n| format!("/registry/pods/{n:05}").into_bytes())
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn behaves_like_a_btree_map(
            start in prop::collection::btree_map(key(), 0u64..1000, 0..400),
            steps in prop::collection::vec((0u8..8, key(), 0u64..1000), 0..600),
            probes in prop::collection::vec(key(), 8),
        ) {
            let mut model = start;
            let mut tree = Tree::from_sorted(model.iter().map(|(key, value)| Pair(key.clone(), *value)).collect());
            compare(&tree, &model, &probes);
            for (kind, key, value) in steps {
                match kind {
                    0..=3 => {
                        let replaced = tree.insert(Pair(key.clone(), value)).map(|pair| pair.1);
                        prop_assert_eq!(replaced, model.insert(key, value));
                    }
                    4..=6 => prop_assert_eq!(tree.remove(&key).map(|pair| pair.1), model.remove(&key)),
                    _ => {
                        let changed = tree.update(&key, |pair| pair.1 = value).is_some();
                        prop_assert_eq!(changed, model.get_mut(&key).map(|old| *old = value).is_some());
                    }
                }
            }
            compare(&tree, &model, &probes);
        }
    }

    #[test]
    fn grows_and_shrinks_over_several_levels() {
        let name = |n: u32| format!("{:08}", n.wrapping_mul(2_654_435_761)).into_bytes();
        let (mut tree, mut model) = (Tree::new(), BTreeMap::new());
        for n in 0..20_000 {
            tree.insert(Pair(name(n), n.into()));
            model.insert(name(n), n.into());
        }
        let probes: Vec<_> = (0..5).map(|n| name(n * 4_001)).collect();
        compare(&tree, &model, &probes);
        assert!(check(&tree.root, &[], None) >= 2);
        for n in 0..19_990 {
            assert_eq!(tree.remove(&name(n)).map(|pair| pair.1), Some(n.into()));
            model.remove(&name(n));
        }
        compare(&tree, &model, &probes);
        assert_eq!(check(&tree.root, &[], None), 0);
    }

    #[test]
    fn ascending_keys_fill_their_leaves() {
        let mut tree = Tree::new();
        for n in 0..64 * 64u32 {
            tree.insert(Pair(n.to_be_bytes().to_vec(), 0));
        }
        let Node::Inner(root) = &tree.root else { panic!("more than a leaf") };
        assert_eq!(root.children.len(), 64);
        for leaf in &root.children {
            let Node::Leaf(entries) = leaf else { panic!("one level of leaves") };
            assert_eq!(entries.capacity(), FANOUT);
        }
    }

    #[test]
    fn visits_slices_that_join_without_gap_or_overlap() {
        let mut tree = Tree::from_sorted((0..1_000u32).map(|n| Pair(n.to_be_bytes().to_vec(), n.into())).collect());
        let (mut seen, mut from) = (Vec::new(), Some(Box::default()));
        while let Some(at) = from {
            from = tree.visit_mut(&at, 33, &mut |pair| seen.push(pair.1));
        }
        assert_eq!(seen, (0..1_000).collect::<Vec<u64>>());
    }
}
