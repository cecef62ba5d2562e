//! The shell's bounds, each with what happens there; the heart's are in `mechi_replica::limits`.

use std::time::Duration;

/// Bytes of an answer that is gathered in memory; a longer one streams out under flow control.
pub const READY_BYTES_MAX: u64 = 1 << 20;

/// Estimated bytes that one key costs while a sorted or filtered range is arranged.
pub const ITEM_BYTES: u64 = 128;

/// Pages of lists whose rest is remembered; beyond, the oldest is forgotten and its next page counts anew.
pub const PAGES_MAX: usize = 4_096;

/// Questions that wait for the keeper of the store; more callers wait to put theirs.
pub const KEEPER_ASKS_MAX: usize = 64;

/// How long the keeper may hold the state's lock against all others at once; a slice that took longer is followed by a
/// smaller one.
pub const KEEPER_LOCK_TIME: Duration = Duration::from_micros(500);

/// Keys of its smallest slice, however long that takes.
pub const KEEPER_SLICE_KEYS_MIN: usize = 16;

/// Bytes of the ballast on a large disk; a log segment has half of it.
pub const DISK_PART_BYTES_MAX: u64 = 64 << 20;

/// Bytes of the ballast on the smallest disk; a log segment has half of it.
pub const DISK_PART_BYTES_MIN: u64 = 1 << 20;

/// Chunks that are read from the working store at once; more wait their turn. A hundred at once were found to hold ten
/// times their bytes in the store's and the allocator's per-thread memory, and to be no faster.
pub const STORE_READS_MAX: usize = 4;

/// How long a peer may take to accept a connection when a member without data asks whether it is known; then it counts
/// as one that does not run (etcd: 1 s).
pub const KNOWN_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long such a peer may take to answer, also while it still reads its own data; then it counts as one that knows
/// nothing.
pub const KNOWN_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of such an answer that are read; a longer one is cut, and is then no list.
pub const KNOWN_ANSWER_BYTES_MAX: u64 = 1 << 20;

/// How long after a divergence a second one counts as the same: the member stops then instead of opening again.
pub const EVIDENCE_YOUNG: Duration = Duration::from_secs(3600);

/// Bytes of a local cluster's plan; a longer file is cut, and is then no plan.
pub const LOCAL_PLAN_BYTES_MAX: u64 = 64 << 10;

/// Bytes of a local member's answer over HTTP that are read; what is looked for comes before.
pub const LOCAL_ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Time before a local cluster's member that ended is started again; doubled with each end before it served.
pub const LOCAL_BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The longest such time.
pub const LOCAL_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Ends in a row without having served after which a local cluster gives up.
pub const LOCAL_FAILURES_MAX: u32 = 5;

/// How long the members of a local cluster may take to stop; then they are killed.
pub const LOCAL_STOP_MAX: Duration = Duration::from_secs(10);

/// Messages that wait on one connection to another member; beyond, the oldest append goes, since raft sends it again.
pub const PEER_QUEUE_MESSAGES_MAX: usize = 4_096;

/// Bytes that wait on the connection for heartbeats, votes and reads to one member; beyond, the oldest goes.
pub const PEER_URGENT_BYTES_MAX: usize = 4 << 20;

/// Bytes that wait on the connection for entries and batches to one member; beyond, the oldest append goes, and a batch
/// is not taken, since its author sends it again. One message always fits.
pub const PEER_BULK_BYTES_MAX: usize = 64 << 20;

/// What a message between members may have beyond its entries; a larger one is refused before it is decoded.
pub const PEER_OVERHEAD_BYTES: usize = 64 << 10;

/// How long another member may take to accept a connection and to answer the handshake; then another URL is tried.
pub const PEER_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The first pause before a member that could not be reached is dialled again; each is twice the one before.
pub const PEER_DIAL_PAUSE_MIN: Duration = Duration::from_millis(20);

/// The longest pause before a member is dialled again.
pub const PEER_DIAL_PAUSE_MAX: Duration = Duration::from_millis(320);

/// A connection that stood for this long is dialled again at once when it breaks; a shorter one after a pause, so that
/// a member that breaks every connection is not dialled without end.
pub const PEER_STEADY: Duration = Duration::from_secs(1);

/// The shortest time between two pings of a connection, however short the election timeout is.
pub const PEER_PING_MIN: Duration = Duration::from_millis(25);

/// How often the round trip to another member is measured (etcd: 4 s).
pub const PEER_PROBE_INTERVAL: Duration = Duration::from_secs(4);

/// How long what is queued may take to leave when the member stops.
pub const PEER_STOP_GRACE: Duration = Duration::from_millis(200);

/// How often the same trouble with other members is logged at most.
pub const PEER_LOG_PAUSE: Duration = Duration::from_secs(60);

/// Texts that are known to have been logged lately, since one trouble shows itself in a few forms that alternate; beyond,
/// the oldest is forgotten and may be logged again.
pub const PEER_LOG_TEXTS_MAX: usize = 4;

/// Offers of snapshots to one member that wait for the one before; beyond, they fail at once.
pub const PEER_OFFERS_MAX: usize = 4;

/// How long a member that was offered a snapshot may be silent; then the offer has failed, and its files may go.
pub const PEER_SNAPSHOT_SILENCE: Duration = Duration::from_secs(30);

/// Files of snapshots that this member sends at once; more wait at the members that fetch them.
pub const PEER_FETCHES_MAX: usize = 4;

/// Calls that one connection of another member may have open; more wait. `--max-concurrent-streams` speaks of clients: with
/// a small one a talk that never ends would keep every other call from its connection.
pub const PEER_STREAMS_MAX: u32 = 1_024;

/// Bytes of one part of a snapshot's file.
pub const PEER_PART_BYTES: usize = 256 << 10;

/// Snapshots whose files are kept for other members at once; beyond, the one that was asked for longest ago may go.
pub const PEER_PINS_MAX: usize = 4;

/// Bytes of a snapshot's manifest; a larger one is not fetched.
pub const PEER_MANIFEST_BYTES_MAX: u64 = 2 << 30;

/// Attempts to fetch without any new byte; then the offer has failed.
pub const PEER_FETCH_ATTEMPTS_MAX: u32 = 5;

/// How long the next part of a file may take; then the connection is made anew.
pub const PEER_PART_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of the working store's own cache: values that fit into memory are there already, and a cache without a bound of
/// its own would hold all of them a second time (300 bytes of a key with 256).
pub const STORE_CACHE_BYTES_MAX: u64 = 64 << 20;
