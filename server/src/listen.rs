//! Listening: TCP and unix sockets, and one port for two protocols: HTTP/1 is ours, HTTP/2 is gRPC.
//!
//! Without TLS a client tells which one it speaks by its first bytes, as etcd's multiplexer has it.

use crate::config::limits::{
    ACCEPT_RETRY, BACKLOG, CONNECTION_WINDOW_BYTES, CONNECTIONS_MAX, HEADER_LIST_BYTES_MAX, HEADER_TIMEOUT,
    PENDING_RESETS_MAX, SEND_BUFFER_BYTES, SHUTDOWN_GRACE, STREAM_WINDOW_BYTES, TCP_KEEPALIVE,
};
use crate::config::urls::Url;
use crate::config::{Config, Keepalive, SocketOptions};
use anyhow::{Context, bail};
use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tower::{Service, ServiceExt};

/// A socket that accepts connections. A unix socket's file goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: Accept,
    address: String,
    // Held only to be dropped with the listener.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Accept {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that stays is removed by the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds the URL's address or socket file; needs a tokio runtime.
    ///
    /// - Errors: the address is in use or cannot be bound, with the URL.
    pub fn bind(url: &Url, options: SocketOptions) -> anyhow::Result<Self> {
        Self::open(url, options).with_context(|| format!("listen on {url}"))
    }

    fn open(url: &Url, options: SocketOptions) -> anyhow::Result<Self> {
        if let Some(path) = url.socket_path() {
            remove_stale(&path)?;
            let listener = UnixListener::bind(&path)?;
            let address = path.display().to_string();
            return Ok(Self { socket: Accept::Unix(listener), address, _file: Some(SocketFile(path)) });
        }
        let ip = url.bind_ip().map_err(anyhow::Error::msg)?.context("the URL has neither an address nor a file")?;
        let address = SocketAddr::new(ip, url.port());
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Go's listeners always have it on Linux: without it a restart waits for the old connections to fade.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(options.reuse_port)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let address = listener.local_addr()?.to_string();
        Ok(Self { socket: Accept::Tcp(listener), address, _file: None })
    }

    /// The bound address with its real port, or the socket's file.
    pub fn address(&self) -> &str {
        &self.address
    }

    async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Accept::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
                Ok(Stream::Tcp(stream))
            }
            Accept::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Removes the socket file of a server that is gone, and nothing else.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        bail!("{} exists and is not a socket", path.display());
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("address already in use: another server answers on {}", path.display());
    }
    std::fs::remove_file(path).with_context(|| format!("remove the stale socket {}", path.display()))
}

/// Who answers on a listener: HTTP/1 requests go to `http`, HTTP/2 ones to `grpc`; a protocol without a handler is
/// not spoken.
#[derive(Clone, Debug)]
pub struct Handlers<S> {
    /// For HTTP/1.
    pub http: Option<Router>,
    /// For HTTP/2.
    pub grpc: Option<S>,
}

/// What connections may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams that one HTTP/2 connection may have open.
    pub max_concurrent_streams: u32,
    /// The server's pings.
    pub keepalive: Keepalive,
}

impl Limits {
    /// Takes them from the configuration.
    pub fn new(config: &Config) -> Self {
        Self { max_concurrent_streams: config.max_concurrent_streams, keepalive: config.keepalive }
    }
}

/// What a gRPC handler must be.
pub trait Grpc:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Grpc for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Serves a listener until `shutdown` turns true (or its sender is gone), then lets open calls end for a moment; the
/// handle ends when every connection has.
pub fn serve<S: Grpc>(
    listener: Listener,
    handlers: Handlers<S>,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(accept_loop(listener, handlers, builder(limits), shutdown))
}

fn builder(limits: Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(limits.keepalive.interval)
        .keep_alive_timeout(limits.keepalive.timeout);
    builder
}

async fn accept_loop<S: Grpc>(
    listener: Listener,
    handlers: Handlers<S>,
    builder: auto::Builder<TokioExecutor>,
    mut shutdown: watch::Receiver<bool>,
) {
    let builder = match (&handlers.http, &handlers.grpc) {
        (None, Some(_)) => builder.http2_only(),
        (Some(_), None) => builder.http1_only(),
        _ => builder,
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let place = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => {}
            (place, accepted) = place => match accepted {
                Ok(stream) => {
                    let (builder, handlers, shutdown) = (builder.clone(), handlers.clone(), shutdown.clone());
                    connections.spawn(async move {
                        let result = match stream {
                            Stream::Tcp(stream) => connection(stream, builder, handlers, shutdown).await,
                            Stream::Unix(stream) => connection(stream, builder, handlers, shutdown).await,
                        };
                        if let Err(error) = result {
                            tracing::debug!(%error, "connection ended");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    // The client is gone again, or the process has no file descriptor left: others may still be served.
                    tracing::warn!(%error, address = listener.address(), "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, drained).await.is_err() {
        connections.shutdown().await;
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone cannot ask any more, which means the same.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn connection<S: Grpc>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    builder: auto::Builder<TokioExecutor>,
    handlers: Handlers<S>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| answer(handlers.clone(), request));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = stopped(&mut shutdown) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

async fn answer<S: Grpc>(handlers: Handlers<S>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let is_http2 = request.version() == Version::HTTP_2;
    let request = request.map(Body::new);
    match (handlers.http, handlers.grpc) {
        (_, Some(grpc)) if is_http2 => grpc.oneshot(request).await,
        (Some(http), _) if !is_http2 => http.oneshot(request).await,
        _ => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            Ok(response)
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

#[cfg(test)]
mod tests;
