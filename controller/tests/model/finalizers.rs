//! Two controllers each take their finalizer off an object that goes; who takes off the last one lets it go. A person may
//! add one of their own before.

use super::Row;
use stateright::{Model, Property};
use std::collections::BTreeSet;

const REQUESTS_MAX: usize = 2;

/// The person's finalizer; those of the controllers are the two bits below.
const OWN: u8 = 4;

/// It went while somebody still held it.
const HELD: u8 = 1;
/// A finalizer that was taken off is there again, or what was gone is.
const BACK: u8 = 2;

/// Whether the object's version is compared.
#[derive(Clone, Copy)]
pub(crate) struct Finalizers {
    pub(crate) seen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Object {
    is_there: bool,
    version: u8,
    finalizers: u8,
    is_going: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Request {
    who: u8,
    view: Object,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    object: Object,
    views: [Object; 2],
    requests: BTreeSet<Request>,
    wrong: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Look(u8),
    Plan(u8),
    Arrive(Request),
    ArriveTwice(Request),
    Lose(Request),
    Hold,
    Release,
    Delete,
}

impl Finalizers {
    fn arrive(&self, state: &mut State, Request { who, view }: Request) {
        let object = &mut state.object;
        if self.seen && (!object.is_there || object.version != view.version) {
            return;
        }
        let left = view.finalizers & !(1 << who);
        let others = object.finalizers & !(1 << who);
        let is_back = left & !object.finalizers != 0 || left != 0 && !object.is_there;
        let is_held = object.is_there && others & !left != 0;
        state.wrong |= if is_back { BACK } else { 0 } | if is_held { HELD } else { 0 };
        object.version += 1;
        (object.finalizers, object.is_there) = (left, left != 0);
    }
}

impl Model for Finalizers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let object = Object { is_there: true, version: 1, finalizers: 3, is_going: false };
        vec![State { object, views: [object; 2], requests: BTreeSet::new(), wrong: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (who, view) in (0..).zip(&state.views) {
            if *view != state.object {
                actions.push(Action::Look(who));
            }
            let has_to_do = view.is_there && view.is_going && view.finalizers >> who & 1 == 1;
            if has_to_do && state.requests.len() < REQUESTS_MAX {
                actions.push(Action::Plan(who));
            }
        }
        for request in &state.requests {
            actions.extend([Action::Arrive(*request), Action::ArriveTwice(*request), Action::Lose(*request)]);
        }
        if state.object.is_there {
            let is_held = state.object.finalizers & OWN != 0;
            actions.push(if is_held { Action::Release } else { Action::Hold });
        }
        if !state.object.is_going {
            actions.push(Action::Delete);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let object = &mut state.object;
        match action {
            Action::Look(who) => state.views[who as usize] = *object,
            Action::Plan(who) => {
                let view = state.views[who as usize];
                state.requests.insert(Request { who, view });
            }
            Action::Arrive(request) | Action::ArriveTwice(request) => {
                self.arrive(&mut state, request);
                if matches!(action, Action::Arrive(_)) {
                    state.requests.remove(&request);
                }
            }
            Action::Lose(request) => drop(state.requests.remove(&request)),
            Action::Hold => (object.finalizers, object.version) = (object.finalizers | OWN, object.version + 1),
            Action::Release => {
                (object.finalizers, object.version) = (object.finalizers & !OWN, object.version + 1);
                object.is_there = !object.is_going || object.finalizers != 0;
            }
            Action::Delete => (object.is_going, object.version) = (true, object.version + 1),
        }
        (state != *last && state.object.version < 8).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn never<const WHAT: u8>(_: &Finalizers, state: &State) -> bool {
            state.wrong & WHAT == 0
        }
        vec![Property::always("gone while it is held", never::<HELD>), Property::always("back again", never::<BACK>)]
    }
}

pub(crate) fn rows() -> Vec<Row<Finalizers>> {
    vec![
        Row { name: "the object's version", model: Finalizers { seen: true }, broken: &[] },
        Row { name: "nothing", model: Finalizers { seen: false }, broken: &["gone while it is held", "back again"] },
    ]
}
