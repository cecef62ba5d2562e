//! What a fleet's containers do, as an agent of a real node writes it down: a line before one is started, and one after it has
//! stopped.

use crate::audit::journals::{Entry, Line, incarnation};
use crate::keys::ObjectKey;
use crate::kv::Revision;
use crate::types::pod::Pod;
use crate::types::resource::Held;
use std::collections::BTreeMap;

/// A pod whose containers run.
#[derive(Clone, Debug)]
struct Running {
    created: Revision,
    node: String,
    /// Its namespace, name and uid.
    pod: String,
    containers: Vec<String>,
}

/// What runs, and the lines that nobody has taken yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    runs: BTreeMap<ObjectKey, Running>,
    entries: Vec<Entry>,
}

impl Journal {
    /// These nodes come up: nothing runs on them.
    pub(super) fn booted<'a>(&mut self, nodes: impl Iterator<Item = &'a String>) {
        self.entries.extend(nodes.map(|node| Entry { node: node.clone(), line: Line::Booted }));
    }

    /// The containers of a pod are about to run; does nothing if they do.
    pub(super) fn starts(&mut self, key: &ObjectKey, pod: &Held<Pod>) {
        match self.runs.get(key) {
            Some(running) if running.created == pod.created => return,
            // One of the same name, which was gone before anybody saw it go.
            Some(_) => self.stopped(key),
            None => {}
        }
        let running = Running {
            created: pod.created,
            node: pod.spec.node_name.clone(),
            pod: incarnation(&pod.metadata),
            containers: pod.spec.containers.iter().map(|container| container.name.clone()).collect(),
        };
        let started = |container: &String| Entry {
            node: running.node.clone(),
            line: Line::Started { pod: running.pod.clone(), container: container.clone() },
        };
        self.entries.extend(running.containers.iter().map(started));
        self.runs.insert(key.clone(), running);
    }

    /// The containers of a pod have stopped; does nothing if they did not run.
    pub(super) fn stopped(&mut self, key: &ObjectKey) {
        let Some(Running { node, pod, containers, .. }) = self.runs.remove(key) else { return };
        let stopped = |container| Entry { node: node.clone(), line: Line::Stopped { pod: pod.clone(), container } };
        self.entries.extend(containers.into_iter().map(stopped));
    }

    /// The lines since it was last asked.
    pub(super) fn take(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }
}
