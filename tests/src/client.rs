//! A plain client over the generated stubs: no retry, no fail-over, answers as they come.

use anyhow::Result;
use mechi_proto::etcdserverpb as pb;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use tonic::transport::{Channel, Endpoint};

/// One connection and its service stubs.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Client {
    pub channel: Channel,
    pub kv: KvClient<Channel>,
    pub watch: WatchClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub cluster: ClusterClient<Channel>,
    pub maintenance: MaintenanceClient<Channel>,
}

impl Client {
    /// Connects to `host:port`.
    pub async fn connect(endpoint: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{endpoint}"))?.connect().await?;
        let max = usize::MAX;
        Ok(Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(max).max_encoding_message_size(max),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(max),
            lease: LeaseClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            channel,
        })
    }

    /// Puts; returns the revision.
    pub async fn put(
        &mut self,
        key: impl Into<bytes::Bytes>,
        value: impl Into<bytes::Bytes>,
    ) -> Result<i64, tonic::Status> {
        let request = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        Ok(revision(self.kv.put(request).await?.into_inner().header))
    }

    /// Gets one key, linearizable.
    pub async fn get(&mut self, key: impl Into<bytes::Bytes>) -> Result<pb::RangeResponse, tonic::Status> {
        let request = pb::RangeRequest { key: key.into(), ..Default::default() };
        Ok(self.kv.range(request).await?.into_inner())
    }

    /// Everything, linearizable.
    pub async fn all(&mut self) -> Result<pb::RangeResponse, tonic::Status> {
        let zero = bytes::Bytes::from_static(&[0]);
        let request = pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() };
        Ok(self.kv.range(request).await?.into_inner())
    }
}

/// The revision of a header; 0 if there is none.
pub fn revision(header: Option<pb::ResponseHeader>) -> i64 {
    header.map(|header| header.revision).unwrap_or_default()
}
