//! Runs the scripts in testscripts/store and testscripts/snapshot: what a flush writes and in which order, what
//! compaction takes out of the store, and which files a snapshot consists of.

#![allow(clippy::unwrap_used)] // A failed call is a failed test.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{self, command::Request};
use mechi_replica::apply::state::State;
use mechi_replica::apply::{Answer, Outcomes, apply};
use mechi_replica::command;
use mechi_replica::disk::sim::SimDisk;
use mechi_replica::disk::{self, Disk, File};
use mechi_replica::effect::{Entry, EntryKind};
use mechi_replica::outcome::Fatal;
use mechi_replica::snapshot::{self, build, manifest::Manifest};
use mechi_replica::store::applied::Applied;
use mechi_replica::store::flush::Flusher;
use mechi_replica::store::mem::MemStore;
use mechi_replica::store::restore::{rebuild, restore};
use mechi_replica::store::{Batch, Blocks, Store, fmt};
use mechi_replica::types::KeyRange;
use std::cell::RefCell;
use std::error::Error;
use std::fmt::Write as _;

/// A store that tells of every batch.
#[derive(Default)]
struct Told {
    store: MemStore,
    batches: RefCell<String>,
    /// Batches that still arrive; the process dies at the next one.
    left: RefCell<Option<usize>>,
}

impl Store for Told {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        self.store.get(key)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, Fatal> {
        self.store.last(from, to)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fatal> {
        self.store.scan(from, to, visit)
    }
    fn commit(&self, batch: Batch) -> Result<(), Fatal> {
        if let Some(left) = &mut *self.left.borrow_mut() {
            *left = left.checked_sub(1).ok_or_else(|| Fatal::EngineLost("the process died".into()))?;
        }
        let mut out = self.batches.borrow_mut();
        let _ = writeln!(out, "batch");
        for (key, value) in &batch.puts {
            let _ = writeln!(out, "  put {} ({} bytes)", fmt::key(key), value.len());
        }
        for key in &batch.removes {
            let _ = writeln!(out, "  remove {}", fmt::key(key));
        }
        self.store.commit(batch)
    }
}

struct Script {
    state: State,
    flusher: Flusher,
    store: Told,
    entries: Vec<Entry>,
    disk: SimDisk,
    snapshots: Vec<Manifest>,
}

impl Script {
    fn new() -> Self {
        let disk = SimDisk::new();
        disk::ensure_dir(&disk, "snap").unwrap();
        let (state, flusher, store) = (State::empty(), Flusher::new(None), Told::default());
        Self { state, flusher, store, entries: Vec::new(), disk, snapshots: Vec::new() }
    }

    fn propose(&mut self, request: Request) -> Result<(), Fatal> {
        let index = self.entries.len() as u64 + 1;
        let command = mechipb::Command { id: index, request: Some(request), ..Default::default() };
        let batch = mechipb::Batch { member: 1, boot: 1, number: index, wall_ms: 0, commands: vec![command] };
        let entry = Entry { index, term: 1, kind: EntryKind::Normal, data: command::encode(&batch) };
        self.entries.push(entry);
        self.replay()
    }

