//! The gRPC surface: etcd's services on the client port, in etcd's words.
//!
//! Methods are dispatched here, over `frame` and `call`, and not by a generated server: refusals of the library are
//! grpc-go's to the letter, ranges and watches go out without being encoded again, and a large answer is streamed.
//!
//! In reading order:
pub mod answer;
pub mod auth;
pub mod call;
pub mod cluster;
pub mod frame;
pub mod header;
pub mod health;
pub mod kv;
pub mod lease;
pub mod limits;
pub mod maintenance;
pub mod metadata;
pub mod range_body;
pub mod status;
pub mod unserved;
pub mod watch;

use crate::listen::streams::{self, Streams};
use crate::listen::{self, Http2, Limits};
use crate::metrics::grpc::{Calls, Client};
use crate::node::Node;
use crate::seat::Seat;
use answer::Answer;
use bytes::Bytes;
use call::Call;
use frame::Body;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use h2::RecvStream;
use h2::server::SendResponse;
use http::request::Parts;
use http::{HeaderMap, Request, header as names};
use mechi_proto::mechipb::command::Request as Command;
use mechi_replica::command::{self, RequestLimits};
use mechi_replica::limits::{GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX, TXN_OPS_MAX};
use mechi_replica::outcome::{Error, Response};
use status::Status;
use tokio::io::{AsyncRead, AsyncWrite};

/// What the services are told by the flags.
#[derive(Clone)]
pub struct Options {
    /// `--max-request-bytes`; a message above this and gRPC's overhead is refused before it is read.
    pub max_request_bytes: usize,
    /// `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// The shortest lease in seconds: election timeout × 1.5, rounded up.
    pub lease_ttl_min: i64,
}

impl Options {
    /// The most bytes that one request message may have.
    pub fn message_bytes_max(&self) -> usize {
        self.max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES)
    }

    /// What a request may hold.
    pub fn request_limits(&self) -> RequestLimits {
        RequestLimits { txn_ops_max: self.max_txn_ops, request_bytes_max: self.max_request_bytes }
    }

    /// The shortest lease, in seconds, under an election timeout in milliseconds.
    pub fn lease_ttl_min(election_timeout_ms: u64) -> i64 {
        i64::try_from(election_timeout_ms.saturating_mul(3).div_ceil(2000)).unwrap_or(i64::MAX)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_request_bytes: REQUEST_BYTES_MAX,
            max_txn_ops: TXN_OPS_MAX,
            lease_ttl_min: Self::lease_ttl_min(1000),
        }
    }
}

/// What handlers work with.
pub struct Server {
    /// The running member.
    pub node: Node,
    /// The flags.
    pub options: Options,
}

impl Server {
    /// Puts a request through the log if etcd's API layer would not refuse it.
    pub async fn propose(&self, request: Command) -> Result<Response, Status> {
        command::check(&request, &self.options.request_limits())?;
        Ok(self.node.propose(request).await?)
    }
}

/// Tells whether a request speaks gRPC by its content type, as etcd's listener does.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(names::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The gRPC surface: serves every HTTP/2 connection of the client port.
#[derive(Clone)]
pub struct Service {
    seat: Seat,
    calls: Calls,
}

impl Service {
    /// Serves whoever sits in `seat`, and counts calls.
    pub fn new(seat: Seat, calls: Calls) -> Self {
        Self { seat, calls }
    }
}

impl Http2 for Service {
    fn serve(
        self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        limits: Limits,
        shutdown: tokio::sync::watch::Receiver<bool>,
    ) -> impl Future<Output = Result<(), listen::Error>> + Send {
        let connection = Connection { seat: self.seat, client: self.calls.client() };
        streams::serve(io, connection, limits, shutdown)
    }
}

/// One client's connection.
struct Connection {
    seat: Seat,
    client: Client,
}

