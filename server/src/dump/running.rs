//! Whether a member runs on a data directory, found out without taking its lock: a member that starts at this very
//! moment must not be told that somebody else holds it.

use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The kernel's table of file locks.
const TABLE: &str = "/proc/locks";

/// Says who holds the lock that `path` stands for; `None` if nobody does.
pub(super) fn holder(path: &Path) -> Result<Option<String>> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
    };
    let table = fs::read_to_string(TABLE).with_context(|| format!("read {TABLE}, to see whether a member runs"))?;
    Ok(held(&table, found.ino()).map(|pid| match pid {
        // In a container the holder may be outside.
        0 | u32::MAX => "its lock is held".to_owned(),
        pid => format!("process {pid} holds its lock"),
    }))
}

/// The process that holds an exclusive flock on this inode. The device is not compared: some file systems show another
/// one here than in a file's metadata, and a refusal too many is harmless.
fn held(table: &str, inode: u64) -> Option<u32> {
    table.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`; one that waits has `->` behind the number.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = fields[..] else { return None };
        let found: u64 = place.rsplit(':').next()?.parse().ok()?;
        (found == inode).then(|| pid.parse().unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_found_by_its_inode() {
        let table = "1: POSIX  ADVISORY  WRITE 10 08:01:99 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF\n";
        assert_eq!(held(table, 1234), Some(4711));
        assert_eq!(held(table, 99), None, "another kind of lock");
        assert_eq!(held(table, 77), None, "one that only waits");
        assert_eq!(held(table, 5), None);
    }
}
