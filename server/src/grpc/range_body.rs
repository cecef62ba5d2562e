//! A range's answer in wire form: in one buffer if it is small, else piece by piece, its exact length sent first.
//!
//! The message is never built: key-values are in wire form already, and the fields around them are known before the
//! first of them is read. So a list of a gigabyte costs one chunk of memory and goes as fast as its client reads.

use crate::grpc::answer::{End, Pieces};
use crate::grpc::frame;
use crate::grpc::limits::{CHUNK_BYTES, COPY_BYTES_MAX};
use crate::grpc::status::Status;
use crate::node::{Kvs, RangeReply, Reader};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use mechi_proto::etcdserverpb as pb;
use mechi_replica::outcome::Error;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use std::pin::Pin;

/// Tag of `RangeResponse.kvs` (field 2, length-delimited), before each key-value's length.
pub const KVS_TAG: u8 = 0x12;

/// A message in wire form, with its gRPC prefix.
pub enum Piece {
    /// All of it.
    Whole(Bytes),
    /// Its parts, as the client reads them.
    Stream(Pieces),
}

/// Turns a reply into a `RangeResponse`.
///
/// - Errors: an answer longer than gRPC allows. A reader that fails once the length is out resets the stream.
pub fn message(header: pb::ResponseHeader, reply: RangeReply) -> Result<Piece, Status> {
    let head = pb::RangeResponse { header: Some(header), ..Default::default() }.encode_to_vec();
    let tail = pb::RangeResponse { more: reply.more, count: reply.count, ..Default::default() }.encode_to_vec();
    match reply.kvs {
        Kvs::Ready(kvs) => whole(&head, &kvs, &tail).map(Piece::Whole),
        Kvs::Lazy(reader) => {
            let (left, tail_bytes) = (reader.framed_bytes(), tail.len());
            let list = List { chunks: chunks(reader), left, tail: Some(tail.into()) };
            lazy(&head, list, tail_bytes).map(Piece::Stream)
        }
    }
}

