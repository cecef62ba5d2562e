//! Own snapshot files: the durable base under the log.
//!
//! A snapshot is a [`manifest`] over immutable, compressed [`chunk`]s in revision order. [`build`] makes one from memory,
//! or, if the working store is in use, from the store right after a flush: what the flush's applied record speaks of is
//! a pinned view already, since later flushes only add behind it and removals wait. Chunks that nothing was removed from are shared with the
//! predecessor. Every file is written under a temporary name, synced, renamed and read back; the manifest comes last.

pub mod build;
pub mod chunk;
pub mod manifest;

use crate::disk::{self, Disk, File, join};
use crate::limits;
use crate::outcome::Fatal;
use crate::store::block::Entry;
use manifest::Manifest;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use thiserror::Error as ThisError;

/// Why no snapshot was made.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The disk is full: nothing is lost, and the log stays as it is.
    #[error("{0}")]
    Full(std::io::Error),
    /// This member can no longer be trusted.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        match disk::is_full(&source) {
            true => Self::Full(source),
            false => Self::Fatal(Fatal::Io { context: "write a snapshot".into(), source }),
        }
    }
}

/// Reads all manifests of `dir`, oldest first; with them, in words, those that cannot be read.
///
/// - Errors: [`Fatal::Io`] if the directory cannot be listed.
pub fn list<D: Disk>(disk: &D, dir: &str) -> Result<(Vec<Manifest>, Vec<Fatal>), Fatal> {
    let (mut manifests, mut damaged) = (Vec::new(), Vec::new());
    let names = disk.list(dir).map_err(disk::fatal(format!("list {dir}")))?;
    for name in names.iter().filter(|name| name.ends_with(manifest::SUFFIX)) {
        let path = join(dir, name);
        match disk::read(disk, &path) {
            Ok(bytes) => match Manifest::decode(&bytes, &path) {
                Ok(manifest) => manifests.push(manifest),
                Err(error) => damaged.push(error),
            },
            Err(source) => damaged.push(Fatal::Io { context: format!("read {path}"), source }),
        }
    }
    manifests.sort_by_key(|manifest| (manifest.index(), manifest.term()));
    Ok((manifests, damaged))
}

/// Finds the newest snapshot whose every chunk is as it was written; with it, in words, what is damaged.
pub fn newest_verified<D: Disk>(disk: &D, dir: &str) -> Result<(Option<Manifest>, Vec<Fatal>), Fatal> {
    let (manifests, mut damaged) = list(disk, dir)?;
    for manifest in manifests.into_iter().rev() {
        match verify(disk, dir, &manifest) {
            Ok(()) => return Ok((Some(manifest), damaged)),
            Err(error) => damaged.push(error),
        }
    }
    Ok((None, damaged))
}

/// Reads every chunk of a snapshot and checks its CRC.
///
/// - Errors: [`Fatal::Corrupt`] or [`Fatal::Io`] for the first chunk that is not what was written.
pub fn verify<D: Disk>(disk: &D, dir: &str, manifest: &Manifest) -> Result<(), Fatal> {
    for chunk in &manifest.chunks {
        let path = join(dir, &chunk.name());
        let bytes = disk::read(disk, &path).map_err(disk::fatal(format!("read {path}")))?;
        chunk::check(chunk, &bytes, &path)?;
    }
    Ok(())
}

/// Makes a snapshot that was found on disk durable: its files, and the names of them.
///
/// A process that is killed between a rename and the directory's sync leaves a snapshot that is in the page cache only:
/// it reads back whole, and is gone after the next power cut.
///
/// - Errors: [`Fatal::Io`]; the snapshot may then not be relied upon.
pub fn make_durable<D: Disk>(disk: &D, dir: &str, manifest: &Manifest) -> Result<(), Fatal> {
    let names = manifest.chunks.iter().map(chunk::Chunk::name).chain([manifest.name()]);
    for path in names.map(|name| join(dir, &name)) {
        let synced = disk.open(&path).and_then(|file| file.sync());
        synced.map_err(disk::fatal(format!("sync {path}")))?;
    }
    disk.sync_dir(dir).map_err(disk::fatal(format!("sync {dir}")))
}

/// Reads a snapshot's records, chunk by chunk in revision order.
#[derive(Debug)]
pub struct Reader<'a, D> {
    disk: &'a D,
    dir: &'a str,
    manifest: &'a Manifest,
    next: usize,
}

impl<'a, D: Disk> Reader<'a, D> {
    /// Reads the snapshot that `manifest` describes.
    pub fn new(disk: &'a D, dir: &'a str, manifest: &'a Manifest) -> Self {
        Self { disk, dir, manifest, next: 0 }
    }

