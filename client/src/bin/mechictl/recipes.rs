//! etcd's lock and election out of leases, transactions and watches, as etcd's client makes them.

use bytes::Bytes;
use mechi_client::pb::range_request::{SortOrder, SortTarget};
use mechi_client::pb::response_op::Response;
use mechi_client::pb::{RangeResponse, ResponseOp, TxnResponse};
use mechi_client::proto::mvccpb::event::EventType;
use mechi_client::{Client, Compare, Delete, Error, Get, KeepAlive, Put, Txn, WatchOptions};

/// A place in a queue: a key under a prefix, tied to a lease. The oldest key holds the lock, or leads.
pub(crate) struct Place {
    client: Client,
    prefix: Vec<u8>,
    /// The lease, kept alive while this lives.
    pub(crate) lease: KeepAlive,
    /// The key.
    pub(crate) key: Vec<u8>,
    /// The key's create revision.
    revision: i64,
    /// The revision at which the place became the first.
    pub(crate) held_at: i64,
}

impl Place {
    /// Takes a lease of `ttl` seconds and a place with `value` in the queue `name`.
    pub(crate) async fn take(client: Client, name: &[u8], ttl: i64, value: impl Into<Bytes>) -> Result<Self, Error> {
        let id = client.lease_grant(ttl, 0).await?.id;
        let lease = client.lease_keep_alive(id).await?;
        let prefix = [name, b"/"].concat();
        let key = [&prefix[..], format!("{id:x}").as_bytes()].concat();
        let absent = Compare::create_revision(key.clone()).equal(0);
        let put = Put::new(key.clone(), value).lease(id);
        let txn = Txn::new().when(absent).and_then(put).or_else(Get::key(key.clone()));
        let response = client.txn(txn).await?;
        let revision = created(&response).unwrap_or_else(|| header_revision(&response));
        Ok(Self { client, prefix, lease, key, revision, held_at: revision })
    }

    /// Waits until all older places are gone.
    ///
    /// - Errors: besides the client's, `None` if the own place is gone meanwhile.
    pub(crate) async fn wait(&mut self) -> Result<(), Option<Error>> {
        loop {
            let older = Get::prefix(self.prefix.clone())
                .sort(SortTarget::Create, SortOrder::Descend)
                .max_create_revision(self.revision - 1)
                .limit(1);
            let response = self.client.get_with(older).await.map_err(Some)?;
            let Some(last) = response.kvs.first() else { break };
            let from = response.header.map_or(0, |header| header.revision);
            self.deleted(last.key.clone(), from).await.map_err(Some)?;
        }
        let own = self.read().await.map_err(Some)?;
        if own.kvs.is_empty() {
            return Err(None);
        }
        self.held_at = own.header.map_or(self.revision, |header| header.revision);
        Ok(())
    }

    async fn deleted(&self, key: Bytes, from: i64) -> Result<(), Error> {
        let mut watch = self.client.watch(WatchOptions::key(key).from_revision(from)).await?;
        while let Some(batch) = watch.next().await {
            if batch?.events().iter().any(|event| event.r#type() == EventType::Delete) {
                return Ok(());
            }
        }
        Err(Error::Closed)
    }

    /// Reads the own key.
    pub(crate) async fn read(&self) -> Result<RangeResponse, Error> {
        self.client.get_with(Get::key(self.key.clone())).await
    }

    /// Leaves the queue.
    pub(crate) async fn leave(&self) -> Result<(), Error> {
        let mine = Compare::create_revision(self.key.clone()).equal(self.revision);
        self.client.txn(Txn::new().when(mine).and_then(Delete::key(self.key.clone()))).await.map(|_| ())
    }
}

/// The create revision of a key that was there already.
fn created(response: &TxnResponse) -> Option<i64> {
    let [ResponseOp { response: Some(Response::ResponseRange(range)) }] = response.responses.as_slice() else {
        return None;
    };
    range.kvs.first().map(|kv| kv.create_revision)
}

fn header_revision(response: &TxnResponse) -> i64 {
    response.header.map_or(0, |header| header.revision)
}
