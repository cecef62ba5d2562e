//! Every bound in one place, each with what happens there.
//!
//! A bound that a flag can move is the flag's default here; the shell hands the value in.

/// Bytes of one request in its log form (`--max-request-bytes`); above: `request is too large`.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;

/// What gRPC may add to a request; a message above `REQUEST_BYTES_MAX` + this is refused before decoding.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// Operations in one branch of a txn (`--max-txn-ops`); above: `too many operations in txn request`.
pub const TXN_OPS_MAX: usize = 128;

/// Seconds; a longer lease is refused with `too large lease TTL`.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// Requests that wait for their outcome on one member; above: `too many requests`.
pub const PENDING_REQUESTS_MAX: usize = 16_384;

/// Bytes of the requests that wait to be proposed; above: `too many requests`.
pub const PENDING_BYTES_MAX: usize = 256 << 20;

/// Bytes of one raft entry; what waits beyond it goes into the next entry. One request always fits.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;

/// Commands in one raft entry; what waits beyond it goes into the next entry.
pub const ENTRY_COMMANDS_MAX: usize = 4_096;

/// Bytes of entries in one raft message.
pub const RAFT_MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Raft messages in flight to one follower; beyond, the leader waits for its answers.
pub const RAFT_INFLIGHT_MAX: usize = 256;

/// Bytes proposed and not yet committed; beyond, proposals are refused with `too many requests`.
pub const RAFT_UNCOMMITTED_BYTES_MAX: u64 = 512 << 20;

/// Bytes of committed entries handed to apply at once.
pub const COMMITTED_BYTES_PER_READY_MAX: u64 = 16 << 20;

/// Batch numbers above the first gap that one member's window remembers; beyond, the oldest gap closes.
pub const DEDUPE_WINDOW_MAX: usize = 1_024;

/// Keys that one slice of a long range visits under the index lock.
pub const SLICE_KEYS_MAX: usize = 1_000;

/// Changes between an old revision and now that a count at that revision corrects for; beyond, it walks the keys.
pub const COUNT_CORRECTION_MAX: usize = 10_000;

/// Leases that one batch of expiries ends.
pub const LEASE_EXPIRE_BATCH_MAX: usize = 1_000;

/// Compaction hashes remembered for `HashKV` (etcd: 10).
pub const COMPACTION_HASHES_MAX: usize = 10;

/// Live bytes above which a compaction does not compute its hash: `HashKV` then answers by the new compact revision.
pub const COMPACTION_HASH_BYTES_MAX: u64 = 256 << 20;

/// Reads that wait for a read point on one member; above: `too many requests`.
pub const PENDING_READS_MAX: usize = 65_536;

/// Milliseconds after which an unanswered read round is asked again under a fresh context (etcd: 500).
pub const READ_ROUND_RETRY_MS: u64 = 500;

/// Milliseconds, beside two election timeouts, after which a read without a read point is refused (etcd: 5 s).
pub const READ_TIMEOUT_MS: u64 = 5_000;

/// Bytes of applied entries kept in memory for followers that lag a little; beyond, the oldest leave.
pub const LOG_MEMORY_BYTES_MAX: usize = 64 << 20;

/// Bytes of one raft message from a peer; above, it is dropped before it is decoded.
pub const PEER_MESSAGE_BYTES_MAX: usize = 512 << 20;

/// Client events that wait for the driver; above: `too many requests`. Events of our own threads always fit: each
/// answers something that the driver asked for.
pub const DRIVER_EVENTS_MAX: usize = 65_536;

/// Bytes of committed entries that wait to be applied; above, new proposals are refused with `too many requests`.
pub const APPLY_BACKLOG_BYTES_MAX: usize = 64 << 20;

/// Milliseconds between two ticks of the driver's own clock; raft's tick is the heartbeat interval.
pub const DRIVER_TICK_MS: u64 = 10;

/// Milliseconds between two attempts to write the log on a full disk.
pub const DISK_FULL_RETRY_MS: u64 = 200;

/// Milliseconds after which a lease's end is proposed again when its proposal was refused.
pub const LEASE_EXPIRE_RETRY_MS: u64 = 1_000;

/// Bytes of records in one batch of the log; what is appended beyond it goes into the next batch.
pub const WAL_BATCH_BYTES_MAX: usize = 64 << 20;

/// Bytes of one log segment (`WalOptions::segment_bytes`); a batch that does not fit gets a larger one.
pub const WAL_SEGMENT_BYTES: u64 = 64 << 20;

/// Log segments kept allocated ahead, so that a full disk is met before the log is.
pub const WAL_RESERVE_SEGMENTS: usize = 2;

/// Trimmed log segments kept beyond the reserve to be written again; more are removed.
pub const WAL_RECYCLED_SEGMENTS: usize = 4;

/// Bytes of log between two notes of where which index is; `Wal::bytes_since` is exact to this.
pub const WAL_NOTE_BYTES: u64 = 64 << 10;
