//! A cluster of real processes on loopback, each directed link between two members through a proxy of its own.

use crate::client::Client;
use crate::port::Port;
use crate::process::{Kind, Server};
use crate::proxy::{Pids, Proxy, Rule};
use anyhow::{Result, ensure};
use mechi_proto::etcdserverpb as pb;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long an election, a restart or catching up may take on a busy machine.
const CONVERGE_MAX: Duration = Duration::from_secs(120);

/// How long one question to one member may take.
const ASK_MAX: Duration = Duration::from_secs(10);

/// For tests in which elections have no place: a busy machine, or one that stops for a moment, makes some.
pub const NO_ELECTIONS: [&str; 2] = ["--heartbeat-interval=300", "--election-timeout=3000"];

/// Member processes and the proxies between them.
pub struct Cluster {
    /// The members; those that do not run can be spawned again.
    pub members: Vec<Server>,
    proxies: Vec<Proxy>,
    pids: Pids,
    // The proxies run on it; `None` only while it is dropped.
    runtime: Option<Runtime>,
    temp: TempDir,
}

impl Cluster {
    /// Starts `count` members with empty data directories and waits until all serve.
    pub fn start(kind: Kind, count: usize, flags: &[&str]) -> Result<Self> {
        let mut cluster = Self::describe(kind, count, flags)?;
        (0..count).try_for_each(|n| cluster.spawn_only(n))?;
        cluster.members.iter_mut().try_for_each(Server::wait_ready)?;
        Ok(cluster)
    }

    /// Starts `count` members that talk to each other without proxies, and waits until all serve: for measuring. With
    /// `program`, another one than [`Kind`]'s.
    pub fn direct(kind: Kind, program: Option<&Path>, count: usize, flags: &[&str]) -> Result<Self> {
        let mut cluster = Self::describe(kind, count, flags)?;
        cluster.proxies.clear();
        let url = |member: &Server| format!("http://127.0.0.1:{}", member.peer_port);
        let all: Vec<_> = cluster.members.iter().map(|member| format!("{}={}", member.name, url(member))).collect();
        for member in &mut cluster.members {
            member.program = program.map(Path::to_owned);
            member.advertised_peer_url = None;
            member.initial_cluster = Some(all.join(","));
        }
        (0..count).try_for_each(|n| cluster.spawn_only(n))?;
        cluster.members.iter_mut().try_for_each(Server::wait_ready)?;
        Ok(cluster)
    }

    /// Makes the proxies and describes the members; none runs yet.
    pub fn describe(kind: Kind, count: usize, flags: &[&str]) -> Result<Self> {
        let temp = tempfile::Builder::new().prefix("mechi-cluster-").tempdir()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let pids = Pids::new(vec![None; count].into());
        let listen: Vec<Port> = (0..count).map(|_| Port::keep()).collect();
        let proxies = {
            let _inside = runtime.enter();
            let start = |port: &Port| Proxy::start(([127, 0, 0, 1], port.number()).into(), pids.clone());
            listen.iter().map(start).collect::<Result<Vec<_>>>()?
        };
        let url = |n: usize| format!("http://127.0.0.1:{}", proxies[n].port);
        let all: Vec<String> = (0..count).map(|n| format!("m{}={}", n + 1, url(n))).collect();
        let mut members = Vec::new();
        for (n, port) in listen.into_iter().enumerate() {
            let home = temp.path().join(format!("m{}", n + 1));
            std::fs::create_dir(&home)?;
            let mut server = Server::at(kind, &home, flags);
            server.name = format!("m{}", n + 1);
            server.peer_port = port;
            server.advertised_peer_url = Some(url(n));
            server.initial_cluster = Some(all.join(","));
            members.push(server);
        }
        Ok(Self { members, proxies, pids, runtime: Some(runtime), temp })
    }

    /// The folder of all members.
    pub fn home(&self) -> PathBuf {
        self.temp.path().to_owned()
    }

    /// Starts member `n` without waiting.
    pub fn spawn_only(&mut self, n: usize) -> Result<()> {
        self.members[n].spawn_only()?;
        self.pids.lock().expect("nobody panics with it")[n] = self.members[n].pid();
        Ok(())
    }

    /// Starts member `n` and waits until it serves.
    pub fn spawn(&mut self, n: usize) -> Result<()> {
        self.spawn_only(n)?;
        self.members[n].wait_ready()
    }

    /// kill -9.
    pub fn kill(&mut self, n: usize) -> Result<()> {
        self.pids.lock().expect("nobody panics with it")[n] = None;
        self.members[n].kill()
    }

    /// Whether member `n` has ended by itself; then it can be spawned again.
    pub fn ended(&mut self, n: usize) -> bool {
        let ended = self.members[n].wait_exit(Duration::ZERO).is_ok();
        if ended {
            self.pids.lock().expect("nobody panics with it")[n] = None;
        }
        ended
    }

    /// SIGTERM, and waits until the process has ended.
    pub fn stop(&mut self, n: usize) -> Result<std::process::ExitStatus> {
        let status = self.members[n].stop();
        self.pids.lock().expect("nobody panics with it")[n] = None;
        status
    }

