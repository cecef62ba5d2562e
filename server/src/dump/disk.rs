//! A disk that can only be read: what a dump is given, so that it cannot write by mistake.

use mechi_replica::disk::{self, Disk};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The files below a folder.
#[derive(Clone, Debug)]
pub(super) struct ReadOnly {
    root: PathBuf,
}

/// An open file.
#[derive(Debug)]
pub(super) struct ReadOnlyFile(File);

impl ReadOnly {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

fn refuse<T>(what: &str, path: &str) -> io::Result<T> {
    Err(io::Error::new(ErrorKind::ReadOnlyFilesystem, format!("{what} {path}: a dump only reads")))
}

impl Disk for ReadOnly {
    type File = ReadOnlyFile;
    type Lock = ();

    fn open(&self, path: &str) -> io::Result<ReadOnlyFile> {
        File::open(self.root.join(path)).map(ReadOnlyFile).map_err(|error| disk::context(error, "open", path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(path)).map_err(|error| disk::context(error, "list", path))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &str) -> io::Result<ReadOnlyFile> {
        refuse("create", path)
    }

    fn rename(&self, from: &str, _: &str) -> io::Result<()> {
        refuse("rename", from)
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        refuse("remove", path)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        refuse("create", path)
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        refuse("remove", path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        refuse("sync", path)
    }

    fn lock(&self, path: &str) -> io::Result<()> {
        refuse("lock", path)
    }
}

impl disk::File for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        refuse("write", "a file")
    }

    fn sync(&self) -> io::Result<()> {
        refuse("sync", "a file")
    }

    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|found| found.len())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        refuse("grow", "a file")
    }
}
