//! Files of a stopped member that are damaged, lost, or not there: it may refuse to start, it may repair itself, it may
//! never lie. One that refuses gets its own bytes back, as they were when it stopped, so that it has forgotten nothing.

use super::damage::{Damage, used_bytes};
use super::harm::Harm;
use crate::cluster::{Cluster, Comes};
use anyhow::{Context, Result, ensure};
use mechi_checker::edn::Edn;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a member may take to say whether it starts on what it finds.
const SAYS_WITHIN: Duration = Duration::from_secs(10);

/// The end of a log that may not be vouched for yet: a member that was killed cannot tell damage there from a write that
/// was cut short (docs/formats.md says which place is vouched for).
const UNVOUCHED_BYTES: u64 = 256 << 10;

/// Which files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Wal,
    Snapshot,
    Store,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Wal => "corrupt-wal",
            Self::Snapshot => "corrupt-snapshot",
            Self::Store => "corrupt-store",
        }
    }

    /// Its files, with the bytes of each that mean something; the emptiest are left out.
    fn files(self, data_dir: &Path) -> Result<Vec<(PathBuf, u64)>> {
        let member = data_dir.join("member");
        let all = walk(&member)?;
        let below = |path: &Path| path.strip_prefix(&member).map(Path::to_path_buf).unwrap_or_default();
        let mine = all.into_iter().filter(|path| {
            let (below, kind) = (below(path), path.extension().and_then(|kind| kind.to_str()));
            match self {
                Self::Wal => below.starts_with("wal") && kind == Some("wal"),
                Self::Snapshot => below.starts_with("snap"),
                Self::Store => below.to_str().is_some_and(|below| below.starts_with("store-")),
            }
        });
        let mut files = Vec::new();
        for path in mine {
            let bytes = used_bytes(&path)?;
            if bytes > 0 {
                files.push((path, bytes));
            }
        }
        Ok(files)
    }
}

/// Damages some places of a stopped victim's files, starts it, and gives it its bytes back if it refuses.
pub(super) async fn corrupt(harm: &mut Harm<'_>, part: Part) -> Result<()> {
    let (cluster, n) = (harm.cluster, harm.victim());
    let in_order = harm.rng.chance(50);
    harm.begin(part.name(), harm.each(&[n], if in_order { "stopped" } else { "killed" }));
    cluster.allow_end(n, true);
    tokio::task::block_in_place(|| if in_order { cluster.stop(n) } else { cluster.kill(n).map(drop) })?;
    let data_dir = cluster.data_dir(n);
    let whole = Kept::copy(cluster, n)?;
    let mut files = tokio::task::block_in_place(|| part.files(&data_dir))?;
    if part == Part::Wal && !in_order {
        // Names of segments are numbers of one length; the newest is the last, and only its end is not vouched for.
        files.sort();
        if let Some((_, bytes)) = files.last_mut() {
            *bytes = bytes.saturating_sub(UNVOUCHED_BYTES);
        }
        files.retain(|(_, bytes)| *bytes > 0);
    }
    let (mut said, mut is_damaged) = (Vec::new(), false);
    if !files.is_empty() {
        for _ in 0..1 + harm.rng.below(3) {
            let (path, bytes) = harm.rng.pick(&files).clone();
            let damage = Damage::draw(&mut harm.rng, bytes);
            // An earlier damage may have cut the file before this place.
            let bytes_now = std::fs::metadata(&path)?.len();
            if bytes_now < bytes {
                continue;
            }
            is_damaged |= damage.act(&path)?;
            let name = path.strip_prefix(&data_dir).unwrap_or(&path).display().to_string();
            said.push(Edn::text(format!("{name}: {damage}")));
        }
    }
    harm.begin(&format!("{}-done", part.name()), Edn::Vector(said));
    come_back(harm, n, &whole, part.name(), is_damaged).await
}

/// Removes a stopped victim's working store.
pub(super) async fn lose_engine(harm: &mut Harm<'_>) -> Result<()> {
    let (cluster, n) = (harm.cluster, harm.victim());
    harm.begin("engine-lost", harm.each(&[n], "lost"));
    cluster.kill(n)?;
    let whole = Kept::copy(cluster, n)?;
    let member = cluster.data_dir(n).join("member");
    let mut lost = false;
    for entry in std::fs::read_dir(&member).with_context(|| format!("list {}", member.display()))? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("store-")) {
            std::fs::remove_dir_all(&path)?;
            lost = true;
        }
    }
    come_back(harm, n, &whole, "engine-lost", lost).await
}

