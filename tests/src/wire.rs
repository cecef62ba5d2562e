//! What tests need below and beside the generated stubs: plain HTTP/2 calls, watch streams, waiting for a condition.

use crate::client::Client;
use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use mechi_proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// How long a condition may take that has no deadline of its own; generous, since it only bounds a failing test.
pub const SOON: Duration = Duration::from_secs(60);

/// Looks every few milliseconds until `look` gives a value.
///
/// - Panics: if it does not within [`SOON`].
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A watch stream: requests in, responses out.
pub struct Watching {
    /// Dropping it half-closes the stream.
    pub requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Watching {
    /// Opens a stream with its first watch; the answer is not yet read.
    pub async fn open(client: &mut Client, first: pb::WatchCreateRequest) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(2_000);
        requests.try_send(create(first)).expect("the channel has room");
        let responses = client.watch.watch(tokio_stream::wrappers::ReceiverStream::new(stream)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// Opens a stream with its first watch, which is created.
    pub async fn on(client: &mut Client, first: pb::WatchCreateRequest) -> Self {
        let mut watching = Self::open(client, first).await.expect("the stream opens");
        let created = watching.next().await;
        assert!(created.created && !created.canceled, "{created:?}");
        watching
    }

    /// Sends a request.
    pub async fn ask(&self, request: RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.expect("the stream is open");
    }

    /// Asks for progress.
    pub async fn ask_progress(&self) {
        self.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    }

    /// The next response, or how the stream ended.
    pub async fn message(&mut self) -> Result<Option<pb::WatchResponse>, Status> {
        tokio::time::timeout(SOON, self.responses.message()).await.expect("a response or an end comes soon")
    }

    /// The next response.
    pub async fn next(&mut self) -> pb::WatchResponse {
        self.message().await.expect("the stream is well").expect("the stream goes on")
    }

    /// Responses until `count` events have come; fails if a response is anything else.
    pub async fn events(&mut self, count: usize) -> Vec<mechi_proto::mvccpb::Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.next().await;
            assert!(!response.canceled && !response.created, "{response:?}");
            events.extend(response.events);
        }
        assert_eq!(events.len(), count, "no more events than that");
        events
    }
}

/// A create request.
pub fn create(request: pb::WatchCreateRequest) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }
}

/// A watch on every key that begins with `prefix`.
pub fn prefix(prefix: &str) -> pb::WatchCreateRequest {
    let (key, range_end) = span(prefix);
    pb::WatchCreateRequest { key, range_end, ..Default::default() }
}

/// Every key that begins with `prefix`, as key and range end.
pub fn span(prefix: &str) -> (Bytes, Bytes) {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix is not empty") += 1;
    (Bytes::copy_from_slice(prefix.as_bytes()), end.into())
}

/// A put as an operation of a txn.
pub fn put_op(key: impl Into<Bytes>, value: impl Into<Bytes>) -> pb::RequestOp {
    let put = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
}

/// Puts all of these, a hundred to a txn; returns the last revision.
pub async fn put_all(client: &mut Client, pairs: impl Iterator<Item = (String, Bytes)>) -> Result<i64, Status> {
    let (mut revision, mut pairs) = (0, pairs.peekable());
    while pairs.peek().is_some() {
        let success = pairs.by_ref().take(100).map(|(key, value)| put_op(key, value)).collect();
        let txn = pb::TxnRequest { success, ..Default::default() };
        revision = crate::client::revision(client.kv.txn(txn).await?.into_inner().header);
    }
    Ok(revision)
}

/// A gRPC frame around `message`; `packed` marks it as compressed.
pub fn frame(message: &[u8], packed: bool) -> Bytes {
    let mut frame = BytesMut::from(&[u8::from(packed)][..]);
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame.freeze()
}

/// Begins a gRPC call over a plain HTTP/2 connection that reads nothing by itself; `body` is framed already.
pub async fn call(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<RecvStream> {
    let (send, connection) = h2::client::handshake(io).await?;
    tokio::spawn(connection);
    let mut send = send.ready().await?;
    let mut request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (response, mut stream) = send.send_request(request.body(())?, false)?;
    // A refusal may come, and end the stream, before the message is sent.
    let sent = stream.send_data(body, true);
    let response = response.await?;
    if let Some(status) = response.headers().get("grpc-status") {
        ensure!(status == "0", "refused: {:?}", response.headers());
    }
    sent?;
    // The connection ends with its last handle, so that lives as long as the answer is read.
    let body = response.into_body();
    tokio::spawn(async move {
        let _send = send;
        tokio::time::sleep(SOON * 2).await;
    });
    Ok(body)
}

/// Reads the one message of an answer and its status.
pub async fn finish(mut body: RecvStream) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.context("no trailers")?;
    ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "trailers {trailers:?}");
    ensure!(bytes.len() >= 5, "no message");
    bytes.advance(5);
    Ok(bytes.freeze())
}

/// Waits until a scrape has this number: counts follow what clients are told.
///
/// - Panics: if it has another one after [`SOON`].
pub async fn counts(endpoint: &str, line: &str, wanted: f64) {
    let deadline = Instant::now() + SOON;
    loop {
        let found = metric(endpoint, line);
        if found == Some(wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "{line}: {found:?} after {SOON:?}, wanted {wanted}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One number of a scrape; `None` if the line is not there.
pub fn metric(endpoint: &str, line: &str) -> Option<f64> {
    let (_, text) = crate::process::http_get(endpoint, "/metrics").ok()?;
    text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
}
