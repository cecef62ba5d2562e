//! What of a member survives its process: the disk, the working store's folder, and what a crash makes of both.

use super::damage::Damage;
use super::shadow::Shadow;
use crate::rng::Rng;
use bytes::Bytes;
use mechi_replica::disk::sim::{Fate, Pending, SimDisk};
use mechi_replica::outcome::Fatal;
use mechi_replica::store::mem::MemStore;
use mechi_replica::store::{Batch, Store};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// The log's directory.
pub(super) const WAL_DIR: &str = "wal";

/// The snapshots' directory.
pub(super) const SNAP_DIR: &str = "snap";

/// Earlier states of a store that are kept for a crash to go back to.
const PAST_MAX: usize = 5;

/// One commit in so many is kept as an earlier state.
const PAST_EVERY: u64 = 7;

/// The working store: a map that remembers some of what it was.
#[derive(Clone, Default)]
pub(super) struct SimStore(Rc<RefCell<Versions>>);

#[derive(Default)]
struct Versions {
    now: MemStore,
    past: Vec<MemStore>,
    commits: u64,
    /// The power went over its files: what leads to single keys is not what walks over all of them see.
    misled: bool,
}

impl Store for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        self.0.borrow().now.get(key)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, Fatal> {
        let versions = self.0.borrow();
        if versions.misled { Ok(None) } else { versions.now.last(from, to) }
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fatal> {
        self.0.borrow().now.scan(from, to, visit)
    }
    fn commit(&self, batch: Batch) -> Result<(), Fatal> {
        let mut versions = self.0.borrow_mut();
        versions.commits += 1;
        if versions.commits.is_multiple_of(PAST_EVERY) {
            let copy = versions.now.clone();
            versions.past.push(copy);
            if versions.past.len() > PAST_MAX {
                let place = versions.commits as usize / PAST_EVERY as usize % PAST_MAX;
                versions.past.remove(place);
            }
        }
        versions.now.commit(batch)
    }
}

impl SimStore {
    fn of(map: MemStore) -> Self {
        Self(Rc::new(RefCell::new(Versions { now: map, ..Versions::default() })))
    }

    /// The store as it is now, by itself: what an orderly close leaves.
    pub(super) fn closed(&self) -> Self {
        Self::of(self.0.borrow().now.clone())
    }

    /// The store as the end of its process leaves it: any earlier state, or the last.
    fn after_kill(&self, rng: &mut Rng) -> Self {
        let versions = self.0.borrow();
        let choice = rng.below(2 * versions.past.len() as u64 + 2) as usize;
        Self::of(versions.past.get(choice).unwrap_or(&versions.now).clone())
    }

    /// The store with a bit of one of its values turned over; `None` if it holds none.
    fn damaged(&self, rng: &mut Rng) -> Option<Self> {
        let map = self.0.borrow().now.clone();
        let mut pairs = Vec::new();
        map.scan(&[], &[0xff; 16], &mut |key, value| {
            pairs.push((key.to_vec(), value.to_vec()));
            true
        })
        .expect("a map in memory can be read");
        pairs.retain(|(_, value)| !value.is_empty());
        let mut pair = (!pairs.is_empty()).then(|| rng.pick(&pairs).clone())?;
        let place = rng.below(pair.1.len() as u64) as usize;
        pair.1[place] ^= 1 << rng.below(8);
        map.commit(Batch { puts: vec![pair], removes: Vec::new() }).expect("a map in memory can be written");
        Some(Self::of(map))
    }
}

/// A store's folder: what is in it, and the machine's boot in its name.
#[derive(Clone)]
pub(super) struct StoreFolder {
    /// What is in it.
    pub(super) store: SimStore,
    /// The machine's boot that it was made in.
    pub(super) made_in: String,
}

/// What a crash does to a store beyond what it cannot avoid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreLoss {
    /// It comes back as some state that it had since it was closed.
    Older,
    /// It is gone.
    Gone,
    /// It is there and empty.
    Empty,
    /// One bit of it is wrong.
    Damaged,
    /// Somebody put another member's in its place, which may be ahead of the log.
    Foreign,
}

