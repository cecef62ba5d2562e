//! The harm: to the store's members and their links, to the control plane's processes and theirs, and what an operator does.
//!
//! Two lanes at a time, as in [`crate::nemesis`]: what is done to processes in one, what is done to links and history in the
//! other, so that no two undo each other.

use super::plane::{COMPONENTS, Plane};
use super::record::Record;
use super::trace::Trace;
use crate::cluster::Cluster;
use crate::nemesis::{draw_cut, move_leader, sample};
use anyhow::Result;
use mechi_client::Client;
use mechi_controller::keys;
use mechi_tests::rng::Rng;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Time between two compactions of a storm.
const STORM_PAUSE: Duration = Duration::from_millis(200);

/// Everything that is done; in the order of a report.
pub(super) const KINDS: [&str; 8] = [
    "kill-store",
    "kill-control",
    "pause-store",
    "pause-control",
    "partition",
    "cut-control",
    "compact",
    "move-leader",
];

/// What harm is done to, and with.
pub(super) struct Harm<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) plane: &'a Plane,
    pub(super) record: &'a Record,
    pub(super) trace: &'a Trace,
    /// A client of the store past all proxies.
    pub(super) operator: &'a Client,
}

/// What is killed or paused: members of the store, or processes of the control plane.
#[derive(Clone, Copy, Debug)]
enum Side {
    Store,
    Control,
}

/// What is done to them.
#[derive(Clone, Copy, Debug)]
enum How {
    Kill,
    Pause,
}

impl How {
    /// One of [`KINDS`].
    fn kind(self, side: Side) -> &'static str {
        match (self, side) {
            (Self::Kill, Side::Store) => "kill-store",
            (Self::Kill, Side::Control) => "kill-control",
            (Self::Pause, Side::Store) => "pause-store",
            (Self::Pause, Side::Control) => "pause-control",
        }
    }

    /// What is seen of it.
    fn outcome(self) -> &'static str {
        match self {
            Self::Kill => "is down",
            Self::Pause => "stands still",
        }
    }
}

impl Harm<'_> {
    /// Returns whether there was anything to kill, or to pause.
    fn stop(&self, side: Side, how: How, n: usize) -> Result<bool> {
        match (how, side) {
            (How::Kill, Side::Store) => self.cluster.kill(n),
            (How::Kill, Side::Control) => self.plane.kill(n),
            (How::Pause, Side::Store) => self.cluster.freeze(n),
            (How::Pause, Side::Control) => self.plane.freeze(n),
        }
    }

    fn bring_back(&self, side: Side, how: How, n: usize) -> Result<()> {
        match (how, side) {
            (How::Kill, Side::Store) => self.cluster.spawn(n),
            (How::Kill, Side::Control) => self.plane.spawn(n),
            (How::Pause, Side::Store) => self.cluster.thaw(n),
            (How::Pause, Side::Control) => self.plane.thaw(n),
        }
    }
}

/// Does harm in both lanes until `end`.
///
/// - Errors: a process could not be handled; what was harmed may still be so.
pub(super) async fn run(harm: &Harm<'_>, seed: u64, end: Instant) -> Result<()> {
    let lane = |number: u64| Lane { harm, rng: Rng::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)), end };
    let (mut processes, mut links) = (lane(1), lane(2));
    let processes = async {
        while !processes.is_over() {
            match processes.rng.below(4) {
                0 => {
                    let who = processes.members().await;
                    processes.take_away(Side::Store, How::Kill, &who, 100..3_000).await?;
                }
                1 => {
                    let who = processes.processes();
                    processes.take_away(Side::Control, How::Kill, &who, 0..4_000).await?;
                }
                2 => {
                    let who = processes.members().await;
                    processes.take_away(Side::Store, How::Pause, &who, 200..5_000).await?;
                }
                _ => {
                    let who = processes.processes();
                    // Longer than an election's lease lives, more often than not: whoever wakes up believes that it leads.
                    processes.take_away(Side::Control, How::Pause, &who, 500..8_000).await?;
                }
            }
            processes.hold(300..2_000).await;
        }
        anyhow::Ok(())
    };
    let links = async {
        while !links.is_over() {
            match links.rng.below(4) {
                0 => links.partition().await,
                1 => links.cut_control().await,
                2 => links.compact().await,
                _ => links.move_leader().await,
            }
            links.hold(300..2_000).await;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(processes, links).map(|_| ())
}

/// One after the other.
struct Lane<'a> {
    harm: &'a Harm<'a>,
    rng: Rng,
    end: Instant,
}

