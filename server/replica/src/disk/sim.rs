//! A simulated disk that remembers what is durable, so that every legal state after a power cut can be made from it.
//!
//! Each file holds its durable bytes and the ordered writes since its last sync; each directory its durable names and
//! the ordered changes since. [`SimDisk::power_cut`] asks, for each pending operation, what became of it, and gives
//! the disk that the machine would find. A killed process loses nothing: its successor just goes on with the disk.
//!
//! It counts every operation that changes something, and can stop at one ([`SimDisk::halt_at`]), fail one
//! ([`SimDisk::fail_at`], [`SimDisk::fail_next_sync`]), run full ([`SimDisk::set_capacity`]), and give back what it should
//! not ([`SimDisk::damage`], [`SimDisk::overwritten`]). It chooses nothing itself.

mod calls;

use super::SECTOR_BYTES;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::rc::Rc;

/// A handle to one simulated disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Rc<RefCell<State>>);

/// A file open on a [`SimDisk`].
pub struct SimFile {
    disk: SimDisk,
    inode: usize,
    path: String,
}

/// A lock on a [`SimDisk`].
pub struct SimLock {
    disk: SimDisk,
    path: String,
}

/// An operation that was not yet durable when the power went.
#[derive(Clone, Copy, Debug)]
pub enum Pending<'a> {
    /// Bytes written into a file, or its length raised.
    Write {
        /// The file's path when it was opened.
        path: &'a str,
        /// Where the bytes begin.
        offset: u64,
        /// How many 512-byte sectors they touch; 0 for a raised length.
        sectors: usize,
    },
    /// A name created, renamed or removed.
    Name {
        /// The directory's path.
        dir: &'a str,
        /// The name, the new one for a rename.
        name: &'a str,
    },
}

/// What became of a [`Pending`] operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It left no trace.
    Lost,
    /// It became durable in full.
    Applied,
    /// Of a write, the file's new length and these sectors became durable; any other operation is applied.
    Torn(Vec<bool>),
}

/// What an operation does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails and does nothing.
    Error,
    /// A failed sync after which the kernel calls the pages clean: they are read back, and never written.
    SyncKeepsPages,
    /// A failed sync after which the kernel drops the pages: reading gives what was durable before.
    SyncDropsPages,
}

#[derive(Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    dirs: BTreeMap<String, Dir>,
    locks: BTreeSet<String>,
    operations: u64,
    halt_at: Option<u64>,
    faults: BTreeMap<u64, Fault>,
    next_sync: Option<Fault>,
    struck: u64,
    capacity: Option<u64>,
    keeps_overwritten: bool,
}

#[derive(Clone, Default)]
struct Inode {
    path: String,
    durable: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<Write>,
    /// What sectors held before their last durable change, if that is kept.
    overwritten: BTreeMap<usize, [u8; SECTOR_BYTES]>,
}

#[derive(Clone)]
struct Write {
    offset: u64,
    bytes: Vec<u8>,
    /// The length that the file had at least after this write.
    length: u64,
}

#[derive(Clone, Default)]
struct Dir {
    durable: BTreeMap<String, Node>,
    current: BTreeMap<String, Node>,
    pending: Vec<Change>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Dir,
}

#[derive(Clone)]
struct Change {
    /// The name that goes, if it still names this node.
    remove: Option<String>,
    /// The name that comes.
    add: Option<String>,
    node: Node,
}

impl SimDisk {
    /// Makes an empty disk with its root directory.
    pub fn new() -> Self {
        let disk = Self::default();
        disk.0.borrow_mut().dirs.insert(String::new(), Dir::default());
        disk
    }

    /// A copy that goes its own way: another disk with the same bytes, pending operations, and no lock held.
    pub fn fork(&self) -> Self {
        let mut state = self.0.borrow().clone();
        state.locks.clear();
        Self(Rc::new(RefCell::new(state)))
    }

    /// How many operations that change something were asked for so far, failed ones included.
    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// Makes the operation with this number (from 0) and every later one fail without effect, as if the process had
    /// died just before it.
    pub fn halt_at(&self, operation: u64) {
        self.0.borrow_mut().halt_at = Some(operation);
    }

