//! Counts gRPC calls: a layer around the whole gRPC router that reads frames and the status as they pass.
//!
//! Only methods of the table are counted, so that a client cannot grow the metrics by calling what does not exist.

use super::names::{Network, Server};
use crate::config::limits::CLIENT_VERSIONS_MAX;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tower::Service;

/// gRPC's status codes by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const CANCELED: usize = 1;
const UNKNOWN: usize = 2;

const UNARY: &str = "unary";
const SERVER_STREAM: &str = "server_stream";
const BIDI_STREAM: &str = "bidi_stream";

/// Every method: service, type, names.
const METHODS: &[(&str, &str, &[&str])] = &[
    ("etcdserverpb.KV", UNARY, &["Range", "Put", "DeleteRange", "Txn", "Compact"]),
    ("etcdserverpb.KV", SERVER_STREAM, &["RangeStream"]),
    ("etcdserverpb.Watch", BIDI_STREAM, &["Watch"]),
    ("etcdserverpb.Lease", UNARY, &["LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases"]),
    ("etcdserverpb.Lease", BIDI_STREAM, &["LeaseKeepAlive"]),
    ("etcdserverpb.Cluster", UNARY, &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"]),
    (
        "etcdserverpb.Maintenance",
        UNARY,
        &["Alarm", "Status", "Defragment", "Hash", "HashKV", "MoveLeader", "Downgrade"],
    ),
    ("etcdserverpb.Maintenance", SERVER_STREAM, &["Snapshot"]),
    (
        "etcdserverpb.Auth",
        UNARY,
        &[
            "AuthEnable",
            "AuthDisable",
            "AuthStatus",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
    ),
    ("v3lockpb.Lock", UNARY, &["Lock", "Unlock"]),
    ("v3electionpb.Election", UNARY, &["Campaign", "Proclaim", "Leader", "Resign"]),
    ("v3electionpb.Election", SERVER_STREAM, &["Observe"]),
    ("grpc.health.v1.Health", UNARY, &["Check"]),
    ("grpc.health.v1.Health", SERVER_STREAM, &["Watch"]),
];

/// The counters of all methods; cheap to clone.
#[derive(Clone)]
pub struct Calls(Arc<Inner>);

struct Inner {
    methods: HashMap<String, Arc<Method>>,
    client_requests: IntCounterVec,
    client_versions: Mutex<BTreeSet<String>>,
    sent_bytes: IntCounter,
    received_bytes: IntCounter,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("methods", &self.0.methods.len()).finish_non_exhaustive()
    }
}

struct Method {
    stream: bool,
    started: IntCounter,
    received: IntCounter,
    sent: IntCounter,
    handled: Vec<IntCounter>,
    handling: Option<Histogram>,
}

impl Calls {
    /// Registers the counters of every method at 0, as etcd does, so that rates have a start.
    pub(super) fn new(registry: &Registry, extensive: bool, server: &Server, network: &Network) -> Self {
        const LABELS: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];
        const CODE_LABELS: [&str; 4] = ["grpc_type", "grpc_service", "grpc_method", "grpc_code"];
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("the name is well formed");
            registry.register(Box::new(counters.clone())).expect("the name is unique");
            counters
        };
        let started = counters("grpc_server_started_total", "Total number of RPCs started on the server.", &LABELS);
        let handled = counters(
            "grpc_server_handled_total",
            "Total number of RPCs completed on the server, regardless of success or failure.",
            &CODE_LABELS,
        );
        let received =
            counters("grpc_server_msg_received_total", "Total number of RPC messages received on the server.", &LABELS);
        let sent = counters("grpc_server_msg_sent_total", "Total number of RPC messages sent by the server.", &LABELS);
        let handling = extensive.then(|| {
            let help = "Histogram of response latency (seconds) of gRPC that had been application-level handled.";
            // The default buckets are those of Go's library, from 5 ms to 10 s.
            let handling = HistogramVec::new(HistogramOpts::new("grpc_server_handling_seconds", help), &LABELS)
                .expect("the name is well formed");
            registry.register(Box::new(handling.clone())).expect("the name is unique");
            handling
        });
        let mut methods = HashMap::new();
        for (service, kind, names) in METHODS {
            for name in *names {
                let labels = [*kind, *service, *name];
                let code = |code: &&str| handled.with_label_values(&[*kind, *service, *name, *code]);
                let method = Method {
                    stream: *kind != UNARY,
                    started: started.with_label_values(&labels),
                    received: received.with_label_values(&labels),
                    sent: sent.with_label_values(&labels),
                    handled: CODES.iter().map(code).collect(),
                    handling: handling.as_ref().map(|handling| handling.with_label_values(&labels)),
                };
                methods.insert(format!("/{service}/{name}"), Arc::new(method));
            }
        }
        Self(Arc::new(Inner {
            methods,
            client_requests: server.client_requests_total.clone(),
            client_versions: Mutex::default(),
            sent_bytes: network.client_grpc_sent_bytes_total.clone(),
            received_bytes: network.client_grpc_received_bytes_total.clone(),
        }))
    }

    /// Counts one request by the version of the client's API; `None` is a client that does not tell.
    fn client_request(&self, stream: bool, version: Option<&str>) {
        let version = version.unwrap_or("unknown");
        let mut seen = self.0.client_versions.lock();
        let known = seen.contains(version);
        if !known && seen.len() < CLIENT_VERSIONS_MAX {
            seen.insert(version.into());
        }
        let label = if known || seen.contains(version) { version } else { "other" };
        self.0.client_requests.with_label_values(&[if stream { "stream" } else { UNARY }, label]).inc();
    }

    /// Wraps the gRPC router, so that every call is counted.
    pub fn count<S>(&self, inner: S) -> Counted<S> {
        Counted { inner, calls: self.clone() }
    }
}

