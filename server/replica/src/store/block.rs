//! Blocks: runs of consecutive revision records in at most 4 KiB, each with its own CRC-32C.
//!
//! The working store was found to deadlock with values of 7.5 KiB and to forget its cache bound at 15 KiB, and to
//! cost twice the CPU per put at half this size. So a block never exceeds [`BLOCK_BYTES_MAX`]; a record that does
//! not fit is cut into parts under consecutive keys. docs/formats.md has the byte tables.

use super::keys::{self, Key};
use crate::limits::BLOCK_BYTES_MAX;
use crate::outcome::Fatal;
use crate::record::Record;
use crate::types::Revision;

/// Bytes before a block's payload.
pub const HEADER_BYTES: usize = 16;

const FORMAT: u8 = 1;
const KIND_RUN: u8 = 0;
const KIND_PART: u8 = 1;
const PLAIN: u8 = 0;

/// One record of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was written.
    pub revision: Revision,
    /// Whether it deleted its key.
    pub tombstone: bool,
    /// The record; for a tombstone the key alone.
    pub record: Record,
}

/// A block whose CRC is right.
#[derive(Clone, Copy, Debug)]
pub enum Block<'a> {
    /// Whole records.
    Run(Run<'a>),
    /// A piece of one record.
    Part(Part<'a>),
}

/// Consecutive records.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The first record's revision, which the others are relative to.
    pub base: Revision,
    /// How many records there are.
    pub count: u32,
    payload: &'a [u8],
}

/// A piece of one large record.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The record's revision.
    pub revision: Revision,
    /// Its place, from 0.
    pub number: u32,
    /// Bytes of all parts together.
    pub total: u32,
    /// The piece.
    pub payload: &'a [u8],
}

impl<'a> Run<'a> {
    /// Reads the records in order; an error ends it.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, Fatal>> + use<'a> {
        let (payload, base, count) = (self.payload, self.base, self.count);
        let (mut at, mut read) = (0, 0);
        std::iter::from_fn(move || {
            if read == count {
                let rest = payload.len() - at;
                at = payload.len();
                return (rest != 0).then(|| Err(damaged(base, "bytes behind the last record")));
            }
            read += 1;
            match decode_entry(base, payload, at) {
                Some((entry, next)) => {
                    at = next;
                    Some(Ok(entry))
                }
                None => {
                    (read, at) = (count, payload.len());
                    Some(Err(damaged(base, "a record reaches beyond the end")))
                }
            }
        })
    }
}

/// Checks a block's header and CRC; errors: [`Fatal::EngineLost`] with what is wrong.
pub fn decode<'a>(key: &[u8], value: &'a [u8]) -> Result<Block<'a>, Fatal> {
    let (base, number) = match keys::parse(key) {
        Some(Key::Records(revision)) => (revision, 0),
        Some(Key::Part(revision, number)) => (revision, number),
        _ => return Err(Fatal::EngineLost(format!("key {} is not a block's", hex(key)))),
    };
    let Some((header, payload)) = value.split_at_checked(HEADER_BYTES) else {
        return Err(damaged(base, "it is shorter than its header"));
    };
    let wanted = u32_at(header, 12);
    let found = crc(key, &header[..12], payload);
    if wanted != found {
        return Err(damaged(base, &format!("crc wanted {wanted:08x}, found {found:08x}")));
    }
    if header[0] != FORMAT || header[2] != PLAIN || header[3] != PLAIN {
        return Err(damaged(
            base,
            &format!("format {}, compression {}, envelope {} is not known", header[0], header[2], header[3]),
        ));
    }
    let length = u32_at(header, 8);
    match header[1] {
        KIND_RUN if number == 0 => Ok(Block::Run(Run { base, count: length, payload })),
        KIND_PART => Ok(Block::Part(Part { revision: base, number, total: length, payload })),
        kind => Err(damaged(base, &format!("kind {kind} is not known"))),
    }
}

/// Puts ascending records into blocks.
#[derive(Debug, Default)]
pub struct Builder {
    base: Option<Revision>,
    payload: Vec<u8>,
    count: u32,
}

impl Builder {
    /// Whether no record is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the block as it stands, header included.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    /// Adds the next record; blocks that are full go to `out` as (key, value).
    ///
    /// - Panics: if revisions do not ascend, which is a bug of the caller.
    pub fn push(&mut self, entry: &Entry, out: &mut Vec<(Vec<u8>, Vec<u8>)>) {
        // A varint pair of 15 bytes each and a length bound what the head of an entry adds.
        if self.count > 0 && self.bytes() + entry.record.wire().len() + 30 > BLOCK_BYTES_MAX {
            self.finish(out);
        }
        let base = *self.base.get_or_insert(entry.revision);
        assert!(base <= entry.revision, "records of a block ascend");
        let before = self.payload.len();
        encode_entry(base, entry, &mut self.payload);
        if self.bytes() <= BLOCK_BYTES_MAX {
            self.count += 1;
            return;
        }
        // Too large for any block: a lone record, cut into parts that are relative to its own revision.
        self.payload.truncate(before);
        self.base = None;
        let mut whole = Vec::with_capacity(entry.record.wire().len() + 30);
        encode_entry(entry.revision, entry, &mut whole);
        for (number, piece) in whole.chunks(BLOCK_BYTES_MAX - HEADER_BYTES).enumerate() {
            let key = match number {
                0 => keys::record(entry.revision).to_vec(),
                _ => keys::part(entry.revision, number as u32),
            };
            let value = encode(&key, KIND_PART, whole.len() as u32, piece);
            out.push((key, value));
        }
    }

