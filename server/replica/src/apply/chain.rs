//! The chain digest: two members that applied the same entries to the same end have the same one.

/// A running 64-bit digest; each part moves it by one multiply-and-fold round.
///
/// It finds accidents (a bug, a flipped bit), not enemies, so it need not be cryptographic; it must be the same on
/// every machine and in every later version under the same feature level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain(pub(super) u64);

impl Chain {
    /// Mixes one part in.
    ///
    /// - Source: the finalizer of splitmix64 (Steele et al., OOPSLA '14), a bijection for each fixed state.
    pub(super) fn mix(&mut self, part: u64) {
        let mut x = self.0.rotate_left(23) ^ part;
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = x ^ (x >> 31);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_every_part_count() {
        let of = |parts: &[u64]| {
            let mut chain = Chain(0);
            parts.iter().for_each(|&part| chain.mix(part));
            chain.0
        };
        assert_ne!(of(&[1, 2]), of(&[2, 1]));
        assert_ne!(of(&[1, 0]), of(&[1]));
        assert_ne!(of(&[0]), of(&[]));
        assert_eq!(of(&[7]), 0x63cb_e1e4_5932_0dd7, "persisted digests depend on this value");
    }
}
