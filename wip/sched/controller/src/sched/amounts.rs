//! What pods ask for and nodes have: fixed places for the usual resources, names for the rest.

use crate::types::pod::{Container, PodSpec, Resources};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Kubernetes counts a pod that asks for nothing as if it asked for this when it compares nodes: thousandths of a core.
const CPU_UNSAID: i64 = 100;

/// The same for bytes of memory.
const MEMORY_UNSAID: i64 = 200 << 20;

/// Amounts of every resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub storage: i64,
    /// Pods.
    pub pods: i64,
    /// All others, by name; most pods have none.
    pub others: Option<Arc<BTreeMap<String, i64>>>,
}

impl Amounts {
    /// Reads what a node has.
    pub fn of_node(resources: &Resources) -> Self {
        let mut amounts = Self::default();
        let mut others = BTreeMap::new();
        for (name, quantity) in resources {
            match name.as_str() {
                "cpu" => amounts.cpu = quantity.milli(),
                "memory" => amounts.memory = quantity.units(),
                "ephemeral-storage" => amounts.storage = quantity.units(),
                "pods" => amounts.pods = quantity.units(),
                other => {
                    others.insert(other.to_owned(), quantity.units());
                }
            }
        }
        amounts.others = (!others.is_empty()).then(|| Arc::new(others));
        amounts
    }

    /// Works out what a pod needs: all its containers together, or the largest of those that run before them.
    pub fn of_pod(spec: &PodSpec) -> Self {
        let of = |container: &Container| Self::of_node(&container.resources.requests);
        let together = spec.containers.iter().map(of).fold(Self::default(), |sum, one| sum.plus(&one));
        let needed = spec.init_containers.iter().map(of).fold(together, |most, one| most.or_more(&one));
        Self { pods: 1, ..needed }
    }

    /// What a pod weighs when nodes are compared, in thousandths of a core and bytes.
    pub fn weight(&self) -> (i64, i64) {
        let or = |amount, unsaid| if amount == 0 { unsaid } else { amount };
        (or(self.cpu, CPU_UNSAID), or(self.memory, MEMORY_UNSAID))
    }

    fn merge(&self, other: &Self, merge: fn(i64, i64) -> i64) -> Self {
        let others = match (&self.others, &other.others) {
            (None, None) => None,
            (one, another) => {
                let mut merged: BTreeMap<String, i64> = one.as_deref().cloned().unwrap_or_default();
                for (name, amount) in another.iter().flat_map(|another| another.iter()) {
                    let at = merged.entry(name.clone()).or_default();
                    *at = merge(*at, *amount);
                }
                Some(Arc::new(merged))
            }
        };
        Self {
            cpu: merge(self.cpu, other.cpu),
            memory: merge(self.memory, other.memory),
            storage: merge(self.storage, other.storage),
            pods: merge(self.pods, other.pods),
            others,
        }
    }

    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        self.merge(other, i64::saturating_add)
    }

    /// What is left without the other.
    pub fn minus(&self, other: &Self) -> Self {
        self.merge(other, i64::saturating_sub)
    }

    fn or_more(&self, other: &Self) -> Self {
        self.merge(other, i64::max)
    }

    /// How much there is of a resource that has no place of its own.
    pub fn other(&self, name: &str) -> i64 {
        self.others.as_ref().and_then(|others| others.get(name).copied()).unwrap_or(0)
    }

    /// What of `needed` is not here: the resources' names. Nothing needed is never missing.
    pub fn lacks(&self, needed: &Self) -> Vec<String> {
        let usual = [
            ("cpu", self.cpu, needed.cpu),
            ("memory", self.memory, needed.memory),
            ("ephemeral-storage", self.storage, needed.storage),
        ];
        let is_short = |have: i64, need: i64| need > 0 && have < need;
        let mut lacking: Vec<String> = usual
            .iter()
            .filter(|(_, have, need)| is_short(*have, *need))
            .map(|(name, ..)| (*name).to_owned())
            .collect();
        for (name, need) in needed.others.iter().flat_map(|others| others.iter()) {
            if is_short(self.other(name), *need) {
                lacking.push(name.clone());
            }
        }
        lacking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::quantity::Quantity;

    fn container(cpu: &str, gpus: i64) -> Container {
        let mut container = Container::default();
        let requests = &mut container.resources.requests;
        requests.insert("cpu".to_owned(), cpu.parse().expect("an amount"));
        if gpus > 0 {
            requests.insert("example.com/gpu".to_owned(), Quantity::whole(gpus));
        }
        container
    }

    #[test]
    fn a_pod_needs_what_its_containers_need_at_once() {
        let spec = PodSpec {
            init_containers: vec![container("3", 0), container("1", 1)],
            containers: vec![container("500m", 1), container("1", 1)],
            ..Default::default()
        };
        let needed = Amounts::of_pod(&spec);
        assert_eq!((needed.cpu, needed.other("example.com/gpu"), needed.pods), (3_000, 2, 1));
        let node = Amounts { cpu: 2_000, pods: 5, ..Amounts::default() };
        assert_eq!(node.lacks(&needed), ["cpu", "example.com/gpu"]);
        assert_eq!(needed.plus(&needed).minus(&needed), needed);
        assert!(Amounts::default().lacks(&Amounts { pods: 1, ..Amounts::default() }).is_empty());
    }
}
