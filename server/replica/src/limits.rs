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

/// Reads that wait for a read point on one member; above: `too many requests`.
pub const PENDING_READS_MAX: usize = 65_536;

/// Milliseconds after which an unanswered read round is asked again under a fresh context (etcd: 500); doubled for each
/// round in a row that stays unanswered.
pub const READ_ROUND_RETRY_MS: u64 = 500;

/// Milliseconds, beside two election timeouts, after which a read without a read point is refused (etcd: 5 s).
pub const READ_TIMEOUT_MS: u64 = 5_000;

/// Bytes of applied entries kept in memory for followers that lag a little; beyond, the oldest leave.
pub const LOG_MEMORY_BYTES_MAX: usize = 64 << 20;

/// The highest term, index, boot or number of a batch that a peer's message may name; a message with one above is dropped,
/// a batch refused, and no cluster ever comes there.
pub const RAFT_NUMBER_MAX: u64 = 1 << 62;

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

/// Bytes that one watch stream may have been sent and not taken; beyond, its watchers lag and catch up from history.
pub const WATCH_STREAM_BYTES_MAX: usize = 4 << 20;

/// What a message counts for besides its bytes, so that many small ones are bounded too.
pub const WATCH_MESSAGE_OVERHEAD_BYTES: usize = 128;

/// Bytes of events that one response gathers from several revisions; one revision is never split for it.
pub const WATCH_RESPONSE_BYTES_TARGET: usize = 1 << 20;

/// Changes that one slice of dispatch or catch-up reads; the revision that crosses it is still read whole.
pub const WATCH_SLICE_CHANGES_MAX: usize = 1_000;

/// Pairs of change and watcher that one slice gathers; the revision that crosses it is still gathered whole.
pub const WATCH_SLICE_MATCHES_MAX: usize = 65_536;

/// Bytes of encoded events that one slice gathers; the revision that crosses it is still gathered whole.
pub const WATCH_SLICE_BYTES_MAX: usize = 8 << 20;

/// Lagging watchers that share one catch-up slice.
pub const WATCH_GROUP_MAX: usize = 512;

/// Lagging watchers of one stream in one catch-up slice, so that a crowded stream leaves room for others.
pub const WATCH_GROUP_PER_STREAM_MAX: usize = 64;

/// Requests handled between two slices; the others wait.
pub const WATCH_REQUESTS_PER_SLICE_MAX: usize = 1_024;

/// Requests of one watch stream that the hub has not handled; beyond, the client waits.
pub const WATCH_STREAM_REQUESTS_MAX: usize = 64;

/// Messages of one watch stream beyond those that its byte bound allows: answers to the requests under way, fragments.
pub const WATCH_MESSAGES_SPARE: usize = 4_096;

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

/// Versions that one pass of an export gathers (some 40 bytes each); all of them if there are fewer.
pub const EXPORT_ROWS_MIN: usize = 1 << 18;

/// Owners of one record's bytes; no program comes near them, and counting on would end in a free too early.
pub const RECORD_OWNERS_MAX: u32 = u32::MAX / 2;

/// Passes of an export over a large index, each gathering as much of it (1/n).
pub const EXPORT_PASSES: usize = 16;

/// Bytes of the state beside keys and values; beyond it the member stops (some 40 million leases).
pub const STATE_BYTES_MAX: usize = 1 << 30;

/// Revisions that wait for their removal from the working store; beyond it the sweep of old revisions waits.
pub const REMOVALS_MAX: usize = 1 << 20;

/// Bytes of records in one snapshot chunk, before compression; the record that crosses it still belongs to it.
pub const SNAPSHOT_CHUNK_BYTES: usize = 4 << 20;

/// Bytes that LZ4 may make of one: a length goes on by a byte of 255.
pub const LZ4_RATIO_MAX: usize = 255;

/// A snapshot is made when the log since the last one exceeds this part of the live bytes (1/n).
pub const SNAPSHOT_LOG_FRACTION: u64 = 2;

/// Bytes of log below which no snapshot is made, however small the data, unless `--snapshot-log-bytes` says otherwise.
pub const SNAPSHOT_LOG_BYTES_MIN: u64 = 64 << 20;

/// Bytes of snapshots and log up to which the older snapshot is always kept.
pub const SNAPSHOT_OLDER_BYTES: u64 = SNAPSHOT_LOG_BYTES_MIN * 5 / 2;

