//! All controllers of one replica: who has to look at what, when something changed; each key by one worker at a time.

use super::{About, Now, Plan, collect, deployment, namespace, node, replica_set};
use crate::cache::{Cache, Cached as _, Change, Changes, Object};
use crate::keys::{Coord, Kind, ObjectKey};
use crate::kv::{Outcome, Revision};
use crate::limits::HEARTBEAT_MS;
use crate::queue::{Priority, Queue};
use crate::types::meta::ObjectMeta;
use crate::types::node::Node;
use crate::types::pod::Pod;
use crate::types::resource::Held;
use crate::types::workload::ReplicaSet;

/// A controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Controller {
    ReplicaSet,
    Deployment,
    Namespace,
    Collector,
    Node,
}

impl Controller {
    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReplicaSet => "replicaset",
            Self::Deployment => "deployment",
            Self::Namespace => "namespace",
            Self::Collector => "collector",
            Self::Node => "node",
        }
    }

    /// Its name in events.
    pub fn component(self) -> &'static str {
        match self {
            Self::ReplicaSet => "replicaset-controller",
            Self::Deployment => "deployment-controller",
            Self::Namespace => "namespace-controller",
            Self::Collector => "garbage-collector-controller",
            Self::Node => "node-controller",
        }
    }

    /// Works out what a key needs.
    ///
    /// - Units: `rests_until_ms` as [`node::reconcile`] has it.
    pub fn reconcile(self, cache: &Cache, key: &ObjectKey, now: Now, rests_until_ms: u64) -> Plan {
        match self {
            Self::ReplicaSet => replica_set::reconcile(cache, key, now),
            Self::Deployment => deployment::reconcile(cache, key, now),
            Self::Namespace => namespace::reconcile(cache, key, now),
            Self::Collector => collect::reconcile(cache, key, now),
            Self::Node => node::reconcile(cache, key, now, rests_until_ms),
        }
    }
}

/// What somebody works on.
pub type Work = (Controller, ObjectKey);

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All of it was written, last as this revision; `None` if there was nothing to write.
    Written(Option<Revision>),
    /// The store refused it: the copy was older than what it was worked out from.
    Refused(Revision),
    /// The store did not answer.
    Failed,
}

impl Ended {
    /// What the answer to a transaction means for its plan.
    pub fn of(answer: &Result<Outcome, crate::kv::Error>) -> Self {
        match answer {
            Ok(Outcome::Committed(revision)) => Self::Written(Some(*revision)),
            Ok(Outcome::Refused { revision, .. }) => Self::Refused(*revision),
            Err(_) => Self::Failed,
        }
    }
}

/// The controllers' queues.
#[derive(Clone, Debug, Default)]
pub struct Manager {
    queue: Queue<Work>,
    /// When it was first asked for work: since it leads.
    since_ms: Option<u64>,
}

impl Manager {
    /// Something changed in the copy: whoever it concerns has to look.
    pub fn changed(&mut self, cache: &Cache, changes: &Changes, priority: Priority) {
        for change in &changes.objects {
            self.object(cache, change, priority);
        }
        for coord in &changes.coords {
            match coord {
                Coord::Heartbeat(name) => self.node(name, priority),
                // Who is not well may have to wait, or has no longer.
                Coord::Brake(_) => self.nodes(cache, |node| !node.is_ready()),
                Coord::Election(_) | Coord::Alloc(_) => {}
            }
        }
        self.queue.reached(crate::cache::Mirror::at(cache));
    }

    fn node(&mut self, name: &str, priority: Priority) {
        self.queue.add((Controller::Node, ObjectKey::new(Kind::Node, "", name)), priority);
    }

    fn nodes(&mut self, cache: &Cache, which: impl Fn(&Node) -> bool) {
        for node in cache.all::<Node>().filter(|node| which(node)) {
            self.node(&node.metadata.name, Priority::Review);
        }
    }

    /// A pod that came to a node has to leave it, or is not ready there, or there is no such node.
    fn guest(&mut self, cache: &Cache, pod: &Pod, priority: Priority) {
        let repels =
            |node: &Held<Node>| !node.is_ready() || node.spec.taints.iter().any(|taint| taint.effect == "NoExecute");
        let name = &pod.spec.node_name;
        if !name.is_empty() && cache.get::<Node>("", name).is_none_or(repels) {
            self.node(name, priority);
        }
    }

    /// A pod does not run any more: who replaces all pods at once waits for the last of them, of which its ReplicaSet says
    /// nothing since it was told to go.
    fn pod_ended(&mut self, cache: &Cache, change: &Change, priority: Priority) {
        let Some(old) = change.old.as_ref().and_then(Pod::of).filter(|pod| !pod.is_over()) else { return };
        let new = change.new.as_ref().and_then(Pod::of).filter(|pod| pod.created == old.created);
        if new.is_some_and(|pod| !pod.is_over()) {
            return;
        }
        let Some(owner) = old.metadata.controller().filter(|owner| owner.kind == Kind::ReplicaSet.name()) else {
            return;
        };
        let set = cache.get::<ReplicaSet>(change.key.namespace(), &owner.name);
        let deployment = set.and_then(|set| set.metadata.controller());
        if let Some(owner) = deployment.filter(|owner| owner.kind == Kind::Deployment.name()) {
            let key = ObjectKey::new(Kind::Deployment, change.key.namespace(), &owner.name);
            self.queue.add((Controller::Deployment, key), priority);
        }
    }

