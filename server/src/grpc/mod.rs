//! The gRPC surface: etcd's services on the client port, in etcd's words.
//!
//! Methods are dispatched here, over `frame` and `call`, and not by a generated server: refusals of the library are
//! grpc-go's to the letter, ranges and watches go out without being encoded again, and a large answer is streamed.
//!
//! In reading order:
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

use crate::node::Node;
use crate::seat::Seat;
use axum::Router;
use axum::body::Body;
use call::Call;
use http::{HeaderMap, Request, Response, StatusCode, Version, header as names};
use mechi_proto::mechipb::command::Request as Command;
use mechi_replica::command::{self, RequestLimits};
use mechi_replica::limits::{GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX, TXN_OPS_MAX};
use mechi_replica::outcome::{Error, Response as Answer};
use status::Status;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

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
    pub async fn propose(&self, request: Command) -> Result<Answer, Status> {
        command::check(&request, &self.options.request_limits())?;
        Ok(self.node.propose(request).await?)
    }
}

/// A router that serves every gRPC path; merge plain HTTP routes into it. Anything else is answered 404.
pub fn router(seat: Seat) -> Router {
    Router::new().fallback_service(Service { seat })
}

/// Tells whether a request speaks gRPC by its content type, as etcd's listener does.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(names::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The gRPC surface as a tower service.
#[derive(Clone)]
pub struct Service {
    seat: Seat,
}

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.seat.server();
        Box::pin(async move { Ok(serve(server, request).await) })
    }
}

/// Serves one request; without a server it is refused as one that comes too late.
async fn serve(server: Option<Arc<Server>>, request: Request<Body>) -> Response<Body> {
    // gRPC needs HTTP/2's trailers; etcd's listener hands HTTP/1 to its mux whatever it carries.
    if request.version() != Version::HTTP_2 || !is_grpc(request.headers()) {
        return not_found();
    }
    let Some(server) = server else { return Status::from(Error::Stopped).response() };
    let uri = request.uri().clone();
    let call = Call::new(server, request);
    match uri.path() {
        "/etcdserverpb.KV/Range" => call.range(kv::range).await,
        "/etcdserverpb.KV/RangeStream" => call.server_stream(kv::range_stream).await,
        "/etcdserverpb.KV/Put" => call.unary(kv::put).await,
        "/etcdserverpb.KV/DeleteRange" => call.unary(kv::delete_range).await,
        "/etcdserverpb.KV/Txn" => call.unary(kv::txn).await,
        "/etcdserverpb.KV/Compact" => call.unary(kv::compact).await,
        "/etcdserverpb.Watch/Watch" => call.bidi_stream(watch::watch).await,
        "/etcdserverpb.Lease/LeaseGrant" => call.unary(lease::grant).await,
        "/etcdserverpb.Lease/LeaseRevoke" => call.unary(lease::revoke).await,
        "/etcdserverpb.Lease/LeaseKeepAlive" => call.bidi_stream(lease::keep_alive).await,
        "/etcdserverpb.Lease/LeaseTimeToLive" => call.unary(lease::time_to_live).await,
        "/etcdserverpb.Lease/LeaseLeases" => call.unary(lease::leases).await,
        "/etcdserverpb.Cluster/MemberList" => call.unary(cluster::member_list).await,
        "/etcdserverpb.Maintenance/Alarm" => call.unary(maintenance::alarm).await,
        "/etcdserverpb.Maintenance/Status" => call.unary(maintenance::status).await,
        "/etcdserverpb.Maintenance/Defragment" => call.unary(maintenance::defragment).await,
        "/etcdserverpb.Maintenance/Hash" => call.unary(maintenance::hash).await,
        "/etcdserverpb.Maintenance/HashKV" => call.unary(maintenance::hash_kv).await,
        "/etcdserverpb.Maintenance/MoveLeader" => call.unary(maintenance::move_leader).await,
        "/etcdserverpb.Auth/AuthStatus" => call.unary(auth::status).await,
        "/etcdserverpb.Auth/Authenticate" => call.unary(auth::authenticate).await,
        "/grpc.health.v1.Health/Check" => call.unary(health::check).await,
        "/grpc.health.v1.Health/Watch" => call.server_stream(health::watch).await,
        path => match unserved::refusal(path) {
            Some(sentence) => Status::unimplemented(sentence).response(),
            None => unknown(path).response(),
        },
    }
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

/// What Go's mux answers to a path that it does not know.
fn not_found() -> Response<Body> {
    let mut response = Response::new(Body::from("404 page not found\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(names::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
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
