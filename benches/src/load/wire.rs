//! Reads single fields out of protobuf messages, since decoding whole answers would cost more than the load itself.

use anyhow::{Context, Result, bail};

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number.
    Varint(u64),
    /// A text, bytes, or a message.
    Bytes(&'a [u8]),
    /// A number of fixed width, which none of the messages read here has.
    Fixed,
}

/// The fields of a message in their order.
#[derive(Clone, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn next_field(&mut self) -> Result<(u64, Value<'a>)> {
        let tag = varint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.0)?),
            1 => {
                self.take(8)?;
                Value::Fixed
            }
            2 => {
                let len = usize::try_from(varint(&mut self.0)?)?;
                Value::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed
            }
            kind => bail!("wire type {kind}"),
        };
        Ok((tag >> 3, value))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).context("a field ends within")?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.next_field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Takes a varint off the beginning of `data`.
pub fn varint(data: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for (n, byte) in data.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            *data = &data[n + 1..];
            return Ok(value);
        }
    }
    bail!("a number ends within")
}

/// The number in field `wanted`; 0 if it is absent, as protobuf has it.
pub fn number(message: &[u8], wanted: u64) -> Result<u64> {
    for field in Fields(message) {
        if let (found, Value::Varint(value)) = field?
            && found == wanted
        {
            return Ok(value);
        }
    }
    Ok(0)
}

/// The bytes in field `wanted`; empty if it is absent.
pub fn bytes(message: &[u8], wanted: u64) -> Result<&[u8]> {
    for field in Fields(message) {
        if let (found, Value::Bytes(value)) = field?
            && found == wanted
        {
            return Ok(value);
        }
    }
    Ok(&[])
}

/// The revision in an answer's header.
pub fn revision(answer: &[u8]) -> Result<u64> {
    number(bytes(answer, 1)?, 3)
}

/// Writes `value` as a varint of exactly five bytes: longer than need be, which every decoder takes, so that a prepared
/// request keeps its length.
///
/// - Panics: from 2^35 on.
pub fn write_padded(place: &mut [u8], value: u64) {
    assert!(value < 1 << 35 && place.len() == PADDED_BYTES, "a revision has at most 35 bits here");
    for (n, byte) in place.iter_mut().enumerate() {
        *byte = (value >> (7 * n)) as u8 & 0x7f | if n + 1 < PADDED_BYTES { 0x80 } else { 0 };
    }
}

/// Bytes of a padded varint.
pub const PADDED_BYTES: usize = 5;

/// Counts the key-values of a RangeResponse that comes in pieces, without holding them.
#[derive(Debug, Default)]
pub struct ListCounter {
    /// What is still to come of a key-value whose beginning was seen.
    skip: usize,
    rest: Vec<u8>,
    begun: bool,
    /// Key-values seen so far.
    pub kvs: u64,
    /// Bytes seen so far, the frame header among them.
    pub bytes: u64,
    /// The answer's own count of keys in the range.
    pub count: u64,
    /// The revision in the answer's header.
    pub revision: u64,
}

/// Bytes of a tag and a length or a number at the most: with fewer, another piece may have to be waited for.
const HEAD_BYTES: usize = 20;

impl ListCounter {
    /// Sees the next piece; the first begins with the frame header.
    pub fn see(&mut self, piece: &[u8]) -> Result<()> {
        self.bytes += piece.len() as u64;
        let jump = self.skip.min(piece.len());
        self.skip -= jump;
        self.rest.extend_from_slice(&piece[jump..]);
        let held = std::mem::take(&mut self.rest);
        let mut data = &held[..];
        if !self.begun && data.len() >= 5 {
            data = &data[5..];
            self.begun = true;
        }
        while self.begun && data.len() >= HEAD_BYTES {
            data = self.field(data)?;
        }
        self.rest = data.to_vec();
        Ok(())
    }

    /// Sees that nothing more comes.
    pub fn end(&mut self) -> Result<()> {
        let held = std::mem::take(&mut self.rest);
        let mut data = &held[..];
        while !data.is_empty() {
            data = self.field(data)?;
        }
        anyhow::ensure!(self.skip == 0 && self.begun, "the list ends within");
        Ok(())
    }

    fn field<'a>(&mut self, mut data: &'a [u8]) -> Result<&'a [u8]> {
        let tag = varint(&mut data)?;
        let value = varint(&mut data)?;
        match (tag >> 3, tag & 7) {
            (number, 2) => {
                let len = usize::try_from(value)?;
                if number == 1 {
                    // A header has about thirty bytes and comes first: it is within the first piece.
                    let header = data.get(..len).context("a header in two pieces")?;
                    self.revision = self::number(header, 3)?;
                }
                self.kvs += u64::from(number == 2);
                let jump = len.min(data.len());
                self.skip = len - jump;
                Ok(&data[jump..])
            }
            (number, 0) => {
                if number == 4 {
                    self.count = value;
                }
                Ok(data)
            }
            (_, kind) => bail!("wire type {kind} in a list"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_proto::{etcdserverpb as pb, mvccpb};
    use prost::Message;

    #[test]
    fn fields_are_found_and_absent_ones_are_zero() {
        let header = pb::ResponseHeader { cluster_id: u64::MAX, member_id: 7, revision: 300, raft_term: 2 };
        let answer = pb::RangeResponse { header: Some(header), more: true, count: 5, ..Default::default() };
        let bytes = answer.encode_to_vec();
        assert_eq!(revision(&bytes).expect("well-formed"), 300);
        assert_eq!(number(&bytes, 4).expect("well-formed"), 5);
        assert_eq!(number(&bytes, 9).expect("well-formed"), 0);
        revision(&bytes[..7]).expect_err("cut within its header");
    }

    #[test]
    fn a_padded_number_is_read_as_itself() {
        for value in [0, 1, 127, 128, 1 << 34, (1 << 35) - 1] {
            let mut place = [0; PADDED_BYTES];
            write_padded(&mut place, value);
            assert_eq!(varint(&mut &place[..]).expect("whole"), value);
        }
    }

    #[test]
    fn a_list_is_counted_however_it_is_cut() {
        let kv = |n: usize| mvccpb::KeyValue {
            key: vec![b'k'; 37].into(),
            value: vec![b'v'; n * 7].into(),
            mod_revision: 9,
            ..Default::default()
        };
        let header = Some(pb::ResponseHeader { revision: 77, ..Default::default() });
        let answer = pb::RangeResponse { header, kvs: (0..40).map(kv).collect(), more: false, count: 1_000 };
        let mut frame = vec![0; 5];
        frame.extend(answer.encode_to_vec());
        for size in [64, 65, 100, 333, 4_096] {
            let mut counter = ListCounter::default();
            frame.chunks(size).try_for_each(|piece| counter.see(piece)).expect("well-formed");
            counter.end().expect("whole");
            assert_eq!((counter.kvs, counter.count, counter.revision), (40, 1_000, 77), "pieces of {size}");
            assert_eq!(counter.bytes as usize, frame.len());
        }
        let mut cut = ListCounter::default();
        cut.see(&frame[..frame.len() - 100]).expect("well-formed so far");
        cut.end().expect_err("a list cut within");
    }
}
