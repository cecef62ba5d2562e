//! A lock over a lease, and a set that only its holder writes; now and then a holder sleeps longer than its lease lasts.
//!
//! Without a fence such a sleeper overwrites what others have added since: that is known, and counted. With one, the
//! write holds only as long as the lock's key does.

use super::Work;
use super::requests::made;
use super::set::{Guard, add, read};
use super::turn::{leave, take};
use crate::client::{Client, Outcome};
use crate::recorder::Done;
use mechi_checker::history::Kind;
use mechi_checker::history::value::{Lock, Value};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The lock.
const NAME: &str = "lock";

/// What it protects.
pub(crate) const KEY: &str = "protected";

/// Seconds of a holder's lease.
const TTL: i64 = 2;

/// Elements that a run adds at the most.
const ELEMENTS_MAX: i64 = 800;

/// The lock's users.
pub(super) struct Locks {
    fenced: bool,
    next: AtomicI64,
}

impl Locks {
    pub(super) fn new(fenced: bool) -> Self {
        Self { fenced, next: AtomicI64::new(0) }
    }
}

impl Work for Locks {
    async fn step(&self, client: &mut Client) -> bool {
        if client.rng().chance(50) || self.next.load(Ordering::Relaxed) >= ELEMENTS_MAX {
            return read(client, KEY).await;
        }
        let acquire = |fence, until_ns| Value::Lock(Lock::Acquire { name: NAME.into(), fence, until_ns });
        client.begin(acquire(None, None));
        let turn = match take(client, NAME, "", TTL).await {
            Ok(turn) => turn,
            Err((kind, why)) => {
                client.end(Done::because(kind, acquire(None, None), why));
                return false;
            }
        };
        let value = acquire(Some(turn.fence), Some(turn.until_ns));
        client.end(Done { revision: Some(turn.fence), ..Done::new(Kind::Ok, value) });
        // A holder that is stopped, and does not know for how long.
        if client.rng().chance(2) {
            tokio::time::sleep(Duration::from_millis(TTL as u64 * 1_000 + client.rng().below(2_000))).await;
        }
        let element = self.next.fetch_add(1, Ordering::Relaxed);
        let guard = if self.fenced { Guard::Other(made(turn.key.clone(), turn.fence)) } else { Guard::Nothing };
        let (_, kind) = add(client, KEY, element, guard).await;
        if kind == Kind::Info {
            // This client is another one from now on, which has no lock: the lease ends by itself.
            return false;
        }
        let release = || Value::Lock(Lock::Release { name: NAME.into() });
        client.begin(release());
        let done = match leave(client, turn.lease).await {
            Outcome::Ok(()) => Done::new(Kind::Ok, release()),
            Outcome::Fail(why) => Done::because(Kind::Fail, release(), why),
            Outcome::Info(why) => Done::because(Kind::Info, release(), why),
        };
        client.end(done);
        kind == Kind::Ok
    }
}
