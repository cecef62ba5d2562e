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

/// Minutes of load of one run of the control plane.
pub const CONTROL_MINUTES_MAX: f64 = 24.0 * 60.0;

/// Fake nodes of such a run.
pub const CONTROL_NODES_MAX: u64 = 5_000;

/// Fewer would not hold what [`CONTROL_PEOPLE_MAX`] people may want.
pub const CONTROL_NODES_MIN: u64 = 20;

/// People of such a run.
pub const CONTROL_PEOPLE_MAX: u64 = 8;

/// How long it may take after the last fault until everything is as it is wanted and stays so: pods leave nodes that were
/// not heard of, one node each six seconds, and some pods fail after twenty.
pub const SETTLE_MAX: Duration = Duration::from_secs(300);

/// For how long nothing may be written before it counts as settled.
pub const QUIET: Duration = Duration::from_secs(5);

/// How long one order of a person may take, with all that the client tries.
pub const ORDER_MAX: Duration = Duration::from_secs(20);

/// Between two tries of whoever follows the store.
pub const FOLLOW_RETRY: Duration = Duration::from_millis(100);

/// Findings that are kept; more are counted.
pub const CONTROL_FINDINGS_MAX: usize = 200;

/// Bytes of a value that a finding shows.
pub const SHOWN_BYTES_MAX: usize = 2 << 10;

/// Deployments that one person has at once.
pub const DEPLOYMENTS_PER_PERSON_MAX: usize = 3;

/// Pods of one Deployment.
pub const REPLICAS_MAX: u64 = 40;

/// People who have a Deployment of urgent pods beside the others.
pub const URGENT_PEOPLE_MAX: usize = 2;

/// One node of so many may be wanted whole by one person's urgent pods, so that in the end all others fit beside them.
pub const NODES_PER_URGENT: u64 = 20;

/// Nodes that one person keeps cordoned at once.
pub const CORDONED_PER_PERSON_MAX: usize = 3;

/// One node of so many may be deleted in a run, so that what is wanted fits in the end.
pub const NODES_PER_DELETION: u64 = 20;

/// Seconds of harm for which there must have been one fault with an effect.
pub const SECONDS_PER_EFFECT: u64 = 15;

/// Revisions that there must have been for each second of load.
pub const REVISIONS_PER_SECOND_MIN: u64 = 5;
