//! The only place that knows gRPC's status codes: what a refusal is called on the wire.
//!
//! Clients match on the texts byte for byte, and some on the codes too, so both are etcd's even where etcd's own
//! documentation says otherwise (see [`code`]).

use crate::grpc::limits::ANSWER_BYTES_MAX;
use http::{HeaderMap, HeaderValue, Response, header};
use mechi_replica::outcome::Error;
use std::fmt;
use std::sync::LazyLock;
pub use tonic::Code;

/// How a call ended, if not with an answer: a gRPC code and a text.
#[derive(Clone)]
pub struct Status(tonic::Status);

impl Status {
    fn new(code: Code, text: impl Into<String>) -> Self {
        Self(tonic::Status::new(code, text))
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.0.code()
    }

    /// The text that travels as `grpc-message`.
    pub fn text(&self) -> &str {
        self.0.message()
    }

    /// The client went away or reset its stream.
    pub fn canceled() -> Self {
        Self::new(Code::Cancelled, "context canceled")
    }

    /// The client's own deadline passed.
    pub fn deadline() -> Self {
        Self::new(Code::DeadlineExceeded, "context deadline exceeded")
    }

    /// No such service, in grpc-go's words.
    pub fn unknown_service(service: &str) -> Self {
        Self::new(Code::Unimplemented, format!("unknown service {service}"))
    }

    /// No such method in a known service, in grpc-go's words.
    pub fn unknown_method(service: &str, method: &str) -> Self {
        Self::new(Code::Unimplemented, format!("unknown method {method} for service {service}"))
    }

    /// A path without a service and a method, in grpc-go's words.
    pub fn malformed_method(path: &str) -> Self {
        Self::new(Code::Unimplemented, format!("malformed method name: {path:?}"))
    }

    /// A method or an option that is not served; `sentence` says so to a person.
    pub fn unimplemented(sentence: &str) -> Self {
        Self::new(Code::Unimplemented, sentence)
    }

    /// The health service does not know the asked service, in grpc-go's words.
    pub fn unknown_health_service() -> Self {
        Self::new(Code::NotFound, "unknown service")
    }

    /// A request message above the limit, refused by its length alone, in grpc-go's words.
    pub fn message_too_large(bytes: u64, max: u64) -> Self {
        Self::new(Code::ResourceExhausted, format!("grpc: received message larger than max ({bytes} vs. {max})"))
    }

    /// An answer that no gRPC client could take, in grpc-go's words.
    pub fn answer_too_large(bytes: u64) -> Self {
        let text = format!("grpc: trying to send message larger than max ({bytes} vs. {ANSWER_BYTES_MAX})");
        Self::new(Code::ResourceExhausted, text)
    }

    /// Bytes that are not the wanted message; `streaming` calls have another wording in grpc-go.
    pub fn malformed_message(streaming: bool) -> Self {
        let context = if streaming {
            "grpc: failed to unmarshal the received message"
        } else {
            "grpc: error unmarshalling request"
        };
        // protobuf-go says no more than this of broken wire data, and prost's detail would differ from it.
        Self::new(Code::Internal, format!("{context}: proto: cannot parse invalid wire-format data"))
    }

    /// The request stream ended within a message; grpc-go gives the same text two codes.
    pub fn cut_message(streaming: bool) -> Self {
        Self::new(if streaming { Code::Internal } else { Code::Unknown }, "unexpected EOF")
    }

    /// A unary call without its one message, in grpc-go's words.
    pub fn missing_message() -> Self {
        let text = "cardinality violation: received no request message from non-client-streaming RPC";
        Self::new(Code::Internal, text)
    }

    /// A packed message that is larger than the limit once it is unpacked, in grpc-go's words.
    pub fn unpacked_too_large(bytes_max: usize) -> Self {
        Self::new(
            Code::ResourceExhausted,
            format!("grpc: received message after decompression larger than max {bytes_max}"),
        )
    }

    /// A message that is not packed as its call says.
    pub fn malformed_gzip(error: &std::io::Error) -> Self {
        Self::new(Code::Internal, format!("grpc: failed to decompress the message: {error}"))
    }