    /// Returns the next chunk's records, `None` at the end; errors: as of [`verify`].
    pub fn next_chunk(&mut self) -> Result<Option<Vec<Entry>>, Fatal> {
        let Some(chunk) = self.manifest.chunks.get(self.next) else { return Ok(None) };
        self.next += 1;
        let path = join(self.dir, &chunk.name());
        let bytes = disk::read(self.disk, &path).map_err(disk::fatal(format!("read {path}")))?;
        chunk::decode(chunk, &bytes, &path).map(Some)
    }
}

/// Removes every file of `dir` that no manifest in `keep` needs, temporary ones included.
///
/// - Returns: the bytes that were freed. The names are gone durably.
pub fn collect_garbage<D: Disk>(disk: &D, dir: &str, keep: &[&Manifest]) -> Result<u64, Fatal> {
    collect_garbage_but(disk, dir, keep, &|_| false)
}

/// As [`collect_garbage`], but leaves the files that are `pinned`: another member fetches them, or they are being
/// fetched. It is asked right before each removal, since pins come at any time.
pub fn collect_garbage_but<D: Disk>(
    disk: &D,
    dir: &str,
    keep: &[&Manifest],
    pinned: &dyn Fn(&str) -> bool,
) -> Result<u64, Fatal> {
    let io = |context: String| disk::fatal(context);
    let mut kept: BTreeSet<String> = keep.iter().map(|manifest| manifest.name()).collect();
    kept.extend(keep.iter().flat_map(|manifest| manifest.chunks.iter().map(chunk::Chunk::name)));
    let mut freed = 0;
    let names = disk.list(dir).map_err(io(format!("list {dir}")))?;
    // Manifests first, and durably: a manifest must never be there without its chunks.
    let (manifests, others): (Vec<_>, Vec<_>) =
        names.into_iter().filter(|name| !kept.contains(name)).partition(|name| name.ends_with(manifest::SUFFIX));
    for names in [manifests, others] {
        for name in names.iter().filter(|name| !pinned(name)) {
            let path = join(dir, name);
            freed += disk.open(&path).and_then(|file| file.len()).unwrap_or(0);
            match disk.unlink(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(format!("remove {path}"))(error)),
                _ => {}
            }
        }
        if !names.is_empty() {
            disk.sync_dir(dir).map_err(io(format!("sync {dir}")))?;
        }
    }
    Ok(freed)
}

/// Whether a new snapshot is worth its price: the log since the last one outgrew a fraction of the live data.
///
/// - Units: bytes; below `log_bytes_min` none is made, however small the data.
pub fn is_due(log_since: u64, live: u64, log_bytes_min: u64) -> bool {
    log_since >= log_between(live, log_bytes_min)
}

/// Whether the older snapshot and its log may stay beside the newest.
///
/// - Units: bytes; `used` counts snapshots and log, and a snapshot that is about to be written; `coming` is the log that
///   grows before the older goes by itself. Up to a fixed size it always may: little data is not worth its risk.
pub fn keeps_older(used: u64, coming: u64, live: u64) -> bool {
    let standing = limits::WAL_SEGMENT_BYTES * limits::WAL_STANDING_SEGMENTS;
    let bound = live.saturating_mul(limits::SNAPSHOT_DISK_HALVES) / 2;
    used < limits::SNAPSHOT_OLDER_BYTES || used.saturating_add(coming).saturating_add(standing) < bound
}

/// The log that grows between two snapshots, in bytes.
pub fn log_between(live: u64, log_bytes_min: u64) -> u64 {
    (live / limits::SNAPSHOT_LOG_FRACTION).max(log_bytes_min)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Snapshots, log and what stands beside them on the disk, at most, in halves of the live data.
    fn most(live: u64) -> u64 {
        let log = log_between(live, limits::SNAPSHOT_LOG_BYTES_MIN);
        // Right after a snapshot: it, its predecessor, and the log since that.
        let older = keeps_older(2 * live + log, log, live);
        let before_next = if older { 2 * live + 2 * log } else { live + log };
        // Before the next is built the older may go, with its log.
        let stays = older && keeps_older(3 * live + 2 * log, 0, live);
        let while_building = if stays { 3 * live + 2 * log } else { 2 * live + log };
        (before_next.max(while_building) + limits::WAL_STANDING_SEGMENTS * limits::WAL_SEGMENT_BYTES) * 2 / live
    }

    #[test]
    fn the_disk_holds_at_most_four_times_the_live_data() {
        for live in [280 * MIB, 400 * MIB, 450 * MIB, 1 << 30, 4 << 30, 100 << 30] {
            assert!(most(live) < 8, "{} halves of {} MiB", most(live), live / MIB);
        }
    }

    #[test]
    fn little_data_and_much_keep_two_snapshots() {
        let log = |live| log_between(live, limits::SNAPSHOT_LOG_BYTES_MIN);
        for live in [0, MIB, 40 * MIB, 1 << 30, 10 << 30] {
            assert!(keeps_older(2 * live + log(live), log(live), live), "{live}");
        }
        let live = 300 * MIB;
        assert!(!keeps_older(2 * live + log(live), log(live), live));
    }
}
