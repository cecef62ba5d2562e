//! Every bound in one place, each with what happens there.
//!
//! A bound that a flag can move is the flag's default here; the shell hands the value in.

/// Bytes of one request in its log form (`--max-request-bytes`); above: `request is too large`.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;

/// What gRPC may add to a request; a message above `REQUEST_BYTES_MAX` + this is refused before decoding.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// Operations in one branch of a txn (`--max-txn-ops`); above: `too many operations in txn request`.
pub const TXN_OPS_MAX: usize = 128;

/// Txns nested in each other, the outer one counted; above: `too many operations in txn request`.
pub const TXN_DEPTH_MAX: usize = 32;

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

/// Bytes of one value in the working store; a record that is larger is cut into parts. Above 7.5 KiB the store was
/// found to deadlock.
pub const BLOCK_BYTES_MAX: usize = 4 << 10;

/// Parts of one record in the working store; more are taken for damage.
pub const RECORD_PARTS_MAX: usize = 1 << 16;

/// Bytes of one batch for the working store, a multiple of `BLOCK_BYTES_MAX`; what is beyond waits for the next batch.
/// A batch blocks every reader of the store.
pub const STORE_BATCH_BYTES: usize = 256 << 10;

/// Changes that a flush clones under the state's lock at once; the rest waits for the next slice.
pub const FLUSH_SLICE_CHANGES: usize = 4_096;

/// Bytes of the state beside keys and values; beyond it the member stops (some 40 million leases).
pub const STATE_BYTES_MAX: usize = 1 << 30;

/// Revisions that wait for their removal from the working store; beyond it the sweep of old revisions waits.
pub const REMOVALS_MAX: usize = 1 << 20;

/// Bytes of records in one snapshot chunk, before compression; the record that crosses it still belongs to it.
pub const SNAPSHOT_CHUNK_BYTES: usize = 4 << 20;

/// A snapshot is made when the log since the last one exceeds this part of the live bytes (1/n).
pub const SNAPSHOT_LOG_FRACTION: u64 = 2;

/// Bytes of log below which no snapshot is made, however small the data.
pub const SNAPSHOT_LOG_BYTES_MIN: u64 = 64 << 20;

/// Entries that the replay at open applies between two looks at the memory that values take.
pub const REPLAY_ENTRIES_PER_LOOK: usize = 256;

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
