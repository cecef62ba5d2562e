//! The Watch service: requests in, responses out, neither waiting for the other.
//!
//! Responses come in wire form, in pieces that watchers share; they are framed here and never encoded again.

use crate::grpc::Server;
use crate::grpc::answer::{End, Pieces};
use crate::grpc::frame::{self, Messages};
use crate::grpc::limits::{CHUNK_BYTES, COPY_BYTES_MAX};
use crate::grpc::status::Status;
use crate::watch::{Requests, WatchMessage};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use mechi_replica::outcome::Error;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// `Watch.Watch`.
///
/// As with etcd, a client that has sent its last request keeps its watches: the stream ends when it is reset, when the
/// deadline passes, or with the server. A stream that the client resets is read as [`Error::WatchCanceled`].
pub async fn watch(server: Arc<Server>, messages: Messages) -> Result<Pieces, Status> {
    let stream = server.node.watch();
    let (failed, failure) = oneshot::channel();
    let requests = stream.requests;
    let reading = tokio::spawn(async move {
        if let Err(status) = forward(messages, requests).await {
            // The stream may have ended for another reason meanwhile; then nobody asks.
            let _ = failed.send(status);
        }
    });
    let outgoing = Outgoing {
        responses: stream.responses,
        failure: Some(failure),
        ready: VecDeque::new(),
        _reading: AbortOnDrop(reading),
    };
    Ok(Box::pin(stream::try_unfold(outgoing, async |mut outgoing| {
        Ok(outgoing.next().await?.map(|piece| (piece, outgoing)))
    })))
}

/// Hands on the client's requests until its last; the channel's bound makes a flood wait in the connection.
async fn forward(mut messages: Messages, requests: Requests) -> Result<(), Status> {
    while let Some(request) = messages.decode().await.map_err(canceled)? {
        if requests.send(request).await.is_err() {
            return Ok(());
        }
    }
    // The sender lives on with the stream: dropping it would say that the client has left.
    requests.closed().await;
    Ok(())
}

/// etcd gives a canceled watch stream a text of its own.
fn canceled(status: Status) -> Status {
    if status.code() == Status::canceled().code() { Error::WatchCanceled.into() } else { status }
}

/// Ends the reading of requests with the stream.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The stream's way out.
struct Outgoing {
    responses: mpsc::Receiver<WatchMessage>,
    /// Why the requests cannot be read on; `None` once it is known that nothing is wrong.
    failure: Option<oneshot::Receiver<Status>>,
    /// Framed and not yet taken by the connection: at most one buffer and one message's pieces.
    ready: VecDeque<Bytes>,
    _reading: AbortOnDrop,
}

impl Outgoing {
    async fn next(&mut self) -> Result<Option<Bytes>, End> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            let failure = async {
                match &mut self.failure {
                    Some(failure) => failure.await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                biased;
                failure = failure => {
                    self.failure = None;
                    match failure {
                        Ok(status) => return Err(status.into()),
                        Err(_) => continue,
                    }
                }
                message = self.responses.recv() => message,
            };
            let Some(message) = message else { return Err(Error::Stopped.into()) };
            let mut framer = Framer::default();
            framer.push(message)?;
            while framer.bytes < CHUNK_BYTES
                && let Ok(message) = self.responses.try_recv()
            {
                framer.push(message)?;
            }
            self.ready = framer.finish();
        }
    }
}

/// Frames messages, small pieces joined and big ones left uncopied.
#[derive(Default)]
struct Framer {
    pieces: VecDeque<Bytes>,
    buffer: BytesMut,
    bytes: usize,
}

