//! Machines with agents: they register, are heard of, run what is bound to them and write down what they run; they die, are
//! cut off, come back, and find their node deleted.

use super::world::Ground;
use mechi_controller::api::change::{Deletion, Half};
use mechi_controller::audit::journals::{Journals, Line};
use mechi_controller::control::node::{Brake, Disruption, zone_of};
use mechi_controller::keys::{self, ObjectKey};
use mechi_controller::kv::{Error, Guard, LeaseId, Revision, Txn};
use mechi_controller::limits::HEARTBEAT_MS;
use mechi_controller::sched::filter::keeps_out;
use mechi_controller::types::meta::{Condition, set_condition};
use mechi_controller::types::node::{Node, Taint};
use mechi_controller::types::pod::Pod;
use mechi_controller::types::resource::{Held, Resource as _};
use serde_json::json;
use std::collections::BTreeSet;

/// The taint by which people make pods leave a node.
pub(crate) const LEAVE: &str = "example.com/leave";

/// Machines; the first three are in one zone, the others in another.
pub(crate) const MACHINES: usize = 5;

/// How a machine is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    /// It runs, and nothing that it asks arrives.
    CutOff,
    Dead,
}

struct Machine {
    name: String,
    zone: &'static str,
    state: State,
    lease: Option<LeaseId>,
    renewed_ms: u64,
    /// The pods that it runs, by name and uid.
    runs: BTreeSet<String>,
    /// There was nothing to do for it at this revision.
    idle_at: Revision,
}

/// All machines, and their journals.
pub(crate) struct Machines {
    all: Vec<Machine>,
    journals: Journals,
}

impl Machines {
    pub(crate) fn new() -> Self {
        let machine = |n: usize| Machine {
            name: format!("n{n}"),
            zone: if n < 3 { "x" } else { "y" },
            state: State::Well,
            lease: None,
            renewed_ms: 0,
            runs: BTreeSet::new(),
            idle_at: 0,
        };
        Self { all: (0..MACHINES).map(machine).collect(), journals: Journals::default() }
    }

    fn write_down(ground: &mut Ground, journals: &mut Journals, node: &str, line: &Line) {
        ground.say(|| format!("journal of {node}: {line:?}"));
        let found = journals.line(node, line);
        ground.found.extend(found);
    }

