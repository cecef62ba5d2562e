//! Chunks: immutable files of consecutive records, compressed, named by what they hold.

use crate::limits::{LZ4_RATIO_MAX, SNAPSHOT_CHUNK_BYTES};
use crate::outcome::Fatal;
use crate::store::applied::Tally;
use crate::store::block::{self, Entry};
use crate::types::Revision;

/// How a chunk's name ends.
pub const SUFFIX: &str = ".chunk";

/// Bytes of one chunk's description in a manifest.
pub const DESCRIPTION_BYTES: usize = 56;

const MAGIC: &[u8; 4] = b"MCHK";
const FORMAT: u8 = 1;
const LZ4: u8 = 1;
const PLAIN: u8 = 0;
const HEADER_BYTES: usize = 32;

/// What a manifest knows of a chunk.
///
/// Two chunks with equal name hold the same records: between two snapshots a range of revisions only loses records,
/// so an equal range with an equal tally is an equal set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its first record.
    pub first: Revision,
    /// Its last record.
    pub last: Revision,
    /// Over its records.
    pub tally: Tally,
    /// Length of the file.
    pub file_bytes: u32,
    /// CRC-32C of the file from behind the CRC on.
    pub crc: u32,
}

impl Chunk {
    /// The file's name.
    pub fn name(&self) -> String {
        let Self { first, tally, crc, .. } = self;
        format!("{:016x}-{:08x}-{:016x}-{crc:08x}{SUFFIX}", first.main, first.sub, tally.sum)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for revision in [self.first, self.last] {
            out.extend_from_slice(&revision.main.to_le_bytes());
            out.extend_from_slice(&revision.sub.to_le_bytes());
        }
        for number in [self.tally.records, self.tally.bytes, self.tally.sum] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
    }

    /// Reads a description of exactly [`DESCRIPTION_BYTES`], which the manifest's CRC has checked.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Self {
            first: Revision::new(u64_at(0) as i64, u32_at(8)),
            last: Revision::new(u64_at(12) as i64, u32_at(20)),
            tally: Tally { records: u64_at(24), bytes: u64_at(32), sum: u64_at(40) },
            file_bytes: u32_at(48),
            crc: u32_at(52),
        }
    }
}

/// Makes the file of these records, which ascend and are at least one.
pub fn encode(entries: &[Entry]) -> (Chunk, Vec<u8>) {
    let (first, last) = match entries {
        [first, .., last] => (first.revision, last.revision),
        [one] => (one.revision, one.revision),
        [] => panic!("a chunk holds at least one record"),
    };
    let mut raw = Vec::with_capacity(SNAPSHOT_CHUNK_BYTES);
    let mut tally = Tally::default();
    for entry in entries {
        tally.add(entry);
        block::encode_entry(first, entry, &mut raw);
    }
    let packed = lz4_flex::block::compress(&raw);
    let (compression, payload) = if packed.len() < raw.len() { (LZ4, packed) } else { (PLAIN, raw.clone()) };
    let mut file = Vec::with_capacity(HEADER_BYTES + payload.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&[0; 4]);
    // Format, compression, encryption envelope, a spare byte; the tenant.
    file.extend_from_slice(&[FORMAT, compression, PLAIN, 0, 0, 0, 0, 0]);
    file.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    file.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    file.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    file.extend_from_slice(&payload);
    let crc = crc32c::crc32c(&file[8..]);
    file[4..8].copy_from_slice(&crc.to_le_bytes());
    (Chunk { first, last, tally, file_bytes: file.len() as u32, crc }, file)
}

/// Checks that `file` is the file that `chunk` describes; errors: [`Fatal::Corrupt`].
pub fn check(chunk: &Chunk, file: &[u8], path: &str) -> Result<(), Fatal> {
    if file.len() != chunk.file_bytes as usize || file.len() < HEADER_BYTES {
        return Err(corrupt(path, 0, format!("{} bytes wanted, {} found", chunk.file_bytes, file.len())));
    }
    let found = crc32c::crc32c(&file[8..]);
    if found != chunk.crc || file[..4] != *MAGIC || file[4..8] != chunk.crc.to_le_bytes() {
        return Err(corrupt(path, 4, format!("crc {:08x} wanted, {found:08x} found", chunk.crc)));
    }
    if file[8] != FORMAT || file[9] > LZ4 || file[10] != PLAIN {
        let detail = format!("format {}, compression {}, envelope {} is not known", file[8], file[9], file[10]);
        return Err(corrupt(path, 8, detail));
    }
    Ok(())
}

/// Checks the file and reads its records.
pub fn decode(chunk: &Chunk, file: &[u8], path: &str) -> Result<Vec<Entry>, Fatal> {
    check(chunk, file, path)?;
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
    let (records, raw_bytes) = (u32_at(16), u32_at(20) as usize);
    let payload = &file[HEADER_BYTES..];
    let unpacked;
    let raw = match file[9] {
        // Room is made for what the header says, so it must be possible.
        LZ4 if raw_bytes > payload.len().saturating_mul(LZ4_RATIO_MAX) => {
            return Err(corrupt(path, 20, format!("{} bytes do not unpack to {raw_bytes}", payload.len())));
        }
        LZ4 => {
            unpacked = lz4_flex::block::decompress(payload, raw_bytes)
                .map_err(|error| corrupt(path, HEADER_BYTES, error.to_string()))?;
            &unpacked[..]
        }
        _ => payload,
    };
    let (mut entries, mut at, mut tally) = (Vec::new(), 0, Tally::default());
    while at < raw.len() {
        let (entry, next) = block::decode_entry(chunk.first, raw, at)
            .ok_or_else(|| corrupt(path, HEADER_BYTES, format!("no record at raw byte {at}")))?;
        tally.add(&entry);
        entries.push(entry);
        at = next;
    }
    if entries.len() != records as usize || tally != chunk.tally {
        return Err(corrupt(path, HEADER_BYTES, format!("{:?} wanted, {tally:?} found", chunk.tally)));
    }
    Ok(entries)
}

fn corrupt(path: &str, offset: usize, detail: String) -> Fatal {
    Fatal::Corrupt { what: "snapshot chunk", file: path.to_string(), offset: offset as u64, detail }
}
