//! Dialling another member: one function, so that there is one place for TLS.

use super::hello::{Hello, Lane};
use crate::config::urls::{Scheme, Url};
use crate::limits::PEER_CONNECT_TIMEOUT;
use hyper_util::rt::TokioIo;
use mechi_replica::types::MemberId;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

/// How this member reaches others.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    pub(super) hello: Hello,
    /// Between two pings, and until a ping must be answered.
    pub(super) ping: Duration,
}

impl Dialer {
    /// Makes a connection of its own to the first of these URLs that answers. It is never made again by itself: whoever
    /// uses it must see that it broke.
    ///
    /// - Errors: the last URL's.
    pub(super) async fn connect(&self, urls: &[Url]) -> Result<Channel, String> {
        let mut last = String::from("the member has no peer URL");
        for url in urls {
            match self.connect_one(url).await {
                Ok(channel) => return Ok(channel),
                Err(error) => last = format!("{url}: {error}"),
            }
        }
        Err(last)
    }

    async fn connect_one(&self, url: &Url) -> Result<Channel, String> {
        let late = |_| format!("no answer within {PEER_CONNECT_TIMEOUT:?}");
        let stream = timeout(PEER_CONNECT_TIMEOUT, dial(url)).await.map_err(late)?.map_err(|e| e.to_string())?;
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_| {
            let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            async move { stream }
        });
        let endpoint = Endpoint::from_shared(origin(url)).map_err(|error| error.to_string())?;
        let endpoint = endpoint
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.ping)
            .keep_alive_timeout(self.ping)
            .keep_alive_while_idle(true);
        endpoint.connect_with_connector(connector).await.map_err(|error| error.to_string())
    }

    /// Wraps a message to `to`.
    pub(super) fn request<T>(&self, message: T, to: MemberId, lane: Lane) -> tonic::Request<T> {
        self.hello.request(message, to, lane)
    }
}

/// Opens a connection; TLS belongs here.
async fn dial(url: &Url) -> io::Result<Connection> {
    if url.is_secure() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "TLS between members is not served yet"));
    }
    if let Some(path) = url.socket_path() {
        return Ok(Connection::Unix(UnixStream::connect(path).await?));
    }
    let host = if url.host().is_empty() { "localhost" } else { url.host() };
    let stream = TcpStream::connect((host, url.port())).await?;
    stream.set_nodelay(true)?;
    Ok(Connection::Tcp(stream))
}

/// The URL as HTTP/2's `:authority` wants it.
fn origin(url: &Url) -> String {
    match url.scheme() {
        Scheme::Unix | Scheme::Unixs => "http://localhost".into(),
        _ if url.host().contains(':') => format!("http://[{}]:{}", url.host(), url.port()),
        _ if url.host().is_empty() => format!("http://localhost:{}", url.port()),
        _ => format!("http://{}:{}", url.host(), url.port()),
    }
}

enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
