//! The members of one run: real processes on loopback, each link to and between them through a proxy of the run's own.
//!
//! Everything is below one temporary folder, and goes with the cluster: processes, proxies, disks, folder.

use crate::limits::{ASK_MAX, CONVERGE_MAX, STOP_MAX};
use crate::proxy::{Diallers, Proxy, Way};
use crate::shim::{self, Control};
use anyhow::{Context, Result, ensure};
use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::oracle;
use mechi_tests::port::Port;
use mechi_tests::process::{Kind, Server};
use mechi_tests::proxy::Pids;
use mechi_tests::small_disk::{DISK_MIB, SmallDisk};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time between two looks at members that are to come up.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The file, beside a member's logs, of what it was seen to do that none may do.
const ACCUSED: &str = "accused";

/// What a member is accused of that only took too long: on a machine without time for it, that says nothing.
pub(crate) const LATE: &str = "(late)";

/// What a client must know of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `n1`, `n2` and so on: Jepsen's names, which histories use.
    pub name: String,
    /// `http://127.0.0.1:PORT` of the member's client proxy.
    pub endpoint: String,
}

/// Which server is tortured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
}

impl Program {
    /// Finds a server: `mechi` of this build, `etcd` 3.5.1, or any build of either by its path.
    ///
    /// - Errors: there is no such program, or it cannot say its version.
    pub fn find(name: &str) -> Result<Self> {
        match name {
            "mechi" => Ok(Self { kind: Kind::Mechi, path: oracle::mechi() }),
            "etcd" => Ok(Self { kind: Kind::Etcd, path: oracle::etcd() }),
            path => {
                let said = Command::new(path).arg("--version").output().with_context(|| format!("run {path}"))?;
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                ensure!(said.contains("etcd Version"), "{path} --version says {said:?}, which is no etcd's answer");
                let kind = if said.contains("mechi") { Kind::Mechi } else { Kind::Etcd };
                Ok(Self { kind, path: std::fs::canonicalize(path)? })
            }
        }
    }
}

/// What a cluster is to have for the faults that are planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gear {
    /// [`crate::shim`] before each member's C library.
    pub shim: bool,
    /// A small disk for each member.
    pub small_disks: bool,
    /// A working store, although all data fits into memory.
    pub store: bool,
    /// A short log, so that there are snapshots.
    pub snapshots: bool,
    /// Flags as users have them: without those that make happen within a run what happens seldom.
    pub plain: bool,
}

impl Gear {
    /// What both need.
    pub fn and(self, other: Self) -> Self {
        Self {
            shim: self.shim || other.shim,
            small_disks: self.small_disks || other.small_disks,
            store: self.store || other.store,
            snapshots: self.snapshots || other.snapshots,
            plain: self.plain || other.plain,
        }
    }

    fn flags(self, kind: Kind) -> Vec<&'static str> {
        if self.plain {
            return vec![];
        }
        let mut flags = match kind {
            Kind::Mechi => vec!["--watch-progress-notify-interval=200ms"],
            // As etcd's own robustness tests have it: what happens seldom is to happen within a run.
            Kind::Etcd => vec![
                "--experimental-watch-progress-notify-interval=200ms",
                "--experimental-compaction-batch-limit=10",
                "--snapshot-count=100",
            ],
        };
        let more = [
            (self.store && kind == Kind::Mechi, "--store-flush-interval=200ms"),
            (self.snapshots && kind == Kind::Mechi, "--snapshot-log-bytes=1MiB"),
            (self.small_disks && kind == Kind::Mechi, "--quota-backend-bytes=-1"),
        ];
        flags.extend(more.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag));
        flags
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Which server.
    pub program: Program,
    /// How many of them.
    pub members: usize,
    /// What the faults need.
    pub gear: Gear,
    /// Draws what the proxies draw.
    pub seed: u64,
}

/// One member's process and what is around it.
struct Node {
    server: Server,
    control: Option<Control>,
    disk: Option<SmallDisk>,
    // Whoever does harm has asked for an end; any other end is a finding.
    may_end: bool,
}

/// Member processes, and what is between them, and between them and clients.
pub struct Cluster {
    program: Program,
    gear: Gear,
    members: Vec<Member>,
    nodes: Vec<Mutex<Node>>,
    peers: Vec<Proxy>,
    clients: Vec<Proxy>,
    pids: Pids,
    _ports: Vec<Port>,
    temp: TempDir,
}

impl Cluster {
    /// Starts the members with empty data directories and waits until all serve; must be called in a runtime.
    pub async fn start(options: &ClusterOptions) -> Result<Self> {
        let cluster = Self::describe(options)?;
        (0..options.members).try_for_each(|n| cluster.spawn(n))?;
        cluster.wait_until_all_serve().await?;
        Ok(cluster)
    }

