//! Runs one call: reads the request, calls the handler, sends the answer, tells the observer how it ended.
//!
//! Handlers are plain async functions from a request message to an answer message or a [`Status`]; they know neither
//! HTTP nor this file, so that a hot method can be given another transport.

use crate::grpc::Server;
use crate::grpc::frame::{self, Messages};
use crate::grpc::metadata::{Kind, Metadata, Method, Observer};
use crate::grpc::range_body::{self, Piece};
use crate::grpc::status::{self, Code, Status};
use crate::node::RangeReply;
use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Request, Response, Uri, header};
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
    uri: Uri,
}

impl Call {
    /// Takes the request of a known method.
    pub fn new(server: Arc<Server>, request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        Self { server, headers: parts.headers, body, uri: parts.uri }
    }

    /// Runs a method with one message each way.
    pub async fn unary<Q, A, H, F>(self, handler: H) -> Response<Body>
    where
        Q: Message + Default,
        A: Message,
        H: FnOnce(Arc<Server>, Q) -> F,
        F: Future<Output = Result<A, Status>>,
    {
        let mut report = self.report(Kind::Unary);
        match self.one(Kind::Unary, handler).await.and_then(|answer| frame::encode(&answer)) {
            Ok(message) => {
                report.end(Code::Ok);
                message_response(message)
            }
            Err(status) => report.refuse(&status),
        }
    }

