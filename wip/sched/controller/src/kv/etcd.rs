//! Any etcd, through its client: Mechi, or the stock one.

use super::{
    Batch, Error, Event, Guard, KeyValue, Kv, LeaseId, Outcome, Page, Range, Revision, Seen, Txn, Watch, Write,
};
use bytes::Bytes;
use mechi_client::{Client, Compare, Delete, Get, Keys, Kind, Put};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb;
use mechi_proto::mvccpb::event::EventType;
use pb::response_op::Response;
use std::time::Duration;

/// A cluster of etcd's API.
#[derive(Clone)]
pub struct Etcd {
    client: Client,
}

/// Revisions of a watch.
pub struct EtcdWatch {
    watch: mechi_client::Watch,
    through: Revision,
}

impl Etcd {
    /// Talks through this client, which should ask for servers that have a leader
    /// ([`Config::require_leader`](mechi_client::Config::require_leader)).
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

/// What a read that failed says.
fn failed(error: mechi_client::Error) -> Error {
    use mechi_client::Error as From;
    match error {
        From::WatchCompacted { compact_revision } => Error::Compacted(compact_revision),
        From::ListCompacted { revision } => Error::Compacted(revision),
        other => match other.kind() {
            Kind::Compacted => Error::Compacted(0),
            Kind::LeaseNotFound => Error::LeaseNotFound,
            Kind::Other
            | Kind::TooManyRequests
            | Kind::NoLeader
            | Kind::LeaderChanged
            | Kind::NotLeader
            | Kind::Stopped
            | Kind::Timeout
            | Kind::NoSpace
            | Kind::UnhealthyCluster => Error::Unavailable(other.to_string()),
            _ => Error::Refused(other.to_string()),
        },
    }
}

/// What a write that failed says: unknown, unless it is known that nothing was done.
fn write_failed(error: mechi_client::Error) -> Error {
    match error.outcome() {
        mechi_client::Outcome::Unknown => Error::Unknown(error.to_string()),
        mechi_client::Outcome::NotApplied => failed(error),
    }
}

fn key_value(from: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: from.key,
        value: from.value,
        created: from.create_revision,
        modified: from.mod_revision,
        version: from.version,
        lease: from.lease,
    }
}

fn compare(guard: &Guard) -> Compare {
    match guard {
        Guard::Fence { key, token: created } | Guard::Alive { key, created } => {
            Compare::create_revision(key.clone()).equal(*created)
        }
        Guard::Seen { key, modified } => Compare::mod_revision(key.clone()).equal(*modified),
        Guard::Absent { key } => Compare::create_revision(key.clone()).equal(0),
        Guard::Version { key, version } => Compare::version(key.clone()).equal(*version),
    }
}

impl Kv for Etcd {
    type Watch = EtcdWatch;

    async fn range(&self, range: Range) -> Result<Page, Error> {
        let keys = Keys { key: range.key, end: range.end };
        let get = Get::keys(keys).limit(range.limit as i64).revision(range.revision);
        let answer = self.client.get_with(get).await.map_err(failed)?;
        let header = answer.header.unwrap_or_default();
        Ok(Page {
            items: answer.kvs.into_iter().map(key_value).collect(),
            more: answer.more,
            revision: header.revision,
            cluster_id: header.cluster_id,
        })
    }

    async fn txn(&self, txn: &Txn) -> Result<Outcome, Error> {
        let mut asked = mechi_client::Txn::new();
        for guard in txn.guards() {
            asked = asked.when(compare(guard)).or_else(Get::key(guard.key().clone()).keys_only());
        }
        for write in txn.writes() {
            asked = match write {
                Write::Put { key, value, lease } => asked.and_then(Put::new(key.clone(), value.clone()).lease(*lease)),
                Write::Delete { key } => asked.and_then(Delete::key(key.clone())),
            };
        }
        let answer = self.client.txn(asked).await.map_err(write_failed)?;
        let revision = answer.header.map_or(0, |header| header.revision);
        if answer.succeeded {
            return Ok(Outcome::Committed(revision));
        }
        let seen = answer.responses.into_iter().map(|response| match response.response {
            Some(Response::ResponseRange(found)) => Seen::of(found.kvs.into_iter().next().map(key_value).as_ref()),
            _ => Seen::default(),
        });
        Ok(Outcome::Refused { revision, seen: seen.collect() })
    }

    async fn watch(&self, key: Bytes, end: Bytes, from: Revision) -> Result<EtcdWatch, Error> {
        let options = mechi_client::WatchOptions::keys(Keys { key, end }).from_revision(from).progress_notify();
        let watch = self.client.watch(options.fragment()).await.map_err(failed)?;
        Ok(EtcdWatch { watch, through: from - 1 })
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        let seconds = ttl.as_secs().max(1) as i64;
        Ok(self.client.lease_grant(seconds, 0).await.map_err(write_failed)?.id)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), Error> {
        let answer = self.client.lease_keep_alive_once(lease).await.map_err(failed)?;
        if answer.ttl > 0 { Ok(()) } else { Err(Error::LeaseNotFound) }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.client.lease_revoke(lease).await.map_err(write_failed)?;
        Ok(())
    }
}

impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Batch, Error> {
        let Some(batch) = self.watch.next().await else {
            return Err(Error::Unavailable("the watch is over".to_owned()));
        };
        let batch = batch.map_err(failed)?;
        let is_progress = batch.is_progress();
        let revision = batch.revision();
        let events: Vec<Event> = batch.0.events.into_iter().filter_map(event).collect();
        // The header of events may be ahead of what was sent; that of progress never is.
        let told = events.last().map_or(if is_progress { revision } else { 0 }, Event::revision);
        self.through = self.through.max(told);
        Ok(Batch { events, through: self.through })
    }
}

fn event(from: mvccpb::Event) -> Option<Event> {
    let now = from.kv?;
    Some(if from.r#type == EventType::Delete as i32 {
        Event::Delete { key: now.key, revision: now.mod_revision }
    } else {
        Event::Put(key_value(now))
    })
}
