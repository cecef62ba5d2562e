//! How much the keeper does at once while it holds the state's lock.

use crate::limits::{KEEPER_LOCK_TIME, KEEPER_SLICE_KEYS_MIN};
use mechi_replica::limits::SLICE_KEYS_MAX;
use std::time::Duration;

/// Keys of one slice under the write lock: as many as take [`KEEPER_LOCK_TIME`] on this machine now.
///
/// Apply and every reader wait for a slice. A thousand keys took 16 ms where three members shared two cores, and a
/// sweep of a second then kept each of their threads waiting again and again.
#[derive(Debug)]
pub(super) struct Slice {
    keys: usize,
}

impl Slice {
    /// Begins small.
    pub(super) fn new() -> Self {
        Self { keys: KEEPER_SLICE_KEYS_MIN }
    }

    /// Keys of the next slice.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// The last slice took so long: the next one is half as large if that was too long, and larger by a quarter if
    /// there is room for it.
    pub(super) fn took(&mut self, time: Duration) {
        self.keys = if time > KEEPER_LOCK_TIME { self.keys / 2 } else { self.keys + self.keys / 4 };
        self.keys = self.keys.clamp(KEEPER_SLICE_KEYS_MIN, SLICE_KEYS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_finds_its_size_and_keeps_to_its_bounds() {
        let per_key = |nanos: u64, slice: &Slice| Duration::from_nanos(nanos * slice.keys() as u64);
        // 4 us for a key: 125 keys are right.
        let mut slice = Slice::new();
        for round in 0..100 {
            assert!(round < 20 || (60..=160).contains(&slice.keys()), "{slice:?}");
            slice.took(per_key(4_000, &slice));
        }
        (0..100).for_each(|_| slice.took(per_key(1_000_000, &slice)));
        assert_eq!(slice.keys(), KEEPER_SLICE_KEYS_MIN);
        (0..100).for_each(|_| slice.took(Duration::ZERO));
        assert_eq!(slice.keys(), SLICE_KEYS_MAX);
    }
}
