//! How a call ends if not with an answer, by what the caller must do.

use crate::kind::Kind;
use std::fmt;
pub use tonic::Code;

/// Why a call has no answer.
///
/// | variant | what it says | a write | what helps |
/// | --- | --- | --- | --- |
/// | [`Server`](Error::Server) | the server refused, in etcd's words | changed nothing, see [`Error::outcome`] | the reason's cure |
/// | [`OutcomeUnknown`](Error::OutcomeUnknown) | sent, and no answer came | **may or may not be done** | read, or guard it by a compare |
/// | [`Unavailable`](Error::Unavailable) | no server was reached; not sent | changed nothing | try later |
/// | [`Deadline`](Error::Deadline) | no answer in time to a call that changes nothing | | try again, with more time |
/// | [`Broken`](Error::Broken) | the connection broke under a call that changes nothing | | try again |
/// | [`WatchCompacted`](Error::WatchCompacted) | the watch's next events are gone | | list anew, watch from there |
/// | [`WatchCanceled`](Error::WatchCanceled) | the server ended the watch | | the reason's cure |
/// | [`ListCompacted`](Error::ListCompacted) | a list's revision was compacted while it was paged | | list anew |
/// | [`LeaseLost`](Error::LeaseLost) | the lease is not kept alive any more | | a new lease |
/// | [`TooLarge`](Error::TooLarge) | a request larger than this client sends; not sent | changed nothing | smaller requests |
/// | [`Config`](Error::Config) | the configuration or a request contradicts itself; not sent | changed nothing | mend it |
/// | [`Closed`](Error::Closed) | the client's runtime ends | | |
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server's answer is an error.
    #[error("{0}")]
    Server(ServerError),
    /// A write was sent and no definite answer came: it may have been done, may be done yet, or never.
    /// It was sent once and is never sent again by this library.
    #[error("outcome unknown: {cause}")]
    OutcomeUnknown {
        /// What came instead of an answer.
        cause: Box<Error>,
    },
    /// No server could be reached, so nothing was sent.
    #[error("no endpoint available, nothing was sent: {last}")]
    Unavailable {
        /// How the last attempt failed.
        last: String,
    },
    /// The time of the call is over.
    #[error("{}", Deadline(.last))]
    Deadline {
        /// What the last attempt before it ended in, if there was one.
        last: Option<Box<Error>>,
    },
    /// The connection broke after the request was sent.
    #[error("connection to {endpoint} broke: {detail}")]
    Broken {
        /// The endpoint's address.
        endpoint: String,
        /// What happened.
        detail: String,
    },
    /// The revision that a watch goes on from is compacted: its events can be had no more.
    #[error("etcdserver: mvcc: required revision has been compacted (compact revision {compact_revision})")]
    WatchCompacted {
        /// The oldest revision that can still be watched from.
        compact_revision: i64,
    },
    /// The server ended a watch for another reason, or refused it.
    #[error("watch canceled: {reason}")]
    WatchCanceled {
        /// The server's words; may be empty.
        reason: String,
    },
    /// The revision that a list is held at was compacted between two pages.
    #[error("etcdserver: mvcc: required revision has been compacted (list at revision {revision})")]
    ListCompacted {
        /// The revision of the pages before.
        revision: i64,
    },
    /// A lease is kept alive no more.
    #[error("{0}")]
    LeaseLost(LeaseEnd),
    /// The configuration or a request contradicts itself.
    #[error("{0}")]
    Config(String),
    /// A request above [`Config::send_bytes_max`](crate::Config::send_bytes_max), refused on this side, in grpc-go's words.
    #[error("trying to send message larger than max ({bytes} vs. {bytes_max})")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What is configured.
        bytes_max: usize,
    },
    /// The client's runtime ends.
    #[error("the client is closed")]
    Closed,
}

/// A server's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// What the text means.
    pub kind: Kind,
    /// The gRPC code; the text says more.
    pub code: Code,
    /// The text, byte for byte.
    pub message: String,
    /// The endpoint that answered.
    pub endpoint: String,
}

/// How the keeping of a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseEnd {
    /// The servers know it no more: its keys are deleted.
    #[error("lease {id:016x} expired or was revoked")]
    Gone {
        /// The lease.
        id: i64,
    },
    /// Its time passed without an answer: it may be gone, or not yet.
    #[error("lease {id:016x} was not confirmed within its time to live")]
    Unconfirmed {
        /// The lease.
        id: i64,
    },
    /// The server refuses to keep it alive: the user may not write its keys, say.
    #[error("lease {id:016x} may not be kept alive")]
    Refused {
        /// The lease.
        id: i64,
    },
}

/// What is known of a write that ended in an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has changed nothing and will not.
    NotApplied,
    /// It may have been done, may be done yet, or never.
    Unknown,
}

impl Error {
    /// What is known of a write that ended in this error. For calls that change nothing it says nothing.
    ///
    /// A quota that is used up counts as unknown: etcd may have written the last value that it refused.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Server(error) if error.kind == Kind::NoSpace => Outcome::Unknown,
            Self::Server(_) | Self::Unavailable { .. } | Self::Config(_) | Self::TooLarge { .. } => Outcome::NotApplied,
            _ => Outcome::Unknown,
        }
    }

    /// The server's refusal, if this is one or carries one.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server(error) => Some(error),
            Self::OutcomeUnknown { cause } => cause.server(),
            Self::Deadline { last } => last.as_deref().and_then(Self::server),
            _ => None,
        }
    }

    /// What the server's refusal means; [`Kind::Other`] without one.
    pub fn kind(&self) -> Kind {
        match self {
            Self::WatchCompacted { .. } | Self::ListCompacted { .. } => Kind::Compacted,
            Self::TooLarge { .. } => Kind::RequestTooLarge,
            other => other.server().map_or(Kind::Other, |error| error.kind),
        }
    }

    /// The server's gRPC code, if a server answered.
    pub fn code(&self) -> Option<Code> {
        self.server().map(|error| error.code)
    }
}

impl ServerError {
    /// Takes a server's status.
    pub(crate) fn new(status: &tonic::Status, endpoint: &str) -> Self {
        let kind = match Kind::of(status.message()) {
            Kind::Other if status.code() == Code::Unimplemented => Kind::Unimplemented,
            kind => kind,
        };
        Self { kind, code: status.code(), message: status.message().to_owned(), endpoint: endpoint.to_owned() }
    }

    /// Whether a write that was so refused has certainly changed nothing.
    ///
    /// Two of etcd's refusals travel with the code Unknown, so their texts decide; every other Unknown, and whatever
    /// speaks of time, of leaders or of the server's own end, may come after the write has entered the log.
    pub(crate) fn is_definite(&self) -> bool {
        match self.kind {
            Kind::TooManyRequests | Kind::NoLeader => true,
            Kind::UnhealthyCluster => true,
            _ => !matches!(
                self.code,
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Aborted
                    | Code::Internal
                    | Code::Unknown
            ),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ServerError {}

/// etcd's words for a time that is over, and what came before it.
struct Deadline<'a>(&'a Option<Box<Error>>);

impl fmt::Display for Deadline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("context deadline exceeded")?;
        match self.0 {
            Some(last) => write!(f, " (last: {last})"),
            None => Ok(()),
        }
    }
}
