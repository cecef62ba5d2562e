//! What Kubernetes does: each object is made, changed and removed under a guard, lists come in pages of one revision, and
//! who lists goes on with a watch from there.

use super::requests::{delete, get, get_prefix, made, op_delete, op_get, op_put, put, range, revision, txn, unchanged};
use super::watch::compact;
use super::{COMPACTOR, Crew, Work};
use crate::client::{Client, Outcome};
use crate::watcher::{Plan, prefix_end, watch};
use anyhow::Result;
use bytes::Bytes;
use mechi_checker::watch as seen;
use mechi_proto::etcdserverpb as pb;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const PREFIX: &str = "registry/pods/";
const NAMESPACES: u64 = 3;
const PODS: u64 = 10;

/// Objects of one page.
const PAGE: i64 = 4;

/// The first thread of those that list for their watches.
const INFORMERS: u64 = COMPACTOR + 10;

/// Kubernetes compacts every five minutes; a run is shorter.
const COMPACT_EVERY: Duration = Duration::from_secs(3);

pub(super) async fn run(crew: &Crew) -> Result<()> {
    for number in 0..crew.members.len() {
        let client = crew.client(INFORMERS + number as u64, Some(number))?;
        let member = crew.members[number].clone();
        crew.recorder.watchers.keep(tokio::spawn(informer(client, member, crew.until)));
    }
    let mut compactor = crew.client(COMPACTOR, None)?;
    let compacting = async {
        while crew.wait(COMPACT_EVERY).await {
            compact(&mut compactor, 100, 300).await;
        }
    };
    let (worked, ()) = tokio::join!(crew.work(Objects { next: AtomicI64::new(1) }), compacting);
    worked
}

struct Objects {
    next: AtomicI64,
}

impl Work for Objects {
    async fn step(&self, client: &mut Client) -> bool {
        let key = format!("{PREFIX}ns{}/p{}", client.rng().below(NAMESPACES), client.rng().below(PODS));
        let value = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        match client.rng().below(100) {
            0..25 => {
                // A create: only where nothing is.
                let done = txn(client, vec![made(key.clone(), 0)], vec![op_put(put(key, value))], vec![]).await;
                done.ok().is_some()
            }
            25..70 => {
                let Some(found) = range(client, get(key.clone())).await.ok() else { return false };
                let Some(kv) = found.kvs.first() else { return true };
                let guard = vec![unchanged(key.clone(), kv.mod_revision)];
                let change = if client.rng().chance(75) {
                    op_put(put(key.clone(), value))
                } else {
                    op_delete(delete(key.clone()))
                };
                txn(client, guard, vec![change], vec![op_get(get(key))]).await.ok().is_some()
            }
            70..85 => range(client, get(key)).await.ok().is_some(),
            _ => pages(client).await.is_some(),
        }
    }
}

/// Lists everything in pages, all of the first one's revision; returns that.
async fn pages(client: &mut Client) -> Option<i64> {
    let all = get_prefix(PREFIX);
    let (mut from, mut at) = (all.key.clone(), 0);
    loop {
        let ask = pb::RangeRequest { key: from, limit: PAGE, revision: at, ..all.clone() };
        let page = match range(client, ask).await {
            Outcome::Ok(page) => page,
            _ => return None,
        };
        if at == 0 {
            at = revision(&page.header);
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else { return Some(at) };
        // The first key behind the last one.
        from = Bytes::from([&last.key[..], &[0]].concat());
    }
}

/// Lists, watches from there, and begins anew when the watch ends.
async fn informer(mut client: Client, member: crate::cluster::Member, until: Instant) {
    let recorder = client.recorder().clone();
    let mut resume: Option<i64> = None;
    while !recorder.watchers.is_stopped() {
        let next = match resume.take() {
            Some(next) => next,
            // Whoever begins after the last write asks no more: nobody's requests may be open in the end.
            None if Instant::now() < until => match pages(&mut client).await {
                Some(at) => at + 1,
                None => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            None => recorder.watchers.newest() + 1,
        };
        let request = seen::Request {
            key: Bytes::from_static(PREFIX.as_bytes()),
            range_end: prefix_end(PREFIX),
            start_revision: next,
            prev_kv: true,
            ..Default::default()
        };
        let plan = Plan {
            until: Instant::now() + Duration::from_millis(2_000 + client.rng().below(8_000)),
            progress_every: Some(Duration::from_millis(250)),
            cancels: client.rng().chance(50),
        };
        let ended = watch(&recorder, &member, request, plan).await;
        // After a compaction it lists again; else it may go on where it was.
        if ended.compacted.is_none() && client.rng().chance(60) {
            resume = Some(ended.through + 1);
        }
        if ended.broken {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
