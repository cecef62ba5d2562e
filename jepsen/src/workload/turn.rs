//! A turn at something that only one may have: a key under a lease, and whoever's key is oldest has it.
//!
//! - Source: etcd's `client/v3/concurrency`: a mutex and an election are both made so of KV and Lease. There the next one
//!   waits with a watch; here it looks again.

use super::requests::{get, get_prefix, grant, made, op_get, op_put, put, range, revision, txn};
use crate::client::{Client, Outcome};
use mechi_checker::history::Kind;
use mechi_checker::history::store::Request;
use mechi_proto::etcdserverpb as pb;
use pb::range_request::{SortOrder, SortTarget};
use std::time::Duration;

/// Between two looks at whose turn it is.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// A turn.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) lease: i64,
    pub(super) key: String,
    /// The revision that made the key: it proves the turn.
    pub(super) fence: i64,
    /// Until when the lease cannot have ended.
    pub(super) until_ns: u64,
}

/// Waits for a turn, as long as the lease lasts.
///
/// - Errors: whether it surely has no turn, and why.
pub(super) async fn take(client: &mut Client, name: &str, value: &str, ttl: i64) -> Result<Turn, (Kind, String)> {
    let asked_ns = client.recorder().now_ns();
    let granted = match grant(client, ttl).await {
        Outcome::Ok(granted) => granted,
        // A lease that nobody knows of ends by itself.
        Outcome::Fail(why) | Outcome::Info(why) => return Err((Kind::Fail, why)),
    };
    let lease = granted.id;
    let key = format!("{name}/{lease:x}");
    let until_ns = asked_ns + u64::try_from(granted.ttl).unwrap_or(0) * 1_000_000_000;
    let join = pb::PutRequest { lease, ..put(key.clone(), value.to_owned()) };
    let joined = txn(client, vec![made(key.clone(), 0)], vec![op_put(join)], vec![op_get(get(key.clone()))]).await;
    let fence = match joined {
        Outcome::Ok(it) if it.succeeded => revision(&it.header),
        Outcome::Ok(_) => return Err((Kind::Fail, "a key of this lease is there already".into())),
        Outcome::Fail(why) | Outcome::Info(why) => {
            leave(client, lease).await;
            return Err((Kind::Info, why));
        }
    };
    let turn = Turn { lease, key, fence, until_ns };
    while client.recorder().now_ns() < until_ns {
        match first(client, name).await {
            Outcome::Ok(Some((key, created, _))) if key == turn.key && created == fence => return Ok(turn),
            // Whoever is first came later: the own key is gone.
            Outcome::Ok(Some((_, created, _))) if created > fence => break,
            Outcome::Ok(None) => break,
            _ => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    leave(client, lease).await;
    Err((Kind::Fail, "it was not its turn while its lease lasted".into()))
}

/// Whose turn it is: key, revision that made it, value.
pub(super) async fn first(client: &mut Client, name: &str) -> Outcome<Option<(String, i64, String)>> {
    let ask = pb::RangeRequest {
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..get_prefix(&format!("{name}/"))
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    range(client, ask)
        .await
        .and_then(|answer| Some(answer.kvs.first().map(|kv| (text(&kv.key), kv.create_revision, text(&kv.value)))))
}

/// Lets go: the key goes with the lease.
pub(super) async fn leave(client: &mut Client, lease: i64) -> Outcome<()> {
    client.ask(Request::LeaseRevoke(pb::LeaseRevokeRequest { id: lease })).await.and_then(|_| Some(()))
}
