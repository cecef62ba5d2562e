//! Fetches snapshots that other members offer: one at a time, file by file, each checked; the manifest comes last.
//!
//! A file is written under a temporary name and goes on where it was cut, after a kill too. A chunk that this member
//! holds already is not fetched: equal names mean equal bytes. Writes go on meanwhile; nothing is installed here.

use super::offer;
use super::pins::PART;
use super::pull::Puller;
use super::shared::{Member, Shared};
use crate::failpoint::failpoint;
use crate::limits::PEER_MANIFEST_BYTES_MAX;
use crate::wal_thread::end_process;
use mechi_proto::mechipeerpb::SnapshotTaken;
use mechi_proto::mechipeerpb::peer_message::Message;
use mechi_replica::disk::{self, Disk, File, join};
use mechi_replica::outcome::Fatal;
use mechi_replica::snapshot;
use mechi_replica::snapshot::chunk::{self, Chunk};
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::types::{Index, MemberId, Term};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Instant;
use thiserror::Error as ThisError;
use tokio::task::spawn_blocking;

/// A snapshot that another member offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) from: MemberId,
    pub(super) index: Index,
    pub(super) term: Term,
}

/// Why a snapshot was not fetched.
#[derive(Debug, ThisError)]
pub(super) enum Trouble {
    /// A newer offer came, or this member stops: what was fetched stays for the next attempt.
    #[error("{0}")]
    GivenUp(&'static str),
    /// The connection was cut: the fetch goes on where it was.
    #[error("{0}")]
    Cut(String),
    /// It cannot be had this way; what was fetched and is whole stays.
    #[error("{0}")]
    Failed(String),
    /// The disk is full: what was fetched goes.
    #[error("{0}")]
    Full(String),
    /// A sync failed. The next one, even of the next process, may say that all is well without having written anything
    /// (Rebello et al., ATC '20), and the snapshot would then be installed: the process ends, as after every failed sync.
    #[error("{0}")]
    Unsynced(Fatal),
}

fn failed(source: io::Error) -> Fatal {
    Fatal::Io { context: "sync a fetched snapshot".into(), source }
}

/// Lets the file at `path` go if it could not be made durable, so that the next process does not find it and believe it.
fn durable(synced: Result<(), Fatal>, disk: &impl Disk, path: &str) -> Result<(), Trouble> {
    synced.map_err(|error| {
        // If this fails too, at least this process does not take it.
        let _ = disk.unlink(path);
        Trouble::Unsynced(error)
    })
}

/// Makes a fetched file, which has a temporary name yet, durable.
fn sync_part(disk: &impl Disk, path: &str) -> Result<(), Trouble> {
    failpoint!("snap_recv_before_sync", |why| durable(Err(failed(io::Error::other(why))), disk, path));
    durable(disk.open(path)?.sync().map_err(failed), disk, path)
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if disk::is_full(&error) { Self::Full(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}

/// Fetches what is offered, the newest offer only, until the member stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut wanted = shared.wanted.subscribe();
    loop {
        tokio::select! {
            biased;
            () = shared.stopped() => return,
            _ = wanted.changed() => {}
        }
        let offer = wanted.borrow_and_update().clone();
        let Some(offer) = offer else { continue };
        let Some(member) = shared.members.get(&offer.from) else { continue };
        let ok = take(&shared, member, &offer).await;
        // Without a connection it is lost, and the sender takes the silence for an answer.
        member.bulk.push(Message::Taken(SnapshotTaken { index: offer.index, ok }));
    }
}

/// Fetches one snapshot, and tells the member; returns whether it has it, or more.
async fn take(shared: &Arc<Shared>, member: &Member, offer: &Offer) -> bool {
    let Offer { index, term, .. } = *offer;
    if (shared.config.applied)() >= index {
        return true;
    }
    let (network, label) = (&shared.config.metrics, [member.label.as_str()]);
    let began = Instant::now();
    tracing::info!(from = member.label, index, term, "receiving database snapshot");
    network.snapshot_receive_inflights_total.with_label_values(&label).inc();
    let mut taking = Taking { shared: shared.clone(), offer: offer.clone(), fetched: Vec::new() };
    let result = taking.run(member).await;
    network.snapshot_receive_inflights_total.with_label_values(&label).dec();
    match result {
        Ok(bytes) => {
            tracing::info!(from = member.label, index, term, bytes, "received and saved database snapshot");
            network.snapshot_receive_success.with_label_values(&label).inc();
            let took = began.elapsed().as_secs_f64();
            network.snapshot_receive_total_duration_seconds.with_label_values(&label).observe(took);
            shared.events.snapshot_received(index, term);
            true
        }
        Err(Trouble::Unsynced(error)) => end_process(&error),
        Err(trouble) => {
            network.snapshot_receive_failures.with_label_values(&label).inc();
            tracing::warn!(from = member.label, index, term, why = %trouble, "failed to receive a snapshot");
            if let Trouble::Full(_) = trouble {
                taking.remove_all().await;
            }
            false
        }
    }
}

struct Taking {
    shared: Arc<Shared>,
    offer: Offer,
    /// Files that came with this attempt, whole or in part.
    fetched: Vec<String>,
}

impl Taking {
    /// Returns the bytes that were fetched.
    async fn run(&mut self, member: &Member) -> Result<u64, Trouble> {
        let Offer { index, term, .. } = self.offer;
        let name = offer::name(index, term);
        self.shared.config.pins.fetch_manifest(&name);
        if self.is_there(&name).await? {
            return Ok(0);
        }
        let mut puller = Puller::new(self.shared.clone(), member.id, self.offer.clone());
        // Two members' manifests of one index differ in more than their author, so none is continued.
        self.fetched.push(part(&name));
        puller.pull(&name, None, PEER_MANIFEST_BYTES_MAX, false).await?;
        let manifest = self.decode(&name).await?;
        self.shared.config.pins.fetch(&manifest);
        let missing = self.missing(&manifest).await?;
        // On a full disk what earlier attempts left of them goes, too.
        self.fetched.extend(missing.iter().map(|chunk| part(&chunk.name())));
        self.check_room(&missing)?;
        for chunk in &missing {
            self.fetch_chunk(&mut puller, chunk).await?;
        }
        self.finish(manifest).await?;
        Ok(puller.bytes)
    }

    /// Runs what touches the disk outside of the connections' threads.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let shared = self.shared.clone();
        spawn_blocking(move || work(&shared)).await.map_err(|_| Trouble::GivenUp("this member stops"))?
    }

    /// Whether the whole snapshot lies here already, as after a kill between the last file and its installation.
    async fn is_there(&self, name: &str) -> Result<bool, Trouble> {
        let name = name.to_owned();
        self.on_disk(move |shared| {
            let (disk, dir) = (&shared.config.disk, &shared.config.snapshots);
            let path = join(dir, &name);
            let bytes = match disk::read(disk, &path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                bytes => bytes?,
            };
            let Ok(manifest) = Manifest::decode(&bytes, &path) else { return Ok(false) };
            shared.config.pins.fetch(&manifest);
            if snapshot::verify(disk, dir, &manifest).is_err() {
                return Ok(false);
            }
            durable(snapshot::make_durable(disk, dir, &manifest), disk, &path)?;
            Ok(true)
        })
        .await
    }

    async fn decode(&self, name: &str) -> Result<Manifest, Trouble> {
        let (path, offer) = (part(name), self.offer.clone());
        self.on_disk(move |shared| {
            let path = join(&shared.config.snapshots, &path);
            let bytes = disk::read(&shared.config.disk, &path)?;
            let manifest = Manifest::decode(&bytes, &path).map_err(|error| Trouble::Failed(error.to_string()))?;
            if (manifest.index(), manifest.term()) != (offer.index, offer.term) {
                let found = format!("index {} of term {}", manifest.index(), manifest.term());
                return Err(Trouble::Failed(format!("the manifest that came is of {found}")));
            }
            Ok(manifest)
        })
        .await
    }

    /// The chunks that do not lie here whole. Removes what earlier attempts left and this one does not need.
    async fn missing(&self, manifest: &Manifest) -> Result<Vec<Chunk>, Trouble> {
        let manifest = manifest.clone();
        self.on_disk(move |shared| {
            let (disk, dir) = (&shared.config.disk, &shared.config.snapshots);
            let wanted: BTreeSet<String> =
                manifest.chunks.iter().map(Chunk::name).chain([manifest.name()]).map(|name| part(&name)).collect();
            let left = disk.list(dir)?.into_iter().filter(|name| name.ends_with(PART) && !wanted.contains(name));
            for name in left {
                disk.unlink(&join(dir, &name))?;
            }
            let mut missing = Vec::new();
            let mut seen = BTreeSet::new();
            for chunk in &manifest.chunks {
                let path = join(dir, &chunk.name());
                let bytes = match disk::read(disk, &path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    bytes => Some(bytes?),
                };
                match bytes {
                    // Whoever gave it its name had synced it; a file that was put here by hand was not. It stays: this
                    // member's own snapshots may hold it, too.
                    Some(bytes) if chunk::check(chunk, &bytes, &path).is_ok() => {
                        disk.open(&path)?.sync().map_err(|error| Trouble::Unsynced(failed(error)))?;
                    }
                    _ if seen.insert(path) => missing.push(*chunk),
                    _ => {}
                }
            }
            Ok(missing)
        })
        .await
    }

    /// Refuses what would take the room that the log needs.
    fn check_room(&self, missing: &[Chunk]) -> Result<(), Trouble> {
        let wanted: u64 = missing.iter().map(|chunk| u64::from(chunk.file_bytes)).sum();
        let (_, free) = crate::space::disk_bytes(self.shared.config.disk.root())?;
        if wanted.saturating_add(self.shared.config.reserve_bytes) > free {
            return Err(Trouble::Full(format!("{wanted} bytes are to come, {free} are free")));
        }
        Ok(())
    }

    async fn fetch_chunk(&mut self, puller: &mut Puller, chunk: &Chunk) -> Result<(), Trouble> {
        let name = chunk.name();
        self.fetched.push(name.clone());
        let bytes = u64::from(chunk.file_bytes);
        let continued = puller.pull(&name, Some(bytes), bytes, true).await?;
        match self.keep_chunk(*chunk).await {
            // What an earlier attempt left was not what it seemed: once more from the beginning.
            Err(Trouble::Failed(_)) if continued => {
                puller.pull(&name, Some(bytes), bytes, false).await?;
                self.keep_chunk(*chunk).await
            }
            kept => kept,
        }
    }

    /// Gives a chunk its name once it is durable and what the manifest says.
    async fn keep_chunk(&self, chunk: Chunk) -> Result<(), Trouble> {
        self.on_disk(move |shared| {
            let (disk, dir) = (&shared.config.disk, &shared.config.snapshots);
            let (path, temporary) = (join(dir, &chunk.name()), join(dir, &part(&chunk.name())));
            let bytes = disk::read(disk, &temporary)?;
            if let Err(error) = chunk::check(&chunk, &bytes, &temporary) {
                disk.unlink(&temporary)?;
                return Err(Trouble::Failed(error.to_string()));
            }
            sync_part(disk, &temporary)?;
            disk.rename(&temporary, &path)?;
            Ok(())
        })
        .await
    }

    /// Makes the chunks' names durable, then gives the manifest its name, then reads everything back.
    async fn finish(&self, manifest: Manifest) -> Result<(), Trouble> {
        self.on_disk(move |shared| {
            let (disk, dir) = (&shared.config.disk, &shared.config.snapshots);
            let (path, temporary) = (join(dir, &manifest.name()), join(dir, &part(&manifest.name())));
            let sync_names = || durable(disk.sync_dir(dir).map_err(failed), disk, &path);
            sync_part(disk, &temporary)?;
            sync_names()?;
            disk.rename(&temporary, &path)?;
            sync_names()?;
            if let Err(error) = snapshot::verify(disk, dir, &manifest) {
                // A manifest must not be there without its chunks.
                disk.unlink(&path)?;
                sync_names()?;
                return Err(Trouble::Failed(error.to_string()));
            }
            Ok(())
        })
        .await
    }

    /// Gives a full disk back what this attempt took.
    async fn remove_all(&mut self) {
        let names = std::mem::take(&mut self.fetched);
        let removed = self.on_disk(move |shared| {
            for name in names {
                // Most were renamed or never made.
                let _ = shared.config.disk.unlink(&join(&shared.config.snapshots, &name));
            }
            Ok(())
        });
        // Whatever stays goes with the next snapshot's garbage.
        let _ = removed.await;
    }
}

/// The name that a file has until it is whole.
pub(super) fn part(name: &str) -> String {
    format!("{name}{PART}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_replica::disk::sim::{Fault, SimDisk};

    #[test]
    fn a_part_that_cannot_be_synced_goes_and_ends_the_process() {
        for fault in [Fault::SyncKeepsPages, Fault::SyncDropsPages] {
            let disk = SimDisk::new();
            disk.create("chunk.part").unwrap().write_at(b"fetched", 0).unwrap();
            disk.fail_at(disk.operations(), fault);
            let trouble = sync_part(&disk, "chunk.part").unwrap_err();
            assert!(matches!(trouble, Trouble::Unsynced(Fatal::Io { .. })), "{trouble:?}");
            // Were it there, the next sync of it would say that all is well: a simulated one does, too.
            assert_eq!(disk.list("").unwrap(), [""; 0], "{fault:?}");
        }
        let disk = SimDisk::new();
        disk.create("chunk.part").unwrap().write_at(b"fetched", 0).unwrap();
        sync_part(&disk, "chunk.part").unwrap();
        assert_eq!(disk.list("").unwrap(), ["chunk.part"]);
    }
}
