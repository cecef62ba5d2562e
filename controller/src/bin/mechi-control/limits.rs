//! Bounds of the program: of waiting, of working at once, of what strangers send.

use std::time::Duration;

/// Between two tries to read from a store that does not answer.
pub(crate) const READ_RETRY: Duration = Duration::from_millis(200);

/// A copy that heard nothing for so long asks whether the store is still the same one.
pub(crate) const QUIET_MAX: Duration = Duration::from_secs(10);

/// Batches of a watch that are taken in before something else is looked at.
pub(crate) const BATCHES_MAX: usize = 64;

/// How long one step of an election may take: a third of the lease's time.
pub(crate) const ELECTION_ANSWER_MAX: Duration = Duration::from_secs(1);

/// How long reading what a role wants to know may take.
pub(crate) const READ_MAX: Duration = Duration::from_secs(2);

/// How long handing on the leadership may take.
pub(crate) const HAND_ON_MAX: Duration = Duration::from_secs(2);

/// Before a transaction is sent again whose outcome is unknown; doubled with each in a row.
pub(crate) const UNKNOWN_RETRY_MIN: Duration = Duration::from_millis(50);

/// The longest such wait.
pub(crate) const UNKNOWN_RETRY_MAX: Duration = Duration::from_secs(2);

/// After a transaction that was not done, nothing new is begun for so many milliseconds.
pub(crate) const FAILURE_REST_MS: u64 = 200;

/// A copy that is behind an answer for so many milliseconds is helped.
pub(crate) const BEHIND_MS_MAX: u64 = 1_000;

/// How often what a role does is measured, in milliseconds.
pub(crate) const MEASURE_MS: u64 = 1_000;

/// Plans of controllers that are on their way at once.
pub(crate) const PLANS_MAX: usize = 32;

/// Keys that the controllers look at in a row, before they see what else there is: their lease, above all.
pub(crate) const KEYS_MAX: usize = 1_000;

/// Connections for metrics that are open at once.
pub(crate) const SCRAPES_MAX: usize = 16;

/// Bytes of a request for metrics.
pub(crate) const REQUEST_BYTES_MAX: usize = 8 << 10;

/// How long a request for metrics may take.
pub(crate) const SCRAPE_MAX: Duration = Duration::from_secs(5);

/// Nodes of one fleet.
pub(crate) const NODES_MAX: usize = 100_000;

/// An audit that is not to go on for ever ends if the store says nothing for so long.
pub(crate) const AUDIT_SILENCE_MAX: Duration = Duration::from_secs(60);

/// Bytes of a value that an audit shows.
pub(crate) const SHOWN_BYTES_MAX: usize = 4 << 10;

/// How long a process of the demonstration may take to stop.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(10);

/// How long the demonstration's store may take to serve.
pub(crate) const STORE_START_MAX: Duration = Duration::from_secs(60);
