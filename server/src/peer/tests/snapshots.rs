//! Snapshots by pull: whole, cut, corrupt, vanished, back to back.

use super::rig::*;
use crate::disk::RealDisk;
use crate::peer::Outgoing;
use futures_util::StreamExt;
use futures_util::stream;
use mechi_proto::mechipeerpb::peer_message::Message;
use mechi_proto::mechipeerpb::peer_server::{Peer, PeerServer};
use mechi_proto::mechipeerpb::{
    FetchPart, FetchRequest, PeerEnd, PeerLeaseRequest, PeerLeaseResponse, PeerMessage, PeerProbe,
};
use mechi_replica::snapshot;
use mechi_replica::snapshot::manifest::Manifest;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

fn offer(from: &End, to: &End, manifest: &Manifest) {
    from.peers.send(to.id, Outgoing::Snapshot { index: manifest.index(), term: manifest.term() });
}

fn is_whole(dir: &Path, manifest: &Manifest) -> bool {
    let (newest, _) = snapshot::newest_verified(&RealDisk::new(dir), "snap").unwrap();
    newest.as_ref() == Some(manifest)
}

fn names(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir.join("snap")).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn sent_bytes(end: &End, to: &End) -> u64 {
    end.peers.shared.config.metrics.peer_sent_bytes_total.with_label_values(&[&to.id.to_string()]).get()
}

#[test]
fn a_snapshot_comes_whole_and_only_what_is_missing_is_sent() {
    let ends = cluster(2, |_| {});
    let (a, b) = (&ends[0], &ends[1]);
    let first = snapshot(a.dir.path(), 10, 2, &[1, 2, 3]);
    offer(a, b, &first);
    assert_eq!(b.next(), Heard::Received(10, 2));
    assert_eq!(a.next(), Heard::Sent(b.id, true));
    assert!(is_whole(b.dir.path(), &first));
    let whole = sent_bytes(a, b);

    let second = snapshot(a.dir.path(), 20, 2, &[1, 2, 3, 4]);
    offer(a, b, &second);
    assert_eq!(b.next(), Heard::Received(20, 2));
    assert_eq!(a.next(), Heard::Sent(b.id, true));
    assert!(is_whole(b.dir.path(), &second));
    assert!(sent_bytes(a, b) - whole < whole / 2, "three of four chunks were there");
    assert!(!names(b.dir.path()).iter().any(|name| name.ends_with(".part")));
    for chunk in second.chunks {
        assert!(a.pins.is_pinned(&chunk.name()), "it may be asked for again");
        assert!(b.pins.is_pinned(&chunk.name()), "it is to be installed");
    }
    assert!(!a.pins.is_pinned("identity"));

    // After a kill before the installation the same offer finds everything there.
    let sent = sent_bytes(a, b);
    offer(a, b, &Manifest { chunks: Vec::new(), ..snapshot(a.dir.path(), 20, 2, &[1, 2, 3, 4]) });
    assert_eq!(b.next(), Heard::Received(20, 2));
    assert_eq!(a.next(), Heard::Sent(b.id, true));
    assert!(sent_bytes(a, b) - sent < 100);
}

#[test]
fn what_is_applied_already_is_not_fetched() {
    let ends = cluster(2, |config| config.applied = Arc::new(|| 10));
    let (a, b) = (&ends[0], &ends[1]);
    offer(a, b, &snapshot(a.dir.path(), 10, 2, &[1]));
    assert_eq!(a.next(), Heard::Sent(b.id, true));
    assert_eq!((b.rest(), names(b.dir.path())), (vec![], vec![]));
}

#[test]
fn a_cut_fetch_goes_on_where_it_was() {
    let (a, b) = (Place::new(10), Place::new(11));
    // The third connection over the link is the fetch: only that one brings so much back.
    let link = Link::new(&a.url(), 1_500_000);
    let (to_a, to_b) = (b.config(&[(a.id, link.url.clone())]), a.config(&[(b.id, b.url())]));
    let manifest = snapshot(a.dir.path(), 10, 2, &[1, 2, 3]);
    let ends = [a.start(to_b), b.start(to_a)];
    connected(&ends);
    let [a, b] = &ends;
    offer(a, b, &manifest);
    assert_eq!(b.next(), Heard::Received(10, 2));
    assert_eq!(a.next(), Heard::Sent(b.id, true));
    assert!(is_whole(b.dir.path(), &manifest));
    let once = manifest.bytes();
    let back = link.back.load(SeqCst);
    assert!(link.was_cut() && back > once && back < once + once / 2, "{back} bytes for {once}: not all anew");
}

