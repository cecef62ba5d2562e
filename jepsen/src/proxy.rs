//! A TCP proxy in front of one port, whose links can be cut, delayed, stalled and reset, each direction by itself.
//!
//! In front of a peer port it tells the other members apart by the system's table of sockets, so that they need to know
//! nothing of it; in front of a client port all connections are one link.

use crate::limits::{PIECE_BYTES, PIECES_MAX};
use anyhow::Result;
use mechi_tests::proxy::{Pids, identify};
use mechi_tests::rng::Rng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How long a lost packet holds up what comes after it: TCP's least time before it is sent again.
const STALL: Duration = Duration::from_millis(200);

/// What happens to one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Nothing passes; what was sent waits, as a TCP sender tries again.
    pub is_cut: bool,
    /// Each piece waits so long.
    pub delay: Duration,
    /// Of a hundred pieces, so many are lost once: they and what follows wait [`STALL`] longer.
    pub loss_percent: u64,
}

/// What a link does with what goes over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// From who dialled.
    pub there: Way,
    /// To who dialled.
    pub back: Way,
    /// Raised to close the connections that are open.
    pub resets: u64,
}

impl Rule {
    fn is_cut(&self) -> bool {
        self.there.is_cut || self.back.is_cut
    }
}

/// How a proxy knows who dialled.
#[derive(Clone)]
pub enum Diallers {
    /// Everybody is link 0.
    Anybody,
    /// The member with this process.
    Members(Pids),
}

/// A proxy; it ends when it is dropped.
pub struct Proxy {
    /// Where it is dialled.
    pub port: u16,
    links: Arc<Mutex<BTreeMap<usize, watch::Sender<Rule>>>>,
    touched: Arc<AtomicU64>,
    open: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on `listen` and passes on to `to`; must be called in a runtime, on which it then runs.
    ///
    /// While it is closed (it begins open) nobody listens, so that a dialler is refused as by a host whose server is
    /// down; `listen` should be kept by the caller meanwhile.
    pub fn start(listen: SocketAddr, to: SocketAddr, diallers: Diallers, seed: u64) -> Result<Self> {
        let bind = move || {
            let listener = std::net::TcpListener::bind(listen)?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        let mut listener = Some(bind()?);
        let port = listen.port();
        let links = Arc::new(Mutex::new(BTreeMap::<usize, watch::Sender<Rule>>::new()));
        let touched = Arc::new(AtomicU64::new(0));
        let (open, mut opened) = watch::channel(true);
        let (all, counter) = (links.clone(), touched.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for number in 0_u64.. {
                let accepted = loop {
                    let is_open = *opened.borrow_and_update();
                    match (&listener, is_open) {
                        (Some(_), false) => listener = None,
                        // The port is kept for us; what fails now is tried again.
                        (None, true) => match bind() {
                            Ok(bound) => listener = Some(bound),
                            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                        },
                        (None, false) => {
                            if opened.changed().await.is_err() {
                                return;
                            }
                        }
                        (Some(listening), true) => tokio::select! {
                            accepted = listening.accept() => break accepted,
                            changed = opened.changed() => if changed.is_err() { return },
                        },
                    }
                };
                while connections.try_join_next().is_some() {}
                let Ok((dialled, address)) = accepted else { continue };
                let (all, diallers, touched) = (all.clone(), diallers.clone(), counter.clone());
                connections.spawn(async move {
                    let from = match diallers {
                        Diallers::Anybody => 0,
                        Diallers::Members(pids) => match identify(address.port(), port, pids).await {
                            Some(from) => from,
                            None => return,
                        },
                    };
                    let link = all.lock().expect("nobody panics with it").entry(from).or_default().subscribe();
                    // However the connection ended: its two ends know.
                    let _ = pass(dialled, to, link, touched, Rng::new(seed ^ number << 8)).await;
                });
            }
        });
        Ok(Self { port, links, touched, open, task })
    }

    /// Changes the rule of the link from `from`.
    pub fn change(&self, from: usize, change: impl FnOnce(&mut Rule)) {
        self.links.lock().expect("nobody panics with it").entry(from).or_default().send_modify(change);
    }

    /// Listens, or does not.
    pub fn set_open(&self, is_open: bool) {
        self.open.send_if_modified(|open| std::mem::replace(open, is_open) != is_open);
    }

