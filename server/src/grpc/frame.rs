//! gRPC's framing: five bytes of flag and length before each message, read under a limit.

use crate::grpc::limits::ANSWER_BYTES_MAX;
use crate::grpc::metadata::{ENCODING, Kind};
use crate::grpc::status::Status;
use crate::metrics::grpc::Method;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use prost::Message;
use std::io::Read;
use std::sync::Arc;

/// Bytes before each message: one of flags, four of length.
pub const PREFIX_BYTES: usize = 5;

/// The prefix's flag of a message that is compressed.
const COMPRESSED: u8 = 1;

/// A request's bytes as they come.
pub enum Body {
    /// From a client.
    Stream(RecvStream),
    /// Here already, in these pieces: from a test or a fuzzer.
    Chunks(std::collections::VecDeque<Bytes>),
}

impl Body {
    /// Waits for more; `None` at the end. What is returned no longer counts against the client's window.
    async fn next(&mut self) -> Option<Result<Bytes, h2::Error>> {
        match self {
            Self::Stream(stream) => match stream.data().await? {
                Ok(data) => {
                    // A stream that is closed meanwhile has given its window back.
                    let _ = stream.flow_control().release_capacity(data.len());
                    Some(Ok(data))
                }
                // The client wants no more, and says that nothing is wrong.
                Err(error) if error.reason() == Some(Reason::NO_ERROR) => None,
                Err(error) => Some(Err(error)),
            },
            Self::Chunks(chunks) => chunks.pop_front().map(Ok),
        }
    }
}

/// The messages of one request, in order.
///
/// A message that arrived in one piece is a slice of what the connection read; only a torn one is copied.
pub struct Messages {
    body: Body,
    /// Read and not yet used.
    chunk: Bytes,
    /// The beginning of a torn message, prefix included; empty between messages.
    torn: BytesMut,
    bytes_max: usize,
    /// The compression that a message marked as compressed has; only gzip is known.
    encoding: Option<String>,
    /// Refusals of a unary call's message are worded otherwise than those of a stream's.
    streaming: bool,
    /// Where messages are counted.
    counted: Option<Arc<Method>>,
}

impl Messages {
    /// Reads `body` under a limit of `bytes_max` per message, compressed and not; `headers` name the compression.
    pub fn new(kind: Kind, headers: &HeaderMap, body: Body, bytes_max: usize) -> Self {
        let encoding = headers.get(ENCODING).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let streaming = kind != Kind::Unary;
        Self { body, chunk: Bytes::new(), torn: BytesMut::new(), bytes_max, encoding, streaming, counted: None }
    }

    /// Counts the messages that are read.
    pub fn counted_by(self, method: Option<Arc<Method>>) -> Self {
        Self { counted: method, ..self }
    }

