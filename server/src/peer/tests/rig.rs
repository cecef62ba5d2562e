//! One member's end of the connections, what it heard, and a link that can be cut.

use super::super::peers::message_bytes_max;
use super::super::{Events, Later, Outgoing, Peers, PeersConfig, Pins};
use crate::config::urls::Url;
use crate::config::{Keepalive, SocketOptions};
use crate::disk::RealDisk;
use crate::listen::{Handlers, Limits, Listener, serve};
use crate::metrics::names::Network;
use axum::Router;
use bytes::Bytes;
use mechi_proto::mvccpb::KeyValue;
use mechi_replica::disk;
use mechi_replica::disk::images::Numbers;
use mechi_replica::lease::lessor::Remaining;
use mechi_replica::outcome::Error;
use mechi_replica::record::Record;
use mechi_replica::snapshot::chunk;
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::store::applied::Tally;
use mechi_replica::store::block::Entry;
use mechi_replica::types::{Index, LeaseId, MemberId, Revision, Term};
use parking_lot::{Condvar, Mutex};
use prost::Message as _;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Far more than anything here takes.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

pub(super) const CLUSTER: u64 = 0xc1;

/// What a member was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Raft(MemberId, Bytes),
    Batch(MemberId, Bytes),
    Refused(MemberId, u64, u64, String),
    Digest(MemberId, Index, u64),
    Unreachable(MemberId),
    Reset(MemberId),
    Sent(MemberId, bool),
    Received(Index, Term),
}

/// Notes what it is told.
pub(super) struct Recorder {
    heard: Sender<Heard>,
    /// While closed, batches are read no further.
    gate: Arc<Gate>,
}

#[derive(Default)]
pub(super) struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn set(&self, closed: bool) {
        *self.closed.lock() = closed;
        self.changed.notify_all();
    }

    /// Waits while it is closed.
    fn pass(&self) {
        let mut closed = self.closed.lock();
        while *closed {
            self.changed.wait(&mut closed);
        }
    }
}

impl Recorder {
    fn note(&self, heard: Heard) {
        // A test that has ended listens no more.
        let _ = self.heard.send(heard);
    }
}

impl Events for Recorder {
    fn raft(&self, from: MemberId, message: Bytes) {
        self.note(Heard::Raft(from, message));
    }

    fn batch(&self, from: MemberId, batch: Bytes) {
        tokio::task::block_in_place(|| self.gate.pass());
        self.note(Heard::Batch(from, batch));
    }

    fn batch_refused(&self, from: MemberId, boot: u64, number: u64, why: &str) {
        self.note(Heard::Refused(from, boot, number, why.to_owned()));
    }

    fn digest(&self, from: MemberId, index: Index, chain: u64) {
        self.note(Heard::Digest(from, index, chain));
    }

    fn unreachable(&self, member: MemberId) {
        self.note(Heard::Unreachable(member));
    }

    fn reset(&self, member: MemberId) {
        self.note(Heard::Reset(member));
    }

    fn snapshot_sent(&self, to: MemberId, ok: bool) {
        self.note(Heard::Sent(to, ok));
    }

    fn snapshot_received(&self, index: Index, term: Term) {
        self.note(Heard::Received(index, term));
    }

    fn keep_alive(&self, id: LeaseId) -> Later<Result<i64, Error>> {
        Box::pin(async move { if id == LeaseId(7) { Ok(60) } else { Err(Error::NotLeader) } })
    }

    fn time_to_live(&self, id: LeaseId) -> Later<Result<Option<Remaining>, Error>> {
        Box::pin(async move { Ok((id == LeaseId(7)).then_some(Remaining { ttl: 0, granted_ttl: 60 })) })
    }
}

/// A port and a directory for a member that does not run yet.
pub(super) struct Place {
    pub(super) id: MemberId,
    pub(super) runtime: Runtime,
    listener: Listener,
    pub(super) dir: Arc<tempfile::TempDir>,
}

impl Place {
    pub(super) fn new(id: u64) -> Self {
        Self::at("http://127.0.0.1:0", id, Arc::new(tempfile::tempdir().unwrap()))
    }

    pub(super) fn at(url: &str, id: u64, dir: Arc<tempfile::TempDir>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
        let listener = {
            let _in = runtime.enter();
            Listener::bind(&Url::parse(url).unwrap(), SocketOptions::default()).unwrap()
        };
        std::fs::create_dir_all(dir.path().join("snap")).unwrap();
        Self { id: MemberId(id), runtime, listener, dir }
    }

