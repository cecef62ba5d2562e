//! Reading at a pinned revision: single keys, pages, whole lists, all in bounded memory.
//!
//! The state's lock is held for one slice of keys at a time. What a long read still needs is kept by its [`View`]:
//! compaction takes effect at once for new reads, but nothing that an open view needs is removed. Values that have left
//! memory are read from the working store outside the lock. A server-wide byte budget makes reads wait for each
//! other instead of exhausting memory.

use crate::limits;
use crate::pages::PageCounts;
use bytes::Bytes;
use mechi_proto::etcdserverpb::RangeRequest;
use mechi_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use mechi_replica::apply::state::State;
use mechi_replica::limits::SLICE_KEYS_MAX;
use mechi_replica::mvcc::{Item, Mvcc, Totals};
use mechi_replica::outcome::{Error, Fatal};
use mechi_replica::record::{Fields, Record};
use mechi_replica::store::Values;
use mechi_replica::types::KeyRange;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A client's view is given up when nobody read from it for this long.
const VIEW_IDLE_MAX: Duration = Duration::from_secs(60);

/// The revisions that open reads are pinned to.
#[derive(Default)]
pub struct Views {
    pins: Mutex<Pins>,
}

#[derive(Default)]
struct Pins {
    open: BTreeMap<u64, (i64, Instant)>,
    next: u64,
}

impl Views {
    /// Pins `revision`; call it under the state's read lock, so that no compaction slips in between.
    pub fn open(self: &Arc<Self>, revision: i64) -> View {
        let mut pins = self.pins.lock();
        pins.next += 1;
        let id = pins.next;
        pins.open.insert(id, (revision, Instant::now()));
        View { views: self.clone(), id, revision }
    }

    /// The oldest pinned revision, `i64::MAX` if none; views that nobody reads any more are given up first.
    /// Call it under the state's write lock.
    pub fn floor(&self) -> i64 {
        let mut pins = self.pins.lock();
        let now = Instant::now();
        pins.open.retain(|_, (_, touched)| now.duration_since(*touched) < VIEW_IDLE_MAX);
        pins.open.values().map(|(revision, _)| *revision).min().unwrap_or(i64::MAX)
    }

    /// How many views are open (`etcd_mvcc_db_open_read_transactions`).
    pub fn count(&self) -> usize {
        self.pins.lock().open.len()
    }
}

/// One read's hold on a revision; dropping it lets compaction remove what it kept.
pub struct View {
    views: Arc<Views>,
    id: u64,
    /// The revision that this view reads at.
    pub revision: i64,
}

impl View {
    /// Says that somebody still reads; errors: `Compacted` if the view was given up meanwhile.
    pub fn touch(&self) -> Result<(), Error> {
        match self.views.pins.lock().open.get_mut(&self.id) {
            Some((_, touched)) => {
                *touched = Instant::now();
                Ok(())
            }
            None => Err(Error::Compacted),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.views.pins.lock().open.remove(&self.id);
    }
}

/// What a read needs: the state, the store behind it, the pins and the budget; cheap to clone.
#[derive(Clone)]
pub struct Reads {
    /// The replicated state.
    pub state: Arc<RwLock<State>>,
    /// Where values are that left memory.
    pub values: Arc<dyn Values + Send + Sync>,
    /// The pinned revisions.
    pub views: Arc<Views>,
    pages: Arc<PageCounts>,
    budget: Arc<Semaphore>,
    budget_kib: u32,
    /// Who may read from the store: a read keeps a thread and what the store holds for it.
    store_reads: Arc<Semaphore>,
    /// Told when the working store fails under a read: the member must stop.
    fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
}

/// The answer to a range, its values not yet gathered.
pub struct RangeReply {
    /// The store's current revision, for the header.
    pub revision: i64,
    /// Keys in the range at the wanted revision, whatever the limit and the filters.
    pub count: i64,
    /// Whether the limit cut it.
    pub more: bool,
    /// The key-values.
    pub kvs: Kvs,
}

/// The key-values of a [`RangeReply`].
pub enum Kvs {
    /// Gathered: each is one `mvccpb.KeyValue` in wire form.
    Ready(Vec<Bytes>),
    /// Too many to hold at once: read chunk by chunk at the pinned revision.
    Lazy(Reader),
}

impl Reads {
    /// Makes the read path; `budget_bytes` bounds what all reads together may hold in memory.
    pub fn new(
        state: Arc<RwLock<State>>,
        values: Arc<dyn Values + Send + Sync>,
        views: Arc<Views>,
        budget_bytes: u64,
        fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    ) -> Self {
        let budget_kib = u32::try_from(budget_bytes / 1024).unwrap_or(u32::MAX / 2).clamp(1024, u32::MAX / 2);
        let budget = Arc::new(Semaphore::new(budget_kib as usize));
        let store_reads = Arc::new(Semaphore::new(limits::STORE_READS_MAX));
        Self { state, values, views, pages: Arc::default(), budget, budget_kib, store_reads, fatal }
    }

