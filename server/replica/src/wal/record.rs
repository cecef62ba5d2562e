//! What the log holds: entries, hard states, and the facts that recovery needs.

use super::segment::Position;
use crate::effect::{Entry, EntryKind, HardState};
use crate::types::{Index, Term};
use bytes::Bytes;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A raft entry; one with an index already written, but another term, replaces it and all after it.
    Entry(Entry),
    /// Term, vote and commit; the last one counts.
    HardState(HardState),
    /// A verified snapshot stands at this entry; the log may start after it, and does if it lacks this entry.
    Snapshot {
        /// Index of the last entry in the snapshot.
        index: Index,
        /// Its term.
        term: Term,
    },
    /// The process began its boot with this counter; durable before any batch carries it.
    Boot {
        /// Counts this member's starts, from 1.
        counter: u64,
    },
    /// The process closed its store and synced all its files; true until the next `Boot`.
    Clean {
        /// The applied index in the store.
        applied: Index,
    },
}

/// The first record of each segment: how the log goes on from an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The log up to here, then this segment, is the whole log; segment 0 is before the first.
    pub(super) base: Position,
    /// Bytes of this segment's file, durable before its first batch is written: one that is shorter has lost its end.
    /// 0 in segments of version 1, which do not say.
    pub(super) length: u64,
}

/// What a batch's payload holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Logged {
    /// First in a segment's first batch, and nowhere else.
    Start(Start),
    /// Anything that the owner of the log wrote.
    Record(Record),
}

/// Bytes in front of each record's body: type, kind, two reserved zeros, length.
const PREFIX_BYTES: usize = 8;

const ENTRY: u8 = 1;
const HARD_STATE: u8 = 2;
const SNAPSHOT: u8 = 3;
const BOOT: u8 = 4;
const CLEAN: u8 = 5;
const START: u8 = 6;

/// The version of everything below a segment's start; a reader refuses a higher one. The first one lacks the length.
pub(super) const FORMAT_VERSION: u64 = 2;

impl Record {
    /// Bytes that this record takes in a batch.
    pub(super) fn encoded_bytes(&self) -> usize {
        PREFIX_BYTES
            + match self {
                Record::Entry(entry) => 16 + entry.data.len(),
                Record::HardState(_) => 24,
                Record::Snapshot { .. } => 16,
                Record::Boot { .. } | Record::Clean { .. } => 8,
            }
    }

    /// Appends the record's bytes to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Entry(entry) => {
                let kind = match entry.kind {
                    EntryKind::Normal => 0,
                    EntryKind::ConfChange => 1,
                    EntryKind::ConfChangeV2 => 2,
                };
                prefix(out, ENTRY, kind, 16 + entry.data.len());
                numbers(out, &[entry.index, entry.term]);
                out.extend_from_slice(&entry.data);
            }
            Record::HardState(state) => fixed(out, HARD_STATE, &[state.term, state.vote, state.commit]),
            Record::Snapshot { index, term } => fixed(out, SNAPSHOT, &[*index, *term]),
            Record::Boot { counter } => fixed(out, BOOT, &[*counter]),
            Record::Clean { applied } => fixed(out, CLEAN, &[*applied]),
        }
    }
}

impl Start {
    /// Bytes that a start takes in a batch.
    pub(super) const ENCODED_BYTES: usize = PREFIX_BYTES + 32;

    /// Appends the start's bytes to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        fixed(out, START, &[FORMAT_VERSION, self.base.segment, self.base.offset, self.length]);
    }
}

