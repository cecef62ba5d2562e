//! Brings a store's content back into memory, and a snapshot's content into a store.

use super::applied::{self, Applied, Tally};
use super::block::{Builder, Entry};
use super::flush::Flusher;
use super::scan::RecordScan;
use super::{Batch, Store};
use crate::apply::state::State;
use crate::disk::Disk;
use crate::limits::{REMOVALS_MAX, SLICE_KEYS_MAX, STORE_BATCH_BYTES};
use crate::mvcc::{Attachment, Mvcc};
use crate::outcome::Fatal;
use crate::snapshot::Reader;
use crate::snapshot::manifest::Manifest;
use mechi_proto::mechipb::StateMeta;

/// Restores the state that `applied`, the store's applied record, stands for; values stay in memory while their bytes
/// are within `resident_bytes`, the newest first.
///
/// - Errors: [`Fatal::EngineLost`] if a block is damaged, or the records are not those whose sums the applied record
///   holds. Nothing was changed then but that leftovers of an unfinished flush are gone.
pub fn restore(store: &impl Store, applied: &Applied, resident_bytes: u64) -> Result<(State, Flusher), Fatal> {
    applied::drop_unknown(store, Some(applied))?;
    let meta = applied.state(store)?;
    let evicted = applied.tally.bytes.saturating_sub(resident_bytes);
    let mut scan = RecordScan::all();
    let mut records = Records::new(evicted, || scan.next_slice(store, STORE_BATCH_BYTES));
    let restored = Mvcc::restore_with_leases(meta.revision, meta.compact_revision, &mut records);
    // What the reading found comes first: the restore saw only that the records ended.
    let tally = records.end()?;
    if tally != applied.tally {
        let detail = format!("the store holds {tally:?}, its applied record wants {:?}", applied.tally);
        return Err(Fatal::EngineLost(detail));
    }
    let (mut mvcc, attachments) = restored?;
    mvcc.set_flushed(applied.revision);
    let mut flusher = Flusher::new(Some(*applied));
    forget_garbage(store, &mvcc, &mut flusher)?;
    Ok((assemble(meta, mvcc, attachments)?, flusher))
}

/// Restores the state that a snapshot holds, all of its values in memory; no store takes part.
///
/// - Errors: [`Fatal::Corrupt`] if a chunk is damaged, or the records are not those that the manifest tells of.
pub fn from_snapshot<D: Disk>(disk: &D, dir: &str, manifest: &Manifest) -> Result<State, Fatal> {
    let meta = manifest.meta.clone();
    let mut reader = Reader::new(disk, dir, manifest);
    let mut records = Records::new(0, || reader.next_chunk());
    let restored = Mvcc::restore_with_leases(meta.revision, meta.compact_revision, &mut records);
    let tally = records.end()?;
    if tally != manifest.tally {
        return Err(differs(manifest, &tally));
    }
    let (mvcc, attachments) = restored?;
    assemble(meta, mvcc, attachments)
}

fn differs(manifest: &Manifest, found: &Tally) -> Fatal {
    let detail = format!("{:?} wanted, {found:?} found", manifest.tally);
    Fatal::Corrupt { what: "snapshot", file: manifest.name(), offset: 0, detail }
}

/// Copies a snapshot into an empty store; the applied record comes last.
///
/// - Errors: [`Fatal::Corrupt`] if a chunk is damaged; what the store says otherwise.
pub fn rebuild<D: Disk>(store: &impl Store, disk: &D, dir: &str, manifest: &Manifest) -> Result<Applied, Fatal> {
    let mut reader = Reader::new(disk, dir, manifest);
    let (mut builder, mut batch, mut tally, mut bytes) = (Builder::default(), Batch::default(), Tally::default(), 0);
    while let Some(entries) = reader.next_chunk()? {
        for entry in &entries {
            tally.add(entry);
            builder.push(entry, &mut batch.puts);
            bytes += entry.record.wire().len();
            if bytes >= STORE_BATCH_BYTES {
                bytes = 0;
                store.commit(std::mem::take(&mut batch))?;
            }
        }
    }
    builder.finish(&mut batch.puts);
    store.commit(batch)?;
    let (applied, batches) = applied::state_batches(&manifest.meta)?;
    if tally != manifest.tally {
        return Err(differs(manifest, &tally));
    }
    for batch in batches {
        store.commit(batch)?;
    }
    let applied = Applied { tally, ..applied };
    let mut last = Batch::default();
    applied.put(&mut last);
    store.commit(last)?;
    Ok(applied)
}

/// Records as the restore wants them, from wherever `next_slice` reads them; a failure ends them and is kept.
struct Records<F> {
    next_slice: F,
    slice: std::vec::IntoIter<Entry>,
    tally: Tally,
    /// Bytes at the beginning that do not stay in memory.
    evicted: u64,
    failed: Option<Fatal>,
}

impl<F: FnMut() -> Result<Option<Vec<Entry>>, Fatal>> Records<F> {
    fn new(evicted: u64, next_slice: F) -> Self {
        Self { next_slice, slice: Vec::new().into_iter(), tally: Tally::default(), evicted, failed: None }
    }

    /// Reads what is left, so that the tally is over everything.
    fn end(mut self) -> Result<Tally, Fatal> {
        while self.next().is_some() {}
        self.failed.map_or(Ok(self.tally), Err)
    }
}

impl<F: FnMut() -> Result<Option<Vec<Entry>>, Fatal>> Iterator for Records<F> {
    type Item = (crate::types::Revision, bool, crate::record::Record, bool);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.slice.next() {
                self.tally.add(&entry);
                let resident = self.evicted == 0 || self.tally.bytes > self.evicted;
                return Some((entry.revision, entry.tombstone, entry.record, resident));
            }
            if self.failed.is_some() {
                return None;
            }
            match (self.next_slice)() {
                Ok(Some(slice)) => self.slice = slice.into_iter(),
                Ok(None) => return None,
                Err(error) => {
                    self.failed = Some(error);
                    return None;
                }
            }
        }
    }
}

/// The state of `meta` over its keys, each attached to its lease.
fn assemble(meta: StateMeta, mvcc: Mvcc, attachments: Vec<Attachment>) -> Result<State, Fatal> {
    let mut state = State::from_meta(meta, mvcc)?;
    for (key, lease) in attachments {
        state.attach(&key, lease.0);
    }
    Ok(state)
}

/// Finds what compaction had freed and a crash left in the store: the restore passed it by.
///
/// What exceeds the bound of waiting removals stays until the next open.
fn forget_garbage(store: &impl Store, mvcc: &Mvcc, flusher: &mut Flusher) -> Result<(), Fatal> {
    let (mut kept, mut from) = (0u64, Some(bytes::Bytes::new()));
    while let Some(key) = from {
        from = mvcc.versions_slice(&key, SLICE_KEYS_MAX, &mut |_| kept += 1);
    }
    let applied = *flusher.applied().expect("a restored store has an applied record");
    if kept == applied.tally.records {
        return Ok(());
    }
    let (mut scan, mut garbage) = (RecordScan::through(applied.compact_revision), Vec::new());
    while let Some(slice) = scan.next_slice(store, STORE_BATCH_BYTES)? {
        let gone = slice.iter().filter(|entry| !mvcc.holds(entry.record.key(), entry.revision));
        garbage.extend(gone.map(|entry| entry.revision));
        if garbage.len() >= REMOVALS_MAX {
            break;
        }
    }
    flusher.removed(applied.compact_revision, garbage);
    Ok(())
}
