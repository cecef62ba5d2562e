//! etcd's KV, Txn, Lease and Compact as plainly as they can be said: every version of every key.
//!
//! It shares no code with the server beside the messages, so that what both agree on is right for a reason. It is told
//! what etcd would choose (lease ids and TTLs above the floor) and expects requests that passed the checks before the
//! log.

mod keys;

use crate::history::store::{Request, Response, header};
use bytes::Bytes;
pub use keys::Change;
use keys::Keys;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::command;
use mechi_proto::mvccpb::KeyValue;
use pb::request_op::Request as Op;
use pb::response_op::Response as Done;
use std::collections::{BTreeMap, BTreeSet};

/// A refusal in etcd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
}

/// What a command of the log ends in.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// An answer of the store.
    Store(Response),
    /// The alarms that were touched.
    Alarm(pb::AlarmResponse),
    /// A member's own command, which no client waits for.
    Internal,
}

/// The whole store: what it held at every revision that is not compacted.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    keys: Keys,
    revision: i64,
    compacted: i64,
    leases: BTreeMap<i64, i64>,
    alarms: BTreeSet<(i32, u64)>,
}

impl Default for Model {
    fn default() -> Self {
        Self { keys: Keys::default(), revision: 1, compacted: -1, leases: BTreeMap::new(), alarms: BTreeSet::new() }
    }
}

/// A transaction while it runs: it was checked, so that nothing it does can fail.
struct Work<'a> {
    keys: &'a mut Keys,
    base: i64,
    changed: bool,
}

impl Model {
    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The last compaction; -1 before the first.
    pub fn compact_revision(&self) -> i64 {
        self.compacted
    }

    /// The granted leases and their TTLs.
    pub fn leases(&self) -> &BTreeMap<i64, i64> {
        &self.leases
    }

    /// What one revision changed, in the order in which it did.
    pub fn changes(&self, revision: i64) -> impl Iterator<Item = Change> {
        self.keys.changes(revision)
    }

    /// The keys that hang on a lease, in order.
    pub fn attached(&self, lease: i64) -> Vec<Bytes> {
        self.keys.attached(lease)
    }

