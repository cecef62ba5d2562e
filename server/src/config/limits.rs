//! Bounds of listening, serving HTTP and logging, each with what happens there.

use std::time::Duration;

/// Connections that one listener serves at once; further ones wait in the system's backlog.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Connections that the system holds until they are accepted; further ones are refused by the system.
pub const BACKLOG: i32 = 1_024;

/// How long a client may take to send a connection's first bytes, and a request's HTTP/1 head; then it is closed.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a request's HTTP/2 header list; a longer one is refused by the HTTP/2 library.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Calls that a client of HTTP/2 may have given up before the server took them; with more its connection is closed, as
/// against a flood of resets (CVE-2023-44487). The library's 20 is too few: after a moment in which this process stood
/// still, one client's expired calls would take all its others with them.
pub const PENDING_RESETS_MAX: usize = 2_000;

/// Bytes that a client may send on one HTTP/2 stream before it is read; the largest default request fits almost.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Bytes that a client may send on one HTTP/2 connection before they are read.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Bytes of one stream's answer that wait for the client's window, beside the chunk at hand; beyond, the answer's reader
/// waits (hyper: 400 KiB, which a hundred lists multiply).
pub const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Bytes that one HTTP/2 connection gathers into one write to the system; beyond, it writes at once.
pub const GATHERED_BYTES_MAX: usize = 64 << 10;

/// Idle time after which the system probes a TCP connection, so that a vanished client's is closed in the end.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// How long open connections may take to end after the shutdown began; then they are dropped.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// How long to wait before accepting again when the system has no file descriptor left.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// How long a health check's read may take; then it counts as failed.
pub const HEALTH_READ_TIMEOUT: Duration = Duration::from_secs(7);

/// Client API versions told apart in metrics; further ones count as `other`, so that clients cannot grow them.
pub const CLIENT_VERSIONS_MAX: usize = 64;

/// Part of the machine's or the cgroup's memory taken as the memory limit when none is given: one half. The rest is
/// for the page cache, which the log and the store need, and for what connections hold.
pub const MEMORY_SHARE: u64 = 2;

/// The least memory limit, in bytes; a smaller one is refused, since indexes and connections alone need as much.
pub const MEMORY_LIMIT_MIN: u64 = 64 << 20;

/// The least log before a snapshot, in bytes; with less a member would do little else.
pub const SNAPSHOT_LOG_BYTES_LEAST: u64 = 1 << 20;

/// Milliseconds of the longest election timeout, etcd's; a longer one is refused.
pub const ELECTION_MS_MAX: u64 = 50_000;

/// Voting members of a cluster; a larger `--initial-cluster` is refused (etcd advises the same bound).
pub const MEMBERS_MAX: usize = 7;
