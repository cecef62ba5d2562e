//! How one input holds several files or messages: a byte of flags, then parts, each behind three bytes of length.

/// The flag by which sums are made right before the bytes are read: a fuzzer does not guess a CRC, and what lies behind
/// it must stand anything as well.
pub(super) const REPAIRED: u8 = 1;

/// An input taken apart; a last part that is cut short is what there is of it.
pub(super) struct Parts<'a> {
    pub(super) flags: u8,
    pub(super) parts: Vec<&'a [u8]>,
}

pub(super) fn split(input: &[u8], parts_max: usize) -> Parts<'_> {
    let (flags, mut rest) = input.split_first().map_or((0, input), |(flags, rest)| (*flags, rest));
    let mut parts = Vec::new();
    while parts.len() < parts_max
        && let Some((length, behind)) = rest.split_first_chunk::<3>()
    {
        let length = usize::from(length[0]) | usize::from(length[1]) << 8 | usize::from(length[2]) << 16;
        let (part, behind) = behind.split_at(length.min(behind.len()));
        parts.push(part);
        rest = behind;
    }
    Parts { flags, parts }
}

/// Puts an input together; a part has fewer than 16 MiB.
pub(super) fn join<'a>(flags: u8, parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut input = vec![flags];
    for part in parts {
        input.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
        input.extend_from_slice(part);
    }
    input
}
