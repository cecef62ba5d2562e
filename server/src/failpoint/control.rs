//! How places are set: by `FAILPOINTS` at the start, and over HTTP from this machine.
//!
//! `PUT /failpoints/NAME` with actions as the body sets one, `DELETE /failpoints/NAME` clears it, `GET /failpoints` lists
//! all of them, those that are set with `=` and their actions. Actions are those of the crate `fail`: `panic`, `sleep(MS)`, `1*return(TEXT)`, `20%panic`, …

use super::sites::SITES;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, put};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// The variable that holds `name=actions;name=actions`.
const VARIABLE: &str = "FAILPOINTS";

/// Why a place is not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such place.
    #[error("no failpoint is called {0:?}")]
    Unknown(String),
    /// The actions are none.
    #[error("{0}")]
    Malformed(String),
}

/// Sets what the environment asks for.
///
/// - Errors: the first place that is not set: a test that hits nothing would prove nothing.
pub fn begin() -> Result<(), Refused> {
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    for setting in wanted.split(';').map(str::trim).filter(|setting| !setting.is_empty()) {
        let malformed = || Refused::Malformed(format!("{VARIABLE} wants name=actions, found {setting:?}"));
        let (name, actions) = setting.split_once('=').ok_or_else(malformed)?;
        arm(name.trim(), actions)?;
    }
    Ok(())
}

/// Sets a place.
pub fn arm(name: &str, actions: &str) -> Result<(), Refused> {
    let site = known(name)?;
    fail::cfg(site, actions.trim()).map_err(Refused::Malformed)?;
    tracing::warn!(name = site, actions = actions.trim(), "a failpoint is set");
    Ok(())
}

fn known(name: &str) -> Result<&'static str, Refused> {
    SITES.iter().find(|site| **site == name).copied().ok_or_else(|| Refused::Unknown(name.to_owned()))
}

/// Whether an address is of this machine alone: loopback, or a socket's file.
pub(super) fn is_near(address: &str) -> bool {
    address.parse::<SocketAddr>().map_or(true, |address| address.ip().is_loopback())
}

pub(super) fn routes() -> Router {
    Router::new().route("/failpoints", get(list)).route("/failpoints/{name}", put(set).delete(clear))
}

async fn set(Path(name): Path<String>, actions: String) -> (StatusCode, String) {
    answer(arm(&name, &actions))
}

async fn clear(Path(name): Path<String>) -> (StatusCode, String) {
    answer(known(&name).map(fail::remove))
}

async fn list() -> String {
    let set: BTreeMap<String, String> = fail::list().into_iter().collect();
    let mut lines = String::new();
    for site in SITES {
        let actions = set.get(*site).map(|actions| format!("={actions}")).unwrap_or_default();
        writeln!(lines, "{site}{actions}").expect("writing to a string does not fail");
    }
    lines
}

fn answer(done: Result<(), Refused>) -> (StatusCode, String) {
    match done {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(error @ Refused::Unknown(_)) => (StatusCode::NOT_FOUND, format!("{error}\n")),
        Err(error @ Refused::Malformed(_)) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn ask(method: &str, path: &str, body: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
        let response = routes().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        (code, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_place_is_set_listed_and_cleared_and_an_unknown_one_is_refused() {
        let path = "/failpoints/watch_before_victims";
        assert_eq!(ask("PUT", path, "3*sleep(1)").await, (200, String::new()));
        assert!(ask("GET", "/failpoints", "").await.1.contains("watch_before_victims=3*sleep(1)\n"));
        assert_eq!(ask("DELETE", path, "").await, (200, String::new()));
        let listed = ask("GET", "/failpoints", "").await.1;
        assert!(listed.contains("watch_before_victims\n") && listed.lines().count() == SITES.len(), "{listed}");
        assert_eq!(ask("PUT", path, "explode").await.0, 400);
        let unknown = (404, "no failpoint is called \"no_such\"\n".to_owned());
        assert_eq!(ask("PUT", "/failpoints/no_such", "panic").await, unknown);
    }

    #[test]
    fn only_this_machine_may_set_them() {
        for near in ["127.0.0.1:2379", "[::1]:2379", "/run/mechi.sock"] {
            assert!(is_near(near), "{near}");
        }
        for far in ["0.0.0.0:2379", "10.0.0.1:2379", "[::]:2379"] {
            assert!(!is_near(far), "{far}");
        }
    }
}
