//! etcd's errors by their texts: the code alone says too little, and two errors travel with a wrong one.

/// What a server refused a request for. Made from etcd's exact text; what has no row here is [`Kind::Other`].
///
/// - Source: etcd `api/v3rpc/rpctypes/error.go`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A text that is none of etcd's, or one that no program tells apart.
    Other,
    /// The key is empty.
    EmptyKey,
    /// `ignore_value`, `ignore_lease`, or an empty operation of a Txn, on a key that does not exist.
    KeyNotFound,
    /// A value beside `ignore_value`.
    ValueProvided,
    /// A lease beside `ignore_lease`.
    LeaseProvided,
    /// More operations in one Txn than the server takes (128, unless it was told otherwise).
    TooManyOps,
    /// One Txn that would write a key twice.
    DuplicateKey,
    /// The asked revision is compacted.
    Compacted,
    /// The asked revision is not there yet.
    FutureRevision,
    /// The quota is used up.
    NoSpace,
    /// No lease of this id.
    LeaseNotFound,
    /// A lease of this id is there already.
    LeaseExists,
    /// A time to live beyond nine thousand million seconds.
    LeaseTtlTooLarge,
    /// The server has more to do than it can take.
    TooManyRequests,
    /// A request above the server's limit (1.5 MiB, unless it was told otherwise).
    RequestTooLarge,
    /// A sort order or target that does not exist.
    InvalidSortOption,
    /// The member knows no leader.
    NoLeader,
    /// The leader changed while the request was under way.
    LeaderChanged,
    /// The member is not the leader, which the request needs.
    NotLeader,
    /// The transfer of the leadership was asked to a member that cannot lead.
    BadLeaderTransferee,
    /// The server stops.
    Stopped,
    /// The request was not done in the server's time; whether it will be is unknown.
    Timeout,
    /// Members do not hold the same data.
    Corrupt,
    /// The cluster's version does not have this yet.
    NotCapable,
    /// A learner serves only a few things.
    LearnerUnsupported,
    /// No member of this id.
    MemberNotFound,
    /// A member of this id is there already.
    MemberExists,
    /// The change of members would risk the majority.
    UnhealthyCluster,
    /// No token, on a server with users.
    UserEmpty,
    /// The name or the password is wrong.
    AuthFailed,
    /// The user may not do this.
    PermissionDenied,
    /// Users are not switched on.
    AuthNotEnabled,
    /// The token is unknown or has run out.
    InvalidAuthToken,
    /// Users or roles have changed since the token was given.
    OldAuthRevision,
    /// The user does not exist.
    UserNotFound,
    /// The user exists already.
    UserExists,
    /// The role does not exist.
    RoleNotFound,
    /// The role exists already.
    RoleExists,
    /// The server does not serve this at all.
    Unimplemented,
}

/// etcd's texts, behind `etcdserver: `.
const TEXTS: [(&str, Kind); 42] = [
    ("key is not provided", Kind::EmptyKey),
    ("key not found", Kind::KeyNotFound),
    ("value is provided", Kind::ValueProvided),
    ("lease is provided", Kind::LeaseProvided),
    ("too many operations in txn request", Kind::TooManyOps),
    ("duplicate key given in txn request", Kind::DuplicateKey),
    ("invalid sort option", Kind::InvalidSortOption),
    ("mvcc: required revision has been compacted", Kind::Compacted),
    ("mvcc: required revision is a future revision", Kind::FutureRevision),
    ("mvcc: database space exceeded", Kind::NoSpace),
    ("requested lease not found", Kind::LeaseNotFound),
    ("lease already exists", Kind::LeaseExists),
    ("too large lease TTL", Kind::LeaseTtlTooLarge),
    ("too many requests", Kind::TooManyRequests),
    ("request is too large", Kind::RequestTooLarge),
    ("no leader", Kind::NoLeader),
    ("leader changed", Kind::LeaderChanged),
    ("not leader", Kind::NotLeader),
    ("bad leader transferee", Kind::BadLeaderTransferee),
    ("server stopped", Kind::Stopped),
    ("request timed out", Kind::Timeout),
    ("request timed out, possibly due to previous leader failure", Kind::Timeout),
    ("request timed out, possibly due to connection lost", Kind::Timeout),
    ("request timed out, waiting for the applied index took too long", Kind::Timeout),
    ("corrupt cluster", Kind::Corrupt),
    ("not capable", Kind::NotCapable),
    ("rpc not supported for learner", Kind::LearnerUnsupported),
    ("member not found", Kind::MemberNotFound),
    ("member ID already exist", Kind::MemberExists),
    ("Peer URLs already exists", Kind::MemberExists),
    ("unhealthy cluster", Kind::UnhealthyCluster),
    ("re-configuration failed due to not enough started members", Kind::UnhealthyCluster),
    ("user name is empty", Kind::UserEmpty),
    ("authentication failed, invalid user ID or password", Kind::AuthFailed),
    ("permission denied", Kind::PermissionDenied),
    ("authentication is not enabled", Kind::AuthNotEnabled),
    ("invalid auth token", Kind::InvalidAuthToken),
    ("revision of auth store is old", Kind::OldAuthRevision),
    ("user name not found", Kind::UserNotFound),
    ("user name already exists", Kind::UserExists),
    ("role name not found", Kind::RoleNotFound),
    ("role name already exists", Kind::RoleExists),
];

impl Kind {
    /// Reads etcd's text.
    pub fn of(text: &str) -> Self {
        let Some(text) = text.strip_prefix("etcdserver: ") else { return Self::Other };
        TEXTS.iter().find(|(known, _)| *known == text).map_or(Self::Other, |(_, kind)| *kind)
    }
}
