//! Leases as intervals on the clients' clock: alive for at least this long, dead at the latest then.
//!
//! A renewal counts from when it was asked for, since the server's countdown cannot have begun before: what is lost of
//! the round trip makes the check milder, never wrong. A member's wall clock plays no part (L6).

use crate::history::store::{Request, Response};
use crate::history::value::Value;
use crate::history::{History, Kind, Malformed, Pair};
use crate::revision::Replay;
use crate::verdict::{Finding, Verdict};
use mechi_proto::etcdserverpb as pb;
use pb::request_op::Request as AskOp;
use std::collections::BTreeMap;

/// How late the end of a lease may be.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What passes after the TTL before the end is in the log: an election and 2 s.
    pub late_ns: u64,
    /// When there may have been no leader, or a new one, which starts every countdown anew.
    pub leaderless_ns: Vec<(u64, u64)>,
}

/// What is known of one lease.
#[derive(Default)]
struct Lease {
    granted: Vec<(u64, u64, u64)>,
    /// Answered renewals, the grant among them: asked, answered, TTL in nanoseconds, operation.
    renewed: Vec<(u64, u64, u64, u64)>,
    /// Renewals of unknown outcome, and grants.
    maybe_renewed: Vec<u64>,
    /// Revokes: asked, answered (or never), operation.
    revoked: Vec<(u64, u64, u64)>,
    /// Somebody heard that it was gone, at some moment between the two: asked, answered, operation.
    gone: Vec<(u64, u64, u64)>,
    /// Time-to-live answers: asked, answered, seconds left, operation.
    left: Vec<(u64, u64, i64, u64)>,
    /// A put with it was accepted: asked, answered, operation.
    used: Vec<(u64, u64, u64)>,
    /// Whether it may have been granted without anyone hearing so.
    maybe_granted: bool,
    ttl: i64,
}

const SECOND_NS: u64 = 1_000_000_000;

/// Checks every lease of a history; `replay` tells when keys went with a lease.
///
/// - Errors: a malformed history.
pub fn check(history: &History, replay: Option<&Replay>, bounds: &Bounds) -> Result<Verdict, Malformed> {
    let pairs = history.pairs()?;
    let mut leases = collect(&pairs);
    if let Some(replay) = replay {
        expiries(&pairs, replay, &mut leases);
    }
    let mut findings: Vec<Finding> = leases
        .iter()
        .flat_map(|(id, lease)| [alive(*id, lease), dead(*id, lease, bounds), ids(*id, lease)].concat())
        .collect();
    for pair in &pairs {
        if let (Value::Ask(Request::LeaseGrant(ask)), Value::Answer(Response::LeaseGrant(answer))) =
            (&pair.invoke.value, &pair.done.value)
            && ask.id != 0
            && ask.id != answer.id
        {
            let text = format!("operation {} asked for lease {} and was given {}", pair.id(), ask.id, answer.id);
            findings.push(Finding::new("L7", text, [pair.id()]));
        }
    }
    Ok(Verdict::of(findings))
}

