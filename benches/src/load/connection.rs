//! One HTTP/2 connection of the load generator: prepared headers, prepared bodies, and nothing that decodes an answer.

use super::limits::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use tokio::net::TcpStream;

/// The gRPC methods that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Put,
    Range,
    Txn,
    Compact,
    Watch,
    LeaseGrant,
    LeaseKeepAlive,
    Status,
}

impl Method {
    pub(super) fn path(self) -> &'static str {
        match self {
            Method::Put => "/etcdserverpb.KV/Put",
            Method::Range => "/etcdserverpb.KV/Range",
            Method::Txn => "/etcdserverpb.KV/Txn",
            Method::Compact => "/etcdserverpb.KV/Compact",
            Method::Watch => "/etcdserverpb.Watch/Watch",
            Method::LeaseGrant => "/etcdserverpb.Lease/LeaseGrant",
            Method::LeaseKeepAlive => "/etcdserverpb.Lease/LeaseKeepAlive",
            Method::Status => "/etcdserverpb.Maintenance/Status",
        }
    }
}

/// A connection; clones share it.
#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
    authority: Authority,
    headers: HeaderMap,
}

impl Connection {
    /// Connects to `host:port`.
    ///
    /// - Panics: outside a `LocalSet`; the connection lives as a local task of it.
    pub async fn open(endpoint: &str) -> Result<Self> {
        let tcp = TcpStream::connect(endpoint).await.with_context(|| format!("connect to {endpoint}"))?;
        tcp.set_nodelay(true)?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(tcp)
            .await?;
        // A broken connection is told by each of its streams.
        tokio::task::spawn_local(async move { drop(connection.await) });
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(HeaderName::from_static("content-type"), HeaderValue::from_static("application/grpc"));
        headers.insert(HeaderName::from_static("te"), HeaderValue::from_static("trailers"));
        Ok(Self { send: send.ready().await?, authority: endpoint.parse()?, headers })
    }

    fn request(&self, method: Method) -> Result<Request<()>> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_static(method.path()));
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }

    /// One unary call; `take` sees the answer's message without its frame header, in one piece. For single questions: a load
    /// of them costs less with [`super::calls`].
    ///
    /// - Errors: any gRPC status but OK, and a broken connection.
    pub async fn unary<T>(&mut self, method: Method, frame: Bytes, take: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let mut body = self.begin(method, frame).await?;
        let first = match body.data().await {
            Some(data) => data?,
            None => {
                status(body.trailers().await?.as_ref())?;
                bail!("{method:?} was answered without a message");
            }
        };
        body.flow_control().release_capacity(first.len())?;
        let taken = match message(&first)? {
            Some(whole) => take(whole)?,
            None => {
                let mut all = BytesMut::from(&first[..]);
                while let Some(data) = body.data().await {
                    let data = data?;
                    body.flow_control().release_capacity(data.len())?;
                    all.extend_from_slice(&data);
                }
                take(message(&all)?.context("the answer ends within its message")?)?
            }
        };
        status(body.trailers().await?.as_ref())?;
        Ok(taken)
    }

    /// One unary call whose answer is seen piece by piece and never held: for lists. The first piece begins with the
    /// five bytes of the frame header.
    pub async fn pieces(
        &mut self,
        method: Method,
        frame: Bytes,
        mut see: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut body = self.begin(method, frame).await?;
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            see(&data)?;
        }
        status(body.trailers().await?.as_ref())
    }

    async fn begin(&mut self, method: Method, frame: Bytes) -> Result<RecvStream> {
        std::future::poll_fn(|cx| self.send.poll_ready(cx)).await?;
        let (response, mut body) = self.send.send_request(self.request(method)?, false)?;
        body.send_data(frame, true)?;
        let response = response.await?;
        ensure!(response.status() == 200, "HTTP status {}", response.status());
        if response.headers().contains_key("grpc-status") {
            status(Some(response.headers()))?;
        }
        Ok(response.into_body())
    }

    /// A call in both directions, with its first message.
    pub async fn talk(&mut self, method: Method, frame: Bytes) -> Result<Talk> {
        std::future::poll_fn(|cx| self.send.poll_ready(cx)).await?;
        let (response, mut send) = self.send.send_request(self.request(method)?, false)?;
        send.send_data(frame, false)?;
        let response = response.await?;
        ensure!(response.status() == 200, "HTTP status {}", response.status());
        Ok(Talk { send, body: response.into_body(), rest: BytesMut::new() })
    }
}

