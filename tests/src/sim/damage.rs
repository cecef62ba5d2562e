//! Damage at rest: a place on a disk that does not hold what was written there, and was synced.

use super::machine::{SNAP_DIR, WAL_DIR};
use crate::rng::Rng;
use mechi_replica::disk::sim::{Fate, SimDisk};
use mechi_replica::disk::{Disk, SECTOR_BYTES, join};
use mechi_replica::wal::Position;
use mechi_replica::wal::inspect::{self, SeenSegment};
use std::fmt;
use std::ops::Range;

/// How a place goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// Some bits turn over.
    Flip,
    /// It holds what it held before its last write; zeros if there was none.
    Stale,
    /// It holds what belongs to another place.
    Misdirected,
}

/// A place that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    path: String,
    offset: usize,
    harm: Harm,
    was: Vec<u8>,
    is: Vec<u8>,
}

impl Damage {
    /// Whether it is in the log, not in a snapshot.
    pub(super) fn in_log(&self) -> bool {
        self.path.starts_with(WAL_DIR)
    }

    /// Puts back what was there, unless something else has been written since.
    pub(super) fn undo(&self, disk: &SimDisk) {
        let Some(bytes) = disk.files().remove(&self.path) else { return };
        if bytes.get(self.offset..self.offset + self.is.len()) == Some(&self.is) {
            disk.damage(&self.path, self.offset, &self.was);
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, offset, harm, is, .. } = self;
        write!(f, "{harm:?}: {} bytes of {path} at {offset}", is.len())
    }
}

/// Places that are looked at before a disk is left alone.
const TRIES: usize = 12;

/// Damages one place: in the log or in a snapshot.
///
/// - Shape: `others` are the places that are wrong already. A second one in the log could hide what vouches for the first,
///   and what is damaged twice could not be undone in any order.
/// - Returns: `None` if there is nothing yet that could be damaged.
pub(super) fn harm(disk: &SimDisk, harm: Harm, others: &[(u64, Damage)], rng: &mut Rng) -> Option<Damage> {
    let spare_log = others.iter().any(|(_, damage)| damage.in_log());
    let is_wrong = |path: &str, at: usize| others.iter().any(|(_, other)| other.path == path && other.offset == at);
    // What is durable by now: nobody is promised anything about the rest, and a crash would take it anyway.
    let durable = disk.power_cut(|_| Fate::Lost);
    for _ in 0..TRIES {
        let place = if !spare_log && rng.chance(60) { in_log(&durable, rng) } else { in_snapshots(&durable, rng) };
        let Some((path, range)) = place.filter(|(path, range)| !is_wrong(path, range.start)) else { continue };
        let Some(damage) = wrong(disk, &durable, harm, path, range, rng) else { continue };
        disk.damage(&damage.path, damage.offset, &damage.is);
        return Some(damage);
    }
    None
}

/// A sector of a batch in the log that a later header vouches for, and that header is not the damaged one, or that is
/// vouched for beside the log: only then can a reader know that what is gone was durable. Behind that nothing tells
/// damage from a torn tail.
fn in_log(disk: &SimDisk, rng: &mut Rng) -> Option<(String, Range<usize>)> {
    let ids = inspect::segments(disk, WAL_DIR).ok()?;
    let segments: Vec<SeenSegment> = ids.iter().filter_map(|id| inspect::read(disk, WAL_DIR, *id).ok()).collect();
    let batches = || segments.iter().flat_map(|segment| &segment.batches);
    let count = batches().count() as u64;
    let batch = batches().nth(rng.below(count) as usize)?;
    let sectors = (batch.end.offset - batch.at.offset) / SECTOR_BYTES as u64;
    let offset = batch.at.offset + rng.below(sectors) * SECTOR_BYTES as u64;
    let segment = batch.at.segment;
    let hides_header = |at: Position| (at.segment, at.offset) == (segment, offset);
    let said = inspect::said(disk, WAL_DIR).ok()?;
    let vouched = batches().filter(|other| !hides_header(other.at)).map(|other| other.durable).max()?.max(said);
    let end = Position { segment, offset: offset + SECTOR_BYTES as u64 };
    let file = &segments.iter().find(|seen| seen.id == segment)?.file;
    let offset = usize::try_from(offset).ok()?;
    (end <= vouched).then(|| (join(WAL_DIR, file), offset..offset + SECTOR_BYTES))
}

