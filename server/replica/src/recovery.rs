//! From files to a state: the part of the open procedure that no machine, clock or folder has a say in.
//!
//! The base is the working store if it may be used, else the newest verified snapshot, else nothing; the log brings it
//! to the commit index before any raft node starts.

use crate::apply::state::State;
use crate::apply::{Answer, Outcomes, apply};
use crate::disk::Disk;
use crate::effect::{Entry, HardState};
use crate::limits::{LOG_MEMORY_BYTES_MAX, REPLAY_ENTRIES_PER_LOOK};
use crate::outcome::Fatal;
use crate::snapshot;
use crate::snapshot::manifest::Manifest;
use crate::store::flush::Flusher;
use crate::store::{Blocks, Store};
use crate::types::{Index, Term};
use crate::wal::{Recovered, Wal, WalOptions};

/// What stands on disk below the working store.
pub struct Base<D: Disk> {
    /// The newest snapshot whose every file is as it was written.
    pub snapshot: Option<Manifest>,
    /// What of the snapshots is damaged, in words.
    pub damaged: Vec<Fatal>,
    /// The log, opened: a new boot, durable.
    pub wal: Wal<D>,
    /// What the log holds.
    pub recovered: Recovered,
}

/// Verifies the snapshots, makes the newest one durable, and opens the log under it.
///
/// - Errors: [`Fatal::Corrupt`] if the log is damaged beyond its torn tail, or neither log nor snapshot reaches back
///   to the beginning.
pub fn open_base<D: Disk>(disk: &D, wal: &str, snapshots: &str, options: WalOptions) -> Result<Base<D>, Fatal> {
    let (snapshot, damaged) = snapshot::newest_verified(disk, snapshots)?;
    if let Some(manifest) = &snapshot {
        // The log relies on it from its first record on, and may be trimmed up to it.
        snapshot::make_durable(disk, snapshots, manifest)?;
    }
    let stands_at = snapshot.as_ref().map(|manifest| (manifest.index(), manifest.term()));
    let (wal, recovered) = Wal::open(disk.clone(), wal, options, stands_at)?;
    Ok(Base { snapshot, damaged, wal, recovered })
}

impl<D: Disk> Base<D> {
    /// The last index that the log or a snapshot knows of.
    pub fn last_index(&self) -> Index {
        self.recovered.last_index.max(self.snapshot_index())
    }

    /// The newest verified snapshot's index; 0 without one.
    pub fn snapshot_index(&self) -> Index {
        self.snapshot.as_ref().map_or(0, Manifest::index)
    }

    /// Checks that log and snapshot meet, for a state that is rebuilt from them.
    ///
    /// - Errors: [`Fatal::Corrupt`] if entries are missing between them.
    pub fn check_meets(&self) -> Result<(), Fatal> {
        let (at, first) = (self.snapshot_index(), self.recovered.first_index);
        if self.recovered.entries.is_empty() || first <= at + 1 {
            return Ok(());
        }
        let mut detail = format!("the newest whole snapshot ends at index {at}, the log begins at {first}");
        self.damaged.iter().for_each(|error| detail.push_str(&format!("; {error}")));
        Err(Fatal::Corrupt { what: "snapshots", file: "snap".into(), offset: 0, detail })
    }
}

/// What the log adds to a base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Index and term of the entry before the first.
    pub before: (Index, Term),
    /// Contiguous; those up to the base are for members that lag a little.
    pub entries: Vec<Entry>,
    /// The newest hard state; its commit is at or above the base.
    pub hard_state: HardState,
}

/// The term of the log's entry at `index`, if it holds one.
pub fn term_at(recovered: &Recovered, index: Index) -> Option<Term> {
    let place = usize::try_from(index.checked_sub(recovered.first_index)?).ok()?;
    recovered.entries.get(place).map(|entry| entry.term)
}

/// Cuts the log to what lies behind a base at (`index`, `term`), and some of what lies before.
///
/// A base is applied, so it is committed: the commit index is raised to it, since a raft node whose applied index is
/// above its commit index panics at every start.
///
/// - Errors: [`Fatal::Corrupt`] if the commit index lies behind the log's end: acknowledged entries are missing.
pub fn tail(recovered: Recovered, index: Index, term: Term) -> Result<Tail, Fatal> {
    let Recovered { mut entries, mut hard_state, .. } = recovered;
    let before = forget_history(&mut entries, (index, term));
    #[cfg(feature = "mutants")]
    if crate::mutants::active("applied_above_commit_at_open") {
        return Ok(Tail { before, entries, hard_state });
    }
    hard_state.commit = hard_state.commit.max(index);
    hard_state.term = hard_state.term.max(term);
    let last = entries.last().map_or(index, |entry| entry.index);
    if hard_state.commit > last {
        return Err(Fatal::Corrupt {
            what: "log",
            file: "wal".into(),
            offset: 0,
            detail: format!("entries up to {} were committed, the log ends at {last}", hard_state.commit),
        });
    }
    Ok(Tail { before, entries, hard_state })
}

