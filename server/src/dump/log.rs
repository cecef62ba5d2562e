//! The log, segment by segment, and what an open would make of it.

use super::asked::Asked;
use super::disk::ReadOnly;
use super::fact::{Field, Out};
use super::line;
use crate::telemetry;
use anyhow::Result;
use mechi_replica::command;
use mechi_replica::effect::{Entry, EntryKind};
use mechi_replica::outcome::Fatal;
use mechi_replica::types::{Index, Term};
use mechi_replica::wal::Position;
use mechi_replica::wal::inspect::{self, Judged, SeenBatch, SeenSegment};
use mechi_replica::wal::record::Record;
use prost::Message;
use serde_json::json;
use std::io::ErrorKind;
use std::time::{Duration, UNIX_EPOCH};

const FOLDER: &str = "wal";

/// Prints the log; `snapshot` is the newest whole one, on which the log stands.
pub(super) fn dump(disk: &ReadOnly, asked: &Asked, snapshot: Option<(Index, Term)>, out: &mut Out) -> Result<()> {
    let segments = match inspect::segments(disk, FOLDER) {
        Ok(segments) => segments,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            out.head("log", &[("found", "none".into())])?;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    // The verdict comes first: the rest may be long, and is understood by this.
    let judged = match inspect::judge(disk, FOLDER, snapshot) {
        Ok(judged) => {
            verdict(&judged, out)?;
            Some(judged)
        }
        Err(Fatal::Corrupt { file, offset, detail, .. }) => {
            out.head("log", &[("verdict", "damaged, a member would not start on it".into())])?;
            out.damage(&format!("{FOLDER}/{file}"), Some(offset), &detail)?;
            None
        }
        Err(error) => {
            out.damage(FOLDER, None, &error.to_string())?;
            None
        }
    };
    let mut walk = Walk { asked, judged: judged.as_ref(), out, entries: 0 };
    for id in segments {
        // One segment at a time: the log may be larger than memory.
        match inspect::read(disk, FOLDER, id) {
            Ok(segment) => walk.segment(&segment)?,
            Err(error) => walk.out.damage(FOLDER, None, &error.to_string())?,
        }
    }
    Ok(())
}

fn verdict(judged: &Judged, out: &mut Out) -> Result<()> {
    let (first, last) = judged.entries;
    let entries = if last >= first { format!("{first} to {last}") } else { format!("none behind {last}") };
    let mut fields: Vec<Field> = vec![
        ("verdict", "whole".into()),
        ("entries", entries.into()),
        ("term", json!(judged.hard_state.term)),
        ("vote", format!("{:x}", judged.hard_state.vote).into()),
        ("commit", json!(judged.hard_state.commit)),
        ("boots", json!(judged.boot)),
        ("durable up to", judged.vouched.to_string().into()),
        ("closed cleanly at", judged.clean.map_or("never".into(), |index| json!(index))),
    ];
    if let Some(cut) = &judged.cut {
        let text =
            format!("{FOLDER}/{} from byte {}, {} batches: nobody was promised it", cut.file, cut.offset, cut.batches);
        fields.push(("torn tail", text.into()));
    }
    out.head("log", &fields)?;
    Ok(())
}

/// A walk over the segments.
struct Walk<'a> {
    asked: &'a Asked,
    judged: Option<&'a Judged>,
    out: &'a mut Out,
    /// Entries printed so far.
    entries: u64,
}

/// What bytes at some place are worth.
enum Worth {
    /// Part of the log.
    Log,
    /// Behind all that was promised.
    Tail,
    /// Another segment has taken over before them.
    GivenUp,
}

