//! What hyper serves: HTTP/1 everywhere, and HTTP/2 between members.

use super::{Error, Http2, Limits, stopped};
use crate::config::limits::{
    CONNECTION_WINDOW_BYTES, HEADER_LIST_BYTES_MAX, HEADER_TIMEOUT, PENDING_RESETS_MAX, SEND_BUFFER_BYTES,
    STREAM_WINDOW_BYTES,
};
use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tower::ServiceExt;

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    router.oneshot(request.map(Body::new)).await
}

/// Serves a connection of HTTP/1; the request at hand when `shutdown` turns true is its last.
pub(super) async fn http1(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Error> {
    let service = service_fn(move |request| answer(router.clone(), request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        result = connection.as_mut() => return Ok(result?),
        () = stopped(&mut shutdown) => {}
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}

impl Http2 for Router {
    async fn serve(
        self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        limits: Limits,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let service = service_fn(move |request| answer(self.clone(), request));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_concurrent_streams)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .keep_alive_interval(limits.keepalive.interval)
            .keep_alive_timeout(limits.keepalive.timeout);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            result = connection.as_mut() => return Ok(result?),
            () = stopped(&mut shutdown) => {}
        }
        connection.as_mut().graceful_shutdown();
        Ok(connection.await?)
    }
}
