//! etcd's KV, Txn, Lease and Compact as plainly as they can be said: one whole map per revision.
//!
//! It shares no code with the server beside the messages and the error texts, so that what both agree on is right for
//! a reason. It is told what etcd would choose (lease ids and TTLs above the floor) and expects requests that passed
//! the checks before the log. Costs O(keys) per revision: meant for small key spaces and long histories.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command::Request;
use mechi_proto::mvccpb::KeyValue;
use mechi_replica::outcome::{Error, Response};
use pb::request_op::Request as Op;
use pb::response_op::Response as Done;
use std::collections::{BTreeMap, BTreeSet};

type Keys = BTreeMap<Bytes, KeyValue>;

/// The whole store: what it held at every revision that is not compacted.
#[derive(Clone, Debug)]
pub struct Model {
    history: BTreeMap<i64, Keys>,
    compacted: i64,
    leases: BTreeMap<i64, i64>,
    alarms: BTreeSet<(i32, u64)>,
}

impl Default for Model {
    fn default() -> Self {
        let history = BTreeMap::from([(1, Keys::new())]);
        Self { history, compacted: -1, leases: BTreeMap::new(), alarms: BTreeSet::new() }
    }
}

/// A transaction while it runs: a copy of the keys, and whether it differs from the original by a change.
struct Work<'a> {
    keys: Keys,
    base: i64,
    changed: bool,
    model: &'a Model,
}

impl Model {
    /// The newest revision.
    pub fn revision(&self) -> i64 {
        *self.history.last_key_value().expect("the newest revision is never compacted").0
    }

    /// The last compaction; -1 before the first.
    pub fn compact_revision(&self) -> i64 {
        self.compacted
    }

    /// The granted leases and their TTLs.
    pub fn leases(&self) -> &BTreeMap<i64, i64> {
        &self.leases
    }

    /// Does what the request says; headers hold the revision alone.
    pub fn apply(&mut self, request: &Request) -> Result<Response, Error> {
        let data = !matches!(
            request,
            Request::Alarm(_) | Request::LeaseCheckpoint(_) | Request::MemberPublish(_) | Request::ClusterInit(_)
        );
        if data && self.alarms.iter().any(|alarm| alarm.0 == pb::AlarmType::Corrupt as i32) {
            return Err(Error::Corrupt);
        }
        match request {
            Request::Put(put) => {
                self.check_put(put)?;
                self.write(|work| work.put(put)).map(Response::Put)
            }
            Request::DeleteRange(delete) => self.write(|work| Ok(work.delete(delete))).map(Response::DeleteRange),
            Request::Txn(txn) => self.txn(txn).map(Response::Txn),
            Request::Compaction(compaction) => {
                if compaction.revision <= self.compacted {
                    return Err(Error::Compacted);
                }
                if compaction.revision > self.revision() {
                    return Err(Error::FutureRevision);
                }
                self.compacted = compaction.revision;
                self.history.retain(|&revision, _| revision >= compaction.revision);
                Ok(Response::Compaction(pb::CompactionResponse { header: header(self.revision()) }))
            }
            Request::LeaseGrant(grant) => {
                if grant.id == 0 {
                    return Err(Error::LeaseNotFound);
                }
                if grant.ttl > 9_000_000_000 {
                    return Err(Error::LeaseTtlTooLarge);
                }
                if self.leases.contains_key(&grant.id) {
                    return Err(Error::LeaseExists);
                }
                self.leases.insert(grant.id, grant.ttl);
                let header = header(self.revision());
                Ok(Response::LeaseGrant(pb::LeaseGrantResponse {
                    header,
                    id: grant.id,
                    ttl: grant.ttl,
                    error: String::new(),
                }))
            }
            Request::LeaseRevoke(revoke) => {
                self.revoke(revoke.id)?;
                Ok(Response::LeaseRevoke(pb::LeaseRevokeResponse { header: header(self.revision()) }))
            }
            Request::LeaseExpire(wish) => {
                let _ = self.revoke(wish.id);
                Ok(Response::Internal)
            }
            Request::Alarm(alarm) => Ok(Response::Alarm(self.alarm(alarm))),
            Request::LeaseCheckpoint(_) | Request::MemberPublish(_) | Request::ClusterInit(_) => Ok(Response::Internal),
        }
    }

