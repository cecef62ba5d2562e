//! A store, a hub and clients that take their messages or do not: the one place where tests touch the API.

use super::*;
use crate::limits::WATCH_STREAM_BYTES_MAX;
use crate::mvcc::Mvcc;
use crate::store::AllInMemory;
use crate::types::MonoMillis;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::event::EventType;
use mechi_proto::mvccpb::{Event, KeyValue};
use pb::watch_request::RequestUnion;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

pub(super) struct World {
    pub(super) mvcc: Mvcc,
    pub(super) hub: WatchHub,
    /// Cost of what each stream was sent and did not take.
    pub(super) owed: BTreeMap<StreamId, usize>,
    /// Streams whose clients do not read.
    pub(super) stalled: BTreeSet<StreamId>,
    /// While set, changes are applied but not announced to the hub.
    pub(super) quiet: bool,
}

impl World {
    pub(super) fn new(config: Config) -> Self {
        let header = Header { cluster_id: 1, member_id: 2, raft_term: 3 };
        let hub = WatchHub::new(config, header, 1);
        let (owed, stalled) = (BTreeMap::new(), BTreeSet::new());
        Self { mvcc: Mvcc::new(), hub, owed, stalled, quiet: false }
    }

    /// One transaction: `key=value` puts, a bare key deletes.
    pub(super) fn write(&mut self, changes: &[(&str, Option<&str>)]) -> i64 {
        let mut write = self.mvcc.write();
        for (key, value) in changes {
            match value {
                Some(value) => write.put(key.as_bytes(), value.as_bytes(), 0),
                None => {
                    write.delete(key.as_bytes());
                }
            }
        }
        self.announce();
        self.mvcc.revision()
    }

    pub(super) fn announce(&mut self) {
        if !self.quiet {
            self.hub.feed(Input::Advance(self.mvcc.revision()));
        }
    }

    pub(super) fn ask(&mut self, stream: u64, request: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(request) };
        self.hub.feed(Input::Request(StreamId(stream), request));
    }

    pub(super) fn open(&mut self, stream: u64) {
        self.hub.feed(Input::Open(StreamId(stream)));
    }

    pub(super) fn tick(&mut self, now: u64) {
        self.hub.feed(Input::Tick(MonoMillis(now)));
    }

    /// One call of `settle`; the messages are owed until they are taken.
    pub(super) fn step(&mut self) -> (bool, Vec<(u64, pb::WatchResponse)>) {
        let mut out = Out::new();
        let more = self.hub.settle(&self.mvcc, &AllInMemory, &mut out).unwrap();
        let mut responses = Vec::new();
        for (stream, message) in out {
            *self.owed.entry(stream).or_default() += message.cost();
            let wire: Vec<u8> = message.pieces.concat();
            let response = pb::WatchResponse::decode(&wire[..]).unwrap();
            let header = response.header.as_ref().expect("every response has a header, or clientv3 crashes");
            assert_eq!((header.cluster_id, header.member_id, header.raft_term), (1, 2, 3));
            responses.push((stream.0, response));
        }
        (more, responses)
    }

    /// Lets a stream's client read all that it was sent.
    pub(super) fn take(&mut self, stream: StreamId) {
        let cost = self.owed.insert(stream, 0).unwrap_or(0);
        self.hub.feed(Input::Credit(stream, cost));
    }

    /// Settles until nothing is left to do; clients that do not stall read at once.
    pub(super) fn settle(&mut self) -> Vec<(u64, pb::WatchResponse)> {
        let mut all = Vec::new();
        for _ in 0..100_000 {
            let (more, responses) = self.step();
            all.extend(responses);
            let owing: Vec<StreamId> = self.owed.iter().filter(|(_, owed)| **owed > 0).map(|(id, _)| *id).collect();
            for stream in owing.into_iter().filter(|id| !self.stalled.contains(id)).collect::<Vec<_>>() {
                self.take(stream);
            }
            if !more && !self.hub.has_work() {
                return all;
            }
        }
        panic!("the hub never comes to rest");
    }
}

/// A create request for one key, or a range up to `end`.
pub(super) fn create(key: &str, end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), ..Default::default() }
}

/// A response as one line: `1/0 at 5: put a=x (2 5 3)`; the numbers are create and mod revision and version.
pub(super) fn show(stream: u64, response: &pb::WatchResponse) -> String {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    let mut line = format!("{stream}/{} at {revision}:", response.watch_id);
    let flags = [(response.created, " created"), (response.canceled, " canceled"), (response.fragment, " fragment")];
    flags.iter().filter(|(set, _)| *set).for_each(|(_, name)| line.push_str(name));
    if response.compact_revision != 0 {
        write!(line, " compacted at {}", response.compact_revision).unwrap();
    }
    if !response.cancel_reason.is_empty() {
        write!(line, " because '{}'", response.cancel_reason).unwrap();
    }
    let events: Vec<String> = response.events.iter().map(show_event).collect();
    line.push_str(if events.is_empty() { "" } else { " " });
    line + &events.join("; ")
}

fn show_event(event: &Event) -> String {
    let kv = event.kv.as_ref().expect("every event has a kv");
    let mut line = match event.r#type() {
        EventType::Put => format!("put {}", show_kv(kv)),
        EventType::Delete => {
            let bare = KeyValue { key: kv.key.clone(), mod_revision: kv.mod_revision, ..Default::default() };
            assert_eq!(kv, &bare, "a deletion's kv is its key and revision");
            format!("delete {} ({})", String::from_utf8_lossy(&kv.key), kv.mod_revision)
        }
    };
    if let Some(previous) = &event.prev_kv {
        write!(line, " was {}", show_kv(previous)).unwrap();
    }
    line
}

fn show_kv(kv: &KeyValue) -> String {
    let value = match kv.value.len() {
        0..=20 => String::from_utf8_lossy(&kv.value).into_owned(),
        len => format!("[{len} bytes]"),
    };
    let key = String::from_utf8_lossy(&kv.key);
    format!("{key}={value} ({} {} {})", kv.create_revision, kv.mod_revision, kv.version)
}

/// Small bounds, so that a few writes reach them.
pub(super) fn small() -> Config {
    Config {
        fragment_bytes: 200,
        progress_interval_ms: 1_000,
        stream_bytes_max: 600,
        response_bytes_target: 300,
        slice_changes_max: 4,
    }
}

/// The bound that production has is the one that the shell's channels are sized for.
#[test]
fn default_bounds_are_the_documented_ones() {
    assert_eq!(Config::default().stream_bytes_max, WATCH_STREAM_BYTES_MAX);
    assert_eq!(Config::default().fragment_bytes, 2 << 20);
}
