//! The end of a run: the merged committed log is replayed into the model, and every answer is compared with it.

use super::watcher::{Stretch, Watcher};
use super::work::{Ask, Op, Outcome};
use super::world::World;
use crate::model::Model;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use mechi_proto::mvccpb::event::EventType;
use mechi_proto::mvccpb::{Event, KeyValue};
use mechi_replica::apply::kv;
use mechi_replica::command::decode;
use mechi_replica::conf::{Configuration, Move};
use mechi_replica::effect::EntryKind;
use mechi_replica::mvcc::HashJob;
use mechi_replica::types::{Index, MemberId, Term};
use std::collections::{BTreeMap, BTreeSet};

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// By a client's revoke.
    Revoked { committed: u64, applied: u64 },
    /// By its leader's wish.
    Expired { committed: u64 },
}

/// One change of one key.
struct Change {
    revision: i64,
    event: Event,
    previous: Option<KeyValue>,
}

/// What the committed log means.
struct Replay<'a> {
    world: &'a World,
    model: Model,
    windows: BTreeMap<u64, (u64, BTreeSet<u64>)>,
    grants: BTreeMap<i64, Index>,
    ended: BTreeMap<i64, Ended>,
    keys: BTreeMap<Bytes, KeyValue>,
    changes: Vec<Change>,
    /// Where each operation was applied.
    applied: BTreeMap<u64, Index>,
    compactions: Vec<i64>,
    conf: Configuration,
}

/// Checks everything that can be judged only in the light of the whole history.
pub(super) fn judge(world: &World) -> Result<(), String> {
    let mut replay = Replay {
        world,
        model: Model::default(),
        windows: BTreeMap::new(),
        grants: BTreeMap::new(),
        ended: BTreeMap::new(),
        keys: BTreeMap::new(),
        changes: Vec::new(),
        applied: BTreeMap::new(),
        compactions: Vec::new(),
        conf: Configuration::founding((1..=world.options.members).map(MemberId)),
    };
    let mut reads: Vec<(Index, usize)> = Vec::new();
    for (place, op) in world.ops.iter().enumerate() {
        if let Some(Outcome::Read { at, .. }) = op.outcome {
            reads.push((at, place));
        }
    }
    reads.sort_unstable();
    let mut reads = reads.into_iter().peekable();
    for index in 0..=world.ledger.last() {
        if index > 0 {
            replay.entry(index)?;
        }
        while let Some((_, place)) = reads.next_if(|(at, _)| *at == index) {
            replay.read(place as u64 + 1, &world.ops[place])?;
        }
    }
    if let Some((at, place)) = reads.next() {
        return Err(format!("A2: operation {} read index {at}, which was never committed", place + 1));
    }
    replay.answers()?;
    order(world, &replay.applied)?;
    for (number, watcher) in world.watchers.iter().enumerate() {
        for stretch in &watcher.stretches {
            replay.stretch(watcher, stretch).map_err(|error| format!("watcher {number}: {error}"))?;
        }
    }
    replay.leases()?;
    replay.members()
}

