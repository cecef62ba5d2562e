//! A server's memory, by its own metrics.

use crate::limits::METRICS_BYTES_MAX;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const METRIC: &str = "process_resident_memory_bytes ";
const TIMEOUT: Duration = Duration::from_secs(10);

/// The resident memory in bytes that the server at `endpoint` names at `/metrics`.
pub(super) async fn resident(endpoint: &str) -> Result<f64, String> {
    let host = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    if host.contains("://") {
        return Err(format!("fetch error: metrics are read over plain HTTP only, not from {endpoint}"));
    }
    let text = timeout(TIMEOUT, fetch(host.trim_end_matches('/'))).await;
    let text =
        text.map_err(|_| "fetch error: no answer in time".to_owned())?.map_err(|why| format!("fetch error: {why}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(METRIC));
    let value = value.ok_or_else(|| format!("could not find: {}", METRIC.trim_end()))?;
    value.trim().parse().map_err(|why| format!("parse error: {why}"))
}

async fn fetch(host: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(host).await?;
    // Version 1.0: the answer comes in one piece and ends with the connection.
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(METRICS_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