    fn describe(options: &ClusterOptions) -> Result<Self> {
        let ClusterOptions { program, members: count, gear, seed } = options;
        let temp = tempfile::Builder::new().prefix("mechi-jepsen-").tempdir()?;
        let library = gear.shim.then(|| shim::build(temp.path())).transpose()?;
        let pids = Pids::new(vec![None; *count].into());
        let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let mut servers = Vec::new();
        for n in 0..*count {
            let home = temp.path().join(format!("n{}", n + 1));
            std::fs::create_dir(&home)?;
            let mut server = Server::at(program.kind, &home, &gear.flags(program.kind));
            server.name = format!("n{}", n + 1);
            server.program = Some(program.path.clone());
            servers.push(server);
        }
        let (advertised, proxied): (Vec<Port>, Vec<Port>) = (0..*count).map(|_| (Port::keep(), Port::keep())).unzip();
        let (mut peers, mut clients) = (Vec::new(), Vec::new());
        for (n, server) in servers.iter().enumerate() {
            let (listen, to) = (loopback(advertised[n].number()), loopback(server.peer_port.number()));
            let seed = seed ^ (n as u64) << 32;
            peers.push(Proxy::start(listen, to, Diallers::Members(pids.clone()), seed)?);
            let (listen, to) =
                (loopback(proxied[n].number()), server.endpoint().parse().context("a server's address")?);
            clients.push(Proxy::start(listen, to, Diallers::Anybody, !seed)?);
        }
        let url = |n: usize| format!("http://{}", loopback(advertised[n].number()));
        let all = (0..*count).map(|n| format!("n{}={}", n + 1, url(n))).collect::<Vec<_>>().join(",");
        let mut nodes = Vec::new();
        for (n, mut server) in servers.into_iter().enumerate() {
            server.advertised_peer_url = Some(url(n));
            server.initial_cluster = Some(all.clone());
            let mut node = Node { control: None, disk: None, may_end: false, server };
            if let Some(library) = &library {
                let control = Control::create(node.server.home.join("shim.control"))?;
                node.server.env.extend(control.env(library));
                node.control = Some(control);
            }
            if gear.small_disks {
                let disk = SmallDisk::mount(&node.server.home.join("disk"), DISK_MIB);
                std::os::unix::fs::symlink(node.server.home.join("disk"), node.server.data_dir())?;
                node.server.wrapper.extend(disk.enter());
                node.disk = Some(disk);
            }
            nodes.push(Mutex::new(node));
        }
        let members = clients.iter().enumerate().map(|(n, proxy)| Member {
            name: format!("n{}", n + 1),
            endpoint: format!("http://{}", loopback(proxy.port)),
        });
        let (members, program, gear) = (members.collect(), program.clone(), *gear);
        let _ports = advertised.into_iter().chain(proxied).collect();
        Ok(Self { program, gear, members, nodes, peers, clients, pids, _ports, temp })
    }

