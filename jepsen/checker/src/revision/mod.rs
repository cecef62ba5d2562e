//! The revision oracle: every answer carries the revision of one total order, so the order needs no search.
//!
//! The operations are sorted by their revisions and replayed into the model; every answer must be the model's (K1, K4,
//! K5, K8), every revision has one writer (K2), the order must agree with real time (K3), and a compacted or future
//! revision is refused exactly then (K6). That is strict serializability of the whole store, in O(n log n).
//!
//! A revision that no known operation wrote was written by one whose outcome is unknown, or by the end of a lease.
//! With the members' merged log that is looked up; without it, it is searched, backwards from contradictions.

mod items;
mod realtime;
mod compaction;
mod holes;
mod compare;

use crate::history::store::Request;
use crate::history::{History, Kind, Malformed};
use crate::limits::ORACLE_CHOICES_MAX;
use crate::model::{Change, Model};
use crate::verdict::{Finding, Verdict};
use crate::watch::Stream;
use bytes::Bytes;
pub(crate) use compare::difference;
use holes::{Hole, Writer};
use items::{Item, items};
use mechi_proto::mvccpb::KeyValue;
use std::collections::{BTreeMap, BTreeSet};

/// What one revision did to the keys, as the members' logs say.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// The revision.
    pub revision: i64,
    /// Each key that it touched and what that then is; `None` if it was deleted.
    pub changes: Vec<(Bytes, Option<KeyValue>)>,
}

/// What the oracle found out.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Its judgement.
    pub verdict: Verdict,
    /// The store with all its versions, up to [`Replay::through`].
    pub model: Model,
    /// The last revision that was replayed; the verdict says why not more.
    pub through: i64,
    /// The last revision before the first of which somebody else could be the writer, as far as was tried: beyond it the
    /// replay is one of several that explain all answers, and what contradicts it may fit another.
    pub certain: i64,
    /// Who wrote each revision, by the index of the operation; the end of a lease has none.
    pub writers: BTreeMap<i64, u64>,
}

impl Replay {
    /// Every change of every revision that was replayed, in order.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        (2..=self.through).flat_map(|revision| self.model.changes(revision))
    }
}

/// Checks the operations on the whole store; the serializable reads among them are [`crate::serializable`]'s.
///
/// - Shape: the store was empty at the start, as a new cluster's is. `log`, if given, is complete and in order.
/// - Errors: a malformed history.
pub fn check(history: &History, log: Option<&[Logged]>) -> Result<Replay, Malformed> {
    check_watched(history, log, &[])
}

/// The same with what watchers saw: an event shows what its revision did, if no answer does and there is no log.
///
/// - Errors: as those of [`check`].
pub fn check_watched(history: &History, log: Option<&[Logged]>, streams: &[Stream]) -> Result<Replay, Malformed> {
    let pairs = history.pairs()?;
    let items = items(&pairs);
    let mut findings = realtime::check(&items);
    findings.extend(compaction::check(&items));
    let oracle = Oracle::new(&items, log, streams);
    Ok(oracle.run(findings))
}

struct Oracle<'a> {
    items: &'a [Item<'a>],
    log: Option<&'a [Logged]>,
    /// Who wrote a revision, by its own answer.
    known: BTreeMap<i64, Vec<usize>>,
    /// Who read at a revision, writing nothing.
    reads: BTreeMap<i64, Vec<usize>>,
    hole: Hole<'a>,
    last: i64,
    model: Model,
    writers: BTreeMap<i64, Writer>,
    used: BTreeSet<usize>,
    certain: i64,
}

/// A revision whose writer was guessed, and who else could have been.
struct Choice {
    revision: i64,
    left: Vec<Writer>,
}

