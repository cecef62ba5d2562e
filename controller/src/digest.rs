//! Numbers and letters that hang on all that they are made of: for uids, names that nobody chose, and ties. What is stored
//! holds them, so that they never change; they keep nobody out.

/// Sixty-four bits of FNV-1a.
///
/// - Source: Fowler, Noll and Vo, whose offset and prime for 64 bits these are.
pub(crate) fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let byte = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, byte)
}

/// SplitMix64's last step: each bit of the result hangs on all of the number's.
pub(crate) fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// A number's lowest digits as so many letters.
///
/// - Source: Kubernetes' `k8s.io/apimachinery/pkg/util/rand`: no vowels and nothing that looks like another, so that such
///   names spell nothing.
pub(crate) fn letters(mut number: u64, count: usize) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let digit = || {
        let letter = LETTERS[(number % 27) as usize];
        number /= 27;
        char::from(letter)
    };
    std::iter::repeat_with(digit).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_hangs_on_them_and_they_do_not_change() {
        // FNV's own table of examples.
        assert_eq!((fnv(*b""), fnv(*b"foobar")), (0xcbf2_9ce4_8422_2325, 0x8594_4171_f739_67e8));
        assert_eq!((mix(0), mix(1)), (0, 0x5692_161d_100b_05e5));
        assert_eq!((letters(0, 5).as_str(), letters(27 * 26 + 1, 3).as_str()), ("bbbbb", "c9b"));
    }
}
