//! Bounds of the control plane's benchmark.

use std::time::Duration;

/// How long nodes may take to register, and a control plane to come to rest.
pub const SETTLE_MAX: Duration = Duration::from_secs(300);

/// How long all pods of a scenario may take to be made or to be bound.
pub const PODS_MAX: Duration = Duration::from_secs(900);

/// How long the next leader may take.
pub const LOSS_MAX: Duration = Duration::from_secs(60);

/// How long a process may take to stop that is asked to.
pub const STOP_MAX: Duration = Duration::from_secs(20);

/// How long one call to the store may take.
pub const CALL_MAX: Duration = Duration::from_secs(30);

/// Between two looks at something that must come.
pub const LOOK: Duration = Duration::from_millis(5);

/// Pods that one transaction makes: with a guard for each and one for their namespace, below etcd's 128 operations.
pub const BATCH: usize = 100;

/// Transactions that make pods, on their way at once.
pub const FLIGHTS: usize = 8;

/// The largest fleet and the largest number of pods that can be asked for.
pub const SIZE_MAX: u64 = 1_000_000;
