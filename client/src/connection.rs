//! One connection: how it is made, and how a request goes over it.
//!
//! Made over hyper itself and not over tonic's channel, since that reconnects unseen: whether a write has left this
//! process must be known for certain, and hyper gives back what it did not send.

use crate::config::Config;
use crate::endpoint::{Endpoint, Place};
use crate::limits;
use crate::tls::Secure;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::body::Body;

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("mechi-client/", env!("CARGO_PKG_VERSION")));
/// The API that the client was written against; etcd counts requests by it.
const API_VERSION: HeaderValue = HeaderValue::from_static("3.7");

/// A connection that was made.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<Body>,
    /// Where it goes.
    pub(crate) endpoint: Arc<Endpoint>,
    /// Which of the endpoints that is.
    pub(crate) slot: usize,
    scheme: Scheme,
    authority: Authority,
    /// Requests that were answered, by whatever: a sign of life.
    answers: Arc<AtomicU64>,
}

/// Why a request has no answer, as far as the connection knows.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No server can have seen it.
    #[error("{0}")]
    NotSent(String),
    /// A server may have.
    #[error("{0}")]
    Broken(String),
}

impl Connection {
    /// Connects.
    ///
    /// - Errors: a sentence; nothing was sent.
    pub(crate) async fn dial(
        endpoint: Arc<Endpoint>,
        slot: usize,
        config: Arc<Config>,
        secure: Option<Arc<Secure>>,
    ) -> Result<Self, String> {
        let made = async {
            match &endpoint.place {
                Place::Tcp(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|why| why.to_string())?;
                    stream.set_nodelay(true).map_err(|why| why.to_string())?;
                    secured(stream, &endpoint, &config, secure).await
                }
                Place::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(|why| why.to_string())?;
                    secured(stream, &endpoint, &config, secure).await
                }
            }
        };
        let sender = match tokio::time::timeout(config.dial_timeout, made).await {
            Ok(Ok(sender)) => sender,
            Ok(Err(why)) => return Err(format!("connect to {endpoint}: {why}")),
            Err(_) => return Err(format!("connect to {endpoint}: no connection within {:?}", config.dial_timeout)),
        };
        let authority = endpoint.authority().parse().map_err(|why| format!("endpoint {endpoint}: {why}"))?;
        let scheme = if endpoint.is_secure { Scheme::HTTPS } else { Scheme::HTTP };
        Ok(Self { sender, endpoint, slot, scheme, authority, answers: Arc::default() })
    }

    /// Whether requests can still be sent.
    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Whether `other` is the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.answers, &other.answers)
    }

    /// How many requests were answered so far.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }
}

async fn secured<S>(
    stream: S,
    endpoint: &Endpoint,
    config: &Config,
    secure: Option<Arc<Secure>>,
) -> Result<SendRequest<Body>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if !endpoint.is_secure {
        return handshake(stream, config).await;
    }
    let secure = secure.expect("a client with a secure endpoint has read its certificates");
    let name = secure.name(endpoint.host()).map_err(|why| why.to_string())?;
    let stream = secure.connector.connect(name, stream).await.map_err(|why| format!("TLS: {why}"))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err("TLS: the server does not offer HTTP/2".to_owned());
    }
    handshake(stream, config).await
}

async fn handshake<S>(stream: S, config: &Config) -> Result<SendRequest<Body>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        // etcd ends a connection that is pinged while nothing is under way.
        .keep_alive_while_idle(false)
        .keep_alive_timeout(config.keep_alive_timeout)
        .keep_alive_interval(config.keep_alive_time.map(|time| time.max(limits::KEEP_ALIVE_TIME_MIN)));
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|why| explain(&why))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = explain(&error), "connection ended");
        }
    });
    Ok(sender)
}

/// An error with all its causes; hyper's own words alone say too little.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A connection as one call uses it: the generated stubs speak through it.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    /// The user's token.
    pub(crate) token: Option<HeaderValue>,
    pub(crate) requires_leader: bool,
    pub(crate) send_bytes_max: usize,
    pub(crate) receive_bytes_max: usize,
}

impl tower_service::Service<Request<Body>> for Link {
    type Response = Response<Incoming>;
    type Error = SendError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, SendError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        // What a connection cannot take is given back by the call, marked as not sent.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(self.connection.scheme.clone());
        parts.authority = Some(self.connection.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts).expect("the stubs' paths are whole");
        let headers = request.headers_mut();
        headers.insert(http::header::USER_AGENT, USER_AGENT);
        headers.insert("client-api-version", API_VERSION);
        if let Some(token) = &self.token {
            headers.insert("token", token.clone());
        }
        if self.requires_leader {
            headers.insert("hasleader", HeaderValue::from_static("true"));
        }
        let answers = self.connection.answers.clone();
        let sent = self.connection.sender.try_send_request(request);
        Box::pin(async move {
            match sent.await {
                Ok(response) => {
                    answers.fetch_add(1, Ordering::Relaxed);
                    Ok(response)
                }
                Err(mut error) => {
                    let given_back = error.take_message().is_some();
                    let error = error.into_error();
                    let text = explain(&error);
                    Err(if given_back || is_refused(&error) {
                        SendError::NotSent(text)
                    } else {
                        SendError::Broken(text)
                    })
                }
            }
        })
    }
}

/// Whether the server's HTTP/2 said itself that it has not looked at the request.
fn is_refused(error: &hyper::Error) -> bool {
    use std::error::Error;
    let reset = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    reset.is_some_and(|reset| {
        reset.is_reset() && reset.is_remote() && reset.reason() == Some(h2::Reason::REFUSED_STREAM)
    })
}
