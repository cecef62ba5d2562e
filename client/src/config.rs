//! How a client finds, reaches and trusts its servers.

use crate::limits;
use bytes::Bytes;
use std::time::Duration;

/// What a [`Client`](crate::Client) is made of; every field has a default.
///
/// ```
/// let config = mechi_client::Config::new(["127.0.0.1:2379", "127.0.0.1:22379"]);
/// assert_eq!(config.request_timeout, Some(std::time::Duration::from_secs(5)));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where the servers listen: `host:port`, `http://host:port`, `https://host:port`, `unix:///path` or `unixs:///path`.
    pub endpoints: Vec<String>,
    /// How long making one connection may take.
    pub dial_timeout: Duration,
    /// How long one call may take with all its retries; `None` for as long as it takes.
    /// [`Client::with_timeout`](crate::Client::with_timeout) changes it for single calls.
    pub request_timeout: Option<Duration>,
    /// Time without a sign of life after which a connection in use is pinged; `None` for never. Below 10 s it is raised to 10 s, since etcd
    /// closes connections that are pinged too often.
    pub keep_alive_time: Option<Duration>,
    /// How long the answer to a ping may take before the connection counts as broken.
    pub keep_alive_timeout: Duration,
    /// The largest request message in bytes.
    pub send_bytes_max: usize,
    /// The largest answer message in bytes.
    pub receive_bytes_max: usize,
    /// How `https` endpoints are trusted; `None` for the roots of the system.
    pub tls: Option<Tls>,
    /// Who the client is, on servers with users.
    pub credentials: Option<Credentials>,
    /// Makes servers without a leader refuse at once, and end streams, instead of waiting (etcd's `hasleader`).
    pub require_leader: bool,
    /// What the jitter is drawn from: the endpoint that is tried first, and the length of back-offs. `None` for a seed of the process.
    /// With a seed, the endpoints are tried in the order given.
    pub seed: Option<u64>,
}

/// Certificates, as PEM.
///
/// There is no way to skip the check of the server's certificate: whoever could answer in the server's place could take
/// every secret and the password with it. Give `ca` the server's own certificate instead: that takes one line and is safe.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Tls {
    /// The certificates that are trusted; `None` for the roots of the system.
    pub ca: Option<Bytes>,
    /// This client's certificate chain and its key, for servers that ask for one.
    pub identity: Option<Identity>,
    /// The name that the server's certificate must be for; `None` for the endpoint's host.
    pub server_name: Option<String>,
}

/// A certificate chain and its private key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The chain, the client's own certificate first.
    pub certificates: Bytes,
    /// The key: PKCS#8, PKCS#1 or SEC1.
    pub key: Bytes,
}

/// A user's name and password.
#[derive(Clone)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl Config {
    /// The defaults, with these endpoints.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self { endpoints: endpoints.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets the user and the password.
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials { user: user.into(), password: password.into() });
        self
    }

    /// Sets the certificates.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets how long one call may take with all its retries.
    pub fn request_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.request_timeout = timeout.into();
        self
    }

    /// Sets how long making one connection may take.
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = timeout;
        self
    }

    /// Sets when connections are pinged and how long the answer may take.
    pub fn keep_alive(mut self, time: impl Into<Option<Duration>>, timeout: Duration) -> Self {
        self.keep_alive_time = time.into();
        self.keep_alive_timeout = timeout;
        self
    }

    /// Makes servers without a leader refuse at once.
    pub fn require_leader(mut self) -> Self {
        self.require_leader = true;
        self
    }

    /// Draws the jitter from `seed`, and tries the endpoints in the order given.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            dial_timeout: limits::DIAL_TIMEOUT,
            request_timeout: Some(limits::REQUEST_TIMEOUT),
            keep_alive_time: Some(limits::KEEP_ALIVE_TIME),
            keep_alive_timeout: limits::KEEP_ALIVE_TIMEOUT,
            send_bytes_max: limits::SEND_BYTES_MAX,
            receive_bytes_max: limits::RECEIVE_BYTES_MAX,
            tls: None,
            credentials: None,
            require_leader: false,
            seed: None,
        }
    }
}

impl Tls {
    /// Trusts the certificates in `pem`.
    pub fn ca(pem: impl Into<Bytes>) -> Self {
        Self { ca: Some(pem.into()), ..Self::default() }
    }

    /// Shows the server this certificate.
    pub fn identity(mut self, certificates: impl Into<Bytes>, key: impl Into<Bytes>) -> Self {
        self.identity = Some(Identity { certificates: certificates.into(), key: key.into() });
        self
    }

    /// Wants the server's certificate to be for `name`.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

// Keys and passwords must not get into a log by a `{:?}`.
impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("ca", &self.ca.is_some())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}
