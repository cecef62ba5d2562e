//! How far the log is durable, said a second time beside it.
//!
//! The last batch of a log is vouched for by the mark behind it, and by nothing else: whatever damages the end of the
//! newest segment takes both, and what is left looks like a torn tail. So the same is written into two slots of a
//! file of its own, in turns, after what they speak of was made durable. They are not synced but at a clean close:
//! after a power cut they may be old, and then they say less than the log does, never more.

use super::segment::Position;
use crate::disk::{self, Disk, File};
use crate::outcome::Fatal;
use std::io::{self, ErrorKind};

/// The file's name.
const NAME: &str = "vouched";

/// From one slot to the next: no page holds both.
const SLOT_BYTES: u64 = 4096;

const SLOTS: u64 = 2;

/// Bytes of what a slot says.
const SAID_BYTES: usize = 24;

const MAGIC: [u8; 4] = *b"MWV1";

/// The open file.
pub(super) struct Vouch<F> {
    /// `None` if there was no room for it: then only headers vouch.
    file: Option<F>,
    slot: u64,
    said: Position,
}

impl<F: File> Vouch<F> {
    /// Opens the file, or makes it. Its name is durable after the next sync of the directory.
    pub(super) fn open<D: Disk<File = F>>(disk: &D, dir: &str) -> Result<Self, Fatal> {
        let path = disk::join(dir, NAME);
        let opened = match disk.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => disk.create(&path),
            opened => opened,
        };
        let file = match opened.and_then(|file| file.allocate(SLOTS * SLOT_BYTES).map(|()| file)) {
            Ok(file) => Some(file),
            Err(error) if disk::is_full(&error) => None,
            Err(error) => return Err(disk::fatal("open what vouches for the log")(error)),
        };
        // The slot that says the least is the next one.
        let said = |slot: u64| file.as_ref().and_then(|file| read_slot(file, slot).ok()).flatten();
        let slot = (0..SLOTS).min_by_key(|slot| said(*slot)).unwrap_or_default();
        Ok(Self { file, slot, said: Position::default() })
    }

    /// Says that all before `durable` is durable, which it must be by now. Does nothing if it has said so.
    pub(super) fn say(&mut self, durable: Position) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.said < durable) else { return Ok(()) };
        file.write_at(&encode(durable), self.slot * SLOT_BYTES)?;
        self.slot = (self.slot + 1) % SLOTS;
        self.said = durable;
        Ok(())
    }

    /// Makes durable what was said.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), F::sync)
    }
}

/// The most that the file in `dir` says; the beginning of everything if there is none, or none that is intact.
pub(super) fn read<D: Disk>(disk: &D, dir: &str) -> io::Result<Position> {
    let file = match disk.open(&disk::join(dir, NAME)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Position::default()),
        opened => opened?,
    };
    // What cannot be read says nothing, as what is damaged.
    let slots = (0..SLOTS).filter_map(|slot| read_slot(&file, slot).ok().flatten());
    Ok(slots.max().unwrap_or_default())
}

fn read_slot(file: &impl File, slot: u64) -> io::Result<Option<Position>> {
    let mut bytes = [0; SAID_BYTES];
    let read = file.read_at(&mut bytes, slot * SLOT_BYTES)?;
    Ok((read == SAID_BYTES).then(|| decode(&bytes)).flatten())
}

fn encode(durable: Position) -> [u8; SAID_BYTES] {
    let mut out = [0; SAID_BYTES];
    out[..4].copy_from_slice(&MAGIC);
    out[8..16].copy_from_slice(&durable.segment.to_le_bytes());
    out[16..24].copy_from_slice(&durable.offset.to_le_bytes());
    let sum = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&sum.to_le_bytes());
    out
}

fn decode(bytes: &[u8; SAID_BYTES]) -> Option<Position> {
    let long = |from: usize| Some(u64::from_le_bytes(bytes[from..from + 8].try_into().ok()?));
    let sum = u32::from_le_bytes(bytes[4..8].try_into().ok()?);
    let is_intact = bytes[..4] == MAGIC && sum == crc32fast::hash(&bytes[8..]);
    Some(Position { segment: long(8)?, offset: long(16)? }).filter(|_| is_intact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn the_most_that_is_intact_counts() {
        let disk = SimDisk::new();
        disk.create_dir("wal").expect("made");
        assert_eq!(read(&disk, "wal").expect("read"), Position::default());
        let at = |segment, offset| Position { segment, offset };
        let mut vouch = Vouch::open(&disk, "wal").expect("opened");
        for offset in [512, 1024, 1024, 1536] {
            vouch.say(at(1, offset)).expect("said");
        }
        assert_eq!(read(&disk, "wal").expect("read"), at(1, 1536));
        // Only what is durable can be damaged at rest.
        vouch.sync().expect("synced");
        // The newest slot is damaged: the one before it is left, and is not written over first.
        disk.damage("wal/vouched", 10, &[0xff]);
        assert_eq!(read(&disk, "wal").expect("read"), at(1, 1024));
        let mut vouch = Vouch::open(&disk, "wal").expect("opened");
        vouch.say(at(2, 512)).expect("said");
        assert_eq!(read(&disk, "wal").expect("read"), at(2, 512));
        disk.damage("wal/vouched", 10, &[0xff]);
        assert_eq!(read(&disk, "wal").expect("read"), at(1, 1024));
        disk.damage("wal/vouched", 4096, &[0xff]);
        assert_eq!(read(&disk, "wal").expect("read"), Position::default());
    }
}
