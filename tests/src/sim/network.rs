//! The network between members: messages are lost, delayed, repeated and reordered, links are cut one way or both.

use super::options::{Options, Span};
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// One direction between two members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    /// Who sends.
    pub(super) from: u64,
    /// Who receives.
    pub(super) to: u64,
}

/// A link that is worse than the others, by the number of the fault that made it so.
#[derive(Clone, Copy, Debug)]
struct Bad {
    loss: u64,
    extra: Span,
}

/// What becomes of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// When its copies arrive; empty if it is lost.
    pub(super) arrivals: Vec<u64>,
    /// The fault that hit it.
    pub(super) by: Option<u64>,
}

/// All links.
#[derive(Debug)]
pub(super) struct Network {
    rng: Rng,
    latency: Span,
    loss: u64,
    duplicates: u64,
    reordered: u64,
    cut: BTreeMap<Link, BTreeSet<u64>>,
    bad: BTreeMap<Link, BTreeMap<u64, Bad>>,
    /// When the last message that keeps its order arrives.
    last: BTreeMap<Link, u64>,
}

impl Network {
    /// A network in which only the options' common troubles happen.
    pub(super) fn new(options: &Options, rng: Rng) -> Self {
        Self {
            rng,
            latency: options.latency,
            loss: options.loss,
            duplicates: options.duplicates,
            reordered: options.reordered,
            cut: BTreeMap::new(),
            bad: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    /// Decides about one message.
    pub(super) fn send(&mut self, now: u64, link: Link) -> Fate {
        // Always the same draws, so that a fault does not reshuffle what comes after it.
        let [loss, twice, order, delay, again] = [0; 5].map(|_| self.rng.next_u64());
        let mut draw = Rng::new(delay);
        if let Some(fault) = self.cut.get(&link).and_then(|faults| faults.first()) {
            return Fate { arrivals: Vec::new(), by: Some(*fault) };
        }
        let mut fate = Fate::default();
        let mut extra = 0;
        for (fault, bad) in self.bad.get(&link).into_iter().flatten() {
            fate.by = Some(*fault);
            if draw.below(1_000) < bad.loss {
                return fate;
            }
            extra += bad.extra.draw(&mut draw);
        }
        if loss % 1_000 < self.loss {
            return fate;
        }
        let mut arrival = now + self.latency.draw(&mut draw) + extra;
        let last = self.last.entry(link).or_default();
        if order % 1_000 >= self.reordered {
            arrival = arrival.max(*last);
            *last = arrival;
        }
        fate.arrivals.push(arrival);
        if twice % 1_000 < self.duplicates {
            fate.arrivals.push(arrival + again % (4 * self.latency.max + 1));
        }
        fate
    }

    /// How long a client's request or a part of a file takes.
    pub(super) fn delay(&mut self) -> u64 {
        self.latency.draw(&mut self.rng)
    }

    /// Whether nothing passes over a link now.
    pub(super) fn is_cut(&self, link: Link) -> bool {
        self.cut.contains_key(&link)
    }

    /// Cuts a link until the fault ends.
    pub(super) fn cut(&mut self, link: Link, fault: u64) {
        self.cut.entry(link).or_default().insert(fault);
    }

    /// Makes a link lose `loss` in a thousand messages and delay the others, until the fault ends.
    pub(super) fn spoil(&mut self, link: Link, fault: u64, loss: u64, extra: Span) {
        self.bad.entry(link).or_default().insert(fault, Bad { loss, extra });
    }

    /// Ends what one fault did.
    pub(super) fn mend(&mut self, fault: u64) {
        self.cut.retain(|_, faults| {
            faults.remove(&fault);
            !faults.is_empty()
        });
        self.bad.retain(|_, faults| {
            faults.remove(&fault);
            !faults.is_empty()
        });
    }

    /// Ends all troubles, the common ones too.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.bad.clear();
        (self.loss, self.duplicates, self.reordered) = (0, 0, 0);
    }
}
