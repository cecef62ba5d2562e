//! A watch over everything that outlives its members: when a stream ends, it resumes at the next revision anywhere.

use super::record::{Change, brief};
use crate::client::Client;
use crate::rng::Rng;
use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::event::EventType;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long a member may take to accept a connection before another one is tried.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// What one watch has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// In the order in which they came.
    pub changes: Vec<Change>,
    /// When keys under leases were seen to go.
    pub ended: BTreeMap<Bytes, Instant>,
    /// Streams that were opened.
    pub streams: u64,
    /// What a watch must never do, and did.
    pub wrong: Option<String>,
}

impl Seen {
    /// The newest revision; 1 before the first change.
    pub fn revision(&self) -> i64 {
        self.changes.last().map_or(1, |change| change.revision)
    }
}

/// A running watch.
pub struct Witness {
    /// What it has seen.
    pub seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Witness {
    /// Watches from revision 2 on, through the member `first` until that stream ends.
    pub fn start(endpoints: Vec<String>, first: usize, seed: u64) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let (all, mut rng) = (seen.clone(), Rng::new(seed));
        let task = tokio::spawn(async move {
            let mut member = first;
            loop {
                // The end of a stream is what is expected here; only what it showed is judged.
                let _ = watch(&endpoints[member], &all).await;
                if all.lock().expect("no witness panics").wrong.is_some() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                member = rng.below(endpoints.len() as u64) as usize;
            }
        });
        Self { seen, task }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(endpoint: &str, seen: &Mutex<Seen>) -> Result<()> {
    let mut client = tokio::time::timeout(CONNECT_MAX, Client::connect(endpoint)).await??;
    let begin = seen.lock().expect("no witness panics").revision();
    let zero = Bytes::from_static(&[0]);
    let create =
        pb::WatchCreateRequest { key: zero.clone(), range_end: zero, start_revision: begin + 1, ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    // The sender is kept, since the end of the requests would end the stream.
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    tx.send(request).await?;
    let stream = tokio_stream::wrappers::ReceiverStream::new(rx);
    let mut responses = tokio::time::timeout(CONNECT_MAX, client.watch.watch(stream)).await??.into_inner();
    while let Some(response) = responses.message().await? {
        let mut seen = seen.lock().expect("no witness panics");
        if response.created {
            seen.streams += 1;
        }
        if let Err(wrong) = take(&mut seen, begin, response) {
            seen.wrong.get_or_insert(format!("{endpoint}: {wrong}"));
            return Err(wrong);
        }
    }
    drop(tx);
    Ok(())
}

/// Adds one response; a revision begins and ends within it.
fn take(seen: &mut Seen, begin: i64, response: pb::WatchResponse) -> Result<()> {
    if response.canceled {
        bail!("a watch from {} was canceled: {response:?}", begin + 1);
    }
    let before = seen.revision();
    for event in response.events {
        let Some(kv) = event.kv else { bail!("an event without a key") };
        let revision = kv.mod_revision;
        ensure!(revision > before, "revision {revision} came again, or in two responses, after {before}");
        let is_delete = event.r#type == EventType::Delete as i32;
        if is_delete && kv.key.starts_with(b"lease/") {
            seen.ended.entry(kv.key.clone()).or_insert_with(Instant::now);
        }
        let value = (!is_delete).then(|| brief(&kv.value));
        seen.changes.push(Change { revision, key: kv.key, value });
    }
    Ok(())
}

/// Everything that one member's history holds up to `end`, through a new watch from the beginning.
///
/// - Errors: an end of the stream, or what a watch must never do.
pub async fn whole(endpoint: &str, end: i64) -> Result<Vec<Change>> {
    let seen = Mutex::new(Seen::default());
    let watching = watch(endpoint, &seen);
    tokio::pin!(watching);
    loop {
        let ended = tokio::time::timeout(Duration::from_millis(50), &mut watching).await;
        {
            let mut seen = seen.lock().expect("no witness panics");
            if seen.revision() >= end {
                return Ok(std::mem::take(&mut seen.changes));
            }
        }
        if let Ok(ended) = ended {
            ended?;
            bail!("the stream ended before revision {end}");
        }
    }
}