    /// Takes `bytes` of the budget, waiting for other reads to end; one read never waits for more than all of it.
    pub async fn reserve(&self, bytes: u64) -> OwnedSemaphorePermit {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, self.budget_kib);
        self.budget.clone().acquire_many_owned(kib).await.expect("the budget is never closed")
    }

    /// Serves a checked range at the state as it stands; the caller has waited for the read point.
    ///
    /// - Errors: `Compacted`, `FutureRevision`; `Stopped` if the working store failed (the member then ends).
    pub async fn range(&self, request: &RangeRequest) -> Result<RangeReply, Error> {
        let range = KeyRange::new(&request.key, &request.range_end);
        let (revision, view, totals) = {
            let state = self.state.read();
            let at = state.mvcc.readable(request.revision)?;
            let view = self.views.open(at);
            (state.mvcc.revision(), view, self.totals(&state.mvcc, &range, request, at))
        };
        let totals = match totals {
            Some(totals) => totals,
            None => self.walk(&view, &range, u64::MAX, |_| 0).await?,
        };
        let count = totals.keys as i64;
        if request.count_only || count == 0 {
            return Ok(RangeReply { revision, count, more: false, kvs: Kvs::Ready(Vec::new()) });
        }
        let limit = if request.limit > 0 { request.limit as u64 } else { u64::MAX };
        if !is_plain(request) {
            return self.arranged(request, revision, view, range, totals, limit).await;
        }
        let wanted = limit.min(totals.keys);
        let more = totals.keys > wanted;
        let reader = Reader {
            reads: self.clone(),
            framed_bytes: 0,
            keys_only: request.keys_only,
            source: Source::Index { view, rest: Some(range.clone()), left: wanted },
        };
        let kvs = self.gather(reader, wanted, (!more && !request.keys_only).then_some(totals.framed_bytes)).await?;
        if let (true, Kvs::Ready(kvs)) = (more, &kvs) {
            self.remember_page(request, &range, revision, kvs, totals);
        }
        Ok(RangeReply { revision, count, more, kvs })
    }

    /// Keys and bytes of the range, unless they must be found by walking the keys.
    fn totals(&self, mvcc: &Mvcc, range: &KeyRange, request: &RangeRequest, at: i64) -> Option<Totals> {
        if let Some(totals) = self.pages.get(at, &request.key, &request.range_end) {
            return Some(totals);
        }
        if at == mvcc.revision() { Some(mvcc.totals(range)) } else { mvcc.totals_at(range, at) }
    }

    /// After a page: what is left, so that the next page at this revision need not count.
    fn remember_page(&self, request: &RangeRequest, range: &KeyRange, now: i64, kvs: &[Bytes], totals: Totals) {
        let (Some(last), false) = (kvs.last(), range.is_single()) else { return };
        let at = if request.revision > 0 { request.revision } else { now };
        let mut next = Record::from_wire(last).key().to_vec();
        next.push(0);
        let served: u64 = if request.keys_only { 0 } else { kvs.iter().map(|kv| framed(kv.len() as u64)).sum() };
        // Bytes are only known exactly if what was served is what the totals count.
        if !request.keys_only {
            let left = Totals {
                keys: totals.keys - kvs.len() as u64,
                framed_bytes: totals.framed_bytes.saturating_sub(served),
            };
            self.pages.put(at, next.into(), request.range_end.clone(), left);
        }
    }