impl Framer {
    fn push(&mut self, message: WatchMessage) -> Result<(), Status> {
        let bytes = message.pieces.iter().map(Bytes::len).sum::<usize>();
        frame::put_prefix(&mut self.buffer, bytes as u64)?;
        self.bytes += frame::PREFIX_BYTES + bytes;
        for piece in message.pieces {
            if piece.len() <= COPY_BYTES_MAX {
                self.buffer.extend_from_slice(&piece);
            } else {
                // Two big pieces in a row have nothing between them. The HTTP/2 library of Rust clients takes a hundred
                // empty frames for an attack and ends the connection.
                if !self.buffer.is_empty() {
                    self.pieces.push_back(self.buffer.split().freeze());
                }
                self.pieces.push_back(piece);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> VecDeque<Bytes> {
        if !self.buffer.is_empty() {
            self.pieces.push_back(self.buffer.freeze());
        }
        self.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::frame::Body;
    use crate::grpc::metadata::Kind;
    use crate::watch::Watches;
    use futures_util::FutureExt;
    use http::HeaderMap;
    use mechi_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion};
    use mechi_replica::mvcc::Mvcc;
    use mechi_replica::store::AllInMemory;
    use prost::Message;

    fn outgoing(capacity: usize) -> (mpsc::Sender<WatchMessage>, oneshot::Sender<Status>, Outgoing) {
        let (sender, responses) = mpsc::channel(capacity);
        let (failed, failure) = oneshot::channel();
        let reading = AbortOnDrop(tokio::spawn(std::future::pending()));
        (sender, failed, Outgoing { responses, failure: Some(failure), ready: VecDeque::new(), _reading: reading })
    }

    fn message(response: &WatchResponse, cut: usize) -> WatchMessage {
        let mut wire = Bytes::from(response.encode_to_vec());
        let first = wire.split_to(cut.min(wire.len()));
        WatchMessage::from(vec![first, wire])
    }

    #[tokio::test]
    async fn waiting_responses_leave_together_and_whole() {
        let (sender, _failed, mut outgoing) = outgoing(8);
        let responses: Vec<_> =
            (0..5).map(|watch_id| WatchResponse { watch_id, created: true, ..Default::default() }).collect();
        for (cut, response) in responses.iter().enumerate() {
            sender.try_send(message(response, cut)).unwrap();
        }
        let mut sent = outgoing.next().await.unwrap().unwrap();
        for response in &responses {
            let prefix = sent.split_to(frame::PREFIX_BYTES);
            let bytes = u32::from_be_bytes(prefix[1..].try_into().unwrap());
            assert_eq!(&WatchResponse::decode(sent.split_to(bytes as usize)).unwrap(), response);
        }
        assert!(sent.is_empty());
        assert!(outgoing.next().now_or_never().is_none(), "nothing more is there");
    }

    #[tokio::test]
    async fn shared_big_pieces_are_not_copied() {
        let (sender, _failed, mut outgoing) = outgoing(8);
        let big = Bytes::from(vec![1; COPY_BYTES_MAX + 1]);
        let pieces = vec![Bytes::from_static(b"head"), big.clone(), big.clone(), Bytes::from_static(b"tail")];
        sender.try_send(WatchMessage::from(pieces)).unwrap();
        let head = outgoing.next().await.unwrap().unwrap();
        assert_eq!(u32::from_be_bytes(head[1..5].try_into().unwrap()) as usize, big.len() * 2 + 8);
        assert_eq!(&head[5..], b"head");
        for _ in 0..2 {
            assert_eq!(outgoing.next().await.unwrap().unwrap().as_ptr(), big.as_ptr(), "with no empty frame before it");
        }
        assert_eq!(&outgoing.next().await.unwrap().unwrap()[..], b"tail");
    }

    #[tokio::test]
    async fn a_stopping_hub_ends_the_stream_so_that_clients_resume_elsewhere() {
        let (sender, _failed, mut outgoing) = outgoing(1);
        drop(sender);
        let Err(End::Status(status)) = outgoing.next().await else { panic!("the stream ends with a status") };
        assert_eq!(status.text(), "etcdserver: server stopped");
    }

    #[tokio::test]
    async fn a_bad_request_ends_the_stream_and_a_last_request_does_not() {
        let (_sender, failed, mut bad) = outgoing(1);
        failed.send(Status::malformed_message(true)).unwrap();
        assert!(matches!(bad.next().await, Err(End::Status(_))));

        let (sender, failed, mut good) = outgoing(1);
        drop(failed);
        sender.try_send(message(&WatchResponse::default(), 0)).unwrap();
        assert!(good.next().await.unwrap().is_some());
    }

    #[tokio::test]
    async fn requests_are_handed_on_and_the_stream_stays_open_behind_the_last() {
        let source = Box::new(|look: &mut dyn FnMut(&Mvcc)| look(&Mvcc::new()));
        let values = Arc::new(AllInMemory);
        let fatal = Box::new(|fatal| panic!("{fatal}"));
        let (watches, thread) =
            Watches::spawn(Default::default(), Default::default(), 1, source, values, Default::default(), fatal)
                .unwrap();
        let mut stream = watches.open();
        let create = WatchCreateRequest { key: "k".into(), ..Default::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let body = Body::Chunks([frame::encode(&request).unwrap()].into());
        let forwarding =
            tokio::spawn(forward(Messages::new(Kind::BidiStream, &HeaderMap::new(), body, 1000), stream.requests));
        let created = stream.responses.recv().await.unwrap();
        assert!(WatchResponse::decode(&created.pieces.concat()[..]).unwrap().created);
        assert!(!forwarding.is_finished(), "the client may have sent its last request and still watch");
        watches.stop();
        forwarding.await.unwrap().unwrap();
        thread.join().unwrap();
    }
}