/// A gRPC router whose calls are counted.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    calls: Calls,
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(method) = self.calls.0.methods.get(request.uri().path()).cloned() else {
            return Box::pin(self.inner.call(request));
        };
        method.started.inc();
        let version =
            request.headers().get("client-api-version").map(|version| std::str::from_utf8(version.as_bytes()));
        // A version that is no text is refused by the service; it must not become a label.
        match version {
            Some(Err(_)) => {}
            Some(Ok(version)) => self.calls.client_request(method.stream, Some(version)),
            None => self.calls.client_request(method.stream, None),
        }
        let frames = Frames::new(method.received.clone(), self.calls.0.received_bytes.clone());
        let request = request.map(|body| Body::new(Counting { body, frames, call: None }));
        let mut call = Call { method: method.clone(), started: Instant::now(), done: false };
        let sent_bytes = self.calls.0.sent_bytes.clone();
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            if let Some(code) = code(response.headers()) {
                call.end(code);
            }
            let frames = Frames::new(method.sent.clone(), sent_bytes);
            Ok(response.map(|body| Body::new(Counting { body, frames, call: Some(call) })))
        })
    }
}

fn code(headers: &HeaderMap) -> Option<usize> {
    let number = headers.get("grpc-status")?.to_str().ok()?.parse::<usize>().ok();
    Some(number.filter(|number| *number < CODES.len()).unwrap_or(UNKNOWN))
}

/// One call until its status is known. A call dropped before that was canceled by its client.
struct Call {
    method: Arc<Method>,
    started: Instant,
    done: bool,
}