    /// Applies what the log holds and the state does not.
    fn replay(&mut self) -> Result<(), Fatal> {
        let nobody = Answer { member: 0, boot: 0 };
        for entry in self.entries.iter().skip(self.state.applied_index as usize) {
            apply(&mut self.state, entry, nobody, &Blocks(&self.store), &mut Outcomes::default())?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fatal> {
        self.flusher.flush_all(&self.store, &self.state.mvcc, self.state.to_meta())?;
        self.state.mvcc.set_flushed(self.flusher.flushed());
        Ok(())
    }

    fn show(&self) -> Result<String, Box<dyn Error>> {
        let State { mvcc, applied_index, .. } = &self.state;
        let mut out =
            format!("index {applied_index} revision {} compacted {}\n", mvcc.revision(), mvcc.compact_revision());
        let mut failed = None;
        mvcc.scan(&KeyRange::all(), mvcc.revision(), &mut |item| {
            let key = item.key().escape_ascii().to_string();
            match item.record(&Blocks(&self.store)) {
                Ok(record) => {
                    let bytes = record.fields().map_or(0, |fields| fields.value.len());
                    let _ = writeln!(out, "  {key} of revision {}, {bytes} bytes", item.mod_revision);
                }
                Err(error) => failed = Some(error),
            }
            true
        });
        failed.map_or(Ok(out), |error| Err(error.into()))
    }

    /// The state is gone; the store, if it has an applied record, brings it back.
    fn restart(&mut self) -> Result<String, Box<dyn Error>> {
        *self.store.left.borrow_mut() = None;
        (self.state, self.flusher) = match Applied::load(&self.store)? {
            Some(applied) => restore(&self.store, &applied, u64::MAX)?,
            None => {
                self.store = Told::default();
                (State::empty(), Flusher::new(None))
            }
        };
        self.show()
    }
}

impl goldenscript::Runner for Script {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &Self::Command, _: &goldenscript::Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let mut out = String::new();
        match command.name.as_str() {
            // put KEY VALUE [bytes=N] [lease=ID]: the value is filled up to N bytes.
            "put" => {
                let key = args.next_pos().ok_or("want a key")?.to_string();
                let mut value = args.next_pos().ok_or("want a value")?.as_bytes().to_vec();
                let bytes: usize = args.take_key("bytes").map_or(Ok(0), str::parse)?;
                value.resize(value.len().max(bytes), b'.');
                let lease: i64 = args.take_key("lease").map_or(Ok(0), str::parse)?;
                let (key, value) = (key.into(), value.into());
                self.propose(Request::Put(pb::PutRequest { key, value, lease, ..Default::default() }))?;
            }
            // delete KEY [END]
            "delete" => {
                let key = args.next_pos().ok_or("want a key")?.to_string().into();
                let range_end = args.next_pos().map(str::to_string).unwrap_or_default().into();
                self.propose(Request::DeleteRange(pb::DeleteRangeRequest { key, range_end, ..Default::default() }))?;
            }
            "grant" => {
                let id = args.next_pos().ok_or("want an id")?.parse()?;
                self.propose(Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 60 }))?;
            }
            "compact" => {
                let revision = args.next_pos().ok_or("want a revision")?.parse()?;
                self.propose(Request::Compaction(pb::CompactionRequest { revision, ..Default::default() }))?;
            }
            // flush [dies_after=N]: the process ends when N batches are in the store.
            "flush" => {
                let left = args.take_key("dies_after").map(str::parse).transpose()?;
                *self.store.left.borrow_mut() = left;
                match self.flush() {
                    Err(error) if left.is_some() => writeln!(out, "{error}")?,
                    other => other?,
                }
            }
            // sweep: memory forgets what compaction has freed; says what waits for its removal from the store.
            "sweep" => {
                loop {
                    let sweep = self.state.mvcc.sweep(i64::MAX, 100);
                    self.flusher.removed(self.state.mvcc.compact_revision(), sweep.removed);
                    if sweep.done {
                        break;
                    }
                }
                writeln!(out, "{} revisions wait for their removal", self.flusher.waiting())?;
            }
            // remove: one batch of removals, if the store's applied record allows one.
            "remove" => {
                if !self.flusher.remove_some(&self.store)? {
                    writeln!(out, "nothing may be removed")?;
                }
            }
            "evict" => {
                self.state.mvcc.evict(self.flusher.flushed(), 0, 100);
            }
            // dump: every pair of the store.
            "dump" => out = fmt::store(&self.store)?,
            // damage: flips a bit in the middle of the first block.
            "damage" => {
                let mut first = None;
                self.store.scan(b"r", b"s", &mut |key, value| {
                    first = Some((key.to_vec(), value.to_vec()));
                    false
                })?;
                let (key, mut value) = first.ok_or("the store is empty")?;
                let middle = value.len() / 2;
                value[middle] ^= 1;
                self.store.store.commit(Batch { puts: vec![(key, value)], ..Batch::default() })?;
            }
            "show" => out = self.show()?,
            // restart: the process ends, and the store brings back what it stands for.
            "restart" => out = self.restart()?,
            // replay: the log does the rest.
            "replay" => {
                self.replay()?;
                out = self.show()?;
            }
            // snapshot: of the store as it is, sharing chunks with the newest one.
            "snapshot" => {
                let applied = *self.flusher.applied().ok_or("flush first")?;
                let meta = applied.state(&self.store)?;
                let previous = self.snapshots.last();
                let made = build::build(&self.disk, "snap", 1, &self.store, meta, &applied, previous)?;
                out = fmt::manifest(&made, previous);
                self.snapshots.push(made);
            }
            // garbage keep=N: removes every file that the N newest snapshots do not need.
            "garbage" => {
                let keep: usize = args.take_key("keep").ok_or("want keep=N")?.parse()?;
                self.snapshots.drain(..self.snapshots.len().saturating_sub(keep));
                let kept: Vec<_> = self.snapshots.iter().collect();
                let freed = snapshot::collect_garbage(&self.disk, "snap", &kept)?;
                writeln!(out, "freed {}", if freed > 0 { "some bytes" } else { "nothing" })?;
            }
            "ls" => {
                for name in self.disk.list("snap")? {
                    // How compression and sums come out is not what the scripts are about.
                    let short = name.split_once('-').map_or("", |(first, _)| first.trim_start_matches('0'));
                    let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
                    writeln!(out, "{suffix} {short}")?;
                }
            }
            // leftover NAME: a file that a killed process left behind.
            "leftover" => {
                let name = args.next_pos().ok_or("want a name")?;
                self.disk.create(&disk::join("snap", name))?.write_at(b"half a file", 0)?;
            }
            // rebuild: the store is gone; the newest whole snapshot fills an empty one.
            "rebuild" => {
                let (found, damaged) = snapshot::newest_verified(&self.disk, "snap")?;
                writeln!(out, "{} damaged", damaged.len())?;
                let manifest = found.ok_or("there is no whole snapshot")?;
                self.store = Told::default();
                let applied = rebuild(&self.store, &self.disk, "snap", &manifest)?;
                self.store.batches.borrow_mut().clear();
                (self.state, self.flusher) = restore(&self.store, &applied, u64::MAX)?;
                out.push_str(&self.show()?);
            }
            // damage_chunk: of the newest snapshot.
            "damage_chunk" => {
                let chunk = self.snapshots.last().and_then(|manifest| manifest.chunks.last()).ok_or("no chunk")?;
                self.disk.damage(&disk::join("snap", &chunk.name()), 40, b"damage");
            }
            other => return Err(format!("no command {other}").into()),
        }
        args.reject_next()?;
        out.insert_str(0, &std::mem::take(&mut *self.store.batches.borrow_mut()));
        Ok(out)
    }
}

fn scripts(folder: &str, at_least: usize) {
    let dir = format!("{}/testscripts/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut ran = 0;
    for file in std::fs::read_dir(dir).unwrap() {
        goldenscript::run(&mut Script::new(), file.unwrap().path()).unwrap();
        ran += 1;
    }
    assert!(ran >= at_least, "only {ran} scripts found");
}

#[test]
fn store() {
    scripts("store", 5);
}

#[test]
fn snapshots() {
    scripts("snapshot", 3);
}
