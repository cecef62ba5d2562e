//! The nouns that every module shares: ids, revisions, times and key ranges.

use bytes::Bytes;
use std::cmp::Ordering;
use std::fmt;

/// A raft log index; 0 is "before the first entry".
pub type Index = u64;

/// A raft term; 0 is "before the first election".
pub type Term = u64;

/// A member of the cluster, by etcd's formula (sha1 over its peer URLs and the cluster token).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A lease, by the client's or the server's choice; never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Milliseconds on this boot's monotonic clock: never logged, never compared between members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoMillis(pub u64);

/// etcd's revision of one change: the store's revision, and the change's place within its transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The store's revision; one per transaction that changed something. The empty store is at 1.
    pub main: i64,
    /// 0 for the first change of a transaction, then counting up.
    pub sub: u32,
}

impl Revision {
    /// Makes the revision `main.sub`.
    pub const fn new(main: i64, sub: u32) -> Self {
        Self { main, sub }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

/// The keys that a request speaks of, as etcd reads `key` and `range_end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub from: Bytes,
    /// Where the range ends.
    pub to: Bound,
}

/// The end of a [`KeyRange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Only the key `from` itself.
    Single,
    /// All keys below this one; a bound at or below `from` makes the range empty.
    Before(Bytes),
    /// All keys from `from` on.
    Open,
}

impl KeyRange {
    /// Reads etcd's pair: no `range_end` is one key, `"\0"` is open, anything else is an exclusive end.
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        let to = match &range_end[..] {
            [] => Bound::Single,
            [0] => Bound::Open,
            _ => Bound::Before(range_end.clone()),
        };
        Self { from: key.clone(), to }
    }

    /// Makes the range of one key.
    pub fn single(key: &Bytes) -> Self {
        Self { from: key.clone(), to: Bound::Single }
    }

    /// Makes the range of every key.
    pub fn all() -> Self {
        Self { from: Bytes::new(), to: Bound::Open }
    }

    /// Tells whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.to {
            Bound::Single => self.from == key,
            Bound::Before(to) => self.from <= key && key < &to[..],
            Bound::Open => self.from <= key,
        }
    }

    /// Tells whether no key can lie in the range.
    pub fn is_empty(&self) -> bool {
        matches!(&self.to, Bound::Before(to) if to <= &self.from)
    }

    /// Tells whether the range is one key.
    pub fn is_single(&self) -> bool {
        self.to == Bound::Single
    }

    /// Compares `key` with the range's end: `Less` while the key is still before it.
    pub fn cmp_end(&self, key: &[u8]) -> Ordering {
        match &self.to {
            Bound::Single if key <= &self.from[..] => Ordering::Less,
            Bound::Single => Ordering::Greater,
            Bound::Before(to) => key.cmp(&to[..]),
            Bound::Open => Ordering::Less,
        }
    }
}
