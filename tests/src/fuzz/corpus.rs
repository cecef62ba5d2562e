//! Where fuzzing begins: inputs that are right, made by the writers themselves, and the odd ones by hand.
//!
//! `tests/fuzz/corpus/TARGET/` holds both. What [`made`] makes is named `made-*`; whatever else lies there was found once,
//! or thought of, and stays.

use super::parts::{REPAIRED, join};
use super::peer::{LEADER, Trio};
use super::request::METHODS;
use super::snapshot::{self, BUILT};
use super::wal;
use crate::generate;
use crate::rng::Rng;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{self, StateMeta};
use mechi_proto::mechipeerpb::peer_message::Message as Said;
use mechi_proto::mechipeerpb::{Digest, PeerMessage};
use mechi_replica::disk::sim::SimDisk;
use mechi_replica::disk::{self, Disk};
use mechi_replica::effect::HardState;
use mechi_replica::record::{Fields, Record as Value};
use mechi_replica::snapshot::chunk;
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::store::applied::Tally;
use mechi_replica::store::block::Entry;
use mechi_replica::types::Revision;
use mechi_replica::wal::Wal;
use mechi_replica::wal::record::Record;
use prost::Message;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How the name of an input begins that [`made`] makes.
pub const MADE: &str = "made-";

/// The corpus's folder.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// All inputs of a target as they lie there, by name.
pub fn read(target: &str) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut inputs = BTreeMap::new();
    for entry in std::fs::read_dir(folder().join(target))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        inputs.insert(name, std::fs::read(&path)?);
    }
    Ok(inputs)
}

/// The inputs that are made for a target, by name.
///
/// - Panics: if there is no such target.
pub fn made(target: &str) -> BTreeMap<String, Vec<u8>> {
    let inputs = match target {
        "wal" => wal_inputs(),
        "snapshot" => snapshot_inputs(),
        "peer" => peer_inputs(),
        "request" => request_inputs(),
        other => panic!("no target is called {other}"),
    };
    inputs.into_iter().map(|(name, input)| (format!("{MADE}{name}"), input)).collect()
}

type Inputs = Vec<(String, Vec<u8>)>;

/// Logs of one boot and of three, with and without a snapshot, conflicts, a torn tail and a flipped bit.
fn wal_inputs() -> Inputs {
    let mut inputs = Inputs::new();
    let mut add = |name: &str, flags: u8, segments: &[Vec<u8>]| {
        inputs.push((name.to_owned(), join(flags, segments.iter().map(Vec::as_slice))));
        inputs.push((format!("{name}-repaired"), join(flags | REPAIRED, segments.iter().map(Vec::as_slice))));
    };
    let one = segments(&log(&[&[(1, 1), (2, 1), (3, 1)]]));
    add("one-boot", 0, &one);
    let three = segments(&log(&[&[(1, 1), (2, 1)], &[(3, 2), (4, 2), (5, 2)], &[(4, 3), (5, 3)]]));
    add("three-boots-with-a-conflict", 0, &three);
    let snapshot = [vec![vec![3, 2]], three.clone()].concat();
    add("three-boots-over-a-snapshot", 2, &snapshot);
    let mut torn = one.clone();
    if let Some(last) = torn.last_mut() {
        let written = last.iter().rposition(|byte| *byte != 0).unwrap_or_default();
        last.truncate(written / 512 * 512 + 200);
    }
    add("torn-in-the-last-sector", 0, &torn);
    let mut flipped = three;
    if let Some(first) = flipped.first_mut() {
        first[600] ^= 4;
    }
    add("a-flipped-bit-in-the-middle", 0, &flipped);
    inputs
}

/// Writes a log, one list of (index, term) a boot.
fn log(boots: &[&[(u64, u64)]]) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(wal::DIR).expect("an empty disk takes a folder");
    for entries in boots {
        let (mut log, _) = Wal::open(disk.clone(), wal::DIR, wal::OPTIONS, None).expect("it is whole");
        for &(index, term) in *entries {
            let state = HardState { term, vote: 1, commit: index - 1 };
            let entry = wal::entry(index, term, 100 * index as usize);
            log.append(&[Record::Entry(entry), Record::HardState(state)]).expect("the disk has room");
            log.sync().expect("the disk is well");
        }
        log.mark().expect("the disk has room");
    }
    disk
}