    /// Turns a reader into an answer: gathered if it is small, else with its exact length found first.
    async fn gather(&self, mut reader: Reader, wanted: u64, known_bytes: Option<u64>) -> Result<Kvs, Error> {
        if wanted <= SLICE_KEYS_MAX as u64 && known_bytes.is_none_or(|bytes| bytes <= limits::READY_BYTES_MAX) {
            // Look at one slice: if its bytes are few, they are the whole answer.
            let items = reader.peek(wanted as usize)?;
            let bytes: u64 = items.iter().map(|item| framed(reader.wire_len(item))).sum();
            if bytes <= limits::READY_BYTES_MAX {
                let _held = self.reserve(bytes).await;
                return Ok(Kvs::Ready(reader.load(items).await?));
            }
            reader.framed_bytes = bytes;
            reader.source = match reader.source {
                Source::Index { view, .. } => Source::Items { _view: view, items: items.into_iter() },
                items => items,
            };
            return Ok(Kvs::Lazy(reader));
        }
        reader.framed_bytes = match (known_bytes, &reader.source) {
            (Some(bytes), _) => bytes,
            (None, Source::Index { view, rest: Some(range), .. }) => {
                let keys_only = reader.keys_only;
                self.walk(view, range, wanted, |item| wire_len(item, keys_only)).await?.framed_bytes
            }
            (None, Source::Index { .. }) => 0,
            (None, Source::Items { items, .. }) => {
                items.as_slice().iter().map(|item| framed(reader.wire_len(item))).sum()
            }
        };
        Ok(Kvs::Lazy(reader))
    }

    /// Walks up to `limit` keys in slices; `len` says how long each key's record will be in the answer.
    async fn walk(
        &self,
        view: &View,
        range: &KeyRange,
        limit: u64,
        len: impl Fn(&Item) -> u64,
    ) -> Result<Totals, Error> {
        let mut totals = Totals::default();
        let mut rest = Some(range.clone());
        while let Some(range) = rest.take() {
            view.touch()?;
            let next = self.state.read().mvcc.scan_slice(&range, view.revision, SLICE_KEYS_MAX, &mut |item| {
                totals.keys += 1;
                totals.framed_bytes += framed(len(&item));
                totals.keys < limit
            });
            rest = next.filter(|_| totals.keys < limit).map(|from| KeyRange { from, to: range.to });
            tokio::task::yield_now().await;
        }
        Ok(totals)
    }

    /// Ranges with filters or a sort: etcd fetches all (or limit + 1 in the default order), filters, sorts, cuts.
    async fn arranged(
        &self,
        request: &RangeRequest,
        revision: i64,
        view: View,
        range: KeyRange,
        totals: Totals,
        limit: u64,
    ) -> Result<RangeReply, Error> {
        // The items are held at once, and for a sort by value the values too.
        let by_value = request.sort_target() == SortTarget::Value;
        let held = totals.keys * limits::ITEM_BYTES + if by_value { totals.framed_bytes } else { 0 };
        let held = self.reserve(held).await;
        let pushed_down = request.sort_order() == SortOrder::None && !has_filters(request);
        let fetch = if pushed_down { limit.saturating_add(1) } else { u64::MAX };
        let mut items = Vec::new();
        let mut rest = Some(range);
        while let Some(range) = rest.take() {
            view.touch()?;
            let next = self.state.read().mvcc.scan_slice(&range, view.revision, SLICE_KEYS_MAX, &mut |item| {
                items.push(item);
                (items.len() as u64) < fetch
            });
            rest = next.filter(|_| (items.len() as u64) < fetch).map(|from| KeyRange { from, to: range.to });
            tokio::task::yield_now().await;
        }
        items.retain(|item| passes_filters(request, item));
        if by_value {
            items = self.sort_by_value(request, items).await?;
        } else {
            sort(request, &mut items);
        }
        let more = items.len() as u64 > limit;
        items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let wanted = items.len() as u64;
        // After a sort by value the items hold what is to be answered.
        let keys_only = request.keys_only && !by_value;
        let source = Source::Items { _view: view, items: items.into_iter() };
        let reader = Reader { reads: self.clone(), framed_bytes: 0, keys_only, source };
        drop(held);
        let kvs = self.gather(reader, wanted, None).await?;
        Ok(RangeReply { revision, count: totals.keys as i64, more, kvs })
    }