impl<'a> Oracle<'a> {
    fn new(items: &'a [Item<'a>], log: Option<&'a [Logged]>, streams: &'a [Stream]) -> Self {
        let (mut known, mut reads) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        let mut last = log.and_then(|log| log.last()).map_or(1, |logged| logged.revision);
        for (place, item) in items.iter().enumerate().filter(|(_, item)| item.kind == Kind::Ok && !item.serializable) {
            let to = if item.writes { &mut known } else { &mut reads };
            to.entry(item.revision).or_default().push(place);
            last = last.max(item.revision);
        }
        let hole = Hole::new(items, streams, last);
        let (model, writers, used) = (Model::default(), BTreeMap::new(), BTreeSet::new());
        Self { items, log, known, reads, hole, last, model, writers, used, certain: i64::MAX }
    }

    fn run(mut self, mut findings: Vec<Finding>) -> Replay {
        for (revision, writers) in &self.known {
            if writers.len() > 1 {
                let ids = writers.iter().map(|&place| self.items[place].id);
                let text = format!("{} operations each say that they wrote revision {revision}", writers.len());
                findings.push(Finding::new("K2", text, ids));
            }
        }
        let mut open = None;
        if findings.iter().all(|finding| finding.rule != "K2") {
            let replayed = if self.log.is_some() { Ok(self.by_log()) } else { self.by_search() };
            match replayed {
                Ok(more) => findings.extend(more),
                Err(why) => open = Some(why),
            }
        }
        let verdict = match (Verdict::of(findings), open) {
            (Verdict::Valid, Some(why)) => Verdict::Unknown(vec![why]),
            (verdict, _) => verdict,
        };
        let through = self.model.revision();
        let certain = self.certain.min(through);
        let items = self.items;
        let writers = self.writers.into_iter().filter_map(|(revision, writer)| match writer {
            Writer::Item(place) => Some((revision, items[place].id)),
            Writer::Lease(_) => None,
        });
        Replay { verdict, model: self.model, through, certain, writers: writers.collect() }
    }

    /// Replays with the log: who wrote what no answer names is looked up.
    fn by_log(&mut self) -> Vec<Finding> {
        let log = self.log.unwrap_or_default();
        let mut findings = self.read(1);
        for (logged, revision) in log.iter().zip(2..) {
            if logged.revision != revision {
                let text = format!("the members' logs go from revision {} to {}", revision - 1, logged.revision);
                findings.push(Finding::new("A1", text, []));
                return findings;
            }
            let fits = |model: &Model| {
                let made = model.changes(revision).map(|change| (change.key, change.now));
                let (mut made, mut wanted): (Vec<_>, _) = (made.collect(), logged.changes.clone());
                made.sort_by(|a, b| a.0.cmp(&b.0));
                wanted.sort_by(|a: &(Bytes, _), b| a.0.cmp(&b.0));
                made == wanted
            };
            match self.known.get(&revision).map(|known| known[0]) {
                Some(place) => {
                    findings.extend(self.write(place, revision));
                    if self.model.revision() != revision || !fits(&self.model) {
                        let text = format!(
                            "operation {} wrote revision {revision}, whose change in the members' logs is another: {:?}",
                            self.items[place].id, logged.changes
                        );
                        findings.push(Finding::new("A1", text, [self.items[place].id]));
                    }
                }
                None => {
                    let found = self.hole.candidates_for(&logged.changes, &self.model, &self.used).into_iter();
                    let found = found.chain(self.hole.lease_ends(&self.model)).find(|&writer| {
                        let fit = self.try_writer(writer, revision) && fits(&self.model);
                        self.model.rollback(revision - 1);
                        fit
                    });
                    match found {
                        Some(writer) => self.take(writer, revision),
                        None => findings.push(self.phantom(revision, Some(logged))),
                    }
                }
            }
            self.model.rollback(revision - 1);
            self.model.change(logged.changes.iter().cloned());
            findings.extend(self.read(revision));
        }
        if self.last > self.model.revision() {
            let heard = self.items.iter().filter(|item| item.kind == Kind::Ok && item.revision > self.model.revision());
            let ids: Vec<_> = heard.map(|item| item.id).take(3).collect();
            let text =
                format!("answers name revision {}, the members' logs end at {}", self.last, self.model.revision());
            findings.push(Finding::new("A1", text, ids));
        }
        findings
    }

    /// Replays without a log: a guess that leads to a contradiction is taken back.
    ///
    /// - Errors: why no answer was found within the bound.
    fn by_search(&mut self) -> Result<Vec<Finding>, String> {
        let mut choices: Vec<Choice> = Vec::new();
        let mut tried = 0;
        // The contradiction that was reached latest explains most; earlier ones came from worse guesses.
        let mut deepest: Option<(i64, Vec<Finding>)> = None;
        let mut wrong = self.read(1);
        loop {
            let at = self.model.revision();
            if wrong.is_empty() && at >= self.last {
                let open = choices.iter().find(|choice| !choice.left.is_empty());
                self.certain = open.map_or(at, |choice| choice.revision - 1);
                return Ok(vec![]);
            }
            if wrong.is_empty() {
                let revision = at + 1;
                if let Some(place) = self.known.get(&revision).map(|known| known[0]) {
                    wrong = self.write(place, revision);
                } else {
                    let mut left = self.hole.candidates(revision, &self.model, &self.used);
                    left.reverse();
                    choices.push(Choice { revision, left });
                    wrong = self.guess(&mut choices, &mut tried)?;
                }
                if wrong.is_empty() {
                    wrong = self.read(revision);
                }
                continue;
            }
            if deepest.as_ref().is_none_or(|(deepest, _)| at > *deepest) {
                deepest = Some((at, std::mem::take(&mut wrong)));
            }
            while choices.last().is_some_and(|choice| choice.left.is_empty()) {
                choices.pop();
            }
            let Some(choice) = choices.last() else {
                return Ok(deepest.map(|(_, findings)| findings).unwrap_or_default());
            };
            self.undo(choice.revision);
            wrong = self.guess(&mut choices, &mut tried)?;
            if wrong.is_empty() {
                wrong = self.read(self.model.revision());
            }
        }
    }

    /// Tries the writers that are left for the newest hole until one writes it.
    fn guess(&mut self, choices: &mut [Choice], tried: &mut usize) -> Result<Vec<Finding>, String> {
        // Whoever gives up has tried no other guess at what came after the first that is still open.
        let open = choices.iter().find(|choice| !choice.left.is_empty()).map(|choice| choice.revision);
        let choice = choices.last_mut().expect("a hole was just opened");
        while let Some(writer) = choice.left.pop() {
            *tried += 1;
            if *tried > ORACLE_CHOICES_MAX {
                self.certain = open.unwrap_or(choice.revision) - 1;
                return Err(format!(
                    "who wrote revision {} stayed open after {ORACLE_CHOICES_MAX} guesses at unknown outcomes",
                    choice.revision
                ));
            }
            if self.try_writer(writer, choice.revision) && self.hole.agrees(choice.revision, &self.model) {
                self.take(writer, choice.revision);
                return Ok(vec![]);
            }
            self.model.rollback(choice.revision - 1);
        }
        Ok(vec![self.phantom(choice.revision, None)])
    }

    /// Lets `writer` make `revision`; tells whether it made exactly that one.
    fn try_writer(&mut self, writer: Writer, revision: i64) -> bool {
        match writer {
            Writer::Item(place) => {
                items::assume_leases(self.items[place].ask, &mut self.model);
                let _ = self.model.ask(self.items[place].ask);
            }
            Writer::Lease(lease) => {
                let gone: Vec<_> = self.model.attached(lease).into_iter().map(|key| (key, None)).collect();
                if !gone.is_empty() {
                    self.model.change(gone);
                }
            }
        }
        self.model.revision() == revision
    }

    fn take(&mut self, writer: Writer, revision: i64) {
        if let Writer::Item(place) = writer {
            self.used.insert(place);
        }
        self.writers.insert(revision, writer);
    }

    fn undo(&mut self, revision: i64) {
        self.model.rollback(revision - 1);
        for writer in self.writers.split_off(&revision).into_values() {
            if let Writer::Item(place) = writer {
                self.used.remove(&place);
            }
        }
    }

    /// Replays a write whose answer is known.
    fn write(&mut self, place: usize, revision: i64) -> Vec<Finding> {
        let item = &self.items[place];
        self.writers.insert(revision, Writer::Item(place));
        items::assume_leases(item.ask, &mut self.model);
        let wanted = self.model.ask(item.ask);
        let Some(wanted) = wanted else { return vec![] };
        let mut findings: Vec<_> =
            self.compare(item, wanted.as_ref().map_err(ToString::to_string)).into_iter().collect();
        if findings.is_empty() && self.model.revision() != revision {
            let text = format!("operation {} says it wrote revision {revision}, and writes nothing there", item.id);
            findings.push(Finding::new("K2", text, [item.id]));
        }
        findings
    }

    /// Replays what was read at a revision, once that is written.
    fn read(&mut self, revision: i64) -> Vec<Finding> {
        let mut findings = Vec::new();
        let reads = self.reads.remove(&revision).unwrap_or_default();
        let items = self.items;
        for &place in &reads {
            let item = &items[place];
            match item.ask {
                Request::Compaction(_)
                | Request::LeaseGrant(_)
                | Request::LeaseKeepAlive(_)
                | Request::LeaseTimeToLive(_) => {}
                Request::LeaseRevoke(revoke) => {
                    // One that wrote the revision itself was taken as its writer.
                    let left = self.model.attached(revoke.id);
                    if !left.is_empty()
                        && self.writers.get(&revision).is_none_or(|writer| *writer != Writer::Item(place))
                    {
                        let text = format!(
                            "operation {} revoked lease {} at revision {revision}, which leaves {left:?} attached to it",
                            item.id, revoke.id
                        );
                        findings.push(Finding::new("L3", text, [item.id]));
                    }
                }
                Request::Range(range) if range.revision > revision => {} // K6 speaks of it.
                Request::Range(range) => {
                    let wanted = crate::history::store::Response::Range(self.model.range_as_of(range, revision));
                    findings.extend(self.compare(item, Ok(&wanted)));
                }
                Request::Put(_) | Request::DeleteRange(_) | Request::Txn(_) => {
                    // It says that it wrote nothing: if the model disagrees, that is taken back.
                    items::assume_leases(item.ask, &mut self.model);
                    if let Some(wanted) = self.model.ask(item.ask) {
                        self.model.rollback(revision);
                        findings.extend(self.compare(item, wanted.as_ref().map_err(ToString::to_string)));
                    }
                }
            }
        }
        self.reads.insert(revision, reads);
        findings
    }

    fn compare(&self, item: &Item<'_>, wanted: Result<&crate::history::store::Response, String>) -> Option<Finding> {
        let answer = item.answer?;
        let (text, revisions) = match wanted {
            Ok(wanted) => compare::difference(answer, wanted)?,
            Err(error) => (format!("it should have been refused: {error}"), vec![]),
        };
        let writers = revisions.iter().filter_map(|revision| match self.writers.get(revision) {
            Some(Writer::Item(place)) => Some(self.items[*place].id),
            _ => self.known.get(revision).map(|known| self.items[known[0]].id),
        });
        let mut ops: Vec<u64> = std::iter::once(item.id).chain(writers).collect();
        ops.sort_unstable();
        ops.dedup();
        let rule = match item.ask {
            Request::Range(range) if range.revision > 0 => "K5",
            Request::Range(_) => "K1",
            Request::Txn(_) => "K8",
            _ => "K4",
        };
        let text = format!(
            "operation {} {} {} at revision {}: {text}",
            item.id,
            item.ask.f(),
            item.ask.to_edn(),
            item.revision
        );
        Some(Finding::new(rule, text, ops))
    }

    /// Nobody wrote a revision; says who did so although it was refused, if anyone.
    fn phantom(&mut self, revision: i64, logged: Option<&Logged>) -> Finding {
        let mut text = format!("nobody wrote revision {revision}");
        let mut ops: Vec<u64> = self.reads.get(&revision).into_iter().flatten().map(|&at| self.items[at].id).collect();
        ops.truncate(2);
        match logged {
            Some(logged) => text.push_str(&format!(", which the members' logs say did {:?}", logged.changes)),
            None => text.push_str(", and no operation of unknown outcome fits there"),
        }
        let refused = |item: &&Item<'_>| item.kind == Kind::Fail && !item.ask.is_read() && may_write(item.ask);
        for item in self.items.iter().filter(refused) {
            items::assume_leases(item.ask, &mut self.model);
            let _ = self.model.ask(item.ask);
            let changes: Vec<_> = self.model.changes(revision).map(|change| (change.key, change.now)).collect();
            let fits = self.model.revision() == revision
                && match logged {
                    Some(logged) => logged.changes == changes,
                    None => self.hole.has_evidence(revision) && self.hole.agrees(revision, &self.model),
                };
            self.model.rollback(revision - 1);
            if fits {
                text.push_str(&format!("; operation {} would explain it, and was refused", item.id));
                ops.push(item.id);
                return Finding::new("G1a", text, ops);
            }
        }
        ops.extend(self.hole.witnesses(revision));
        ops.sort_unstable();
        ops.dedup();
        Finding::new("K1", text, ops)
    }
}

/// Whether a request can make a revision; a grant and a compaction never do.
fn may_write(ask: &Request) -> bool {
    matches!(ask, Request::Put(_) | Request::DeleteRange(_) | Request::Txn(_) | Request::LeaseRevoke(_))
}

#[cfg(test)]
mod tests;
