//! All checkers that have something to say about a run, in one call.

use crate::history::store::Request;
use crate::history::value::{Mop, Read, Value};
use crate::history::{History, Kind, Malformed};
use crate::lease::Bounds;
use crate::revision::{Logged, Replay};
use crate::verdict::{Results, Verdict};
use crate::watch::{Ending, Stream, Truth};
use crate::{elle, hash, lease, lock, revision, serializable, set, watch, wgl};
use std::collections::BTreeMap;

/// What a run left behind.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// What clients saw.
    pub history: &'a History,
    /// The members' merged logs, if they were read.
    pub log: Option<&'a [Logged]>,
    /// What watchers saw.
    pub streams: &'a [Stream],
    /// The hashes that were asked for at the end, and of whom; `None` if nobody asked.
    pub hashes: Option<(&'a [hash::Answer], &'a [String])>,
    /// How late a lease may end.
    pub leases: Bounds,
    /// When watchers must have seen everything.
    pub ending: Ending,
}

impl<'a> Evidence<'a> {
    /// A history and nothing else: watchers and leases are bound by nothing that depends on time.
    pub fn of(history: &'a History) -> Self {
        let leases = Bounds { late_ns: u64::MAX, leaderless_ns: vec![] };
        let ending = Ending { healed_ns: None, catch_up_ns: 0 };
        Self { history, log: None, streams: &[], hashes: None, leases, ending }
    }
}

/// Lets every checker judge that knows the operations of the run.
///
/// - Errors: a malformed history, which no checker can judge.
pub fn judge(evidence: &Evidence<'_>) -> Result<Results, Malformed> {
    let history = evidence.history;
    history.check()?;
    let mut results = Results::default();
    let has = |what: &dyn Fn(&Value) -> bool| history.ops().iter().any(|op| what(&op.value));
    let mop = |what: fn(&Mop) -> bool| has(&|value| matches!(value, Value::Txn(mops) if mops.iter().any(what)));
    if has(&|value| matches!(value, Value::Register(_))) {
        results.note("register", wgl::register::check_registers(history)?);
    }
    if has(&|value| matches!(value, Value::Set(_))) {
        results.note("set", set::check(history)?);
    }
    if mop(|mop| matches!(mop, Mop::Append { .. } | Mop::Read { seen: Read::List(_), .. })) {
        results.note("append", elle::check_append(history)?);
    }
    if mop(|mop| matches!(mop, Mop::Write { .. } | Mop::Read { seen: Read::One(_), .. })) {
        results.note("wr", elle::check_register(history)?);
    }
    if has(&|value| matches!(value, Value::Lock(_) | Value::Election(_))) {
        results.note("lock", lock::check(history)?);
    }
    let store = has(&|value| matches!(value, Value::Ask(_)));
    if store || !evidence.streams.is_empty() {
        let replay = revision::check_watched(history, evidence.log, evidence.streams)?;
        results.note("revision", replay.verdict.clone());
        if has(&|value| matches!(value, Value::Ask(request) if request.is_serializable())) {
            results.note("serializable", serializable::check(history, &replay)?);
        }
        if has(&|value| matches!(value, Value::Ask(Request::LeaseGrant(_)))) {
            // Of a replay that broke off, a revision without a writer may be anyone's.
            let sound = replay.verdict.is_valid().then_some(&replay);
            results.note("lease", lease::check(history, sound, &evidence.leases)?);
        }
        if !evidence.streams.is_empty() {
            results.note("watch", watchers(evidence, &replay)?);
        }
    }
    if let Some((answers, members)) = evidence.hashes {
        results.note("hash", hash::check(answers, members));
    }
    Ok(results)
}

fn watchers(evidence: &Evidence<'_>, replay: &Replay) -> Result<Verdict, Malformed> {
    let pairs = evidence.history.pairs()?;
    let mut heard: BTreeMap<i64, u64> = BTreeMap::new();
    let mut compactions = Vec::new();
    for pair in &pairs {
        if let (Value::Answer(answer), Kind::Ok) = (&pair.done.value, pair.done.kind) {
            let at = heard.entry(answer.revision()).or_insert(u64::MAX);
            *at = (*at).min(pair.done.time_ns);
        }
        if let (Value::Ask(Request::Compaction(it)), Kind::Ok | Kind::Info) = (&pair.invoke.value, pair.done.kind) {
            compactions.push((it.revision, pair.invoke.time_ns));
        }
    }
    let last = heard.keys().next_back().copied().unwrap_or(1);
    if replay.through < last {
        let why =
            format!("what happened after revision {} is not known, so that no watcher can be judged", replay.through);
        return Ok(Verdict::Unknown(vec![why]));
    }
    // A revision exists once it, or a later one, was heard of.
    let mut known = BTreeMap::new();
    let mut first = u64::MAX;
    for revision in (2..=replay.through).rev() {
        first = first.min(heard.get(&revision).copied().unwrap_or(u64::MAX));
        known.insert(revision, first);
    }
    let truth = Truth::new(replay.changes(), known, compactions);
    Ok(watch::check(evidence.streams, &truth, &evidence.ending))
}
