//! A cluster under fire: clients work on all members while a test does harm, and then everything is held together.
//!
//! In reading order: [`record`] (what clients write down), [`writer`], [`leases`], [`witness`] (a watch per member),
//! [`workload`] (all of them), [`check`] (what must hold).

pub mod check;
mod leases;
pub mod record;
pub mod witness;
pub mod workload;
mod writer;

use crate::client::Client;
use crate::cluster::Cluster;
use crate::process::Kind;
use crate::rng::Rng;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use workload::Workload;

/// How long anything may take that must happen: an election, a restart, an answer, on a busy machine.
pub const SOON: Duration = Duration::from_secs(90);

/// Lines of each member's log that a failure shows.
const LOG_LINES: usize = 40;

/// Rounds beyond those that were wanted until enough writes were acknowledged.
const ROUNDS_FACTOR_MAX: u64 = 4;

/// One case: a cluster, its clients, and how much of the harm is done.
pub struct Fire {
    /// The members; the test kills, freezes and cuts them.
    pub cluster: Cluster,
    /// The clients.
    pub load: Workload,
    /// What the test draws from.
    pub rng: Rng,
    name: &'static str,
    seed: u64,
    rounds: u64,
    writes: u64,
    round: u64,
    effects: BTreeMap<&'static str, u64>,
    /// When harm began, and when what was harmed served again; the last may go on.
    harm: Vec<(Instant, Option<Instant>)>,
    began: Instant,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

impl Fire {
    /// Starts `count` members and their clients; `rounds` and `writes` are what a quick run comes to.
    ///
    /// `MECHI_FIRE_ROUNDS`, `MECHI_FIRE_WRITES` and `MECHI_FIRE_SEED` ask for others.
    pub async fn start(name: &'static str, count: usize, flags: &[&str], rounds: u64, writes: u64) -> Self {
        let cluster = Cluster::start(Kind::Mechi, count, flags).expect("the members start");
        Self::over(name, cluster, rounds, writes).await
    }

    /// The same over members that run already.
    pub async fn over(name: &'static str, cluster: Cluster, rounds: u64, writes: u64) -> Self {
        let seed = number("MECHI_FIRE_SEED").unwrap_or(11);
        let endpoints = cluster.members.iter().map(|member| member.endpoint()).collect();
        Self {
            cluster,
            load: Workload::start(endpoints, seed),
            rng: Rng::new(seed ^ 0xf1e),
            name,
            seed,
            rounds: Self::rounds_wanted(rounds),
            writes: number("MECHI_FIRE_WRITES").unwrap_or(writes),
            round: 0,
            effects: BTreeMap::new(),
            harm: Vec::new(),
            began: Instant::now(),
        }
    }

    /// Rounds that were asked for, or as many as a quick run has.
    pub fn rounds_wanted(quick: u64) -> u64 {
        number("MECHI_FIRE_ROUNDS").unwrap_or(quick)
    }

    /// Leaves all but one of so many parts of the harm to other clusters.
    pub fn divide(&mut self, parts: u64) {
        (self.rounds, self.writes) = (self.rounds.div_ceil(parts), self.writes.div_ceil(parts));
    }

    /// Lets the clients work; returns whether another round of harm follows.
    pub async fn goes_on(&mut self) -> bool {
        self.end_harm();
        let enough = self.round >= self.rounds && self.load.acknowledged() >= self.writes;
        if enough || self.round >= self.rounds * ROUNDS_FACTOR_MAX {
            return false;
        }
        self.round += 1;
        self.progress(self.writes / self.rounds / 2).await;
        self.harm.push((Instant::now(), None));
        true
    }

    fn end_harm(&mut self) {
        if let Some((_, end)) = self.harm.last_mut() {
            end.get_or_insert_with(Instant::now);
        }
    }

    /// Waits until `more` writes were acknowledged.
    pub async fn progress(&self, more: u64) {
        let goal = self.load.acknowledged() + more;
        self.until("writes go on", || self.load.acknowledged() >= goal).await;
    }

    /// Waits until something holds, and no longer than [`SOON`].
    pub async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < deadline, "{}, round {}: not within {SOON:?}: {what}", self.name, self.round);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The leader of all.
    pub async fn leader(&self) -> usize {
        self.cluster.leader().await.expect("a leader")
    }

    /// The leader of some members.
    pub async fn leader_among(&self, among: &[usize]) -> usize {
        self.cluster.wait_for_leader(among).await.expect("a leader among them")
    }

    /// All members but these.
    pub fn others(&self, but: &[usize]) -> Vec<usize> {
        (0..self.cluster.members.len()).filter(|n| !but.contains(n)).collect()
    }

    /// Asks the leader to hand over.
    ///
    /// - Errors: it leads no more, or the next one did not catch up in time.
    pub async fn move_leader(&self, from: usize, to: usize) -> Result<()> {
        let target_id = self.cluster.status(to).await?.header.map_or(0, |header| header.member_id);
        let mut client = Client::connect(&self.cluster.members[from].endpoint()).await?;
        client.maintenance.move_leader(pb::MoveLeaderRequest { target_id }).await?;
        Ok(())
    }

    /// Makes a member the leader.
    pub async fn lead(&self, n: usize) {
        let deadline = Instant::now() + SOON;
        let mut leader = self.leader().await;
        while leader != n {
            assert!(Instant::now() < deadline, "{}: member {n} does not come to lead", self.name);
            if let Err(error) = self.move_leader(leader, n).await {
                println!("{}: member {n} does not lead yet: {error}", self.name);
            }
            leader = self.leader().await;
        }
    }

    /// One of the members that do not lead.
    pub async fn follower(&mut self) -> usize {
        let others = self.others(&[self.leader().await]);
        *self.rng.pick(&others)
    }