    /// How many pieces and connections were held up, delayed or closed by a rule so far.
    pub fn touched(&self) -> u64 {
        self.touched.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts once what a rule does to somebody who meets it, and waits until no rule holds it up any more.
async fn wait_uncut(link: &mut watch::Receiver<Rule>, is_cut: fn(&Rule) -> bool, touched: &AtomicU64) -> Result<()> {
    if is_cut(&link.borrow()) {
        touched.fetch_add(1, Ordering::Relaxed);
        link.wait_for(|rule| !is_cut(rule)).await?;
    }
    Ok(())
}

async fn pass(
    dialled: TcpStream,
    to: SocketAddr,
    link: watch::Receiver<Rule>,
    touched: Arc<AtomicU64>,
    mut rng: Rng,
) -> Result<()> {
    let resets = link.borrow().resets;
    let (mut first, mut watched) = (link.clone(), link.clone());
    let both = async {
        // A link that is cut does not even connect: that takes both directions.
        wait_uncut(&mut first, Rule::is_cut, &touched).await?;
        let reached = TcpStream::connect(to).await?;
        reached.set_nodelay(true)?;
        dialled.set_nodelay(true)?;
        let (from_read, from_write) = dialled.into_split();
        let (to_read, to_write) = reached.into_split();
        let there =
            Pump { link: link.clone(), way: |rule| rule.there, touched: &touched, rng: Rng::new(rng.next_u64()) };
        let back = Pump { link: link.clone(), way: |rule| rule.back, touched: &touched, rng: Rng::new(rng.next_u64()) };
        // Either end's end is the connection's.
        tokio::select! {
            ended = there.run(from_read, to_write) => ended,
            ended = back.run(to_read, from_write) => ended,
        }
    };
    tokio::select! {
        ended = both => ended,
        _ = watched.wait_for(|rule| rule.resets > resets) => {
            touched.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }
}

/// One direction of one connection.
struct Pump<'a> {
    link: watch::Receiver<Rule>,
    way: fn(&Rule) -> Way,
    touched: &'a AtomicU64,
    rng: Rng,
}

impl Pump<'_> {
    /// Passes on until one of the ends has ended: a line of pieces, each with the time at which it arrives.
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<()> {
        let (tx, mut rx) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
        let (mut link, way, touched) = (self.link.clone(), self.way, self.touched);
        let read = async move {
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                let read = from.read(&mut piece).await?;
                if read == 0 {
                    return anyhow::Ok(());
                }
                let now = way(&self.link.borrow());
                let mut wait = now.delay;
                if self.rng.chance(now.loss_percent) {
                    wait += STALL;
                }
                if !wait.is_zero() {
                    touched.fetch_add(1, Ordering::Relaxed);
                }
                if tx.send((Instant::now() + wait, piece[..read].to_vec())).await.is_err() {
                    return Ok(());
                }
            }
        };
        let write = async move {
            while let Some((due, piece)) = rx.recv().await {
                if due > Instant::now() {
                    tokio::time::sleep_until(due).await;
                }
                while way(&link.borrow()).is_cut {
                    touched.fetch_add(1, Ordering::Relaxed);
                    link.wait_for(|rule| !way(rule).is_cut).await?;
                }
                to.write_all(&piece).await?;
            }
            to.shutdown().await?;
            anyhow::Ok(())
        };
        tokio::try_join!(read, write).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_tests::port::Port;

    /// A server that answers each byte with the same, and a proxy before it.
    async fn echo() -> (Proxy, Port, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let to = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut byte = [0];
                    while let Ok(1) = stream.read(&mut byte).await {
                        if stream.write_all(&byte).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let kept = Port::keep();
        let listen = SocketAddr::from(([127, 0, 0, 1], kept.number()));
        (Proxy::start(listen, to, Diallers::Anybody, 1).expect("starts"), kept, listen)
    }

    async fn ask(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
        stream.write_all(&[byte]).await?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await?;
        Ok(answer[0])
    }

    #[tokio::test]
    async fn a_direction_that_is_cut_holds_what_was_sent_until_it_is_healed() {
        let (proxy, _kept, listen) = echo().await;
        let mut stream = TcpStream::connect(listen).await.expect("connects");
        assert_eq!(ask(&mut stream, 1).await.expect("answers"), 1);
        assert_eq!(proxy.touched(), 0);
        proxy.change(0, |rule| rule.back.is_cut = true);
        stream.write_all(&[2]).await.expect("is taken");
        while proxy.touched() == 0 {
            tokio::task::yield_now().await;
        }
        let mut answer = [0];
        assert!(stream.try_read(&mut answer).is_err(), "the answer is held");
        proxy.change(0, |rule| rule.back.is_cut = false);
        stream.read_exact(&mut answer).await.expect("is passed on");
        assert_eq!(answer, [2]);
    }

    #[tokio::test]
    async fn a_reset_ends_connections_and_new_ones_come_through() {
        let (proxy, _kept, listen) = echo().await;
        let mut stream = TcpStream::connect(listen).await.expect("connects");
        assert_eq!(ask(&mut stream, 1).await.expect("answers"), 1);
        proxy.change(0, |rule| rule.resets += 1);
        let mut rest = Vec::new();
        // An end or an error, and not a wait.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        let mut stream = TcpStream::connect(listen).await.expect("connects again");
        assert_eq!(ask(&mut stream, 3).await.expect("answers"), 3);
    }

    #[tokio::test]
    async fn a_closed_proxy_refuses_and_an_open_one_takes_again() {
        let (proxy, _kept, listen) = echo().await;
        proxy.set_open(false);
        while TcpStream::connect(listen).await.is_ok() {
            tokio::task::yield_now().await;
        }
        proxy.set_open(true);
        let mut stream = loop {
            match TcpStream::connect(listen).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(ask(&mut stream, 4).await.expect("answers"), 4);
    }

    #[tokio::test]
    async fn lost_and_delayed_pieces_come_late_and_in_order() {
        let (proxy, _kept, listen) = echo().await;
        let slow = Way { delay: Duration::from_millis(30), loss_percent: 100, is_cut: false };
        proxy.change(0, |rule| rule.there = slow);
        let mut stream = TcpStream::connect(listen).await.expect("connects");
        let began = Instant::now();
        for byte in 0..3 {
            assert_eq!(ask(&mut stream, byte).await.expect("answers"), byte);
        }
        assert!(began.elapsed() >= 3 * (STALL + slow.delay), "{:?}", began.elapsed());
        assert_eq!(proxy.touched(), 3);
    }
}
