//! Requests to the routers and the exact answers.

use super::*;
use crate::config::{Action, action};
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use tower::ServiceExt;

#[derive(Default)]
struct Fake {
    status: Status,
    serializable_fails: bool,
    linearizable_fails: bool,
}

impl Member for Fake {
    fn status(&self) -> Status {
        self.status.clone()
    }

    fn read(&self, serializable: bool) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        let fails = if serializable { self.serializable_fails } else { self.linearizable_fails };
        Box::pin(async move { if fails { Err(Error::Timeout) } else { Ok(()) } })
    }

    fn members(&self) -> Result<Vec<pb::Member>, Error> {
        let peer_ur_ls = vec!["http://localhost:2380".into()];
        Ok(vec![pb::Member { id: 7, name: "a".into(), peer_ur_ls, ..Default::default() }])
    }
}

fn alarm(kind: pb::AlarmType) -> pb::AlarmMember {
    pb::AlarmMember { member_id: 1, alarm: kind as i32 }
}

fn led() -> Status {
    Status { leader: 1, ..Status::default() }
}

fn shared(fake: Fake, args: &[&str]) -> Shared {
    let Action::Run(config, _) = action(&args.iter().map(ToString::to_string).collect::<Vec<_>>(), &[]) else {
        panic!("refused")
    };
    Shared::new(Arc::new(fake), Arc::new(Metrics::new(&config, 1)), &config)
}