    /// Waits for the next message; `None` once the client has sent its last. Safe to drop and call again.
    ///
    /// - Errors: a message above the limit (before it is read or while it is unpacked), one of an unknown compression,
    ///   a cut one, a reset stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.body.next().await {
                Some(Ok(data)) => {
                    debug_assert!(self.chunk.is_empty(), "take() leaves nothing");
                    self.chunk = data;
                }
                // The client reset the stream or its connection broke.
                Some(Err(_)) => return Err(Status::canceled()),
                None if self.torn.is_empty() => return Ok(None),
                None => return Err(Status::cut_message(self.streaming)),
            }
        }
    }

    /// Waits for the next message and decodes it.
    pub async fn decode<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        match self.next().await? {
            Some(message) => M::decode(message).map(Some).map_err(|_| Status::malformed_message(self.streaming)),
            None => Ok(None),
        }
    }

    /// Waits for the one message of a call that has one.
    pub async fn only<M: Message + Default>(&mut self) -> Result<M, Status> {
        let message = self.next().await?.ok_or_else(Status::missing_message)?;
        M::decode(message).map_err(|_| Status::malformed_message(self.streaming))
    }

    /// Takes a whole message from what was read, or keeps all of that in `torn`.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        while !self.chunk.is_empty() {
            if self.torn.is_empty()
                && let Some(bytes) = self.length(&self.chunk)?
                && self.chunk.len() - PREFIX_BYTES >= bytes
            {
                let frame = self.chunk.split_to(PREFIX_BYTES + bytes);
                return self.unframe(frame).map(Some);
            }
            let wanted = self.length(&self.torn)?.map_or(PREFIX_BYTES, |bytes| PREFIX_BYTES + bytes);
            let taken = self.chunk.split_to(self.chunk.len().min(wanted - self.torn.len()));
            self.torn.extend_from_slice(&taken);
            if self.length(&self.torn)?.is_some_and(|bytes| self.torn.len() == PREFIX_BYTES + bytes) {
                let frame = self.torn.split().freeze();
                return self.unframe(frame).map(Some);
            }
        }
        Ok(None)
    }

    /// The length in the prefix of a frame, once the prefix is whole.
    fn length(&self, mut frame: &[u8]) -> Result<Option<usize>, Status> {
        if frame.len() < PREFIX_BYTES {
            return Ok(None);
        }
        let (flag, bytes) = (frame.get_u8(), frame.get_u32());
        match flag {
            0 => {}
            COMPRESSED if self.encoding.as_deref() == Some("gzip") => {}
            COMPRESSED => return Err(Status::compressed(self.encoding.as_deref())),
            other => return Err(Status::bad_frame(other)),
        }
        if bytes as usize > self.bytes_max {
            return Err(Status::message_too_large(u64::from(bytes), self.bytes_max as u64));
        }
        Ok(Some(bytes as usize))
    }

    /// The message of a whole frame whose prefix was checked.
    fn unframe(&self, mut frame: Bytes) -> Result<Bytes, Status> {
        let flag = frame.get_u8();
        frame.advance(PREFIX_BYTES - 1);
        if let Some(method) = &self.counted {
            method.received(frame.len());
        }
        if flag == COMPRESSED { unpack(&frame, self.bytes_max) } else { Ok(frame) }
    }
}

/// Unpacks gzip, of which at most `bytes_max` bytes and one more come out: a small message may be a bomb.
///
/// - Source: grpc-go `rpc_util.go`, `decompress`.
fn unpack(packed: &[u8], bytes_max: usize) -> Result<Bytes, Status> {
    let mut unpacked = Vec::new();
    let mut reader = MultiGzDecoder::new(packed).take(bytes_max as u64 + 1);
    reader.read_to_end(&mut unpacked).map_err(|error| Status::malformed_gzip(&error))?;
    if unpacked.len() > bytes_max {
        return Err(Status::unpacked_too_large(bytes_max));
    }
    Ok(unpacked.into())
}

/// Writes the prefix of a message of `bytes` bytes.
///
/// - Errors: a message that no client could take.
pub fn put_prefix(buffer: &mut BytesMut, bytes: u64) -> Result<(), Status> {
    match u32::try_from(bytes) {
        Ok(length) if bytes <= ANSWER_BYTES_MAX => {
            buffer.put_u8(0);
            buffer.put_u32(length);
            Ok(())
        }
        _ => Err(Status::answer_too_large(bytes)),
    }
}