impl Lane<'_> {
    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Waits so many milliseconds, but not beyond the end.
    async fn hold(&mut self, milliseconds: Range<u64>) {
        let wait = milliseconds.start + self.rng.below(milliseconds.end.saturating_sub(milliseconds.start));
        let until = (Instant::now() + Duration::from_millis(wait)).min(self.end);
        tokio::time::sleep_until(until.into()).await;
    }

    /// The leader more often than not, else any member, seldom all.
    async fn members(&mut self) -> Vec<usize> {
        let count = self.harm.cluster.len();
        let any = self.rng.below(count as u64) as usize;
        match self.rng.below(10) {
            0..6 => vec![self.harm.cluster.leader().await.unwrap_or(any)],
            6..9 => vec![any],
            _ => (0..count).collect(),
        }
    }

    /// A replica that leads more often than not, else any, seldom both of a component, seldom the fake nodes.
    fn processes(&mut self) -> Vec<usize> {
        let plane = self.harm.plane;
        let component = *self.rng.pick(&COMPONENTS);
        let of = |name: &str| (0..plane.len()).filter(|n| plane.name(*n).starts_with(name)).collect::<Vec<usize>>();
        let leader = self.harm.record.with(|cache| {
            let held = cache.coord(&keys::election(component))?;
            Some(String::from_utf8_lossy(&held.value).into_owned())
        });
        let any = self.rng.below(plane.nodes() as u64) as usize;
        match self.rng.below(10) {
            0..6 => vec![leader.and_then(|name| plane.of_name(&name)).unwrap_or(any)],
            6..8 => vec![any],
            8 => of(component),
            _ => vec![plane.nodes()],
        }
    }

    fn member_names(&self, who: &[usize]) -> String {
        who.iter().map(|n| self.harm.cluster.name(*n)).collect::<Vec<_>>().join(", ")
    }

    fn process_names(&self, who: &[usize]) -> String {
        who.iter().map(|n| self.harm.plane.name(*n)).collect::<Vec<_>>().join(", ")
    }

    /// Ends some, or lets them stand still, for a while.
    async fn take_away(&mut self, side: Side, how: How, who: &[usize], milliseconds: Range<u64>) -> Result<()> {
        let (kind, harm) = (how.kind(side), self.harm);
        let name = |n: usize| match side {
            Side::Store => harm.cluster.name(n).to_owned(),
            Side::Control => harm.plane.name(n),
        };
        harm.trace.fault(kind, &who.iter().map(|n| name(*n)).collect::<Vec<_>>().join(", "));
        for n in who {
            if harm.stop(side, how, *n)? {
                harm.trace.effect(kind, &format!("{} {}", name(*n), how.outcome()));
            }
        }
        self.hold(milliseconds).await;
        who.iter().try_for_each(|n| harm.bring_back(side, how, *n))
    }

    /// Cuts links between members, in any shape; in one of them, links between members and everybody else.
    async fn partition(&mut self) {
        let (kind, cluster, plane) = ("partition", self.harm.cluster, self.harm.plane);
        let leader = cluster.leader().await;
        let cut = draw_cut(&mut self.rng, cluster.len(), leader);
        self.harm.trace.fault(kind, &format!("{}: {:?}, clients of {:?}", cut.shape, cut.links, cut.clients));
        let held = || cluster.touched() + (0..plane.len()).map(|n| plane.touched(n)).sum::<u64>();
        let before = held();
        for (from, to) in &cut.links {
            cluster.way(*from, *to, |way| way.is_cut = true);
        }
        cut.clients.iter().for_each(|n| cluster.client_way(*n, |way| way.is_cut = true));
        (0..plane.len()).for_each(|n| plane.cut(n, &cut.clients, true));
        self.hold(500..6_000).await;
        cluster.heal_network();
        (0..plane.len()).for_each(|n| plane.cut(n, &cut.clients, false));
        if held() > before {
            self.harm.trace.effect(kind, "what was sent was held up");
        }
    }

    /// Cuts a process of the control plane off from all members, or from some.
    async fn cut_control(&mut self) {
        let (kind, plane, count) = ("cut-control", self.harm.plane, self.harm.cluster.len());
        let who = self.processes();
        let size = if self.rng.chance(70) { count } else { 1 + self.rng.below(count as u64) as usize };
        let members = sample(&mut self.rng, count, size);
        let about = format!("{} from {}", self.process_names(&who), self.member_names(&members));
        self.harm.trace.fault(kind, &about);
        let held = || who.iter().map(|n| plane.touched(*n)).sum::<u64>();
        let before = held();
        who.iter().for_each(|n| plane.cut(*n, &members, true));
        self.hold(500..8_000).await;
        who.iter().for_each(|n| plane.cut(*n, &members, false));
        if held() > before {
            self.harm.trace.effect(kind, "what was sent was held up");
        }
    }

    /// Compacts everything that the recorder has seen, again and again.
    async fn compact(&mut self) {
        let kind = "compact";
        let storm = 5 + self.rng.below(20);
        self.harm.trace.fault(kind, &format!("{storm} times"));
        let mut last = 0;
        for _ in 0..storm {
            if self.is_over() {
                break;
            }
            let revision = self.harm.record.through();
            // An answer that does not come is no effect; the recorder is ahead of it in any case.
            if revision > last && self.harm.operator.compact(revision).await.is_ok() {
                last = revision;
            }
            tokio::time::sleep(STORM_PAUSE).await;
        }
        if last > 0 {
            self.harm.trace.effect(kind, &format!("history begins at {last}"));
        }
    }

    async fn move_leader(&mut self) {
        let (kind, cluster) = ("move-leader", self.harm.cluster);
        let times = 1 + self.rng.below(5);
        self.harm.trace.fault(kind, &format!("{times} times"));
        let mut moved = 0;
        for _ in 0..times {
            moved += u32::from(move_leader(cluster, &mut self.rng).await.is_some());
            self.hold(200..1_500).await;
        }
        if moved > 0 {
            self.harm.trace.effect(kind, &format!("{moved} times"));
        }
    }
}
