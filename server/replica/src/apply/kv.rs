//! Range, put and delete: the same functions inside a txn, outside of one, and on the read path.

use super::Answered;
use super::lease::Leases;
use crate::mvcc::{Item, Mvcc, Write};
use crate::outcome::{Error, Fatal};
use crate::record::{Fields, Record};
use crate::store::Values;
use crate::types::{KeyRange, LeaseId};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::KeyValue;
use pb::range_request::{SortOrder, SortTarget};
use std::cmp::Ordering;

/// What a range found, as records: their wire form is what an answer carries.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The records, in the order asked for; with `keys_only` cut down to what etcd answers then.
    pub records: Vec<Record>,
    /// Keys in the range at the revision read, whatever the limit and the filters.
    pub count: i64,
    /// Whether the limit cut records off.
    pub more: bool,
}

/// The revision that a read of `requested` is done at, where `now` is the newest one the reader sees.
///
/// - Errors: [`Error::FutureRevision`] above `now`, [`Error::Compacted`] below the last compaction; 0 or less is now.
pub fn read_revision(mvcc: &Mvcc, requested: i64, now: i64) -> Result<i64, Error> {
    match requested {
        _ if requested > now => Err(Error::FutureRevision),
        ..=0 => Ok(now),
        #[cfg(feature = "mutants")]
        _ if crate::mutants::active("compacted_read_by_sweep") && requested >= mvcc.history_from() => Ok(requested),
        _ if requested < mvcc.compact_revision() => Err(Error::Compacted),
        _ => Ok(requested),
    }
}

/// Answers a checked range; the header holds `now`, the newest revision that the reader sees.
///
/// - Errors: those of [`read_revision`]; [`Fatal`] if a value cannot be loaded.
pub fn range(mvcc: &Mvcc, request: &pb::RangeRequest, now: i64, values: &dyn Values) -> Answered<pb::RangeResponse> {
    let selection = match select(mvcc, request, now, values)? {
        Ok(selection) => selection,
        Err(error) => return Ok(Err(error)),
    };
    let kvs = selection.records.iter().map(key_value).collect::<Result<_, _>>()?;
    Ok(Ok(pb::RangeResponse { header: super::header(now), kvs, more: selection.more, count: selection.count }))
}

/// Does what [`range`] does, and leaves the records in wire form.
///
/// The order of the steps is etcd's and shows: filters and sorts see all keys, unless the order is `NONE`: then the
/// limit cuts first, by key, even if another target then sorts what is left.
///
/// - Source: etcd `txn/range.go`, `executeRange`.
pub fn select(mvcc: &Mvcc, request: &pb::RangeRequest, now: i64, values: &dyn Values) -> Answered<Selection> {
    let at = match read_revision(mvcc, request.revision, now) {
        Ok(at) => at,
        Err(error) => return Ok(Err(error)),
    };
    let keys = KeyRange::new(&request.key, &request.range_end);
    if request.count_only {
        return Ok(Ok(Selection { count: count(mvcc, &keys, at, now), ..Selection::default() }));
    }
    let order = Order::of(request);
    let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX);
    let fetch_max = if order.cut_first && !has_filters(request) { limit.saturating_add(1) } else { usize::MAX };
    let mut items = Vec::new();
    mvcc.scan(&keys, at, &mut |item| {
        items.push(item);
        items.len() < fetch_max
    });
    // A scan that was not cut short has seen every key.
    let count = if items.len() < fetch_max { items.len() as i64 } else { count(mvcc, &keys, at, now) };
    items.retain(|item| passes(request, item));
    order.sort(&mut items, values)?;
    let more = items.len() > limit;
    items.truncate(limit);
    let records = items.iter().map(|item| record(request, item, values)).collect::<Result<_, _>>()?;
    Ok(Ok(Selection { records, count, more }))
}

fn count(mvcc: &Mvcc, keys: &KeyRange, at: i64, now: i64) -> i64 {
    let totals = if at == now { Some(mvcc.totals(keys)) } else { mvcc.totals_at(keys, at) };
    match totals {
        Some(totals) => totals.keys as i64,
        None => {
            let mut count = 0;
            mvcc.scan(keys, at, &mut |_| {
                count += 1;
                true
            });
            count
        }
    }
}

