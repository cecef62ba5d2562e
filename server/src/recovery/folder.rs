//! The data directory and the store folders in it: whose they are, how they are set aside, and how they are synced.

use crate::failpoint::failpoint;
use anyhow::{Context, Result, bail};
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How the name of a store's folder begins; the boot of the machine follows.
const STORE: &str = "store-";

/// How the name of a store that was set aside begins.
const ASIDE: &str = "aside-";

/// How the name of a store begins that is kept for people to look at; the index of the divergence follows.
const EVIDENCE: &str = "evidence-";

/// Makes sure that the data directory is there, is ours alone, and is not another program's.
///
/// - Errors: a sentence that says what is wrong and what to do.
pub fn check_data_dir(dir: &Path) -> Result<()> {
    let shown = dir.display();
    match fs::metadata(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
            DirBuilder::new().mode(0o700).create(dir).with_context(|| format!("create {shown}"))?;
            sync_dir(parent)?;
        }
        Err(error) => return Err(error).with_context(|| format!("look at data directory {shown}")),
        Ok(found) if !found.is_dir() => bail!("data directory {shown} is not a directory"),
        Ok(found) => {
            let own = effective_user();
            if found.uid() != own {
                bail!("data directory {shown} belongs to user {}, this process runs as user {own}", found.uid());
            }
            if found.mode() & 0o077 != 0 {
                let mode = found.mode() & 0o777;
                bail!("data directory {shown} has mode {mode:o}: others could read the data; run chmod 700 {shown}");
            }
        }
    }
    if dir.join("member/snap/db").exists() {
        bail!(
            "data directory {shown} holds etcd's own database (member/snap/db), which is never touched: \
             give another --data-dir and copy the data with a client"
        );
    }
    Ok(())
}

fn effective_user() -> u32 {
    // A directory of /proc belongs to the process's effective user; this needs no unsafe call.
    fs::metadata("/proc/self").map_or(0, |found| found.uid())
}

/// Names this boot of the machine.
///
/// If the system does not tell, the name is one that never comes again, so that no store is trusted after a restart.
pub fn machine_boot() -> String {
    match fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) if !id.trim().is_empty() => id.trim().to_string(),
        _ => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            format!("unknown-{}-{}", std::process::id(), now.as_nanos())
        }
    }
}

/// The folder of the store of this boot.
pub fn store_path(member: &Path, boot: &str) -> PathBuf {
    member.join(format!("{STORE}{boot}"))
}

/// Lists the store folders: the boot that each was made in, and its path.
pub fn stores(member: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for path in entries(member)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(boot) = name.strip_prefix(STORE) {
            found.push((boot.to_string(), path.clone()));
        }
    }
    found.sort();
    Ok(found)
}

/// Lists the stores that were set aside.
pub fn aside(member: &Path) -> Result<Vec<PathBuf>> {
    let mut found = entries(member)?;
    found.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(ASIDE)));
    Ok(found)
}

/// Renames a store's folder, so that it is never opened again; durable when it returns.
pub fn set_aside(member: &Path, folder: &Path) -> Result<()> {
    let taken = aside(member)?;
    let free = (0..).map(|n| member.join(format!("{ASIDE}{n}"))).find(|path| !taken.contains(path));
    let to = free.expect("some number is free");
    failpoint!("rebuild_before_swap");
    fs::rename(folder, &to).with_context(|| format!("set {} aside", folder.display()))?;
    failpoint!("rebuild_after_swap");
    sync_dir(member)
}

/// Removes all stores that were set aside; returns the bytes that were freed.
pub fn remove_aside(member: &Path) -> Result<u64> {
    let mut freed = 0;
    for path in aside(member)? {
        freed += bytes(&path);
        fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(freed)
}

/// Lists the stores that were kept as evidence, with their age.
pub fn evidence(member: &Path) -> Result<Vec<(PathBuf, Duration)>> {
    let mut found = Vec::new();
    for path in entries(member)? {
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(EVIDENCE)) {
            let changed = fs::metadata(&path).and_then(|found| found.modified());
            let changed = changed.with_context(|| format!("look at {}", path.display()))?;
            found.push((path, changed.elapsed().unwrap_or_default()));
        }
    }
    Ok(found)
}

/// Renames the store's folder to evidence of a divergence at `index`, in the place of any older evidence; durable when
/// it returns. `None` if there is no store.
pub fn keep_evidence(member: &Path, index: u64) -> Result<Option<PathBuf>> {
    remove_evidence(member)?;
    let Some((_, store)) = stores(member)?.pop() else { return Ok(None) };
    let to = member.join(format!("{EVIDENCE}{index}"));
    fs::rename(&store, &to).with_context(|| format!("set {} aside", store.display()))?;
    // A rename leaves the folder's own time: its age counts from now on.
    File::open(&to)
        .and_then(|folder| folder.set_modified(SystemTime::now()))
        .with_context(|| format!("date {}", to.display()))?;
    sync_dir(member)?;
    Ok(Some(to))
}

/// Removes the evidence; returns the bytes that were freed.
pub fn remove_evidence(member: &Path) -> Result<u64> {
    let mut freed = 0;
    for (path, _) in evidence(member)? {
        freed += bytes(&path);
        fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(freed)
}

/// Bytes of all files below a folder, as far as they can be read.
pub fn bytes(folder: &Path) -> u64 {
    let Ok(found) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    found.flatten().map(size).sum()
}

/// Makes everything below a folder durable, and its own name; a folder that is not there has nothing to lose.
pub fn sync_all(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for path in entries(folder)? {
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).with_context(|| format!("sync {}", path.display()))?;
        }
    }
    sync_dir(folder)?;
    folder.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("sync {}", dir.display()))
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    list().with_context(|| format!("list {}", dir.display()))
}
