//! An election: clients lead one after the other and say something; others look who leads.

use super::Work;
use super::requests::{made, op_put, put, revision, txn};
use super::turn::{Turn, first, leave, take};
use crate::client::{Client, Outcome};
use crate::recorder::Done;
use mechi_checker::history::Kind;
use mechi_checker::history::value::{Election, Value};
use mechi_proto::etcdserverpb as pb;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The election.
const NAME: &str = "election";

/// Seconds of a leader's lease.
const TTL: i64 = 2;

/// The voters.
#[derive(Default)]
pub(super) struct Elections {
    next: AtomicI64,
}

impl Work for Elections {
    async fn step(&self, client: &mut Client) -> bool {
        if client.rng().chance(60) { observe(client).await } else { self.lead(client).await }
    }
}

impl Elections {
    async fn lead(&self, client: &mut Client) -> bool {
        let campaign = |fence, until_ns| Value::Election(Election::Campaign { name: NAME.into(), fence, until_ns });
        client.begin(campaign(None, None));
        let turn = match take(client, NAME, &self.word(), TTL).await {
            Ok(turn) => turn,
            Err((kind, why)) => {
                client.end(Done::because(kind, campaign(None, None), why));
                return false;
            }
        };
        let value = campaign(Some(turn.fence), Some(turn.until_ns));
        client.end(Done { revision: Some(turn.fence), ..Done::new(Kind::Ok, value) });
        for _ in 0..client.rng().below(4) {
            if client.rng().chance(2) {
                // A leader that is stopped, and does not know for how long.
                tokio::time::sleep(Duration::from_millis(TTL as u64 * 1_000 + client.rng().below(1_000))).await;
            }
            if self.proclaim(client, &turn).await != Kind::Ok {
                // Deposed, or this client is another one from now on.
                return false;
            }
        }
        let resign = || Value::Election(Election::Resign { name: NAME.into(), fence: turn.fence });
        client.begin(resign());
        let done = match leave(client, turn.lease).await {
            Outcome::Ok(()) => Done::new(Kind::Ok, resign()),
            Outcome::Fail(why) => Done::because(Kind::Fail, resign(), why),
            Outcome::Info(why) => Done::because(Kind::Info, resign(), why),
        };
        client.end(done);
        true
    }

    fn word(&self) -> String {
        format!("word {}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    async fn proclaim(&self, client: &mut Client, turn: &Turn) -> Kind {
        let word = self.word();
        let value = Value::Election(Election::Proclaim { name: NAME.into(), fence: turn.fence, value: word.clone() });
        client.begin(value.clone());
        let say = op_put(pb::PutRequest { lease: turn.lease, ..put(turn.key.clone(), word) });
        let done = match txn(client, vec![made(turn.key.clone(), turn.fence)], vec![say], vec![]).await {
            Outcome::Ok(it) if it.succeeded => {
                Done { revision: Some(revision(&it.header)), ..Done::new(Kind::Ok, value) }
            }
            Outcome::Ok(_) => Done::because(Kind::Fail, value, "it leads no more"),
            Outcome::Fail(why) => Done::because(Kind::Fail, value, why),
            Outcome::Info(why) => Done::because(Kind::Info, value, why),
        };
        let kind = done.kind;
        client.end(done);
        kind
    }
}

async fn observe(client: &mut Client) -> bool {
    let value = |fence, value| Value::Election(Election::Observe { name: NAME.into(), fence, value });
    client.begin(value(None, None));
    let (kind, answer) = first(client, NAME).await.split();
    let done = match answer {
        Ok(Some((_, fence, word))) => Done::new(kind, value(Some(fence), Some(word))),
        Ok(None) => Done::new(kind, value(None, None)),
        Err(why) => Done::because(kind, value(None, None), why),
    };
    client.end(done);
    kind == Kind::Ok
}
