//! Every bound of the control plane: of what it reads, writes, keeps and tries.

/// Guards of a transaction, and its writes: etcd's default limit of operations.
pub const TXN_OPERATIONS_MAX: usize = 128;

/// Bytes of a transaction: etcd's default limit of a request, less what it is wrapped in.
pub const TXN_BYTES_MAX: usize = 1_400_000;

/// Revisions with changes that one batch of a watch tells.
pub const WATCH_BATCH_REVISIONS_MAX: usize = 1_000;

/// Bytes that an object may have: etcd's own limit of a request.
pub const OBJECT_BYTES_MAX: usize = 1_572_864;

/// How deep lists and objects may be within each other.
pub const OBJECT_DEPTH_MAX: usize = 64;

/// Digits of a number; more is no amount of anything.
pub const QUANTITY_DIGITS_MAX: usize = 64;

/// Containers of a pod, ports of a container, and the like.
pub const CONTAINERS_MAX: usize = 1_000;

/// Bytes of all annotations together.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// How often something is tried again that another one was faster with, or whose outcome is unknown.
pub const TRIES_MAX: usize = 16;

/// Keys of one page of a list.
pub const API_PAGE: usize = 500;

/// Keys of a page, at first.
pub const LIST_PAGE: usize = 1_000;

/// Keys of a page, at most.
pub const LIST_PAGE_MAX: usize = 16_000;

/// Pods that one transaction makes or deletes.
pub const REPLICA_BATCH_MAX: usize = 100;

/// Pods up to which a deletion also insists that those that stay are there.
pub const KEPT_GUARDS_MAX: usize = 60;

/// Objects that one transaction tells to go.
pub const EMPTY_BATCH_MAX: usize = 50;

/// Dependents that one transaction lets go.
pub const ORPHANS_BATCH_MAX: usize = 50;

/// Old ReplicaSets that one transaction takes away.
pub const HISTORY_BATCH_MAX: usize = 20;

/// Pods that one transaction binds: a guard for each, one for each node, and the fence.
pub const BINDS_MAX: usize = 63;

/// Pods that one transaction tells to go, so that another fits.
pub const VICTIMS_MAX: usize = 100;

/// Transactions that are on their way at once.
pub const FLIGHTS_MAX: usize = 8;

/// Makes of pods whose answers are kept; beyond, all are forgotten.
pub const SIGNATURES_MAX: usize = 256;

/// Names and makes beyond which those that nobody uses are dropped.
pub const INTERNED_MAX: usize = 10_000;

/// Findings that are kept; more are counted.
pub const FINDINGS_MAX: usize = 100;
