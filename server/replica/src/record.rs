//! One change in `mvccpb.KeyValue` wire form, counted and shared.

use crate::shared::Shared;
use bytes::Bytes;
use std::fmt;

/// The bytes of one `mvccpb.KeyValue`, canonically encoded: fields ascending, zeros left out.
///
/// It is its own allocation, never a slice of a request or an entry, so that keeping a value keeps nothing else.
/// A tombstone, and the stub that stays when a value has left memory, hold the key alone. The key comes first in
/// the encoding, so the same allocation serves the key index.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(Shared);

/// The fields of a [`Record`], borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The key; never empty in a valid record, but an etcd restore may leave an empty one behind.
    pub key: &'a [u8],
    /// Revision of the generation's first put; 0 in a tombstone.
    pub create_revision: i64,
    /// Revision of this change; 0 in a tombstone (the revision is in its key on disk).
    pub mod_revision: i64,
    /// Number of puts in this generation; 0 in a tombstone.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The lease it is attached to, 0 for none.
    pub lease: i64,
}

impl Record {
    /// Encodes `fields`; shape: the canonical `mvccpb.KeyValue`, equal to etcd's byte for byte.
    pub fn encode(fields: &Fields<'_>) -> Self {
        let mut out = Vec::with_capacity(fields.key.len() + fields.value.len() + 48);
        put_bytes(&mut out, 0x0a, fields.key);
        put_int(&mut out, 0x10, fields.create_revision);
        put_int(&mut out, 0x18, fields.mod_revision);
        put_int(&mut out, 0x20, fields.version);
        put_bytes(&mut out, 0x2a, fields.value);
        put_int(&mut out, 0x30, fields.lease);
        Self(Shared::new(&out))
    }

    /// Encodes a record that holds the key alone: a tombstone, or the stub of a value that is not in memory.
    pub fn key_only(key: &[u8]) -> Self {
        Self::encode(&Fields { key, ..Fields::default() })
    }

    /// Takes bytes that were checked by their CRC; errors: none, [`Record::fields`] finds malformed ones.
    pub fn from_wire(wire: &[u8]) -> Self {
        Self(Shared::new(wire))
    }

    /// The wire form.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The wire form as shared bytes, for an answer; costs one small allocation, copies nothing.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }

    /// The key, found without decoding the rest.
    pub fn key(&self) -> &[u8] {
        match self.0.first() {
            Some(0x0a) => {
                let (len, at) = read_varint(&self.0, 1).unwrap_or((0, 1));
                let rest = self.0.get(at..).unwrap_or_default();
                usize::try_from(len).ok().and_then(|len| rest.get(..len)).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// Decodes all fields; `None` if the bytes are not a `mvccpb.KeyValue`.
    pub fn fields(&self) -> Option<Fields<'_>> {
        let (wire, mut at, mut fields) = (&self.0[..], 0, Fields::default());
        while at < wire.len() {
            let (tag, next) = read_varint(wire, at)?;
            let (number, next) = read_varint(wire, next)?;
            at = next;
            match tag {
                0x10 => fields.create_revision = number as i64,
                0x18 => fields.mod_revision = number as i64,
                0x20 => fields.version = number as i64,
                0x30 => fields.lease = number as i64,
                0x0a | 0x2a => {
                    let end = at.checked_add(usize::try_from(number).ok()?)?;
                    let bytes = wire.get(at..end)?;
                    if tag == 0x0a {
                        fields.key = bytes
                    } else {
                        fields.value = bytes
                    }
                    at = end;
                }
                _ => return None,
            }
        }
        Some(fields)
    }
}

impl AsRef<[u8]> for Record {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields().fmt(f)
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_int(out: &mut Vec<u8>, tag: u8, number: i64) {
    if number != 0 {
        out.push(tag);
        put_varint(out, number as u64);
    }
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn read_varint(wire: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *wire.get(at)?;
        at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((number, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_proto::mvccpb::KeyValue;
    use prost::Message;

    #[test]
    fn encodes_as_prost_does() {
        let fields = Fields { key: b"k", create_revision: 2, mod_revision: 300, version: 7, value: b"v", lease: -1 };
        let record = Record::encode(&fields);
        let proto = KeyValue {
            key: "k".into(),
            create_revision: 2,
            mod_revision: 300,
            version: 7,
            value: "v".into(),
            lease: -1,
        };
        assert_eq!(record.wire(), proto.encode_to_vec());
        assert_eq!(record.fields(), Some(fields));
        assert_eq!(record.key(), b"k");
        assert_eq!(Record::key_only(b"k").wire(), KeyValue { key: "k".into(), ..Default::default() }.encode_to_vec());
    }

    #[test]
    fn refuses_what_is_no_record() {
        for wire in [&b"\x0a\x05abc"[..], b"\x99", b"\x12\x00", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
            assert_eq!(Record::from_wire(wire).fields(), None, "{wire:x?}");
        }
    }
}
