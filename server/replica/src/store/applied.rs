//! How far the store is: the applied record, written last, and the state beside keys and values that belongs to it.

use super::{Batch, Store, keys};
use crate::limits::{BLOCK_BYTES_MAX, STATE_BYTES_MAX, STORE_BATCH_BYTES};
use crate::outcome::Fatal;
use crate::store::block::Entry;
use crate::types::{Index, Term};
use mechi_proto::mechipb::StateMeta;
use prost::Message;

const FORMAT: u8 = 1;
const RECORD_BYTES: usize = 80;

/// An order-free sum over records: equal sums mean equal sets of records.
///
/// It is kept from what memory holds and compared with what the store gives back, so a block that the store lost
/// without an error is noticed before anything is built on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many records.
    pub records: u64,
    /// Bytes of their wire forms.
    pub bytes: u64,
    /// The wrapping sum of one mixed number per record.
    pub sum: u64,
}

impl Tally {
    /// Counts a record in.
    pub fn add(&mut self, entry: &Entry) {
        self.records = self.records.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(entry.record.wire().len() as u64);
        self.sum = self.sum.wrapping_add(mixed(entry));
    }

    /// Counts a record out.
    pub fn remove(&mut self, entry: &Entry) {
        self.records = self.records.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(entry.record.wire().len() as u64);
        self.sum = self.sum.wrapping_sub(mixed(entry));
    }