#[test]
fn what_a_killed_process_left_is_used_if_it_is_right_and_removed_if_not() {
    let ends = cluster(2, |_| {});
    let (a, b) = (&ends[0], &ends[1]);
    let manifest = snapshot(a.dir.path(), 10, 2, &[1, 2, 3]);
    let file = |dir: &Path, name: &str| dir.join("snap").join(name);
    let [right, wrong, long] = [0, 1, 2].map(|at| manifest.chunks[at].name());
    let bytes = std::fs::read(file(a.dir.path(), &right)).unwrap();
    std::fs::write(file(b.dir.path(), &format!("{right}.part")), &bytes[..bytes.len() - 1000]).unwrap();
    std::fs::write(file(b.dir.path(), &format!("{wrong}.part")), vec![0; 500_000]).unwrap();
    std::fs::write(file(b.dir.path(), &format!("{long}.part")), vec![0; 5_000_000]).unwrap();
    std::fs::write(file(b.dir.path(), "of-another.chunk.part"), "old").unwrap();
    std::fs::write(file(b.dir.path(), &format!("{}.part", manifest.name())), "of another member").unwrap();
    offer(a, b, &manifest);
    assert_eq!(b.next(), Heard::Received(10, 2));
    assert!(is_whole(b.dir.path(), &manifest));
    assert_eq!(names(b.dir.path()), names(a.dir.path()));
    // The wrong one's rest came first, then all of it.
    let limit = manifest.bytes() + 800_000 - 1_199_000 + 10_000;
    assert!(sent_bytes(a, b) < limit, "{} of {limit}", sent_bytes(a, b));
}

#[test]
fn a_file_that_vanished_fails_the_offer_and_the_next_one_works() {
    let ends = cluster(2, |_| {});
    let (a, b) = (&ends[0], &ends[1]);
    let manifest = snapshot(a.dir.path(), 10, 2, &[1, 2]);
    std::fs::remove_file(a.dir.path().join("snap").join(manifest.chunks[1].name())).unwrap();
    offer(a, b, &manifest);
    assert_eq!(a.next(), Heard::Sent(b.id, false));
    assert_eq!(b.rest(), []);
    assert!(!names(b.dir.path()).contains(&manifest.name()), "the manifest comes last");
    // Damage that the sender did not notice is the same.
    let damaged = snapshot(a.dir.path(), 12, 2, &[3]);
    let path = a.dir.path().join("snap").join(damaged.chunks[0].name());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    offer(a, b, &damaged);
    assert_eq!(a.next(), Heard::Sent(b.id, false));
    a.peers.send(b.id, Outgoing::Snapshot { index: 11, term: 2 });
    assert_eq!(a.next(), Heard::Sent(b.id, false), "there is no such snapshot");
    let again = snapshot(a.dir.path(), 10, 2, &[1, 2]);
    offer(a, b, &again);
    assert_eq!((b.next(), a.next()), (Heard::Received(10, 2), Heard::Sent(b.id, true)));
}

