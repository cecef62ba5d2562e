//! The bytes of a segment: sector-aligned batches, each with a header that can be believed alone.
//!
//! A segment's file may have been another segment's before, so a header counts only if it names this segment and its
//! own place in it. docs/formats.md has the byte tables.

use super::record::{self, Logged};
use crate::disk::SECTOR_BYTES;
use crate::types::{Index, Term};
use std::fmt;

/// A place in the log; the order of places is the order of writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment's number, from 1.
    pub segment: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// What stands in front of each batch's payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// The boot that wrote it.
    pub(super) boot: u64,
    /// Where it stands.
    pub(super) at: Position,
    /// Bytes of payload.
    pub(super) length: u32,
    /// The log's last entry after this batch.
    pub(super) last: (Index, Term),
    /// All before this was durable when the batch was written.
    pub(super) durable: Position,
    /// The chain sum of the batch before it.
    pub(super) previous: u32,
    /// The chain sum: CRC-32 of `previous` and the payload.
    pub(super) chain: u32,
}

/// A batch whose header is intact.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) header: Header,
    /// `None` if the payload is damaged.
    pub(super) logged: Option<Vec<Logged>>,
}

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 80;

const MAGIC: [u8; 4] = *b"MWL1";

impl Header {
    /// Bytes of the whole batch on disk, padding included.
    pub(super) fn batch_bytes(&self) -> u64 {
        batch_bytes(self.length as usize)
    }

    /// Where the next batch begins.
    pub(super) fn end(&self) -> Position {
        Position { segment: self.at.segment, offset: self.at.offset + self.batch_bytes() }
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        for (at, number) in [
            (8, self.boot),
            (16, self.at.segment),
            (24, self.at.offset),
            (32, u64::from(self.length)),
            (40, self.last.0),
            (48, self.last.1),
            (56, self.durable.segment),
            (64, self.durable.offset),
        ] {
            out[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        out[72..76].copy_from_slice(&self.previous.to_le_bytes());
        out[76..80].copy_from_slice(&self.chain.to_le_bytes());
        let sum = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads the header at `at`; `None` if there is none that belongs there.
    fn decode(bytes: &[u8], at: Position) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let short = |from: usize| Some(u32::from_le_bytes(bytes[from..from + 4].try_into().ok()?));
        let long = |from: usize| Some(u64::from_le_bytes(bytes[from..from + 8].try_into().ok()?));
        if bytes[..4] != MAGIC || short(4)? != crc32fast::hash(&bytes[8..]) {
            return None;
        }
        let header = Self {
            boot: long(8)?,
            at: Position { segment: long(16)?, offset: long(24)? },
            length: u32::try_from(long(32)?).ok()?,
            last: (long(40)?, long(48)?),
            durable: Position { segment: long(56)?, offset: long(64)? },
            previous: short(72)?,
            chain: short(76)?,
        };
        (header.at == at).then_some(header)
    }
}

/// Bytes on disk of a batch with a payload of `length` bytes.
pub(super) fn batch_bytes(length: usize) -> u64 {
    (HEADER_BYTES + length).next_multiple_of(SECTOR_BYTES) as u64
}

/// Begins a batch: room for the header, which [`finish`] fills in.
pub(super) fn begin(capacity: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(batch_bytes(capacity) as usize);
    buffer.resize(HEADER_BYTES, 0);
    buffer
}

/// Completes a batch in place: computes the sums, writes the header, pads to whole sectors.
///
/// - Shape: `buffer` came from [`begin`] and got its payload appended; `length` and `chain` of `header` are filled in.
pub(super) fn finish(buffer: &mut Vec<u8>, mut header: Header) -> Header {
    let payload = &buffer[HEADER_BYTES..];
    header.length = u32::try_from(payload.len()).expect("a batch is cut at limits::WAL_BATCH_BYTES_MAX");
    header.chain = chain(header.previous, payload);
    buffer[..HEADER_BYTES].copy_from_slice(&header.encode());
    buffer.resize(header.batch_bytes() as usize, 0);
    header
}

/// Finds every batch with an intact header in a segment's bytes, ascending, whatever lies between them.
pub(super) fn scan(segment: u64, bytes: &[u8]) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut offset = 0;
    while offset < bytes.len() {
        let at = Position { segment, offset: offset as u64 };
        let Some(header) = Header::decode(&bytes[offset..], at) else {
            offset += SECTOR_BYTES;
            continue;
        };
        let payload = bytes.get(offset + HEADER_BYTES..offset + HEADER_BYTES + header.length as usize);
        #[cfg(feature = "mutants")]
        let unchecked = crate::mutants::active("log_sums_skipped");
        #[cfg(not(feature = "mutants"))]
        let unchecked = false;
        let payload = payload.filter(|payload| unchecked || chain(header.previous, payload) == header.chain);
        batches.push(Batch { header, logged: payload.and_then(record::decode) });
        // An intact header tells the truth about its length, so no header of ours can lie inside the batch.
        offset += header.batch_bytes() as usize;
    }
    batches
}

/// The file name of a segment.
pub(super) fn name(segment: u64) -> String {
    format!("{segment:016x}.wal")
}

/// The segment that a file name stands for.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

fn chain(previous: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&previous.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}
