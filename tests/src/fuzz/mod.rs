//! What reads bytes that others wrote, as functions of those bytes: fuzzers call them, and so do ordinary tests.
//!
//! Each takes any bytes and panics if the reader does, or if what it says cannot be true. In reading order: [`wal`] (the
//! log on disk), [`snapshot`] (snapshot files), [`peer`] (another member's messages), [`request`] (a client's calls);
//! [`corpus`] (where fuzzing begins) and [`mutate`] (fuzzing without a fuzzer). `tests/fuzz/README.md` says how to fuzz.

pub mod corpus;
pub mod mutate;
mod parts;
mod peer;
mod request;
mod snapshot;
mod wal;

pub use peer::peer;
pub use request::request;
pub use snapshot::snapshot;
pub use wal::wal;

/// A function of any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const TARGETS: [(&str, Target); 4] = [("wal", wal), ("snapshot", snapshot), ("peer", peer), ("request", request)];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
