//! etcd's `HashKV`: one CRC-32C over the retained revisions, equal to etcd's bit for bit.
//!
//! Which revisions count follows from the compact revision and the hashed one alone, so the sum does not depend on how
//! far the sweep is. A compaction's own hash is taken over the revisions that it removes, too; it is kept for later
//! questions, as etcd does, since members compare it.
//!
//! - Source: etcd `server/storage/mvcc/hash.go`, `key_index.go` (`keep`).

use super::Mvcc;
use super::key_index::Version;
use super::tree::Entry;
use crate::limits::{COMPACTION_HASH_BYTES_MAX, COMPACTION_HASHES_MAX, SLICE_KEYS_MAX};
use crate::outcome::{Error, Fatal};
use crate::record::Record;
use crate::store::Values;
use crate::types::Revision;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// The answer to `HashKV`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The sum.
    pub hash: u32,
    /// The compact revision that it was computed with; -1 if there was none.
    pub compact_revision: i64,
    /// The newest revision in it.
    pub hash_revision: i64,
    /// Keeps the sweep waiting until the hash of a compaction is handed in.
    claim: Option<Arc<()>>,
}

/// The hashes of past compactions, and those still to be computed.
#[derive(Default)]
pub(super) struct CompactionHashes {
    stored: VecDeque<HashKv>,
    wanted: VecDeque<Wanted>,
}

/// A compaction whose hash is not computed yet.
struct Wanted {
    /// The compact revision before it.
    before: i64,
    revision: i64,
    /// The job that was handed out for it; dead once it is dropped.
    job: Option<Weak<()>>,
}

/// Gathers, slice by slice, what a hash is over; so a lock on the state is held only per slice.
///
/// While it lives, [`Mvcc::sweep`] must be called with a floor of at most [`HashJob::floor`].
pub struct HashJob {
    compact_revision: i64,
    revision: i64,
    /// A compaction keeps the tombstones at its revision.
    keeps_tombstones: bool,
    /// Where the next slice begins.
    next: Option<Bytes>,
    /// Revisions above the compact revision, and those below it that a reader at `revision` sees.
    found: Vec<Piece>,
    /// Other retained revisions; they count only if no key at all is kept.
    spare: Vec<Piece>,
    any_kept: bool,
    known: Option<HashKv>,
    claim: Option<Arc<()>>,
}

struct Piece {
    revision: Revision,
    tombstone: bool,
    resident: bool,
    head: Record,
}

impl HashJob {
    /// Starts a hash over the revisions up to `revision` (0: now).
    ///
    /// - Errors: [`Error::FutureRevision`], [`Error::Compacted`].
    pub fn new(mvcc: &Mvcc, revision: i64) -> Result<Self, Error> {
        // A compaction to revision 0 has a hash like any other; who asks for 0 asks for now.
        let is_it = |of: i64| of == revision && revision > 0;
        if let Some(known) = mvcc.hashes.stored.iter().find(|hash| is_it(hash.hash_revision)) {
            let job = Self::start(known.compact_revision, revision, true);
            return Ok(Self { known: Some(known.clone()), next: None, ..job });
        }
        if let Some(wanted) = mvcc.hashes.wanted.iter().find(|wanted| is_it(wanted.revision)) {
            return Ok(Self::start(wanted.before, revision, true));
        }
        match revision {
            0 => Ok(Self::start(mvcc.compact_revision, mvcc.revision, false)),
            1.. if revision < mvcc.compact_revision => Err(Error::Compacted),
            _ if revision > mvcc.revision => Err(Error::FutureRevision),
            _ => Ok(Self::start(mvcc.compact_revision, revision, false)),
        }
    }

    fn start(compact_revision: i64, revision: i64, keeps_tombstones: bool) -> Self {
        Self {
            compact_revision,
            revision,
            keeps_tombstones,
            next: Some(Bytes::new()),
            found: Vec::new(),
            spare: Vec::new(),
            any_kept: false,
            known: None,
            claim: None,
        }
    }

    /// The floor for [`Mvcc::sweep`] while this job lives: also after the last step, since [`HashJob::finish`] still
    /// reads values that left memory, and a sweep takes them out of the store.
    pub fn floor(&self) -> i64 {
        if self.known.is_some() { i64::MAX } else { self.compact_revision }
    }