    /// Runs `KV.Range`, whose answer may be too big to be built: it streams then under the client's flow control.
    pub async fn range<H, F, Q>(self, handler: H) -> Response<Body>
    where
        Q: Message + Default,
        H: FnOnce(Arc<Server>, Q) -> F,
        F: Future<Output = Result<RangeReply, Status>>,
    {
        let mut report = self.report(Kind::Unary);
        let server = self.server.clone();
        let answer = match self.one(Kind::Unary, handler).await {
            Ok(reply) => range_body::message(server.node.header(reply.revision), reply),
            Err(status) => Err(status),
        };
        match answer {
            Ok(Piece::Whole(message)) => {
                report.end(Code::Ok);
                message_response(message)
            }
            Ok(Piece::Stream(pieces)) => stream_response(Streaming { pieces, ended: None, report: Some(report) }),
            Err(status) => report.refuse(&status),
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

    /// Answers a known method that is not served with a sentence.
    pub fn unserved(self, kind: Kind, sentence: &str) -> Response<Body> {
        self.report(kind).refuse(&Status::unimplemented(sentence))
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
            metadata.check(&self.server.node, kind, &*self.server.options.observer)?;
            handler(self.server, request).await
        };
        match deadline {
            None => call.await,
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
        let report = self.report(kind);
        let started = async {
            let metadata = Metadata::read(&self.headers, Instant::now())?;
            metadata.check(&self.server.node, kind, &*self.server.options.observer)?;
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
            Ok((pieces, ended)) => stream_response(Streaming { pieces, ended: Some(ended), report: Some(report) }),
            Err(status) => report.refuse(&status),
        }
    }

    fn report(&self, kind: Kind) -> Report {
        Report::new(self.server.options.observer.clone(), self.uri.clone(), kind)
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

/// Tells the observer how the call ended; a call that is dropped before was left by its client.
struct Report {
    observer: Arc<dyn Observer>,
    uri: Uri,
    kind: Kind,
    began: Instant,
    done: bool,
}

impl Report {
    fn new(observer: Arc<dyn Observer>, uri: Uri, kind: Kind) -> Self {
        let report = Self { observer, uri, kind, began: Instant::now(), done: false };
        report.observer.started(report.method());
        report
    }

    fn method(&self) -> Method<'_> {
        let (service, name) = self.uri.path().trim_start_matches('/').split_once('/').unwrap_or_default();
        Method { service, name, kind: self.kind }
    }

    fn end(&mut self, code: Code) {
        if !self.done {
            self.done = true;
            self.observer.handled(self.method(), code, self.began.elapsed());
        }
    }

    fn refuse(mut self, status: &Status) -> Response<Body> {
        self.end(status.code());
        status.response()
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
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
    /// `None` once the trailers are out.
    report: Option<Report>,
}

impl Streaming {
    fn finish(&mut self, code: Code, trailers: HeaderMap) -> Frame<Bytes> {
        if let Some(mut report) = self.report.take() {
            report.end(code);
        }
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Streaming {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = &mut *self;
        let Some(report) = &mut this.report else { return Poll::Ready(None) };
        if let Some(ended) = &mut this.ended
            && let Poll::Ready(status) = ended.as_mut().poll(cx)
        {
            let trailers = status.trailers();
            return Poll::Ready(Some(Ok(this.finish(status.code(), trailers))));
        }
        Poll::Ready(Some(match std::task::ready!(this.pieces.as_mut().poll_next(cx)) {
            Some(Ok(piece)) => Ok(Frame::data(piece)),
            Some(Err(End::Status(status))) => Ok(this.finish(status.code(), status.trailers())),
            Some(Err(End::Reset(why))) => {
                report.end(Code::Internal);
                this.report = None;
                Err(BrokenOff(why))
            }
            None => Ok(this.finish(Code::Ok, status::ok_trailers())),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.report.is_none()
    }
}

/// An answer that had to stop within a message; hyper resets the stream for it.
#[derive(Debug, thiserror::Error)]
#[error("answer broken off: {0}")]
struct BrokenOff(String);

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use futures_util::{StreamExt, stream};
    use mechi_proto::etcdserverpb as pb;
    use mechi_proto::etcdserverpb::kv_client::KvClient;
    use std::time::Duration;
    use tokio::sync::mpsc;
    use tonic::transport::{Channel, Endpoint};

    /// Hands every ended call on.
    struct Heard(mpsc::UnboundedSender<(String, Kind, Code)>);

    impl Observer for Heard {
        fn started(&self, _: Method<'_>) {}
        fn client_request(&self, _: Kind, _: &str) {}
        fn handled(&self, method: Method<'_>, code: Code, _: Duration) {
            let _ = self.0.send((format!("{}/{}", method.service, method.name), method.kind, code));
        }
    }

    type Ends = mpsc::UnboundedReceiver<(String, Kind, Code)>;

    /// Serves `answer` to every call; gives a real client over a real connection.
    async fn serve<A>(answer: A) -> (KvClient<Channel>, Ends)
    where
        A: Fn(Report) -> Response<Body> + Clone + Send + Sync + 'static,
    {
        let (sender, ends) = mpsc::unbounded_channel();
        let observer = Arc::new(Heard(sender));
        let router = Router::new().fallback(async move |request: Request<Body>| {
            answer(Report::new(observer, request.uri().clone(), Kind::ServerStream))
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        (KvClient::new(channel), ends)
    }

    fn piece(count: i64) -> Result<Bytes, End> {
        let range_response = Some(pb::RangeResponse { count, ..Default::default() });
        Ok(frame::encode(&pb::RangeStreamResponse { range_response }).unwrap())
    }

    fn streaming(
        pieces: impl Stream<Item = Result<Bytes, End>> + Send + 'static,
        ended: Option<Ended>,
        report: Report,
    ) -> Response<Body> {
        stream_response(Streaming { pieces: Box::pin(pieces), ended, report: Some(report) })
    }

    #[tokio::test]
    async fn a_message_reaches_a_real_client() {
        let (mut client, mut ends) = serve(|mut report| {
            let header = Some(pb::ResponseHeader { revision: 7, ..Default::default() });
            let message = frame::encode(&pb::PutResponse { header, prev_kv: None }).unwrap();
            report.end(Code::Ok);
            message_response(message)
        })
        .await;
        let response = client.put(pb::PutRequest::default()).await.unwrap().into_inner();
        assert_eq!(response.header.unwrap().revision, 7);
        assert_eq!(ends.recv().await.unwrap(), ("etcdserverpb.KV/Put".into(), Kind::ServerStream, Code::Ok));
    }

    #[tokio::test]
    async fn a_refusal_reaches_a_real_client() {
        let (mut client, mut ends) = serve(|report| report.refuse(&Error::NoSpace.into())).await;
        let refused = client.put(pb::PutRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
        assert_eq!(ends.recv().await.unwrap().2, Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_messages_and_its_status() {
        let (mut client, mut ends) =
            serve(|report| streaming(stream::iter([piece(1), piece(2), Err(Error::Compacted.into())]), None, report))
                .await;
        let mut stream = client.range_stream(pb::RangeRequest::default()).await.unwrap().into_inner();
        for count in [1, 2] {
            assert_eq!(stream.message().await.unwrap().unwrap().range_response.unwrap().count, count);
        }
        assert_eq!(stream.message().await.unwrap_err().code(), Code::OutOfRange);
        assert_eq!(ends.recv().await.unwrap().2, Code::OutOfRange);
    }

    #[tokio::test]
    async fn an_answer_broken_off_within_a_message_is_an_error_and_never_a_short_answer() {
        let (mut client, mut ends) = serve(|report| {
            let half = piece(1).unwrap().slice(..6);
            streaming(stream::iter([Ok(half), Err(End::Reset("the disk is gone".into()))]), None, report)
        })
        .await;
        assert_eq!(client.range(pb::RangeRequest::default()).await.unwrap_err().code(), Code::Internal);
        assert_eq!(ends.recv().await.unwrap().2, Code::Internal);
    }

    #[tokio::test]
    async fn what_ends_all_streams_ends_a_silent_one() {
        let (mut client, mut ends) = serve(|report| {
            let ended: Ended = Box::pin(async { Error::NoLeader.into() });
            streaming(stream::pending(), Some(ended), report)
        })
        .await;
        let refused = match client.range_stream(pb::RangeRequest::default()).await {
            Ok(stream) => stream.into_inner().message().await.unwrap_err(),
            Err(refused) => refused,
        };
        assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
        assert_eq!(ends.recv().await.unwrap().2, Code::Unavailable);
    }

    #[tokio::test]
    async fn a_stream_that_its_client_leaves_is_counted_as_canceled() {
        let (mut client, mut ends) =
            serve(|report| streaming(stream::iter([piece(1)]).chain(stream::pending()), None, report)).await;
        let mut stream = client.range_stream(pb::RangeRequest::default()).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        drop(stream);
        assert_eq!(ends.recv().await.unwrap().2, Code::Cancelled);
    }
}