    pub(super) fn url(&self) -> Url {
        let address = self.listener.address();
        let scheme = if address.starts_with('/') { "unix" } else { "http" };
        Url::parse(&format!("{scheme}://{address}")).unwrap()
    }

    pub(super) fn config(&self, others: &[(MemberId, Url)]) -> PeersConfig {
        PeersConfig {
            cluster_id: CLUSTER,
            own: self.id,
            others: others.iter().map(|(id, url)| (*id, vec![url.clone()])).collect(),
            disk: RealDisk::new(self.dir.path()),
            snapshots: "snap".into(),
            pins: Arc::default(),
            applied: Arc::new(|| 0),
            // A machine that builds beside the tests may stand still for seconds.
            election_timeout: DEADLINE,
            message_bytes_max: message_bytes_max(1 << 20),
            snapshot_silence: DEADLINE,
            reserve_bytes: 0,
            metrics: Network::new(&prometheus::Registry::new()),
        }
    }

    /// Serves something else than a member.
    pub(super) fn serve(self, service: Router) -> (Runtime, watch::Sender<bool>) {
        let (stop, stopped) = watch::channel(false);
        let keepalive = Keepalive { interval: None, timeout: DEADLINE };
        let limits = Limits { max_concurrent_streams: 100, keepalive };
        let _in = self.runtime.enter();
        drop(serve(self.listener, Handlers { http: None, http2: Some(service) }, limits, stopped));
        drop(_in);
        (self.runtime, stop)
    }

    pub(super) fn start(self, config: PeersConfig) -> End {
        self.start_as(config, super::super::hello::PROTOCOL)
    }

    pub(super) fn start_as(self, config: PeersConfig, protocol: u64) -> End {
        let (heard, hearing) = channel();
        let gate = Arc::<Gate>::default();
        let recorder = Recorder { heard, gate: gate.clone() };
        let pins = config.pins.clone();
        let (id, url) = (self.id, self.url());
        let (stop, stopped) = watch::channel(false);
        let keepalive = Keepalive { interval: None, timeout: DEADLINE };
        let limits = Limits { max_concurrent_streams: 100, keepalive };
        let peers = {
            let _in = self.runtime.enter();
            let peers = Peers::start_as(config, Arc::new(recorder), protocol);
            drop(serve(self.listener, Handlers { http: None, http2: Some(peers.service()) }, limits, stopped));
            peers
        };
        End { id, url, peers, runtime: Some(self.runtime), hearing, gate, pins, dir: self.dir, _stop: stop }
    }
}

/// A running member's connections.
pub(super) struct End {
    pub(super) id: MemberId,
    pub(super) url: Url,
    pub(super) peers: Peers,
    runtime: Option<Runtime>,
    hearing: Receiver<Heard>,
    pub(super) gate: Arc<Gate>,
    pub(super) pins: Arc<Pins>,
    pub(super) dir: Arc<tempfile::TempDir>,
    _stop: watch::Sender<bool>,
}

impl End {
    /// Waits for the next thing that it is told.
    pub(super) fn next(&self) -> Heard {
        self.hearing.recv_timeout(DEADLINE).expect("something is told in time")
    }

    /// Waits until it is told this, and returns what came before.
    pub(super) fn until(&self, wanted: &Heard) -> Vec<Heard> {
        let mut before = Vec::new();
        loop {
            let heard = self.next();
            if heard == *wanted {
                return before;
            }
            before.push(heard);
        }
    }

    /// What it was told and nobody has looked at.
    pub(super) fn rest(&self) -> Vec<Heard> {
        self.hearing.try_iter().collect()
    }

    pub(super) fn raft(&self, to: &End, text: &str, urgent: bool) {
        let message = Bytes::copy_from_slice(text.as_bytes());
        self.peers.send(to.id, Outgoing::Raft { message, urgent });
    }