    /// Reads a range as `KV.Range` does.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        let now = self.revision();
        let at = if request.revision <= 0 { now } else { request.revision };
        if at > now {
            return Err(Error::FutureRevision);
        }
        let keys = self.history.get(&at).ok_or(Error::Compacted)?;
        Ok(answer(keys, request, now))
    }

    fn check_put(&self, put: &pb::PutRequest) -> Result<(), Error> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Error::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && !self.history[&self.revision()].contains_key(&put.key) {
            return Err(Error::KeyNotFound);
        }
        Ok(())
    }

    /// Runs `change` on a copy, which becomes the next revision if anything changed.
    fn write<T>(&mut self, change: impl FnOnce(&mut Work<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let base = self.revision();
        let mut work = Work { keys: self.history[&base].clone(), base, changed: false, model: self };
        let done = change(&mut work)?;
        let (keys, changed) = (work.keys, work.changed);
        if changed {
            self.history.insert(base + 1, keys);
        }
        Ok(done)
    }

    fn revoke(&mut self, id: i64) -> Result<(), Error> {
        self.leases.remove(&id).ok_or(Error::LeaseNotFound)?;
        self.write(|work| {
            let before = work.keys.len();
            work.keys.retain(|_, kv| kv.lease != id);
            work.changed = work.keys.len() < before;
            Ok(())
        })
    }

    fn alarm(&mut self, request: &pb::AlarmRequest) -> pb::AlarmResponse {
        let asked = (request.alarm, request.member_id);
        let touched: Vec<_> = match (request.action, request.alarm) {
            (0, kind) => self.alarms.iter().copied().filter(|alarm| kind == 0 || alarm.0 == kind).collect(),
            (1, 1..=2) => {
                self.alarms.insert(asked);
                vec![asked]
            }
            (2, _) if self.alarms.remove(&asked) => vec![asked],
            _ => vec![],
        };
        let alarms = touched.into_iter().map(|(alarm, member_id)| pb::AlarmMember { member_id, alarm }).collect();
        pb::AlarmResponse { header: header(0), alarms }
    }

    /// Compares first, all of them on the state before; then checks in order; then runs.
    fn txn(&mut self, txn: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let mut path = Vec::new();
        self.decide(txn, &mut path);
        self.check_txn(txn, &mut path.iter(), &mut self.history[&self.revision()].clone())?;
        self.write(|work| {
            let mut response = work.txn(txn, &mut path.iter())?;
            response.header = header(work.revision());
            Ok(response)
        })
    }

    fn decide(&self, txn: &pb::TxnRequest, path: &mut Vec<bool>) {
        let holds = txn.compare.iter().all(|compare| self.compare(compare));
        path.push(holds);
        for op in if holds { &txn.success } else { &txn.failure } {
            if let Some(Op::RequestTxn(nested)) = &op.request {
                self.decide(nested, path);
            }
        }
    }

    fn compare(&self, compare: &pb::Compare) -> bool {
        use pb::compare::{CompareTarget as Target, TargetUnion as Union};
        let inside = within(&compare.key, &compare.range_end);
        let mut found: Vec<_> = self.history[&self.revision()].values().filter(|kv| inside(&kv.key)).cloned().collect();
        if found.is_empty() {
            if compare.target == Target::Value as i32 {
                return false;
            }
            found.push(KeyValue::default());
        }
        found.iter().all(|kv| {
            let order = match (compare.target, &compare.target_union) {
                (0, Some(Union::Version(wanted))) => kv.version.cmp(wanted),
                (1, Some(Union::CreateRevision(wanted))) => kv.create_revision.cmp(wanted),
                (2, Some(Union::ModRevision(wanted))) => kv.mod_revision.cmp(wanted),
                (3, Some(Union::Value(wanted))) => kv.value.cmp(wanted),
                (4, Some(Union::Lease(wanted))) => kv.lease.cmp(wanted),
                (0, _) => kv.version.cmp(&0),
                (1, _) => kv.create_revision.cmp(&0),
                (2, _) => kv.mod_revision.cmp(&0),
                (3, _) => kv.value.cmp(&Bytes::new()),
                (4, _) => kv.lease.cmp(&0),
                _ => 0.cmp(&0),
            };
            match compare.result {
                0 => order.is_eq(),
                1 => order.is_gt(),
                2 => order.is_lt(),
                3 => order.is_ne(),
                _ => true,
            }
        })
    }

    /// `living` follows what the txn will put and delete, so that a put which keeps a value finds one.
    fn check_txn<'p>(
        &self,
        txn: &pb::TxnRequest,
        path: &mut impl Iterator<Item = &'p bool>,
        living: &mut Keys,
    ) -> Result<(), Error> {
        for op in branch(txn, path.next()) {
            match &op.request {
                Some(Op::RequestRange(range)) if range.revision > self.revision() => return Err(Error::FutureRevision),
                Some(Op::RequestRange(range)) if range.revision != 0 && range.revision < self.compacted => {
                    return Err(Error::Compacted);
                }
                Some(Op::RequestPut(put)) => {
                    self.check_put(put)?;
                    if (put.ignore_value || put.ignore_lease) && !living.contains_key(&put.key) {
                        return Err(Error::KeyNotFound);
                    }
                    living.insert(put.key.clone(), KeyValue::default());
                }
                Some(Op::RequestDeleteRange(delete)) => {
                    let inside = within(&delete.key, &delete.range_end);
                    living.retain(|key, _| !inside(key));
                }
                Some(Op::RequestTxn(nested)) => self.check_txn(nested, path, living)?,
                Some(Op::RequestRange(_)) | None => {}
            }
        }
        Ok(())
    }
}

