//! Runs one call: reads the request, calls the handler, sends the answer.
//!
//! Handlers are plain async functions from a request message to an answer message or a [`Status`]; they know neither
//! HTTP nor this file, so that a hot method can be given another transport.

use crate::grpc::Server;
use crate::grpc::frame::{self, Messages};
use crate::grpc::metadata::{Kind, Metadata};
use crate::grpc::range_body::{self, Piece};
use crate::grpc::status::{self, Status};
use crate::node::RangeReply;
use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Request, Response, header};
use http_body::Frame;
use mechi_replica::outcome::Error;
use prost::Message;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// A call whose method is known, not yet read.
pub struct Call {
    server: Arc<Server>,
    headers: HeaderMap,
    body: Body,
}

impl Call {
    /// Takes the request of a known method.
    pub fn new(server: Arc<Server>, request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        Self { server, headers: parts.headers, body }
    }

    /// Runs a method with one message each way.
    pub async fn unary<Q, A, H, F>(self, handler: H) -> Response<Body>
    where
        Q: Message + Default,
        A: Message,
        H: FnOnce(Arc<Server>, Q) -> F,
        F: Future<Output = Result<A, Status>>,
    {
        match self.one(Kind::Unary, handler).await.and_then(|answer| frame::encode(&answer)) {
            Ok(message) => message_response(message),
            Err(status) => status.response(),
        }
    }

    /// Runs `KV.Range`, whose answer may be too big to be built: it streams then under the client's flow control.
    pub async fn range<H, F, Q>(self, handler: H) -> Response<Body>
    where
        Q: Message + Default,
        H: FnOnce(Arc<Server>, Q) -> F,
        F: Future<Output = Result<RangeReply, Status>>,
    {
        let server = self.server.clone();
        let answer = match self.one(Kind::Unary, handler).await {
            Ok(reply) => range_body::message(server.node.header(reply.revision), reply),
            Err(status) => Err(status),
        };
        match answer {
            Ok(Piece::Whole(message)) => message_response(message),
            Ok(Piece::Stream(pieces)) => stream_response(Streaming { pieces, ended: None, done: false }),
            Err(status) => status.response(),
        }
    }

    /// Runs a method with one request and a stream of answers, each a frame in wire form.
    pub async fn server_stream<Q, H, F>(self, handler: H) -> Response<Body>
    where
        Q: Message + Default,
        H: FnOnce(Arc<Server>, Q) -> F,
        F: Future<Output = Result<Pieces, Status>>,
    {
        self.streaming(Kind::ServerStream, async |server, mut messages| handler(server, messages.only().await?).await)
            .await
    }

    /// Runs a method with a stream each way.
    pub async fn bidi_stream<H, F>(self, handler: H) -> Response<Body>
    where
        H: FnOnce(Arc<Server>, Messages) -> F,
        F: Future<Output = Result<Pieces, Status>>,
    {
        self.streaming(Kind::BidiStream, handler).await
    }

    /// Reads the one message, then checks the headers (in grpc-go's order), then calls the handler.
    async fn one<Q, A, H, F>(self, kind: Kind, handler: H) -> Result<A, Status>
    where
        Q: Message + Default,
        H: FnOnce(Arc<Server>, Q) -> F,
        F: Future<Output = Result<A, Status>>,
    {
        let metadata = Metadata::read(&self.headers, Instant::now())?;
        let deadline = metadata.deadline;
        let call = async move {
            let request =
                Messages::new(kind, &self.headers, self.body, self.server.options.message_bytes_max()).only().await?;
            metadata.check(&self.server.node)?;
            handler(self.server, request).await
        };
        match deadline {
            None => call.await,
            // A timer is too coarse for what is over before it begins.
            Some(deadline) if deadline <= Instant::now() => Err(Status::deadline()),
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), call).await.unwrap_or_else(|_| Err(Status::deadline()))
            }
        }
    }

    async fn streaming<H, F>(self, kind: Kind, handler: H) -> Response<Body>
    where
        H: FnOnce(Arc<Server>, Messages) -> F,
        F: Future<Output = Result<Pieces, Status>>,
    {
        let started = async {
            let metadata = Metadata::read(&self.headers, Instant::now())?;
            metadata.check(&self.server.node)?;
            let messages = Messages::new(kind, &self.headers, self.body, self.server.options.message_bytes_max());
            let mut ended: Ended = Box::pin(ended(self.server.clone(), metadata));
            let pieces = tokio::select! {
                biased;
                pieces = handler(self.server, messages) => pieces?,
                status = &mut ended => return Err(status),
            };
            Ok((pieces, ended))
        };
        match started.await {
            Ok((pieces, ended)) => stream_response(Streaming { pieces, ended: Some(ended), done: false }),
            Err(status) => status.response(),
        }
    }
}

/// The answers of a stream in wire form, frames and parts of frames; an error ends the stream with its status.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, End>> + Send>>;

/// How a stream of pieces fails.
#[derive(Debug)]
pub enum End {
    /// Between two messages: the status goes into the trailers.
    Status(Status),
    /// Within a message: only a reset tells the client that the rest will not come.
    Reset(String),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Status(error.into())
    }
}

