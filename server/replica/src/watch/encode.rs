//! The wire form of watch responses: an event is encoded once, a response is a small prefix and shared pieces.

use crate::limits::WATCH_MESSAGE_OVERHEAD_BYTES;
use crate::mvcc::{Change, Mvcc};
use crate::outcome::Fatal;
use crate::store::Values;
use bytes::{BufMut, Bytes, BytesMut};
use mechi_proto::etcdserverpb as pb;
use prost::Message;
use prost::encoding::encode_varint;

/// One whole `WatchResponse` in wire form, as pieces to be concatenated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchMessage {
    /// The pieces, in order: a prefix of its own, then events that are shared between watchers.
    pub pieces: Vec<Bytes>,
}

impl WatchMessage {
    /// Returns the length of the concatenated pieces in bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Tells whether there is nothing in it, which no message of the hub is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns what the message counts for while its stream has not taken it: its bytes and a fixed overhead.
    ///
    /// - Units: bytes; the same number is given back by [`super::Input::Credit`].
    pub fn cost(&self) -> usize {
        self.len() + WATCH_MESSAGE_OVERHEAD_BYTES
    }
}

/// What every response's header says besides the revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The answering member's id.
    pub member_id: u64,
    /// The newest term that this member has seen.
    pub raft_term: u64,
}

impl Header {
    /// Makes the whole header at `revision`.
    pub(super) fn at(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term: self.raft_term,
        }
    }
}

/// Encodes prefixes into one growing buffer, so that a batch for many watchers allocates seldom.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    buffer: BytesMut,
}

impl Prefixes {
    /// Bytes that the buffer takes at once.
    const CHUNK_BYTES: usize = 16 * 1024;

    /// Encodes all of `response`; its events are left to further pieces.
    pub(super) fn encode(&mut self, response: &pb::WatchResponse) -> Bytes {
        let len = response.encoded_len();
        if self.buffer.capacity() < len {
            self.buffer = BytesMut::with_capacity(len.max(Self::CHUNK_BYTES));
        }
        response.encode(&mut self.buffer).expect("the buffer grows as needed");
        self.buffer.split().freeze()
    }
}

/// Tag of `WatchResponse.events`, length-delimited.
const EVENTS: u8 = 11 << 3 | 2;
/// Tag of `Event.type`, a varint.
const EVENT_TYPE: u8 = 1 << 3;
/// Tag of `Event.kv`, length-delimited.
const EVENT_KV: u8 = 2 << 3 | 2;
/// Tag of `Event.prev_kv`, length-delimited.
const EVENT_PREV_KV: u8 = 3 << 3 | 2;

/// Encodes `change` as one element of `WatchResponse.events`, tag and length included.
///
/// With `prev_kv`, the version before it is added, unless the change created the key; the caller knows that it is kept.
/// - Errors: [`Fatal`] if a value that is not in memory cannot be read.
/// - Source: etcd `server/etcdserver/api/v3rpc/watch.go`, `sendLoop`.
pub(super) fn event(change: &Change, prev_kv: bool, mvcc: &Mvcc, values: &dyn Values) -> Result<Bytes, Fatal> {
    let loaded = match change.resident || change.tombstone {
        true => change.head.clone(),
        false => values.load(change.revision)?,
    };
    let main = change.revision.main;
    let tombstone = change.tombstone.then(|| {
        crate::record::Record::encode(&crate::record::Fields {
            key: change.head.key(),
            mod_revision: main,
            ..Default::default()
        })
    });
    let kv = tombstone.as_ref().unwrap_or(&loaded).wire();
    let previous = match prev_kv && may_have_previous(change, &loaded)? {
        true => mvcc.get(change.head.key(), main - 1).map(|item| item.record(values)).transpose()?,
        false => None,
    };
    let previous = previous.as_ref().map(crate::record::Record::wire);

    let framed = |bytes: &[u8]| 1 + prost::length_delimiter_len(bytes.len()) + bytes.len();
    let body = if change.tombstone { 2 } else { 0 } + framed(kv) + previous.map_or(0, framed);
    let mut out = BytesMut::with_capacity(1 + prost::length_delimiter_len(body) + body);
    out.put_u8(EVENTS);
    encode_varint(body as u64, &mut out);
    if change.tombstone {
        out.put_slice(&[EVENT_TYPE, 1]);
    }
    for (tag, bytes) in [(EVENT_KV, Some(kv)), (EVENT_PREV_KV, previous)] {
        let Some(bytes) = bytes else { continue };
        out.put_u8(tag);
        encode_varint(bytes.len() as u64, &mut out);
        out.put_slice(bytes);
    }
    Ok(out.freeze())
}

/// Tells whether a version before `change` can exist: always for a deletion, for a put unless it created the key.
fn may_have_previous(change: &Change, record: &crate::record::Record) -> Result<bool, Fatal> {
    if change.tombstone {
        return Ok(true);
    }
    match record.fields() {
        Some(fields) => Ok(fields.create_revision != fields.mod_revision),
        None => Err(Fatal::Bug(format!("the record of revision {} cannot be decoded", change.revision))),
    }
}