/// The segments' bytes without the zeros that were allocated ahead, but whole sectors.
fn segments(disk: &SimDisk) -> Vec<Vec<u8>> {
    let names = disk.list(wal::DIR).expect("the folder is there");
    let segments = names.iter().filter(|name| name.ends_with(".wal"));
    let read = segments.map(|name| disk::read(disk, &disk::join(wal::DIR, name)).expect("it is listed"));
    let cut = read.map(|mut bytes| {
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(written.next_multiple_of(512));
        bytes
    });
    cut.collect()
}

fn row(main: i64, sub: u32, key: &str, value: usize, lease: i64) -> Entry {
    let value = vec![b'v'; value];
    let fields =
        Fields { key: key.as_bytes(), create_revision: main, mod_revision: main, version: 1, value: &value, lease };
    Entry { revision: Revision::new(main, sub), tombstone: false, record: Value::encode(&fields) }
}

fn tombstone(main: i64, key: &str) -> Entry {
    Entry { revision: Revision::new(main, 0), tombstone: true, record: Value::key_only(key.as_bytes()) }
}

/// Snapshots as files, and as records of which chunks are made; with a lease, a tombstone, and a compaction.
fn snapshot_inputs() -> Inputs {
    let first = [row(2, 0, "a", 40, 0), row(2, 1, "b", 400, 7), row(3, 0, "c", 0, 0)];
    let second = [tombstone(4, "c"), row(5, 0, "d/e", 900, 0)];
    let (one, one_file) = chunk::encode(&first);
    let (two, two_file) = chunk::encode(&second);
    let mut tally = Tally::default();
    tally.merge(&one.tally);
    tally.merge(&two.tally);
    let meta = StateMeta {
        applied_index: 9,
        applied_term: 2,
        revision: 5,
        compact_revision: -1,
        cluster_id: 1,
        leases: vec![mechipb::Lease { id: 7, ttl: 60, remaining_ttl: 0, grant_index: 3 }],
        members: vec![pb::Member { id: 1, name: "m1".into(), ..Default::default() }],
        ..Default::default()
    };
    let manifest = |compact_revision: i64, chunks: Vec<chunk::Chunk>| {
        let meta = StateMeta { compact_revision, ..meta.clone() };
        Manifest { meta, tally, author: 1, chunks }.encode()
    };
    let whole = manifest(-1, vec![one, two]);
    let files = [&whole[..], &one_file, &two_file];
    let (first, second) = (snapshot::list(&first), snapshot::list(&second));
    let (bare, compacted) = (manifest(-1, Vec::new()), manifest(4, Vec::new()));
    let backwards = [&bare[..], &second, &first];
    vec![
        ("files".into(), join(0, files)),
        ("files-repaired".into(), join(REPAIRED, files)),
        ("a-chunk-is-missing".into(), join(0, files.into_iter().take(2))),
        ("records".into(), join(BUILT, [&bare[..], &first, &second])),
        ("records-repaired".into(), join(BUILT | REPAIRED, [&bare[..], &first, &second])),
        ("records-compacted".into(), join(BUILT, [&compacted[..], &first, &second])),
        ("records-backwards".into(), join(BUILT, backwards)),
        ("manifest-alone".into(), join(REPAIRED, [&bare[..]])),
    ]
}

/// What three members say to each other, once of each kind, told to the leader and to a follower; and what none says.
fn peer_inputs() -> Inputs {
    let trio = Trio::elected();
    let leader = trio.leader() as u64 + 1;
    let mut inputs = Inputs::new();
    let mut kinds = BTreeMap::<(bool, String), usize>::new();
    for (to, message) in &trio.said {
        let is_leader = to.0 == leader;
        let count = kinds.entry((is_leader, kind(message))).or_default();
        *count += 1;
        if *count > 2 {
            continue;
        }
        let name = format!("{}-{}-{count}", if is_leader { "leader" } else { "follower" }, kind(message));
        let flags = if is_leader { LEADER } else { 0 };
        inputs.push((name, join(flags, [&message.encode_to_vec()[..]])));
    }
    let all: Vec<_> = trio.said.iter().rev().take(12).map(|(_, message)| message.encode_to_vec()).collect();
    inputs.push(("the-last-of-all".into(), join(0, all.iter().map(Vec::as_slice))));
    let digest = PeerMessage { message: Some(Said::Digest(Digest { index: u64::MAX, chain: 7 })) };
    inputs.push(("digest".into(), join(LEADER, [&digest.encode_to_vec()[..]])));
    let raft = |bytes: Vec<u8>| PeerMessage { message: Some(Said::Raft(bytes.into())) }.encode_to_vec();
    // Groups in groups: a decoder that follows them has a stack to lose.
    inputs.push(("groups-in-groups".into(), join(0, [&raft(vec![0x7b; 20_000])[..]])));
    inputs.push(("no-raft-message".into(), join(0, [&raft(b"\xff\xff\xff".to_vec())[..]])));
    let batch = |bytes: Vec<u8>| PeerMessage { message: Some(Said::Batch(bytes.into())) }.encode_to_vec();
    inputs.push(("a-batch-of-nonsense".into(), join(LEADER, [&batch(vec![1, 8, 1, 16, 1, 24, 1, 0x7f])[..]])));
    inputs
}

