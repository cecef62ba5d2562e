//! The shell's bounds, each with what happens there; the heart's are in `mechi_replica::limits`.

/// Bytes of an answer that is gathered in memory; a longer one streams out under flow control.
pub const READY_BYTES_MAX: u64 = 1 << 20;

/// Bytes that one chunk of a streamed list aims at.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Estimated bytes that one key costs while a sorted or filtered range is arranged.
pub const ITEM_BYTES: u64 = 128;
