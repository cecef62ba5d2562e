//! What the log's files hold, read segment by segment for a person: nothing is changed, and damage is told instead of
//! ending it.

use super::record::{Logged, Record};
use super::segment::{self, Position};
use super::{Cut, Wal, recover, vouch};
use crate::disk::{self, Disk};
use crate::effect::HardState;
use crate::outcome::Fatal;
use crate::types::{Index, Term};
use std::io;

/// One segment's file.
#[derive(Debug)]
pub struct SeenSegment {
    /// The segment's number.
    pub id: u64,
    /// The file's name.
    pub file: String,
    /// The file's length in bytes.
    pub bytes: u64,
    /// Where it takes over from an older segment; `None` if its first batch is not intact.
    pub base: Option<Position>,
    /// Every batch with an intact header, in order, whatever lies between them.
    pub batches: Vec<SeenBatch>,
}

/// A batch whose header is intact.
#[derive(Debug)]
pub struct SeenBatch {
    /// Where it stands.
    pub at: Position,
    /// Where the next one does.
    pub end: Position,
    /// The boot that wrote it.
    pub boot: u64,
    /// The log's last entry after it.
    pub last: (Index, Term),
    /// All before this was durable when it was written.
    pub durable: Position,
    /// The chain sums of the batch before it, and of itself.
    pub chain: (u32, u32),
    /// What it holds; `None` if that is damaged.
    pub records: Option<Vec<Record>>,
}

/// What an open would make of the log.
#[derive(Debug)]
pub struct Judged {
    /// All before this is vouched for: damage there is corruption, behind it a torn tail.
    pub vouched: Position,
    /// First and last index; equal to one apart if there is no entry.
    pub entries: (Index, Index),
    /// The newest hard state.
    pub hard_state: HardState,
    /// Starts of the process so far.
    pub boot: u64,
    /// The applied index of the store, if it was closed cleanly.
    pub clean: Option<Index>,
    /// What an open would cut.
    pub cut: Option<Cut>,
    /// The segments that make up the log, ascending, each with the offset from which on its successor stands for it;
    /// `None` for the newest.
    pub segments: Vec<(u64, Option<u64>)>,
}

/// Lists the segments in `dir`, ascending.
pub fn segments<D: Disk>(disk: &D, dir: &str) -> io::Result<Vec<u64>> {
    Ok(disk.list(dir)?.iter().filter_map(|name| segment::parse_name(name)).collect())
}

/// Reads one segment.
pub fn read<D: Disk>(disk: &D, dir: &str, id: u64) -> io::Result<SeenSegment> {
    let file = segment::name(id);
    let bytes = disk::read(disk, &disk::join(dir, &file))?;
    let found = segment::scan(id, &bytes);
    let first = found.first().filter(|first| first.header.at.offset == 0);
    let base = first.and_then(|first| match first.logged.as_ref()?.first() {
        Some(Logged::Start(start)) => Some(start.base),
        _ => None,
    });
    let records = |logged: Vec<Logged>| {
        let record = |logged| if let Logged::Record(record) = logged { Some(record) } else { None };
        logged.into_iter().filter_map(record).collect()
    };
    let batches = found.into_iter().map(|batch| SeenBatch {
        at: batch.header.at,
        end: batch.header.end(),
        boot: batch.header.boot,
        last: batch.header.last,
        durable: batch.header.durable,
        chain: (batch.header.previous, batch.header.chain),
        records: batch.logged.map(records),
    });
    Ok(SeenSegment { id, file, bytes: bytes.len() as u64, base, batches: batches.collect() })
}

/// Reads what is vouched for beside the segments in `dir`.
pub fn said<D: Disk>(disk: &D, dir: &str) -> io::Result<Position> {
    vouch::read(disk, dir)
}

/// Says what an open would make of the log in `dir` above `snapshot`.
///
/// - Errors: [`Fatal::Corrupt`] where an open would refuse; [`Fatal::Io`].
pub fn judge<D: Disk>(disk: &D, dir: &str, snapshot: Option<(Index, Term)>) -> Result<Judged, Fatal> {
    let (_, found, said) = Wal::read(disk, dir)?;
    let log = recover::recover(&found, said, snapshot)?;
    let (chain, _) = recover::chain_of(&found, log.vouched);
    let first = log.entries.first().map_or(log.last.0 + 1, |(entry, _)| entry.index);
    Ok(Judged {
        vouched: log.vouched,
        entries: (first, log.last.0),
        hard_state: log.hard_state,
        boot: log.boot,
        clean: log.clean,
        cut: log.cut,
        segments: chain.iter().map(|(segment, limit)| (segment.id, (*limit != u64::MAX).then_some(*limit))).collect(),
    })
}