    /// A message marked as compressed by what is not known here; only gzip is.
    pub fn compressed(encoding: Option<&str>) -> Self {
        match encoding {
            None | Some("identity") => {
                Self::new(Code::Internal, "grpc: compressed flag set with identity or empty encoding")
            }
            Some(encoding) => {
                let text = format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}");
                Self::new(Code::Unimplemented, text)
            }
        }
    }

    /// A frame whose first byte is neither 0 nor 1, in grpc-go's words.
    pub fn bad_frame(flag: u8) -> Self {
        Self::new(Code::Internal, format!("grpc: received unexpected payload format {flag}"))
    }

    /// A `grpc-timeout` that is none.
    pub fn malformed_timeout() -> Self {
        Self::new(Code::Internal, "malformed grpc-timeout")
    }

    /// An enum's number that the request must not hold.
    pub fn unknown_choice(field: &str, value: i32) -> Self {
        Self::new(Code::InvalidArgument, format!("etcdserver: unknown {field} {value}"))
    }

    /// Something that only a bug can bring about.
    pub fn bug(what: impl fmt::Display) -> Self {
        Self::new(Code::Internal, format!("bug: {what}"))
    }

    /// The headers of an answer that has no message ("trailers only").
    pub fn response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.headers_mut() = self.trailers();
        response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
        response
    }

    /// The trailers that end an answer.
    pub fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(3);
        if self.0.add_header(&mut trailers).is_err() {
            // Only a text that cannot be a header gets here; the code alone is still right.
            trailers.insert(GRPC_STATUS, HeaderValue::from(self.code() as i32));
        }
        trailers
    }
}

/// The content type of every gRPC answer.
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

const GRPC_STATUS: &str = "grpc-status";

/// The headers of an answer that has messages.
pub fn head() -> HeaderMap {
    static HEAD: LazyLock<HeaderMap> = LazyLock::new(|| HeaderMap::from_iter([(header::CONTENT_TYPE, CONTENT_TYPE)]));
    HEAD.clone()
}

/// The trailers of a call that went well.
pub fn ok_trailers() -> HeaderMap {
    static TRAILERS: LazyLock<HeaderMap> = LazyLock::new(|| {
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        trailers.insert("grpc-message", HeaderValue::from_static(""));
        trailers
    });
    TRAILERS.clone()
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(code(&error), error.to_string())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code(), self.text())
    }
}