    /// An agent looks after its machine; `most` things of what there is to do for its pods.
    pub(crate) fn agent(&mut self, ground: &mut Ground, n: usize, most: usize) {
        if self.all[n].state != State::Well {
            return;
        }
        self.beat(ground, n);
        let machine = &mut self.all[n];
        if machine.idle_at == ground.store.revision() {
            return;
        }
        let before = ground.store.revision();
        let name = machine.name.clone();
        let mut is_idle = true;
        let Some(node) = ground.held::<Node>("", &name) else {
            ground.say(|| format!("{name} registers"));
            return ground.make::<Node>(json!({
                "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": machine.zone}},
                "status": {"capacity": {"cpu": "64", "memory": "64Gi", "pods": "1000"}},
            }));
        };
        if !node.is_ready() {
            report(ground, &node, "True");
            is_idle = false;
        }
        let pods: Vec<Held<Pod>> = ground.all::<Pod>().into_iter().filter(|pod| pod.spec.node_name == name).collect();
        let is_to_run = |uid: &String| pods.iter().any(|pod| identity(pod) == *uid && pod.is_active());
        for uid in machine.runs.clone().into_iter().filter(|uid| !is_to_run(uid)) {
            machine.runs.remove(&uid);
            let (pod, container) = (uid, "c".to_owned());
            Self::write_down(ground, &mut self.journals, &name, &Line::Stopped { pod, container });
        }
        let mut done = 0;
        for pod in &pods {
            if done == most {
                break;
            }
            done += 1;
            if pod.metadata.is_going() {
                ground.delete(pod, &Deletion { grace: Some(0), ..Deletion::default() });
            } else if pod.is_over() {
                done -= 1;
            } else if machine.runs.insert(identity(pod)) {
                let line = Line::Started { pod: identity(pod), container: "c".to_owned() };
                Self::write_down(ground, &mut self.journals, &name, &line);
                state(ground, pod, "Running", "True");
            } else if !pod.is_ready() {
                state(ground, pod, "Running", "True");
            } else {
                done -= 1;
            }
        }
        // What it sends may be late, and refused.
        if is_idle && done == 0 && ground.store.revision() == before {
            machine.idle_at = before;
        }
    }

    /// An agent renews its lease, and holds its heartbeat's key under it.
    fn beat(&mut self, ground: &mut Ground, n: usize) {
        let machine = &mut self.all[n];
        let now = ground.ms;
        if let Some(lease) = machine.lease
            && now >= machine.renewed_ms + 3_000
        {
            match ground.store.keep_alive(lease, now) {
                Ok(()) => machine.renewed_ms = now,
                Err(_) => machine.lease = None,
            }
        }
        let lease = *machine.lease.get_or_insert_with(|| ground.store.grant(HEARTBEAT_MS, now));
        let key = keys::heartbeat(&machine.name);
        let held = ground.store.get(key.as_bytes()).map(|held| (held.modified, held.lease));
        if held.is_some_and(|(_, held)| held == lease) {
            return;
        }
        machine.renewed_ms = now;
        let guard = Guard::Seen { key: key.clone().into(), modified: held.map_or(0, |(modified, _)| modified) };
        let txn = Txn::new().guard(guard).put_leased(key, "{}", lease);
        if matches!(ground.write("agent", &txn), Err(Error::LeaseNotFound)) {
            machine.lease = None;
        }
    }

    /// Something happens to a machine, or to a pod on it.
    pub(crate) fn trouble(&mut self, ground: &mut Ground) {
        let n = ground.rng.below(MACHINES as u64) as usize;
        let what = ground.rng.below(10);
        let machine = &mut self.all[n];
        let name = machine.name.clone();
        match (what, machine.state) {
            (0..3, State::Well) => {
                ground.say(|| format!("{name} is cut off"));
                machine.state = State::CutOff;
            }
            (3..5, State::Well | State::CutOff) => self.die(ground, n),
            (0..5, _) => self.come_back(ground, n),
            (5 | 6, _) => {
                if let Some(node) = ground.held::<Node>("", &name) {
                    ground.say(|| format!("somebody deletes node {name}"));
                    ground.delete(&node, &Deletion::default());
                }
            }
            (7, State::Well) => {
                if let Some(node) = ground.held::<Node>("", &name) {
                    ground.say(|| format!("{name} says that it is not ready"));
                    report(ground, &node, "False");
                }
            }
            (_, State::Well) => self.fail(ground, n),
            _ => {}
        }
    }

    /// A machine dies, and with it what it runs.
    pub(crate) fn die(&mut self, ground: &Ground, n: usize) {
        let machine = &mut self.all[n];
        ground.say(|| format!("{} dies", machine.name));
        machine.state = State::Dead;
        machine.runs.clear();
    }

    /// A machine that died comes up, or one that was cut off is reached again.
    pub(crate) fn come_back(&mut self, ground: &mut Ground, n: usize) {
        let machine = &mut self.all[n];
        ground.say(|| format!("{} is back", machine.name));
        if machine.state == State::Dead {
            // The lease was the former agent's.
            machine.lease = None;
            Self::write_down(ground, &mut self.journals, &machine.name, &Line::Booted);
        }
        machine.state = State::Well;
    }

    /// A container fails for good.
    fn fail(&mut self, ground: &mut Ground, n: usize) {
        let machine = &mut self.all[n];
        let pods = ground.all::<Pod>();
        if let Some(pod) = pods.iter().find(|pod| pod.is_active() && machine.runs.contains(&identity(pod))) {
            ground.say(|| format!("{} fails", pod.metadata.name));
            machine.runs.remove(&identity(pod));
            let line = Line::Stopped { pod: identity(pod), container: "c".to_owned() };
            Self::write_down(ground, &mut self.journals, &machine.name, &line);
            state(ground, pod, "Failed", "False");
        }
    }

    /// All troubles end: whoever is cut off is back, and who is dead is back or is said to be gone. On the first two
    /// machines pods may run, whatever people wanted.
    pub(crate) fn heal(&mut self, ground: &mut Ground) {
        for n in 0..2 {
            let node = ground.held::<Node>("", &self.all[n].name);
            if let Some(node) = node.filter(|node| people(node).is_some()) {
                taint(ground, &node);
            }
        }
        for n in 0..MACHINES {
            let is_lost = self.all[n].state == State::Dead && n > 1 && ground.rng.below(2) == 0;
            if is_lost {
                if let Some(node) = ground.held::<Node>("", &self.all[n].name) {
                    ground.delete(&node, &Deletion::default());
                }
            } else if self.all[n].state != State::Well {
                self.come_back(ground, n);
            }
        }
    }

    /// Everybody does what there is to do.
    pub(crate) fn all(&mut self, ground: &mut Ground) {
        for n in 0..MACHINES {
            self.agent(ground, n, usize::MAX);
        }
    }

    /// Time passes, in steps that agents renew their leases in.
    pub(crate) fn wait(&mut self, ground: &mut Ground, seconds: u64) {
        for _ in 0..seconds / 2 {
            ground.ms += 2_000;
            for n in (0..MACHINES).filter(|n| self.all[*n].state == State::Well).collect::<Vec<_>>() {
                self.beat(ground, n);
            }
        }
    }

    /// What runs is what should, and every node is well.
    pub(crate) fn judge(&self, ground: &Ground) {
        let (nodes, pods) = (ground.all::<Node>(), ground.all::<Pod>());
        for node in &nodes {
            let is_well = node.is_ready() && node.spec.taints.iter().all(|taint| taint.key == LEAVE);
            assert!(is_well, "L1: {} is not well", node.metadata.name);
        }
        for node in &nodes {
            let brake = ground.store.get(keys::brake(&zone_of(node)).as_bytes());
            let state = brake.map_or(Disruption::Normal, |held| Brake::read(&held.value).state);
            assert!(state == Disruption::Normal, "L1: the zone of {} is {state:?}", node.metadata.name);
        }
        for pod in &pods {
            assert!(!pod.metadata.is_going(), "L1: {} should be gone", pod.metadata.name);
            let node = nodes.iter().find(|node| node.metadata.name == pod.spec.node_name);
            assert!(
                node.is_some() || pod.spec.node_name.is_empty(),
                "L2: {} is on a node that is gone",
                pod.metadata.name
            );
            let taint = node.filter(|_| pod.is_active()).and_then(|node| people(node));
            let stays = |taint: &Taint| {
                pod.spec.tolerations.iter().any(|one| one.tolerates(taint) && one.toleration_seconds.is_none())
            };
            assert!(taint.is_none_or(stays), "L1: {} stays where it may not", pod.metadata.name);
        }
        for machine in self.all.iter().filter(|machine| machine.state == State::Well) {
            let own = pods.iter().filter(|pod| pod.spec.node_name == machine.name && pod.is_active());
            let own: BTreeSet<String> = own.map(|pod| identity(pod)).collect();
            let runs: BTreeSet<String> = self.journals.runs(&machine.name).map(str::to_owned).collect();
            assert!(runs == own, "L1: {} runs {runs:?}, and should {own:?}", machine.name);
        }
    }
}

