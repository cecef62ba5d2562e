//! Two schedulers place two pods on two nodes with room for one each; one pod may have to make room for the other.
//!
//! A scheduler knows what it saw when it last looked, and believes that it leads until it looks again; the first one wins
//! first, since both are the same. It places no pod and uses no node of which a transaction of its own is on its way, or
//! was when it last looked. Nodes are replaced by others of their name, pods by others of theirs, people change pods; a
//! transaction arrives, is lost, or arrives and is written again since its answer was lost.
//!
//! Everything that guards compare only rises, so that whatever would be refused now would be refused for ever: it is forgotten
//! at once, which is as if it had come and been answered. So is what a scheduler saw before it has to list. There are fewer
//! states, and nothing that could be written is left out.

use super::Row;
use stateright::{Model, Property};
use std::collections::BTreeSet;

const PODS: usize = 2;
const NODES: usize = 2;
const SCHEDULERS: usize = 2;

/// Transactions on their way at once.
const REQUESTS_MAX: usize = 2;

/// Versions of a pod and of a node's placements: no row comes so far, and one that does is a mistake in the model.
const VERSION_MAX: u8 = 16;

/// The more urgent pod, and the one that may have to go for it.
const URGENT: u8 = 0;
const VICTIM: u8 = 1;

/// What is wrong: a pod that is bound is bound to another node.
const TWICE: u8 = 1;
/// A change is overwritten by an old copy.
const LOST: u8 = 2;
/// A pod is bound to a node that is not there any more, or nominated for it.
const GONE: u8 = 4;
/// A pod that is gone rises again, or another of its name is taken for it.
const RISEN: u8 = 8;
/// Somebody is told to go who is not the one that was chosen.
const WRONG: u8 = 16;
/// Somebody is told to go for a pod that does not wait any more.
const NEEDLESS: u8 = 32;
/// Somebody wrote who did not lead.
const FENCE: u8 = 64;

/// Which guards are there, and how often something else happens.
#[derive(Clone, Copy)]
pub(crate) struct Bind {
    /// Every transaction compares the election's token.
    pub(crate) fence: bool,
    /// Who wins looks at everything before it places anything.
    pub(crate) list: bool,
    /// The pod's version is compared.
    pub(crate) pod: bool,
    /// The version of the node's placements is compared.
    pub(crate) node: bool,
    /// Whatever changes a node rewrites its placements.
    pub(crate) touch: bool,
    /// The versions of those that are told to go are compared.
    pub(crate) victim: bool,
    /// Changes of pods by people.
    pub(crate) edits: u8,
    /// Pods and nodes that are replaced by others of their name.
    pub(crate) replaces: u8,
    /// Pods that are told to make room; the less urgent pod is bound at the beginning if there are any.
    pub(crate) preempts: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Pod {
    born: u8,
    version: u8,
    edits: u8,
    node: Option<u8>,
    is_going: bool,
}

impl Pod {
    /// It is gone, and another one of its name is made.
    fn renew(&mut self) {
        *self = Self { born: self.born + 1, version: self.version + 1, ..Self::default() };
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Node {
    born: u8,
    placements: u8,
}

/// What schedulers look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Objects {
    pods: [Pod; PODS],
    nodes: [Node; NODES],
}

impl Objects {
    fn on(&self, node: u8) -> usize {
        self.pods.iter().filter(|pod| pod.node == Some(node)).count()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Scheduler {
    /// The term that it believes to lead in.
    token: Option<u8>,
    has_listed: bool,
    view: Objects,
    /// Pods and nodes of which something is on its way, as far as it knows: one bit for each.
    in_hand: u8,
    busy: u8,
}

/// A transaction, with what its writer saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Request {
    token: u8,
    /// Who is bound to the node, or nominated for it.
    pod: u8,
    born: u8,
    version: u8,
    edits: u8,
    node: u8,
    node_born: u8,
    placements: u8,
    /// The incarnation and the version of the one that is told to go, if nobody is bound.
    victim: Option<(u8, u8)>,
    /// It has arrived before.
    is_again: bool,
}

/// How often something may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    edits: u8,
    replaces: u8,
    preempts: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    objects: Objects,
    /// How often somebody has won: the last one leads.
    term: u8,
    schedulers: [Scheduler; SCHEDULERS],
    requests: BTreeSet<Request>,
    left: Left,
    wrong: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The lease of whoever leads ends, and the next one wins.
    Win,
    Look(u8),
    /// A scheduler places a pod on a node.
    Bind(u8, u8, u8),
    /// A scheduler wants the less urgent pod to make room.
    Preempt(u8),
    Arrive(Request),
    /// It arrives, its answer is lost, and it is written again.
    ArriveTwice(Request),
    Lose(Request),
    /// A person changes a pod.
    Edit(u8),
    /// A pod is deleted, and another of its name is made.
    Renew(u8),
    /// A node is deleted with its pods, and another of its name is made.
    Replace(u8),
    /// The pod that was told to go has stopped, and another of its name is made.
    Stop,
}

fn has(bits: u8, one: u8) -> bool {
    bits >> one & 1 == 1
}

impl Bind {
    /// Whether a guard keeps a transaction out.
    fn refuses(&self, objects: &Objects, term: u8, request: &Request) -> bool {
        let (pod, other) = (objects.pods[request.pod as usize], objects.pods[VICTIM as usize]);
        let placements = objects.nodes[request.node as usize].placements;
        self.fence && request.token != term
            || self.pod && pod.version != request.version
            || self.node && placements != request.placements
            || self.victim && request.victim.is_some_and(|(_, version)| other.version != version)
    }

