//! Two controllers make and delete the pods of one ReplicaSet, on copies of any age, and nobody leads.
//!
//! People scale it, delete it and make it anew, delete its pods, take names that it is about to give, and let its namespace
//! go. A transaction arrives, is lost, or is written again.

use super::Row;
use stateright::{Model, Property};
use std::collections::BTreeSet;

/// Names of pods.
const NAMES: usize = 3;
const CONTROLLERS: usize = 2;
const REQUESTS_MAX: usize = 2;

/// Things that people do.
const CHANGES: u8 = 2;

/// What is wrong: more pods than are wanted, fewer, and so on.
const TOO_MANY: u8 = 1;
const TOO_FEW: u8 = 2;
const ORPHAN: u8 = 4;
const GOING: u8 = 8;
const TAKEN: u8 = 16;
const OTHER: u8 = 32;
const LOST: u8 = 64;

/// Which guards are there.
#[derive(Clone, Copy)]
pub(crate) struct Sets {
    /// Each batch compares and rewrites the ReplicaSet.
    pub(crate) lock: bool,
    /// The namespace is as it was.
    pub(crate) namespace: bool,
    /// The new pods' names are free.
    pub(crate) absent: bool,
    /// The pods that stay are there.
    pub(crate) kept: bool,
    /// The pods that go are as they were seen.
    pub(crate) victim: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Pod {
    born: u8,
    /// The incarnation of the ReplicaSet that it is of; 0 if it is a stranger's.
    owner: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Store {
    /// Its incarnation; 0 if there is none.
    born: u8,
    version: u8,
    wanted: u8,
    pods: [Option<Pod>; NAMES],
    is_going: bool,
    /// Incarnations of anything until now.
    births: u8,
}

impl Store {
    fn own(&self) -> impl Iterator<Item = usize> + '_ {
        (0..NAMES).filter(|name| self.born > 0 && self.pods[*name].is_some_and(|pod| pod.owner == self.born))
    }
}

/// A batch, with what its writer saw: pods are made, or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Request {
    makes: bool,
    /// One bit for each name.
    names: u8,
    view: Store,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    store: Store,
    views: [Store; CONTROLLERS],
    requests: BTreeSet<Request>,
    changes: u8,
    wrong: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Look(u8),
    Plan(u8),
    Arrive(Request),
    ArriveTwice(Request),
    Lose(Request),
    Scale(u8),
    DeletePod(u8),
    TakeName(u8),
    /// The ReplicaSet is deleted, its pods stay for the collector, and another of its name may be made.
    Delete,
    Make,
    /// The namespace goes.
    Go,
}

fn is_in(names: u8, name: usize) -> bool {
    names >> name & 1 == 1
}

/// What a controller wants of what it sees.
fn plan(view: &Store) -> Option<Request> {
    let (own, wanted) = (view.own().count(), view.wanted as usize);
    let bits = |names: &mut dyn Iterator<Item = usize>| names.fold(0, |bits, name| bits | 1 << name);
    let (makes, names) = if view.born == 0 {
        return None;
    } else if own < wanted && !view.is_going {
        (true, bits(&mut (0..NAMES).filter(|name| view.pods[*name].is_none()).take(wanted - own)))
    } else {
        (false, bits(&mut view.own().skip(wanted)))
    };
    (names != 0).then_some(Request { makes, names, view: *view })
}

impl Sets {
    fn arrive(&self, state: &mut State, request: Request) {
        let (store, seen) = (&mut state.store, &request.view);
        let all = |holds: &dyn Fn(usize) -> bool, named: bool| {
            (0..NAMES).filter(|name| is_in(request.names, *name) == named).all(holds)
        };
        let is_same = |name: usize| store.pods[name] == seen.pods[name];
        let is_kept = |name: usize| seen.pods[name].is_none_or(|pod| pod.owner != seen.born) || is_same(name);
        if self.lock && (store.born, store.version) != (seen.born, seen.version)
            || request.makes && self.namespace && store.is_going != seen.is_going
            || request.makes && self.absent && !all(&|name| store.pods[name].is_none(), true)
            || !request.makes && self.kept && !all(&is_kept, false)
            || !request.makes && self.victim && !all(&is_same, true)
        {
            return;
        }
        let mut wrong = 0;
        let mut note = |is: bool, what: u8| wrong |= if is { what } else { 0 };
        note(request.makes && store.born != seen.born, ORPHAN);
        note(request.makes && store.is_going, GOING);
        note(request.makes && !all(&|name| store.pods[name].is_none(), true), TAKEN);
        let is_other = |name: usize| store.pods[name].is_some_and(|pod| Some(pod) != seen.pods[name]);
        note(!request.makes && (0..NAMES).any(|name| is_in(request.names, name) && is_other(name)), OTHER);
        note(store.version != seen.version, LOST);
        for name in (0..NAMES).filter(|name| is_in(request.names, *name)) {
            store.births += u8::from(request.makes);
            store.pods[name] = request.makes.then_some(Pod { born: store.births, owner: seen.born });
        }
        // It is rewritten as it was seen.
        (store.born, store.wanted, store.version) = (seen.born, seen.wanted, store.version + 1);
        let (own, wanted) = (store.own().count(), state.store.wanted as usize);
        note(request.makes && own > wanted, TOO_MANY);
        note(!request.makes && own < wanted, TOO_FEW);
        state.wrong |= wrong;
    }
}