/// Decodes a payload whose CRC was right; `None` if it is not a sequence of records that this version knows.
pub(super) fn decode(mut payload: &[u8]) -> Option<Vec<Logged>> {
    let mut logged = Vec::new();
    while !payload.is_empty() {
        let (prefix, rest) = payload.split_at_checked(PREFIX_BYTES)?;
        let length = u32::from_le_bytes(prefix[4..].try_into().ok()?) as usize;
        let (body, rest) = rest.split_at_checked(length)?;
        payload = rest;
        logged.push(match prefix[0] {
            ENTRY => {
                let (fixed, data) = body.split_at_checked(16)?;
                let [index, term] = read(fixed)?;
                let kind = match prefix[1] {
                    0 => EntryKind::Normal,
                    1 => EntryKind::ConfChange,
                    2 => EntryKind::ConfChangeV2,
                    _ => return None,
                };
                // A copy of its own, so that keeping one entry does not keep the whole segment.
                Logged::Record(Record::Entry(Entry { index, term, kind, data: Bytes::copy_from_slice(data) }))
            }
            HARD_STATE => {
                let [term, vote, commit] = read(body)?;
                Logged::Record(Record::HardState(HardState { term, vote, commit }))
            }
            SNAPSHOT => {
                let [index, term] = read(body)?;
                Logged::Record(Record::Snapshot { index, term })
            }
            BOOT => {
                let [counter] = read(body)?;
                Logged::Record(Record::Boot { counter })
            }
            CLEAN => {
                let [applied] = read(body)?;
                Logged::Record(Record::Clean { applied })
            }
            START => {
                let [version] = read(body.get(..8)?)?;
                let [segment, offset, length] = match version {
                    1 => {
                        let [segment, offset] = read(&body[8..])?;
                        [segment, offset, 0]
                    }
                    FORMAT_VERSION => read(&body[8..])?,
                    _ => return None,
                };
                Logged::Start(Start { base: Position { segment, offset }, length })
            }
            _ => return None,
        });
    }
    Some(logged)
}

fn prefix(out: &mut Vec<u8>, kind: u8, detail: u8, length: usize) {
    out.extend_from_slice(&[kind, detail, 0, 0]);
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

fn numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn fixed(out: &mut Vec<u8>, kind: u8, values: &[u64]) {
    prefix(out, kind, 0, 8 * values.len());
    numbers(out, values);
}

fn read<const N: usize>(body: &[u8]) -> Option<[u64; N]> {
    if body.len() != 8 * N {
        return None;
    }
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(body.chunks_exact(8)) {
        *number = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{Author, Move, Step};
    use crate::disk::sim::SimDisk;
    use crate::types::MemberId;
    use crate::wal::{Wal, WalOptions};

    /// One entry of each kind; the second is of a kind that no Mechi writes.
    fn entries() -> [Entry; 3] {
        let author = Author { member: 7, boot: 2, id: 9 };
        let change = Move { author, steps: vec![Step::Promote(MemberId(3)), Step::Demote(MemberId(7))] };
        let entry = |index, kind, data| Entry { index, term: 1, kind, data };
        [
            entry(1, EntryKind::Normal, Bytes::from_static(b"batch")),
            entry(2, EntryKind::ConfChange, Bytes::new()),
            entry(3, EntryKind::ConfChangeV2, change.encode(5)),
        ]
    }

    #[test]
    fn the_kinds_of_entries_have_their_numbers_for_ever() {
        for (entry, number) in entries().into_iter().zip(0..) {
            let (record, mut bytes) = (Record::Entry(entry), Vec::new());
            record.encode(&mut bytes);
            assert_eq!(bytes[..4], [ENTRY, number, 0, 0]);
            assert_eq!(decode(&bytes), Some(vec![Logged::Record(record)]));
            bytes[1] = 3;
            assert_eq!(decode(&bytes), None, "a kind of a later version");
        }
    }

    #[test]
    fn a_membership_change_comes_back_from_a_log_that_is_opened_again_and_again() {
        let disk = SimDisk::new();
        let options = WalOptions { segment_bytes: 4096, reserve_segments: 0 };
        let (mut wal, _) = Wal::open(disk.clone(), "wal", options, None).unwrap();
        wal.append(&entries().map(Record::Entry)).unwrap();
        wal.sync().unwrap();
        drop(wal);
        for _ in 0..3 {
            // Each open copies what nothing vouches for.
            let (_, recovered) = Wal::open(disk.clone(), "wal", options, None).unwrap();
            assert_eq!(recovered.entries, entries());
        }
        let [.., change] = entries();
        assert_eq!(Move::decode(&change).unwrap().unwrap().encode(5), change.data);
    }
}