    /// Counts another tally's records in.
    pub fn merge(&mut self, other: &Tally) {
        self.records = self.records.wrapping_add(other.records);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// One well-mixed number per (revision, tombstone, record).
fn mixed(entry: &Entry) -> u64 {
    let crc = crc32c::crc32c(entry.record.wire());
    let mut x = (entry.revision.main as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for part in [u64::from(entry.revision.sub) << 1 | u64::from(entry.tombstone), u64::from(crc)] {
        // The finalizer of splitmix64: each input bit moves each output bit.
        x = (x ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
    }
    x
}

/// The applied record: up to which entry, revision and compaction the store is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Index of the last entry that is in the store.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// The newest revision that is in the store; records above it are left over from a flush that did not end.
    pub revision: i64,
    /// The compaction that the store's state knows of; -1 for none. Nothing else may be missing below it.
    pub compact_revision: i64,
    /// The content sum at `index`.
    pub content_sum: u64,
    /// Bytes of the encoded state, over all its parts.
    pub state_bytes: u32,
    /// CRC-32C of the encoded state.
    pub state_crc: u32,
    /// All records at or below `revision`.
    pub tally: Tally,
}

impl Applied {
    /// Encodes it; docs/formats.md has the byte table.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_BYTES);
        out.extend_from_slice(&[FORMAT, 0, 0, 0]);
        out.extend_from_slice(&self.state_bytes.to_le_bytes());
        out.extend_from_slice(&self.state_crc.to_le_bytes());
        for number in [
            self.index,
            self.term,
            self.revision as u64,
            self.compact_revision as u64,
            self.content_sum,
            self.tally.records,
            self.tally.bytes,
            self.tally.sum,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(out.len(), RECORD_BYTES);
        out
    }

    /// Reads it; errors: [`Fatal::EngineLost`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Fatal> {
        let lost = |detail: &str| Err(Fatal::EngineLost(format!("applied record: {detail}")));
        if bytes.len() != RECORD_BYTES {
            return lost(&format!("{} bytes wanted, {} found", RECORD_BYTES, bytes.len()));
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |n: usize| u64::from_le_bytes(bytes[12 + 8 * n..20 + 8 * n].try_into().expect("eight bytes"));
        if u32_at(RECORD_BYTES - 4) != crc32c::crc32c(&bytes[..RECORD_BYTES - 4]) {
            return lost("its crc differs");
        }
        if bytes[..4] != [FORMAT, 0, 0, 0] {
            return lost(&format!("format {} is not known", bytes[0]));
        }
        Ok(Self {
            state_bytes: u32_at(4),
            state_crc: u32_at(8),
            index: u64_at(0),
            term: u64_at(1),
            revision: u64_at(2) as i64,
            compact_revision: u64_at(3) as i64,
            content_sum: u64_at(4),
            tally: Tally { records: u64_at(5), bytes: u64_at(6), sum: u64_at(7) },
        })
    }

    /// Reads the applied record of `store`; `None` if it never got one.
    pub fn load(store: &impl Store) -> Result<Option<Self>, Fatal> {
        store.get(&keys::applied())?.map(|bytes| Self::decode(&bytes)).transpose()
    }

    /// Puts this record into `batch`.
    pub fn put(&self, batch: &mut Batch) {
        batch.puts.push((keys::applied().to_vec(), self.encode()));
    }

    /// Reads the state that belongs to this record.
    pub fn state(&self, store: &impl Store) -> Result<StateMeta, Fatal> {
        let lost = |detail: &str| Fatal::EngineLost(format!("state at index {}: {detail}", self.index));
        let mut bytes = Vec::new();
        let mut number = 0u32;
        while bytes.len() < self.state_bytes as usize {
            let part = store.get(&keys::state(self.index, number))?.filter(|part| !part.is_empty());
            bytes.extend_from_slice(&part.ok_or_else(|| lost("a part is missing"))?);
            number += 1;
        }
        if bytes.len() != self.state_bytes as usize || crc32c::crc32c(&bytes) != self.state_crc {
            return Err(lost("its length or crc differs"));
        }
        let meta = StateMeta::decode(&bytes[..]).map_err(|error| lost(&error.to_string()))?;
        if meta.applied_index != self.index || meta.revision != self.revision {
            return Err(lost("it belongs to another applied record"));
        }
        Ok(meta)
    }
}

/// Cuts `meta` into parts and says what the applied record will know of it.
///
/// - Returns: bounded batches, to be committed in order and before the applied record; it alone makes them count.
/// - Errors: [`Fatal::Bug`] if the state is beyond [`STATE_BYTES_MAX`].
pub fn state_batches(meta: &StateMeta) -> Result<(Applied, Vec<Batch>), Fatal> {
    let bytes = meta.encode_to_vec();
    if bytes.len() > STATE_BYTES_MAX {
        return Err(Fatal::Bug(format!("the state beside keys and values has {} bytes", bytes.len())));
    }
    let applied = Applied {
        index: meta.applied_index,
        term: meta.applied_term,
        revision: meta.revision,
        compact_revision: meta.compact_revision,
        content_sum: meta.content_sum,
        state_bytes: bytes.len() as u32,
        state_crc: crc32c::crc32c(&bytes),
        tally: Tally::default(),
    };
    let mut batches = Vec::new();
    for (slice_number, slice) in bytes.chunks(STORE_BATCH_BYTES).enumerate() {
        let mut batch = Batch::default();
        for (number, part) in slice.chunks(BLOCK_BYTES_MAX).enumerate() {
            // STORE_BATCH_BYTES is a multiple of BLOCK_BYTES_MAX, so that parts count on from slice to slice.
            let number = (slice_number * (STORE_BATCH_BYTES / BLOCK_BYTES_MAX) + number) as u32;
            batch.puts.push((keys::state(meta.applied_index, number), part.to_vec()));
        }
        batches.push(batch);
    }
    Ok((applied, batches))
}

/// Removes what the store holds and `applied` does not know of: records of a flush that did not end, and states of
/// other indexes. Without an applied record that is everything.
///
/// - Errors: [`Fatal::EngineLost`] if a block reaches across the applied revision, which no flush leaves behind.
pub fn drop_unknown(store: &impl Store, applied: Option<&Applied>) -> Result<(), Fatal> {
    let revision = applied.map_or(-1, |applied| applied.revision);
    let first = keys::record(crate::types::Revision::new(revision + 1, 0));
    remove_range(store, &first, &keys::records_end(), None)?;
    let (from, to) = keys::states();
    remove_range(store, &from, &to, applied.map(|applied| applied.index))
}

/// Removes the keys of a range in bounded batches, but not the state of index `keep`.
pub(super) fn remove_range(store: &impl Store, from: &[u8], to: &[u8], keep: Option<Index>) -> Result<(), Fatal> {
    let mut from = from.to_vec();
    loop {
        let (mut batch, mut seen) = (Batch::default(), 0);
        store.scan(&from.clone(), to, &mut |key, _| {
            seen += 1;
            let kept = matches!(keys::parse(key), Some(keys::Key::State(index, _)) if Some(index) == keep);
            if !kept {
                batch.removes.push(key.to_vec());
            }
            from.clear();
            from.extend_from_slice(key);
            from.push(0);
            seen < STORE_BATCH_BYTES / BLOCK_BYTES_MAX
        })?;
        if seen == 0 {
            return Ok(());
        }
        if !batch.is_empty() {
            store.commit(batch)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mem::MemStore;
    use mechi_proto::mechipb::Lease;

    #[test]
    fn a_state_of_many_parts_comes_back_and_damage_is_found() {
        let leases = (1..200_000).map(|id| Lease { id, ttl: 60, ..Default::default() }).collect();
        let meta = StateMeta { applied_index: 9, applied_term: 2, revision: 4, leases, ..Default::default() };
        let (applied, batches) = state_batches(&meta).unwrap();
        assert!(batches.len() > 1);
        let store = MemStore::default();
        batches.into_iter().for_each(|batch| store.commit(batch).unwrap());
        let mut batch = Batch::default();
        applied.put(&mut batch);
        store.commit(batch).unwrap();
        assert_eq!(Applied::load(&store).unwrap(), Some(applied));
        assert_eq!(applied.state(&store).unwrap(), meta);

        let stale = Applied { index: 8, ..applied };
        assert!(stale.state(&store).is_err(), "no parts under another index");
        let part = keys::state(9, 3);
        store.commit(Batch { removes: vec![part], ..Default::default() }).unwrap();
        assert!(applied.state(&store).is_err(), "a part is missing");
        drop_unknown(&store, None).unwrap();
        assert!(store.last(&keys::states().0, &keys::states().1).unwrap().is_none());
    }

    #[test]
    fn every_flipped_bit_of_the_applied_record_is_found() {
        let bytes = Applied { index: 7, compact_revision: -1, ..Default::default() }.encode();
        assert_eq!(Applied::decode(&bytes).unwrap().compact_revision, -1);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Applied::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
