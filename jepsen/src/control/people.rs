//! People: they make Deployments, scale them, roll out, pause and delete them, delete pods and nodes, and cordon nodes.
//!
//! Each has Deployments of its own, so that what was promised to it last is what must be there in the end. An order to which
//! no answer came is neither: it is given again before anything is concluded.

use super::plane::NODE_CPU;
use super::record::Record;
use crate::limits::{
    CORDONED_PER_PERSON_MAX, DEPLOYMENTS_PER_PERSON_MAX, NODES_PER_DELETION, NODES_PER_URGENT, ORDER_MAX, REPLICAS_MAX,
    URGENT_PEOPLE_MAX,
};
use anyhow::{Context, Result, ensure};
use mechi_controller::api::change::{Deletion, Half};
use mechi_controller::api::status::Status;
use mechi_controller::api::{Api, read};
use mechi_controller::kv::Etcd;
use mechi_controller::types::node::{Namespace, Node};
use mechi_controller::types::pod::Pod;
use mechi_controller::types::time::Time;
use mechi_controller::types::workload::Deployment;
use mechi_tests::rng::Rng;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Where everything is.
pub(super) const NAMESPACE: &str = "default";

/// A Deployment that fits on no node: its pods wait, and must say why.
pub(super) const GIANT: &str = "giant";

/// Its pods.
const GIANT_REPLICAS: i32 = 2;

/// How the name of a Deployment ends whose pods want whole nodes, and are more urgent than all others: those have to go.
const URGENT: &str = "-urgent";

/// Their priority.
const URGENT_PRIORITY: i32 = 1_000;

/// Between two orders of one person, in milliseconds.
const PAUSE_MS: Range<u64> = 100..600;

/// Between two tries of an order that must be taken in the end.
const AGAIN: Duration = Duration::from_millis(200);

/// What somebody wants of a Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// How many pods.
    pub(super) replicas: i32,
    /// Which make of them.
    pub(super) make: u64,
    /// Whether nothing is rolled out.
    pub(super) is_paused: bool,
}

/// What was ordered last of a Deployment, and whether that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ordered {
    /// `None` if it is to be gone.
    pub(super) wish: Option<Wish>,
    /// Whether it was.
    pub(super) is_sure: bool,
}

/// What became of orders, over all people.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) done: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unknown: AtomicU64,
    nodes_deleted: AtomicU64,
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    NotFound,
    AlreadyExists,
    /// Refused otherwise: nothing was changed.
    Refused,
    /// It may have been done, or not.
    Unknown,
}

/// One of them.
pub(super) struct Person {
    number: usize,
    api: Api<Etcd>,
    record: Arc<Record>,
    counts: Arc<Counts>,
    rng: Rng,
    nodes: u64,
    ordered: BTreeMap<String, Ordered>,
    cordoned: BTreeSet<String>,
    /// Deployments that were there for certain, and were not found.
    lost: Vec<String>,
}

/// The wall clock's time.
pub(super) fn today() -> Time {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Time(i64::try_from(seconds).unwrap_or(0))
}

/// Makes the room for all, and what fits nowhere.
///
/// - Errors: the store does not take it.
pub(super) async fn begin(api: &Api<Etcd>) -> Result<()> {
    let namespace = json!({"metadata": {"name": NAMESPACE}}).to_string();
    let namespace: Namespace = read(namespace.as_bytes(), true)?;
    api.create(namespace, today()).await.context("make the namespace")?;
    let wish = Wish { replicas: GIANT_REPLICAS, make: 1, is_paused: false };
    let giant = deployment(GIANT, &wish, "1000", 0, "RollingUpdate")?;
    api.create(giant, today()).await.context("make the Deployment that fits nowhere")?;
    Ok(())
}

fn image(make: u64) -> String {
    format!("app:{make}")
}

fn deployment(name: &str, wish: &Wish, cpu: &str, priority: i32, strategy: &str) -> Result<Deployment, Status> {
    let text = json!({
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": wish.replicas,
            "paused": wish.is_paused,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": strategy},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"priority": priority, "containers": [{
                    "name": "app",
                    "image": image(wish.make),
                    "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}},
                }]},
            },
        },
    });
    read(text.to_string().as_bytes(), true)
}

impl Wish {
    /// Writes it into a Deployment.
    fn write(&self, deployment: &mut Deployment) {
        deployment.spec.replicas = Some(self.replicas);
        deployment.spec.paused = self.is_paused;
        for container in &mut deployment.spec.template.spec.containers {
            container.image = image(self.make);
        }
    }

    /// Reads it off one; `None` if nobody here wrote it.
    pub(super) fn of(deployment: &Deployment) -> Option<Self> {
        let container = deployment.spec.template.spec.containers.first()?;
        let make = container.image.strip_prefix("app:")?.parse().ok()?;
        Some(Self { replicas: deployment.wanted(), make, is_paused: deployment.spec.paused })
    }
}

