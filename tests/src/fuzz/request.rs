//! A client's call: any bytes make a refusal or a command, and no command makes a member stop.

use super::parts::split;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{Batch, Command, command::Request};
use mechi_replica::apply::state::State;
use mechi_replica::apply::{Answer, Outcomes, apply};
use mechi_replica::auth::effects::{Asked, lower};
use mechi_replica::command::{self, BatchId, RequestLimits};
use mechi_replica::effect::{Entry, EntryKind};
use mechi_replica::limits::{GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX};
use mechi_replica::store::AllInMemory;
use mechi_replica::types::MonoMillis;
use mechi_replica::watch::{Config, Header, Input, Out, StreamId, WatchHub};
use mechi_server::grpc::frame::{Body, Messages};
use mechi_server::grpc::metadata::Kind;
use prost::Message;
use std::collections::VecDeque;

/// Pieces in which one input's bytes come from the network.
const PIECES_MAX: usize = 8;

/// Messages of one input.
const MESSAGES_MAX: usize = 32;

/// The flag by which the call says that its messages are gzip.
const GZIP: u8 = 0x80;

/// Turns that the watch hub is given for one message.
const TURNS_MAX: usize = 64;

/// The methods that an input's flags number.
pub(super) const METHODS: [&str; 10] =
    ["Range", "Put", "DeleteRange", "Txn", "Compact", "LeaseGrant", "LeaseRevoke", "Alarm", "Watch", "LeaseKeepAlive"];

/// Reads the input's parts as the pieces of a call's body: the flags name its method and whether it is compressed.
///
/// What is accepted goes the whole way of a command: checked, measured, lowered, into a batch, out of it, and applied; a
/// watch is created. A member must be able to apply whatever it lets into its log: an entry that stops one stops all.
///
/// - Panics: if anything on that way does, or if an accepted command cannot be applied.
pub fn request(input: &[u8]) {
    let input = split(input, PIECES_MAX);
    let method = METHODS[usize::from(input.flags & !GZIP) % METHODS.len()];
    let mut headers = HeaderMap::new();
    if input.flags & GZIP != 0 {
        headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
    }
    let pieces: VecDeque<Bytes> = input.parts.into_iter().map(Bytes::copy_from_slice).collect();
    let kind = if method == "Watch" { Kind::BidiStream } else { Kind::Unary };
    let mut messages = Messages::new(kind, &headers, Body::Chunks(pieces), REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES);
    let mut place = Place::new();
    for _ in 0..MESSAGES_MAX {
        let next = messages.next().now_or_never().expect("all pieces are there, so nothing is waited for");
        let Ok(Some(message)) = next else { return };
        place.call(method, message);
    }
}

/// A state with a few keys and a lease, and a watch hub over it.
struct Place {
    state: State,
    hub: WatchHub,
    index: u64,
    now: u64,
}

impl Place {
    fn new() -> Self {
        let hub = WatchHub::new(Config::default(), Header { cluster_id: 1, member_id: 1, raft_term: 1 }, 1);
        let mut place = Self { state: State::empty(), hub, index: 0, now: 0 };
        place.hub.feed(Input::Open(StreamId(1)));
        let grant = pb::LeaseGrantRequest { id: 7, ttl: 60 };
        place.propose(Request::LeaseGrant(grant));
        for (key, lease) in [("a", 0), ("b", 7), ("a/b", 0), ("a", 0)] {
            let put = pb::PutRequest { key: key.into(), value: "value".into(), lease, ..Default::default() };
            place.propose(Request::Put(put));
        }
        place.propose(Request::DeleteRange(pb::DeleteRangeRequest { key: "a/b".into(), ..Default::default() }));
        place
    }

    fn call(&mut self, method: &str, message: Bytes) {
        let asked = match method {
            "Range" => pb::RangeRequest::decode(message).ok().map(read),
            "Put" => pb::PutRequest::decode(message).ok().map(Request::Put),
            "DeleteRange" => pb::DeleteRangeRequest::decode(message).ok().map(Request::DeleteRange),
            "Txn" => pb::TxnRequest::decode(message).ok().map(Request::Txn),
            "Compact" => pb::CompactionRequest::decode(message).ok().map(Request::Compaction),
            "LeaseGrant" => pb::LeaseGrantRequest::decode(message).ok().map(Request::LeaseGrant),
            "LeaseRevoke" => pb::LeaseRevokeRequest::decode(message).ok().map(Request::LeaseRevoke),
            "Alarm" => pb::AlarmRequest::decode(message).ok().map(Request::Alarm),
            "Watch" => {
                if let Ok(watch) = pb::WatchRequest::decode(message) {
                    self.watch(watch);
                }
                None
            }
            _ => {
                let _ = pb::LeaseKeepAliveRequest::decode(message);
                None
            }
        };
        if let Some(request) = asked {
            self.propose(request);
            self.settle();
        }
    }

    fn propose(&mut self, request: Request) {
        if command::check(&request, &RequestLimits::default()).is_err() {
            return;
        }
        let cost = command::quota_cost(&request);
        assert!(cost <= 1 << 40, "a request of a MiB or two costs {cost} bytes");
        let _ = lower(Asked::Command(&request), &self.state.leases);
        self.index += 1;
        let command = Command { id: self.index, request: Some(request), ..Default::default() };
        let batch = Batch { member: 1, boot: 1, number: self.index, wall_ms: 1, commands: vec![command] };
        let data = command::encode(&batch);
        assert_eq!(command::peek(&data), Some(BatchId { member: 1, boot: 1, number: self.index }));
        assert_eq!(command::decode(&data).expect("an accepted command comes out of the log"), batch);
        let entry = Entry { index: self.index, term: 1, kind: EntryKind::Normal, data };
        let mut out = Outcomes::default();
        apply(&mut self.state, &entry, Answer { member: 1, boot: 1 }, &AllInMemory, &mut out)
            .expect("an accepted command is applied");
        assert_eq!(out.answers.len(), 1, "its client is answered");
        let mvcc = &self.state.mvcc;
        assert_eq!(mvcc.content_sum(), mvcc.recompute_content_sum());
        self.hub.feed(Input::Advance(mvcc.revision()));
    }

    fn watch(&mut self, request: pb::WatchRequest) {
        if let Some(pb::watch_request::RequestUnion::CreateRequest(create)) = &request.request_union {
            let _ = lower(Asked::Watch(create), &self.state.leases);
        }
        self.hub.feed(Input::Request(StreamId(1), request));
        self.settle();
    }

    /// Lets the hub say what it has to say; its client takes everything.
    fn settle(&mut self) {
        self.now += 1_000;
        self.hub.feed(Input::Tick(MonoMillis(self.now)));
        for _ in 0..TURNS_MAX {
            let mut out = Out::new();
            let more = self.hub.settle(&self.state.mvcc, &AllInMemory, &mut out).expect("all is in memory");
            for (stream, message) in out.drain(..) {
                let bytes: Vec<u8> = message.pieces.concat();
                pb::WatchResponse::decode(&bytes[..]).expect("a client can read what it is sent");
                self.hub.feed(Input::Credit(stream, message.cost()));
            }
            if !more {
                return;
            }
        }
    }
}

/// A read as a txn of its own: the log's way to the same code.
fn read(range: pb::RangeRequest) -> Request {
    let read = pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range)) };
    Request::Txn(pb::TxnRequest { success: vec![read], ..Default::default() })
}
