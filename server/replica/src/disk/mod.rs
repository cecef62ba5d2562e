//! The only way by which the heart touches a disk: files and directories below one root.
//!
//! The log and the snapshots are generic over [`Disk`], so the code that the crash images torture is the code that
//! runs. The real disk lives in the shell, the simulated one in [`sim`].
//!
//! What each call promises after a power cut is the contract that both keep:
//!
//! - Bytes written are durable once a [`File::sync`] that began after them has returned; before that any subset of
//!   their 512-byte sectors may survive, in any order, with or without the file's new length.
//! - A name created, renamed or removed is durable once a [`Disk::sync_dir`] of its directory has returned; before
//!   that any subset of the changes may survive. One rename is atomic.
//! - Syncing a file does not make its name durable, and syncing a directory not its files' bytes.
//!
//! Paths are relative to the root, with `/` between the parts and no leading one; the root itself is `""`. Errors are
//! `std::io::Error`s whose kind is the system's (`StorageFull`, `NotFound`, ...) and whose text names verb and path.

use crate::outcome::Fatal;
use std::io::{self, ErrorKind};

pub mod images;
pub mod sim;

/// The size below which a write is never torn, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// A directory tree on some disk; clones speak of the same tree.
pub trait Disk: Clone {
    /// An open file; it stays readable and writable after a rename.
    type File: File;
    /// An exclusive lock, released when dropped.
    type Lock;

    /// Creates an empty file for reading and writing; errors: `AlreadyExists`.
    fn create(&self, path: &str) -> io::Result<Self::File>;

    /// Opens an existing file for reading and writing; errors: `NotFound`.
    fn open(&self, path: &str) -> io::Result<Self::File>;

    /// Renames a file, replacing what `to` names; durable after both directories' [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file's name; durable after [`Disk::sync_dir`].
    fn unlink(&self, path: &str) -> io::Result<()>;

    /// Creates a directory below an existing one; errors: `AlreadyExists`.
    fn create_dir(&self, path: &str) -> io::Result<()>;

    /// Removes an empty directory; errors: `DirectoryNotEmpty`.
    fn remove_dir(&self, path: &str) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &str) -> io::Result<()>;

    /// Lists the names of files and directories in a directory, ascending.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;

    /// Takes the exclusive lock that the file `path` stands for, creating it; errors: `WouldBlock` if another
    /// process holds it.
    fn lock(&self, path: &str) -> io::Result<Self::Lock>;
}

/// An open file.
pub trait File {
    /// Reads into `buffer` from `offset`; returns how much, short only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; after an error any part of it may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes all bytes and the length durable; after an error nothing may be assumed, and retrying proves nothing.
    fn sync(&self) -> io::Result<()>;

    /// Returns the length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Tells whether the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Grows the file to `bytes`, zero-filled, with its space reserved; never shrinks. Errors: `StorageFull`.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
}

/// Tells whether `error` says that the disk is full or a quota used up.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Puts verb and path in front of an error's text, keeping its kind.
pub fn context(error: io::Error, verb: &str, path: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{verb} {path}: {error}"))
}

/// Wraps an I/O error as the end of this member.
pub fn fatal(context: impl Into<String>) -> impl FnOnce(io::Error) -> Fatal {
    |source| Fatal::Io { context: context.into(), source }
}

/// Reads a whole file; errors: `NotFound`, and whatever reading brings.
pub fn read<D: Disk>(disk: &D, path: &str) -> io::Result<Vec<u8>> {
    read_open(&disk.open(path)?)
}

/// Reads all bytes of an open file.
pub fn read_open(file: &impl File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.len()?).map_err(|_| ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length];
    let mut at = 0;
    while at < length {
        match file.read_at(&mut bytes[at..], at as u64)? {
            0 => break,
            read => at += read,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

/// Writes a file that is either there in full or not at all: temporary name, sync, rename, directory sync.
///
/// - Shape: `path` has a parent; `<path>.tmp` is overwritten.
/// - Errors: whatever the disk says; the old file then still stands, unless the last step failed.
pub fn write_atomic<D: Disk>(disk: &D, path: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{path}.tmp");
    match disk.unlink(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&temporary)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(parent(path))
}

/// Creates a directory if it is missing, and makes its name durable either way.
pub fn ensure_dir<D: Disk>(disk: &D, path: &str) -> io::Result<()> {
    match disk.create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        // An existing one may be what a killed process created and never synced.
        _ => disk.sync_dir(parent(path)),
    }
}

/// The directory part of a path; `""` is the root.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Joins a directory and a name.
pub fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}
