//! One key that holds a set: whoever adds reads it, and writes it back if nobody else has in the meantime.

use super::requests::{get, list, numbers, op_put, put, range, txn, unchanged};
use super::{Crew, Work};
use crate::client::{Client, Outcome};
use crate::recorder::Done;
use bytes::Bytes;
use mechi_checker::history::Kind;
use mechi_checker::history::value::{Set, Value};
use mechi_proto::etcdserverpb as pb;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Elements that a run adds at the most: each write is as long as the set is by then.
const ELEMENTS_MAX: u64 = 600;

/// The key.
pub(crate) const KEY: &str = "set";

/// The one set.
pub(super) struct Sets {
    next: AtomicI64,
    start: Instant,
    all: Duration,
}

impl Sets {
    pub(super) fn new(crew: &Crew) -> Self {
        Self { next: AtomicI64::new(0), start: Instant::now(), all: crew.until - Instant::now() }
    }

    /// The next element, if it is time for it: so that some are left for the end.
    fn element(&self) -> Option<i64> {
        let all = self.all.as_millis().max(1);
        let due = u128::from(ELEMENTS_MAX) * (self.start.elapsed().as_millis() + all / 50) / all;
        let next = |next: i64| (i128::from(next) < due as i128).then_some(next + 1);
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()
    }
}

impl Work for Sets {
    async fn step(&self, client: &mut Client) -> bool {
        let element = if client.rng().chance(60) { self.element() } else { None };
        match element {
            Some(element) => add(client, KEY, element, Guard::Unchanged).await.0,
            None => read(client, KEY).await,
        }
    }
}

/// Under which condition a set is written back.
#[derive(Clone, Debug)]
pub(super) enum Guard {
    /// Nobody has written it since it was read.
    Unchanged,
    /// Something else holds, a lock perhaps.
    Other(pb::Compare),
    /// None: what others have added since is overwritten.
    Nothing,
}

/// Adds an element and writes that down; returns whether it was added, and how it ended.
pub(super) async fn add(client: &mut Client, key: &'static str, element: i64, guard: Guard) -> (bool, Kind) {
    let value = || Value::Set(Set::Add(element));
    client.begin(value());
    let read = range(client, get(key)).await;
    let (mut elements, mod_revision) = match read {
        Outcome::Ok(answer) => match answer.kvs.first() {
            Some(kv) => (numbers(&kv.value).unwrap_or_default(), kv.mod_revision),
            None => (vec![], 0),
        },
        Outcome::Fail(why) | Outcome::Info(why) => {
            client.end(Done::because(Kind::Fail, value(), format!("it could not be read: {why}")));
            return (false, Kind::Fail);
        }
    };
    elements.push(element);
    let compare = match guard {
        Guard::Unchanged => vec![unchanged(key, mod_revision)],
        Guard::Other(compare) => vec![compare],
        Guard::Nothing => vec![],
    };
    let done = txn(client, compare, vec![op_put(put(key, list(&elements)))], vec![]).await;
    let done = match done {
        Outcome::Ok(it) if !it.succeeded => Done::because(Kind::Fail, value(), "the guard was false"),
        Outcome::Ok(it) => Done { revision: it.header.map(|it| it.revision), ..Done::new(Kind::Ok, value()) },
        Outcome::Fail(why) => Done::because(Kind::Fail, value(), why),
        Outcome::Info(why) => Done::because(Kind::Info, value(), why),
    };
    let kind = done.kind;
    client.end(done);
    (kind == Kind::Ok, kind)
}

/// Reads the set and writes that down.
pub(super) async fn read(client: &mut Client, key: &'static str) -> bool {
    client.begin(Value::Set(Set::Read(None)));
    let outcome = range(client, get(Bytes::from_static(key.as_bytes()))).await.and_then(|answer| {
        let elements = answer.kvs.first().map_or(Some(vec![]), |kv| numbers(&kv.value))?;
        Some((elements, super::requests::revision(&answer.header)))
    });
    let (kind, answer) = outcome.split();
    let done = match answer {
        Ok((elements, revision)) => {
            let value = Value::Set(Set::Read(Some(elements.into_iter().collect())));
            Done { revision: Some(revision), ..Done::new(kind, value) }
        }
        Err(why) => Done::because(kind, Value::Set(Set::Read(None)), why),
    };
    client.end(done);
    kind == Kind::Ok
}
