//! Many seeds of the simulator: every promise is kept, a seed is its run, and known bugs do not go unseen.

use mechi_tests::sim::{Keep, across, run};
use std::process::Command;
use std::sync::Mutex;

/// Seeds in each run of the tests; `cargo sim --seeds A..B` runs any others.
const SEEDS: u64 = 500;

/// Of them, those that are run again in a process of their own.
const SEEDS_TWICE: u64 = 20;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[test]
fn every_promise_is_kept_over_five_hundred_seeds() {
    let broken = Mutex::new(Vec::new());
    let sums = Mutex::new([0; 7]);
    across(0..SEEDS, threads(), |seed| {
        let report = run(seed, Keep::Nothing);
        let stats = &report.stats;
        let counts =
            [stats.operations, stats.ok, stats.unknown, stats.faults, stats.installs, stats.watched, stats.moves];
        let mut sums = sums.lock().expect("no thread panics");
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        if let Some((at, text)) = report.broken {
            let line = format!("{}\n  at {at} us: {text}\n  again: cargo sim --seed {seed}", report.options);
            broken.lock().expect("no thread panics").push(line);
        }
        true
    });
    let [operations, ok, unknown, faults, installs, watched, moves] = *sums.lock().expect("no thread panics");
    println!(
        "{SEEDS} seeds: {operations} operations, {ok} ok, {unknown} unknown, {faults} faults with effect, {installs} \
         snapshots installed, {watched} watch events, {moves} membership changes"
    );
    let broken = broken.into_inner().expect("no thread panics");
    assert!(broken.is_empty(), "{} of {SEEDS} seeds are broken:\n{}", broken.len(), broken.join("\n"));
}

/// The hash is over every event of the run, so equal hashes are equal runs.
#[test]
fn a_seed_gives_the_same_run_in_another_process() {
    across(0..SEEDS_TWICE, threads(), |seed| {
        let here = run(seed, Keep::Nothing);
        let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(["--seed", &seed.to_string()]).output();
        let output = output.expect("the simulator's own program");
        let text = String::from_utf8_lossy(&output.stdout);
        let wanted = here.stats.to_string();
        assert!(text.contains(&wanted), "seed {seed} went another way: wanted {wanted}, got {text}");
        true
    });
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::{across, run, threads};
    use mechi_replica::mutants::{CLUSTER_NAMES, with};
    use mechi_tests::sim::Keep;
    use std::sync::Mutex;

    /// Seeds within which each known bug must be found.
    const SEEDS_MAX: u64 = 200;

    #[test]
    fn each_known_bug_is_caught() {
        // A panic of raft's own is a finding as good as any; its text would only hide the list.
        std::panic::set_hook(Box::new(|_| {}));
        let mut missed = Vec::new();
        for name in CLUSTER_NAMES.iter().chain(&["ack_before_fsync"]) {
            let found = Mutex::new(None);
            across(0..SEEDS_MAX, threads(), |seed| {
                let report = with(name, || run(seed, Keep::Nothing));
                let finding = report.finding().map(|text| (seed, text.chars().take(160).collect::<String>()));
                let mut found = found.lock().expect("no thread panics");
                if found.is_none() {
                    *found = finding;
                }
                found.is_none()
            });
            match found.into_inner().expect("no thread panics") {
                Some((seed, text)) => println!("{name}: seed {seed}: {text}"),
                None => missed.push(*name),
            }
        }
        let _ = std::panic::take_hook();
        assert!(missed.is_empty(), "nobody noticed within {SEEDS_MAX} seeds: {missed:?}");
    }
}
