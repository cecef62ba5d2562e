//! The shell's bounds, each with what happens there; the heart's are in `mechi_replica::limits`.

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
