//! A snapshot's way to a member that lags: pulled file by file, each verified and durable, the manifest last.
//!
//! Once it is whole the member is stopped and opened again by the ordinary open, which finds that the snapshot lies
//! beyond the log.

use super::machine::{SNAP_DIR, StoreLoss};
use super::network::Link;
use super::process::{Process, say_io};
use super::world::{End, Event, World};
use mechi_replica::disk;
use mechi_replica::disk::sim::SimDisk;
use mechi_replica::snapshot::chunk;
use mechi_replica::snapshot::manifest::Manifest;
use mechi_replica::types::{Index, Term};
use std::io;

/// A snapshot that is being fetched.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    /// Who has it.
    pub(super) from: u64,
    /// That member's process.
    pub(super) life: u64,
    index: Index,
    manifest: Option<Manifest>,
    /// Files that are here.
    done: usize,
}

impl Fetch {
    /// Fetches the next file; returns whether it was the last one, `None` if it cannot be had.
    ///
    /// - Errors: the own disk's.
    fn next(&mut self, source: &Process, own: &SimDisk) -> io::Result<Option<bool>> {
        if self.manifest.is_none() {
            self.manifest = source.snapshot_at(self.index).cloned();
        }
        let Some(manifest) = &self.manifest else { return Ok(None) };
        let Some(chunk) = manifest.chunks.get(self.done) else {
            let path = disk::join(SNAP_DIR, &manifest.name());
            return disk::write_atomic(own, &path, &manifest.encode()).map(|()| Some(true));
        };
        let path = disk::join(SNAP_DIR, &chunk.name());
        let whole = |bytes: &[u8]| chunk::check(chunk, bytes, &path).is_ok();
        // Chunks are shared between snapshots: one that is here is not fetched again, if it is whole.
        if !disk::read(own, &path).is_ok_and(|bytes| whole(&bytes)) {
            let bytes = disk::read(source.disk(), &path).ok().filter(|bytes| whole(bytes));
            let Some(bytes) = bytes else { return Ok(None) };
            disk::write_atomic(own, &path, &bytes)?;
        }
        self.done += 1;
        Ok(Some(false))
    }
}

impl World {
    /// The leader offers a snapshot; the offer goes over the network like everything else.
    pub(super) fn offer(&mut self, from: u64, to: u64, index: Index, term: Term) {
        let life = self.nodes[&from].life;
        self.log.event(self.now, &[40, from, to, index], || {
            format!("  {from} offers snapshot {index} of term {term} to {to}")
        });
        let delay = self.network.delay();
        let cut = self.network.is_cut(Link { from, to }) || self.network.is_cut(Link { from: to, to: from });
        let node = self.nodes.get_mut(&to).expect("a member");
        let taken = node.process.as_mut().filter(|_| !cut && node.fetch.is_none() && node.stopped.is_none());
        let Some(process) = taken else {
            self.after(delay, Event::Taken { member: from, life, to, ok: false });
            return;
        };
        process.fetching = true;
        node.fetch = Some(Fetch { from, life, index, manifest: None, done: 0 });
        let event = Event::Fetch { member: to, life: node.life };
        self.after(delay, event);
    }

    /// Fetches the next file.
    pub(super) fn fetch(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        let Some(mut fetch) = self.node(member).fetch.take() else { return Ok(()) };
        let (from, index) = (fetch.from, fetch.index);
        let link = Link { from, to: member };
        let source = self.nodes[&from].process.as_ref().filter(|_| {
            self.nodes[&from].life == fetch.life
                && self.nodes[&from].stopped.is_none()
                && !self.network.is_cut(link)
                && !self.network.is_cut(Link { from: member, to: from })
        });
        let own = self.nodes[&member].machine.disk.clone();
        let done = source.map_or(Ok(None), |source| fetch.next(source, &own));
        let done = match done {
            // Without room it is given up; what came is removed as garbage.
            Err(error) if disk::is_full(&error) => Ok(None),
            done => done.map_err(say_io("fetch a snapshot")),
        };
        // So that its end is heard of where the snapshot comes from.
        self.node(member).fetch = Some(fetch.clone());
        let Some(done) = self.survives(member, done)? else { return Ok(()) };
        self.node(member).fetch = None;
        self.log.event(self.now, &[41, member, index, done.map_or(2, u64::from)], || {
            format!("  {member} fetches snapshot {index}: {done:?}")
        });
        let delay = self.network.delay() + self.options.fsync.max;
        match done {
            Some(false) => {
                self.node(member).fetch = Some(fetch);
                self.after(delay, Event::Fetch { member, life });
            }
            done => {
                self.after(delay, Event::Taken { member: from, life: fetch.life, to: member, ok: done.is_some() });
                if let Some(process) = &mut self.node(member).process {
                    process.fetching = false;
                }
                if done.is_some() {
                    self.installs += 1;
                    self.reopen(member)?;
                }
            }
        }
        Ok(())
    }

    /// Stops a process and opens it again, as after a snapshot came.
    pub(super) fn reopen(&mut self, member: u64) -> Result<(), String> {
        let how = if self.now.is_multiple_of(3) { End::Kill(StoreLoss::Older) } else { End::Close };
        self.stop(member, how)?;
        let life = self.nodes[&member].life;
        let delay = self.options.fsync.max;
        self.after(delay, Event::Start { member, life });
        Ok(())
    }
}
