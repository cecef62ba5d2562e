//! `/metrics` and `/healthz`, for whoever is on this machine.

use crate::limits::{REQUEST_BYTES_MAX, SCRAPE_MAX, SCRAPES_MAX};
use crate::metrics::Metrics;
use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Serves metrics from now on; returns where, and the task that does it.
///
/// - Errors: the address is not this machine's own: there is neither TLS nor a login here; it is taken.
pub(crate) async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> Result<(SocketAddr, JoinHandle<()>)> {
    ensure!(
        address.ip().is_loopback(),
        "--listen-metrics {address}: only loopback addresses can be served, since metrics have neither TLS nor a login"
    );
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address} for metrics"))?;
    let bound = listener.local_addr()?;
    let places = Arc::new(Semaphore::new(SCRAPES_MAX));
    let task = tokio::spawn(async move {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Too many open files, say: it passes.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let metrics = metrics.clone();
            tokio::spawn(async move {
                let _ = tokio::time::timeout(SCRAPE_MAX, answer(stream, &metrics)).await;
                drop(place);
            });
        }
    });
    Ok((bound, task))
}

async fn answer(mut stream: TcpStream, metrics: &Metrics) -> Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        ensure!(request.len() < REQUEST_BYTES_MAX, "the request is too long");
        let mut part = [0; 1024];
        let count = stream.read(&mut part).await?;
        ensure!(count > 0, "the request has no end");
        request.extend_from_slice(&part[..count]);
    }
    let line = String::from_utf8_lossy(&request);
    let mut words = line.split_whitespace();
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => ("200 OK", metrics.text()),
        (Some("GET"), Some("/healthz")) => ("200 OK", "ok".to_owned()),
        (Some("GET"), _) => ("404 Not Found", "there are /metrics and /healthz\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    #[tokio::test]
    async fn metrics_are_served_on_loopback_and_nowhere_else() {
        let metrics = Arc::new(Metrics::default());
        metrics.set("mechi_control_nodes", &[], 3.0);
        let anywhere = serve(([0, 0, 0, 0], 0).into(), metrics.clone()).await;
        assert!(anywhere.is_err_and(|error| error.to_string().contains("only loopback")));
        let (address, _task) = serve(([127, 0, 0, 1], 0).into(), metrics).await.expect("a free port");
        let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("mechi_control_nodes 3\n"), "{answer}");
        assert!(ask(address, "GET /healthz HTTP/1.1\r\n\r\n").await.ends_with("\r\n\r\nok"));
        assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 405 "));
    }
}
