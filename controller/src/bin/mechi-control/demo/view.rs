//! What the demonstration shows: a few lines that change in place on a terminal, and lines one after the other elsewhere.

use mechi_controller::cache::{Cache, Mirror as _};
use mechi_controller::keys;
use mechi_controller::types::node::Node;
use mechi_controller::types::pod::Pod;
use mechi_controller::types::workload::Deployment;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Width of a bar in characters.
const BAR: usize = 40;

/// The least time between two pictures.
const PAUSE: Duration = Duration::from_millis(100);

/// The least time between two lines.
const LINE_PAUSE: Duration = Duration::from_millis(250);

/// How far everything is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) nodes_ready: usize,
    pub(super) nodes: usize,
    pub(super) created: usize,
    pub(super) bound: usize,
    pub(super) running: usize,
    pub(super) ready: usize,
    /// As the Deployment itself says.
    pub(super) available: usize,
    pub(super) scheduler: String,
    pub(super) controllers: String,
}

impl Counts {
    pub(super) fn of(cache: &Cache, namespace: &str, name: &str) -> Self {
        let mut counts = Self::default();
        for node in cache.all::<Node>() {
            counts.nodes += 1;
            counts.nodes_ready += usize::from(node.is_ready());
        }
        for pod in cache.within::<Pod>(namespace).filter(|pod| pod.is_active()) {
            counts.created += 1;
            counts.bound += usize::from(!pod.spec.node_name.is_empty());
            counts.running += usize::from(pod.status.phase == "Running");
            counts.ready += usize::from(pod.is_ready());
        }
        let deployment = cache.get::<Deployment>(namespace, name);
        counts.available = deployment.map_or(0, |deployment| deployment.status.available_replicas.max(0) as usize);
        let leader = |component: &str| {
            let held = cache.coord(&keys::election(component));
            held.map_or_else(|| "nobody".to_owned(), |held| String::from_utf8_lossy(&held.value).into_owned())
        };
        (counts.scheduler, counts.controllers) = (leader("scheduler"), leader("controllers"));
        counts
    }
}

/// Shows them.
pub(super) struct View {
    begun: Instant,
    is_terminal: bool,
    wanted: usize,
    shown: Option<(Instant, Counts)>,
    lines: usize,
}

impl View {
    pub(super) fn new(wanted: usize) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        Self { begun: Instant::now(), is_terminal, wanted, shown: None, lines: 0 }
    }

    /// A line of its own.
    pub(super) fn say(&mut self, text: &str) {
        // Whoever does not look any more misses it.
        let _ = writeln!(std::io::stdout(), "{text}");
        self.lines = 0;
    }

    /// Shows how far everything is, unless it did so a moment ago and is not asked to anyway.
    pub(super) fn show(&mut self, cache: &Cache, counts: &Counts, always: bool) {
        let pause = if self.is_terminal { PAUSE } else { LINE_PAUSE };
        let is_shown = |(at, shown): &(Instant, Counts)| shown == counts || at.elapsed() < pause && !always;
        if self.shown.as_ref().is_some_and(is_shown) {
            return;
        }
        self.shown = Some((Instant::now(), counts.clone()));
        let seconds = self.begun.elapsed().as_secs_f64();
        if !self.is_terminal {
            let Counts { nodes_ready, nodes, created, bound, running, ready, available, .. } = counts;
            let text = format!(
                "{seconds:6.1} s  nodes {nodes_ready}/{nodes}  pods: created {created}  bound {bound}  running {running}  ready {ready}  available {available}/{}",
                self.wanted
            );
            return self.say(&text);
        }
        let bars = [
            ("created", counts.created),
            ("bound", counts.bound),
            ("running", counts.running),
            ("ready", counts.ready),
            ("available", counts.available),
        ];
        let mut text = format!(
            "{seconds:.1} s, revision {}\nscheduler   {} leads\ncontrollers {} leads\nnodes       {} of {} ready\n",
            cache.at(),
            counts.scheduler,
            counts.controllers,
            counts.nodes_ready,
            counts.nodes
        );
        for (name, count) in bars {
            let full = (count * BAR).checked_div(self.wanted).unwrap_or(BAR).min(BAR);
            text.push_str(&format!("{name:<11} {}{} {count}\n", "█".repeat(full), "░".repeat(BAR - full)));
        }
        let up = if self.lines > 0 { format!("\x1b[{}A", self.lines) } else { String::new() };
        self.lines = text.lines().count();
        let text = text.replace('\n', "\x1b[K\n");
        let mut stdout = std::io::stdout();
        let _ = write!(stdout, "{up}{text}").and_then(|()| stdout.flush());
    }
}