fn collect(pairs: &[Pair<'_>]) -> BTreeMap<i64, Lease> {
    let mut leases: BTreeMap<i64, Lease> = BTreeMap::new();
    for pair in pairs {
        let (asked, answered, op) = (pair.invoke.time_ns, pair.done.time_ns, pair.id());
        let Value::Ask(ask) = &pair.invoke.value else { continue };
        let answer = match &pair.done.value {
            Value::Answer(answer) if pair.done.kind == Kind::Ok => Some(answer),
            _ => None,
        };
        let gone = pair.done.kind == Kind::Fail
            && pair.done.error.as_ref().is_some_and(|error| error.contains("requested lease not found"));
        let ns = |ttl: i64| u64::try_from(ttl).unwrap_or(0).saturating_mul(SECOND_NS);
        match (ask, answer) {
            (Request::LeaseGrant(_), Some(Response::LeaseGrant(it))) => {
                let lease = leases.entry(it.id).or_default();
                lease.granted.push((asked, answered, op));
                lease.renewed.push((asked, answered, ns(it.ttl), op));
                lease.ttl = lease.ttl.max(it.ttl);
            }
            (Request::LeaseGrant(it), None) if pair.done.kind == Kind::Info => {
                let lease = leases.entry(it.id).or_default();
                lease.maybe_granted = true;
                lease.maybe_renewed.push(asked);
            }
            (Request::LeaseKeepAlive(it), Some(Response::LeaseKeepAlive(answer))) => {
                let lease = leases.entry(it.id).or_default();
                if answer.ttl > 0 {
                    lease.renewed.push((asked, answered, ns(answer.ttl), op));
                } else {
                    lease.gone.push((asked, answered, op));
                }
            }
            // A keep-alive that failed late may have renewed all the same.
            (Request::LeaseKeepAlive(it), None) if !gone => leases.entry(it.id).or_default().maybe_renewed.push(asked),
            (Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id }), _) if gone => {
                leases.entry(*id).or_default().gone.push((asked, answered, op));
            }
            (Request::LeaseRevoke(it), answer) => {
                let lease = leases.entry(it.id).or_default();
                match (answer, gone) {
                    (Some(_), _) => lease.revoked.push((asked, answered, op)),
                    (None, true) => lease.gone.push((asked, answered, op)),
                    (None, false) if pair.done.kind == Kind::Info => lease.revoked.push((asked, u64::MAX, op)),
                    _ => {}
                }
            }
            (Request::LeaseTimeToLive(it), Some(Response::LeaseTimeToLive(answer))) => {
                let lease = leases.entry(it.id).or_default();
                if answer.ttl < 0 {
                    lease.gone.push((asked, answered, op));
                } else {
                    lease.left.push((asked, answered, answer.ttl, op));
                }
            }
            (Request::Put(put), _) if put.lease != 0 => {
                let lease = leases.entry(put.lease).or_default();
                match (answer, gone) {
                    (Some(_), _) => lease.used.push((asked, answered, op)),
                    (None, true) => lease.gone.push((asked, answered, op)),
                    _ => {}
                }
            }
            (Request::Txn(txn), Some(Response::Txn(answer))) => {
                let branch = if answer.succeeded { &txn.success } else { &txn.failure };
                for op_of in branch {
                    if let Some(AskOp::RequestPut(put)) = &op_of.request
                        && put.lease != 0
                    {
                        leases.entry(put.lease).or_default().used.push((asked, answered, op));
                    }
                }
            }
            _ => {}
        }
    }
    leases
}

/// Keys that went with a lease: it had ended by the time at which anyone had heard of that revision.
fn expiries(pairs: &[Pair<'_>], replay: &Replay, leases: &mut BTreeMap<i64, Lease>) {
    let mut heard: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for pair in pairs {
        if let (Value::Answer(answer), Kind::Ok) = (&pair.done.value, pair.done.kind) {
            let first = heard.entry(answer.revision()).or_insert((u64::MAX, 0));
            *first = (*first).min((pair.done.time_ns, pair.id()));
        }
    }
    let mut first = (u64::MAX, 0);
    let mut by_revision = BTreeMap::new();
    for (revision, at) in heard.into_iter().rev() {
        first = first.min(at);
        by_revision.insert(revision, first);
    }
    // What wrote an earlier revision had been asked for before this one was written.
    let asked: BTreeMap<u64, u64> = pairs.iter().map(|pair| (pair.id(), pair.invoke.time_ns)).collect();
    let mut begun = 0;
    let mut writers = replay.writers.iter().peekable();
    // Of a revision whose writer was guessed the end of a lease is one explanation among others.
    let known = |revision: i64| revision <= replay.certain && !replay.writers.contains_key(&revision);
    for change in replay.changes().filter(|change| known(change.revision)) {
        while let Some((_, writer)) = writers.next_if(|(revision, _)| **revision < change.revision) {
            begun = begun.max(asked.get(writer).copied().unwrap_or(0));
        }
        let lease = change.before.map_or(0, |before| before.lease);
        let seen = by_revision.range(change.revision..).next();
        if let (None, true, Some((_, (at, op)))) = (change.now, lease != 0, seen) {
            leases.entry(lease).or_default().gone.push((begun.min(*at), *at, *op));
        }
    }
}

/// L1: nobody finds it gone before its time.
fn alive(id: i64, lease: &Lease) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (looked, gone, by) in &lease.gone {
        // A revoke that may have happened by then explains everything; a new grant of the same id is another lease.
        if lease.revoked.iter().any(|(asked, ..)| asked < gone) {
            continue;
        }
        let early = lease.renewed.iter().find(|(asked, answered, ttl, _)| answered < looked && asked + ttl > *gone);
        if let Some((asked, _, ttl, renewal)) = early {
            let text = format!(
                "lease {id} was renewed by operation {renewal} until {} at least, and operation {by} found it gone at {gone}",
                asked + ttl
            );
            findings.push(Finding::new("L1", text, [*renewal, *by]));
            break;
        }
    }
    findings
}