impl Person {
    /// One that has done nothing yet; `nodes` is how many fake nodes there are.
    pub(super) fn new(
        number: usize,
        api: Api<Etcd>,
        record: &Arc<Record>,
        counts: &Arc<Counts>,
        nodes: u32,
        seed: u64,
    ) -> Self {
        let rng = Rng::new(seed ^ (number as u64 + 1) << 24);
        let (record, counts, nodes) = (record.clone(), counts.clone(), u64::from(nodes));
        let (ordered, cordoned, lost) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        Self { number, api, record, counts, rng, nodes, ordered, cordoned, lost }
    }

    /// Gives orders until it is told to stop.
    pub(super) async fn run(mut self, stop: watch::Receiver<bool>) -> Self {
        while !*stop.borrow() {
            self.act().await;
            sleep(Duration::from_millis(PAUSE_MS.start + self.rng.below(PAUSE_MS.end - PAUSE_MS.start))).await;
        }
        self
    }

    /// What it ordered, by the Deployment's name.
    pub(super) fn ordered(&self) -> &BTreeMap<String, Ordered> {
        &self.ordered
    }

    /// Deployments that were acknowledged, and gone when it came back to them.
    pub(super) fn lost(&self) -> &[String] {
        &self.lost
    }

    async fn act(&mut self) {
        match self.rng.below(100) {
            0..15 => self.make().await,
            15..40 => self.change(|rng, wish, most| wish.replicas = rng.below(most + 1) as i32).await,
            40..55 => self.change(|_, wish, _| wish.make += 1).await,
            55..63 => self.change(|_, wish, _| wish.is_paused = !wish.is_paused).await,
            63..70 => self.delete().await,
            70..88 => self.delete_pod().await,
            88..97 => self.cordon().await,
            _ => self.delete_node().await,
        }
    }

