//! The real disk: what the heart asks of a [`Disk`], done by the operating system.

use crate::failpoint::failpoint;
#[cfg(feature = "failpoints")]
use crate::recovery::SNAP_DIR;
use mechi_replica::disk::{self, Disk, SECTOR_BYTES};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory tree below one real directory; clones may be used by several threads.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: Arc<PathBuf>,
}

/// An open file that remembers its path for errors.
#[derive(Debug)]
pub struct RealFile {
    file: File,
    path: String,
}

/// Holds a lock file; closing it releases the lock.
#[derive(Debug)]
pub struct RealLock {
    _file: File,
}

impl RealDisk {
    /// Takes the existing directory `root` as the root of all paths.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: Arc::new(root.into()) }
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path as the operating system knows it.
    pub fn resolve(&self, path: &str) -> PathBuf {
        // Joining an empty path would leave a trailing slash in error texts.
        if path.is_empty() { self.root.to_path_buf() } else { self.root.join(path) }
    }
}

impl Disk for RealDisk {
    type File = RealFile;
    type Lock = RealLock;

    fn create(&self, path: &str) -> io::Result<RealFile> {
        let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).to_owned();
        let file = options.open(self.resolve(path)).map_err(|e| disk::context(e, "create", path))?;
        Ok(RealFile { file, path: path.to_owned() })
    }

    fn open(&self, path: &str) -> io::Result<RealFile> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.resolve(path))
            .map_err(|e| disk::context(e, "open", path))?;
        Ok(RealFile { file, path: path.to_owned() })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        failpoint!(if from.starts_with(SNAP_DIR), "snap_after_write_before_rename", |why| Err(full(why)));
        fs::rename(self.resolve(from), self.resolve(to)).map_err(|e| disk::context(e, "rename", from))
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.resolve(path)).map_err(|e| disk::context(e, "remove", path))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(self.resolve(path)).map_err(|e| disk::context(e, "create directory", path))
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        fs::remove_dir(self.resolve(path)).map_err(|e| disk::context(e, "remove directory", path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        failpoint!(if path == SNAP_DIR, "snap_after_rename_before_dirsync");
        let dir = File::open(self.resolve(path)).map_err(|e| disk::context(e, "open directory", path))?;
        dir.sync_all().map_err(|e| disk::context(e, "sync directory", path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.resolve(path)).map_err(|e| disk::context(e, "list", path))? {
            let name = entry.map_err(|e| disk::context(e, "list", path))?.file_name();
            // A name that is no UTF-8 is none of ours; passing it over is what any reader of names would do.
            if let Ok(name) = name.into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn lock(&self, path: &str) -> io::Result<RealLock> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.resolve(path))
            .map_err(|e| disk::context(e, "open lock", path))?;
        retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive))
            .map_err(|e| disk::context(e.into(), "lock", path))?;
        Ok(RealLock { _file: file })
    }
}

impl disk::File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(disk::context(error, "read", &self.path)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // std repeats short and interrupted writes.
        self.file.write_all_at(bytes, offset).map_err(|e| disk::context(e, "write", &self.path))
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync also writes the length, which is all the metadata that reading back needs.
        self.file.sync_data().map_err(|e| disk::context(e, "sync", &self.path))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(|e| disk::context(e, "stat", &self.path))?.len())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let old = disk::File::len(self)?;
        if bytes <= old {
            return Ok(());
        }
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), 0, bytes)) {
            // A file system without fallocate must have its space taken by writing, or a full disk would be met
            // in the middle of the log.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill(old, bytes),
            other => other.map_err(io::Error::from),
        }
        .map_err(|e| disk::context(e, "allocate", &self.path))
    }
}

impl RealFile {
    fn fill(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; 128 * SECTOR_BYTES];
        let mut at = from;
        while at < to {
            let piece = (to - at).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..piece as usize], at)?;
            at += piece;
        }
        Ok(())
    }
}

