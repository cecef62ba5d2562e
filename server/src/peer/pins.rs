//! Which files of the snapshots' folder must stay although no snapshot that is kept needs them.

use crate::limits::{PEER_PINS_MAX, PEER_SNAPSHOT_SILENCE};
use mechi_replica::snapshot::chunk::Chunk;
use mechi_replica::snapshot::manifest::Manifest;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How the name of a file ends that is not fetched whole yet.
pub(super) const PART: &str = ".part";

/// The files that other members fetch, for a time, and those that this member fetches.
///
/// The keeper of the snapshots asks it before it removes a file.
#[derive(Debug, Default)]
pub struct Pins {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The one that was asked for longest ago first.
    offered: Vec<Offered>,
    /// What is being fetched, or was fetched and is to be installed.
    fetching: BTreeSet<String>,
}

#[derive(Debug)]
struct Offered {
    manifest: String,
    names: BTreeSet<String>,
    until: Instant,
}

impl Pins {
    /// Whether a file must stay; costs little.
    pub fn is_pinned(&self, name: &str) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.offered.retain(|offered| offered.until > now);
        state.fetching.contains(name.strip_suffix(PART).unwrap_or(name))
            || state.offered.iter().any(|offered| offered.names.contains(name))
    }

    /// Keeps a snapshot's files for a member that it was offered to, while that one asks for them.
    pub(super) fn offer(&self, manifest: &Manifest, time: Duration) {
        let mut state = self.state.lock();
        let name = manifest.name();
        state.offered.retain(|offered| offered.manifest != name);
        if state.offered.len() >= PEER_PINS_MAX {
            state.offered.remove(0);
        }
        state.offered.push(Offered { names: names(manifest), manifest: name, until: Instant::now() + time });
    }

    /// Whether a file belongs to a snapshot that was offered; its files then stay for another while.
    pub(super) fn serves(&self, name: &str) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        let at = state.offered.iter().position(|offered| offered.until > now && offered.names.contains(name));
        let Some(at) = at else { return false };
        let mut offered = state.offered.remove(at);
        offered.until = offered.until.max(now + PEER_SNAPSHOT_SILENCE);
        state.offered.push(offered);
        true
    }

    /// Keeps the files of the snapshot that this member fetches, instead of those of any before.
    pub(super) fn fetch(&self, manifest: &Manifest) {
        self.state.lock().fetching = names(manifest);
    }

    /// Keeps the one file of a snapshot of which no more is known yet.
    pub(super) fn fetch_manifest(&self, name: &str) {
        // What was fetched before may be what this one needs, too.
        self.state.lock().fetching.insert(name.to_owned());
    }
}

fn names(manifest: &Manifest) -> BTreeSet<String> {
    manifest.chunks.iter().map(Chunk::name).chain([manifest.name()]).collect()
}
