//! Which host names and origins HTTP clients may use: the guard against DNS rebinding (CVE-2018-5702), and CORS.

use super::{Shared, error};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

pub(super) fn guard(router: Router, shared: Shared) -> Router {
    router.layer(from_fn_with_state(shared, check))
}

async fn check(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let host = host_name(&request);
    if !shared.host_whitelist.allows(host) {
        tracing::warn!(host, "rejecting HTTP request to prevent DNS rebinding attacks");
        return error(
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "The Host header of this request is not on the whitelist, which prevents DNS rebinding attacks \
                 (CVE-2018-5702). Add it to the server's list: --host-whitelist {host:?}\n"
            ),
        );
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let preflight = request.method() == Method::OPTIONS;
    let mut response = if preflight { StatusCode::OK.into_response() } else { next.run(request).await };
    let allowed = match origin {
        _ if shared.cors.allows("*") => Some(HeaderValue::from_static("*")),
        Some(origin) if origin.to_str().is_ok_and(|origin| shared.cors.allows(origin)) => Some(origin),
        _ => None,
    };
    if let Some(origin) = allowed {
        add_cors(response.headers_mut(), origin);
    }
    response
}

fn add_cors(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers
        .insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("accept, content-type, authorization"));
}

/// The host that the client believes to talk to, without the port.
fn host_name(request: &Request) -> &str {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = header.or_else(|| request.uri().host()).unwrap_or_default();
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}
