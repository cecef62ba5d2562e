//! Appending, syncing, rotating and trimming: each step leaves a log that recovery reads.

use super::record::{Record, Start};
use super::recover::Segment;
use super::segment::{self, Header, Position};
use super::{Error, FREE_SUFFIX, Wal, create};
use crate::disk::{self, Disk, File as _};
use crate::limits;
use crate::outcome::Fatal;
use crate::types::{Index, Term};
use std::collections::VecDeque;
use std::io;

impl<D: Disk> Wal<D> {
    /// Writes `records` as one batch (more only above [`limits::WAL_BATCH_BYTES_MAX`]); durable once [`Wal::sync`]
    /// returns.
    ///
    /// - Shape: the first entry is at most one above [`Wal::last_index`], the others follow it without a gap.
    /// - Errors: [`Error::Full`] leaves the log as it was, and the same records may be appended again;
    ///   [`Error::Fatal`] is for ever.
    pub fn append(&mut self, records: &[Record]) -> Result<(), Error> {
        self.check_usable()?;
        let mut rest = records;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|record| {
                bytes += record.encoded_bytes();
                bytes <= limits::WAL_BATCH_BYTES_MAX
            });
            let (batch, later) = rest.split_at(fits.count().max(1));
            self.append_batch(batch)?;
            rest = later;
        }
        Ok(())
    }

    /// Makes all that was appended durable; returns at once if it is.
    ///
    /// - Errors: the first failed sync is the end of this log: the kernel may have dropped the pages and will say
    ///   that all is well the next time (Rebello et al., ATC '20).
    pub fn sync(&mut self) -> Result<(), Fatal> {
        self.check_usable()?;
        if !self.dirty {
            return Ok(());
        }
        #[cfg(feature = "mutants")]
        let skip = crate::mutants::active("ack_before_fsync");
        #[cfg(not(feature = "mutants"))]
        let skip = false;
        if !skip && let Err(error) = self.file.sync() {
            #[cfg(feature = "mutants")]
            if crate::mutants::active("sync_error_ignored") {
                return Ok(());
            }
            return Err(self.poison("sync log", error));
        }
        self.dirty = false;
        self.durable = self.end;
        self.verified = self.snapshot.map_or(0, |(index, _)| index);
        Ok(())
    }

    /// Writes that all is durable, without waiting for it to be; called when the queue runs dry.
    ///
    /// It is said twice, behind the last batch and in a file beside the log: what damages the end of a segment would
    /// take the first with what it speaks of.
    pub fn mark(&mut self) -> Result<(), Error> {
        self.check_usable()?;
        if self.low_on_space || self.free.len() < self.options.reserve_segments {
            self.fill_reserve()?;
        }
        let speaks_for = self.durable.min(self.records_end);
        // Whatever a header says of it: that may stand in the page of what it speaks of.
        if let Err(error) = self.vouch.say(self.durable)
            && !disk::is_full(&error)
        {
            return Err(self.poison("vouch for the log", error).into());
        }
        let room = self.head.length - self.end.offset;
        // A mark speaks for records, not for other marks, or an idle log would grow; and it is never worth a new
        // segment, whose first batch says the same.
        if self.vouched >= speaks_for || room < segment::batch_bytes(0) {
            return Ok(());
        }
        self.write(segment::begin(0), self.last)
    }

    /// Gives up segments that hold no entry at or above `below`, as far as a durable [`Record::Snapshot`] covers them.
    ///
    /// - Errors: [`Fatal::Io`]; nothing is lost by it, and a later trim goes on.
    pub fn trim(&mut self, below: Index) -> Result<(), Fatal> {
        self.check_usable()?;
        let bound = self.trim_bound(below);
        let mut trimmed = false;
        while let Some(oldest) = self.older.front().copied().filter(|oldest| oldest.last_index < bound) {
            let path = self.path(&segment::name(oldest.id));
            if oldest.length == self.options.segment_bytes && self.free.len() < self.free_max() {
                let free = self.free_path();
                self.disk.rename(&path, &free).map_err(disk::fatal("recycle a segment"))?;
                self.free.push(free);
            } else {
                self.unlink(&path)?;
            }
            self.older.pop_front();
            trimmed = true;
        }
        if trimmed {
            // So that freed space is free after a crash as well; recovery does without it.
            self.disk.sync_dir(&self.dir).map_err(disk::fatal("sync log directory"))?;
            let oldest = self.notes.partition_point(|(index, _)| *index + 1 < bound);
            self.notes.drain(..oldest.saturating_sub(1));
        }
        Ok(())
    }

    /// Says durably that the store was closed and synced with everything up to `applied`, as the last thing.
    pub fn close_clean(&mut self, applied: Index) -> Result<(), Error> {
        self.append(&[Record::Clean { applied }])?;
        self.sync()?;
        self.mark()?;
        match self.vouch.sync() {
            Err(error) if !disk::is_full(&error) => Err(self.poison("sync what vouches for the log", error).into()),
            _ => Ok(()),
        }
    }

    fn trim_bound(&self, below: Index) -> Index {
        #[cfg(feature = "mutants")]
        if crate::mutants::active("trim_before_snapshot_durable") {
            return below;
        }
        below.min(self.verified + 1)
    }

    fn append_batch(&mut self, records: &[Record]) -> Result<(), Error> {
        let mut last = self.last;
        let mut terms = self.terms.clone();
        let (mut hard_state, mut snapshot) = (self.hard_state, self.snapshot);
        let mut highest = 0;
        let mut payload = segment::begin(records.iter().map(Record::encoded_bytes).sum());
        for record in records {
            match record {
                Record::Entry(entry) if entry.index == 0 || entry.index > last.0 + 1 => {
                    let bug = format!("entry {} appended to a log that ends at {}", entry.index, last.0);
                    return Err(Fatal::Bug(bug).into());
                }
                // The same entry again, after a retry: nothing behind it goes.
                Record::Entry(entry) if entry.index <= last.0 && term_at(&terms, entry.index) == Some(entry.term) => {}
                Record::Entry(entry) => {
                    last = (entry.index, entry.term);
                    note_term(&mut terms, entry.index, entry.term);
                    highest = highest.max(entry.index);
                }
                Record::HardState(state) => hard_state = *state,
                Record::Snapshot { index, term } => {
                    snapshot = Some((*index, *term));
                    // One within the log changes nothing; one that the log does not hold replaces it.
                    if *index > last.0 || term_at(&terms, *index).is_some_and(|held| held != *term) {
                        last = (*index, *term);
                        terms.clear();
                    }
                }
                Record::Boot { .. } => return Err(Fatal::Bug("a boot record outside of open".into()).into()),
                Record::Clean { .. } => {}
            }
            record.encode(&mut payload);
        }
        // Room for a mark stays behind the last batch, or that one could not be vouched for while the queue is dry.
        let room = segment::batch_bytes(payload.len() - segment::HEADER_BYTES) + segment::batch_bytes(0);
        if self.end.offset + room > self.head.length {
            self.rotate(room)?;
        }
        self.write(payload, last)?;
        self.records_end = self.end;
        (self.last, self.terms, self.hard_state, self.snapshot) = (last, terms, hard_state, snapshot);
        self.head.last_index = self.head.last_index.max(highest);
        Ok(())
    }

    /// Writes one batch at the end of the head, where it fits.
    fn write(&mut self, mut buffer: Vec<u8>, last: (Index, Term)) -> Result<(), Error> {
        let (at, durable, previous) = (self.end, self.durable, self.chain);
        let boot = self.boot;
        let header = segment::finish(&mut buffer, Header { boot, at, last, durable, previous, ..Header::default() });
        self.dirty = true;
        if let Err(error) = self.file.write_at(&buffer, at.offset) {
            return Err(self.full_or_poison("write log", error));
        }
        self.end = header.end();
        self.chain = header.chain;
        self.vouched = durable;
        self.logged += header.batch_bytes();
        note_bytes(&mut self.notes, last.0, self.logged);
        Ok(())
    }

    /// Goes on in a new segment with `room` bytes of room.
    fn rotate(&mut self, room: u64) -> Result<(), Error> {
        // Only the head may hold bytes that are not durable, or a lost tail could hide below an intact segment.
        self.sync()?;
        let base = self.end;
        let id = self.next_segment;
        let snapshot = self.snapshot.map(|(index, term)| Record::Snapshot { index, term });
        let records: Vec<_> = snapshot.into_iter().chain([Record::HardState(self.hard_state)]).collect();
        let payload = Start::ENCODED_BYTES + records.iter().map(Record::encoded_bytes).sum::<usize>();
        let needed = segment::batch_bytes(payload) + room;
        let length = needed.max(self.options.segment_bytes);
        let mut buffer = segment::begin(payload);
        Start { base, length }.encode(&mut buffer);
        records.iter().for_each(|record| record.encode(&mut buffer));
        let (durable, previous, boot) = (self.durable, self.chain, self.boot);
        let at = Position { segment: id, offset: 0 };
        let header =
            segment::finish(&mut buffer, Header { boot, at, last: self.last, durable, previous, ..Header::default() });

        let path = self.path(&segment::name(id));
        let file = match self.free.last().filter(|_| length == self.options.segment_bytes) {
            Some(free) => {
                if let Err(error) = self.disk.rename(free, &path) {
                    return Err(self.full_or_poison("recycle a segment", error));
                }
                self.free.pop();
                self.disk.open(&path)
            }
            None => create(&self.disk, &path, length),
        };
        let file = file.map_err(|error| self.full_or_poison("open a new segment", error))?;
        // From here on the number is taken: bytes of a failed try may stand in the file.
        self.next_segment += 1;
        // The name must be durable before the first byte, or the same file could be found under its old name with
        // bytes that are valid under a number given again.
        if let Err(error) = self.disk.sync_dir(&self.dir) {
            return Err(self.poison("sync log directory", error).into());
        }
        if let Err(error) = file.write_at(&buffer, 0) {
            let error = self.full_or_poison("write a new segment", error);
            // Recovery passes over a segment without a beginning; removing it only saves the space.
            let _ = self.disk.unlink(&path);
            return Err(error);
        }
        self.older.push_back(self.head);
        self.head = Segment { id, length, last_index: 0 };
        self.file = file;
        self.end = header.end();
        self.records_end = self.end;
        self.chain = header.chain;
        self.vouched = durable;
        self.dirty = true;
        self.logged += header.batch_bytes();
        self.fill_reserve()?;
        Ok(())
    }

    /// Allocates the segments to come; a full disk is only noted, since the head and what is reserved still serve.
    pub(super) fn fill_reserve(&mut self) -> Result<(), Fatal> {
        self.low_on_space = false;
        while self.free.len() < self.options.reserve_segments {
            let path = self.free_path();
            match create(&self.disk, &path, self.options.segment_bytes) {
                Ok(_) => self.free.push(path),
                Err(error) if disk::is_full(&error) => {
                    self.low_on_space = true;
                    break;
                }
                Err(error) => return Err(self.poison("allocate a segment", error)),
            }
        }
        Ok(())
    }

    pub(super) fn unlink(&self, path: &str) -> Result<(), Fatal> {
        self.disk.unlink(path).map_err(disk::fatal("remove a segment"))
    }

    fn path(&self, name: &str) -> String {
        disk::join(&self.dir, name)
    }

    fn free_path(&mut self) -> String {
        let name = format!("{:016x}{FREE_SUFFIX}", self.next_free);
        self.next_free += 1;
        self.path(&name)
    }

    fn check_usable(&self) -> Result<(), Fatal> {
        match &self.failed {
            None => Ok(()),
            Some(why) => {
                Err(Fatal::Io { context: "use a log that failed before".into(), source: io::Error::other(why.clone()) })
            }
        }
    }

    fn full_or_poison(&mut self, context: &str, error: io::Error) -> Error {
        if disk::is_full(&error) { Error::Full(error) } else { Error::Fatal(self.poison(context, error)) }
    }

    fn poison(&mut self, context: &str, source: io::Error) -> Fatal {
        self.failed = Some(format!("{context}: {source}"));
        Fatal::Io { context: context.into(), source }
    }
}

/// Notes the term of an entry that ends the log.
pub(super) fn note_term(terms: &mut Vec<(Index, Term)>, index: Index, term: Term) {
    terms.truncate(terms.partition_point(|(first, _)| *first < index));
    if terms.last().is_none_or(|(_, last)| *last != term) {
        terms.push((index, term));
    }
}

/// The term of an entry at or below the last; `None` below the first one.
fn term_at(terms: &[(Index, Term)], index: Index) -> Option<Term> {
    let after = terms.partition_point(|(first, _)| *first <= index);
    after.checked_sub(1).map(|place| terms[place].1)
}

/// Notes how many bytes of log there are up to an entry, if the last note is old enough.
pub(super) fn note_bytes(notes: &mut VecDeque<(Index, u64)>, index: Index, logged: u64) {
    // Entries that were replaced take their notes with them, so that the indexes ascend.
    while notes.back().is_some_and(|(noted, _)| *noted > index) {
        notes.pop_back();
    }
    if notes.back().is_none_or(|(_, noted)| logged - noted >= limits::WAL_NOTE_BYTES) {
        notes.push_back((index, logged));
    }
}
