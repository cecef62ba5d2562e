//! Bounds of the load generator.

use std::time::Duration;

/// What a server may send on one stream before the generator has read it: a list is never held up by its window.
pub const STREAM_WINDOW_BYTES: u32 = 16 << 20;

/// The same for one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// Operations of an open loop that may wait for their answers; a server that lets more wait does not hold the rate, and
/// the run fails.
pub const IN_FLIGHT_MAX: usize = 50_000;

/// The longest latency that a histogram tells from a longer one.
pub const LATENCY_NS_MAX: u64 = 120_000_000_000;

/// Significant digits of a histogram.
pub const LATENCY_DIGITS: u8 = 3;

/// How long the operations under way may take when a run ends.
pub const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Bytes of the answer to one unary call; lists take another way.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Puts that the writer of a fan-out is ahead of the slowest watcher at the most: enough that no server idles, and few
/// enough that a server cannot save work by sending a backlog at once.
pub const FANOUT_AHEAD: usize = 16;

/// Keys that a load is spread over; the generator remembers a revision of each.
pub const KEYS_MAX: u64 = 100_000_000;

/// Bytes of a value, the least: a shorter one could be found elsewhere in the prepared request.
pub const VALUE_BYTES_MIN: u64 = 8;

/// Bytes of a value, the most: with its request it is within etcd's default bound of 1.5 MiB.
pub const VALUE_BYTES_MAX: u64 = 1 << 20;

/// Operations per second of an open loop, the least.
pub const RATE_MIN: f64 = 0.1;

/// Operations per second of an open loop, the most: beyond what two cores offer.
pub const RATE_MAX: f64 = 1_000_000.0;
