//! Pods as clients make them: the project's own transactions, many in one or each at its time.

use super::limits::{BATCH, CALL_MAX, FLIGHTS};
use anyhow::{Context, Result, anyhow, ensure};
use mechi_client::{Client, Config};
use mechi_controller::api::{Api, change, read};
use mechi_controller::keys;
use mechi_controller::kv::{Etcd, Kv as _, Outcome, Page, Range, Revision, Txn};
use mechi_controller::types::node::Namespace;
use mechi_controller::types::pod::Pod;
use mechi_controller::types::resource::Held;
use mechi_controller::types::time::Time;
use serde_json::json;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

/// The store, and the namespace of all pods.
#[derive(Clone)]
pub struct Store {
    /// The store itself.
    pub kv: Etcd,
    cluster_id: u64,
    namespace: Arc<Held<Namespace>>,
}

/// Now, in whole seconds.
pub fn now() -> Time {
    Time(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64))
}

/// The name of the `n`-th pod.
pub fn name(n: usize) -> String {
    format!("p-{n}")
}

impl Store {
    /// Connects, and makes the namespace `default`.
    pub async fn open(endpoints: Vec<String>) -> Result<Self> {
        let config = Config::new(endpoints).require_leader().request_timeout(CALL_MAX);
        let kv = Etcd::new(Client::connect(config).await.context("connect to the store")?);
        let json = json!({"metadata": {"name": "default"}}).to_string();
        let namespace: Namespace = read(json.as_bytes(), true).map_err(|status| anyhow!("{status:?}"))?;
        let made = Api::new(kv.clone()).create(namespace, now()).await;
        let namespace = made.map_err(|status| anyhow!("create the namespace: {status:?}"))?;
        let cluster_id = page(&kv, "/", "0", 1).await?.cluster_id;
        Ok(Self { kv, cluster_id, namespace: Arc::new(namespace) })
    }

    /// The store's revision.
    pub async fn revision(&self) -> Result<Revision> {
        Ok(page(&self.kv, "/", "0", 1).await?.revision)
    }

    /// How many nodes there are, up to `limit`.
    pub async fn nodes(&self, limit: usize) -> Result<usize> {
        let prefix = keys::Kind::Node.prefix();
        let range = Range { end: keys::prefix_end(&prefix).into(), key: prefix.into(), limit, revision: 0 };
        Ok(self.kv.range(range).await?.items.len())
    }

    /// Under which token somebody leads a component.
    pub async fn token(&self, component: &str) -> Result<Option<Revision>> {
        let key = keys::election(component);
        let found = page(&self.kv, &key, &format!("{key}\0"), 1).await?;
        Ok(found.items.first().map(|item| item.created))
    }

    fn create(&self, n: usize) -> Result<Txn> {
        let json = json!({
            "metadata": {"name": name(n), "namespace": "default", "labels": {"app": "bench"}},
            "spec": {"containers": [
                {"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}},
            ]},
        });
        let pod: Pod = read(json.to_string().as_bytes(), true).map_err(|status| anyhow!("{status:?}"))?;
        let made = change::create(self.cluster_id, pod, Some(&*self.namespace), now());
        Ok(made.map_err(|status| anyhow!("create a pod: {status:?}"))?.1)
    }

    /// Makes one pod.
    ///
    /// - Errors: it was there, or the store did not write it.
    pub async fn create_one(&self, n: usize) -> Result<()> {
        self.commit(self.create(n)?).await
    }

    async fn commit(&self, txn: Txn) -> Result<()> {
        let outcome = self.kv.txn(&txn).await.context("create pods")?;
        ensure!(matches!(outcome, Outcome::Committed(_)), "pods are not made: {outcome:?}");
        Ok(())
    }

    /// Makes the pods `0..count`, [`BATCH`] in one transaction.
    pub async fn create_many(&self, count: usize) -> Result<()> {
        let mut flights: JoinSet<Result<()>> = JoinSet::new();
        for from in (0..count).step_by(BATCH) {
            if flights.len() >= FLIGHTS {
                flights.join_next().await.context("there is a flight")???;
            }
            let mut txn = Txn::new();
            for n in from..count.min(from + BATCH) {
                txn = txn.and(self.create(n)?);
            }
            let store = self.clone();
            flights.spawn(async move { store.commit(txn).await });
        }
        while let Some(done) = flights.join_next().await {
            done??;
        }
        Ok(())
    }
}

async fn page(kv: &Etcd, key: &str, end: &str, limit: usize) -> Result<Page> {
    let range = Range { key: key.to_owned().into(), end: end.to_owned().into(), limit, revision: 0 };
    Ok(kv.range(range).await?)
}
