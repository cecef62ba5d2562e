//! Serves one HTTP/2 connection in one task: it accepts streams, and answers most of them, without another.
//!
//! A call costs no task and no channel: its future is polled here, and a batch of answers wakes the connection once and
//! leaves with one write. What may be slow or long gets a task of its own from whoever opens it.

use super::gathered::{Gathered, Gathering, gather};
use super::{Error, Limits, stopped};
use crate::config::Keepalive;
use crate::config::limits::{
    CONNECTION_WINDOW_BYTES, HEADER_LIST_BYTES_MAX, PENDING_RESETS_MAX, SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES,
};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::Request;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// Why a connection ends whose client answers no ping.
const SILENT: &str = "a ping was not answered in time";

/// What answers the streams of one connection.
pub trait Streams: Send + 'static {
    /// Takes a new stream. The returned future is polled by the connection, between its other streams, until it is done;
    /// it must not compute for long. `None`: the stream is answered already, or has a task of its own.
    ///
    /// - Shape: dropping the future or its task resets the stream, unless it is answered.
    fn open(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Option<BoxFuture<'static, ()>>;
}

/// Serves a connection until its client leaves, or until its streams have ended after `shutdown` turned true.
///
/// - Errors: a broken connection, or a client that breaks HTTP/2.
pub async fn serve<I, S>(
    io: I,
    mut streams: S,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Streams,
{
    let (io, gathering) = gather(io);
    let mut connection = tokio::select! {
        connection = handshake(io, &gathering, limits) => connection?,
        () = stopped(&mut shutdown) => return Ok(()),
    };
    let pings = connection.ping_pong().expect("it is asked for once");
    // These two never end while all is well. So the set is never empty, and it has more members than new calls, which
    // it would else take for members that wake themselves without end, and pause.
    let mut calls = FuturesUnordered::new();
    calls.push(Either::Left(stop(shutdown).boxed()));
    calls.push(Either::Left(silence(pings, gathering.share(), limits.keepalive).boxed()));
    let (mut is_silent, mut has_waited) = (false, false);
    let nudge = Arc::new(Nudge::default());
    let waker = Waker::from(nudge.clone());
    poll_fn(|cx| {
        // Streams with tasks of their own tell one after the other, and the runtime runs who was told before who is
        // still to tell: so that they leave together, the connection goes to the end of the queue once. What it reads
        // wakes it in the same way, and costs it the same turn.
        if nudge.was_heard() && !has_waited {
            has_waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        has_waited = false;
        nudge.arm(cx);
        loop {
            // Answers come first, so that those that are ready leave together.
            while let Poll::Ready(Some(event)) = calls.poll_next_unpin(cx) {
                match event {
                    Event::Answered => {}
                    Event::Stop => connection.graceful_shutdown(),
                    Event::Silent => {
                        is_silent = true;
                        connection.abrupt_shutdown(Reason::NO_ERROR);
                    }
                }
            }
            nudge.listen();
            let mut is_new = false;
            let ended = loop {
                match connection.poll_accept(&mut Context::from_waker(&waker)) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        if let Some(call) = streams.open(request, respond) {
                            // A bug in one call must not end the others.
                            let call = AssertUnwindSafe(call).catch_unwind().map(|_| Event::Answered);
                            calls.push(Either::Right(call));
                            is_new = true;
                        }
                    }
                    Poll::Ready(Some(Err(error))) => break Some(Err(error.into())),
                    Poll::Ready(None) => break Some(Ok(())),
                    Poll::Pending => break None,
                }
            };
            if let Some(ended) = ended {
                return Poll::Ready(if is_silent { Err(SILENT.into()) } else { ended });
            }
            if is_new {
                nudge.arm(cx);
                continue;
            }
            return match gathering.flush(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                // Who does not answer may not read either: nobody waits until the rest has left.
                _ if is_silent => Poll::Ready(Err(SILENT.into())),
                _ => Poll::Pending,
            };
        }
    })
    .await
}

async fn handshake<I: AsyncRead + AsyncWrite + Unpin>(
    io: Gathered<I>,
    gathering: &Gathering<I>,
    limits: Limits,
) -> Result<Connection<Gathered<I>, Bytes>, Error> {
    let mut handshake = builder(limits).handshake(io);
    poll_fn(|cx| {
        let done = handshake.poll_unpin(cx);
        // The library waits for the client's answer to what is still gathered.
        match gathering.flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            _ => done.map_err(Error::from),
        }
    })
    .await
}

fn builder(limits: Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    builder
}

/// What the connection's set of futures tells.
enum Event {
    /// A call is done.
    Answered,
    /// The server stops.
    Stop,
    /// The client is gone.
    Silent,
}

async fn stop(mut shutdown: watch::Receiver<bool>) -> Event {
    stopped(&mut shutdown).await;
    Event::Stop
}

/// Pings a client that was not heard for the interval, and resolves if it does not answer in time.
async fn silence<I>(mut pings: PingPong, gathering: Gathering<I>, keepalive: Keepalive) -> Event {
    let Some(interval) = keepalive.interval else { return std::future::pending().await };
    loop {
        let due = gathering.last_heard() + interval;
        if due > tokio::time::Instant::now() {
            tokio::time::sleep_until(due).await;
            continue;
        }
        match tokio::time::timeout(keepalive.timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection is closing.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return Event::Silent,
        }
    }
}

/// The HTTP/2 library's way to wake the connection, deaf while the connection is about to look anyway: else each answer
/// that is sent from here would have the task run once more for nothing.
#[derive(Default)]
struct Nudge {
    listens: AtomicBool,
    /// It has passed something on since the last question.
    heard: AtomicBool,
    task: futures_util::task::AtomicWaker,
}

impl Nudge {
    /// Before futures are polled: from here until [`Nudge::listen`] nothing needs to be said.
    fn arm(&self, cx: &Context<'_>) {
        self.listens.store(false, SeqCst);
        self.task.register(cx.waker());
    }

    /// Tells whether something was passed on since the last call.
    fn was_heard(&self) -> bool {
        self.heard.swap(false, SeqCst)
    }

    /// Right before the library is polled, which sees all that was said in vain.
    fn listen(&self) {
        self.listens.store(true, SeqCst);
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.listens.load(SeqCst) {
            self.heard.store(true, SeqCst);
            self.task.wake();
        }
    }
}

#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;
