//! Every bound of the control plane: of what it reads, writes, keeps and tries.

/// Guards of a transaction, and its writes: etcd's default limit of operations.
pub const TXN_OPERATIONS_MAX: usize = 128;

/// Bytes of a transaction: etcd's default limit of a request, less what it is wrapped in.
pub const TXN_BYTES_MAX: usize = 1_400_000;

/// Revisions with changes that one batch of a watch tells.
pub const WATCH_BATCH_REVISIONS_MAX: usize = 1_000;

/// Bytes that an object may have to be made or changed: controllers write it in one transaction with another one of its size,
/// a Deployment with a ReplicaSet, a ReplicaSet with a pod.
pub const OBJECT_BYTES_MAX: usize = 640 << 10;

/// What a controller adds to two objects that it writes at once, at most: owners, labels, conditions, keys.
pub const OBJECTS_APART_BYTES_MAX: usize = 64 << 10;

const _: () = assert!(2 * OBJECT_BYTES_MAX + OBJECTS_APART_BYTES_MAX <= TXN_BYTES_MAX);

/// Bytes of an object that is read: etcd's own limit of a request, since others may have written it.
pub const READ_BYTES_MAX: usize = 1_572_864;

/// Characters of a name that is not chosen, without its last five: what Kubernetes leaves of its beginning.
pub const NAME_BEGIN_CHARS_MAX: usize = 58;

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

/// Guards of a Deployment's step beyond which ReplicaSets that are long done with are not relied on.
pub const HISTORY_GUARDS_MAX: usize = 100;

/// Pods that one transaction binds: a guard for each, one for each node, and the fence.
pub const BINDS_MAX: usize = 63;

/// Pods that one transaction tells to go so that another one fits: it has a guard and a write for each, and those of the
/// other pod, of the node's placements, and of the fence.
pub const VICTIMS_MAX: usize = 100;

/// Transactions that are on their way at once.
pub const FLIGHTS_MAX: usize = 8;

/// Makes of pods whose answers are kept; beyond, all are forgotten.
pub const SIGNATURES_MAX: usize = 256;

/// Names and makes beyond which those that nobody uses are dropped.
pub const INTERNED_MAX: usize = 10_000;

/// Pods that one transaction tells to leave their node, or says of that they are not ready.
pub const EVICT_BATCH_MAX: usize = 50;

/// Seconds between two nodes of a zone that are given the taint which makes pods leave: ten a minute at most.
pub const EVICTION_SECONDS_MIN: i64 = 6;

/// Percent of a zone's nodes that are not ready from which on no pod has to leave any of them.
pub const BRAKE_PERCENT: usize = 55;

/// The time of a node's heartbeat, and for how long whoever has just begun to lead makes no pod leave.
pub const HEARTBEAT_MS: u64 = 10_000;

/// Seconds that a new node has until somebody must have heard of it.
pub const NODE_STARTUP_SECONDS: i64 = 60;

/// Events that a recorder knows, to count what happens again; the longest unused go first.
pub const EVENTS_KNOWN_MAX: usize = 4_096;

/// Events that wait to be written; what comes beyond is dropped.
pub const EVENTS_WAITING_MAX: usize = 1_000;

/// Events that one transaction writes.
pub const EVENTS_BATCH_MAX: usize = 50;

/// How often an event is tried to be written.
pub const EVENT_TRIES_MAX: usize = 5;

/// How long an event stays.
pub const EVENT_TTL_MS: u64 = 3_600_000;

/// How long one lease serves all events that come.
pub const EVENT_LEASE_MS: u64 = 60_000;

/// Messages of one reason about one object from which on one event tells them all.
pub const EVENT_MESSAGES_MAX: usize = 10;

/// How long such messages are told together after the last one.
pub const EVENT_SIMILAR_MS: u64 = 600_000;

/// Happenings that a component may tell of one object at once.
pub const EVENT_BURST: u64 = 25;

/// After how long it may tell one more.
pub const EVENT_REFILL_MS: u64 = 300_000;

/// Notes that wait in a scheduler to be recorded; what comes beyond is dropped.
pub const NOTES_MAX: usize = 1_000;

/// Revisions of which an auditor of watches remembers what they changed.
pub const HISTORY_REVISIONS_MAX: usize = 1_000_000;

/// Findings that are kept; more are counted.
pub const FINDINGS_MAX: usize = 100;

/// Nodes and pods that one transaction of a fleet of fake nodes is about.
pub const FAKE_BATCH_MAX: usize = 100;

/// Fake nodes whose heartbeats are under one lease: three writes of a node's registration, and etcd's 128 operations.
pub const NODES_PER_LEASE: usize = 42;

/// The longest wait of a fake pod's script: a day.
pub const SCRIPT_DELAY_MS_MAX: u64 = 86_400_000;
