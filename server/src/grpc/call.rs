//! Runs one call: reads the request, calls the handler, sends the answer.
//!
//! Handlers are plain async functions from a request message to an answer message or a [`Status`]; they know neither
//! HTTP nor this file, so that a hot method can be given another transport.

use crate::grpc::Server;
use crate::grpc::answer::{Answer, Ended, Pieces};
use crate::grpc::frame::{self, Body, Messages};
use crate::grpc::limits::SHARED_TASK_BYTES_MAX;
use crate::grpc::metadata::{Kind, Metadata};
use crate::grpc::range_body::{self, Piece};
use crate::grpc::status::Status;
use crate::node::RangeReply;
use http::HeaderMap;
use mechi_proto::etcdserverpb::RangeRequest;
use mechi_replica::outcome::Error;
use prost::Message;
use std::sync::Arc;
use std::time::Instant;

/// A call whose method is known, not yet read.
pub struct Call {
    server: Arc<Server>,
    headers: HeaderMap,
    body: Body,
    answer: Answer,
}

impl Call {
    /// Takes the request of a known method.
    pub fn new(server: Arc<Server>, headers: HeaderMap, body: Body, answer: Answer) -> Self {
        Self { server, headers, body, answer }
    }

    /// Ends the call before it is read.
    pub fn refuse(self, status: &Status) {
        self.answer.refuse(status);
    }

    /// Runs a method with one message each way.
    pub async fn unary<Q, A, H, F>(self, handler: H)
    where
        Q: Message + Default,
        A: Message + 'static,
        H: FnOnce(Arc<Server>, Q) -> F,
        F: Future<Output = Result<A, Status>>,
    {
        let Some((request, mut asked)) = self.read().await else { return };
        match asked.run(|server| handler(server, request)).await {
            None => {}
            Some(Err(status)) => asked.answer.refuse(&status),
            Some(Ok(answer)) if answer.encoded_len() <= SHARED_TASK_BYTES_MAX => asked.message(&answer),
            // A long message takes its time to be written.
            Some(Ok(answer)) => drop(tokio::spawn(async move { asked.message(&answer) })),
        }
    }

    /// Runs `KV.Range`. One key is answered by the task that runs this, more by a task of their own.
    pub async fn range<H, F>(self, handler: H)
    where
        H: FnOnce(Arc<Server>, RangeRequest) -> F + Send + 'static,
        F: Future<Output = Result<RangeReply, Status>> + Send + 'static,
    {
        let Some((request, asked)) = self.read::<RangeRequest>().await else { return };
        if request.range_end.is_empty() {
            asked.range(request, handler).await;
        } else {
            tokio::spawn(asked.range(request, handler));
        }
    }

    /// Runs a method with one request and a stream of answers, each a frame in wire form.
    pub async fn server_stream<Q, H, F>(self, handler: H)
    where
        Q: Message + Default,
        H: FnOnce(Arc<Server>, Q) -> F,
        F: Future<Output = Result<Pieces, Status>>,
    {
        self.streaming(Kind::ServerStream, async |server, mut messages| handler(server, messages.only().await?).await)
            .await;
    }

    /// Runs a method with a stream each way.
    pub async fn bidi_stream<H, F>(self, handler: H)
    where
        H: FnOnce(Arc<Server>, Messages) -> F,
        F: Future<Output = Result<Pieces, Status>>,
    {
        self.streaming(Kind::BidiStream, handler).await;
    }

    /// Reads the one message; grpc-go checks the headers only then. `None`: the call is over.
    async fn read<Q: Message + Default>(self) -> Option<(Q, Asked)> {
        let Self { server, headers, body, mut answer } = self;
        let metadata = match Metadata::read(&headers, Instant::now) {
            Ok(metadata) => metadata,
            Err(status) => {
                answer.refuse(&status);
                return None;
            }
        };
        let mut messages =
            Messages::new(Kind::Unary, &headers, body, server.options.message_bytes_max()).counted_by(answer.method());
        drop(headers);
        match answer.unless_reset(within(metadata.deadline, messages.only())).await? {
            Ok(request) => Some((request, Asked { server, metadata, answer })),
            Err(status) => {
                answer.refuse(&status);
                None
            }
        }
    }

    async fn streaming<H, F>(self, kind: Kind, handler: H)
    where
        H: FnOnce(Arc<Server>, Messages) -> F,
        F: Future<Output = Result<Pieces, Status>>,
    {
        let Self { server, headers, body, mut answer } = self;
        let method = answer.method();
        let started = async {
            let metadata = Metadata::read(&headers, Instant::now)?;
            metadata.check(&server.node)?;
            let messages = Messages::new(kind, &headers, body, server.options.message_bytes_max()).counted_by(method);
            let mut ended: Ended = Box::pin(ended(server.clone(), metadata));
            let pieces = tokio::select! {
                biased;
                pieces = handler(server, messages) => pieces?,
                status = &mut ended => return Err(status),
            };
            Ok((pieces, ended))
        };
        match answer.unless_reset(started).await {
            None => {}
            Some(Ok((pieces, ended))) => answer.stream(pieces, Some(ended)).await,
            Some(Err(status)) => answer.refuse(&status),
        }
    }
}

/// A call whose one message was read.
struct Asked {
    server: Arc<Server>,
    metadata: Metadata,
    answer: Answer,
}

impl Asked {
    /// Checks the headers and runs `handler`; `None` if the client gives up first.
    async fn run<A, F>(&mut self, handler: impl FnOnce(Arc<Server>) -> F) -> Option<Result<A, Status>>
    where
        F: Future<Output = Result<A, Status>>,
    {
        let Self { server, metadata, answer } = self;
        let call = async {
            metadata.check(&server.node)?;
            handler(server.clone()).await
        };
        answer.unless_reset(within(metadata.deadline, call)).await
    }

    /// The answer may be too big to be built: it streams then under the client's flow control.
    async fn range<H, F>(mut self, request: RangeRequest, handler: H)
    where
        H: FnOnce(Arc<Server>, RangeRequest) -> F,
        F: Future<Output = Result<RangeReply, Status>>,
    {
        let Some(reply) = self.run(|server| handler(server, request)).await else { return };
        let node = &self.server.node;
        match reply.and_then(|reply| range_body::message(node.header(reply.revision), reply)) {
            Ok(Piece::Whole(message)) => self.answer.message(message),
            Ok(Piece::Stream(pieces)) => drop(tokio::spawn(self.answer.stream(pieces, None))),
            Err(status) => self.answer.refuse(&status),
        }
    }

    fn message(self, message: &impl Message) {
        match frame::encode(message) {
            Ok(message) => self.answer.message(message),
            Err(status) => self.answer.refuse(&status),
        }
    }
}

/// Runs `call` until the client's deadline.
async fn within<T>(deadline: Option<Instant>, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match deadline {
        None => call.await,
        // A timer is too coarse for what is over before it begins.
        Some(deadline) if deadline <= Instant::now() => Err(Status::deadline()),
        Some(deadline) => {
            tokio::time::timeout_at(deadline.into(), call).await.unwrap_or_else(|_| Err(Status::deadline()))
        }
    }
}

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
