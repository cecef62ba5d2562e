//! What the segments on disk say: the log, or where it is damaged.
//!
//! A header says which bytes were `durable` when it was written, and so does a file beside the segments. The highest
//! such place among all that are intact is *vouched* for. Damage at or behind it is a torn tail that nobody was
//! promised, and is cut. Damage before it is corruption, and is tolerated only if all that it hides lies below a
//! verified snapshot and an intact HardState. A newest segment that is shorter than it was made is corruption too: what
//! it lost includes what vouched for it.
//! Nothing here touches a disk.

use super::record::{Logged, Record, Start};
use super::segment::{self, Batch, Position};
use crate::disk::SECTOR_BYTES;
use crate::effect::{Entry, HardState};
use crate::outcome::Fatal;
use crate::types::{Index, Term};

/// A segment as it was read.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) id: u64,
    /// The file's length in bytes.
    pub(super) length: u64,
    pub(super) batches: Vec<Batch>,
}

/// What was cut from the log's end, for a line in the server's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment's file name.
    pub file: String,
    /// Where the log ends now.
    pub offset: u64,
    /// Intact headers behind it that were given up with it.
    pub batches: usize,
}

/// A segment of the log, for trimming.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    /// The file's length in bytes.
    pub(super) length: u64,
    /// The highest entry index in it, 0 for none.
    pub(super) last_index: Index,
}

/// The log that the segments hold.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Each entry with the place of the batch that brought it.
    pub(super) entries: Vec<(Entry, Position)>,
    pub(super) last: (Index, Term),
    pub(super) hard_state: HardState,
    /// The highest boot counter in any intact header.
    pub(super) boot: u64,
    pub(super) clean: Option<Index>,
    pub(super) cut: Option<Cut>,
    /// All before this is durable.
    pub(super) vouched: Position,
    /// The chain sum at `vouched`.
    pub(super) chain: u32,
    /// The segments that make up the log, ascending.
    pub(super) segments: Vec<Segment>,
}

/// Reads the log out of all segments found, ascending by id, of which `said` is vouched for beside them.
///
/// - Errors: [`Fatal::Corrupt`] with the file and offset of the first damage, or of the gap to `snapshot`.
pub(super) fn recover(found: &[Scanned], said: Position, snapshot: Option<(Index, Term)>) -> Result<Log, Fatal> {
    let headers = || found.iter().flat_map(|segment| segment.batches.iter().map(|batch| &batch.header));
    let vouched = headers().map(|header| header.durable).max().unwrap_or_default().max(said);
    let boot = headers().map(|header| header.boot).max().unwrap_or_default();

    if let Some(newest) = found.last() {
        is_whole(newest)?;
    }
    // Its name was durable before anybody vouched for what is in it.
    if found.last().map_or(0, |newest| newest.id) < vouched.segment {
        let at = Position { segment: vouched.segment, offset: 0 };
        return Err(corrupt(at, format!("wanted a file with batches up to byte {}, found none", vouched.offset)));
    }
    let (chain, base_missing) = chain_of(found, vouched);
    let Some(&(head, _)) = chain.last() else {
        if let Some((index, _)) = snapshot {
            let detail = format!("wanted a log that goes on from the snapshot at entry {index}, found none");
            return Err(corrupt(Position { segment: found.last().map_or(1, |last| last.id), offset: 0 }, detail));
        }
        return Ok(Log { boot, ..Log::default() });
    };

    // What lies behind the head's base in older segments was given up, whatever was said of it: by an older version that
    // did not read it.
    let vouched = match start(head) {
        Some(start) if vouched.segment < head.id => vouched.min(start.base),
        _ => vouched,
    };
    let mut replay = Replay { log: Log { boot, vouched, ..Log::default() }, ..Replay::default() };
    for &(scanned, limit) in &chain {
        replay.segment(scanned, limit, scanned.id == head.id)?;
    }
    replay.finish(snapshot, base_missing)
}

/// Refuses a newest segment that has lost its end. A file has its whole length, durably, before the first byte is
/// written, so no crash does that; what is gone may have vouched for itself, so no snapshot is known to stand for it.
fn is_whole(newest: &Scanned) -> Result<(), Fatal> {
    let first = newest.batches.first().filter(|first| first.header.at.offset == 0);
    let made = match (start(newest), first) {
        (Some(start), _) => start.length,
        (None, Some(first)) => first.header.end().offset,
        (None, None) => newest.length.next_multiple_of(SECTOR_BYTES as u64),
    };
    if newest.length < made {
        let at = Position { segment: newest.id, offset: newest.length };
        return Err(corrupt(at, format!("wanted a file of {made} bytes or more, found one that ends here")));
    }
    Ok(())
}

