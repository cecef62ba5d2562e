//! What a command ends in: a response, or an error in etcd's own words.
//!
//! Three classes, by what the reader of the error must do. [`Error`] is an answer for the client: given before the
//! log it changed nothing, given after the log it is part of the outcome and equal on every member. [`Fatal`] means
//! that this member can no longer be trusted and stops. A timeout after proposing is neither: the outcome is unknown,
//! and only the shell can say so.

use mechi_proto::etcdserverpb as pb;
use thiserror::Error as ThisError;

/// The answer to one command, without the parts of the header that only the answering member knows.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Response {
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compaction(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    Alarm(pb::AlarmResponse),
    /// A membership change took effect, or a member's own command, which no client waits for: nothing else to say.
    Internal,
}

/// A refusal that a client reads; its text is etcd's, byte for byte, since clients match on it.
///
/// - Source: etcd `api/v3rpc/rpctypes/error.go`; the gRPC codes are in the server's `grpc/status.rs`.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[allow(missing_docs)]
pub enum Error {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: invalid client api version")]
    InvalidClientApiVersion,
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: member not found")]
    MemberNotFound,
    #[error("etcdserver: can only promote a learner member")]
    MemberNotLearner,
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStartedMembers,
    /// Here: a membership change is under way, or the leader is too new to know that none is.
    #[error("etcdserver: unhealthy cluster")]
    UnhealthyCluster,
    #[error("etcdserver: not leader")]
    NotLeader,
    #[error("etcdserver: bad leader transferee")]
    BadLeaderTransferee,
    #[error("etcdserver: no leader")]
    NoLeader,
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    #[error("etcdserver: server stopped")]
    Stopped,
    #[error("etcdserver: request timed out")]
    Timeout,
    #[error("etcdserver: request timed out, waiting for the applied index took too long")]
    TimeoutWaitAppliedIndex,
    /// No word of etcd's, whose members do not look at what others propose: the leader's log says what it minds.
    #[error("the leader refused the batch that holds this request, its outcome is unknown: see the leader's log")]
    BatchRefused,
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    #[error("etcdserver: watch canceled")]
    WatchCanceled,
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    #[error("etcdserver: authentication is not enabled")]
    AuthNotEnabled,
    /// A service or option that Mechi does not serve yet; the text is a sentence for people.
    #[error("{0}")]
    Unimplemented(&'static str),
}

/// This member can no longer be trusted: it stops, and a person or a restart repairs it.
#[derive(Debug, ThisError)]
pub enum Fatal {
    /// The log or a snapshot could not be read or written.
    #[error("{context}: {source}")]
    Io {
        /// What was being done, with the file's name.
        context: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Bytes on disk are not what was written.
    #[error("corrupt {what} in {file} at byte {offset}: {detail}")]
    Corrupt {
        /// The structure that is damaged.
        what: &'static str,
        /// The file's path.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What was wanted and what was found.
        detail: String,
    },
    /// The working store failed or answered wrongly; the next open rebuilds it.
    #[error("engine lost: {0}")]
    EngineLost(String),
    /// Something that only a bug can bring about.
    #[error("bug: {0}")]
    Bug(String),
}
