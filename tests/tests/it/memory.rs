//! A store larger than its memory limit serves many full lists at once: nothing dies, keep-alives go on.
//!
//! CI runs an eighth of the size; `MECHI_MEMORY_MIB=2048` runs 2 GiB under a limit of 512 MiB.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::process::{Kind, Server};
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const LISTS: usize = 100;
const VALUE_BYTES: usize = 64 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_full_lists_fit_into_a_quarter_of_the_data() {
    let mib: u64 = std::env::var("MECHI_MEMORY_MIB").ok().and_then(|n| n.parse().ok()).unwrap_or(256);
    let limit = mib / 4;
    let flag = format!("--memory-limit={limit}MiB");
    let server = Server::start(Kind::Mechi, &[&flag, "--quota-backend-bytes=8589934592"]).expect("mechi starts");
    let keys = (mib << 20) / VALUE_BYTES as u64;
    fill(&server.endpoint(), keys).await;
    let (stop, slowest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let keeper = tokio::spawn(keep_alive(server.endpoint(), stop.clone(), slowest.clone()));
    let began = Instant::now();
    let lists: Vec<_> = (0..LISTS).map(|_| tokio::spawn(list(server.endpoint()))).collect();
    let mut bytes = 0;
    for list in lists {
        let got = list.await.expect("no panic").expect("a full list");
        assert!(got > mib << 20, "a list of {got} bytes is not whole");
        bytes += got;
    }
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let renewals = keeper.await.expect("no panic").expect("the lease lives");
    let peak = peak_rss_mib(server.pid().expect("runs"));
    let slowest = slowest.load(Ordering::Relaxed);
    println!(
        "memory: {mib} MiB under a limit of {limit} MiB: {LISTS} lists, {} MiB in {took:.1?}, peak RSS {peak} MiB, \
         {renewals} keep-alives, the slowest {slowest} ms",
        bytes >> 20,
    );
    assert!(renewals > 0 && slowest < 1_000, "{renewals} keep-alives, the slowest took {slowest} ms");
    assert!(peak < mib, "peak RSS {peak} MiB for {mib} MiB of data: the limit has no effect");
}

async fn fill(endpoint: &str, keys: u64) {
    let next = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..32)
        .map(|_| {
            let (endpoint, next) = (endpoint.to_owned(), next.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(&endpoint).await.expect("answers");
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= keys {
                        return;
                    }
                    let mut value = vec![0u8; VALUE_BYTES];
                    let mut rng = mechi_tests::rng::Rng::new(n);
                    value
                        .chunks_mut(8)
                        .for_each(|chunk| chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]));
                    client.put(format!("big/{n:08}"), value).await.expect("puts");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
}

async fn keep_alive(endpoint: String, stop: Arc<AtomicBool>, slowest: Arc<AtomicU64>) -> anyhow::Result<u64> {
    let mut client = Client::connect(&endpoint).await?;
    let id = client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 10, id: 0 }).await?.into_inner().id;
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(rx);
    tx.send(pb::LeaseKeepAliveRequest { id }).await?;
    let mut answers = client.lease.lease_keep_alive(requests).await?.into_inner();
    answers.message().await?;
    let mut renewals = 0;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        tx.send(pb::LeaseKeepAliveRequest { id }).await?;
        let answer = answers.message().await?;
        anyhow::ensure!(answer.is_some_and(|answer| answer.ttl > 0), "the lease was lost");
        slowest.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
        renewals += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(renewals)
}

/// Lists everything over plain HTTP/2 and throws the bytes away; returns how many came.
async fn list(endpoint: String) -> anyhow::Result<u64> {
    let tcp = TcpStream::connect(&endpoint).await?;
    let (send, connection) = h2::client::handshake(tcp).await?;
    tokio::spawn(connection);
    let mut send = send.ready().await?;
    let request = http::Request::post(format!("http://{endpoint}/etcdserverpb.KV/Range"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = send.send_request(request, false)?;
    let zero = Bytes::from_static(&[0]);
    let range = pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() }.encode_to_vec();
    let mut frame = vec![0];
    frame.extend((range.len() as u32).to_be_bytes());
    frame.extend(range);
    body.send_data(frame.into(), true)?;
    let mut body = response.await?.into_body();
    let mut bytes = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        bytes += data.len() as u64;
        body.flow_control().release_capacity(data.len())?;
    }
    let trailers = body.trailers().await?;
    let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")).map(|status| status.as_bytes());
    anyhow::ensure!(status == Some(b"0"), "trailers {trailers:?}");
    Ok(bytes)
}

fn peak_rss_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") >> 10
}