async fn send(router: Router, request: Request<Body>) -> (u16, HeaderMap, String) {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(fake: Fake, path: &str) -> (u16, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let (code, _, body) = send(client_router(shared(fake, &[])), request).await;
    (code, body)
}

fn ill(reason: &str) -> (u16, String) {
    (503, format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n"))
}

#[tokio::test]
async fn health_is_exact() {
    let well = || (200, "{\"health\":\"true\",\"reason\":\"\"}".to_string());
    let alarmed = |kind| Fake { status: Status { alarms: vec![alarm(kind)], ..led() }, ..Fake::default() };
    let (nospace, corrupt) = (pb::AlarmType::Nospace, pb::AlarmType::Corrupt);
    for (fake, path, wanted) in [
        (Fake { status: led(), ..Fake::default() }, "/health", well()),
        (Fake::default(), "/health", ill("RAFT NO LEADER")),
        (Fake::default(), "/health?serializable=true", well()),
        (alarmed(nospace), "/health", ill("ALARM NOSPACE")),
        (alarmed(nospace), "/health?exclude=NOSPACE&serializable=true", well()),
        (alarmed(nospace), "/health?exclude=CORRUPT", ill("ALARM NOSPACE")),
        (alarmed(corrupt), "/health?exclude=NOSPACE", ill("ALARM CORRUPT")),
        (alarmed(corrupt), "/health?exclude=NOSPACE&exclude=CORRUPT", well()),
        (
            Fake { status: led(), linearizable_fails: true, ..Fake::default() },
            "/health",
            ill("RANGE ERROR:etcdserver: request timed out"),
        ),
        (Fake { status: led(), linearizable_fails: true, ..Fake::default() }, "/health?serializable=true", well()),
    ] {
        assert_eq!(get(fake, path).await, wanted, "{path}");
    }
}

#[tokio::test]
async fn livez_and_readyz_are_exact() {
    let ok = || (200, "ok\n".to_string());
    let sick = || Fake { linearizable_fails: true, ..Fake::default() };
    let failed = "[+]data_corruption ok\n[+]serializable_read ok\n\
                  [-]linearizable_read failed: etcdserver: request timed out\n[+]non_learner ok\n";
    let nospace = Status { alarms: vec![alarm(pb::AlarmType::Nospace)], ..led() };
    let corrupt = Status { alarms: vec![alarm(pb::AlarmType::Corrupt)], ..led() };
    let learner = Status { is_learner: true, ..led() };
    for (fake, path, wanted) in [
        (Fake::default(), "/livez", ok()),
        (Fake::default(), "/livez?verbose", (200, "[+]serializable_read ok\nok\n".into())),
        (sick(), "/livez", ok()),
        (sick(), "/readyz", (503, failed.into())),
        (sick(), "/readyz?exclude=linearizable_read", ok()),
        (sick(), "/readyz?exclude=linearizable_read&exclude=nothing", ok()),
        (sick(), "/readyz/serializable_read", ok()),
        (
            sick(),
            "/readyz/linearizable_read",
            (503, "[-]linearizable_read failed: etcdserver: request timed out\n".into()),
        ),
        (sick(), "/livez/linearizable_read", (404, "404 page not found\n".into())),
        (Fake { status: nospace, ..Fake::default() }, "/readyz", ok()),
        (
            Fake { status: corrupt, ..Fake::default() },
            "/readyz/data_corruption",
            (503, "[-]data_corruption failed: alarm activated: CORRUPT\n".into()),
        ),
        (
            Fake { status: learner, ..Fake::default() },
            "/readyz/non_learner",
            (503, "[-]non_learner failed: not supported for learner\n".into()),
        ),
    ] {
        assert_eq!(get(fake, path).await, wanted, "{path}");
    }
}

#[tokio::test]
async fn version_metrics_and_unknown_paths() {
    let version = "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.7.0\"}";
    assert_eq!(get(Fake::default(), "/version").await, (200, version.into()));
    assert_eq!(get(Fake::default(), "/nope").await, (404, "404 page not found\n".into()));
    let (code, text) = get(Fake { status: led(), ..Fake::default() }, "/metrics").await;
    assert_eq!(code, 200);
    assert!(text.contains("\netcd_server_has_leader 1\n"));
    let (_, vars) = get(Fake::default(), "/debug/vars").await;
    assert!(serde_json::from_str::<serde_json::Value>(&vars).unwrap()["raft.status"].is_object());
}

#[tokio::test]
async fn other_methods_are_refused_as_go_refuses_them() {
    for path in ["/health", "/livez", "/readyz/non_learner", "/version"] {
        let request = Request::post(path).body(Body::empty()).unwrap();
        let (code, headers, body) = send(client_router(shared(Fake::default(), &[])), request).await;
        assert_eq!((code, &body[..]), (405, "Method Not Allowed\n"), "{path}");
        assert_eq!(headers[header::ALLOW], "GET", "{path}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
    }
}

#[tokio::test]
async fn metrics_urls_serve_no_version_and_peers_see_members() {
    let request = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let (code, _, _) = send(metrics_router(shared(Fake::default(), &[])), request("/version")).await;
    assert_eq!(code, 404);
    let (code, _, body) = send(peer_router(shared(Fake::default(), &[])), request("/members")).await;
    assert_eq!(code, 200);
    let members: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&members[0]["id"], &members[0]["peerURLs"][0]), (&7.into(), &"http://localhost:2380".into()));
}

#[tokio::test]
async fn host_names_and_origins_are_checked() {
    let args = &["--host-whitelist=good,localhost", "--cors=http://ok:1"][..];
    for (args, host, origin, code, allowed) in [
        (args, "good:2379", None, 200, None),
        (args, "evil.example:2379", None, 421, None),
        (args, "good", Some("http://ok:1"), 200, Some("http://ok:1")),
        (args, "good", Some("http://evil:1"), 200, None),
        (&[], "anything", Some("http://evil:1"), 200, Some("*")),
    ] {
        let mut request = Request::get("/version").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let request = request.body(Body::empty()).unwrap();
        let (found, headers, _) = send(client_router(shared(Fake::default(), args)), request).await;
        assert_eq!(found, code, "{host}");
        let echoed = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap());
        assert_eq!(echoed, allowed, "{host} {origin:?}");
    }
    let preflight = Request::options("/v3/kv/put").header("host", "good").body(Body::empty()).unwrap();
    assert_eq!(send(client_router(shared(Fake::default(), args)), preflight).await.0, 200);
}
