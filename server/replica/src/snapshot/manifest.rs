//! The manifest: which chunks a snapshot consists of, the state beside keys and values, and the sums over both.

use super::chunk::{Chunk, DESCRIPTION_BYTES};
use crate::outcome::Fatal;
use crate::store::applied::Tally;
use crate::types::{Index, Term};
use mechi_proto::mechipb::StateMeta;
use prost::Message;

/// How a manifest's name ends.
pub const SUFFIX: &str = ".snap";

const MAGIC: &[u8; 8] = b"MECHISNP";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 72;

/// A snapshot at one applied index.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The state beside keys and values; it names index, term and revision.
    pub meta: StateMeta,
    /// Over all records of all chunks.
    pub tally: Tally,
    /// The member that made it.
    pub author: u64,
    /// The chunks, in revision order.
    pub chunks: Vec<Chunk>,
}

impl Manifest {
    /// Index of the last entry that the snapshot holds.
    pub fn index(&self) -> Index {
        self.meta.applied_index
    }

    /// That entry's term.
    pub fn term(&self) -> Term {
        self.meta.applied_term
    }

    /// Bytes of its chunks on disk.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.file_bytes)).sum()
    }

    /// The file's name: index and term, so that names sort by age.
    pub fn name(&self) -> String {
        format!("{:016x}-{:016x}{SUFFIX}", self.index(), self.term())
    }

    /// Encodes it; docs/formats.md has the byte table.
    pub fn encode(&self) -> Vec<u8> {
        let state = self.meta.encode_to_vec();
        let mut out = Vec::with_capacity(HEADER_BYTES + state.len() + self.chunks.len() * DESCRIPTION_BYTES + 4);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        // The feature level that a reader must have, the tenant, and the encryption envelope.
        out.extend_from_slice(&self.meta.feature_level.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.author.to_le_bytes());
        for number in [self.tally.records, self.tally.bytes, self.tally.sum] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&(state.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.chunks.len() as u64).to_le_bytes());
        debug_assert_eq!(out.len(), HEADER_BYTES);
        out.extend_from_slice(&state);
        self.chunks.iter().for_each(|chunk| chunk.encode(&mut out));
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads it; errors: [`Fatal::Corrupt`] with what was wanted and what was found.
    pub fn decode(bytes: &[u8], path: &str) -> Result<Self, Fatal> {
        let corrupt = |offset: usize, detail: String| Fatal::Corrupt {
            what: "snapshot manifest",
            file: path.to_string(),
            offset: offset as u64,
            detail,
        };
        if bytes.len() < HEADER_BYTES + 4 || &bytes[..8] != MAGIC {
            return Err(corrupt(0, format!("a header wanted, {} bytes of something else found", bytes.len())));
        }
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        let (wanted, found) = (u32::from_le_bytes(crc.try_into().expect("four bytes")), crc32c::crc32c(body));
        if wanted != found {
            return Err(corrupt(body.len(), format!("crc {wanted:08x} wanted, {found:08x} found")));
        }
        let u32_at = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        if u32_at(8) != FORMAT || body[16..24] != [0; 8] {
            return Err(corrupt(8, format!("format {} is not known to this version", u32_at(8))));
        }
        let (state_bytes, chunks) = (u64_at(56) as usize, u64_at(64) as usize);
        let state_end = HEADER_BYTES.checked_add(state_bytes).filter(|end| *end <= body.len());
        let state_end = state_end.ok_or_else(|| corrupt(56, format!("a state of {state_bytes} bytes does not fit")))?;
        let descriptions = &body[state_end..];
        if chunks.checked_mul(DESCRIPTION_BYTES) != Some(descriptions.len()) {
            return Err(corrupt(64, format!("{chunks} chunks wanted, {} bytes found", descriptions.len())));
        }
        let meta = StateMeta::decode(&body[HEADER_BYTES..state_end])
            .map_err(|error| corrupt(HEADER_BYTES, error.to_string()))?;
        Ok(Self {
            meta,
            author: u64_at(24),
            tally: Tally { records: u64_at(32), bytes: u64_at(40), sum: u64_at(48) },
            chunks: descriptions.chunks_exact(DESCRIPTION_BYTES).map(Chunk::decode).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Revision;

    #[test]
    fn comes_back_as_it_was_and_every_flipped_bit_is_found() {
        let chunk = Chunk {
            first: Revision::new(2, 0),
            last: Revision::new(9, 3),
            tally: Tally { records: 4, bytes: 99, sum: 7 },
            file_bytes: 123,
            crc: 5,
        };
        let meta =
            StateMeta { applied_index: 7, applied_term: 2, revision: 9, compact_revision: -1, ..Default::default() };
        let manifest = Manifest { meta, tally: chunk.tally, author: 0xabc, chunks: vec![chunk, chunk] };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes, "m").unwrap(), manifest);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&bad, "m").is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..cut], "m").is_err(), "cut at {cut}");
        }
    }
}
