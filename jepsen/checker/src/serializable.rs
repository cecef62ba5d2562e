//! K7: a serializable read may be old, but it is the exact state at the revision in its header, and no member goes back.

use crate::history::store::{Request, Response};
use crate::history::value::Value;
use crate::history::{History, Kind, Malformed, Pair};
use crate::revision::{Replay, difference};
use crate::verdict::{Finding, Verdict};
use mechi_proto::etcdserverpb as pb;
use pb::request_op::Request as AskOp;
use pb::response_op::Response as AnswerOp;
use std::collections::BTreeMap;

/// Checks the serializable reads of a history against the oracle's replay of it.
///
/// - Shape: the member that answered is the line's `:node`; lines without one are not compared with each other.
/// - Errors: a malformed history.
pub fn check(history: &History, replay: &Replay) -> Result<Verdict, Malformed> {
    let pairs = history.pairs()?;
    let mut findings = Vec::new();
    let mut open = 0;
    for pair in &pairs {
        let (Value::Ask(ask), Value::Answer(answer)) = (&pair.invoke.value, &pair.done.value) else { continue };
        if pair.done.kind != Kind::Ok || !ask.is_serializable() {
            continue;
        }
        if answer.revision() > replay.through {
            open += 1;
            continue;
        }
        findings.extend(content(pair.id(), ask, answer, replay));
    }
    findings.extend(backwards(&pairs));
    Ok(match Verdict::of(findings) {
        Verdict::Valid if open > 0 => Verdict::Unknown(vec![format!(
            "{open} serializable reads of revisions past {}, which the replay did not reach",
            replay.through
        )]),
        verdict => verdict,
    })
}

fn content(id: u64, ask: &Request, answer: &Response, replay: &Replay) -> Option<Finding> {
    let at = answer.revision();
    let wanted = match ask {
        Request::Range(range) => Response::Range(replay.model.range_as_of(range, at)),
        Request::Txn(txn) => {
            // Its comparisons saw that same state; the answer says which branch it was.
            let Response::Txn(heard) = answer else { return None };
            let branch = if heard.succeeded { &txn.success } else { &txn.failure };
            let read = |op: &pb::RequestOp| match &op.request {
                Some(AskOp::RequestRange(range)) => {
                    let response = Some(AnswerOp::ResponseRange(replay.model.range_as_of(range, at)));
                    Some(pb::ResponseOp { response })
                }
                _ => None,
            };
            let responses = branch.iter().filter_map(read).collect();
            Response::Txn(pb::TxnResponse { header: heard.header, succeeded: heard.succeeded, responses })
        }
        _ => return None,
    };
    let (text, revisions) = difference(answer, &wanted)?;
    let writers = revisions.iter().filter_map(|revision| replay.writers.get(revision).copied());
    let text = format!("serializable read {id} is not the state at its revision {at}: {text}");
    Some(Finding::new("K7", text, std::iter::once(id).chain(writers)))
}

/// Each member's revisions in the order of time.
fn backwards(pairs: &[Pair<'_>]) -> Vec<Finding> {
    let mut members: BTreeMap<&str, Vec<(&Pair<'_>, i64)>> = BTreeMap::new();
    for pair in pairs {
        if let (Some(node), Value::Answer(answer), Kind::Ok) = (&pair.done.node, &pair.done.value, pair.done.kind) {
            members.entry(node).or_default().push((pair, answer.revision()));
        }
    }
    let mut findings = Vec::new();
    for (node, answers) in members {
        let mut returned = answers.clone();
        returned.sort_by_key(|(pair, _)| pair.returned_ns());
        let mut returned = returned.into_iter().peekable();
        let mut newest: Option<(u64, i64)> = None;
        for (pair, revision) in answers {
            while let Some((before, at)) = returned.next_if(|(before, _)| before.returned_ns() < pair.invoke.time_ns) {
                if newest.is_none_or(|(_, newest)| at > newest) {
                    newest = Some((before.id(), at));
                }
            }
            if let Some((before, at)) = newest.filter(|(_, at)| *at > revision) {
                let text = format!(
                    "{node} answered operation {} at revision {revision}, after it had answered {before} at {at}",
                    pair.id()
                );
                findings.push(Finding::new("K7", text, [before, pair.id()]));
            }
        }
    }
    findings
}