/// Starts a member whose files were changed; one that refuses gets back what it had.
async fn come_back(harm: &mut Harm<'_>, n: usize, whole: &Kept, f: &str, is_changed: bool) -> Result<()> {
    let (cluster, name) = (harm.cluster, harm.cluster.name(n).to_owned());
    harm.hold(0..500).await;
    cluster.spawn(n)?;
    cluster.allow_end(n, true);
    let comes = cluster.serves_within(n, SAYS_WITHIN).await;
    cluster.allow_end(n, false);
    match comes {
        Comes::Serves if is_changed => harm.effect(format!("{name} serves all the same ({f})")),
        Comes::Serves => {}
        Comes::Ended(status) => {
            let log = cluster.log(n);
            let why = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
            harm.begin(&format!("{f}-refused"), harm.one(n, why));
            if f == "engine-lost" || f == "corrupt-store" {
                cluster.accuse(n, &format!("does not start without its working store: {status}"));
            } else if is_changed {
                harm.effect(format!("{name} refused what was damaged ({f})"));
            } else {
                cluster.accuse(n, &format!("refused files that nobody changed: {status}"));
            }
            whole.restore(cluster, n)?;
            cluster.spawn(n)?;
        }
        Comes::Late => harm.begin(&format!("{f}-late"), harm.each(&[n], "late")),
    }
    harm.undone(f);
    harm.hold(300..2_000).await;
    Ok(())
}

/// A victim starts on an empty directory: it must be refused, or it could vote a second time.
pub(super) async fn wipe(harm: &mut Harm<'_>) -> Result<()> {
    let (cluster, n) = (harm.cluster, harm.victim());
    let name = cluster.name(n).to_owned();
    harm.begin("wipe", harm.each(&[n], "wiped"));
    cluster.kill(n)?;
    let whole = Kept::copy(cluster, n)?;
    empty(&cluster.data_dir(n))?;
    cluster.spawn(n)?;
    cluster.allow_end(n, true);
    match cluster.serves_within(n, SAYS_WITHIN).await {
        Comes::Serves => cluster.accuse(n, "serves under its old identity with an empty data directory"),
        Comes::Ended(_) => harm.effect(format!("{name} was refused without its data")),
        // Nobody could tell it whether it is known: it waits.
        Comes::Late => harm.begin("wipe-late", harm.each(&[n], "late")),
    }
    cluster.kill(n)?;
    whole.restore(cluster, n)?;
    cluster.spawn(n)?;
    harm.undone("wipe");
    harm.hold(300..2_000).await;
    Ok(())
}

/// A stopped member's data as it was.
struct Kept {
    folder: PathBuf,
}

impl Kept {
    fn copy(cluster: &Cluster, n: usize) -> Result<Self> {
        let folder = cluster.folder().join(format!("{}.kept", cluster.name(n)));
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir(&folder)?;
        copy(&cluster.data_dir(n), &folder)?;
        Ok(Self { folder })
    }

    fn restore(&self, cluster: &Cluster, n: usize) -> Result<()> {
        ensure!(!cluster.is_running(n), "only a stopped member's files are given back");
        empty(&cluster.data_dir(n))?;
        copy(&self.folder, &cluster.data_dir(n))
    }
}

/// Copies what is in one folder into another; what was never written takes no space there either.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let ran = tokio::task::block_in_place(|| {
        Command::new("cp").args(["-a", "--sparse=always"]).arg(from.join(".")).arg(to).output()
    })?;
    ensure!(ran.status.success(), "cp: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(())
}

/// Removes what is in a folder; the folder stays, since it may be a disk.
fn empty(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
    }
    Ok(())
}

/// Every file below a folder, in order.
fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_its_own_files() {
        let home = tempfile::tempdir().expect("a folder");
        let all = ["wal/01.wal", "wal/02.free", "snap/7.snap", "snap/7-0.chunk", "store-abc/db", "identity"];
        for path in all.map(|path| home.path().join("member").join(path)) {
            std::fs::create_dir_all(path.parent().expect("has one")).expect("is made");
            std::fs::write(path, "something").expect("writes");
        }
        let names = |part: Part| {
            let files = part.files(home.path()).expect("lists");
            let name = |(path, _): (PathBuf, u64)| path.file_name().expect("a file").to_string_lossy().into_owned();
            files.into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(Part::Wal), ["01.wal"]);
        assert_eq!(names(Part::Snapshot), ["7-0.chunk", "7.snap"]);
        assert_eq!(names(Part::Store), ["db"]);
        empty(home.path()).expect("removes");
        assert!(home.path().exists() && walk(home.path()).expect("lists").is_empty());
    }
}
