//! The working store: how far it is, and whether it holds what its sums say.
//!
//! sled cannot open without writing (it cuts torn tails and leaves files of its own), so a copy is opened.

use super::asked::Asked;
use super::fact::Out;
use super::keys::Keys;
use super::snapshots;
use crate::store::sled::SledStore;
use anyhow::{Context, Result, bail};
use mechi_replica::store::applied::{Applied, Tally};
use mechi_replica::store::scan::RecordScan;
use serde_json::json;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of sled's cache.
const CACHE_BYTES: u64 = 64 << 20;

/// How long the store may take to open: it reads all of its files.
const OPEN_MAX: Duration = Duration::from_secs(300);

/// Bytes of records that are looked at together.
const SLICE_BYTES: usize = 4 << 20;

/// Prints the store in `folder`, made in the machine's boot `boot`.
pub(super) fn dump(boot: &str, folder: &Path, asked: &Asked, out: &mut Out) -> Result<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let now = crate::recovery::folder::machine_boot();
    let age = if boot == now { "this boot of the machine" } else { "an earlier boot of the machine" };
    out.head(
        "store",
        &[
            ("folder", name.clone().into()),
            ("made in", age.into()),
            ("bytes", json!(crate::recovery::folder::bytes(folder))),
        ],
    )?;
    let copy = Copy::make(folder).with_context(|| format!("copy {} to read it", folder.display()))?;
    let read = SledStore::open(&copy.0, CACHE_BYTES, OPEN_MAX).map_err(anyhow::Error::from).and_then(|store| {
        let read = contents(&store, asked, out);
        // Whatever closing says: it is a copy, and it goes.
        let _ = store.close();
        read
    });
    match read {
        Ok(()) => Ok(()),
        // The working store is rebuilt from the log and the snapshots: nothing is lost with it.
        Err(error) if error.is::<mechi_replica::outcome::Fatal>() => Ok(out.damage(&name, None, &error.to_string())?),
        Err(error) => Err(error),
    }
}

fn contents(store: &SledStore, asked: &Asked, out: &mut Out) -> Result<()> {
    let Some(applied) = Applied::load(&store)? else {
        out.part("applied record", &[("found", "none: a flush has never ended".into())])?;
        return Ok(());
    };
    snapshots::state(&applied.state(&store)?, out)?;
    snapshots::tally(&applied.tally, out)?;
    let (mut scan, mut tally, mut beyond, mut keys) = (RecordScan::all(), Tally::default(), 0u64, Keys::default());
    while let Some(entries) = scan.next_slice(&store, SLICE_BYTES)? {
        for entry in &entries {
            if entry.revision.main > applied.revision {
                beyond += 1;
                continue;
            }
            tally.add(entry);
            if asked.keys {
                keys.add(entry);
            }
        }
    }
    let is_right = tally == applied.tally;
    out.part(
        "found",
        &[
            ("records", json!(tally.records)),
            ("sum", if is_right { "right" } else { "WRONG" }.into()),
            ("of a flush that did not end", json!(beyond)),
        ],
    )?;
    if !is_right {
        out.damage("store", None, &format!("{:?} wanted, {tally:?} found", applied.tally))?;
    }
    if asked.keys {
        out.head("keys", &[("of", "the store".into()), ("count", json!(keys.len()))])?;
        keys.print(asked, out)?;
    }
    Ok(())
}

/// A copy of a folder in the temporary one; removed when dropped.
struct Copy(PathBuf);

impl Copy {
    fn make(from: &Path) -> Result<Self> {
        let free = (0..).map(|n| std::env::temp_dir().join(format!("mechi-dump-{}-{n}", std::process::id())));
        for to in free.take(1000) {
            match DirBuilder::new().mode(0o700).create(&to) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("create {}", to.display())),
                Ok(()) => {
                    let made = Self(to);
                    copy(from, &made.0)?;
                    return Ok(made);
                }
            }
        }
        bail!("the temporary folder is full of dumps")
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Nothing can be done about one that stays.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&to)?;
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}