#[test]
fn reg_18055_double_snapshot() {
    // Two snapshots in short time: each offer is answered once, and the newest comes. etcd panicked at the second.
    let ends = cluster(3, |_| {});
    let (a, b, c) = (&ends[0], &ends[1], &ends[2]);
    let old = snapshot(a.dir.path(), 10, 2, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let new = snapshot(a.dir.path(), 20, 2, &[1, 2, 3, 4, 5, 6, 7, 9]);
    offer(a, b, &old);
    offer(a, b, &new);
    offer(a, c, &new);
    let mut answers = [a.next(), a.next(), a.next()].to_vec();
    answers.sort_by_key(|heard| *heard == Heard::Sent(b.id, true));
    assert!(answers.contains(&Heard::Sent(c.id, true)) && answers.contains(&Heard::Sent(b.id, true)), "{answers:?}");
    b.until(&Heard::Received(20, 2));
    c.until(&Heard::Received(20, 2));
    assert!(is_whole(b.dir.path(), &new) && is_whole(c.dir.path(), &new));
    assert_eq!(a.rest(), [], "each once");
}

#[test]
fn only_files_of_snapshots_on_offer_are_served() {
    let ends = cluster(2, |_| {});
    let (a, b) = (&ends[0], &ends[1]);
    let manifest = snapshot(a.dir.path(), 10, 2, &[1]);
    std::fs::write(a.dir.path().join("secret"), "secret").unwrap();
    let fetch = |file: &str| {
        let shared = &b.peers.shared;
        let request = FetchRequest { cluster_id: CLUSTER, from: b.id.0, file: file.into(), offset: 0 };
        b.runtime().block_on(async {
            let channel = shared.dialer.connect(std::slice::from_ref(&a.url)).await.unwrap();
            let mut client = mechi_proto::mechipeerpb::peer_client::PeerClient::new(channel);
            let request = shared.dialer.request(request, a.id, crate::peer::Lane::Urgent);
            client.fetch(request).await.map(drop).map_err(|status| status.code())
        })
    };
    assert_eq!(fetch(&manifest.name()), Err(tonic::Code::NotFound), "it is not on offer");
    offer(a, b, &manifest);
    assert_eq!(a.next(), Heard::Sent(b.id, true));
    assert_eq!(fetch(&manifest.name()), Ok(()));
    for name in ["../secret", "secret", "", "/etc/passwd", "../snap/x"] {
        assert_eq!(fetch(name), Err(tonic::Code::NotFound), "{name}");
    }
}

#[test]
fn a_snapshot_that_waits_for_its_installation_is_no_garbage() {
    let ends = cluster(2, |_| {});
    let (a, b) = (&ends[0], &ends[1]);
    let manifest = snapshot(a.dir.path(), 10, 2, &[1, 2]);
    offer(a, b, &manifest);
    assert_eq!(b.next(), Heard::Received(10, 2));
    let disk = RealDisk::new(b.dir.path());
    std::fs::write(b.dir.path().join("snap/x.chunk"), "garbage").unwrap();
    let freed = snapshot::collect_garbage_but(&disk, "snap", &[], &|name| b.pins.is_pinned(name)).unwrap();
    assert_eq!(freed, 7);
    assert!(is_whole(b.dir.path(), &manifest));
}

#[test]
fn a_disk_without_room_takes_nothing_and_keeps_nothing() {
    let ends = cluster(2, |config| config.reserve_bytes = u64::MAX);
    let (a, b) = (&ends[0], &ends[1]);
    let manifest = snapshot(a.dir.path(), 10, 2, &[1, 2]);
    let left = b.dir.path().join("snap").join(format!("{}.part", manifest.chunks[0].name()));
    std::fs::write(left, "an earlier attempt's").unwrap();
    offer(a, b, &manifest);
    assert_eq!(a.next(), Heard::Sent(b.id, false));
    assert_eq!((b.rest(), names(b.dir.path())), (vec![], vec![]));
}

/// A member that sends a manifest and then parts that are not what their sum says.
#[derive(Clone)]
struct Liar {
    manifest: Manifest,
    /// What the other member says of the offer.
    taken: Arc<Mutex<Vec<(u64, bool)>>>,
    fetches: Arc<Mutex<u32>>,
}

#[tonic::async_trait]
impl Peer for Liar {
    type MessagesStream = stream::BoxStream<'static, Result<PeerEnd, Status>>;
    type FetchStream = stream::BoxStream<'static, Result<FetchPart, Status>>;

    async fn messages(
        &self,
        request: Request<Streaming<PeerMessage>>,
    ) -> Result<Response<Self::MessagesStream>, Status> {
        let (mut messages, taken) = (request.into_inner(), self.taken.clone());
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                if let Some(Message::Taken(answer)) = message.message {
                    taken.lock().push((answer.index, answer.ok));
                }
            }
        });
        Ok(Response::new(stream::pending().boxed()))
    }

    async fn probe(&self, _: Request<PeerProbe>) -> Result<Response<PeerProbe>, Status> {
        Ok(Response::new(PeerProbe {}))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let encoded = self.manifest.encode();
        let part = if request.into_inner().file == self.manifest.name() {
            FetchPart { crc: crc32c::crc32c(&encoded), file_bytes: encoded.len() as u64, data: encoded.into() }
        } else {
            *self.fetches.lock() += 1;
            let file_bytes = u64::from(self.manifest.chunks[0].file_bytes);
            FetchPart { data: vec![0; 1000].into(), crc: 7, file_bytes }
        };
        Ok(Response::new(stream::iter([Ok(part)]).boxed()))
    }

    async fn keep_alive(&self, _: Request<PeerLeaseRequest>) -> Result<Response<PeerLeaseResponse>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn time_to_live(&self, _: Request<PeerLeaseRequest>) -> Result<Response<PeerLeaseResponse>, Status> {
        Err(Status::unimplemented("no"))
    }
}

