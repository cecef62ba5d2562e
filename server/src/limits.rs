//! The shell's bounds, each with what happens there; the heart's are in `mechi_replica::limits`.

/// Bytes of an answer that is gathered in memory; a longer one streams out under flow control.
pub const READY_BYTES_MAX: u64 = 1 << 20;

/// Bytes that one chunk of a streamed list aims at.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Estimated bytes that one key costs while a sorted or filtered range is arranged.
pub const ITEM_BYTES: u64 = 128;

/// Chunks that are read from the working store at once; more wait their turn. A hundred at once were found to hold ten
/// times their bytes in the store's and the allocator's per-thread memory, and to be no faster.
pub const STORE_READS_MAX: usize = 4;
