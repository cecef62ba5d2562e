//! Writers, and watchers that begin in the past, now or in the future, want this or that, and leave or are left.

use super::requests::{delete, get, get_prefix, op_delete, op_get, op_put, put, range, txn};
use super::{COMPACTOR, Crew, Work};
use crate::client::Client;
use crate::cluster::Member;
use crate::recorder::Recorder;
use crate::watcher::{Plan, prefix_end, watch};
use anyhow::Result;
use bytes::Bytes;
use mechi_checker::history::store::Request;
use mechi_checker::watch as seen;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::rng::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Keys that are written.
const KEYS: u64 = 20;

/// Watchers of each member.
const WATCHERS: usize = 2;

/// How far from the newest revision a watch may begin.
const NEAR: u64 = 100;

/// Between two compactions.
const COMPACT_EVERY: Duration = Duration::from_millis(700);

pub(super) async fn run(crew: &Crew) -> Result<()> {
    watchers(crew, "w/", WATCHERS);
    let mut compactor = crew.client(COMPACTOR, None)?;
    let compacting = async {
        while crew.wait(COMPACT_EVERY).await {
            compact(&mut compactor, 20, 200).await;
        }
    };
    let (worked, ()) = tokio::join!(crew.work(Writers::new("w/")), compacting);
    worked
}

/// Compacts some revisions behind the newest that anyone heard of.
pub(super) async fn compact(client: &mut Client, least: u64, more: u64) {
    let behind = least + client.rng().below(more);
    let revision = client.recorder().watchers.newest() - behind as i64;
    if revision > 0 {
        let physical = client.rng().chance(50);
        client.ask(Request::Compaction(pb::CompactionRequest { revision, physical })).await;
    }
}

/// Lets `each` watchers per member live until the end of the run.
pub(super) fn watchers(crew: &Crew, prefix: &'static str, each: usize) {
    for number in 0..crew.members.len() * each {
        let (members, recorder) = (crew.members.clone(), crew.recorder.clone());
        let rng = crew.rng(1_000 + number as u64);
        let watcher = Watcher { recorder: crew.recorder.clone(), members, rng, prefix, at: number };
        recorder.watchers.keep(tokio::spawn(watcher.run()));
    }
}

/// Puts, deletes and transactions of several keys, all values different.
pub(super) struct Writers {
    prefix: &'static str,
    next: AtomicI64,
}

impl Writers {
    pub(super) fn new(prefix: &'static str) -> Self {
        Self { prefix, next: AtomicI64::new(1) }
    }

    fn key(&self, client: &mut Client) -> String {
        format!("{}{:02}", self.prefix, client.rng().below(KEYS))
    }

    fn value(&self) -> String {
        self.next.fetch_add(1, Ordering::Relaxed).to_string()
    }
}

impl Work for Writers {
    async fn step(&self, client: &mut Client) -> bool {
        let key = self.key(client);
        match client.rng().below(100) {
            0..50 => client.ask(Request::Put(put(key, self.value()))).await.ok().is_some(),
            50..65 => {
                let ask = pb::DeleteRangeRequest { prev_kv: true, ..delete(key) };
                client.ask(Request::DeleteRange(ask)).await.ok().is_some()
            }
            65..85 => {
                // Several events of one revision.
                let first = client.rng().below(KEYS);
                let mut ops = Vec::new();
                for n in 0..2 + client.rng().below(3) {
                    let key = format!("{}{:02}", self.prefix, (first + n) % KEYS);
                    ops.push(if client.rng().chance(75) {
                        op_put(put(key, self.value()))
                    } else {
                        op_delete(delete(key))
                    });
                }
                txn(client, vec![], ops, vec![op_get(get(key))]).await.ok().is_some()
            }
            85..93 => range(client, get(key)).await.ok().is_some(),
            _ => {
                let serializable = client.rng().chance(50);
                let ask = pb::RangeRequest { serializable, ..get_prefix(self.prefix) };
                range(client, ask).await.ok().is_some()
            }
        }
    }
}

struct Watcher {
    recorder: Arc<Recorder>,
    members: Vec<Member>,
    rng: Rng,
    prefix: &'static str,
    at: usize,
}

impl Watcher {
    /// One watch after the other, until nobody writes any more; the last one goes on.
    async fn run(mut self) {
        let mut resume: Option<i64> = None;
        while !self.recorder.watchers.is_stopped() {
            let mut request = self.request();
            let newest = self.recorder.watchers.newest();
            request.start_revision = match resume.take().filter(|_| self.rng.chance(70)) {
                Some(next) => next,
                None if self.rng.chance(25) => 0,
                None => (newest - NEAR as i64 + self.rng.below(2 * NEAR) as i64).max(1),
            };
            let member = &self.members[self.at % self.members.len()];
            let plan = Plan {
                until: Instant::now() + Duration::from_millis(300 + self.rng.below(7_000)),
                progress_every: self.rng.chance(60).then(|| Duration::from_millis(50 + self.rng.below(500))),
                cancels: self.rng.chance(30),
            };
            let start = request.start_revision;
            let ended = watch(&self.recorder, member, request, plan).await;
            if let Some(compacted) = ended.compacted {
                resume = Some(compacted.max(start));
            } else if ended.through > 0 {
                resume = Some(ended.through + 1);
            }
            if ended.broken {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // Elsewhere now and then, as a client does whose member is gone.
            if ended.broken || self.rng.chance(20) {
                self.at += 1;
            }
        }
    }

    fn request(&mut self) -> seen::Request {
        let key = format!("{}{:02}", self.prefix, self.rng.below(KEYS));
        let (key, range_end) = match self.rng.below(4) {
            0 => (key, Bytes::new()),
            1 => {
                let end = format!("{}{:02}", self.prefix, KEYS / 2 + self.rng.below(KEYS / 2));
                (format!("{}{:02}", self.prefix, self.rng.below(KEYS / 2)), end.into())
            }
            _ => (self.prefix.to_owned(), prefix_end(self.prefix)),
        };
        let filter = self.rng.below(10);
        seen::Request {
            asked_ns: 0,
            key: key.into(),
            range_end,
            start_revision: 0,
            prev_kv: self.rng.chance(50),
            no_put: filter == 0,
            no_delete: filter == 1,
            fragment: self.rng.chance(30),
        }
    }
}
