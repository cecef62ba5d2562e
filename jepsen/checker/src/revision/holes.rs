//! Revisions that no answer names: who could have written them, and what is known of what they wrote.

use super::items::Item;
use crate::history::Kind;
use crate::history::store::{Request, Response};
use crate::model::Model;
use crate::watch::{Event, Received, Stream};
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::KeyValue;
use pb::request_op::Request as AskOp;
use pb::response_op::Response as AnswerOp;
use std::collections::{BTreeMap, BTreeSet};

/// Who wrote a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// An operation, by its place.
    Item(usize),
    /// The end of a lease.
    Lease(i64),
}

/// What is known beforehand about all revisions that nobody says he wrote.
pub(super) struct Hole<'a> {
    items: &'a [Item<'a>],
    /// Those that may have written, by their beginnings.
    unknown: Vec<usize>,
    /// The same by what they put.
    putting: BTreeMap<(&'a [u8], &'a [u8]), Vec<usize>>,
    /// Those that delete or that keep a value, so that what they put is not in them.
    others: Vec<usize>,
    /// Revokes by the revision of their answer.
    revokes: BTreeMap<i64, Vec<usize>>,
    leases: BTreeSet<i64>,
    /// Until when a revision must have been asked for: somebody had heard of it, or of a later one.
    deadline_ns: BTreeMap<i64, u64>,
    /// When the known writer of a revision was asked to write it.
    written_ns: BTreeMap<i64, u64>,
    /// What answers and events show of keys as a revision left them, and which operation saw it.
    evidence: BTreeMap<i64, Vec<(&'a KeyValue, Option<u64>)>>,
    /// What events show as deleted by a revision.
    deleted: BTreeMap<i64, Vec<&'a Bytes>>,
    /// Those whose value was seen, and who alone put that value.
    pinned: BTreeSet<usize>,
}

impl<'a> Hole<'a> {
    pub(super) fn new(items: &'a [Item<'a>], streams: &'a [Stream], last: i64) -> Self {
        let mut hole = Self {
            items,
            unknown: vec![],
            putting: BTreeMap::new(),
            others: vec![],
            revokes: BTreeMap::new(),
            leases: BTreeSet::new(),
            deadline_ns: BTreeMap::new(),
            written_ns: BTreeMap::new(),
            evidence: BTreeMap::new(),
            deleted: BTreeMap::new(),
            pinned: BTreeSet::new(),
        };
        let known: BTreeSet<i64> = items.iter().filter(|item| item.writes).map(|item| item.revision).collect();
        let mut heard: BTreeMap<i64, u64> = BTreeMap::new();
        for (place, item) in items.iter().enumerate() {
            if let Request::LeaseGrant(_) = item.ask {
                let answered = match item.answer {
                    Some(Response::LeaseGrant(grant)) => Some(grant.id),
                    _ => None,
                };
                let Request::LeaseGrant(grant) = item.ask else { continue };
                hole.leases.insert(answered.unwrap_or(grant.id));
            }
            match item.kind {
                Kind::Ok => {
                    let at = heard.entry(item.revision).or_insert(u64::MAX);
                    *at = (*at).min(item.returned_ns);
                    if item.writes {
                        hole.written_ns.insert(item.revision, item.invoked_ns);
                    }
                    if let Request::LeaseRevoke(_) = item.ask {
                        hole.revokes.entry(item.revision).or_default().push(place);
                    }
                    each_kv(item.answer, &mut |kv| {
                        if !known.contains(&kv.mod_revision) {
                            hole.evidence.entry(kv.mod_revision).or_default().push((kv, Some(item.id)));
                        }
                    });
                }
                Kind::Info
                    if !item.ask.is_read() && !matches!(item.ask, Request::Compaction(_) | Request::LeaseGrant(_)) =>
                {
                    hole.unknown.push(place);
                    let mut plain = true;
                    each_put(item.ask, &mut |put| match put {
                        Some(put) if !put.ignore_value => {
                            hole.putting.entry((&put.key, &put.value)).or_default().push(place);
                        }
                        _ => plain = false,
                    });
                    if !plain {
                        hole.others.push(place);
                    }
                }
                _ => {}
            }
        }
        for event in events(streams).filter(|event| !known.contains(&event.kv.mod_revision)) {
            match event.delete {
                true => hole.deleted.entry(event.kv.mod_revision).or_default().push(&event.kv.key),
                false => hole.evidence.entry(event.kv.mod_revision).or_default().push((&event.kv, None)),
            }
        }
        for (kv, _) in hole.evidence.values().flatten().filter(|(kv, _)| !kv.value.is_empty()) {
            if let Some([one]) = hole.putting.get(&(&kv.key[..], &kv.value[..])).map(Vec::as_slice) {
                hole.pinned.insert(*one);
            }
        }
        let mut deadline = u64::MAX;
        for revision in (2..=last).rev() {
            deadline = deadline.min(heard.get(&revision).copied().unwrap_or(u64::MAX));
            if !known.contains(&revision) {
                hole.deadline_ns.insert(revision, deadline);
            }
        }
        hole
    }

    /// Who could have written `revision`, the likeliest first.
    pub(super) fn candidates(&self, revision: i64, model: &Model, used: &BTreeSet<usize>) -> Vec<Writer> {
        let deadline = self.deadline_ns.get(&revision).copied().unwrap_or(u64::MAX);
        let mut found: Vec<usize> = match self.evidence.get(&revision).and_then(|seen| seen.first()) {
            Some((kv, _)) => {
                let puts = self.putting.get(&(&kv.key[..], &kv.value[..])).into_iter().flatten();
                // With keys alone the value is not known, and an empty one is no evidence.
                let all = if kv.value.is_empty() { &self.unknown } else { &self.others };
                let mut found: Vec<usize> = puts.chain(all).copied().collect();
                found.sort_unstable();
                found.dedup();
                found
            }
            None if self.deleted.contains_key(&revision) => self.others.clone(),
            // Who is seen to have written another revision did not write this one.
            None => self.unknown.iter().copied().filter(|place| !self.pinned.contains(place)).collect(),
        };
        found.retain(|place| !used.contains(place) && self.items[*place].invoked_ns < deadline);
        // What takes effect mostly does so soon after it was asked.
        let near = self.written_ns.range(..revision).next_back().map_or(0, |(_, at)| *at);
        found.sort_by_key(|place| self.items[*place].invoked_ns.abs_diff(near));
        let revokes = self.revokes.get(&revision).into_iter().flatten().filter(|place| !used.contains(place));
        let writers = revokes.chain(&found).map(|&place| Writer::Item(place));
        writers.chain(self.lease_ends(model)).collect()
    }

    /// Who could have made exactly these changes.
    pub(super) fn candidates_for(
        &self,
        changes: &[(Bytes, Option<KeyValue>)],
        model: &Model,
        used: &BTreeSet<usize>,
    ) -> Vec<Writer> {
        let put = changes.iter().find_map(|(key, kv)| kv.as_ref().map(|kv| (&key[..], &kv.value[..])));
        let puts = put.and_then(|put| self.putting.get(&put)).into_iter().flatten();
        let revokes = self.revokes.get(&(model.revision() + 1)).into_iter().flatten();
        let all = revokes.chain(puts).chain(&self.others).filter(|place| !used.contains(place));
        all.map(|&place| Writer::Item(place)).collect()
    }

    /// Leases whose end would change something.
    pub(super) fn lease_ends(&self, model: &Model) -> Vec<Writer> {
        self.leases.iter().filter(|id| !model.attached(**id).is_empty()).map(|&id| Writer::Lease(id)).collect()
    }

    /// Whether the model's newest revision looks as every answer shows it.
    pub(super) fn agrees(&self, revision: i64, model: &Model) -> bool {
        let gone = |key: &Bytes| model.changes(revision).any(|change| change.key == *key && change.now.is_none());
        let left = self.evidence.get(&revision).into_iter().flatten().all(|(seen, _)| {
            model.get(&seen.key).is_some_and(|kv| {
                let places = |kv: &KeyValue| (kv.mod_revision, kv.create_revision, kv.version);
                places(kv) == places(seen) && (seen.value.is_empty() || kv.value == seen.value)
            })
        });
        left && self.deleted.get(&revision).into_iter().flatten().all(|key| gone(key))
    }

    pub(super) fn has_evidence(&self, revision: i64) -> bool {
        self.evidence.contains_key(&revision)
    }

    /// One who saw what a revision wrote.
    pub(super) fn witnesses(&self, revision: i64) -> impl Iterator<Item = u64> {
        self.evidence.get(&revision).into_iter().flatten().filter_map(|(_, id)| *id).take(1)
    }
}

