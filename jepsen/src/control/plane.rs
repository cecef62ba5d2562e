//! The control plane's processes: each of its own links to each member of the store, killed, stopped, cut off, and brought back.

use super::ControlOptions;
use crate::cluster::Cluster;
use crate::proxy::{Diallers, Proxy};
use anyhow::{Context, Result, ensure};
use mechi_tests::oracle;
use mechi_tests::port::Port;
use mechi_tests::process::{freeze, http_get, send_signal};
use std::fs::File;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The components that are elected, with so many replicas each.
pub(super) const COMPONENTS: [&str; 2] = ["scheduler", "controllers"];
const REPLICAS: usize = 2;

/// What fake nodes do with pods: some fail, after a while.
const SCRIPT: &str = "start=100ms,ready=200ms,stop=100ms,fail=20s@2%";

/// Cores of each fake node.
pub(super) const NODE_CPU: &str = "8";

/// The fake nodes' journal, in the run's folder.
pub(super) const JOURNAL: &str = "journal.jsonl";

/// How long a process may take to stop once it is asked to.
const STOP_MAX: Duration = Duration::from_secs(20);

/// How long an answer with metrics may take.
const SCRAPE_MAX: Duration = Duration::from_secs(1);

/// One process and its links.
struct Process {
    name: String,
    words: Vec<String>,
    child: Option<Child>,
    log: PathBuf,
    /// In front of each member, in their order.
    links: Vec<Proxy>,
    metrics: String,
    _ports: Vec<Port>,
}

