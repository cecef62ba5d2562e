//! The snapshots: manifests, their chunks, and whether each is what was written.

use super::asked::Asked;
use super::disk::ReadOnly;
use super::fact::Out;
use super::keys::Keys;
use anyhow::Result;
use mechi_proto::mechipb::StateMeta;
use mechi_replica::disk::{self, join};
use mechi_replica::outcome::Fatal;
use mechi_replica::snapshot::manifest::{self, Manifest};
use mechi_replica::snapshot::{Reader, chunk};
use mechi_replica::store::applied::Tally;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::ErrorKind;

const FOLDER: &str = "snap";

/// Prints all snapshots, oldest first; the keys of `newest`, which is whole, if they are asked for.
pub(super) fn dump(disk: &ReadOnly, asked: &Asked, newest: Option<&Manifest>, out: &mut Out) -> Result<()> {
    let names = match mechi_replica::disk::Disk::list(disk, FOLDER) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut named = BTreeSet::new();
    let manifests: Vec<_> = names.iter().filter(|name| name.ends_with(manifest::SUFFIX)).collect();
    if manifests.is_empty() {
        out.head("snapshot", &[("found", "none".into())])?;
    }
    for name in manifests {
        let path = join(FOLDER, name);
        let read = disk::read(disk, &path).map_err(disk::fatal(format!("read {path}")));
        match read.and_then(|bytes| Manifest::decode(&bytes, &path)) {
            Ok(manifest) => {
                self::manifest(disk, &path, &manifest, out)?;
                named.extend(manifest.chunks.iter().map(chunk::Chunk::name));
            }
            Err(error) => damage(&path, &error, out)?,
        }
    }
    // Left over from a snapshot that was not finished, or not yet removed; harmless.
    for name in names.iter().filter(|name| name.ends_with(chunk::SUFFIX) && !named.contains(*name)) {
        out.head("chunk", &[("file", join(FOLDER, name).into()), ("note", "no manifest names it".into())])?;
    }
    if let Some(newest) = newest.filter(|_| asked.keys) {
        let (mut keys, mut reader) = (Keys::default(), Reader::new(disk, FOLDER, newest));
        while let Some(entries) = reader.next_chunk()? {
            entries.iter().for_each(|entry| keys.add(entry));
        }
        out.head("keys", &[("of", newest.name().into()), ("count", json!(keys.len()))])?;
        keys.print(asked, out)?;
    }
    Ok(())
}

fn manifest(disk: &ReadOnly, path: &str, manifest: &Manifest, out: &mut Out) -> Result<()> {
    out.head(
        "snapshot",
        &[
            ("file", path.into()),
            ("made by", format!("{:x}", manifest.author).into()),
            ("chunks", json!(manifest.chunks.len())),
            ("bytes", json!(manifest.bytes())),
        ],
    )?;
    state(&manifest.meta, out)?;
    tally(&manifest.tally, out)?;
    for chunk in &manifest.chunks {
        let path = join(FOLDER, &chunk.name());
        let read = disk::read(disk, &path).map_err(disk::fatal(format!("read {path}")));
        // Decoded, and not only summed: a chunk whose sum is right but whose records are not would be a bug to see.
        let found = read.and_then(|bytes| chunk::decode(chunk, &bytes, &path));
        out.part(
            "chunk",
            &[
                ("file", path.clone().into()),
                ("from", chunk.first.to_string().into()),
                ("to", chunk.last.to_string().into()),
                ("records", json!(chunk.tally.records)),
                ("bytes", json!(chunk.file_bytes)),
                ("sum", if found.is_ok() { "right" } else { "WRONG" }.into()),
            ],
        )?;
        if let Err(error) = found {
            damage(&path, &error, out)?;
        }
    }
    Ok(())
}

/// Prints the state beside keys and values.
pub(super) fn state(meta: &StateMeta, out: &mut Out) -> Result<()> {
    let members: Vec<_> =
        meta.members.iter().map(|member| format!("{:x} {}", member.id, member.name.escape_debug())).collect();
    let voters: Vec<_> =
        meta.conf_state.iter().flat_map(|state| state.voters.iter().map(|id| format!("{id:x}"))).collect();
    out.part(
        "state",
        &[
            ("applied", format!("{} in term {}", meta.applied_index, meta.applied_term).into()),
            ("revision", json!(meta.revision)),
            ("compacted at", json!(meta.compact_revision)),
            ("cluster", format!("{:x}", meta.cluster_id).into()),
            ("members", members.join(", ").into()),
            ("voters", voters.join(", ").into()),
            ("leases", json!(meta.leases.len())),
            ("alarms", json!(meta.alarms.len())),
        ],
    )?;
    Ok(())
}

/// Prints how many records there are.
pub(super) fn tally(tally: &Tally, out: &mut Out) -> Result<()> {
    let sum = format!("{:016x}", tally.sum);
    out.part("records", &[("count", json!(tally.records)), ("bytes", json!(tally.bytes)), ("sum", sum.into())])?;
    Ok(())
}

fn damage(path: &str, error: &Fatal, out: &mut Out) -> Result<()> {
    match error {
        Fatal::Corrupt { file, offset, detail, .. } => out.damage(file, Some(*offset), detail)?,
        other => out.damage(path, None, &other.to_string())?,
    }
    Ok(())
}
