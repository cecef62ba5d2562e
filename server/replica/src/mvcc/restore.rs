//! Building the whole index at once from records in revision order: after a restart or from a snapshot.

use super::compact::Sweeper;
use super::key_index::{KeyEntry, Version};
use super::log::Log;
use super::tree::Tree;
use super::{Change, Mvcc};
use crate::outcome::Fatal;
use crate::record::Record;
use crate::types::{LeaseId, Revision};
use bytes::Bytes;

/// A live key and the lease that it is attached to.
pub type Attachment = (Bytes, LeaseId);

/// One record as it was read; `lease` is kept until it is known whether the version is live.
struct Row {
    version: Version,
    lease: i64,
}

impl Mvcc {
    /// Builds the state from all retained records: revision, whether it is a tombstone, the whole record, and whether
    /// the record shall stay in memory (else only its key does, and readers load it).
    ///
    /// Records that `compact_revision` makes garbage are dropped on the way. The revision log begins at the compact
    /// revision. Nothing counts as flushed, see [`Mvcc::set_flushed`].
    ///
    /// - Shape: revisions strictly ascending, at most `revision`.
    /// - Errors: [`Fatal::EngineLost`] if the records are not what a store can have held, in words.
    pub fn restore(
        revision: i64,
        compact_revision: i64,
        records: impl IntoIterator<Item = (Revision, bool, Record, bool)>,
    ) -> Result<Self, Fatal> {
        Self::restore_with_leases(revision, compact_revision, records).map(|(mvcc, _)| mvcc)
    }

    /// Does the same, and returns the live keys with a lease, ascending.
    pub fn restore_with_leases(
        revision: i64,
        compact_revision: i64,
        records: impl IntoIterator<Item = (Revision, bool, Record, bool)>,
    ) -> Result<(Self, Vec<Attachment>), Fatal> {
        if revision < 1 || compact_revision > revision {
            return Err(lost(format!("revision {revision} with compact revision {compact_revision}")));
        }
        let mut rows = Vec::new();
        let mut last = Revision::default();
        for (at, tombstone, record, resident) in records {
            if at <= last || at.main > revision {
                return Err(lost(format!("revision {at} after {last}, the newest being {revision}")));
            }
            last = at;
            rows.push(read_row(at, tombstone, record, resident)?);
        }
        // Stable: the versions of a key stay in the order of their revisions.
        rows.sort_by(|a, b| a.version.head.key().cmp(b.version.head.key()));
        let mut mvcc = Self::new();
        mvcc.revision = revision;
        #[cfg(feature = "mutants")]
        if crate::mutants::active("revision_from_keys_at_open") {
            let live = rows.iter().filter(|row| !row.version.tombstone).map(|row| row.version.main);
            mvcc.revision = live.max().unwrap_or(1);
        }
        mvcc.compact_revision = compact_revision;
        mvcc.sweeper = Sweeper::new(compact_revision);
        let (mut entries, mut changes, mut attachments) = (Vec::new(), Vec::new(), Vec::new());
        let mut rows = rows.into_iter().peekable();
        while let Some(first) = rows.next() {
            let mut versions = vec![first];
            while let Some(next) = rows.next_if(|next| next.version.head.key() == versions[0].version.head.key()) {
                versions.push(next);
            }
            mvcc.restore_key(versions, &mut entries, &mut changes, &mut attachments)?;
        }
        mvcc.keys = Tree::from_sorted(entries);
        mvcc.log = restore_log(changes);
        Ok((mvcc, attachments))
    }

    fn restore_key(
        &mut self,
        rows: Vec<Row>,
        entries: &mut Vec<KeyEntry>,
        changes: &mut Vec<(Change, u64)>,
        attachments: &mut Vec<Attachment>,
    ) -> Result<(), Fatal> {
        let compact = self.compact_revision;
        let lease = rows.last().map_or(0, |row| row.lease);
        let all: Vec<Version> = rows.into_iter().map(|row| row.version).collect();
        let garbage: Vec<bool> = (0..all.len()).map(|i| all[i].is_garbage(all.get(i + 1), compact)).collect();
        let kept = all.into_iter().zip(garbage).filter(|(_, garbage)| !garbage);
        let versions: Vec<Version> = kept.map(|(version, _)| version).collect();
        let mut previous: Option<&Version> = None;
        for version in &versions {
            check_generation(previous, version, compact)?;
            self.live_bytes += version.size();
            self.record_bytes += version.record_bytes();
            if version.main >= compact {
                let superseded = previous.filter(|previous| !previous.tombstone).map_or(0, Version::size);
                let own = if version.tombstone { version.size() } else { 0 };
                changes.push((version.change(), superseded + own));
            }
            previous = Some(version);
        }
        if let Some(latest) = versions.last().filter(|latest| !latest.tombstone) {
            self.content_sum = self.content_sum.wrapping_add(latest.content());
            if lease != 0 {
                attachments.push((Bytes::copy_from_slice(latest.head.key()), LeaseId(lease)));
            }
        }
        self.older_versions += versions.len().saturating_sub(1) as u64;
        entries.extend(KeyEntry::from_versions(versions));
        Ok(())
    }
}

fn read_row(at: Revision, tombstone: bool, record: Record, resident: bool) -> Result<Row, Fatal> {
    let fields = record.fields().ok_or_else(|| lost(format!("record {at} is not a KeyValue")))?;
    let wire_len = u32::try_from(record.wire().len()).map_err(|_| lost(format!("record {at} is too large")))?;
    // etcd's restore with a raised revision leaves one put with an empty record behind.
    let is_empty = record.wire().is_empty();
    let fits = match tombstone {
        true => (fields.create_revision, fields.mod_revision, fields.version, fields.lease) == (0, 0, 0, 0),
        false => is_empty || fields.mod_revision == at.main && (1..=at.main).contains(&fields.create_revision),
    };
    if !fits || !tombstone && !is_empty && fields.version < 1 {
        return Err(lost(format!("record {at} holds {fields:?}, tombstone: {tombstone}")));
    }
    let (create_revision, version, lease) = (fields.create_revision, fields.version, fields.lease);
    let crc = crc32c::crc32c(record.wire());
    let resident = resident || tombstone;
    let head = if resident { record } else { Record::key_only(record.key()) };
    let version =
        Version { head, main: at.main, create_revision, version, sub: at.sub, crc, wire_len, resident, tombstone };
    Ok(Row { version, lease })
}

/// A put continues the generation before it or begins a new one; only what is at or below the compact revision may
/// have lost its predecessors.
fn check_generation(previous: Option<&Version>, version: &Version, compact: i64) -> Result<(), Fatal> {
    let first = version.version == 1 && version.create_revision == version.main;
    let fits = match previous {
        _ if version.wire_len == 0 => true,
        Some(previous) if version.tombstone => !previous.tombstone,
        Some(previous) if !previous.tombstone => {
            version.version == previous.version + 1 && version.create_revision == previous.create_revision
        }
        Some(_) => first,
        None if version.main > compact => first && !version.tombstone,
        None => true,
    };
    if fits {
        return Ok(());
    }
    let what = format!("record {} does not follow {:?}", version.revision(), previous.map(Version::revision));
    Err(lost(what))
}

fn restore_log(mut changes: Vec<(Change, u64)>) -> Log {
    changes.sort_unstable_by_key(|(change, _)| change.revision);
    let mut log = Log::default();
    for (change, garbage) in changes {
        log.push(change, garbage);
    }
    log
}

fn lost(detail: String) -> Fatal {
    Fatal::EngineLost(format!("restore the keys: {detail}"))
}