/// A sector of any file of the snapshots.
fn in_snapshots(disk: &SimDisk, rng: &mut Rng) -> Option<(String, Range<usize>)> {
    let names = disk.list(SNAP_DIR).ok()?;
    let path = join(SNAP_DIR, names.get(rng.below(names.len() as u64) as usize)?);
    let length = mechi_replica::disk::read(disk, &path).ok()?.len();
    let offset = rng.below(length.div_ceil(SECTOR_BYTES) as u64) as usize * SECTOR_BYTES;
    (offset < length).then(|| (path, offset..length.min(offset + SECTOR_BYTES)))
}

/// What a place would hold; `None` if that is what it holds, or if it is about to change anyway.
fn wrong(
    disk: &SimDisk,
    durable: &SimDisk,
    harm: Harm,
    path: String,
    range: Range<usize>,
    rng: &mut Rng,
) -> Option<Damage> {
    let sector = |disk: &SimDisk| disk.files().remove(&path).and_then(|bytes| Some(bytes.get(range.clone())?.to_vec()));
    let was = sector(durable)?;
    if sector(disk).as_ref() != Some(&was) {
        return None;
    }
    let mut is = was.clone();
    match harm {
        Harm::Flip => {
            for _ in 0..1 + rng.below(3) {
                let place = rng.below(is.len() as u64) as usize;
                is[place] ^= 1 << rng.below(8);
            }
        }
        Harm::Stale => {
            let before = durable.overwritten(&path, range.start / SECTOR_BYTES).unwrap_or([0; SECTOR_BYTES]);
            is.copy_from_slice(&before[..was.len()]);
        }
        Harm::Misdirected => {
            let files: Vec<Vec<u8>> = durable.files().into_values().filter(|bytes| !bytes.is_empty()).collect();
            let other = rng.pick(&files);
            let from = rng.below(other.len().div_ceil(SECTOR_BYTES) as u64) as usize * SECTOR_BYTES;
            let bytes = &other[from..other.len().min(from + was.len())];
            is[..bytes.len()].copy_from_slice(bytes);
        }
    }
    let damage = Damage { path, offset: range.start, harm, was, is };
    (damage.is != damage.was).then_some(damage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_replica::disk::{self, File as _, ensure_dir};
    use mechi_replica::effect::Entry;
    use mechi_replica::outcome::Fatal;
    use mechi_replica::wal::record::Record;
    use mechi_replica::wal::{Wal, WalOptions};

    /// A log of several segments, as a killed process leaves it.
    fn log() -> SimDisk {
        let disk = SimDisk::new();
        disk.keep_overwritten();
        ensure_dir(&disk, WAL_DIR).unwrap();
        ensure_dir(&disk, SNAP_DIR).unwrap();
        let layout = WalOptions { segment_bytes: 4 << 10, reserve_segments: 1 };
        let (mut wal, _) = Wal::open(disk.clone(), WAL_DIR, layout, None).unwrap();
        for index in 1..30 {
            let entry = Entry { index, term: 1, data: vec![7; 300].into(), ..Entry::default() };
            wal.append(&[Record::Entry(entry)]).unwrap();
            wal.sync().unwrap();
        }
        disk
    }

    #[test]
    fn damage_in_the_log_is_never_taken_for_a_torn_tail() {
        let layout = WalOptions { segment_bytes: 4 << 10, reserve_segments: 1 };
        let mut refused = 0;
        for (seed, how) in (0..40).flat_map(|seed| [Harm::Flip, Harm::Stale, Harm::Misdirected].map(|how| (seed, how)))
        {
            let disk = log();
            let whole = disk.files();
            let Some(damage) = harm(&disk, how, &[], &mut Rng::new(seed)) else { continue };
            assert!(damage.in_log() && disk.files() != whole, "{damage}");
            match Wal::open(disk.fork(), WAL_DIR, layout, None) {
                // A bit within the padding changes nothing.
                Ok((_, recovered)) => assert_eq!(recovered.last_index, 29, "{damage}"),
                Err(Fatal::Corrupt { .. }) => refused += 1,
                Err(other) => panic!("{damage}: {other}"),
            }
            damage.undo(&disk);
            assert_eq!(disk.files(), whole);
        }
        assert!(refused > 60, "{refused} of 120 were seen");
    }

    /// What is left of a file: its beginning, and zeros behind it or nothing.
    fn lose_end(disk: &SimDisk, path: &str, left: &[u8], whole: usize, has_zeros: bool) {
        if has_zeros {
            return disk.damage(path, left.len(), &vec![0; whole - left.len()]);
        }
        disk.unlink(path).unwrap();
        let file = disk.create(path).unwrap();
        file.write_at(left, 0).unwrap();
        file.sync().unwrap();
        disk.sync_dir(WAL_DIR).unwrap();
    }

    #[test]
    fn no_end_of_a_quiet_log_is_lost_unseen() {
        let layout = WalOptions { segment_bytes: 16 << 10, reserve_segments: 1 };
        let quiet = log();
        let (mut wal, _) = Wal::open(quiet.clone(), WAL_DIR, layout, None).unwrap();
        let entry = |index| Record::Entry(Entry { index, term: 1, data: vec![7; 300].into(), ..Entry::default() });
        (30..50).for_each(|index| wal.append(&[entry(index)]).unwrap());
        wal.sync().unwrap();
        wal.mark().unwrap();
        drop(wal);
        let (mut refused, mut whole) = (0, 0);
        for (path, bytes) in quiet.files().into_iter().filter(|(path, _)| path.ends_with(".wal")) {
            let ends = (0..bytes.len()).step_by(SECTOR_BYTES).flat_map(|left| [(left, false), (left, true)]);
            for (left, has_zeros) in ends {
                let disk = quiet.fork();
                lose_end(&disk, &path, &bytes[..left], bytes.len(), has_zeros);
                match Wal::open(disk, WAL_DIR, layout, None) {
                    // What stands behind the base of the next segment is no part of the log.
                    Ok((_, recovered)) => {
                        assert_eq!(recovered.last_index, 49, "{path} ends at {left}, zeros: {has_zeros}");
                        whole += 1;
                    }
                    Err(Fatal::Corrupt { .. }) => refused += 1,
                    Err(other) => panic!("{path} ends at {left}: {other}"),
                }
            }
        }
        assert!(refused > 100 && whole > 10, "{refused} were refused, {whole} held everything");
    }

    #[test]
    fn all_damage_is_undone_whichever_ends_first() {
        for seed in 0..20 {
            let (disk, mut rng) = (log(), Rng::new(seed));
            disk::write_atomic(&disk, &join(SNAP_DIR, "one"), &[3; 700]).unwrap();
            let whole = disk.files();
            let mut all: Vec<(u64, Damage)> = Vec::new();
            for fault in 0..6 {
                all.extend(harm(&disk, Harm::Flip, &all, &mut rng).map(|damage| (fault, damage)));
            }
            assert!(all.len() > 1, "seed {seed}");
            all.iter().for_each(|(_, damage)| damage.undo(&disk));
            assert_eq!(disk.files(), whole, "seed {seed}: {all:?}");
        }
    }

    #[test]
    fn what_was_written_over_damage_stays() {
        let disk = log();
        let damage = harm(&disk, Harm::Flip, &[], &mut Rng::new(1)).unwrap();
        disk.damage(&damage.path, damage.offset, &vec![9; damage.is.len()]);
        let now = disk.files();
        damage.undo(&disk);
        assert_eq!(disk.files(), now);
        disk.unlink(&damage.path).unwrap();
        damage.undo(&disk);
    }
}
