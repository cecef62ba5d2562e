//! Many registers, each for two hundred operations: so that the search for an order of one stays short.

use super::Work;
use super::requests::{get, holds, number, op_put, put, range, revision, txn};
use crate::client::{Client, Outcome};
use crate::recorder::Done;
use mechi_checker::history::Kind;
use mechi_checker::history::store::{Request, Response};
use mechi_checker::history::value::{Register, RegisterCall, Seen, Value};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::KeyValue;
use pb::response_op::Response as AnswerOp;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Registers in use at once.
const LIVE: usize = 3;

/// Operations on one register.
const OPS: u32 = 200;

/// The name of a register's key.
pub(crate) const PREFIX: &str = "r/";

/// The registers in use.
#[derive(Default)]
pub(super) struct Registers(Mutex<State>);

#[derive(Default)]
struct State {
    live: [(i64, u32); LIVE],
    registers: i64,
    /// The last value of each that anyone heard of, for a compare-and-set that has a chance.
    known: BTreeMap<i64, i64>,
    values: i64,
}

impl State {
    fn take(&mut self, slot: usize) -> i64 {
        let (key, left) = &mut self.live[slot];
        if *left == 0 {
            (*key, *left) = (self.registers, OPS);
            self.registers += 1;
        }
        *left -= 1;
        *key
    }
}

impl Work for Registers {
    async fn step(&self, client: &mut Client) -> bool {
        let (slot, what) = (client.rng().below(LIVE as u64) as usize, client.rng().below(10));
        let (key, call) = {
            let mut state = self.0.lock().expect("nobody panics with it");
            let key = state.take(slot);
            state.values += 1;
            let value = state.values;
            let call = match (what, state.known.get(&key)) {
                (0..4, _) => RegisterCall::Read,
                (4..7, _) | (_, None) => RegisterCall::Write(value),
                (_, Some(old)) => RegisterCall::Cas(*old, value),
            };
            (key, call)
        };
        let seen = call_one(client, key, call).await;
        if let Some(value) = seen.and_then(|seen| seen.value) {
            self.0.lock().expect("nobody panics with it").known.insert(key, value);
        }
        seen.is_some()
    }
}

/// Does one operation on one register, and writes it down; `None` if it did not succeed.
pub(super) async fn call_one(client: &mut Client, key: i64, call: RegisterCall) -> Option<Seen> {
    let name = format!("{PREFIX}{key}");
    let value = |seen| Value::Register(Register { key, call, seen });
    client.begin(value(None));
    let outcome = match call {
        RegisterCall::Read => range(client, get(name)).await.and_then(|answer| seen_by_read(&answer)),
        RegisterCall::Write(to) => {
            let ask = pb::PutRequest { prev_kv: true, ..put(name, to.to_string()) };
            client.ask(Request::Put(ask)).await.and_then(|answer| match answer {
                Response::Put(it) => Some(written(to, it.prev_kv.as_ref(), revision(&it.header))),
                _ => None,
            })
        }
        RegisterCall::Cas(from, to) => {
            let ask = pb::PutRequest { prev_kv: true, ..put(name.clone(), to.to_string()) };
            let done = txn(client, vec![holds(name, from.to_string())], vec![op_put(ask)], vec![]).await;
            match done {
                Outcome::Ok(it) if !it.succeeded => Outcome::Fail("it holds another value".into()),
                done => done.and_then(|it| {
                    let Some(AnswerOp::ResponsePut(put)) = &it.responses.first()?.response else { return None };
                    Some(written(to, put.prev_kv.as_ref(), revision(&it.header)))
                }),
            }
        }
    };
    let refused = matches!(&outcome, Outcome::Fail(why) if why.starts_with("it holds"));
    let (kind, answer) = outcome.split();
    match answer {
        Ok(seen) => {
            client.end(Done { revision: seen.mod_revision, ..Done::new(kind, value(Some(seen))) });
            Some(seen)
        }
        Err(why) => {
            client.end(Done::because(kind, value(None), why));
            // A comparison that is false is an answer too.
            (refused && kind == Kind::Fail).then_some(Seen { value: None, version: None, mod_revision: None })
        }
    }
}

fn seen_by_read(answer: &pb::RangeResponse) -> Option<Seen> {
    match answer.kvs.first() {
        Some(kv) => Some(Seen {
            value: Some(number(&kv.value)?),
            version: Some(kv.version),
            mod_revision: Some(kv.mod_revision),
        }),
        None => Some(Seen { value: None, version: None, mod_revision: None }),
    }
}

/// What a register is after a write, as its answer tells.
fn written(value: i64, before: Option<&KeyValue>, revision: i64) -> Seen {
    let version = before.map_or(0, |before| before.version) + 1;
    Seen { value: Some(value), version: Some(version), mod_revision: Some(revision) }
}