impl Replay<'_> {
    fn entry(&mut self, index: Index) -> Result<(), String> {
        let committed = &self.world.ledger.committed[index as usize - 1];
        let entry = &committed.entry;
        if let Some(change) = Move::decode(entry).map_err(|error| format!("A5: entry {index}: {error}"))? {
            return self.membership(index, &change);
        }
        if entry.kind != EntryKind::Normal || entry.data.is_empty() {
            return Ok(());
        }
        let batch = decode(&entry.data).map_err(|error| format!("A5: entry {index}: {error}"))?;
        let (boot, seen) = self.windows.entry(batch.member).or_default();
        if batch.boot < *boot {
            return Ok(());
        }
        if batch.boot > *boot {
            (*boot, *seen) = (batch.boot, BTreeSet::new());
        }
        if !seen.insert(batch.number) {
            return Ok(());
        }
        for command in &batch.commands {
            let request = command.request.as_ref().ok_or("a command without a request")?;
            let outcome = self.command(index, entry.term, request);
            let Some(op) = command.id.checked_sub(1).and_then(|place| self.world.ops.get(place as usize)) else {
                continue;
            };
            if let Some(first) = self.applied.insert(command.id, index) {
                return Err(format!("A3: operation {} is applied at {first} and at {index}", command.id));
            }
            if op.member != batch.member {
                return Err(format!("operation {} of {} is in a batch of {}", command.id, op.member, batch.member));
            }
            match &op.outcome {
                Some(Outcome::Answer { at, result }) if *at == index && *result == outcome => {}
                Some(Outcome::Unknown) | None => {}
                heard => {
                    return Err(format!(
                        "K1: operation {} {:?} is applied at {index} with {outcome:?}, its client heard {heard:?}",
                        command.id, op.ask
                    ));
                }
            }
        }
        Ok(())
    }

    /// A membership change: it fits, and its operator heard so or does not know.
    fn membership(&mut self, index: Index, change: &Move) -> Result<(), String> {
        let after = self.conf.after(&change.steps);
        self.conf = after.map_err(|error| format!("R10: {change:?} at {index} after {:?}: {error}", self.conf))?;
        if change.steps.is_empty() {
            return Ok(());
        }
        let place = change.author.id.checked_sub(1).ok_or("a change that nobody asked for")?;
        let op = self.world.ops.get(place as usize).ok_or("a change that nobody asked for")?;
        if let Some(first) = self.applied.insert(change.author.id, index) {
            return Err(format!("A3: operation {} is applied at {first} and at {index}", change.author.id));
        }
        let asked =
            matches!(&op.ask, Ask::Configure(steps) if *steps == change.steps) && op.member == change.author.member;
        match &op.outcome {
            Some(Outcome::Answer { at, result: Ok(_) }) if asked && *at == index => Ok(()),
            Some(Outcome::Unknown) | None if asked => Ok(()),
            heard => Err(format!("K1: change {change:?} is applied at {index}, {:?} heard {heard:?}", op.ask)),
        }
    }

    fn command(
        &mut self,
        index: Index,
        term: Term,
        request: &Request,
    ) -> Result<mechi_replica::outcome::Response, mechi_replica::outcome::Error> {
        let committed = &self.world.ledger.committed[index as usize - 1];
        let outcome = match request {
            // The wish counts only for its own grant, and only in its author's term.
            Request::LeaseExpire(wish) => {
                if self.grants.get(&wish.id) == Some(&wish.grant_index)
                    && wish.term == term
                    && self.model.leases().contains_key(&wish.id)
                {
                    self.ended.insert(wish.id, Ended::Expired { committed: committed.at });
                    self.model.apply(request)
                } else {
                    Ok(mechi_replica::outcome::Response::Internal)
                }
            }
            request => self.model.apply(request),
        };
        match request {
            Request::LeaseGrant(grant) if outcome.is_ok() => {
                self.grants.insert(grant.id, index);
            }
            Request::LeaseRevoke(revoke) if outcome.is_ok() => {
                let ended = Ended::Revoked { committed: committed.at, applied: committed.applied_at };
                self.ended.insert(revoke.id, ended);
            }
            Request::Compaction(compaction) if outcome.is_ok() => self.compactions.push(compaction.revision),
            _ => {}
        }
        self.diff();
        outcome
    }

    /// Finds what the last command changed.
    fn diff(&mut self) {
        let revision = self.model.revision();
        if self.changes.last().map_or(1, |change| change.revision) == revision {
            return;
        }
        let all = pb::RangeRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            ..Default::default()
        };
        let found = self.model.range(&all).expect("the newest revision can be read");
        let now: BTreeMap<Bytes, KeyValue> = found.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        let mut changes = Vec::new();
        for (key, kv) in now.iter().filter(|(_, kv)| kv.mod_revision == revision) {
            let event = Event { r#type: EventType::Put as i32, kv: Some(kv.clone()), prev_kv: None };
            changes.push(Change { revision, event, previous: self.keys.get(key).cloned() });
        }
        for (key, previous) in self.keys.iter().filter(|(key, _)| !now.contains_key(*key)) {
            let kv = KeyValue { key: key.clone(), mod_revision: revision, ..Default::default() };
            let event = Event { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv: None };
            changes.push(Change { revision, event, previous: Some(previous.clone()) });
        }
        self.changes.extend(changes);
        self.keys = now;
    }

    fn read(&self, number: u64, op: &Op) -> Result<(), String> {
        let (Ask::Range(range), Some(Outcome::Read { at, revision, result })) = (&op.ask, &op.outcome) else {
            return Err(format!("operation {number} is no read, and was answered as one"));
        };
        let wanted = self.model.range(range);
        if *result != wanted || *revision != self.model.revision() {
            return Err(format!(
                "K7: read {number} {range:?} at index {at} and revision {revision} heard {result:?}, wanted at revision \
                 {} was {wanted:?}",
                self.model.revision()
            ));
        }
        Ok(())
    }

    /// Who heard an answer was applied; who was refused was not.
    fn answers(&self) -> Result<(), String> {
        for (op, number) in self.world.ops.iter().zip(1..) {
            let applied = self.applied.get(&number);
            match &op.outcome {
                Some(Outcome::Answer { at, .. }) if applied != Some(at) => {
                    return Err(format!("A1: operation {number} was answered at {at} and is applied at {applied:?}"));
                }
                Some(Outcome::Refused(why)) if applied.is_some() => {
                    return Err(format!("K1: operation {number} was refused ({why}) and is applied at {applied:?}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The watch rules, against all changes there were.
    fn stretch(&self, watcher: &Watcher, stretch: &Stretch) -> Result<(), String> {
        let through = stretch.through;
        if through > self.model.revision() {
            return Err(format!("W7: told everything up to {through}, and the newest is {}", self.model.revision()));
        }
        let first = self.changes.partition_point(|change| change.revision < stretch.start);
        let mut wanted: Vec<&Change> = self.changes[first..]
            .iter()
            .take_while(|change| change.revision <= through)
            .filter(|change| {
                let key = &change.event.kv.as_ref().expect("a change has a key").key;
                watcher.range.contains(key) && !(watcher.no_delete && change.event.r#type() == EventType::Delete)
            })
            .collect();
        wanted.sort_by_key(|change| (change.revision, change.event.kv.as_ref().map(|kv| kv.key.clone())));
        let mut got: Vec<&Event> = stretch.events.iter().collect();
        let place = |event: &Event| event.kv.as_ref().map(|kv| (kv.mod_revision, kv.key.clone()));
        // W2 was checked as they came, revision by revision; within one the order is the transaction's own.
        got.sort_by_key(|event| place(event));
        for (change, event) in wanted.iter().zip(&got) {
            let mut plain = (*event).clone();
            let previous = plain.prev_kv.take();
            if plain != change.event {
                return Err(format!("W5: wanted {:?}, got {event:?}", change.event));
            }
            let compacted = self.compactions.iter().any(|at| *at >= change.revision);
            let right = if watcher.prev_kv {
                previous == change.previous || (previous.is_none() && compacted)
            } else {
                previous.is_none()
            };
            if !right {
                return Err(format!("W8: {event:?} should show {:?} before it", change.previous));
            }
        }
        if wanted.len() != got.len() {
            return Err(format!(
                "W5: from {} through {through} there were {} events, {} came",
                stretch.start,
                wanted.len(),
                got.len()
            ));
        }
        match stretch.compacted {
            Some(at) if !self.compactions.contains(&at) => Err(format!("W9: nobody compacted at {at}")),
            _ => Ok(()),
        }
    }

    /// L1: nobody's lease ended early. L4: nobody renewed one that had ended.
    fn leases(&self) -> Result<(), String> {
        // The leader's clock may run fast by so much.
        let early = |us: u64| us - us * 2 * self.world.options.skew.max(1_000) / 1_000_000;
        for (op, number) in self.world.ops.iter().zip(1..) {
            let (id, ttl) = match (&op.ask, &op.outcome) {
                (Ask::KeepAlive(id), Some(Outcome::Renewed(ttl))) if *ttl > 0 => (id.0, *ttl),
                (Ask::Write(Request::LeaseGrant(grant)), Some(Outcome::Answer { result: Ok(_), .. })) => {
                    (grant.id, grant.ttl)
                }
                _ => continue,
            };
            let until = op.invoked + early(ttl as u64 * 1_000_000);
            match self.ended.get(&id) {
                Some(Ended::Expired { committed }) if *committed < until => {
                    return Err(format!(
                        "L1: lease {id} was renewed by operation {number} at {} for {ttl} s and expired at {committed}",
                        op.invoked
                    ));
                }
                Some(Ended::Revoked { committed, applied })
                    if matches!(op.ask, Ask::KeepAlive(_)) && op.invoked > *applied.max(committed) =>
                {
                    return Err(format!("L4: lease {id} was revoked at {applied} and renewed by operation {number}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// H: every member holds what the log means, and all the same.
    fn members(&self) -> Result<(), String> {
        let all = pb::RangeRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            ..Default::default()
        };
        let wanted = self.model.range(&all);
        let leases: Vec<i64> = self.model.leases().keys().copied().collect();
        let mut first = None;
        for (id, node) in &self.world.nodes {
            let process = node.process.as_ref().ok_or("a member is down at the end")?;
            let (state, values) = (&process.state, process.values());
            let now = state.mvcc.revision();
            let found = kv::range(&state.mvcc, &all, now, &values).map_err(|error| format!("H2: {id}: {error}"))?;
            if found != wanted {
                return Err(format!("H2: {id} holds {found:?}, the log means {wanted:?}"));
            }
            if state.conf != self.conf {
                return Err(format!("H2: {id} has {:?}, the log means {:?}", state.conf, self.conf));
            }
            let held: Vec<i64> = state.leases.iter().map(|(id, _)| id.0).collect();
            if held != leases {
                return Err(format!("H2: {id} holds the leases {held:?}, the log means {leases:?}"));
            }
            if state.mvcc.content_sum() != state.mvcc.recompute_content_sum() {
                return Err(format!("H2: the content sum of {id} is not that of its content"));
            }
            let mut job = HashJob::new(&state.mvcc, 0).map_err(|error| format!("H1: {id}: {error}"))?;
            while job.step(&state.mvcc).map_err(|error| format!("H1: {id}: {error}"))? {}
            let hash = job.finish(&values).map_err(|error| format!("H1: {id}: {error}"))?;
            let seen = (hash.hash, state.to_meta());
            match &first {
                None => first = Some(seen),
                Some(first) if *first == seen => {}
                Some(first) => return Err(format!("H1: {id} has {seen:?}, others {first:?}")),
            }
        }
        Ok(())
    }
}

/// K1, K3: what was answered before something was asked comes before it in the one order of all.
fn order(world: &World, applied: &BTreeMap<u64, Index>) -> Result<(), String> {
    let mut placed: Vec<(Index, u8, u64, u64, u64)> = Vec::new();
    for (op, number) in world.ops.iter().zip(1..) {
        let returned = op.returned.unwrap_or(u64::MAX);
        match (&op.ask, &op.outcome) {
            (Ask::Range(range), Some(Outcome::Read { at, .. })) if !range.serializable => {
                placed.push((*at, 1, op.invoked, returned, number));
            }
            _ => {
                if let Some(index) = applied.get(&number) {
                    placed.push((*index, 0, op.invoked, returned, number));
                }
            }
        }
    }
    placed.sort_unstable();
    let mut newest = (0, 0);
    for group in placed.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        for (index, _, _, returned, number) in group {
            if *returned < newest.0 {
                return Err(format!(
                    "K1: operation {number} stands at index {index} and was answered at {returned}, before operation {} \
                     was asked at {}, which stands before it",
                    newest.1, newest.0
                ));
            }
        }
        for (_, _, invoked, _, number) in group {
            newest = newest.max((*invoked, *number));
        }
    }
    Ok(())
}
