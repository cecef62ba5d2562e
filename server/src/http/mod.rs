//! What is served over HTTP/1: health, metrics, version; with etcd's paths, codes and bodies.
//!
//! In reading order: [`health`] (`/health`, `/livez`, `/readyz`), [`info`] (`/metrics`, `/version`, `/debug/vars`),
//! [`access`] (host names and origins).

pub mod access;
pub mod health;
pub mod info;

use crate::config::limits::HEALTH_READ_TIMEOUT;
use crate::config::{Allowed, Config};
use crate::metrics::Metrics;
use crate::node::{Node, Status};
use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mechi_proto::etcdserverpb as pb;
use mechi_replica::outcome::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What HTTP asks of a member.
pub trait Member: Send + Sync + 'static {
    /// A look at the member; works without a leader.
    fn status(&self) -> Status;

    /// Reads one key, which need not exist; linearizable unless `serializable`.
    fn read(&self, serializable: bool) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>>;

    /// The members of the replicated state; errors: it is not read yet.
    fn members(&self) -> Result<Vec<pb::Member>, Error>;
}

impl Member for Node {
    fn status(&self) -> Status {
        Node::status(self)
    }

    fn read(&self, serializable: bool) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        // etcd reads the empty key here, which clients cannot do; any key shows as well that reads work.
        let key = bytes::Bytes::from_static(b"\0");
        let request = pb::RangeRequest { key, keys_only: true, limit: 1, serializable, ..Default::default() };
        Box::pin(async move {
            match tokio::time::timeout(HEALTH_READ_TIMEOUT, self.range(request)).await {
                Ok(answer) => answer.map(drop),
                Err(_) => Err(Error::Timeout),
            }
        })
    }

    fn members(&self) -> Result<Vec<pb::Member>, Error> {
        Ok(Node::members(self))
    }
}

/// What the handlers share.
#[derive(Clone)]
pub struct Shared {
    member: Arc<dyn Member>,
    metrics: Arc<Metrics>,
    cors: Allowed,
    host_whitelist: Allowed,
    refresh: Arc<dyn Fn() + Send + Sync>,
}

impl Shared {
    /// Gathers what the handlers need.
    pub fn new(member: Arc<dyn Member>, metrics: Arc<Metrics>, config: &Config) -> Self {
        let (cors, host_whitelist) = (config.cors.clone(), config.host_whitelist.clone());
        Self { member, metrics, cors, host_whitelist, refresh: Arc::new(|| ()) }
    }

    /// Calls `refresh` before every scrape, to bring up to date what is otherwise set now and then.
    pub fn refreshed_by(self, refresh: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { refresh, ..self }
    }
}

/// What client URLs serve beside gRPC, and what client-http URLs serve.
pub fn client_router(shared: Shared) -> Router {
    let router = health::routes().merge(info::metrics_route()).merge(info::routes()).fallback(not_found);
    access::guard(router.with_state(shared.clone()), shared)
}

/// What metrics URLs serve: health and metrics, nothing else.
pub fn metrics_router(shared: Shared) -> Router {
    health::routes().merge(info::metrics_route()).fallback(not_found).with_state(shared)
}

/// What peer URLs serve over HTTP/1: the version and the members. A member that starts with nothing asks for them.
pub fn peer_router(shared: Shared) -> Router {
    info::peer_routes().fallback(not_found).with_state(shared)
}

/// Go's answer to an unknown path.
async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Go's `http.Error`: plain text that no browser may take for anything else.
fn error(status: StatusCode, text: impl Into<String>) -> Response {
    let mut response = (status, text.into()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Go's answer to any method but GET.
async fn only_get() -> Response {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

fn json(body: impl Into<String>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}

#[cfg(test)]
mod tests;