/// Drops what no member that lags may be sent from memory; returns index and term of the entry before the first.
///
/// Without the entries before the base every member that is one entry behind after a restart would need a snapshot.
fn forget_history(entries: &mut Vec<Entry>, base: (Index, Term)) -> (Index, Term) {
    let behind = entries.partition_point(|entry| entry.index <= base.0);
    if behind == 0 || entries[behind - 1].index != base.0 {
        entries.drain(..behind);
        return base;
    }
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += entry.data.len();
        bytes <= LOG_MEMORY_BYTES_MAX
    };
    let kept = entries[..behind].iter().rev().take_while(fits).count();
    // The term of what lies before the log's first entry is not known, so that one is given up for its own.
    let begins = entries[0].index == 1 && kept == behind;
    let dropped = if begins { 0 } else { (behind - kept).max(1) };
    let before = entries.drain(..dropped).next_back().map(|entry| (entry.index, entry.term));
    before.unwrap_or_default()
}

/// Applies what of `entries` is committed and not yet applied.
///
/// Values beyond `resident_bytes` go to the store on the way, so that a long log does not exhaust memory.
///
/// - Errors: the applier's; [`Fatal::Bug`] for a gap.
pub fn replay(
    state: &mut State,
    store: &impl Store,
    flusher: &mut Flusher,
    entries: &[Entry],
    commit: Index,
    resident_bytes: u64,
) -> Result<Outcomes, Fatal> {
    // Nobody waits for answers: no member has the id 0.
    let (nobody, mut out) = (Answer { member: 0, boot: 0 }, Outcomes::default());
    #[cfg(feature = "mutants")]
    if crate::mutants::active("applied_from_commit_on_restart") {
        state.applied_index = state.applied_index.max(commit);
    }
    let base = state.applied_index;
    let committed = entries.iter().filter(|entry| base < entry.index && entry.index <= commit);
    for (number, entry) in committed.enumerate() {
        apply(state, entry, nobody, &Blocks(store), &mut out)?;
        if number % REPLAY_ENTRIES_PER_LOOK == 0 && state.mvcc.resident_bytes() > resident_bytes {
            flusher.flush_all(store, &state.mvcc, state.to_meta())?;
            let flushed = flusher.flushed();
            state.mvcc.set_flushed(flushed);
            while !state.mvcc.evict(flushed, resident_bytes / 2, crate::limits::SLICE_KEYS_MAX) {}
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(first: Index, last: Index, bytes: usize) -> Vec<Entry> {
        (first..=last)
            .map(|index| Entry { index, term: index, data: vec![0; bytes].into(), ..Entry::default() })
            .collect()
    }

    fn kept(mut entries: Vec<Entry>, base: (Index, Term)) -> ((Index, Term), Vec<Index>) {
        let before = forget_history(&mut entries, base);
        (before, entries.iter().map(|entry| entry.index).collect())
    }

    #[test]
    fn a_little_of_the_log_before_the_base_is_kept() {
        assert_eq!(kept(log(1, 4, 1), (2, 2)), ((0, 0), vec![1, 2, 3, 4]));
        assert_eq!(kept(log(3, 6, 1), (5, 5)), ((3, 3), vec![4, 5, 6]), "whose term is known");
        assert_eq!(kept(log(3, 6, 1), (3, 3)), ((3, 3), vec![4, 5, 6]));
        assert_eq!(kept(log(3, 6, 1), (2, 2)), ((2, 2), vec![3, 4, 5, 6]));
        let half = LOG_MEMORY_BYTES_MAX / 2;
        assert_eq!(kept(log(1, 5, half), (4, 4)), ((2, 2), vec![3, 4, 5]), "as much as its bound allows");
    }

    #[test]
    fn a_log_that_ends_before_the_base_is_dropped() {
        assert_eq!(kept(log(3, 6, 1), (9, 7)), ((9, 7), vec![]));
        assert_eq!(kept(Vec::new(), (9, 7)), ((9, 7), vec![]));
    }
}