    /// Ends the block; the next record starts a new one.
    pub fn finish(&mut self, out: &mut Vec<(Vec<u8>, Vec<u8>)>) {
        if let (Some(base), 1..) = (self.base, self.count) {
            let key = keys::record(base).to_vec();
            let value = encode(&key, KIND_RUN, self.count, &self.payload);
            out.push((key, value));
        }
        self.base = None;
        self.count = 0;
        self.payload.clear();
    }
}

/// Reads the one entry that a large record's parts hold together.
pub fn decode_whole(revision: Revision, whole: &[u8]) -> Result<Entry, Fatal> {
    match decode_entry(revision, whole, 0) {
        Some((entry, end)) if end == whole.len() => Ok(entry),
        _ => Err(damaged(revision, "its parts are not one record")),
    }
}

/// Names a damaged block in an error.
pub fn damaged(base: Revision, detail: &str) -> Fatal {
    Fatal::EngineLost(format!("block {base} is damaged: {detail}"))
}

fn encode(key: &[u8], kind: u8, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_BYTES + payload.len());
    // Bytes 4 to 7 are the tenant, 0 until there are several.
    value.extend_from_slice(&[FORMAT, kind, PLAIN, PLAIN, 0, 0, 0, 0]);
    value.extend_from_slice(&length.to_le_bytes());
    let crc = crc(key, &value, payload);
    value.extend_from_slice(&crc.to_le_bytes());
    value.extend_from_slice(payload);
    value
}

/// The key is part of the sum: an intact block under another's key is damage too.
fn crc(key: &[u8], header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(key), header), payload)
}

/// Appends one record to a block's or a chunk's payload, its revision relative to `base`.
pub(crate) fn encode_entry(base: Revision, entry: &Entry, out: &mut Vec<u8>) {
    put_varint(out, (entry.revision.main - base.main) as u64);
    put_varint(out, u64::from(entry.revision.sub));
    put_varint(out, (entry.record.wire().len() as u64) << 1 | u64::from(entry.tombstone));
    out.extend_from_slice(entry.record.wire());
}

/// Reads the record at `at`; returns where the next one begins, `None` if the bytes are no record.
pub(crate) fn decode_entry(base: Revision, payload: &[u8], at: usize) -> Option<(Entry, usize)> {
    let (delta, at) = read_varint(payload, at)?;
    let (sub, at) = read_varint(payload, at)?;
    let (length, at) = read_varint(payload, at)?;
    let end = at.checked_add(usize::try_from(length >> 1).ok()?)?;
    let wire = payload.get(at..end)?;
    let main = base.main.checked_add(i64::try_from(delta).ok()?)?;
    let revision = Revision::new(main, u32::try_from(sub).ok()?);
    Some((Entry { revision, tombstone: length & 1 == 1, record: Record::from_wire(wire) }, end))
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_varint(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((number, at));
        }
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mem::MemStore;
    use crate::store::{Batch, Blocks, Store, Values};
    use proptest::prelude::*;

    fn entry(main: i64, sub: u32, bytes: usize) -> Entry {
        let value = vec![main as u8; bytes];
        let fields =
            crate::record::Fields { key: b"k", mod_revision: main, version: 1, value: &value, ..Default::default() };
        Entry { revision: Revision::new(main, sub), tombstone: false, record: Record::encode(&fields) }
    }

    fn built(entries: &[Entry]) -> MemStore {
        let (mut builder, mut puts) = (Builder::default(), Vec::new());
        entries.iter().for_each(|entry| builder.push(entry, &mut puts));
        builder.finish(&mut puts);
        assert!(puts.iter().all(|(_, value)| value.len() <= BLOCK_BYTES_MAX));
        let store = MemStore::default();
        store.commit(Batch { puts, removes: Vec::new() }).unwrap();
        store
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let store = built(&[entry(2, 0, 40), entry(3, 0, 5)]);
        let (key, value) = store.last(b"r", b"s").unwrap().unwrap();
        for bit in 0..value.len() * 8 {
            let mut bad = value.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&key, &bad).is_err(), "bit {bit}");
        }
        assert!(decode(&keys::record(Revision::new(9, 0)), &value).is_err(), "under another key");
        assert!(decode(&key, &value[..value.len() - 1]).is_err(), "cut");
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(sizes in prop::collection::vec((1i64..300, 0usize..9000), 1..60)) {
            let mut main = 1;
            let entries: Vec<_> = sizes.iter().enumerate().map(|(n, (step, bytes))| {
                main += step;
                Entry { tombstone: n % 5 == 0, ..entry(main, n as u32, *bytes) }
            }).collect();
            let store = built(&entries);
            let values = Blocks(&store);
            for entry in &entries {
                prop_assert_eq!(&values.load(entry.revision).unwrap(), &entry.record);
            }
            prop_assert!(values.load(Revision::new(main + 1, 0)).is_err());
            prop_assert!(values.load(Revision::new(1, 0)).is_err());
            let mut scan = crate::store::scan::RecordScan::all();
            let mut found = Vec::new();
            while let Some(slice) = scan.next_slice(&store, 10_000).unwrap() {
                found.extend(slice);
            }
            prop_assert_eq!(found, entries);
        }
    }
}
