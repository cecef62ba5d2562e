//! What a call's request headers ask for: a leader, an API version, a deadline.

use crate::grpc::limits::TIMEOUT_DIGITS_MAX;
use crate::grpc::status::Status;
use crate::node::Node;
use http::{HeaderMap, HeaderName};
use mechi_replica::outcome::Error;
use std::time::{Duration, Instant};

/// What a client speaks, as etcd's clients tell.
pub const CLIENT_API_VERSION: HeaderName = HeaderName::from_static("client-api-version");
/// How a message that is marked as compressed is.
pub const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");

/// The shapes of gRPC calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Unary,
    ServerStream,
    BidiStream,
}

/// What a call's headers ask for.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Whether the `client-api-version` is UTF-8, as is that of a client that does not tell.
    version_is_text: bool,
    /// `hasleader: true`: refuse at once without a leader, and end open streams when it is lost.
    pub requires_leader: bool,
    /// When the client stops waiting.
    pub deadline: Option<Instant>,
}

impl Metadata {
    /// Reads the headers of a call that came in `now`.
    ///
    /// - Errors: a malformed `grpc-timeout`, as grpc-go refuses it, before the message is read.
    pub fn read(headers: &HeaderMap, now: impl FnOnce() -> Instant) -> Result<Self, Status> {
        let version_is_text =
            headers.get(CLIENT_API_VERSION).is_none_or(|value| std::str::from_utf8(value.as_bytes()).is_ok());
        let deadline = match headers.get(TIMEOUT) {
            None => None,
            // A deadline too far to be represented is none.
            Some(value) => now().checked_add(timeout(value.as_bytes()).ok_or_else(Status::malformed_timeout)?),
        };
        let requires_leader = headers.get(HAS_LEADER).is_some_and(|value| value == "true");
        Ok(Self { version_is_text, requires_leader, deadline })
    }

    /// Checks what etcd's interceptors check: the version's text, then that there is a leader if one is asked for.
    pub fn check(&self, node: &Node) -> Result<(), Status> {
        if !self.version_is_text {
            return Err(Error::InvalidClientApiVersion.into());
        }
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
    use crate::grpc::status::Code;
    use http::HeaderValue;

    fn read(name: &'static str, value: &[u8]) -> Result<Metadata, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value).unwrap());
        Metadata::read(&headers, Instant::now)
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
        assert!(read("client-api-version", b"3.7").unwrap().version_is_text);
        assert!(read("other", b"").unwrap().version_is_text);
        assert!(!read("client-api-version", b"\xff\xfe").unwrap().version_is_text);
    }
}