    /// A key as it is now.
    pub fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key, self.revision)
    }

    /// Makes the next revision by what it changed, not by a request.
    pub fn change(&mut self, changes: impl IntoIterator<Item = (Bytes, Option<KeyValue>)>) {
        self.revision += 1;
        for (key, kv) in changes {
            self.keys.set(self.revision, key, kv);
        }
    }

    /// Takes for granted that a lease lives.
    pub fn assume_lease(&mut self, id: i64) {
        self.leases.entry(id).or_insert(0);
    }

    /// Takes back what happened to the keys after `revision`; leases, alarms and compactions stay.
    pub fn rollback(&mut self, revision: i64) {
        self.keys.rollback(revision);
        self.revision = self.revision.min(revision);
    }

    /// Answers what a client may ask; `None` for what depends on a clock.
    pub fn ask(&mut self, request: &Request) -> Option<Result<Response, Error>> {
        use command::Request as Logged;
        let logged = match request {
            Request::Range(range) => return Some(self.range(range).map(Response::Range)),
            Request::LeaseKeepAlive(_) | Request::LeaseTimeToLive(_) => return None,
            Request::Put(it) => Logged::Put(it.clone()),
            Request::DeleteRange(it) => Logged::DeleteRange(it.clone()),
            Request::Txn(it) => Logged::Txn(it.clone()),
            Request::Compaction(it) => Logged::Compaction(*it),
            Request::LeaseGrant(it) => Logged::LeaseGrant(*it),
            Request::LeaseRevoke(it) => Logged::LeaseRevoke(*it),
        };
        match self.apply(&logged) {
            Ok(Outcome::Store(response)) => Some(Ok(response)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Does what the request says; headers hold the revision alone.
    pub fn apply(&mut self, request: &command::Request) -> Result<Outcome, Error> {
        use command::Request;
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
                Ok(Outcome::Store(Response::Put(self.write(|work| work.put(put)))))
            }
            Request::DeleteRange(delete) => {
                Ok(Outcome::Store(Response::DeleteRange(self.write(|work| work.delete(delete)))))
            }
            Request::Txn(txn) => self.txn(txn).map(Response::Txn).map(Outcome::Store),
            Request::Compaction(compaction) => {
                if compaction.revision <= self.compacted {
                    return Err(Error::Compacted);
                }
                if compaction.revision > self.revision() {
                    return Err(Error::FutureRevision);
                }
                self.compacted = compaction.revision;
                Ok(Outcome::Store(Response::Compaction(pb::CompactionResponse { header: header(self.revision()) })))
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
                let (id, ttl) = (grant.id, grant.ttl);
                let response = pb::LeaseGrantResponse { header, id, ttl, error: String::new() };
                Ok(Outcome::Store(Response::LeaseGrant(response)))
            }
            Request::LeaseRevoke(revoke) => {
                self.revoke(revoke.id)?;
                Ok(Outcome::Store(Response::LeaseRevoke(pb::LeaseRevokeResponse { header: header(self.revision()) })))
            }
            Request::LeaseExpire(wish) => {
                let _ = self.revoke(wish.id);
                Ok(Outcome::Internal)
            }
            Request::Alarm(alarm) => Ok(Outcome::Alarm(self.alarm(alarm))),
            Request::LeaseCheckpoint(_) | Request::MemberPublish(_) | Request::ClusterInit(_) => Ok(Outcome::Internal),
        }
    }

    /// Reads a range as `KV.Range` does.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        let now = self.revision();
        let at = if request.revision <= 0 { now } else { request.revision };
        if at > now {
            return Err(Error::FutureRevision);
        }
        if at < self.compacted {
            return Err(Error::Compacted);
        }
        Ok(self.range_as_of(request, now))
    }

    /// Reads a range as it was answered when `now` was the newest revision, compacted since or not.
    pub fn range_as_of(&self, request: &pb::RangeRequest, now: i64) -> pb::RangeResponse {
        let at = if request.revision <= 0 { now } else { request.revision };
        answer(&self.keys, request, at, now)
    }

    fn check_put(&self, put: &pb::PutRequest) -> Result<(), Error> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Error::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && self.get(&put.key).is_none() {
            return Err(Error::KeyNotFound);
        }
        Ok(())
    }

    /// Runs `change`, which makes the next revision if it changes anything.
    fn write<T>(&mut self, change: impl FnOnce(&mut Work<'_>) -> T) -> T {
        let mut work = Work { keys: &mut self.keys, base: self.revision, changed: false };
        let done = change(&mut work);
        self.revision = work.revision();
        done
    }

    fn revoke(&mut self, id: i64) -> Result<(), Error> {
        self.leases.remove(&id).ok_or(Error::LeaseNotFound)?;
        let keys = self.keys.attached(id);
        self.write(|work| {
            work.changed = !keys.is_empty();
            for key in keys {
                work.keys.set(work.revision(), key, None);
            }
        });
        Ok(())
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
        self.check_txn(txn, &mut path.iter(), &mut Living { model: self, changed: BTreeMap::new() })?;
        Ok(self.write(|work| {
            let mut response = work.txn(txn, &mut path.iter());
            response.header = header(work.revision());
            response
        }))
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
        let mut found: Vec<_> = self.keys.range(&compare.key, &compare.range_end, self.revision).cloned().collect();
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
        living: &mut Living<'_>,
    ) -> Result<(), Error> {
        for op in branch(txn, path.next()) {
            match &op.request {
                Some(Op::RequestRange(range)) if range.revision > self.revision() => return Err(Error::FutureRevision),
                Some(Op::RequestRange(range)) if range.revision != 0 && range.revision < self.compacted => {
                    return Err(Error::Compacted);
                }
                Some(Op::RequestPut(put)) => {
                    self.check_put(put)?;
                    if (put.ignore_value || put.ignore_lease) && !living.has(&put.key) {
                        return Err(Error::KeyNotFound);
                    }
                    living.changed.insert(put.key.clone(), true);
                }
                Some(Op::RequestDeleteRange(delete)) => {
                    living.delete(delete);
                }
                Some(Op::RequestTxn(nested)) => self.check_txn(nested, path, living)?,
                Some(Op::RequestRange(_)) | None => {}
            }
        }
        Ok(())
    }
}

