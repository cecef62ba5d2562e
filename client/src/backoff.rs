//! How long an endpoint that failed is set aside: doubled by each failure in a row, bounded, with jitter from a seed.

use crate::limits::{BACKOFF_JITTER, BACKOFF_MAX, BACKOFF_MIN};
use std::time::Duration;

/// Numbers from a seed (splitmix64): the same seed draws the same.
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed that differs from process to process and from client to client.
    pub(crate) fn any() -> Self {
        use std::hash::{BuildHasher, Hasher};
        Self(std::collections::hash_map::RandomState::new().build_hasher().finish())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// The time after the `failures`-th failure in a row, from 1.
    pub(crate) fn back_off(&mut self, failures: u32) -> Duration {
        let doubled = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
        // In [-1, 1].
        let drawn = (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        doubled.min(BACKOFF_MAX).mul_f64(1.0 + BACKOFF_JITTER * drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_offs_double_within_their_bounds_and_are_the_seeds() {
        let draw = |seed| (1..=20).map(|n| Jitter::new(seed).back_off(n)).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        for (n, time) in draw(3).into_iter().enumerate() {
            let plain = BACKOFF_MIN.saturating_mul(1 << n.min(16)).min(BACKOFF_MAX);
            assert!(time >= plain.mul_f64(0.8) && time <= plain.mul_f64(1.2), "{n}: {time:?}");
        }
        assert!(Jitter::new(1).back_off(u32::MAX) <= BACKOFF_MAX.mul_f64(1.2));
    }
}
