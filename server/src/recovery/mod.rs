//! Opens a data directory: from whatever a stop, a crash or a power cut left behind to a state that may serve.
//!
//! `<data-dir>/member/` holds `identity`, `wal/`, `snap/`, `ballast` and one `store-<machine boot>/`. The log and the
//! snapshots are the truth. The store is used only if it can be trusted, see [`usable`]; else it is set aside and
//! rebuilt from them.

pub mod folder;
pub mod identity;
pub mod space;

use crate::disk::RealDisk;
use crate::failpoint::failpoint;
use crate::store::budget::MemoryBudget;
use crate::store::sled::SledStore;
use anyhow::{Context, Result, bail};
use identity::Identity;
use mechi_replica::apply::state::State;
use mechi_replica::disk::{self, Disk};
use mechi_replica::outcome::Fatal;
use mechi_replica::recovery::{Base, Tail, open_base, replay, tail, term_at};
use mechi_replica::replica::LogTail;
use mechi_replica::snapshot;
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::store::applied::Applied;
use mechi_replica::store::flush::Flusher;
use mechi_replica::store::restore;
use mechi_replica::store::usable::{self, Folder, Unusable};
use mechi_replica::types::{Index, MemberId, Term};
use mechi_replica::wal::{Wal, WalOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The log's directory below the data directory.
pub const WAL_DIR: &str = "member/wal";

/// The snapshots' directory below the data directory.
pub const SNAP_DIR: &str = "member/snap";

/// The file whose lock keeps a second process out.
const LOCK: &str = "lock";

/// How long opening the store may take, plus as much again for each GiB of it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// What to open, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory; it is created if its parent lets it.
    pub data_dir: PathBuf,
    /// Who this member is; a data directory of anybody else is refused.
    pub identity: Identity,
    /// The log's layout.
    pub wal: WalOptions,
    /// Bytes of the store's own cache.
    pub cache_bytes: u64,
    /// Bytes of values that may stay in memory.
    pub resident_bytes: u64,
    /// Whether a store is expected although all data may fit into memory.
    pub expects_store: bool,
    /// This boot of the machine: [`folder::machine_boot`] but in tests.
    pub machine_boot: String,
}

/// A data directory, opened; everything in it is durable but the store.
pub struct Opened {
    /// The data directory.
    pub disk: RealDisk,
    /// Keeps other processes out while it lives.
    pub lock: <RealDisk as Disk>::Lock,
    /// Whether the directory was empty.
    pub is_first_start: bool,
    /// This start's counter, durable and never used before.
    pub boot: u64,
    /// Applied up to [`HardState::commit`].
    pub state: State,
    /// The working store; below [`Opened::state`].
    pub store: Arc<SledStore>,
    /// What the store holds.
    pub flusher: Flusher,
    /// Why the state was rebuilt from snapshot and log although there should have been a store.
    pub rebuilt: Option<Unusable>,
    /// The snapshots on disk, oldest first; the last one is verified.
    pub snapshots: Vec<Manifest>,
    /// The log.
    pub wal: Wal<RealDisk>,
    /// Index and term of the last entry applied.
    pub applied: (Index, Term),
    /// The log for the raft node: what is not known to be committed, and some of what is; commit is the applied index.
    pub tail: LogTail,
}

