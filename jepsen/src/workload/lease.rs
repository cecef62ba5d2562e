//! Leases: granted, used, renewed, asked after, revoked, and left alone until they end.

use super::Work;
use super::requests::{get, get_prefix, put, range};
use crate::client::Client;
use mechi_checker::history::store::{Request, Response};
use mechi_proto::etcdserverpb as pb;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

/// Leases that one client plays with at once.
const LEASES_MAX: usize = 4;

/// Seconds; etcd's least is longer than the shortest of these.
const TTL_MAX: u64 = 5;

/// Every client's leases: each tends its own.
#[derive(Default)]
pub(super) struct Leases {
    own: Mutex<BTreeMap<u64, Vec<i64>>>,
    next: AtomicI64,
}

impl Leases {
    fn change(&self, thread: u64, change: impl FnOnce(&mut Vec<i64>)) -> usize {
        let mut own = self.own.lock().expect("nobody panics with it");
        let leases = own.entry(thread).or_default();
        change(leases);
        leases.len()
    }

    fn forget(&self, thread: u64, lease: i64) {
        self.change(thread, |leases| leases.retain(|other| *other != lease));
    }

    async fn grant(&self, client: &mut Client) -> bool {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let id = if client.rng().chance(50) { 1_000 + number } else { 0 };
        let ttl = 1 + client.rng().below(TTL_MAX) as i64;
        let granted = client.ask(Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl })).await.ok();
        let Some(Response::LeaseGrant(granted)) = granted else { return false };
        self.change(client.thread(), |leases| leases.push(granted.id));
        true
    }
}

impl Work for Leases {
    async fn step(&self, client: &mut Client) -> bool {
        let thread = client.thread();
        let what = client.rng().below(100);
        let mut chosen = None;
        let pick = client.rng().next_u64();
        let count = self.change(thread, |leases| {
            if !leases.is_empty() {
                chosen = leases.get((pick % leases.len() as u64) as usize).copied();
            }
        });
        let Some(id) = chosen.filter(|_| count >= LEASES_MAX || what >= 15) else { return self.grant(client).await };
        let key = format!("l/{id}/{}", client.rng().below(3));
        match what {
            0..45 => {
                let value = self.next.fetch_add(1, Ordering::Relaxed).to_string();
                let done = client.ask(Request::Put(pb::PutRequest { lease: id, ..put(key, value) })).await;
                let gone = matches!(&done, crate::client::Outcome::Fail(why) if why.contains("lease not found"));
                if gone {
                    self.forget(thread, id);
                }
                gone || done.ok().is_some()
            }
            45..65 => {
                let done = client.ask(Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id })).await.ok();
                if let Some(Response::LeaseKeepAlive(it)) = &done
                    && it.ttl <= 0
                {
                    self.forget(thread, id);
                }
                done.is_some()
            }
            65..77 => {
                let ask = pb::LeaseTimeToLiveRequest { id, keys: client.rng().chance(50) };
                client.ask(Request::LeaseTimeToLive(ask)).await.ok().is_some()
            }
            77..81 => {
                self.forget(thread, id);
                client.ask(Request::LeaseRevoke(pb::LeaseRevokeRequest { id })).await.ok().is_some()
            }
            81..85 => {
                // Left alone: somebody reads its key later.
                self.forget(thread, id);
                true
            }
            85..95 => range(client, get(key)).await.ok().is_some(),
            _ => range(client, get_prefix("l/")).await.ok().is_some(),
        }
    }
}
