//! The states in which a simulated disk may be found after a power cut, enumerated or sampled.
//!
//! Used by the crash-image tests of the log and of the snapshots, and by the simulator. Whoever calls chooses the
//! seed; nothing here is random by itself.

use super::sim::{Fate, Pending, SimDisk};
use crate::limits::EXHAUSTIVE_PENDING_MAX;

/// A small generator of numbers (SplitMix64), the same on every machine.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_number() % bound
    }
}

/// Calls `visit` with disks as they may be after a power cut now.
///
/// - Shape: every subset of lost and applied operations if at most [`EXHAUSTIVE_PENDING_MAX`] are pending and their
///   number is within `limit`, else `limit` sampled ones; then `torn` more in which writes keep any of their sectors.
pub fn power_cuts(disk: &SimDisk, numbers: &mut Numbers, limit: u64, torn: u64, visit: &mut dyn FnMut(SimDisk)) {
    let pending = disk.pending();
    if pending <= EXHAUSTIVE_PENDING_MAX && 1 << pending <= limit {
        for subset in 0..1u64 << pending {
            let mut operation = 0;
            visit(disk.power_cut(|_| {
                let applied = subset >> operation & 1 == 1;
                operation += 1;
                if applied { Fate::Applied } else { Fate::Lost }
            }));
        }
    } else {
        visit(disk.power_cut(|_| Fate::Lost));
        for _ in 1..limit {
            visit(disk.power_cut(|_| if numbers.below(2) == 0 { Fate::Lost } else { Fate::Applied }));
        }
    }
    if pending > 0 {
        for _ in 0..torn {
            visit(torn_power_cut(disk, numbers));
        }
    }
}

/// One disk as it may be after a power cut now, with torn writes.
pub fn torn_power_cut(disk: &SimDisk, numbers: &mut Numbers) -> SimDisk {
    disk.power_cut(|pending| match (numbers.below(4), pending) {
        (0, _) => Fate::Lost,
        (1, _) => Fate::Applied,
        (_, Pending::Name { .. }) => {
            if numbers.below(2) == 0 {
                Fate::Lost
            } else {
                Fate::Applied
            }
        }
        (_, Pending::Write { sectors, .. }) => Fate::Torn((0..sectors).map(|_| numbers.below(2) == 0).collect()),
    })
}