/// Opens a data directory.
///
/// - Errors: a sentence for the person who starts the member; nothing was changed then, but that a store that could
///   not be trusted may have been set aside.
pub fn open(settings: &Settings) -> Result<Opened> {
    let dir = &settings.data_dir;
    folder::check_data_dir(dir)?;
    let disk = RealDisk::new(dir);
    let lock = match disk.lock(LOCK) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("data directory {} is in use by another process", dir.display())
        }
        lock => lock.context("lock the data directory")?,
    };
    let known = Identity::load(&disk)?;
    if let Some(found) = &known {
        settings.identity.check(found, &dir.display().to_string())?;
        if names(&disk, WAL_DIR)?.is_empty() {
            bail!(
                "the log in {} is missing: without it this member could vote twice and forget what it acknowledged; \
                 restore member/wal, or remove the whole data directory and join as a new member",
                dir.display()
            );
        }
    }
    // A first start that was cut short leaves a log without any content; anything else belongs to somebody. The log
    // is only opened once that is known: opening writes.
    let holds_log = || Ok::<_, Fatal>(!names(&disk, WAL_DIR)?.is_empty() && !Wal::is_blank(&disk, WAL_DIR)?);
    if known.is_none() && (!names(&disk, SNAP_DIR)?.is_empty() || holds_log()?) {
        bail!("data directory {} holds data, but the file {} is missing", dir.display(), identity::PATH);
    }
    for path in ["member", WAL_DIR, SNAP_DIR] {
        disk::ensure_dir(&disk, path).with_context(|| format!("create {path}"))?;
    }
    let base = open_base(&disk, WAL_DIR, SNAP_DIR, settings.wal)?;
    failpoint!(if base.snapshot.is_some() && base.recovered.entries.is_empty(), "snap_after_apply");
    for error in &base.damaged {
        tracing::warn!(%error, "a snapshot cannot be used");
    }
    if let Some(cut) = &base.recovered.cut {
        tracing::info!(?cut, "cut the log's torn tail");
    }
    if known.is_none() {
        settings.identity.store(&disk)?;
    }
    settle(settings, disk, lock, base, known.is_none())
}

/// Tells whether a data directory has no owner yet: opening it is a first start, if it may be opened at all.
pub fn is_blank(data_dir: &Path) -> Result<bool> {
    Ok(Identity::load(&RealDisk::new(data_dir))?.is_none())
}

/// The file names in a directory; none if it is missing.
fn names(disk: &RealDisk, path: &str) -> Result<Vec<String>, Fatal> {
    match disk.list(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(disk::fatal(format!("list {path}"))),
    }
}

/// Finds or makes the store, and brings the state to the commit index.
fn settle(
    settings: &Settings,
    disk: RealDisk,
    lock: <RealDisk as Disk>::Lock,
    base: Base<RealDisk>,
    is_first_start: bool,
) -> Result<Opened> {
    let member = settings.data_dir.join("member");
    let (stood, rebuilt) = match reuse(settings, &member, &base)? {
        Ok(stood) => (stood, None),
        Err(why) => {
            if why != Unusable::Absent {
                tracing::warn!(%why, "the store is rebuilt from snapshot and log");
            }
            // Without an age at which changes are flushed, no store is the usual case.
            let missed = why != Unusable::Absent || settings.expects_store;
            (rebuild(settings, &disk, &member, &base)?, missed.then_some(why))
        }
    };
    let Stood { mut state, store, mut flusher } = stood;
    state.found(settings.identity.voters.iter().copied().map(MemberId));
    let newest = base.snapshot_index();
    let (mut snapshots, _) = snapshot::list(&disk, SNAP_DIR)?;
    snapshots.retain(|manifest| manifest.index() <= newest);
    let boot = base.recovered.boot;
    let Base { wal, recovered, .. } = base;
    let tail = tail(recovered, state.applied_index, state.applied_term)?;
    let Tail { before, entries, hard_state } = tail;
    let resident = settings.resident_bytes;
    replay(&mut state, &store, &mut flusher, &entries, hard_state.commit, resident)?;
    assert!(state.applied_index <= hard_state.commit, "what is applied is committed");
    let applied = (state.applied_index, state.applied_term);
    let store = Arc::new(store);
    Ok(Opened {
        disk,
        lock,
        is_first_start,
        boot,
        state,
        store,
        flusher,
        rebuilt,
        snapshots,
        wal,
        applied,
        tail: LogTail { before, entries, hard_state },
    })
}

/// A store and the state in it.
struct Stood {
    state: State,
    store: SledStore,
    flusher: Flusher,
}