/// Bytes of a key-value of `bytes` bytes with its tag and length.
pub fn framed_len(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

/// Writes the tag and the length of a key-value.
fn put_kv_prefix(buffer: &mut BytesMut, bytes: usize) {
    buffer.put_u8(KVS_TAG);
    encode_varint(bytes as u64, buffer);
}

/// Appends a key-value as a `RangeResponse` holds it.
pub fn put_kv(buffer: &mut BytesMut, kv: &[u8]) {
    put_kv_prefix(buffer, kv.len());
    buffer.extend_from_slice(kv);
}

fn whole(head: &[u8], kvs: &[Bytes], tail: &[u8]) -> Result<Bytes, Status> {
    let bytes = head.len() + kvs.iter().map(|kv| framed_len(kv.len())).sum::<usize>() + tail.len();
    let mut buffer = BytesMut::with_capacity(frame::PREFIX_BYTES + bytes);
    frame::put_prefix(&mut buffer, bytes as u64)?;
    buffer.extend_from_slice(head);
    for kv in kvs {
        put_kv(&mut buffer, kv);
    }
    buffer.extend_from_slice(tail);
    Ok(buffer.freeze())
}

/// The key-values of a list, chunk by chunk.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Vec<Bytes>, Error>> + Send>>;

/// The chunks of `reader`, until it ends or fails.
pub fn chunks(reader: Reader) -> Chunks {
    Box::pin(stream::try_unfold(reader, async |mut reader| {
        Ok(reader.next(CHUNK_BYTES).await?.map(|chunk| (chunk.kvs, reader)))
    }))
}

/// The message's prefix and head, then the chunks, then the tail.
fn lazy(head: &[u8], list: List, tail_bytes: usize) -> Result<Pieces, Status> {
    let mut first = BytesMut::with_capacity(frame::PREFIX_BYTES + head.len());
    frame::put_prefix(&mut first, head.len() as u64 + list.left + tail_bytes as u64)?;
    first.extend_from_slice(head);
    let rest = stream::try_unfold(list, async |mut list| Ok::<_, End>(list.next().await?.map(|pieces| (pieces, list))));
    let rest = rest.map_ok(|pieces| stream::iter(pieces.into_iter().map(Ok))).try_flatten();
    Ok(Box::pin(stream::iter([Ok(first.freeze())]).chain(rest)))
}

/// What is still to come after a message's length is out; the announced length must be met exactly.
struct List {
    chunks: Chunks,
    /// Bytes of the key-values to come, each with tag and length.
    left: u64,
    /// The fields behind the key-values; `None` once they are out.
    tail: Option<Bytes>,
}

impl List {
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>, End> {
        match self.chunks.try_next().await {
            Ok(Some(kvs)) => {
                let bytes = kvs.iter().map(|kv| framed_len(kv.len()) as u64).sum::<u64>();
                // A client would read what is too much as its next message: better no answer than a wrong one.
                let left = self.left.checked_sub(bytes);
                self.left = left.ok_or_else(|| End::Reset(format!("{bytes} bytes came with {} left", self.left)))?;
                Ok(Some(pieces(kvs)))
            }
            Ok(None) if self.left > 0 => Err(End::Reset(format!("the list ended with {} bytes left", self.left))),
            Ok(None) => Ok(self.tail.take().map(|tail| vec![tail])),
            Err(error) => Err(End::Reset(error.to_string())),
        }
    }
}

/// Joins small key-values into one buffer and leaves big ones uncopied.
fn pieces(kvs: Vec<Bytes>) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut buffer = BytesMut::new();
    for kv in kvs {
        put_kv_prefix(&mut buffer, kv.len());
        if kv.len() <= COPY_BYTES_MAX {
            buffer.extend_from_slice(&kv);
        } else {
            pieces.push(buffer.split().freeze());
            pieces.push(kv);
        }
    }
    if !buffer.is_empty() {
        pieces.push(buffer.freeze());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use mechi_proto::mvccpb::KeyValue;
    use proptest::prelude::*;

    fn wire(key: &[u8], value_bytes: usize) -> Bytes {
        let value = Bytes::from(vec![b'v'; value_bytes]);
        let kv = KeyValue { key: Bytes::copy_from_slice(key), mod_revision: 9, value, ..Default::default() };
        kv.encode_to_vec().into()
    }

    fn header() -> pb::ResponseHeader {
        pb::ResponseHeader { cluster_id: 1, member_id: u64::MAX, revision: 300, raft_term: 2 }
    }

    fn expected(kvs: &[Bytes], more: bool, count: i64) -> pb::RangeResponse {
        let kvs = kvs.iter().map(|kv| KeyValue::decode(kv.clone()).unwrap()).collect();
        pb::RangeResponse { header: Some(header()), kvs, more, count }
    }

    fn decode(mut message: Bytes) -> pb::RangeResponse {
        let prefix = message.split_to(frame::PREFIX_BYTES);
        assert_eq!(&prefix[1..], (message.len() as u32).to_be_bytes());
        pb::RangeResponse::decode(message).unwrap()
    }

    /// Streams `chunks` under the announced length `left`; the bytes so far and how it ended.
    fn stream(chunks: Vec<Result<Vec<Bytes>, Error>>, left: u64, more: bool, count: i64) -> (Bytes, Option<End>) {
        let head = pb::RangeResponse { header: Some(header()), ..Default::default() }.encode_to_vec();
        let tail = pb::RangeResponse { more, count, ..Default::default() }.encode_to_vec();
        let tail_bytes = tail.len();
        let list = List { chunks: Box::pin(stream::iter(chunks)), left, tail: Some(tail.into()) };
        let mut pieces = lazy(&head, list, tail_bytes).unwrap();
        let mut sent = BytesMut::new();
        loop {
            match pieces.try_next().now_or_never().expect("nothing is waited for") {
                Ok(Some(piece)) => sent.extend_from_slice(&piece),
                Ok(None) => return (sent.freeze(), None),
                Err(end) => return (sent.freeze(), Some(end)),
            }
        }
    }

    fn framed_bytes(kvs: &[Bytes]) -> u64 {
        kvs.iter().map(|kv| framed_len(kv.len()) as u64).sum()
    }

    proptest! {
        #[test]
        fn a_list_has_the_same_bytes_gathered_and_streamed(
            values in prop::collection::vec(prop_oneof![0_usize..300, COPY_BYTES_MAX - 50..COPY_BYTES_MAX + 50], 0..20),
            chunk_keys in 1_usize..7,
            more: bool,
            count in 0_i64..1000,
        ) {
            let kvs: Vec<Bytes> =
                values.iter().enumerate().map(|(i, bytes)| wire(format!("key{i}").as_bytes(), *bytes)).collect();
            let reply = RangeReply { revision: 300, count, more, kvs: Kvs::Ready(kvs.clone()) };
            let Ok(Piece::Whole(gathered)) = message(header(), reply) else { panic!("gathered lists are one buffer") };
            prop_assert_eq!(decode(gathered.clone()), expected(&kvs, more, count));

            let chunks = kvs.chunks(chunk_keys).map(|chunk| Ok(chunk.to_vec())).collect();
            let (streamed, end) = stream(chunks, framed_bytes(&kvs), more, count);
            prop_assert!(end.is_none());
            prop_assert_eq!(streamed, gathered);
        }
    }

    #[test]
    fn big_values_are_not_copied() {
        let kv = wire(b"k", COPY_BYTES_MAX + 1);
        let pieces = pieces(vec![wire(b"a", 1), kv.clone(), wire(b"z", 1)]);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), kv.as_ptr());
    }

    #[test]
    fn a_reader_that_fails_midway_resets_the_stream() {
        let kvs = vec![wire(b"a", 10), wire(b"b", 10)];
        let chunks = vec![Ok(vec![kvs[0].clone()]), Err(Error::Compacted)];
        let (_, end) = stream(chunks, framed_bytes(&kvs), false, 2);
        assert!(matches!(end, Some(End::Reset(_))), "{end:?}");
    }

    #[test]
    fn a_list_shorter_than_announced_resets_the_stream() {
        let kvs = vec![wire(b"a", 10)];
        let (_, end) = stream(vec![Ok(kvs.clone())], framed_bytes(&kvs) + 1, false, 1);
        assert!(matches!(end, Some(End::Reset(_))), "{end:?}");
    }

    #[test]
    fn a_list_longer_than_announced_resets_the_stream_before_its_excess() {
        let kvs = vec![wire(b"a", 10), wire(b"b", 10)];
        let chunks = vec![Ok(vec![kvs[0].clone()]), Ok(vec![kvs[1].clone()])];
        let (sent, end) = stream(chunks, framed_bytes(&kvs) - 1, false, 2);
        assert!(matches!(end, Some(End::Reset(_))), "{end:?}");
        assert!(sent.ends_with(&kvs[0]));
    }

    #[test]
    fn an_answer_above_two_gibibytes_is_refused_before_its_first_byte() {
        let list = List { chunks: Box::pin(stream::empty()), left: 1 << 31, tail: Some(Bytes::new()) };
        let refused = lazy(&[], list, 0).err().expect("no client could take it");
        assert_eq!(refused.text(), "grpc: trying to send message larger than max (2147483648 vs. 2147483647)");
    }
}
