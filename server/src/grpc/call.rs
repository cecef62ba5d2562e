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
use std::pin::pin;
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
        let work = pin!(handler(asked.server.clone(), request));
        match asked.answer.unless_over(asked.deadline, work).await {
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
        H: FnOnce(Arc<Server>, RangeRequest) -> F,
        F: Future<Output = Result<RangeReply, Status>> + Send + 'static,
    {
        let Some((request, asked)) = self.read::<RangeRequest>().await else { return };
        let server = asked.server.clone();
        if request.range_end.is_empty() {
            asked.range(pin!(handler(server, request))).await;
        } else {
            tokio::spawn(asked.range(handler(server, request)));
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

    /// Reads the one message, then checks the headers, in grpc-go's order; `None` if the call is over already.
    async fn read<Q: Message + Default>(mut self) -> Option<(Q, Asked)> {
        let metadata = match Metadata::read(&self.headers, Instant::now) {
            Ok(metadata) => metadata,
            Err(status) => {
                self.answer.refuse(&status);
                return None;
            }
        };
        let bytes_max = self.server.options.message_bytes_max();
        let mut messages =
            Messages::new(Kind::Unary, &self.headers, self.body, bytes_max).counted_by(self.answer.method());
        drop(self.headers);
        let request = self.answer.unless_over(metadata.deadline, pin!(messages.only())).await?;
        match request.and_then(|request| metadata.check(&self.server.node).map(|()| request)) {
            Ok(request) => {
                Some((request, Asked { server: self.server, deadline: metadata.deadline, answer: self.answer }))
            }
            Err(status) => {
                self.answer.refuse(&status);
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
        match answer.unless_over(None, pin!(started)).await {
            None => {}
            Some(Ok((pieces, ended))) => answer.stream(pieces, Some(ended)).await,
            Some(Err(status)) => answer.refuse(&status),
        }
    }
}

/// A call whose one message was read and whose headers were checked.
struct Asked {
    server: Arc<Server>,
    deadline: Option<Instant>,
    answer: Answer,
}

impl Asked {
    /// The answer may be too big to be built: it streams then under the client's flow control.
    async fn range(mut self, work: impl Future<Output = Result<RangeReply, Status>>) {
        let Some(reply) = self.answer.unless_over(self.deadline, pin!(work)).await else { return };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::kv;

    fn future_bytes<F>(_: impl FnOnce(Call) -> F) -> usize {
        size_of::<F>()
    }

    /// A call's future is moved and allocated for each call: when it had grown to many kilobytes, a quarter of a put's time
    /// went into that.
    #[test]
    fn the_futures_of_frequent_calls_are_small() {
        let put = future_bytes(|call| call.unary(kv::put));
        let range = future_bytes(|call| call.range(kv::range));
        let txn = future_bytes(|call| call.unary(kv::txn));
        println!("bytes of a call: put {put}, range {range}, txn {txn}");
        assert!(put.max(range).max(txn) <= 4 * 1024, "put {put}, range {range}, txn {txn}");
    }
}
