//! What a txn or a put is judged on before it runs: compares, leases, keys and revisions of the state before it.

use super::kv::{fields, read_revision};
use super::lease::Leases;
use super::txn::{Plan, Step};
use crate::mvcc::{Item, Mvcc};
use crate::outcome::{Error, Fatal};
use crate::store::Values;
use crate::types::{KeyRange, LeaseId};
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use std::cmp::Ordering;

/// The state that a request is judged on.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    pub(super) mvcc: &'a Mvcc,
    pub(super) leases: &'a Leases,
    pub(super) values: &'a dyn Values,
}

impl Before<'_> {
    /// Tells whether every compare holds.
    pub(super) fn holds(&self, compares: &[pb::Compare]) -> Result<bool, Fatal> {
        for compare in compares {
            if !self.compare(compare)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells whether every key of the compare's range satisfies it; no key at all is one that never was.
    fn compare(&self, compare: &pb::Compare) -> Result<bool, Fatal> {
        let keys = KeyRange::new(&compare.key, &compare.range_end);
        let (mut found, mut holds) = (false, Ok(true));
        self.mvcc.scan(&keys, self.mvcc.revision(), &mut |item| {
            found = true;
            holds = self.compare_item(compare, &item);
            matches!(holds, Ok(true))
        });
        if found { holds } else { Ok(compare_missing(compare)) }
    }

    fn compare_item(&self, compare: &pb::Compare, item: &Item) -> Result<bool, Fatal> {
        let number = wanted_number(compare);
        let order = match CompareTarget::try_from(compare.target) {
            Ok(CompareTarget::Version) => item.version.cmp(&number),
            Ok(CompareTarget::Create) => item.create_revision.cmp(&number),
            Ok(CompareTarget::Mod) => item.mod_revision.main.cmp(&number),
            // A key's lease is what it is attached to now, which the leases know without loading the record.
            Ok(CompareTarget::Lease) => self.leases.of_key(item.key()).unwrap_or_default().0.cmp(&number),
            Ok(CompareTarget::Value) => {
                let record = item.record(self.values)?;
                fields(&record)?.value.cmp(wanted_value(compare))
            }
            Err(_) => Ordering::Equal,
        };
        Ok(satisfies(compare, order))
    }

    /// Checks a put: its lease is granted, and what it keeps is there.
    ///
    /// - Errors, in etcd's order: [`Error::LeaseNotFound`], [`Error::KeyNotFound`].
    pub(super) fn put(&self, request: &pb::PutRequest) -> Result<(), Error> {
        if request.lease != 0 && self.leases.get(LeaseId(request.lease)).is_none() {
            return Err(Error::LeaseNotFound);
        }
        if keeps(request) && self.mvcc.get(&request.key, self.mvcc.revision()).is_none() {
            return Err(Error::KeyNotFound);
        }
        Ok(())
    }

    /// Checks the steps that will run, in order; the first that cannot fails the txn before anything is written.
    ///
    /// - Errors: those of [`Before::put`], and for a range's revision [`Error::FutureRevision`] and
    ///   [`Error::Compacted`]; a negative revision is compacted once anything is.
    /// - Source: etcd `txn/txn.go`, `checkTxn`.
    pub(super) fn plan(&self, plan: &Plan<'_>) -> Result<(), Error> {
        self.steps(plan, &mut Vec::new())
    }

    fn steps<'a>(&self, plan: &Plan<'a>, writes: &mut Vec<Touched<'a>>) -> Result<(), Error> {
        for step in &plan.steps {
            match step {
                Step::Range(range) => self.range(range)?,
                Step::Put(put) => {
                    self.put(put)?;
                    // etcd checks only the state before the txn, and stops all its members if a delete earlier in
                    // the txn has taken the key away; here the txn fails as if the key had not been there.
                    if keeps(put) && gone(writes, &put.key) {
                        return Err(Error::KeyNotFound);
                    }
                    writes.push(Touched::Put(&put.key));
                }
                Step::Delete(delete) => {
                    writes.push(Touched::Deleted(KeyRange::new(&delete.key, &delete.range_end)));
                }
                Step::Txn(nested) => self.steps(nested, writes)?,
                Step::Nothing => {}
            }
        }
        Ok(())
    }

    fn range(&self, request: &pb::RangeRequest) -> Result<(), Error> {
        if request.revision < 0 && request.revision < self.mvcc.compact_revision() {
            return Err(Error::Compacted);
        }
        read_revision(self.mvcc, request.revision, self.mvcc.revision()).map(|_| ())
    }
}

/// What an earlier step of the txn will do to keys.
enum Touched<'a> {
    Put(&'a Bytes),
    Deleted(KeyRange),
}

/// Tells whether the last earlier step that touches `key` deletes it.
fn gone(writes: &[Touched<'_>], key: &Bytes) -> bool {
    let last = writes.iter().rev().find_map(|touched| match touched {
        Touched::Put(put) => (*put == key).then_some(false),
        Touched::Deleted(range) => range.contains(key).then_some(true),
    });
    last.unwrap_or(false)
}

fn keeps(put: &pb::PutRequest) -> bool {
    put.ignore_value || put.ignore_lease
}

/// A missing key has no value, so a compare of it fails whatever is asked; its numbers are 0.
fn compare_missing(compare: &pb::Compare) -> bool {
    match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => false,
        Ok(_) => satisfies(compare, 0.cmp(&wanted_number(compare))),
        Err(_) => satisfies(compare, Ordering::Equal),
    }
}

/// The number to compare with: 0 if none is given, or one of another target than the compare's.
fn wanted_number(compare: &pb::Compare) -> i64 {
    match (CompareTarget::try_from(compare.target), &compare.target_union) {
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(number)))
        | (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(number)))
        | (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(number)))
        | (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(number))) => *number,
        _ => 0,
    }
}

fn wanted_value(compare: &pb::Compare) -> &[u8] {
    match &compare.target_union {
        Some(TargetUnion::Value(value)) => value,
        _ => &[],
    }
}

/// An unknown result holds always, as in etcd.
fn satisfies(compare: &pb::Compare, order: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}