/// Encodes a message with its prefix.
pub fn encode<M: Message>(message: &M) -> Result<Bytes, Status> {
    let bytes = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    put_prefix(&mut buffer, bytes as u64)?;
    message.encode_raw(&mut buffer);
    Ok(buffer.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::status::Code;
    use futures_util::FutureExt;
    use mechi_proto::etcdserverpb as pb;
    use proptest::prelude::*;
    use std::io::Write;

    fn messages(chunks: Vec<Bytes>, bytes_max: usize) -> Messages {
        Messages::new(Kind::Unary, &HeaderMap::new(), Body::Chunks(chunks.into()), bytes_max)
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(message);
        frame
    }

    fn next(messages: &mut Messages) -> Result<Option<Bytes>, Status> {
        messages.next().now_or_never().expect("everything has arrived")
    }

    proptest! {
        #[test]
        fn messages_come_whole_however_the_bytes_are_cut(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cuts in prop::collection::vec(1_usize..12, 1..60),
        ) {
            let mut rest = Bytes::from(sent.iter().flat_map(|message| framed(message)).collect::<Vec<_>>());
            let mut chunks = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                chunks.push(rest.split_to(rest.len().min(*cut)));
            }
            let mut messages = messages(chunks, 40);
            for message in &sent {
                let read = next(&mut messages).unwrap();
                prop_assert_eq!(read.as_deref(), Some(&message[..]));
            }
            prop_assert_eq!(next(&mut messages).unwrap(), None);
        }
    }

    #[test]
    fn a_message_above_the_limit_is_refused_by_its_length_alone() {
        let prefix = Bytes::copy_from_slice(&framed(&[0; 41])[..5]);
        let refused = next(&mut messages(vec![prefix], 40)).unwrap_err();
        assert_eq!(refused.text(), "grpc: received message larger than max (41 vs. 40)");
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }

    #[test]
    fn a_message_at_the_limit_passes() {
        assert_eq!(next(&mut messages(vec![framed(&[7; 40]).into()], 40)).unwrap().unwrap().len(), 40);
    }

    #[test]
    fn a_message_of_an_unknown_compression_is_refused() {
        let mut frame = framed(b"x");
        frame[0] = 1;
        let mut plain = messages(vec![frame.clone().into()], 40);
        assert_eq!(next(&mut plain).unwrap_err().code(), Code::Internal);
        let mut snappy = messages(vec![frame.into()], 40);
        snappy.encoding = Some("snappy".into());
        let refused = next(&mut snappy).unwrap_err();
        assert_eq!(refused.text(), "grpc: Decompressor is not installed for grpc-encoding \"snappy\"");
        assert_eq!(refused.code(), Code::Unimplemented);
    }

    /// A frame whose message is packed with gzip, as it comes in two pieces.
    fn gzip(message: &[u8], bytes_max: usize) -> Messages {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(message).unwrap();
        let mut frame = framed(&encoder.finish().unwrap());
        frame[0] = COMPRESSED;
        let rest = frame.split_off(7);
        let mut messages = messages(vec![frame.into(), rest.into()], bytes_max);
        messages.encoding = Some("gzip".into());
        messages
    }

    #[test]
    fn a_message_packed_with_gzip_is_unpacked() {
        assert_eq!(next(&mut gzip(b"hello", 100)).unwrap().unwrap(), "hello");
        assert_eq!(next(&mut gzip(b"", 100)).unwrap().unwrap(), "");
    }

    #[test]
    fn a_gzip_bomb_is_refused_at_the_limit() {
        assert_eq!(next(&mut gzip(&[7; 100_000], 100_000)).unwrap().unwrap().len(), 100_000);
        let refused = next(&mut gzip(&[7; 100_001], 100_000)).unwrap_err();
        assert_eq!(refused.text(), "grpc: received message after decompression larger than max 100000");
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }

    #[test]
    fn bytes_that_are_no_gzip_are_refused() {
        let mut frame = framed(b"not packed");
        frame[0] = COMPRESSED;
        let mut messages = messages(vec![frame.into()], 40);
        messages.encoding = Some("gzip".into());
        assert_eq!(next(&mut messages).unwrap_err().code(), Code::Internal);
    }

    #[test]
    fn a_cut_message_is_an_error_and_not_the_end() {
        let cut = Bytes::copy_from_slice(&framed(b"hello")[..7]);
        for (streaming, code) in [(false, Code::Unknown), (true, Code::Internal)] {
            let mut messages = messages(vec![cut.clone()], 40);
            messages.streaming = streaming;
            let refused = next(&mut messages).unwrap_err();
            assert_eq!((refused.code(), refused.text()), (code, "unexpected EOF"));
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_in_grpc_gos_words() {
        let mut broken = messages(vec![framed(&[0xff]).into()], 40);
        let refused = broken.only::<pb::PutRequest>().now_or_never().unwrap().unwrap_err();
        assert_eq!(refused.text(), "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data");
    }

    #[test]
    fn encoded_messages_are_read_back() {
        let sent = pb::PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..Default::default() };
        let mut messages = messages(vec![encode(&sent).unwrap()], 40);
        assert_eq!(messages.only::<pb::PutRequest>().now_or_never().unwrap().unwrap(), sent);
    }
}
