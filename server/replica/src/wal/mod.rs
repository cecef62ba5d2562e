//! The write-ahead log: what is acknowledged stands here, and nowhere else until a snapshot is verified.
//!
//! The log is a chain of segments, files of one size that are allocated ahead and used again. A batch of records is
//! one contiguous, sector-aligned write; [`Wal::append`] writes, [`Wal::sync`] makes durable. Each batch says how far
//! the log was durable when it was written, so that recovery can tell a torn tail from corruption
//! ([`Recovered::cut`], [`Fatal::Corrupt`]); when the queue runs dry a file beside the segments says the same.
//!
//! Opening never appends to what an earlier process wrote: its tail may have been read back from the page cache and
//! be gone after the next power cut. A new segment takes over from the last vouched place and holds a durable copy
//! of all behind it.
//!
//! Read `record`, then `segment`, `vouch`, `recover` and `writer`.

pub mod record;
pub mod inspect;
mod recover;
mod segment;
mod vouch;
mod writer;

#[cfg(test)]
mod script_tests;

pub use recover::Cut;
pub use segment::Position;

use crate::disk::{self, Disk, File as _};
use crate::effect::{Entry, HardState};
use crate::limits;
use crate::outcome::Fatal;
use crate::types::{Index, Term};
use record::{Record, Start};
use recover::{Scanned, Segment};
use segment::Header;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use thiserror::Error as ThisError;
use vouch::Vouch;

/// How a log is laid out; it may change from one open to the next.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// Bytes of one segment file, a multiple of 512, at least 4 KiB.
    pub segment_bytes: u64,
    /// Segments allocated ahead.
    pub reserve_segments: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: limits::WAL_SEGMENT_BYTES, reserve_segments: limits::WAL_RESERVE_SEGMENTS }
    }
}

/// Why an append failed.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The disk is full: the log is as before and usable. After space was freed, append the same records again.
    #[error("log is full: {0}")]
    Full(io::Error),
    /// The log can no longer be trusted; the process must end.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// What an open log held.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The entries, contiguous from `first_index`; all durable. The first ones may lie below the snapshot.
    pub entries: Vec<Entry>,
    /// Index of the first entry, or the one after `last_index` if there is none.
    pub first_index: Index,
    /// Index of the last entry, or the snapshot's if there is none.
    pub last_index: Index,
    /// Term of that entry.
    pub last_term: Term,
    /// The newest HardState.
    pub hard_state: HardState,
    /// This start's counter, higher than any before; durable.
    pub boot: u64,
    /// If the previous process closed its store cleanly: the applied index in it.
    pub clean: Option<Index>,
    /// What was cut as a torn tail.
    pub cut: Option<Cut>,
}

/// An open log with one owner.
pub struct Wal<D: Disk> {
    disk: D,
    dir: String,
    options: WalOptions,
    boot: u64,
    /// The segment being written.
    file: D::File,
    head: Segment,
    /// Where the next batch goes; always in `head`.
    end: Position,
    /// Where the last batch that is not a mark ends.
    records_end: Position,
    /// The last batch's chain sum.
    chain: u32,
    /// The end of the last finished sync.
    durable: Position,
    /// The highest `durable` that a written header holds.
    vouched: Position,
    /// Says it beside the log.
    vouch: Vouch<D::File>,
    /// Whether something was written since the last sync.
    dirty: bool,
    last: (Index, Term),
    /// Where each term begins in the log, ascending.
    terms: Vec<(Index, Term)>,
    hard_state: HardState,
    /// The newest snapshot that the log speaks of.
    snapshot: Option<(Index, Term)>,
    /// The newest snapshot of which the log speaks durably: trimming stops above it.
    verified: Index,
    older: VecDeque<Segment>,
    /// Files to be used again, each of `segment_bytes`.
    free: Vec<String>,
    next_segment: u64,
    next_free: u64,
    /// Bytes of batches written by this process and found at open.
    logged: u64,
    /// (last index, `logged`) now and then, ascending; for `bytes_since`.
    notes: VecDeque<(Index, u64)>,
    /// The first failed write or sync; from then on nothing is believed.
    failed: Option<String>,
    /// Whether the reserve could not be filled.
    low_on_space: bool,
}

const FREE_SUFFIX: &str = ".free";

