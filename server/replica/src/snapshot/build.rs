//! Makes a snapshot from memory or from the store, chunk by chunk, sharing what its predecessor already has on disk.

use super::chunk::{self, Chunk};
use super::manifest::Manifest;
use super::{Error, verify};
use crate::disk::{self, Disk, File, join};
use crate::limits::{SNAPSHOT_CHUNK_BYTES, STORE_BATCH_BYTES};
use crate::outcome::Fatal;
use crate::store::Store;
use crate::store::applied::{Applied, Tally};
use crate::store::block::Entry;
use crate::store::scan::RecordScan;
use mechi_proto::mechipb::StateMeta;
use std::collections::VecDeque;
use std::io::ErrorKind;

/// A snapshot on its way, fed with records in the order of their revisions.
#[derive(Debug)]
pub struct Builder<D> {
    disk: D,
    dir: String,
    meta: StateMeta,
    author: u64,
    /// What the records must turn out to be, if they do not come from memory.
    wanted: Option<Tally>,
    /// Where the store is read.
    scan: RecordScan,
    read_all: bool,
    /// Chunks of the predecessor that lie ahead.
    previous: VecDeque<Chunk>,
    pending: Vec<Entry>,
    pending_bytes: usize,
    chunks: Vec<Chunk>,
    written: Vec<Chunk>,
}