    async fn sort_by_value(&self, request: &RangeRequest, items: Vec<Item>) -> Result<Vec<Item>, Error> {
        let reads = self.clone();
        let (descending, keys_only) = (request.sort_order() == SortOrder::Descend, request.keys_only);
        blocking(move || {
            let mut valued = Vec::with_capacity(items.len());
            for item in items {
                valued.push((reads.record(&item)?, item));
            }
            fn value(record: &Record) -> &[u8] {
                record.fields().map(|fields| fields.value).unwrap_or_default()
            }
            valued.sort_by(|(a, _), (b, _)| {
                let order = value(a).cmp(value(b));
                if descending { order.reverse() } else { order }
            });
            // A sort by value reads the records even if keys alone are asked for, and then etcd's answer has the lease.
            let keyed = |record: &Record, item: Item| {
                let head = key_record(&item, record.fields().map_or(0, |fields| fields.lease));
                Item { wire_len: head.wire().len() as u32, head, resident: true, ..item }
            };
            let arranged = valued.into_iter().map(|(record, item)| if keys_only { keyed(&record, item) } else { item });
            Ok(arranged.collect())
        })
        .await
    }

    /// Reports that the working store failed or answered wrongly: the member stops.
    pub fn fail(&self, fatal: Fatal) {
        (self.fatal)(&fatal);
    }

    /// The whole record of an item; a failing store stops the member.
    pub fn record(&self, item: &Item) -> Result<Record, Error> {
        item.record(&*self.values).map_err(|fatal| {
            self.fail(fatal);
            Error::Stopped
        })
    }
}

/// Reads a long list chunk by chunk at its pinned revision, under the server's byte budget.
pub struct Reader {
    reads: Reads,
    framed_bytes: u64,
    keys_only: bool,
    source: Source,
}

enum Source {
    /// Keys still to be looked up: `left` more, from `rest` on.
    Index { view: View, rest: Option<KeyRange>, left: u64 },
    /// Versions already found, whose values may have to be loaded.
    Items { _view: View, items: std::vec::IntoIter<Item> },
}

impl Reader {
    /// Bytes of all key-values to come, each with the tag (1 byte) and length that `RangeResponse.kvs` (field 2)
    /// gives it; exact, so that the gRPC message's length can be sent first.
    pub fn framed_bytes(&self) -> u64 {
        self.framed_bytes
    }

    /// The next key-values in wire form (each without tag and length); `None` at the end. A chunk holds at most
    /// `target_bytes`, but at least one key-value.
    ///
    /// - Errors: `Compacted` if the view was given up (60 s without reading), `Stopped` if the store failed.
    pub async fn next(&mut self, target_bytes: usize) -> Result<Option<Chunk>, Error> {
        let held = self.reads.reserve(target_bytes as u64).await;
        let mut items = Vec::new();
        let mut bytes = 0u64;
        let target = target_bytes as u64;
        let keys_only = self.keys_only;
        match &mut self.source {
            Source::Items { items: rest, .. } => {
                while let Some(item) = rest.as_slice().first() {
                    bytes += framed(wire_len(item, keys_only));
                    if !items.is_empty() && bytes > target {
                        break;
                    }
                    items.extend(rest.next());
                }
            }
            Source::Index { view, rest, left } => {
                while items.is_empty() && *left > 0 {
                    let Some(range) = rest.take() else { break };
                    view.touch()?;
                    let mut stopped_before = None;
                    let next =
                        self.reads.state.read().mvcc.scan_slice(&range, view.revision, SLICE_KEYS_MAX, &mut |item| {
                            bytes += framed(wire_len(&item, keys_only));
                            if !items.is_empty() && bytes > target {
                                stopped_before = Some(Bytes::copy_from_slice(item.key()));
                                return false;
                            }
                            items.push(item);
                            *left -= 1;
                            *left > 0
                        });
                    *rest = stopped_before.or(next).map(|from| KeyRange { from, to: range.to });
                }
            }
        }
        if items.is_empty() {
            return Ok(None);
        }
        Ok(Some(Chunk { kvs: self.load(items).await?, _held: held }))
    }