impl<D: Disk> Wal<D> {
    /// Opens the log in `dir`, creating it if there is none; all that it returns is durable.
    ///
    /// - Shape: `snapshot` is the newest one that was read back and found whole, *and whose file and directory were
    ///   synced since*: one read back from the page cache may be gone after the next power cut, and the log relies on
    ///   it at once. The log may start behind it, and is dropped if it does not hold its entry.
    /// - Errors: [`Fatal::Corrupt`] for damage that may hide something promised; nothing is then changed on disk.
    ///   [`Fatal::Io`] else; opening again is safe.
    pub fn open(
        disk: D,
        dir: &str,
        options: WalOptions,
        snapshot: Option<(Index, Term)>,
    ) -> Result<(Self, Recovered), Fatal> {
        let whole = options.segment_bytes.is_multiple_of(disk::SECTOR_BYTES as u64) && options.segment_bytes >= 4096;
        if !whole {
            return Err(Fatal::Bug(format!("a log segment of {} bytes", options.segment_bytes)));
        }
        disk::ensure_dir(&disk, dir).map_err(disk::fatal("create log"))?;
        let (names, found, said) = Self::read(&disk, dir)?;
        let log = recover::recover(&found, said, snapshot)?;

        let free: Vec<_> = names.iter().filter(|name| name.ends_with(FREE_SUFFIX)).cloned().collect();
        let numbers = free.iter().filter_map(|name| u64::from_str_radix(name.trim_end_matches(FREE_SUFFIX), 16).ok());
        let next_free = numbers.max().unwrap_or_default() + 1;
        let id = found.last().map_or(0, |last| last.id) + 1;

        let (base, copied) = Self::copied(&log);
        let boot = log.boot + 1;
        let mut records = vec![Record::Boot { counter: boot }];
        records.extend(snapshot.map(|(index, term)| Record::Snapshot { index, term }));
        records.push(Record::HardState(log.hard_state));
        records.extend(copied.iter().map(|entry| Record::Entry(entry.clone())));
        let payload = Start::ENCODED_BYTES + records.iter().map(Record::encoded_bytes).sum::<usize>();
        // Room for at least one mark.
        let length = options.segment_bytes.max(segment::batch_bytes(payload) + segment::batch_bytes(0));
        let mut buffer = segment::begin(payload);
        Start { base, length }.encode(&mut buffer);
        records.iter().for_each(|record| record.encode(&mut buffer));
        let at = Position { segment: id, offset: 0 };
        let header = segment::finish(
            &mut buffer,
            Header { boot, at, last: log.last, durable: base, previous: log.chain, ..Header::default() },
        );

        let path = disk::join(dir, &segment::name(id));
        let mut free: Vec<_> = free.into_iter().map(|name| disk::join(dir, &name)).collect();
        let file = match create(&disk, &path, length) {
            // The reserve is for the full disk; a fresh file, and not one of the reserve, so that no bytes of a
            // failed open with the same boot counter can ever stand in it.
            Err(error) if disk::is_full(&error) && !free.is_empty() => {
                for path in free.drain(..) {
                    disk.unlink(&path).map_err(disk::fatal("free the log's reserve"))?;
                }
                disk.sync_dir(dir).map_err(disk::fatal("sync log directory"))?;
                create(&disk, &path, length)
            }
            other => other,
        }
        .map_err(disk::fatal("open a new segment"))?;
        file.write_at(&buffer, 0).map_err(disk::fatal("write a new segment"))?;
        file.sync().map_err(disk::fatal("sync a new segment"))?;
        let vouch = Vouch::open(&disk, dir)?;
        disk.sync_dir(dir).map_err(disk::fatal("sync log directory"))?;

        let head = Segment { id, length, last_index: copied.last().map_or(0, |entry| entry.index) };
        let mut wal = Self {
            file,
            boot,
            head,
            end: header.end(),
            records_end: header.end(),
            chain: header.chain,
            durable: header.end(),
            vouched: base,
            vouch,
            dirty: false,
            last: log.last,
            terms: Vec::new(),
            hard_state: log.hard_state,
            snapshot,
            verified: snapshot.map_or(0, |(index, _)| index),
            older: log.segments.iter().copied().collect(),
            free: Vec::new(),
            next_segment: id + 1,
            next_free,
            logged: header.batch_bytes(),
            notes: VecDeque::new(),
            failed: None,
            low_on_space: false,
            dir: dir.to_owned(),
            disk,
            options,
        };
        log.entries.iter().for_each(|(entry, _)| writer::note_term(&mut wal.terms, entry.index, entry.term));
        wal.count_found(&found);
        wal.adopt_free(free)?;
        let kept = |id: u64| log.segments.iter().any(|segment| segment.id == id);
        for id in found.iter().map(|scanned| scanned.id).filter(|id| !kept(*id)) {
            // Given up by this open or an earlier one; it would be passed over again if the removal were lost.
            wal.unlink(&disk::join(dir, &segment::name(id)))?;
        }
        wal.fill_reserve()?;
        match wal.mark() {
            Err(Error::Fatal(fatal)) => return Err(fatal),
            Err(Error::Full(_)) | Ok(()) => {}
        }
        let (last_index, last_term) = log.last;
        let entries: Vec<_> = log.entries.into_iter().map(|(entry, _)| entry).collect();
        let first_index = entries.first().map_or(last_index + 1, |entry| entry.index);
        let recovered = Recovered {
            entries,
            first_index,
            last_index,
            last_term,
            hard_state: log.hard_state,
            boot,
            clean: log.clean,
            cut: log.cut,
        };
        Ok((wal, recovered))
    }

