//! Room on the disk: what is held back, what is given up on a full disk, and when growth is refused.

use crate::disk::RealDisk;
use crate::limits::{DISK_PART_BYTES_MAX, DISK_PART_BYTES_MIN};
use crate::recovery::SNAP_DIR;
use crate::recovery::space::{self, Freed};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The log's segments and the ballast are this part of a small disk.
const DISK_PART: u64 = 64;

/// Free bytes below which nothing is flushed, in ballasts: the store does not survive a full disk.
const FLUSH_BALLASTS: u64 = 2;

/// Free bytes that growth leaves for upkeep beside a snapshot, in ballasts: the log of deletes, compactions and revokes,
/// and the flush that follows them.
const UPKEEP_BALLASTS: u64 = 5;

/// A snapshot shares with its predecessor what has not changed, but for this part of the live data (1/n) growth leaves
/// room in any case: whoever deletes as much gets out of a full disk.
const SNAPSHOT_FRACTION: u64 = 2;

/// Bytes of the ballast on a disk of `total` bytes.
pub fn part_bytes(total: u64) -> u64 {
    // A whole number of sectors, and of MiB.
    ((total / DISK_PART) >> 20 << 20).clamp(DISK_PART_BYTES_MIN, DISK_PART_BYTES_MAX)
}

/// Bytes of a log segment on a disk of `total` bytes: half a ballast, since what is cut off the log goes by whole segments
/// and some are kept free.
pub fn segment_bytes(total: u64) -> u64 {
    part_bytes(total) / 2
}

/// Bytes of the file system below `path`: (all, free for this process).
///
/// - Errors: the operating system's.
pub fn disk_bytes(path: &Path) -> std::io::Result<(u64, u64)> {
    let found = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let found = if found.as_os_str().is_empty() { Path::new(".") } else { found };
    let fs = rustix::fs::statvfs(found)?;
    Ok((fs.f_blocks.saturating_mul(fs.f_frsize), fs.f_bavail.saturating_mul(fs.f_frsize)))
}

/// What `bytes` of records take in the store: measured at 1.65 for values of 32 KiB.
fn stored(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 4 * 3)
}

/// The data directory's room.
pub struct Space {
    disk: RealDisk,
    ballast_bytes: u64,
    /// Growth is refused; deletes, compactions and revokes go on.
    tight: AtomicBool,
    /// Bytes of the records in the newest snapshot.
    snapshotted: AtomicU64,
    /// Bytes admitted since the start; how many of them when the last flush began, and when the last finished one did.
    admitted: AtomicU64,
    flushing: AtomicU64,
    flushed: AtomicU64,
    /// One at a time gives things up or puts the ballast back.
    changing: Mutex<()>,
}

impl Space {
    /// Watches over the disk of a data directory with `live` bytes of data, of which a snapshot holds `snapshotted`,
    /// and holds its ballast.
    pub fn new(disk: RealDisk, ballast_bytes: u64, live: u64, snapshotted: u64) -> Self {
        let space = Self {
            disk,
            ballast_bytes,
            tight: AtomicBool::new(false),
            snapshotted: snapshotted.into(),
            admitted: AtomicU64::new(0),
            flushing: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            changing: Mutex::new(()),
        };
        space.look(live);
        space
    }

    /// Bytes that are free; 0 if the system does not tell.
    pub fn free_bytes(&self) -> u64 {
        disk_bytes(self.disk.root()).map_or(0, |(_, free)| free)
    }

    /// Tells whether the disk is too full for growth.
    pub fn is_tight(&self) -> bool {
        self.tight.load(Relaxed)
    }

    /// Takes note of a new snapshot with `bytes` of records.
    pub fn snapshot_made(&self, bytes: u64) {
        self.snapshotted.store(bytes, Relaxed);
    }

    /// Takes note of `bytes` that are about to be written; returns whether they are so many that it is time for a look.
    pub fn admitted(&self, bytes: u64) -> bool {
        let before = self.admitted.fetch_add(bytes, Relaxed);
        before / (self.ballast_bytes / 2) != (before + bytes) / (self.ballast_bytes / 2)
    }

