//! What clients ask, and what they hear: one operation at a time each, at any member, never asked twice.

use super::options::Options;
use super::trace::Done;
use crate::rng::Rng;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use mechi_replica::conf;
use mechi_replica::outcome::{Error, Response};
use mechi_replica::types::{Index, LeaseId};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request as Step;
use std::collections::BTreeMap;

/// What a client asks.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub(super) enum Ask {
    Write(Request),
    Range(pb::RangeRequest),
    KeepAlive(LeaseId),
    /// An operator's, not a client's.
    Configure(Vec<conf::Step>),
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// A write's outcome, applied at `at`.
    Answer {
        /// The entry that held it.
        at: Index,
        /// What the client reads.
        result: Result<Response, Error>,
    },
    /// A read's outcome: the member had applied `at` when it looked.
    Read {
        /// The applied index.
        at: Index,
        /// The newest revision then.
        revision: i64,
        /// What the client reads.
        result: Result<pb::RangeResponse, Error>,
    },
    /// A lease lives so many seconds more; 0 says that there is none.
    Renewed(i64),
    /// Nothing was done.
    Refused(Error),
    /// Nobody knows.
    Unknown,
}

impl Outcome {
    /// What a keep-alive ends in.
    pub(super) fn renewed(answer: Result<i64, Error>) -> Self {
        answer.map_or_else(Self::Refused, Self::Renewed)
    }

    /// Whether the client got what it asked for.
    pub(super) fn is_ok(&self) -> bool {
        match self {
            Self::Answer { result, .. } => result.is_ok(),
            Self::Read { result, .. } => result.is_ok(),
            Self::Renewed(ttl) => *ttl > 0,
            Self::Refused(_) | Self::Unknown => false,
        }
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Op {
    /// Who asked.
    pub(super) client: u64,
    /// Which member it was asked of.
    pub(super) member: u64,
    /// What was asked.
    pub(super) ask: Ask,
    /// When, in microseconds of true time.
    pub(super) invoked: u64,
    /// When the client heard.
    pub(super) returned: Option<u64>,
    /// What it heard, or gave up on.
    pub(super) outcome: Option<Outcome>,
}

/// Characters of a question or an answer that are drawn.
const DRAWN_MAX: usize = 240;

impl Op {
    /// The operation as it is drawn.
    pub(super) fn drawn(&self, number: u64) -> Done {
        let short = |text: String| text.chars().take(DRAWN_MAX).collect::<String>();
        let class = match &self.outcome {
            None | Some(Outcome::Unknown) => "unknown",
            Some(outcome) if outcome.is_ok() => "ok",
            Some(_) => "no",
        };
        Done {
            number,
            client: self.client,
            member: self.member,
            from: self.invoked,
            to: self.returned,
            ask: short(format!("{:?}", self.ask)),
            outcome: short(self.outcome.as_ref().map_or("nothing yet".to_owned(), |outcome| format!("{outcome:?}"))),
            class,
        }
    }
}

/// Makes operations, from what all clients together know.
#[derive(Debug)]
pub(super) struct Work {
    rng: Rng,
    keys: u64,
    value_bytes: u64,
    ttl_max: u64,
    /// The newest revision that somebody read.
    pub(super) revision: i64,
    compacted: i64,
    leases: BTreeMap<i64, i64>,
    next_lease: i64,
    /// A lease that clients care for most.
    favourite: i64,
}

impl Work {
    /// Starts without knowing anything.
    pub(super) fn new(options: &Options, rng: Rng) -> Self {
        Self {
            rng,
            keys: options.keys,
            value_bytes: options.value_bytes,
            ttl_max: options.ttl_max,
            revision: 1,
            compacted: 0,
            leases: BTreeMap::new(),
            next_lease: 1,
            favourite: 0,
        }
    }

    /// Takes note of what was heard.
    pub(super) fn heard(&mut self, ask: &Ask, outcome: &Outcome) {
        match (ask, outcome) {
            (_, Outcome::Read { revision, .. }) => self.revision = self.revision.max(*revision),
            (Ask::Write(Request::LeaseGrant(grant)), Outcome::Answer { result: Ok(_), .. } | Outcome::Unknown) => {
                self.leases.insert(grant.id, grant.ttl);
            }
            (Ask::Write(Request::LeaseRevoke(revoke)), Outcome::Answer { .. }) => {
                self.leases.remove(&revoke.id);
            }
            (Ask::KeepAlive(id), Outcome::Renewed(0)) => {
                self.leases.remove(&id.0);
            }
            (_, Outcome::Answer { result: Err(Error::LeaseNotFound), .. }) => {
                if let Ask::Write(Request::Put(put)) = ask {
                    self.leases.remove(&put.lease);
                }
            }
            (_, Outcome::Answer { result: Ok(response), .. }) => {
                let header = match response {
                    Response::Put(done) => &done.header,
                    Response::DeleteRange(done) => &done.header,
                    Response::Txn(done) => &done.header,
                    _ => &None,
                };
                self.revision = self.revision.max(header.as_ref().map_or(0, |header| header.revision));
            }
            _ => {}
        }
    }

    /// Lets clients renew this lease more than others.
    pub(super) fn favour(&mut self, lease: i64) {
        self.favourite = lease;
    }

    /// The next operation, by its number.
    pub(super) fn next(&mut self, op: u64) -> Ask {
        match self.rng.below(100) {
            0..=33 => Ask::Write(Request::Put(self.put(op))),
            34..=45 => Ask::Write(Request::Txn(self.txn(op))),
            46..=51 => {
                let (key, range_end) = if self.rng.chance(60) { (self.key(), Bytes::new()) } else { self.range_keys() };
                Ask::Write(Request::DeleteRange(pb::DeleteRangeRequest {
                    key,
                    range_end,
                    prev_kv: self.rng.chance(30),
                }))
            }
            52..=71 => Ask::Range(self.range(false)),
            72..=79 => Ask::Range(self.range(true)),
            80..=81 => {
                let revision = (self.revision - self.rng.below(30) as i64).max(self.compacted + 1).max(1);
                self.compacted = self.compacted.max(revision);
                Ask::Write(Request::Compaction(pb::CompactionRequest { revision, physical: false }))
            }
            82..=86 => {
                let id = self.next_lease;
                self.next_lease += 1;
                let ttl = 1 + self.rng.below(self.ttl_max) as i64;
                Ask::Write(Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl }))
            }
            87 => match self.lease() {
                0 => Ask::Range(self.range(false)),
                id => Ask::Write(Request::LeaseRevoke(pb::LeaseRevokeRequest { id })),
            },
            _ => match self.lease() {
                0 => Ask::Range(self.range(false)),
                id => Ask::KeepAlive(LeaseId(id)),
            },
        }
    }