/// A call in both directions.
pub struct Talk {
    send: SendStream<Bytes>,
    body: RecvStream,
    rest: BytesMut,
}

impl Talk {
    /// Sends one more message.
    pub fn send(&mut self, frame: Bytes) -> Result<()> {
        Ok(self.send.send_data(frame, false)?)
    }

    /// Waits for data and shows every message that is whole by then.
    ///
    /// - Errors: also the stream's end, which no server may choose.
    pub async fn receive(&mut self, mut see: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Some(data) = self.body.data().await else {
            status(self.body.trailers().await?.as_ref())?;
            bail!("the server ended the stream");
        };
        let data = data?;
        self.body.flow_control().release_capacity(data.len())?;
        if self.rest.is_empty() {
            let used = whole(&data, &mut see)?;
            self.rest.extend_from_slice(&data[used..]);
        } else {
            self.rest.extend_from_slice(&data);
            let used = whole(&self.rest, &mut see)?;
            drop(self.rest.split_to(used));
        }
        Ok(())
    }
}

/// Shows every whole message at the beginning of `data`; returns their bytes with their frame headers.
fn whole(data: &[u8], see: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<usize> {
    let mut used = 0;
    while let Some(header) = data.get(used..used + 5) {
        ensure!(header[0] == 0, "a compressed message");
        let len = u32::from_be_bytes(header[1..5].try_into().expect("four bytes")) as usize;
        let Some(message) = data.get(used + 5..used + 5 + len) else { break };
        see(message)?;
        used += 5 + len;
    }
    Ok(used)
}

/// The message of a frame that is whole; `None` if something is missing.
fn message(frame: &[u8]) -> Result<Option<&[u8]>> {
    let mut found = None;
    let Some(header) = frame.get(..5) else { return Ok(None) };
    let len = u32::from_be_bytes(header[1..5].try_into().expect("four bytes")) as usize;
    ensure!(header[0] == 0, "a compressed message");
    ensure!(frame.len() <= len + 5, "{} bytes after the message", frame.len() - len - 5);
    if frame.len() == len + 5 {
        found = Some(&frame[5..]);
    }
    Ok(found)
}

fn status(trailers: Option<&HeaderMap>) -> Result<()> {
    let trailers = trailers.context("no trailers")?;
    let code = trailers.get("grpc-status").context("no grpc-status")?;
    if code.as_bytes() == b"0" {
        return Ok(());
    }
    let text = trailers.get("grpc-message").map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
    bail!("grpc-status {}: {}", String::from_utf8_lossy(code.as_bytes()), text.unwrap_or_default())
}

/// A message with its frame header.
pub fn frame(message: &impl prost::Message) -> Bytes {
    let len = message.encoded_len();
    let mut frame = BytesMut::with_capacity(len + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(len).expect("requests are small"));
    message.encode(&mut frame).expect("the room was counted");
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_at_their_ends() {
        let data = [0, 0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1];
        let mut seen = Vec::new();
        let used = whole(&data, &mut |message| {
            seen.push(message.to_vec());
            Ok(())
        });
        assert_eq!((used.expect("well-formed"), seen), (12, vec![vec![7, 8], vec![]]));
    }

    #[test]
    fn a_frame_is_whole_or_waits_or_is_too_long() {
        assert_eq!(message(&[0, 0, 0, 0, 1, 9]).expect("well-formed"), Some(&[9][..]));
        assert_eq!(message(&[0, 0, 0, 0, 2, 9]).expect("well-formed"), None);
        assert_eq!(message(&[0, 0]).expect("well-formed"), None);
        message(&[0, 0, 0, 0, 0, 9]).expect_err("a byte too many");
        message(&[1, 0, 0, 0, 1, 9]).expect_err("compressed");
    }
}
