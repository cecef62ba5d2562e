//! A TCP proxy in front of one member's peer port, which tells the other members apart: each directed link can be cut,
//! delayed and reset by itself.
//!
//! Who dialled is found out from the system's table of sockets, so the members need to know nothing of it.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 64 << 10;

/// Looks at the table of sockets before a connection is given up, and the time between two.
const LOOKS: usize = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a link does with what goes over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Nothing passes, in neither direction of the connections that the link's source dialled; what was sent waits.
    pub is_cut: bool,
    /// Each piece waits so long.
    pub delay: Duration,
    /// Raised to close the connections that are open.
    pub resets: u64,
}

/// The process ids of the members; `None` for one that does not run.
pub type Pids = Arc<Mutex<Vec<Option<u32>>>>;

/// A proxy in front of member `to`.
pub struct Proxy {
    /// Where the other members dial.
    pub port: u16,
    links: Arc<Mutex<BTreeMap<usize, watch::Sender<Rule>>>>,
}

impl Proxy {
    /// Listens on a free port and passes on to `to`; must be called in a runtime, on which it then runs.
    pub fn start(to: SocketAddr, pids: Pids) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let port = listener.local_addr()?.port();
        let links = Arc::new(Mutex::new(BTreeMap::<usize, watch::Sender<Rule>>::new()));
        let all = links.clone();
        tokio::spawn(async move {
            while let Ok((dialled, address)) = listener.accept().await {
                let (all, pids) = (all.clone(), pids.clone());
                tokio::spawn(async move {
                    let Some(from) = identify(address.port(), port, pids).await else { return };
                    let link = all.lock().expect("nobody panics with it").entry(from).or_default().subscribe();
                    // However the connection ended: its two ends know.
                    let _ = pass(dialled, to, link).await;
                });
            }
        });
        Ok(Self { port, links })
    }

    /// Changes the rule of the link from member `from`.
    pub fn change(&self, from: usize, change: impl FnOnce(&mut Rule)) {
        self.links.lock().expect("nobody panics with it").entry(from).or_default().send_modify(change);
    }
}

/// One look at a time: a machine without time for all of them gets none done, and those who dialled dial again.
static TURN: Semaphore = Semaphore::const_new(1);

/// Which member dialled; `None` for one that has hung up. A process that has just begun is not known yet.
pub async fn identify(port: u16, to: u16, pids: Pids) -> Option<usize> {
    for _ in 0..LOOKS {
        let turn = TURN.acquire().await;
        let known = pids.lock().expect("nobody panics with it").clone();
        // The table may be long: what is passed on must not wait for it.
        let found = tokio::task::spawn_blocking(move || dialler(port, to, &known)).await.ok()?;
        drop(turn);
        match found {
            Dialler::Member(from) => return Some(from),
            Dialler::Gone => return None,
            Dialler::Unknown => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
    None
}

/// Who holds a socket.
enum Dialler {
    Member(usize),
    Unknown,
    Gone,
}

/// Who holds the socket with local port `port` that is connected to `to`.
fn dialler(port: u16, to: u16, pids: &[Option<u32>]) -> Dialler {
    let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else { return Dialler::Unknown };
    let (local, remote) = (format!("0100007F:{port:04X}"), format!("0100007F:{to:04X}"));
    let inode = table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_it = fields.next() == Some(&local) && fields.next() == Some(&remote);
        if is_it { fields.nth(6) } else { None }
    });
    // What is closed already has no inode any more.
    let Some(inode) = inode.filter(|inode| *inode != "0") else { return Dialler::Gone };
    let name = format!("socket:[{inode}]");
    let holds = |pid: &Option<u32>| {
        let files = pid.and_then(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok());
        files
            .into_iter()
            .flatten()
            .flatten()
            .any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == name.as_str()))
    };
    pids.iter().position(holds).map_or(Dialler::Unknown, Dialler::Member)
}

async fn pass(dialled: TcpStream, to: SocketAddr, link: watch::Receiver<Rule>) -> Result<()> {
    let resets = link.borrow().resets;
    let mut watched = link.clone();
    let both = async {
        // A link that is cut does not even connect.
        let mut link = link;
        link.wait_for(|rule| !rule.is_cut).await?;
        let reached = TcpStream::connect(to).await?;
        reached.set_nodelay(true)?;
        dialled.set_nodelay(true)?;
        let (from_read, from_write) = dialled.into_split();
        let (to_read, to_write) = reached.into_split();
        // Either end's end is the connection's.
        tokio::select! {
            ended = pump(from_read, to_write, link.clone()) => ended,
            ended = pump(to_read, from_write, link.clone()) => ended,
        }
    };
    tokio::select! {
        ended = both => ended,
        _ = watched.wait_for(|rule| rule.resets > resets) => Ok(()),
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<Rule>) -> Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            to.shutdown().await.context("end")?;
            return Ok(());
        }
        let delay = link.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        link.wait_for(|rule| !rule.is_cut).await?;
        to.write_all(&piece[..read]).await?;
    }
}