type Ended = Pin<Box<dyn Future<Output = Status> + Send>>;

/// Resolves when a stream must end whatever its handler does.
async fn ended(server: Arc<Server>, metadata: Metadata) -> Status {
    let deadline = async {
        match metadata.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = server.node.stopping() => Error::Stopped.into(),
        () = server.node.leaderless(), if metadata.requires_leader => Error::NoLeader.into(),
        () = deadline => Status::deadline(),
    }
}

fn respond(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, status::CONTENT_TYPE);
    response
}

fn message_response(message: Bytes) -> Response<Body> {
    respond(Body::new(Single { message: Some(message), ended: false }))
}

fn stream_response(body: Streaming) -> Response<Body> {
    respond(Body::new(body))
}

/// One message and the trailers of success.
struct Single {
    message: Option<Bytes>,
    ended: bool,
}

impl http_body::Body for Single {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::trailers(status::ok_trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Pieces as they come, then the trailers; ends early when `ended` says so.
struct Streaming {
    pieces: Pieces,
    ended: Option<Ended>,
    /// Set once the trailers are out, or the stream is broken off.
    done: bool,
}

impl http_body::Body for Streaming {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        if let Some(ended) = &mut this.ended
            && let Poll::Ready(status) = ended.as_mut().poll(cx)
        {
            this.done = true;
            return Poll::Ready(Some(Ok(Frame::trailers(status.trailers()))));
        }
        let piece = std::task::ready!(this.pieces.as_mut().poll_next(cx));
        this.done = !matches!(piece, Some(Ok(_)));
        Poll::Ready(Some(match piece {
            Some(Ok(piece)) => Ok(Frame::data(piece)),
            Some(Err(End::Status(status))) => Ok(Frame::trailers(status.trailers())),
            Some(Err(End::Reset(why))) => Err(BrokenOff(why)),
            None => Ok(Frame::trailers(status::ok_trailers())),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

/// An answer that had to stop within a message; hyper resets the stream for it.
#[derive(Debug, thiserror::Error)]
#[error("answer broken off: {0}")]
struct BrokenOff(String);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::status::Code;
    use axum::Router;
    use futures_util::stream;
    use mechi_proto::etcdserverpb as pb;
    use mechi_proto::etcdserverpb::kv_client::KvClient;
    use tonic::transport::{Channel, Endpoint};

    /// Serves `answer` to every call; gives a real client over a real connection.
    async fn serve<A>(answer: A) -> KvClient<Channel>
    where
        A: Fn() -> Response<Body> + Clone + Send + Sync + 'static,
    {
        let router = Router::new().fallback(async move || answer());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        KvClient::new(Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap())
    }

    fn piece(count: i64) -> Result<Bytes, End> {
        let range_response = Some(pb::RangeResponse { count, ..Default::default() });
        Ok(frame::encode(&pb::RangeStreamResponse { range_response }).unwrap())
    }

    fn streaming(
        pieces: impl Stream<Item = Result<Bytes, End>> + Send + 'static,
        ended: Option<Ended>,
    ) -> Response<Body> {
        stream_response(Streaming { pieces: Box::pin(pieces), ended, done: false })
    }

    #[tokio::test]
    async fn a_message_reaches_a_real_client() {
        let mut client = serve(|| {
            let header = Some(pb::ResponseHeader { revision: 7, ..Default::default() });
            message_response(frame::encode(&pb::PutResponse { header, prev_kv: None }).unwrap())
        })
        .await;
        let response = client.put(pb::PutRequest::default()).await.unwrap().into_inner();
        assert_eq!(response.header.unwrap().revision, 7);
    }

    #[tokio::test]
    async fn a_refusal_reaches_a_real_client() {
        let mut client = serve(|| Status::from(Error::NoSpace).response()).await;
        let refused = client.put(pb::PutRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_messages_and_its_status() {
        let mut client =
            serve(|| streaming(stream::iter([piece(1), piece(2), Err(Error::Compacted.into())]), None)).await;
        let mut stream = client.range_stream(pb::RangeRequest::default()).await.unwrap().into_inner();
        for count in [1, 2] {
            assert_eq!(stream.message().await.unwrap().unwrap().range_response.unwrap().count, count);
        }
        assert_eq!(stream.message().await.unwrap_err().code(), Code::OutOfRange);
    }

    #[tokio::test]
    async fn an_answer_broken_off_within_a_message_is_an_error_and_never_a_short_answer() {
        let mut client = serve(|| {
            let half = piece(1).unwrap().slice(..6);
            streaming(stream::iter([Ok(half), Err(End::Reset("the disk is gone".into()))]), None)
        })
        .await;
        assert_eq!(client.range(pb::RangeRequest::default()).await.unwrap_err().code(), Code::Internal);
    }

    #[tokio::test]
    async fn what_ends_all_streams_ends_a_silent_one() {
        let mut client = serve(|| streaming(stream::pending(), Some(Box::pin(async { Error::NoLeader.into() })))).await;
        let refused = match client.range_stream(pb::RangeRequest::default()).await {
            Ok(stream) => stream.into_inner().message().await.unwrap_err(),
            Err(refused) => refused,
        };
        assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
    }
}
