//! The control plane on Mechi and on etcd: what is measured, with which sizes and goals.
//!
//! In reading order: `limits`, `plane` (processes of `mechi-control`), `pods` (how they are made), `binds` (how they are seen to be
//! bound), `scenario` (what is done), `loss` (a leader that goes), `page` (the table).

pub mod limits;
pub mod plane;
pub mod pods;
pub mod binds;
pub mod scenario;
pub mod loss;
pub mod page;

/// How much is done in each scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Fake nodes, but for the Deployment's.
    pub nodes: usize,
    /// Pods of `bound`.
    pub pods: usize,
    /// Pods of `latency`, 500 each second.
    pub paced: usize,
    /// Replicas of `deployment`.
    pub replicas: usize,
    /// Nodes of `deployment`.
    pub deployment_nodes: usize,
    /// Times that a leader goes in one round.
    pub losses: usize,
    /// Seconds of `rest`.
    pub rest_seconds: u64,
    /// Pods of `memory`.
    pub memory_pods: usize,
}

impl Scale {
    /// What the goals are about.
    pub const FULL: Self = Self {
        nodes: 5_000,
        pods: 10_000,
        paced: 10_000,
        replicas: 1_000,
        deployment_nodes: 100,
        losses: 5,
        rest_seconds: 10,
        memory_pods: 150_000,
    };

    /// As little as gives every figure.
    pub const SMOKE: Self = Self {
        nodes: 5,
        pods: 50,
        paced: 50,
        replicas: 5,
        deployment_nodes: 5,
        losses: 1,
        rest_seconds: 1,
        memory_pods: 50,
    };
}

/// Names of the scenarios, in the order in which they run.
pub const SCENARIOS: [&str; 7] = ["bound", "latency", "deployment", "killed", "stopped", "rest", "memory"];

/// A figure, and what it is to be.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name in samples, before `_MEMBERS`.
    pub name: &'static str,
    /// For people, with its unit.
    pub title: &'static str,
    /// The goal on one member and on three; `None` if it has none.
    pub goals: Option<[f64; 2]>,
    /// Whether more is better.
    pub is_more_better: bool,
    /// Whether the goal is for the worst of all samples: a p99 of fewer than a hundred of them.
    pub is_of_worst: bool,
}

const fn below(name: &'static str, title: &'static str, goal: f64) -> Figure {
    Figure { name, title, goals: Some([goal; 2]), is_more_better: false, is_of_worst: false }
}

const fn worst_below(name: &'static str, title: &'static str, goal: f64) -> Figure {
    Figure { name, title, goals: Some([goal; 2]), is_more_better: false, is_of_worst: true }
}

/// All figures in the table's order.
pub const FIGURES: [Figure; 9] = [
    Figure {
        name: "bound",
        title: "pods bound, 1/s",
        goals: Some([10_000.0, 5_000.0]),
        is_more_better: true,
        is_of_worst: false,
    },
    Figure {
        name: "bound_all",
        title: "scheduler started to all pods bound, ms",
        goals: None,
        is_more_better: false,
        is_of_worst: false,
    },
    below("latency_p50", "created to bound at 500/s, p50, ms", 10.0),
    below("latency_p99", "created to bound at 500/s, p99, ms", 50.0),
    below("deployment", "Deployment created to available, ms", 2_000.0),
    worst_below("killed", "leader killed to the next one's bind, ms", 4_000.0),
    worst_below("stopped", "leader asked to stop to the next one's bind, ms", 200.0),
    worst_below("rest", "revisions written at rest", 0.0),
    worst_below("memory", "scheduler's memory with all pods bound, MB", 100.0),
];
