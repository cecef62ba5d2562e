//! Makes room on a full disk, the cheapest loss first.

use super::folder;
use crate::disk::RealDisk;
use anyhow::{Context, Result};
use mechi_replica::disk::{self, Disk, File};
use mechi_replica::snapshot;
use mechi_replica::types::Index;
use std::io::ErrorKind;
use std::path::Path;

/// Space that is held back, so that deletes, compaction and revokes can go on when the disk is full.
const BALLAST: &str = "member/ballast";

/// What was given up for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// Stores that had been set aside, or kept as evidence; bytes.
    Aside(u64),
    /// The snapshots older than the newest whole one; bytes. The log below `trim` may go too.
    Older {
        /// How much.
        bytes: u64,
        /// The newest snapshot's index.
        trim: Index,
    },
    /// The ballast, in bytes: from now on only what frees space may be admitted.
    Ballast(u64),
    /// There is nothing left to give up.
    Nothing,
}

/// Frees the next thing on the list; call it again if that was not enough.
///
/// - Shape: called by the log's owner when an append says that the disk is full. For [`Freed::Older`] it trims.
/// - Errors: what the disk says about removing files.
pub fn free_space(disk: &RealDisk, snapshots: &str) -> Result<Freed> {
    match free_spare(disk, snapshots)? {
        Freed::Nothing => free_ballast(disk),
        freed => Ok(freed),
    }
}

/// Does the same, but leaves the ballast.
pub fn free_spare(disk: &RealDisk, snapshots: &str) -> Result<Freed> {
    let freed = folder::remove_aside(&disk.resolve("member"))?;
    if freed > 0 {
        return Ok(Freed::Aside(freed));
    }
    // Evidence serves people only: it goes before anything that a member needs.
    let freed = folder::remove_evidence(&disk.resolve("member"))?;
    if freed > 0 {
        return Ok(Freed::Aside(freed));
    }
    Ok(drop_older(disk, snapshots)?.unwrap_or(Freed::Nothing))
}

fn free_ballast(disk: &RealDisk) -> Result<Freed> {
    let held = disk.open(BALLAST).and_then(|file| file.len());
    match held.and_then(|bytes| disk.unlink(BALLAST).map(|()| bytes)) {
        Ok(bytes) => {
            disk.sync_dir("member").context("sync member")?;
            Ok(Freed::Ballast(bytes))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Freed::Nothing),
        Err(error) => Err(error).context("remove the ballast"),
    }
}

/// Removes the older snapshots, if a whole one is newer. Chunks that a snapshot under way may use stay.
fn drop_older(disk: &RealDisk, dir: &str) -> Result<Option<Freed>> {
    let (manifests, _) = snapshot::list(disk, dir)?;
    if manifests.len() < 2 {
        return Ok(None);
    }
    let (Some(newest), _) = snapshot::newest_verified(disk, dir)? else { return Ok(None) };
    let kept: Vec<String> = newest.chunks.iter().map(|chunk| chunk.name()).collect();
    let mut bytes = 0;
    for old in manifests.iter().filter(|manifest| manifest.index() < newest.index()) {
        // The manifest goes first, and durably: it must never be there without its chunks.
        disk.unlink(&disk::join(dir, &old.name())).context("remove an older snapshot")?;
        disk.sync_dir(dir).context("sync snapshots")?;
        for chunk in old.chunks.iter().filter(|chunk| !kept.contains(&chunk.name())) {
            match disk.unlink(&disk::join(dir, &chunk.name())) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context("remove a chunk"),
                _ => bytes += u64::from(chunk.file_bytes),
            }
        }
    }
    Ok((bytes > 0).then_some(Freed::Older { bytes, trim: newest.index() }))
}

/// Puts the ballast in place, if it is missing; returns whether it stands.
///
/// - Errors: none for a full disk, which is the time when it cannot stand.
pub fn hold_ballast(disk: &RealDisk, bytes: u64) -> Result<bool> {
    let file = match disk.open(BALLAST) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => disk.create(BALLAST).context("create the ballast")?,
        Err(error) => return Err(error).context("open the ballast"),
    };
    match file.allocate(bytes) {
        Ok(()) => Ok(true),
        Err(error) if disk::is_full(&error) => {
            disk.unlink(BALLAST).context("remove the ballast")?;
            Ok(false)
        }
        Err(error) => Err(error).context("allocate the ballast"),
    }
}

/// Frees what was set aside, as soon as a rebuilt member runs: nobody opens it again.
pub fn tidy(data_dir: &Path) -> Result<u64> {
    folder::remove_aside(&data_dir.join("member"))
}
