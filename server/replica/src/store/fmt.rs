//! Shows a store's keys and blocks, and what a snapshot consists of, to people: for scripts, dumps and errors.

use super::Store;
use super::applied::Applied;
use super::block::{self, Block, Entry};
use super::keys::{self, Key};
use crate::outcome::Fatal;
use crate::snapshot::manifest::Manifest;
use std::fmt::Write;

/// Writes a key in words; a foreign one in hexadecimal.
pub fn key(key: &[u8]) -> String {
    match keys::parse(key) {
        Some(Key::Records(revision)) => format!("records {revision}"),
        Some(Key::Part(revision, number)) => format!("record {revision} part {number}"),
        Some(Key::Applied) => "applied".to_string(),
        Some(Key::State(index, number)) => format!("state {index} part {number}"),
        None => format!("foreign {}", hex(key)),
    }
}

/// Writes a record: its revision, its key, and the value or how large it is.
pub fn entry(entry: &Entry) -> String {
    let Some(fields) = entry.record.fields() else { return format!("{} no record", entry.revision) };
    let name = text(fields.key);
    if entry.tombstone {
        return format!("{} delete {name}", entry.revision);
    }
    let value = match fields.value.len() {
        0..=32 => text(fields.value),
        bytes => format!("({bytes} bytes)"),
    };
    let lease = if fields.lease == 0 { String::new() } else { format!(" lease {:x}", fields.lease) };
    format!("{} put {name}={value} version {}{lease}", entry.revision, fields.version)
}

/// Writes a pair of the store; shape: one line, and an indented one for each record of a block.
pub fn pair(at: &[u8], value: &[u8]) -> String {
    let mut out = key(at);
    let rest = match keys::parse(at) {
        Some(Key::Records(_) | Key::Part(..)) => match block::decode(at, value) {
            Ok(Block::Run(run)) => {
                let mut lines = format!(": {} bytes, {} records", value.len(), run.count);
                for found in run.entries() {
                    let line = found.map_or_else(|error| error.to_string(), |found| entry(&found));
                    let _ = write!(lines, "\n  {line}");
                }
                Ok(lines)
            }
            Ok(Block::Part(part)) => Ok(format!(": {} bytes of {}", part.payload.len(), part.total)),
            Err(error) => Err(error),
        },
        Some(Key::Applied) => Applied::decode(value).map(|applied| {
            format!(
                ": index {} term {} revision {} compacted {}, {} records of {} bytes",
                applied.index,
                applied.term,
                applied.revision,
                applied.compact_revision,
                applied.tally.records,
                applied.tally.bytes
            )
        }),
        Some(Key::State(..)) | None => Ok(format!(": {} bytes", value.len())),
    };
    out.push_str(&rest.unwrap_or_else(|error| format!(": {error}")));
    out
}

/// Writes all of a store, one pair after the other.
pub fn store(store: &impl Store) -> Result<String, Fatal> {
    let mut out = String::new();
    store.scan(&[], &[0xff], &mut |key, value| {
        let _ = writeln!(out, "{}", pair(key, value));
        true
    })?;
    Ok(out)
}

/// Writes what a snapshot consists of; shape: one line, and an indented one for each chunk, with `shared` behind it if
/// `previous` holds it too.
pub fn manifest(manifest: &Manifest, previous: Option<&Manifest>) -> String {
    let Manifest { meta, tally, author, chunks } = manifest;
    let mut out = format!(
        "snapshot at index {} term {} by {author}: revision {} compacted {}, {} records of {} bytes\n",
        meta.applied_index, meta.applied_term, meta.revision, meta.compact_revision, tally.records, tally.bytes
    );
    for chunk in chunks {
        let shared = previous.is_some_and(|previous| previous.chunks.contains(chunk));
        let shared = if shared { ", shared" } else { "" };
        let _ = writeln!(out, "  chunk {}..={}: {} records{shared}", chunk.first, chunk.last, chunk.tally.records);
    }
    out
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