/// L2, L4, L5: what has ended stays ended, and nothing lives for ever.
fn dead(id: i64, lease: &Lease, bounds: &Bounds) -> Vec<Finding> {
    let mut findings = Vec::new();
    let granted_between = |from: u64, till: u64| {
        lease.maybe_granted || lease.granted.iter().any(|(asked, answered, _)| *answered > from && *asked < till)
    };
    let ends = lease.revoked.iter().filter(|(_, answered, _)| *answered != u64::MAX);
    for &(looked, end, by) in ends.chain(&lease.gone) {
        let renewals = lease.renewed.iter().map(|(asked, answered, _, op)| (*asked, *answered, *op));
        let signs = renewals.chain(lease.left.iter().map(|(asked, answered, _, op)| (*asked, *answered, *op)));
        let signs = signs.chain(lease.used.iter().copied());
        // A grant is between the two in some order if it was answered after the end was asked for, and asked for
        // before the sign was answered.
        let after = signs
            .filter(|(asked, answered, op)| {
                *asked > end && !granted_between(looked, *answered) && !is_grant(lease, *op)
            })
            .min();
        if let Some((asked, _, op)) = after {
            let text = format!("lease {id} had ended by {end} (operation {by}) and lived at {asked} (operation {op})");
            findings.push(Finding::new("L4", text, [by, op]));
            break;
        }
    }
    let mut signs: Vec<(u64, u64)> = lease.left.iter().map(|(asked, _, _, op)| (*asked, *op)).collect();
    signs.extend(lease.used.iter().map(|(asked, _, op)| (*asked, *op)));
    signs.extend(lease.renewed.iter().map(|(asked, _, _, op)| (*asked, *op)));
    for (sign, op) in signs {
        let before = lease.renewed.iter().filter(|(asked, ..)| *asked < sign);
        let Some(last) = before.map(|(_, answered, ttl, _)| answered + ttl).max() else { continue };
        let latest = last.saturating_add(bounds.late_ns);
        let excused = lease.maybe_renewed.iter().any(|asked| *asked < sign)
            || bounds
                .leaderless_ns
                .iter()
                .any(|(from, till)| *from < sign && *till + bounds.late_ns > last.saturating_sub(lease_ns(lease)));
        if sign > latest && !excused && !is_grant(lease, op) {
            let text = format!("lease {id} was to end by {latest} and lived at {sign} (operation {op})");
            findings.push(Finding::new("L2", text, [op]));
            break;
        }
    }
    findings.extend(growth(id, lease));
    findings
}

/// The election timeout of a server with default flags, in seconds.
const ELECTION_SECONDS: i64 = 1;

fn lease_ns(lease: &Lease) -> u64 {
    u64::try_from(lease.ttl).unwrap_or(0).saturating_mul(SECOND_NS)
}

fn is_grant(lease: &Lease, op: u64) -> bool {
    lease.granted.iter().any(|(_, _, grant)| *grant == op)
}

/// L5: what is left of a lease grows by a renewal, or once by a new leader that was not told how much was left.
fn growth(id: i64, lease: &Lease) -> Option<Finding> {
    let mut grown: Option<(u64, u64)> = None;
    for pair in lease.left.windows(2) {
        let [(asked, _, before, first), (_, answered, after, second)] = pair else { continue };
        let renewed = lease.renewed.iter().any(|(from, till, ..)| till > asked && from < answered)
            || lease.maybe_renewed.iter().any(|from| from < answered);
        if renewed {
            grown = None;
        } else if after > before {
            if let Some((first, _)) = grown {
                let text = format!(
                    "what was left of lease {id} grew twice without a renewal, by operation {second} to {after} s"
                );
                return Some(Finding::new("L5", text, [first, *second]));
            }
            grown = Some((*first, *second));
        }
        // A new leader adds an election timeout to what is left, as etcd's does.
        if *after > lease.ttl + ELECTION_SECONDS && !lease.granted.is_empty() {
            let text =
                format!("operation {second} found {after} s left of lease {id}, which was granted {} s", lease.ttl);
            return Some(Finding::new("L5", text, [*second]));
        }
    }
    None
}

/// L7: an id is given once, and used only when it was.
fn ids(id: i64, lease: &Lease) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut granted = lease.granted.clone();
    granted.sort_unstable();
    for pair in granted.windows(2) {
        let [(asked, answered, first), (_, again, second)] = pair else { continue };
        let ended = lease.revoked.iter().any(|(from, till, _)| till > asked && from < again)
            || lease.gone.iter().any(|(_, at, _)| at > asked);
        let lapsed = again.saturating_sub(*answered) > lease_ns(lease);
        if !ended && !lapsed {
            let text = format!("lease {id} was granted by operation {first} and again by {second}, while it lived");
            findings.push(Finding::new("L7", text, [*first, *second]));
        }
    }
    if let Some((.., op)) = lease.used.first().filter(|_| lease.granted.is_empty() && !lease.maybe_granted) {
        findings.push(Finding::new("L7", format!("operation {op} used lease {id}, which nobody was granted"), [*op]));
    }
    findings
}