    fn node(&self, n: usize) -> MutexGuard<'_, Node> {
        self.nodes[n].lock().expect("nobody panics with it")
    }

    fn know(&self, n: usize, pid: Option<u32>) {
        self.pids.lock().expect("nobody panics with it")[n] = pid;
    }

    /// The members, in their order; everything else here takes a place in it.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Never: a cluster has a member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A member's name.
    pub fn name(&self, n: usize) -> &str {
        &self.members[n].name
    }

    /// Which server runs.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What the members have for faults.
    pub fn gear(&self) -> Gear {
        self.gear
    }

    /// A folder for whatever must be kept until the end of the run.
    pub fn folder(&self) -> &Path {
        self.temp.path()
    }

    /// Starts a member's process, if it does not run, without waiting.
    pub fn spawn(&self, n: usize) -> Result<()> {
        let mut node = self.node(n);
        if node.server.pid().is_none() {
            node.server.spawn_only()?;
            node.may_end = false;
            self.know(n, node.server.pid());
            self.clients[n].set_open(true);
        }
        Ok(())
    }

    /// Gives the next starts of a member other variables than it has.
    pub fn set_env(&self, n: usize, name: &str, value: Option<&str>) {
        let mut node = self.node(n);
        node.server.env.retain(|(known, _)| known != name);
        node.server.env.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// kill -9, and waits until the process is gone; returns whether it ran.
    pub fn kill(&self, n: usize) -> Result<bool> {
        let mut node = self.node(n);
        let ran = node.server.pid().is_some();
        node.server.kill()?;
        self.gone(n);
        Ok(ran)
    }

    /// SIGTERM, and waits until the process is gone; kill -9 if it does not go.
    pub fn stop(&self, n: usize) -> Result<()> {
        let mut node = self.node(n);
        if node.server.pid().is_some() {
            node.server.signal(15)?;
            if node.server.wait_exit(STOP_MAX).is_err() {
                node.server.kill()?;
            }
        }
        self.gone(n);
        Ok(())
    }

    /// Asks all to stop, and waits for them.
    pub fn stop_all(&self) -> Result<()> {
        for n in 0..self.len() {
            let node = self.node(n);
            if node.server.pid().is_some() {
                node.server.signal(18)?;
                node.server.signal(15)?;
            }
        }
        (0..self.len()).try_for_each(|n| {
            let mut node = self.node(n);
            if node.server.pid().is_some() && node.server.wait_exit(STOP_MAX).is_err() {
                node.server.kill()?;
            }
            self.gone(n);
            Ok(())
        })
    }

    fn gone(&self, n: usize) {
        self.know(n, None);
        self.clients[n].set_open(false);
    }

    /// SIGSTOP, and waits until every thread stands still; returns whether there was a process.
    pub fn freeze(&self, n: usize) -> Result<bool> {
        let node = self.node(n);
        if node.server.pid().is_none() {
            return Ok(false);
        }
        node.server.freeze()?;
        Ok(true)
    }

    /// SIGCONT.
    pub fn thaw(&self, n: usize) -> Result<()> {
        let node = self.node(n);
        if node.server.pid().is_some() { node.server.signal(18) } else { Ok(()) }
    }

    /// Says whether a member may end by itself from now on until its next start.
    pub fn allow_end(&self, n: usize, may_end: bool) {
        self.node(n).may_end = may_end;
    }

    /// Whether a process runs (or stands).
    pub fn is_running(&self, n: usize) -> bool {
        self.ended(n);
        self.node(n).server.pid().is_some()
    }

    /// How a member has ended by itself, if it has since the last look.
    ///
    /// One that nobody allowed to is accused of it.
    pub fn ended(&self, n: usize) -> Option<ExitStatus> {
        let mut node = self.node(n);
        let status = node.server.wait_exit(Duration::ZERO).ok()?;
        self.gone(n);
        if !node.may_end {
            accuse(&node, &format!("ended by itself with {status}, and no fault asked for it"));
        }
        Some(status)
    }

    /// Whether a member ends by itself in time.
    pub async fn ends_within(&self, n: usize, max: Duration) -> bool {
        let deadline = Instant::now() + max;
        while self.is_running(n) {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        true
    }

    /// Notes that a member did what none may do: a fatal line behind its logs, where the judge finds it.
    pub fn accuse(&self, n: usize, text: &str) {
        accuse(&self.node(n), text);
    }

    /// What the member's running (or last) process has printed.
    pub fn log(&self, n: usize) -> String {
        self.node(n).server.log()
    }

    /// Where the member's data is; of one that does not run, to be read and changed.
    pub fn data_dir(&self, n: usize) -> PathBuf {
        let node = self.node(n);
        node.disk.as_ref().map_or_else(|| node.server.data_dir(), SmallDisk::path)
    }

    /// The member's small disk, as seen from outside.
    pub fn disk(&self, n: usize) -> Option<PathBuf> {
        self.node(n).disk.as_ref().map(SmallDisk::path)
    }

    /// Does something with the numbers that the member's C library obeys.
    ///
    /// - Errors: there is none before it; whatever `act` says.
    pub fn shim<T>(&self, n: usize, act: impl FnOnce(&Control) -> Result<T>) -> Result<T> {
        act(self.node(n).control.as_ref().context("the cluster was started without the library of faults")?)
    }

    /// Changes what happens to what `from` says to `to`, whoever of them dialled.
    pub fn way(&self, from: usize, to: usize, change: impl Fn(&mut Way)) {
        self.peers[to].change(from, |rule| change(&mut rule.there));
        self.peers[from].change(to, |rule| change(&mut rule.back));
    }

    /// Changes what happens between clients and a member, both ways.
    pub fn client_way(&self, n: usize, change: impl Fn(&mut Way)) {
        self.clients[n].change(0, |rule| {
            change(&mut rule.there);
            change(&mut rule.back);
        });
    }

    /// Closes all connections between two members; they may dial again.
    pub fn reset(&self, one: usize, other: usize) {
        self.peers[one].change(other, |rule| rule.resets += 1);
        self.peers[other].change(one, |rule| rule.resets += 1);
    }

    /// Closes all connections of clients to a member.
    pub fn reset_clients(&self, n: usize) {
        self.clients[n].change(0, |rule| rule.resets += 1);
    }

    /// How often any rule held something up so far.
    pub fn touched(&self) -> u64 {
        self.clients.iter().chain(&self.peers).map(Proxy::touched).sum()
    }

    /// Lets everything pass, at once.
    pub fn heal_network(&self) {
        for to in 0..self.len() {
            self.client_way(to, |way| *way = Way::default());
            for from in (0..self.len()).filter(|from| *from != to) {
                self.way(from, to, |way| *way = Way::default());
            }
        }
    }

    /// A connection of the run's own to a member, past its proxy.
    pub async fn connect(&self, n: usize) -> Result<Client> {
        tokio::time::timeout(ASK_MAX, Client::connect(&self.endpoint(n))).await?
    }

    /// `host:port` of a member, past its proxy.
    pub fn endpoint(&self, n: usize) -> String {
        self.node(n).server.endpoint()
    }

    /// What a member says of itself.
    pub async fn status(&self, n: usize) -> Result<pb::StatusResponse> {
        let mut client = self.connect(n).await?;
        Ok(tokio::time::timeout(ASK_MAX, client.maintenance.status(pb::StatusRequest {})).await??.into_inner())
    }

    /// Who leads by what the members say now: the one of the highest term that says so itself.
    pub async fn leader(&self) -> Option<usize> {
        let asked = futures_util::future::join_all((0..self.len()).map(|n| self.status(n))).await;
        let own = |status: &pb::StatusResponse| status.header.as_ref().map_or(0, |header| header.member_id);
        let told = asked.iter().enumerate().filter_map(|(n, status)| Some((n, status.as_ref().ok()?)));
        let leads = told.filter(|(_, status)| status.leader != 0 && status.leader == own(status));
        leads.max_by_key(|(_, status)| status.raft_term).map(|(n, _)| n)
    }

    /// Whether a member answers a linearizable read.
    pub async fn serves(&self, n: usize) -> bool {
        let Ok(mut client) = self.connect(n).await else { return false };
        matches!(tokio::time::timeout(ASK_MAX, client.get("jepsen/serves")).await, Ok(Ok(_)))
    }

    /// Waits until a member serves, or has ended by itself.
    pub async fn serves_within(&self, n: usize, max: Duration) -> Comes {
        let deadline = Instant::now() + max;
        loop {
            if let Some(status) = self.ended(n) {
                return Comes::Ended(status);
            }
            if self.serves(n).await {
                return Comes::Serves;
            }
            if Instant::now() >= deadline {
                return Comes::Late;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until all members serve.
    ///
    /// - Errors: those that have ended, or do not serve within [`CONVERGE_MAX`], with the ends of their logs.
    pub async fn wait_until_all_serve(&self) -> Result<()> {
        let come = (0..self.len()).map(|n| self.serves_within(n, CONVERGE_MAX));
        let mut wrong = Vec::new();
        for (n, comes) in futures_util::future::join_all(come).await.into_iter().enumerate() {
            let what = match comes {
                Comes::Serves => continue,
                Comes::Ended(status) => format!("ended with {status}"),
                Comes::Late => format!("{LATE} does not serve within {CONVERGE_MAX:?}"),
            };
            self.accuse(n, &format!("{what}, although no fault was left"));
            wrong.push(format!("{} {what}; its log:\n{}", self.name(n), tail(&self.log(n))));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    /// Writes each member's logs of all its starts into one file per member.
    pub fn write_logs(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        for n in 0..self.len() {
            let mut all = std::fs::File::create(folder.join(format!("{}.log", self.name(n))))?;
            for path in logs(&self.node(n).server.home) {
                let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                writeln!(all, "=== start {}", file.trim_start_matches("log."))?;
                all.write_all(&std::fs::read(&path)?)?;
            }
            if let Ok(accused) = std::fs::read(self.node(n).server.home.join(ACCUSED)) {
                all.write_all(&accused)?;
            }
        }
        Ok(())
    }
}

/// What became of a member that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comes {
    /// It answers reads.
    Serves,
    /// It has ended by itself.
    Ended(ExitStatus),
    /// Neither, in the time that it had.
    Late,
}

fn accuse(node: &Node, text: &str) {
    let path = node.server.home.join(ACCUSED);
    let file = std::fs::File::options().create(true).append(true).open(path);
    // A run whose folder cannot be written to fails by itself.
    let _ = file.map(|mut file| writeln!(file, "fatal: jepsen: {} {text}", node.server.name));
}

/// A member's logs, in the order of its starts.
fn logs(home: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home).into_iter().flatten().flatten().map(|entry| entry.path());
    let start = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("log.")?.parse::<u32>().ok();
    let mut logs: Vec<_> = entries.filter(|path| start(path).is_some()).collect();
    logs.sort_by_key(start);
    logs
}

/// The end of a log, for an error.
fn tail(log: &str) -> String {
    const LINES: usize = 20;
    let skip = log.lines().count().saturating_sub(LINES);
    log.lines().skip(skip).collect::<Vec<_>>().join("\n")
}
