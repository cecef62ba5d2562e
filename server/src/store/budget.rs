//! The bound of values in memory.

/// The bound of values in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Bytes of resident records above which the keeper flushes and evicts.
    pub limit: u64,
}

impl MemoryBudget {
    /// Bytes above which the store is used, if it was not before: that takes a while, and the limit is near.
    pub fn near(&self) -> u64 {
        self.limit / 4 * 3
    }

    /// Bytes at which apply waits for the keeper: an eighth above the limit.
    pub fn ceiling(&self) -> u64 {
        self.limit.saturating_add(self.limit / 8)
    }

    /// Bytes that eviction goes down to: an eighth below the limit, so that it need not run all the time.
    pub fn target(&self) -> u64 {
        self.limit - self.limit / 8
    }

    /// The budget over `floor` bytes that cannot leave memory, as the index: another eighth may come before it is
    /// worth it to look again. Were the limit kept, a large index would mean a flush for every entry.
    pub fn above(&self, floor: u64) -> Self {
        Self { limit: self.limit.max(floor.saturating_add(self.limit / 8)) }
    }
}
