//! Room on the disk: what is held back, what is given up on a full disk, and when growth is refused.

use crate::disk::RealDisk;
use crate::limits::{DISK_PART_BYTES_MAX, DISK_PART_BYTES_MIN};
use crate::recovery::SNAP_DIR;
use crate::recovery::space::{self, Freed};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The log's segments and the ballast are this part of a small disk.
const DISK_PART: u64 = 64;

/// Bytes of a log segment and of the ballast on a disk of `total` bytes.
pub fn part_bytes(total: u64) -> u64 {
    // A whole number of sectors, and of MiB.
    ((total / DISK_PART) >> 20 << 20).clamp(DISK_PART_BYTES_MIN, DISK_PART_BYTES_MAX)
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

/// The data directory's room.
pub struct Space {
    disk: RealDisk,
    ballast_bytes: u64,
    /// Growth is refused; deletes, compactions and revokes go on.
    tight: AtomicBool,
    /// One at a time gives things up or puts the ballast back.
    changing: Mutex<()>,
}

impl Space {
    /// Watches over the disk of a data directory and holds its ballast.
    pub fn new(disk: RealDisk, ballast_bytes: u64) -> Self {
        let space = Self { disk, ballast_bytes, tight: AtomicBool::new(false), changing: Mutex::new(()) };
        space.look();
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

    /// Looks at the disk: refuses growth when little is left, and allows it again once the ballast stands and there is
    /// twice as much room. Call it now and then.
    pub fn look(&self) {
        let _one = self.changing.lock();
        let free = self.free_bytes();
        let reserve = self.ballast_bytes;
        if self.tight.load(Relaxed) {
            // Room for the ballast, if it was given up, and as much again beside it.
            if free > reserve * 3 && self.hold() {
                self.tight.store(false, Relaxed);
                tracing::info!(free, "the disk has room again: growth is allowed");
            }
        } else if free < reserve || !self.hold() {
            self.tight.store(true, Relaxed);
            tracing::warn!(free, "the disk is almost full: growth is refused, deletes and compactions go on");
        }
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

    #[test]
    fn small_disks_get_small_segments() {
        assert_eq!(part_bytes(100 << 30), 64 << 20);
        assert_eq!(part_bytes(320 << 20), 5 << 20);
        assert_eq!(part_bytes(0), 1 << 20);
    }
}
