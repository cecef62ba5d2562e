//! What a person reads of many runs: one HTML file without scripts, in which everything is.

mod chart;
mod page;
mod run;

use anyhow::{Context, Result};
use run::Run;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes the report of all runs in `root`, or in folders below it, to `out`.
///
/// - Shape: a run is a folder with `options.edn`; one without a verdict, or that cannot be read, is shown as such.
pub fn write(root: &Path, out: &Path) -> Result<()> {
    let mut dirs = Vec::new();
    find(root, 2, &mut dirs)?;
    dirs.sort();
    let runs: Vec<Run> = dirs.iter().map(|dir| Run::read(dir)).collect();
    fs::write(out, page::html(&runs)).with_context(|| format!("write {}", out.display()))
}

/// Finds the folders of runs, `depth` levels down.
fn find(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if dir.join(crate::judge::OPTIONS).is_file() {
        found.push(dir.to_owned());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
