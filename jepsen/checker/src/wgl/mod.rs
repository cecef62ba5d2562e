//! Linearizability by Wing and Gong's search with Lowe's memory: for operations whose answers show no order of their own.
//!
//! - Source: Wing and Gong, "Testing and verifying concurrent objects" (1993); Lowe, "Testing for linearizability"
//!   (2017); Horn and Kroening, "Faster linearizability checking via P-compositionality" (2015): a history of
//!   independent keys is linearizable if that of every key is, so that each is searched by itself.
//! - An operation of unknown outcome may take effect at any time after its beginning, or never: it has no end, and
//!   the search may stop without it. It is tried only after the operations that must be placed.

pub mod register;
pub mod store;

use crate::limits::WGL_STATES_MAX;
use crate::verdict::{Finding, Verdict};
use std::collections::BTreeSet;

/// What operations do to a state.
pub trait Spec {
    /// The state between two operations.
    type State: Clone;
    /// A state for comparison: equal exactly if no later answer can tell the states apart.
    type Print: Ord;
    /// A call with its answer, if that is known.
    type Call;

    /// The state before all operations.
    fn start(&self) -> Self::State;

    /// The state after a call; `None` if it cannot have answered as it did.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;

    /// For comparison.
    fn print(&self, state: &Self::State) -> Self::Print;

    /// The state, for a person.
    fn show(&self, state: &Self::State) -> String;
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Call<C> {
    /// Its index in the history.
    pub id: u64,
    /// When it began.
    pub invoked_ns: u64,
    /// When its answer came; `None` if its outcome is unknown.
    pub returned_ns: Option<u64>,
    /// What was asked and answered, for the specification.
    pub call: C,
    /// The same for a person.
    pub text: String,
}

/// A line in the two-way list of beginnings and ends that are not placed yet.
#[derive(Clone, Copy)]
struct Line {
    call: usize,
    ends: bool,
    before: usize,
    after: usize,
}

/// Searches for an order of the calls that explains every answer and agrees with time.
pub fn check<S: Spec>(spec: &S, calls: &[Call<S::Call>]) -> Verdict {
    check_within(spec, calls, WGL_STATES_MAX)
}

/// The same with another bound on the states that are visited.
pub fn check_within<S: Spec>(spec: &S, calls: &[Call<S::Call>], states_max: usize) -> Verdict {
    let mut search = Search::new(calls);
    match search.run(spec, states_max) {
        None => Verdict::Unknown(vec![format!("no linearization after {states_max} states of {} calls", calls.len())]),
        Some(true) => Verdict::Valid,
        Some(false) => Verdict::Invalid(vec![search.explain(spec)]),
    }
}

struct Search<'a, S: Spec> {
    calls: &'a [Call<S::Call>],
    /// Line 0 stands before all others.
    lines: Vec<Line>,
    /// Each call's line of its beginning and, if it has one, of its end.
    places: Vec<(usize, Option<usize>)>,
    /// How many calls must be placed still.
    open: usize,
    /// The longest order found, and the state after it: where the search is stuck.
    best: (Vec<usize>, Option<S::State>),
}

impl<'a, S: Spec> Search<'a, S> {
    fn new(calls: &'a [Call<S::Call>]) -> Self {
        // An end at the very time of a beginning counts as later: so the two overlap, which forbids nothing.
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (place, call) in calls.iter().enumerate() {
            events.push((call.invoked_ns, false, place));
            events.extend(call.returned_ns.map(|at| (at, true, place)));
        }
        events.sort_unstable();
        let mut lines = vec![Line { call: usize::MAX, ends: false, before: 0, after: 0 }];
        let mut places = vec![(0, None); calls.len()];
        for (_, ends, call) in events {
            let place = lines.len();
            lines[place - 1].after = place;
            lines.push(Line { call, ends, before: place - 1, after: 0 });
            if ends { places[call].1 = Some(place) } else { places[call].0 = place }
        }
        let open = calls.iter().filter(|call| call.returned_ns.is_some()).count();
        Self { calls, lines, places, open, best: (vec![], None) }
    }

