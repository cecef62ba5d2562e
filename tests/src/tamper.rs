//! Makes a stopped member's state wrong in a way that nothing at its open can notice, as a bug in the program would.

use anyhow::{Context, Result, ensure};
use mechi_replica::mvcc::Mvcc;
use mechi_replica::record::{Fields, Record};
use mechi_replica::store::applied::{Applied, Tally, state_batches};
use mechi_replica::store::block::{Builder, Entry};
use mechi_replica::store::scan::RecordScan;
use mechi_replica::store::{Batch, Store, keys};
use mechi_server::recovery::folder;
use mechi_server::store::sled::SledStore;
use std::path::Path;
use std::time::Duration;

/// Bytes of sled's cache; the stores of tests are small.
const CACHE_BYTES: u64 = 16 << 20;

/// How long the store's lock may be held by somebody else.
const LOCK_MAX: Duration = Duration::from_secs(10);

/// Gives the newest version of `key` another value in the working store of a member that was stopped in order, and
/// makes all sums of the store fit.
///
/// - Errors: there is no store, or the key was never put.
pub fn change_value(data_dir: &Path, key: &[u8], value: &[u8]) -> Result<()> {
    let stores = folder::stores(&data_dir.join("member"))?;
    ensure!(stores.len() == 1, "one store wanted, found {stores:?}");
    let store = SledStore::open(&stores[0].1, CACHE_BYTES, LOCK_MAX)?;
    let applied = Applied::load(&store)?.context("the store has an applied record")?;
    let mut meta = applied.state(&store)?;
    let mut entries = Vec::new();
    let mut scan = RecordScan::all();
    while let Some(slice) = scan.next_slice(&store, usize::MAX)? {
        entries.extend(slice);
    }
    let found = entries.iter_mut().rfind(|entry| entry.record.key() == key && !entry.tombstone);
    let entry = found.with_context(|| format!("{key:?} is in the store"))?;
    let record = entry.record.clone();
    let fields = record.fields().context("a record")?;
    entry.record = Record::encode(&Fields { value, ..fields });

    let (mut builder, mut batch, mut tally) = (Builder::default(), Batch::default(), Tally::default());
    for entry in &entries {
        tally.add(entry);
        builder.push(entry, &mut batch.puts);
    }
    builder.finish(&mut batch.puts);
    let rows = entries.into_iter().map(|Entry { revision, tombstone, record }| (revision, tombstone, record, true));
    meta.content_sum = Mvcc::restore(meta.revision, meta.compact_revision, rows)?.content_sum();
    let (wrong, state) = state_batches(&meta)?;
    Applied { tally, ..wrong }.put(&mut batch);
    batch.puts.extend(state.into_iter().flat_map(|state| state.puts));
    let first = keys::record(mechi_replica::types::Revision::new(0, 0));
    store.scan(&first, &keys::records_end(), &mut |key, _| {
        if !batch.puts.iter().any(|(put, _)| put == key) {
            batch.removes.push(key.to_vec());
        }
        true
    })?;
    store.commit(batch)?;
    Ok(store.close()?)
}