    /// Waits for an answer, and counts it.
    async fn answer<T>(&self, asked: impl Future<Output = Result<T, Status>>) -> Answer {
        let (answer, count) = match timeout(ORDER_MAX, asked).await {
            Ok(Ok(_)) => (Answer::Done, &self.counts.done),
            Ok(Err(status)) if status.code < 500 => {
                let answer = match status.reason {
                    "NotFound" => Answer::NotFound,
                    "AlreadyExists" => Answer::AlreadyExists,
                    _ => Answer::Refused,
                };
                (answer, &self.counts.refused)
            }
            _ => (Answer::Unknown, &self.counts.unknown),
        };
        count.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Orders that a Deployment be so, or be gone, whatever it is now, and remembers it.
    async fn order(&mut self, name: &str, mut wish: Option<Wish>) -> Answer {
        // What was sent before and not answered may still come: it must find something else than it was worked out from.
        let before = self.ordered.get(name);
        let is_clear = before.is_none_or(|before| before.is_sure);
        let is_there = before.is_some_and(|before| before.is_sure && before.wish.is_some());
        if let Some(wish) = wish.as_mut().filter(|_| !is_clear) {
            wish.make += 1;
        }
        let mut answer = match &wish {
            Some(wish) => self.set(name, wish).await,
            None => self.remove(name).await,
        };
        if let (Answer::NotFound, Some(wish)) = (answer, &wish) {
            if is_there {
                self.lost.push(name.to_owned());
            }
            answer = self.create(name, wish).await;
        }
        let is_sure = answer == Answer::Done && (is_clear || wish.is_some());
        self.ordered.insert(name.to_owned(), Ordered { wish, is_sure });
        answer
    }

    async fn set(&self, name: &str, wish: &Wish) -> Answer {
        let change = |new: &mut Deployment| {
            wish.write(new);
            Ok(())
        };
        self.answer(self.api.modify(NAMESPACE, name, Half::Wanted, change)).await
    }

    async fn create(&self, name: &str, wish: &Wish) -> Answer {
        // One in three stops all old pods before the first new one.
        let strategy = if name.ends_with('0') { "Recreate" } else { "RollingUpdate" };
        let (cpu, priority) = if name.ends_with(URGENT) { (NODE_CPU, URGENT_PRIORITY) } else { ("100m", 0) };
        match deployment(name, wish, cpu, priority, strategy) {
            Ok(new) => self.answer(self.api.create(new, today())).await,
            Err(_) => Answer::Refused,
        }
    }

    async fn remove(&self, name: &str) -> Answer {
        let how = Deletion::default();
        match self.answer(self.api.delete::<Deployment>(NAMESPACE, name, &how, today())).await {
            Answer::NotFound => Answer::Done,
            answer => answer,
        }
    }

    async fn make(&mut self) {
        let urgent = (self.number < URGENT_PEOPLE_MAX).then(|| format!("p{}{URGENT}", self.number));
        let mut names = (0..DEPLOYMENTS_PER_PERSON_MAX).map(|n| format!("p{}-{n}", self.number)).chain(urgent);
        let free = |name: &String| self.ordered.get(name).is_none_or(|ordered| ordered.wish.is_none());
        let Some(name) = names.find(free) else { return };
        let replicas = self.rng.below(self.most(&name) + 1) as i32;
        let wish = Wish { replicas, make: 1, is_paused: false };
        self.order(&name, Some(wish)).await;
    }

    /// How many pods it may want of a Deployment, so that in the end all fit.
    fn most(&self, name: &str) -> u64 {
        if name.ends_with(URGENT) { (self.nodes / NODES_PER_URGENT).max(1) } else { REPLICAS_MAX }
    }

    /// One of its Deployments, and what it wants of it.
    fn any(&mut self) -> Option<(String, Wish)> {
        let own = self.ordered.iter().filter_map(|(name, ordered)| Some((name.clone(), ordered.wish.clone()?)));
        let own: Vec<(String, Wish)> = own.collect();
        if own.is_empty() { None } else { Some(self.rng.pick(&own).clone()) }
    }

    async fn change(&mut self, change: impl FnOnce(&mut Rng, &mut Wish, u64)) {
        let Some((name, mut wish)) = self.any() else { return };
        let most = self.most(&name);
        change(&mut self.rng, &mut wish, most);
        self.order(&name, Some(wish)).await;
    }

    async fn delete(&mut self) {
        if let Some((name, _)) = self.any() {
            self.order(&name, None).await;
        }
    }

    async fn delete_pod(&mut self) {
        let pods: Vec<String> = self.record.with(|cache| {
            let own = cache.within::<Pod>(NAMESPACE).filter(|pod| pod.is_active());
            own.map(|pod| pod.metadata.name.clone()).collect()
        });
        if pods.is_empty() {
            return;
        }
        let name = self.rng.pick(&pods).clone();
        let how = Deletion::default();
        self.answer(self.api.delete::<Pod>(NAMESPACE, &name, &how, today())).await;
    }

    fn any_node(&mut self) -> String {
        format!("node-{}", self.rng.below(self.nodes))
    }

    async fn set_cordoned(&self, name: &str, is_cordoned: bool) -> Answer {
        let change = |node: &mut Node| {
            node.spec.unschedulable = is_cordoned;
            Ok(())
        };
        self.answer(self.api.modify("", name, Half::Wanted, change)).await
    }

    async fn cordon(&mut self) {
        if self.cordoned.len() < CORDONED_PER_PERSON_MAX {
            let name = self.any_node();
            // Whatever comes of it, it is undone in the end.
            self.cordoned.insert(name.clone());
            self.set_cordoned(&name, true).await;
        } else if let Some(name) = self.cordoned.first().cloned()
            && matches!(self.set_cordoned(&name, false).await, Answer::Done | Answer::NotFound)
        {
            self.cordoned.remove(&name);
        }
    }

    async fn delete_node(&mut self) {
        let most = self.nodes / NODES_PER_DELETION;
        if self.counts.nodes_deleted.fetch_add(1, Ordering::Relaxed) >= most {
            return;
        }
        let name = self.any_node();
        let how = Deletion::default();
        self.answer(self.api.delete::<Node>("", &name, &how, today())).await;
    }

    /// Its last word, once all faults are over: nothing is cordoned or paused, and whatever was not acknowledged is.
    ///
    /// - Errors: an order is not taken until `deadline`.
    pub(super) async fn settle(&mut self, deadline: Instant) -> Result<()> {
        for name in std::mem::take(&mut self.cordoned) {
            loop {
                match self.set_cordoned(&name, false).await {
                    Answer::Done | Answer::NotFound => break,
                    other => ensure!(Instant::now() < deadline, "{name} stays cordoned: {other:?}"),
                }
                sleep(AGAIN).await;
            }
        }
        for (name, Ordered { wish, .. }) in self.ordered.clone() {
            let wish = wish.map(|wish| Wish { is_paused: false, ..wish });
            loop {
                match self.order(&name, wish.clone()).await {
                    Answer::Done => break,
                    other => ensure!(Instant::now() < deadline, "the last order about {name} is not taken: {other:?}"),
                }
                sleep(AGAIN).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_off_what_it_was_written_into() {
        let wish = Wish { replicas: 3, make: 7, is_paused: true };
        let first = Wish { replicas: 1, make: 1, is_paused: false };
        let mut deployment = deployment("p0-1", &first, "100m", 0, "Recreate").expect("a Deployment");
        assert_eq!(Wish::of(&deployment), Some(first));
        wish.write(&mut deployment);
        assert_eq!(Wish::of(&deployment), Some(wish));
    }
}
