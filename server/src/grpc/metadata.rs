//! What a call's request headers ask for: a leader, an API version, a deadline.

use crate::grpc::limits::TIMEOUT_DIGITS_MAX;
use crate::grpc::status::{Code, Status};
use crate::node::Node;
use http::HeaderMap;
use mechi_replica::outcome::Error;
use std::time::{Duration, Instant};

/// The shapes of gRPC calls, as `grpc_type` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Unary,
    ServerStream,
    BidiStream,
}

impl Kind {
    /// The value of the metrics label `grpc_type`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }

    /// The value of the label `type` of `etcd_server_client_requests_total`, which knows two kinds only.
    pub fn client_label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream | Self::BidiStream => "stream",
        }
    }
}

/// One method, as the metrics name it.
#[derive(Clone, Copy, Debug)]
pub struct Method<'a> {
    /// For example `etcdserverpb.KV`.
    pub service: &'a str,
    /// For example `Put`.
    pub name: &'a str,
    /// How many messages go each way.
    pub kind: Kind,
}

/// Watches calls for the metrics; decides nothing. Only known methods are told of, so labels stay few.
pub trait Observer: Send + Sync {
    /// A call began (`grpc_server_started_total`).
    fn started(&self, method: Method<'_>);
    /// A call passed the checks on its headers; `version` is its `client-api-version`, or `unknown`
    /// (`etcd_server_client_requests_total`). The version is the client's text: bound the number of labels.
    fn client_request(&self, kind: Kind, version: &str);
    /// A call ended; one that the client left ends with [`Code::Cancelled`] (`grpc_server_handled_total`).
    fn handled(&self, method: Method<'_>, code: Code, took: Duration);
}

/// Watches nothing.
impl Observer for () {
    fn started(&self, _: Method<'_>) {}
    fn client_request(&self, _: Kind, _: &str) {}
    fn handled(&self, _: Method<'_>, _: Code, _: Duration) {}
}

/// What a call's headers ask for.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// The `client-api-version`, `unknown` without one; `None` if it is not UTF-8.
    version: Option<String>,
    /// `hasleader: true`: refuse at once without a leader, and end open streams when it is lost.
    pub requires_leader: bool,
    /// When the client stops waiting.
    pub deadline: Option<Instant>,
}

impl Metadata {
    /// Reads the headers of a call that came in at `now`.
    ///
    /// - Errors: a malformed `grpc-timeout`, as grpc-go refuses it, before the message is read.
    pub fn read(headers: &HeaderMap, now: Instant) -> Result<Self, Status> {
        let version = match headers.get("client-api-version") {
            None => Some("unknown".to_owned()),
            Some(value) => std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned),
        };
        let deadline = match headers.get("grpc-timeout") {
            None => None,
            // A deadline too far to be represented is none.
            Some(value) => now.checked_add(timeout(value.as_bytes()).ok_or_else(Status::malformed_timeout)?),
        };
        let requires_leader = headers.get("hasleader").is_some_and(|value| value == "true");
        Ok(Self { version, requires_leader, deadline })
    }

    /// Checks what etcd's interceptors check: the version's text, then that there is a leader if one is asked for.
    pub fn check(&self, node: &Node, kind: Kind, observer: &dyn Observer) -> Result<(), Status> {
        let version = self.version.as_deref().ok_or(Error::InvalidClientApiVersion)?;
        observer.client_request(kind, version);
        if self.requires_leader && !node.has_leader() {
            return Err(Error::NoLeader.into());
        }
        Ok(())
    }
}

/// Reads a `grpc-timeout`: one to eight digits and a unit.
fn timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(name: &'static str, value: &[u8]) -> Result<Metadata, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value).unwrap());
        Metadata::read(&headers, Instant::now())
    }

    #[test]
    fn timeouts_have_up_to_eight_digits_and_a_unit() {
        assert_eq!(timeout(b"5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(timeout(b"4999848u"), Some(Duration::from_micros(4_999_848)));
        assert_eq!(timeout(b"1n"), Some(Duration::from_nanos(1)));
        for bad in [&b""[..], b"S", b"5", b"5s", b"-1S", b"+1S", b"123456789S", b" 5S"] {
            assert_eq!(timeout(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_malformed_timeout_ends_the_call() {
        assert_eq!(read("grpc-timeout", b"soon").unwrap_err().code(), Code::Internal);
    }

    #[test]
    fn a_leader_is_required_only_by_the_word_true() {
        assert!(read("hasleader", b"true").unwrap().requires_leader);
        assert!(!read("hasleader", b"TRUE").unwrap().requires_leader);
        assert!(!read("other", b"true").unwrap().requires_leader);
    }

    #[test]
    fn a_version_must_be_utf8() {
        assert_eq!(read("client-api-version", b"3.7").unwrap().version.as_deref(), Some("3.7"));
        assert_eq!(read("other", b"").unwrap().version.as_deref(), Some("unknown"));
        assert_eq!(read("client-api-version", b"\xff\xfe").unwrap().version, None);
    }
}