    /// Tells whether the disk has room for a flush of `bytes`, which begins then.
    pub fn may_flush(&self, bytes: u64) -> bool {
        self.flushing.store(self.admitted.load(Relaxed), Relaxed);
        self.free_bytes() >= stored(bytes).saturating_add(self.ballast_bytes * FLUSH_BALLASTS)
    }

    /// Takes note that the flush that began last is in the store.
    pub fn flushed(&self) {
        self.flushed.store(self.flushing.load(Relaxed), Relaxed);
    }

    /// Takes note that no change waits for a flush, and none of what was admitted will.
    pub fn nothing_to_flush(&self) {
        self.flushed.store(self.admitted.load(Relaxed), Relaxed);
    }

    /// Looks at the disk under `live` bytes of data: refuses growth while there is still room for what gets out of it
    /// again, and allows it once the ballast stands and there is more. Call it now and then.
    pub fn look(&self, live: u64) {
        let _one = self.changing.lock();
        let snapshot = live - self.snapshotted.load(Relaxed).min(live - live / SNAPSHOT_FRACTION);
        let unflushed = self.admitted.load(Relaxed) - self.flushed.load(Relaxed);
        let needed = self.ballast_bytes * UPKEEP_BALLASTS + snapshot + stored(unflushed);
        if self.tight.load(Relaxed) {
            // An eighth more than at the refusal, or it would come and go with every write.
            if self.hold() && self.free_bytes() > needed + needed / 8 {
                self.tight.store(false, Relaxed);
                tracing::info!(needed, "the disk has room again: growth is allowed");
            }
            return;
        }
        if self.hold() && self.free_bytes() >= needed {
            return;
        }
        // What costs nothing goes first.
        match space::free_spare(&self.disk, SNAP_DIR) {
            Ok(Freed::Nothing) => {}
            Ok(freed) => {
                tracing::info!(?freed, "gave something up for room");
                return;
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "free space"),
        }
        self.tight.store(true, Relaxed);
        let free = self.free_bytes();
        tracing::warn!(free, needed, "the disk is almost full: growth is refused, deletes and compactions go on");
    }

    /// Gives up what can be given up on a full disk, one thing a call. The log itself is trimmed with the next snapshot.
    pub fn give_up(&self) {
        let _one = self.changing.lock();
        self.tight.store(true, Relaxed);
        match space::free_space(&self.disk, SNAP_DIR) {
            Ok(Freed::Nothing) => {}
            Ok(freed) => tracing::warn!(?freed, "gave something up for room"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "free space"),
        }
    }

    fn hold(&self) -> bool {
        space::hold_ballast(&self.disk, self.ballast_bytes).unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "hold the ballast");
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_replica::limits::WAL_SEGMENT_BYTES;

    #[test]
    fn what_is_admitted_leaves_room_for_its_flush_and_a_look_comes_with_every_half_ballast() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("member")).unwrap();
        std::fs::create_dir(dir.path().join("member/snap")).unwrap();
        let space = Space::new(RealDisk::new(dir.path()), 1 << 20, 0, 0);
        assert!(!space.is_tight());
        assert!(!space.admitted(1 << 18));
        assert!(space.admitted(1 << 18), "half a ballast");
        // More is on its way to the store than the disk has room for.
        space.admitted(space.free_bytes());
        space.look(0);
        assert!(space.is_tight());
        assert!(space.may_flush(0));
        space.flushed();
        space.look(0);
        assert!(!space.is_tight());
        // A snapshot of much more than the last one holds would not fit.
        let live = space.free_bytes();
        space.look(live);
        assert!(space.is_tight());
        space.snapshot_made(live);
        space.look(live / 2);
        assert!(!space.is_tight());
    }

    #[test]
    fn small_disks_get_a_small_ballast_and_small_segments() {
        assert_eq!((part_bytes(100 << 30), segment_bytes(100 << 30)), (64 << 20, WAL_SEGMENT_BYTES));
        assert_eq!(part_bytes(320 << 20), 5 << 20);
        assert_eq!((part_bytes(0), segment_bytes(0)), (1 << 20, 512 << 10));
    }
}