/// Every event that any watcher saw.
fn events(streams: &[Stream]) -> impl Iterator<Item = &Event> {
    let received = streams.iter().flat_map(|stream| &stream.received);
    received.flat_map(|(_, received)| match received {
        Received::Events { events, .. } => &events[..],
        _ => &[],
    })
}

/// Every put of a request, and `None` for what changes keys in another way.
fn each_put<'a>(ask: &'a Request, each: &mut impl FnMut(Option<&'a pb::PutRequest>)) {
    match ask {
        Request::Put(put) => each(Some(put)),
        Request::DeleteRange(_) | Request::LeaseRevoke(_) => each(None),
        Request::Txn(txn) => each_put_of(txn, each),
        _ => {}
    }
}

fn each_put_of<'a>(txn: &'a pb::TxnRequest, each: &mut impl FnMut(Option<&'a pb::PutRequest>)) {
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(AskOp::RequestPut(put)) => each(Some(put)),
            Some(AskOp::RequestDeleteRange(_)) => each(None),
            Some(AskOp::RequestTxn(nested)) => each_put_of(nested, each),
            Some(AskOp::RequestRange(_)) | None => {}
        }
    }
}

/// Every version of a key that an answer shows.
fn each_kv<'a>(answer: Option<&'a Response>, each: &mut impl FnMut(&'a KeyValue)) {
    match answer {
        Some(Response::Range(it)) => it.kvs.iter().for_each(each),
        Some(Response::Put(it)) => it.prev_kv.iter().for_each(each),
        Some(Response::DeleteRange(it)) => it.prev_kvs.iter().for_each(each),
        Some(Response::Txn(it)) => each_kv_of(it, each),
        _ => {}
    }
}

fn each_kv_of<'a>(txn: &'a pb::TxnResponse, each: &mut impl FnMut(&'a KeyValue)) {
    for op in &txn.responses {
        match &op.response {
            Some(AnswerOp::ResponseRange(it)) => it.kvs.iter().for_each(&mut *each),
            Some(AnswerOp::ResponsePut(it)) => it.prev_kv.iter().for_each(&mut *each),
            Some(AnswerOp::ResponseDeleteRange(it)) => it.prev_kvs.iter().for_each(&mut *each),
            Some(AnswerOp::ResponseTxn(it)) => each_kv_of(it, each),
            None => {}
        }
    }
}
