//! From files to a state: the part of the open procedure that no machine, clock or folder has a say in.
//!
//! The base is the working store if it may be used, else the newest verified snapshot, else nothing; the log brings it
//! to the commit index before any raft node starts.

use crate::apply::state::State;
use crate::apply::{Answer, Outcomes, apply};
use crate::disk::Disk;
use crate::effect::{Entry, HardState};
use crate::limits::REPLAY_ENTRIES_PER_LOOK;
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
    /// Contiguous, behind the base.
    pub entries: Vec<Entry>,
    /// The newest hard state; its commit is at or above the base.
    pub hard_state: HardState,
}

/// The term of the log's entry at `index`, if it holds one.
pub fn term_at(recovered: &Recovered, index: Index) -> Option<Term> {
    let place = usize::try_from(index.checked_sub(recovered.first_index)?).ok()?;
    recovered.entries.get(place).map(|entry| entry.term)
}

/// Cuts the log to what lies behind a base at (`index`, `term`).
///
/// A base is applied, so it is committed: the commit index is raised to it, since a raft node whose applied index is
/// above its commit index panics at every start.
///
/// - Errors: [`Fatal::Corrupt`] if the commit index lies behind the log's end: acknowledged entries are missing.
pub fn tail(recovered: Recovered, index: Index, term: Term) -> Result<Tail, Fatal> {
    let Recovered { mut entries, mut hard_state, .. } = recovered;
    entries.retain(|entry| entry.index > index);
    #[cfg(feature = "mutants")]
    if crate::mutants::active("applied_above_commit_at_open") {
        return Ok(Tail { entries, hard_state });
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
    Ok(Tail { entries, hard_state })
}

/// Applies what of `entries` is committed and not yet applied; the rest stays in `entries`, for the raft node.
///
/// Values beyond `resident_bytes` go to the store on the way, so that a long log does not exhaust memory.
///
/// - Errors: the applier's; [`Fatal::Bug`] for a gap.
pub fn replay(
    state: &mut State,
    store: &impl Store,
    flusher: &mut Flusher,
    entries: &mut Vec<Entry>,
    commit: Index,
    resident_bytes: u64,
) -> Result<Outcomes, Fatal> {
    // Nobody waits for answers: no member has the id 0.
    let (nobody, mut out) = (Answer { member: 0, boot: 0 }, Outcomes::default());
    let committed = entries.iter().take_while(|entry| entry.index <= commit).count();
    let rest = entries.split_off(committed);
    for (number, entry) in std::mem::replace(entries, rest).iter().enumerate() {
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