    /// SIGSTOP: the process holds still with all its connections.
    pub fn freeze(&self, n: usize) -> Result<()> {
        self.members[n].freeze()
    }

    /// SIGCONT.
    pub fn thaw(&self, n: usize) -> Result<()> {
        self.members[n].signal(18)
    }

    /// Changes the rule of the link over which `from` talks to `to`.
    pub fn link(&self, from: usize, to: usize, change: impl FnOnce(&mut Rule)) {
        self.proxies[to].change(from, change);
    }

    /// Cuts the link over which `from` talks to `to`; what `to` says itself still comes through.
    pub fn cut(&self, from: usize, to: usize) {
        self.link(from, to, |rule| rule.is_cut = true);
    }

    /// Cuts everything from and to member `n`.
    pub fn isolate(&self, n: usize) {
        for other in (0..self.members.len()).filter(|other| *other != n) {
            self.cut(n, other);
            self.cut(other, n);
        }
    }

    /// Lets everything pass again, without delay.
    pub fn heal(&self) {
        for to in 0..self.members.len() {
            for from in (0..self.members.len()).filter(|from| *from != to) {
                self.link(from, to, |rule| (rule.is_cut, rule.delay) = (false, Duration::ZERO));
            }
        }
    }

    /// Closes the connections that `from` has open to `to`; it may dial again.
    pub fn reset(&self, from: usize, to: usize) {
        self.link(from, to, |rule| rule.resets += 1);
    }

    /// `host:port` of all members, separated by commas.
    pub fn endpoints(&self) -> String {
        self.members.iter().map(Server::endpoint).collect::<Vec<_>>().join(",")
    }

    /// Every member's log of its last start.
    pub fn logs(&self) -> String {
        self.members.iter().map(|member| format!("=== {}\n{}\n", member.name, member.log())).collect()
    }

    /// What member `n` says of itself.
    pub async fn status(&self, n: usize) -> Result<pb::StatusResponse> {
        let endpoint = self.members[n].endpoint();
        let asked = async {
            let mut client = Client::connect(&endpoint).await?;
            Ok(client.maintenance.status(pb::StatusRequest {}).await?.into_inner())
        };
        tokio::time::timeout(ASK_MAX, asked).await?
    }

    /// Waits until one of `among` leads and a majority of all members agree on it; returns its number.
    pub async fn wait_for_leader(&self, among: &[usize]) -> Result<usize> {
        let deadline = Instant::now() + CONVERGE_MAX;
        while Instant::now() < deadline {
            let mut told = Vec::new();
            for n in among {
                if let Ok(status) = self.status(*n).await {
                    let own = status.header.as_ref().map_or(0, |header| header.member_id);
                    told.push((*n, own, status.leader, status.raft_term));
                }
            }
            for (n, own, leader, term) in &told {
                let agree = told.iter().filter(|(.., its, at)| its == own && at == term).count();
                if own == leader && agree > self.members.len() / 2 {
                    return Ok(*n);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("no leader among {among:?}:\n{}", self.logs())
    }

    /// Waits for a leader among all.
    pub async fn leader(&self) -> Result<usize> {
        self.wait_for_leader(&(0..self.members.len()).collect::<Vec<_>>()).await
    }

    /// Waits until all members have applied the same, and checks that they hold the same: by HashKV, and by the sum over
    /// the whole state. Returns the revision.
    pub async fn wait_until_equal(&self) -> Result<i64> {
        let deadline = Instant::now() + CONVERGE_MAX;
        loop {
            let mut seen = Vec::new();
            for n in 0..self.members.len() {
                seen.push(self.sums(n).await);
            }
            let whole: Vec<_> = seen.iter().flatten().collect();
            if whole.len() == seen.len() && whole.windows(2).all(|pair| pair[0].0 == pair[1].0) {
                let equal = whole.windows(2).all(|pair| pair[0] == pair[1]);
                ensure!(equal, "the members differ: {whole:?}\n{}", self.logs());
                return Ok(whole[0].1);
            }
            ensure!(Instant::now() < deadline, "the members did not come together: {seen:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// (applied index, revision, HashKV, hash of all) of one member; the first is the same before and after.
    async fn sums(&self, n: usize) -> Result<(u64, i64, u32, u32)> {
        let before = self.status(n).await?;
        let endpoint = self.members[n].endpoint();
        let asked = async {
            let mut client = Client::connect(&endpoint).await?;
            let kv = client.maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await?.into_inner().hash;
            let all = client.maintenance.hash(pb::HashRequest {}).await?.into_inner().hash;
            anyhow::Ok((kv, all))
        };
        let (kv, all) = tokio::time::timeout(ASK_MAX, asked).await??;
        let after = self.status(n).await?;
        ensure!(before.raft_applied_index == after.raft_applied_index, "it goes on");
        let revision = after.header.map_or(0, |header| header.revision);
        Ok((after.raft_applied_index, revision, kv, all))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.members.clear();
        if let Some(runtime) = self.runtime.take() {
            // A test's own runtime must not wait for this one.
            runtime.shutdown_background();
        }
    }
}