impl Model for Sets {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let begin = |wanted, pods| Store { born: 1, version: 1, wanted, pods, is_going: false, births: 2 };
        // One that is to be filled, and one that is too full.
        let full = [Some(Pod { born: 1, owner: 1 }), Some(Pod { born: 2, owner: 1 }), None];
        let state =
            |store| State { store, views: [store; CONTROLLERS], requests: BTreeSet::new(), changes: CHANGES, wrong: 0 };
        vec![state(begin(2, [None; NAMES])), state(begin(1, full))]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (who, view) in (0..).zip(&state.views) {
            if *view != state.store {
                actions.push(Action::Look(who));
            }
            if state.requests.len() < REQUESTS_MAX && plan(view).is_some() {
                actions.push(Action::Plan(who));
            }
        }
        for request in &state.requests {
            actions.extend([Action::Arrive(*request), Action::ArriveTwice(*request), Action::Lose(*request)]);
        }
        if state.changes == 0 {
            return;
        }
        let names = (0..NAMES as u8).map(|name| match state.store.pods[name as usize] {
            Some(_) => Action::DeletePod(name),
            None => Action::TakeName(name),
        });
        actions.extend(names);
        actions.push(if state.store.born > 0 { Action::Delete } else { Action::Make });
        if state.store.born > 0 {
            actions.extend((0..3).filter(|wanted| *wanted != state.store.wanted).map(Action::Scale));
        }
        if !state.store.is_going {
            actions.push(Action::Go);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let store = &mut state.store;
        let is_change = !matches!(
            action,
            Action::Look(_) | Action::Plan(_) | Action::Arrive(_) | Action::ArriveTwice(_) | Action::Lose(_)
        );
        state.changes -= u8::from(is_change);
        match action {
            Action::Look(who) => state.views[who as usize] = *store,
            Action::Plan(who) => drop(state.requests.insert(plan(&state.views[who as usize])?)),
            Action::Arrive(request) | Action::ArriveTwice(request) => {
                self.arrive(&mut state, request);
                if matches!(action, Action::Arrive(_)) {
                    state.requests.remove(&request);
                }
            }
            Action::Lose(request) => drop(state.requests.remove(&request)),
            Action::Scale(wanted) => (store.wanted, store.version) = (wanted, store.version + 1),
            Action::DeletePod(name) => store.pods[name as usize] = None,
            Action::TakeName(name) => {
                store.births += 1;
                store.pods[name as usize] = Some(Pod { born: store.births, owner: 0 });
            }
            Action::Delete => (store.born, store.version) = (0, store.version + 1),
            Action::Make => {
                store.births += 1;
                (store.born, store.version) = (store.births, store.version + 1);
            }
            Action::Go => store.is_going = true,
        }
        (state != *last && state.store.version < 8).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn never<const WHAT: u8>(_: &Sets, state: &State) -> bool {
            state.wrong & WHAT == 0
        }
        vec![
            Property::always("too many", never::<TOO_MANY>),
            Property::always("too few", never::<TOO_FEW>),
            Property::always("orphan", never::<ORPHAN>),
            Property::always("in a namespace that goes", never::<GOING>),
            Property::always("name taken", never::<TAKEN>),
            Property::always("another pod deleted", never::<OTHER>),
            Property::always("lost update", never::<LOST>),
        ]
    }
}

pub(crate) fn rows() -> Vec<Row<Sets>> {
    let all = Sets { lock: true, namespace: true, absent: true, kept: true, victim: true };
    let row = |name, model, broken| Row { name, model, broken };
    vec![
        row("all", all, &[]),
        row(
            "all but the ReplicaSet's own version",
            Sets { lock: false, ..all },
            &["too many", "orphan", "lost update"],
        ),
        row("all but the namespace's version", Sets { namespace: false, ..all }, &["in a namespace that goes"]),
        row("all but free names", Sets { absent: false, ..all }, &["name taken"]),
        row("all but the pods that stay", Sets { kept: false, ..all }, &["too few"]),
        row("all but the pods that go", Sets { victim: false, ..all }, &["another pod deleted"]),
    ]
}
