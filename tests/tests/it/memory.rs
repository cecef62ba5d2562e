//! A store larger than its memory limit serves many full lists at once: nothing dies, keep-alives go on.
//!
//! CI runs an eighth of the size; `MECHI_MEMORY_MIB=2048` runs 2 GiB under a limit of 512 MiB, and then each keep-alive
//! must be answered within a second too. Without it only the lease must live: a busy machine is no bug.

use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::process::{Kind, Server};
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const LISTS: usize = 100;
/// What the process may take beside twice its limit: the store's and the allocator's own memory, connections, code.
/// A hundred lists held in memory would be a hundred times the data.
const FIXED_MIB: u64 = 320;

const VALUE_BYTES: usize = 64 * 1024;

/// Key, revisions and lengths of a key-value in an answer, at the most.
const RECORD_OVERHEAD_BYTES: u64 = 48;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_full_lists_fit_into_a_quarter_of_the_data() {
    let measured: Option<u64> = std::env::var("MECHI_MEMORY_MIB").ok().map(|n| n.parse().expect("MECHI_MEMORY_MIB=N"));
    let mib = measured.unwrap_or(256);
    let limit = mib / 4;
    let flag = format!("--memory-limit={limit}MiB");
    let server = Server::start(Kind::Mechi, &[&flag, "--quota-backend-bytes=8589934592"]).expect("mechi starts");
    let keys = (mib << 20) / VALUE_BYTES as u64;
    fill(&server.endpoint(), keys).await;
    if listed(keys) < keys {
        let mut client = Client::connect(&server.endpoint()).await.expect("answers");
        let refused = client.all().await.expect_err("longer than any client could take");
        assert!(refused.message().contains("trying to send message larger than max"), "{refused}");
    }
    let (stop, slowest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let keeper = tokio::spawn(keep_alive(server.endpoint(), stop.clone(), slowest.clone()));
    let began = Instant::now();
    let lists: Vec<_> = (0..LISTS).map(|_| tokio::spawn(list(server.endpoint(), listed(keys)))).collect();
    let mut bytes = 0;
    for list in lists {
        let got = list.await.expect("no panic").expect("a full list");
        assert!(got > listed(keys) * VALUE_BYTES as u64, "a list of {got} bytes is not whole");
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
    assert!(renewals > 0, "no keep-alive was answered");
    if measured.is_some() {
        assert!(slowest < 1_000, "{renewals} keep-alives, the slowest took {slowest} ms");
    }
    let most = limit * 2 + FIXED_MIB;
    assert!(peak < most, "peak RSS {peak} MiB, more than {most} MiB: the limit of {limit} MiB has no effect");
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

/// Keys of the longest list: gRPC's peers count a message's bytes in an int32, so that no client could take more.
fn listed(keys: u64) -> u64 {
    keys.min(i32::MAX as u64 / (VALUE_BYTES as u64 + RECORD_OVERHEAD_BYTES))
}

/// Lists everything over plain HTTP/2 and throws the bytes away; returns how many came.
async fn list(endpoint: String, keys: u64) -> anyhow::Result<u64> {
    let tcp = TcpStream::connect(&endpoint).await?;
    let (send, connection) = h2::client::handshake(tcp).await?;
    tokio::spawn(connection);
    let mut send = send.ready().await?;
    let request = http::Request::post(format!("http://{endpoint}/etcdserverpb.KV/Range"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = send.send_request(request, false)?;
    let range_end = format!("big/{keys:08}").into();
    let range = pb::RangeRequest { key: "big/".into(), range_end, ..Default::default() }.encode_to_vec();
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

/// The keys alone take more than the budget for values: nothing can be evicted, and nothing is thrashed about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_larger_than_the_budget_costs_neither_writes_nor_idle_time() {
    const TXNS: u64 = 1_600;
    const OPS: u64 = 128;
    let server = Server::start(Kind::Mechi, &["--memory-limit=64MiB"]).expect("mechi starts");
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let endpoint = server.endpoint();
            tokio::spawn(async move {
                let mut client = Client::connect(&endpoint).await.expect("answers");
                for txn in (writer..TXNS).step_by(8) {
                    let put = |op| {
                        let put =
                            pb::PutRequest { key: format!("small/{txn:06}/{op:03}").into(), ..Default::default() };
                        pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
                    };
                    let txn = pb::TxnRequest { success: (0..OPS).map(put).collect(), ..Default::default() };
                    client.kv.txn(txn).await.expect("puts");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    // Held against a member with room, on the same disk and in turns with it: a keeper that each put waits for costs
    // much more than a disk or a busy machine costs both.
    let roomy = Server::start(Kind::Mechi, &[]).expect("mechi starts");
    let mut clients = Vec::new();
    for server in [&server, &roomy] {
        clients.push(Client::connect(&server.endpoint()).await.expect("answers"));
    }
    let mut took = [Duration::ZERO; 2];
    for n in 0..200 {
        for (client, took) in clients.iter_mut().zip(&mut took) {
            let began = Instant::now();
            client.put("one", n.to_string()).await.expect("puts");
            *took += began.elapsed();
        }
    }
    let [full, free] = took;
    assert!(
        full < free * 5 + Duration::from_secs(20),
        "200 puts took {full:?}, {free:?} with room: the keeper is slow"
    );
    // The first flush of what is old may still go on; after that nothing is left to do.
    let pid = server.pid().expect("runs");
    let mut ticks = Vec::new();
    while ticks.last().is_none_or(|ticks| *ticks > IDLE_TICKS_MAX) {
        assert!(ticks.len() < 24, "hundredths of a second of CPU in each 5 idle seconds: {ticks:?}");
        let before = cpu_ticks(pid);
        tokio::time::sleep(Duration::from_secs(5)).await;
        ticks.push(cpu_ticks(pid) - before);
    }
    println!(
        "index above the budget: {} keys, 200 puts in {full:.1?} ({free:.1?} with room), hundredths of a second of CPU \
         in each 5 idle seconds: {ticks:?}",
        TXNS * OPS
    );
}

/// Hundredths of a second of CPU that five idle seconds may cost.
const IDLE_TICKS_MAX: u64 = 50;

/// User and system time so far, in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, fields) = stat.rsplit_once(") ").expect("the name ends");
    fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}