    /// Tells whether the log in `dir` holds no entry, term or vote, as one that a first start left that was cut short;
    /// changes nothing on disk.
    ///
    /// - Errors: [`Fatal::Corrupt`] if it is damaged or has lost its beginning, so that it held something once.
    pub fn is_blank(disk: &D, dir: &str) -> Result<bool, Fatal> {
        let (_, found, said) = Self::read(disk, dir)?;
        let log = recover::recover(&found, said, None)?;
        Ok(log.entries.is_empty() && log.hard_state == HardState::default())
    }

    /// All file names in `dir`, the segments among them, read whole, and what is vouched for beside them.
    fn read(disk: &D, dir: &str) -> Result<(Vec<String>, Vec<Scanned>, Position), Fatal> {
        let names = disk.list(dir).map_err(disk::fatal("list log"))?;
        let mut found = Vec::new();
        for id in names.iter().filter_map(|name| segment::parse_name(name)) {
            let path = disk::join(dir, &segment::name(id));
            let bytes = disk::read(disk, &path).map_err(disk::fatal("read log"))?;
            found.push(Scanned { id, length: bytes.len() as u64, batches: segment::scan(id, &bytes) });
        }
        let said = vouch::read(disk, dir).map_err(disk::fatal("read what vouches for the log"))?;
        Ok((names, found, said))
    }

    /// Where the new segment takes over, and the entries that it must copy since nothing vouches for them.
    fn copied(log: &recover::Log) -> (Position, Vec<Entry>) {
        let unvouched = log.entries.iter().filter(|(_, at)| *at >= log.vouched);
        (log.vouched, unvouched.map(|(entry, _)| entry.clone()).collect())
    }

    /// Takes stock of the log that was found, for [`Wal::bytes_since`].
    fn count_found(&mut self, found: &[Scanned]) {
        let mut logged = 0;
        let kept = |id: u64| self.older.iter().any(|segment| segment.id == id);
        for header in found.iter().filter(|s| kept(s.id)).flat_map(|s| s.batches.iter().map(|batch| &batch.header)) {
            logged += header.batch_bytes();
            writer::note_bytes(&mut self.notes, header.last.0, logged);
        }
        self.logged += logged;
    }

    /// Keeps the reserve of an earlier process, as far as it has the right size.
    fn adopt_free(&mut self, paths: Vec<String>) -> Result<(), Fatal> {
        for path in paths {
            let file = self.disk.open(&path).map_err(disk::fatal("open the log's reserve"))?;
            let length = file.len().map_err(disk::fatal("open the log's reserve"))?;
            if length == self.options.segment_bytes && self.free.len() < self.free_max() {
                self.free.push(path);
            } else {
                self.unlink(&path)?;
            }
        }
        Ok(())
    }

    fn free_max(&self) -> usize {
        self.options.reserve_segments + limits::WAL_RECYCLED_SEGMENTS
    }

    /// Index of the last entry written, or of the snapshot that replaced the log.
    pub fn last_index(&self) -> Index {
        self.last.0
    }

    /// The end of the last finished sync.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// Where the next batch goes, if it fits.
    pub fn end(&self) -> Position {
        self.end
    }

    /// Bytes of disk that the log's files take, the reserve included.
    pub fn bytes(&self) -> u64 {
        self.older.iter().map(|segment| segment.length).sum::<u64>()
            + self.head.length
            + self.free.len() as u64 * self.options.segment_bytes
    }

    /// Bytes of log written for entries above `index`, to about 64 KiB; what the next snapshot would make superfluous.
    pub fn bytes_since(&self, index: Index) -> u64 {
        let passed = self.notes.partition_point(|(noted, _)| *noted <= index);
        let before = passed.checked_sub(1).map_or(0, |note| self.notes[note].1);
        self.logged - before
    }
}

/// Creates a file of `length` zeros, or leaves none behind. The length is durable, though the name is not yet: a segment
/// that is shorter than it says has been cut since, and not by a crash.
fn create<D: Disk>(disk: &D, path: &str, length: u64) -> io::Result<D::File> {
    match disk.unlink(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(path)?;
    match file.allocate(length).and_then(|()| file.sync()) {
        Ok(()) => Ok(file),
        Err(error) => {
            // The first error is the one to report.
            let _ = disk.unlink(path);
            Err(error)
        }
    }
}
