//! Runs the scripts in testscripts/wal: commands on a log over a simulated disk, with what they answered.

use super::record::Record;
use super::{Recovered, Wal, WalOptions, segment};
use crate::disk::sim::{Fate, Fault, SimDisk};
use crate::disk::{self, Disk, File};
use crate::effect::{Entry, EntryKind, HardState};
use crate::types::{Index, Term};
use std::error::Error;
use std::fmt::Write as _;

struct Script {
    disk: SimDisk,
    wal: Option<Wal<SimDisk>>,
    snapshot: Option<(Index, Term)>,
    /// A file's bytes, for `put_back`.
    kept: Vec<u8>,
}

impl goldenscript::Runner for Script {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &Self::Command, _: &goldenscript::Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let mut out = String::new();
        match command.name.as_str() {
            // open [segment=BYTES] [reserve=N]: opens the log, as a process that starts.
            "open" => {
                self.wal = None;
                let options = WalOptions {
                    segment_bytes: args.take_key("segment").map_or(Ok(4096), str::parse)?,
                    reserve_segments: args.take_key("reserve").map_or(Ok(0), str::parse)?,
                };
                let (wal, recovered) = Wal::open(self.disk.clone(), "wal", options, self.snapshot)?;
                self.wal = Some(wal);
                show(&mut out, &recovered)?;
            }
            // append INDEX@TERM=DATA.. [hard=TERM/VOTE/COMMIT] [bytes=N]: writes one batch; data are filled up to N.
            "append" => {
                let bytes: usize = args.take_key("bytes").map_or(Ok(0), str::parse)?;
                let hard = args.take_key("hard");
                let mut records = Vec::new();
                while let Some((place, data)) = args.next_key() {
                    let (index, term) = place.split_once('@').ok_or("want INDEX@TERM=DATA")?;
                    let mut data = data.as_bytes().to_vec();
                    data.resize(data.len().max(bytes), b'.');
                    let (index, term) = (index.parse()?, term.parse()?);
                    records.push(Record::Entry(Entry { index, term, kind: EntryKind::Normal, data: data.into() }));
                }
                if let Some(hard) = hard {
                    let numbers = hard.split('/').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
                    let [term, vote, commit] = numbers[..] else { return Err("want TERM/VOTE/COMMIT".into()) };
                    records.push(Record::HardState(HardState { term, vote, commit }));
                }
                self.wal()?.append(&records)?;
            }
            "sync" => self.wal()?.sync()?,
            "mark" => self.wal()?.mark()?,
            // snapshot INDEX TERM: a snapshot is verified, and the log says so durably.
            "snapshot" => {
                let index = args.next_pos().ok_or("want an index")?.parse()?;
                let term = args.next_pos().ok_or("want a term")?.parse()?;
                self.snapshot = Some((index, term));
                self.wal()?.append(&[Record::Snapshot { index, term }])?;
                self.wal()?.sync()?;
            }
            // lose_snapshot: the snapshot's files are gone.
            "lose_snapshot" => self.snapshot = None,
            "trim" => {
                let below = args.next_pos().ok_or("want an index")?.parse()?;
                self.wal()?.trim(below)?;
            }
            "close" => {
                let applied = args.next_pos().ok_or("want an index")?.parse()?;
                self.wal()?.close_clean(applied)?;
                self.wal = None;
            }
            "kill" => self.wal = None,
            // power_cut lost|applied: what was not synced is lost, or happens to survive.
            "power_cut" => {
                self.wal = None;
                let fate = if args.next_pos().is_some_and(|arg| arg == "applied") { Fate::Applied } else { Fate::Lost };
                self.disk = self.disk.power_cut(|_| fate.clone());
            }
            // damage FILE OFFSET: flips the bits of one byte.
            "damage" => {
                let path = disk::join("wal", args.next_pos().ok_or("want a file")?);
                let offset: usize = args.next_pos().ok_or("want an offset")?.parse()?;
                let byte = disk::read(&self.disk, &path)?[offset];
                self.disk.damage(&path, offset, &[!byte]);
            }
            // cut FILE BYTES: the file ends there.
            "cut" => {
                let path = disk::join("wal", args.next_pos().ok_or("want a file")?);
                let bytes: usize = args.next_pos().ok_or("want bytes")?.parse()?;
                let whole = disk::read(&self.disk, &path)?;
                self.write_whole(&path, &whole[..bytes])?;
            }
            // keep FILE, put_back FILE: the file is as it was when it was kept, whatever happened since; a process that does not
            // know it leaves it so.
            "keep" => {
                let path = disk::join("wal", args.next_pos().ok_or("want a file")?);
                self.kept = disk::read(&self.disk, &path)?;
            }
            "put_back" => {
                let path = disk::join("wal", args.next_pos().ok_or("want a file")?);
                self.write_whole(&path, &self.kept)?;
            }
            // fail sync|error: the next operation that changes something fails.
            "fail" => {
                let keep = args.next_pos().is_some_and(|arg| arg == "sync");
                let fault = if keep { Fault::SyncKeepsPages } else { Fault::Error };
                self.disk.fail_at(self.disk.operations(), fault);
            }
            // capacity [extra=BYTES]: the disk has so much room left, or no bound.
            "capacity" => {
                let extra = args.take_key("extra").map(str::parse::<u64>).transpose()?;
                self.disk.set_capacity(extra.map(|extra| self.disk.used() + extra));
            }
            // stats INDEX..: bytes on disk, and bytes of log above each index.
            "stats" => {
                let wal = self.wal()?;
                writeln!(out, "{} bytes on disk", wal.bytes())?;
                while let Some(index) = args.next_pos() {
                    writeln!(out, "{} bytes above entry {index}", wal.bytes_since(index.parse()?))?;
                }
            }
            // dump: every batch of every segment, as recovery finds them.
            "dump" => {
                for name in self.disk.list("wal")? {
                    let bytes = disk::read(&self.disk, &disk::join("wal", &name))?;
                    writeln!(out, "{name} {} bytes", bytes.len())?;
                    for batch in segment::parse_name(&name).map(|id| segment::scan(id, &bytes)).unwrap_or_default() {
                        let header = &batch.header;
                        write!(out, "  {} boot={} last={}@{}", header.at, header.boot, header.last.0, header.last.1)?;
                        writeln!(out, " durable={}", header.durable)?;
                        let Some(logged) = &batch.logged else {
                            writeln!(out, "    damaged")?;
                            continue;
                        };
                        logged.iter().try_for_each(|logged| writeln!(out, "    {}", describe(logged)))?;
                    }
                }
            }
            other => return Err(format!("no command {other}").into()),
        }
        args.reject_next()?;
        Ok(out)
    }
}

