//! Who must come before whom, and the shortest circle in that.

use crate::limits::{CYCLE_STARTS_MAX, FINDINGS_MAX};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edge {
    /// It wrote the version before the other's.
    Ww,
    /// The other read what it wrote.
    Wr,
    /// It read the version before the other's.
    Rw,
    /// It is of the same client, and earlier.
    Process,
    /// It ended before the other began.
    Realtime,
}

/// Which key and versions an edge is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Why {
    pub(super) key: i64,
    pub(super) from: Option<i64>,
    pub(super) to: i64,
}

/// Transactions by their places, and what orders them.
pub(super) struct Graph(Vec<BTreeMap<(usize, Edge), Why>>);

/// A circle, each edge from one transaction to the next.
pub(super) struct Cycle {
    pub(super) class: String,
    pub(super) edges: Vec<(usize, usize, Edge, Why)>,
}

const ITEMS: [Edge; 3] = [Edge::Ww, Edge::Wr, Edge::Rw];

impl Graph {
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![BTreeMap::new(); nodes])
    }

    pub(super) fn add(&mut self, from: usize, to: usize, edge: Edge, why: Why) {
        if from != to {
            self.0[from].entry((to, edge)).or_insert(why);
        }
    }

    fn next(&self, from: usize, allowed: &[Edge]) -> impl Iterator<Item = (usize, Edge, Why)> {
        self.0[from].iter().filter(|((_, edge), _)| allowed.contains(edge)).map(|((to, edge), why)| (*to, *edge, *why))
    }

    /// One circle for each component that has any: of the worst class, the shortest.
    pub(super) fn cycles(&self) -> Vec<Cycle> {
        let all = [Edge::Ww, Edge::Wr, Edge::Rw, Edge::Process, Edge::Realtime];
        let components = self.components(&all);
        components.iter().take(FINDINGS_MAX).filter_map(|component| self.worst(component)).collect()
    }

    fn worst(&self, component: &[usize]) -> Option<Cycle> {
        let inside: BTreeSet<usize> = component.iter().copied().collect();
        // Without the order of time, then with one client's own, then with everybody's.
        let orders: [(&str, &[Edge]); 3] =
            [("", &[]), ("-process", &[Edge::Process]), ("-realtime", &[Edge::Process, Edge::Realtime])];
        for (suffix, order) in orders {
            let with = |edges: &[Edge]| [edges, order].concat();
            let cycle = |class: &str, edges| Some(Cycle { class: format!("{class}{suffix}"), edges });
            if let Some(edges) = self.shortest(&inside, &with(&[Edge::Ww])) {
                return cycle("G0", edges);
            }
            if let Some(edges) = self.shortest(&inside, &with(&[Edge::Ww, Edge::Wr])) {
                return cycle("G1c", edges);
            }
            if let Some(edges) = self.single(&inside, &with(&[Edge::Ww, Edge::Wr])) {
                return cycle("G-single", edges);
            }
            if let Some(edges) = self.shortest(&inside, &with(&ITEMS)) {
                return cycle("G2-item", edges);
            }
        }
        None
    }

    /// The shortest circle within some transactions over some edges.
    fn shortest(&self, inside: &BTreeSet<usize>, allowed: &[Edge]) -> Option<Vec<(usize, usize, Edge, Why)>> {
        let mut best: Option<Vec<_>> = None;
        for &start in inside.iter().take(CYCLE_STARTS_MAX) {
            for (to, edge, why) in self.next(start, allowed).filter(|(to, ..)| inside.contains(to)) {
                let most = best.as_ref().map_or(usize::MAX, |best: &Vec<_>| best.len().saturating_sub(2));
                let Some(mut back) = self.path(to, start, inside, allowed, most) else { continue };
                back.insert(0, (start, to, edge, why));
                let back = shorten(back);
                if best.as_ref().is_none_or(|best| back.len() < best.len()) {
                    best = Some(back);
                }
            }
            if best.as_ref().is_some_and(|best| best.len() == 2) {
                break;
            }
        }
        best
    }

    /// The shortest circle with exactly one edge from a read to a later write.
    fn single(&self, inside: &BTreeSet<usize>, allowed: &[Edge]) -> Option<Vec<(usize, usize, Edge, Why)>> {
        let mut best: Option<Vec<_>> = None;
        for &start in inside.iter().take(CYCLE_STARTS_MAX) {
            for (to, edge, why) in self.next(start, &[Edge::Rw]).filter(|(to, ..)| inside.contains(to)) {
                let Some(mut back) = self.path(to, start, inside, allowed, usize::MAX) else { continue };
                back.insert(0, (start, to, edge, why));
                let back = shorten(back);
                if best.as_ref().is_none_or(|best| back.len() < best.len()) {
                    best = Some(back);
                }
            }
        }
        best
    }

    /// The shortest way within some transactions, of at most `most` edges.
    fn path(
        &self,
        from: usize,
        to: usize,
        inside: &BTreeSet<usize>,
        allowed: &[Edge],
        most: usize,
    ) -> Option<Vec<(usize, usize, Edge, Why)>> {
        let mut came: BTreeMap<usize, (usize, Edge, Why)> = BTreeMap::new();
        let mut queue = VecDeque::from([(from, 0)]);
        while let Some((at, steps)) = queue.pop_front() {
            if at == to && (steps > 0 || from == to) {
                break;
            }
            if steps >= most {
                continue;
            }
            for (next, edge, why) in self.next(at, allowed) {
                if inside.contains(&next) && next != from && !came.contains_key(&next) {
                    came.insert(next, (at, edge, why));
                    queue.push_back((next, steps + 1));
                }
            }
        }
        let mut edges = Vec::new();
        let mut at = to;
        while at != from {
            let (before, edge, why) = *came.get(&at)?;
            edges.push((before, at, edge, why));
            at = before;
        }
        edges.reverse();
        Some(edges)
    }

    /// The strongly connected components of more than one transaction (Tarjan 1972), without recursion.
    pub(super) fn components(&self, allowed: &[Edge]) -> Vec<Vec<usize>> {
        const UNSEEN: usize = usize::MAX;
        let count = self.0.len();
        let (mut index, mut low, mut on_stack) = (vec![UNSEEN; count], vec![0; count], vec![false; count]);
        let (mut stack, mut found, mut counter) = (Vec::new(), Vec::new(), 0);
        for root in 0..count {
            if index[root] != UNSEEN {
                continue;
            }
            let successors = |at: usize| self.next(at, allowed).map(|(to, ..)| to).collect::<Vec<_>>();
            let mut work = vec![(root, successors(root))];
            (index[root], low[root], on_stack[root]) = (counter, counter, true);
            counter += 1;
            stack.push(root);
            while let Some((at, left)) = work.last_mut() {
                let at = *at;
                match left.pop() {
                    Some(next) if index[next] == UNSEEN => {
                        (index[next], low[next], on_stack[next]) = (counter, counter, true);
                        counter += 1;
                        stack.push(next);
                        work.push((next, successors(next)));
                    }
                    Some(next) => {
                        if on_stack[next] {
                            low[at] = low[at].min(index[next]);
                        }
                    }
                    None => {
                        work.pop();
                        if let Some((above, _)) = work.last() {
                            low[*above] = low[*above].min(low[at]);
                        }
                        if low[at] == index[at] {
                            let from = stack.iter().rposition(|&node| node == at).expect("a root is on the stack");
                            let mut component = stack.split_off(from);
                            component.iter().for_each(|&node| on_stack[node] = false);
                            component.sort_unstable();
                            if component.len() > 1 {
                                found.push(component);
                            }
                        }
                    }
                }
            }
        }
        found.sort();
        found
    }
}

/// Two edges of time after one another are one.
fn shorten(edges: Vec<(usize, usize, Edge, Why)>) -> Vec<(usize, usize, Edge, Why)> {
    let mut short: Vec<(usize, usize, Edge, Why)> = Vec::new();
    for edge in edges {
        match short.last_mut() {
            Some(last) if last.2 == Edge::Realtime && edge.2 == Edge::Realtime => last.1 = edge.1,
            _ => short.push(edge),
        }
    }
    short
}