/// The taint that people have put on a node.
fn people(node: &Node) -> Option<&Taint> {
    node.spec.taints.iter().find(|taint| taint.key == LEAVE)
}

/// People want a node to be empty, or they do not any more.
pub(crate) fn taint(ground: &mut Ground, node: &Held<Node>) {
    let since = (ground.rng.below(2) == 0).then(|| ground.now().time);
    ground.modify(node, Half::Wanted, |new| match people(new) {
        Some(_) => new.spec.taints.retain(|taint| taint.key != LEAVE),
        None => new.spec.taints.push(Taint {
            key: LEAVE.to_owned(),
            effect: "NoExecute".to_owned(),
            time_added: since,
            ..Taint::default()
        }),
    });
}

/// Which incarnation of which pod.
fn identity(pod: &Pod) -> String {
    format!("a/{} {}", pod.metadata.name, pod.metadata.uid)
}

/// An agent says how its node is.
fn report(ground: &mut Ground, node: &Held<Node>, status: &str) {
    let now = ground.now().time;
    let ready = Condition { r#type: "Ready".to_owned(), status: status.to_owned(), ..Default::default() };
    ground.modify(node, Half::Status, |new| {
        set_condition(&mut new.status.conditions, ready, now);
    });
}

/// An agent says how a pod is.
fn state(ground: &mut Ground, pod: &Held<Pod>, phase: &str, ready: &str) {
    let now = ground.now().time;
    ground.say(|| format!("{} is {phase}, ready {ready}", pod.metadata.name));
    let ready = Condition { r#type: "Ready".to_owned(), status: ready.to_owned(), ..Default::default() };
    ground.modify(pod, Half::Status, |new| {
        phase.clone_into(&mut new.status.phase);
        set_condition(&mut new.status.conditions, ready, now);
    });
}

/// A scheduler that never fails binds a pod to some node that takes it, if there is one.
pub(crate) fn bind(ground: &mut Ground) {
    let waits: Vec<Held<Pod>> =
        ground.all::<Pod>().into_iter().filter(|pod| pod.is_active() && pod.spec.node_name.is_empty()).collect();
    if waits.is_empty() {
        return;
    }
    let pod = &waits[ground.rng.below(waits.len() as u64) as usize];
    let nodes: Vec<Held<Node>> =
        ground.all::<Node>().into_iter().filter(|node| keeps_out(&pod.spec, node).is_none()).collect();
    if nodes.is_empty() {
        return;
    }
    let node = &nodes[ground.rng.below(nodes.len() as u64) as usize];
    let name = &node.metadata.name;
    ground.say(|| format!("{} is bound to {name}", pod.metadata.name));
    let mut new = pod.to_object();
    new.spec.node_name.clone_from(name);
    let seen = |key: ObjectKey, modified| Guard::Seen { key: key.to_string().into(), modified };
    let txn = Txn::new().guard(seen(pod.key(), pod.modified)).guard(seen(node.key(), node.modified));
    let txn = txn.put(pod.key().to_string(), new.to_stored()).put(keys::alloc(name), "{}");
    let _ = ground.write("binder", &txn);
}