    fn object(&mut self, cache: &Cache, change: &Change, priority: Priority) {
        let key = &change.key;
        match key.kind {
            Kind::ReplicaSet => self.queue.add((Controller::ReplicaSet, key.clone()), priority),
            Kind::Deployment => self.queue.add((Controller::Deployment, key.clone()), priority),
            Kind::Namespace => self.namespace(cache, key, priority),
            Kind::Node => {
                self.node(key.name(), priority);
                let zone = |object: Option<&Object>| object.and_then(Node::of).map(|node| node::zone_of(node));
                // Its zone is smaller now, and nobody else would notice.
                if change.old.is_some() && zone(change.old.as_ref()) != zone(change.new.as_ref()) {
                    self.nodes(cache, |_| true);
                }
            }
            Kind::Pod => {
                if let Some(pod) = change.new.as_ref().and_then(Pod::of) {
                    self.guest(cache, pod, priority);
                }
                self.pod_ended(cache, change, priority);
            }
        }
        for object in change.old.iter().chain(&change.new) {
            let Some(meta) = object.meta() else { continue };
            self.owners(key, meta, priority);
            if key.kind == Kind::Pod && meta.controller().is_none() {
                self.adopters(cache, key, meta, priority);
            }
        }
        if key.kind.is_namespaced() {
            let room = ObjectKey::new(Kind::Namespace, "", key.namespace());
            self.queue.add((Controller::Namespace, room), priority);
            let has_to_look = |meta: &ObjectMeta| !meta.owner_references.is_empty() || meta.is_going();
            if change.new.as_ref().and_then(Object::meta).is_some_and(has_to_look) {
                self.queue.add((Controller::Collector, key.clone()), priority);
            }
        }
        // What an owner leaves behind is garbage now.
        let is_other = |old: &&Object| change.new.as_ref().is_none_or(|new| new.created() != old.created());
        if let Some(gone) = change.old.as_ref().filter(is_other) {
            for dependent in cache.dependents(gone.created()) {
                self.queue.add((Controller::Collector, dependent.clone()), priority);
            }
        }
    }

    /// Everything in it has to be looked at: what could not be made before can be now, or has to go.
    fn namespace(&mut self, cache: &Cache, key: &ObjectKey, priority: Priority) {
        self.queue.add((Controller::Namespace, key.clone()), priority);
        for kind in [Kind::ReplicaSet, Kind::Deployment] {
            let within = cache.keys(kind).filter(|(other, _)| other.namespace() == key.name());
            let controller = if kind == Kind::ReplicaSet { Controller::ReplicaSet } else { Controller::Deployment };
            for (other, _) in within {
                self.queue.add((controller, other.clone()), Priority::Review);
            }
        }
    }

    fn owners(&mut self, key: &ObjectKey, meta: &ObjectMeta, priority: Priority) {
        for owner in &meta.owner_references {
            let Some(kind) = Kind::of_name(&owner.kind) else { continue };
            let owner = ObjectKey::new(kind, key.namespace(), &owner.name);
            match kind {
                Kind::ReplicaSet => self.queue.add((Controller::ReplicaSet, owner.clone()), priority),
                Kind::Deployment => self.queue.add((Controller::Deployment, owner.clone()), priority),
                _ => {}
            }
            // An owner that lets go of its dependents looks whether there are any left.
            self.queue.add((Controller::Collector, owner), priority);
        }
    }

    /// Who may want a pod that nobody manages.
    fn adopters(&mut self, cache: &Cache, key: &ObjectKey, meta: &ObjectMeta, priority: Priority) {
        for set in cache.within::<ReplicaSet>(key.namespace()) {
            if set.spec.selector.as_ref().is_some_and(|selector| selector.matches(&meta.labels)) {
                self.queue.add((Controller::ReplicaSet, crate::types::resource::Resource::key(&**set)), priority);
            }
        }
    }

    /// The next key that somebody has to look at, and what it needs.
    pub fn next(&mut self, cache: &Cache, now: Now) -> Option<(Work, Plan)> {
        let work = self.queue.take(now.ms)?;
        // Heartbeats may have been lost with the one that led before.
        let rests_until_ms = *self.since_ms.get_or_insert(now.ms) + HEARTBEAT_MS;
        let mut plan = work.0.reconcile(cache, &work.1, now, rests_until_ms);
        for note in &mut plan.notes {
            note.about.get_or_insert_with(|| About::of(cache, &work.1));
        }
        if let Some(again_ms) = plan.again_ms {
            self.queue.add_at(work.clone(), again_ms.max(now.ms + 1));
        }
        Some((work, plan))
    }

    /// A plan has come to its end.
    pub fn ended(&mut self, work: &Work, ended: &Ended, now: Now) {
        match ended {
            Ended::Written(wrote) => {
                // More may be left to do than one plan does.
                if wrote.is_some() {
                    self.queue.add(work.clone(), Priority::Change);
                }
                self.queue.done(work, *wrote);
            }
            Ended::Refused(at) => {
                self.queue.add(work.clone(), Priority::Change);
                self.queue.done(work, Some(*at));
            }
            Ended::Failed => {
                self.queue.failed(work, now.ms);
            }
        }
    }

    /// It leads anew: nodes have the time of a heartbeat to be heard of before any pod has to leave them.
    pub fn leads(&mut self, now: Now) {
        self.since_ms = Some(now.ms);
    }

    /// When something has to be looked at anyway.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.queue.next_due_ms()
    }

    /// Keys that wait.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }
}
