//! The KV service: checks a request, hands it to the node, completes the answer's header.

use crate::grpc::answer::{End, Pieces};
use crate::grpc::limits::STREAM_FIRST_CHUNK_KEYS;
use crate::grpc::range_body::{self, Chunks};
use crate::grpc::status::Status;
use crate::grpc::{Server, frame, header};
use crate::node::{Kvs, RangeReply};
use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt, stream};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use mechi_proto::mechipb::command::Request;
use mechi_replica::command;
use mechi_replica::outcome::Response;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use std::collections::VecDeque;
use std::sync::Arc;

/// `KV.Range`; the answer's bytes are `range_body`'s.
pub async fn range(server: Arc<Server>, request: pb::RangeRequest) -> Result<RangeReply, Status> {
    command::check_range(&request)?;
    Ok(server.node.range(request).await?)
}

/// `KV.Put`.
pub async fn put(server: Arc<Server>, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
    match server.propose(Request::Put(request)).await? {
        Response::Put(mut response) => {
            header::fill(&server.node, &mut response.header);
            Ok(response)
        }
        other => Err(unexpected("put", &other)),
    }
}

/// `KV.DeleteRange`.
pub async fn delete_range(
    server: Arc<Server>,
    request: pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, Status> {
    match server.propose(Request::DeleteRange(request)).await? {
        Response::DeleteRange(mut response) => {
            header::fill(&server.node, &mut response.header);
            Ok(response)
        }
        other => Err(unexpected("delete", &other)),
    }
}

/// `KV.Txn`: one that only reads needs no log entry.
pub async fn txn(server: Arc<Server>, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
    let mut response = if command::is_read_only(&request) {
        command::check_txn(&request, server.options.max_txn_ops)?;
        server.node.read_txn(request).await?
    } else {
        match server.propose(Request::Txn(request)).await? {
            Response::Txn(response) => response,
            other => return Err(unexpected("txn", &other)),
        }
    };
    header::fill(&server.node, &mut response.header);
    Ok(response)
}

/// `KV.Compact`.
pub async fn compact(server: Arc<Server>, request: pb::CompactionRequest) -> Result<pb::CompactionResponse, Status> {
    let mut response = server.node.compact(request).await?;
    header::fill(&server.node, &mut response.header);
    Ok(response)
}

/// `KV.RangeStream`: chunks of key-values; header, `more` and `count` come with the last.
pub async fn range_stream(server: Arc<Server>, request: pb::RangeRequest) -> Result<Pieces, Status> {
    command::check_range(&request)?;
    streamable(&request)?;
    let reply = server.node.range(request).await?;
    let last = pb::RangeResponse {
        header: Some(server.node.header(reply.revision)),
        more: reply.more,
        count: reply.count,
        kvs: Vec::new(),
    };
    let (left, chunks): (u64, Chunks) = match reply.kvs {
        Kvs::Ready(kvs) => {
            let left = kvs.iter().map(|kv| range_body::framed_len(kv.len()) as u64).sum();
            (left, Box::pin(stream::iter([Ok(kvs)])))
        }
        Kvs::Lazy(reader) => (reader.framed_bytes(), range_body::chunks(reader)),
    };
    Ok(chunked(chunks, left, &last, server.options.max_request_bytes))
}

/// Refuses what a stream cannot give without gathering everything first, in etcd's order and words.
fn streamable(request: &pb::RangeRequest) -> Result<(), Status> {
    let natural = request.sort_order == SortOrder::None as i32
        || (request.sort_order == SortOrder::Ascend as i32 && request.sort_target == SortTarget::Key as i32);
    if !natural {
        return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
    }
    let filters =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    if filters.iter().any(|revision| *revision != 0) {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    Ok(())
}

/// Cuts `chunks`, `left` framed bytes in all, into `RangeStreamResponse`s of about `target_bytes`.
fn chunked(chunks: Chunks, left: u64, last: &pb::RangeResponse, target_bytes: usize) -> Pieces {
    let last = Some(Bytes::from(last.encode_to_vec()));
    let cutter = Cutter { chunks, left, waiting: VecDeque::new(), keys: STREAM_FIRST_CHUNK_KEYS, target_bytes, last };
    Box::pin(stream::try_unfold(cutter, async |mut cutter| Ok(cutter.next().await?.map(|message| (message, cutter)))))
}

/// Cuts a list into messages that grow or shrink towards a size.
struct Cutter {
    chunks: Chunks,
    /// Framed bytes not yet sent; 0 tells the last message.
    left: u64,
    /// Read, but too many for the message before; at most what one read gives.
    waiting: VecDeque<Bytes>,
    /// Key-values of the next message.
    keys: usize,
    target_bytes: usize,
    /// Header, `more` and `count` in wire form; `None` once they are out.
    last: Option<Bytes>,
}

impl Cutter {
    async fn next(&mut self) -> Result<Option<Bytes>, End> {
        if self.last.is_none() {
            return Ok(None);
        }
        let mut kvs = BytesMut::new();
        let mut keys = 0;
        while self.left > 0 && keys < self.keys && kvs.len() < self.target_bytes {
            while self.waiting.is_empty() {
                let more = self.chunks.try_next().await?;
                self.waiting = more.ok_or_else(|| Status::bug("a list ended before its length"))?.into();
            }
            let Some(kv) = self.waiting.pop_front() else { continue };
            let left = self.left.checked_sub(range_body::framed_len(kv.len()) as u64);
            self.left = left.ok_or_else(|| Status::bug("a list went on past its length"))?;
            range_body::put_kv(&mut kvs, &kv);
            keys += 1;
        }
        self.keys = next_keys(self.keys, kvs.len(), self.target_bytes);
        let last = if self.left == 0 { self.last.take() } else { None };
        Ok(Some(stream_message(&kvs, &last.unwrap_or_default())?))
    }
}

/// The key-values of the next chunk, after one of `keys` came to `bytes`.
///
/// - Source: etcd 3.7 doubles below half the target and halves above its double, so that sizes near it stay.
fn next_keys(keys: usize, bytes: usize, target_bytes: usize) -> usize {
    if bytes < target_bytes / 2 {
        keys.saturating_mul(2)
    } else if bytes > target_bytes.saturating_mul(2) {
        (keys / 2).max(1)
    } else {
        keys
    }
}

/// A framed `RangeStreamResponse` (its one field is the `RangeResponse`). Protobuf lets fields come in any order, so
/// the header may follow the key-values that were gathered before it was known to be due.
fn stream_message(kvs: &[u8], last: &[u8]) -> Result<Bytes, Status> {
    let inner = (kvs.len() + last.len()) as u64;
    let outer = 1 + encoded_len_varint(inner) as u64 + inner;
    let mut message = BytesMut::with_capacity(frame::PREFIX_BYTES + outer as usize);
    frame::put_prefix(&mut message, outer)?;
    message.extend_from_slice(&[0x0a]);
    encode_varint(inner, &mut message);
    message.extend_from_slice(kvs);
    message.extend_from_slice(last);
    Ok(message.freeze())
}

/// A node that answers a question with the answer to another one is a bug.
pub fn unexpected(asked: &str, response: &Response) -> Status {
    Status::bug(format_args!("{asked} was answered with {response:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use mechi_proto::mvccpb::KeyValue;
    use mechi_replica::outcome::Error;

    fn kvs(number: usize, value_bytes: usize) -> Vec<Bytes> {
        let kv = |i| KeyValue {
            key: format!("{i:06}").into(),
            value: vec![b'v'; value_bytes].into(),
            mod_revision: 2,
            ..Default::default()
        };
        (0..number).map(|i| kv(i).encode_to_vec().into()).collect()
    }

    fn run(number: usize, value_bytes: usize, target_bytes: usize) -> Vec<pb::RangeResponse> {
        let kvs = kvs(number, value_bytes);
        let left = kvs.iter().map(|kv| range_body::framed_len(kv.len()) as u64).sum();
        let chunks: Vec<Result<_, Error>> = kvs.chunks(7).map(|chunk| Ok(chunk.to_vec())).collect();
        let last = pb::RangeResponse {
            header: Some(pb::ResponseHeader { revision: 5, ..Default::default() }),
            more: true,
            count: 12_345,
            kvs: Vec::new(),
        };
        let pieces = chunked(Box::pin(stream::iter(chunks)), left, &last, target_bytes);
        let messages: Vec<Bytes> = pieces.try_collect().now_or_never().expect("nothing is waited for").unwrap();
        messages
            .into_iter()
            .map(|mut message| {
                let prefix = message.split_to(frame::PREFIX_BYTES);
                assert_eq!(&prefix[1..], (message.len() as u32).to_be_bytes());
                pb::RangeStreamResponse::decode(message).unwrap().range_response.expect("every chunk has one")
            })
            .collect()
    }

    #[test]
    fn chunks_hold_every_key_once_and_in_order() {
        for number in [0, 1, 9, 10, 11, 30, 31, 1000] {
            let responses = run(number, 10, 2000);
            let keys: Vec<Bytes> =
                responses.iter().flat_map(|response| &response.kvs).map(|kv| kv.key.clone()).collect();
            let wanted: Vec<Bytes> = (0..number).map(|i| format!("{i:06}").into()).collect();
            assert_eq!(keys, wanted);
        }
    }

    #[test]
    fn header_more_and_count_come_with_the_last_chunk_only() {
        let responses = run(31, 10, 1 << 20);
        assert_eq!(responses.iter().map(|response| response.kvs.len()).collect::<Vec<_>>(), [10, 20, 1]);
        let (last, others) = responses.split_last().unwrap();
        assert!(others.iter().all(|chunk| chunk.header.is_none() && !chunk.more && chunk.count == 0));
        assert_eq!(last.header.as_ref().unwrap().revision, 5);
        assert_eq!((last.more, last.count), (true, 12_345));
    }

    #[test]
    fn an_empty_list_is_one_chunk_with_a_header() {
        let responses = run(0, 0, 1000);
        assert_eq!(responses.len(), 1);
        assert!(responses[0].header.is_some());
    }

    #[test]
    fn chunks_stay_near_the_target() {
        let responses = run(300, 1000, 5000);
        for response in &responses {
            assert!(response.encoded_len() < 5000 + 1100, "{} bytes", response.encoded_len());
        }
        assert_eq!(next_keys(10, 4, 10), 20);
        assert_eq!(next_keys(10, 5, 10), 10);
        assert_eq!(next_keys(10, 20, 10), 10);
        assert_eq!(next_keys(10, 21, 10), 5);
        assert_eq!(next_keys(1, 21, 10), 1);
    }

    #[test]
    fn a_list_that_fails_midway_ends_with_its_status() {
        let chunks: Vec<Result<_, Error>> = vec![Ok(kvs(10, 1)), Err(Error::Compacted)];
        let pieces = chunked(Box::pin(stream::iter(chunks)), 1 << 20, &pb::RangeResponse::default(), 1000);
        let end = pieces.try_collect::<Vec<_>>().now_or_never().expect("nothing is waited for").unwrap_err();
        assert!(matches!(end, End::Status(status) if status.text().ends_with("has been compacted")));
    }

    #[test]
    fn sorts_and_filters_do_not_stream() {
        let refused = |request: pb::RangeRequest| streamable(&request).map_err(|status| status.text().to_owned());
        let sort = "RangeStream does not support custom sort orders".to_owned();
        let filter = "RangeStream does not support revision filters".to_owned();
        let order = |sort_order: SortOrder, sort_target: SortTarget| pb::RangeRequest {
            sort_order: sort_order as i32,
            sort_target: sort_target as i32,
            ..Default::default()
        };
        assert_eq!(refused(order(SortOrder::None, SortTarget::Key)), Ok(()));
        assert_eq!(refused(order(SortOrder::None, SortTarget::Value)), Ok(()));
        assert_eq!(refused(order(SortOrder::Ascend, SortTarget::Key)), Ok(()));
        assert_eq!(refused(order(SortOrder::Ascend, SortTarget::Mod)), Err(sort.clone()));
        assert_eq!(refused(order(SortOrder::Descend, SortTarget::Key)), Err(sort.clone()));
        let filtered = pb::RangeRequest { max_create_revision: -1, ..Default::default() };
        assert_eq!(refused(filtered.clone()), Err(filter));
        assert_eq!(refused(pb::RangeRequest { sort_order: 2, ..filtered }), Err(sort));
    }
}
