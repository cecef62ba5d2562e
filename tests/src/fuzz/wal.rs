//! The log's reader: any segments make an error or a log, a log never holds an entry that nobody wrote, and it goes on.

use super::parts::{REPAIRED, split};
use bytes::Bytes;
use mechi_replica::disk::sim::SimDisk;
use mechi_replica::disk::{Disk, File};
use mechi_replica::effect::{Entry, EntryKind};
use mechi_replica::outcome::Fatal;
use mechi_replica::types::{Index, Term};
use mechi_replica::wal::record::Record;
use mechi_replica::wal::{Wal, WalOptions, inspect};

/// Segments of one input.
const SEGMENTS_MAX: usize = 6;

/// The flag by which a snapshot stands below the log, at the index and term of the first part's first two bytes.
const SNAPSHOT: u8 = 2;

pub(super) const DIR: &str = "wal";
pub(super) const OPTIONS: WalOptions = WalOptions { segment_bytes: 8 << 10, reserve_segments: 1 };

/// The only entries that the corpus's logs hold: each tells its index and term in its data.
pub(super) fn entry(index: Index, term: Term, bytes: usize) -> Entry {
    let data: Vec<u8> = text(index, term).into_bytes().into_iter().cycle().take(bytes).collect();
    Entry { index, term, kind: EntryKind::Normal, data: data.into() }
}

fn text(index: Index, term: Term) -> String {
    format!("{index} of term {term}, ")
}

/// Opens a log whose segments are the input's parts.
///
/// - Panics: if the reader does; if it finds an entry that was not written, though its sums are its own; if a log that it
///   opened cannot be written and read again.
pub fn wal(input: &[u8]) {
    let input = split(input, SEGMENTS_MAX + 1);
    let mut parts = input.parts.into_iter();
    let snapshot = match input.flags & SNAPSHOT {
        0 => None,
        _ => parts.next().and_then(|part| Some((u64::from(*part.first()?), u64::from(*part.get(1)?)))),
    };
    let mut segments: Vec<Vec<u8>> = parts.take(SEGMENTS_MAX).map(<[u8]>::to_vec).collect();
    let is_repaired = input.flags & REPAIRED != 0;
    if is_repaired {
        repair(&mut segments);
    }
    let disk = SimDisk::new();
    disk.create_dir(DIR).expect("an empty disk takes a folder");
    for (n, bytes) in segments.iter().enumerate() {
        let file = disk.create(&format!("{DIR}/{:016x}.wal", n + 1)).expect("each name is new");
        file.write_at(bytes, 0).expect("the disk has room");
    }
    look(&disk, snapshot);
    let (wal, recovered) = match Wal::open(disk.clone(), DIR, OPTIONS, snapshot) {
        Ok(opened) => opened,
        Err(Fatal::Corrupt { .. }) => return,
        Err(other) => panic!("a log is damaged or it is not, but {other}"),
    };
    for (entry, index) in recovered.entries.iter().zip(recovered.first_index..) {
        assert_eq!(entry.index, index, "entries follow each other");
        let written = text(entry.index, entry.term);
        let is_written =
            entry.data.iter().zip(written.as_bytes().iter().cycle()).all(|(found, wanted)| found == wanted);
        assert!(is_repaired || is_written, "nobody wrote entry {index} of term {}", entry.term);
    }
    go_on(disk, wal, &recovered.entries, recovered.last_index, snapshot);
}

/// What `mechi dump` does with it; any answer will do.
fn look(disk: &SimDisk, snapshot: Option<(Index, Term)>) {
    for id in inspect::segments(disk, DIR).expect("the folder is there") {
        let _ = inspect::read(disk, DIR, id);
    }
    let _ = inspect::judge(disk, DIR, snapshot);
}

/// Writes behind what was found, and finds both.
fn go_on(disk: SimDisk, mut wal: Wal<SimDisk>, found: &[Entry], last: Index, snapshot: Option<(Index, Term)>) {
    let term = found.last().map_or(1, |entry| entry.term).max(snapshot.map_or(1, |(_, term)| term));
    let Some(next) = last.checked_add(1) else { return };
    let more = Entry { index: next, term, kind: EntryKind::Normal, data: Bytes::from_static(b"more") };
    wal.append(&[Record::Entry(more.clone())]).expect("the disk has room");
    wal.sync().expect("the disk is well");
    drop(wal);
    let (_, again) = Wal::open(disk, DIR, OPTIONS, snapshot).expect("what was opened and written opens again");
    assert_eq!(again.entries.last(), Some(&more), "what was synced is there");
    let kept = again.entries.len() - 1;
    assert_eq!(again.entries[..kept], found[found.len() - kept.min(found.len())..], "what was there still is");
}

/// Gives every header the place where it stands and sums that fit; docs/formats.md has the bytes.
fn repair(segments: &mut [Vec<u8>]) {
    let mut previous = [0; 4];
    for (n, bytes) in segments.iter_mut().enumerate() {
        let mut at = 0;
        while at + 80 <= bytes.len() {
            if bytes[at..at + 4] != *b"MWL1" {
                at += 512;
                continue;
            }
            let room = bytes.len() - at - 80;
            let wanted = u32::from_le_bytes(bytes[at + 32..at + 36].try_into().expect("four bytes"));
            let length = room.min(wanted as usize);
            let header = |bytes: &mut Vec<u8>, from: usize, value: &[u8]| {
                bytes[at + from..at + from + value.len()].copy_from_slice(value);
            };
            header(bytes, 16, &(n as u64 + 1).to_le_bytes());
            header(bytes, 24, &(at as u64).to_le_bytes());
            header(bytes, 32, &(length as u64).to_le_bytes());
            header(bytes, 72, &previous);
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&previous);
            hasher.update(&bytes[at + 80..at + 80 + length]);
            previous = hasher.finalize().to_le_bytes();
            header(bytes, 76, &previous);
            let sum = crc32fast::hash(&bytes[at + 8..at + 80]).to_le_bytes();
            header(bytes, 4, &sum);
            at += (80 + length).next_multiple_of(512);
        }
    }
}
