//! What the clients of a workload wrote down: each attempt with what is known of it, and each read with what it showed.

use bytes::Bytes;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

/// Values up to this length are kept as they are.
const SHORT_BYTES: usize = 64;

/// One attempt to change something; it was sent at most once.
#[derive(Clone, Debug)]
pub struct Write {
    /// Who tried.
    pub client: usize,
    /// What it tried.
    pub what: What,
    /// The newest revision that any client had been told when it was sent; it must come after that one.
    pub after: i64,
    /// What is known of it.
    pub outcome: Outcome,
}

/// What one attempt would change. No value of a put is ever tried twice.
#[derive(Clone, Debug)]
pub enum What {
    /// Puts a value, with a lease or 0.
    #[allow(missing_docs)]
    Put { key: Bytes, value: Bytes, lease: i64 },
    /// Deletes a key that only this client changes.
    #[allow(missing_docs)]
    Delete { key: Bytes },
    /// If the key `guard`, which all clients change, is of revision `at`, puts `value` there and at `beside`.
    #[allow(missing_docs)]
    Swap { guard: Bytes, at: i64, value: Bytes, beside: Bytes },
}

/// What a client knows of its attempt.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Acknowledged: it changed something at this revision.
    Wrote(i64),
    /// Acknowledged: at the revision `at` there was nothing to change; a swap's guard was of revision `found`.
    #[allow(missing_docs)]
    Idle { at: i64, found: i64 },
    /// It changes nothing, now or later.
    Refused(String),
    /// It may have changed something, or may yet.
    Unknown(String),
}

/// One key as a read showed it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Read {
    pub client: usize,
    pub key: Bytes,
    /// The answer's revision.
    pub at: i64,
    /// Value and revision, if the key was there.
    pub found: Option<(Bytes, i64)>,
    /// Whether it had to show everything that was acknowledged before it was asked; `after` is the newest such revision.
    pub is_linearizable: bool,
    pub after: i64,
}

/// A change as a watch showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Change {
    pub revision: i64,
    pub key: Bytes,
    /// `None` for a delete.
    pub value: Option<Bytes>,
}

/// One lease's life as its client saw it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The key that ends with it.
    pub key: Bytes,
    /// Seconds.
    pub ttl: u64,
    /// When the grant, and each acknowledged renewal, was sent and was answered.
    pub promises: Vec<(Instant, Instant)>,
    /// When a renewal's answer said that the lease is gone.
    pub gone: Option<Instant>,
}

/// A value as it is kept for comparing: a long one by its beginning, length and hash.
pub fn brief(value: &Bytes) -> Bytes {
    if value.len() <= SHORT_BYTES {
        return value.clone();
    }
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    let begin = String::from_utf8_lossy(&value[..SHORT_BYTES / 2]).into_owned();
    format!("{begin} ({} bytes, {:x})", value.len(), hasher.finish()).into()
}
