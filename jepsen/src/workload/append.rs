//! Elle's list-append: a transaction reads its lists, and then writes them if none has changed.
//!
//! - Source: Jepsen's client for etcd, which has no other way to append either.

use super::Work;
use super::requests::{get, kvs, list, numbers, op_get, op_put, put, revision, txn, unchanged};
use crate::client::{Client, Outcome};
use crate::recorder::Done;
use mechi_checker::history::Kind;
use mechi_checker::history::value::{Mop, Read, Value};
use mechi_proto::etcdserverpb as pb;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Lists in use at once.
const LIVE: usize = 3;

/// Elements that are tried for one list.
const ELEMENTS: i64 = 60;

/// The name of a list's key.
pub(crate) const PREFIX: &str = "a/";

/// The lists in use.
#[derive(Default)]
pub(super) struct Lists(Mutex<State>);

#[derive(Default)]
struct State {
    live: [Option<(i64, i64)>; LIVE],
    lists: i64,
}

impl State {
    /// A list, and the next element for it.
    fn take(&mut self, slot: usize, appends: bool) -> (i64, i64) {
        let place = &mut self.live[slot];
        if place.is_none_or(|(_, elements)| elements >= ELEMENTS) {
            *place = Some((self.lists, 0));
            self.lists += 1;
        }
        let (list, elements) = place.as_mut().expect("it was just filled");
        *elements += i64::from(appends);
        (*list, *elements)
    }
}

impl Work for Lists {
    async fn step(&self, client: &mut Client) -> bool {
        let mut mops = Vec::new();
        for _ in 0..1 + client.rng().below(4) {
            let (slot, appends) = (client.rng().below(LIVE as u64) as usize, client.rng().chance(50));
            let (key, element) = self.0.lock().expect("nobody panics with it").take(slot, appends);
            mops.push(if appends { Mop::Append { key, element } } else { Mop::Read { key, seen: Read::Nil } });
        }
        transact(client, mops).await
    }
}

/// Reads one list by itself.
pub(super) async fn read_one(client: &mut Client, key: i64) -> bool {
    transact(client, vec![Mop::Read { key, seen: Read::Nil }]).await
}

async fn transact(client: &mut Client, mops: Vec<Mop>) -> bool {
    client.begin(Value::Txn(mops.clone()));
    let done = attempt(client, mops).await;
    let went_well = done.kind == Kind::Ok || done.error.as_deref() == Some(CHANGED);
    client.end(done);
    went_well
}

/// Why most transactions that fail do.
const CHANGED: &str = "a list has changed";

async fn attempt(client: &mut Client, mut mops: Vec<Mop>) -> Done {
    let asked = mops.clone();
    let mut keys: Vec<i64> = mops.iter().map(Mop::key).collect();
    keys.sort_unstable();
    keys.dedup();
    let name = |key: i64| format!("{PREFIX}{key}");
    let reads = keys.iter().map(|key| op_get(get(name(*key)))).collect();
    let answer = match txn(client, vec![], reads, vec![]).await {
        Outcome::Ok(answer) => answer,
        Outcome::Fail(why) | Outcome::Info(why) => return Done::because(Kind::Fail, Value::Txn(asked), why),
    };
    let mut lists: BTreeMap<i64, (Vec<i64>, i64)> = BTreeMap::new();
    for (key, response) in keys.iter().zip(&answer.responses) {
        let found = kvs(response).first();
        let elements = found.map_or(Some(vec![]), |kv| numbers(&kv.value));
        let Some(elements) = elements else {
            return Done::because(Kind::Fail, Value::Txn(asked), format!("list {key} is no list"));
        };
        lists.insert(*key, (elements, found.map_or(0, |kv| kv.mod_revision)));
    }
    let guards: Vec<pb::Compare> = lists.iter().map(|(key, (_, at))| unchanged(name(*key), *at)).collect();
    let mut changed: Vec<i64> = Vec::new();
    for mop in &mut mops {
        match mop {
            Mop::Append { key, element } => {
                if let Some((elements, _)) = lists.get_mut(key) {
                    elements.push(*element);
                    changed.push(*key);
                }
            }
            Mop::Read { key, seen } => {
                let elements = lists.get(key).map(|(elements, _)| elements.clone()).unwrap_or_default();
                *seen = if elements.is_empty() { Read::Nil } else { Read::List(elements) };
            }
            Mop::Write { .. } => {}
        }
    }
    if changed.is_empty() {
        return Done { revision: Some(revision(&answer.header)), ..Done::new(Kind::Ok, Value::Txn(mops)) };
    }
    changed.sort_unstable();
    changed.dedup();
    let puts = changed.iter().map(|key| op_put(put(name(*key), list(&lists[key].0)))).collect();
    match txn(client, guards, puts, vec![]).await {
        Outcome::Ok(it) if it.succeeded => {
            Done { revision: Some(revision(&it.header)), ..Done::new(Kind::Ok, Value::Txn(mops)) }
        }
        Outcome::Ok(_) => Done::because(Kind::Fail, Value::Txn(asked), CHANGED),
        Outcome::Fail(why) => Done::because(Kind::Fail, Value::Txn(asked), why),
        Outcome::Info(why) => Done::because(Kind::Info, Value::Txn(asked), why),
    }
}
