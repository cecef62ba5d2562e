//! The way back to the client: one message, a refusal, or a stream of pieces, each counted as it leaves.

use crate::grpc::frame::PREFIX_BYTES;
use crate::grpc::status::{self, Status};
use crate::metrics::grpc::{Counted, Frames, Method};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderValue, Response, StatusCode, header};
use mechi_replica::outcome::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

/// One call's way back. Dropped unanswered it resets the stream.
pub struct Answer {
    respond: SendResponse<Bytes>,
    /// `None` if there is no such method.
    counted: Option<Counted>,
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

/// Resolves when a stream must end whatever its handler does.
pub type Ended = Pin<Box<dyn Future<Output = Status> + Send>>;

impl Answer {
    /// Takes the way back that the HTTP/2 library gives.
    pub fn new(respond: SendResponse<Bytes>, counted: Option<Counted>) -> Self {
        Self { respond, counted }
    }

    /// Where the call's messages are counted.
    pub fn method(&self) -> Option<Arc<Method>> {
        self.counted.as_ref().map(|counted| counted.method().clone())
    }

    /// Does `work` until the client's deadline, unless the client gives up first (`None`): nobody needs an answer then.
    ///
    /// The work comes pinned, since each layer of futures would else hold it twice.
    pub async fn unless_over<T>(
        &mut self,
        deadline: Option<Instant>,
        mut work: Pin<&mut impl Future<Output = Result<T, Status>>>,
    ) -> Option<Result<T, Status>> {
        // A timer is too coarse for what is over before it begins.
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Some(Err(Status::deadline()));
        }
        let mut late = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline.into())));
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if let Some(late) = &mut late
                && late.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Some(Err(Status::deadline())));
            }
            self.respond.poll_reset(cx).map(|_| None)
        })
        .await
    }

    /// Sends one message, its prefix included, and the trailers of success.
    ///
    /// The message is in memory anyway, so the library may hold it until the client's window takes it.
    pub fn message(mut self, message: Bytes) {
        if let Some(counted) = &self.counted {
            counted.sent(message.len() - PREFIX_BYTES);
        }
        // An error says that the client has gone; so does the drop that follows.
        let Ok(mut stream) = self.head() else { return };
        if stream.send_data(message, false).is_ok() && stream.send_trailers(status::ok_trailers()).is_ok() {
            self.end(None);
        }
    }

    /// Sends a status without a message ("trailers only").
    pub fn refuse(mut self, status: &Status) {
        if self.respond.send_response(status.response(), true).is_ok() {
            self.end(Some(status));
        }
    }

    /// Sends pieces as the client reads, then the trailers; ends early when `ended` says so.
    ///
    /// At most one piece is held beside what the library may hold of a stream.
    pub async fn stream(mut self, mut pieces: Pieces, mut ended: Option<Ended>) {
        let Ok(mut stream) = self.head() else { return };
        let mut frames = Frames::default();
        loop {
            let next = poll_fn(|cx| {
                if stream.poll_reset(cx).is_ready() {
                    return Poll::Ready(Next::Gone);
                }
                if let Some(ended) = &mut ended
                    && let Poll::Ready(status) = ended.as_mut().poll(cx)
                {
                    return Poll::Ready(Next::Last(Some(Err(status.into()))));
                }
                match pieces.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok(piece))) => Poll::Ready(Next::Piece(piece)),
                    Poll::Ready(last) => Poll::Ready(Next::Last(last)),
                    Poll::Pending => Poll::Pending,
                }
            });
            let status = match next.await {
                Next::Gone => return,
                Next::Piece(piece) if piece.is_empty() => continue,
                Next::Piece(piece) => {
                    if let Some(counted) = &self.counted {
                        frames.pass(&piece, counted);
                    }
                    if !has_room(&mut stream).await || stream.send_data(piece, false).is_err() {
                        return;
                    }
                    continue;
                }
                Next::Last(Some(Err(End::Reset(why)))) => {
                    tracing::debug!(why, "answer broken off");
                    stream.send_reset(Reason::INTERNAL_ERROR);
                    return;
                }
                Next::Last(Some(Err(End::Status(status)))) => Some(status),
                Next::Last(_) => None,
            };
            let trailers = status.as_ref().map_or_else(status::ok_trailers, Status::trailers);
            stream.reserve_capacity(0);
            if stream.send_trailers(trailers).is_ok() {
                self.end(status.as_ref());
            }
            return;
        }
    }

    /// What Go's mux answers to a path that it does not know; such a request is no call.
    pub fn not_found(mut respond: SendResponse<Bytes>) {
        const TEXT: &[u8] = b"404 page not found\n";
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::NOT_FOUND;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CONTENT_LENGTH, TEXT.len().into());
        // An error says that the client has gone.
        if let Ok(mut stream) = respond.send_response(response, false) {
            let _ = stream.send_data(Bytes::from_static(TEXT), true);
        }
    }

    fn head(&mut self) -> Result<SendStream<Bytes>, h2::Error> {
        let mut response = Response::new(());
        *response.headers_mut() = status::head();
        self.respond.send_response(response, false)
    }

    /// Counts the end; `None` is success.
    fn end(&mut self, status: Option<&Status>) {
        if let Some(counted) = &mut self.counted {
            match status {
                Some(status) => counted.end(status.code() as i32),
                None => counted.end_ok(),
            }
        }
    }
}

/// What comes next in a stream.
enum Next {
    /// The client has given up.
    Gone,
    Piece(Bytes),
    Last(Option<Result<Bytes, End>>),
}

/// Waits until the library takes a piece; false if the client has gone.
///
/// As hyper does, one byte is asked for and the whole piece sent once there is room for it: a stream that asks for more
/// than it gets keeps room from others.
async fn has_room(stream: &mut SendStream<Bytes>) -> bool {
    stream.reserve_capacity(1);
    poll_fn(|cx| {
        if stream.poll_reset(cx).is_ready() {
            return Poll::Ready(false);
        }
        while stream.capacity() == 0 {
            match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(true)
    })
    .await
}

#[cfg(test)]
mod tests;
