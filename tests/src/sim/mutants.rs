//! Known bugs, put back one at a time: which seed finds each, how soon, and by which rule.

use super::campaign::across;
use super::{Keep, run};
use mechi_replica::mutants::{BUGS, Bug, with};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

/// Seeds within which each known bug must be found.
pub const SEEDS_MAX: u64 = 1_000;

/// Characters of a finding that are shown.
const FINDING_MAX: usize = 110;

/// Parts of a second in which Linux counts a process's time.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one seed found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// After how many milliseconds of simulated time.
    pub after_ms: u64,
    /// What it said.
    pub text: String,
}

/// The hunt for one bug.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// What was put back.
    pub bug: Bug,
    /// The least seed that found it; `None` if none did.
    pub found: Option<Found>,
    /// What that took of the processors, in seconds: the same on a busy machine as on an idle one.
    pub seconds: f64,
}

impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, seconds) = (self.bug.name, self.seconds);
        match &self.found {
            Some(found) => write!(f, "{name}: seed {}, {seconds:.1} s: {}", found.seed, found.text),
            None => write!(f, "{name}: nobody noticed within {SEEDS_MAX} seeds, {seconds:.1} s"),
        }
    }
}

/// The bugs that the simulator can meet.
fn hunted() -> Vec<Bug> {
    BUGS.iter().filter(|bug| bug.by_simulator).copied().collect()
}

/// Whether a seed finds a bug; a run that was merely too quiet found nothing.
fn finds(bug: Bug, seed: u64) -> Option<Found> {
    let report = with(bug.name, || run(seed, Keep::Nothing));
    let text = report.finding()?.chars().take(FINDING_MAX).collect();
    let after_ms = report.broken.as_ref().map_or(0, |(at, _)| at / 1_000);
    Some(Found { seed, after_ms, text })
}

/// Looks for one bug, seed by seed.
pub fn hunt(bug: Bug, threads: usize) -> Hunt {
    let (began, least) = (spent(), Mutex::new(None::<Found>));
    across(0..SEEDS_MAX, threads, |seed| {
        let Some(found) = finds(bug, seed) else { return true };
        let mut least = least.lock().expect("no run panics outside of itself");
        if least.as_ref().is_none_or(|other| seed < other.seed) {
            *least = Some(found);
        }
        false
    });
    let found = least.into_inner().expect("no run panics outside of itself");
    Hunt { bug, found, seconds: spent() - began }
}

/// Looks for all bugs that the simulator can meet, one after the other; tells each result.
pub fn hunt_all(threads: usize, tell: &mut dyn FnMut(&Hunt)) -> Vec<Hunt> {
    let hunts = hunted().into_iter().map(|bug| {
        let hunt = hunt(bug, threads);
        tell(&hunt);
        hunt
    });
    hunts.collect()
}

/// The same, but each bug is first given the seed that a table says finds it: only for those that it misses all are tried.
pub fn hunt_known(known: &BTreeMap<String, u64>, threads: usize, tell: &mut dyn FnMut(&Hunt)) -> Vec<Hunt> {
    let bugs = hunted();
    let caught = Mutex::new(BTreeMap::new());
    across(0..bugs.len() as u64, threads, |place| {
        let bug = bugs[place as usize];
        if let Some(found) = known.get(bug.name).and_then(|seed| finds(bug, *seed)) {
            caught.lock().expect("no run panics outside of itself").insert(bug.name, found);
        }
        true
    });
    let mut caught = caught.into_inner().expect("no run panics outside of itself");
    let hunts = bugs.into_iter().map(|bug| {
        let hunt = match caught.remove(bug.name) {
            Some(found) => Hunt { bug, found: Some(found), seconds: 0.0 },
            None => hunt(bug, threads),
        };
        tell(&hunt);
        hunt
    });
    hunts.collect()
}

/// What this process has taken of the processors, in seconds; 0 where that is not told.
fn spent() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program may hold blanks; what follows it does not.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields = after.split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// The hunts as a table in Markdown.
pub fn table(hunts: &[Hunt]) -> String {
    let caught = hunts.iter().filter(|hunt| hunt.found.is_some()).count();
    let mut out = format!(
        "# Known bugs, put back one at a time\n\n\
         Made by `cargo mutants-table`: {caught} of {} caught by the simulator, each within {SEEDS_MAX} seeds. The seed is the \
         least one that finds the bug; `cargo run -p mechi-tests --features mutants --bin sim -- --seed N --mutant NAME` repeats \
         it, `--shrink` makes it smaller, `--page FILE` draws it. `after` is simulated time within that seed, `took` the \
         processors' time for all seeds up to it. `cargo mutants-sim` begins with these seeds.\n\n\
         | bug | what is wrong | seed | after | took | what was noticed |\n| --- | --- | ---: | ---: | ---: | --- |\n",
        hunts.len()
    );
    for Hunt { bug, found, seconds } in hunts {
        let (seed, after, text) = match found {
            Some(found) => {
                let text = found.text.replace('|', "\\|").replace('\n', " ");
                (found.seed.to_string(), format!("{:.1} s", found.after_ms as f64 / 1_000.0), text)
            }
            None => ("none".to_owned(), String::new(), "**nothing**".to_owned()),
        };
        out.push_str(&format!("| `{}` | {} | {seed} | {after} | {seconds:.1} s | {text} |\n", bug.name, bug.wrong));
    }
    out.push_str("\nWhat can be seen in one member alone is also, or only, found by its crash images (`cargo mutants-check`):\n\n");
    for bug in BUGS.iter().filter(|bug| bug.by_images) {
        out.push_str(&format!("- `{}`: {}\n", bug.name, bug.wrong));
    }
    out
}

/// The seeds that a table names, by bug.
pub fn known(table: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next()?.trim_matches('`').to_owned();
        Some((name, cells.nth(1)?.parse().ok()?))
    };
    table.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let text = "W5: |a|\nb".to_owned();
        let found = Some(Found { seed: 17, after_ms: 2_340, text });
        let missed = Hunt { bug: BUGS[1], found: None, seconds: 9.0 };
        let table = table(&[Hunt { bug: BUGS[0], found, seconds: 1.5 }, missed]);
        assert_eq!(known(&table), BTreeMap::from([(BUGS[0].name.to_owned(), 17)]), "{table}");
        assert!(table.contains("1 of 2 caught") && table.contains("**nothing**"), "{table}");
    }
}