    /// Counts harm that has had an effect.
    pub fn effect(&mut self, what: &'static str) {
        *self.effects.entry(what).or_default() += 1;
    }

    /// Heals, ends the clients, and checks everything.
    pub async fn finish(mut self) {
        let counts = self.judge().await;
        if let Err(error) = counts {
            panic!("{}: {error:#}", self.name);
        }
    }

    async fn judge(&mut self) -> Result<()> {
        self.cluster.heal();
        self.progress(1).await;
        self.load.stop().await;
        self.leases_end().await;
        let end = self.cluster.wait_until_equal().await?;
        let seen: Vec<_> = self.load.witnesses.iter().map(|witness| witness.seen.clone()).collect();
        self.until("all watches see the end", || {
            let there = |seen: &std::sync::Mutex<witness::Seen>| {
                let seen = seen.lock().expect("no witness panics");
                seen.revision() >= end || seen.wrong.is_some()
            };
            seen.iter().all(|seen| there(seen))
        })
        .await;
        let seen: Vec<_> = seen.iter().map(|seen| seen.lock().expect("no witness panics")).collect();
        let seen: Vec<&witness::Seen> = seen.iter().map(|seen| &**seen).collect();
        for seen in &seen {
            ensure!(seen.wrong.is_none(), "{:?}", seen.wrong);
        }
        let first = seen.first().map_or(&[][..], |seen| &seen.changes);
        for (n, seen) in seen.iter().enumerate() {
            same(first, &seen.changes, &format!("the watches that began at members 0 and {n}"))?;
        }
        let history = check::History::new(first)?;
        ensure!(history.revision() == end, "the watches end at {}, the members at {end}", history.revision());
        for member in &self.cluster.members {
            let whole = tokio::time::timeout(SOON, witness::whole(&member.endpoint(), end)).await?;
            let whole = whole.with_context(|| format!("watch {} from the beginning", member.name))?;
            same(first, &whole, &format!("the history of {}", member.name))?;
            let all = all(&member.endpoint()).await.with_context(|| format!("list all of {}", member.name))?;
            ensure!(all == history.end(), "{} holds other than its history says", member.name);
        }
        let book = self.load.shared.book.lock().expect("no client panics");
        let now = Instant::now();
        let harm: Vec<_> = self.harm.iter().map(|(from, to)| (*from, to.unwrap_or(now))).collect();
        let counts = check::book(&book, &history, &seen, &harm)?;
        drop(book);
        ensure!(!self.all_logs(usize::MAX).contains("panicked"), "a member panicked");
        println!(
            "fire: {}: {} rounds in {:.0?}, {:?}; {} acknowledged writes, {} that changed nothing, {} refused, {} unknown \
             ({} of them done), {} reads; {} changes seen by {} watches over {} streams; {} leases, {} renewals, none \
             ended early, {} that ended in peace were late by {:.1?} at the median and {:.1?} at most",
            self.name,
            self.round,
            self.began.elapsed(),
            self.effects,
            counts.acknowledged,
            counts.idle,
            counts.refused,
            counts.unknown,
            counts.unknown_done,
            counts.reads,
            first.len(),
            seen.len(),
            seen.iter().map(|seen| seen.streams).sum::<u64>(),
            counts.leases,
            counts.renewals,
            counts.due,
            counts.overdue_p50,
            counts.overdue_max,
        );
        Ok(())
    }

    /// Waits until the leases that nobody renews any more have ended.
    async fn leases_end(&self) {
        let deadline = Instant::now() + SOON;
        loop {
            let endpoint = self.cluster.members[0].endpoint();
            let asked = async {
                let mut client = Client::connect(&endpoint).await?;
                let leases = client.lease.lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner().leases;
                anyhow::Ok(leases.len())
            };
            let left = tokio::time::timeout(Duration::from_secs(5), asked).await;
            if matches!(left, Ok(Ok(0))) {
                return;
            }
            assert!(Instant::now() < deadline, "{}: leases do not end: {left:?}", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The last lines of all logs of all members' starts.
    fn all_logs(&self, lines: usize) -> String {
        let mut out = String::new();
        for member in &self.cluster.members {
            let files = std::fs::read_dir(&member.home).into_iter().flatten().flatten().map(|entry| entry.path());
            let mut logs: Vec<_> =
                files.filter(|path| path.file_stem().is_some_and(|stem| stem == "log") && path.is_file()).collect();
            logs.sort_by_key(|path| std::fs::metadata(path).and_then(|data| data.modified()).ok());
            for log in logs {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let skip = text.lines().count().saturating_sub(lines);
                let _ = writeln!(out, "=== {}", log.display());
                for line in text.lines().skip(skip) {
                    let _ = writeln!(out, "{line}");
                }
            }
        }
        out
    }
}

impl Drop for Fire {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (name, seed, round) = (self.name, self.seed, self.round);
            println!("{name}: MECHI_FIRE_SEED={seed}, round {round}, {:?}\n{}", self.effects, self.all_logs(LOG_LINES));
        }
    }
}

fn same(one: &[record::Change], other: &[record::Change], what: &str) -> Result<()> {
    let at = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    ensure!(
        one.len() == other.len() && at == one.len(),
        "{what} differ after {at} of {} and {} changes: {:?}, {:?}",
        one.len(),
        other.len(),
        one.get(at),
        other.get(at)
    );
    Ok(())
}

/// All keys of a member, with value and revision.
async fn all(endpoint: &str) -> Result<BTreeMap<Bytes, (Bytes, i64)>> {
    let all = Client::connect(endpoint).await?.all().await?;
    Ok(all.kvs.into_iter().map(|kv| (kv.key, (record::brief(&kv.value), kv.mod_revision))).collect())
}
