//! Two sums that prove agreement: one over the content, one over the history that led to it.

use crate::types::Revision;

/// The part that one live version has in the content sum; add and subtract it with wrapping arithmetic.
///
/// - Shape: `crc` is the CRC-32C of the record's wire form, which holds key, value and all other fields.
pub fn content(revision: Revision, crc: u32) -> u64 {
    let place = mix(revision.main as u64 ^ 0x6d65_6368_6900_0001);
    mix(place ^ (u64::from(revision.sub) << 32 | u64::from(crc)))
}

/// What one entry did, as every member must agree on it; never read results or texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// CRC-32C of the command's bytes in the entry.
    pub command_crc: u32,
    /// How it ended: 0 for success, else a number fixed per error.
    pub status: u32,
    /// The store's revision after it.
    pub revision: i64,
    /// The content sum after it, which stands for all writes.
    pub writes: u64,
}

/// Extends the chain digest `previous` by one link.
pub fn chain(previous: u64, link: &Link) -> u64 {
    let parts = [u64::from(link.command_crc) << 32 | u64::from(link.status), link.revision as u64, link.writes];
    // Mixed after each part, so that the order and the place of every bit matter.
    parts.into_iter().fold(previous, |digest, part| mix(digest ^ mix(part)).rotate_left(23))
}

/// A bijection of 64 bits in which every input bit moves about half of the output's.
///
/// - Source: the finalizer of SplitMix64 (Steele et al., OOPSLA 2014), with its increment.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_revisions_and_records_apart() {
        let base = content(Revision::new(7, 1), 99);
        for other in
            [content(Revision::new(8, 1), 99), content(Revision::new(7, 2), 99), content(Revision::new(7, 1), 98)]
        {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn chain_depends_on_every_part_and_on_the_order() {
        let link = Link { command_crc: 1, status: 2, revision: 3, writes: 4 };
        let others = [
            Link { command_crc: 2, ..link },
            Link { status: 3, ..link },
            Link { revision: 4, ..link },
            Link { writes: 5, ..link },
            Link { command_crc: 2, status: 1, ..link },
        ];
        for other in others {
            assert_ne!(chain(0, &link), chain(0, &other), "{other:?}");
            assert_ne!(chain(chain(0, &link), &other), chain(chain(0, &other), &link), "{other:?}");
        }
    }

    #[test]
    fn values_are_fixed_since_members_compare_them() {
        assert_eq!(content(Revision::new(2, 0), 0x1234_5678), content(Revision::new(2, 0), 0x1234_5678));
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }
}
