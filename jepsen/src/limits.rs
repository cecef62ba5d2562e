//! Every bound of a run of real processes.

use std::time::Duration;

/// How long a start, an election or catching up may take on a busy machine.
pub const CONVERGE_MAX: Duration = Duration::from_secs(60);

/// How long one question of the run's own to one member may take.
pub const ASK_MAX: Duration = Duration::from_millis(800);

/// How long a member may take to stop by itself when it is asked to.
pub const STOP_MAX: Duration = Duration::from_secs(20);

/// Members of a cluster.
pub const MEMBERS_MAX: u64 = 7;

/// Seconds of load of one cell.
pub const SECONDS_MAX: u64 = 3_600;

/// Bytes that a proxy passes on at once.
pub const PIECE_BYTES: usize = 64 << 10;

/// Pieces on their way through one direction of one connection; then its sender waits.
pub const PIECES_MAX: usize = 64;

/// Bytes of a file that is damaged; a segment of the log has 64 MiB.
pub const DAMAGED_BYTES_MAX: u64 = 1 << 30;

/// Cells that are chosen for one commit.
pub const ROTATING_CELLS: usize = 6;

/// Milliseconds between two operations of a client.
pub const PAUSE_MS_MAX: u64 = 10_000;
