//! Which nodes a pod may be on at all, whatever room they have: readiness, taints, selectors, affinity.

use crate::types::node::{Node, Taint};
use crate::types::pod::PodSpec;
use serde::Serialize;

/// What keeps a pod from a node, in the order in which it is looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The node takes nothing new.
    Unschedulable,
    /// A taint that the pod does not tolerate: key and value.
    Taint(String, String),
    /// Labels.
    Affinity,
    /// A port of the node that another pod has.
    Ports,
    /// There are as many pods as may be.
    TooManyPods,
    /// Too little of a resource.
    Insufficient(String),
}

impl Reason {
    /// Which kinds of change can help against it.
    pub fn bit(&self) -> u8 {
        match self {
            Self::Unschedulable | Self::Taint(..) | Self::Affinity => NODE,
            Self::Ports | Self::TooManyPods | Self::Insufficient(_) => ROOM,
        }
    }
}

/// What helps is a change of a node itself.
pub const NODE: u8 = 1;

/// What helps is more room: a pod that is gone, or a node that has more.
pub const ROOM: u8 = 2;

/// Kubernetes' words.
impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::Taint(key, value) => write!(f, "node(s) had untolerated taint {{{key}: {value}}}"),
            Self::Affinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::Ports => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Self::TooManyPods => f.write_str("Too many pods"),
            Self::Insufficient(name) => write!(f, "Insufficient {name}"),
        }
    }
}

/// The taint of a node that takes nothing new, which pods may tolerate.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Everything of a pod that [`keeps_out`] looks at, as a key: pods of the same make share the answers.
pub fn signature(spec: &PodSpec) -> Vec<u8> {
    #[derive(Serialize)]
    struct Looked<'a>(
        &'a std::collections::BTreeMap<String, String>,
        &'a Option<crate::types::pod::Affinity>,
        &'a [crate::types::pod::Toleration],
    );
    serde_json::to_vec(&Looked(&spec.node_selector, &spec.affinity, &spec.tolerations)).expect("text as keys")
}

/// What keeps a pod from a node, but for room; `None` if nothing does.
pub fn keeps_out(spec: &PodSpec, node: &Node) -> Option<Reason> {
    let tolerates = |taint: &Taint| spec.tolerations.iter().any(|toleration| toleration.tolerates(taint));
    let cordon = Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    if node.spec.unschedulable && !tolerates(&cordon) {
        return Some(Reason::Unschedulable);
    }
    let repels = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    if let Some(taint) = node.spec.taints.iter().filter(repels).find(|taint| !tolerates(taint)) {
        return Some(Reason::Taint(taint.key.clone(), taint.value.clone()));
    }
    if node.metadata.is_going() {
        return Some(Reason::Unschedulable);
    }
    (!matches_labels(spec, node)).then_some(Reason::Affinity)
}

fn matches_labels(spec: &PodSpec, node: &Node) -> bool {
    let labels = &node.metadata.labels;
    let selected = spec.node_selector.iter().all(|(name, value)| labels.get(name) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    selected
        && required.is_none_or(|required| {
            // A term without requirements matches nothing, as in Kubernetes.
            required.node_selector_terms.iter().any(|term| {
                !term.match_expressions.is_empty() && term.match_expressions.iter().all(|one| one.matches(labels))
            })
        })
}

/// Kubernetes' sentence for a pod that fits nowhere: how many nodes each reason kept it from.
pub fn sentence(nodes: usize, reasons: &std::collections::BTreeMap<Reason, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut told: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    told.sort();
    format!("0/{nodes} nodes are available: {}.", told.join(", "))
}

/// What Kubernetes adds to [`sentence`] if nobody's going would help a pod: what each node lacks all the same.
pub(super) fn unhelpful(nodes: usize, lacks: &std::collections::BTreeMap<String, usize>) -> String {
    let mut told: Vec<String> = lacks.iter().map(|(what, count)| format!("{count} {what}")).collect();
    told.sort();
    format!(" preemption: 0/{nodes} nodes are available: {}.", told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(value: serde_json::Value) -> Node {
        serde_json::from_value(value).expect("a node")
    }

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).expect("a spec")
    }

    #[test]
    fn what_keeps_a_pod_out_is_named_as_kubernetes_names_it() {
        let plain = node(json!({"metadata": {"labels": {"zone": "a", "disk": "ssd"}}}));
        let cordoned = node(json!({"spec": {"unschedulable": true}}));
        let tainted = node(json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}));
        let soft = node(json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "PreferNoSchedule"}]}}));
        let any = spec(json!({}));
        assert_eq!(keeps_out(&any, &plain), None);
        assert_eq!(keeps_out(&any, &soft), None);
        assert_eq!(keeps_out(&any, &cordoned), Some(Reason::Unschedulable));
        let taint = keeps_out(&any, &tainted).expect("a taint");
        assert_eq!(taint.to_string(), "node(s) had untolerated taint {k: v}");
        let tolerant = spec(json!({"tolerations": [{"operator": "Exists"}]}));
        assert_eq!((keeps_out(&tolerant, &tainted), keeps_out(&tolerant, &cordoned)), (None, None));

        let selects = |value| keeps_out(&spec(value), &plain);
        assert_eq!(selects(json!({"nodeSelector": {"zone": "a"}})), None);
        assert_eq!(selects(json!({"nodeSelector": {"zone": "b"}})), Some(Reason::Affinity));
        let affinity = |terms: serde_json::Value| {
            selects(
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}),
            )
        };
        let term = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]});
        assert_eq!(affinity(json!([term("In", &["b"]), term("In", &["a"])])), None);
        assert_eq!(affinity(json!([term("NotIn", &["a"])])), Some(Reason::Affinity));
        assert_eq!(affinity(json!([{}])), Some(Reason::Affinity));
        assert_ne!(signature(&any), signature(&tolerant));
    }

    #[test]
    fn the_sentence_is_kubernetes_own() {
        let taint = Reason::Taint("k".to_owned(), "v".to_owned());
        let reasons = [(Reason::Insufficient("cpu".to_owned()), 2), (taint, 3)].into();
        assert_eq!(
            sentence(5, &reasons),
            "0/5 nodes are available: 2 Insufficient cpu, 3 node(s) had untolerated taint {k: v}."
        );
        assert_eq!(sentence(0, &Default::default()), "no nodes available to schedule pods");
        let lacks =
            [("No preemption victims found for incoming pod".to_owned(), 2), ("Insufficient cpu".to_owned(), 1)];
        assert_eq!(
            unhelpful(3, &lacks.into()),
            " preemption: 0/3 nodes are available: 1 Insufficient cpu, 2 No preemption victims found for incoming pod."
        );
    }
}
