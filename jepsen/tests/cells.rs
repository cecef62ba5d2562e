//! Six cells of the matrix, chosen by the commit: real processes, faults, checkers, one after the other.
//!
//! `MECHI_CELLS=append/all,watch/kill` chooses others, `MECHI_CELL_SECONDS` their length, `MECHI_CELL_SEED` what they draw.

use mechi_checker::verdict::Verdict;
use mechi_jepsen::cell::{self, CellOptions};
use mechi_jepsen::matrix::{self, Cell};
use mechi_jepsen::workload::PAUSE_MS;
use mechi_tests::process::Kind;
use mechi_tests::usage;
use std::path::Path;

/// How often a cell is run that saw too little: the machine may have much else to do. The last time it is a warning.
const TRIES: u64 = 2;

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn cells() -> Vec<Cell> {
    match std::env::var("MECHI_CELLS") {
        Ok(list) => list.split(',').map(|cell| matrix::parse_cell(cell).expect("WORKLOAD/NEMESIS,…")).collect(),
        Err(_) => matrix::of_commit(&cell::commit(), Kind::Mechi),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cells_of_this_commit() {
    let home = tempfile::tempdir().expect("a folder");
    for (workload, nemesis) in cells() {
        for attempt in 0..TRIES {
            let options = CellOptions {
                workload,
                nemesis,
                seconds: variable("MECHI_CELL_SECONDS", 30),
                server: "mechi".to_owned(),
                members: 3,
                seed: variable("MECHI_CELL_SEED", 11) + attempt,
                pause_ms: PAUSE_MS,
                dir: home.path().join(format!("{workload}-{nemesis}-{attempt}")),
            };
            let results = match cell::run(&options).await {
                Ok(results) => results,
                Err(error) => panic!("{}: {error:#}", options.command()),
            };
            println!("{}: {}", matrix::word(&results), options.command());
            matrix::print_findings(&results);
            match results.verdict() {
                Verdict::Valid => break,
                Verdict::Unknown(why) if attempt + 1 == TRIES => {
                    eprintln!("warning: {} said nothing: {}", options.command(), why.join("; "));
                }
                Verdict::Unknown(_) => {}
                Verdict::Invalid(_) => {
                    // On a machine that goes away afterwards, what a person needs is in the output.
                    println!("{}", ends_of_logs(&options.dir));
                    println!("everything is kept in {}", home.keep().display());
                    panic!("{}: {}", options.command(), results.to_edn());
                }
            }
        }
    }
}

/// The last lines of each member's log.
fn ends_of_logs(dir: &Path) -> String {
    let mut out = String::new();
    for entry in std::fs::read_dir(dir.join("logs")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let skip = text.lines().count().saturating_sub(60);
        out.extend(text.lines().skip(skip).map(|line| format!("{}: {line}\n", entry.file_name().to_string_lossy())));
    }
    out
}

#[test]
fn the_command_says_what_it_takes_and_refuses_the_rest() {
    let jepsen = Path::new(env!("CARGO_BIN_EXE_jepsen"));
    usage::helps(jepsen, &["run"], &["--workload", "--nemesis", "--seconds", "[default: 30]", "--server", "--seed"]);
    usage::helps(jepsen, &["matrix"], &["--resume", "--cells", "--of-commit"]);
    usage::refuses(
        jepsen,
        &[
            ("run --workload nothing", "invalid value 'nothing' for '--workload <NAME>': nothing is no workload"),
            ("run --nemesis kil", "invalid value 'kil' for '--nemesis <NAME>': it must be one of none, kill,"),
            ("run --seconds 1", "invalid value '1' for '--seconds <N>'"),
            (
                "matrix --cells register",
                "invalid value 'register' for '--cells <W/N,...>': it must be WORKLOAD/NEMESIS",
            ),
            ("matrix --of-commit", "a value is required for '--of-commit <HASH>'"),
        ],
    );
}
