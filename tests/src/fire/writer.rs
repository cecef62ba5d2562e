//! A client that changes things, one after the other, and never tries anything twice.

use super::record::{Outcome, Read, What, Write, brief};
use super::workload::Shared;
use crate::client::{Client, revision};
use crate::rng::Rng;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};

/// How long one request may take: longer than an election, shorter than a test.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// Time between two requests of one client: a machine that is busy with nothing else has elections too.
const PAUSE: Duration = Duration::from_millis(3);

const OWN_KEYS: u64 = 8;
const SHARED_KEYS: u64 = 4;

/// One client.
pub(super) struct Writer {
    shared: Arc<Shared>,
    client: usize,
    rng: Rng,
    /// Counts its attempts: each value is its own.
    count: u64,
    /// The revisions of shared keys as it last heard.
    known: BTreeMap<Bytes, i64>,
    /// The newest revision that it was told.
    newest: i64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, client: usize, seed: u64) -> Self {
        Self { shared, client, rng: Rng::new(seed), count: 0, known: BTreeMap::new(), newest: 0 }
    }

    /// Works until the workload is stopped, through each member until something there goes wrong.
    pub(super) async fn run(mut self) {
        let mut turn = self.client;
        while !self.shared.is_stopped() {
            let endpoint = &self.shared.endpoints[turn % self.shared.endpoints.len()];
            turn += 1;
            let Ok(Ok(mut client)) = tokio::time::timeout(ANSWER_MAX, Client::connect(endpoint)).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            while !self.shared.is_stopped() && self.step(&mut client).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Does one thing; returns whether this member is worth another.
    async fn step(&mut self, client: &mut Client) -> bool {
        let own = Bytes::from(format!("own/{:02}/{}", self.client, self.rng.below(OWN_KEYS)));
        let guard = Bytes::from(format!("shared/{}", self.rng.below(SHARED_KEYS)));
        match self.rng.below(100) {
            0..55 => {
                let value = self.value();
                self.write(client, What::Put { key: own, value, lease: 0 }).await
            }
            55..65 => self.write(client, What::Delete { key: own }).await,
            65..85 => {
                let (at, value) = (self.known.get(&guard).copied().unwrap_or_default(), self.value());
                let beside = Bytes::from(format!("own/{:02}/beside", self.client));
                self.write(client, What::Swap { guard, at, value, beside }).await
            }
            85..90 => self.read(client, own, true).await,
            90..95 => self.read(client, guard, true).await,
            _ => self.read(client, own, false).await,
        }
    }

    fn value(&mut self) -> Bytes {
        self.count += 1;
        let tag = format!("{}:{} ", self.client, self.count);
        let bytes = self.shared.value_bytes(&mut self.rng);
        let mut value = tag.into_bytes();
        while value.len() < bytes {
            value.extend(self.rng.next_u64().to_le_bytes());
        }
        value.into()
    }

    async fn write(&mut self, client: &mut Client, what: What) -> bool {
        let after = self.shared.newest();
        let answer = tokio::time::timeout(ANSWER_MAX, send(client, &what)).await;
        let outcome = match answer {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(status)) => failed(&status),
            Err(_) => Outcome::Unknown("no answer in time".into()),
        };
        let goes_on = matches!(outcome, Outcome::Wrote(_) | Outcome::Idle { .. });
        match (&what, &outcome) {
            (_, Outcome::Wrote(at)) | (_, Outcome::Idle { at, .. }) => self.told(*at),
            _ => {}
        }
        if let What::Swap { guard, .. } = &what {
            match outcome {
                Outcome::Wrote(at) => drop(self.known.insert(guard.clone(), at)),
                Outcome::Idle { found, .. } => drop(self.known.insert(guard.clone(), found)),
                _ => {}
            }
        }
        let what = match what {
            What::Put { key, value, lease } => What::Put { key, value: brief(&value), lease },
            What::Swap { guard, at, value, beside } => What::Swap { guard, at, value: brief(&value), beside },
            other => other,
        };
        self.shared.wrote(Write { client: self.client, what, after, outcome });
        goes_on
    }

    async fn read(&mut self, client: &mut Client, key: Bytes, is_linearizable: bool) -> bool {
        let after = self.shared.newest();
        let request = pb::RangeRequest { key: key.clone(), serializable: !is_linearizable, ..Default::default() };
        let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_MAX, client.kv.range(request)).await else { return false };
        let answer = answer.into_inner();
        let at = revision(answer.header);
        let found = answer.kvs.first().map(|kv| (brief(&kv.value), kv.mod_revision));
        if is_linearizable {
            self.told(at);
            if key.starts_with(b"shared/") {
                self.known.insert(key.clone(), found.as_ref().map_or(0, |(_, at)| *at));
            }
        }
        self.shared.read(Read { client: self.client, key, at, found, is_linearizable, after });
        true
    }

    /// No client's revisions ever go back, whichever members tell them.
    fn told(&mut self, at: i64) {
        if at < self.newest {
            self.shared.wrong(format!("client {} was told revision {at} after {}", self.client, self.newest));
        }
        self.newest = self.newest.max(at);
    }
}

/// Sends one change, once.
pub(super) async fn send(client: &mut Client, what: &What) -> Result<Outcome, Status> {
    match what.clone() {
        What::Put { key, value, lease } => {
            let request = pb::PutRequest { key, value, lease, ..Default::default() };
            Ok(Outcome::Wrote(revision(client.kv.put(request).await?.into_inner().header)))
        }
        What::Delete { key } => {
            let request = pb::DeleteRangeRequest { key, ..Default::default() };
            let answer = client.kv.delete_range(request).await?.into_inner();
            let at = revision(answer.header);
            Ok(if answer.deleted > 0 { Outcome::Wrote(at) } else { Outcome::Idle { at, found: 0 } })
        }
        What::Swap { guard, at, value, beside } => {
            let compare = pb::Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Mod as i32,
                key: guard.clone(),
                target_union: Some(TargetUnion::ModRevision(at)),
                ..Default::default()
            };
            let put = |key: Bytes| {
                let request = pb::PutRequest { key, value: value.clone(), ..Default::default() };
                pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(request)) }
            };
            let get = pb::RangeRequest { key: guard.clone(), ..Default::default() };
            let get = pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(get)) };
            let txn =
                pb::TxnRequest { compare: vec![compare], success: vec![put(guard), put(beside)], failure: vec![get] };
            let answer = client.kv.txn(txn).await?.into_inner();
            let at = revision(answer.header);
            if answer.succeeded {
                return Ok(Outcome::Wrote(at));
            }
            let found = answer.responses.into_iter().find_map(|response| match response.response {
                Some(pb::response_op::Response::ResponseRange(range)) => Some(range),
                _ => None,
            });
            let found = found.and_then(|range| range.kvs.first().map(|kv| kv.mod_revision)).unwrap_or_default();
            Ok(Outcome::Idle { at, found })
        }
    }
}

/// What an error says of the attempt: only these say for sure that nothing was done.
pub(super) fn failed(status: &Status) -> Outcome {
    let text = format!("{:?}: {}", status.code(), status.message());
    let is_sure = matches!(
        status.code(),
        Code::InvalidArgument | Code::ResourceExhausted | Code::NotFound | Code::FailedPrecondition
    ) || matches!(status.message(), "etcdserver: too many requests" | "etcdserver: no leader");
    if is_sure { Outcome::Refused(text) } else { Outcome::Unknown(text) }
}