/// Finds the segments that make up the log, ascending, each with the offset at which its successor takes over; and
/// whether the oldest one goes on from a segment that is gone.
pub(super) fn chain_of(found: &[Scanned], vouched: Position) -> (Vec<(&Scanned, u64)>, bool) {
    // A segment whose first batch is not intact holds nothing that was promised, unless it is vouched for.
    let counts = |scanned: &&Scanned| start(scanned).is_some() || vouched > Position { segment: scanned.id, offset: 0 };
    let mut chain = Vec::new();
    let mut next = found.iter().rev().find(counts).map(|scanned| (scanned, u64::MAX));
    let mut base_missing = false;
    while let Some((scanned, limit)) = next {
        chain.push((scanned, limit));
        next = None;
        match start(scanned) {
            Some(Start { base, .. }) if base.segment == 0 => base_missing = false,
            Some(Start { base, .. }) => {
                base_missing = true;
                // A base at or above its own segment would go round in circles; no writer makes one.
                if base.segment < scanned.id {
                    next = found.iter().find(|older| older.id == base.segment).map(|older| (older, base.offset));
                }
            }
            None => base_missing = true,
        }
    }
    chain.reverse();
    (chain, base_missing)
}

fn start(scanned: &Scanned) -> Option<Start> {
    let first = scanned.batches.first().filter(|first| first.header.at.offset == 0)?;
    match first.logged.as_ref()?.first() {
        Some(Logged::Start(start)) => Some(*start),
        _ => None,
    }
}

#[derive(Default)]
struct Replay {
    log: Log,
    /// The chain sum of the last batch; `None` at the oldest batch and after damage.
    sum: Option<u32>,
    /// The first damage before `vouched`.
    damage: Option<(Position, String)>,
    hard_state_seen: bool,
    oldest: Option<Position>,
    /// The end of the last intact batch.
    #[cfg(feature = "mutants")]
    end: Position,
}

impl Replay {
    /// Replays one segment up to `limit`; in the head, `limit` is open and an unvouched tail is cut.
    fn segment(&mut self, scanned: &Scanned, limit: u64, head: bool) -> Result<(), Fatal> {
        let mut expected = Position { segment: scanned.id, offset: 0 };
        self.oldest.get_or_insert(expected);
        let mut last_index = 0;
        let mut batches = scanned.batches.iter().enumerate();
        while let Some((number, batch)) = batches.by_ref().next().filter(|(_, b)| b.header.at.offset < limit) {
            let header = &batch.header;
            let why = if header.at != expected {
                Some((expected, "wanted a batch header, found none that is intact".to_owned()))
            } else if self.sum.is_some_and(|sum| sum != header.previous) {
                let wanted = self.sum.unwrap_or_default();
                Some((expected, format!("wanted chain sum {wanted:08x}, found {:08x}", header.previous)))
            } else if batch.logged.is_none() {
                Some((expected, format!("wanted {} bytes with sum {:08x}, found others", header.length, header.chain)))
            } else {
                None
            };
            if let Some((at, detail)) = why {
                if self.may_cut(at, head) {
                    let batches = scanned.batches.len() - number;
                    self.log.cut = Some(Cut { file: segment::name(at.segment), offset: at.offset, batches });
                    break;
                }
                self.damaged(at, detail);
            }
            expected = header.end();
            let Some(logged) = &batch.logged else { continue };
            for logged in logged {
                last_index = last_index.max(self.logged(logged, header.at)?);
            }
            self.sum = Some(header.chain);
            #[cfg(feature = "mutants")]
            (self.end = expected);
            self.log.last = header.last;
            if expected == self.log.vouched {
                self.log.chain = header.chain;
            }
        }
        let whole = if head { self.log.vouched } else { Position { segment: scanned.id, offset: limit } };
        if expected < whole && !self.may_cut(expected, head) {
            self.damaged(expected, format!("wanted batches up to byte {}, found none", whole.offset));
        }
        self.log.segments.push(Segment { id: scanned.id, length: scanned.length, last_index });
        Ok(())
    }

    /// Whether damage at `at` is a torn tail.
    fn may_cut(&self, at: Position, head: bool) -> bool {
        #[cfg(feature = "mutants")]
        if crate::mutants::active("cut_at_first_bad_crc") || head && crate::mutants::active("midlog_damage_as_tail") {
            return true;
        }
        head && at >= self.log.vouched
    }