impl Script {
    /// Puts other bytes in a file's place, durably.
    fn write_whole(&self, path: &str, bytes: &[u8]) -> std::io::Result<()> {
        self.disk.unlink(path)?;
        let file = self.disk.create(path)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.disk.sync_dir("wal")
    }

    fn wal(&mut self) -> Result<&mut Wal<SimDisk>, &'static str> {
        self.wal.as_mut().ok_or("the log is not open")
    }
}

fn show(out: &mut String, recovered: &Recovered) -> std::fmt::Result {
    let Recovered { first_index, last_index, hard_state, boot, .. } = recovered;
    let HardState { term, vote, commit } = hard_state;
    writeln!(out, "boot {boot}: entries {first_index}..={last_index}, term {term} vote {vote} commit {commit}")?;
    for entry in &recovered.entries {
        writeln!(out, "  {}", describe_entry(entry))?;
    }
    if let Some(applied) = recovered.clean {
        writeln!(out, "closed cleanly with {applied} applied")?;
    }
    if let Some(cut) = &recovered.cut {
        writeln!(out, "cut {} at {}, {} batches", cut.file, cut.offset, cut.batches)?;
    }
    Ok(())
}

fn describe(logged: &super::record::Logged) -> String {
    match logged {
        super::record::Logged::Start(start) => {
            format!("start after {}, {} bytes", start.base, start.length)
        }
        super::record::Logged::Record(Record::Entry(entry)) => describe_entry(entry),
        super::record::Logged::Record(Record::HardState(HardState { term, vote, commit })) => {
            format!("hard state: term {term} vote {vote} commit {commit}")
        }
        super::record::Logged::Record(Record::Snapshot { index, term }) => format!("snapshot {index}@{term}"),
        super::record::Logged::Record(Record::Boot { counter }) => format!("boot {counter}"),
        super::record::Logged::Record(Record::Clean { applied }) => format!("clean {applied}"),
    }
}

fn describe_entry(entry: &Entry) -> String {
    let text = String::from_utf8_lossy(&entry.data);
    let text = text.trim_end_matches('.');
    let filled = entry.data.len() - text.len();
    let filled = if filled > 0 { format!(" and {filled} more bytes") } else { String::new() };
    format!("{}@{} {text}{filled}", entry.index, entry.term)
}

#[test]
fn scripts() -> Result<(), Box<dyn Error>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testscripts/wal");
    let mut ran = 0;
    for file in std::fs::read_dir(dir)? {
        let mut script = Script { disk: SimDisk::new(), wal: None, snapshot: None, kept: Vec::new() };
        goldenscript::run(&mut script, file?.path())?;
        ran += 1;
    }
    assert!(ran >= 7, "only {ran} scripts found");
    Ok(())
}
