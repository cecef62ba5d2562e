//! The handshake: who speaks, to whom and in which protocol, in the metadata of every call between members.

use mechi_replica::types::MemberId;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Instant;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

/// The protocol between members. It rises when a member of before could misunderstand one of after; what is only new is
/// ignored by those that do not know it.
pub const PROTOCOL: u64 = 1;

const PROTOCOL_KEY: &str = "mechi-protocol";
const VERSION_KEY: &str = "mechi-version";
const CLUSTER_KEY: &str = "mechi-cluster";
const FROM_KEY: &str = "mechi-from";
const TO_KEY: &str = "mechi-to";
const LANE_KEY: &str = "mechi-lane";

/// Which of the two connections of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Heartbeats, votes, reads; also the unary calls.
    Urgent,
    /// Entries, batches, digests, offers.
    Bulk,
}

impl Lane {
    /// Its name in metadata and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Bulk => "bulk",
        }
    }
}

/// What this member says of itself, and asks of others.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The cluster of both.
    pub cluster: u64,
    /// This member.
    pub own: MemberId,
    /// [`PROTOCOL`] but in tests.
    pub protocol: u64,
}

/// What a caller said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The member that calls.
    pub from: MemberId,
    /// Its release, for people.
    pub version: String,
    /// The connection that it calls on, where it matters.
    pub lane: Lane,
}

impl Hello {
    /// Makes a request to member `to` that says who asks.
    pub fn request<T>(&self, message: T, to: MemberId, lane: Lane) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(PROTOCOL_KEY, MetadataValue::from(self.protocol));
        metadata.insert(VERSION_KEY, MetadataValue::from_static(env!("CARGO_PKG_VERSION")));
        metadata.insert(LANE_KEY, MetadataValue::from_static(lane.name()));
        for (key, id) in [(CLUSTER_KEY, self.cluster), (FROM_KEY, self.own.0), (TO_KEY, to.0)] {
            let value = format!("{id:x}").parse().expect("hexadecimal digits are metadata");
            metadata.insert(key, value);
        }
        request
    }

    /// Checks a caller; `knows` tells the other members of this cluster.
    ///
    /// - Errors: `FailedPrecondition` with a sentence that names both sides.
    pub fn check(&self, metadata: &MetadataMap, knows: impl Fn(MemberId) -> bool) -> Result<Caller, Status> {
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        let refuse = |why: String| Status::failed_precondition(why);
        let own = self.own;
        let number = |key, radix| {
            let found = text(key).and_then(|text| u64::from_str_radix(text, radix).ok());
            found.ok_or_else(|| refuse(format!("the caller of member {own} does not say its {key}")))
        };
        let protocol = number(PROTOCOL_KEY, 10)?;
        let version = text(VERSION_KEY).unwrap_or("unknown").to_owned();
        let from = MemberId(number(FROM_KEY, 16)?);
        if protocol != self.protocol {
            return Err(refuse(format!(
                "member {from} (version {version}) speaks protocol {protocol}, member {own} (version {}) protocol {}",
                env!("CARGO_PKG_VERSION"),
                self.protocol
            )));
        }
        let cluster = number(CLUSTER_KEY, 16)?;
        if cluster != self.cluster {
            let ours = self.cluster;
            return Err(refuse(format!(
                "member {from} belongs to cluster {cluster:x}, member {own} to cluster {ours:x}"
            )));
        }
        let to = MemberId(number(TO_KEY, 16)?);
        if to != own {
            return Err(refuse(format!("member {from} means to reach member {to}, but this is member {own}")));
        }
        if !knows(from) {
            return Err(refuse(format!("member {from} is not among the members that member {own} knows")));
        }
        let lane = if text(LANE_KEY) == Some(Lane::Bulk.name()) { Lane::Bulk } else { Lane::Urgent };
        Ok(Caller { from, version, lane })
    }
}

/// Lets the same trouble be logged once in a while.
#[derive(Debug, Default)]
pub(super) struct Once {
    said: Mutex<VecDeque<(Instant, String)>>,
}

impl Once {
    /// Whether this text may be logged now: a new one, or long after it was logged last.
    pub(super) fn may_log(&self, text: &str) -> bool {
        let (mut said, now) = (self.said.lock(), Instant::now());
        said.retain(|(at, _)| now.saturating_duration_since(*at) < crate::limits::PEER_LOG_PAUSE);
        if said.iter().any(|(_, one)| one == text) {
            return false;
        }
        said.truncate(crate::limits::PEER_LOG_TEXTS_MAX - 1);
        said.push_front((now, text.to_owned()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(own: u64) -> Hello {
        Hello { cluster: 0xc1, own: MemberId(own), protocol: PROTOCOL }
    }

    #[test]
    fn a_known_member_of_this_cluster_is_let_in() {
        let request = hello(0xa).request((), MemberId(0xb), Lane::Bulk);
        let caller = hello(0xb).check(request.metadata(), |id| id == MemberId(0xa)).unwrap();
        assert_eq!((caller.from, caller.lane), (MemberId(0xa), Lane::Bulk));
    }

    #[test]
    fn whoever_is_wrong_is_told_both_sides() {
        let request = |hello: Hello, to| hello.request((), MemberId(to), Lane::Urgent);
        let newer = Hello { protocol: 2, ..hello(0xa) };
        let elsewhere = Hello { cluster: 0xc2, ..hello(0xa) };
        for (request, text) in [
            (request(elsewhere, 0xb), "member a belongs to cluster c2, member b to cluster c1"),
            (request(hello(0xa), 0xd), "member a means to reach member d, but this is member b"),
            (request(hello(0xe), 0xb), "member e is not among the members that member b knows"),
            (Request::new(()), "the caller of member b does not say its mechi-protocol"),
        ] {
            let status = hello(0xb).check(request.metadata(), |id| id == MemberId(0xa)).unwrap_err();
            assert_eq!((status.code(), status.message()), (tonic::Code::FailedPrecondition, text));
        }
        let status = hello(0xb).check(request(newer, 0xb).metadata(), |_| true).unwrap_err();
        let text = status.message();
        assert!(text.contains("speaks protocol 2") && text.ends_with("protocol 1"), "{text}");
    }
}