impl Streams for Connection {
    /// Dispatches one request; without a server it is refused as one that comes too late.
    fn open(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Option<BoxFuture<'static, ()>> {
        let (Parts { uri, headers, .. }, body) = request.into_parts();
        if !is_grpc(&headers) {
            Answer::not_found(respond);
            return None;
        }
        let path = uri.path();
        let answer = Answer::new(respond, self.client.begin(path, &headers));
        let Some(server) = self.seat.server() else {
            answer.refuse(&Error::Stopped.into());
            return None;
        };
        let is_packed = headers.get(metadata::ENCODING).is_some_and(|encoding| encoding != "identity");
        let call = Call::new(server, headers, Body::Stream(body), answer);
        // What clients call by the thousand mostly waits for the log or looks up one key: the connection's own task runs it.
        // What it may find to be long it gives to a task of its own (see [`Call`]).
        let running = match path {
            "/etcdserverpb.KV/Range" => call.range(kv::range).boxed(),
            "/etcdserverpb.KV/RangeStream" => return apart(call.server_stream(kv::range_stream)),
            "/etcdserverpb.KV/Put" => call.unary(kv::put).boxed(),
            "/etcdserverpb.KV/DeleteRange" => call.unary(kv::delete_range).boxed(),
            "/etcdserverpb.KV/Txn" => call.unary(kv::txn).boxed(),
            "/etcdserverpb.KV/Compact" => return apart(call.unary(kv::compact)),
            "/etcdserverpb.Watch/Watch" => return apart(call.bidi_stream(watch::watch)),
            "/etcdserverpb.Lease/LeaseGrant" => call.unary(lease::grant).boxed(),
            "/etcdserverpb.Lease/LeaseRevoke" => call.unary(lease::revoke).boxed(),
            "/etcdserverpb.Lease/LeaseKeepAlive" => return apart(call.bidi_stream(lease::keep_alive)),
            "/etcdserverpb.Lease/LeaseTimeToLive" => return apart(call.unary(lease::time_to_live)),
            "/etcdserverpb.Lease/LeaseLeases" => return apart(call.unary(lease::leases)),
            "/etcdserverpb.Cluster/MemberList" => return apart(call.unary(cluster::member_list)),
            "/etcdserverpb.Maintenance/Alarm" => return apart(call.unary(maintenance::alarm)),
            "/etcdserverpb.Maintenance/Status" => return apart(call.unary(maintenance::status)),
            "/etcdserverpb.Maintenance/Defragment" => return apart(call.unary(maintenance::defragment)),
            "/etcdserverpb.Maintenance/Hash" => return apart(call.unary(maintenance::hash)),
            "/etcdserverpb.Maintenance/HashKV" => return apart(call.unary(maintenance::hash_kv)),
            "/etcdserverpb.Maintenance/MoveLeader" => return apart(call.unary(maintenance::move_leader)),
            "/etcdserverpb.Auth/AuthStatus" => return apart(call.unary(auth::status)),
            "/etcdserverpb.Auth/Authenticate" => return apart(call.unary(auth::authenticate)),
            "/grpc.health.v1.Health/Check" => return apart(call.unary(health::check)),
            "/grpc.health.v1.Health/Watch" => return apart(call.server_stream(health::watch)),
            path => {
                let refusal = unserved::refusal(path).map_or_else(|| unknown(path), Status::unimplemented);
                call.refuse(&refusal);
                return None;
            }
        };
        // To unpack a message may take long.
        if is_packed { apart(running) } else { Some(running) }
    }
}

/// Runs a call that may be long in a task of its own.
fn apart(call: impl Future<Output = ()> + Send + 'static) -> Option<BoxFuture<'static, ()>> {
    tokio::spawn(call);
    None
}

/// The services on the client port.
const SERVICES: [&str; 9] = [
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Auth",
    "v3lockpb.Lock",
    "v3electionpb.Election",
    "grpc.health.v1.Health",
];

/// The refusal of a path that is no method, as grpc-go words it.
fn unknown(path: &str) -> Status {
    let name = path.strip_prefix('/').unwrap_or(path);
    match name.rsplit_once('/') {
        None => Status::malformed_method(path),
        Some((service, method)) if SERVICES.contains(&service) => Status::unknown_method(service, method),
        Some((service, _)) => Status::unknown_service(service),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn unknown_paths_are_refused_in_grpc_gos_words() {
        let texts = [
            ("/etcdserverpb.KV/Get", "unknown method Get for service etcdserverpb.KV"),
            ("/etcdserverpb.Kv/Range", "unknown service etcdserverpb.Kv"),
            (
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                "unknown service grpc.reflection.v1.ServerReflection",
            ),
            ("/a/b/c", "unknown service a/b"),
            ("/", "malformed method name: \"/\""),
        ];
        for (path, text) in texts {
            assert_eq!(unknown(path).text(), text);
        }
    }

    #[test]
    fn only_grpc_content_types_are_grpc() {
        for (text, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(names::CONTENT_TYPE, HeaderValue::from_static(text))]);
            assert_eq!(is_grpc(&headers), grpc, "{text}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn the_shortest_lease_is_one_and_a_half_election_timeouts() {
        assert_eq!(Options::lease_ttl_min(1000), 2);
        assert_eq!(Options::lease_ttl_min(100), 1);
        assert_eq!(Options::lease_ttl_min(2000), 3);
        assert_eq!(Options::lease_ttl_min(2001), 4);
    }
}