fn has_filters(request: &pb::RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(request: &pb::RangeRequest, item: &Item) -> bool {
    let within = |revision: i64, min: i64, max: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
    within(item.mod_revision.main, request.min_mod_revision, request.max_mod_revision)
        && within(item.create_revision, request.min_create_revision, request.max_create_revision)
}

/// The record that an answer carries for `item`.
///
/// With `keys_only` etcd answers from its index, which knows neither value nor lease; only when it sorts by value it
/// reads the record, and then the lease shows.
fn record(request: &pb::RangeRequest, item: &Item, values: &dyn Values) -> Result<Record, Fatal> {
    if !request.keys_only {
        return item.record(values);
    }
    let lease =
        if request.sort_target == i32::from(SortTarget::Value) { fields(&item.record(values)?)?.lease } else { 0 };
    Ok(Record::encode(&Fields {
        key: item.key(),
        create_revision: item.create_revision,
        mod_revision: item.mod_revision.main,
        version: item.version,
        value: &[],
        lease,
    }))
}

/// How a range is ordered.
struct Order {
    /// etcd's default ordering: the limit is applied while keys are fetched.
    cut_first: bool,
    target: SortTarget,
    descending: bool,
}

impl Order {
    fn of(request: &pb::RangeRequest) -> Self {
        // `command::check_range` refused numbers that are no sort order or target.
        let order = SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None);
        let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
        let by_key = target == SortTarget::Key && order == SortOrder::Ascend;
        Self { cut_first: order == SortOrder::None || by_key, target, descending: order == SortOrder::Descend }
    }

    /// Sorts items that stand in key order; equal ones stay in key order, descending too.
    fn sort(&self, items: &mut [Item], values: &dyn Values) -> Result<(), Fatal> {
        let directed = |order: Ordering| if self.descending { order.reverse() } else { order };
        match self.target {
            SortTarget::Key if self.descending => items.reverse(),
            SortTarget::Key => {}
            SortTarget::Version => items.sort_by(|a, b| directed(a.version.cmp(&b.version))),
            SortTarget::Create => items.sort_by(|a, b| directed(a.create_revision.cmp(&b.create_revision))),
            SortTarget::Mod => items.sort_by(|a, b| directed(a.mod_revision.main.cmp(&b.mod_revision.main))),
            SortTarget::Value => {
                // Loaded once each, and kept in the items so that the answer does not load them again.
                for item in items.iter_mut().filter(|item| !item.resident) {
                    item.head = item.record(values)?;
                    item.resident = true;
                }
                items.sort_by(|a, b| directed(value(a).cmp(value(b))));
            }
        }
        Ok(())
    }
}

/// The value of an item that is in memory; a malformed one sorts first, and the answer's record then tells.
fn value(item: &Item) -> &[u8] {
    item.head.fields().unwrap_or_default().value
}

/// The fields of a record that was checked when it was read; errors: [`Fatal::Bug`] if it is malformed all the same.
pub(super) fn fields(record: &Record) -> Result<Fields<'_>, Fatal> {
    record.fields().ok_or_else(|| Fatal::Bug(format!("record of key {:?} is malformed", record.key())))
}

/// The message of a record; key and value are slices of it.
pub fn key_value(record: &Record) -> Result<KeyValue, Fatal> {
    let (fields, bytes) = (fields(record)?, record.to_bytes());
    Ok(KeyValue {
        key: bytes.slice_ref(fields.key),
        create_revision: fields.create_revision,
        mod_revision: fields.mod_revision,
        version: fields.version,
        value: bytes.slice_ref(fields.value),
        lease: fields.lease,
    })
}

/// Puts; `check::put` has passed. The answer's `prev_kv` is read only if somebody waits for it.
pub(super) fn put(
    write: &mut Write<'_>,
    leases: &mut Leases,
    request: &pb::PutRequest,
    awaited: bool,
    values: &dyn Values,
) -> Result<pb::PutResponse, Fatal> {
    let wants_prev = request.prev_kv && awaited;
    let prev = if request.ignore_value || wants_prev {
        let item = write.mvcc().get(&request.key, write.revision());
        item.map(|item| item.record(values)).transpose()?
    } else {
        None
    };
    let lease =
        if request.ignore_lease { leases.of_key(&request.key).unwrap_or_default() } else { LeaseId(request.lease) };
    let value = match &prev {
        Some(prev) if request.ignore_value => fields(prev)?.value,
        None if request.ignore_value => return Err(Fatal::Bug("a put that keeps its value found no key".into())),
        _ => &request.value[..],
    };
    write.put(&request.key, value, lease.0);
    leases.attach(&request.key, lease);
    let prev_kv = prev.filter(|_| wants_prev).map(|prev| key_value(&prev)).transpose()?;
    Ok(pb::PutResponse { header: super::header(write.revision()), prev_kv })
}

/// Deletes the keys of a range, ascending; without one the revision stays.
pub(super) fn delete_range(
    write: &mut Write<'_>,
    leases: &mut Leases,
    request: &pb::DeleteRangeRequest,
    awaited: bool,
    values: &dyn Values,
) -> Result<pb::DeleteRangeResponse, Fatal> {
    let mut items = Vec::new();
    let keys = KeyRange::new(&request.key, &request.range_end);
    write.mvcc().scan(&keys, write.revision(), &mut |item| {
        items.push(item);
        true
    });
    let mut prev_kvs = Vec::new();
    if request.prev_kv && awaited {
        prev_kvs.reserve_exact(items.len());
        for item in &items {
            prev_kvs.push(key_value(&item.record(values)?)?);
        }
    }
    for item in &items {
        write.delete(item.key());
        leases.detach(item.key());
    }
    Ok(pb::DeleteRangeResponse { header: super::header(write.revision()), deleted: items.len() as i64, prev_kvs })
}
