//! Histories for this crate's own tests: many clients against the model, with overlap, refusals and unknown outcomes.

use crate::history::store::Request;
use crate::history::value::Value;
use crate::history::{History, Kind, Op, Process};
use crate::model::Model;
use crate::revision::Logged;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use pb::request_op::Request as AskOp;

/// splitmix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How a history is made.
pub(crate) struct Shape {
    pub(crate) operations: u64,
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    pub(crate) unknown_percent: u64,
    /// Whether to use leases, transactions and compactions, and not only puts, deletes and reads.
    pub(crate) everything: bool,
}

/// A history that is right, and what the members' logs would say.
pub(crate) fn store(seed: u64, shape: &Shape) -> (History, Vec<Logged>) {
    let mut rng = Rng(seed);
    let mut model = Model::default();
    let mut lines: Vec<(u64, Op)> = Vec::new();
    let (mut free, mut process): (Vec<u64>, Vec<u64>) = (vec![0; shape.clients as usize], (0..shape.clients).collect());
    let mut next_process = shape.clients;
    for number in 1..=shape.operations {
        // Each takes effect 10 after the one before it; clients ask before and hear after.
        let effect = number * 10;
        let thread = (0..free.len()).min_by_key(|&at| free[at]).expect("there are clients");
        let invoked = free[thread].max(effect.saturating_sub(1 + rng.below(10 * shape.clients)));
        let returned = effect + 1 + rng.below(10 * shape.clients);
        if invoked >= effect {
            continue;
        }
        let ask = ask(&mut rng, &model, number, shape);
        let client = Process::Client(process[thread]);
        lines.push((invoked, Op::new(invoked, Kind::Invoke, client, Value::Ask(ask.clone()))));
        let unknown = rng.chance(shape.unknown_percent);
        let happens = !unknown || rng.chance(50);
        let result = happens.then(|| model.ask(&ask)).flatten();
        let mut done = match result {
            Some(Ok(response)) if !unknown => Op {
                revision: Some(response.revision()),
                ..Op::new(returned, Kind::Ok, client, Value::Answer(response))
            },
            Some(Err(error)) if !unknown => {
                Op { error: Some(error.to_string()), ..Op::new(returned, Kind::Fail, client, Value::Ask(ask)) }
            }
            _ => Op::new(returned, Kind::Info, client, Value::Ask(ask)),
        };
        if unknown {
            process[thread] = next_process;
            next_process += 1;
        }
        done.node = Some(format!("n{}", 1 + thread % 3));
        lines.push((returned, done));
        free[thread] = returned + 1;
    }
    lines.sort_by_key(|(at, _)| *at);
    let mut history = History::default();
    for (_, op) in lines {
        history.push(op);
    }
    let logged = (2..=model.revision()).map(|revision| Logged {
        revision,
        changes: model.changes(revision).map(|change| (change.key, change.now)).collect(),
    });
    (history, logged.collect())
}

pub(crate) fn key(number: u64) -> Bytes {
    Bytes::from(format!("k{number:04}"))
}

pub(crate) fn put(key: Bytes, value: impl Into<Bytes>) -> Request {
    Request::Put(pb::PutRequest { key, value: value.into(), ..Default::default() })
}

pub(crate) fn get(key: Bytes) -> Request {
    Request::Range(pb::RangeRequest { key, ..Default::default() })
}

fn ask(rng: &mut Rng, model: &Model, number: u64, shape: &Shape) -> Request {
    let one = key(rng.below(shape.keys));
    let value = Bytes::from(format!("v{number}"));
    let revision = if rng.chance(30) { 1 + rng.below(model.revision() as u64 + 2) as i64 } else { 0 };
    let range = pb::RangeRequest {
        key: one.clone(),
        range_end: if shape.everything && rng.chance(30) { Bytes::from_static(b"k0003") } else { Bytes::new() },
        revision: if shape.everything { revision } else { 0 },
        limit: if shape.everything { rng.below(4) as i64 } else { 0 },
        ..Default::default()
    };
    let put = pb::PutRequest { key: one.clone(), value, prev_kv: rng.chance(30), ..Default::default() };
    match rng.below(if shape.everything { 20 } else { 10 }) {
        0..=4 => Request::Put(put),
        5..=8 => Request::Range(range),
        9 => Request::DeleteRange(pb::DeleteRangeRequest { key: one, range_end: Bytes::new(), prev_kv: true }),
        10..=14 => {
            let now = model.get(&one).map_or(0, |kv| kv.mod_revision);
            let compare = pb::Compare {
                result: 0,
                target: 2,
                key: one,
                range_end: Bytes::new(),
                target_union: Some(pb::compare::TargetUnion::ModRevision(now - i64::from(rng.chance(30)))),
            };
            let op = |request| pb::RequestOp { request: Some(request) };
            let read = pb::RangeRequest { revision: 0, ..range };
            Request::Txn(pb::TxnRequest {
                compare: vec![compare],
                success: vec![op(AskOp::RequestPut(put)), op(AskOp::RequestRange(read.clone()))],
                failure: vec![op(AskOp::RequestRange(read))],
            })
        }
        15 | 16 => {
            let lease = model.leases().keys().next().copied().unwrap_or(0);
            Request::Put(pb::PutRequest { lease, ..put })
        }
        17 => Request::LeaseGrant(pb::LeaseGrantRequest { id: number as i64, ttl: 10 }),
        18 => Request::LeaseRevoke(pb::LeaseRevokeRequest { id: model.leases().keys().next().copied().unwrap_or(99) }),
        _ => Request::Compaction(pb::CompactionRequest {
            revision: (model.revision() - rng.below(5) as i64).max(1),
            physical: false,
        }),
    }
}