/// Which keys a transaction will find, half way through.
struct Living<'a> {
    model: &'a Model,
    changed: BTreeMap<Bytes, bool>,
}

impl Living<'_> {
    fn has(&self, key: &Bytes) -> bool {
        self.changed.get(key).copied().unwrap_or_else(|| self.model.get(key).is_some())
    }

    fn delete(&mut self, delete: &pb::DeleteRangeRequest) {
        let inside = within(&delete.key, &delete.range_end);
        self.changed.iter_mut().filter(|(key, _)| inside(key)).for_each(|(_, lives)| *lives = false);
        let found = self.model.keys.range(&delete.key, &delete.range_end, self.model.revision);
        self.changed.extend(found.map(|kv| (kv.key.clone(), false)));
    }
}

impl Work<'_> {
    fn revision(&self) -> i64 {
        self.base + i64::from(self.changed)
    }

    fn put(&mut self, put: &pb::PutRequest) -> pb::PutResponse {
        let previous = self.keys.get(&put.key, self.revision()).cloned();
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
        self.keys.set(self.revision(), put.key.clone(), Some(kv));
        pb::PutResponse { header: header(self.revision()), prev_kv: previous.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let gone: Vec<_> = self.keys.range(&delete.key, &delete.range_end, self.revision()).cloned().collect();
        self.changed |= !gone.is_empty();
        for kv in &gone {
            self.keys.set(self.revision(), kv.key.clone(), None);
        }
        let deleted = gone.len() as i64;
        let prev_kvs = if delete.prev_kv { gone } else { vec![] };
        pb::DeleteRangeResponse { header: header(self.revision()), deleted, prev_kvs }
    }

    fn txn<'p>(&mut self, txn: &pb::TxnRequest, path: &mut impl Iterator<Item = &'p bool>) -> pb::TxnResponse {
        let chosen = path.next();
        let mut responses = Vec::new();
        for op in branch(txn, chosen) {
            let response = match &op.request {
                Some(Op::RequestRange(range)) => {
                    let at = if range.revision <= 0 { self.revision() } else { range.revision };
                    Some(Done::ResponseRange(answer(self.keys, range, at, self.revision())))
                }
                Some(Op::RequestPut(put)) => Some(Done::ResponsePut(self.put(put))),
                Some(Op::RequestDeleteRange(delete)) => Some(Done::ResponseDeleteRange(self.delete(delete))),
                Some(Op::RequestTxn(nested)) => Some(Done::ResponseTxn(self.txn(nested, path))),
                None => None,
            };
            responses.push(pb::ResponseOp { response });
        }
        pb::TxnResponse { header: header(0), succeeded: chosen == Some(&true), responses }
    }
}

fn branch<'a>(txn: &'a pb::TxnRequest, chosen: Option<&bool>) -> &'a [pb::RequestOp] {
    if chosen == Some(&true) { &txn.success } else { &txn.failure }
}

fn within<'a>(key: &'a Bytes, end: &'a Bytes) -> impl Fn(&Bytes) -> bool + 'a {
    move |candidate| match &end[..] {
        [] => candidate == key,
        [0] => candidate >= key,
        _ => candidate >= key && candidate < end,
    }
}

/// etcd's pipeline: fetch (the limit counts here only in its default order), filter, sort, cut.
fn answer(keys: &Keys, request: &pb::RangeRequest, at: i64, now: i64) -> pb::RangeResponse {
    let mut kvs: Vec<_> = keys.range(&request.key, &request.range_end, at).cloned().collect();
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