    /// Makes the operation with this number (from 0) fail once.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.0.borrow_mut().faults.insert(operation, fault);
    }

    /// Makes the next sync, of a file or a directory, fail once.
    pub fn fail_next_sync(&self, fault: Fault) {
        self.0.borrow_mut().next_sync = Some(fault);
    }

    /// How many of the planned faults have struck so far.
    pub fn struck(&self) -> u64 {
        self.0.borrow().struck
    }

    /// Ends all planned halts and faults.
    pub fn heal(&self) {
        let mut state = self.0.borrow_mut();
        state.halt_at = None;
        state.next_sync = None;
        state.faults.clear();
    }

    /// Keeps from now on what durable writes overwrite, for [`SimDisk::overwritten`].
    pub fn keep_overwritten(&self) {
        self.0.borrow_mut().keeps_overwritten = true;
    }

    /// What a sector of a file held before its last durable change: what is read if that write never reached the medium
    /// although its sync said so. `None` if it was written once only, or [`SimDisk::keep_overwritten`] came later.
    pub fn overwritten(&self, path: &str, sector: usize) -> Option<[u8; SECTOR_BYTES]> {
        let state = self.0.borrow();
        let inode = state.find(path).ok()?;
        state.inodes[inode].overwritten.get(&sector).copied()
    }

    /// Sets how many bytes all files together may hold; beyond, operations fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.borrow_mut().capacity = bytes;
    }

    /// Bytes that all named files hold.
    pub fn used(&self) -> u64 {
        self.0.borrow().used()
    }

    /// How many operations would be lost at worst if the power went now.
    pub fn pending(&self) -> usize {
        let state = self.0.borrow();
        state.inodes.iter().map(|inode| inode.pending.len()).sum::<usize>()
            + state.dirs.values().map(|dir| dir.pending.len()).sum::<usize>()
    }

    /// Makes the disk that the machine finds after a power cut in which each pending operation met the fate that
    /// `fate` gives it. Nothing is pending on it, no fault planned, no lock held; this disk is not changed.
    pub fn power_cut(&self, mut fate: impl FnMut(Pending<'_>) -> Fate) -> Self {
        let state = self.0.borrow();
        let (capacity, keeps_overwritten) = (state.capacity, state.keeps_overwritten);
        let mut after = State { capacity, keeps_overwritten, ..State::default() };
        let named = state.named();
        for (number, inode) in state.inodes.iter().enumerate() {
            if inode.pending.is_empty() && !named.contains(&number) {
                // Removed long ago: nobody will look for it.
                after.inodes.push(Inode::default());
                continue;
            }
            let mut bytes = inode.durable.clone();
            for write in &inode.pending {
                let sectors = write.sectors();
                let pending = Pending::Write { path: &inode.path, offset: write.offset, sectors };
                write.apply(&mut bytes, &fate(pending));
            }
            after.inodes.push(Inode {
                path: inode.path.clone(),
                current: bytes.clone(),
                durable: bytes,
                pending: Vec::new(),
                overwritten: inode.overwritten.clone(),
            });
        }
        for (path, dir) in &state.dirs {
            let mut names = dir.durable.clone();
            for change in &dir.pending {
                let name = change.add.as_ref().or(change.remove.as_ref()).map_or("", String::as_str);
                if fate(Pending::Name { dir: path, name }) != Fate::Lost {
                    change.apply(&mut names);
                }
            }
            after.dirs.insert(path.clone(), Dir { durable: names.clone(), current: names, pending: Vec::new() });
        }
        after.drop_unreachable();
        Self(Rc::new(RefCell::new(after)))
    }

    /// Writes `bytes` at `offset` of a file behind everyone's back and durably: damage at rest.
    ///
    /// - Panics: if there is no such file.
    pub fn damage(&self, path: &str, offset: usize, bytes: &[u8]) {
        let mut state = self.0.borrow_mut();
        let inode = state.find(path).expect("a test damages a file that exists");
        let inode = &mut state.inodes[inode];
        for image in [&mut inode.durable, &mut inode.current] {
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// All files by path, with the bytes that a reader sees now.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.borrow();
        let mut files = BTreeMap::new();
        for (path, dir) in &state.dirs {
            for (name, node) in &dir.current {
                if let Node::File(inode) = node {
                    files.insert(super::join(path, name), state.inodes[*inode].current.clone());
                }
            }
        }
        files
    }

    /// A number that is equal for equal contents: what a reader sees now, and what is durable.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fnv::default();
        let state = self.0.borrow();
        for (path, dir) in &state.dirs {
            for (names, durable) in [(&dir.current, false), (&dir.durable, true)] {
                hash.add(path.as_bytes());
                for (name, node) in names {
                    hash.add(name.as_bytes());
                    if let Node::File(inode) = node {
                        let inode = &state.inodes[*inode];
                        hash.add(if durable { &inode.durable } else { &inode.current });
                    }
                }
            }
        }
        hash.0
    }
}