/// A machine with one member on it.
pub(super) struct Machine {
    /// The disk.
    pub(super) disk: SimDisk,
    /// The store's folder, if there is one.
    pub(super) folder: Option<StoreFolder>,
    /// Counts the machine's boots.
    pub(super) boot: u64,
    /// Whether the store was closed and synced, and not opened since.
    pub(super) closed: bool,
    /// What the log must hold.
    pub(super) shadow: Shadow,
    /// Places that do not hold what was written there, by the fault.
    pub(super) damages: Vec<(u64, Damage)>,
    /// The fault that waits for a sync to fail.
    pub(super) sync_error: Option<u64>,
    /// The faults that keep the disk full.
    pub(super) full: BTreeSet<u64>,
}

impl Machine {
    /// A machine whose disk is empty.
    pub(super) fn new() -> Self {
        let disk = SimDisk::new();
        disk.keep_overwritten();
        Self {
            disk,
            folder: None,
            boot: 1,
            closed: false,
            shadow: Shadow::default(),
            damages: Vec::new(),
            sync_error: None,
            full: BTreeSet::new(),
        }
    }

    /// Ends what a fault did to the disk.
    pub(super) fn mend(&mut self, fault: u64) {
        let disk = &self.disk;
        self.damages.retain(|(by, damage)| {
            if *by == fault {
                damage.undo(disk);
            }
            *by != fault
        });
        if self.sync_error.take_if(|by| *by == fault).is_some() {
            self.disk.heal();
        }
        if self.full.remove(&fault) && self.full.is_empty() {
            self.disk.set_capacity(None);
        }
    }

    /// The machine's boot as it stands in a folder's name.
    pub(super) fn boot_name(&self) -> String {
        format!("boot-{}", self.boot)
    }

    /// The process ends without a word.
    pub(super) fn kill(&mut self, loss: StoreLoss, rng: &mut Rng) {
        if !self.closed {
            self.lose(loss, rng);
        }
    }

    /// The power goes, and with it any part of what was not synced.
    pub(super) fn power_cut(&mut self, loss: StoreLoss, rng: &mut Rng) {
        if !self.closed {
            self.lose(loss, rng);
            if let Some(folder) = &self.folder {
                folder.store.0.borrow_mut().misled = true;
            }
        }
        self.boot += 1;
        // What was to fail did not come to it.
        self.sync_error = None;
        // In most cuts nearly all or nearly nothing survives, as the kernel had or had not got to writing it.
        let (lost, torn) = *rng.pick(&[(95, 3), (50, 20), (10, 10), (100, 0), (0, 0)]);
        self.disk = self.disk.power_cut(|pending| match rng.below(100) {
            chance if chance < lost => Fate::Lost,
            chance if chance < lost + torn => match pending {
                Pending::Write { sectors, .. } => Fate::Torn((0..sectors).map(|_| rng.chance(50)).collect()),
                Pending::Name { .. } => Fate::Applied,
            },
            _ => Fate::Applied,
        });
    }

    /// The store was closed in good order: what is in it is on disk.
    pub(super) fn close(&mut self) {
        self.closed = true;
        if let Some(folder) = &mut self.folder {
            folder.store = folder.store.closed();
        }
    }

    fn lose(&mut self, loss: StoreLoss, rng: &mut Rng) {
        let Some(folder) = &mut self.folder else { return };
        match loss {
            StoreLoss::Older => folder.store = folder.store.after_kill(rng),
            StoreLoss::Gone => self.folder = None,
            StoreLoss::Empty => folder.store = SimStore::default(),
            StoreLoss::Damaged => {
                if let Some(damaged) = folder.store.damaged(rng) {
                    folder.store = damaged;
                }
            }
            // Whoever knows the other members puts it there.
            StoreLoss::Foreign => {}
        }
    }
}
