//! Two schedulers place two pods on two nodes with room for one each; one pod may have to make room for the other.
//!
//! A scheduler knows what it saw when it last looked, and believes that it leads until it looks again. Nodes are replaced
//! by others of their name, pods by others of theirs, people change pods; a transaction arrives, is lost, or arrives and
//! is written again since its answer was lost.

use super::Row;
use stateright::{Model, Property};
use std::collections::BTreeSet;

const PODS: usize = 2;
const NODES: usize = 2;
const SCHEDULERS: usize = 2;

/// Transactions on their way at once.
const REQUESTS_MAX: usize = 2;

/// Times that somebody wins the election.
const TERMS: u8 = 2;

/// Versions of a pod: a transaction that nothing guards may be written again and again.
const VERSION_MAX: u8 = 5;

/// A pod is bound twice, or is another's.
const TWICE: u8 = 1;
/// A change is overwritten by an old copy.
const LOST: u8 = 2;
/// A pod is bound to a node that is not there any more.
const GONE: u8 = 4;
/// A pod that is gone rises again, or another of its name is taken for it.
const RISEN: u8 = 8;
/// Somebody is told to go who does not make room.
const VICTIM: u8 = 16;
/// Somebody wrote who did not lead.
const FENCE: u8 = 32;

/// Which guards are there, and what happens.
#[derive(Clone, Copy)]
pub(crate) struct Bind {
    /// Every transaction compares the election's token.
    pub(crate) fence: bool,
    /// Who wins looks at everything before it places anything.
    pub(crate) list: bool,
    /// A bind compares the pod's version.
    pub(crate) pod: bool,
    /// A bind compares the version of the node's placements.
    pub(crate) node: bool,
    /// Whatever changes a node rewrites its placements.
    pub(crate) touch: bool,
    /// Who makes others go compares their versions.
    pub(crate) victim: bool,
    /// How often something happens beside binds, of the three kinds below.
    pub(crate) changes: u8,
    pub(crate) edits: bool,
    pub(crate) replaces: bool,
    pub(crate) preempts: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Pod {
    born: u8,
    version: u8,
    node: Option<u8>,
    edits: u8,
    going: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Node {
    born: u8,
    placements: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Store {
    pods: [Pod; PODS],
    nodes: [Node; NODES],
    term: u8,
    leader: Option<u8>,
}

impl Store {
    fn on(&self, node: u8) -> usize {
        self.pods.iter().filter(|pod| pod.node == Some(node)).count()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Scheduler {
    token: Option<u8>,
    listed: bool,
    view: Store,
}

/// A transaction, with what its writer saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Request {
    token: u8,
    pod: u8,
    born: u8,
    version: u8,
    edits: u8,
    node: u8,
    node_born: u8,
    placements: u8,
    /// It is told to go, to make room; nobody is bound.
    victim: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    store: Store,
    schedulers: [Scheduler; SCHEDULERS],
    requests: BTreeSet<Request>,
    changes: u8,
    wrong: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The lease of whoever leads ends, and this one wins.
    Win(u8),
    Look(u8),
    Bind(u8, u8, u8),
    /// A scheduler wants a pod to make room.
    Preempt(u8, u8),
    Arrive(Request),
    /// It arrives, its answer is lost, and it is written again.
    ArriveTwice(Request),
    Lose(Request),
    Edit(u8),
    /// A pod is deleted, and another of its name is made.
    Renew(u8),
    /// A node is deleted with its pods, and another of its name is made.
    Replace(u8),
    /// A pod that was told to go has stopped, and another of its name is made.
    Stop(u8),
}

fn renew(pod: &mut Pod) {
    *pod = Pod { born: pod.born + 1, version: pod.version + 1, ..Pod::default() };
}

impl Bind {
    fn arrive(&self, state: &mut State, request: Request) {
        let store = &mut state.store;
        let node = store.nodes[request.node as usize];
        let pod = &mut store.pods[request.pod as usize];
        let leads = request.token == store.term;
        let is_guarded = if request.victim { self.victim } else { self.pod };
        if self.fence && !leads
            || is_guarded && pod.version != request.version
            || !request.victim && self.node && node.placements != request.placements
        {
            return;
        }
        let mut wrong = 0;
        if !leads {
            wrong |= FENCE;
        }
        if request.victim {
            if pod.born != request.born || pod.node != Some(request.node) {
                wrong |= VICTIM;
            }
            (pod.going, pod.version) = (true, pod.version + 1);
        } else {
            for (is, what) in [
                (pod.node.is_some_and(|other| other != request.node), TWICE),
                (pod.born == request.born && pod.edits > request.edits, LOST),
                (pod.born != request.born, RISEN),
                (node.born != request.node_born, GONE),
            ] {
                wrong |= if is { what } else { 0 };
            }
            *pod = Pod { version: pod.version + 1, node: Some(request.node), edits: request.edits, ..*pod };
            store.nodes[request.node as usize].placements += 1;
        }
        state.wrong |= wrong;
    }

    fn plans(&self, scheduler: &Scheduler, who: u8, may_preempt: bool, actions: &mut Vec<Action>) {
        if scheduler.token.is_none() || self.list && !scheduler.listed {
            return;
        }
        let view = &scheduler.view;
        for (at, pod) in (0..).zip(&view.pods) {
            if pod.node.is_none() {
                let free = (0..NODES as u8).filter(|node| view.on(*node) == 0);
                actions.extend(free.map(|node| Action::Bind(who, at, node)));
            } else if may_preempt && !pod.going && at > 0 && view.pods[0].node.is_none() {
                // The first pod is the more urgent one.
                actions.push(Action::Preempt(who, at));
            }
        }
    }
}

impl Model for Bind {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let schedulers = [Scheduler::default(); SCHEDULERS];
        let (store, requests) = (Store::default(), BTreeSet::new());
        vec![State { store, schedulers, requests, changes: self.changes, wrong: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (who, scheduler) in (0..).zip(&state.schedulers) {
            if state.store.term < TERMS && state.store.leader != Some(who) {
                actions.push(Action::Win(who));
            }
            if scheduler.view != state.store || scheduler.token.is_some() && !scheduler.listed {
                actions.push(Action::Look(who));
            }
            if state.requests.len() < REQUESTS_MAX {
                self.plans(scheduler, who, self.preempts && state.changes > 0, actions);
            }
        }
        for request in &state.requests {
            actions.extend([Action::Arrive(*request), Action::ArriveTwice(*request), Action::Lose(*request)]);
        }
        for (at, pod) in (0..).zip(&state.store.pods) {
            if pod.going {
                actions.push(Action::Stop(at));
            }
            if state.changes > 0 && self.edits {
                actions.push(Action::Edit(at));
            }
            if state.changes > 0 && self.replaces {
                actions.push(Action::Renew(at));
            }
        }
        if state.changes > 0 && self.replaces {
            actions.extend((0..NODES as u8).map(Action::Replace));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let store = &mut state.store;
        match action {
            Action::Win(who) => {
                store.term += 1;
                store.leader = Some(who);
                let scheduler = &mut state.schedulers[who as usize];
                (scheduler.token, scheduler.listed) = (Some(store.term), false);
            }
            Action::Look(who) => {
                let scheduler = &mut state.schedulers[who as usize];
                (scheduler.view, scheduler.listed) = (*store, true);
                scheduler.token = scheduler.token.filter(|token| *token == store.term);
                // What it has on its way counts until it is known what became of it.
                for own in state.requests.iter().filter(|own| scheduler.token == Some(own.token)) {
                    let pod = &mut scheduler.view.pods[own.pod as usize];
                    if pod.born == own.born {
                        (pod.node, pod.going) = (pod.node.or(Some(own.node)), pod.going || own.victim);
                    }
                }
            }
            Action::Bind(who, pod, _) | Action::Preempt(who, pod) => {
                let scheduler = &mut state.schedulers[who as usize];
                let seen = scheduler.view.pods[pod as usize];
                let (node, victim) = match action {
                    Action::Bind(_, _, node) => (node, false),
                    _ => (seen.node?, true),
                };
                let of = scheduler.view.nodes[node as usize];
                // It counts as placed from here on.
                let counted = &mut scheduler.view.pods[pod as usize];
                (counted.node, counted.going) = (Some(node), victim);
                state.changes -= u8::from(victim);
                state.requests.insert(Request {
                    token: scheduler.token?,
                    pod,
                    born: seen.born,
                    version: seen.version,
                    edits: seen.edits,
                    node,
                    node_born: of.born,
                    placements: of.placements,
                    victim,
                });
            }
            Action::Arrive(request) | Action::ArriveTwice(request) => {
                self.arrive(&mut state, request);
                if matches!(action, Action::Arrive(_)) {
                    state.requests.remove(&request);
                }
            }
            Action::Lose(request) => drop(state.requests.remove(&request)),
            Action::Edit(pod) => {
                let pod = &mut store.pods[pod as usize];
                (pod.edits, pod.version, state.changes) = (pod.edits + 1, pod.version + 1, state.changes - 1);
            }
            Action::Renew(pod) => {
                renew(&mut store.pods[pod as usize]);
                state.changes -= 1;
            }
            Action::Replace(node) => {
                store.pods.iter_mut().filter(|pod| pod.node == Some(node)).for_each(renew);
                let of = &mut store.nodes[node as usize];
                (of.born, of.placements) = (of.born + 1, of.placements + u8::from(self.touch));
                state.changes -= 1;
            }
            Action::Stop(pod) => renew(&mut store.pods[pod as usize]),
        }
        let is_bounded = state.store.pods.iter().all(|pod| pod.version <= VERSION_MAX);
        (state != *last && is_bounded).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn never<const WHAT: u8>(_: &Bind, state: &State) -> bool {
            state.wrong & WHAT == 0
        }
        let fits = |_: &Bind, state: &State| (0..NODES as u8).all(|node| state.store.on(node) <= 1);
        vec![
            Property::always("over-commit", fits),
            Property::always("bound twice", never::<TWICE>),
            Property::always("lost update", never::<LOST>),
            Property::always("gone node", never::<GONE>),
            Property::always("risen pod", never::<RISEN>),
            Property::always("wrong victim", never::<VICTIM>),
            Property::always("not the leader", never::<FENCE>),
        ]
    }
}

/// Both without anything that happens beside binds, as the design's table has them, and with what its guards are for.
pub(crate) fn rows() -> Vec<Row<Bind>> {
    let plain = Bind {
        fence: true,
        list: true,
        pod: true,
        node: false,
        touch: true,
        victim: true,
        changes: 0,
        edits: false,
        replaces: false,
        preempts: false,
    };
    let edited = Bind { edits: true, changes: 1, ..plain };
    let all = Bind { node: true, ..plain };
    let (replaced, preempted) =
        (Bind { replaces: true, changes: 1, ..all }, Bind { preempts: true, changes: 1, ..all });
    let row = |name, model, broken| Row { name, model, broken };
    vec![
        row("fence, list, pod", plain, &[]),
        row("list, pod", Bind { fence: false, ..plain }, &["over-commit", "not the leader"]),
        row("fence, pod", Bind { list: false, ..plain }, &["over-commit"]),
        row("fence, list; people change pods", Bind { pod: false, ..edited }, &["lost update"]),
        row("pod, node", Bind { fence: false, list: false, ..all }, &["not the leader"]),
        row("node", Bind { fence: false, list: false, pod: false, ..all }, &["bound twice", "not the leader"]),
        row("list", Bind { fence: false, pod: false, ..plain }, &["over-commit", "bound twice", "not the leader"]),
        row("all; nodes and pods are replaced", replaced, &[]),
        row("all but the node; replaced", Bind { node: false, ..replaced }, &["gone node"]),
        row("all but a node's own change of it; replaced", Bind { touch: false, ..replaced }, &["gone node"]),
        row("all but the pod; replaced", Bind { pod: false, ..replaced }, &["risen pod", "bound twice"]),
        row("all; pods make room", preempted, &[]),
        row("all but the victim's; pods make room", Bind { victim: false, ..preempted }, &["wrong victim"]),
    ]
}
