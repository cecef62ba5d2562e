//! Counts gRPC calls: how many began, how they ended, their messages.
//!
//! Only methods of the table are counted, so that a client cannot grow the metrics by calling what does not exist. All
//! handles are looked up once: what a call costs here is a few additions.

use super::names::{Network, Server};
use crate::config::limits::CLIENT_VERSIONS_MAX;
use crate::grpc::metadata::CLIENT_API_VERSION;
use http::HeaderMap;
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

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
const OK: i32 = 0;
const CANCELED: i32 = 1;
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
    /// Paths and methods by the path's length, which leaves few to compare with.
    methods: Vec<Vec<(String, Arc<Method>)>>,
    client_requests: IntCounterVec,
    client_versions: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

/// One method's counters.
#[derive(Debug)]
pub struct Method {
    stream: bool,
    started: IntCounter,
    received: IntCounter,
    received_bytes: IntCounter,
    sent: IntCounter,
    sent_bytes: IntCounter,
    handled: Vec<IntCounter>,
    handling: Option<Histogram>,
}

impl Method {
    /// Counts a message of the client, of `bytes` bytes as it came.
    pub fn received(&self, bytes: usize) {
        self.received.inc();
        self.received_bytes.inc_by(bytes as u64);
    }

    fn sent(&self, bytes: u64) {
        self.sent.inc();
        self.sent_bytes.inc_by(bytes);
    }
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
        let mut methods: Vec<Vec<_>> = Vec::new();
        for (service, kind, names) in METHODS {
            for name in *names {
                let labels = [*kind, *service, *name];
                let code = |code: &&str| handled.with_label_values(&[*kind, *service, *name, *code]);
                let method = Method {
                    stream: *kind != UNARY,
                    started: started.with_label_values(&labels),
                    received: received.with_label_values(&labels),
                    received_bytes: network.client_grpc_received_bytes_total.clone(),
                    sent: sent.with_label_values(&labels),
                    sent_bytes: network.client_grpc_sent_bytes_total.clone(),
                    handled: CODES.iter().map(code).collect(),
                    handling: handling.as_ref().map(|handling| handling.with_label_values(&labels)),
                };
                let path = format!("/{service}/{name}");
                if methods.len() <= path.len() {
                    methods.resize_with(path.len() + 1, Vec::new);
                }
                methods[path.len()].push((path, Arc::new(method)));
            }
        }
        Self(Arc::new(Inner {
            methods,
            client_requests: server.client_requests_total.clone(),
            client_versions: Mutex::default(),
        }))
    }

    fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.0.methods.get(path.len())?.iter().find(|(known, _)| known == path).map(|(_, method)| method)
    }

    /// The counter of requests by the version of the client's API; `None` is a client that does not tell.
    fn client_requests(&self, stream: bool, version: Option<&str>) -> IntCounter {
        let version = version.unwrap_or("unknown");
        let mut seen = self.0.client_versions.lock();
        let known = seen.contains(version);
        if !known && seen.len() < CLIENT_VERSIONS_MAX {
            seen.insert(version.into());
        }
        let label = if known || seen.contains(version) { version } else { "other" };
        self.0.client_requests.with_label_values(&[if stream { "stream" } else { UNARY }, label])
    }

    /// The counters as one connection uses them.
    pub fn client(&self) -> Client {
        Client { calls: self.clone(), seen: [None, None] }
    }
}

/// Counts the calls of one connection.
#[derive(Debug)]
pub struct Client {
    calls: Calls,
    /// The last version that unary calls and streams told, and its counter: mostly the next call's too.
    seen: [Option<(Option<String>, IntCounter)>; 2],
}

impl Client {
    /// Counts a call that begins; `None` if there is no such method.
    pub fn begin(&mut self, path: &str, headers: &HeaderMap) -> Option<Counted> {
        let method = self.calls.method(path)?.clone();
        method.started.inc();
        match headers.get(CLIENT_API_VERSION).map(|version| std::str::from_utf8(version.as_bytes())) {
            // A version that is no text is refused by the service; it must not become a label.
            Some(Err(_)) => {}
            Some(Ok(version)) => self.request(method.stream, Some(version)),
            None => self.request(method.stream, None),
        }
        let started = method.handling.is_some().then(Instant::now);
        Some(Counted { method, started, done: false })
    }

    fn request(&mut self, stream: bool, version: Option<&str>) {
        let seen = &mut self.seen[usize::from(stream)];
        match seen {
            Some((known, counter)) if known.as_deref() == version => counter.inc(),
            _ => {
                let counter = self.calls.client_requests(stream, version);
                counter.inc();
                *seen = Some((version.map(str::to_owned), counter));
            }
        }
    }
}

/// One call until its status is known. A call dropped before that was canceled by its client.
#[derive(Debug)]
pub struct Counted {
    method: Arc<Method>,
    started: Option<Instant>,
    done: bool,
}

impl Counted {
    /// Its method's counters.
    pub fn method(&self) -> &Arc<Method> {
        &self.method
    }

    /// Counts a whole message that is sent, of `bytes` bytes without its prefix.
    pub fn sent(&self, bytes: usize) {
        self.method.sent(bytes as u64);
    }