/// Uses the store that is there, if it may be used; else sets aside whatever is there and says why.
fn reuse(settings: &Settings, member: &Path, base: &Base<RealDisk>) -> Result<Result<Stood, Unusable>> {
    let boot = &settings.machine_boot;
    let clean = base.recovered.clean;
    let mut folders = folder::stores(member)?;
    // This boot's folder first; any other counts only if it is the only one.
    folders.sort_by_key(|(made_in, _)| made_in != boot);
    let mut folders = folders.into_iter();
    let Some((made_in, path)) = folders.next() else { return Ok(Err(Unusable::Absent)) };
    for (_, path) in folders {
        folder::set_aside(member, &path)?;
    }
    if let Err(why) = usable::folder(&Folder { made_in: &made_in, boot, clean }) {
        folder::set_aside(member, &path)?;
        return Ok(Err(why));
    }
    let own = folder::store_path(member, boot);
    if path != own {
        std::fs::rename(&path, &own).with_context(|| format!("rename {}", path.display()))?;
    }
    match stand(settings, &own, base) {
        Ok(stood) => Ok(Ok(stood)),
        Err(why) => {
            folder::set_aside(member, &own)?;
            Ok(Err(why))
        }
    }
}

/// Opens a store that may be opened, checks it against the log, and restores the state in it.
fn stand(settings: &Settings, folder: &Path, base: &Base<RealDisk>) -> Result<Stood, Unusable> {
    let damaged = |error: Fatal| Unusable::Damaged(error.to_string());
    let store = open_store(settings, folder).map_err(damaged)?;
    let recovered = &base.recovered;
    let applied = Applied::load(&store).map_err(damaged)?;
    let applied = usable::applied(applied.as_ref(), recovered.clean, recovered.first_index, base.last_index())?;
    if let Some(term) = term_at(recovered, applied.index).filter(|term| *term != applied.term) {
        let detail = format!("its entry {} has term {}, the log's has term {term}", applied.index, applied.term);
        return Err(Unusable::Damaged(detail));
    }
    let (state, flusher) = restore::restore(&store, &applied, settings.resident_bytes).map_err(damaged)?;
    Ok(Stood { state, store, flusher })
}

/// Begins with the newest snapshot, or with nothing; the store is used only if the data does not fit into memory.
fn rebuild(settings: &Settings, disk: &RealDisk, member: &Path, base: &Base<RealDisk>) -> Result<Stood> {
    base.check_meets()?;
    // What was set aside is kept until the member runs, unless the new store could want for its room.
    let (_, free) = crate::space::disk_bytes(&settings.data_dir).context("ask for the disk's free bytes")?;
    let aside: u64 = folder::aside(member)?.iter().map(|path| folder::bytes(path)).sum();
    if free < aside.saturating_mul(2) {
        folder::remove_aside(member)?;
    }
    let path = folder::store_path(member, &settings.machine_boot);
    let unused = || SledStore::when_needed(&path, settings.cache_bytes);
    let Some(manifest) = &base.snapshot else {
        return Ok(Stood { state: State::empty(), store: unused(), flusher: Flusher::new(None) });
    };
    let budget = MemoryBudget { limit: settings.resident_bytes };
    if manifest.tally.bytes <= budget.near() {
        let state = restore::from_snapshot(disk, SNAP_DIR, manifest)?;
        return Ok(Stood { state, store: unused(), flusher: Flusher::new(None) });
    }
    let store = open_store(settings, &path)?;
    let applied = restore::rebuild(&store, disk, SNAP_DIR, manifest)?;
    let (state, flusher) = restore::restore(&store, &applied, settings.resident_bytes)?;
    Ok(Stood { state, store, flusher })
}

fn open_store(settings: &Settings, folder: &Path) -> Result<SledStore, Fatal> {
    let gibibytes = u32::try_from(folder::bytes(folder) >> 30).unwrap_or(u32::MAX);
    SledStore::open(folder, settings.cache_bytes, OPEN_TIMEOUT.saturating_mul(gibibytes.saturating_add(1)))
}

/// Closes a member cleanly: store closed, all its files and directories synced, and then said so in the log.
///
/// - Shape: the keeper has stopped and returned `flusher`; nothing else uses the store or the log.
/// - Errors: the store is then rebuilt at the next open, and nothing is lost.
pub fn close<D: Disk>(store: &SledStore, flusher: &Flusher, wal: &mut Wal<D>) -> Result<()> {
    store.close()?;
    folder::sync_all(store.folder())?;
    if let Some(applied) = flusher.applied() {
        wal.sync()?;
        wal.close_clean(applied.index)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
