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
    let (mut open, mut guessed) = (0, 0);
    for pair in &pairs {
        let (Value::Ask(ask), Value::Answer(answer)) = (&pair.invoke.value, &pair.done.value) else { continue };
        if pair.done.kind != Kind::Ok || !ask.is_serializable() {
            continue;
        }
        if answer.revision() > replay.through {
            open += 1;
            continue;
        }
        match content(pair.id(), ask, answer, replay) {
            // Another guess at who wrote what may be the right one.
            Some(_) if answer.revision() > replay.certain => guessed += 1,
            found => findings.extend(found),
        }
    }
    findings.extend(backwards(&pairs));
    let mut why = Vec::new();
    if open > 0 {
        let through = replay.through;
        why.push(format!("{open} serializable reads of revisions past {through}, which the replay did not reach"));
    }
    if guessed > 0 {
        let certain = replay.certain;
        why.push(format!("{guessed} serializable reads contradict a guess at who wrote a revision past {certain}"));
    }
    Ok(match Verdict::of(findings) {
        Verdict::Valid if !why.is_empty() => Verdict::Unknown(why),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Op, Process};
    use crate::model::Model;
    use crate::revision;
    use crate::testing::{get, key, put};

    /// One of two puts without an answer wrote revision 3; a serializable read counts its key, which shows no revision.
    fn judged(happened: usize) -> Verdict {
        let (mut model, mut history) = (Model::default(), History::default());
        let unknown = [put(key(1), "a"), put(key(2), "b")];
        let mut line = |kind, client, value| {
            history.push(Op::new(history.ops().len() as u64, kind, Process::Client(client), value));
        };
        let answered = |model: &mut Model, ask: Request, line: &mut dyn FnMut(Kind, u64, Value)| {
            line(Kind::Invoke, 0, Value::Ask(ask.clone()));
            let answer = model.ask(&ask).expect("is known").expect("is right");
            line(Kind::Ok, 0, Value::Answer(answer));
        };
        answered(&mut model, put(key(0), "first"), &mut line);
        for (ask, client) in unknown.iter().zip(1..) {
            line(Kind::Invoke, client, Value::Ask(ask.clone()));
            line(Kind::Info, client, Value::Ask(ask.clone()));
        }
        let _ = model.ask(&unknown[happened]);
        answered(&mut model, put(key(0), "last"), &mut line);
        let Request::Range(read) = get(key(happened as u64 + 1)) else { panic!("a get is a range") };
        answered(
            &mut model,
            Request::Range(pb::RangeRequest { serializable: true, count_only: true, ..read }),
            &mut line,
        );
        let replay = revision::check(&history, None).expect("is well formed");
        assert!(replay.verdict.is_valid() && replay.certain == 2, "{replay:?}");
        check(&history, &replay).expect("is well formed")
    }

    #[test]
    fn what_contradicts_a_guess_is_unknown() {
        let verdicts = [judged(0), judged(1)];
        assert!(verdicts.contains(&Verdict::Valid), "{verdicts:?}");
        assert!(verdicts.iter().any(|verdict| matches!(verdict, Verdict::Unknown(_))), "{verdicts:?}");
    }

    /// Twelve puts without an answer in an order that a serializable read tells, and an answer that no order explains, so
    /// that the search gives up.
    fn given_up(first: usize) -> Verdict {
        let (mut model, mut history) = (Model::default(), History::default());
        let unknown: Vec<Request> = (1..=12).map(|n| put(key(n), "a")).collect();
        let mut line = |kind, client, value| {
            history.push(Op::new(history.ops().len() as u64, kind, Process::Client(client), value));
        };
        for (ask, client) in unknown.iter().zip(1..) {
            line(Kind::Invoke, client, Value::Ask(ask.clone()));
            line(Kind::Info, client, Value::Ask(ask.clone()));
        }
        let _ = model.ask(&unknown[first]);
        let Request::Range(read) = get(key(first as u64 + 1)) else { panic!("a get is a range") };
        let read = Request::Range(pb::RangeRequest { serializable: true, count_only: true, ..read });
        let answer = model.ask(&read).expect("is known").expect("is right");
        line(Kind::Invoke, 0, Value::Ask(read));
        line(Kind::Ok, 0, Value::Answer(answer));
        for ask in unknown.iter().enumerate().filter(|(place, _)| *place != first).map(|(_, ask)| ask) {
            let _ = model.ask(ask);
        }
        let last = put(key(0), "last");
        line(Kind::Invoke, 0, Value::Ask(last.clone()));
        line(Kind::Ok, 0, Value::Answer(model.ask(&last).expect("is known").expect("is right")));
        let read = get(key(0));
        let mut wrong = model.ask(&read).expect("is known").expect("is right");
        let Response::Range(range) = &mut wrong else { panic!("a get is a range") };
        range.kvs[0].value = "another".into();
        line(Kind::Invoke, 0, Value::Ask(read));
        line(Kind::Ok, 0, Value::Answer(wrong));
        let replay = revision::check(&history, None).expect("is well formed");
        assert!(matches!(replay.verdict, Verdict::Unknown(_)) && replay.certain == 1, "{:?}", replay.verdict);
        check(&history, &replay).expect("is well formed")
    }

    #[test]
    fn what_contradicts_a_guess_is_unknown_where_the_search_gave_up() {
        for first in [0, 11] {
            let verdict = given_up(first);
            assert!(verdict.findings().is_empty(), "{verdict:?}");
        }
    }
}
