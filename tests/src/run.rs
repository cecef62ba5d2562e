//! Runs one generated operation against a server and brings the answer into a form that two servers can share.

use crate::client::Client;
use crate::generate::{Known, Op};
use mechi_proto::etcdserverpb as pb;
use tonic::Status;

/// An answer without what may differ between two clusters: ids, terms, remaining TTLs.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Answer {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    Grant(pb::LeaseGrantResponse),
    Revoke(pb::LeaseRevokeResponse),
    TimeToLive(pb::LeaseTimeToLiveResponse),
    Leases(pb::LeaseLeasesResponse),
    HashKv(pb::HashKvResponse),
    /// gRPC code and text.
    Refused(i32, String),
}

impl Answer {
    /// Learns the newest revision from the answer.
    pub fn teach(&self, op: &Op, known: &mut Known) {
        let header = match self {
            Self::Range(answer) => &answer.header,
            Self::Put(answer) => &answer.header,
            Self::DeleteRange(answer) => &answer.header,
            Self::Txn(answer) => &answer.header,
            Self::Compact(answer) => &answer.header,
            Self::Revoke(answer) => &answer.header,
            _ => &None,
        };
        if let Some(header) = header {
            known.revision = known.revision.max(header.revision);
        }
        if let (Self::Compact(_), Op::Compact(request)) = (self, op) {
            known.compacted = request.revision;
        }
    }
}

/// Sends `op` and waits for its answer.
pub async fn run(client: &mut Client, op: &Op) -> Answer {
    let answer = match op.clone() {
        Op::Range(request) => client.kv.range(request).await.map(|a| Answer::Range(a.into_inner())),
        Op::Put(request) => client.kv.put(request).await.map(|a| Answer::Put(a.into_inner())),
        Op::DeleteRange(request) => client.kv.delete_range(request).await.map(|a| Answer::DeleteRange(a.into_inner())),
        Op::Txn(request) => client.kv.txn(request).await.map(|a| Answer::Txn(a.into_inner())),
        Op::Compact(request) => client.kv.compact(request).await.map(|a| Answer::Compact(a.into_inner())),
        Op::Grant(request) => client.lease.lease_grant(request).await.map(|a| Answer::Grant(a.into_inner())),
        Op::Revoke(request) => client.lease.lease_revoke(request).await.map(|a| Answer::Revoke(a.into_inner())),
        Op::TimeToLive(request) => {
            client.lease.lease_time_to_live(request).await.map(|a| Answer::TimeToLive(a.into_inner()))
        }
        Op::Leases => {
            client.lease.lease_leases(pb::LeaseLeasesRequest {}).await.map(|a| Answer::Leases(a.into_inner()))
        }
        Op::HashKv(request) => client.maintenance.hash_kv(request).await.map(|a| Answer::HashKv(a.into_inner())),
    };
    normal(answer)
}

fn normal(answer: Result<Answer, Status>) -> Answer {
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(status) => return Answer::Refused(status.code() as i32, status.message().to_owned()),
    };
    match &mut answer {
        Answer::Range(a) => strip(&mut a.header),
        Answer::Put(a) => strip(&mut a.header),
        Answer::DeleteRange(a) => strip(&mut a.header),
        Answer::Txn(a) => strip(&mut a.header),
        Answer::Compact(a) => strip(&mut a.header),
        Answer::Grant(a) => strip(&mut a.header),
        Answer::Revoke(a) => strip(&mut a.header),
        Answer::TimeToLive(a) => {
            strip(&mut a.header);
            // Seconds go on between the two servers; that there are some left is the same.
            a.ttl = a.ttl.signum();
            a.keys.sort();
        }
        Answer::Leases(a) => {
            strip(&mut a.header);
            a.leases.sort_by_key(|lease| lease.id);
        }
        Answer::HashKv(a) => strip(&mut a.header),
        Answer::Refused(..) => {}
    }
    answer
}

fn strip(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        *header = pb::ResponseHeader { revision: header.revision, ..Default::default() };
    }
}
