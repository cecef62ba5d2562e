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

/// Bytes of a log segment and of the ballast on a large disk.
pub const DISK_PART_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a log segment and of the ballast on the smallest disk.
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

/// Time before a local cluster's member that ended is started again; doubled with each end before it served.
pub const LOCAL_BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The longest such time.
pub const LOCAL_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Ends in a row without having served after which a local cluster gives up.
pub const LOCAL_FAILURES_MAX: u32 = 5;

/// How long the members of a local cluster may take to stop; then they are killed.
pub const LOCAL_STOP_MAX: Duration = Duration::from_secs(10);
