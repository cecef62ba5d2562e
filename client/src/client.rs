//! The handle that everything hangs on.

use crate::config::Config;
use crate::connection::Link;
use crate::error::Error;
use crate::pool::Pool;
use crate::token::Tokens;
use crate::watch::Hub;
use mechi_proto::{etcdserverpb as pb, v3electionpb, v3lockpb};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A client of one cluster; clones share its connection, its token and its watch stream.
///
/// Calls may be made from many tasks at once. All of them need a tokio runtime with its timer and I/O. Dropping the last
/// clone closes the connection, once the watches and lease keepers made from it are gone too.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    pub(crate) timeout: Option<Duration>,
}

pub(crate) struct Inner {
    pub(crate) pool: Pool,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) hub: OnceLock<Hub>,
}

impl Client {
    /// Checks the configuration and connects to the first endpoint that can be reached.
    ///
    /// - Errors: [`Error::Config`]; [`Error::Unavailable`] if no endpoint could be reached, each tried once; the server's
    ///   refusal of the name or password.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let client = Self::lazy(config)?;
        client.link().await?;
        Ok(client)
    }

    /// Checks the configuration and connects when the first call needs it.
    ///
    /// - Errors: [`Error::Config`].
    pub fn lazy(config: Config) -> Result<Self, Error> {
        let tokens = Arc::new(Tokens::new(config.credentials.clone()));
        Self::with_tokens(config, tokens)
    }

    fn with_tokens(config: Config, tokens: Arc<Tokens>) -> Result<Self, Error> {
        let timeout = config.request_timeout;
        let inner = Inner { pool: Pool::new(config)?, tokens, hub: OnceLock::new() };
        Ok(Self { inner: Arc::new(inner), timeout })
    }

    /// The same client, whose calls may take so long with all their retries; `None` for as long as it takes.
    pub fn with_timeout(&self, timeout: impl Into<Option<Duration>>) -> Self {
        Self { inner: self.inner.clone(), timeout: timeout.into() }
    }

    /// A client of one endpoint alone, with the same certificates and user: for questions about one member.
    ///
    /// - Errors: [`Error::Config`] if it cannot be read. It needs not be one of this client's.
    pub fn at(&self, endpoint: &str) -> Result<Self, Error> {
        let mut config = Config::clone(&self.inner.pool.config);
        config.endpoints = vec![endpoint.to_owned()];
        let mut client = Self::with_tokens(config, self.inner.tokens.clone())?;
        client.timeout = self.timeout;
        Ok(client)
    }

    /// The endpoints, as they were given.
    pub fn endpoints(&self) -> &[String] {
        &self.inner.pool.config.endpoints
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.inner.pool.config
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.endpoints()).finish_non_exhaustive()
    }
}

macro_rules! stubs {
    ($($name:ident: $stub:path;)*) => {
        /// The generated stubs over this link, with the configured sizes.
        impl Link {
            $(pub(crate) fn $name(self) -> $stub {
                let (send, receive) = (self.send_bytes_max, self.receive_bytes_max);
                <$stub>::new(self).max_encoding_message_size(send).max_decoding_message_size(receive)
            })*
        }
    };
}

stubs! {
    kv: pb::kv_client::KvClient<Link>;
    watch: pb::watch_client::WatchClient<Link>;
    lease: pb::lease_client::LeaseClient<Link>;
    cluster: pb::cluster_client::ClusterClient<Link>;
    maintenance: pb::maintenance_client::MaintenanceClient<Link>;
    auth: pb::auth_client::AuthClient<Link>;
    lock: v3lockpb::lock_client::LockClient<Link>;
    election: v3electionpb::election_client::ElectionClient<Link>;
}

/// Implements thin calls: a method, the service's stub, the request's fields.
macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $safety:ident $name:ident($($field:ident: $type:ty),*) = $service:ident.$method:ident($request:expr) -> $answer:ty;
    )*) => {
        impl crate::Client {
            $(
                $(#[$doc])*
                pub async fn $name(&self, $($field: $type),*) -> Result<$answer, crate::Error> {
                    let send = |link: crate::connection::Link, message| async move {
                        link.$service().$method(message).await
                    };
                    self.call(crate::call::Safety::$safety, $request, send).await
                }
            )*
        }
    };
}
pub(crate) use calls;