impl State {
    /// Counts an operation, and says whether it may happen.
    fn begin(&mut self, verb: &str, path: &str) -> io::Result<Option<Fault>> {
        let number = self.operations;
        self.operations += 1;
        if self.halt_at.is_some_and(|halt| number >= halt) {
            return Err(io::Error::other(format!("{verb} {path}: the simulated machine has stopped")));
        }
        match self.faults.remove(&number) {
            Some(Fault::Error) => {
                self.struck += 1;
                Err(io::Error::other(format!("{verb} {path}: injected error")))
            }
            other => Ok(other),
        }
    }

    fn find(&self, path: &str) -> io::Result<usize> {
        match self.dir(super::parent(path))?.current.get(base(path)) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) => Err(error(ErrorKind::IsADirectory, "open", path)),
            None => Err(error(ErrorKind::NotFound, "open", path)),
        }
    }

    fn dir(&self, path: &str) -> io::Result<&Dir> {
        self.dirs.get(path).ok_or_else(|| error(ErrorKind::NotFound, "find directory", path))
    }

    fn change(&mut self, path: &str, change: Change) -> io::Result<()> {
        let dir = self.dirs.get_mut(path).ok_or_else(|| error(ErrorKind::NotFound, "find directory", path))?;
        change.apply(&mut dir.current);
        dir.pending.push(change);
        Ok(())
    }

    fn used(&self) -> u64 {
        let nodes = self.dirs.values().flat_map(|dir| dir.current.values());
        nodes.map(|node| if let Node::File(inode) = node { self.inodes[*inode].current.len() as u64 } else { 0 }).sum()
    }

    /// The files that some name may lead to after a power cut.
    fn named(&self) -> BTreeSet<usize> {
        let nodes =
            |dir: &Dir| dir.durable.values().copied().chain(dir.pending.iter().map(|change| change.node)).collect();
        let nodes = self.dirs.values().flat_map(|dir| -> Vec<Node> { nodes(dir) });
        nodes.filter_map(|node| if let Node::File(inode) = node { Some(inode) } else { None }).collect()
    }

    /// Forgets directories whose own name did not survive, with all that is in them.
    fn drop_unreachable(&mut self) {
        let reachable = |dirs: &BTreeMap<String, Dir>, path: &str| {
            path.is_empty()
                || dirs.get(super::parent(path)).is_some_and(|dir| dir.current.get(base(path)) == Some(&Node::Dir))
        };
        loop {
            let lost: Vec<_> = self.dirs.keys().filter(|path| !reachable(&self.dirs, path)).cloned().collect();
            if lost.is_empty() {
                break;
            }
            for path in lost {
                self.dirs.remove(&path);
            }
        }
        // A directory's name may survive while nothing of its inside does: it is then empty.
        let named: Vec<_> = (self.dirs.iter())
            .flat_map(|(path, dir)| dir.current.iter().map(move |(name, node)| (super::join(path, name), *node)))
            .filter(|(_, node)| *node == Node::Dir)
            .collect();
        for (path, _) in named {
            self.dirs.entry(path).or_default();
        }
    }
}

impl Inode {
    /// Keeps what a write is about to overwrite durably.
    fn keep(&mut self, write: &Write) {
        let first = write.offset as usize / SECTOR_BYTES;
        for sector in first..first + write.sectors() {
            let bytes = self.durable.get(sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES);
            if let Some(bytes) = bytes.and_then(|bytes| bytes.try_into().ok()) {
                self.overwritten.insert(sector, bytes);
            }
        }
    }
}

impl Write {
    fn sectors(&self) -> usize {
        if self.bytes.is_empty() {
            return 0;
        }
        let first = self.offset as usize / SECTOR_BYTES;
        (self.offset as usize + self.bytes.len()).div_ceil(SECTOR_BYTES) - first
    }

    fn apply(&self, image: &mut Vec<u8>, fate: &Fate) {
        if *fate == Fate::Lost {
            return;
        }
        if (image.len() as u64) < self.length {
            image.resize(self.length as usize, 0);
        }
        let start = self.offset as usize;
        let mut at = start;
        let mut sector = 0;
        while at < start + self.bytes.len() {
            let end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(start + self.bytes.len());
            let survives = match fate {
                Fate::Torn(sectors) => sectors.get(sector).copied().unwrap_or(false),
                _ => true,
            };
            if survives {
                image[at..end].copy_from_slice(&self.bytes[at - start..end - start]);
            }
            (at, sector) = (end, sector + 1);
        }
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        if let Some(name) = &self.remove
            && names.get(name) == Some(&self.node)
        {
            names.remove(name);
        }
        if let Some(name) = &self.add {
            names.insert(name.clone(), self.node);
        }
    }
}

/// The 64-bit FNV-1a hash: enough to tell images apart, and the same on every machine.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        // The length first, so that two strings cannot be told from their concatenation.
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn error(kind: ErrorKind, verb: &str, path: &str) -> io::Error {
    super::context(kind.into(), verb, path)
}
