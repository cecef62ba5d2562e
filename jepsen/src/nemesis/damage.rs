//! Damage to the bytes of one file: a bit, a page of zeros, a page from elsewhere in it, its end cut off.

use crate::limits::DAMAGED_BYTES_MAX;
use anyhow::{Context, Result, ensure};
use mechi_tests::rng::Rng;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PAGE_BYTES: u64 = 4096;

/// How a file is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// One bit is the other one.
    Bit {
        /// Where.
        at: u64,
        /// Which of the eight.
        bit: u8,
    },
    /// A page holds zeros.
    Zeros {
        /// Where.
        at: u64,
    },
    /// A page holds what another one holds: a write that went astray.
    Stale {
        /// Where.
        at: u64,
        /// From where.
        from: u64,
    },
    /// The file ends here.
    Cut {
        /// Where.
        at: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bit { at, bit } => write!(f, "bit {bit} of byte {at} is flipped"),
            Self::Zeros { at } => write!(f, "the page at byte {at} is zeros"),
            Self::Stale { at, from } => write!(f, "the page at byte {at} is that of byte {from}"),
            Self::Cut { at } => write!(f, "it ends at byte {at}"),
        }
    }
}

impl Damage {
    /// Draws one within the first `bytes` of a file.
    pub(super) fn draw(rng: &mut Rng, bytes: u64) -> Self {
        let page = |rng: &mut Rng| rng.below(bytes.div_ceil(PAGE_BYTES)) * PAGE_BYTES;
        match rng.below(10) {
            0..5 => Self::Bit { at: rng.below(bytes), bit: rng.below(8) as u8 },
            5..7 => Self::Zeros { at: page(rng) },
            7..9 => Self::Stale { at: page(rng), from: page(rng) },
            _ => Self::Cut { at: rng.below(bytes) },
        }
    }

    /// Does it; returns whether a byte is another one than before.
    pub(super) fn act(self, path: &Path) -> Result<bool> {
        let file = File::options().read(true).write(true).open(path).with_context(|| format!("{}", path.display()))?;
        let bytes = file.metadata()?.len();
        let page = |at: u64| -> Result<Vec<u8>> {
            let mut page = vec![0; bytes.saturating_sub(at).min(PAGE_BYTES) as usize];
            file.read_exact_at(&mut page, at)?;
            Ok(page)
        };
        let (at, old, new) = match self {
            Self::Bit { at, bit } => {
                let old = page(at)?;
                let mut new = old.clone();
                if let Some(byte) = new.first_mut() {
                    *byte ^= 1 << bit;
                }
                (at, old, new)
            }
            Self::Zeros { at } => {
                let old = page(at)?;
                (at, old.clone(), vec![0; old.len()])
            }
            Self::Stale { at, from } => {
                let (old, mut new) = (page(at)?, page(from)?);
                new.resize(old.len(), 0);
                (at, old, new)
            }
            Self::Cut { at } => {
                file.set_len(at)?;
                return Ok(at < bytes);
            }
        };
        file.write_all_at(&new, at)?;
        Ok(old != new)
    }
}

/// Bytes of a file before those that are all zeros: a segment of a log is allocated as a whole.
pub(super) fn used_bytes(path: &Path) -> Result<u64> {
    let file = File::open(path)?;
    let mut end = file.metadata()?.len();
    ensure!(end <= DAMAGED_BYTES_MAX, "{} has {end} bytes", path.display());
    let mut piece = vec![0; 1 << 20];
    while end > 0 {
        let from = end.saturating_sub(piece.len() as u64);
        let piece = &mut piece[..(end - from) as usize];
        file.read_exact_at(piece, from)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_damage_changes_what_it_says_and_nothing_else() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("file");
        let whole: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8 + 1).collect();
        let after = |damage: Damage| {
            std::fs::write(&path, &whole).expect("writes");
            assert!(damage.act(&path).expect("acts"), "{damage}");
            std::fs::read(&path).expect("reads")
        };
        let changed = |now: &[u8]| (0..now.len()).filter(|n| now[*n] != whole[*n]).collect::<Vec<_>>();
        let now = after(Damage::Bit { at: 77, bit: 3 });
        assert_eq!((changed(&now), now[77]), (vec![77], whole[77] ^ 8));
        let now = after(Damage::Zeros { at: 8192 });
        assert_eq!((changed(&now), now.len()), ((8192..10_000).collect(), 10_000));
        let now = after(Damage::Stale { at: 4096, from: 0 });
        assert_eq!(now[4096..8192], whole[..4096]);
        assert_eq!((&now[..4096], &now[8192..]), (&whole[..4096], &whole[8192..]));
        assert_eq!(after(Damage::Cut { at: 5 }), whole[..5]);
        std::fs::write(&path, [0; 100]).expect("writes");
        assert!(!Damage::Zeros { at: 0 }.act(&path).expect("acts"), "nothing is another byte");
    }

    #[test]
    fn what_is_used_ends_at_the_last_byte_that_is_not_zero() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("file");
        for (length, last) in [(3 << 20, Some(1_500_000)), (100, Some(0)), (100, Some(99)), (100, None), (0, None)] {
            let mut bytes = vec![0_u8; length];
            last.into_iter().for_each(|last: usize| bytes[last] = 7);
            std::fs::write(&path, &bytes).expect("writes");
            assert_eq!(used_bytes(&path).expect("reads"), last.map_or(0, |last| last as u64 + 1));
        }
    }

    #[test]
    fn a_drawn_damage_is_within_the_file() {
        for seed in 0..500 {
            let at = match Damage::draw(&mut Rng::new(seed), 5_000) {
                Damage::Bit { at, .. } | Damage::Zeros { at } | Damage::Stale { at, .. } | Damage::Cut { at } => at,
            };
            assert!(at < 5_000);
        }
    }
}