    /// Counts the end with a status; only the first counts.
    pub fn end(&mut self, code: i32) {
        if !std::mem::replace(&mut self.done, true) {
            let code = usize::try_from(code).ok().filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN);
            self.method.handled[code].inc();
            if let (Some(handling), Some(started)) = (&self.method.handling, self.started) {
                handling.observe(started.elapsed().as_secs_f64());
            }
        }
    }

    /// Counts the end of a call that went well.
    pub fn end_ok(&mut self) {
        self.end(OK);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.end(CANCELED);
    }
}

/// Finds the borders of gRPC messages (flag, 4 bytes of length, payload) in a streamed answer's pieces.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; 5],
    header_len: usize,
    payload_left: u64,
}

impl Frames {
    /// Counts the messages that begin in the next piece of `call`'s answer.
    pub fn pass(&mut self, mut chunk: &[u8], call: &Counted) {
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
                call.method.sent(self.payload_left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::TextEncoder;

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

        fn begin(&self, path: &str) -> Option<Counted> {
            let headers = HeaderMap::from_iter([(CLIENT_API_VERSION, http::HeaderValue::from_static("3.7"))]);
            self.calls.client().begin(path, &headers)
        }

        fn shows(&self, line: &str) -> bool {
            let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
            text.lines().any(|found| found == line)
        }
    }

    const PUT: &str = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";

    #[test]
    fn a_call_is_counted_with_its_messages_and_its_status() {
        let rig = Rig::new(true);
        let mut call = rig.begin("/etcdserverpb.KV/Put").unwrap();
        call.method().received(3);
        call.sent(1);
        // A message of no bytes, then one of a byte that is cut within its header.
        let mut frames = Frames::default();
        for chunk in [&[0, 0, 0, 0, 0, 0, 0][..], &[0, 0, 1, 9]] {
            frames.pass(chunk, &call);
        }
        call.end_ok();
        drop(call);
        for line in [
            format!("grpc_server_started_total{{{PUT}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"OK\",{PUT}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{PUT}}} 0"),
            format!("grpc_server_msg_received_total{{{PUT}}} 1"),
            format!("grpc_server_msg_sent_total{{{PUT}}} 3"),
            format!("grpc_server_handling_seconds_count{{{PUT}}} 1"),
            "etcd_network_client_grpc_received_bytes_total 3".into(),
            "etcd_network_client_grpc_sent_bytes_total 2".into(),
            "etcd_server_client_requests_total{client_api_version=\"3.7\",type=\"unary\"} 1".into(),
        ] {
            assert!(rig.shows(&line), "{line} is missing");
        }
    }

    #[test]
    fn a_refusal_is_counted_once_and_a_dropped_call_is_canceled() {
        let rig = Rig::new(false);
        let mut refused = rig.begin("/etcdserverpb.KV/Put").unwrap();
        refused.end(9);
        refused.end_ok();
        drop(refused);
        drop(rig.begin("/etcdserverpb.KV/Put"));
        for (code, count) in [("FailedPrecondition", 1), ("Canceled", 1), ("OK", 0)] {
            let line = format!("grpc_server_handled_total{{grpc_code=\"{code}\",{PUT}}} {count}");
            assert!(rig.shows(&line), "{line} is missing");
        }
    }

    #[test]
    fn what_does_not_exist_is_not_counted() {
        let rig = Rig::new(false);
        for path in ["/etcdserverpb.KV/Nope", "/etcdserverpb.KV/Pot", "", &"x".repeat(1000)] {
            assert!(rig.begin(path).is_none(), "{path}");
        }
        for (service, _, names) in METHODS {
            assert!(names.iter().all(|name| rig.begin(&format!("/{service}/{name}")).is_some()));
        }
    }

    #[test]
    fn a_connections_calls_are_counted_by_what_each_of_them_says() {
        let rig = Rig::new(false);
        let mut client = rig.calls.client();
        let told = |version: &'static [u8]| {
            HeaderMap::from_iter([(CLIENT_API_VERSION, http::HeaderValue::from_bytes(version).unwrap())])
        };
        for headers in [told(b"3.5"), told(b"3.5"), HeaderMap::new(), told(b"3.6"), told(b"\xff"), told(b"3.5")] {
            client.begin("/etcdserverpb.KV/Put", &headers).unwrap();
        }
        client.begin("/etcdserverpb.Watch/Watch", &told(b"3.5")).unwrap();
        for (version, kind, count) in
            [("3.5", "unary", 3), ("unknown", "unary", 1), ("3.6", "unary", 1), ("3.5", "stream", 1)]
        {
            let line = format!(
                "etcd_server_client_requests_total{{client_api_version=\"{version}\",type=\"{kind}\"}} {count}"
            );
            assert!(rig.shows(&line), "{line} is missing");
        }
    }

    #[test]
    fn client_versions_cannot_grow_the_metrics() {
        let rig = Rig::new(false);
        for version in 0..CLIENT_VERSIONS_MAX + 10 {
            rig.calls.client_requests(false, Some(&format!("v{version}"))).inc();
        }
        assert!(rig.shows("etcd_server_client_requests_total{client_api_version=\"other\",type=\"unary\"} 10"));
    }
}
