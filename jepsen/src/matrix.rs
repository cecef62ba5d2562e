//! Many cells, one after the other: a campaign that can be interrupted and resumed, and the few cells of one commit.

use crate::cell::{self, CellOptions};
use crate::cluster::Program;
use crate::limits::ROTATING_CELLS;
use crate::nemesis::Nemesis;
use crate::report;
use crate::workload::Workload;
use anyhow::{Context, Result};
use mechi_checker::verdict::{Results, Verdict};
use mechi_tests::process::Kind;
use mechi_tests::rng::Rng;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A workload under a nemesis.
pub type Cell = (Workload, Nemesis);

/// Which cells, and how.
#[derive(Clone, Debug)]
pub struct MatrixOptions {
    /// In this order.
    pub cells: Vec<Cell>,
    /// Cells that have a verdict already are left out.
    pub resume: bool,
    /// Seconds of each cell.
    pub seconds: u64,
    /// The server, as it was named.
    pub server: String,
    /// Members of each cluster.
    pub members: usize,
    /// The first cell's; each has its own.
    pub seed: u64,
    /// Milliseconds between two operations of each client.
    pub pause_ms: u64,
    /// Where the cells' folders go.
    pub out: PathBuf,
}

/// What became of a campaign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Cells in which nothing was wrong.
    pub valid: usize,
    /// Cells with a finding, or without a verdict.
    pub wrong: Vec<String>,
    /// Cells that did not come to a verdict, and why.
    pub failed: Vec<String>,
    /// Cells that had one before.
    pub resumed: usize,
}

impl Summary {
    /// Whether everything that ran was valid.
    pub fn is_valid(&self) -> bool {
        self.wrong.is_empty() && self.failed.is_empty()
    }
}

/// All cells that can be run against a server of this kind, so ordered that the first few touch every workload and every
/// nemesis.
pub fn all(kind: Kind) -> Vec<Cell> {
    let (workloads, nemeses) = (Workload::ALL, Nemesis::ALL);
    let diagonal =
        |shift: usize| (0..nemeses.len()).map(move |n| (workloads[(n + shift) % workloads.len()], nemeses[n]));
    (0..workloads.len()).flat_map(diagonal).filter(|(_, nemesis)| nemesis.impossible(kind).is_none()).collect()
}

/// The cells of one commit: no workload and no nemesis twice; which ones, only its hash decides.
pub fn of_commit(commit: &str, kind: Kind) -> Vec<Cell> {
    // Needs a server of its own, which a quick run does not have.
    let mut left: Vec<Cell> = all(kind).into_iter().filter(|(_, nemesis)| *nemesis != Nemesis::Failpoint).collect();
    let seed = commit
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut rng = Rng::new(seed);
    let mut cells = Vec::new();
    while cells.len() < ROTATING_CELLS && !left.is_empty() {
        let (workload, nemesis) = *rng.pick(&left);
        left.retain(|(one, other)| *one != workload && *other != nemesis);
        cells.push((workload, nemesis));
    }
    cells
}

/// Reads `workload/nemesis`.
pub fn parse_cell(text: &str) -> Result<Cell, String> {
    let (workload, nemesis) = text.split_once('/').ok_or("it must be WORKLOAD/NEMESIS")?;
    Ok((workload.parse()?, nemesis.parse()?))
}

/// Runs the cells and writes the report of all that are in the folder, also after each cell.
///
/// - Errors: the folder or the report cannot be written. A cell that fails is counted, and the next one runs.
pub async fn run(options: &MatrixOptions) -> Result<Summary> {
    std::fs::create_dir_all(&options.out).with_context(|| format!("create {}", options.out.display()))?;
    let mut summary = Summary::default();
    for (number, (workload, nemesis)) in options.cells.iter().enumerate() {
        let name = format!("{workload}-{nemesis}");
        let dir = options.out.join(&name);
        if options.resume && dir.join("results.edn").exists() {
            summary.resumed += 1;
            continue;
        }
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
        let began = Instant::now();
        let cell = CellOptions {
            workload: *workload,
            nemesis: *nemesis,
            seconds: options.seconds,
            server: options.server.clone(),
            members: options.members,
            seed: options.seed + number as u64,
            pause_ms: options.pause_ms,
            dir,
        };
        let place = format!("{:3}/{}", number + 1, options.cells.len());
        match cell::run(&cell).await {
            Ok(results) => {
                println!("{place} {name:32} {:7} {:4.0?}", word(&results), began.elapsed());
                print_findings(&results);
                match results.verdict() {
                    Verdict::Valid => summary.valid += 1,
                    _ => summary.wrong.push(name),
                }
            }
            Err(error) => {
                println!("{place} {name:32} failed: {error:#}");
                summary.failed.push(name);
            }
        }
        report::write(&options.out, &report_path(&options.out)).context("write the report")?;
    }
    Ok(summary)
}

/// Where the report of a campaign is.
pub fn report_path(root: &Path) -> PathBuf {
    root.join("report.html")
}

/// A verdict in one word.
pub fn word(results: &Results) -> &'static str {
    match results.verdict() {
        Verdict::Valid => "valid",
        Verdict::Unknown(_) => "unknown",
        Verdict::Invalid(_) => "INVALID",
    }
}

/// Prints what is wrong, and what is open.
pub fn print_findings(results: &Results) {
    for (checker, verdict) in results.each() {
        match verdict {
            Verdict::Valid => {}
            Verdict::Unknown(why) => why.iter().for_each(|why| println!("    {checker}: unknown: {why}")),
            Verdict::Invalid(findings) => findings.iter().for_each(|finding| println!("    {checker}: {finding}")),
        }
    }
}

/// The server that the name stands for, to know which cells there are.
pub fn kind_of(server: &str) -> Result<Kind> {
    Ok(Program::find(server)?.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_cell_is_there_once_and_the_first_touch_everything() {
        let cells = all(Kind::Mechi);
        assert_eq!(cells.len(), Workload::ALL.len() * Nemesis::ALL.len());
        let different: BTreeSet<String> = cells.iter().map(|(one, other)| format!("{one}/{other}")).collect();
        assert_eq!(different.len(), cells.len());
        let first = &cells[..Nemesis::ALL.len()];
        assert_eq!(first.iter().map(|(_, nemesis)| *nemesis).collect::<BTreeSet<_>>().len(), Nemesis::ALL.len());
        let names: BTreeSet<String> = first.iter().map(|(workload, _)| workload.to_string()).collect();
        assert_eq!(names.len(), Workload::ALL.len());
        assert!(all(Kind::Etcd).len() < cells.len());
        assert_eq!(parse_cell("register/kill"), Ok((Workload::Register, Nemesis::Kill)));
        assert!(parse_cell("register").is_err() && parse_cell("register/kil").is_err());
    }

    #[test]
    fn the_cells_of_a_commit_are_its_own_and_rotate() {
        let cells = of_commit("9f8de40", Kind::Mechi);
        assert_eq!(cells.len(), ROTATING_CELLS);
        assert_eq!(cells, of_commit("9f8de40", Kind::Mechi));
        assert_ne!(cells, of_commit("9f8de41", Kind::Mechi));
        let touched = (0..300).flat_map(|n| of_commit(&format!("{n:x}"), Kind::Mechi));
        let touched: BTreeSet<String> = touched.map(|(one, other)| format!("{one}/{other}")).collect();
        assert!(touched.len() > 200, "{}", touched.len());
    }
}
