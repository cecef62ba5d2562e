//! Elle's rw-register: a transaction is one request, without a guard.

use super::Work;
use super::requests::{get, kvs, number, op_get, op_put, put, revision, txn};
use crate::client::{Client, Outcome};
use crate::recorder::Done;
use mechi_checker::history::Kind;
use mechi_checker::history::value::{Mop, Read, Value};
use mechi_proto::etcdserverpb as pb;
use std::sync::Mutex;

/// Registers in use at once.
const LIVE: usize = 3;

/// Writes to one register.
const WRITES: i64 = 100;

/// The name of a register's key.
pub(crate) const PREFIX: &str = "x/";

/// The registers in use.
#[derive(Default)]
pub(super) struct Registers(Mutex<State>);

#[derive(Default)]
struct State {
    live: [Option<(i64, i64)>; LIVE],
    registers: i64,
}

impl State {
    /// A register, and the next value for it.
    fn take(&mut self, slot: usize, writes: bool) -> (i64, i64) {
        let place = &mut self.live[slot];
        if place.is_none_or(|(_, values)| values >= WRITES) {
            *place = Some((self.registers, 0));
            self.registers += 1;
        }
        let (register, values) = place.as_mut().expect("it was just filled");
        *values += i64::from(writes);
        (*register, *values)
    }
}

impl Work for Registers {
    async fn step(&self, client: &mut Client) -> bool {
        let mut mops: Vec<Mop> = Vec::new();
        for _ in 0..1 + client.rng().below(4) {
            let (slot, writes) = (client.rng().below(LIVE as u64) as usize, client.rng().chance(50));
            let mut state = self.0.lock().expect("nobody panics with it");
            let (key, _) = state.take(slot, false);
            // A transaction may put a key once.
            let writes =
                writes && !mops.iter().any(|mop| matches!(mop, Mop::Write { key: other, .. } if *other == key));
            let mop = if writes {
                Mop::Write { key, value: state.take(slot, true).1 }
            } else {
                Mop::Read { key, seen: Read::Nil }
            };
            mops.push(mop);
        }
        transact(client, mops).await
    }
}

/// Reads one register by itself.
pub(super) async fn read_one(client: &mut Client, key: i64) -> bool {
    transact(client, vec![Mop::Read { key, seen: Read::Nil }]).await
}

async fn transact(client: &mut Client, mops: Vec<Mop>) -> bool {
    client.begin(Value::Txn(mops.clone()));
    let name = |key: i64| format!("{PREFIX}{key}");
    let op = |mop: &Mop| match mop {
        Mop::Write { key, value } => op_put(put(name(*key), value.to_string())),
        mop => op_get(get(name(mop.key()))),
    };
    let outcome = txn(client, vec![], mops.iter().map(op).collect(), vec![]).await;
    let done = match outcome {
        Outcome::Ok(it) => {
            Done { revision: Some(revision(&it.header)), ..Done::new(Kind::Ok, Value::Txn(seen(mops, &it))) }
        }
        Outcome::Fail(why) => Done::because(Kind::Fail, Value::Txn(mops), why),
        Outcome::Info(why) => Done::because(Kind::Info, Value::Txn(mops), why),
    };
    let went_well = done.kind == Kind::Ok;
    client.end(done);
    went_well
}

fn seen(mut mops: Vec<Mop>, answer: &pb::TxnResponse) -> Vec<Mop> {
    for (mop, response) in mops.iter_mut().zip(&answer.responses) {
        if let Mop::Read { seen, .. } = mop {
            *seen = kvs(response).first().and_then(|kv| number(&kv.value)).map_or(Read::Nil, Read::One);
        }
    }
    mops
}
