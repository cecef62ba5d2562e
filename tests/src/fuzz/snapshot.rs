//! The snapshots' reader: any files make an error or a state, and what is read is the same once it is written again.

use super::parts::{REPAIRED, split};
use mechi_replica::apply::state::State;
use mechi_replica::disk::sim::SimDisk;
use mechi_replica::disk::{Disk, File, join};
use mechi_replica::mvcc::{Export, Mvcc};
use mechi_replica::outcome::Fatal;
use mechi_replica::record::Record;
use mechi_replica::snapshot;
use mechi_replica::snapshot::build::Builder;
use mechi_replica::snapshot::chunk::{self, Chunk};
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::store::applied::Tally;
use mechi_replica::store::block::Entry;
use mechi_replica::store::restore;
use mechi_replica::types::Revision;

/// Chunks of one input.
const CHUNKS_MAX: usize = 6;

/// The flag by which the parts behind the manifest are records to be made a chunk of, and not a chunk's file.
pub(super) const BUILT: u8 = 2;

/// Bytes before a record's: revision (2 and 1), whether it is a tombstone, and its length.
const RECORD_HEAD_BYTES: usize = 6;

pub(super) const DIR: &str = "snap";

/// Reads a snapshot whose manifest is the input's first part and whose chunks are the others.
///
/// - Panics: if a reader does, or if what it read is not what comes back of it.
pub fn snapshot(input: &[u8]) {
    let input = split(input, CHUNKS_MAX + 1);
    let Some((first, parts)) = input.parts.split_first() else { return };
    let mut bytes = first.to_vec();
    if input.flags & REPAIRED != 0 && bytes.len() > 4 {
        let at = bytes.len() - 4;
        let sum = crc32c::crc32c(&bytes[..at]);
        bytes[at..].copy_from_slice(&sum.to_le_bytes());
    }
    let Ok(mut manifest) = Manifest::decode(&bytes, "manifest") else { return };
    let again = Manifest::decode(&manifest.encode(), "manifest").expect("what was read can be written");
    assert_eq!(again, manifest);
    let mut files: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    if input.flags & BUILT != 0 {
        build(&mut manifest, &mut files);
    } else if input.flags & REPAIRED != 0 {
        manifest.chunks.iter_mut().zip(&mut files).for_each(|(chunk, file)| repair(chunk, file));
    }
    let disk = SimDisk::new();
    disk.create_dir(DIR).expect("an empty disk takes a folder");
    for (chunk, file) in manifest.chunks.iter().zip(&files) {
        put(&disk, &chunk.name(), file);
    }
    put(&disk, &manifest.name(), &manifest.encode());
    let verified = snapshot::newest_verified(&disk, DIR).expect("the folder is there").0;
    let state = match restore::from_snapshot(&disk, DIR, &manifest) {
        Ok(state) => state,
        Err(Fatal::Corrupt { .. } | Fatal::EngineLost(_) | Fatal::Bug(_)) => return,
        // A chunk that the manifest names and the input has not.
        Err(Fatal::Io { .. }) if files.len() < manifest.chunks.len() => return,
        Err(other) => panic!("a snapshot is damaged or it is not, but {other}"),
    };
    assert_eq!(verified.as_ref(), Some(&manifest), "what is restored was verified");
    come_back(&disk, &state, &manifest);
}

/// Writes the state as a snapshot of its own and reads that.
fn come_back(disk: &SimDisk, state: &State, manifest: &Manifest) {
    // The state may be one that no member has; what it holds must come back nevertheless.
    let mut builder = Builder::new(disk.clone(), DIR, 9, None, state.to_meta(), Some(manifest));
    let mut export = Export::of_retained(&state.mvcc);
    while let Some(entries) = export.slice(&state.mvcc).expect("all is in memory") {
        builder.add(entries).expect("the disk has room");
    }
    builder.end().expect("the disk has room");
    let made = builder.finish().expect("what was written is read back");
    let again = restore::from_snapshot(disk, DIR, &made).expect("a snapshot that was made can be read");
    assert_eq!(again.mvcc.recompute_content_sum(), state.mvcc.recompute_content_sum());
    assert_eq!((again.mvcc.revision(), again.mvcc.live_keys()), (state.mvcc.revision(), state.mvcc.live_keys()));
    assert_eq!(again.to_meta(), state.to_meta());
}

/// A name that is taken names the same bytes already, or those of a part that nothing can reach.
fn put(disk: &SimDisk, name: &str, bytes: &[u8]) {
    if let Ok(file) = disk.create(&join(DIR, name)) {
        file.write_at(bytes, 0).expect("the disk has room");
    }
}

/// Makes a chunk's sum and length right.
fn repair(chunk: &mut Chunk, file: &mut [u8]) {
    if file.len() < 8 {
        return;
    }
    chunk.crc = crc32c::crc32c(&file[8..]);
    chunk.file_bytes = file.len() as u32;
    file[4..8].copy_from_slice(&chunk.crc.to_le_bytes());
}

/// Makes chunks of the records that each part lists, and a manifest that tells of them.
fn build(manifest: &mut Manifest, files: &mut Vec<Vec<u8>>) {
    let (mut chunks, mut made, mut tally) = (Vec::new(), Vec::new(), Tally::default());
    for part in files.iter() {
        let entries = records(part);
        if entries.is_empty() {
            continue;
        }
        let (chunk, file) = chunk::encode(&entries);
        tally.merge(&chunk.tally);
        chunks.push(chunk);
        made.push(file);
    }
    (manifest.chunks, manifest.tally) = (chunks, tally);
    let rows = files.iter().flat_map(|part| records(part));
    let rows = rows.map(|entry| (entry.revision, entry.tombstone, entry.record, true));
    if let Ok(mvcc) = Mvcc::restore(manifest.meta.revision, manifest.meta.compact_revision, rows) {
        manifest.meta.content_sum = mvcc.content_sum();
    }
    *files = made;
}

fn records(mut part: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some((head, rest)) = part.split_first_chunk::<RECORD_HEAD_BYTES>() {
        let main = i64::from(u16::from_le_bytes([head[0], head[1]]));
        let length = usize::from(u16::from_le_bytes([head[4], head[5]]));
        let (wire, rest) = rest.split_at(length.min(rest.len()));
        let revision = Revision::new(main, u32::from(head[2]));
        entries.push(Entry { revision, tombstone: head[3] & 1 == 1, record: Record::from_wire(wire) });
        part = rest;
    }
    entries
}

/// Lists records as [`BUILT`] wants them.
pub(super) fn list(entries: &[Entry]) -> Vec<u8> {
    let mut part = Vec::new();
    for entry in entries {
        let wire = entry.record.wire();
        part.extend_from_slice(&(entry.revision.main as u16).to_le_bytes());
        part.extend_from_slice(&[entry.revision.sub as u8, u8::from(entry.tombstone)]);
        part.extend_from_slice(&(wire.len() as u16).to_le_bytes());
        part.extend_from_slice(wire);
    }
    part
}