/// A disk without room.
#[cfg(feature = "failpoints")]
fn full(why: String) -> io::Error {
    io::Error::new(ErrorKind::StorageFull, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_replica::disk::File as _;
    use mechi_replica::effect::{Entry, EntryKind};
    use mechi_replica::wal::record::Record;
    use mechi_replica::wal::{Wal, WalOptions};
    use std::os::unix::fs::PermissionsExt;

    fn disk() -> (tempfile::TempDir, RealDisk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        (dir, disk)
    }

    #[test]
    fn is_readable_by_its_owner_alone() {
        let (dir, disk) = disk();
        disk.create_dir("member").unwrap();
        disk.create("member/file").unwrap();
        let mode = |path| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("member"), mode("member/file")), (0o700, 0o600));
    }

    #[test]
    fn keeps_what_is_written_at_any_offset_and_reads_short_only_at_the_end() {
        let (_dir, disk) = disk();
        let file = disk.create("file").unwrap();
        file.allocate(4096).unwrap();
        file.allocate(1024).unwrap();
        assert_eq!(file.len().unwrap(), 4096);
        file.write_at(b"end", 4095).unwrap();
        file.sync().unwrap();
        let mut buffer = [1; 8];
        assert_eq!(disk.open("file").unwrap().read_at(&mut buffer, 4094).unwrap(), 4);
        assert_eq!(&buffer[..4], b"\0end");
        assert_eq!(disk.create("file").unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_space_filled_by_writing_reads_as_zeros() {
        let (_dir, disk) = disk();
        let file = disk.create("file").unwrap();
        file.write_at(b"begin", 0).unwrap();
        file.fill(5, 100_000).unwrap();
        let bytes = disk::read(&disk, "file").unwrap();
        assert_eq!((bytes.len(), &bytes[..5]), (100_000, &b"begin"[..]));
        assert!(bytes[5..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped() {
        let (_dir, disk) = disk();
        let lock = disk.lock("lock").unwrap();
        assert_eq!(disk.lock("lock").unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(lock);
        disk.lock("lock").unwrap();
    }

    #[test]
    fn carries_the_log_through_a_restart() {
        let (_dir, disk) = disk();
        let options = WalOptions { segment_bytes: 8192, reserve_segments: 1 };
        let entry = |index| {
            let data = vec![index as u8; 3000].into();
            Record::Entry(Entry { index, term: 1, kind: EntryKind::Normal, data })
        };
        let (mut wal, recovered) = Wal::open(disk.clone(), "wal", options, None).unwrap();
        assert_eq!((recovered.boot, recovered.last_index), (1, 0));
        for index in 1..=10 {
            wal.append(&[entry(index)]).unwrap();
            wal.sync().unwrap();
        }
        // The log has one owner, but that one may be any thread.
        let closed = std::thread::spawn(move || wal.close_clean(10)).join().unwrap();
        closed.unwrap();
        let (_wal, recovered) = Wal::open(disk, "wal", options, None).unwrap();
        assert_eq!((recovered.boot, recovered.last_index, recovered.clean), (2, 10, Some(10)));
        assert!(recovered.entries.iter().all(|found| Record::Entry(found.clone()) == entry(found.index)));
    }

    #[test]
    fn renames_removes_and_lists() {
        let (_dir, disk) = disk();
        disk::ensure_dir(&disk, "d").unwrap();
        disk::ensure_dir(&disk, "d").unwrap();
        disk::write_atomic(&disk, "d/b", b"1").unwrap();
        disk::write_atomic(&disk, "d/b", b"2").unwrap();
        disk.rename("d/b", "d/a").unwrap();
        disk.create("d/c").unwrap();
        assert_eq!(disk.list("d").unwrap(), ["a", "c"]);
        assert_eq!(disk::read(&disk, "d/a").unwrap(), b"2");
        assert!(disk.remove_dir("d").is_err());
        disk.unlink("d/a").unwrap();
        disk.unlink("d/c").unwrap();
        disk.remove_dir("d").unwrap();
        let error = disk.open("d/a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().starts_with("open d/a: "), "{error}");
    }
}