    /// A transaction that no guard keeps out is written.
    fn arrive(state: &mut State, request: Request) {
        let leads = request.token == state.term;
        let Objects { pods, nodes } = &mut state.objects;
        let (pod, node) = (pods[request.pod as usize], &mut nodes[request.node as usize]);
        let other = pods[VICTIM as usize];
        let mut wrong = 0;
        let mut note = |is: bool, what: u8| wrong |= if is { what } else { 0 };
        note(!leads, FENCE);
        note(pod.born != request.born, RISEN);
        note(pod.born == request.born && pod.edits > request.edits, LOST);
        note(node.born != request.node_born, GONE);
        // All of what was seen is written back, with what is new.
        let to = request.victim.is_none().then_some(request.node);
        if let Some((born, _)) = request.victim {
            note(pod.node.is_some() || pod.born != request.born, NEEDLESS);
            note(other.born != born || other.node != Some(request.node), WRONG);
            let (version, node) = (other.version + 1, Some(request.node));
            pods[VICTIM as usize] = Pod { version, node, is_going: true, ..other };
        } else {
            note(pod.node.is_some_and(|node| node != request.node), TWICE);
        }
        pods[request.pod as usize] = Pod { version: pod.version + 1, edits: request.edits, node: to, ..pod };
        node.placements += 1;
        state.wrong |= wrong;
    }

    /// What a scheduler may do by what it sees.
    fn plans(&self, state: &State, who: u8, actions: &mut Vec<Action>) {
        let scheduler = &state.schedulers[who as usize];
        let Some(token) = scheduler.token else { return };
        if self.list && !scheduler.has_listed || self.fence && token != state.term {
            return;
        }
        let view = &scheduler.view;
        let waits = |pod: u8| view.pods[pod as usize].node.is_none() && !has(scheduler.in_hand, pod);
        let is_known = |node: u8| !has(scheduler.busy, node);
        for pod in (0..PODS as u8).filter(|pod| waits(*pod)) {
            let free = (0..NODES as u8).filter(|node| is_known(*node) && view.on(*node) == 0);
            actions.extend(free.map(|node| Action::Bind(who, pod, node)));
        }
        let victim = view.pods[VICTIM as usize];
        let is_victim = !victim.is_going && victim.node.is_some_and(is_known);
        if state.left.preempts > 0 && waits(URGENT) && is_victim {
            actions.push(Action::Preempt(who));
        }
    }