impl Call {
    fn end(&mut self, code: usize) {
        if !std::mem::replace(&mut self.done, true) {
            self.method.handled[code].inc();
            if let Some(handling) = &self.method.handling {
                handling.observe(self.started.elapsed().as_secs_f64());
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CANCELED);
    }
}

/// A body whose messages are counted; a response's also ends its call.
struct Counting {
    body: Body,
    frames: Frames,
    call: Option<Call>,
}

impl http_body::Body for Counting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let this = &mut *self;
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.frames.pass(data);
                }
                if let (Some(trailers), Some(call)) = (frame.trailers_ref(), &mut this.call) {
                    call.end(code(trailers).unwrap_or(UNKNOWN));
                }
            }
            Some(Err(_)) | None => {
                if let Some(call) = &mut this.call {
                    call.end(UNKNOWN);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Finds the borders of gRPC messages (flag, 4 bytes of length, payload) in a stream of chunks.
struct Frames {
    messages: IntCounter,
    bytes: IntCounter,
    header: [u8; 5],
    header_len: usize,
    payload_left: u64,
}

impl Frames {
    fn new(messages: IntCounter, bytes: IntCounter) -> Self {
        Self { messages, bytes, header: [0; 5], header_len: 0, payload_left: 0 }
    }

    fn pass(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() {
            if self.payload_left > 0 {
                let skip = usize::try_from(self.payload_left).map_or(chunk.len(), |left| left.min(chunk.len()));
                self.payload_left -= skip as u64;
                chunk = &chunk[skip..];
                continue;
            }
            let take = (5 - self.header_len).min(chunk.len());
            self.header[self.header_len..self.header_len + take].copy_from_slice(&chunk[..take]);
            self.header_len += take;
            chunk = &chunk[take..];
            if self.header_len == 5 {
                let [_, a, b, c, d] = self.header;
                self.header_len = 0;
                self.payload_left = u64::from(u32::from_be_bytes([a, b, c, d]));
                self.messages.inc();
                self.bytes.inc_by(self.payload_left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use prometheus::TextEncoder;
    use std::convert::Infallible;
    use tower::service_fn;

    struct Rig {
        registry: Registry,
        calls: Calls,
    }

    impl Rig {
        fn new(extensive: bool) -> Self {
            let registry = Registry::new();
            let (server, network) = (Server::new(&registry), Network::new(&registry));
            Self { calls: Calls::new(&registry, extensive, &server, &network), registry }
        }

        async fn call(&self, path: &str, response: Response<Body>) -> Response<Body> {
            let response = Mutex::new(Some(response));
            let mut service = self.calls.count(service_fn(move |request: Request<Body>| {
                let response = response.lock().take().unwrap();
                async move {
                    request.into_body().collect().await.unwrap();
                    Ok::<_, Infallible>(response)
                }
            }));
            // One message of 3 bytes, cut in the middle of its header.
            let chunks = [&[0, 0][..], &[0, 0, 3, 1], &[2, 3]];
            let chunks = chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from_static(chunk))));
            let body = Body::new(StreamBody::new(futures_util::stream::iter(chunks)));
            let request = Request::post(path).header("client-api-version", "3.7").body(body).unwrap();
            service.call(request).await.unwrap()
        }

        fn shows(&self, line: &str) -> bool {
            let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
            text.lines().any(|found| found == line)
        }
    }

    fn with_trailers(status: &'static str) -> Response<Body> {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        let data = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9]);
        let frames = [Frame::data(data), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
        Response::new(Body::new(StreamBody::new(futures_util::stream::iter(frames))))
    }

    const PUT: &str = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";

    #[tokio::test]
    async fn a_call_is_counted_with_its_messages_and_the_status_of_its_trailers() {
        let rig = Rig::new(true);
        let response = rig.call("/etcdserverpb.KV/Put", with_trailers("0")).await;
        response.into_body().collect().await.unwrap();
        for line in [
            format!("grpc_server_started_total{{{PUT}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"OK\",{PUT}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{PUT}}} 0"),
            format!("grpc_server_msg_received_total{{{PUT}}} 1"),
            format!("grpc_server_msg_sent_total{{{PUT}}} 2"),
            format!("grpc_server_handling_seconds_count{{{PUT}}} 1"),
            "etcd_network_client_grpc_received_bytes_total 3".into(),
            "etcd_network_client_grpc_sent_bytes_total 1".into(),
            "etcd_server_client_requests_total{client_api_version=\"3.7\",type=\"unary\"} 1".into(),
        ] {
            assert!(rig.shows(&line), "{line} is missing");
        }
    }

    #[tokio::test]
    async fn a_refusal_in_headers_is_counted_once_and_a_dropped_call_is_canceled() {
        let rig = Rig::new(false);
        let refusal = Response::builder().header("grpc-status", "9").body(Body::empty()).unwrap();
        drop(rig.call("/etcdserverpb.KV/Put", refusal).await);
        drop(rig.call("/etcdserverpb.KV/Put", with_trailers("0")).await);
        for (code, count) in [("FailedPrecondition", 1), ("Canceled", 1), ("OK", 0)] {
            let line = format!("grpc_server_handled_total{{grpc_code=\"{code}\",{PUT}}} {count}");
            assert!(rig.shows(&line), "{line} is missing");
        }
    }

    #[tokio::test]
    async fn what_does_not_exist_is_not_counted() {
        let rig = Rig::new(false);
        let response = rig.call("/etcdserverpb.KV/Nope", with_trailers("12")).await;
        response.into_body().collect().await.unwrap();
        let text = TextEncoder::new().encode_to_string(&rig.registry.gather()).unwrap();
        assert!(!text.contains("Nope"));
    }

    #[test]
    fn client_versions_cannot_grow_the_metrics() {
        let rig = Rig::new(false);
        for version in 0..CLIENT_VERSIONS_MAX + 10 {
            rig.calls.client_request(false, Some(&format!("v{version}")));
        }
        assert!(rig.shows("etcd_server_client_requests_total{client_api_version=\"other\",type=\"unary\"} 10"));
    }
}