impl Process {
    /// Describes one that does not run yet.
    fn describe(cluster: &Cluster, name: &str, words: &[&str], dir: &Path, seed: u64) -> Result<Self> {
        let (mut links, mut ports, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..cluster.len() {
            let port = Port::keep();
            let listen = SocketAddr::from(([127, 0, 0, 1], port.number()));
            let to: SocketAddr = cluster.endpoint(n).parse().context("a member's address")?;
            links.push(Proxy::start(listen, to, Diallers::Anybody, seed ^ (n as u64) << 40)?);
            endpoints.push(listen.to_string());
            ports.push(port);
        }
        let port = Port::keep();
        let metrics = format!("127.0.0.1:{port}");
        ports.push(port);
        let own = [format!("--endpoints={}", endpoints.join(",")), format!("--listen-metrics={metrics}")];
        let words = words.iter().map(|word| (*word).to_owned()).chain(own).collect();
        let log = dir.join(format!("{name}.log"));
        Ok(Self { name: name.to_owned(), words, child: None, log, links, metrics, _ports: ports })
    }

    /// Starts it, if it does not run.
    fn spawn(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let program = oracle::mechi_control();
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let child = Command::new(&program)
            .args(&self.words)
            // Its end is the end of this process's hand, however that came.
            .arg("--with-parent")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        self.child = Some(child.with_context(|| format!("start {}", program.display()))?);
        Ok(())
    }

    fn kill(&mut self) -> Result<bool> {
        let Some(mut child) = self.child.take() else { return Ok(false) };
        child.kill()?;
        child.wait()?;
        Ok(true)
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// All of them: the schedulers, the controllers, and last the fake nodes.
pub(super) struct Plane {
    processes: Vec<Mutex<Process>>,
}

impl Plane {
    /// Starts them; must be called in a runtime.
    pub(super) fn start(cluster: &Cluster, options: &ControlOptions) -> Result<Self> {
        let logs = options.dir.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let mut processes = Vec::new();
        for component in COMPONENTS {
            for replica in 1..=REPLICAS {
                let name = format!("{component}-{replica}");
                let words = ["run", "--roles", component, "--identity", name.as_str(), "--audit-queues"];
                let seed = options.seed ^ (processes.len() as u64 + 1) << 48;
                processes.push(Process::describe(cluster, &name, &words, &logs, seed)?);
            }
        }
        let (count, journal) = (options.nodes.to_string(), options.dir.join(JOURNAL));
        let journal = journal.to_str().context("the run's folder has no name in UTF-8")?;
        let words =
            ["nodes", "--count", &count, "--script", SCRIPT, "--journal", journal, "--cpu", NODE_CPU, "--memory=32Gi"];
        let seed = options.seed ^ (processes.len() as u64 + 1) << 48;
        processes.push(Process::describe(cluster, "nodes", &words, &logs, seed)?);
        for process in &mut processes {
            process.spawn()?;
        }
        Ok(Self { processes: processes.into_iter().map(Mutex::new).collect() })
    }

    fn process(&self, n: usize) -> MutexGuard<'_, Process> {
        self.processes[n].lock().expect("nobody panics with it")
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.processes.len()
    }

    /// The one that runs the fake nodes.
    pub(super) fn nodes(&self) -> usize {
        self.len() - 1
    }

    /// A process's name, which is its identity in elections.
    pub(super) fn name(&self, n: usize) -> String {
        self.process(n).name.clone()
    }

    /// The process of this name.
    pub(super) fn of_name(&self, name: &str) -> Option<usize> {
        (0..self.len()).find(|n| self.process(*n).name == name)
    }

    /// Starts a process, if it does not run.
    pub(super) fn spawn(&self, n: usize) -> Result<()> {
        self.process(n).spawn()
    }

    /// kill -9, and waits until it is gone; returns whether it ran.
    pub(super) fn kill(&self, n: usize) -> Result<bool> {
        self.process(n).kill()
    }

    /// SIGSTOP, and waits until every thread stands still; returns whether there was a process.
    pub(super) fn freeze(&self, n: usize) -> Result<bool> {
        let process = self.process(n);
        let Some(pid) = process.pid() else { return Ok(false) };
        freeze(pid)?;
        Ok(true)
    }

    /// SIGCONT.
    pub(super) fn thaw(&self, n: usize) -> Result<()> {
        let process = self.process(n);
        process.pid().map_or(Ok(()), |pid| send_signal(pid, 18))
    }

    /// Cuts, or heals, the links of a process to some members.
    pub(super) fn cut(&self, n: usize, members: &[usize], is_cut: bool) {
        let process = self.process(n);
        for member in members {
            process.links[*member].change(0, |rule| {
                rule.there.is_cut = is_cut;
                rule.back.is_cut = is_cut;
            });
        }
    }

    /// How often any link of a process held something up so far.
    pub(super) fn touched(&self, n: usize) -> u64 {
        self.process(n).links.iter().map(Proxy::touched).sum()
    }

    /// Undoes everything that may be left of any harm.
    pub(super) fn heal(&self) -> Result<()> {
        for n in 0..self.len() {
            let members: Vec<usize> = (0..self.process(n).links.len()).collect();
            self.cut(n, &members, false);
            self.thaw(n)?;
            self.spawn(n)?;
        }
        Ok(())
    }

    /// How a process has ended that nobody killed, if one has since the last look.
    pub(super) fn ended(&self) -> Option<String> {
        (0..self.len()).find_map(|n| {
            let mut process = self.process(n);
            let status = process.child.as_mut()?.try_wait().ok().flatten()?;
            process.child = None;
            Some(format!("{} ended by itself with {status}", process.name))
        })
    }

    /// A process's metrics, in Prometheus' text form; `None` if it does not answer.
    pub(super) async fn metrics(&self, n: usize) -> Option<String> {
        let endpoint = self.process(n).metrics.clone();
        let asked = tokio::task::spawn_blocking(move || http_get(&endpoint, "/metrics"));
        let (code, text) = tokio::time::timeout(SCRAPE_MAX, asked).await.ok()?.ok()?.ok()?;
        (code == 200).then_some(text)
    }

    /// Asks all to stop, and waits for them.
    ///
    /// - Errors: one that does not stop in time, or not in order.
    pub(super) fn stop(&self) -> Result<()> {
        for n in 0..self.len() {
            if let Some(child) = &mut self.process(n).child {
                drop(child.stdin.take());
            }
        }
        for n in 0..self.len() {
            let mut process = self.process(n);
            let deadline = Instant::now() + STOP_MAX;
            while let Some(child) = &mut process.child {
                if let Some(status) = child.try_wait()? {
                    process.child = None;
                    ensure!(status.success(), "{} ended with {status} when it was asked to stop", process.name);
                    break;
                }
                ensure!(Instant::now() < deadline, "{} does not stop within {STOP_MAX:?}", process.name);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Each process's log: its name, and what it printed in all its lives.
    ///
    /// - Errors: a log cannot be opened.
    pub(super) fn logs(&self) -> Result<Vec<(String, BufReader<File>)>> {
        let open = |n| {
            let process = self.process(n);
            let file = File::open(&process.log).with_context(|| format!("open {}", process.log.display()))?;
            anyhow::Ok((process.name.clone(), BufReader::new(file)))
        };
        (0..self.len()).map(open).collect()
    }
}

/// The sum of a metric over all its labels, in Prometheus' text form.
pub(super) fn sum_of(text: &str, name: &str) -> f64 {
    let number = |line: &str| {
        let (metric, number) = line.rsplit_once(' ')?;
        let own = metric.split('{').next().unwrap_or_default() == name;
        own.then(|| number.parse::<f64>().ok()).flatten()
    };
    text.lines().filter_map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_no_other_is() {
        let text = "# TYPE a_total counter\na_total{x=\"1 2\"} 3\na_total{x=\"b\"} 4\na_total_more 9\nb 1\n";
        assert_eq!((sum_of(text, "a_total"), sum_of(text, "b"), sum_of(text, "c")), (7.0, 1.0, 0.0));
    }
}
