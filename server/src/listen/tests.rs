//! Real connections over loopback and unix sockets.

use super::*;
use axum::routing::any;
use http::Request;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Rig {
    address: String,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

fn says(text: &'static str) -> Router {
    Router::new().fallback(any(move || async move { text }))
}

fn start(url: &str, http: Option<Router>, http2: Option<Router>) -> Rig {
    let listener = Listener::bind(&Url::parse(url).unwrap(), SocketOptions::default()).unwrap();
    let address = listener.address().to_string();
    let (stop, shutdown) = watch::channel(false);
    let keepalive = Keepalive { interval: None, timeout: Duration::from_secs(20) };
    let limits = Limits { max_concurrent_streams: 100, keepalive };
    let served = serve(listener, Handlers { http, http2 }, limits, shutdown);
    Rig { address, stop, served }
}

async fn http1(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    // A server that does not speak HTTP/1 may reset the connection.
    let _ = stream.read_to_string(&mut text).await;
    text
}

async fn http2(stream: TcpStream) -> Option<String> {
    let (sender, connection) = h2::client::handshake(stream).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::post("http://a/x").body(()).unwrap();
    let (response, _) = sender.ready().await.ok()?.send_request(request, true).ok()?;
    let mut body = response.await.ok()?.into_body();
    let mut text = Vec::new();
    while let Some(chunk) = body.data().await {
        text.extend_from_slice(&chunk.ok()?);
    }
    drop(body);
    let _ = connection.await;
    String::from_utf8(text).ok()
}

#[tokio::test]
async fn one_port_speaks_both_protocols_and_stops() {
    let rig = start("http://localhost:0", Some(says("one")), Some(says("two")));
    assert!(rig.address.starts_with("127.0.0.1:") && !rig.address.ends_with(":0"), "{}", rig.address);
    let mut stream = TcpStream::connect(&rig.address).await.unwrap();
    let answer = http1(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("one"), "{answer}");
    let stream = TcpStream::connect(&rig.address).await.unwrap();
    assert_eq!(http2(stream).await.as_deref(), Some("two"));
    rig.stop.send(true).unwrap();
    rig.served.await.unwrap();
    assert!(TcpStream::connect(&rig.address).await.is_err());
}

#[tokio::test]
async fn a_protocol_without_a_handler_is_not_spoken() {
    let rig = start("http://127.0.0.1:0", None, Some(says("two")));
    let mut stream = TcpStream::connect(&rig.address).await.unwrap();
    assert!(!http1(&mut stream).await.contains("200 OK"));
    let rig = start("http://127.0.0.1:0", Some(says("one")), None);
    let stream = TcpStream::connect(&rig.address).await.unwrap();
    assert_eq!(http2(stream).await, None);
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_stop() {
    let rig = start("http://127.0.0.1:0", Some(says("one")), Some(says("two")));
    let mut idle = TcpStream::connect(&rig.address).await.unwrap();
    let text = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    idle.write_all(text).await.unwrap();
    let mut start = [0; 8];
    idle.read_exact(&mut start).await.unwrap();
    drop(rig.stop);
    rig.served.await.unwrap();
}

#[tokio::test]
async fn a_socket_file_is_replaced_only_when_nobody_answers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("localhost:20000");
    let url = format!("unix://{}", path.display());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the stale file is there");

    let rig = start(&url, Some(says("one")), Some(says("two")));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    assert!(http1(&mut stream).await.ends_with("one"));
    let second = Listener::bind(&Url::parse(&url).unwrap(), SocketOptions::default()).unwrap_err();
    assert!(format!("{second:#}").contains("address already in use"), "{second:#}");
    rig.stop.send(true).unwrap();
    rig.served.await.unwrap();
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    let file = Listener::bind(&Url::parse(&url).unwrap(), SocketOptions::default()).unwrap_err();
    assert!(format!("{file:#}").contains("is not a socket"), "{file:#}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_port_in_use_is_refused_with_the_url() {
    let rig = start("http://127.0.0.1:0", Some(says("one")), None::<Router>);
    let url = format!("http://{}", rig.address);
    let error = Listener::bind(&Url::parse(&url).unwrap(), SocketOptions::default()).unwrap_err();
    let text = format!("{error:#}").to_lowercase();
    assert!(text.starts_with(&format!("listen on {url}: address already in use")), "{text}");
}