/// The older snapshot goes where the disk would hold more than this many halves of the live data otherwise; what is
/// left below four times is for the log that grows while a snapshot is built.
pub const SNAPSHOT_DISK_HALVES: u64 = 7;

/// Bytes of records in one batch of the log; what is appended beyond it goes into the next batch.
pub const WAL_BATCH_BYTES_MAX: usize = 64 << 20;

/// Bytes of one log segment (`WalOptions::segment_bytes`); a batch that does not fit gets a larger one.
pub const WAL_SEGMENT_BYTES: u64 = 32 << 20;

/// Log segments kept allocated ahead, so that a full disk is met before the log is.
pub const WAL_RESERVE_SEGMENTS: usize = 4;

/// Trimmed log segments kept beyond the reserve to be written again; more are removed.
pub const WAL_RECYCLED_SEGMENTS: usize = 1;

/// Log segments' worth of disk that stands beside snapshots and log: the reserve, a recycled one, and the ballast, which
/// is as large as two.
pub const WAL_STANDING_SEGMENTS: u64 = (WAL_RESERVE_SEGMENTS + WAL_RECYCLED_SEGMENTS) as u64 + 2;

/// Bytes of log between two notes of where which index is; `Wal::bytes_since` is exact to this.
pub const WAL_NOTE_BYTES: u64 = 64 << 10;

/// Milliseconds between two looks at the clock from which on the process is taken to have been stopped.
pub const LEASE_PAUSE_MS: u64 = 1_000;

/// Milliseconds after a stop of the process in which no lease is ended: keep-alives that waited in the connections
/// meanwhile are read first.
pub const LEASE_PAUSE_GRACE_MS: u64 = 1_000;

/// Milliseconds after which a lease's end is proposed again when its proposal was refused.
pub const LEASE_EXPIRE_RETRY_MS: u64 = 1_000;

/// Entries that the replay at open applies between two looks at the memory that values take.
pub const REPLAY_ENTRIES_PER_LOOK: usize = 256;

/// Pending operations of the simulated disk up to which all subsets of lost and applied ones are made.
pub const EXHAUSTIVE_PENDING_MAX: usize = 12;

/// Entries between two digests that members compare.
pub const DIGEST_EVERY: u64 = 1_024;

/// Digests of each member that are kept for comparing; beyond, the oldest leave. Voters that differ this long without
/// a majority are taken not to find one.
pub const DIGESTS_KEPT_MAX: usize = 64;

/// Bytes of waiting commands above which a leader no longer waits for its own fsync before it makes the next entry: to
/// send them takes longer than the disk does.
pub const GATHER_BYTES_MAX: usize = 256 << 10;

/// Batches of one member whose fate is open, counted from the oldest to the newest number; beyond, commands wait and
/// share larger batches. Well below `DEDUPE_WINDOW_MAX`, so that no gap that may still be filled ever closes.
pub const OPEN_BATCHES_MAX: usize = 512;

/// Bytes of batches on their way to the leader; beyond, commands wait. One batch is always on its way.
pub const FORWARD_BYTES_MAX: usize = 32 << 20;

/// Milliseconds after which a batch that is not known to be committed is sent to the same leader again.
pub const FORWARD_RESEND_MS: u64 = 500;

/// Batches of others that wait to be appended by a leader, in bytes; beyond, they are dropped, and their authors send
/// them again.
pub const FORWARDED_BYTES_MAX: usize = 64 << 20;

/// Milliseconds, beside two election timeouts, after which a command that found no leader is refused and one whose
/// fate is open is given up as unknown (etcd: 5 s).
pub const REQUEST_TIMEOUT_MS: u64 = 5_000;

/// Bytes of applied entries kept in memory for a member that installs a snapshot; beyond, the oldest leave and it
/// needs a newer snapshot.
pub const LOG_MEMORY_PINNED_BYTES_MAX: usize = 256 << 20;

/// Milliseconds for which the log behind a snapshot is kept for the member that it was offered to.
pub const SNAPSHOT_PIN_MS: u64 = 120_000;

/// Milliseconds after which a snapshot that is needed is asked for again.
pub const SNAPSHOT_ASK_MS: u64 = 30_000;

/// Milliseconds between the ranks in which members campaign after they saw the leader's connections break.
pub const FAILOVER_RANK_MS: u64 = 50;

/// Campaigns by rank after one lost leader; beyond, the election timeout decides.
pub const FAILOVER_ROUNDS_MAX: u32 = 8;
