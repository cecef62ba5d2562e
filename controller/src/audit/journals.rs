//! S10: a container of one pod runs on one node only, and one at a time, as the agents' journals have it.
//!
//! An agent writes a line before it starts a container and after it has seen that one has stopped, and one when its machine
//! comes up, on which then nothing runs.

use super::Finding;
use crate::types::meta::ObjectMeta;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "camelCase")]
pub enum Line {
    /// The machine has come up.
    Booted,
    /// A container is being started.
    Started {
        /// The pod's namespace, name and uid, or anything else that names its incarnation.
        pod: String,
        /// The container's name.
        container: String,
    },
    /// A container has stopped.
    Stopped {
        /// The pod's namespace, name and uid, or anything else that names its incarnation.
        pod: String,
        /// The container's name.
        container: String,
    },
}

/// A line as a file has it: whose it is, and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The node.
    pub node: String,
    /// What happened on it.
    #[serde(flatten)]
    pub line: Line,
}

/// How a journal names a pod's incarnation.
pub fn incarnation(meta: &ObjectMeta) -> String {
    format!("{}/{}/{}", meta.namespace, meta.name, meta.uid)
}

/// All journals: each node's lines in their order, nodes in any.
#[derive(Clone, Debug, Default)]
pub struct Journals {
    /// Where each pod was started first.
    nodes: BTreeMap<String, String>,
    /// What runs, by node.
    runs: BTreeMap<String, BTreeSet<(String, String)>>,
    lines: u64,
}

impl Journals {
    /// Reads a node's next line; what is wrong with it.
    pub fn line(&mut self, node: &str, line: &Line) -> Option<Finding> {
        self.lines += 1;
        let runs = self.runs.entry(node.to_owned()).or_default();
        match line {
            Line::Booted => {
                runs.clear();
                None
            }
            Line::Stopped { pod, container } => {
                runs.remove(&(pod.clone(), container.clone()));
                None
            }
            Line::Started { pod, container } => {
                let is_new = runs.insert((pod.clone(), container.clone()));
                let first = self.nodes.entry(pod.clone()).or_insert_with(|| node.to_owned());
                let wrong = if *first != node {
                    Some(format!("{container} is started on {node}, and the pod was on {first}"))
                } else {
                    (!is_new).then(|| format!("{container} is started on {node}, and runs there"))
                };
                wrong.map(|text| Finding { rule: "S10", revision: 0, key: pod.clone(), text })
            }
        }
    }

    /// Pods of which a container runs, as far as the journals say.
    pub fn runs(&self, node: &str) -> impl Iterator<Item = &str> {
        self.runs.get(node).into_iter().flatten().map(|(pod, _)| pod.as_str())
    }

    /// Lines that were read: a journal without any says nothing.
    pub fn lines(&self) -> u64 {
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(uid: &str) -> Line {
        Line::Started { pod: uid.to_owned(), container: "c".to_owned() }
    }

    fn stopped(uid: &str) -> Line {
        Line::Stopped { pod: uid.to_owned(), container: "c".to_owned() }
    }

    #[test]
    fn a_container_that_is_started_anew_is_right_and_twice_is_wrong() {
        let mut journals = Journals::default();
        for line in [started("u"), stopped("u"), started("u"), Line::Booted, started("u"), started("v")] {
            assert_eq!(journals.line("n1", &line), None);
        }
        assert_eq!(journals.runs("n1").collect::<Vec<_>>(), ["u", "v"]);
        let twice = journals.line("n1", &started("u")).expect("it runs already");
        assert_eq!((twice.rule, twice.key.as_str()), ("S10", "u"));
        journals.line("n1", &stopped("v"));
        let elsewhere = journals.line("n2", &started("v")).expect("it was elsewhere");
        assert_eq!(elsewhere.text, "c is started on n2, and the pod was on n1");
    }

    #[test]
    fn lines_are_written_as_json() {
        let text = r#"{"line":"started","pod":"u","container":"c"}"#;
        assert_eq!(serde_json::from_str::<Line>(text).expect("a line"), started("u"));
        assert_eq!(serde_json::to_string(&Line::Booted).expect("text"), r#"{"line":"booted"}"#);
        let entry = Entry { node: "n".to_owned(), line: started("u") };
        let text = serde_json::to_string(&entry).expect("text");
        assert_eq!(text, r#"{"node":"n","line":"started","pod":"u","container":"c"}"#);
        assert_eq!(serde_json::from_str::<Entry>(&text).expect("an entry"), entry);
    }
}