    fn lift(&mut self, line: usize) {
        let Line { before, after, .. } = self.lines[line];
        self.lines[before].after = after;
        // The last line's `after` is 0, the first's `before` is never read.
        self.lines[after].before = before;
    }

    fn unlift(&mut self, line: usize) {
        let Line { before, after, .. } = self.lines[line];
        self.lines[before].after = line;
        self.lines[after].before = line;
    }

    fn place(&mut self, call: usize) {
        let (begin, end) = self.places[call];
        self.lift(begin);
        if let Some(end) = end {
            self.lift(end);
            self.open -= 1;
        }
    }

    fn unplace(&mut self, call: usize) {
        let (begin, end) = self.places[call];
        if let Some(end) = end {
            self.unlift(end);
            self.open += 1;
        }
        self.unlift(begin);
    }

    /// The calls that may come next: those that began before the first end. Those that must be placed come first.
    fn next(&self) -> Vec<usize> {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        let mut at = self.lines[0].after;
        while at != 0 && !self.lines[at].ends {
            let call = self.lines[at].call;
            if self.places[call].1.is_some() {
                known.push(call)
            } else {
                unknown.push(call)
            }
            at = self.lines[at].after;
        }
        // What takes effect mostly does so soon after it was asked: the latest first.
        known.extend(unknown.into_iter().rev());
        known.reverse();
        known
    }

    /// Whether there is an order; `None` if the bound was reached first.
    fn run(&mut self, spec: &S, states_max: usize) -> Option<bool> {
        let mut seen: BTreeSet<(Vec<u64>, S::Print)> = BTreeSet::new();
        let mut placed = vec![0_u64; self.calls.len().div_ceil(64)];
        let mut order: Vec<usize> = Vec::new();
        let mut states = vec![spec.start()];
        let mut left = vec![self.next()];
        self.best.1 = Some(spec.start());
        while self.open > 0 {
            let Some(call) = left.last_mut().and_then(Vec::pop) else {
                left.pop();
                states.pop();
                let Some(call) = order.pop() else { return Some(false) };
                placed[call / 64] &= !(1 << (call % 64));
                self.unplace(call);
                continue;
            };
            let state = states.last().expect("one more state than calls that are placed");
            let Some(state) = spec.step(state, &self.calls[call].call) else { continue };
            placed[call / 64] |= 1 << (call % 64);
            if !seen.insert((placed.clone(), spec.print(&state))) {
                placed[call / 64] &= !(1 << (call % 64));
                continue;
            }
            if seen.len() > states_max {
                return None;
            }
            self.place(call);
            order.push(call);
            if order.len() > self.best.0.len() {
                self.best = (order.clone(), Some(state.clone()));
            }
            states.push(state);
            left.push(self.next());
        }
        Some(true)
    }

    /// Names the calls at which the longest order found ends: none of those that must come next can.
    fn explain(&self, spec: &S) -> Finding {
        let (order, state) = &self.best;
        let left: Vec<_> = (0..self.calls.len()).filter(|call| !order.contains(call)).collect();
        let first_end = left.iter().filter_map(|&call| self.calls[call].returned_ns).min().unwrap_or(u64::MAX);
        let stuck: Vec<_> = left
            .into_iter()
            .filter(|&call| self.calls[call].invoked_ns <= first_end && self.calls[call].returned_ns.is_some())
            .collect();
        let text: Vec<_> = stuck.iter().map(|&call| self.calls[call].text.as_str()).collect();
        let before = order.last().map_or(String::new(), |&call| format!(" after {}", self.calls[call].text));
        let state = state.as_ref().map_or(String::new(), |state| spec.show(state));
        let text = format!("{} can be linearized{before}, at {state}", one_of(&text));
        let ops = order.last().into_iter().chain(&stuck).map(|&call| self.calls[call].id);
        Finding::new("linearizable", text, ops)
    }
}

fn one_of(texts: &[&str]) -> String {
    match texts {
        [one] => format!("no way is found how {one}"),
        _ => format!("none of {}", texts.join(", ")),
    }
}

#[cfg(test)]
mod tests;
