//! Measures how long a cluster of three does not acknowledge a write after its leader is gone: Mechi beside etcd.
//!
//! `failover [--rounds N] [--kinds mechi,etcd] [--ends kill,term]`, default flags, real processes on loopback without
//! proxies. Writers put through the two members that stay, one write each 2 ms whether or not the last was answered. For
//! kill -9 the time runs from the signal to the first acknowledgement of a write that began after it; for SIGTERM, where
//! leadership is handed over, it is the longest time between two acknowledgements around the signal.

use anyhow::{Context, Result, bail};
use mechi_tests::client::Client;
use mechi_tests::cluster::Cluster;
use mechi_tests::process::Kind;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

const MEMBERS: usize = 3;

/// Time between two writes of one writer.
const PACE: Duration = Duration::from_millis(2);

/// Writes of one writer that wait for an answer; beyond, it sends none until one is answered or given up.
const WAITING_MAX: usize = 512;

/// How long a write may take before its writer gives it up. Far fewer than [`WAITING_MAX`] begin in that time: a server
/// that never answers what came while it had no leader (etcd) must not be kept from the writes that come later.
const GIVE_UP: Duration = Duration::from_millis(500);

/// How long the writers run before the leader goes, and after that writes are acknowledged again.
const AROUND: Duration = Duration::from_millis(300);

/// How long a cluster may be without a leader.
const RECOVER_MAX: Duration = Duration::from_secs(60);

/// How the leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Kill,
    Term,
}

/// An acknowledged write: when it began, and when it was answered.
type Acked = (Instant, Instant);

struct Options {
    rounds: usize,
    kinds: Vec<Kind>,
    ends: Vec<End>,
}

fn main() -> Result<()> {
    let options = options()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut tables = BTreeMap::<End, Vec<String>>::new();
    for kind in &options.kinds {
        for end in &options.ends {
            let mut times = runtime.block_on(measure(*kind, *end, options.rounds))?;
            times.sort_unstable();
            let at = |part: usize| times[((times.len() * part).div_ceil(100)).max(1) - 1].as_secs_f64() * 1e3;
            let row = format!(
                "| {kind:?} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
                times.len(),
                at(0),
                at(50),
                at(99),
                at(100)
            );
            tables.entry(*end).or_default().push(row);
        }
    }
    for (end, rows) in tables {
        let title = match end {
            End::Kill => "kill -9 of the leader to the next acknowledged write, ms",
            End::Term => "SIGTERM of the leader: longest gap between two acknowledged writes, ms",
        };
        println!("\n{title}\n\n| server | rounds | least | p50 | p99 | most |\n| --- | --- | --- | --- | --- | --- |");
        rows.iter().for_each(|row| println!("{row}"));
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("\nload average at the end: {}", load.trim());
    Ok(())
}

fn options() -> Result<Options> {
    let mut options = Options { rounds: 50, kinds: vec![Kind::Mechi, Kind::Etcd], ends: vec![End::Kill, End::Term] };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--rounds" => options.rounds = value.parse().with_context(|| format!("--rounds {value}"))?,
            "--kinds" => options.kinds = value.split(',').map(kind).collect::<Result<_>>()?,
            "--ends" => options.ends = value.split(',').map(end).collect::<Result<_>>()?,
            _ => bail!("unknown option {name}; there are --rounds, --kinds and --ends"),
        }
    }
    if options.rounds == 0 {
        bail!("--rounds 0 measures nothing");
    }
    Ok(options)
}

fn kind(name: &str) -> Result<Kind> {
    match name {
        "mechi" => Ok(Kind::Mechi),
        "etcd" => Ok(Kind::Etcd),
        _ => bail!("unknown server {name}; there are mechi and etcd"),
    }
}

fn end(name: &str) -> Result<End> {
    match name {
        "kill" => Ok(End::Kill),
        "term" => Ok(End::Term),
        _ => bail!("unknown end {name}; there are kill and term"),
    }
}

async fn measure(kind: Kind, end: End, rounds: usize) -> Result<Vec<Duration>> {
    let mut cluster = tokio::task::block_in_place(|| Cluster::direct(kind, MEMBERS, &[]))?;
    let mut times = Vec::new();
    for round in 1..=rounds {
        let leader = cluster.leader().await?;
        let time = one_round(&mut cluster, leader, end).await?;
        progress(&format!("{kind:?} {end:?} {round}/{rounds}: {:.0} ms", time.as_secs_f64() * 1e3));
        times.push(time);
        tokio::task::block_in_place(|| cluster.spawn(leader))?;
    }
    progress("");
    Ok(times)
}

/// Shows how far it is, where somebody looks.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        // Whoever looks misses nothing but progress if it cannot be written.
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }
}

async fn one_round(cluster: &mut Cluster, leader: usize, end: End) -> Result<Duration> {
    let (stop, (acked, mut acks)) = (Arc::new(AtomicBool::new(false)), mpsc::unbounded_channel());
    let mut writers = Vec::new();
    for n in (0..MEMBERS).filter(|n| *n != leader) {
        let client = Client::connect(&cluster.members[n].endpoint()).await?;
        writers.push(tokio::spawn(write(client, acked.clone(), stop.clone())));
    }
    drop(acked);
    tokio::time::sleep(AROUND).await;
    let gone = Instant::now();
    match end {
        End::Kill => tokio::task::block_in_place(|| cluster.kill(leader))?,
        End::Term => cluster.members[leader].signal(15)?,
    }
    let mut all: Vec<Acked> = Vec::new();
    let deadline = gone + RECOVER_MAX;
    loop {
        let ack = tokio::time::timeout(deadline - Instant::now(), acks.recv()).await;
        let ack = ack.context("no write was acknowledged within a minute")?.context("the writers live")?;
        all.push(ack);
        if ack.0 > gone && ack.1 > gone + AROUND {
            break;
        }
    }
    stop.store(true, Relaxed);
    if end == End::Term {
        tokio::task::block_in_place(|| cluster.members[leader].wait_exit(RECOVER_MAX))?;
        tokio::task::block_in_place(|| cluster.kill(leader))?;
    }
    for writer in writers {
        writer.await?;
    }
    Ok(match end {
        End::Kill => {
            let first = all.iter().filter(|(began, _)| *began > gone).map(|(_, answered)| *answered).min();
            first.context("a write that began later was acknowledged")? - gone
        }
        End::Term => {
            let mut answered: Vec<Instant> = all.iter().map(|(_, answered)| *answered).collect();
            answered.sort_unstable();
            let from = answered.partition_point(|at| *at < gone).saturating_sub(1);
            let gaps = answered[from..].windows(2).map(|pair| pair[1] - pair[0]);
            gaps.max().context("writes were acknowledged")?
        }
    })
}

/// Puts through one member at an even pace until told to stop, and tells of each acknowledgement.
async fn write(client: Client, acked: mpsc::UnboundedSender<Acked>, stop: Arc<AtomicBool>) {
    let places = Arc::new(Semaphore::new(WAITING_MAX));
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut number = 0u64;
    while !stop.load(Relaxed) {
        pace.tick().await;
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (mut client, acked) = (client.clone(), acked.clone());
        number += 1;
        tokio::spawn(async move {
            let began = Instant::now();
            let put = client.put(format!("failover/{}", number % 100), "x");
            if let Ok(Ok(_)) = tokio::time::timeout(GIVE_UP, put).await {
                // Nobody listens after the round.
                let _ = acked.send((began, Instant::now()));
            }
            drop(place);
        });
    }
}