    /// The first `max` versions, without loading values; the index source is not advanced.
    fn peek(&mut self, max: usize) -> Result<Vec<Item>, Error> {
        match &mut self.source {
            Source::Items { items, .. } => Ok(items.as_slice().to_vec()),
            Source::Index { view, rest: Some(range), .. } => {
                view.touch()?;
                let mut items = Vec::with_capacity(max);
                let mut rest = Some(range.clone());
                // Versions that do not live at this revision fill slices too: go on until enough is found.
                while let (Some(range), true) = (rest.take(), items.len() < max) {
                    let state = self.reads.state.read();
                    let next = state.mvcc.scan_slice(&range, view.revision, SLICE_KEYS_MAX, &mut |item| {
                        items.push(item);
                        items.len() < max
                    });
                    rest = next.map(|from| KeyRange { from, to: range.to });
                }
                Ok(items)
            }
            Source::Index { .. } => Ok(Vec::new()),
        }
    }

    fn wire_len(&self, item: &Item) -> u64 {
        wire_len(item, self.keys_only)
    }

    async fn load(&self, items: Vec<Item>) -> Result<Vec<Bytes>, Error> {
        if self.keys_only {
            return Ok(items.iter().map(|item| key_record(item, 0).to_bytes()).collect());
        }
        if items.iter().all(|item| item.resident) {
            return Ok(items.into_iter().map(|item| item.head.to_bytes()).collect());
        }
        let reads = self.reads.clone();
        let turn = self.reads.store_reads.clone().acquire_owned().await.expect("it is never closed");
        blocking(move || {
            let _turn = turn;
            items.iter().map(|item| Ok(reads.record(item)?.to_bytes())).collect()
        })
        .await
    }
}

/// Some key-values of a list; they count against the budget until dropped.
pub struct Chunk {
    /// Each is one `mvccpb.KeyValue` in wire form.
    pub kvs: Vec<Bytes>,
    _held: OwnedSemaphorePermit,
}

/// Runs a store read where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Stopped))
}

/// Bytes of a record with its tag and length in `RangeResponse.kvs`.
fn framed(wire_len: u64) -> u64 {
    1 + prost::length_delimiter_len(wire_len as usize) as u64 + wire_len
}

/// etcd 3.7 answers keys_only from its index: no value, and no lease (0) unless it has read the record to sort by value.
fn key_record(item: &Item, lease: i64) -> Record {
    Record::encode(&Fields {
        key: item.key(),
        create_revision: item.create_revision,
        mod_revision: item.mod_revision.main,
        version: item.version,
        value: &[],
        lease,
    })
}

fn wire_len(item: &Item, keys_only: bool) -> u64 {
    if keys_only { key_record(item, 0).wire().len() as u64 } else { u64::from(item.wire_len) }
}

/// In key order and without filters: the index alone finds what to answer.
fn is_plain(request: &RangeRequest) -> bool {
    !has_filters(request) && request.sort_target() == SortTarget::Key && request.sort_order() != SortOrder::Descend
}

fn has_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes_filters(request: &RangeRequest, item: &Item) -> bool {
    let within = |revision: i64, min: i64, max: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
    within(item.mod_revision.main, request.min_mod_revision, request.max_mod_revision)
        && within(item.create_revision, request.min_create_revision, request.max_create_revision)
}

/// Sorts by everything but the value. The sort is stable, so ties stay in ascending key order, also descending.
fn sort(request: &RangeRequest, items: &mut [Item]) {
    let descending = request.sort_order() == SortOrder::Descend;
    items.sort_by(|a, b| {
        let order = match request.sort_target() {
            SortTarget::Key => a.key().cmp(b.key()),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.main.cmp(&b.mod_revision.main),
            SortTarget::Value => std::cmp::Ordering::Equal,
        };
        if descending { order.reverse() } else { order }
    });
}