    /// Looks at up to [`SLICE_KEYS_MAX`] keys; returns whether there are more.
    ///
    /// - Errors: [`Error::Compacted`] if the sweep has gone beyond the floor; the job is then useless.
    pub fn step(&mut self, mvcc: &Mvcc) -> Result<bool, Error> {
        let Some(from) = self.next.take() else { return Ok(false) };
        if mvcc.sweep_target() > self.compact_revision {
            return Err(Error::Compacted);
        }
        for (visited, entry) in mvcc.keys.iter_from(&from).enumerate() {
            if visited == SLICE_KEYS_MAX {
                self.next = Some(Bytes::copy_from_slice(entry.key()));
                break;
            }
            let newest = entry.newest(self.revision);
            let kept = newest
                .filter(|version| !version.tombstone || self.keeps_tombstones && version.main == self.revision)
                .map(Version::revision);
            self.any_kept |= kept.is_some();
            // Of all versions that are compacted, only the newest is retained, and no tombstone of them counts.
            if let Some(version) = entry.at(self.compact_revision.min(self.revision)) {
                if kept == Some(version.revision()) {
                    self.found.push(version.into());
                } else if !self.any_kept {
                    self.spare.push(version.into());
                }
            }
            let above = entry.versions().rev().skip_while(|version| version.main > self.revision);
            let above = above.take_while(|version| version.main > self.compact_revision);
            self.found.extend(above.map(Piece::from));
        }
        if self.any_kept {
            self.spare = Vec::new();
        }
        Ok(self.next.is_some())
    }

    /// Computes the hash, without any lock, of what all the steps gathered.
    ///
    /// - Errors: those of `values`; [`Fatal::Bug`] if steps are missing.
    pub fn finish(mut self, values: &dyn Values) -> Result<HashKv, Fatal> {
        if let Some(known) = self.known {
            return Ok(known);
        }
        if self.next.is_some() {
            return Err(Fatal::Bug("a hash was finished before its last step".into()));
        }
        let mut pieces = self.found;
        pieces.append(&mut self.spare);
        pieces.sort_unstable_by_key(|piece| piece.revision);
        let mut hash = crc32c::crc32c(b"key");
        for piece in pieces {
            hash = crc32c::crc32c_append(hash, &revision_key(piece.revision));
            if piece.tombstone {
                hash = crc32c::crc32c_append(hash, b"t");
            }
            let record = if piece.resident { piece.head } else { values.load(piece.revision)? };
            hash = crc32c::crc32c_append(hash, record.wire());
        }
        Ok(HashKv { hash, compact_revision: self.compact_revision, hash_revision: self.revision, claim: self.claim })
    }
}

impl From<&Version> for Piece {
    fn from(version: &Version) -> Self {
        Self {
            revision: version.revision(),
            tombstone: version.tombstone,
            resident: version.resident,
            head: version.head.clone(),
        }
    }
}

/// etcd's key of a revision in its `key` bucket, without the tombstone's mark.
fn revision_key(revision: Revision) -> [u8; 17] {
    let mut key = [b'_'; 17];
    key[..8].copy_from_slice(&revision.main.to_be_bytes());
    key[9..].copy_from_slice(&i64::from(revision.sub).to_be_bytes());
    key
}

impl Mvcc {
    /// Keeps the hash of a compaction that a job from [`Mvcc::sweep`] (or for that very revision) has computed, for
    /// [`HashJob::new`] to answer with; other hashes are ignored.
    pub fn remember_hash(&mut self, hash: HashKv) {
        let is_it = |wanted: &Wanted| wanted.revision == hash.hash_revision && wanted.before == hash.compact_revision;
        if let Some(at) = self.hashes.wanted.iter().position(is_it) {
            self.hashes.wanted.remove(at);
            if self.hashes.stored.len() == COMPACTION_HASHES_MAX {
                self.hashes.stored.pop_front();
            }
            self.hashes.stored.push_back(HashKv { claim: None, ..hash });
        }
    }

    /// Notes that the compaction to `revision`, which is about to happen, shall be hashed.
    pub(super) fn want_hash(&mut self, revision: i64) {
        let hashes = &mut self.hashes;
        if self.live_bytes <= COMPACTION_HASH_BYTES_MAX && hashes.wanted.len() < COMPACTION_HASHES_MAX {
            hashes.wanted.push_back(Wanted { before: self.compact_revision, revision, job: None });
        }
    }

    /// The revision beyond which nothing may be removed before the oldest wanted hash is there; hands out its job once.
    pub(super) fn hash_floor(&mut self, job: &mut Option<HashJob>) -> Option<i64> {
        loop {
            let wanted = self.hashes.wanted.front_mut()?;
            match &wanted.job {
                None => {
                    let claim = Arc::new(());
                    wanted.job = Some(Arc::downgrade(&claim));
                    let start = HashJob::start(wanted.before, wanted.revision, true);
                    *job = Some(HashJob { claim: Some(claim), ..start });
                    return Some(wanted.before);
                }
                Some(claim) if claim.strong_count() > 0 => return Some(wanted.before),
                // The job was dropped: this compaction goes without a hash.
                Some(_) => drop(self.hashes.wanted.pop_front()),
            }
        }
    }
}