impl Work<'_> {
    fn revision(&self) -> i64 {
        self.base + i64::from(self.changed)
    }

    fn put(&mut self, put: &pb::PutRequest) -> Result<pb::PutResponse, Error> {
        let previous = self.keys.get(&put.key).cloned();
        self.changed = true;
        let mut kv = previous.clone().unwrap_or(KeyValue {
            key: put.key.clone(),
            create_revision: self.revision(),
            ..KeyValue::default()
        });
        kv.mod_revision = self.revision();
        kv.version += 1;
        if !put.ignore_value {
            kv.value = put.value.clone();
        }
        if !put.ignore_lease {
            kv.lease = put.lease;
        }
        self.keys.insert(put.key.clone(), kv);
        Ok(pb::PutResponse { header: header(self.revision()), prev_kv: previous.filter(|_| put.prev_kv) })
    }

    fn delete(&mut self, delete: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let inside = within(&delete.key, &delete.range_end);
        let gone: Vec<_> = self.keys.values().filter(|kv| inside(&kv.key)).cloned().collect();
        self.keys.retain(|key, _| !inside(key));
        self.changed |= !gone.is_empty();
        let deleted = gone.len() as i64;
        let prev_kvs = if delete.prev_kv { gone } else { vec![] };
        pb::DeleteRangeResponse { header: header(self.revision()), deleted, prev_kvs }
    }

    fn txn<'p>(
        &mut self,
        txn: &pb::TxnRequest,
        path: &mut impl Iterator<Item = &'p bool>,
    ) -> Result<pb::TxnResponse, Error> {
        let chosen = path.next();
        let mut responses = Vec::new();
        for op in branch(txn, chosen) {
            let response = match &op.request {
                Some(Op::RequestRange(range)) if range.revision <= 0 || range.revision == self.revision() => {
                    Some(Done::ResponseRange(answer(&self.keys, range, self.revision())))
                }
                Some(Op::RequestRange(range)) => {
                    let keys = &self.model.history[&range.revision];
                    Some(Done::ResponseRange(answer(keys, range, self.revision())))
                }
                Some(Op::RequestPut(put)) => Some(Done::ResponsePut(self.put(put)?)),
                Some(Op::RequestDeleteRange(delete)) => Some(Done::ResponseDeleteRange(self.delete(delete))),
                Some(Op::RequestTxn(nested)) => Some(Done::ResponseTxn(self.txn(nested, path)?)),
                None => None,
            };
            responses.push(pb::ResponseOp { response });
        }
        Ok(pb::TxnResponse { header: header(0), succeeded: chosen == Some(&true), responses })
    }
}

fn branch<'a>(txn: &'a pb::TxnRequest, chosen: Option<&bool>) -> &'a [pb::RequestOp] {
    if chosen == Some(&true) { &txn.success } else { &txn.failure }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn within<'a>(key: &'a Bytes, end: &'a Bytes) -> impl Fn(&Bytes) -> bool + 'a {
    move |candidate| match &end[..] {
        [] => candidate == key,
        [0] => candidate >= key,
        _ => candidate >= key && candidate < end,
    }
}

/// etcd's pipeline: fetch (the limit counts here only in its default order), filter, sort, cut.
fn answer(keys: &Keys, request: &pb::RangeRequest, now: i64) -> pb::RangeResponse {
    let inside = within(&request.key, &request.range_end);
    let mut kvs: Vec<_> = keys.values().filter(|kv| inside(&kv.key)).cloned().collect();
    let count = kvs.len() as i64;
    if request.count_only {
        return pb::RangeResponse { header: header(now), kvs: vec![], more: false, count };
    }
    let (order, target) = (request.sort_order, request.sort_target);
    let filters =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    let limit = usize::try_from(request.limit).unwrap_or(0);
    if limit > 0 && filters == [0; 4] && (order == 0 || (order == 1 && target == 0)) {
        kvs.truncate(limit.saturating_add(1));
    }
    let [min_mod, max_mod, min_create, max_create] = filters;
    kvs.retain(|kv| max_mod == 0 || kv.mod_revision <= max_mod);
    kvs.retain(|kv| min_mod == 0 || kv.mod_revision >= min_mod);
    kvs.retain(|kv| max_create == 0 || kv.create_revision <= max_create);
    kvs.retain(|kv| min_create == 0 || kv.create_revision >= min_create);
    kvs.sort_by(|a, b| {
        let ascending = match target {
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            4 => a.value.cmp(&b.value),
            _ => a.key.cmp(&b.key),
        };
        if order == 2 { ascending.reverse() } else { ascending }
    });
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
            if target != 4 {
                kv.lease = 0;
            }
        }
    }
    pb::RangeResponse { header: header(now), kvs, more, count }
}