/// Gives the code that etcd sends with `error`.
///
/// - Source: etcd `api/v3rpc/rpctypes/error.go` and `server/etcdserver/api/v3rpc/util.go`. In the latter's table
///   `too many requests` stands as a client-side error, so that it leaves etcd as Unknown and not as documented.
pub fn code(error: &Error) -> Code {
    match error {
        Error::EmptyKey
        | Error::KeyNotFound
        | Error::ValueProvided
        | Error::LeaseProvided
        | Error::TooManyOps
        | Error::DuplicateKey
        | Error::InvalidClientApiVersion
        | Error::InvalidSortOption
        | Error::RequestTooLarge => Code::InvalidArgument,
        Error::Compacted | Error::FutureRevision | Error::LeaseTtlTooLarge => Code::OutOfRange,
        Error::NoSpace => Code::ResourceExhausted,
        Error::TooManyRequests => Code::Unknown,
        Error::LeaseNotFound | Error::MemberNotFound => Code::NotFound,
        Error::LeaseExists
        | Error::MemberNotLearner
        | Error::NotEnoughStartedMembers
        | Error::NotLeader
        | Error::BadLeaderTransferee
        | Error::AuthNotEnabled => Code::FailedPrecondition,
        Error::UnhealthyCluster
        | Error::NoLeader
        | Error::LeaderChanged
        | Error::Stopped
        | Error::Timeout
        | Error::TimeoutWaitAppliedIndex => Code::Unavailable,
        // Not a code after which a client may take the request for undone.
        Error::BatchRefused => Code::Internal,
        Error::Corrupt => Code::DataLoss,
        Error::WatchCanceled => Code::Cancelled,
        Error::PermissionDenied => Code::PermissionDenied,
        Error::Unimplemented(_) => Code::Unimplemented,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_etcds_texts_and_codes() {
        let rows = [
            (Error::EmptyKey, 3, "etcdserver: key is not provided"),
            (Error::KeyNotFound, 3, "etcdserver: key not found"),
            (Error::ValueProvided, 3, "etcdserver: value is provided"),
            (Error::LeaseProvided, 3, "etcdserver: lease is provided"),
            (Error::TooManyOps, 3, "etcdserver: too many operations in txn request"),
            (Error::DuplicateKey, 3, "etcdserver: duplicate key given in txn request"),
            (Error::InvalidClientApiVersion, 3, "etcdserver: invalid client api version"),
            (Error::InvalidSortOption, 3, "etcdserver: invalid sort option"),
            (Error::RequestTooLarge, 3, "etcdserver: request is too large"),
            (Error::Compacted, 11, "etcdserver: mvcc: required revision has been compacted"),
            (Error::FutureRevision, 11, "etcdserver: mvcc: required revision is a future revision"),
            (Error::LeaseTtlTooLarge, 11, "etcdserver: too large lease TTL"),
            (Error::NoSpace, 8, "etcdserver: mvcc: database space exceeded"),
            (Error::TooManyRequests, 2, "etcdserver: too many requests"),
            (Error::LeaseNotFound, 5, "etcdserver: requested lease not found"),
            (Error::LeaseExists, 9, "etcdserver: lease already exists"),
            (Error::MemberNotFound, 5, "etcdserver: member not found"),
            (Error::MemberNotLearner, 9, "etcdserver: can only promote a learner member"),
            (
                Error::NotEnoughStartedMembers,
                9,
                "etcdserver: re-configuration failed due to not enough started members",
            ),
            (Error::UnhealthyCluster, 14, "etcdserver: unhealthy cluster"),
            (Error::NotLeader, 9, "etcdserver: not leader"),
            (Error::BadLeaderTransferee, 9, "etcdserver: bad leader transferee"),
            (Error::NoLeader, 14, "etcdserver: no leader"),
            (Error::LeaderChanged, 14, "etcdserver: leader changed"),
            (Error::Stopped, 14, "etcdserver: server stopped"),
            (Error::Timeout, 14, "etcdserver: request timed out"),
            (
                Error::TimeoutWaitAppliedIndex,
                14,
                "etcdserver: request timed out, waiting for the applied index took too long",
            ),
            (Error::Corrupt, 15, "etcdserver: corrupt cluster"),
            (Error::WatchCanceled, 1, "etcdserver: watch canceled"),
            (Error::PermissionDenied, 7, "etcdserver: permission denied"),
            (Error::AuthNotEnabled, 9, "etcdserver: authentication is not enabled"),
            (Error::Unimplemented("not today"), 12, "not today"),
        ];
        for (error, code, text) in rows {
            let status = Status::from(error);
            assert_eq!((status.code() as i32, status.text()), (code, text));
        }
    }

    #[test]
    fn the_librarys_refusals_are_grpc_gos() {
        let rows = [
            (Status::canceled(), 1, "context canceled"),
            (Status::deadline(), 4, "context deadline exceeded"),
            (Status::unknown_service("a.B"), 12, "unknown service a.B"),
            (Status::unknown_method("a.B", "C"), 12, "unknown method C for service a.B"),
            (Status::message_too_large(9, 4), 8, "grpc: received message larger than max (9 vs. 4)"),
            (
                Status::answer_too_large(3_000_000_000),
                8,
                "grpc: trying to send message larger than max (3000000000 vs. 2147483647)",
            ),
        ];
        for (status, code, text) in rows {
            assert_eq!((status.code() as i32, status.text()), (code, text));
        }
    }

    #[test]
    fn a_status_survives_the_way_through_headers() {
        let sent = Status::unknown_method("a.B", "100 % \u{e9}\n");
        let read = tonic::Status::from_header_map(&sent.trailers()).expect("grpc-status is there");
        assert_eq!((read.code(), read.message()), (sent.code(), sent.text()));
        assert_eq!(ok_trailers().get("grpc-status").expect("grpc-status is there"), "0");
    }
}
