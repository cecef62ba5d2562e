//! How everything is written: guards, and then all or nothing.

use super::{Guard, LeaseId, Revision};
use crate::keys;
use crate::limits::{TXN_BYTES_MAX, TXN_OPERATIONS_MAX};
use bytes::Bytes;

/// One key's new state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// It holds this.
    Put {
        /// The key.
        key: Bytes,
        /// What it holds.
        value: Bytes,
        /// The lease that it goes with; 0 if none.
        lease: LeaseId,
    },
    /// It is not there.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Write {
    /// The key that it is about.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Guards and writes.
///
/// Invariant: no key is written twice, which etcd refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    guards: Vec<Guard>,
    writes: Vec<Write>,
    bytes: usize,
}

/// Bytes that a guard or a write costs beside its key and value.
const WRAPPING_BYTES: usize = 32;

impl Txn {
    /// Writes nothing, under no condition.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only while this component's election is the one that was won.
    pub fn fenced(self, component: &str, token: Revision) -> Self {
        self.guard(Guard::Fence { key: keys::election(component).into(), token })
    }

    /// Only if this holds, too. The same guard twice is one.
    pub fn guard(mut self, guard: Guard) -> Self {
        if !self.guards.contains(&guard) {
            self.bytes += guard.key().len() * 2 + WRAPPING_BYTES;
            self.guards.push(guard);
        }
        self
    }

    /// Puts a value, without a lease.
    pub fn put(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.put_leased(key, value, 0)
    }

    /// Puts a value that goes with a lease.
    pub fn put_leased(self, key: impl Into<Bytes>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.write(Write::Put { key: key.into(), value: value.into(), lease })
    }

    /// Deletes a key.
    pub fn delete(self, key: impl Into<Bytes>) -> Self {
        self.write(Write::Delete { key: key.into() })
    }

    /// Adds a write.
    ///
    /// - Panics: if the key is written already.
    pub fn write(mut self, write: Write) -> Self {
        assert!(self.writes.iter().all(|other| other.key() != write.key()), "{:?} is written twice", write.key());
        self.bytes += write.key().len() + WRAPPING_BYTES;
        if let Write::Put { value, .. } = &write {
            self.bytes += value.len();
        }
        self.writes.push(write);
        self
    }

    /// Adds all of another one.
    pub fn and(mut self, other: Self) -> Self {
        for guard in other.guards {
            self = self.guard(guard);
        }
        for write in other.writes {
            self = self.write(write);
        }
        self
    }

    /// Its guards.
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// Its writes.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Whether a store takes it, and another of the other's size with it.
    pub fn fits_with(&self, other: &Self) -> bool {
        self.guards.len() + other.guards.len() <= TXN_OPERATIONS_MAX
            && self.writes.len() + other.writes.len() <= TXN_OPERATIONS_MAX
            && self.bytes + other.bytes <= TXN_BYTES_MAX
    }

    /// Whether a store takes it.
    pub fn fits(&self) -> bool {
        self.fits_with(&Self::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_counts_once_and_sizes_are_bounded() {
        let one = Txn::new().fenced("scheduler", 7).fenced("scheduler", 7).put("a", "1");
        assert_eq!((one.guards().len(), one.writes().len(), one.fits()), (1, 1, true));
        let full = (0..TXN_OPERATIONS_MAX).fold(Txn::new(), |txn, n| txn.put(format!("k{n}"), "v"));
        assert!(full.fits() && !full.fits_with(&one));
        assert!(!Txn::new().put("big", vec![0; TXN_BYTES_MAX]).fits());
    }

    #[test]
    #[should_panic(expected = "is written twice")]
    fn a_key_is_written_once() {
        let _ = Txn::new().put("a", "1").delete("a");
    }
}
