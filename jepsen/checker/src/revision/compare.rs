//! Where an answer differs from the model's, said as shortly as it can be.

use crate::edn::Edn;
use crate::history::store::{Response, header, revision};
use mechi_proto::etcdserverpb as pb;
use pb::response_op::Response as AnswerOp;
use std::collections::BTreeSet;

/// What differs, and the revisions that it names; `None` if nothing does.
pub(crate) fn difference(answer: &Response, wanted: &Response) -> Option<(String, Vec<i64>)> {
    if same(answer, wanted) {
        return None;
    }
    let (heard, meant) = (plain(answer).to_edn(), plain(wanted).to_edn());
    let mut parts = Vec::new();
    let mut revisions = BTreeSet::new();
    differ("", &heard, &meant, &mut parts, &mut revisions);
    let (parts, more) = parts.split_at(parts.len().min(3));
    let more = if more.is_empty() { String::new() } else { format!("; and {} more", more.len()) };
    Some((format!("{}{more}", parts.join("; ")), revisions.into_iter().collect()))
}

/// Most answers are equal, and are compared without a copy.
fn same(answer: &Response, wanted: &Response) -> bool {
    let headers = answer.revision() == wanted.revision();
    headers
        && match (answer, wanted) {
            (Response::Range(a), Response::Range(b)) => (&a.kvs, a.more, a.count) == (&b.kvs, b.more, b.count),
            (Response::Put(a), Response::Put(b)) => a.prev_kv == b.prev_kv,
            (Response::DeleteRange(a), Response::DeleteRange(b)) => {
                (a.deleted, &a.prev_kvs) == (b.deleted, &b.prev_kvs)
            }
            _ => plain(answer) == plain(wanted),
        }
}

/// Without what a header says beside the revision, and without the headers of a transaction's parts, which etcd fills
/// in some versions only.
fn plain(response: &Response) -> Response {
    let mut response = response.clone();
    let only = |it: &mut Option<pb::ResponseHeader>| *it = header(revision(it));
    match &mut response {
        Response::Range(it) => only(&mut it.header),
        Response::Put(it) => only(&mut it.header),
        Response::DeleteRange(it) => only(&mut it.header),
        Response::Txn(it) => {
            only(&mut it.header);
            bare(it);
        }
        Response::Compaction(it) => only(&mut it.header),
        Response::LeaseGrant(it) => only(&mut it.header),
        Response::LeaseRevoke(it) => only(&mut it.header),
        Response::LeaseKeepAlive(it) => only(&mut it.header),
        Response::LeaseTimeToLive(it) => only(&mut it.header),
    }
    response
}

fn bare(txn: &mut pb::TxnResponse) {
    for op in &mut txn.responses {
        match &mut op.response {
            Some(AnswerOp::ResponseRange(it)) => it.header = None,
            Some(AnswerOp::ResponsePut(it)) => it.header = None,
            Some(AnswerOp::ResponseDeleteRange(it)) => it.header = None,
            Some(AnswerOp::ResponseTxn(it)) => {
                it.header = None;
                bare(it);
            }
            None => {}
        }
    }
}

/// Goes down to where two forms differ; one version of a key is shown whole.
fn differ(place: &str, heard: &Edn, meant: &Edn, parts: &mut Vec<String>, revisions: &mut BTreeSet<i64>) {
    if heard == meant {
        return;
    }
    let kv = |edn: &Edn| edn.get("mod").int();
    match (heard, meant) {
        (Edn::Map(a), Edn::Map(b)) if kv(heard).is_none() && kv(meant).is_none() => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let (a, b) = (a.get(key).unwrap_or(&Edn::Nil), b.get(key).unwrap_or(&Edn::Nil));
                differ(&format!("{place}{key}"), a, b, parts, revisions);
            }
        }
        (Edn::Vector(a), Edn::Vector(b)) if a.len() == b.len() => {
            for ((a, b), at) in a.iter().zip(b).zip(0..) {
                differ(&format!("{place}[{at}]"), a, b, parts, revisions);
            }
        }
        (Edn::Vector(a), Edn::Vector(b)) => {
            // Of two lists of different lengths, what only one of them holds.
            let missing: Vec<_> = b.iter().filter(|item| !a.contains(item)).cloned().collect();
            let extra: Vec<_> = a.iter().filter(|item| !b.contains(item)).cloned().collect();
            revisions.extend(missing.iter().chain(&extra).filter_map(kv));
            parts.push(format!("{place} lacks {} and has {} too many", Edn::Vector(missing), Edn::Vector(extra)));
        }
        _ => {
            revisions.extend([heard, meant].into_iter().filter_map(kv));
            parts.push(format!("{place} was {heard}, wanted {meant}"));
        }
    }
}
