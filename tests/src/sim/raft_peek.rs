//! Looks at the few fields of a raft message that the invariants speak of, without raft-rs.

/// raft-rs's `eraftpb.Message`, as far as it matters here; fields that are not there are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peek {
    /// `MessageType` by number.
    pub(super) kind: u64,
    /// Who sent it.
    pub(super) from: u64,
    /// The sender's term.
    pub(super) term: u64,
    /// The index that it speaks of.
    pub(super) index: u64,
    /// Whether it refuses.
    pub(super) reject: bool,
}

/// `MsgAppend`.
pub(super) const APPEND: u64 = 3;
/// `MsgAppendResponse`.
pub(super) const APPEND_RESPONSE: u64 = 4;
/// `MsgRequestVote`.
pub(super) const REQUEST_VOTE: u64 = 5;
/// `MsgRequestVoteResponse`.
pub(super) const REQUEST_VOTE_RESPONSE: u64 = 6;

/// Reads the message's fields; those that it does not know are passed over.
pub(super) fn peek(mut bytes: &[u8]) -> Option<Peek> {
    let mut peek = Peek::default();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => varint(&mut bytes)?,
            1 => skip(&mut bytes, 8)?,
            2 => {
                let length = varint(&mut bytes)?;
                skip(&mut bytes, length)?
            }
            5 => skip(&mut bytes, 4)?,
            _ => return None,
        };
        match tag >> 3 {
            1 => peek.kind = value,
            3 => peek.from = value,
            4 => peek.term = value,
            6 => peek.index = value,
            10 => peek.reject = value != 0,
            _ => {}
        }
    }
    Some(peek)
}

fn skip(bytes: &mut &[u8], length: u64) -> Option<u64> {
    *bytes = bytes.get(usize::try_from(length).ok()?..)?;
    Some(0)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
