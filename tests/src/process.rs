//! A real server process on loopback: Mechi or etcd, started on free ports, killed when dropped.

use crate::oracle;
use crate::port::Port;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a start may take; a rebuilt store of some GiB is within it.
const START_MAX: Duration = Duration::from_secs(120);

/// How long the answer to one HTTP request may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Mechi: the program of this build, if no other is named.
    Mechi,
    /// etcd: 3.5.1, if no other is named.
    Etcd,
}

/// A server process and its data directory.
pub struct Server {
    /// Which server it is.
    pub kind: Kind,
    child: Option<Child>,
    /// The folder that holds the data directory (`data`) and the logs (`log.N`).
    pub home: PathBuf,
    _temp: Option<TempDir>,
    /// Extra flags, kept over restarts.
    pub flags: Vec<String>,
    /// Extra environment, kept over restarts.
    pub env: Vec<(String, String)>,
    /// The server's program, if it is not the one of [`Kind`].
    pub program: Option<PathBuf>,
    /// A program and its arguments that start the server's program (`nsenter …`); empty for none.
    pub wrapper: Vec<String>,
    /// `--name`.
    pub name: String,
    /// The peer URL that others are told, if it is not the one that is listened to.
    pub advertised_peer_url: Option<String>,
    /// `--initial-cluster`, if it is not this server alone.
    pub initial_cluster: Option<String>,
    client_port: Port,
    /// Where peers are listened to.
    pub peer_port: Port,
    starts: u32,
}

impl Server {
    /// Starts a server with an empty data directory and waits until it serves.
    pub fn start(kind: Kind, flags: &[&str]) -> Result<Self> {
        let temp = tempfile::Builder::new().prefix("mechi-test-").tempdir()?;
        let mut server = Self::at(kind, temp.path(), flags);
        server._temp = Some(temp);
        server.spawn()?;
        Ok(server)
    }

    /// Describes a server whose data directory is `home/data`; [`Server::spawn`] starts it.
    pub fn at(kind: Kind, home: &Path, flags: &[&str]) -> Self {
        Self {
            kind,
            child: None,
            home: home.to_owned(),
            _temp: None,
            flags: flags.iter().map(|flag| flag.to_string()).collect(),
            env: Vec::new(),
            program: None,
            wrapper: Vec::new(),
            name: "m1".to_owned(),
            advertised_peer_url: None,
            initial_cluster: None,
            client_port: Port::keep(),
            peer_port: Port::keep(),
            starts: 0,
        }
    }

    /// `127.0.0.1:PORT` of the client URL.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Starts the process (again) and waits until it serves.
    pub fn spawn(&mut self) -> Result<()> {
        self.spawn_only()?;
        self.wait_ready()
    }

    /// Starts the process without waiting.
    pub fn spawn_only(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the server already runs");
        self.starts += 1;
        let log = File::create(self.log_path())?;
        let (client, peer) = (format!("http://{}", self.endpoint()), format!("http://127.0.0.1:{}", self.peer_port));
        let advertised = self.advertised_peer_url.as_ref().unwrap_or(&peer);
        let alone = format!("{}={advertised}", self.name);
        let cluster = self.initial_cluster.as_ref().unwrap_or(&alone);
        let program = match (&self.program, self.kind) {
            (Some(program), _) => program.clone(),
            (None, Kind::Mechi) => oracle::mechi(),
            (None, Kind::Etcd) => oracle::etcd(),
        };
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, args)) => {
                let mut command = Command::new(wrapper);
                command.args(args).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        let child = command
            .arg(format!("--name={}", self.name))
            .arg(format!("--data-dir={}", self.data_dir().display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={advertised}"))
            .arg(format!("--initial-cluster={cluster}"))
            .args(&self.flags)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `/health` answers 200.
    pub fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()).transpose()? {
                bail!("the server ended at start with {status}; its log:\n{}", self.log());
            }
            if http_get(&self.endpoint(), "/health").is_ok_and(|(code, _)| code == 200) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the server does not serve; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the process to end by itself; returns its exit status.
    pub fn wait_exit(&mut self, max: Duration) -> Result<std::process::ExitStatus> {
        let deadline = Instant::now() + max;
        let child = self.child.as_mut().context("the server does not run")?;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "the server did not end within {max:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        send_signal(self.pid().context("the server does not run")?, signal)
    }

    /// SIGSTOP, and waits until every thread stands still: what is sent after that is not looked at.
    pub fn freeze(&self) -> Result<()> {
        freeze(self.pid().context("the server does not run")?)
    }

    /// kill -9, and waits until the process is gone.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits until the process is gone.
    pub fn stop(&mut self) -> Result<std::process::ExitStatus> {
        self.signal(15)?;
        self.wait_exit(Duration::from_secs(60))
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn log_path(&self) -> PathBuf {
        self.home.join(format!("log.{}", self.starts))
    }

    /// What the running (or last) process printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Sends a signal to a process that the caller has started and not waited for yet.
pub fn send_signal(pid: u32, signal: i32) -> Result<()> {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status()?;
    ensure!(status.success(), "kill -{signal} failed");
    Ok(())
}

/// SIGSTOP to such a process, and waits until every thread stands still: what is sent after that is not looked at.
pub fn freeze(pid: u32) -> Result<()> {
    send_signal(pid, 19)?;
    let tasks = format!("/proc/{pid}/task");
    let deadline = Instant::now() + ANSWER_MAX;
    let stands = |stat: String| stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with(['T', 't']));
    loop {
        let stats = std::fs::read_dir(&tasks)?.flatten().map(|task| std::fs::read_to_string(task.path().join("stat")));
        // A thread that has ended meanwhile does nothing either.
        if stats.flatten().all(stands) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the process does not stand still");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One HTTP/1.1 GET; returns the status code and the body.
pub fn http_get(endpoint: &str, path: &str) -> Result<(u16, String)> {
    http(endpoint, &format!("GET {path} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n"))
}

/// One raw HTTP/1.1 exchange; returns the status code and the body.
pub fn http(endpoint: &str, request: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(endpoint)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the headers")?;
    let code = head.split(' ').nth(1).context("no status code")?.parse()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((code, if chunked { dechunk(body) } else { body.to_owned() }))
}

fn dechunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((len, rest)) = body.split_once("\r\n") {
        let len = usize::from_str_radix(len.trim(), 16).unwrap_or(0);
        if len == 0 {
            break;
        }
        out.push_str(rest.get(..len).unwrap_or(rest));
        body = rest.get(len + 2..).unwrap_or_default();
    }
    out
}