    /// A put that shows who asked for it.
    pub(super) fn put(&mut self, op: u64) -> pb::PutRequest {
        let mut value = format!("v{op}").into_bytes();
        let length = self.rng.below(self.value_bytes) as usize;
        value.resize(value.len().max(length), b'.');
        let lease = if self.rng.chance(20) { self.lease() } else { 0 };
        pb::PutRequest {
            key: self.key(),
            value: value.into(),
            lease,
            prev_kv: self.rng.chance(30),
            ..Default::default()
        }
    }

    fn txn(&mut self, op: u64) -> pb::TxnRequest {
        let key = self.key();
        let (target, union) = match self.rng.below(3) {
            0 => (CompareTarget::Version, TargetUnion::Version(self.rng.below(4) as i64)),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
            _ => {
                let revision = self.revision - self.rng.below(20) as i64;
                (CompareTarget::Mod, TargetUnion::ModRevision(revision.max(0)))
            }
        };
        let result = *self.rng.pick(&[CompareResult::Equal, CompareResult::Greater, CompareResult::Less]) as i32;
        let compare = pb::Compare {
            result,
            target: target as i32,
            key: key.clone(),
            target_union: Some(union),
            ..Default::default()
        };
        let put = |request| pb::RequestOp { request: Some(Step::RequestPut(request)) };
        let mut success = vec![put(pb::PutRequest { key: key.clone(), ..self.put(op) })];
        if self.rng.chance(40) {
            let other = pb::PutRequest { key: format!("{}+", String::from_utf8_lossy(&key)).into(), ..self.put(op) };
            success.push(put(other));
        }
        let range = pb::RangeRequest { key, ..Default::default() };
        success.push(pb::RequestOp { request: Some(Step::RequestRange(range.clone())) });
        let failure = vec![pb::RequestOp { request: Some(Step::RequestRange(range)) }];
        pb::TxnRequest { compare: vec![compare], success, failure }
    }

    fn range(&mut self, serializable: bool) -> pb::RangeRequest {
        let (key, range_end) = if self.rng.chance(50) { (self.key(), Bytes::new()) } else { self.range_keys() };
        // Mostly now; sometimes a revision that is perhaps compacted.
        let revision = if self.rng.chance(12) { (self.revision - self.rng.below(12) as i64).max(1) } else { 0 };
        let limit = if self.rng.chance(15) { 1 + self.rng.below(3) as i64 } else { 0 };
        pb::RangeRequest { key, range_end, revision, limit, serializable, ..Default::default() }
    }

    fn key(&mut self) -> Bytes {
        format!("k{:02}", self.rng.below(self.keys)).into()
    }

    fn range_keys(&mut self) -> (Bytes, Bytes) {
        let (a, b) = (self.rng.below(self.keys), self.rng.below(self.keys));
        (format!("k{:02}", a.min(b)).into(), format!("k{:02}", a.max(b) + 1).into())
    }

    /// A lease that was granted and may still live; 0 if there is none.
    fn lease(&mut self) -> i64 {
        // The newest ones, since those live.
        let ids: Vec<i64> = self.leases.keys().rev().take(6).copied().collect();
        if self.leases.contains_key(&self.favourite) && self.rng.chance(50) {
            return self.favourite;
        }
        if ids.is_empty() { 0 } else { *self.rng.pick(&ids) }
    }
}