impl Walk<'_> {
    fn worth(&self, at: Position) -> Worth {
        let Some(judged) = self.judged else { return Worth::Log };
        match judged.segments.iter().find(|(id, _)| *id == at.segment) {
            None => Worth::GivenUp,
            Some((_, Some(limit))) if at.offset >= *limit => Worth::GivenUp,
            Some((_, Some(_))) => Worth::Log,
            Some((_, None)) if at >= judged.vouched => Worth::Tail,
            Some((_, None)) => Worth::Log,
        }
    }

    fn segment(&mut self, segment: &SeenSegment) -> Result<()> {
        let mut fields: Vec<Field> = vec![
            ("file", format!("{FOLDER}/{}", segment.file).into()),
            ("bytes", json!(segment.bytes)),
            ("batches", json!(segment.batches.len())),
            ("used up to", json!(segment.batches.last().map_or(0, |batch| batch.end.offset))),
        ];
        fields.extend(segment.base.map(|base| ("takes over at", base.to_string().into())));
        if matches!(self.worth(Position { segment: segment.id, offset: 0 }), Worth::GivenUp) {
            fields.push(("note", "no part of the log any more".into()));
        }
        self.out.head("segment", &fields)?;
        let (mut expected, mut chain) = (0, None);
        for batch in &segment.batches {
            if batch.at.offset != expected {
                let what = format!("no intact batch header up to byte {}", batch.at.offset);
                self.wrong(segment, expected, &what)?;
                chain = None;
            }
            self.batch(segment, batch, chain)?;
            (expected, chain) = (batch.end.offset, Some(batch.chain.1));
        }
        Ok(())
    }

    /// Tells damage, or what looks like it where nothing was promised.
    fn wrong(&mut self, segment: &SeenSegment, offset: u64, what: &str) -> Result<()> {
        let file = format!("{FOLDER}/{}", segment.file);
        let note = match self.worth(Position { segment: segment.id, offset }) {
            Worth::Log => return Ok(self.out.damage(&file, Some(offset), what)?),
            Worth::Tail => "torn tail",
            Worth::GivenUp => "given up",
        };
        self.out.part(note, &[("offset", json!(offset)), ("what", what.into())])?;
        Ok(())
    }

    fn batch(&mut self, segment: &SeenSegment, batch: &SeenBatch, chain: Option<u32>) -> Result<()> {
        let (previous, _) = batch.chain;
        if let Some(wanted) = chain.filter(|wanted| *wanted != previous) {
            let what = format!("it follows a batch of sum {previous:08x}, but stands behind one of {wanted:08x}");
            self.wrong(segment, batch.at.offset, &what)?;
        }
        let Some(records) = &batch.records else {
            return self.wrong(segment, batch.at.offset, "the header is intact, its records are not");
        };
        let is_wanted = |record: &&Record| match record {
            Record::Entry(entry) => entry.index >= self.asked.from_index,
            _ => self.asked.from_index <= batch.last.0,
        };
        let wanted: Vec<&Record> = records.iter().filter(is_wanted).collect();
        let is_done = self.asked.is_enough(self.entries);
        let is_wanted_mark = records.is_empty() && self.asked.from_index <= batch.last.0;
        if is_done || (wanted.is_empty() && !is_wanted_mark) {
            return Ok(());
        }
        let kind = if records.is_empty() { "mark" } else { "batch" };
        let mut fields: Vec<Field> = vec![
            ("offset", json!(batch.at.offset)),
            ("bytes", json!(batch.end.offset - batch.at.offset)),
            ("boot", json!(batch.boot)),
            ("last", format!("{} in term {}", batch.last.0, batch.last.1).into()),
            ("durable", batch.durable.to_string().into()),
        ];
        match self.worth(batch.at) {
            Worth::GivenUp => fields.push(("note", "given up".into())),
            Worth::Tail => fields.push(("note", "not vouched for".into())),
            Worth::Log => {}
        }
        self.out.part(kind, &fields)?;
        for record in wanted {
            self.record(record)?;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        if self.asked.is_enough(self.entries) {
            return Ok(());
        }
        match record {
            Record::Entry(entry) => {
                self.entries += 1;
                self.entry(entry)
            }
            Record::HardState(state) => Ok(self.out.detail(
                "hard state",
                &[
                    ("term", json!(state.term)),
                    ("vote", format!("{:x}", state.vote).into()),
                    ("commit", json!(state.commit)),
                ],
            )?),
            Record::Snapshot { index, term } => {
                Ok(self.out.detail("snapshot", &[("index", json!(index)), ("term", json!(term))])?)
            }
            Record::Boot { counter } => Ok(self.out.detail("boot", &[("counter", json!(counter))])?),
            Record::Clean { applied } => Ok(self.out.detail("closed cleanly", &[("applied", json!(applied))])?),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        let kind = match entry.kind {
            EntryKind::Normal if entry.data.is_empty() => "leader begins",
            EntryKind::Normal => "commands",
            EntryKind::ConfChange | EntryKind::ConfChangeV2 => "members change",
        };
        let mut fields: Vec<Field> = vec![
            ("index", json!(entry.index)),
            ("term", json!(entry.term)),
            ("entry", kind.into()),
            ("bytes", json!(entry.data.len())),
        ];
        if kind != "commands" {
            return Ok(self.out.detail("entry", &fields)?);
        }
        match command::decode(&entry.data) {
            Ok(batch) => {
                fields.push(("member", format!("{:x}", batch.member).into()));
                fields.push(("its boot", json!(batch.boot)));
                fields.push(("number", json!(batch.number)));
                let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(batch.wall_ms).unwrap_or_default());
                fields.push(("at", telemetry::timestamp(at).into()));
                self.out.detail("entry", &fields)?;
                for command in &batch.commands {
                    let mut fields: Vec<Field> =
                        vec![("index", json!(entry.index)), ("does", line::command(command).into())];
                    // The line is cut where it is long; a program that compares logs needs all of it.
                    if self.out.is_json() {
                        fields.push(("message", line::hex(&command.encode_to_vec()).into()));
                    }
                    self.out.within("command", &fields)?;
                }
                Ok(())
            }
            Err(error) => {
                fields.push(("unreadable", error.to_string().into()));
                Ok(self.out.detail("entry", &fields)?)
            }
        }
    }
}
