//! Listening: TCP and unix sockets, and one port for two protocols: HTTP/1 is ours, HTTP/2 is gRPC.
//!
//! Without TLS a client tells which one it speaks by its first bytes, as etcd's multiplexer has it.

mod gathered;
mod library;
mod preface;
pub mod streams;

use crate::config::limits::{ACCEPT_RETRY, BACKLOG, CONNECTIONS_MAX, HEADER_TIMEOUT, SHUTDOWN_GRACE, TCP_KEEPALIVE};
use crate::config::urls::Url;
use crate::config::{Config, Keepalive, SocketOptions};
use anyhow::{Context, bail};
use axum::Router;
use preface::Rewound;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
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

/// Who answers on a listener: HTTP/1 requests go to `http`, HTTP/2 connections to `http2`; a protocol without a handler
/// is not spoken.
#[derive(Clone, Debug)]
pub struct Handlers<S> {
    /// For HTTP/1.
    pub http: Option<Router>,
    /// For HTTP/2.
    pub http2: Option<S>,
}

/// How an HTTP/2 connection is served.
pub trait Http2: Clone + Send + Sync + 'static {
    /// Serves a connection until its client leaves, or until its streams have ended after `shutdown` turned true.
    fn serve(
        self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        limits: Limits,
        shutdown: watch::Receiver<bool>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// How a connection ends, if not in order.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

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

/// Serves a listener until `shutdown` turns true (or its sender is gone), then lets open calls end for a moment; the
/// handle ends when every connection has.
pub fn serve<S: Http2>(
    listener: Listener,
    handlers: Handlers<S>,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(accept_loop(listener, handlers, limits, shutdown))
}

async fn accept_loop<S: Http2>(
    listener: Listener,
    handlers: Handlers<S>,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) {
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
                    let (handlers, shutdown) = (handlers.clone(), shutdown.clone());
                    connections.spawn(async move {
                        let result = match stream {
                            Stream::Tcp(stream) => connection(stream, handlers, limits, shutdown).await,
                            Stream::Unix(stream) => connection(stream, handlers, limits, shutdown).await,
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

async fn connection<S: Http2>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handlers: Handlers<S>,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Error> {
    let (http, http2, stream) = match (handlers.http, handlers.http2) {
        (Some(http), Some(http2)) => {
            let sniffed = tokio::select! {
                sniffed = preface::sniff(stream, HEADER_TIMEOUT) => sniffed?,
                () = stopped(&mut shutdown) => return Ok(()),
            };
            match sniffed {
                (preface::Protocol::Http1, stream) => (Some(http), None, stream),
                (preface::Protocol::Http2, stream) => (None, Some(http2), stream),
            }
        }
        (http, http2) => (http, http2, Rewound::untouched(stream)),
    };
    match (http, http2) {
        (Some(http), _) => library::http1(stream, http, shutdown).await,
        (None, Some(http2)) => http2.serve(stream, limits, shutdown).await,
        (None, None) => Ok(()),
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

#[cfg(test)]
mod tests;
