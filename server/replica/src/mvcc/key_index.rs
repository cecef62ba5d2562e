//! One key with all its retained versions: the newest inline, older ones in a list that most keys never need.

use super::tree::Entry;
use super::{Change, Item, Totals};
use crate::digest;
use crate::record::Record;
use crate::shared::HEADER_BYTES;
use crate::types::Revision;
use std::collections::VecDeque;

/// etcd's revision key on disk (8-byte main, `_`, 8-byte sub); counted as part of a revision's size.
const REVISION_KEY_BYTES: u64 = 17;

/// One put or delete of a key.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// The whole record, or a stub with the key alone; its key bytes are the index key.
    pub(super) head: Record,
    pub(super) main: i64,
    /// 0 for a tombstone.
    pub(super) create_revision: i64,
    /// 0 for a tombstone.
    pub(super) version: i64,
    pub(super) sub: u32,
    pub(super) crc: u32,
    pub(super) wire_len: u32,
    pub(super) resident: bool,
    /// Ends its generation: the next put starts a new one.
    pub(super) tombstone: bool,
}

impl Version {
    pub(super) fn revision(&self) -> Revision {
        Revision::new(self.main, self.sub)
    }

    /// What it counts for in live and unreclaimed bytes.
    pub(super) fn size(&self) -> u64 {
        revision_bytes(self.wire_len as usize, self.tombstone)
    }

    pub(super) fn change(&self) -> Change {
        Change {
            revision: self.revision(),
            tombstone: self.tombstone,
            head: self.head.clone(),
            resident: self.resident,
            crc: self.crc,
        }
    }

    /// Its part of the content sum.
    pub(super) fn content(&self) -> u64 {
        digest::content(self.revision(), self.crc)
    }

    pub(super) fn weight(&self) -> Totals {
        if self.tombstone {
            return Totals::default();
        }
        let len_bytes = u64::from(self.wire_len.max(1).ilog2() / 7 + 1);
        Totals { keys: 1, framed_bytes: 1 + len_bytes + u64::from(self.wire_len) }
    }

    pub(super) fn item(&self) -> Item {
        Item {
            head: self.head.clone(),
            resident: self.resident,
            create_revision: self.create_revision,
            mod_revision: self.revision(),
            version: self.version,
            crc: self.crc,
            wire_len: self.wire_len,
        }
    }

    /// Bytes of the allocation behind `head`.
    pub(super) fn record_bytes(&self) -> u64 {
        allocated(self.head.wire().len())
    }

    /// Whether nobody reads it any more who reads at or above `compact`; `next` is the key's next version.
    pub(super) fn is_garbage(&self, next: Option<&Version>, compact: i64) -> bool {
        #[cfg(feature = "mutants")]
        let compact =
            compact + i64::from(self.tombstone && crate::mutants::active("tombstone_dropped_at_compact_revision"));
        if self.tombstone { self.main < compact } else { next.is_some_and(|next| next.main <= compact) }
    }
}

/// What a revision with `wire_len` bytes of record counts for.
pub(super) fn revision_bytes(wire_len: usize, tombstone: bool) -> u64 {
    wire_len as u64 + REVISION_KEY_BYTES + u64::from(tombstone)
}

/// Bytes that an allocation for `len` bytes of wire form takes, rounded as allocators do.
pub(super) fn allocated(len: usize) -> u64 {
    ((len + HEADER_BYTES) as u64).next_multiple_of(16)
}

/// A key; its generations are the stretches between tombstones.
pub(super) struct KeyEntry {
    pub(super) latest: Version,
    /// Ascending, all below `latest`. Boxed twice to cost a key with one version 8 bytes instead of 32; a deque, since what
    /// is swept leaves at the front, a little at a time.
    #[allow(clippy::box_collection)]
    older: Option<Box<VecDeque<Version>>>,
}

impl KeyEntry {
    /// Makes an entry of ascending versions of one key; `None` if there are none.
    pub(super) fn from_versions(mut versions: Vec<Version>) -> Option<Self> {
        let latest = versions.pop()?;
        versions.shrink_to_fit();
        Some(Self { latest, older: (!versions.is_empty()).then(|| Box::new(versions.into())) })
    }

    /// The versions before the newest one, ascending.
    pub(super) fn older(&self) -> impl DoubleEndedIterator<Item = &Version> {
        self.older.iter().flat_map(|older| older.iter())
    }

    /// All versions, ascending.
    pub(super) fn versions(&self) -> impl DoubleEndedIterator<Item = &Version> {
        self.older().chain([&self.latest])
    }

    pub(super) fn versions_mut(&mut self) -> impl Iterator<Item = &mut Version> {
        self.older.iter_mut().flat_map(|older| older.iter_mut()).chain([&mut self.latest])
    }

    /// The newest version at or below `at`, tombstone or not.
    pub(super) fn newest(&self, at: i64) -> Option<&Version> {
        if self.latest.main <= at {
            return Some(&self.latest);
        }
        let older = self.older.as_deref()?;
        older.partition_point(|version| version.main <= at).checked_sub(1).map(|last| &older[last])
    }

    /// What a reader at `at` sees.
    pub(super) fn at(&self, at: i64) -> Option<&Version> {
        self.newest(at).filter(|version| !version.tombstone)
    }

    pub(super) fn push(&mut self, version: Version) {
        let older = std::mem::replace(&mut self.latest, version);
        self.older.get_or_insert_default().push_back(older);
    }

    /// Takes out up to `max` garbage versions, never the newest one (see [`KeyEntry::is_dead`]).
    pub(super) fn prune(&mut self, compact: i64, max: usize, removed: &mut Vec<Version>) {
        let Some(older) = &mut self.older else { return };
        let is_garbage = |older: &VecDeque<Version>, at: usize| {
            older[at].is_garbage(Some(older.get(at + 1).unwrap_or(&self.latest)), compact)
        };
        let garbage = (0..older.len().min(max)).take_while(|at| is_garbage(older, *at)).count();
        removed.extend(older.drain(..garbage));
        // Only a transaction that changes one key twice leaves garbage behind something that is none.
        let (mut at, mut left) = (0, max - garbage);
        while left > 0 && at < older.len() && older[at].main <= compact {
            if is_garbage(older, at) {
                removed.extend(older.remove(at));
                left -= 1;
            } else {
                at += 1;
            }
        }
        if older.is_empty() {
            self.older = None;
        } else if older.len() < older.capacity() / 4 {
            older.shrink_to(older.len() * 2);
        }
    }

    /// Whether the whole key is garbage: a tombstone below `compact` is all that is left.
    pub(super) fn is_dead(&self, compact: i64) -> bool {
        self.older.is_none() && self.latest.is_garbage(None, compact)
    }
}

impl Entry for KeyEntry {
    fn key(&self) -> &[u8] {
        self.latest.head.key()
    }

    fn weight(&self) -> Totals {
        self.latest.weight()
    }
}
