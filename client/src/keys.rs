//! Ranges of keys as etcd writes them: a first key, and an end that is empty, a key, or a zero byte.

use bytes::Bytes;

/// The end that means "all keys from the first one on".
pub const FROM_KEY: Bytes = Bytes::from_static(&[0]);

/// Keys from `key` on, up to `end`: empty for `key` alone, `\0` for no end, else the first key that does not belong.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Keys {
    /// The first key.
    pub key: Bytes,
    /// See [`Keys`].
    pub end: Bytes,
}

impl Keys {
    /// `key` alone.
    pub fn one(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), end: Bytes::new() }
    }

    /// All keys that begin with `prefix`; all keys there are, if it is empty.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        if prefix.is_empty() {
            return Self::all();
        }
        let end = prefix_end(&prefix);
        Self { key: prefix, end }
    }

    /// All keys from `key` on.
    pub fn from(key: impl Into<Bytes>) -> Self {
        let key = key.into();
        let key = if key.is_empty() { FROM_KEY } else { key };
        Self { key, end: FROM_KEY }
    }

    /// The keys from `key` up to `end`, without `end` itself.
    pub fn range(key: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { key: key.into(), end: end.into() }
    }

    /// All keys.
    pub fn all() -> Self {
        Self { key: FROM_KEY, end: FROM_KEY }
    }
}

/// The first key after all keys that begin with `prefix`, as clientv3 counts it: the last byte that is not 0xff is raised
/// by one and the rest cut off. A prefix of 0xff alone, and the empty one, have no such key: the answer is [`FROM_KEY`].
///
/// ```
/// assert_eq!(&mechi_client::prefix_end(b"foo")[..], b"fop");
/// assert_eq!(&mechi_client::prefix_end(b"a\xff")[..], b"b");
/// assert_eq!(&mechi_client::prefix_end(b"\xff\xff")[..], b"\0");
/// ```
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => FROM_KEY,
    }
}

/// The first key after `key`.
pub(crate) fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_etcd_ends_it() {
        let rows: [(&[u8], &[u8]); 6] = [
            (b"", b"\0"),
            (b"a", b"b"),
            (b"a\xff", b"b"),
            (b"a\xff\xff", b"b"),
            (b"\xff", b"\0"),
            (b"/registry/pods/", b"/registry/pods0"),
        ];
        for (prefix, end) in rows {
            assert_eq!(&prefix_end(prefix)[..], end, "{prefix:?}");
        }
        assert_eq!(Keys::prefix(""), Keys::all());
    }
}
