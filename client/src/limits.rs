//! Every bound of the client, with what it guards.

use std::time::Duration;

/// Endpoints that one client takes; clusters have at most seven members, and names may be listed twice.
pub const ENDPOINTS_MAX: usize = 64;

/// How long one connection may take to be made, unless the configuration says otherwise (etcdctl: 2 s).
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one call may take with all its retries, unless the configuration says otherwise (etcdctl: 5 s).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Time without a sign of life after which a connection in use is pinged, unless the configuration says otherwise.
pub const KEEP_ALIVE_TIME: Duration = Duration::from_secs(10);

/// The least of that time: etcd closes connections that are pinged more often than every 5 s, and clientv3 raises what
/// is below 10 s to 10 s.
pub const KEEP_ALIVE_TIME_MIN: Duration = Duration::from_secs(10);

/// How long the answer to a ping may take, unless the configuration says otherwise (etcdctl: 6 s).
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(6);

/// The largest request message, unless the configuration says otherwise: clientv3's 2 MiB, which is above any server's
/// default of 1.5 MiB, so that the server's own refusal is seen.
pub const SEND_BYTES_MAX: usize = 2 << 20;

/// The largest answer, unless the configuration says otherwise: gRPC's own limit, as clientv3.
pub const RECEIVE_BYTES_MAX: usize = i32::MAX as usize;

/// Attempts at one read, or at reaching a server at all, before the last error is returned (clientv3: 100).
pub const ATTEMPTS_MAX: u32 = 100;

/// New tokens asked for within one call: one for a token that ran out, one for a change of users that fell between.
pub const TOKEN_RENEWALS_MAX: u32 = 2;

/// How long an endpoint is set aside after its first failure; doubled by each failure in a row.
pub const BACKOFF_MIN: Duration = Duration::from_millis(25);

/// The longest time that an endpoint is set aside.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The share by which a back-off is drawn longer or shorter, so that many clients do not come back at once.
pub const BACKOFF_JITTER: f64 = 0.2;

/// Flow-control windows of a connection and of one stream: enough for a large list at a gigabit and some milliseconds.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// See [`CONNECTION_WINDOW_BYTES`].
pub const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// Keys of one page of a list, unless the caller says otherwise (kube-apiserver: 500).
pub const PAGE_KEYS: i64 = 500;

/// Batches that wait in one watch for its reader; a watch that has so many is set aside, see `watch`.
pub const WATCH_BATCHES_MAX: usize = 64;

/// Bytes of events that wait in one watch for its reader, beyond which it is set aside; one batch always fits.
pub const WATCH_BYTES_MAX: usize = 8 << 20;

/// Asks (new watches, progress) that wait for the task of the watch stream.
pub const WATCH_ASKS_MAX: usize = 256;

/// How long a server may take to open a watch stream before another is tried.
pub const WATCH_OPEN_MAX: Duration = Duration::from_secs(10);

/// Messages that wait to be written to a stream.
pub const STREAM_QUEUE: usize = 64;

/// How long an answer to a lease's keep-alive is waited for before another endpoint is tried.
pub const KEEP_ALIVE_ANSWER_MAX: Duration = Duration::from_secs(5);

/// The least time between two keep-alives of one lease (clientv3: 500 ms).
pub const KEEP_ALIVE_PAUSE_MIN: Duration = Duration::from_millis(500);