/// A liar, and a member that knows it.
fn liar_and_member(silence: Duration) -> (Liar, impl Sized, End) {
    let (a, b) = (Place::new(10), Place::new(11));
    let manifest = snapshot(a.dir.path(), 10, 2, &[1]);
    let liar = Liar { manifest, taken: Arc::default(), fetches: Arc::default() };
    let mut config = b.config(&[(a.id, a.url())]);
    config.snapshot_silence = silence;
    let (id, b) = (a.id, b.start(config));
    let served = a.serve(tonic::service::Routes::new(PeerServer::new(liar.clone())).into_axum_router());
    eventually("the member is connected", || b.is_up(id));
    (liar, served, b)
}

#[test]
fn corrupt_parts_are_refused_in_the_end() {
    let (liar, _served, b) = liar_and_member(DEADLINE);
    let from = mechi_replica::types::MemberId(10);
    b.peers.shared.wanted.send_replace(Some(crate::peer::fetch::Offer { from, index: 10, term: 2 }));
    eventually("the offer is answered", || !liar.taken.lock().is_empty());
    assert_eq!(*liar.taken.lock(), [(10, false)]);
    assert!(*liar.fetches.lock() > 1, "once more might have helped");
    assert!(!b.rest().iter().any(|heard| matches!(heard, Heard::Received(..))));
    assert!(!names(b.dir.path()).contains(&liar.manifest.name()));
}

#[test]
fn a_member_that_never_answers_an_offer_has_failed_it() {
    let (liar, _served, b) = liar_and_member(Duration::from_millis(50));
    let manifest = snapshot(b.dir.path(), 30, 2, &[5]);
    b.peers.send(mechi_replica::types::MemberId(10), Outgoing::Snapshot { index: 30, term: 2 });
    assert_eq!(b.next(), Heard::Sent(mechi_replica::types::MemberId(10), false));
    assert!(liar.taken.lock().is_empty());
    eventually("its files may go", || !b.pins.is_pinned(&manifest.name()));
}

#[test]
fn a_break_and_a_stop_answer_an_offer() {
    let (_liar, served, b) = liar_and_member(DEADLINE);
    snapshot(b.dir.path(), 30, 2, &[5]);
    let to = mechi_replica::types::MemberId(10);
    b.peers.send(to, Outgoing::Snapshot { index: 30, term: 2 });
    eventually("the offer is on its way", || b.pins.is_pinned("000000000000001e-0000000000000002.snap"));
    drop(served);
    b.until(&Heard::Sent(to, false));

    let (_liar, _served, b) = liar_and_member(DEADLINE);
    snapshot(b.dir.path(), 30, 2, &[5]);
    b.peers.send(to, Outgoing::Snapshot { index: 30, term: 2 });
    b.runtime().block_on(b.peers.stop());
    assert_eq!(b.rest(), [Heard::Sent(to, false)]);
}