    /// Sends off what a scheduler wants.
    fn send(state: &mut State, who: u8, pod: u8, node: u8, victim: Option<(u8, u8)>) -> Option<()> {
        let scheduler = &mut state.schedulers[who as usize];
        scheduler.in_hand |= 1 << pod;
        scheduler.busy |= 1 << node;
        let Pod { born, version, edits, .. } = scheduler.view.pods[pod as usize];
        let Node { born: node_born, placements } = scheduler.view.nodes[node as usize];
        let (token, is_again) = (scheduler.token?, false);
        let request = Request { token, pod, born, version, edits, node, node_born, placements, victim, is_again };
        state.requests.insert(request);
        Some(())
    }

    /// A scheduler sees everything as it is, and of its own transactions which are still on their way.
    fn look(&self, state: &mut State, who: u8) {
        let scheduler = &mut state.schedulers[who as usize];
        scheduler.token = scheduler.token.filter(|token| *token == state.term);
        if scheduler.token.is_none() && self.list {
            *scheduler = Scheduler::default();
            return;
        }
        (scheduler.view, scheduler.has_listed) = (state.objects, true);
        (scheduler.in_hand, scheduler.busy) = (0, 0);
        let token = scheduler.token;
        for own in state.requests.iter().filter(|own| token == Some(own.token)) {
            scheduler.busy |= 1 << own.node;
            if own.born == state.objects.pods[own.pod as usize].born {
                scheduler.in_hand |= 1 << own.pod;
            }
        }
    }
}

impl Model for Bind {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut objects = Objects::default();
        if self.preempts > 0 {
            objects.pods[VICTIM as usize] = Pod { version: 1, node: Some(0), ..Pod::default() };
            objects.nodes[0].placements = 1;
        }
        let view = if self.list { Objects::default() } else { objects };
        let schedulers = [Scheduler { view, ..Scheduler::default() }; SCHEDULERS];
        let left = Left { edits: self.edits, replaces: self.replaces, preempts: self.preempts };
        vec![State { objects, term: 0, schedulers, requests: BTreeSet::new(), left, wrong: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if (state.term as usize) < SCHEDULERS {
            actions.push(Action::Win);
        }
        for who in 0..SCHEDULERS as u8 {
            // Who does not lead, and has to list before it does, need not look.
            if !self.list || state.schedulers[who as usize].token.is_some() {
                actions.push(Action::Look(who));
            }
            if state.requests.len() < REQUESTS_MAX {
                self.plans(state, who, actions);
            }
        }
        for request in &state.requests {
            actions.extend([Action::Arrive(*request), Action::Lose(*request)]);
            if !request.is_again {
                actions.push(Action::ArriveTwice(*request));
            }
        }
        if state.objects.pods[VICTIM as usize].is_going {
            actions.push(Action::Stop);
        }
        if state.left.edits > 0 {
            actions.extend((0..PODS as u8).map(Action::Edit));
        }
        if state.left.replaces > 0 {
            actions.extend((0..PODS as u8).map(Action::Renew));
            actions.extend((0..NODES as u8).map(Action::Replace));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Win => {
                let winner = &mut state.schedulers[state.term as usize];
                state.term += 1;
                (winner.token, winner.has_listed) = (Some(state.term), false);
            }
            Action::Look(who) => self.look(&mut state, who),
            Action::Bind(who, pod, node) => Self::send(&mut state, who, pod, node, None)?,
            Action::Preempt(who) => {
                let victim = state.schedulers[who as usize].view.pods[VICTIM as usize];
                state.left.preempts -= 1;
                Self::send(&mut state, who, URGENT, victim.node?, Some((victim.born, victim.version)))?;
            }
            Action::Arrive(request) | Action::ArriveTwice(request) => {
                state.requests.remove(&request);
                Self::arrive(&mut state, request);
                if matches!(action, Action::ArriveTwice(_)) {
                    state.requests.insert(Request { is_again: true, ..request });
                }
            }
            Action::Lose(request) => {
                state.requests.remove(&request);
            }
            Action::Edit(pod) => {
                let pod = &mut state.objects.pods[pod as usize];
                (pod.edits, pod.version) = (pod.edits + 1, pod.version + 1);
                state.left.edits -= 1;
            }
            Action::Renew(pod) => {
                state.objects.pods[pod as usize].renew();
                state.left.replaces -= 1;
            }
            Action::Replace(node) => {
                let Objects { pods, nodes } = &mut state.objects;
                pods.iter_mut().filter(|pod| pod.node == Some(node)).for_each(Pod::renew);
                let node = &mut nodes[node as usize];
                (node.born, node.placements) = (node.born + 1, node.placements + u8::from(self.touch));
                state.left.replaces -= 1;
            }
            Action::Stop => state.objects.pods[VICTIM as usize].renew(),
        }
        let State { objects, term, requests, .. } = &mut state;
        requests.retain(|request| !self.refuses(objects, *term, request));
        let versions = state.objects.pods.iter().map(|pod| pod.version);
        let mut versions = versions.chain(state.objects.nodes.iter().map(|node| node.placements));
        assert!(versions.all(|version| version < VERSION_MAX), "it goes on for ever: {state:?}");
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn never<const WHAT: u8>(_: &Bind, state: &State) -> bool {
            state.wrong & WHAT == 0
        }
        fn fits(_: &Bind, state: &State) -> bool {
            (0..NODES as u8).all(|node| state.objects.on(node) <= 1)
        }
        vec![
            Property::always("over-commit", fits),
            Property::always("bound twice", never::<TWICE>),
            Property::always("lost update", never::<LOST>),
            Property::always("gone node", never::<GONE>),
            Property::always("risen pod", never::<RISEN>),
            Property::always("wrong victim", never::<WRONG>),
            Property::always("needless victim", never::<NEEDLESS>),
            Property::always("not the leader", never::<FENCE>),
        ]
    }
}

/// First nothing happens beside binds, so that it shows which guards do the same as others; then what each one is for.
pub(crate) fn rows() -> Vec<Row<Bind>> {
    let plain = Bind {
        fence: true,
        list: true,
        pod: true,
        node: false,
        touch: true,
        victim: true,
        edits: 0,
        replaces: 0,
        preempts: 0,
    };
    let all = Bind { node: true, ..plain };
    let edited = Bind { edits: 1, ..plain };
    let replaced = Bind { replaces: 1, ..all };
    let preempted = Bind { preempts: 1, ..replaced };
    let row = |name, model, broken| Row { name, model, broken };
    vec![
        row("fence, list, pod", plain, &[]),
        row("list, pod", Bind { fence: false, ..plain }, &["over-commit", "not the leader"]),
        row("fence, pod", Bind { list: false, ..plain }, &["over-commit"]),
        row("pod, node", Bind { fence: false, list: false, ..all }, &["not the leader"]),
        row("node", Bind { fence: false, list: false, pod: false, ..all }, &["bound twice", "not the leader"]),
        row("list", Bind { fence: false, pod: false, ..plain }, &["over-commit", "bound twice", "not the leader"]),
        row("fence, list, pod; people change pods", edited, &[]),
        row("fence, list; people change pods", Bind { pod: false, ..edited }, &["lost update"]),
        row("all; nodes and pods are replaced", replaced, &[]),
        row("all but the node's version; replaced", Bind { node: false, ..replaced }, &["gone node"]),
        row("all but a node's own change of it; replaced", Bind { touch: false, ..replaced }, &["gone node"]),
        row("all but the pod's version; replaced", Bind { pod: false, ..replaced }, &["risen pod", "bound twice"]),
        row("all; one makes room", preempted, &[]),
        row("all but the victim's version; one makes room", Bind { victim: false, ..preempted }, &["wrong victim"]),
        row(
            "all but the pod's version; one makes room",
            Bind { pod: false, ..preempted },
            &["risen pod", "bound twice", "needless victim"],
        ),
    ]
}