/// The message's kind; of raft's, with the number of its type.
fn kind(message: &PeerMessage) -> String {
    match &message.message {
        Some(Said::Raft(bytes)) => match bytes[..] {
            // The type comes first, unless it is 0.
            [0x08, number, ..] => format!("raft-{number:02}"),
            _ => "raft-00".to_owned(),
        },
        Some(Said::Batch(_)) => "batch".to_owned(),
        _ => "other".to_owned(),
    }
}

/// One request of each method and some of a random history, whole and in pieces, plain and compressed; and frames that
/// lie.
fn request_inputs() -> Inputs {
    let mut inputs = Inputs::new();
    let mut add = |name: String, method: &str, pieces: &[&[u8]]| {
        let number = METHODS.iter().position(|known| *known == method).expect("a method of the list") as u8;
        inputs.push((name.clone(), join(number, pieces.iter().copied())));
        number
    };
    let mut rng = Rng::new(5);
    let mut known = generate::Known { revision: 6, compacted: 1 };
    let mut counts = BTreeMap::<&str, usize>::new();
    for _ in 0..400 {
        let op = generate::op(&mut rng, known);
        known.revision += 1;
        let (method, message) = match op {
            generate::Op::Range(request) => ("Range", request.encode_to_vec()),
            generate::Op::Put(request) => ("Put", request.encode_to_vec()),
            generate::Op::DeleteRange(request) => ("DeleteRange", request.encode_to_vec()),
            generate::Op::Txn(request) => ("Txn", request.encode_to_vec()),
            generate::Op::Compact(request) => ("Compact", request.encode_to_vec()),
            generate::Op::Grant(request) => ("LeaseGrant", request.encode_to_vec()),
            generate::Op::Revoke(request) => ("LeaseRevoke", request.encode_to_vec()),
            _ => continue,
        };
        let count = counts.entry(method).or_default();
        *count += 1;
        let wanted = if method == "Txn" { 12 } else { 3 };
        if *count > wanted {
            continue;
        }
        let framed = frame(0, &message);
        let (begin, end) = framed.split_at(if count.is_multiple_of(2) { framed.len() / 2 } else { framed.len() });
        add(format!("{}-{count}", method.to_lowercase()), method, &[begin, end]);
    }
    let watch = |create: pb::WatchCreateRequest| {
        let union = pb::watch_request::RequestUnion::CreateRequest(create);
        frame(0, &pb::WatchRequest { request_union: Some(union) }.encode_to_vec())
    };
    let all = pb::WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: 2,
        prev_kv: true,
        progress_notify: true,
        fragment: true,
        ..Default::default()
    };
    let future = pb::WatchCreateRequest { start_revision: i64::MAX, watch_id: i64::MAX, ..all.clone() };
    add("watch".into(), "Watch", &[&watch(all.clone()), &watch(future), &watch(all)]);
    let raise = pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 };
    add("alarm".into(), "Alarm", &[&frame(0, &raise.encode_to_vec())]);
    add("keep-alive".into(), "LeaseKeepAlive", &[&frame(0, &pb::LeaseKeepAliveRequest { id: 7 }.encode_to_vec())]);
    let put = pb::PutRequest { key: "k".into(), value: vec![0; 5_000].into(), ..Default::default() }.encode_to_vec();
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(&put).expect("a vector grows");
    let packed = frame(1, &packer.finish().expect("a vector grows"));
    let number = add("put-packed-without-leave".into(), "Put", &[&packed]);
    inputs.push(("put-packed".into(), join(number | 0x80, [&packed[..]])));
    let lie = [0, 0xff, 0xff, 0xff, 0xff, 1];
    inputs.push(("a-length-of-4-gib".into(), join(number, [&lie[..]])));
    inputs.push(("a-prefix-in-five-pieces".into(), join(number, frame(0, &put).chunks(1).take(5))));
    inputs
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}
