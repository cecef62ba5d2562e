//! The controllers: each looks at a copy of the store and says what to write, so that what is becomes what is wanted.
//!
//! A reconciler is a function of the copy, the key and the time: no I/O, no clock, no randomness, nothing remembered. Work of
//! several steps is worked out anew from what is there, so that a crash between any two of them is no special case. Each
//! writes only what it owns, by an owner's reference, or its own status, or finalizers that it set.

pub mod replica_set;
pub mod deployment;
pub mod collect;
pub mod namespace;
pub mod manager;

use crate::kv::Txn;
use crate::types::time::Time;

/// What time it is, in two ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back: for waits.
    pub ms: u64,
    /// The wall clock's: for what people read.
    pub time: Time,
}

impl Now {
    /// When the wall clock should show this, if it goes on as it does.
    pub fn ms_at(&self, time: Time) -> u64 {
        let seconds = u64::try_from(time.0.saturating_sub(self.time.0)).unwrap_or(0);
        self.ms.saturating_add(seconds.saturating_mul(1_000))
    }
}

/// Something that people should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether it is a warning.
    pub is_warning: bool,
    /// For programs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What a reconciler wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be written one after the other, each with the leader's fence; the first that is refused ends it.
    pub txns: Vec<Txn>,
    /// When to look again, even if nothing changes, in milliseconds of [`Now::ms`].
    pub again_ms: Option<u64>,
    /// What to tell people if it was written.
    pub notes: Vec<Note>,
}

impl Plan {
    /// Whether all is as it should be.
    pub fn is_empty(&self) -> bool {
        self.txns.is_empty()
    }

    fn again_at(&mut self, ms: u64) {
        self.again_ms = Some(self.again_ms.map_or(ms, |other| other.min(ms)));
    }

    fn note(&mut self, is_warning: bool, reason: &'static str, message: String) {
        self.notes.push(Note { is_warning, reason, message });
    }
}
