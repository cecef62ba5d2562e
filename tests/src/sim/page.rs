//! A run as one page of HTML that needs nothing else: members by time, what they said to each other, what went wrong, and
//! what the clients did.

use super::trace::{Done, Said};
use super::{Plan, Report, Trace};
use serde_json::{Value, json};

/// The page without its data.
const TEMPLATE: &str = include_str!("page.html");

/// Messages on a page; beyond, those far from the failure are thinned out.
const MESSAGES_MAX: usize = 9_000;

/// Election timeouts before the failure of which all is kept.
const CLOSE_ELECTIONS: u64 = 4;

/// Draws a run.
///
/// - Shape: `command` is what repeats it.
/// - Returns: `None` if the run was made without a trace.
pub fn page(report: &Report, plan: &Plan, command: &str) -> Option<String> {
    let trace = report.trace.as_ref()?;
    let data = data(report, trace, plan, command).to_string();
    // Within a script nothing may look like its end.
    Some(TEMPLATE.replace("\"the run\"", &data.replace("</", "<\\/")))
}

fn data(report: &Report, trace: &Trace, plan: &Plan, command: &str) -> Value {
    let end = report.stats.time;
    let (at, finding) = report.broken.clone().unwrap_or((end, String::new()));
    let close = at.saturating_sub(CLOSE_ELECTIONS * report.options.election_us());
    let involved = involved(&finding);
    json!({
        "seed": report.options.seed,
        "command": command,
        "whole": plan.is_whole(),
        "options": report.options.to_string(),
        "stats": report.stats.to_string(),
        "finding": finding,
        "at": at,
        "close": close,
        "end": end,
        "election": report.options.election_us(),
        "members": report.options.members,
        "lives": trace.lives.iter().map(|life| {
            json!([life.member, life.from, life.to, life.boot, life.replayed, life.end])
        }).collect::<Vec<_>>(),
        "roles": trace.roles.iter().map(|led| json!([led.at, led.member, led.term, led.role])).collect::<Vec<_>>(),
        "pauses": trace.pauses,
        "faults": trace.faults.iter().map(|fault| {
            json!([fault.number, fault.kind, fault.hit, fault.from, fault.to])
        }).collect::<Vec<_>>(),
        "messages": chosen(&trace.messages, close, at).into_iter().map(|said| {
            json!([said.sent, said.arrives, said.from, said.to, said.kind, said.term, said.index])
        }).collect::<Vec<_>>(),
        "said": trace.messages.len(),
        "syncs": trace.syncs,
        "disks": trace.disks,
        "revisions": trace.revisions,
        "ops": trace.ops.iter().map(|done| op(done, &involved)).collect::<Vec<_>>(),
    })
}

fn op(done: &Done, involved: &[u64]) -> Value {
    // The simulator's own clients have numbers of their own.
    let client = i64::try_from(done.client).unwrap_or(-1);
    let hot = involved.contains(&done.number);
    json!([done.number, client, done.member, done.from, done.to, done.ask, done.outcome, done.class, hot])
}

/// The messages that are drawn: all that were under way shortly before the failure, and of the others every so many.
fn chosen(messages: &[Said], close: u64, at: u64) -> Vec<&Said> {
    let is_close = |said: &&Said| said.arrives.unwrap_or(said.sent) >= close && said.sent <= at;
    let far = messages.iter().filter(|said| !is_close(said)).count();
    let room = MESSAGES_MAX.saturating_sub(messages.len() - far);
    let every = far.checked_div(room).map_or(usize::MAX, |every| every + 1);
    let mut passed = 0;
    let keep = |said: &&Said| {
        is_close(said) || {
            passed += 1;
            passed % every == 0
        }
    };
    messages.iter().filter(keep).collect()
}

/// The operations that a finding speaks of.
fn involved(finding: &str) -> Vec<u64> {
    let words: Vec<&str> =
        finding.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let speaks = |word: &str| matches!(word, "operation" | "op" | "read" | "question");
    let pairs = words.windows(2).filter(|pair| speaks(pair[0]));
    pairs.filter_map(|pair| pair[1].parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Keep, run_by};

    #[test]
    fn a_finding_names_its_operations() {
        let text = "K1: operation 12 stands at index 9 and was answered at 5, before operation 7 was asked";
        assert_eq!(involved(text), [12, 7]);
        assert_eq!(involved("L1: lease 3 was renewed by operation 8 at 4"), [8]);
    }

    #[test]
    fn far_messages_are_thinned_out_and_close_ones_are_kept() {
        let said = |sent| Said { sent, arrives: Some(sent + 1), from: 1, to: 2, kind: "append", term: 1, index: 1 };
        let all: Vec<Said> = (0..100_000).map(said).collect();
        let kept = chosen(&all, 99_000, 100_000);
        assert!(kept.len() <= MESSAGES_MAX && kept.len() > MESSAGES_MAX / 2, "{}", kept.len());
        assert_eq!(kept.iter().filter(|said| said.sent >= 99_000).count(), 1_000);
    }

    #[test]
    fn a_run_is_drawn_on_a_page_of_its_own() {
        let plan = Plan { until: Some(300), ..Plan::default() };
        let report = run_by(3, &plan, Keep::Nothing, true);
        let html = page(&report, &plan, "cargo sim --seed 3").expect("it was traced");
        assert!(html.contains("cargo sim --seed 3") && html.contains("\"lives\":[["), "{html}");
        // Nothing is fetched from anywhere.
        assert!(!html.contains("src=") && !html.contains("@import") && !html.contains("href=\"http"));
        assert!(run_by(3, &plan, Keep::Nothing, false).trace.is_none());
    }
}
