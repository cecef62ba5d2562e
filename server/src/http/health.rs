//! Whether the member is well: `/health` for load balancers, `/livez` and `/readyz` for Kubernetes.
//!
//! - Source: etcd `server/etcdserver/api/etcdhttp/health.go`.

use super::{Member, Shared, error, json, only_get};
use crate::metrics::Metrics;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;
use http::Method;
use mechi_proto::etcdserverpb::AlarmType;

/// One check of `/livez` or `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVE: &[Check] = &[Check::SerializableRead];
const READY: &[Check] = &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, member: &dyn Member) -> Result<(), String> {
        match self {
            Self::DataCorruption => {
                let corrupt = |alarm: &mechi_proto::etcdserverpb::AlarmMember| alarm.alarm() == AlarmType::Corrupt;
                match member.status().alarms.iter().any(corrupt) {
                    true => Err("alarm activated: CORRUPT".into()),
                    false => Ok(()),
                }
            }
            Self::SerializableRead => member.read(true).await.map_err(|error| error.to_string()),
            Self::LinearizableRead => member.read(false).await.map_err(|error| error.to_string()),
            Self::NonLearner if member.status().is_learner => Err("not supported for learner".into()),
            Self::NonLearner => Ok(()),
        }
    }
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/health", any(health))
        .route("/livez", any(|method, query, state| checks(method, "livez", LIVE, None, query, state)))
        .route(
            "/livez/{check}",
            any(|method, Path(check): Path<String>, query, state| {
                checks(method, "livez", LIVE, Some(check), query, state)
            }),
        )
        .route("/readyz", any(|method, query, state| checks(method, "readyz", READY, None, query, state)))
        .route(
            "/readyz/{check}",
            any(|method, Path(check): Path<String>, query, state| {
                checks(method, "readyz", READY, Some(check), query, state)
            }),
        )
}

async fn health(method: Method, RawQuery(query): RawQuery, State(shared): State<Shared>) -> Response {
    if method != Method::GET {
        return only_get().await;
    }
    let query = query.unwrap_or_default();
    let serializable = values(&query, "serializable").first() == Some(&"true");
    let failure = unhealthy(&*shared.member, &values(&query, "exclude"), serializable).await;
    match failure {
        None => {
            shared.metrics.server.health_success.inc();
            json(r#"{"health":"true","reason":""}"#)
        }
        Some(reason) => {
            shared.metrics.server.health_failures.inc();
            let body = serde_json::json!({ "health": "false", "reason": reason });
            error(StatusCode::SERVICE_UNAVAILABLE, format!("{body}\n"))
        }
    }
}

/// The first reason why the member is not healthy: an alarm, no leader, a failing read.
async fn unhealthy(member: &dyn Member, exclude: &[&str], serializable: bool) -> Option<String> {
    let status = member.status();
    for alarm in &status.alarms {
        let name = alarm.alarm().as_str_name();
        if !exclude.contains(&name) && matches!(alarm.alarm(), AlarmType::Nospace | AlarmType::Corrupt) {
            return Some(format!("ALARM {name}"));
        }
    }
    if !serializable && status.leader == 0 {
        return Some("RAFT NO LEADER".into());
    }
    member.read(serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

async fn checks(
    method: Method,
    kind: &'static str,
    all: &'static [Check],
    only: Option<String>,
    RawQuery(query): RawQuery,
    State(shared): State<Shared>,
) -> Response {
    let query = query.unwrap_or_default();
    let exclude = values(&query, "exclude");
    let chosen: Vec<Check> = match &only {
        Some(only) => match all.iter().find(|check| check.name() == only) {
            Some(check) => vec![*check],
            None => return super::not_found().await,
        },
        None => all.iter().copied().filter(|check| !exclude.contains(&check.name())).collect(),
    };
    if method != Method::GET {
        return only_get().await;
    }
    for name in exclude.iter().filter(|name| !all.iter().any(|check| check.name() == **name)) {
        tracing::warn!(check = name, "some health checks cannot be excluded");
    }
    let mut lines = String::new();
    let mut well = true;
    for check in chosen {
        let result = check.run(&*shared.member).await;
        record(&shared.metrics, kind, check, result.is_ok());
        match result {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name())),
            Err(reason) => {
                well = false;
                lines.push_str(&format!("[-]{} failed: {reason}\n", check.name()));
            }
        }
    }
    if !well {
        tracing::warn!(path = kind, reason = lines, "health check error");
        return error(StatusCode::SERVICE_UNAVAILABLE, lines);
    }
    let verbose = query.split('&').any(|pair| pair.split('=').next() == Some("verbose"));
    error(StatusCode::OK, if verbose { lines + "ok\n" } else { "ok\n".into() })
}

fn record(metrics: &Metrics, kind: &str, check: Check, ok: bool) {
    metrics.server.healthcheck.with_label_values(&[kind, check.name()]).set(i64::from(ok));
    let status = if ok { "success" } else { "error" };
    metrics.server.healthchecks_total.with_label_values(&[kind, check.name(), status]).inc();
}

/// All values of a query's key. The values that matter here have no character that a URL escapes.
fn values<'a>(query: &'a str, key: &str) -> Vec<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, value)| *name == key && !value.is_empty()).map(|(_, value)| value).collect()
}