    pub(super) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it runs")
    }

    /// Whether both connections to this member stand.
    pub(super) fn is_up(&self, to: MemberId) -> bool {
        let member = &self.peers.shared.members[&to];
        member.urgent.is_open() && member.bulk.is_open()
    }

    /// Ends it as a kill does: nothing is said to anybody.
    pub(super) fn kill(mut self) -> (Url, Arc<tempfile::TempDir>) {
        let Some(runtime) = self.runtime.take() else { unreachable!("it runs") };
        runtime.shutdown_background();
        (self.url.clone(), self.dir.clone())
    }

    /// Ends it in order.
    pub(super) fn stop(mut self) {
        let Some(runtime) = self.runtime.take() else { unreachable!("it runs") };
        runtime.block_on(self.peers.stop());
        runtime.shutdown_background();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.gate.set(false);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for something that no event tells.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Starts members that know each other, and waits for all connections.
pub(super) fn cluster(count: u64, change: impl Fn(&mut PeersConfig)) -> Vec<End> {
    let places: Vec<Place> = (1..=count).map(|id| Place::new(id + 9)).collect();
    let urls: Vec<(MemberId, Url)> = places.iter().map(|place| (place.id, place.url())).collect();
    let mut ends = Vec::new();
    for place in places {
        let others: Vec<_> = urls.iter().filter(|(id, _)| *id != place.id).cloned().collect();
        let mut config = place.config(&others);
        change(&mut config);
        ends.push(place.start(config));
    }
    connected(&ends);
    ends
}

pub(super) fn connected(ends: &[End]) {
    for from in ends {
        for to in ends.iter().filter(|to| to.id != from.id) {
            eventually("the members are connected", || from.is_up(to.id));
        }
    }
}

/// Writes a snapshot of chunks that hold random bytes; equal chunks for equal `seeds`.
pub(super) fn snapshot(dir: &std::path::Path, index: Index, term: Term, seeds: &[u64]) -> Manifest {
    let disk = RealDisk::new(dir);
    let mut chunks = Vec::new();
    for (at, seed) in seeds.iter().enumerate() {
        let mut numbers = Numbers::new(*seed);
        let value: Vec<u8> = (0..150_000).flat_map(|_| numbers.next_number().to_le_bytes()).collect();
        let main = 2 + at as i64;
        let record = KeyValue {
            key: Bytes::from_static(b"key"),
            value: value.into(),
            create_revision: 2,
            mod_revision: main,
            version: main - 1,
            lease: 0,
        };
        let record = Record::from_wire(&record.encode_to_vec());
        let (chunk, file) = chunk::encode(&[Entry { revision: Revision::new(main, 0), tombstone: false, record }]);
        disk::write_atomic(&disk, &format!("snap/{}", chunk.name()), &file).unwrap();
        chunks.push(chunk);
    }
    let meta = mechi_proto::mechipb::StateMeta { applied_index: index, applied_term: term, ..Default::default() };
    let manifest = Manifest { meta, tally: Tally::default(), author: 1, chunks };
    disk::write_atomic(&disk, &format!("snap/{}", manifest.name()), &manifest.encode()).unwrap();
    manifest
}

/// Passes bytes on to an address, and cuts the connection that first brings this many back.
pub(super) struct Link {
    pub(super) url: Url,
    /// Bytes that came back over all connections.
    pub(super) back: Arc<AtomicU64>,
    left: Arc<AtomicU64>,
    gate: Arc<Gate>,
}

impl Link {
    pub(super) fn new(to: &Url, cut_after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let target = (to.host().to_owned(), to.port());
        let (back, left) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(cut_after)));
        let (counted, limits) = (back.clone(), left.clone());
        let gate = Arc::<Gate>::default();
        let link_gate = gate.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(server) = TcpStream::connect((&*target.0, target.1)) else { continue };
                let (counted, left) = (counted.clone(), limits.clone());
                let gates = [link_gate.clone(), link_gate.clone()];
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let [there, back] = gates;
                std::thread::spawn(move || {
                    pass(from, to, |_| {
                        there.pass();
                        true
                    })
                });
                std::thread::spawn(move || {
                    let mut mine = 0;
                    pass(server, client, |bytes| {
                        back.pass();
                        mine += bytes;
                        counted.fetch_add(bytes, SeqCst);
                        let limit = left.load(SeqCst);
                        // Once: the next connection passes.
                        !(mine > limit && left.compare_exchange(limit, u64::MAX, SeqCst, SeqCst).is_ok())
                    })
                });
            }
        });
        Self { url, back, left, gate }
    }

    /// Whether a connection was cut.
    pub(super) fn was_cut(&self) -> bool {
        self.left.load(SeqCst) == u64::MAX
    }

    /// From now on nothing passes, and nobody is told.
    pub(super) fn freeze(&self) {
        self.gate.set(true);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut goes_on: impl FnMut(u64) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || !goes_on(read as u64) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
