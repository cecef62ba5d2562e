//! What the member tells about itself: metrics, versions, and the few variables of `/debug/vars`.

use super::{Shared, error, json, only_get};
use crate::config::{CLUSTER_VERSION, ETCD_VERSION};
use crate::metrics::process::open_files_limit;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde_json::{Value, json as value};

pub(super) fn metrics_route() -> Router<Shared> {
    Router::new().route("/metrics", any(metrics))
}

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/version", get(version).fallback(only_get)).route("/debug/vars", get(vars))
}

pub(super) fn peer_routes() -> Router<Shared> {
    Router::new().route("/version", get(version).fallback(only_get)).route("/members", get(members).fallback(only_get))
}

async fn metrics(State(shared): State<Shared>) -> Response {
    (shared.refresh)();
    let text = shared.metrics.render(&shared.member.status());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn version() -> Response {
    // Clients cut these into numbers: digits and dots only.
    json(format!(
        r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{CLUSTER_VERSION}","storage":"{CLUSTER_VERSION}"}}"#
    ))
}

async fn vars(State(shared): State<Shared>) -> Response {
    let status = shared.member.status();
    // The arguments are left out: they may hold a password.
    let name = std::env::args().next().unwrap_or_default();
    let variables = value!({
        "cmdline": [name],
        "file_descriptor_limit": open_files_limit(),
        "raft.status": {
            "term": status.term,
            "commit": status.committed_index,
            "applied": status.applied_index,
            "lead": format!("{:x}", status.leader),
        },
    });
    json(format!("{variables:#}\n"))
}

async fn members(State(shared): State<Shared>) -> Response {
    let members = match shared.member.members() {
        Ok(members) => members,
        Err(reason) => return error(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    };
    let member = |member: mechi_proto::etcdserverpb::Member| {
        let mut shown = value!({ "id": member.id, "peerURLs": member.peer_ur_ls });
        let fields = [("name", value!(member.name)), ("clientURLs", value!(member.client_ur_ls))];
        let present = fields.into_iter().filter(|(_, value)| !matches!(value, Value::String(text) if text.is_empty()));
        let object = shown.as_object_mut().expect("it was made as an object");
        object.extend(present.map(|(name, value)| (name.to_string(), value)));
        if member.is_learner {
            object.insert("isLearner".into(), true.into());
        }
        shown
    };
    json(format!("{}\n", Value::from_iter(members.into_iter().map(member))))
}