impl<D: Disk> Builder<D> {
    /// Begins a snapshot of what the store holds by `wanted`, the tally of its applied record, and of `meta`, the state
    /// that belongs to it; without a tally, of what memory holds.
    ///
    /// Until it ends nothing may be removed from the store; more may be flushed into it.
    /// - Shape: `previous` is a snapshot whose files are in `dir`; it was verified.
    pub fn new(
        disk: D,
        dir: &str,
        author: u64,
        wanted: Option<Tally>,
        meta: StateMeta,
        previous: Option<&Manifest>,
    ) -> Self {
        Self {
            disk,
            dir: dir.to_string(),
            author,
            wanted,
            scan: RecordScan::through(meta.revision),
            meta,
            read_all: false,
            previous: previous.map(|manifest| manifest.chunks.iter().copied().collect()).unwrap_or_default(),
            pending: Vec::new(),
            pending_bytes: 0,
            chunks: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Reads a slice of the store and writes the chunks that it fills; returns whether there is more to do.
    pub fn step(&mut self, store: &impl Store) -> Result<bool, Error> {
        if self.read_all {
            return Ok(false);
        }
        match self.scan.next_slice(store, STORE_BATCH_BYTES)? {
            Some(slice) => self.add(slice)?,
            None => self.end()?,
        }
        Ok(!self.read_all)
    }

    /// Takes the next records and writes the chunks that they fill.
    pub fn add(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        entries.into_iter().try_for_each(|entry| self.take(entry))
    }

    /// Writes what is left: there are no more records.
    pub fn end(&mut self) -> Result<(), Error> {
        self.read_all = true;
        while self.pass() {}
        self.write()
    }

    fn take(&mut self, entry: Entry) -> Result<(), Error> {
        while self.previous.front().is_some_and(|old| old.last < entry.revision) {
            self.pass();
        }
        let begins_old = self.previous.front().is_some_and(|old| old.first == entry.revision);
        // Leftovers that are too small for a file of their own are joined with what follows.
        if begins_old && self.pending_bytes >= SNAPSHOT_CHUNK_BYTES / 4 {
            self.write()?;
        }
        self.pending_bytes += entry.record.wire().len();
        self.pending.push(entry);
        // A range that may turn out to be an old chunk is read to its end; it is no longer than a chunk.
        let first = self.pending.first().map(|entry| entry.revision);
        let comparing = self.previous.front().is_some_and(|old| Some(old.first) == first);
        if self.pending_bytes >= SNAPSHOT_CHUNK_BYTES && !comparing { self.write() } else { Ok(()) }
    }

    /// Leaves the next old chunk behind, and shares it if it holds what is pending; returns whether there was one.
    fn pass(&mut self) -> bool {
        let Some(old) = self.previous.pop_front() else { return false };
        let same = self.pending.first().is_some_and(|entry| entry.revision == old.first)
            && self.pending.len() as u64 == old.tally.records
            && tally(&self.pending) == old.tally;
        if same {
            self.pending.clear();
            self.pending_bytes = 0;
            self.chunks.push(old);
        }
        true
    }

    /// Writes what is pending as one chunk: temporary name, sync, rename. The directory is synced at the end.
    fn write(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (chunk, file) = chunk::encode(&self.pending);
        self.pending.clear();
        self.pending_bytes = 0;
        let path = join(&self.dir, &chunk.name());
        let temporary = format!("{path}.tmp");
        unlink(&self.disk, &temporary)?;
        let handle = self.disk.create(&temporary)?;
        handle.write_at(&file, 0)?;
        #[cfg(feature = "mutants")]
        let skip = crate::mutants::active("snapshot_not_synced");
        #[cfg(not(feature = "mutants"))]
        let skip = false;
        if !skip {
            handle.sync()?;
        }
        self.disk.rename(&temporary, &path)?;
        self.chunks.push(chunk);
        self.written.push(chunk);
        Ok(())
    }

    /// Ends the snapshot once [`Builder::step`] has nothing more to do, or after [`Builder::end`]: directory sync, chunks read back, manifest.
    ///
    /// - Returns: the manifest, durable and read back; only now may the log below its index go.
    /// - Errors: [`Fatal::EngineLost`] if the store gave back other records than were put into it.
    pub fn finish(self) -> Result<Manifest, Error> {
        assert!(self.read_all, "a snapshot ends when all records are read");
        let mut found = Tally::default();
        self.chunks.iter().for_each(|chunk| found.merge(&chunk.tally));
        if let Some(wanted) = self.wanted.filter(|wanted| *wanted != found) {
            let detail = format!("the store holds {found:?}, {wanted:?} were put into it");
            return Err(Fatal::EngineLost(detail).into());
        }
        self.disk.sync_dir(&self.dir)?;
        let written =
            Manifest { meta: self.meta.clone(), tally: found, author: self.author, chunks: self.written.clone() };
        verify(&self.disk, &self.dir, &written)?;
        let manifest = Manifest { chunks: self.chunks, ..written };
        let path = join(&self.dir, &manifest.name());
        disk::write_atomic(&self.disk, &path, &manifest.encode())?;
        let back = disk::read(&self.disk, &path)?;
        if Manifest::decode(&back, &path)? != manifest {
            let detail = "what was read back is not what was written".to_string();
            return Err(Fatal::Corrupt { what: "snapshot manifest", file: path, offset: 0, detail }.into());
        }
        Ok(manifest)
    }

    /// Gives the snapshot up and removes what it wrote, as far as the disk lets it.
    pub fn abandon(self) {
        for chunk in &self.written {
            let path = join(&self.dir, &chunk.name());
            // Whatever stays is removed with the next snapshot's garbage.
            let _ = self.disk.unlink(&path);
        }
    }
}

/// Makes a whole snapshot at once, for one thread that owns everything.
pub fn build<D: Disk>(
    disk: &D,
    dir: &str,
    author: u64,
    store: &impl Store,
    meta: StateMeta,
    applied: &Applied,
    previous: Option<&Manifest>,
) -> Result<Manifest, Error> {
    let mut builder = Builder::new(disk.clone(), dir, author, Some(applied.tally), meta, previous);
    while builder.step(store)? {}
    builder.finish()
}

fn tally(entries: &[Entry]) -> Tally {
    let mut tally = Tally::default();
    entries.iter().for_each(|entry| tally.add(entry));
    tally
}

fn unlink<D: Disk>(disk: &D, path: &str) -> Result<(), Error> {
    match disk.unlink(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