    /// Notes corruption and forgets all before it: only a snapshot can stand for that.
    fn damaged(&mut self, at: Position, detail: String) {
        self.damage.get_or_insert((at, detail));
        self.log.entries.clear();
        self.log.clean = None;
        self.sum = None;
        self.hard_state_seen = false;
    }

    /// Replays one record; returns the entry's index, or 0.
    fn logged(&mut self, logged: &Logged, at: Position) -> Result<Index, Fatal> {
        let Logged::Record(record) = logged else { return Ok(0) };
        let log = &mut self.log;
        match record {
            Record::Entry(entry) => {
                log.clean = None;
                push(&mut log.entries, entry, at)?;
                return Ok(entry.index);
            }
            Record::HardState(state) => {
                log.clean = None;
                log.hard_state = *state;
                self.hard_state_seen = true;
            }
            Record::Snapshot { index, term } => {
                let first = log.entries.first().map_or(Index::MAX, |(entry, _)| entry.index);
                if *index >= first && term_at(&log.entries, *index) != Some(*term) {
                    log.entries.clear();
                }
            }
            Record::Boot { .. } => log.clean = None,
            Record::Clean { applied } => log.clean = Some(*applied),
        }
        Ok(0)
    }

    /// Judges whether the log and the snapshot together are whole.
    fn finish(mut self, snapshot: Option<(Index, Term)>, base_missing: bool) -> Result<Log, Fatal> {
        let (covered, _) = snapshot.unwrap_or_default();
        let oldest = self.oldest.unwrap_or_default();
        let first = self.log.entries.first().map(|(entry, _)| entry.index);
        let joins = match first {
            Some(first) => first <= covered + 1,
            None => self.log.last.0 <= covered,
        };
        if let Some((at, detail)) = self.damage.take()
            && !(joins && self.hard_state_seen && snapshot.is_some())
        {
            return Err(corrupt(at, detail));
        }
        if !joins {
            let gap = if base_missing { "its beginning was trimmed" } else { "it has no beginning" };
            let starts = first.unwrap_or(self.log.last.0 + 1);
            let detail = format!("wanted entry {}, found the log to start at {starts}: {gap}", covered + 1);
            return Err(corrupt(oldest, detail));
        }
        if let Some((index, term)) = snapshot {
            // A snapshot whose entry the log lacks was received from a leader: it replaces the log.
            let continues = first == Some(index + 1) || term_at(&self.log.entries, index) == Some(term);
            if !continues {
                self.log.entries.clear();
            }
            if self.log.entries.is_empty() {
                self.log.last = (index, term);
            }
        }
        if let Some((entry, _)) = self.log.entries.last() {
            self.log.last = (entry.index, entry.term);
        }
        #[cfg(feature = "mutants")]
        if ["cut_at_first_bad_crc", "midlog_damage_as_tail", "unsynced_tail_taken_for_durable"]
            .iter()
            .any(|name| crate::mutants::active(name))
        {
            // What these bugs believe to be durable.
            (self.log.vouched, self.log.chain) = (self.end, self.sum.unwrap_or_default());
        }
        Ok(self.log)
    }
}

/// Adds an entry; one of the same index and term is the same entry, written again by a copy or a retry.
fn push(entries: &mut Vec<(Entry, Position)>, entry: &Entry, at: Position) -> Result<(), Fatal> {
    let first = entries.first().map_or(entry.index, |(first, _)| first.index);
    if entry.index < first {
        entries.clear();
    } else {
        let place = (entry.index - first) as usize;
        if place > entries.len() {
            let last = first + entries.len() as u64 - 1;
            return Err(corrupt(at, format!("wanted an entry up to {}, found {}", last + 1, entry.index)));
        }
        if entries.get(place).is_some_and(|(old, _)| old.term == entry.term) {
            return Ok(());
        }
        #[cfg(feature = "mutants")]
        if place < entries.len() && crate::mutants::active("conflict_kept_at_open") {
            entries[place] = (entry.clone(), at);
            return Ok(());
        }
        entries.truncate(place);
    }
    entries.push((entry.clone(), at));
    Ok(())
}

fn term_at(entries: &[(Entry, Position)], index: Index) -> Option<Term> {
    let (first, _) = entries.first()?;
    let place = usize::try_from(index.checked_sub(first.index)?).ok()?;
    entries.get(place).map(|(entry, _)| entry.term)
}

fn corrupt(at: Position, detail: String) -> Fatal {
    Fatal::Corrupt { what: "log", file: segment::name(at.segment), offset: at.offset, detail }
}
