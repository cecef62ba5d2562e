//! The store's keys: one letter for the kind, then big-endian numbers, so that byte order is revision order.

use crate::types::{Index, Revision};

/// Bytes of a block's key.
pub const RECORD_BYTES: usize = 13;

const RECORDS: u8 = b'r';
const META: u8 = b'm';
const APPLIED: u8 = b'a';
const STATE: u8 = b's';

/// A key of the store, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A block of records; the revision is its first record's.
    Records(Revision),
    /// A further part of one record that is too large for a block.
    Part(Revision, u32),
    /// The applied record.
    Applied,
    /// A part of the state beside keys and values, as of this applied index.
    State(Index, u32),
}

/// The key of the block that begins at `revision`; also the first part of a large record.
pub fn record(revision: Revision) -> [u8; RECORD_BYTES] {
    let mut key = [RECORDS; RECORD_BYTES];
    key[1..9].copy_from_slice(&revision.main.to_be_bytes());
    key[9..].copy_from_slice(&revision.sub.to_be_bytes());
    key
}

/// The key of part `number` (from 1) of the large record at `revision`: sorts behind its first part.
pub fn part(revision: Revision, number: u32) -> Vec<u8> {
    let mut key = record(revision).to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The first key behind everything that belongs to `revision`.
pub fn record_end(revision: Revision) -> [u8; RECORD_BYTES] {
    match revision.sub.checked_add(1) {
        Some(sub) => record(Revision::new(revision.main, sub)),
        None => record(Revision::new(revision.main + 1, 0)),
    }
}

/// The first key behind all blocks.
pub fn records_end() -> [u8; 1] {
    [RECORDS + 1]
}

/// The key of the applied record.
pub fn applied() -> [u8; 2] {
    [META, APPLIED]
}

/// The key of part `number` (from 0) of the state as of `index`.
pub fn state(index: Index, number: u32) -> Vec<u8> {
    let mut key = vec![META, STATE];
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The range of all states' parts: from, and the first key behind.
pub fn states() -> ([u8; 2], [u8; 2]) {
    ([META, STATE], [META, STATE + 1])
}

/// Reads a key; `None` if it is none of ours.
pub fn parse(key: &[u8]) -> Option<Key> {
    let (kind, rest) = key.split_first()?;
    match (*kind, rest) {
        (RECORDS, rest) if rest.len() == 12 || rest.len() == 16 => {
            let main = i64::from_be_bytes(rest[..8].try_into().ok()?);
            let sub = u32::from_be_bytes(rest[8..12].try_into().ok()?);
            let revision = Revision::new(main, sub);
            match rest.get(12..16) {
                Some(number) => Some(Key::Part(revision, u32::from_be_bytes(number.try_into().ok()?))),
                None => Some(Key::Records(revision)),
            }
        }
        (META, [APPLIED]) => Some(Key::Applied),
        (META, [STATE, rest @ ..]) if rest.len() == 12 => Some(Key::State(
            u64::from_be_bytes(rest[..8].try_into().ok()?),
            u32::from_be_bytes(rest[8..].try_into().ok()?),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_is_revision_order() {
        let keys = [
            record(Revision::new(2, 0)).to_vec(),
            part(Revision::new(2, 0), 1),
            part(Revision::new(2, 0), 256),
            record(Revision::new(2, 1)).to_vec(),
            record(Revision::new(256, 0)).to_vec(),
            records_end().to_vec(),
        ];
        assert!(keys.is_sorted());
        assert!(applied() < states().0 && states().1[..] < keys[0][..]);
        for (key, want) in keys.iter().zip([
            Key::Records(Revision::new(2, 0)),
            Key::Part(Revision::new(2, 0), 1),
            Key::Part(Revision::new(2, 0), 256),
            Key::Records(Revision::new(2, 1)),
        ]) {
            assert_eq!(parse(key), Some(want));
        }
        assert_eq!(parse(&state(7, 1)), Some(Key::State(7, 1)));
        assert_eq!(parse(&applied()), Some(Key::Applied));
        assert_eq!(parse(b"r123"), None);
        assert_eq!(record_end(Revision::new(2, u32::MAX)), record(Revision::new(3, 0)));
    }
}
